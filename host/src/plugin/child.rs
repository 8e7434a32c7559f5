//! A child process, known by a descriptor: a number may be another's by the time it is used.
//!
//! Not every helper is what was started: one that enters a PID namespace goes on as a new process, which its first
//! process made our child. The library's own type cannot take charge of such a one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::signal::unix::{SignalKind, signal};

/// How long the end of a process whose socket closed is waited for before it is killed.
const LINGER: Duration = Duration::from_millis(500);

/// What happens to a child that is dropped while it runs. It is reaped either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDrop {
    /// It is killed.
    Kill,
    /// It sees the end of its socket and has something to finish.
    LetEnd,
}

/// A child of this process.
pub(super) struct Child {
    /// None: it was reaped.
    pidfd: Option<OwnedFd>,
    on_drop: OnDrop,
}

impl Child {
    /// Takes charge of a child by its number.
    ///
    /// # Errors
    ///
    /// The kernel's; for a process that is no child of this one, too.
    pub(super) fn adopt(pid: Pid, on_drop: OnDrop) -> io::Result<Self> {
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), look)?;
        Ok(Self { pidfd: Some(pidfd), on_drop })
    }

    /// Begins its end.
    pub(super) fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It may have ended by itself.
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    /// Waits for its end. None: that was seen before.
    pub(super) async fn wait(&mut self) -> io::Result<Option<WaitIdStatus>> {
        let Some(pidfd) = &self.pidfd else { return Ok(None) };
        let status = reap(pidfd).await?;
        self.pidfd = None;
        Ok(Some(status))
    }

    /// How it ended by itself, a few words; it is killed if it does not.
    pub(super) async fn ending(&mut self) -> String {
        match tokio::time::timeout(LINGER, self.wait()).await {
            Ok(Ok(Some(status))) => match (status.exit_status(), status.terminating_signal()) {
                (_, Some(signal)) => format!("it was ended by signal {signal}"),
                (Some(code), None) => format!("it exited with {code}"),
                (None, None) => "it ended".into(),
            },
            Ok(Ok(None)) => "it ended".into(),
            Ok(Err(error)) => format!("its end cannot be seen: {error}"),
            Err(_) => {
                self.kill();
                // Its end was asked for and cannot be refused.
                let _ = self.wait().await;
                "it was killed".into()
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Kill {
            self.kill();
        }
        // Without a runtime this process is about to end, and its children are reaped by another.
        if let (Some(pidfd), Ok(runtime)) = (self.pidfd.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                // Nobody is left to be told.
                let _ = reap(&pidfd).await;
            });
        }
    }
}

async fn reap(pidfd: &OwnedFd) -> io::Result<WaitIdStatus> {
    // Before the first look, so that no end is missed.
    let mut ends = signal(SignalKind::child())?;
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if let Some(status) = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options)? {
            return Ok(status);
        }
        // None: the runtime is shutting down.
        ends.recv().await.ok_or(io::ErrorKind::Interrupted)?;
    }
}
