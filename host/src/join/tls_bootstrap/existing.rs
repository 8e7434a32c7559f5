//! Credentials that the kubelet has already: an earlier run's, or put there by the operator.
//!
//! The rule is the kubelet's own (`isClientConfigStillValid`): kubelet.conf names a client certificate, none of its
//! certificates has expired, and the key belongs to it.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{
    CURRENT_PEM, KUBELET_CONF, NODE_USER_PREFIX, NODES_GROUP, PAIR_LIMIT_BYTES, TlsBootstrapError, now_seconds,
};
use crate::api::Identity;
use crate::join::JoinContext;
use crate::join::node_lookup::kubelet_node_name;
use crate::kubeconfig::Kubeconfig;
use crate::pki::{Certificate, spki_of_key};

/// The kubelet's credentials in place.
#[derive(Debug)]
pub struct ExistingIdentity {
    /// User name in the certificate.
    pub user: String,
    /// To ask the cluster with.
    pub client: Identity,
}

/// Looks for valid credentials in `/etc/kubernetes/kubelet.conf`; none: there are none that the kubelet would use.
///
/// # Errors
///
/// [`TlsBootstrapError::OtherNode`]; [`TlsBootstrapError::Machine`] for files that cannot be read.
pub fn existing_identity(cx: &JoinContext) -> Result<Option<ExistingIdentity>, TlsBootstrapError> {
    let Some(content) = text(Path::new(KUBELET_CONF), cx)? else { return Ok(None) };
    let Ok(kubeconfig) = Kubeconfig::parse(&content) else { return Ok(None) };
    let Some((_, _, user)) = kubeconfig.user() else { return Ok(None) };
    let certificate_pem = match user.certificate_pem() {
        Ok(Some(pem)) => Some(pem),
        Ok(None) => text(Path::new(&user.client_certificate), cx)?.map(|pem| pem.to_string()),
        Err(_) => None,
    };
    let key_pem = match user.key_pem() {
        Ok(Some(pem)) => Some(pem),
        Ok(None) => text(Path::new(&user.client_key), cx)?.map(|pem| SecretString::from(pem.as_str())),
        Err(_) => None,
    };
    let (Some(certificate_pem), Some(key_pem)) = (certificate_pem, key_pem) else { return Ok(None) };
    let Some(leaf) = valid_leaf(&certificate_pem, &key_pem) else { return Ok(None) };
    let wanted = kubelet_node_name(&cx.settings);
    // A user of another kind is the operator's business.
    if leaf.common_name.strip_prefix(NODE_USER_PREFIX).is_some_and(|name| name != wanted) {
        return Err(TlsBootstrapError::OtherNode {
            found: crate::output::printable(&leaf.common_name),
            wanted: wanted.to_owned(),
        });
    }
    let certificates = Certificate::parse_pem(certificate_pem.as_bytes())?;
    let certificate_pem = certificates.iter().map(Certificate::to_pem).collect();
    let user = crate::output::printable(&leaf.common_name);
    Ok(Some(ExistingIdentity { user, client: Identity::Certificate { certificate_pem, key_pem } }))
}

/// What has to be written of a pair; none: nothing.
pub(super) type Pair = Option<(PathBuf, Zeroizing<String>)>;

/// Whether the kubelet's pair is in place and valid for this node, so that only kubelet.conf is missing.
pub(super) fn pair_in_place(name: &str, cx: &JoinContext) -> Result<Option<Pair>, TlsBootstrapError> {
    let Some(content) = text(Path::new(CURRENT_PEM), cx)? else { return Ok(None) };
    let leaf = valid_leaf(&content, &SecretString::from(content.as_str()));
    let ours = leaf.is_some_and(|leaf| {
        leaf.common_name.strip_prefix(NODE_USER_PREFIX) == Some(name)
            && leaf.organizations.iter().any(|group| group == NODES_GROUP)
    });
    Ok(ours.then_some(None))
}

/// The leaf, if the key belongs to it and nothing has expired.
fn valid_leaf(certificate_pem: &str, key_pem: &SecretString) -> Option<Certificate> {
    let certificates = Certificate::parse_pem(certificate_pem.as_bytes()).ok()?;
    let now = now_seconds();
    if certificates.iter().any(|certificate| certificate.not_after < now) {
        return None;
    }
    let leaf = certificates.into_iter().next()?;
    (spki_of_key(key_pem).ok()? == leaf.spki).then_some(leaf)
}

/// A text file of the machine, symbolic links followed within `--root`; none: nothing is there, or it is no text.
fn text(path: &Path, cx: &JoinContext) -> Result<Option<Zeroizing<String>>, TlsBootstrapError> {
    if !path.is_absolute() {
        return Ok(None);
    }
    // Links hold paths as the machine sees them, without `--root`.
    let target = std::fs::read_link(cx.node.locate(path)).ok().map(|target| match path.parent() {
        Some(parent) => parent.join(target),
        None => target,
    });
    let content = cx.node.read(target.as_deref().unwrap_or(path), PAIR_LIMIT_BYTES)?;
    Ok(content.and_then(|content| String::from_utf8(content).ok()).map(Zeroizing::new))
}
