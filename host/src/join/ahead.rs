//! What a join reads from the cluster while the checks of its machine run.

use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, MaybeDone, join, maybe_done, poll_fn};
use k8s_openapi::api::core::v1::Node as ApiNode;

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
}

/// Reading under way. Dropped, it ends.
pub(super) struct Ahead {
    reporter: Reporter,
    reading: MaybeDone<LocalBoxFuture<'static, Result<Found, Failure>>>,
}

impl Ahead {
    /// Nothing happens until it is polled.
    pub(super) fn new(reads: Reads, cx: &JoinContext) -> Self {
        let reporter = cx.reporter.holding_back();
        let cx = JoinContext { reporter: reporter.clone(), ..cx.clone() };
        Self { reporter, reading: maybe_done(read(reads, cx).boxed_local()) }
    }

    /// Goes on reading while something else is done.
    pub(super) async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        poll_fn(|cx| {
            // Its result is taken when it is needed.
            let _ = self.reading.poll_unpin(cx);
            other.as_mut().poll(cx)
        })
        .await
    }

    /// What was read, told from now on.
    ///
    /// # Errors
    ///
    /// Why the cluster cannot be found, or its configuration is unusable.
    pub(super) async fn finish(mut self) -> Result<Found, Failure> {
        self.reporter.let_out();
        (&mut self.reading).await;
        std::pin::Pin::new(&mut self.reading).take_output().expect("it was awaited and not yet taken")
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
    let (cluster, node) = join(cluster_configuration::fetch(&access, &cx), node).await;
    Ok(Found { cluster: cluster?, node, access })
}
