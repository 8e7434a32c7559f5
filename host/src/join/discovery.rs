//! Discovery: who the cluster is, proved by what the operator gave, and as whom it is asked from then on.
//!
//! A source is asked again until `timeouts.discovery` when waiting may help, and never replaced by a weaker one. What a
//! server says before it is verified decides nothing but which error is told. The token itself leaves this machine only
//! over a connection that is verified by the CA which the token's signature or a pin proved.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use thiserror::Error;

use super::{Access, BootstrapCredential, FileSecret, JoinContext, TrustedCluster, tls_bootstrap};
use crate::api::{ApiError, Identity, Server, Trust};
use crate::config::Discovery;
use crate::error::{Diagnose, ExitCode};
use crate::kubeconfig::KubeconfigError;
use crate::node::{Node, NodeError};
use crate::pki::{Certificate, Pin};

mod cluster_info;
mod file;
mod jws;
mod token;

/// Phase id of what is told.
const PHASE: &str = "discovery";
/// Where the trusted cluster is left for a later run.
const CLUSTER_FILE: &str = "/var/lib/mortise/cluster.json";
const CLUSTER_FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Finds the cluster, proves it, and chooses the credential.
///
/// # Errors
///
/// Any [`DiscoveryError`]; the machine is as it was.
pub async fn discover(cx: &JoinContext) -> Result<Access, DiscoveryError> {
    let (found, from_file) = match &cx.settings.discovery {
        Discovery::Token(settings) => (token::discover(settings, cx).await?, None),
        Discovery::File { path } => file::discover(path, cx).await?,
        Discovery::Https { url } => return Err(DiscoveryError::Https { url: url.clone() }),
        Discovery::Recorded => (recorded(cx)?, None),
    };
    let credential = match &cx.settings.tls_bootstrap_token {
        Some(token) => Some(BootstrapCredential::Token(token.clone())),
        None => from_file.map(BootstrapCredential::File),
    };
    let identity = match (&credential, found.resumed) {
        (Some(credential), false) => identity_of(credential),
        // The token may be gone; the node's own certificate is what remains.
        _ => {
            tls_bootstrap::existing_identity(cx)
                .map_err(|error| DiscoveryError::Identity(Box::new(error)))?
                .ok_or(DiscoveryError::NoCredential)?
                .client
        }
    };
    let connection = Connection::new(found.server, &identity)?;
    Ok(Access { cluster: found.cluster, credential, connection })
}

/// Leaves the trusted cluster in `/var/lib/mortise/cluster.json`, so that a run after a crash needs no token any more.
///
/// # Errors
///
/// [`NodeError`].
pub fn remember(cluster: &TrustedCluster, node: &Node) -> Result<(), NodeError> {
    let text = serde_json::to_vec_pretty(cluster).expect("a cluster is strings");
    node.ensure_file(Path::new(CLUSTER_FILE), &text, 0o600)?;
    Ok(())
}

/// The cluster that an earlier run of this join trusted, if the journal says that it left it.
fn recall(node: &Node) -> Result<Option<TrustedCluster>, NodeError> {
    let path = Path::new(CLUSTER_FILE);
    if !node.journal().owns(path) {
        return Ok(None);
    }
    let content = node.read(path, CLUSTER_FILE_LIMIT_BYTES)?;
    Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
}

/// The cluster of an earlier discovery, for a phase run alone.
fn recorded(cx: &JoinContext) -> Result<Found, DiscoveryError> {
    let cluster = recall(&cx.node)?.ok_or(DiscoveryError::NoRecord)?;
    let server = Server::new(cx.dialer.clone(), &cluster.server, cluster.trust())
        .map_err(|source| DiscoveryError::Server { source })?;
    Ok(Found { cluster, server, resumed: cx.settings.tls_bootstrap_token.is_none() })
}

fn identity_of(credential: &BootstrapCredential) -> Identity {
    match credential {
        BootstrapCredential::Token(token) => Identity::Bearer(token.expose_bearer().into()),
        BootstrapCredential::File(file) => identity_of_secret(&file.secret),
    }
}

fn identity_of_secret(secret: &FileSecret) -> Identity {
    match secret {
        FileSecret::Bearer(token) => Identity::Bearer(token.clone()),
        FileSecret::Basic { username, password } => {
            Identity::Basic { username: username.clone(), password: password.clone() }
        }
        FileSecret::Certificate { certificate_pem, key_pem } => {
            Identity::Certificate { certificate_pem: certificate_pem.clone(), key_pem: key_pem.clone() }
        }
    }
}

/// What a source yields.
struct Found {
    cluster: TrustedCluster,
    server: Server,
    /// Taken from an earlier run because the token is gone.
    resumed: bool,
}

/// Connections to the trusted cluster. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection {
    server: Server,
    client: kube::Client,
}

impl Connection {
    fn new(server: Server, identity: &Identity) -> Result<Self, DiscoveryError> {
        let client = server.client(identity).map_err(|source| DiscoveryError::Credential { source })?;
        Ok(Self { server, client })
    }
}

impl Access {
    /// An access to a cluster that is trusted already.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError::Server`], [`DiscoveryError::Credential`].
    pub fn new(
        dialer: crate::api::Dialer,
        cluster: TrustedCluster,
        credential: Option<BootstrapCredential>,
    ) -> Result<Self, DiscoveryError> {
        let server = Server::new(dialer, &cluster.server, cluster.trust())
            .map_err(|source| DiscoveryError::Server { source })?;
        let identity = credential.as_ref().map_or(Identity::Anonymous, identity_of);
        let connection = Connection::new(server, &identity)?;
        Ok(Self { cluster, credential, connection })
    }

    /// Asks the cluster with the bootstrap credential.
    pub fn client(&self) -> &kube::Client {
        &self.connection.client
    }

    /// Asks the cluster as the node, with the kubelet's own certificate, on a connection of its own.
    ///
    /// # Errors
    ///
    /// [`ApiError::ClientCertificate`].
    pub fn as_node(&self, certificate_pem: String, key_pem: SecretString) -> Result<kube::Client, ApiError> {
        self.connection.server.client(&Identity::Certificate { certificate_pem, key_pem })
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("cluster", &self.cluster)
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BootstrapCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(token) => write!(f, "{token:?}"),
            Self::File(file) => write!(f, "FileCredential({})", file.user_name),
        }
    }
}

impl TrustedCluster {
    /// How its server is verified.
    pub fn trust(&self) -> Trust {
        Trust::Ca { pem: self.ca_pem.clone(), server_name: self.tls_server_name.clone() }
    }
}

/// Checks what a verified or signed kubeconfig says of the cluster.
fn trusted_cluster(
    cluster: &crate::kubeconfig::Cluster,
    ca_pem: String,
    established_by: String,
) -> Result<TrustedCluster, DiscoveryError> {
    Certificate::parse_pem(ca_pem.as_bytes()).map_err(|error| DiscoveryError::Ca { reason: error.to_string() })?;
    Server::check_url(&cluster.server).map_err(|source| DiscoveryError::Server { source })?;
    let tls_server_name = Some(cluster.tls_server_name.clone()).filter(|name| !name.is_empty());
    Ok(TrustedCluster { server: cluster.server.clone(), ca_pem, tls_server_name, established_by })
}

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
    /// The verified server says something else.
    #[error("`{endpoint}` answers differently when its certificate is checked: something answered in its place")]
    Changed {
        /// `host:port`.
        endpoint: String,
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
            Self::Changed { .. } => "discovery-changed",
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
            Self::Unanswered { source, .. } | Self::Credential { source } => return source.hint(),
            Self::Server { .. } => {
                "look at `server` and `certificate-authority-data` in ConfigMap `kube-public/cluster-info` or the \
                 discovery file"
                    .into()
            }
            Self::PublicAccessClosed { .. } => {
                "copy a kubeconfig with a credential from a control-plane node and use it with `--discovery-file`"
                    .into()
            }
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
            Self::Changed { .. } => {
                "find out who answers between this machine and the API server before joining".into()
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
    fn may_pass(&self) -> bool {
        match self {
            Self::Unanswered { source, .. } => source.may_pass(),
            Self::PublicAccessClosed { .. } | Self::NoClusterInfo { .. } | Self::NoSignature { .. } => true,
            _ => false,
        }
    }
}

#[cfg(test)]
pub(crate) use jws::sign as sign_for_tests;
#[cfg(test)]
mod tests;
