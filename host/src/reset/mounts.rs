//! What is mounted below a directory.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

/// Mount points strictly below a directory, deepest and latest first.
pub(super) fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?, directory))
}

fn parse(mountinfo: &[u8], directory: &Path) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .filter(|point| point != directory && point.starts_with(directory))
        .collect();
    // The file lists mounts in the order they were made: of two at one point, the later hides the earlier.
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Unmounts one; what is no mount point any more is fine.
pub(super) fn unmount(point: &Path, flags: &[String]) -> io::Result<()> {
    let mut set = UnmountFlags::empty();
    for flag in flags {
        set |= match flag.as_str() {
            "MNT_FORCE" => UnmountFlags::FORCE,
            "MNT_DETACH" => UnmountFlags::DETACH,
            "MNT_EXPIRE" => UnmountFlags::EXPIRE,
            // The settings know one more name.
            _ => UnmountFlags::NOFOLLOW,
        };
    }
    match rustix::mount::unmount(point, set) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        unmounted => unmounted.map_err(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_what_is_mounted_below_deepest_and_latest_first() {
        let mountinfo = b"21 1 8:1 / / rw - ext4 /dev/sda rw\n\
            30 21 0:5 / /var/lib/kubelet rw shared:1 - ext4 /dev/sdb rw\n\
            31 30 0:6 / /var/lib/kubelet/pods/a/volumes/x rw - tmpfs tmpfs rw\n\
            32 30 0:7 / /var/lib/kubelet/a\\040b rw - tmpfs tmpfs rw\n\
            33 30 0:8 / /var/lib/kubelet/a\\040b rw - ext4 /dev/sdc rw\n\
            34 30 0:9 / /var/lib/kubelet-other rw - tmpfs tmpfs rw\n";
        let points = parse(mountinfo, Path::new("/var/lib/kubelet"));
        let expected = ["/var/lib/kubelet/pods/a/volumes/x", "/var/lib/kubelet/a b", "/var/lib/kubelet/a b"];
        assert_eq!(points, expected.map(PathBuf::from));
    }

    #[test]
    fn unescapes_octal_digits_only() {
        assert_eq!(unescape(b"/a\\040b\\134\\011"), Path::new("/a b\\\t"));
        assert_eq!(unescape(b"/a\\04"), Path::new("/a\\04"));
        assert_eq!(unescape(b"/a\\x40b"), Path::new("/a\\x40b"));
    }
}
