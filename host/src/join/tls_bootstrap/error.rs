//! Why the kubelet has no client certificate.

use thiserror::Error;

use crate::api::ApiError;
use crate::error::Diagnose;
use crate::journal::JournalError;
use crate::node::NodeError;
use crate::pki::PkiError;

/// Why the kubelet has no client certificate.
#[derive(Debug, Error)]
pub enum TlsBootstrapError {
    /// The key or the request.
    #[error("cannot make key and certificate request")]
    Key(#[from] PkiError),
    /// The request was not stored.
    #[error("cannot create CertificateSigningRequest `{csr}`")]
    Create {
        /// Its name.
        csr: String,
        /// The cause.
        source: ApiError,
    },
    /// An older request of the same name cannot be read.
    #[error("CertificateSigningRequest `{csr}` exists and cannot be read")]
    Adopt {
        /// Its name.
        csr: String,
        /// The cause.
        source: ApiError,
    },
    /// An older request of the same name is not ours.
    #[error("CertificateSigningRequest `{csr}` exists and {difference}")]
    NotOurs {
        /// Its name.
        csr: String,
        /// What is different.
        difference: &'static str,
    },
    /// Somebody said no.
    #[error("CertificateSigningRequest `{csr}` was denied ({reason}): {message}")]
    Denied {
        /// Its name.
        csr: String,
        /// Printable.
        reason: String,
        /// Printable.
        message: String,
    },
    /// The signer could not.
    #[error("CertificateSigningRequest `{csr}` failed ({reason}): {message}")]
    Failed {
        /// Its name.
        csr: String,
        /// Printable.
        reason: String,
        /// Printable.
        message: String,
    },
    /// It was removed while it was waited for.
    #[error("CertificateSigningRequest `{csr}` was deleted")]
    Deleted {
        /// Its name.
        csr: String,
    },
    /// No answer in time.
    #[error("CertificateSigningRequest `{csr}` has no certificate after {seconds} s; last seen: {last}")]
    TimedOut {
        /// Its name.
        csr: String,
        /// The limit.
        seconds: u64,
        /// Its last state.
        last: String,
        /// Whether it waits for approval.
        pending: bool,
    },
    /// The certificate is not what was asked for.
    #[error("the certificate issued for CertificateSigningRequest `{csr}` {reason}")]
    Issued {
        /// Its name.
        csr: String,
        /// What is wrong.
        reason: String,
    },
    /// Credentials of another node are in place.
    #[error("`/etc/kubernetes/kubelet.conf` has a certificate for `{found}`, not for `system:node:{wanted}`")]
    OtherNode {
        /// User name in the certificate.
        found: String,
        /// Node name.
        wanted: String,
    },
    /// The Node did not come.
    #[error("Node `{name}` is not {wanted} after {seconds} s; last seen: {last}")]
    NodeTimedOut {
        /// Node name.
        name: String,
        /// `registered` or `Ready`.
        wanted: &'static str,
        /// The limit.
        seconds: u64,
        /// Its last state.
        last: String,
    },
    /// The node's own credentials cannot be used.
    #[error("the kubelet's client certificate cannot be used")]
    Client(#[source] ApiError),
    /// There are none.
    #[error("the kubelet has no client certificate yet")]
    NoIdentity,
    /// The machine.
    #[error(transparent)]
    Machine(#[from] NodeError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Diagnose for TlsBootstrapError {
    fn code(&self) -> &'static str {
        match self {
            Self::Key(_) => "tls-bootstrap-key",
            Self::Create { source, .. } | Self::Adopt { source, .. } => match source.status() {
                Some(401) => "tls-bootstrap-unauthorized",
                Some(403) => "tls-bootstrap-forbidden",
                _ => source.code(),
            },
            Self::NotOurs { .. } => "tls-bootstrap-csr-not-ours",
            Self::Denied { .. } => "tls-bootstrap-csr-denied",
            Self::Failed { .. } => "tls-bootstrap-csr-failed",
            Self::Deleted { .. } => "tls-bootstrap-csr-deleted",
            Self::TimedOut { pending: true, .. } => "tls-bootstrap-csr-pending",
            Self::TimedOut { pending: false, .. } => "tls-bootstrap-csr-not-issued",
            Self::Issued { .. } => "tls-bootstrap-certificate",
            Self::OtherNode { .. } => "tls-bootstrap-other-node",
            Self::NodeTimedOut { .. } => "node-wait-timeout",
            Self::Client(_) => "tls-bootstrap-client-certificate",
            Self::NoIdentity => "tls-bootstrap-no-identity",
            Self::Machine(error) => error.code(),
            Self::Journal(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Create { source, .. } | Self::Adopt { source, .. } => match source.status() {
                Some(401) => {
                    "the token may have expired; create one with `kubeadm token create`, then run again".into()
                }
                Some(403) => "the credential must be bound to ClusterRole `system:node-bootstrapper`".into(),
                _ => return source.hint(),
            },
            Self::NotOurs { csr, .. } => {
                format!("look at it with `kubectl get csr {csr} -o yaml`; delete it and run again")
            }
            Self::Denied { csr, .. } | Self::Failed { csr, .. } => {
                format!("`kubectl describe csr {csr}` shows who decided; then `kubectl delete csr {csr}` and run again")
            }
            Self::Deleted { .. } => "run again: the same key asks anew".into(),
            Self::TimedOut { csr, pending: true, .. } => format!("`kubectl certificate approve {csr}`, then run again"),
            Self::TimedOut { .. } => {
                "the signer of kube-controller-manager may not run: `kubectl -n kube-system get pods`".into()
            }
            Self::Issued { .. } => {
                "compare the clocks, and `--cluster-signing-cert-file` of kube-controller-manager".into()
            }
            Self::OtherNode { .. } => "use that name with `--node-name`, or `mortise reset` first".into(),
            Self::NodeTimedOut { name, .. } => {
                format!("`kubectl describe node {name}` and `journalctl -u kubelet -n 50` show why")
            }
            Self::Client(error) => return error.hint(),
            Self::Machine(error) => return error.hint(),
            Self::Journal(error) => return error.hint(),
            Self::Key(_) | Self::NoIdentity => return None,
        })
    }
}
