//! Control groups, by the rules of system-validators 1.12, which kubeadm uses.
//!
//! One thing differs: whether a v2 kernel has the freezer is read off an existing group. kubeadm makes a group for it,
//! which changes the machine; here that is the last resort, where there is no group at all.

use std::io;
use std::path::{Path, PathBuf};

use super::mounts::mount_table;
use super::{CgroupInfo, CgroupVersion, HostError};

const DEFAULT_MOUNT: &str = "/sys/fs/cgroup";

pub(super) fn cgroup() -> Result<CgroupInfo, HostError> {
    let memory_is_dir = || Path::new(DEFAULT_MOUNT).join("memory").is_dir();
    let (version, controllers) = match decide(&mount_table()?, memory_is_dir) {
        Hierarchy::None => (CgroupVersion::None, Vec::new()),
        Hierarchy::Legacy => {
            let table = std::fs::read_to_string("/proc/cgroups").map_err(|error| failed("/proc/cgroups", &error))?;
            (CgroupVersion::V1, parse_controllers_v1(&table))
        }
        Hierarchy::Unified(mount) => (CgroupVersion::V2, controllers_v2(&mount)?),
    };
    Ok(CgroupInfo { version, controllers })
}

#[derive(Debug, PartialEq, Eq)]
enum Hierarchy {
    None,
    Legacy,
    Unified(PathBuf),
}

/// A mount at `/sys/fs/cgroup` decides; else a cgroup2 mount anywhere before that, else any cgroup mount.
fn decide(mount_table: &str, memory_is_dir: impl FnOnce() -> bool) -> Hierarchy {
    let mut legacy = false;
    for line in mount_table.lines().filter(|line| line.contains("cgroup")) {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(target), Some(fs_type)) = (fields.next(), fields.next()) else { continue };
        let unified = match (target, fs_type) {
            // systemd's hybrid and legacy layouts: a directory per controller in a tmpfs.
            (DEFAULT_MOUNT, "tmpfs") => !memory_is_dir(),
            (DEFAULT_MOUNT, fs_type) => fs_type == "cgroup2",
            (_, "cgroup2") => true,
            (_, "cgroup") => {
                legacy = true;
                continue;
            }
            _ => continue,
        };
        return if unified { Hierarchy::Unified(target.into()) } else { Hierarchy::Legacy };
    }
    if legacy { Hierarchy::Legacy } else { Hierarchy::None }
}

/// The enabled ones of `/proc/cgroups`.
fn parse_controllers_v1(table: &str) -> Vec<String> {
    let enabled = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        (!line.starts_with('#') && fields.len() >= 4 && fields[3] != "0").then(|| fields[0].to_owned())
    };
    table.lines().filter_map(enabled).collect()
}

fn controllers_v2(mount: &Path) -> Result<Vec<String>, HostError> {
    let path = mount.join("cgroup.controllers");
    let listed = std::fs::read_to_string(&path).map_err(|error| failed(&path.to_string_lossy(), &error))?;
    // Not listed in the file, but part of every v2 kernel since 4.15.
    let mut controllers = vec!["devices".to_owned()];
    if has_freezer(mount) {
        controllers.push("freezer".to_owned());
    }
    controllers.extend(listed.split_ascii_whitespace().map(str::to_owned));
    Ok(controllers)
}

/// Since Linux 5.2 each group but the root has `cgroup.freeze`.
fn has_freezer(mount: &Path) -> bool {
    // In a cgroup namespace the mount's root is a group like any other.
    if mount.join("cgroup.freeze").exists() {
        return true;
    }
    let children = std::fs::read_dir(mount).into_iter().flatten().flatten();
    let mut groups = children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    if let Some(group) = groups.next() {
        return group.path().join("cgroup.freeze").exists();
    }
    // Groups are removed like empty directories, whatever files the kernel shows in them.
    let Ok(group) = tempfile::Builder::new().prefix("freezer-test").tempdir_in(mount).map(tempfile::TempDir::keep)
    else {
        return false;
    };
    let found = group.join("cgroup.freeze").exists();
    if let Err(error) = std::fs::remove_dir(&group) {
        tracing::warn!(group = %group.display(), %error, "a control group made to look for the freezer is left behind");
    }
    found
}

fn failed(path: &str, error: &io::Error) -> HostError {
    HostError::unavailable(format_args!("cannot read `{path}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_table_decides_as_in_kubeadm() {
        let unified = |path: &str| Hierarchy::Unified(path.into());
        let cases = [
            ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", false, unified("/sys/fs/cgroup")),
            ("tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", true, Hierarchy::Legacy),
            ("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n", false, unified("/sys/fs/cgroup")),
            ("cgroup /sys/fs/cgroup cgroup rw,cpu 0 0\n", false, Hierarchy::Legacy),
            ("none /cgroup2 cgroup2 rw 0 0\ntmpfs /sys/fs/cgroup tmpfs rw 0 0\n", true, unified("/cgroup2")),
            (
                "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
                true,
                Hierarchy::Legacy,
            ),
            ("cg /a cgroup rw 0 0\ncg /b cgroup rw 0 0\ncg /c cgroup2 rw 0 0\n", false, unified("/c")),
            ("cg /a cgroup rw 0 0\n/dev/sda1 /cgroup ext4 rw 0 0\n", false, Hierarchy::Legacy),
            ("proc /proc proc rw 0 0\n", false, Hierarchy::None),
            ("cgroup\n", false, Hierarchy::None),
            ("", true, Hierarchy::None),
        ];
        for (table, memory_is_dir, expected) in cases {
            assert_eq!(decide(table, || memory_is_dir), expected, "{table}");
        }
    }

    #[test]
    fn disabled_controllers_of_v1_are_left_out() {
        let table =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\nmemory\t0\t1\t0\nodd\n\npids\t9\t1\t1\n";
        assert_eq!(parse_controllers_v1(table), ["cpuset", "pids"]);
    }

    #[test]
    fn freezer_is_read_off_an_existing_group_and_nothing_is_made() {
        let mount = tempfile::tempdir().unwrap();
        std::fs::write(mount.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        std::fs::create_dir(mount.path().join("init.scope")).unwrap();
        let with =
            |freezer: &[&'static str]| [&["devices"], freezer, &["cpuset", "cpu", "io", "memory", "pids"]].concat();
        assert_eq!(controllers_v2(mount.path()).unwrap(), with(&[]));
        std::fs::write(mount.path().join("init.scope/cgroup.freeze"), "0\n").unwrap();
        assert_eq!(controllers_v2(mount.path()).unwrap(), with(&["freezer"]));
        assert_eq!(std::fs::read_dir(mount.path()).unwrap().count(), 2);
    }

    #[test]
    fn group_made_for_the_freezer_is_removed() {
        let mount = tempfile::tempdir().unwrap();
        std::fs::write(mount.path().join("cgroup.controllers"), "cpu\n").unwrap();
        assert_eq!(controllers_v2(mount.path()).unwrap(), ["devices", "cpu"]);
        assert_eq!(std::fs::read_dir(mount.path()).unwrap().count(), 1);
    }

    #[test]
    fn unified_mount_without_its_file_is_unavailable() {
        let mount = tempfile::tempdir().unwrap();
        assert_eq!(controllers_v2(mount.path()).unwrap_err().code, "unavailable");
    }

    #[test]
    fn this_machine_has_control_groups() {
        assert!(!cgroup().unwrap().controllers.is_empty());
    }
}
