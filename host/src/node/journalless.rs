//! The same files without a record: for a reset, which undoes the record, and for what only looks.

use std::io;
use std::path::{Path, PathBuf};

use super::files;

/// Files below a root. Effects are not recorded.
#[derive(Debug, Clone)]
pub(crate) struct Journalless {
    root: PathBuf,
}

impl Journalless {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where an absolute path of the machine is on this file system.
    pub(crate) fn locate(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether anything is there, a dangling link included.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(self.locate(path)).is_ok()
    }

    pub(crate) fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        files::read(&self.locate(path), max_bytes)
    }

    pub(crate) fn read_link(&self, path: &Path) -> Option<PathBuf> {
        std::fs::read_link(self.locate(path)).ok()
    }

    /// Removes a file or link, and what a killed run left under its temporary name; whether the file was there.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<bool> {
        let located = self.locate(path);
        let temporary = files::temporary(&located);
        let mut there = false;
        for (file, counts) in [(&temporary, false), (&located, true)] {
            match std::fs::remove_file(file) {
                Ok(()) => there |= counts,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(there)
    }

    /// Removes an empty directory; whether it was there.
    pub(crate) fn remove_directory(&self, path: &Path) -> io::Result<bool> {
        match std::fs::remove_dir(self.locate(path)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
