//! Processes by identity rather than by number, and commands whose failure says what was run and what it answered.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How often a condition that cannot be waited for is looked at.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How many lines of a log an error carries.
const TAIL_LINES: usize = 20;

/// A process number with its start time: the number may be used again, the pair is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Number in the PID namespace of whoever runs this tool.
    pub pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub started: u64,
}

impl Identity {
    /// The process that calls this, as seen by the mounted `/proc` (which may be an outer namespace's).
    pub(crate) fn current() -> Result<Self> {
        let link = fs::read_link("/proc/self").context("reading `/proc/self`")?;
        let pid = link.to_string_lossy().parse().context("parsing `/proc/self`")?;
        Self::of(pid).with_context(|| format!("process {pid} is not in /proc"))
    }

    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = parse_stat(&stat)?;
        (state != 'Z').then_some(Self { pid, started })
    }

    /// Whether this very process still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// A descriptor that becomes readable when the process ends; `None` if it has.
    pub(crate) fn pidfd(&self) -> Option<std::os::fd::OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Opened first, compared second: from here on the descriptor cannot mean another process.
        self.is_alive().then_some(fd)
    }

    /// Sends SIGKILL; a process already gone is fine.
    pub(crate) fn kill(&self) {
        if let Some(fd) = self.pidfd() {
            // The only failure left is that it ended meanwhile, which is what was asked for.
            let _ = pidfd_send_signal(fd, Signal::KILL);
        }
    }

    /// Waits for its end; false if it still runs after `limit`.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        let Some(fd) = self.pidfd() else { return true };
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: left.min(Duration::from_millis(500)).subsec_nanos().into() };
            // An interrupted poll only means looking again.
            let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout));
        }
        true
    }
}

/// State and start time from `/proc/PID/stat`; the command's name may hold blanks and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
///
/// When it cannot be started, or ends with anything but 0; the text carries its last lines.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    bail!("`{}` ended with {}; it said:\n{}", describe(command), output.status, tail(&String::from_utf8_lossy(&said)))
}

/// Runs a command to its end, whatever that is.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("starting `{}`", describe(command)))
}

/// Program and arguments on one line.
pub(crate) fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// The last lines of a text, indented.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines[from..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The last lines of a log, or that there is none.
pub(crate) fn tail_of(log: &Path) -> String {
    match fs::read(log) {
        Ok(bytes) => format!("end of `{}`:\n{}", log.display(), tail(&String::from_utf8_lossy(&bytes))),
        Err(error) => format!("`{}` cannot be read: {error}", log.display()),
    }
}

/// Looks until `look` finds something, and says what was awaited when the time is up.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {} s for {what} in vain", limit.as_secs());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_state_and_start_time_past_a_strange_command_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(parse_stat(stat), Some(('S', 4242)));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_process_number_used_again_is_another_process() {
        let own = Identity::current().unwrap();
        assert!(own.is_alive());
        assert!(!Identity { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn a_failed_command_says_what_was_run_and_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 4"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("no such thing") && error.contains("4"), "{error}");
    }
}
