//! The only door to the machine: files, units, processes.
//!
//! Every effect is written into the journal before and after it. Files appear whole: a dot-file in the same directory,
//! synced, renamed, the directory synced. A dry run is another [`Machine`] and a plan, not an `if` in a phase.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use thiserror::Error;

use crate::error::Diagnose;
use crate::journal::{Effect, Journal, JournalError};

/// What is done to a unit of the init system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitAction {
    /// `systemctl stop`.
    Stop,
    /// `systemctl restart`.
    Restart,
    /// `systemctl daemon-reload`; the unit's name does not matter.
    DaemonReload,
}

/// State of a unit as far as a join needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// The init system knows it.
    pub exists: bool,
    /// It runs, or is being started.
    pub active: bool,
    /// Times the init system restarted it by itself, where it tells.
    pub restarts: Option<u32>,
}

/// The part of a machine that is not files: units, health, logs. Real, or simulated by the sandbox.
pub trait Machine: Send + Sync {
    /// Host name as the kernel knows it, trimmed and lower-cased.
    fn hostname(&self) -> Result<String, NodeError>;
    /// Acts on a unit of the init system. No init system is an error of kind `NoInit`.
    fn unit<'a>(&'a self, action: UnitAction, unit: &'a str) -> BoxFuture<'a, Result<(), NodeError>>;
    /// Looks at a unit.
    fn unit_state<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<UnitState, NodeError>>;
    /// The unit's last log lines, oldest first; empty where there are none.
    fn unit_log<'a>(&'a self, unit: &'a str, lines: usize) -> BoxFuture<'a, Vec<String>>;
    /// `GET url` on this machine, plain http; the status, or why there was no answer.
    fn healthz<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<u16, io::Error>>;
}

/// Whether an `ensure_` changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The machine is different now.
    Made,
    /// It was as it should be already.
    Unchanged,
}

/// A machine: its files under a root, its units, and the record of what was done to it.
#[derive(Clone)]
pub struct Node {
    root: PathBuf,
    machine: Arc<dyn Machine>,
    journal: Arc<Journal>,
}

impl Node {
    /// `root` prefixes every path; `/` for this machine.
    pub fn new(root: PathBuf, machine: Arc<dyn Machine>, journal: Arc<Journal>) -> Self {
        Self { root, machine, journal }
    }

    /// The machine beside its files.
    pub fn machine(&self) -> &dyn Machine {
        &*self.machine
    }

    /// The record.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Where an absolute path of the machine is on this file system.
    pub fn locate(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The whole of a regular file of at most `max_bytes`; none: nothing is there.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`], also for a larger file.
    pub fn read(&self, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, NodeError> {
        let located = self.locate(path);
        let fail = |source| NodeError::File { action: "read", path: located.clone(), source };
        let file = match std::fs::File::open(&located) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let mut content = Vec::new();
        file.take(max_bytes + 1).read_to_end(&mut content).map_err(fail)?;
        if content.len() as u64 > max_bytes {
            return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {max_bytes} bytes"))));
        }
        Ok(Some(content))
    }

    /// Makes a file have this content and, where it is new, this mode. Missing parents are made with mode 0755.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`]; then the old file, if any, is as it was.
    pub fn ensure_file(&self, path: &Path, content: &[u8], mode: u32) -> Result<Change, NodeError> {
        let located = self.locate(path);
        let old = self.read(path, u64::MAX - 1)?;
        if old.as_deref() == Some(content) {
            return Ok(Change::Unchanged);
        }
        let entry = self.journal.intend(Effect::File {
            path: path.to_owned(),
            sha256: sha256_hex(content),
            mode,
            replaced: old.as_deref().map(sha256_hex),
        })?;
        let parent = located.parent().unwrap_or(Path::new("/"));
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(parent)?;
            let mode = match std::fs::metadata(&located) {
                Ok(old) => old.permissions(),
                Err(_) => std::fs::Permissions::from_mode(mode),
            };
            let mut file = tempfile::Builder::new().prefix(".mortise-").tempfile_in(parent)?;
            file.write_all(content)?;
            file.as_file().set_permissions(mode)?;
            file.as_file().sync_all()?;
            file.persist(&located)?;
            std::fs::File::open(parent)?.sync_all()
        };
        write().map_err(|source| NodeError::File { action: "write", path: located.clone(), source })?;
        self.journal.complete(entry)?;
        Ok(Change::Made)
    }

    /// Makes a symbolic link point to `target` (as written, not located).
    ///
    /// # Errors
    ///
    /// [`NodeError::File`].
    pub fn ensure_symlink(&self, path: &Path, target: &Path) -> Result<Change, NodeError> {
        let located = self.locate(path);
        if std::fs::read_link(&located).is_ok_and(|old| old == target) {
            return Ok(Change::Unchanged);
        }
        let entry = self.journal.intend(Effect::Symlink { path: path.to_owned(), target: target.to_owned() })?;
        let name = located.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = located.with_file_name(format!(".mortise-{name}"));
        let link = || -> io::Result<()> {
            if let Err(error) = std::fs::remove_file(&temporary)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            std::os::unix::fs::symlink(target, &temporary)?;
            std::fs::rename(&temporary, &located)
        };
        link().map_err(|source| NodeError::File { action: "link", path: located.clone(), source })?;
        self.journal.complete(entry)?;
        Ok(Change::Made)
    }

    /// Makes a directory and its parents; only a new one gets the mode.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`].
    pub fn ensure_dir(&self, path: &Path, mode: u32) -> Result<Change, NodeError> {
        let located = self.locate(path);
        if located.is_dir() {
            return Ok(Change::Unchanged);
        }
        let entry = self.journal.intend(Effect::Directory { path: path.to_owned(), mode })?;
        std::fs::create_dir_all(&located)
            .and_then(|()| std::fs::set_permissions(&located, std::fs::Permissions::from_mode(mode)))
            .map_err(|source| NodeError::File { action: "make directory", path: located.clone(), source })?;
        self.journal.complete(entry)?;
        Ok(Change::Made)
    }

    /// Removes a file or link; a missing one is fine.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`].
    pub fn remove(&self, path: &Path) -> Result<Change, NodeError> {
        let located = self.locate(path);
        if std::fs::symlink_metadata(&located).is_err() {
            return Ok(Change::Unchanged);
        }
        let entry = self.journal.intend(Effect::Removal { path: path.to_owned() })?;
        std::fs::remove_file(&located).map_err(|source| NodeError::File {
            action: "remove",
            path: located.clone(),
            source,
        })?;
        self.journal.complete(entry)?;
        Ok(Change::Made)
    }

    /// Acts on a unit.
    ///
    /// # Errors
    ///
    /// As [`Machine::unit`].
    pub async fn unit(&self, action: UnitAction, unit: &str) -> Result<(), NodeError> {
        let entry = self.journal.intend(Effect::Unit { unit: unit.to_owned(), action: action.as_str().to_owned() })?;
        self.machine.unit(action, unit).await?;
        self.journal.complete(entry)?;
        Ok(())
    }
}

impl UnitAction {
    /// As `systemctl` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::DaemonReload => "daemon-reload",
        }
    }
}

fn sha256_hex(content: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What failed at the door.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A file operation.
    #[error("cannot {action} `{path}`")]
    File {
        /// `read`, `write`, `remove`, `link`, `make directory`.
        action: &'static str,
        /// With `--root`.
        path: PathBuf,
        /// The cause.
        source: io::Error,
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
            Self::Unit { .. } => "node-unit",
            Self::NoInit => "node-no-init",
            Self::Journal(error) => error.code(),
            Self::Hostname(_) => "node-hostname",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File { source, path, .. } => match source.kind() {
                io::ErrorKind::StorageFull => Some(format!(
                    "free space on the file system of `{}`, then run the same command again",
                    path.display()
                )),
                io::ErrorKind::ReadOnlyFilesystem => {
                    Some(format!("`findmnt -T {}` shows the file system; remount it writable", path.display()))
                }
                io::ErrorKind::PermissionDenied => {
                    Some("run as root, or name a directory of yours with `--root`".into())
                }
                _ => None,
            },
            Self::Unit { unit, .. } => Some(format!("`journalctl -u {unit} -n 50` shows its log")),
            Self::Journal(error) => error.hint(),
            Self::NoInit | Self::Hostname(_) => None,
        }
    }
}
