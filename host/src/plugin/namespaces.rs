//! Namespaces of a helper: an empty network, an empty read-only root, and no other process in sight.
//!
//! Each is tried for itself, so that a machine that refuses one keeps the others.

use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::native;

/// Where the empty directory is mounted until it is the root; it must exist, and where there is no `/proc` mortise cannot
/// start a helper anyway.
const MOUNT_POINT: &str = "/proc";
/// Nothing fits in.
const EMPTY: &std::ffi::CStr = c"size=4k,nr_inodes=1,mode=0555";

/// What came of a wall; the error is the reason, one line.
pub(super) type Standing = Result<(), String>;

/// What came of each namespace.
pub(super) struct Namespaces {
    pub(super) network: Standing,
    pub(super) mount: Standing,
    /// It stands around the next process that this one starts, not around this one.
    pub(super) pid: Standing,
}

impl Namespaces {
    /// None of them, for one reason.
    pub(super) fn none(reason: &str) -> Self {
        let refused = || Err(reason.to_owned());
        Self { network: refused(), mount: refused(), pid: refused() }
    }
}

/// Enters all three. Needs `CAP_SYS_ADMIN`, be it in a user namespace.
pub(super) fn enter() -> Namespaces {
    Namespaces {
        network: unshare(UnshareFlags::NEWNET, "net"),
        mount: unshare(UnshareFlags::NEWNS, "mnt").and_then(|()| empty_root()),
        pid: unshare(UnshareFlags::NEWPID, "pid"),
    }
}

/// Enters a user namespace, where an ordinary user may enter the others. No user is mapped into it: nothing here acts as
/// one.
pub(super) fn enter_user() -> Standing {
    unshare(UnshareFlags::NEWUSER, "user").map_err(|error| format!("a user namespace would take it: {error}"))
}

/// `kind` is the kernel's own word.
fn unshare(flag: UnshareFlags, kind: &str) -> Standing {
    native::unshare(flag).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSPC) => format!("the limit `user.max_{kind}_namespaces` is reached"),
        _ => format!("the kernel refused it: {error}"),
    })
}

/// Makes an empty read-only directory the root, and the machine's files unreachable.
fn empty_root() -> Standing {
    let steps = || -> io::Result<()> {
        // Else taking the machine's mounts out of this namespace would take them off the machine.
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("none", MOUNT_POINT, "tmpfs", flags, EMPTY)?;
        rustix::process::chdir(MOUNT_POINT)?;
        // The old root ends up on top of the new one, as pivot_root(2) tells, and is taken off.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")?;
        Ok(())
    };
    steps().map_err(|error| format!("its empty root cannot be made: {error}"))
}
