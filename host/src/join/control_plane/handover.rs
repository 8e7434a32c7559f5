//! The kubelet of a control plane, handed over from the API server that discovery found to the local one.
//!
//! kubeadm points the kubelet at its own API server from the start, where none runs yet, and loses seconds to retries.
//! Here it joins by a server that answers; when the local one is healthy, `kubelet.conf` and the flags become what
//! kubeadm leaves, and the kubelet is started once more.

use std::path::Path;

use super::LocalNode;
use crate::error::Failure;
use crate::join::kubelet_config::Start;
use crate::join::tls_bootstrap::{CURRENT_PEM, ExistingIdentity, KUBELET_CONF};
use crate::join::{Access, ClusterConfiguration, JoinContext, TrustedCluster, kubelet_start, kubelet_wait};
use crate::kubeconfig::kubelet_conf;
use crate::node::Change;

/// Phase id of what is told.
const PHASE: &str = "wait-control-plane";

/// With which flags the kubelet starts now: once it works with the local API server, with those that stay.
///
/// # Errors
///
/// Files that cannot be read.
pub fn start(local: &LocalNode, cx: &JoinContext) -> Result<Start, Failure> {
    let found = ExistingIdentity::on(&cx.node)?.and_then(|existing| existing.cluster);
    let is_local = found.is_some_and(|cluster| cluster.server == local.api_server());
    Ok(if is_local { Start::Lasting } else { Start::Registering })
}

/// Hands the kubelet over, and waits until it is healthy again. A `kubelet.conf` that the operator put there stays.
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
    let step = cx.reporter.step(PHASE, "let the kubelet work with the local API server");
    if cx.node.plan().is_none() && !cx.node.journal().owns(Path::new(KUBELET_CONF)) {
        step.skipped(format!("`{KUBELET_CONF}` is not of this join"));
    } else {
        let here = TrustedCluster { server: local.api_server(), tls_server_name: None, ..access.cluster.clone() };
        let text = kubelet_conf(&here, CURRENT_PEM);
        match cx.node.ensure_file(Path::new(KUBELET_CONF), text.as_bytes(), 0o600)? {
            Change::Made => step.done(format!("`{}`", here.server)),
            Change::Unchanged => step.unchanged(format!("`{}`", here.server)),
        }
    }
    kubelet_start::write_flags(Start::Lasting, cx)?;
    kubelet_start::start(None, cx).await?;
    kubelet_wait::wait_for_kubelet(cluster, cx).await?;
    Ok(())
}
