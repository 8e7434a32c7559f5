//! The ordered list of phases, what passes between them, and the loop that runs it.

use crate::config::JoinSettings;
use crate::node::Node;
use crate::output::Reporter;
use crate::token::BootstrapToken;
use secrecy::SecretString;
use std::sync::Arc;

mod ahead;
pub mod cluster_configuration;
pub mod cluster_paths;
pub mod control_plane;
pub mod discovery;
pub mod etcd_join;
pub mod kubelet_config;
pub mod kubelet_start;
pub mod kubelet_wait;
pub mod node_lookup;
pub mod run;
pub mod tls_bootstrap;

/// A cluster whose identity was established. Only discovery makes one.
///
/// It holds nothing secret: `/var/lib/mortise/cluster.json` is its serialized form, for phases run alone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustedCluster {
    /// `https://host:port` as found inside cluster-info or the discovery file.
    pub server: String,
    /// CA certificates, PEM, exactly the bytes found.
    pub ca_pem: String,
    /// Optional name the server's certificate is checked against instead of the host (`tls-server-name`).
    pub tls_server_name: Option<String>,
    /// How trust was established, a few words for people: `token abcdef, pin sha256:…`.
    pub established_by: String,
}

/// Who the host is towards the cluster until the node has a certificate.
#[derive(Clone)]
pub enum BootstrapCredential {
    /// User `system:bootstrap:<id>`.
    Token(BootstrapToken),
    /// The user of a discovery file.
    File(FileCredential),
}

/// Credentials of a discovery file's user, files read and embedded.
#[derive(Clone)]
pub struct FileCredential {
    /// Context and user names, kept in `bootstrap-kubelet.conf`.
    pub context_name: String,
    /// As above.
    pub user_name: String,
    /// What the user presents.
    pub secret: FileSecret,
}

/// What a discovery file's user presents.
#[derive(Clone)]
pub enum FileSecret {
    /// Bearer token, trimmed.
    Bearer(SecretString),
    /// Client certificate and key, PEM.
    Certificate {
        /// Public.
        certificate_pem: String,
        /// Secret.
        key_pem: SecretString,
    },
    /// User name and password.
    Basic {
        /// Public.
        username: String,
        /// Secret.
        password: SecretString,
    },
}

/// A trusted cluster with the credential to ask it.
#[derive(Clone)]
pub struct Access {
    /// Whom to ask.
    pub cluster: TrustedCluster,
    /// As whom. None: file discovery without credentials and without a TLS bootstrap token, which only a node that has
    /// its kubelet credentials already can use.
    pub credential: Option<BootstrapCredential>,
    /// Shared connections to it; see `join::discovery`.
    pub(crate) connection: discovery::Connection,
}

/// What a join reads from the cluster's ConfigMaps. Paths are checked: see `join::cluster_paths`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfiguration {
    /// `clusterName`, default `kubernetes`.
    pub cluster_name: String,
    /// `kubernetesVersion`, for example `v1.37.2`.
    pub kubernetes_version: String,
    /// `certificatesDir`, default `/etc/kubernetes/pki`.
    pub certificates_dir: String,
    /// kubeadm's ClusterConfiguration as stored, for what only control planes follow.
    pub kubeadm: serde_json::Value,
    /// The KubeletConfiguration as stored, unknown keys kept, kubeadm's defaults filled in.
    pub kubelet: serde_json::Value,
}

/// The kubelet's client certificate is in place. Only TLS bootstrap makes one.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// `system:node:<name>` without the prefix.
    pub node_name: String,
    /// Name of the request that was answered; none: credentials were there already.
    pub csr_name: Option<String>,
}

/// What every phase may use.
#[derive(Clone)]
pub struct JoinContext {
    /// What was asked for.
    pub settings: Arc<JoinSettings>,
    /// The machine.
    pub node: Node,
    /// Where to tell.
    pub reporter: Reporter,
    /// How to reach API servers.
    pub dialer: crate::api::Dialer,
}
