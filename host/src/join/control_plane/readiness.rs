//! Whether a machine can become a control plane of this cluster at all, looked at before anything is touched.
//!
//! kubeadm's two conditions, part of its preflight and not to be ignored: control planes have an endpoint in common, and
//! the files that they share are on this machine, or will be downloaded.

use std::path::Path;

use thiserror::Error;
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo};

use super::certs::authority::CaCertificate;
use super::certs::found::read;
use super::certs::key::PrivateKey;
use super::certs::{SHARED_HINT, file, list, now_seconds};
use super::configuration::ControlPlaneConfiguration;
use super::endpoint::ControlPlaneEndpoint;
use crate::error::{Diagnose, ExitCode};
use crate::join::JoinContext;
use crate::node::{Node, NodeError};
use crate::pki::CertificateKey;

/// Phase id of what is told.
const PHASE: &str = "preflight";

/// Checks both conditions. With a certificate key the shared files are downloaded later, so they need not be here.
///
/// # Errors
///
/// [`ReadinessError::Unmet`] with everything that is missing at once, [`ReadinessError::Node`].
pub fn check(
    configuration: &ControlPlaneConfiguration,
    certificate_key: Option<&CertificateKey>,
    cx: &JoinContext,
) -> Result<(), ReadinessError> {
    let step = cx.reporter.step(PHASE, "look whether a control plane can be made here");
    let mut unmet = Vec::new();
    let endpoint = &*configuration.control_plane_endpoint;
    if endpoint.is_empty() {
        unmet.push(Unmet::NoEndpoint);
    } else if let Err(error) = ControlPlaneEndpoint::parse(endpoint) {
        unmet.push(Unmet::Endpoint(error.to_string()));
    }
    if certificate_key.is_none() {
        let mut warnings = Vec::new();
        for ca in list::authorities(configuration) {
            unmet.extend(look_at_ca(ca, configuration, &cx.node, &mut warnings)?);
        }
        unmet.extend(look_at_service_account(configuration, &cx.node, &mut warnings)?);
        for warning in warnings {
            cx.reporter.warn(Some(PHASE), warning);
        }
    }
    if !unmet.is_empty() {
        return Err(ReadinessError::Unmet { unmet });
    }
    let files = if certificate_key.is_some() { "will be downloaded" } else { "are here" };
    step.done(format!("the control planes' endpoint is `{endpoint}`, and the files they share {files}"));
    Ok(())
}

fn look_at_ca(
    name: &str,
    configuration: &ControlPlaneConfiguration,
    node: &Node,
    warnings: &mut Vec<String>,
) -> Result<Option<Unmet>, NodeError> {
    let path = file(configuration, &format!("{name}.crt"));
    let Some(pem) = read(&path, node)? else { return Ok(Some(Unmet::file(&path, "is missing"))) };
    let ca = match CaCertificate::parse_pem(&pem) {
        Ok(ca) => ca,
        Err(problem) => return Ok(Some(Unmet::file(&path, &format!("is no usable CA certificate: {problem}")))),
    };
    if !(ca.certificate.not_before..=ca.certificate.not_after).contains(&now_seconds()) {
        warnings.push(format!("by this machine's clock, the CA in `{}` is not valid now", path.display()));
    }
    let path = file(configuration, &format!("{name}.key"));
    if read(&path, node)?.and_then(|pem| PrivateKey::parse_pem(&pem)).is_none() {
        warnings.push(format!(
            "`{}` is missing or holds no key that can be used; its CA counts as external, and what it signs must be here",
            path.display()
        ));
    }
    Ok(None)
}

fn look_at_service_account(
    configuration: &ControlPlaneConfiguration,
    node: &Node,
    warnings: &mut Vec<String>,
) -> Result<Vec<Unmet>, NodeError> {
    let mut unmet = Vec::new();
    let (key_path, public_path) = (file(configuration, "sa.key"), file(configuration, "sa.pub"));
    let key = match read(&key_path, node)? {
        None => {
            unmet.push(Unmet::file(&key_path, "is missing"));
            None
        }
        Some(pem) => {
            let key = PrivateKey::parse_pem(&pem).and_then(|key| Some((algorithm_of(&key.spki().ok()?)?, key)));
            if key.is_none() {
                unmet.push(Unmet::file(&key_path, "holds no RSA or ECDSA key that can be used"));
            }
            key
        }
    };
    let Some(pem) = read(&public_path, node)? else {
        unmet.push(Unmet::file(&public_path, "is missing"));
        return Ok(unmet);
    };
    let publics = public_keys(&pem);
    match (publics.first(), key) {
        (None, _) => unmet.push(Unmet::file(&public_path, "holds no public key")),
        (Some(first), Some((algorithm, key))) => {
            if algorithm_of(first).as_ref() != Some(&algorithm) {
                unmet.push(Unmet::file(&public_path, "has a key of another kind than the one in `sa.key`"));
            } else if key.spki().is_ok_and(|spki| !publics.contains(&spki)) {
                warnings.push(format!(
                    "`{}` does not hold the public half of `{}`: tokens signed here would be refused here",
                    public_path.display(),
                    key_path.display()
                ));
            }
        }
        (Some(_), None) => {}
    }
    Ok(unmet)
}

/// Public keys of a PEM text, bare or in certificates; DER.
fn public_keys(pem: &[u8]) -> Vec<Vec<u8>> {
    use rustls_pki_types::pem::{PemObject as _, SectionKind};
    let blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).filter_map(Result::ok);
    blocks
        .filter_map(|(kind, der)| match kind {
            SectionKind::PublicKey => Some(der),
            SectionKind::Certificate => {
                let pem = crate::pki::pem_block("CERTIFICATE", &der);
                crate::pki::Certificate::parse_pem(pem.as_bytes()).ok().map(|mut all| all.swap_remove(0).spki)
            }
            _ => None,
        })
        .collect()
}

/// The object identifier of a public key's algorithm.
fn algorithm_of(spki: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    Some(parsed.algorithm.algorithm.as_bytes().to_vec())
}

/// A condition that is not met.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unmet {
    /// `controlPlaneEndpoint` is empty.
    #[error("the cluster has no `controlPlaneEndpoint`, at which all control planes would be reached")]
    NoEndpoint,
    /// It is no endpoint.
    #[error("{0}")]
    Endpoint(String),
    /// A shared file.
    #[error("{0}")]
    File(String),
}

impl Unmet {
    fn file(path: &Path, problem: &str) -> Self {
        Self::File(format!("`{}` {problem}", path.display()))
    }
}

/// Why no control plane can be made here.
#[derive(Debug, Error)]
pub enum ReadinessError {
    /// kubeadm's conditions.
    #[error("this machine cannot become a control plane of this cluster: {}", .unmet.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unmet {
        /// At least one.
        unmet: Vec<Unmet>,
    },
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl Diagnose for ReadinessError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unmet { unmet } => match unmet.as_slice() {
                [Unmet::NoEndpoint | Unmet::Endpoint(_), ..] => "control-plane-endpoint-missing",
                _ => "control-plane-files-missing",
            },
            Self::Node(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        let Self::Unmet { unmet } = self else {
            let Self::Node(error) = self else { return None };
            return error.hint();
        };
        let of_endpoint = |unmet: &Unmet| !matches!(unmet, Unmet::File(_));
        let mut hints = Vec::new();
        if unmet.iter().any(of_endpoint) {
            hints.push(
                "set `controlPlaneEndpoint` with `kubectl -n kube-system edit configmap kubeadm-config`, to a name or \
                 address that reaches every control plane and is in the API servers' certificates",
            );
        }
        if !unmet.iter().all(of_endpoint) {
            hints.push(SHARED_HINT);
        }
        Some(hints.join("; "))
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unmet { .. } => ExitCode::Preflight,
            Self::Node(_) => ExitCode::Failed,
        }
    }
}

#[cfg(test)]
mod tests;
