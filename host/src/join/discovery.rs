//! Discovery: who the cluster is, proved by what the operator gave, and as whom it is asked from then on.
//!
//! A source is asked again until `timeouts.discovery` when waiting may help, and never replaced by a weaker one. What a
//! server says before it is verified decides nothing but which error is told. The token itself leaves this machine only
//! over a connection that is verified by the CA which the token's signature or a pin proved.

use std::path::Path;

use secrecy::SecretString;

use super::{Access, BootstrapCredential, FileSecret, JoinContext, TrustedCluster, tls_bootstrap};
use crate::api::{ApiError, Identity, Server, Trust};
use crate::config::Discovery;
use crate::node::{Node, NodeError};
use crate::pki::Certificate;

mod cluster_info;
mod error;
mod file;
mod jws;
mod token;

pub use error::DiscoveryError;

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

#[cfg(test)]
pub(crate) use jws::sign as sign_for_tests;
#[cfg(test)]
mod tests;
