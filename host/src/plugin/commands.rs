//! Programs of this machine, run for a plugin: no shell, no privileges, no leftovers.
//!
//! Each run has a helper process between host and program. The helper is the reaper of all that the program leaves
//! behind: a process that detaches, even into a session of its own, becomes the helper's child when its parent ends, so
//! killing and reaping children until there are none ends every descendant. Control groups would do the same, but a host
//! that is not root has none to give. A host that goes away closes the helper's socket, which ends the run, too.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::broker::failed;
use super::confine;
use super::files::open_program;
use super::limits::{FRAME_TO_RUNNER, GRACE};
use super::native;
use super::process::{Launcher, Role};
use super::wire::{self, Bytes};
use crate::facts::{CommandOutput, CommandRequest, HostError};

/// How long ending all descendants may take.
const REAP_TIME: Duration = Duration::from_secs(2);
/// Where user names are looked up. Name services would load code into a process that is root.
const PASSWD: &str = "/etc/passwd";

/// What a helper is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    user: String,
    timeout: Duration,
    max_output_bytes: u64,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
struct Output {
    status: Option<i32>,
    stdout: Bytes,
    stderr: Bytes,
}

/// Runs a program to its end.
///
/// # Errors
///
/// `not-found`; `denied` for a program that others can change; `timeout` and `too-large`, after which nothing of it is
/// left; `unavailable` when it cannot be started.
pub async fn run(request: &CommandRequest) -> Result<CommandOutput, HostError> {
    run_with(&Launcher::default(), request).await
}

/// As [`run`], with the helper started from elsewhere.
///
/// # Errors
///
/// As [`run`].
pub async fn run_with(launcher: &Launcher, request: &CommandRequest) -> Result<CommandOutput, HostError> {
    let passed = request.environment.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    let work = Work {
        program: request.program.clone(),
        arguments: request.arguments.clone(),
        environment: passed.collect(),
        user: request.user.clone(),
        timeout: request.timeout,
        max_output_bytes: request.max_output_bytes,
    };
    let broken = |error: io::Error| failed("unavailable", format!("cannot run a command: {error}"));
    let mut helper = launcher.start(Role::Command, 0).map_err(broken)?;
    let exchange = async {
        helper.socket.write_all(&wire::frame(&work)).await?;
        wire::read_async::<Result<Output, HostError>>(&mut helper.socket, FRAME_TO_RUNNER).await
    };
    match tokio::time::timeout(request.timeout + REAP_TIME + GRACE, exchange).await {
        Ok(Ok(answer)) => {
            answer.map(|it| CommandOutput { status: it.status, stdout: it.stdout.0, stderr: it.stderr.0 })
        }
        Ok(Err(error)) => {
            let ended = helper.child.ending().await;
            Err(failed("unavailable", format!("cannot run a command: {error}; {ended}")))
        }
        Err(_) => Err(failed("timeout", format!("`{}` could not be ended in time", work.program.display()))),
    }
}

/// The life of a helper.
pub(super) fn main() -> ExitCode {
    // Nobody hears a panic here.
    std::panic::set_hook(Box::new(|_| {}));
    let walls = confine::before_command();
    let socket = UnixStream::from(native::take_stdin());
    let answer = match walls {
        Ok(()) => wire::read::<Work>(&socket, FRAME_TO_RUNNER)
            .map_err(|error| failed("unavailable", error.to_string()))
            .and_then(|work| perform(&work, &socket)),
        Err(error) => Err(failed("unavailable", error.to_string())),
    };
    // A host that is gone wants no answer.
    let _ = wire::write(&socket, &answer);
    ExitCode::SUCCESS
}

fn perform(work: &Work, socket: &UnixStream) -> Result<Output, HostError> {
    let cannot = |what: &'static str| {
        move |error: io::Error| failed("unavailable", format!("cannot {what} `{}`: {error}", work.program.display()))
    };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|e| cannot("supervise")(e.into()))?;
    let program = File::from(open_program(&work.program)?);
    let mut command = command(work, &program).map_err(cannot("read"))?;
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = identity(&work.user)?;
        native::leave_network().map_err(cannot("take the network from"))?;
        // Setting a user drops the supplementary groups.
        command.uid(uid).gid(gid);
    }
    let started = Instant::now();
    let child = command.spawn().map_err(cannot("start"))?;
    let ended = watch(child, work, socket, started + work.timeout);
    end_descendants(started + work.timeout + REAP_TIME);
    ended
}

/// A binary is executed by the descriptor that was checked; a script by its path, which its interpreter opens again.
fn command(work: &Work, program: &File) -> io::Result<Command> {
    let mut magic = [0; 4];
    let read = program.read_at(&mut magic, 0)?;
    let mut command = match &magic[..read] {
        b"\x7fELF" => {
            let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
            command.arg0(&work.program);
            command
        }
        [b'#', b'!', ..] => Command::new(&work.program),
        _ => return Err(io::Error::other("neither an ELF file nor a script with `#!`")),
    };
    command
        .args(&work.arguments)
        .env_clear()
        .envs(work.environment.iter().cloned())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    Ok(command)
}

/// Numeric ids of a user.
fn identity(user: &str) -> Result<(u32, u32), HostError> {
    let content = std::fs::read_to_string(PASSWD).unwrap_or_default();
    let ids = content.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == user).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.ok_or_else(|| failed("unavailable", format!("there is no user `{user}` in `{PASSWD}`")))
}

/// One of the program's two streams.
struct Pipe {
    file: Option<File>,
    content: Vec<u8>,
}

impl Pipe {
    fn new(file: Option<impl Into<OwnedFd>>) -> Self {
        Self { file: file.map(|it| File::from(it.into())), content: Vec::new() }
    }

    /// Takes what there is; an end of the stream closes it.
    fn take(&mut self) {
        let mut chunk = [0; 16 << 10];
        let Some(file) = &mut self.file else { return };
        match file.read(&mut chunk) {
            Ok(0) | Err(_) => self.file = None,
            Ok(length) => self.content.extend(&chunk[..length]),
        }
    }
}

/// Waits for the end of the program, its time, its output's bound, or the host's end.
fn watch(mut child: Child, work: &Work, socket: &UnixStream, deadline: Instant) -> Result<Output, HostError> {
    let broken = |error: io::Error| failed("unavailable", error.to_string());
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| broken(error.into()))?;
    let mut pipes = [Pipe::new(child.stdout.take()), Pipe::new(child.stderr.take())];
    let shown = work.program.display();
    loop {
        let ready = wait_for(&pipes, pidfd.as_fd(), socket, deadline).map_err(broken)?;
        if ready.host_gone {
            return Err(failed("unavailable", "the host is gone".into()));
        }
        for (pipe, ready) in pipes.iter_mut().zip(ready.pipes) {
            if ready {
                pipe.take();
            }
            if pipe.content.len() as u64 > work.max_output_bytes {
                return Err(failed("too-large", format!("`{shown}` wrote more than {} bytes", work.max_output_bytes)));
            }
        }
        // What it wrote is in the pipes before it ends, so they are emptied first.
        if ready.ended && ready.pipes == [false, false] {
            let status = child.wait().map_err(broken)?;
            let [stdout, stderr] = pipes.map(|pipe| Bytes(pipe.content));
            return Ok(Output { status: status.code(), stdout, stderr });
        }
        if Instant::now() >= deadline {
            return Err(failed("timeout", format!("`{shown}` ran for more than {} ms", work.timeout.as_millis())));
        }
    }
}

struct Ready {
    pipes: [bool; 2],
    ended: bool,
    host_gone: bool,
}

fn wait_for(
    pipes: &[Pipe; 2],
    pidfd: std::os::fd::BorrowedFd<'_>,
    socket: &UnixStream,
    deadline: Instant,
) -> io::Result<Ready> {
    let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
    let mut watched = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
    let open: Vec<usize> = (0..2).filter(|index| pipes[*index].file.is_some()).collect();
    for file in pipes.iter().filter_map(|pipe| pipe.file.as_ref()) {
        watched.push(PollFd::new(file, PollFlags::IN));
    }
    match poll(&mut watched, Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let is_ready = |index: usize| !watched[index].revents().is_empty();
    let mut ready = Ready { pipes: [false; 2], ended: is_ready(0), host_gone: is_ready(1) };
    for (place, index) in open.into_iter().enumerate() {
        ready.pipes[index] = is_ready(2 + place);
    }
    Ok(ready)
}

/// Kills and reaps until this process has no child, which is when it has no descendant.
fn end_descendants(deadline: Instant) {
    while Instant::now() < deadline {
        let children = children();
        for child in &children {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(*child, Signal::KILL);
        }
        // One that became a child after the look was not killed and must not be waited for.
        let options = if children.is_empty() { WaitOptions::NOHANG } else { WaitOptions::empty() };
        match rustix::process::wait(options) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Processes whose parent is this one.
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_pid();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let child = |name: &str| -> Option<Pid> {
        let pid: i32 = name.parse().ok()?;
        let stat = std::fs::read_to_string(Path::new("/proc").join(name).join("stat")).ok()?;
        // The name in parentheses may hold anything; what follows it is plain.
        let (_, rest) = stat.rsplit_once(')')?;
        let parent: i32 = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
        (parent == own).then(|| Pid::from_raw(pid)).flatten()
    };
    entries.filter_map(|entry| child(entry.file_name().to_str()?)).collect()
}
