//! Files written together: one sync of the journal for all intents, contents synced side by side, renames in order.
//!
//! A file alone costs two waits for the disk, one for its intent and one for its content, which for the two dozen files of a
//! control plane is most of the time. Nothing of what the record promises changes: every intent is on the disk before
//! the first effect, and each file appears whole.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Change, Node, NodeError, files, sha256_hex};
use crate::journal::Effect;

/// Files whose contents are synced at the same time; file systems sync such in one go.
const SIDE_BY_SIDE: usize = 8;

/// Of directories that are made on the way.
const PARENT_MODE: u32 = 0o755;

/// A file as it should be.
#[derive(Clone, Copy)]
pub struct NewFile<'a> {
    /// Absolute.
    pub path: &'a Path,
    /// All of it.
    pub content: &'a [u8],
    /// Of a new file; see [`Node::ensure_file`].
    pub mode: u32,
}

/// Without the content, which may be secret.
impl std::fmt::Debug for NewFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewFile({}, {:04o})", self.path.display(), self.mode)
    }
}

/// A file that has to change.
struct Changing<'a> {
    new: NewFile<'a>,
    located: PathBuf,
    mode: u32,
    old: Option<Vec<u8>>,
}

impl Node {
    /// As [`Node::ensure_file`], for several files with different paths. They appear in this order.
    ///
    /// # Errors
    ///
    /// As [`Node::ensure_file`], of the first file that has any; then those before it may have been written, and no later
    /// one was.
    pub fn ensure_files(&self, all: &[NewFile<'_>]) -> Result<Vec<Change>, NodeError> {
        let looked = all.iter().map(|new| self.look(*new)).collect::<Result<Vec<_>, _>>()?;
        let changes =
            looked.iter().map(|changing| if changing.is_some() { Change::Made } else { Change::Unchanged }).collect();
        let changing: Vec<Changing<'_>> = looked.into_iter().flatten().collect();
        if let Some(plan) = &self.plan {
            for Changing { new, mode, old, .. } in &changing {
                self.ensure_parent(new.path)?;
                plan.file(new.path, new.content, *mode, old.as_deref());
            }
            return Ok(changes);
        }
        let parents = self.missing_parents(&changing);
        let directories = parents.iter().map(|path| Effect::Directory { path: path.clone(), mode: PARENT_MODE });
        let intents = changing.iter().map(|Changing { new, mode, old, .. }| Effect::File {
            path: new.path.to_owned(),
            sha256: sha256_hex(new.content),
            mode: *mode,
            replaced: old.as_deref().map(sha256_hex),
        });
        let mut entries = self.journal.intend_all(directories.chain(intents))?.into_iter();
        for (path, entry) in parents.iter().zip(entries.by_ref()) {
            let located = self.locate(path);
            files::make_directory(&located, PARENT_MODE).map_err(|source| NodeError::File {
                action: "make directory",
                path: located,
                source,
            })?;
            self.complete(entry, path)?;
        }
        let written = prepare(&changing).and_then(|()| {
            for (changing, entry) in changing.iter().zip(entries) {
                files::appear(&changing.located).map_err(|source| failed(changing, source))?;
                self.complete(entry, changing.new.path)?;
            }
            Ok(())
        });
        if written.is_err() {
            // The first error is the one to tell. What appeared has no temporary file any more.
            changing.iter().for_each(|changing| drop(files::abandon(&changing.located)));
        }
        written.map(|()| changes)
    }

    /// Directories on the way to the files, parents first.
    fn missing_parents(&self, all: &[Changing<'_>]) -> Vec<PathBuf> {
        let mut missing: Vec<PathBuf> = Vec::new();
        for changing in all {
            let known = missing.len();
            for directory in changing.new.path.ancestors().skip(1) {
                if directory.parent().is_none()
                    || missing.iter().any(|known| known == directory)
                    || self.locate(directory).is_dir()
                {
                    break;
                }
                missing.insert(known, directory.to_owned());
            }
        }
        missing
    }

    /// None: it is as it should be.
    fn look<'a>(&self, new: NewFile<'a>) -> Result<Option<Changing<'a>>, NodeError> {
        self.refuse_unsafe(new.path)?;
        let located = self.locate(new.path);
        let old = self.read(new.path, files::MAX_OLD_BYTES)?;
        let old_mode = std::fs::symlink_metadata(&located).ok().map(|metadata| metadata.mode() & 0o7777);
        let mode = match old_mode {
            Some(old) if new.mode & 0o077 == 0 => old & 0o7700,
            Some(old) => old,
            None => new.mode,
        };
        if old.as_deref() == Some(new.content) && (self.plan.is_some() || old_mode == Some(mode)) {
            return Ok(None);
        }
        Ok(Some(Changing { new, located, mode, old }))
    }
}

/// Writes and syncs every content under its temporary name.
fn prepare(all: &[Changing<'_>]) -> Result<(), NodeError> {
    let write = |changing: &Changing<'_>| {
        files::write_temporary(&changing.located, changing.new.content, changing.mode)
            .map_err(|source| failed(changing, source))
    };
    if let [only] = all {
        return write(only);
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || {
            while let Some(changing) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                write(changing)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..all.len().min(SIDE_BY_SIDE)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("writing a file does not panic"))
    })
}

fn failed(changing: &Changing<'_>, source: io::Error) -> NodeError {
    NodeError::File { action: "write", path: changing.located.clone(), source }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::{Header, Journal, State};
    use crate::node::stub::{StubMachine, tree};

    fn new<'a>(path: &'a str, content: &'a [u8]) -> NewFile<'a> {
        NewFile { path: Path::new(path), content, mode: 0o600 }
    }

    #[test]
    fn files_appear_together_and_once_and_are_on_record_in_order() {
        let root = tempfile::tempdir().unwrap();
        let header = Header { node_name: "n1".into(), endpoint: String::new(), arguments: String::new() };
        let journal = Journal::open(root.path(), header).unwrap();
        let node = Node::new(root.path().to_owned(), Arc::new(StubMachine::default()), Arc::new(journal));
        let paths: Vec<String> = (0..30).map(|number| format!("/a/{number:02}")).collect();
        let all: Vec<_> = paths.iter().map(|path| new(path, path.as_bytes())).collect();
        assert_eq!(node.ensure_files(&all[..1]).unwrap(), [Change::Made]);
        let changes = node.ensure_files(&all).unwrap();
        assert_eq!((changes[0], &changes[1..]), (Change::Unchanged, &[Change::Made; 29][..]));
        for path in &paths {
            assert_eq!(std::fs::read_to_string(root.path().join(&path[1..])).unwrap(), *path);
        }
        let mut record = node.journal().record();
        let directory = record.effects.remove(0).effect;
        assert_eq!(directory, Effect::Directory { path: "/a".into(), mode: 0o755 });
        let made: Vec<_> =
            record.effects.iter().filter(|recorded| matches!(recorded.effect, Effect::File { .. })).collect();
        assert!(made.iter().all(|recorded| recorded.state == State::Done));
        let order: Vec<_> = made.iter().map(|recorded| recorded.effect.path().unwrap().to_str().unwrap()).collect();
        assert_eq!(order, paths);
        let before = tree(&root.path().join("a"));
        assert_eq!(node.ensure_files(&all).unwrap(), [Change::Unchanged; 30]);
        assert_eq!(tree(&root.path().join("a")), before);
    }

    #[test]
    fn directories_are_made_on_the_way_once_parents_first() {
        let root = tempfile::tempdir().unwrap();
        let node = Node::new(root.path().to_owned(), Arc::new(StubMachine::default()), Arc::new(Journal::in_memory()));
        node.ensure_files(&[new("/a/b/c/1", b""), new("/a/d/2", b""), new("/a/b/e/3", b""), new("/4", b"")]).unwrap();
        let effects = node.journal().record().effects;
        let made = effects.iter().filter(|recorded| matches!(recorded.effect, Effect::Directory { .. }));
        let made: Vec<_> = made.map(|recorded| recorded.effect.path().unwrap().to_str().unwrap()).collect();
        assert_eq!(made, ["/a", "/a/b", "/a/b/c", "/a/d", "/a/b/e"]);
        let mode = std::fs::metadata(root.path().join("a/b/c")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn a_file_that_is_refused_keeps_all_from_being_written() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("directory")).unwrap();
        let node = Node::new(root.path().to_owned(), Arc::new(StubMachine::default()), Arc::new(Journal::in_memory()));
        let before = tree(root.path());
        node.ensure_files(&[new("/a", b"a"), new("/directory", b"b")]).unwrap_err();
        assert_eq!(tree(root.path()), before);
        assert!(node.journal().record().effects.is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_no_temporary_ones() {
        let root = tempfile::tempdir().unwrap();
        let node = Node::new(root.path().to_owned(), Arc::new(StubMachine::default()), Arc::new(Journal::in_memory()));
        // Its temporary name is taken by a directory, which nobody removes.
        std::fs::create_dir(root.path().join(".mortise-b")).unwrap();
        let before = tree(root.path());
        let error = node.ensure_files(&[new("/a", b"a"), new("/b", b"b"), new("/c", b"c")]).unwrap_err();
        assert!(error.to_string().contains("/b`"), "{error}");
        assert_eq!(tree(root.path()), before);
    }

    #[test]
    fn shows_no_content() {
        assert_eq!(format!("{:?}", new("/a", b"canary")), "NewFile(/a, 0600)");
    }
}
