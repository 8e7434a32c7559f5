//! `admin.conf`, `controller-manager.conf` and `scheduler.conf`, each with a client certificate of its own.
//!
//! Byte for byte as kubeadm writes them, keys and certificates aside. `kubelet.conf` comes from the TLS bootstrap, and
//! `super-admin.conf` only ever from `kubeadm init`.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use super::LocalNode;
use super::certs::authority::{Authority, CaCertificate, CaProblem, IssueError, Subject, Usage, Validity};
use super::certs::found::read;
use super::certs::key::{KeyError, PrivateKey};
use super::certs::names::Names;
use super::certs::{SHARED_HINT, file, now_seconds, seconds};
use super::configuration::ControlPlaneConfiguration;
use super::endpoint::{ControlPlaneEndpoint, EndpointError};
use super::keys_ahead::Keys;
use crate::error::Diagnose;
use crate::join::JoinContext;
use crate::kubeconfig::{Client, Kubeconfig, KubeconfigError, client_conf};
use crate::node::{NewFile, Node, NodeError};
use crate::output::printable;
use crate::pki::{Certificate, pem_block};

/// Phase id of what is told.
const PHASE: &str = "control-plane-prepare/kubeconfig";
/// The administrator's kubeconfig, which later phases use, too.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
/// kube-controller-manager's.
pub const CONTROLLER_MANAGER_CONF: &str = "/etc/kubernetes/controller-manager.conf";
/// kube-scheduler's.
pub const SCHEDULER_CONF: &str = "/etc/kubernetes/scheduler.conf";

/// Writes the three files, unless they are there and trust the cluster's CA. Without the CA's key (external CA) they are
/// the operator's to bring, as in kubeadm.
///
/// # Errors
///
/// [`KubeconfigsError`]. Unless it is of the machine, nothing was written.
pub async fn write(
    configuration: &ControlPlaneConfiguration,
    local: &LocalNode,
    keys: &mut Keys,
    cx: &JoinContext,
) -> Result<(), KubeconfigsError> {
    let wanted = wanted(configuration, local)?;
    let key_path = file(configuration, "ca.key");
    let Some(key) = read(&key_path, &cx.node)? else { return leave_to_operator(&wanted, &key_path, cx) };
    let authority = authority(&key, &key_path, configuration, &cx.node)?;
    let mut missing = Vec::new();
    for wanted in wanted {
        match read(Path::new(wanted.path), &cx.node)? {
            None => missing.push(wanted),
            Some(text) => {
                let step = cx.reporter.step(PHASE, format!("write `{}`", wanted.path));
                check(&text, &wanted, &authority.ca, cx)?;
                step.unchanged("it is there and trusts the cluster's CA");
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let step = cx.reporter.step(PHASE, "make keys");
    let keys = keys.take(configuration.encryption_algorithm, missing.len()).await?;
    step.done(format!("{} of {}", keys.len(), configuration.encryption_algorithm.name()));
    let step = cx.reporter.step(PHASE, "write the kubeconfigs");
    let texts = missing.iter().zip(&keys).map(|(wanted, key)| text(wanted, &authority, key, configuration));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let files = missing.iter().zip(&texts).map(|(wanted, text)| NewFile {
        path: Path::new(wanted.path),
        content: text.expose_secret().as_bytes(),
        mode: 0o600,
    });
    cx.node.ensure_files(&files.collect::<Vec<_>>())?;
    let written = missing.iter().map(|Wanted { path, user, server, .. }| format!("`{path}`: `{user}` at {server}"));
    step.done(written.collect::<Vec<_>>().join("; "));
    Ok(())
}

/// One of the three.
struct Wanted {
    path: &'static str,
    user: &'static str,
    organization: Option<&'static str>,
    server: String,
}

fn wanted(configuration: &ControlPlaneConfiguration, local: &LocalNode) -> Result<[Wanted; 3], EndpointError> {
    let all = match &*configuration.control_plane_endpoint {
        "" => local.api_server(),
        endpoint => ControlPlaneEndpoint::parse(endpoint)?.url(),
    };
    // The two components talk to the API server beside them, so that each control plane stands by itself.
    let beside = |path, user| Wanted { path, user, organization: None, server: local.api_server() };
    Ok([
        Wanted {
            path: ADMIN_CONF,
            user: "kubernetes-admin",
            organization: Some("kubeadm:cluster-admins"),
            server: all,
        },
        beside(CONTROLLER_MANAGER_CONF, "system:kube-controller-manager"),
        beside(SCHEDULER_CONF, "system:kube-scheduler"),
    ])
}

fn leave_to_operator(wanted: &[Wanted], key: &Path, cx: &JoinContext) -> Result<(), KubeconfigsError> {
    for Wanted { path, .. } in wanted {
        let step = cx.reporter.step(PHASE, format!("write `{path}`"));
        if read(Path::new(path), &cx.node)?.is_none() {
            let message = format!(
                "`{path}` is not there and cannot be made, since `{}` is not either; the control plane needs it",
                key.display()
            );
            cx.reporter.warn(Some(PHASE), message);
        }
        step.skipped("the CA's key is not on this machine; it is yours to bring");
    }
    Ok(())
}

fn authority(
    key: &[u8],
    key_path: &Path,
    configuration: &ControlPlaneConfiguration,
    node: &Node,
) -> Result<Authority, KubeconfigsError> {
    let certificate_path = file(configuration, "ca.crt");
    let Some(pem) = read(&certificate_path, node)? else {
        return Err(KubeconfigsError::CaMissing { path: certificate_path });
    };
    let ca = CaCertificate::parse_pem(&pem);
    let ca = ca.map_err(|problem| KubeconfigsError::Ca { path: certificate_path, problem })?;
    let authority = match PrivateKey::parse_pem(key) {
        Some(key) => Authority::new(ca, key)?,
        None => None,
    };
    authority.ok_or_else(|| KubeconfigsError::CaKey { path: key_path.to_owned() })
}

/// As kubeadm: the current context's cluster trusts the CA by the first certificate it has; another server only warns.
fn check(text: &[u8], wanted: &Wanted, ca: &CaCertificate, cx: &JoinContext) -> Result<(), KubeconfigsError> {
    let path = wanted.path;
    let unusable = |source| KubeconfigsError::Unusable { path, source };
    let text = std::str::from_utf8(text).map_err(|_| unusable(KubeconfigError::Malformed { line: 0, column: 0 }))?;
    let kubeconfig = Kubeconfig::parse(text).map_err(unusable)?;
    let cluster = kubeconfig.current_cluster().map_err(unusable)?;
    let trusted = match cluster.ca_pem().map_err(unusable)? {
        Some(pem) => Some(pem.into_bytes()),
        None if cluster.certificate_authority.is_empty() => None,
        None => read(Path::new(&cluster.certificate_authority), &cx.node)?.map(|pem| pem.to_vec()),
    };
    // Go's reader of PEM wants the first line at the start of its own; kubeadm trims for it, too.
    let trusted = trusted.and_then(|pem| Certificate::parse_pem(pem.trim_ascii()).ok());
    if trusted.and_then(|all| all.into_iter().next()).is_none_or(|first| first.der != ca.certificate.der) {
        return Err(KubeconfigsError::OtherCa { path });
    }
    if cluster.server != wanted.server {
        let message =
            format!("`{path}` is there and names server `{}`, not `{}`", printable(&cluster.server), wanted.server);
        cx.reporter.warn(Some(PHASE), message);
    }
    Ok(())
}

fn text(
    wanted: &Wanted,
    authority: &Authority,
    key: &PrivateKey,
    configuration: &ControlPlaneConfiguration,
) -> Result<SecretString, KubeconfigsError> {
    let subject = Subject {
        common_name: wanted.user.to_owned(),
        organization: wanted.organization,
        usages: &[Usage::Client],
        names: Names::default(),
    };
    // kubeadm backdates these to the CA's own start, unlike the certificates in files.
    let validity = Validity {
        not_before: authority.ca.certificate.not_before,
        not_after: now_seconds().saturating_add(seconds(configuration.certificate_validity_period)),
    };
    let certificate = authority.issue(&subject, validity, key);
    let certificate = certificate.map_err(|source| KubeconfigsError::Issue { user: wanted.user, source })?;
    Ok(client_conf(&Client {
        ca_pem: &authority.ca.certificate.to_pem(),
        server: &wanted.server,
        cluster_name: &configuration.cluster_name,
        user_name: wanted.user,
        certificate_pem: &pem_block("CERTIFICATE", &certificate),
        key_pem: &key.to_pem()?,
    }))
}

/// Why the kubeconfigs are not in place.
#[derive(Debug, Error)]
pub enum KubeconfigsError {
    /// The cluster's configuration.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A key without its CA.
    #[error("the cluster's CA `{}` is not on this machine", .path.display())]
    CaMissing {
        /// Where it belongs.
        path: PathBuf,
    },
    /// The CA's certificate cannot be used.
    #[error("`{}` is no usable CA certificate: {problem}", .path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: CaProblem,
    },
    /// Nor can its key.
    #[error("`{}` is not the key of the CA beside it", .path.display())]
    CaKey {
        /// The file.
        path: PathBuf,
    },
    /// A file that is there cannot be read.
    #[error("`{path}` is there and cannot be used")]
    Unusable {
        /// The file.
        path: &'static str,
        /// Why.
        source: KubeconfigError,
    },
    /// It belongs to another cluster.
    #[error("`{path}` is there and does not trust the cluster's CA")]
    OtherCa {
        /// The file.
        path: &'static str,
    },
    /// The cryptographic library.
    #[error(transparent)]
    Library(#[from] KeyError),
    /// A certificate cannot be issued.
    #[error("cannot issue the certificate of user `{user}`")]
    Issue {
        /// Common name.
        user: &'static str,
        /// Why.
        source: IssueError,
    },
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl Diagnose for KubeconfigsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "control-plane-endpoint-unusable",
            Self::CaMissing { .. } => "certs-ca-missing",
            Self::Ca { .. } => "certs-ca-unusable",
            Self::CaKey { .. } => "certs-ca-other-key",
            Self::Unusable { .. } => "kubeconfig-unusable",
            Self::OtherCa { .. } => "kubeconfig-other-ca",
            Self::Library(_) => "certs-library",
            Self::Issue { .. } => "certs-issue",
            Self::Node(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Endpoint(_) | Self::Issue { source: IssueError::Time(_), .. } => {
                "`kubectl -n kube-system get configmap kubeadm-config -o yaml` shows the cluster's configuration".into()
            }
            Self::CaMissing { .. } | Self::Ca { .. } | Self::CaKey { .. } => SHARED_HINT.into(),
            Self::Unusable { path, .. } | Self::OtherCa { path } => {
                format!("`rm {path}` and run the same command again to have a new one")
            }
            Self::Node(error) => return error.hint(),
            Self::Library(_) | Self::Issue { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests;
