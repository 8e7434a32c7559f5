//! From how a call ended to what the operator reads: the failure policy of preflight.
//!
//! The plugin said no: its findings. The plugin broke: an error finding, never a pass. The host failed: an error finding
//! that says so. A request that was denied makes an error of a check that would have passed, unless the manifest calls the
//! grant optional. An ignored check only warns, whatever it is.

use super::grants::{Denial, DeniedBy};
use super::report::{CheckInfo, Report, verify_checks};
use super::session::Ended;
use super::wire::{Export, Outcome};
use super::{Answer, CheckResult, CheckStatus, Finding, Severity, Stage};
use crate::config::IgnoredChecks;
use crate::output::printable;

/// Whose checks are judged, and how.
pub(super) struct Subject<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) stage: Stage,
    pub(super) ignore: &'a IgnoredChecks,
}

/// Why a plugin has no runner.
pub(super) enum NotStarted {
    /// Its own fault.
    Plugin(String),
    /// Not its fault.
    Host(String),
}

impl Subject<'_> {
    fn full_name(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// The result of a plugin whose checks are not even known.
    pub(super) fn not_started(&self, failure: NotStarted) -> CheckResult {
        let (answer, message) = match failure {
            NotStarted::Plugin(message) => (Answer::Broke { reason: "load".into() }, message),
            NotStarted::Host(message) => (Answer::HostFailed, message),
        };
        let message = format!("plugin `{}`: {message}", self.full_name());
        self.plugin_result(answer, vec![error(message)], &[])
    }

    /// The list of checks, or the one result that stands for the plugin.
    pub(super) fn listed(&self, ended: Ended) -> Result<Vec<CheckInfo>, Box<CheckResult>> {
        let (reason, message) = match ended.outcome {
            Outcome::Checks(checks) => match verify_checks(&checks) {
                Ok(()) => {
                    let printed = checks.into_iter().map(|it| CheckInfo { title: printable(&it.title), ..it });
                    return Ok(printed.collect());
                }
                Err(message) => ("oversized".into(), message),
            },
            Outcome::Broke { reason, message } => (reason, message),
            Outcome::Report(_) | Outcome::Unable(_) | Outcome::Cluster(_) | Outcome::Judgement(_) => {
                ("protocol".into(), "it answered something else".into())
            }
        };
        let message = self.broke(&Export::ListChecks, &message);
        let answer = Answer::Broke { reason: printable(&reason) };
        Err(Box::new(self.plugin_result(answer, vec![error(message)], &ended.denials)))
    }

    /// The result of one check.
    pub(super) fn checked(&self, check: &CheckInfo, ended: Ended) -> CheckResult {
        let export = Export::RunCheck(check.id.clone());
        let broke = |reason: String, message: String| {
            let finding = error(self.broke(&export, &message));
            (Answer::Broke { reason: printable(&reason) }, Report::default(), vec![finding])
        };
        let (answer, report, mut findings) = match ended.outcome {
            Outcome::Report(report) => match report.verify() {
                Ok(()) => (Answer::Report, report, Vec::new()),
                Err(message) => broke("oversized".into(), message),
            },
            Outcome::Unable(it) => {
                let code = it.code.chars().take(64).collect::<String>();
                let text = format!("the check could not be made: {code}: {}", truncated(&it.message));
                (Answer::Report, Report::default(), vec![error(text)])
            }
            Outcome::Broke { reason, message } => broke(reason, message),
            Outcome::Checks(_) | Outcome::Cluster(_) | Outcome::Judgement(_) => {
                broke("protocol".into(), "it answered something else".into())
            }
        };
        findings.extend(report.findings.into_iter().map(|finding| Finding {
            severity: finding.severity,
            message: printable(&finding.message),
            evidence: printed(finding.evidence.into_iter().chain(finding.extra)),
            remedy: finding.remedy.as_deref().map(printable),
        }));
        let missing: Vec<&Denial> = ended.denials.iter().filter(|denial| !denial.optional).collect();
        if let Some(first) = missing.first()
            && !findings.iter().any(|finding| finding.severity == Severity::Error)
        {
            findings.push(error(format!("the check was denied what it asked for: {}", first.message())));
        }
        if let Some(finding) = findings.iter_mut().find(|finding| finding.severity == Severity::Error) {
            name_missing(finding, &missing);
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let result = CheckResult {
            id: check.id.clone(),
            title: check.title.clone(),
            plugin: self.full_name(),
            stage: check.stage,
            status: CheckStatus::Passed,
            ignored: false,
            answer,
            skipped: report.skipped.as_deref().map(printable),
            findings,
            evidence: printed(report.evidence.into_iter().chain(report.extra)),
            denied: ended.denied,
            took_ms: u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX),
        };
        result.weighed(self.ignore)
    }

    /// Plugin, version, export and check, then what was seen.
    fn broke(&self, export: &Export, message: &str) -> String {
        let of = match export {
            Export::ListChecks | Export::Discover | Export::Review(_) => String::new(),
            Export::RunCheck(id) => format!(" for `{id}`"),
        };
        format!("plugin `{}` broke in `{}`{of}: {}", self.full_name(), export.name(), truncated(message))
    }

    fn plugin_result(&self, answer: Answer, mut findings: Vec<Finding>, denials: &[Denial]) -> CheckResult {
        if let Some(finding) = findings.first_mut() {
            name_missing(finding, &denials.iter().collect::<Vec<_>>());
        }
        let result = CheckResult {
            id: format!("Plugin-{}", self.name),
            title: "the plugin can be run".into(),
            plugin: self.full_name(),
            stage: self.stage,
            status: CheckStatus::Passed,
            ignored: false,
            answer,
            skipped: None,
            findings,
            evidence: Vec::new(),
            denied: u32::try_from(denials.len()).unwrap_or(u32::MAX),
            took_ms: 0,
        };
        result.weighed(self.ignore)
    }
}

/// Adds the grant lines that were missing, as evidence and, where nothing better is known, as remedy.
fn name_missing(finding: &mut Finding, missing: &[&Denial]) {
    let lines = missing.iter().filter_map(|denial| denial.line.as_deref());
    finding.evidence.extend(lines.map(|line| ("missing grant".into(), printable(line))));
    let asked = missing.iter().filter(|it| it.by == DeniedBy::Operator);
    let flags: Vec<&str> = asked.filter_map(|it| it.flag.as_deref()).collect();
    if finding.remedy.is_none() && !flags.is_empty() {
        finding.remedy = Some(printable(&format!("allow it with {}", flags.join(" "))));
    }
}

fn error(message: String) -> Finding {
    Finding { severity: Severity::Error, message: printable(&message), evidence: Vec::new(), remedy: None }
}

fn printed(pairs: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (printable(&name), printable(&value))).collect()
}

/// A text from a runner, at most as long as a finding's.
pub(super) fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(super::limits::TEXT_BYTES)]
}
