//! Why a control plane's certificates are not in place.

use std::path::PathBuf;

use thiserror::Error;

use super::authority::{CaProblem, IssueError};
use super::found::LeafProblem;
use super::key::KeyError;
use super::names::NamesError;
use crate::error::Diagnose;
use crate::node::NodeError;

/// What to run for the files that all control planes share.
pub(in crate::join::control_plane) const SHARED_HINT: &str = "`kubeadm init phase upload-certs --upload-certs` on a control-plane node uploads the shared files and prints a key; \
     join with it as `--certificate-key`, or copy the files from there";

/// Why they are not.
#[derive(Debug, Error)]
pub enum CertsError {
    /// The cluster's configuration.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// A CA is not on this machine at all. kubeadm would make a new one, with which nothing in the cluster works.
    #[error("of the cluster's CAs, this machine lacks {}", listed(.files))]
    CaMissing {
        /// Certificates of CAs.
        files: Vec<PathBuf>,
    },
    /// Neither is the key of service accounts, of which there must be one in a cluster.
    #[error("the cluster's service account key `{}` is not on this machine", .path.display())]
    ServiceAccount {
        /// Where it belongs.
        path: PathBuf,
    },
    /// A CA's certificate cannot be used.
    #[error("`{}` is no usable CA certificate: {problem}", .path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: CaProblem,
    },
    /// A CA's key lies alone.
    #[error("`{}` is there, but its certificate `{}` is not", .key.display(), .certificate.display())]
    KeyWithoutCa {
        /// Key file.
        key: PathBuf,
        /// Certificate file.
        certificate: PathBuf,
    },
    /// A CA's key is another's.
    #[error("`{}` is not the key of the CA in `{}`", .key.display(), .certificate.display())]
    KeyOfAnotherCa {
        /// Key file.
        key: PathBuf,
        /// Certificate file.
        certificate: PathBuf,
    },
    /// The CA's key is elsewhere, and so are certificates that it should have signed.
    #[error("the key of the CA in `{}` is not on this machine, so it cannot sign what is missing: {}", .ca.display(), listed(.files))]
    External {
        /// The CA's certificate.
        ca: PathBuf,
        /// Certificates that are missing.
        files: Vec<PathBuf>,
    },
    /// Certificate without key, or key without certificate.
    #[error("`{}` is there, but `{}` is not", .there.display(), .missing.display())]
    Half {
        /// A file.
        there: PathBuf,
        /// The file that belongs to it.
        missing: PathBuf,
    },
    /// A key cannot be read.
    #[error("`{}` holds no RSA or ECDSA key that can be used", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that is there cannot be used.
    #[error("`{}` is there and cannot be used: {problem}", .certificate.display())]
    Leaf {
        /// Certificate file.
        certificate: PathBuf,
        /// Key file.
        key: PathBuf,
        /// Why.
        problem: LeafProblem,
    },
    /// The cryptographic library.
    #[error(transparent)]
    Library(#[from] KeyError),
    /// A certificate cannot be issued.
    #[error("cannot issue certificate `{name}`")]
    Issue {
        /// As in kubeadm's list.
        name: String,
        /// Why.
        source: IssueError,
    },
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
}

fn listed(files: &[PathBuf]) -> String {
    files.iter().map(|file| format!("`{}`", file.display())).collect::<Vec<_>>().join(", ")
}

impl Diagnose for CertsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Names(_) => "certs-names",
            Self::CaMissing { .. } => "certs-ca-missing",
            Self::ServiceAccount { .. } => "certs-service-account-missing",
            Self::Ca { .. } => "certs-ca-unusable",
            Self::KeyWithoutCa { .. } => "certs-ca-without-certificate",
            Self::KeyOfAnotherCa { .. } => "certs-ca-other-key",
            Self::External { .. } => "certs-external-missing",
            Self::Half { .. } => "certs-half",
            Self::Key { .. } => "certs-key-unusable",
            Self::Leaf { problem, .. } => match problem {
                LeafProblem::Time { .. } => "certs-expired",
                LeafProblem::Names(_) => "certs-other-names",
                LeafProblem::Foreign { .. } => "certs-foreign",
                LeafProblem::Unreadable(_) | LeafProblem::Key => "certs-unusable",
            },
            Self::Library(_) => "certs-library",
            Self::Issue { .. } => "certs-issue",
            Self::Node(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Names(_) | Self::Issue { source: IssueError::Time(_), .. } => {
                "`kubectl -n kube-system get configmap kubeadm-config -o yaml` shows the cluster's configuration".into()
            }
            Self::CaMissing { .. }
            | Self::ServiceAccount { .. }
            | Self::Ca { .. }
            | Self::KeyWithoutCa { .. }
            | Self::KeyOfAnotherCa { .. } => SHARED_HINT.into(),
            Self::External { .. } => {
                "have the owner of the CA sign them (`kubeadm certs generate-csr` makes requests), or copy the CA's key"
                    .into()
            }
            Self::Half { there: file, .. } | Self::Key { path: file } => format!(
                "put the right file beside it, or `rm {}` and run the same command again to have a new pair",
                file.display()
            ),
            Self::Leaf { certificate, key, .. } => format!(
                "`openssl x509 -noout -text -in {0}` shows it; `rm {0} {1}` and run the same command again to have a new \
                 pair",
                certificate.display(),
                key.display()
            ),
            Self::Node(error) => return error.hint(),
            Self::Library(_) | Self::Issue { .. } => return None,
        })
    }
}
