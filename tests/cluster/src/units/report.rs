//! What `systemctl cat`, `show` and `status` print about a service.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::journal::LOG_DIRECTORY;
use super::service::{Ending, Phase, Service, title};
use super::systemctl::{Request, is_enabled};

pub(super) fn cat(service: &Service) -> Result<String> {
    let mut text = String::new();
    for file in &service.unit.files {
        let content = fs::read_to_string(file).with_context(|| format!("reading `{}`", file.display()))?;
        text.push_str(&format!("{}# {}\n{content}", if text.is_empty() { "" } else { "\n" }, file.display()));
    }
    Ok(text)
}

pub(super) fn show(service: &Service, request: &Request) -> String {
    let unit = &service.unit;
    let (active, sub) = service.phase.names();
    let (pid, ending) = service.last.unwrap_or((0, None));
    let (code, status) = match ending {
        Some(Ending::Exited(status)) => (1, status),
        Some(Ending::Killed(signal)) => (2, signal),
        None => (0, 0),
    };
    let drop_ins: Vec<_> = unit.files[1..].iter().map(|file| file.display().to_string()).collect();
    let properties = [
        ("Id", format!("{}.service", unit.name)),
        ("Names", format!("{}.service", unit.name)),
        ("Description", unit.description.clone()),
        ("LoadState", "loaded".into()),
        ("ActiveState", active.into()),
        ("SubState", sub.into()),
        ("UnitFileState", if is_enabled(&unit.name) { "enabled" } else { "disabled" }.into()),
        ("FragmentPath", unit.files[0].display().to_string()),
        ("DropInPaths", drop_ins.join(" ")),
        ("Type", if unit.notifies { "notify" } else { "simple" }.into()),
        ("RestartUSec", format!("{}ms", unit.restart_delay.as_millis())),
        ("Result", ending.map_or("success", Ending::result).into()),
        ("NRestarts", service.restarts.to_string()),
        ("MainPID", service.main.unwrap_or(0).to_string()),
        ("ExecMainPID", pid.to_string()),
        ("ExecMainCode", code.to_string()),
        ("ExecMainStatus", status.to_string()),
    ];
    select(&properties, request)
}

pub(super) fn select(properties: &[(&str, String)], request: &Request) -> String {
    let wanted = |name: &str| request.properties.is_empty() || request.properties.iter().any(|wanted| wanted == name);
    properties
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| if request.value_only { format!("{value}\n") } else { format!("{name}={value}\n") })
        .collect()
}

pub(super) fn status(service: &Service) -> String {
    let unit = &service.unit;
    let (active, sub) = service.phase.names();
    let mark = match service.phase {
        Phase::Active => '●',
        Phase::Failed => '×',
        _ => '○',
    };
    let enabled = if is_enabled(&unit.name) { "enabled" } else { "disabled" };
    let mut text = format!("{mark} {}\n     Loaded: loaded ({}; {enabled})\n", title(unit), unit.files[0].display());
    if !unit.files[1..].is_empty() {
        let names: Vec<_> = unit.files[1..].iter().map(|file| file.display().to_string()).collect();
        text.push_str(&format!("    Drop-In: {}\n", names.join(", ")));
    }
    let result = match service.last.and_then(|(_, ending)| ending) {
        Some(ending) if !ending.is_clean() => format!(" ({sub}) (Result: {})", ending.result()),
        _ => format!(" ({sub})"),
    };
    text.push_str(&format!("     Active: {active}{result}\n"));
    if let Some((pid, Some(ending))) = service.last {
        let (code, number) = match ending {
            Ending::Exited(number) => ("exited", number),
            Ending::Killed(number) => ("killed", number),
        };
        text.push_str(&format!("    Process: {pid} (code={code}, status={number})\n"));
    }
    if let Some(main) = service.main {
        text.push_str(&format!("   Main PID: {main}\n"));
    }
    let journal = fs::read(Path::new(LOG_DIRECTORY).join(format!("{}.journal", unit.name))).unwrap_or_default();
    let journal = String::from_utf8_lossy(&journal);
    let lines: Vec<&str> = journal.lines().collect();
    text.push('\n');
    for line in &lines[lines.len().saturating_sub(10)..] {
        text.push_str(line.splitn(4, ' ').nth(3).unwrap_or_default());
        text.push('\n');
    }
    text
}
