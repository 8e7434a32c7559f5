//! The mount table and the swap areas.

use std::io;

use super::{HostError, Mount};

/// As the WIT promises.
const MAX_MOUNTS: usize = 4096;

pub(super) fn mounts() -> Result<Vec<Mount>, HostError> {
    Ok(parse_mounts(&mount_table()?))
}

pub(super) fn mount_table() -> Result<String, HostError> {
    std::fs::read_to_string("/proc/self/mounts")
        .map_err(|error| HostError::unavailable(format_args!("cannot read `/proc/self/mounts`: {error}")))
}

fn parse_mounts(table: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut fields = line.split_ascii_whitespace().map(unescape);
        Some(Mount { source: fields.next()?, target: fields.next()?, fs_type: fields.next()?, options: fields.next()? })
    };
    table.lines().filter_map(mount).take(MAX_MOUNTS).collect()
}

/// Paths of active swap areas. No `/proc/swaps`: the kernel has no swap.
pub(super) fn swap() -> Result<Vec<String>, HostError> {
    match std::fs::read_to_string("/proc/swaps") {
        Ok(table) => Ok(parse_swaps(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(HostError::unavailable(format_args!("cannot read `/proc/swaps`: {error}"))),
    }
}

fn parse_swaps(table: &str) -> Vec<String> {
    table.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next()).map(unescape).collect()
}

/// Undoes the kernel's `\040` for a blank and the like.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'\\').then(|| after.get(..3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
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
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_lines_are_split_and_unescaped() {
        let table = "/dev/sda1 / ext4 rw,relatime 0 0\n//nas/a\\040b /mnt/a\\040b cifs ro 0 0\nbroken line\n";
        let mounts = parse_mounts(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].target.as_str(), mounts[0].fs_type.as_str()), ("/", "ext4"));
        assert_eq!((mounts[1].source.as_str(), mounts[1].target.as_str()), ("//nas/a b", "/mnt/a b"));
    }

    #[test]
    fn mount_table_is_cut_at_the_promised_length() {
        assert_eq!(parse_mounts(&"a /b c d 0 0\n".repeat(5000)).len(), MAX_MOUNTS);
    }

    #[test]
    fn swap_areas_come_after_the_heading() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert_eq!(parse_swaps(heading), Vec::<String>::new());
        let table = format!("{heading}/dev/dm-1 partition 8388604 0 -2\n/swap\\040file file 1024 0 -3\n");
        assert_eq!(parse_swaps(&table), ["/dev/dm-1", "/swap file"]);
        assert_eq!(parse_swaps(""), Vec::<String>::new());
    }

    #[test]
    fn unescaping_leaves_what_is_no_escape() {
        for (text, expected) in [("a\\134b", "a\\b"), ("a\\", "a\\"), ("\\04", "\\04"), ("\\999", "\\999"), ("ä", "ä")]
        {
            assert_eq!(unescape(text), expected);
        }
    }

    #[test]
    fn this_machine_has_a_root_mount() {
        assert!(mounts().unwrap().iter().any(|mount| mount.target == "/"));
        swap().unwrap();
    }
}
