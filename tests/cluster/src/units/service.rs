//! A service's state, in systemd's words.

use rustix::process::WaitStatus;

use super::Unit;

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Inactive,
    Failed,
    Starting,
    Active,
    Stopping,
    WaitingToRestart,
}

impl Phase {
    /// `ActiveState` and `SubState`.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Inactive => ("inactive", "dead"),
            Self::Failed => ("failed", "failed"),
            Self::Starting => ("activating", "start"),
            Self::Active => ("active", "running"),
            Self::Stopping => ("deactivating", "stop-sigterm"),
            Self::WaitingToRestart => ("activating", "auto-restart"),
        }
    }
}

/// How a main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(i32),
    Killed(i32),
}

impl Ending {
    pub(super) fn from_status(status: WaitStatus) -> Self {
        status.terminating_signal().map_or_else(|| Self::Exited(status.exit_status().unwrap_or(0)), Self::Killed)
    }

    /// SIGHUP, SIGINT, SIGPIPE and SIGTERM count as clean, as systemd has it.
    pub(crate) fn is_clean(self) -> bool {
        matches!(self, Self::Exited(0) | Self::Killed(1 | 2 | 13 | 15))
    }

    /// `Result=` of the unit.
    pub(crate) fn result(self) -> &'static str {
        match self {
            ending if ending.is_clean() => "success",
            Self::Exited(_) => "exit-code",
            Self::Killed(_) => "signal",
        }
    }
}

/// A service's state.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) unit: Unit,
    pub(crate) phase: Phase,
    /// Main process, while there is one.
    pub(crate) main: Option<i32>,
    /// The last main process and its end.
    pub(crate) last: Option<(i32, Option<Ending>)>,
    pub(crate) restarts: u32,
    /// Counts starts and stops, so that a restart that was overtaken knows.
    pub(super) generation: u64,
}

/// `kubelet.service - kubelet: The Kubernetes Node Agent`
pub(crate) fn title(unit: &Unit) -> String {
    format!("{}.service - {}", unit.name, unit.description)
}
