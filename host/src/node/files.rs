//! Files that appear whole or not at all.
//!
//! The name of a temporary file follows from the name it will get: one command at a time works on a machine, so the
//! next run finds what a killed one left and nothing piles up.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Largest old file that is read to be compared with a new one.
pub(super) const MAX_OLD_BYTES: u64 = 64 << 20;

/// The dot-file beside a path under which its next content is prepared. The kubelet skips dot-files.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".mortise-");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

pub(super) fn read(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let fail = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
    // Asked before opening: opening a fifo waits for a writer.
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("not a regular file")),
        Ok(_) => {}
        Err(error) => return fail(error),
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return fail(error),
    };
    let mut content = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > max_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {max_bytes} bytes")));
    }
    Ok(Some(content))
}

/// Replaces a file or makes it. Whatever fails, the old file is as it was and nothing else is left.
pub(super) fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let written = write_temporary(path, content, mode).and_then(|()| appear(path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = abandon(path);
    }
    written
}

/// Writes what a file will hold under its temporary name, synced. [`appear`] or [`abandon`] follows.
pub(super) fn write_temporary(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path);
    remove_if_there(&temporary)?;
    // Narrow until it has its owner: the content may be secret.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(content)?;
    if let Ok(old) = fs::symlink_metadata(path) {
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Replaces a file, or makes it, by what was written under its temporary name. The directory is not synced: after a power
/// cut the old file may be back.
pub(super) fn appear(path: &Path) -> io::Result<()> {
    fs::rename(temporary(path), path)
}

/// Removes what was written under a temporary name.
pub(super) fn abandon(path: &Path) -> io::Result<()> {
    remove_if_there(&temporary(path))
}

pub(super) fn link(path: &Path, target: &Path) -> io::Result<()> {
    let temporary = temporary(path);
    remove_if_there(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary)?;
    let renamed = fs::rename(&temporary, path);
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

/// One directory, whose parent is there, with exactly this mode.
pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        made => made?,
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
