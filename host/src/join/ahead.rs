//! What a join reads from the cluster while the checks of its machine run.

use std::pin::pin;

use futures::future::{Either, join3, select};
use k8s_openapi::api::core::v1::Node as ApiNode;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::control_plane::skew;
use super::{Access, ClusterConfiguration, JoinContext, cluster_configuration, discovery, node_lookup};
use crate::error::Failure;
use crate::output::Reporter;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// What discovery and the cluster's ConfigMaps say.
    Cluster,
    /// The Node of this machine's name, too.
    WithNode,
}

/// What was read.
pub(super) struct Found {
    pub(super) access: Access,
    pub(super) cluster: ClusterConfiguration,
    /// None: it was not asked for, or could not be read, which is told by whoever needs it and asks again.
    pub(super) node: Option<Option<ApiNode>>,
    /// Of the API server, as [`skew::server_version`]; none: no control plane joins, or as above.
    pub(super) server_version: Option<String>,
}

/// Reading under way, on a thread of its own: starting a plugin's runner keeps this one busy for some milliseconds, which
/// the first packets need not wait for. Dropped, it ends.
pub(super) struct Ahead {
    reporter: Reporter,
    reading: JoinHandle<Option<Result<Found, Failure>>>,
    /// Its end is the other's.
    _wanted: oneshot::Sender<()>,
}

impl Ahead {
    /// Begins.
    pub(super) fn begin(reads: Reads, cx: &JoinContext) -> Self {
        let reporter = cx.reporter.holding_back();
        let cx = JoinContext { reporter: reporter.clone(), ..cx.clone() };
        let (wanted, dropped) = oneshot::channel();
        let runtime = Handle::current();
        let reading = spawn_blocking(move || {
            runtime.block_on(async {
                match select(pin!(read(reads, cx)), dropped).await {
                    Either::Left((found, _)) => Some(found),
                    Either::Right(_) => None,
                }
            })
        });
        Self { reporter, reading, _wanted: wanted }
    }

    /// What was read, told from now on.
    ///
    /// # Errors
    ///
    /// Why the cluster cannot be found, or its configuration is unusable.
    pub(super) async fn finish(self) -> Result<Found, Failure> {
        self.reporter.let_out();
        match self.reading.await {
            Ok(found) => found.expect("it is wanted"),
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

async fn read(reads: Reads, cx: JoinContext) -> Result<Found, Failure> {
    let access = discovery::discover(&cx).await?;
    let node = async {
        match reads {
            Reads::Cluster => None,
            Reads::WithNode => node_lookup::look_up(&access, &cx).await.ok(),
        }
    };
    // On the connection of the others, so that it costs no round trip of its own.
    let server_version = async {
        match cx.settings.control_plane {
            None => None,
            Some(_) => skew::server_version(&access).await.ok(),
        }
    };
    let (cluster, node, server_version) = join3(cluster_configuration::fetch(&access, &cx), node, server_version).await;
    Ok(Found { cluster: cluster?, node, server_version, access })
}
