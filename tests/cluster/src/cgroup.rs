//! Control groups: one subtree a cluster in every mounted hierarchy, version 1 or 2, and its complete removal.
//!
//! The subtree is also the authority on which processes belong to a cluster: whatever it started is in there, however
//! it was started and whoever is its parent now.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{Identity, POLL_INTERVAL};

/// How long killed processes may take to leave.
const EMPTY_LIMIT: Duration = Duration::from_secs(30);

/// One mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Mount point on this machine.
    pub(crate) root: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub(crate) kind: String,
    /// Mount data that names the hierarchy again: `cpu,cpuacct`, `name=systemd`; empty for version 2.
    pub(crate) data: String,
}

/// All hierarchies mounted here.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("reading `/proc/self/mountinfo`")?;
    let found: Vec<Hierarchy> = text.lines().filter_map(parse_hierarchy).collect();
    ensure!(
        !found.is_empty(),
        "no cgroup hierarchy is mounted: mount one, e.g. `mount -t cgroup2 none /sys/fs/cgroup`"
    );
    Ok(found)
}

fn parse_hierarchy(line: &str) -> Option<Hierarchy> {
    let (place, source) = line.split_once(" - ")?;
    let mut source = source.split(' ');
    let kind = source.next().filter(|kind| kind.starts_with("cgroup"))?.to_owned();
    let options = source.nth(1)?;
    let general = ["rw", "ro", "xattr", "clone_children", "noprefix"];
    let data = match kind.as_str() {
        "cgroup" => options
            .split(',')
            .filter(|option| !general.contains(option) && !option.starts_with("release_agent"))
            .collect::<Vec<_>>()
            .join(","),
        _ => String::new(),
    };
    Some(Hierarchy { root: place.split(' ').nth(4)?.into(), kind, data })
}

/// Makes `path` (relative, e.g. `mo-x/n1`) in every hierarchy and moves the calling process there.
pub(crate) fn enter(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = ensure_group(&hierarchy, path)?;
        let procs = group.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("moving this process to `{}`", procs.display()))?;
    }
    Ok(())
}

fn ensure_group(hierarchy: &Hierarchy, path: &str) -> Result<PathBuf> {
    let mut group = hierarchy.root.clone();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let parent = group.clone();
        group.push(part);
        if hierarchy.kind == "cgroup2" {
            delegate_controllers(&parent);
        }
        match fs::create_dir(&group) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("making cgroup `{}`", group.display()));
            }
            _ => {}
        }
        // Version 1 lets no process into a cpuset before it has processors and memory nodes.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.kind == "cgroup" && parent.join(file).exists() {
                let inherited = fs::read_to_string(parent.join(file))?;
                fs::write(group.join(file), inherited.trim())
                    .with_context(|| format!("writing `{file}` of `{}`", group.display()))?;
            }
        }
    }
    Ok(group)
}

/// Gives a version 2 group's children every controller it has itself.
fn delegate_controllers(parent: &Path) {
    let available = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        // One that cannot be delegated is the kubelet's to complain about; the others still can.
        let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Processes in the subtree `path` of any hierarchy.
pub(crate) fn processes(path: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        for group in groups_below(&hierarchy.root.join(path)) {
            let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Kills everything in the subtree `path` and removes it from every hierarchy; nothing there is fine.
pub(crate) fn remove(path: &str) -> Result<()> {
    let deadline = Instant::now() + EMPTY_LIMIT;
    let own = i32::try_from(std::process::id()).context("own process number")?;
    loop {
        let left = processes(path)?;
        ensure!(!left.contains(&own), "this process is itself in cgroup `{path}`: run it outside the cluster");
        for identity in left.iter().filter_map(|pid| Identity::of(*pid)) {
            identity.kill();
        }
        let mut busy = Vec::new();
        for hierarchy in hierarchies()? {
            for group in groups_below(&hierarchy.root.join(path)) {
                if let Err(error) = fs::remove_dir(&group)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    busy.push(format!("`{}` ({error})", group.display()));
                }
            }
        }
        if busy.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "cgroups are still in use after {} s: {}; processes {left:?}",
                EMPTY_LIMIT.as_secs(),
                busy.join(", ")
            );
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A group and all below it, deepest first.
fn groups_below(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(groups_below(&entry.path()));
        }
    }
    found.push(group.to_owned());
    found
}

/// Names of top-level groups that start with `prefix` and have a group `child`, in any hierarchy.
pub(crate) fn top_level(prefix: &str, child: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        let names = crate::state::entries(&hierarchy.root)?.into_iter();
        found.extend(names.filter(|name| name.starts_with(prefix) && hierarchy.root.join(name).join(child).is_dir()));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_versions_from_mountinfo() {
        let v1 = "31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let named = "39 24 0:35 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
        let v2 = "40 24 0:36 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(parse_hierarchy(v1).unwrap().data, "cpu,cpuacct");
        assert_eq!(parse_hierarchy(v1).unwrap().root, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(parse_hierarchy(named).unwrap().data, "name=systemd");
        assert_eq!(
            parse_hierarchy(v2).unwrap(),
            Hierarchy { root: "/sys/fs/cgroup".into(), kind: "cgroup2".into(), data: String::new() }
        );
        assert_eq!(parse_hierarchy("24 1 0:20 / /sys rw - sysfs sysfs rw"), None);
    }
}
