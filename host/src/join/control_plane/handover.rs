//! The kubelet of a control plane, handed over from the API server that discovery found to the local one.
//!
//! kubeadm points the kubelet at its own API server from the start, where none runs yet, and loses seconds to retries.
//! Here it joins by a server that answers; when the local one is healthy, `kubelet.conf` and the flags become what
//! kubeadm leaves, and the kubelet is started once more. A kubelet that is too new for that server works with the local one
//! from the start; see `skew`.

use std::path::Path;

use super::LocalNode;
use crate::config::default_route_address;
use crate::error::Failure;
use crate::facts::{FactRequest, FactSource};
use crate::join::kubelet_config::{self, Start};
use crate::join::kubelet_start::{self, FLAGS};
use crate::join::tls_bootstrap::{CURRENT_PEM, KUBELET_CONF};
use crate::join::{Access, ClusterConfiguration, JoinContext, TrustedCluster, kubelet_wait};
use crate::kubeconfig::kubelet_conf;
use crate::node::Change;

/// Phase id of what is told.
const PHASE: &str = "wait-control-plane";
/// Largest `kubeadm-flags.env` that is compared.
const FLAGS_LIMIT_BYTES: u64 = 1 << 16;

/// With which flags the kubelet starts now: with those that stay, once this join has written them. Until then without
/// asking for the node's name, where `facts` say that it does not resolve.
///
/// # Errors
///
/// Files that cannot be read.
pub async fn start(facts: &dyn FactSource, cx: &JoinContext) -> Result<Start, Failure> {
    let path = Path::new(FLAGS);
    if cx.node.journal().owns(path) {
        let lasting = kubelet_config::flags(&cx.settings, &cx.node.machine().hostname()?, Start::Lasting);
        if cx.node.read(path, FLAGS_LIMIT_BYTES)?.is_some_and(|text| text == lasting.as_bytes()) {
            return Ok(Start::Lasting);
        }
    }
    let named = facts.ask(&FactRequest::NodeNameAddresses).await;
    let node_ip = if named.is_ok() { None } else { default_route_address() };
    Ok(Start::Registering { node_ip })
}

/// Makes `kubelet.conf` name the local API server. One that the operator put there stays.
///
/// # Errors
///
/// The machine's.
pub fn point(access: &Access, local: &LocalNode, phase: &'static str, cx: &JoinContext) -> Result<(), Failure> {
    let step = cx.reporter.step(phase, "let the kubelet work with the local API server");
    if cx.node.plan().is_none() && !cx.node.journal().owns(Path::new(KUBELET_CONF)) {
        step.skipped(format!("`{KUBELET_CONF}` is not of this join"));
        return Ok(());
    }
    let here = TrustedCluster { server: local.api_server(), tls_server_name: None, ..access.cluster.clone() };
    let text = kubelet_conf(&here, CURRENT_PEM);
    match cx.node.ensure_file(Path::new(KUBELET_CONF), text.as_bytes(), 0o600)? {
        Change::Made => step.done(format!("`{}`", here.server)),
        Change::Unchanged => step.unchanged(format!("`{}`", here.server)),
    }
    Ok(())
}

/// Hands the kubelet over, and waits until it is healthy again.
///
/// # Errors
///
/// The machine's, the kubelet's.
pub async fn hand_over(
    access: &Access,
    cluster: &ClusterConfiguration,
    local: &LocalNode,
    cx: &JoinContext,
) -> Result<(), Failure> {
    point(access, local, PHASE, cx)?;
    kubelet_start::write_flags(Start::Lasting, cx)?;
    kubelet_start::start(None, cx).await?;
    kubelet_wait::wait_for_kubelet(cluster, cx).await?;
    Ok(())
}
