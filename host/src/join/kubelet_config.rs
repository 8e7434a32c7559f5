//! What the kubelet reads: `config.yaml`, `instance-config.yaml`, `kubeadm-flags.env`, byte for byte kubeadm's.
//!
//! `config.yaml` is the cluster's KubeletConfiguration as a tree, unknown keys kept; then `resolvConf` where
//! systemd-resolved runs, the operator's patches, and the instance's runtime socket, which no patch wins over.

use std::net::IpAddr;

use serde_json::{Value, json};
use thiserror::Error;

use crate::config::JoinSettings;
use crate::cri::CriError;
use crate::error::{Diagnose, ExitCode};
use crate::join::control_plane::mark;
use crate::join::node_lookup::kubelet_node_name;
use crate::join::{ClusterConfiguration, JoinContext};
use crate::node::{Node, NodeError};
use crate::patches::{self, PatchError, Patches, Target};
use crate::yaml;

mod go;

/// The resolver file that systemd-resolved keeps for those who cannot use its stub.
const SYSTEMD_RESOLVED_FILE: &str = "/run/systemd/resolve/resolv.conf";
/// Its unit.
const SYSTEMD_RESOLVED: &str = "systemd-resolved";

/// URL of the runtime's socket: as given, else where one listens on this machine, else containerd's.
///
/// # Errors
///
/// [`KubeletConfigError::Runtime`] if several runtimes listen.
pub fn runtime_socket(cx: &JoinContext) -> Result<String, KubeletConfigError> {
    if let Some(socket) = &cx.settings.node.cri_socket {
        return Ok(socket.clone());
    }
    // Below another root the sockets of this machine say nothing.
    if cx.node.root() != std::path::Path::new("/") {
        return Ok(crate::cri::DEFAULT_SOCKET.to_owned());
    }
    Ok(crate::cri::detect_socket()?)
}

/// The text of `instance-config.yaml`.
pub fn instance_config(socket: &str) -> String {
    format!("containerRuntimeEndpoint: {}\n", go::quote(socket))
}

/// Whether systemd-resolved runs. Without an init system, nothing is known to resolve names.
pub async fn resolves_by_systemd(node: &Node) -> bool {
    node.machine().unit_state(SYSTEMD_RESOLVED).await.is_ok_and(|state| state.active)
}

/// The text of `config.yaml`. `resolved`: see [`resolves_by_systemd`].
///
/// # Errors
///
/// [`KubeletConfigError`].
pub fn config(
    cluster: &ClusterConfiguration,
    socket: &str,
    resolved: bool,
    cx: &JoinContext,
) -> Result<String, KubeletConfigError> {
    let mut tree = cluster.kubelet.clone();
    if resolved && tree.get("resolvConf").is_none_or(Value::is_null) {
        tree["resolvConf"] = json!(SYSTEMD_RESOLVED_FILE);
    }
    if resolved && tree["resolvConf"] != SYSTEMD_RESOLVED_FILE {
        let message = format!(
            "the cluster sets the kubelet's resolvConf to {}; systemd-resolved runs here, whose file is `{SYSTEMD_RESOLVED_FILE}`",
            crate::output::printable(&tree["resolvConf"].to_string())
        );
        cx.reporter.warn(Some(super::kubelet_start::PHASE), message);
    }
    let patches = patches(cx)?;
    for (name, why) in &patches.ignored {
        let message = format!("patch file `{}` passed over: {why}", crate::output::printable(name));
        cx.reporter.warn(Some(super::kubelet_start::PHASE), message);
    }
    patches.apply(Target::KubeletConfiguration, &mut tree)?;
    let instance = json!({ "containerRuntimeEndpoint": socket });
    patches::merge_strategically(&mut tree, &instance, patches::Schema::Atomic)
        .expect("a mapping without directives applies to anything");
    Ok(yaml::write(&tree))
}

/// Where the kubelet answers `/healthz`, patches respected; none: it does not, by port 0.
///
/// # Errors
///
/// [`KubeletConfigError::Patch`], [`KubeletConfigError::Healthz`].
pub fn healthz_url(cluster: &ClusterConfiguration, cx: &JoinContext) -> Result<Option<String>, KubeletConfigError> {
    let mut tree = cluster.kubelet.clone();
    patches(cx)?.apply(Target::KubeletConfiguration, &mut tree)?;
    healthz_url_of(&tree)
}

/// The same for a configuration that is complete.
///
/// # Errors
///
/// [`KubeletConfigError::Healthz`].
pub fn healthz_url_of(tree: &Value) -> Result<Option<String>, KubeletConfigError> {
    let address = tree.get("healthzBindAddress").and_then(Value::as_str).filter(|text| !text.is_empty());
    let address = address.unwrap_or("127.0.0.1");
    let port = match tree.get("healthzPort") {
        None | Some(Value::Null) => Some(10_248),
        Some(port) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
    };
    let invalid = || KubeletConfigError::Healthz { address: crate::output::printable(address) };
    match (address.parse::<IpAddr>().map_err(|_| invalid())?, port.ok_or_else(invalid)?) {
        (_, 0) => Ok(None),
        (IpAddr::V4(address), port) => Ok(Some(format!("http://{address}:{port}/healthz"))),
        (IpAddr::V6(address), port) => Ok(Some(format!("http://[{address}]:{port}/healthz"))),
    }
}

fn patches(cx: &JoinContext) -> Result<Patches, PatchError> {
    cx.settings.patches.as_deref().map_or_else(|| Ok(Patches::default()), Patches::load)
}

/// With which flags a kubelet starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// kubeadm's, which stay.
    Lasting,
    /// Those of a control plane's first start, with which the Node is registered with its taints and out of the reach of
    /// load balancers: kubeadm adds both later, and until then workloads may land there.
    Registering {
        /// For a machine whose own name does not resolve: the address that the kubelet finds without asking for it. It
        /// asks before it registers and before each static Pod until then (`nodestatus.NodeAddress`), 10 s each.
        node_ip: Option<IpAddr>,
    },
}

/// The text of `kubeadm-flags.env`.
///
/// Ours by name, then the operator's in the order given; one of ours goes where the operator has the same.
pub fn flags(settings: &JoinSettings, hostname: &str, start: Start) -> String {
    let node = &settings.node;
    let mut ours = Vec::new();
    let name = kubelet_node_name(settings);
    if name != hostname {
        ours.push(("hostname-override", name.to_owned()));
    }
    let taints = match (&settings.control_plane, start) {
        // A worker without a word about taints has none.
        (None, _) => node.taints.clone().unwrap_or_default(),
        (Some(_), Start::Registering { .. }) => mark::taints(node.taints.as_deref()),
        (Some(_), Start::Lasting) => Vec::new(),
    };
    if !taints.is_empty() {
        ours.push(("register-with-taints", taints.iter().map(taint).collect::<Vec<_>>().join(",")));
    }
    // To an external cloud provider it would be a word of the operator's.
    let is_external = node.kubelet_extra_args.iter().any(|arg| arg.name == "cloud-provider" && arg.value == "external");
    if let Start::Registering { node_ip: Some(address) } = start
        && !is_external
    {
        ours.push(("node-ip", address.to_string()));
    }
    let ours = ours.into_iter().filter(|(name, _)| node.kubelet_extra_args.iter().all(|arg| arg.name != *name));
    let ours = ours.map(|(name, value)| format!("--{name}={value}"));
    let theirs = node.kubelet_extra_args.iter().map(|arg| format!("--{}={}", arg.name, arg.value));
    // Repeated, this flag adds to the operator's.
    let excluded = (settings.control_plane.is_some() && start != Start::Lasting)
        .then(|| format!("--node-labels={}=", mark::EXCLUDE_LABEL));
    let all: Vec<String> = ours.chain(theirs).chain(excluded).collect();
    format!("KUBELET_KUBEADM_ARGS={}\n", go::quote(&all.join(" ")))
}

/// As `core/v1` writes a taint: `key=value:effect`, what is empty left out.
fn taint(taint: &crate::config::Taint) -> String {
    match (taint.value.as_str(), taint.effect.as_str()) {
        ("", "") => taint.key.clone(),
        (value, "") => format!("{}={value}:", taint.key),
        ("", effect) => format!("{}:{effect}", taint.key),
        (value, effect) => format!("{}={value}:{effect}", taint.key),
    }
}

/// Why the kubelet's files cannot be made.
#[derive(Debug, Error)]
pub enum KubeletConfigError {
    /// A patch.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The runtime's socket.
    #[error(transparent)]
    Runtime(#[from] CriError),
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The kubelet's health address makes no sense.
    #[error("the kubelet's healthzBindAddress `{address}` or its healthzPort is invalid")]
    Healthz {
        /// As configured.
        address: String,
    },
}

impl Diagnose for KubeletConfigError {
    fn code(&self) -> &'static str {
        match self {
            Self::Patch(error) => error.code(),
            Self::Runtime(error) => error.code(),
            Self::Node(error) => error.code(),
            Self::Healthz { .. } => "kubelet-healthz-address",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Patch(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            Self::Node(error) => error.hint(),
            Self::Healthz { .. } => {
                Some("`kubectl -n kube-system edit configmap kubelet-config`, or look at `--patches`".into())
            }
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Patch(error) => error.exit_code(),
            Self::Runtime(error) => error.exit_code(),
            Self::Node(_) | Self::Healthz { .. } => ExitCode::Failed,
        }
    }
}

#[cfg(test)]
mod tests;
