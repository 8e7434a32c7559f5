//! Whether the Node's name is free, looked at before a certificate is asked for.
//!
//! A certificate for the name of a machine that runs would let this machine act as that one. kubeadm looks, too, and
//! refuses a Ready Node even where it is this machine, so that a join cannot be run again; here the machine id and the
//! journal together prove that it is.

use std::path::Path;

use k8s_openapi::api::core::v1::Node as ApiNode;
use thiserror::Error;

use super::{Access, ClusterConfiguration, JoinContext, tls_bootstrap};
use crate::api::retry::{Finding, Patience};
use crate::api::{ApiError, get};
use crate::config::JoinSettings;
use crate::error::Diagnose;
use crate::node::NodeError;
use crate::output::printable;

/// Phase id of what is told.
const PHASE: &str = "node-lookup";
/// Where the machine's identity is; systemd, machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";
/// A machine id has 32 digits and a newline.
const MACHINE_ID_LIMIT_BYTES: u64 = 256;

/// The name that the kubelet will register: the last `hostname-override` of its arguments, else `nodeRegistration.name`.
///
/// Trimmed and lower-cased, as the kubelet does.
pub fn kubelet_node_name(settings: &JoinSettings) -> String {
    let last = settings.node.kubelet_extra_args.iter().rev().find(|argument| argument.name == "hostname-override");
    let name = last.map(|argument| argument.value.trim()).filter(|value| !value.is_empty());
    name.unwrap_or(&settings.node.name).trim().to_lowercase()
}

/// The Node of this name, if there is one.
///
/// # Errors
///
/// Any [`ApiError`] but that it does not exist.
pub async fn look_up(access: &Access, cx: &JoinContext) -> Result<Option<ApiNode>, ApiError> {
    match get::<ApiNode>(access.client(), None, &kubelet_node_name(&cx.settings)).await {
        Ok(node) => Ok(Some(node)),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses the name of a Ready Node that is not this machine. `seen` is what a moment ago was found; none: it is looked
/// up.
///
/// # Errors
///
/// [`NodeLookupError`]; no certificate was asked for.
pub async fn ensure_name_is_free(
    access: &Access,
    _cluster: &ClusterConfiguration,
    seen: Option<Option<ApiNode>>,
    cx: &JoinContext,
) -> Result<(), NodeLookupError> {
    let name = &*kubelet_node_name(&cx.settings);
    let step = cx.reporter.step(PHASE, format!("look up Node `{name}`"));
    let found = match seen {
        Some(found) => found,
        None => look_up_patiently(name, access, cx).await?,
    };
    let Some(node) = found else {
        step.done("the name is free");
        return Ok(());
    };
    if !is_ready(&node) {
        step.done("it exists and is not ready, so it may be taken over");
        return Ok(());
    }
    if is_this_machine(&node, cx)? {
        step.unchanged("it is this machine, joined by an earlier run");
        return Ok(());
    }
    Err(NodeLookupError::Taken { name: name.to_owned(), machine: describe(&node) })
}

async fn look_up_patiently(name: &str, access: &Access, cx: &JoinContext) -> Result<Option<ApiNode>, NodeLookupError> {
    let what = format!("Node `{name}`");
    let patience = Patience {
        reporter: &cx.reporter,
        phase: PHASE,
        what: &what,
        timeout: cx.settings.timeouts.kubernetes_api_call,
        fail_fast: cx.settings.fail_fast,
    };
    patience
        .until_ok(async || {
            look_up(access, cx).await.map_err(|source| {
                let passes = source.may_pass() && !matches!(source.status(), Some(401 | 403));
                let error = NodeLookupError::Unread { name: name.to_owned(), source };
                if passes { Finding::MayPass(error) } else { Finding::Final(error) }
            })
        })
        .await
}

/// Whether condition Ready is True.
pub fn is_ready(node: &ApiNode) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_this_machine(node: &ApiNode, cx: &JoinContext) -> Result<bool, NodeLookupError> {
    let Some(content) = cx.node.read(Path::new(MACHINE_ID), MACHINE_ID_LIMIT_BYTES)? else { return Ok(false) };
    let ours = String::from_utf8_lossy(&content);
    let theirs = node.status.as_ref().and_then(|status| status.node_info.as_ref()).map(|info| info.machine_id.trim());
    if ours.trim().is_empty() || theirs != Some(ours.trim()) {
        return Ok(false);
    }
    // Cloned machines share their id, so the node's certificate has to be here, by the record of this join.
    let by_record = cx.node.journal().owns(Path::new(tls_bootstrap::CURRENT_PEM));
    Ok(by_record && tls_bootstrap::has_certificate_for(&kubelet_node_name(&cx.settings), &cx.node)?)
}

/// What is known of the machine that has the name.
fn describe(node: &ApiNode) -> String {
    let Some(status) = &node.status else { return "nothing more is known of it".into() };
    let addresses = status.addresses.iter().flatten().find(|address| address.type_ == "InternalIP");
    let address = addresses.map_or("unknown", |address| &address.address);
    let machine = status.node_info.as_ref().map_or("unknown", |info| &info.machine_id);
    printable(&format!("address {address}, machine id {machine}"))
}

/// Why the name cannot be used.
#[derive(Debug, Error)]
pub enum NodeLookupError {
    /// A Node of this name is Ready.
    #[error("a Node `{name}` exists and is Ready ({machine}), and it is not this machine")]
    Taken {
        /// Node name.
        name: String,
        /// What is known of it.
        machine: String,
    },
    /// No answer, or a refusal.
    #[error("cannot look up Node `{name}`")]
    Unread {
        /// Node name.
        name: String,
        /// The cause.
        source: ApiError,
    },
    /// The machine.
    #[error(transparent)]
    Machine(#[from] NodeError),
}

impl Diagnose for NodeLookupError {
    fn code(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "node-name-taken",
            Self::Unread { source, .. } => match source.status() {
                Some(401) => "node-lookup-unauthorized",
                Some(403) => "node-lookup-forbidden",
                _ => source.code(),
            },
            Self::Machine(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { name, .. } => Some(format!(
                "choose another name with `--node-name`, or, if that machine is gone, run `kubectl delete node {name}`"
            )),
            Self::Unread { source, .. } => match source.status() {
                Some(401 | 403) => Some(
                    "the token's group must be `system:bootstrappers:kubeadm:default-node-token`; create one with `kubeadm \
                     token create`"
                        .into(),
                ),
                _ => source.hint(),
            },
            Self::Machine(error) => error.hint(),
        }
    }
}
