//! The effects of a join, and when their intents have to be on the disk.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
        #[serde(rename = "objectKind")] // A line has a `kind` already.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A member of etcd is added. Its id is known when it is there, and stands in the line of the completion.
    EtcdMember {
        /// `https://host:2380`: by this it is found where the answer was lost.
        peer_url: String,
        /// Hexadecimal digits; none: not known yet.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        id: Option<String>,
    },
    /// A directory was empty or absent before the join, so that a reset may empty it.
    WasEmpty {
        /// Absolute, without `--root`.
        path: PathBuf,
        /// Whether it existed at all.
        existed: bool,
    },
    /// A file that was not there is left to another program to make, the kubelet's `kubelet.conf` for instance.
    Delegated {
        /// Absolute, without `--root`.
        path: PathBuf,
    },
}

impl Effect {
    /// The path it is about, if any.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. }
            | Self::Symlink { path, .. }
            | Self::Directory { path, .. }
            | Self::Removal { path }
            | Self::WasEmpty { path, .. }
            | Self::Delegated { path } => Some(path),
            Self::Unit { .. } | Self::ApiObject { .. } | Self::EtcdMember { .. } => None,
        }
    }
}

/// Whether a line reaches the disk before the call returns.
/// Weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Durability {
    /// The next sync takes it along: a lost completion is found again by its intent, and a lost line that stands for no
    /// effect of its own goes with what comes after it.
    Buffered,
    Synced,
    /// And every file that was written before.
    AfterFiles,
}

impl Effect {
    pub(super) fn durability(&self) -> Durability {
        match self {
            Self::ApiObject { .. } | Self::EtcdMember { .. } => Durability::AfterFiles,
            Self::Unit { action, .. } if action == "daemon-reload" => Durability::Buffered,
            Self::Unit { .. } => Durability::AfterFiles,
            Self::WasEmpty { .. } | Self::Delegated { .. } => Durability::Buffered,
            Self::File { .. } | Self::Symlink { .. } | Self::Directory { .. } | Self::Removal { .. } => {
                Durability::Synced
            }
        }
    }
}
