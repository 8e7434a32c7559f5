//! What the host asks a plugin, in the host's own types.
//!
//! The host process never runs guest code. It starts itself as a *runner* (module `runner`), an unprivileged process
//! with one socket, and serves what the guest asks for through the *broker*, which checks every grant and treats the
//! runner as hostile.

use serde::Serialize;

use crate::config::IgnoredChecks;

mod answers;
mod ask;
mod bindings;
mod broker;
mod child;
mod code;
pub mod commands;
mod compiler;
mod confine;
mod convert;
mod csr;
mod dial;
mod embed;
mod engine;
mod error;
mod explain;
mod exports;
pub mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod grants;
mod guest;
mod hook;
mod http;
mod inspect;
#[cfg(feature = "faults")]
mod intruder;
mod judge;
mod kind;
pub mod leaks;
mod limits;
pub mod lock;
mod manifest;
mod namespaces;
mod native;
pub mod policy;
mod probe;
mod process;
mod report;
mod runner;
#[cfg(feature = "faults")]
mod scout;
mod secret;
mod session;
mod shown;
mod source;
mod stage;
mod stdio;
pub mod store;
mod syscalls;
pub mod walls;
mod wire;

pub use answers::Verdict;
pub use ask::{AskError, Asked, EndingKind};
pub use compiler::compile_into;
pub use csr::{CertificateRequest, CsrError};
pub use embed::{EmbedError, embed};
pub use error::{PluginError, Unfit};
pub use explain::{Reach, Target, Withheld, explain, withheld};
pub use hook::Judgement;
pub use inspect::{AskedLimits, Inspection, Request, inspect, inspect_component, read_component};
pub use kind::Kind;
pub use limits::COMPONENT_BYTES;
pub use manifest::{Interfaces, interfaces};
pub use process::{LaunchError, Launcher, run_as_helper};
pub use shown::ShownAnswer;
pub use source::{FoundCluster, FoundCredential, FoundSecret, FoundTrust};
pub use stage::{CheckContext, PluginDigest, Plugins};

/// When a check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Before the cluster is contacted.
    Node,
    /// When the cluster's configuration is known.
    Cluster,
    /// When the node has joined.
    Joined,
}

impl Stage {
    /// A few words for a person.
    pub fn title(self) -> &'static str {
        match self {
            Self::Node => "checks of this machine",
            Self::Cluster => "checks that need the cluster",
            Self::Joined => "checks of the joined node",
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The join goes on.
    Warning,
    /// The join stops unless the check is ignored by name.
    Error,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// As the plugin said.
    pub severity: Severity,
    /// One line, printable.
    pub message: String,
    /// Names and values the judgement rests on.
    pub evidence: Vec<(String, String)>,
    /// What to run or change.
    pub remedy: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Nothing found.
    Passed,
    /// Warnings, or errors that the operator ignores by name.
    Warned,
    /// Errors: the join stops.
    Failed,
    /// Does not apply here.
    Skipped,
}

/// Which of three endings a check had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Answer {
    /// The plugin answered.
    Report,
    /// The plugin broke: trap, limit, deadline, malformed answer.
    Broke {
        /// For example `trap`, `deadline`, `memory`.
        reason: String,
    },
    /// The host failed, for instance could not start a runner.
    HostFailed,
}

/// The outcome of one check, after the operator's ignore list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    /// Check id, as `--ignore-preflight-errors` takes it.
    pub id: String,
    /// A few words.
    pub title: String,
    /// Plugin name and version, `name@version`.
    pub plugin: String,
    /// When it ran.
    pub stage: Stage,
    /// After the ignore list.
    pub status: CheckStatus,
    /// Whether errors were made warnings by the ignore list.
    pub ignored: bool,
    /// Which of the three endings.
    pub answer: Answer,
    /// Why it was skipped.
    pub skipped: Option<String>,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
    /// What was looked at.
    pub evidence: Vec<(String, String)>,
    /// Requests to the host that no grant covered.
    pub denied: u32,
    /// Milliseconds the check took, host calls included.
    pub took_ms: u64,
}

impl CheckResult {
    /// A check of the host's own, in stage [`Stage::Cluster`], with nothing found yet.
    pub(crate) fn of_host(id: &str, title: &str) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            plugin: concat!("mortise@", env!("CARGO_PKG_VERSION")).to_owned(),
            stage: Stage::Cluster,
            status: CheckStatus::Passed,
            ignored: false,
            answer: Answer::Report,
            skipped: None,
            findings: Vec::new(),
            evidence: Vec::new(),
            denied: 0,
            took_ms: 0,
        }
    }

    /// With the status that its findings come to, after the operator's ignore list.
    pub(crate) fn weighed(mut self, ignore: &IgnoredChecks) -> Self {
        let failed = self.findings.iter().any(|finding| finding.severity == Severity::Error);
        self.ignored = failed && ignore.covers(&self.id);
        self.status = match (failed, self.ignored, self.findings.is_empty(), &self.skipped) {
            (true, false, ..) => CheckStatus::Failed,
            (_, _, false, _) => CheckStatus::Warned,
            (_, _, true, Some(_)) => CheckStatus::Skipped,
            (_, _, true, None) => CheckStatus::Passed,
        };
        self
    }

    /// Whether it stops the join.
    pub fn failed(&self) -> bool {
        self.status == CheckStatus::Failed
    }

    /// The lines for a person: kubeadm's `[WARNING Name]: text` and `[ERROR Name]: text`, then evidence and remedy.
    pub fn lines(&self) -> Vec<String> {
        if self.findings.is_empty() {
            let why = self.skipped.as_deref().map_or("ok".to_owned(), |why| format!("skipped, {why}"));
            return vec![format!("\t[OK {}]: {why}", self.id)];
        }
        let mut lines = Vec::new();
        for finding in &self.findings {
            let label = match finding.severity {
                Severity::Error if !self.ignored => "ERROR",
                _ => "WARNING",
            };
            lines.push(format!("\t[{label} {}]: {}", self.id, finding.message));
            lines.extend(finding.evidence.iter().map(|(name, value)| format!("\t    {name}: {value}")));
            lines.extend(finding.remedy.iter().map(|remedy| format!("\t    remedy: {remedy}")));
        }
        lines
    }
}
