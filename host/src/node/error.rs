//! What fails at the door to the machine.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::Diagnose;
use crate::journal::JournalError;

/// What failed at the door.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A file operation.
    #[error("cannot {action} `{path}`")]
    File {
        /// `read`, `write`, `remove`, `link`, `list`, `make directory`.
        action: &'static str,
        /// With `--root`.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Writing there is refused.
    #[error("will not write `{path}`: {reason}")]
    Refused {
        /// With `--root`.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// A unit operation.
    #[error("cannot {action} unit `{unit}`: {message}")]
    Unit {
        /// As `systemctl` takes it.
        action: &'static str,
        /// Unit name.
        unit: String,
        /// What the init system said.
        message: String,
    },
    /// Neither systemd nor OpenRC.
    #[error("no supported init system found (looked for `systemctl` and `openrc`)")]
    NoInit,
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel's host name is unusable.
    #[error("cannot read the host name")]
    Hostname(#[source] io::Error),
}

impl Diagnose for NodeError {
    fn code(&self) -> &'static str {
        match self {
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "node-disk-full",
                io::ErrorKind::ReadOnlyFilesystem => "node-read-only",
                _ => "node-file",
            },
            Self::Refused { .. } => "node-path-refused",
            Self::Unit { .. } => "node-unit",
            Self::NoInit => "node-no-init",
            Self::Journal(error) => error.code(),
            Self::Hostname(_) => "node-hostname",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File { source, path, .. } => file_hint(source, path),
            Self::Refused { path, .. } => Some(format!("`ls -ld {}` shows what is there", path.display())),
            Self::Unit { unit, .. } => Some(format!("`journalctl -u {unit} -n 50` shows its log")),
            Self::Journal(error) => error.hint(),
            Self::NoInit | Self::Hostname(_) => None,
        }
    }
}

/// What to run when a file operation failed.
pub(crate) fn file_hint(source: &io::Error, path: &Path) -> Option<String> {
    match source.kind() {
        io::ErrorKind::StorageFull => Some(format!(
            "`df -h {}` shows the file system; free space on it, then run the same command again",
            path.parent().unwrap_or(path).display()
        )),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some(format!("`findmnt -T {}` shows the file system; remount it writable", path.display()))
        }
        io::ErrorKind::PermissionDenied => Some("run as root, or name a directory of yours with `--root`".into()),
        _ => None,
    }
}
