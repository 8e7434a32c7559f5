//! Compares a machine with the record of its join.
//!
//! The record's last word on each path is what should be there. What the kubelet may change is no drift: the link to
//! its certificate, which it moves when it rotates it. What a control plane runs is asked, too (`control_plane`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::api::Dialer;
use crate::error::Diagnose;
use crate::join::kubelet_config;
use crate::join::kubelet_start::{CONFIG, UNIT};
use crate::join::tls_bootstrap::CURRENT_PEM;
use crate::journal::{Effect, JOURNAL_PATH, Journal, JournalError, Record, State, UsedPlugin};
use crate::node::{Journalless, Machine, Node, NodeError, sha256_hex};
use crate::output::printable;

mod control_plane;

/// Largest file that is compared.
const LIMIT_BYTES: u64 = 64 << 20;
/// What the kubelet calls its client certificates.
const ROTATED_PREFIX: &str = "kubelet-client-";

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// A path (without `--root`), `unit kubelet`, `health` or `record`; on a control plane a component's name, too.
    pub subject: String,
    /// What the record says.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// What was compared and how it came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The Node.
    pub node_name: String,
    /// Its cluster's API server when it joined, if the join came so far.
    pub server: Option<String>,
    /// Plugins that answered the checks of its join.
    pub plugins: Vec<UsedPlugin>,
    /// Things compared.
    pub checked: usize,
    /// Differences, in the order of their paths.
    pub drift: Vec<Drift>,
}

impl Report {
    /// For people: a line a difference, then a summary.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Drift { subject, expected, found } in &self.drift {
            // Writing to a string cannot fail.
            let line = printable(&format!("{subject}: expected {expected}, found {found}"));
            let _ = writeln!(text, "{line}");
        }
        let verdict = match self.drift.len() {
            0 => "as joined".to_owned(),
            count => format!("{count} differ"),
        };
        let _ = writeln!(text, "node `{}`: {} compared, {verdict}", self.node_name, self.checked);
        text
    }

    /// [`VerifyError::Drift`] if anything differs.
    ///
    /// # Errors
    ///
    /// As said.
    pub fn verdict(&self) -> Result<(), VerifyError> {
        match self.drift.len() {
            0 => Ok(()),
            count => Err(VerifyError::Drift { count }),
        }
    }
}

/// What a path should be.
#[derive(Debug, PartialEq, Eq)]
enum Expected<'a> {
    File {
        sha256: &'a str,
        mode: u32,
    },
    Link(&'a Path),
    Directory {
        mode: u32,
    },
    Absent,
    /// Someone else made it.
    Present,
}

/// Compares the machine below a root with its record.
///
/// # Errors
///
/// [`VerifyError::NoRecord`], [`VerifyError::Journal`], [`VerifyError::Node`]. Drift is no error here: see
/// [`Report::verdict`].
pub async fn run(root: &Path, machine: Arc<dyn Machine>, dialer: &Dialer) -> Result<Report, VerifyError> {
    let record = Record::load(root)?.filter(|record| record.run.is_some()).ok_or(VerifyError::NoRecord)?;
    let files = Journalless::new(root.to_owned());
    let mut report = Report {
        node_name: record.run.as_ref().map(|run| run.node_name.clone()).unwrap_or_default(),
        server: record.cluster.as_ref().map(|cluster| cluster.server.clone()),
        plugins: record.plugins.clone(),
        checked: 0,
        drift: Vec::new(),
    };
    report.compare("record", "a finished join", (!record.finished).then(|| state_of(&record).into()));
    for (path, expected) in expectations(&record) {
        report.compare(&path.display().to_string(), &expected.to_string(), differs(&files, path, &expected));
    }
    if record.last_unit_action(UNIT).is_some_and(|(_, action)| action == "restart") {
        let found = match machine.unit_state(UNIT).await {
            Ok(state) if state.active => None,
            Ok(state) if state.exists => Some("not running".to_owned()),
            Ok(_) | Err(NodeError::NoInit) => Some("no such unit".to_owned()),
            Err(error) => return Err(error.into()),
        };
        report.compare("unit kubelet", "running", found);
        if let Some(url) = health_url(&files) {
            let found = match machine.healthz(&url).await {
                Ok(200) => None,
                Ok(status) => Some(format!("status {status}")),
                Err(error) => Some(error.to_string()),
            };
            report.compare("health", &format!("status 200 from {url}"), found);
        }
    }
    let node = Node::new(root.to_owned(), machine, Arc::new(Journal::in_memory()));
    control_plane::look(&record, &node, dialer, &mut report).await;
    Ok(report)
}

impl Report {
    fn compare(&mut self, subject: &str, expected: &str, found: Option<String>) {
        self.checked += 1;
        self.drift.extend(found.map(|found| Drift {
            subject: subject.to_owned(),
            expected: expected.to_owned(),
            found,
        }));
    }
}

fn state_of(record: &Record) -> &'static str {
    if record.resetting { "a reset that did not finish" } else { "a join that did not finish" }
}

/// The last word on each path.
fn expectations(record: &Record) -> BTreeMap<&Path, Expected<'_>> {
    let mut expectations = BTreeMap::new();
    for recorded in record.effects.iter().filter(|recorded| recorded.state == State::Done) {
        let (path, expected) = match &recorded.effect {
            Effect::File { path, sha256, mode, .. } => (path, Expected::File { sha256, mode: *mode }),
            Effect::Symlink { path, target } => (path, Expected::Link(target)),
            Effect::Directory { path, mode } => (path, Expected::Directory { mode: *mode }),
            Effect::Removal { path } => (path, Expected::Absent),
            Effect::Delegated { path } => (path, Expected::Present),
            Effect::WasEmpty { .. } | Effect::Unit { .. } | Effect::ApiObject { .. } | Effect::EtcdMember { .. } => {
                continue;
            }
        };
        expectations.insert(path.as_path(), expected);
    }
    expectations
}

impl std::fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { sha256, mode } => write!(f, "a file with mode {mode:04o} and sha256 {sha256}"),
            Self::Link(target) => write!(f, "a link to `{}`", target.display()),
            Self::Directory { mode } => write!(f, "a directory with mode {mode:04o}"),
            Self::Absent => f.write_str("nothing"),
            Self::Present => f.write_str("a file"),
        }
    }
}

/// What is there instead; none: what is expected.
fn differs(files: &Journalless, path: &Path, expected: &Expected<'_>) -> Option<String> {
    let metadata = match std::fs::symlink_metadata(files.locate(path)) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return (*expected != Expected::Absent).then(|| "nothing".into());
        }
        Err(error) => return Some(error.to_string()),
    };
    let found_mode = metadata.permissions().mode() & 0o7777;
    let kind = match () {
        () if metadata.is_symlink() => "a link",
        () if metadata.is_dir() => "a directory",
        () if metadata.is_file() => "a file",
        () => "something else",
    };
    match expected {
        Expected::File { sha256, mode } if metadata.is_file() => {
            let content = match files.read(path, LIMIT_BYTES) {
                Ok(content) => content.unwrap_or_default(),
                Err(error) => return Some(error.to_string()),
            };
            let hash = sha256_hex(&content);
            let same = hash == *sha256 && found_mode == *mode;
            (!same).then(|| format!("a file with mode {found_mode:04o} and sha256 {hash}"))
        }
        Expected::Link(target) if metadata.is_symlink() => {
            let found = files.read_link(path).unwrap_or_default();
            let fine = found == *target || path == Path::new(CURRENT_PEM) && is_rotated(&found, target);
            (!fine).then(|| format!("a link to `{}`", found.display()))
        }
        Expected::Directory { mode } if metadata.is_dir() => {
            (found_mode != *mode).then(|| format!("a directory with mode {found_mode:04o}"))
        }
        Expected::Present if metadata.is_file() => None,
        _ => Some(kind.into()),
    }
}

/// A newer certificate of the kubelet's beside the first one.
fn is_rotated(found: &Path, first: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let beside = !found.is_absolute() || found.parent() == first.parent();
    beside && name(found).is_some_and(|name| name.starts_with(ROTATED_PREFIX) && name.ends_with(".pem"))
}

/// From the configuration on disk, which is the one the kubelet uses.
fn health_url(files: &Journalless) -> Option<String> {
    let text = files.read(Path::new(CONFIG), LIMIT_BYTES).ok().flatten()?;
    let tree: Value = serde_saphyr::from_slice(&text).ok()?;
    kubelet_config::healthz_url_of(&tree).ok().flatten()
}

/// Why a machine was not compared, or how it came out.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// No record.
    #[error("there is no record of a join at `{JOURNAL_PATH}`")]
    NoRecord,
    /// The record cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The init system.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Something differs.
    #[error("{count} things differ from the record of the join")]
    Drift {
        /// How many.
        count: usize,
    },
}

impl Diagnose for VerifyError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoRecord => "verify-no-record",
            Self::Journal(error) => error.code(),
            Self::Node(error) => error.code(),
            Self::Drift { .. } => "verify-drift",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoRecord => Some("this machine was not joined by mortise, or it was reset".into()),
            Self::Journal(error) => error.hint(),
            Self::Node(error) => error.hint(),
            Self::Drift { .. } => Some("the same `mortise join` again makes it as it should be".into()),
        }
    }
}

#[cfg(test)]
mod tests;
