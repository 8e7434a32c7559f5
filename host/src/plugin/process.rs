//! The outer wall: this program started again as a helper, with an empty environment and one socket.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::Pid;
use thiserror::Error;
use tokio::net::UnixStream;

use super::child::{Child, OnDrop};
use super::confine::HelperUid;
use super::limits::{FRAME_FROM_RUNNER, START_TIME};
use super::store::Store;
use super::walls::{MissingWall, WallName, Walls};
use super::wire::{self, FromRunner};
use super::{commands, compiler, runner};

/// First of the uids that helpers take when the host is root. systemd keeps 60706 to 61183 unused.
const FIRST_UID: u32 = 60_800;
/// How many there are.
const UIDS: u32 = 256;

/// What a helper is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs the guests of one plugin.
    Runner,
    /// Compiles one component.
    Compiler,
    /// Runs one command of a grant; keeps the host's identity, which the command does not get.
    Command,
    /// Tells what it can do behind its walls, for tests.
    #[cfg(feature = "faults")]
    Scout,
}

impl Role {
    const ALL: &[Self] = &[
        Self::Runner,
        Self::Compiler,
        Self::Command,
        #[cfg(feature = "faults")]
        Self::Scout,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Runner => "__runner",
            Self::Compiler => "__compiler",
            Self::Command => "__command",
            #[cfg(feature = "faults")]
            Self::Scout => "__scout",
        }
    }
}

/// Where helpers are started from: this very program, whatever its file is called by now. And which walls they must have.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    required: Vec<WallName>,
    policy: PathBuf,
    /// Where native code is kept from one run to the next; none: it is made anew.
    pub(super) store: Option<Store>,
}

impl Default for Launcher {
    fn default() -> Self {
        Self::at("/proc/self/exe")
    }
}

impl Launcher {
    /// Another program in this one's place. Tests are not mortise and name it here.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), required: Vec::new(), policy: PathBuf::new(), store: None }
    }

    /// With a store for native code.
    #[must_use]
    pub fn keeping_code_in(self, store: Store) -> Self {
        Self { store: Some(store), ..self }
    }

    /// With walls that a policy demands: where one is missing, no helper gets any work. The policy's file is named in the
    /// error.
    #[must_use]
    pub fn requiring(self, required: Vec<WallName>, policy: impl Into<PathBuf>) -> Self {
        Self { required, policy: policy.into(), ..self }
    }

    /// Which walls this machine allows, by trying, whatever a policy demands.
    ///
    /// # Errors
    ///
    /// Why no helper starts at all.
    pub async fn walls(&self) -> Result<Walls, LaunchError> {
        let free = Self { required: Vec::new(), ..self.clone() };
        Ok(free.start_confined(Role::Runner, 0).await?.walls)
    }

    /// Starts a helper without waiting for it. `index` tells helpers that run side by side apart, so that none can signal
    /// another.
    pub(super) fn start(&self, role: Role, index: usize) -> io::Result<Helper> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&self.program);
        command.arg0("mortise").arg(role.word());
        if rustix::process::geteuid().is_root() {
            let offset = u32::try_from(index).unwrap_or_default() % UIDS;
            command.arg((FIRST_UID + offset).to_string());
        }
        let child = command
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // The one that runs a command must outlive its socket, to end what it started.
        let on_drop = if role == Role::Command { OnDrop::LetEnd } else { OnDrop::Kill };
        Ok(Helper { socket: UnixStream::from_std(ours)?, child: Child::adopt(Pid::from_child(&child), on_drop)? })
    }

    /// Starts a runner or a compiler and waits for the walls around it, before it is sent anything.
    ///
    /// # Errors
    ///
    /// [`LaunchError`]; nothing of the helper is left.
    pub(super) async fn start_confined(&self, role: Role, index: usize) -> Result<Confined, LaunchError> {
        let mut helper = self.start(role, index).map_err(LaunchError::Start)?;
        let greeting = wire::read_async(&mut helper.socket, FRAME_FROM_RUNNER);
        let (pid, walls) = match tokio::time::timeout(START_TIME, greeting).await {
            Ok(Ok(FromRunner::Confined { pid, walls })) => (pid, walls),
            Ok(Ok(FromRunner::Refused { message, .. })) => return Err(LaunchError::Refused(message)),
            Ok(Ok(_)) => return Err(LaunchError::Protocol("it did not tell its walls".into())),
            Ok(Err(error)) => {
                return Err(LaunchError::Protocol(format!("{error}; {}", helper.child.ending().await)));
            }
            Err(_) => return Err(LaunchError::Slow),
        };
        if let Some(pid) = pid {
            let number = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw);
            let pid = number.ok_or_else(|| LaunchError::Protocol(format!("no process has the number {pid}")))?;
            // The first process has nothing left to do; dropped, it is reaped without anybody waiting.
            helper.child = Child::adopt(pid, OnDrop::Kill).map_err(LaunchError::Start)?;
        }
        let missing = walls.missing(&self.required);
        if !missing.is_empty() {
            return Err(LaunchError::Walls { missing, policy: self.policy.clone() });
        }
        Ok(Confined { helper, walls })
    }
}

/// A running helper. Dropped, it is killed, or ends because its socket closes.
pub(super) struct Helper {
    pub(super) socket: UnixStream,
    pub(super) child: Child,
}

/// A helper behind its walls, waiting for work.
pub(super) struct Confined {
    pub(super) helper: Helper,
    pub(super) walls: Walls,
}

/// Why there is no helper.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The host's kernel.
    #[error("no process can be started for it: {0}")]
    Start(io::Error),
    /// A wall without which nothing runs.
    #[error("its process refused to start: {0}")]
    Refused(String),
    /// It ended, or said something else.
    #[error("its process did not start: {0}")]
    Protocol(String),
    /// It said nothing.
    #[error("its process was not ready after {} s", START_TIME.as_secs())]
    Slow,
    /// The site demands more than this machine gives.
    #[error("`{}` demands walls that are missing here: {}", policy.display(), list(missing))]
    Walls {
        /// Each with the reason.
        missing: Vec<MissingWall>,
        /// The file that demands them.
        policy: PathBuf,
    },
}

fn list(missing: &[MissingWall]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether this process was started as a helper; then it lives as one and this is its exit code.
///
/// First in `main`: nothing may be opened, started or logged before.
pub fn run_as_helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    if first == "__precompile" {
        return Some(precompile(arguments));
    }
    let role = *Role::ALL.iter().find(|role| first == role.word())?;
    let uid: HelperUid = match arguments.next() {
        None => None,
        Some(text) => match text.to_str().and_then(|text| text.parse().ok()) {
            Some(uid) if (FIRST_UID..FIRST_UID + UIDS).contains(&uid) => Some(uid),
            _ => return Some(ExitCode::FAILURE),
        },
    };
    Some(match role {
        Role::Runner => runner::main(uid),
        Role::Compiler => compiler::main(uid),
        Role::Command => commands::main(),
        #[cfg(feature = "faults")]
        Role::Scout => super::scout::main(uid),
    })
}

/// `mortise __precompile IN.wasm OUT.cwasm`, which `make build` runs between its two passes.
fn precompile(mut paths: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let (Some(component), Some(code), None) = (paths.next(), paths.next(), paths.next()) else {
        eprintln!("error: usage: mortise __precompile IN.wasm OUT.cwasm");
        return ExitCode::from(2);
    };
    match compiler::precompile(component.as_ref(), code.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
