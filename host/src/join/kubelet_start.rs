//! The kubelet's files and its start, in kubeadm's order: CA, stop, settings, start.
//!
//! A second run starts the kubelet again only if something it reads was written since the last start on record. A
//! failed start is an error with the kubelet's last words, where kubeadm warns and waits four minutes.

use std::path::Path;

use secrecy::ExposeSecret;
use thiserror::Error;

use super::control_plane::manifests::files;
use super::kubelet_config::{self, KubeletConfigError, Start};
use super::{Access, ClusterConfiguration, JoinContext};
use crate::error::{Diagnose, ExitCode};
use crate::journal::{Effect, Record, State};
use crate::kubeconfig;
use crate::node::{Change, Node, NodeError, UnitAction, UnitState};

/// Phase id of what is told.
pub const PHASE: &str = "kubelet-start";
/// The unit.
pub const UNIT: &str = "kubelet";
/// The kubelet's own directory.
pub const KUBELET_DIRECTORY: &str = "/var/lib/kubelet";
/// Its settings.
pub const CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// The part of them that belongs to this machine; `kubeadm upgrade` reads it.
pub const INSTANCE_CONFIG: &str = "/var/lib/kubelet/instance-config.yaml";
/// Its flags, read by the unit.
pub const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// Its credential until it has a certificate, where it makes the request itself.
pub const BOOTSTRAP_KUBECONFIG: &str = "/etc/kubernetes/bootstrap-kubelet.conf";

/// Most bytes of a CA file that are compared.
const CA_LIMIT_BYTES: u64 = 1 << 20;
/// Lines of the kubelet's log in an error.
const LOG_LINES: usize = 10;
/// Characters of each.
const LOG_LINE_CHARS: usize = 400;

/// Directories in which the kubelet makes things, so that a reset knows whether it may empty them.
const KUBELET_MAKES: &[&str] = &[KUBELET_DIRECTORY, "/var/log/pods", "/var/log/containers", "/usr/libexec/kubernetes"];

/// Makes `/var/lib/kubelet` as kubeadm does, mode 0700, and records whether it was empty. Before anything is written
/// into it; repeating it changes nothing.
///
/// # Errors
///
/// [`NodeError`].
pub fn claim_directory(node: &Node) -> Result<(), NodeError> {
    for directory in KUBELET_MAKES {
        node.note_if_empty(Path::new(directory))?;
    }
    node.ensure_dir(Path::new(KUBELET_DIRECTORY), 0o700)?;
    Ok(())
}

/// Writes the cluster's CA, its bytes unchanged, unless a file is there.
///
/// # Errors
///
/// [`KubeletStartError::Node`].
pub fn write_ca(access: &Access, cx: &JoinContext) -> Result<(), KubeletStartError> {
    let path = cx.settings.ca_cert_path.as_path();
    let step = cx.reporter.step(PHASE, "write the cluster's CA");
    match cx.node.read(path, CA_LIMIT_BYTES)? {
        None => {
            cx.node.ensure_file(path, access.cluster.ca_pem.as_bytes(), 0o644)?;
            step.done(format!("`{}`", path.display()));
        }
        Some(old) => {
            if old != access.cluster.ca_pem.as_bytes() {
                let message = format!("`{}` is there already and is not the cluster's CA", path.display());
                cx.reporter.warn(Some(PHASE), message);
            }
            step.unchanged(format!("`{}` is there", path.display()));
        }
    }
    Ok(())
}

/// Stops the kubelet, so that it does not work with half of its files; claims its directory.
///
/// A kubelet that an earlier run of this join started, and that runs, goes on running. Returns what is known of the unit
/// afterwards, so that [`start`] need not ask again.
///
/// # Errors
///
/// [`KubeletStartError::NoUnit`]: a certificate for a kubelet that cannot be started would only have to be revoked.
/// [`KubeletStartError::Node`]. A kubelet that cannot be stopped only warns, as in kubeadm: it is restarted later.
pub async fn stop(cx: &JoinContext) -> Result<Option<UnitState>, KubeletStartError> {
    let step = cx.reporter.step(PHASE, "stop the kubelet");
    let state = match cx.node.machine().unit_state(UNIT).await {
        Ok(state) => state,
        Err(NodeError::NoInit) => {
            claim_directory(&cx.node)?;
            step.skipped("no init system runs here");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    if !state.exists && cx.node.plan().is_none() {
        return Err(KubeletStartError::NoUnit);
    }
    claim_directory(&cx.node)?;
    if state.active && started_with_its_files(&cx.node.journal().record()) {
        step.unchanged("it runs with what an earlier run wrote");
        return Ok(Some(state));
    }
    match cx.node.unit(UnitAction::Stop, UNIT).await {
        Ok(()) => {
            step.done("stopped");
            Ok(Some(UnitState { active: false, ..state }))
        }
        Err(error @ NodeError::Unit { .. }) => {
            cx.reporter.warn(Some(PHASE), error.to_string());
            step.skipped("it could not be stopped");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes `bootstrap-kubelet.conf`, for `--tls-bootstrap-by=kubelet`; the kubelet will make `kubelet.conf` of it.
///
/// # Errors
///
/// [`KubeletStartError::NoCredential`], [`KubeletStartError::Node`].
pub fn write_bootstrap_kubeconfig(
    access: &Access,
    cluster: &ClusterConfiguration,
    cx: &JoinContext,
) -> Result<(), KubeletStartError> {
    let step = cx.reporter.step(PHASE, "write the kubelet's bootstrap credential");
    if let Ok(Some(existing)) = super::tls_bootstrap::existing_identity(cx) {
        step.unchanged(format!("the kubelet has a certificate for `{}`", existing.user));
        return Ok(());
    }
    let text =
        kubeconfig::bootstrap_kubelet_conf(access, &cluster.cluster_name).ok_or(KubeletStartError::NoCredential)?;
    cx.node.delegate(Path::new(super::tls_bootstrap::KUBELET_CONF))?;
    let change = cx.node.ensure_file(Path::new(BOOTSTRAP_KUBECONFIG), text.expose_secret().as_bytes(), 0o600)?;
    end(step, change, &[BOOTSTRAP_KUBECONFIG]);
    Ok(())
}

/// Writes `instance-config.yaml` and `config.yaml`. `resolved`: whether systemd-resolved runs.
///
/// # Errors
///
/// [`KubeletStartError::Config`], [`KubeletStartError::Node`].
pub fn write_config(cluster: &ClusterConfiguration, resolved: bool, cx: &JoinContext) -> Result<(), KubeletStartError> {
    let step = cx.reporter.step(PHASE, "write the kubelet's settings");
    claim_directory(&cx.node)?;
    let socket = kubelet_config::runtime_socket(cx)?;
    let config = kubelet_config::config(cluster, &socket, resolved, cx)?;
    let instance = kubelet_config::instance_config(&socket);
    let first = cx.node.ensure_file(Path::new(INSTANCE_CONFIG), instance.as_bytes(), 0o644)?;
    let second = cx.node.ensure_file(Path::new(CONFIG), config.as_bytes(), 0o644)?;
    let change = if (first, second) == (Change::Unchanged, Change::Unchanged) { first } else { Change::Made };
    end(step, change, &[INSTANCE_CONFIG, CONFIG]);
    Ok(())
}

/// Writes `kubeadm-flags.env`. A control plane's kubelet that has not registered its Node yet does so with taints.
///
/// # Errors
///
/// [`KubeletStartError::Node`].
pub fn write_flags(start: Start, cx: &JoinContext) -> Result<(), KubeletStartError> {
    let step = cx.reporter.step(PHASE, "write the kubelet's flags");
    let text = kubelet_config::flags(&cx.settings, &cx.node.machine().hostname()?, start);
    let change = cx.node.ensure_file(Path::new(FLAGS), text.as_bytes(), 0o644)?;
    end(step, change, &[FLAGS]);
    Ok(())
}

/// Makes the init system read its units again and restarts the kubelet, unless it runs with exactly these files.
/// `known`: what [`stop`] found; without it the init system is asked.
///
/// # Errors
///
/// [`KubeletStartError::NoUnit`], [`KubeletStartError::Start`] with the kubelet's last log lines,
/// [`KubeletStartError::Node`].
pub async fn start(known: Option<UnitState>, cx: &JoinContext) -> Result<(), KubeletStartError> {
    let step = cx.reporter.step(PHASE, "start the kubelet");
    let state = match known {
        Some(state) => Ok(state),
        None => cx.node.machine().unit_state(UNIT).await,
    };
    let state = match state {
        Ok(state) => state,
        Err(NodeError::NoInit) => {
            cx.reporter.warn(Some(PHASE), "no init system runs here: whatever starts the kubelet must do so now");
            step.skipped("no init system runs here");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if !state.exists && cx.node.plan().is_none() {
        return Err(KubeletStartError::NoUnit);
    }
    if state.active && started_with_its_files(&cx.node.journal().record()) {
        step.unchanged("it runs with these files");
        return Ok(());
    }
    cx.node.unit(UnitAction::DaemonReload, UNIT).await?;
    match cx.node.unit(UnitAction::Restart, UNIT).await {
        Ok(()) => step.done("restarted"),
        Err(source @ NodeError::Unit { .. }) => {
            return Err(KubeletStartError::Start { log: last_log_lines(cx).await, source });
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn end(step: crate::output::Step, change: Change, paths: &[&str]) {
    let paths = paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
    match change {
        Change::Made => step.done(paths),
        Change::Unchanged => step.unchanged(paths),
    }
}

/// Whether the record's last word on the kubelet is a completed start, and nothing it reads was written since.
fn started_with_its_files(record: &Record) -> bool {
    let Some((started, "restart")) = record.last_unit_action(UNIT) else { return false };
    !record.effects.iter().any(|recorded| {
        recorded.seq > started
            && recorded.state != State::Void
            && match &recorded.effect {
                Effect::File { path, .. } | Effect::Symlink { path, .. } => {
                    // Static Pods it sees by itself.
                    (path.starts_with("/etc/kubernetes") && !path.starts_with(files::DIRECTORY))
                        || path.starts_with(KUBELET_DIRECTORY)
                }
                // An action whose end is not known.
                Effect::Unit { unit, .. } => unit == UNIT,
                _ => false,
            }
    })
}

/// The kubelet's last words, safe to show: our own secrets cut out, lines capped.
pub(super) async fn last_log_lines(cx: &JoinContext) -> Vec<String> {
    let lines = cx.node.machine().unit_log(UNIT, LOG_LINES).await;
    lines.iter().map(|line| shown(line, cx)).collect()
}

fn shown(line: &str, cx: &JoinContext) -> String {
    let mut line = line.to_owned();
    let discovery = match &cx.settings.discovery {
        crate::config::Discovery::Token(token) => Some(&token.token),
        _ => None,
    };
    for token in cx.settings.tls_bootstrap_token.iter().chain(discovery) {
        line = line.replace(token.expose_secret(), "<hidden>");
    }
    crate::output::printable(&line.chars().take(LOG_LINE_CHARS).collect::<String>())
}

/// A list of log lines under an error's text; nothing where there are none.
pub(super) fn log_text(log: &[String]) -> String {
    if log.is_empty() {
        return String::new();
    }
    format!("; its last log lines:\n  - {}", log.join("\n  - "))
}

/// Why the kubelet was not started.
#[derive(Debug, Error)]
pub enum KubeletStartError {
    /// What it reads.
    #[error(transparent)]
    Config(#[from] KubeletConfigError),
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Discovery left nothing that a kubelet could use.
    #[error("there is no credential with which the kubelet could ask for its certificate")]
    NoCredential,
    /// The init system does not know it.
    #[error("the init system knows no unit `kubelet`")]
    NoUnit,
    /// The init system could not start it.
    #[error("the kubelet was not started: {source}{}", log_text(.log))]
    Start {
        /// Its last words, safe to show.
        log: Vec<String>,
        /// What the init system said.
        source: NodeError,
    },
}

impl Diagnose for KubeletStartError {
    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Node(error) => error.code(),
            Self::NoCredential => "kubelet-no-credential",
            Self::NoUnit => "kubelet-no-unit",
            Self::Start { .. } => "kubelet-not-started",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Node(error) => error.hint(),
            Self::NoCredential => Some("give a token with `--tls-bootstrap-token`".into()),
            Self::NoUnit => Some("install the kubelet and its unit, then run the same command again".into()),
            Self::Start { .. } => Some("`systemctl status kubelet` and `journalctl -u kubelet -n 50` show more".into()),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(error) => error.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}

#[cfg(test)]
mod tests;
