//! The only door to the machine: files, units, processes.
//!
//! Every effect is written into the journal before and after it. Files appear whole: a dot-file in the same directory,
//! synced, renamed (`files`); directories are synced before the next effect that others see. A dry run is a node that plans: the same calls, which note what they
//! would do in a [`Plan`] and show later reads the files that would be there. Units and health are a [`Machine`]: this
//! one (`host`), or the sandbox's.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::journal::{Effect, EntryId, Journal};
use crate::plan::{Plan, Step};

mod batch;
mod error;
mod files;
mod health;
mod host;
mod journalless;
#[cfg(test)]
pub(crate) mod stub;

pub use batch::NewFile;
pub use error::NodeError;
pub(crate) use error::file_hint;
pub use host::HostMachine;
pub(crate) use journalless::Journalless;

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
    /// Of a dry run: nothing is changed.
    plan: Option<Arc<Plan>>,
}

impl Node {
    /// `root` prefixes every path; `/` for this machine.
    pub fn new(root: PathBuf, machine: Arc<dyn Machine>, journal: Arc<Journal>) -> Self {
        Self { root, machine, journal, plan: None }
    }

    /// A node for a dry run: it reads the machine and notes in the plan what would change.
    pub fn planning(root: PathBuf, machine: Arc<dyn Machine>, plan: Arc<Plan>) -> Self {
        Self { root, machine, journal: Arc::new(Journal::in_memory()), plan: Some(plan) }
    }

    /// The machine beside its files.
    pub fn machine(&self) -> &dyn Machine {
        &*self.machine
    }

    /// The record.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The plan of a dry run; none: effects are real.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    /// The prefix of every path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an absolute path of the machine is on this file system.
    pub fn locate(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The whole of a regular file of at most `max_bytes`; none: nothing is there.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`], also for a larger file and for anything that is not a regular file.
    pub fn read(&self, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, NodeError> {
        if let Some(planned) = self.plan.as_ref().and_then(|plan| plan.content(path)) {
            return Ok(planned);
        }
        let located = self.locate(path);
        files::read(&located, max_bytes).map_err(|source| NodeError::File { action: "read", path: located, source })
    }

    /// Makes a file have this content and, where it is new, exactly this mode; an old one keeps its own, but for a
    /// secret file (no rights for others asked for), which is never left wider. Missing parents are made, mode 0755.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`], [`NodeError::Refused`]; then the old file, if any, is as it was.
    pub fn ensure_file(&self, path: &Path, content: &[u8], mode: u32) -> Result<Change, NodeError> {
        Ok(self.ensure_files(&[NewFile { path, content, mode }])?[0])
    }

    /// Makes a symbolic link point to `target` (as written, not located).
    ///
    /// # Errors
    ///
    /// [`NodeError::File`], [`NodeError::Refused`].
    pub fn ensure_symlink(&self, path: &Path, target: &Path) -> Result<Change, NodeError> {
        self.refuse_unsafe_parents(path)?;
        let located = self.locate(path);
        match std::fs::symlink_metadata(&located) {
            Ok(_) if std::fs::read_link(&located).is_ok_and(|old| old == target) => return Ok(Change::Unchanged),
            Ok(metadata) if metadata.is_dir() => {
                return Err(NodeError::Refused { path: located, reason: "it is a directory" });
            }
            _ => {}
        }
        self.ensure_parent(path)?;
        if let Some(plan) = &self.plan {
            plan.note(Step::Symlink { path: path.to_owned(), target: target.to_owned() });
            return Ok(Change::Made);
        }
        let entry = self.journal.intend(Effect::Symlink { path: path.to_owned(), target: target.to_owned() })?;
        files::link(&located, target).map_err(|source| NodeError::File { action: "link", path: located, source })?;
        self.complete(entry, path)?;
        Ok(Change::Made)
    }

    /// Makes a directory and its parents (mode 0755); only a new one gets the mode.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`], [`NodeError::Refused`].
    pub fn ensure_dir(&self, path: &Path, mode: u32) -> Result<Change, NodeError> {
        let located = self.locate(path);
        if located.is_dir() || self.plan.as_ref().is_some_and(|plan| plan.makes_directory(path)) {
            return Ok(Change::Unchanged);
        }
        self.refuse_unsafe_parents(path)?;
        self.ensure_parent(path)?;
        if let Some(plan) = &self.plan {
            plan.note(Step::Directory { path: path.to_owned(), mode });
            return Ok(Change::Made);
        }
        let entry = self.journal.intend(Effect::Directory { path: path.to_owned(), mode })?;
        files::make_directory(&located, mode).map_err(|source| NodeError::File {
            action: "make directory",
            path: located,
            source,
        })?;
        self.complete(entry, path)?;
        Ok(Change::Made)
    }

    /// Removes a file or link; a missing one is fine.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`].
    pub fn remove(&self, path: &Path) -> Result<Change, NodeError> {
        let located = self.locate(path);
        if let Some(plan) = &self.plan {
            if plan.content(path).map_or_else(|| std::fs::symlink_metadata(&located).is_err(), |there| there.is_none())
            {
                return Ok(Change::Unchanged);
            }
            plan.remove(path);
            return Ok(Change::Made);
        }
        if std::fs::symlink_metadata(&located).is_err() {
            return Ok(Change::Unchanged);
        }
        let entry = self.journal.intend(Effect::Removal { path: path.to_owned() })?;
        files::remove_if_there(&located).map_err(|source| NodeError::File {
            action: "remove",
            path: located,
            source,
        })?;
        self.complete(entry, path)?;
        Ok(Change::Made)
    }

    /// Records that a directory is empty or absent now, so that a reset may empty it. Only the first time counts.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`], [`NodeError::Journal`].
    pub fn note_if_empty(&self, path: &Path) -> Result<(), NodeError> {
        if self.plan.is_some()
            || self
                .journal
                .record()
                .effects
                .iter()
                .any(|recorded| matches!(&recorded.effect, Effect::WasEmpty { path: noted, .. } if noted == path))
        {
            return Ok(());
        }
        let located = self.locate(path);
        let existed = match std::fs::read_dir(&located) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(());
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(NodeError::File { action: "list", path: located, source }),
        };
        let entry = self.journal.intend(Effect::WasEmpty { path: path.to_owned(), existed })?;
        Ok(self.journal.complete(entry)?)
    }

    /// Records that a file is left to another program to make; one that is there already is not ours.
    ///
    /// # Errors
    ///
    /// [`NodeError::Journal`].
    pub fn delegate(&self, path: &Path) -> Result<(), NodeError> {
        if self.plan.is_some() || self.journal.owns(path) || std::fs::symlink_metadata(self.locate(path)).is_ok() {
            return Ok(());
        }
        let entry = self.journal.intend(Effect::Delegated { path: path.to_owned() })?;
        Ok(self.journal.complete(entry)?)
    }

    /// Acts on a unit.
    ///
    /// # Errors
    ///
    /// As [`Machine::unit`].
    pub async fn unit(&self, action: UnitAction, unit: &str) -> Result<(), NodeError> {
        if let Some(plan) = &self.plan {
            plan.note(Step::Unit { unit: unit.to_owned(), action: action.as_str() });
            return Ok(());
        }
        let entry = self.journal.intend(Effect::Unit { unit: unit.to_owned(), action: action.as_str().to_owned() })?;
        self.machine.unit(action, unit).await?;
        self.journal.complete(entry)?;
        Ok(())
    }

    fn complete(&self, entry: EntryId, path: &Path) -> Result<(), NodeError> {
        if let Some(directory) = self.locate(path).parent() {
            self.journal.leave_unsynced(directory);
        }
        Ok(self.journal.complete(entry)?)
    }

    fn ensure_parent(&self, path: &Path) -> Result<(), NodeError> {
        match path.parent() {
            Some(parent) if parent.parent().is_some() => self.ensure_dir(parent, 0o755).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Refuses to replace what is no regular file, and everything [`Self::refuse_unsafe_parents`] refuses.
    fn refuse_unsafe(&self, path: &Path) -> Result<(), NodeError> {
        self.refuse_unsafe_parents(path)?;
        let located = self.locate(path);
        match std::fs::symlink_metadata(&located) {
            Ok(metadata) if !metadata.is_file() => {
                Err(NodeError::Refused { path: located, reason: "it is there and no regular file" })
            }
            _ => Ok(()),
        }
    }

    /// Refuses paths that are not plain and absolute, and links on the way that others than root could have made:
    /// what is root's alone (`/var/lib/kubelet` on another disk, say) is the machine owner's wish. Below another
    /// root every link is refused, since an absolute one leads out of it.
    fn refuse_unsafe_parents(&self, path: &Path) -> Result<(), NodeError> {
        let refuse = |path: PathBuf, reason| Err(NodeError::Refused { path, reason });
        let mut components = path.components();
        if components.next() != Some(Component::RootDir)
            || !components.clone().all(|component| matches!(component, Component::Normal(_)))
        {
            return refuse(path.to_owned(), "it is not a plain absolute path");
        }
        let mut at = self.root.clone();
        let parents = components.clone().count().saturating_sub(1);
        for component in components.take(parents) {
            let directory = at.clone();
            at.push(component);
            match std::fs::symlink_metadata(&at) {
                Ok(metadata) if metadata.is_symlink() => {
                    let roots_alone = metadata.uid() == 0
                        && std::fs::metadata(&directory).is_ok_and(|of| of.uid() == 0 && of.mode() & 0o022 == 0);
                    if self.root != Path::new("/") || !roots_alone {
                        return refuse(at, "a symbolic link leads elsewhere");
                    }
                }
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return refuse(at, "it should be a directory"),
                // What is missing will be made.
                Err(_) => return Ok(()),
            }
        }
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

/// Hex SHA-256.
pub(crate) fn sha256_hex(content: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file that no record mentions, mode 0644, and its directory: for `/run`, which a reboot empties.
pub(crate) fn write_unrecorded(directory: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    if !directory.is_dir() {
        std::fs::create_dir_all(directory)?;
        std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    files::write_whole(path, content, 0o644)
}

#[cfg(test)]
mod tests;
