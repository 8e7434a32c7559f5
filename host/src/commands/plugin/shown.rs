//! How an inspection and an explanation are printed.

use std::fmt::Write as _;

use serde::Serialize;

use crate::output::printable;
use crate::plugin::leaks::Leak;
use crate::plugin::{Inspection, Reach, Withheld};

/// An inspection with where it was read from and what is known of its signature, as one JSON object.
pub(super) fn inspection_json(seen: &Inspection, from: Option<&str>, signer: Option<&str>) -> String {
    let mut json = serde_json::to_value(seen).expect("texts and numbers are written as JSON");
    json["from"] = from.into();
    json["signer"] = signer.into();
    json.to_string()
}

/// The same for a person.
pub(super) fn inspection_text(seen: &Inspection, from: Option<&str>, signer: Option<&str>) -> String {
    let mut text = String::new();
    let kinds: Vec<&str> = seen.kinds.iter().map(|kind| kind.name()).collect();
    let id = seen.id.as_deref().unwrap_or("no manifest");
    let _ = writeln!(text, "{id} {} ({})", seen.version, kinds.join(", "));
    for (name, value) in [("title", &seen.title), ("licence", &seen.licence), ("needs mortise", &seen.min_host)] {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name}: {value}");
        }
    }
    if let Some(from) = from {
        let _ = writeln!(text, "  from: {from}");
    }
    let _ = writeln!(text, "  digest: {}", seen.digest);
    let _ = writeln!(text, "  signer: {}", signer.unwrap_or("none known"));
    let limits = &seen.limits;
    let _ = writeln!(
        text,
        "  limits: {} MiB of memory, {} ms of computing a call",
        limits.memory_bytes >> 20,
        limits.time_ms
    );
    text.push_str(if seen.requests.is_empty() { "wants nothing\n" } else { "wants\n" });
    for request in &seen.requests {
        let optional = if request.optional { " (optional)" } else { "" };
        let unknown = if request.known { "" } else { " (not known to this host)" };
        let _ = writeln!(text, "  {}{optional}{unknown}\n      {}", request.grant, request.reason);
    }
    write_leaks(&mut text, "if all of that is granted, it", &seen.leaks);
    if seen.settings.is_some() {
        text.push_str("has settings: their schema is in `-o json`\n");
    }
    text
}

/// Reach of a plugin.
#[derive(Serialize)]
pub(super) struct Explained {
    /// `name@version`.
    pub(super) plugin: String,
    pub(super) reaches: Vec<Reach>,
    pub(super) leaks: Vec<Leak>,
    pub(super) withheld: Vec<Withheld>,
}

impl Explained {
    /// One object.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are written as JSON")
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let nothing = if self.reaches.is_empty() { " nothing" } else { "" };
        let _ = writeln!(text, "{} could reach{nothing}", printable(&self.plugin));
        for reach in &self.reaches {
            let _ = writeln!(text, "  {}", printable(&reach.grant));
            for target in &reach.targets {
                let not = if target.reachable { "" } else { "not now: " };
                let _ = writeln!(text, "      {}: {not}{}", printable(&target.name), printable(&target.note));
            }
            if reach.more > 0 {
                let _ = writeln!(text, "      and {} more", reach.more);
            }
        }
        write_leaks(&mut text, "with that it", &self.leaks);
        if !self.withheld.is_empty() {
            text.push_str("does not get\n");
        }
        for one in &self.withheld {
            let optional = if one.optional { "optional; " } else { "" };
            let flag = one.flag.as_deref().map(|flag| format!(" with {flag}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "  {}\n      {optional}{} would have to allow it{}",
                printable(&one.grant),
                one.by,
                printable(&flag)
            );
        }
        text
    }
}

fn write_leaks(text: &mut String, who: &str, leaks: &[Leak]) {
    for leak in leaks {
        let _ = writeln!(text, "{who} {} [{}]", printable(&leak.text), leak.kind);
    }
}
