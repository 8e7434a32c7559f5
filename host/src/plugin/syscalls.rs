//! Which system calls a helper can reach: two lists, and one of calls that end the process.
//!
//! Whatever is on no list is refused with `EPERM`: language runtimes and the C library try calls that they can do without
//! (opening `/proc/self/maps`, asking a terminal's size, naming a thread), and another version tries others. What nobody
//! honest tries ends the process, so that an attack is seen and has one try.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::confine::ConfineError;

/// The only signal-sending call asks for this process.
const SENDING: i64 = libc::SYS_tgkill;

/// What a guest, or whatever took over its process, can reach. With [`SENDING`], at most 40.
const GUEST: [i64; 32] = [
    // The socket.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_close,
    // Memory; none of it executable.
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
    // Threads that are there, signals, the end.
    libc::SYS_futex,
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
];

/// What loading needs beside that: the descriptor of the code, threads, limits, and the call that installs the list for
/// guests.
const LOADING: [i64; 5] =
    [libc::SYS_recvmsg, libc::SYS_clone, libc::SYS_clone3, libc::SYS_prlimit64, libc::SYS_seccomp];

/// Looking into and steering other processes, mounts, namespaces, identities, programs, the kernel itself.
const DEADLY: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_personality,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// A program that ends the process for [`DEADLY`].
pub(super) fn deadly() -> Result<BpfProgram, ConfineError> {
    filter(unconditional(DEADLY), SeccompAction::Allow, SeccompAction::KillProcess)
}

/// A program that refuses whatever neither loading nor a guest needs.
pub(super) fn loading() -> Result<BpfProgram, ConfineError> {
    let mut calls = unconditional(&GUEST);
    calls.extend(unconditional(&LOADING));
    calls.insert(SENDING, to_itself()?);
    // What installing the list for guests asks again.
    let again = u64::from(libc::PR_SET_NO_NEW_PRIVS.cast_unsigned());
    calls.insert(libc::SYS_prctl, vec![rule(0, SeccompCmpOp::Eq, again)?]);
    allow_only(calls)
}

/// A program that refuses whatever a guest does not need. Memory that a guest writes is never executable, and a message
/// goes to the host, who is at the other end of the socket, or nowhere.
pub(super) fn guest() -> Result<BpfProgram, ConfineError> {
    let mut calls = unconditional(&GUEST);
    calls.insert(SENDING, to_itself()?);
    let executable = libc::PROT_EXEC.cast_unsigned().into();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        calls.insert(call, vec![rule(2, SeccompCmpOp::MaskedEq(executable), 0)?]);
    }
    for call in [libc::SYS_sendto, libc::SYS_recvfrom] {
        let address = SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
        calls.insert(call, vec![SeccompRule::new(vec![address])?]);
    }
    allow_only(calls)
}

/// `abort` signals its own thread. A host that is not root has the same user and must be out of reach.
fn to_itself() -> Result<Vec<SeccompRule>, ConfineError> {
    Ok(vec![rule(0, SeccompCmpOp::Eq, std::process::id().into())?])
}

/// The lower half of an argument compares like this.
fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, ConfineError> {
    Ok(SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])?)
}

fn unconditional(calls: &[i64]) -> BTreeMap<i64, Vec<SeccompRule>> {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn allow_only(calls: BTreeMap<i64, Vec<SeccompRule>>) -> Result<BpfProgram, ConfineError> {
    filter(calls, SeccompAction::Errno(libc::EPERM.cast_unsigned()), SeccompAction::Allow)
}

fn filter(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, ConfineError> {
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(calls, otherwise, listed, arch)?.try_into()?)
}
