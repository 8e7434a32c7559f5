//! The inner wall: what a helper process gives up before it looks at anything from outside.
//!
//! Order matters. Whatever needs a system call outside the lists happens before them: namespaces, identity, capabilities,
//! Landlock and limits, then a new process, since a PID namespace begins with the next one ([`begin`]); the list for
//! loading ([`before_load`]); threads and native code; the list for guests ([`before_guest`]). The lists are in `syscalls`.
//!
//! Namespaces, Landlock and the user are recorded with a reason where the kernel or a container refuses them; the host
//! shows it, and knows whether the site demands them. Without the other walls the process ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};
use thiserror::Error;

use super::namespaces::{self, Namespaces, Standing};
use super::walls::{WallName, Walls};
use super::wire::{self, FromRunner};
use super::{native, runner, syscalls};

/// Descriptors: the socket, and room for what the engine opens while it starts.
const DESCRIPTORS: u64 = 16;
/// Private writable memory, in bytes: guests of one plugin side by side, or one compilation. Reservations, which the
/// engine makes by the gigabyte, do not count.
const DATA_BYTES: u64 = 4 << 30;
/// Computing time of a whole stage, in seconds. Each call has a deadline of its own; this one needs nobody's attention.
const CPU_SECONDS: u64 = 900;
/// The newest version of Landlock whose rules are asked for; an older kernel enforces those it knows.
const LANDLOCK: ABI = ABI::V7;

/// Which wall could not be put up. The process must not go on.
#[derive(Debug, Error)]
pub(super) enum ConfineError {
    /// A system call failed.
    #[error("cannot {action}")]
    Kernel {
        /// A few words.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The system call filter.
    #[error("cannot filter system calls")]
    Filter(#[from] seccompiler::Error),
    /// Its program.
    #[error("cannot build the filter of system calls")]
    Build(#[from] seccompiler::BackendError),
}

/// The identity a helper takes when the host is root; none: it stays who it is.
pub(super) type HelperUid = Option<u32>;

/// The beginning of a helper that gets its work over its socket, the only descriptor left. The host is told which walls
/// stand, and the number of the process that goes on behind them.
///
/// Called with one thread, first in `main`.
///
/// # Errors
///
/// The exit code of a process that ends here: the host was told why, or another one goes on in its place.
pub(super) fn begin(uid: HelperUid) -> Result<UnixStream, ExitCode> {
    // Nobody hears a panic here, and descriptor 2 is closed.
    std::panic::set_hook(Box::new(|_| {}));
    let (socket, walls) = before_input(uid).map_err(|error| {
        // The socket is not ours yet, only borrowed. A host that went away wants no answer.
        let _ = rustix::io::write(std::io::stdin().as_fd(), &wire::frame(&runner::refused(false, &error)));
        ExitCode::FAILURE
    })?;
    let socket = UnixStream::from(socket);
    let tell = |message: &FromRunner| {
        // As above.
        let _ = wire::write(&socket, message);
    };
    let mut pid = None;
    if walls.missing(&[WallName::PidNamespace]).is_empty() {
        pid = native::split().map_err(|source| {
            tell(&runner::refused(false, &ConfineError::Kernel { action: "start a process", source }));
            ExitCode::FAILURE
        })?;
        if pid.is_none() {
            return follow_host(socket);
        }
    }
    tell(&FromRunner::Confined { pid, walls });
    if pid.is_some() { Err(ExitCode::SUCCESS) } else { follow_host(socket) }
}

/// What a process that starts commands gives up: it keeps who it is, and gains nothing by whatever it executes.
pub(super) fn before_command() -> Result<(), ConfineError> {
    native::close_from(3).map_err(failed("close descriptors"))?;
    never_gain()?;
    limit(Resource::Core, 0)
}

/// The first list. Threads may still be started and native code loaded; nothing can be opened, connected or executed.
pub(super) fn before_load() -> Result<(), ConfineError> {
    for program in [syscalls::deadly()?, syscalls::loading()?] {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

/// The second list, for all threads: no new thread, no new executable memory, no more limits and filters.
pub(super) fn before_guest() -> Result<(), ConfineError> {
    limit(Resource::Nproc, 0)?;
    seccompiler::apply_filter_all_threads(&syscalls::guest()?)?;
    Ok(())
}

/// Gives up everything that is not needed to receive work. Hands out the socket.
fn before_input(uid: HelperUid) -> Result<(OwnedFd, Walls), ConfineError> {
    native::close_from(1).map_err(failed("close descriptors"))?;
    never_gain()?;
    // As root now: another user has no right to. Else behind a user namespace, which must not come before the change of
    // user, since it knows no other.
    let entered = holds(CapabilitySet::SYS_ADMIN)?.then(namespaces::enter);
    let identity = take_identity(uid);
    let Namespaces { network, mount, pid } = match entered {
        Some(entered) => entered,
        None => match namespaces::enter_user() {
            Ok(()) => namespaces::enter(),
            Err(reason) => Namespaces::none(&reason),
        },
    };
    // A user namespace began with a set of its own.
    drop_bounding_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(failed("drop capabilities"))?;
    // After the change of user, which resets it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbid core dumps"))?;
    let landlock = deny_by_landlock();
    for (resource, most) in [
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Data, DATA_BYTES),
        (Resource::Cpu, CPU_SECONDS),
    ] {
        limit(resource, most)?;
    }
    let mut walls = Walls::default();
    // Those that end the process when they cannot be put up, the lists and the last limit before anything is run.
    for name in [WallName::Process, WallName::NoNewPrivs, WallName::Seccomp, WallName::ResourceLimits] {
        walls.record(name, Ok(()));
    }
    for (name, standing) in [
        (WallName::Uid, identity),
        (WallName::NetworkNamespace, network),
        (WallName::MountNamespace, mount),
        (WallName::PidNamespace, pid),
        (WallName::Landlock, landlock),
    ] {
        walls.record(name, standing);
    }
    Ok((native::take_stdin(), walls))
}

/// Ends with the host. A new process does not inherit that; a change of user resets it.
fn follow_host(socket: UnixStream) -> Result<UnixStream, ExitCode> {
    match rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        Ok(()) => Ok(socket),
        // The host sees the end of the socket.
        Err(_) => Err(ExitCode::FAILURE),
    }
}

/// No executed file gives a capability or another user.
fn never_gain() -> Result<(), ConfineError> {
    rustix::thread::set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    drop_bounding_set()
}

/// A user and a group that nothing else on the machine has.
fn take_identity(uid: HelperUid) -> Standing {
    let Some(id) = uid else { return Err("mortise is not run by root".into()) };
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[])
        .and_then(|()| rustix::thread::set_thread_res_gid(group, group, group))
        .and_then(|()| rustix::thread::set_thread_res_uid(user, user, user))
        .map_err(|error| format!("the kernel refused it: {error}"))
}

/// Denies everything that this kernel's Landlock knows to deny.
fn deny_by_landlock() -> Standing {
    let restrict = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?
            .restrict_self()
    };
    let status = restrict().map_err(|error| format!("the kernel refused it: {error}"))?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, _) => Ok(()),
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err("it is not switched on: `landlock` is not in the kernel's list `lsm=`".into())
        }
        (RulesetStatus::NotEnforced, _) => Err("the kernel was built without it".into()),
    }
}

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError::Kernel { action, source: source.into() }
}

fn limit(resource: Resource, most: u64) -> Result<(), ConfineError> {
    rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
        .map_err(failed("set resource limits"))
}

fn holds(capability: CapabilitySet) -> Result<bool, ConfineError> {
    let sets = rustix::thread::capabilities(None).map_err(failed("read capabilities"))?;
    Ok(sets.effective.contains(capability))
}

/// Without a bounding set no executed file could give a capability back. Needs `CAP_SETPCAP`; who lacks it has no
/// capability to lose, and `no_new_privs` holds either way.
fn drop_bounding_set() -> Result<(), ConfineError> {
    if !holds(CapabilitySet::SETPCAP)? {
        return Ok(());
    }
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // Past the kernel's last capability the question is invalid.
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(capability)
                .map_err(failed("drop the capability bounding set"))?,
            Ok(false) => {}
            Err(_) => break,
        }
    }
    Ok(())
}
