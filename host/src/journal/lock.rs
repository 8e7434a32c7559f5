//! One command at a time: an advisory lock on a file beside the record.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{JournalError, locate};

/// The lock file; its content names the holder.
pub const LOCK_PATH: &str = "/var/lib/mortise/join.lock";

/// Most bytes of the holder's note that are shown.
const MAX_NOTE_BYTES: u64 = 200;

/// The lock, held until dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock, or says who has it. The state directory must be there.
    ///
    /// # Errors
    ///
    /// [`JournalError::InProgress`], [`JournalError::Write`].
    pub fn acquire(root: &Path, command: &str) -> Result<Self, JournalError> {
        let path = locate(root, LOCK_PATH);
        let fail = |source| JournalError::Write { path: path.clone(), source };
        loop {
            let mut file = File::options()
                .create(true)
                .read(true)
                .write(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(super::O_NOFOLLOW)
                .open(&path)
                .map_err(fail)?;
            if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                if error == rustix::io::Errno::WOULDBLOCK {
                    return Err(JournalError::InProgress { holder: note(&mut file) });
                }
                return Err(fail(error.into()));
            }
            // The last holder may have removed the file between our open and our lock: then it locks nothing.
            let same = std::fs::symlink_metadata(&path)
                .ok()
                .zip(file.metadata().ok())
                .is_some_and(|(there, ours)| there.ino() == ours.ino() && there.dev() == ours.dev());
            if !same {
                continue;
            }
            // The note is a courtesy: a full disk must not stop a reset that frees it.
            let _ = file.set_len(0);
            let _ = file.rewind();
            let _ = write!(file, "process {}, `mortise {command}`", std::process::id());
            return Ok(Self { path, _file: file });
        }
    }

    /// Removes the lock file, still holding it.
    pub(crate) fn remove(self) -> std::io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

fn note(file: &mut File) -> String {
    let mut text = String::new();
    // Unreadable or half-written: say that someone is there.
    let _ = file.take(MAX_NOTE_BYTES).read_to_string(&mut text);
    let text = crate::output::printable(text.trim());
    if text.is_empty() { "it did not say which".into() } else { text }
}
