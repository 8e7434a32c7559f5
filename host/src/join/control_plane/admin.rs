//! The cluster's administrator, whose credential `admin.conf` holds: who marks the Node and asks the new API server.

use thiserror::Error;

use crate::api::{ApiError, Identity, Server};
use crate::error::Diagnose;
use crate::join::tls_bootstrap::ExistingIdentity;
use crate::join::{JoinContext, TrustedCluster};
use crate::node::NodeError;

/// The file, as `control-plane-prepare/kubeconfig` writes it.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";

/// Who asks, and which cluster.
pub struct Admin {
    cluster: TrustedCluster,
    identity: Identity,
}

impl Admin {
    /// From `admin.conf`.
    ///
    /// # Errors
    ///
    /// [`AdminError::Missing`], [`AdminError::Node`].
    pub fn load(cx: &JoinContext) -> Result<Self, AdminError> {
        let found = ExistingIdentity::in_file(ADMIN_CONF, &cx.node)?.ok_or(AdminError::Missing)?;
        let cluster = found.cluster.ok_or(AdminError::Missing)?;
        Ok(Self { cluster, identity: found.client })
    }

    /// A client of the endpoint that all control planes have in common.
    ///
    /// # Errors
    ///
    /// [`AdminError::Client`].
    pub fn client(&self, cx: &JoinContext) -> Result<kube::Client, AdminError> {
        self.client_of(&self.cluster.server, cx)
    }

    /// A client of one API server of this cluster, verified by the same CA.
    ///
    /// # Errors
    ///
    /// [`AdminError::Client`].
    pub fn client_of(&self, server: &str, cx: &JoinContext) -> Result<kube::Client, AdminError> {
        let server = Server::new(cx.dialer.clone(), server, self.cluster.trust()).map_err(AdminError::Client)?;
        server.client(&self.identity).map_err(AdminError::Client)
    }

    /// URL of the endpoint that all control planes have in common.
    pub fn server(&self) -> &str {
        &self.cluster.server
    }
}

/// Why nobody can ask as administrator.
#[derive(Debug, Error)]
pub enum AdminError {
    /// Not there, or not to be used.
    #[error("`{ADMIN_CONF}` is missing, or holds no valid client certificate with its cluster")]
    Missing,
    /// Its content cannot be presented.
    #[error("`{ADMIN_CONF}` cannot be used")]
    Client(#[source] ApiError),
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl Diagnose for AdminError {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing => "admin-conf-missing",
            Self::Client(_) => "admin-conf-unusable",
            Self::Node(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing | Self::Client(_) => Some(
                "`mortise join phase control-plane-prepare kubeconfig --control-plane …` writes it, where `ca.key` is on \
                 this machine; with an external CA put it there yourself"
                    .into(),
            ),
            Self::Node(error) => error.hint(),
        }
    }
}
