//! TLS bootstrap by the host: key, certificate request, certificate, and the files in which the kubelet keeps them.
//!
//! The key is durable before anything is asked for, in the file where the kubelet itself keeps a pending one. The
//! request is named after the key, so that a run after a crash finds its own request instead of making a second one. The
//! pair's file is named by the certificate's start, not by the clock, so that a repeated run writes the same file.
//! Everything else is as the kubelet does it: it rotates the certificate later as if it had made it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use zeroize::Zeroizing;

use super::node_lookup::kubelet_node_name;
use super::{Access, ClusterConfiguration, JoinContext, NodeIdentity};
use crate::kubeconfig::kubelet_conf;
use crate::node::Change;
use crate::pki::{Certificate, ClientKey};
use crate::plan::{Plan, Step};

mod error;
mod existing;
mod request;
mod wait;

pub use error::TlsBootstrapError;
pub use existing::{ExistingIdentity, existing_identity, has_certificate_for};
pub use wait::{Registered, wait_for_node};

/// Phase id of what is told.
const PHASE: &str = "tls-bootstrap";
/// The kubelet's certificate directory.
const PKI_DIR: &str = "/var/lib/kubelet/pki";
/// The kubelet's own name for a key whose request is pending.
pub const PENDING_KEY: &str = "/var/lib/kubelet/pki/kubelet-client.key.tmp";
/// Link to the certificate and key in use.
pub const CURRENT_PEM: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// The kubelet's kubeconfig.
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
/// User name prefix of nodes.
const NODE_USER_PREFIX: &str = "system:node:";
/// Group of nodes.
const NODES_GROUP: &str = "system:nodes";
/// A pair has 2 KiB, with intermediates 10.
const PAIR_LIMIT_BYTES: u64 = 256 << 10;

/// Gets the kubelet its client certificate, unless it has one.
///
/// # Errors
///
/// [`TlsBootstrapError`]; run again, it goes on with the same key and request.
pub async fn by_host(
    access: &Access,
    _cluster: &ClusterConfiguration,
    cx: &JoinContext,
) -> Result<NodeIdentity, TlsBootstrapError> {
    let name = &*kubelet_node_name(&cx.settings);
    if let Some(existing) = existing_identity(cx)? {
        let step = cx.reporter.step(PHASE, "get the kubelet's client certificate");
        step.unchanged(format!("`{KUBELET_CONF}` has a valid one for `{}`", existing.user));
        cx.node.remove(Path::new(PENDING_KEY))?;
        return Ok(NodeIdentity { node_name: name.to_owned(), csr_name: None });
    }
    // A pair without kubelet.conf was left by a crash between the two.
    let csr_name = if has_certificate_for(name, &cx.node)? {
        None
    } else {
        let key = pending_key(cx)?;
        if let Some(plan) = cx.node.plan() {
            plan_request(name, plan);
            write_kubelet_conf(access, cx)?;
            return Ok(NodeIdentity { node_name: name.to_owned(), csr_name: None });
        }
        let answered = request::certificate(&key, name, access, cx).await?;
        let path = pair_path(answered.chain.first().expect("a verified chain has a leaf").not_before);
        cx.node.ensure_file(&path, pair_content(&answered.chain, &key).as_bytes(), 0o600)?;
        cx.node.ensure_symlink(Path::new(CURRENT_PEM), &path)?;
        Some(answered.csr_name)
    };
    write_kubelet_conf(access, cx)?;
    cx.node.remove(Path::new(PENDING_KEY))?;
    Ok(NodeIdentity { node_name: name.to_owned(), csr_name })
}

fn write_kubelet_conf(access: &Access, cx: &JoinContext) -> Result<(), TlsBootstrapError> {
    let step = cx.reporter.step(PHASE, "write the kubelet's kubeconfig");
    let text = kubelet_conf(&access.cluster, CURRENT_PEM);
    match cx.node.ensure_file(Path::new(KUBELET_CONF), text.as_bytes(), 0o600)? {
        Change::Made => step.done(format!("`{KUBELET_CONF}`")),
        Change::Unchanged => step.unchanged(format!("`{KUBELET_CONF}`")),
    }
    Ok(())
}

/// What a dry run can say of a certificate that was not issued.
fn plan_request(name: &str, plan: &Plan) {
    let user = format!("{NODE_USER_PREFIX}{name}");
    plan.api_call("POST", request::PATH, format!("ask for a client certificate for `{user}`"));
    plan.note(Step::Wait { what: "the certificate to be approved and issued".into() });
    let pair = Path::new(PKI_DIR).join("kubelet-client-<start of the certificate>.pem");
    plan.note(Step::Symlink { path: CURRENT_PEM.into(), target: pair });
    plan.note(Step::Removal { path: PENDING_KEY.into() });
}

/// The key that an earlier run left, else a new one, in its file before it is used.
fn pending_key(cx: &JoinContext) -> Result<ClientKey, TlsBootstrapError> {
    let path = Path::new(PENDING_KEY);
    let step = cx.reporter.step(PHASE, "make the kubelet's key");
    let kept = cx.node.read(path, PAIR_LIMIT_BYTES)?.and_then(|pem| String::from_utf8(pem).ok());
    if let Some(key) = kept.and_then(|pem| ClientKey::parse_pem(pem.into()).ok()) {
        step.unchanged(format!("the one of an earlier run in `{PENDING_KEY}`"));
        return Ok(key);
    }
    let key = ClientKey::generate()?;
    super::kubelet_start::claim_directory(&cx.node)?;
    cx.node.ensure_dir(Path::new(PKI_DIR), 0o755)?;
    // What cannot be used is replaced by a file of the right mode.
    cx.node.remove(path)?;
    cx.node.ensure_file(path, key.expose_pem().as_bytes(), 0o600)?;
    step.done("P-256");
    Ok(key)
}

/// `kubelet-client-<YYYY-MM-DD-HH-MM-SS>.pem`, the time being the certificate's start in UTC, in seconds since 1970.
fn pair_path(not_before: i64) -> PathBuf {
    // X.509 knows the last day of the year 9999, which a `Timestamp` does not.
    let start = Timestamp::from_second(not_before).unwrap_or(Timestamp::MAX);
    Path::new(PKI_DIR).join(format!("kubelet-client-{}.pem", start.strftime("%Y-%m-%d-%H-%M-%S")))
}

/// Certificates, leaf first, then the key: the kubelet's file store.
fn pair_content(chain: &[Certificate], key: &ClientKey) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for certificate in chain {
        text.push_str(&certificate.to_pem());
    }
    text.push_str(key.expose_pem());
    text
}

fn now_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
