//! The outer wall: this program started again as a helper, with an empty environment and one socket.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::confine::HelperUid;
use super::store::Store;
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
}

impl Role {
    const ALL: [Self; 3] = [Self::Runner, Self::Compiler, Self::Command];

    fn word(self) -> &'static str {
        match self {
            Self::Runner => "__runner",
            Self::Compiler => "__compiler",
            Self::Command => "__command",
        }
    }
}

/// Where helpers are started from: this very program, whatever its file is called by now.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    /// Where native code is kept from one run to the next; none: it is made anew.
    pub(super) store: Option<Store>,
}

impl Default for Launcher {
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), store: None }
    }
}

impl Launcher {
    /// Another program in this one's place. Tests are not mortise and name it here.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), store: None }
    }

    /// With a store for native code.
    #[must_use]
    pub fn keeping_code_in(self, store: Store) -> Self {
        Self { store: Some(store), ..self }
    }

    /// Starts a helper. `index` tells helpers that run side by side apart, so that none can signal another.
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
            // The one that runs a command must outlive its socket, to end what it started.
            .kill_on_drop(role != Role::Command)
            .spawn()?;
        Ok(Helper { socket: UnixStream::from_std(ours)?, child })
    }
}

/// A running helper. Dropped, it is killed, or ends because its socket closes.
pub(super) struct Helper {
    pub(super) socket: UnixStream,
    pub(super) child: Child,
}

/// How long the end of a process whose socket closed is waited for before it is killed.
const LINGER: Duration = Duration::from_millis(500);

/// How a helper ended by itself, a few words; it is killed if it does not.
pub(super) async fn ending(child: &mut Child) -> String {
    use std::os::unix::process::ExitStatusExt;
    match tokio::time::timeout(LINGER, child.wait()).await {
        Ok(Ok(status)) => match (status.code(), status.signal()) {
            (_, Some(signal)) => format!("it was ended by signal {signal}"),
            (Some(code), None) => format!("it exited with {code}"),
            (None, None) => "it ended".into(),
        },
        Ok(Err(error)) => format!("its end cannot be seen: {error}"),
        Err(_) => {
            // It may end at this very moment.
            let _ = child.kill().await;
            "it was killed".into()
        }
    }
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
