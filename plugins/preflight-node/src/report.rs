//! Building reports and findings. The types are the WIT's own, so that nothing is converted.
//!
//! Texts are taken as `Display` and written in one place, which keeps each judge small.

use std::fmt::{self, Display};

use crate::bindings::exports::mortise::preflight::check::{Finding, Report, Severity};

impl Finding {
    /// Stops the join unless ignored by name.
    pub fn error(message: impl Display) -> Self {
        Self::new(Severity::Error, format_args!("{message}"))
    }

    /// The join goes on.
    pub fn warning(message: impl Display) -> Self {
        Self::new(Severity::Warning, format_args!("{message}"))
    }

    #[inline(never)]
    fn new(severity: Severity, message: fmt::Arguments<'_>) -> Self {
        Self { severity, message: message.to_string(), evidence: Vec::new(), remedy: None, extra: Vec::new() }
    }

    /// Adds a value that the judgement rests on.
    #[must_use]
    pub fn seen(mut self, name: &str, value: impl Display) -> Self {
        note(&mut self.evidence, name, format_args!("{value}"));
        self
    }

    /// Says what to run or change.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }
}

impl Report {
    /// Nothing found yet.
    pub fn passed() -> Self {
        Self { skipped: None, findings: Vec::new(), evidence: Vec::new(), extra: Vec::new() }
    }

    /// One finding and nothing else.
    pub fn of(finding: Finding) -> Self {
        Self::passed().with(finding)
    }

    /// Adds a value that was looked at.
    #[must_use]
    pub fn seen(mut self, name: &str, value: impl Display) -> Self {
        note(&mut self.evidence, name, format_args!("{value}"));
        self
    }

    /// Adds a finding.
    #[must_use]
    pub fn with(mut self, finding: Finding) -> Self {
        self.findings.push(finding);
        self
    }
}

/// Separated by blanks.
pub fn words(words: &[String]) -> String {
    words.join(" ")
}

#[inline(never)]
fn note(evidence: &mut Vec<(String, String)>, name: &str, value: fmt::Arguments<'_>) {
    evidence.push((name.to_owned(), value.to_string()));
}

#[cfg(test)]
impl Report {
    /// Severity and message of each finding, for assertions.
    pub(crate) fn told(&self) -> Vec<(Severity, &str)> {
        self.findings.iter().map(|finding| (finding.severity, finding.message.as_str())).collect()
    }
}
