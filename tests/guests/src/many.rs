//! Many checks that do the same: small work on small settings, for the bench. The helper and the script it is compared
//! with (`benches/plugins/check.c`, `check.sh`) answer the same.

use crate::bindings::exports::mortise::preflight::check::{CheckInfo, Error, Finding, Report, Severity, Stage};
use crate::bindings::mortise::host::settings;

/// As many as the settings say.
pub(crate) fn list() -> Vec<CheckInfo> {
    let count = number(&settings::get(), "count").unwrap_or_default();
    let check = |index| CheckInfo {
        id: format!("many-{index}"),
        title: "the driver is new enough".into(),
        stage: Stage::Node,
        severity: Severity::Error,
    };
    (0..count).map(check).collect()
}

/// Whether the driver is of the oldest branch that is good enough, or newer.
pub(crate) fn check() -> Result<Report, Error> {
    let settings = settings::get();
    let driver = text(&settings, "driver").unwrap_or_default();
    let branch: u64 = driver.split('.').next().and_then(|branch| branch.parse().ok()).unwrap_or_default();
    let oldest = number(&settings, "oldest").unwrap_or_default();
    let finding = || Finding {
        severity: Severity::Error,
        message: format!("driver {driver} is older than branch {oldest}"),
        evidence: Vec::new(),
        remedy: text(&settings, "remedy").map(Into::into),
        extra: Vec::new(),
    };
    Ok(Report {
        findings: if branch < oldest { vec![finding()] } else { Vec::new() },
        evidence: vec![
            ("driver".into(), driver.into()),
            ("product".into(), text(&settings, "product").unwrap().into()),
        ],
        skipped: None,
        extra: Vec::new(),
    })
}

/// What follows a key.
fn value<'a>(settings: &'a str, key: &str) -> Option<&'a str> {
    Some(settings.split_once(&format!("\"{key}\":"))?.1.trim_start())
}

fn number(settings: &str, key: &str) -> Option<u64> {
    value(settings, key)?.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
}

fn text<'a>(settings: &'a str, key: &str) -> Option<&'a str> {
    value(settings, key)?.strip_prefix('"')?.split('"').next()
}
