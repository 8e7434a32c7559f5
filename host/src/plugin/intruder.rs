//! What a guest that broke out of the engine could do: a native program in the runner's place, all walls up. For tests
//! of the walls, in no release.
//!
//! A plugin's setting `intruder` names the deed. The runner then loads the plugin as ever, puts up its last wall, says
//! that it is ready, and hands its main thread and its socket to this module instead of calling the guest.

use std::io::Write;
use std::process::ExitCode;

use tokio::sync::mpsc;

use super::native::{address, system_call};
use super::report::{CheckInfo, Report};
use super::runner::Link;
use super::wire::{Ask, Export, LogLevel, Outcome, Start};
use super::{Severity, Stage};
use crate::facts::FactRequest;

/// Numbers past the last system call of any kernel so far.
const NUMBERS: i64 = 600;
/// Marks numbers of the x32 ABI, which has system calls of its own on x86_64.
const X32: i64 = 0x4000_0000;
/// More than any limit allows.
const FLOOD: usize = 20_000;

/// What an intruder is told to do.
pub(super) struct Intruder {
    deed: String,
    /// Numbers left out of a search: they end the process.
    except: Vec<i64>,
}

impl Intruder {
    /// Whether a plugin's settings ask for one.
    pub(super) fn wanted(start: &Start) -> Option<Self> {
        let settings: serde_json::Value = serde_json::from_str(&start.settings).ok()?;
        let except = settings["except"].as_str().unwrap_or_default();
        let except = except.split(',').filter_map(|number| number.parse().ok()).collect();
        Some(Self { deed: settings["intruder"].as_str()?.to_owned(), except })
    }

    /// Serves calls until the socket closes, in its own way.
    pub(super) fn take_over(&self, link: &Link, calls: &mut mpsc::UnboundedReceiver<(u64, Export)>) -> ExitCode {
        while let Some((call, export)) = calls.blocking_recv() {
            let outcome = match export {
                Export::ListChecks => Outcome::Checks(vec![CheckInfo {
                    id: "intruder".into(),
                    title: "a native program in the runner's place".into(),
                    stage: Stage::Node,
                    severity: Severity::Error,
                }]),
                _ => {
                    let evidence = self.act(link, call);
                    Outcome::Report(Report { evidence, ..Report::default() })
                }
            };
            link.done(call, outcome);
        }
        ExitCode::SUCCESS
    }

    fn act(&self, link: &Link, call: u64) -> Vec<(String, String)> {
        let (deed, argument) = self.deed.split_once(':').unwrap_or((&self.deed, ""));
        match deed {
            "reach" => self.reach(),
            "call" => vec![("answer".into(), system_call(argument.parse().unwrap_or_default(), [0; 6]).to_string())],
            "descriptors" => descriptors(),
            "leave-traces" => attempts(&traces()),
            "grow" => attempts(&growth()),
            "signal" => attempts(&signals()),
            "read-grant-of-another" => ask(link, call, argument),
            "ask-for-another-call" => {
                drop(link.ask(call + 1, Ask::Stat("/etc/hostname".into())));
                std::thread::park();
                Vec::new()
            }
            "flood-asks" => flood(|| drop(link.ask(call, Ask::Stat("/etc/hostname".into())))),
            // Each question after the answer to the one before, as the protocol has it, but without end.
            "ask-on" => flood(|| drop(link.ask(call, Ask::Fact(FactRequest::Swap)).blocking_recv())),
            "flood-log" => flood(|| link.log(call, LogLevel::Info, "x".repeat(1000))),
            "flood-frames" => flood(|| link.done(call + 1, Outcome::Checks(Vec::new()))),
            "flood-bytes" => flood(|| say(link, &[0xff; 4096])),
            "deep-frame" => {
                let body = "[".repeat(1 << 20);
                say(link, &(1_u32 << 20).to_be_bytes());
                say(link, body.as_bytes());
                std::thread::park();
                Vec::new()
            }
            "half-a-frame" => {
                say(link, &[0, 0, 1, 0, b'{']);
                std::thread::park();
                Vec::new()
            }
            "spin" => loop {
                std::hint::spin_loop();
            },
            "close" => {
                system_call(libc::SYS_close, [0; 6]);
                std::thread::park();
                Vec::new()
            }
            _ => vec![("unknown deed".into(), self.deed.clone())],
        }
    }

    /// Which system calls do something: all are tried with arguments that no call likes.
    fn reach(&self) -> Vec<(String, String)> {
        let arguments = [-1, -1, 0, -1, 0, -1];
        let tried = (0..NUMBERS).chain((0..NUMBERS).map(|number| X32 | number));
        let refused = i64::from(-libc::EPERM);
        let reached = tried
            .filter(|number| !self.except.contains(&(number & !X32)) && system_call(*number, arguments) != refused)
            .map(|number| number.to_string());
        vec![("reached".into(), reached.collect::<Vec<_>>().join(","))]
    }
}

/// Descriptors that something is behind.
fn descriptors() -> Vec<(String, String)> {
    let dont_wait = libc::MSG_DONTWAIT.into();
    let open = (0..1024)
        .filter(|fd| system_call(libc::SYS_recvfrom, [*fd, 0, 0, dont_wait, 0, 0]) != i64::from(-libc::EBADF))
        .map(|fd| fd.to_string());
    vec![("open".into(), open.collect::<Vec<_>>().join(","))]
}

type Attempt = (&'static str, i64, [i64; 6]);

/// Each attempt's answer: an error as a negative number.
fn attempts(attempts: &[Attempt]) -> Vec<(String, String)> {
    let answer =
        |(name, number, arguments): &Attempt| ((*name).to_owned(), system_call(*number, *arguments).to_string());
    attempts.iter().map(answer).collect()
}

/// Ways to leave bytes where something reads them later.
fn traces() -> Vec<Attempt> {
    let (here, created) = (i64::from(libc::AT_FDCWD), i64::from(libc::O_CREAT | libc::O_WRONLY));
    let (root, file) = (address(c"/"), address(c"/left-behind"));
    vec![
        ("open a file", libc::SYS_openat, [here, file, created, 0o666, 0, 0]),
        ("open the root", libc::SYS_openat, [here, root, 0, 0, 0, 0]),
        ("make a directory", libc::SYS_mkdirat, [here, file, 0o777, 0, 0, 0]),
        ("make a node", libc::SYS_mknodat, [here, file, libc::S_IFIFO.into(), 0, 0, 0]),
        ("link", libc::SYS_symlinkat, [file, here, file, 0, 0, 0]),
        ("set an attribute", libc::SYS_setxattr, [root, file, file, 1, 0, 0]),
        ("memory file", libc::SYS_memfd_create, [file, 0, 0, 0, 0, 0]),
        ("shared memory", libc::SYS_shmget, [1, 4096, 0o1666, 0, 0, 0]),
        ("message queue", libc::SYS_msgget, [1, 0o1666, 0, 0, 0, 0]),
        ("semaphore", libc::SYS_semget, [1, 1, 0o1666, 0, 0, 0]),
        ("named message queue", libc::SYS_mq_open, [file, created, 0o666, 0, 0, 0]),
        ("socket", libc::SYS_socket, [libc::AF_UNIX.into(), libc::SOCK_DGRAM.into(), 0, 0, 0, 0]),
        ("pipe", libc::SYS_pipe2, [address(c"........"), 0, 0, 0, 0, 0]),
        ("event", libc::SYS_eventfd2, [0, 0, 0, 0, 0, 0]),
        ("watch", libc::SYS_inotify_init1, [0, 0, 0, 0, 0, 0]),
        ("pass a descriptor", libc::SYS_sendmsg, [0, 0, 0, 0, 0, 0]),
        ("copy the descriptor", libc::SYS_dup, [0, 0, 0, 0, 0, 0]),
        ("name the thread", libc::SYS_prctl, [libc::PR_SET_NAME.into(), file, 0, 0, 0, 0]),
    ]
}

/// Ways to become more.
fn growth() -> Vec<Attempt> {
    let private = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let (writable, executable) = (i64::from(libc::PROT_WRITE), i64::from(libc::PROT_EXEC));
    let mapped = system_call(libc::SYS_mmap, [0, 4096, writable, private, -1, 0]);
    vec![
        ("executable memory", libc::SYS_mmap, [0, 4096, executable, private, -1, 0]),
        ("memory made executable", libc::SYS_mprotect, [mapped, 4096, executable, 0, 0, 0]),
        ("memory made executable by key", libc::SYS_pkey_mprotect, [mapped, 4096, executable, -1, 0, 0]),
        ("5 GiB of memory", libc::SYS_mmap, [0, 5 << 30, writable, private, -1, 0]),
        ("process", libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]),
        ("limit", libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE.into(), 0, 0, 0, 0]),
        ("filter", libc::SYS_seccomp, [0, 0, 0, 0, 0, 0]),
    ]
}

/// Signals to the host, which is the parent, and to everything; numbers as another namespace sees them, too.
fn signals() -> Vec<Attempt> {
    let nothing = 0;
    vec![
        ("everything", libc::SYS_kill, [-1, nothing, 0, 0, 0, 0]),
        ("process 1", libc::SYS_kill, [1, nothing, 0, 0, 0, 0]),
        ("thread 2", libc::SYS_tkill, [2, nothing, 0, 0, 0, 0]),
        ("thread of another process", libc::SYS_tgkill, [4242, 4242, nothing, 0, 0, 0]),
        ("queued", libc::SYS_rt_sigqueueinfo, [1, nothing, 0, 0, 0, 0]),
        ("by descriptor", libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0]),
    ]
}

fn ask(link: &Link, call: u64, path: &str) -> Vec<(String, String)> {
    let answer = match link.ask(call, Ask::Read(path.into())).blocking_recv() {
        Ok(Ok(_)) => "content".into(),
        Ok(Err(error)) => error.code,
        Err(_) => "none".into(),
    };
    vec![("answer".into(), answer)]
}

fn flood(mut wave: impl FnMut()) -> Vec<(String, String)> {
    for _ in 0..FLOOD {
        wave();
    }
    std::thread::park();
    Vec::new()
}

/// Bytes past the protocol. A host that went away ends the process soon.
fn say(link: &Link, bytes: &[u8]) {
    let mut socket = link.raw();
    let _ = socket.write_all(bytes);
}
