//! The inner wall: what a helper process gives up before it looks at anything from outside.
//!
//! Order matters. Whatever needs a system call outside the lists happens before them: identity, capabilities and limits
//! first, then the list ([`before_input`]), then threads and native code, then the shorter list ([`before_guest`]).
//! Namespaces and Landlock belong between capabilities and limits; the platform issue brings them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use thiserror::Error;

use super::native;

/// Descriptors: the socket, and room for what the engine opens while it starts.
const DESCRIPTORS: u64 = 16;
/// Private writable memory, in bytes: guests of one plugin side by side, or one compilation. Reservations, which the
/// engine makes by the gigabyte, do not count.
const DATA_BYTES: u64 = 4 << 30;

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

/// Gives up everything that is not needed to receive work. Hands out the socket, the only descriptor left.
///
/// Called with one thread, first in `main`.
pub(super) fn before_input(uid: HelperUid) -> Result<OwnedFd, ConfineError> {
    native::close_from(1).map_err(failed("close descriptors"))?;
    never_gain()?;
    if let Some(id) = uid {
        let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
        rustix::thread::set_thread_groups(&[]).map_err(failed("drop supplementary groups"))?;
        rustix::thread::set_thread_res_gid(group, group, group).map_err(failed("change the group"))?;
        rustix::thread::set_thread_res_uid(user, user, user).map_err(failed("change the user"))?;
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(failed("drop capabilities"))?;
    // After the change of user, which resets both.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbid core dumps"))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("follow the host's end"))?;
    for (resource, most) in [
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Data, DATA_BYTES),
    ] {
        limit(resource, most)?;
    }
    Ok(native::take_stdin())
}

/// What a process that starts commands gives up: it keeps who it is, and gains nothing by whatever it executes.
pub(super) fn before_command() -> Result<(), ConfineError> {
    native::close_from(3).map_err(failed("close descriptors"))?;
    never_gain()?;
    limit(Resource::Core, 0)
}

/// No executed file gives a capability or another user.
fn never_gain() -> Result<(), ConfineError> {
    rustix::thread::set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    drop_bounding_set()
}

/// The first list. Threads may still be started and native code loaded; nothing can be opened, connected or executed.
pub(super) fn before_load() -> Result<(), ConfineError> {
    for program in [deadly()?, allowed()?] {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

/// The second list, for all threads: no new thread, no new executable memory, no more limits and filters.
pub(super) fn before_guest() -> Result<(), ConfineError> {
    limit(Resource::Nproc, 0)?;
    seccompiler::apply_filter_all_threads(&settled()?)?;
    Ok(())
}

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError::Kernel { action, source: source.into() }
}

fn limit(resource: Resource, most: u64) -> Result<(), ConfineError> {
    rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
        .map_err(failed("set resource limits"))
}

/// Without a bounding set no executed file could give a capability back. Needs `CAP_SETPCAP`; who lacks it has no
/// capability to lose, and `no_new_privs` holds either way.
fn drop_bounding_set() -> Result<(), ConfineError> {
    let set = rustix::thread::capabilities(None).map_err(failed("read capabilities"))?;
    if !set.effective.contains(CapabilitySet::SETPCAP) {
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

/// A program that ends the process for what no honest guest, and no bug of ours, would try.
fn deadly() -> Result<BpfProgram, ConfineError> {
    let calls = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setgroups,
        libc::SYS_capset,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_add_key,
        libc::SYS_keyctl,
    ];
    filter(calls.map(|call| (call, Vec::new())).into(), SeccompAction::Allow, SeccompAction::KillProcess)
}

/// A program that refuses whatever is not on the list.
fn allowed() -> Result<BpfProgram, ConfineError> {
    let own_pid = u64::from(std::process::id());
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = [
        // The socket.
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_close,
        // Memory.
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_membarrier,
        // Time and chance.
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_gettimeofday,
        libc::SYS_getrandom,
        // Threads, signals, the end.
        libc::SYS_futex,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
        // For the second list.
        libc::SYS_prlimit64,
        libc::SYS_seccomp,
    ]
    .map(|call| (call, Vec::new()))
    .into();
    // `abort` signals its own thread; a host that is not root has the same uid and must be out of reach.
    let own = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own_pid)?;
    calls.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
    // What installing the second list asks again.
    let again = u64::from(libc::PR_SET_NO_NEW_PRIVS.cast_unsigned());
    let again = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, again)?;
    calls.insert(libc::SYS_prctl, vec![SeccompRule::new(vec![again])?]);
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    filter(calls, refuse, SeccompAction::Allow)
}

/// A program that takes away what only the start needed.
fn settled() -> Result<BpfProgram, ConfineError> {
    let executable = || -> Result<Vec<SeccompRule>, ConfineError> {
        let bit = libc::PROT_EXEC.cast_unsigned().into();
        let asked = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit), bit)?;
        Ok(vec![SeccompRule::new(vec![asked])?])
    };
    let calls = BTreeMap::from([
        (libc::SYS_mmap, executable()?),
        (libc::SYS_mprotect, executable()?),
        (libc::SYS_clone, Vec::new()),
        (libc::SYS_clone3, Vec::new()),
        (libc::SYS_prlimit64, Vec::new()),
        (libc::SYS_prctl, Vec::new()),
        (libc::SYS_seccomp, Vec::new()),
    ]);
    filter(calls, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM.cast_unsigned()))
}

fn filter(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, ConfineError> {
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(calls, otherwise, listed, arch)?.try_into()?)
}
