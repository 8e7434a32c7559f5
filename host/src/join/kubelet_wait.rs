//! The wait for a healthy kubelet, and for the certificate that it fetches itself where it does.
//!
//! It ends early where waiting cannot help: no unit, a kubelet that was started and does not run, one that dies again
//! and again.

use std::path::Path;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

use super::kubelet_config::{self, KubeletConfigError};
use super::kubelet_start::{BOOTSTRAP_KUBECONFIG, UNIT, last_log_lines, log_text};
use super::tls_bootstrap::{self, TlsBootstrapError};
use super::{ClusterConfiguration, JoinContext};
use crate::config::{TlsBootstrapBy, Wait};
use crate::error::{Diagnose, ExitCode};
use crate::node::{NodeError, UnitState};

/// Phase id of what is told.
const PHASE: &str = "kubelet-wait-bootstrap";
/// How often is looked, and when a kubelet counts as gone.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// First and last pause between two looks.
    pause: (Duration, Duration),
    /// The first pause is kept for so long.
    brisk: Duration,
    /// Pause between two looks at the unit.
    unit_pause: Duration,
    /// A started kubelet that is not running for so long will not run by itself.
    gone_after: Duration,
}

/// The kubelet takes a third of a second to its first answer, and a look before it costs a refused connection; a look at
/// the unit costs a process.
const PACE: Pace = Pace {
    pause: (Duration::from_millis(5), Duration::from_millis(100)),
    brisk: Duration::from_secs(2),
    unit_pause: Duration::from_millis(500),
    gone_after: Duration::from_secs(5),
};
/// Restarts by the init system after which a kubelet counts as dying.
const DYING_RESTARTS: u32 = 3;

/// Waits until the kubelet is healthy and has its certificate; then, and on failure, too, its bootstrap credential goes.
///
/// # Errors
///
/// [`KubeletWaitError`].
pub async fn wait_for_kubelet(cluster: &ClusterConfiguration, cx: &JoinContext) -> Result<(), KubeletWaitError> {
    wait_at(PACE, cluster, cx).await
}

async fn wait_at(pace: Pace, cluster: &ClusterConfiguration, cx: &JoinContext) -> Result<(), KubeletWaitError> {
    if let Some(plan) = cx.node.plan() {
        plan.note(crate::plan::Step::Wait { what: "the kubelet to be healthy and to have its certificate".into() });
        cx.node.remove(Path::new(BOOTSTRAP_KUBECONFIG))?;
        return Ok(());
    }
    let by_kubelet = cx.settings.tls_bootstrap_by == TlsBootstrapBy::Kubelet;
    if cx.settings.wait == Wait::None {
        cx.reporter.step(PHASE, "wait for the kubelet").skipped("`--wait=none`");
        if by_kubelet {
            let message = format!("`{BOOTSTRAP_KUBECONFIG}` stays, since nobody waits until the kubelet has used it");
            cx.reporter.warn(Some(PHASE), message);
        }
        return Ok(());
    }
    let waited = wait(pace, cluster, by_kubelet, cx).await;
    let removed = cx.node.remove(Path::new(BOOTSTRAP_KUBECONFIG));
    waited?;
    removed?;
    Ok(())
}

async fn wait(
    pace: Pace,
    cluster: &ClusterConfiguration,
    by_kubelet: bool,
    cx: &JoinContext,
) -> Result<(), KubeletWaitError> {
    let step = cx.reporter.step(PHASE, "wait for the kubelet's health");
    match kubelet_config::healthz_url(cluster, cx)? {
        None => step.skipped("its health port is 0"),
        Some(url) => {
            let timeout = cx.settings.timeouts.kubelet_health_check;
            let mut watch = Watch::new(pace, timeout, cx);
            let looks = until_healthy(&url, &mut watch, cx).await?;
            if looks == 1 { step.unchanged("it is healthy") } else { step.done("healthy") }
        }
    }
    if by_kubelet {
        let step = cx.reporter.step(PHASE, "wait for the kubelet's certificate");
        let mut watch = Watch::new(pace, cx.settings.timeouts.tls_bootstrap, cx);
        until_certified(&mut watch, cx).await?;
        step.done(format!("`{}`", tls_bootstrap::KUBELET_CONF));
    }
    Ok(())
}

/// How often it looked until the kubelet was healthy.
async fn until_healthy(url: &str, watch: &mut Watch<'_>, cx: &JoinContext) -> Result<usize, KubeletWaitError> {
    let mut looks = 0;
    loop {
        looks += 1;
        let seen = match cx.node.machine().healthz(url).await {
            Ok(200) => return Ok(looks),
            Ok(status) => format!("{url} answers {status}"),
            Err(error) => format!("{url} does not answer: {error}"),
        };
        if watch.is_over() {
            let (after, log) = (cx.settings.timeouts.kubelet_health_check, last_log_lines(cx).await);
            return Err(KubeletWaitError::Unhealthy { after, seen, log });
        }
        watch.look(&format!("the kubelet's health ({seen})")).await?;
    }
}

async fn until_certified(watch: &mut Watch<'_>, cx: &JoinContext) -> Result<(), KubeletWaitError> {
    loop {
        // A file that is just being written is looked at again.
        let there = match tls_bootstrap::existing_identity(cx) {
            Err(error @ TlsBootstrapError::OtherNode { .. }) => return Err(error.into()),
            found => found.is_ok_and(|found| found.is_some()),
        };
        if there {
            return Ok(());
        }
        if watch.is_over() {
            let (after, log) = (cx.settings.timeouts.tls_bootstrap, last_log_lines(cx).await);
            return Err(KubeletWaitError::NoCertificate { after, log });
        }
        watch.look("the kubelet's certificate").await?;
    }
}

/// The clock of one wait, and what the unit did meanwhile.
struct Watch<'a> {
    cx: &'a JoinContext,
    pace: Pace,
    started: Instant,
    deadline: Instant,
    pause: Duration,
    next_unit_look: Instant,
    /// Restarts that the init system had counted at the first look.
    restarts: Option<u32>,
    gone_since: Option<Instant>,
    told: String,
}

impl<'a> Watch<'a> {
    fn new(pace: Pace, timeout: Duration, cx: &'a JoinContext) -> Self {
        let now = Instant::now();
        Self {
            cx,
            pace,
            started: now,
            deadline: now + timeout,
            pause: pace.pause.0,
            // A healthy kubelet answers before its unit is looked at.
            next_unit_look: now + pace.unit_pause,
            restarts: None,
            gone_since: None,
            told: String::new(),
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Looks at the unit if it is time, tells what is awaited, and pauses.
    async fn look(&mut self, awaited: &str) -> Result<(), KubeletWaitError> {
        let now = Instant::now();
        if now >= self.next_unit_look {
            self.next_unit_look = now + self.pace.unit_pause;
            // Without an init system someone else runs the kubelet; else one failed look is no reason to give up.
            if let Ok(state) = self.cx.node.machine().unit_state(UNIT).await {
                self.judge(&state, now).await?;
            }
            if self.told != awaited {
                let left = self.deadline.saturating_duration_since(now);
                self.cx.reporter.waiting(PHASE, awaited, left);
                self.told = awaited.to_owned();
            }
        }
        tokio::time::sleep(self.pause.min(self.deadline.saturating_duration_since(now))).await;
        if now.duration_since(self.started) > self.pace.brisk {
            self.pause = (self.pause * 3 / 2).min(self.pace.pause.1);
        }
        Ok(())
    }

    async fn judge(&mut self, state: &UnitState, now: Instant) -> Result<(), KubeletWaitError> {
        if !state.exists {
            return Err(KubeletWaitError::NoUnit);
        }
        if let Some(restarts) = state.restarts {
            let times = restarts.saturating_sub(*self.restarts.get_or_insert(restarts));
            if times >= DYING_RESTARTS {
                return Err(KubeletWaitError::Dying { times, log: last_log_lines(self.cx).await });
            }
        }
        self.gone_since = if state.active { None } else { self.gone_since.or(Some(now)) };
        if self.gone_since.is_some_and(|since| now.duration_since(since) >= self.pace.gone_after) {
            return Err(KubeletWaitError::Gone { log: last_log_lines(self.cx).await });
        }
        Ok(())
    }
}

/// Why the kubelet is not healthy.
#[derive(Debug, Error)]
pub enum KubeletWaitError {
    /// Where it answers.
    #[error(transparent)]
    Config(#[from] KubeletConfigError),
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The certificate it got is another node's.
    #[error(transparent)]
    Certificate(#[from] TlsBootstrapError),
    /// The init system does not know it.
    #[error("the init system knows no unit `kubelet`")]
    NoUnit,
    /// It ends and is started again, over and over.
    #[error("the kubelet died {times} times{}", log_text(.log))]
    Dying {
        /// While it was waited for.
        times: u32,
        /// Its last words, safe to show.
        log: Vec<String>,
    },
    /// It was started and does not run.
    #[error("the kubelet does not run{}", log_text(.log))]
    Gone {
        /// Its last words, safe to show.
        log: Vec<String>,
    },
    /// It never answered well.
    #[error("the kubelet was not healthy within {} s: {seen}{}", .after.as_secs(), log_text(.log))]
    Unhealthy {
        /// `timeouts.kubeletHealthCheck`.
        after: Duration,
        /// The last answer.
        seen: String,
        /// Its last words, safe to show.
        log: Vec<String>,
    },
    /// It never got its certificate.
    #[error("the kubelet did not get its certificate within {} s{}", .after.as_secs(), log_text(.log))]
    NoCertificate {
        /// `timeouts.tlsBootstrap`.
        after: Duration,
        /// Its last words, safe to show.
        log: Vec<String>,
    },
}

impl Diagnose for KubeletWaitError {
    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Node(error) => error.code(),
            Self::Certificate(error) => error.code(),
            Self::NoUnit => "kubelet-no-unit",
            Self::Dying { .. } => "kubelet-dying",
            Self::Gone { .. } => "kubelet-not-running",
            Self::Unhealthy { .. } => "kubelet-unhealthy",
            Self::NoCertificate { .. } => "kubelet-no-certificate",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Node(error) => error.hint(),
            Self::Certificate(error) => error.hint(),
            Self::NoUnit => Some("install the kubelet and its unit, then run the same command again".into()),
            Self::Dying { .. } | Self::Gone { .. } | Self::Unhealthy { .. } => {
                Some("`systemctl status kubelet` and `journalctl -u kubelet -n 50` show more".into())
            }
            Self::NoCertificate { .. } => Some("`kubectl get csr` shows whether its request waits for approval".into()),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(error) => error.exit_code(),
            Self::Certificate(error) => error.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}

#[cfg(test)]
mod tests;
