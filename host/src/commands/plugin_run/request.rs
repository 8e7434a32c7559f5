//! The certificate request that a hook is tried with: an object of the API as `kubectl get csr NAME -o yaml` prints it, or a
//! bare PKCS#10 in PEM.

use std::path::Path;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::PluginRunError;
use crate::error::Failure;
use crate::plugin::{CertificateRequest, CsrError};

/// Reads either.
///
/// # Errors
///
/// [`PluginRunError::ReadRequest`], [`PluginRunError::Request`], and what makes a request unfit to be shown to a hook.
pub(super) fn read(path: &Path) -> Result<CertificateRequest, Failure> {
    let content =
        std::fs::read(path).map_err(|source| PluginRunError::ReadRequest { path: path.to_owned(), source })?;
    if content.trim_ascii_start().starts_with(b"-----BEGIN ") {
        return Ok(of_pem(content)?);
    }
    let object: CertificateSigningRequest = serde_saphyr::from_slice(&content).map_err(|error| {
        let reason = error.to_string().trim_end().to_owned();
        PluginRunError::Request { path: path.to_owned(), reason }
    })?;
    Ok(CertificateRequest::of(&object)?)
}

/// A PEM says nothing of who asks. With alternative names it is taken for a serving request of the node itself, else for a
/// newcomer's with a bootstrap token.
fn of_pem(pem: Vec<u8>) -> Result<CertificateRequest, CsrError> {
    let mut object = CertificateSigningRequest::default();
    object.metadata.name = Some("plugin-run".into());
    object.metadata.creation_timestamp = Some(Time(Timestamp::now()));
    object.spec.request = ByteString(pem);
    let bare = CertificateRequest::of(&object)?;
    let (signer, username, groups, usage) = if bare.has_names() {
        let username = format!("system:node:{}", bare.node_name().unwrap_or_default());
        ("kubernetes.io/kubelet-serving", username, &["system:nodes"][..], "server auth")
    } else {
        let groups = &["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"][..];
        ("kubernetes.io/kube-apiserver-client-kubelet", "system:bootstrap:abcdef".to_owned(), groups, "client auth")
    };
    object.spec.signer_name = signer.into();
    object.spec.username = Some(username);
    object.spec.groups = Some(groups.iter().chain(&["system:authenticated"]).map(ToString::to_string).collect());
    object.spec.usages = Some(vec!["digital signature".into(), usage.into()]);
    CertificateRequest::of(&object)
}
