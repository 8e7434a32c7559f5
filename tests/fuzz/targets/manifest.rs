//! A component as it comes from a registry: its bytes, or the manifest in a component that exports every kind.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use mortise::plugin::fuzzing::misfits;
use mortise::plugin::inspect_component;
use mortise_fuzz::{verify_printable, verify_printed};
use serde_json::Value;

/// Exports an instance of each kind, and nothing else.
static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let kinds = ["mortise:preflight/check", "mortise:discovery/source", "mortise:approval/hook"];
    let exports = kinds.map(|kind| format!("(export \"{kind}@0.1.0\" (instance $empty))"));
    wat::parse_str(format!("(component (instance $empty) {})", exports.concat())).unwrap()
});
const SECTION: &str = "mortise:manifest";
/// Between a manifest and settings for its schema.
const SETTINGS: &str = "\n---\n";

fuzz_target!(|data: &[u8]| -> Corpus {
    if data.starts_with(b"\0asm") {
        inspect(data);
        return Corpus::Keep;
    }
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    let (manifest, settings) = text.split_once(SETTINGS).unwrap_or((text, "{}"));
    let mut component = COMPONENT.clone();
    component.push(0);
    leb(&mut component, 1 + SECTION.len() + manifest.len());
    component.push(u8::try_from(SECTION.len()).unwrap());
    component.extend_from_slice(SECTION.as_bytes());
    component.extend_from_slice(manifest.as_bytes());
    if let Some(schema) = inspect(&component)
        && let Ok(Value::Object(settings)) = serde_json::from_str(settings)
    {
        let misfits = misfits(&schema, &settings).expect("the schema of a manifest that was taken");
        assert!(misfits.len() <= 20);
    }
    Corpus::Keep
});

/// The schema of its settings.
fn inspect(component: &[u8]) -> Option<Value> {
    let seen = match inspect_component("fuzzed", component) {
        Ok(seen) => seen,
        Err(error) => {
            // `main` prints errors as they are, one line for each line of a YAML reader's excerpt.
            error.to_string().lines().for_each(verify_printable);
            return None;
        }
    };
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
    assert!(seen.id.as_deref().is_none_or(plain) && plain(&seen.version), "{seen:?}");
    assert!(!seen.kinds.is_empty() && seen.limits.memory_bytes <= 256 << 20, "{seen:?}");
    assert!((1..=60_000).contains(&seen.limits.time_ms), "{seen:?}");
    assert!(seen.id.is_some() || seen.grants.is_empty(), "grants without a manifest");
    for request in &seen.requests {
        assert!(!request.reason.trim().is_empty(), "{request:?}");
        for text in [Some(&request.grant), Some(&request.reason), request.flag.as_ref()].into_iter().flatten() {
            verify_printable(text);
        }
    }
    seen.title.iter().chain(&seen.licence).for_each(|text| verify_printable(text));
    serde_json::to_string(&seen).expect("an inspection is written as JSON");
    verify_printed(&seen.grants);
    seen.settings
}

/// As WebAssembly writes a length.
fn leb(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    out.push(number as u8);
}
