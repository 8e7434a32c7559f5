//! The record of a join: `/var/lib/mortise/join.jsonl`.
//!
//! Append-only, one JSON object a line, mode 0600, versioned, without secrets. Each effect has two lines: its intent,
//! synced before the effect, and its completion, which the next sync carries along. One command at a time holds the
//! lock. A second run reads the record first and settles what the first one left open: what the record owns counts as
//! ours in every check. How lines look is in `record`, who may write them in `lock`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::{Discovery, JoinSettings};

mod effect;
mod error;
mod fault;
mod lock;
mod record;
mod settle;

pub use effect::Effect;
pub use error::JournalError;
pub use lock::{LOCK_PATH, Lock};
pub use record::{Record, Recorded, State, UsedPlugin};

use effect::Durability;
use record::{Line, Made, Run, What};

/// Directory of everything mortise keeps on a node.
pub const STATE_DIRECTORY: &str = "/var/lib/mortise";
/// The record.
pub const JOURNAL_PATH: &str = "/var/lib/mortise/join.jsonl";
/// Version of the record's format, raised whenever a line could mean something an older mortise cannot undo.
pub const VERSION: u32 = 1;

/// What a run says about itself at the top of the record. Nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Name of the Node.
    pub node_name: String,
    /// Where trust was looked for: endpoints, file or URL.
    pub endpoint: String,
    /// Hex SHA-256 over the settings that shape the node, secrets left out.
    pub arguments: String,
}

impl Header {
    /// The header of a join with these settings.
    pub fn of(settings: &JoinSettings) -> Self {
        let endpoint = match &settings.discovery {
            Discovery::Token(token) => token.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            Discovery::File { path } => path.display().to_string(),
            Discovery::Https { url } => url.clone(),
            Discovery::Recorded => "recorded".into(),
        };
        let shape = format!(
            "{:?}",
            (&settings.node, &endpoint, settings.tls_bootstrap_by, &settings.ca_cert_path, &settings.patches)
        );
        Self { node_name: settings.node.name.clone(), endpoint, arguments: crate::node::sha256_hex(shape.as_bytes()) }
    }
}

/// Number of an intent, unique within the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId(u64);

/// The open record of this run. Shared by everything that acts on the machine.
#[derive(Debug)]
pub struct Journal {
    inner: Mutex<Inner>,
    earlier: Record,
    /// Held until the run ends. None: in memory.
    lock: Option<Lock>,
}

/// A first run that ends before its first effect leaves the machine untouched.
impl Drop for Journal {
    fn drop(&mut self) {
        let Some(lock) = self.lock.take() else { return };
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(sink) = inner.sink.take() else { return };
        if self.earlier.run.is_some() || inner.record.finished || !inner.record.is_without_effects() {
            return;
        }
        // Nothing is lost where this fails: the next run takes the empty record over.
        let _ = std::fs::remove_file(&sink.path);
        let _ = lock.remove();
        if let (true, Some(directory)) = (inner.record.state_directory_made, sink.path.parent()) {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

#[derive(Debug)]
struct Inner {
    record: Record,
    sink: Option<Sink>,
    fault: fault::Fault,
    /// Directories whose entries changed since they were last synced.
    unsynced: BTreeSet<PathBuf>,
    /// Plugins that answer this run's checks and have no line yet.
    unwritten_plugins: Vec<UsedPlugin>,
}

/// Where lines go.
#[derive(Debug)]
struct Sink {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// A record in memory, for dry runs and simulated machines.
    pub fn in_memory() -> Self {
        let inner = Inner::new(Record::default(), None);
        Self { inner: Mutex::new(inner), earlier: Record::default(), lock: None }
    }

    /// Takes the lock, reads what earlier runs left, settles their open intents against the disk, and begins this run.
    ///
    /// # Errors
    ///
    /// [`JournalError::InProgress`] while another run holds the lock; [`JournalError::OtherNode`] for the record of a
    /// join under another name; [`JournalError::Newer`] and [`JournalError::Damaged`] for a record that cannot be
    /// understood.
    pub fn open(root: &Path, header: Header) -> Result<Self, JournalError> {
        let path = locate(root, JOURNAL_PATH);
        let made = ensure_state_directory(root)?;
        let lock = Lock::acquire(root, "join")?;
        let (record, whole_bytes) = match record::read(&path)? {
            Some((record, whole_bytes)) => (record, whole_bytes),
            None => (Record::default(), 0),
        };
        if let Some(run) = &record.run
            && run.node_name != header.node_name
            && !record.is_without_effects()
        {
            return Err(JournalError::OtherNode { path, recorded: run.node_name.clone(), asked: header.node_name });
        }
        let write = |source| JournalError::Write { path: path.clone(), source };
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(O_NOFOLLOW)
            .open(&path)
            .map_err(write)?;
        file.set_permissions(PermissionsExt::from_mode(0o600)).map_err(write)?;
        // A torn last line was never acted upon.
        file.set_len(whole_bytes).map_err(write)?;
        let first = record.run.is_none();
        let earlier = record.clone();
        let sink = Sink { path: path.clone(), file };
        let journal = Self { inner: Mutex::new(Inner::new(record, Some(sink))), earlier, lock: Some(lock) };
        {
            let mut inner = journal.inner();
            inner.begin(root, header, made, first)?;
            settle::settle(&mut inner, root)?;
        }
        if first {
            sync_directory(&path).map_err(write)?;
        }
        Ok(journal)
    }

    /// What earlier runs left, before this one settled anything. Empty on a first run.
    pub fn earlier(&self) -> &Record {
        &self.earlier
    }

    /// The record as it is now.
    pub fn record(&self) -> Record {
        self.inner().record.clone()
    }

    /// Writes the intent and syncs it. The effect may follow.
    ///
    /// Before an effect that others see, on a unit or in the cluster, all earlier files are on the disk, too.
    ///
    /// # Errors
    ///
    /// [`JournalError::Write`]: the effect must not be made.
    pub fn intend(&self, effect: Effect) -> Result<EntryId, JournalError> {
        Ok(self.intend_all([effect])?.remove(0))
    }

    /// As [`Journal::intend`] for several effects, with one sync.
    ///
    /// # Errors
    ///
    /// [`JournalError::Write`]: no effect must be made.
    pub fn intend_all(&self, effects: impl IntoIterator<Item = Effect>) -> Result<Vec<EntryId>, JournalError> {
        let mut effects = effects.into_iter().peekable();
        let mut entries = Vec::new();
        let mut inner = self.inner();
        let mut strictest = Durability::Buffered;
        while let Some(effect) = effects.next() {
            strictest = strictest.max(effect.durability());
            if effect.durability() == Durability::AfterFiles {
                inner.sync_directories()?;
            }
            inner.write_plugins()?;
            let seq = inner.record.next_seq();
            // The last line's sync takes the others along.
            let durability = if effects.peek().is_none() { strictest } else { Durability::Buffered };
            inner.append(Line::now(seq, What::Intent(effect)), durability)?;
            entries.push(EntryId(seq));
        }
        Ok(entries)
    }

    /// Notes a plugin whose checks this run asks. Its line comes with the next effect or the end of the join, since
    /// checks that fail leave nothing behind; what the record says already is not repeated.
    pub fn use_plugin(&self, plugin: UsedPlugin) {
        let mut inner = self.inner();
        if !inner.record.plugins.contains(&plugin) && !inner.unwritten_plugins.contains(&plugin) {
            inner.unwritten_plugins.push(plugin);
        }
    }

    /// A directory's entries changed and it was not synced.
    pub(crate) fn leave_unsynced(&self, directory: &Path) {
        self.inner().unsynced.insert(directory.to_owned());
    }

    /// Writes that the intended effect was made.
    ///
    /// # Errors
    ///
    /// [`JournalError::Write`]: the effect was made, and a second run finds it by its intent.
    pub fn complete(&self, entry: EntryId) -> Result<(), JournalError> {
        self.inner().append(Line::now(entry.0, What::Done(Made::default())), Durability::Buffered)
    }

    /// Writes and syncs that the intended member of etcd is there, and its id, by which alone it may be removed again.
    ///
    /// # Errors
    ///
    /// [`JournalError::Write`]: a second run finds the member by its peer URL.
    pub fn complete_member(&self, entry: EntryId, id: &str) -> Result<(), JournalError> {
        let made = Made { member_id: Some(id.to_owned()) };
        self.inner().append(Line::now(entry.0, What::Done(made)), Durability::Synced)
    }

    /// Writes that an effect was not made after all, or is undone.
    ///
    /// # Errors
    ///
    /// [`JournalError::Write`]: a second run looks again.
    pub fn void(&self, entry: EntryId) -> Result<(), JournalError> {
        self.inner().append(Line::now(entry.0, What::Void), Durability::Synced)
    }

    /// Ties the record to a cluster, once its identity is established; repeating it is fine.
    ///
    /// The cluster is known by its CA certificates: sharing one is being the same.
    ///
    /// # Errors
    ///
    /// [`JournalError::OtherCluster`] if the record is of a join to another one.
    pub fn bind_cluster(&self, cluster: &crate::join::TrustedCluster) -> Result<(), JournalError> {
        let mut inner = self.inner();
        let certificates = record::certificate_digests(&cluster.ca_pem);
        match &inner.record.cluster {
            Some(bound) if bound.certificates.iter().any(|digest| certificates.contains(digest)) => return Ok(()),
            Some(bound) if !inner.record.is_without_effects() => {
                return Err(JournalError::OtherCluster {
                    recorded: bound.server.clone(),
                    asked: cluster.server.clone(),
                });
            }
            _ => {}
        }
        let seq = inner.record.next_seq();
        let what = What::Cluster(record::BoundCluster { server: cluster.server.clone(), certificates });
        inner.append(Line::now(seq, what), Durability::Buffered)
    }

    /// Writes that everything the join was asked for is true.
    ///
    /// # Errors
    ///
    /// [`JournalError::Write`].
    pub fn finish(&self) -> Result<(), JournalError> {
        let mut inner = self.inner();
        inner.sync_directories()?;
        inner.write_plugins()?;
        if !inner.record.finished {
            let seq = inner.record.next_seq();
            inner.append(Line::now(seq, What::Finished), Durability::Synced)?;
        }
        inner.fault.report();
        Ok(())
    }

    /// Whether the join made what stands at this path (without `--root`), this run or an earlier one.
    pub fn owns(&self, path: &Path) -> bool {
        self.inner().record.owns(path)
    }

    /// Writes that a reset has begun: from here on nothing in the record may be relied on.
    ///
    /// # Errors
    ///
    /// [`JournalError::Write`] and all of [`Record::load`].
    pub(crate) fn begin_reset(root: &Path) -> Result<(), JournalError> {
        let path = locate(root, JOURNAL_PATH);
        let Some((record, whole_bytes)) = record::read(&path)? else { return Ok(()) };
        let write = |source| JournalError::Write { path: path.clone(), source };
        let file = File::options().append(true).custom_flags(O_NOFOLLOW).open(&path).map_err(write)?;
        file.set_len(whole_bytes).map_err(write)?;
        let seq = record.next_seq();
        let mut inner = Inner::new(record, Some(Sink { path, file }));
        inner.append(Line::now(seq, What::Resetting), Durability::Synced)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere cannot leave a line half-written: each is one write.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn new(record: Record, sink: Option<Sink>) -> Self {
        let fault = if sink.is_some() { fault::Fault::from_environment() } else { fault::Fault::none() };
        Self { record, sink, fault, unsynced: BTreeSet::new(), unwritten_plugins: Vec::new() }
    }

    fn sync_directories(&mut self) -> Result<(), JournalError> {
        for directory in std::mem::take(&mut self.unsynced) {
            match File::open(&directory).and_then(|opened| opened.sync_all()) {
                // Whoever removed it meanwhile left nothing to sync.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(JournalError::Sync { path: directory, source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write_plugins(&mut self) -> Result<(), JournalError> {
        for plugin in std::mem::take(&mut self.unwritten_plugins) {
            self.append(Line::now(self.record.next_seq(), What::Plugin(plugin)), Durability::Buffered)?;
        }
        Ok(())
    }

    fn begin(
        &mut self,
        root: &Path,
        header: Header,
        state_directory_made: bool,
        first: bool,
    ) -> Result<(), JournalError> {
        let run = Run {
            version: VERSION,
            mortise: env!("CARGO_PKG_VERSION").to_owned(),
            machine_id: machine_id(root),
            node_name: header.node_name,
            endpoint: header.endpoint,
            arguments: header.arguments,
            state_directory_made: first && state_directory_made,
            runtime_directory_made: first && !locate(root, crate::result::RESULT_DIRECTORY).exists(),
        };
        let seq = self.record.next_seq();
        self.append(Line::now(seq, What::Run(run)), Durability::Synced)
    }

    fn append(&mut self, line: Line, durability: Durability) -> Result<(), JournalError> {
        if let Some(sink) = &mut self.sink {
            let mut text = serde_json::to_vec(&line).expect("a line holds only strings, numbers and enums");
            text.push(b'\n');
            self.fault.before();
            sink.write(&text, durability).map_err(|source| JournalError::Write { path: sink.path.clone(), source })?;
            self.fault.after();
        }
        self.record.apply(line);
        Ok(())
    }
}

impl Sink {
    fn write(&mut self, text: &[u8], durability: Durability) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        let written = self.file.write_all(text).and_then(|()| match durability {
            Durability::AfterFiles | Durability::Synced => self.file.sync_data(),
            Durability::Buffered => Ok(()),
        });
        if written.is_err() {
            // A full disk may have taken half of the line. If this fails too, the next run cuts the torn line.
            let _ = self.file.set_len(before);
        }
        written
    }
}

/// `O_NOFOLLOW`: the record is never written through a link.
const O_NOFOLLOW: i32 = libc::O_NOFOLLOW;

fn locate(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Makes `/var/lib/mortise` with mode 0700; whether it was absent.
fn ensure_state_directory(root: &Path) -> Result<bool, JournalError> {
    let directory = locate(root, STATE_DIRECTORY);
    if directory.is_dir() {
        return Ok(false);
    }
    let write = |source| JournalError::Write { path: directory.clone(), source };
    std::fs::create_dir_all(&directory).map_err(write)?;
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).map_err(write)?;
    Ok(true)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// `/etc/machine-id`, if there is a sane one.
pub fn machine_id(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(locate(root, "/etc/machine-id")).ok()?;
    let id = text.trim();
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests;
