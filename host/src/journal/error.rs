//! What can be wrong with the record.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::VERSION;
use crate::error::Diagnose;

/// What failed about the record.
#[derive(Debug, Error)]
pub enum JournalError {
    /// It cannot be written.
    #[error("cannot write the journal `{path}`")]
    Write {
        /// With `--root`.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A directory whose files it lists cannot be synced.
    #[error("cannot sync `{path}`")]
    Sync {
        /// With `--root`.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("cannot read the journal `{path}`")]
    Read {
        /// With `--root`.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line in its middle makes no sense.
    #[error("the journal `{path}` is damaged at line {line}")]
    Damaged {
        /// With `--root`.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A newer mortise wrote it.
    #[error("the journal `{path}` has format {found}, this mortise knows {VERSION}")]
    Newer {
        /// With `--root`.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Another run holds the lock.
    #[error("another mortise is at work on this machine: {holder}")]
    InProgress {
        /// Process id and command, as far as the lock file tells.
        holder: String,
    },
    /// The record is of a join under another name.
    #[error("the journal `{path}` is of a join as node `{recorded}`, not `{asked}`")]
    OtherNode {
        /// With `--root`.
        path: PathBuf,
        /// In the record.
        recorded: String,
        /// In this run.
        asked: String,
    },
    /// The record is of a join to another cluster.
    #[error("this machine's journal is of a join to the cluster at `{recorded}`; `{asked}` has another CA")]
    OtherCluster {
        /// Server in the record.
        recorded: String,
        /// Server of this run.
        asked: String,
    },
}

impl JournalError {
    /// Code of [`JournalError::InProgress`].
    pub const IN_PROGRESS: &'static str = "join-in-progress";
}

impl Diagnose for JournalError {
    fn code(&self) -> &'static str {
        match self {
            Self::Write { source, .. } | Self::Sync { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "node-disk-full",
                io::ErrorKind::ReadOnlyFilesystem => "node-read-only",
                _ => "journal-write",
            },
            Self::Read { .. } => "journal-read",
            Self::Damaged { .. } => "journal-damaged",
            Self::Newer { .. } => "journal-newer",
            Self::InProgress { .. } => Self::IN_PROGRESS,
            Self::OtherNode { .. } => "journal-other-node",
            Self::OtherCluster { .. } => "journal-other-cluster",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Write { source, path } | Self::Sync { source, path } | Self::Read { source, path } => {
                crate::node::file_hint(source, path)
            }
            Self::Damaged { path, .. } => Some(format!(
                "look at `{}`; `mortise reset --ignore-journal` removes what `kubeadm reset` would",
                path.display()
            )),
            Self::Newer { .. } => Some("use the mortise that joined this machine, or a newer one".into()),
            Self::InProgress { .. } => Some("wait for it to end, or stop it; then run the same command again".into()),
            Self::OtherNode { .. } | Self::OtherCluster { .. } => {
                Some("`mortise reset` undoes that join; then run the same command again".into())
            }
        }
    }
}
