//! What a check answers, with the bounds its WIT promises. Runner and host both check them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::limits::{CHECKS, EVIDENCE, FINDINGS, REPORT_BYTES, TEXT_BYTES};
use super::{Severity, Stage};

/// Largest id, as for Kubernetes names.
const ID_BYTES: usize = 253;
/// Largest title.
const TITLE_BYTES: usize = 200;

/// `check-info` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckInfo {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) stage: Stage,
    pub(super) severity: Severity,
}

/// Names and values.
pub(super) type Pairs = Vec<(String, String)>;

/// `report` of the WIT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    pub(super) skipped: Option<String>,
    pub(super) findings: Vec<ReportedFinding>,
    pub(super) evidence: Pairs,
    pub(super) extra: Pairs,
}

/// `finding` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportedFinding {
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) evidence: Pairs,
    pub(super) remedy: Option<String>,
    pub(super) extra: Pairs,
}

/// Which promise of the WIT an answer breaks.
pub(super) type Oversize = String;

/// Checks a list of checks.
pub(super) fn verify_checks(checks: &[CheckInfo]) -> Result<(), Oversize> {
    if checks.len() > CHECKS {
        return Err(format!("{} checks; {CHECKS} are allowed", checks.len()));
    }
    let mut seen = HashSet::new();
    for check in checks {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if check.id.is_empty() || check.id.len() > ID_BYTES || !check.id.bytes().all(plain) {
            let shown: String = check.id.chars().take(60).collect();
            return Err(format!(
                "the check id `{}` is not 1 to {ID_BYTES} bytes of `[A-Za-z0-9._-]`",
                shown.escape_debug()
            ));
        }
        if check.title.len() > TITLE_BYTES {
            return Err(format!(
                "the title of `{}` has {} bytes; {TITLE_BYTES} are allowed",
                check.id,
                check.title.len()
            ));
        }
        if !seen.insert(check.id.to_ascii_lowercase()) {
            return Err(format!("the check id `{}` is there twice", check.id));
        }
    }
    Ok(())
}

impl Report {
    /// Checks every count and length.
    pub(super) fn verify(&self) -> Result<(), Oversize> {
        count("findings", self.findings.len(), FINDINGS)?;
        let mut total = text("the reason to skip", self.skipped.as_deref().unwrap_or_default())?;
        total += pairs(&self.evidence)? + pairs(&self.extra)?;
        for finding in &self.findings {
            total +=
                text("a message", &finding.message)? + text("a remedy", finding.remedy.as_deref().unwrap_or_default())?;
            total += pairs(&finding.evidence)? + pairs(&finding.extra)?;
        }
        if total > REPORT_BYTES {
            return Err(format!("a report of {total} bytes; {REPORT_BYTES} are allowed"));
        }
        Ok(())
    }
}

pub(super) fn pairs(pairs: &Pairs) -> Result<usize, Oversize> {
    count("evidence entries", pairs.len(), EVIDENCE)?;
    let mut total = 0;
    for (name, value) in pairs {
        total += text("an evidence name", name)? + text("an evidence value", value)?;
    }
    Ok(total)
}

fn count(what: &str, found: usize, most: usize) -> Result<(), Oversize> {
    if found > most { Err(format!("{found} {what}; {most} are allowed")) } else { Ok(()) }
}

pub(super) fn text(what: &str, text: &str) -> Result<usize, Oversize> {
    if text.len() > TEXT_BYTES {
        return Err(format!("{what} of {} bytes; {TEXT_BYTES} are allowed", text.len()));
    }
    Ok(text.len())
}
