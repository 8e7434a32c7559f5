//! A native program in the runner's place, behind all walls of a real runner: what a guest that broke out of the engine
//! could still do. The program is `host/src/plugin/intruder.rs`.

use std::collections::BTreeMap;

use mortise::plugin::{Answer, CheckResult, CheckStatus, Stage};

use crate::plugin::{Setup, guest};
use crate::unfit::small;

/// What ends the process: nobody honest tries it. Written down here again, and not taken from the host: a call that falls
/// out of the host's list must fail this test.
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

/// Reachable, but no answer tells it: three end the process or its sanity, one asks for the process's own number.
const UNTRIED: [i64; 4] = [libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn, libc::SYS_tgkill];

/// The kernel passes these two around every filter: they are its own way back from a probe that a tracer placed, and
/// fail for anybody else.
const UNFILTERED: &[i64] = if cfg!(target_arch = "x86_64") { &[335, 336] } else { &[] };

/// The other reachable system calls.
const REACHABLE: [i64; 29] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
];

/// The errors that refuse.
const REFUSED: i64 = -(libc::EPERM as i64);

async fn intrude(deed: &str) -> CheckResult {
    result(&Setup::new(&small()).setting("intruder", deed)).await
}

async fn result(setup: &Setup) -> CheckResult {
    let mut results = setup.run(Stage::Node).await;
    assert_eq!(results.len(), 1, "{results:#?}");
    results.remove(0)
}

/// What the deed told.
async fn seen(deed: &str) -> BTreeMap<String, String> {
    let result = intrude(deed).await;
    assert_eq!(result.answer, Answer::Report, "{result:#?}");
    result.evidence.into_iter().collect()
}

/// Every attempt was refused by the list.
async fn all_refused(deed: &str, expected: usize) {
    let seen = seen(deed).await;
    assert_eq!(seen.len(), expected, "{seen:#?}");
    for (attempt, answer) in seen {
        assert_eq!(answer, REFUSED.to_string(), "{attempt}");
    }
}

/// The deed ended the runner for this reason, in these words; the next runner of the same plugin is an honest one.
async fn ends(deed: &str, reason: &str, words: &str) {
    let result = intrude(deed).await;
    assert_eq!(result.status, CheckStatus::Failed, "{deed}: {result:#?}");
    assert_eq!(result.answer, Answer::Broke { reason: reason.into() }, "{deed}: {result:#?}");
    let message = &result.findings[0].message;
    assert!(message.contains(words), "{deed}: `{words}` is not in {message}");
    let next = Setup::new(guest()).only("passes").run(Stage::Node).await;
    assert_eq!(next[0].status, CheckStatus::Passed, "after {deed}: {next:#?}");
}

#[tokio::test]
async fn thirty_three_system_calls_are_within_reach() {
    let except: Vec<_> = DEADLY.iter().chain(&UNTRIED).chain(UNFILTERED).map(ToString::to_string).collect();
    let setup = Setup::new(guest()).setting("intruder", "reach").setting("except", &except.join(","));
    let result = result(&setup).await;
    let (_, reached) = &result.evidence.first().unwrap_or_else(|| panic!("{result:#?}"));
    let mut reached: Vec<i64> = reached.split(',').map(|number| number.parse().unwrap()).collect();
    let mut expected = REACHABLE.to_vec();
    reached.sort_unstable();
    expected.sort_unstable();
    assert_eq!(reached, expected);
    assert!(REACHABLE.len() + UNTRIED.len() <= 40);
}

#[tokio::test]
async fn what_nobody_honest_tries_ends_the_process() {
    for number in DEADLY {
        let result = intrude(&format!("call:{number}")).await;
        assert_eq!(result.answer, Answer::Broke { reason: "crash".into() }, "{number}: {result:#?}");
        let message = &result.findings[0].message;
        assert!(message.contains(&format!("ended by signal {}", libc::SIGSYS)), "{number}: {message}");
    }
}

#[tokio::test]
async fn the_socket_is_the_only_descriptor() {
    assert_eq!(seen("descriptors").await["open"], "0");
}

#[tokio::test]
async fn nothing_it_writes_is_read_later() {
    all_refused("leave-traces", 18).await;
}

#[tokio::test]
async fn it_cannot_become_more() {
    let mut seen = seen("grow").await;
    assert_eq!(seen.remove("5 GiB of memory"), Some((-libc::ENOMEM).to_string()), "{seen:#?}");
    assert_eq!(seen.len(), 6);
    for (attempt, answer) in seen {
        assert_eq!(answer, REFUSED.to_string(), "{attempt}");
    }
}

#[tokio::test]
async fn it_can_signal_nobody() {
    all_refused("signal", 6).await;
}

/// Grants belong to the plugin whose socket it is: the broker of the one knows nothing of the other's.
#[tokio::test]
async fn another_plugins_grant_is_of_no_use() {
    let granted = |setup: Setup| {
        setup.manifest("grants: {files: [{path: /etc/hostname, access: read}]}\n").grant("files=/etc/hostname:read")
    };
    let deed = "read-grant-of-another:/etc/hostname";
    let own = result(&granted(Setup::new(guest()).setting("intruder", deed))).await;
    assert_ne!(own.evidence[0].1, "denied", "{own:#?}");
    let neighbour = granted(Setup::new(guest()).only("passes"));
    let intruder = Setup::new(guest()).setting("intruder", deed);
    let results = intruder.beside(&neighbour, Stage::Node).await;
    let [intruded, passed] = results.as_slice() else { panic!("{results:#?}") };
    assert_eq!(intruded.evidence, [("answer".to_owned(), "denied".to_owned())]);
    assert_eq!((intruded.denied, intruded.status), (1, CheckStatus::Failed));
    assert_eq!(passed.status, CheckStatus::Passed);
    assert_eq!(intruder.machine.asked.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn requests_that_the_protocol_does_not_allow_end_it() {
    for (deed, words) in [
        ("ask-for-another-call", "asked for a call that is not open"),
        ("flood-asks", "asked too much"),
        ("ask-on", "asked too much"),
        ("flood-log", "logged too much"),
        ("flood-frames", "ended a call that is not open"),
        ("flood-bytes", "a frame of 4294967295 bytes"),
        ("deep-frame", "malformed frame"),
    ] {
        ends(deed, "protocol", words).await;
    }
}

#[tokio::test]
async fn silence_ends_it() {
    for deed in ["half-a-frame", "spin"] {
        ends(deed, "deadline", "ms of silence").await;
    }
}

/// A thread of the runner that waits at the socket keeps it open until its next look.
#[tokio::test]
async fn a_closed_socket_ends_it_now_or_at_the_deadline() {
    let result = intrude("close").await;
    assert_eq!(result.status, CheckStatus::Failed);
    let Answer::Broke { reason } = &result.answer else { panic!("{result:#?}") };
    assert!(["crash", "deadline"].contains(&reason.as_str()), "{result:#?}");
}
