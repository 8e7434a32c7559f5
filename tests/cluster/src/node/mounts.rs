//! What a node sees of the file system: this machine's, with everything a node writes to replaced by its own.
//!
//! `/etc`, `/var` and `/usr/libexec` are overlays, so a node may write anywhere in them and this machine never shows
//! it; `/run` is empty; what must lie on a real file system (containerd's overlays, etcd's fsync) is bound from the
//! node's disk. `/tmp`, `/root` and the rest are this machine's own. An overlay over `/` would be simpler, but then a
//! binary built again after the node was made would not be seen.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};

use super::NodeSpec;
use crate::cgroup::{self, Hierarchy};
use crate::enter::{NODE_BINARIES, NODE_SHIMS};

/// Directories with a file system of the node's own, on its disk unless limited in size.
pub(crate) const OWN_DIRECTORIES: [&str; 8] = [
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/etc/cni/net.d",
    "/var/log/pods",
    "/var/log/containers",
    "/var/log/node",
    "/etc/mortise",
    "/usr/libexec/kubernetes",
];
/// Directories that share one limited file system if the node was given one.
pub(crate) const LIMITED_DIRECTORIES: [&str; 3] = ["/etc/kubernetes", "/var/lib/kubelet", "/var/lib/mortise"];
const OVERLAYS: [&str; 3] = ["/etc", "/var", "/usr/libexec"];
/// Settings of the whole machine that a kubelet writes, below `/proc/sys`: a node writes to files instead.
const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];
const STAND_INS: [&str; 2] = ["systemctl", "journalctl"];

/// Where a directory of the node lies on its disk.
pub(crate) fn on_disk(disk: &Path, directory: &str) -> std::path::PathBuf {
    disk.join(directory.trim_start_matches('/').replace('/', "-"))
}

/// Replaces this process's view of the file system with the node's.
pub(crate) fn make(spec: &NodeSpec) -> Result<()> {
    let scratch = &spec.mount_point;
    mount_fresh("tmpfs", scratch, "mode=755")?;
    // All of this is put in place below `scratch` while the machine's paths are still in sight.
    let run = scratch.join("run");
    let inside = |path: &str| run.join(path.trim_start_matches("/run/"));
    for directory in ["/run/lock", "/run/systemd", "/run/mortise", "/run/node/disk", NODE_BINARIES, NODE_SHIMS] {
        make_directory(&inside(directory))?;
    }
    bind(&spec.binaries, &inside(NODE_BINARIES))?;
    bind(&spec.disk, &inside("/run/node/disk"))?;
    for name in STAND_INS {
        let shim = inside(NODE_SHIMS).join(name);
        fs::write(&shim, "").with_context(|| format!("making `{}`", shim.display()))?;
        bind(&spec.program, &shim)?;
    }
    let disk = match &spec.record.disk {
        Some(size) => {
            let limited = inside("/run/node/limited");
            make_directory(&limited)?;
            mount_fresh("tmpfs", &limited, &format!("mode=755,size={size}"))?;
            "/run/node/limited"
        }
        None => "/run/node/disk",
    };
    for directory in OVERLAYS {
        overlay(directory, scratch)?;
    }
    mount_bind_recursive(&run, "/run").context("mounting the node's `/run`")?;
    for directory in OWN_DIRECTORIES {
        bind_own(Path::new("/run/node/disk"), directory)?;
    }
    for directory in LIMITED_DIRECTORIES {
        bind_own(Path::new(disk), directory)?;
    }
    for name in STAND_INS {
        let original = Path::new("/usr/bin").join(name);
        if original.exists() {
            bind(&Path::new(NODE_SHIMS).join(name), &original)?;
        }
    }
    mount_kernel_views()?;
    // The kubelet mounts volumes that containers must see.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).context("sharing the node's mounts")
}

fn overlay(directory: &str, scratch: &Path) -> Result<()> {
    let upper = scratch.join(directory.trim_start_matches('/').replace('/', "-"));
    let work = upper.with_extension("work");
    for needed in [&upper, &work, Path::new(directory)] {
        make_directory(needed)?;
    }
    let data = format!("lowerdir={directory},upperdir={},workdir={}", upper.display(), work.display());
    mount("overlay", directory, "overlay", MountFlags::empty(), CString::new(data)?.as_c_str())
        .with_context(|| format!("mounting an overlay on `{directory}`: is `overlay` in /proc/filesystems?"))
}

fn bind_own(disk: &Path, directory: &str) -> Result<()> {
    let source = on_disk(disk, directory);
    make_directory(&source)?;
    make_directory(Path::new(directory))?;
    bind(&source, Path::new(directory))
}

/// `/proc`, `/sys` and the control groups, as they are from inside the namespaces.
fn mount_kernel_views() -> Result<()> {
    let hierarchies = cgroup::hierarchies()?;
    let security = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().contains(" /sys/kernel/security ");
    if security {
        make_directory(Path::new("/run/node/security"))?;
        bind(Path::new("/sys/kernel/security"), Path::new("/run/node/security"))?;
    }
    unmount("/sys", UnmountFlags::DETACH).context("unmounting the machine's `/sys`")?;
    mount_fresh("sysfs", Path::new("/sys"), "")?;
    if security {
        bind(Path::new("/run/node/security"), Path::new("/sys/kernel/security"))?;
    }
    if hierarchies.iter().all(|hierarchy| hierarchy.root != Path::new("/sys/fs/cgroup")) {
        mount_fresh("tmpfs", Path::new("/sys/fs/cgroup"), "mode=755")?;
    }
    for Hierarchy { root, kind, data } in &hierarchies {
        make_directory(root)?;
        mount_fresh(kind, root, data)?;
    }
    mount_fresh("proc", Path::new("/proc"), "")?;
    for setting in SETTINGS {
        let original = Path::new("/proc/sys").join(setting);
        // Not every kernel has every one, and the kubelet passes over those it cannot read.
        let Ok(value) = fs::read_to_string(&original) else {
            continue;
        };
        let own = Path::new("/run/node").join(setting.replace('/', "-"));
        fs::write(&own, value).with_context(|| format!("writing `{}`", own.display()))?;
        bind(&own, &original)?;
    }
    Ok(())
}

fn mount_fresh(kind: &str, target: &Path, data: &str) -> Result<()> {
    mount(kind, target, kind, MountFlags::empty(), CString::new(data)?.as_c_str())
        .with_context(|| format!("mounting {kind} ({data}) on `{}`", target.display()))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount_bind(source, target).with_context(|| format!("binding `{}` to `{}`", source.display(), target.display()))
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making directory `{}`", path.display()))
}
