//! Credentials that the kubelet has already: an earlier run's, or put there by the operator.
//!
//! The rule is the kubelet's own (`isClientConfigStillValid`): kubelet.conf names a client certificate, none of its
//! certificates has expired, and the key belongs to it.

use std::path::Path;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{
    CURRENT_PEM, KUBELET_CONF, NODE_USER_PREFIX, NODES_GROUP, PAIR_LIMIT_BYTES, TlsBootstrapError, now_seconds,
};
use crate::api::Identity;
use crate::join::node_lookup::kubelet_node_name;
use crate::join::{JoinContext, TrustedCluster};
use crate::kubeconfig::Kubeconfig;
use crate::node::{Node, NodeError};
use crate::output::printable;
use crate::pki::{Certificate, spki_of_key};

/// A client's credentials in place: the kubelet's, or an administrator's.
#[derive(Debug)]
pub struct ExistingIdentity {
    /// User name in the certificate, printable.
    pub user: String,
    /// To ask the cluster with.
    pub client: Identity,
    /// The cluster that the file names; none: it names none that can be verified.
    pub cluster: Option<TrustedCluster>,
}

impl ExistingIdentity {
    /// Looks for valid credentials in `/etc/kubernetes/kubelet.conf`, of whatever node; none: there are none that the
    /// kubelet would use.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`] for files that cannot be read.
    pub fn on(node: &Node) -> Result<Option<Self>, NodeError> {
        Self::in_file(KUBELET_CONF, node)
    }

    /// The same of another kubeconfig with a client certificate: `/etc/kubernetes/admin.conf`.
    ///
    /// # Errors
    ///
    /// [`NodeError::File`] for files that cannot be read.
    pub fn in_file(path: &str, node: &Node) -> Result<Option<Self>, NodeError> {
        let Some(content) = text(Path::new(path), node)? else { return Ok(None) };
        let Ok(kubeconfig) = Kubeconfig::parse(&content) else { return Ok(None) };
        let Some((_, _, user)) = kubeconfig.user() else { return Ok(None) };
        let certificate_pem = match user.certificate_pem() {
            Ok(Some(pem)) => Some(pem),
            Ok(None) => text(Path::new(&user.client_certificate), node)?.map(|pem| pem.to_string()),
            Err(_) => None,
        };
        let key_pem = match user.key_pem() {
            Ok(Some(pem)) => Some(pem),
            Ok(None) => text(Path::new(&user.client_key), node)?.map(|pem| SecretString::from(pem.as_str())),
            Err(_) => None,
        };
        let (Some(certificate_pem), Some(key_pem)) = (certificate_pem, key_pem) else { return Ok(None) };
        let Some(chain) = valid_chain(&certificate_pem, &key_pem) else { return Ok(None) };
        let user = printable(&chain[0].common_name);
        // The pair's file holds the key, too, which has no place in a public value.
        let certificate_pem = chain.iter().map(Certificate::to_pem).collect();
        let client = Identity::Certificate { certificate_pem, key_pem };
        Ok(Some(Self { user, client, cluster: cluster_of(&kubeconfig, path, node)? }))
    }
}

/// Looks for valid credentials of this node in `/etc/kubernetes/kubelet.conf`; none: there are none that the kubelet
/// would use.
///
/// # Errors
///
/// [`TlsBootstrapError::OtherNode`]; [`TlsBootstrapError::Machine`] for files that cannot be read.
pub fn existing_identity(cx: &JoinContext) -> Result<Option<ExistingIdentity>, TlsBootstrapError> {
    let Some(existing) = ExistingIdentity::on(&cx.node)? else { return Ok(None) };
    let wanted = kubelet_node_name(&cx.settings);
    // A user of another kind is the operator's business.
    match existing.user.strip_prefix(NODE_USER_PREFIX) {
        Some(name) if name != wanted => Err(TlsBootstrapError::OtherNode { found: existing.user, wanted }),
        _ => Ok(Some(existing)),
    }
}

fn cluster_of(kubeconfig: &Kubeconfig, path: &str, node: &Node) -> Result<Option<TrustedCluster>, NodeError> {
    let Ok(cluster) = kubeconfig.cluster() else { return Ok(None) };
    let ca_pem = match cluster.ca_pem() {
        Ok(Some(pem)) => Some(pem),
        Ok(None) => text(Path::new(&cluster.certificate_authority), node)?.map(|pem| pem.to_string()),
        Err(_) => None,
    };
    Ok(ca_pem.map(|ca_pem| TrustedCluster {
        server: cluster.server.clone(),
        ca_pem,
        tls_server_name: Some(cluster.tls_server_name.clone()).filter(|name| !name.is_empty()),
        established_by: format!("file {path}"),
    }))
}

/// Whether the kubelet's own pair of certificate and key is in place and valid for this node.
///
/// # Errors
///
/// [`NodeError::File`] for files that cannot be read.
pub fn has_certificate_for(name: &str, node: &Node) -> Result<bool, NodeError> {
    let Some(content) = text(Path::new(CURRENT_PEM), node)? else { return Ok(false) };
    let chain = valid_chain(&content, &SecretString::from(content.as_str()));
    Ok(chain.is_some_and(|chain| {
        chain[0].common_name.strip_prefix(NODE_USER_PREFIX) == Some(name)
            && chain[0].organizations.iter().any(|group| group == NODES_GROUP)
    }))
}

/// The certificates, leaf first, if the key belongs to the leaf and nothing has expired. Not empty.
fn valid_chain(certificate_pem: &str, key_pem: &SecretString) -> Option<Vec<Certificate>> {
    let chain = Certificate::parse_pem(certificate_pem.as_bytes()).ok()?;
    let now = now_seconds();
    if chain.iter().any(|certificate| certificate.not_after < now) {
        return None;
    }
    (spki_of_key(key_pem).ok()? == chain.first()?.spki).then_some(chain)
}

/// A text file of the machine, symbolic links followed within `--root`; none: nothing is there, or it is no text.
fn text(path: &Path, node: &Node) -> Result<Option<Zeroizing<String>>, NodeError> {
    if !path.is_absolute() {
        return Ok(None);
    }
    // Links hold paths as the machine sees them, without `--root`.
    let target = std::fs::read_link(node.locate(path)).ok().map(|target| match path.parent() {
        Some(parent) => parent.join(target),
        None => target,
    });
    let content = node.read(target.as_deref().unwrap_or(path), PAIR_LIMIT_BYTES)?;
    Ok(content.and_then(|content| String::from_utf8(content).ok()).map(Zeroizing::new))
}
