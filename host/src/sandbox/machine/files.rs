//! The files under the root, as a program that has the root as its `/` would see them.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Links that lead to links, at most.
const MAX_LINKS: usize = 8;

/// The whole of a text file; links stay under the root.
pub(super) fn read(root: &Path, path: &str) -> io::Result<String> {
    let mut inside = PathBuf::from(path);
    for _ in 0..MAX_LINKS {
        let located = locate(root, &inside);
        match std::fs::read_link(&located) {
            // Joining an absolute target replaces the path, a relative one starts beside the link.
            Ok(target) => inside = inside.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return std::fs::read_to_string(located),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// Writes a file anew, its directory made where missing.
pub(super) fn write(root: &Path, path: &str, content: &str, mode: u32) -> io::Result<()> {
    let located = locate(root, Path::new(path));
    if let Some(parent) = located.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(located)?;
    file.write_all(content.as_bytes())
}

/// Makes a link point to `target`.
pub(super) fn link(root: &Path, path: &str, target: &str) -> io::Result<()> {
    let located = locate(root, Path::new(path));
    match std::fs::remove_file(&located) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, located)
}

fn locate(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
