//! Why the cluster is not known, or not to be trusted.

use std::path::PathBuf;

use thiserror::Error;

use super::CLUSTER_FILE;
use crate::api::{ApiError, TlsProblem};
use crate::error::{Diagnose, ExitCode};
use crate::join::tls_bootstrap;
use crate::kubeconfig::KubeconfigError;
use crate::node::NodeError;
use crate::pki::Pin;

/// What an API server lacks that runs and does not do anything, and what brings it back. With two voters of etcd the loss of
/// one is that of the quorum.
const WITHOUT_ETCD: &str = "If etcd has no quorum, start the control planes that are down; where one of two is gone for \
                            good, add `--force-new-cluster` to /etc/kubernetes/manifests/etcd.yaml of the other one, and \
                            take it out again when etcd is up";

/// Why the cluster is not known, or not to be trusted.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// The endpoint gives no answer.
    #[error("cannot read ConfigMap `kube-public/cluster-info` from `{endpoint}`")]
    Unanswered {
        /// `host:port`, or URL.
        endpoint: String,
        /// The cause.
        source: ApiError,
    },
    /// 401 or 403 to an anonymous request.
    #[error("`{endpoint}` answered {code}: public access to ConfigMap `kube-public/cluster-info` is closed")]
    PublicAccessClosed {
        /// `host:port`.
        endpoint: String,
        /// 401 or 403.
        code: u16,
    },
    /// 404.
    #[error("`{endpoint}` has no ConfigMap `kube-public/cluster-info`")]
    NoClusterInfo {
        /// `host:port`.
        endpoint: String,
    },
    /// Larger than any cluster-info.
    #[error(
        "the answer of `{endpoint}` is larger than {limit} bytes, so it is no ConfigMap `kube-public/cluster-info`"
    )]
    TooLarge {
        /// `host:port`.
        endpoint: String,
        /// In bytes.
        limit: u64,
    },
    /// Another service answers.
    #[error("the answer of `{endpoint}` is no ConfigMap `kube-public/cluster-info`: {reason}")]
    NotClusterInfo {
        /// `host:port`.
        endpoint: String,
        /// What it lacks.
        reason: String,
    },
    /// The token id is unknown there.
    #[error("ConfigMap `kube-public/cluster-info` has no signature for token id `{id}`")]
    NoSignature {
        /// Token id.
        id: String,
    },
    /// The signature is another one.
    #[error("the signature of ConfigMap `kube-public/cluster-info` for token id `{id}` does not match: {}", blame(.ca_is_pinned))]
    BadSignature {
        /// Token id.
        id: String,
        /// Whether the CA in it has a pin that the operator gave.
        ca_is_pinned: bool,
    },
    /// A signature that is not HS256.
    #[error("the signature of ConfigMap `kube-public/cluster-info` uses algorithm `{algorithm}`, not `HS256`")]
    SignatureAlgorithm {
        /// Printable.
        algorithm: String,
    },
    /// No detached JWS.
    #[error("the signature of ConfigMap `kube-public/cluster-info` for token id `{id}` is malformed")]
    SignatureMalformed {
        /// Token id.
        id: String,
    },
    /// The kubeconfig in it.
    #[error("the kubeconfig in ConfigMap `kube-public/cluster-info` is unusable")]
    Kubeconfig {
        /// The cause.
        source: KubeconfigError,
    },
    /// The CA certificates.
    #[error("the cluster's CA certificates are unusable: {reason}")]
    Ca {
        /// Why.
        reason: String,
    },
    /// None of the CAs has a given pin.
    #[error("none of the cluster's CA certificates has a pin that was given; found {}", list(.found))]
    PinMismatch {
        /// Pins of the CAs found.
        found: Vec<Pin>,
    },
    /// The server inside cluster-info or the file.
    #[error("the API server named there is unusable")]
    Server {
        /// The cause.
        source: ApiError,
    },
    /// The credential cannot be presented.
    #[error("the credential cannot be used")]
    Credential {
        /// The cause.
        source: ApiError,
    },
    /// 401 to the discovery file's user.
    #[error("`{endpoint}` does not accept the discovery file's credential")]
    CredentialRefused {
        /// `host:port`.
        endpoint: String,
    },
    /// A file named by the discovery file, or itself.
    #[error("cannot read `{path}`")]
    FileRead {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The discovery file's content.
    #[error("discovery file `{path}` is unusable")]
    File {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: KubeconfigError,
    },
    /// The discovery file does not say whom to trust.
    #[error("discovery file `{path}` has no CA certificate")]
    FileWithoutCa {
        /// As given.
        path: PathBuf,
    },
    /// The discovery file wants no verification.
    #[error("discovery file `{path}` has `insecure-skip-tls-verify: true`")]
    FileInsecure {
        /// As given.
        path: PathBuf,
    },
    /// The discovery file's user is made by a program.
    #[error("the user of discovery file `{path}` has `{kind}`, which the host does not run")]
    NeedsPlugin {
        /// As given.
        path: PathBuf,
        /// `exec` or `auth-provider`.
        kind: &'static str,
    },
    /// Nobody to ask as.
    #[error("there is no credential for TLS bootstrap")]
    NoCredential,
    /// A phase alone, without discovery before it.
    #[error("no discovery flag was given, and no earlier discovery left `{CLUSTER_FILE}`")]
    NoRecord,
    /// A discovery file behind a URL.
    #[error("the discovery file is a URL, `{url}`: only files of this machine are read")]
    Https {
        /// As given.
        url: String,
    },
    /// The kubelet's credentials that are in place.
    #[error(transparent)]
    Identity(Box<tls_bootstrap::TlsBootstrapError>),
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
}

fn blame(ca_is_pinned: &bool) -> &'static str {
    if *ca_is_pinned {
        "its CA has a given pin, so the token's secret is wrong"
    } else {
        "the token's secret is wrong, or the data was changed"
    }
}

fn list(pins: &[Pin]) -> String {
    pins.iter().map(|pin| format!("`{pin}`")).collect::<Vec<_>>().join(", ")
}

/// Makes a new token and prints the whole line.
const NEW_TOKEN: &str = "`kubeadm token create --print-join-command` on a control-plane node";

/// Whether nobody is there, or somebody who can do nothing.
fn is_down(error: &ApiError) -> bool {
    match error {
        ApiError::Refused { .. } | ApiError::Timeout { .. } | ApiError::Connect { .. } | ApiError::Broken { .. } => {
            true
        }
        ApiError::Tls { problem, .. } => *problem == TlsProblem::Closed,
        error => error.status().is_some_and(|code| code >= 500),
    }
}

fn no_answer_hint(endpoint: &str) -> String {
    let endpoint = endpoint.strip_prefix("https://").unwrap_or(endpoint);
    format!(
        "`curl -k https://{endpoint}/readyz?verbose` shows whether the API server runs, and what it lacks; look at the \
         address and firewalls if nobody answers. {WITHOUT_ETCD}"
    )
}

impl Diagnose for DiscoveryError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unanswered { source, .. } => source.code(),
            Self::PublicAccessClosed { .. } => "discovery-public-access-closed",
            Self::NoClusterInfo { .. } => "discovery-no-cluster-info",
            Self::TooLarge { .. } => "discovery-too-large",
            Self::NotClusterInfo { .. } => "discovery-not-cluster-info",
            Self::NoSignature { .. } => "discovery-no-signature",
            Self::BadSignature { .. } => "discovery-bad-signature",
            Self::SignatureAlgorithm { .. } => "discovery-signature-algorithm",
            Self::SignatureMalformed { .. } => "discovery-signature-malformed",
            Self::Kubeconfig { .. } => "discovery-kubeconfig",
            Self::Ca { .. } => "discovery-ca",
            Self::PinMismatch { .. } => "discovery-pin-mismatch",
            Self::Server { .. } => "discovery-server",
            Self::Credential { .. } => "discovery-credential",
            Self::CredentialRefused { .. } => "discovery-credential-refused",
            Self::FileRead { .. } => "discovery-file-read",
            Self::File { .. } => "discovery-file",
            Self::FileWithoutCa { .. } => "discovery-file-no-ca",
            Self::FileInsecure { .. } => "discovery-file-insecure",
            Self::NeedsPlugin { .. } => "discovery-file-needs-plugin",
            Self::NoCredential => "discovery-no-credential",
            Self::NoRecord => "discovery-no-record",
            Self::Https { .. } => "discovery-https-not-built",
            Self::Identity(error) => error.code(),
            Self::Node(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unanswered { endpoint, source } if is_down(source) => no_answer_hint(endpoint),
            Self::Unanswered { source, .. } | Self::Credential { source } => return source.hint(),
            Self::Server { .. } => {
                "look at `server` and `certificate-authority-data` in ConfigMap `kube-public/cluster-info` or the \
                 discovery file"
                    .into()
            }
            // An API server that was started without etcd knows no rule yet, and refuses everybody.
            Self::PublicAccessClosed { endpoint, .. } => format!(
                "copy a kubeconfig with a credential from a control-plane node and use it with `--discovery-file`. \
                 {WITHOUT_ETCD}, which `curl -k https://{endpoint}/readyz?verbose` tells"
            ),
            Self::NoClusterInfo { endpoint } => format!(
                "`{endpoint}` may be the API server of a cluster that kubeadm did not make, or `kubeadm init` is not done; a \
                 kubeconfig works with `--discovery-file`"
            ),
            Self::TooLarge { endpoint, .. } | Self::NotClusterInfo { endpoint, .. } => {
                format!("`curl -k https://{endpoint}/version` shows who answers there")
            }
            Self::NoSignature { .. } => format!("the token may have expired; create one with {NEW_TOKEN}"),
            Self::BadSignature { .. } => {
                format!("copy the whole join command again, or make a new one with {NEW_TOKEN}")
            }
            Self::PinMismatch { .. } => format!(
                "compare with the line that {NEW_TOKEN} prints; if the pins found are not its, another cluster or an \
                 attacker answers"
            ),
            Self::SignatureAlgorithm { .. }
            | Self::SignatureMalformed { .. }
            | Self::Kubeconfig { .. }
            | Self::Ca { .. } => {
                "`kubectl -n kube-public get configmap cluster-info -o yaml` on a control-plane node shows it".into()
            }
            Self::FileWithoutCa { .. } | Self::FileInsecure { .. } => {
                "add `certificate-authority-data` of the cluster, for example from `/etc/kubernetes/kubelet.conf` of \
                 another node"
                    .into()
            }
            Self::NeedsPlugin { .. } => {
                "exec discovery comes as a plugin; use a file with a token or a client certificate, or add \
                 `--tls-bootstrap-token`"
                    .into()
            }
            Self::NoRecord => "give the flags of `mortise join`, or run `mortise join phase discovery` first".into(),
            Self::NoCredential => {
                "add `--tls-bootstrap-token`, or use a discovery file whose user has a token or a client certificate"
                    .into()
            }
            Self::Https { url } => format!("`curl -fo discovery.conf {url}`, then `--discovery-file discovery.conf`"),
            Self::CredentialRefused { .. } => {
                "its token or certificate may have expired; put a current one into the discovery file".into()
            }
            Self::FileRead { .. } | Self::File { .. } => return None,
            Self::Identity(error) => return error.hint(),
            Self::Node(error) => return error.hint(),
        })
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Https { .. }
            | Self::FileRead { .. }
            | Self::File { .. }
            | Self::FileWithoutCa { .. }
            | Self::FileInsecure { .. }
            | Self::NeedsPlugin { .. }
            | Self::NoCredential
            | Self::NoRecord => ExitCode::Usage,
            _ => ExitCode::Failed,
        }
    }
}

impl DiscoveryError {
    /// Whether waiting may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unanswered { source, .. } => source.may_pass(),
            Self::PublicAccessClosed { .. } | Self::NoClusterInfo { .. } | Self::NoSignature { .. } => true,
            _ => false,
        }
    }
}
