//! The loop that runs the phases, and what passes between them.
//!
//! Discovery and the cluster's configuration are fetched when a phase first needs them, as in kubeadm: so a phase run
//! alone, or a join with phases skipped, asks for no more than it uses. A whole join begins to read while the checks of the
//! machine run, since reading touches nothing; what it sees is told in its turn, and dropped when a check fails.

use futures::future;
use k8s_openapi::api::core::v1::Node as ApiNode;
use thiserror::Error;

use super::ahead::{Ahead, Reads};
use super::control_plane::keys_ahead::Keys;
use super::control_plane::skew::KubeletServer;
use super::etcd_join::OwnVoter;
use super::tls_bootstrap::Registered;
use super::{
    Access, ClusterConfiguration, JoinContext, NodeIdentity, cluster_configuration, discovery, kubelet_config,
    kubelet_start, kubelet_wait, node_lookup, tls_bootstrap,
};
use crate::config::{Discovery, PHASES, Part, PhaseName, Roles, TlsBootstrapBy, Wait};
use crate::error::{Diagnose, ExitCode, Failure};
use crate::journal::UsedPlugin;
use crate::node::{Node, UnitState};
use crate::output::Event;
use crate::plan::Step;
use crate::plugin::walls::{MissingWall, Walls};
use crate::plugin::{CheckStatus, PluginDigest, Plugins, Stage};

mod control_plane;

/// A join under way.
pub struct Run {
    cx: JoinContext,
    plugins: Plugins,
    ahead: Option<Ahead>,
    access: Option<Access>,
    cluster: Option<ClusterConfiguration>,
    /// What was found under the Node's name, until it is used.
    seen: Option<Option<ApiNode>>,
    identity: Option<NodeIdentity>,
    /// Of the API server that discovery found, until it is used.
    server_version: Option<String>,
    /// What was made of it.
    kubelet_server: Option<KubeletServer>,
    /// Being made while images are fetched.
    keys: Keys,
    /// Votes, and may still be silent to clients.
    own_voter: Option<OwnVoter>,
    /// All phases are run, one after the other.
    whole: bool,
    kubelet_stopped: bool,
    /// What is known of the kubelet's unit since.
    kubelet_unit: Option<UnitState>,
    /// Whether systemd-resolved runs, once asked.
    resolved: Option<bool>,
}

/// Failures of the loop itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// At least one check failed that is not ignored.
    #[error("preflight checks failed: {}", names.join(", "))]
    Preflight {
        /// Ids, in order.
        names: Vec<String>,
    },
}

impl Diagnose for RunError {
    fn code(&self) -> &'static str {
        "preflight-failed"
    }

    fn hint(&self) -> Option<String> {
        let Self::Preflight { names } = self;
        Some(format!(
            "mend what the checks name, or make their errors warnings with `--ignore-preflight-errors={}`",
            names.join(",")
        ))
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Preflight
    }
}

impl Run {
    /// The machine that joins.
    pub fn node(&self) -> &Node {
        &self.cx.node
    }

    /// Name of the certificate request that was answered in this run.
    pub fn csr_name(&self) -> Option<&str> {
        self.identity.as_ref()?.csr_name.as_deref()
    }

    /// Walls that did not stand around plugins that ran.
    pub fn missing_walls(&self) -> Vec<MissingWall> {
        self.plugins.walls().all_missing()
    }

    /// Nothing is touched or asked yet.
    pub fn new(cx: JoinContext, plugins: Plugins) -> Self {
        Self {
            cx,
            plugins,
            ahead: None,
            access: None,
            cluster: None,
            seen: None,
            identity: None,
            server_version: None,
            kubelet_server: None,
            keys: Keys::default(),
            own_voter: None,
            whole: false,
            kubelet_stopped: false,
            kubelet_unit: None,
            resolved: None,
        }
    }

    /// Every phase that is not skipped, in order, then what `--wait` asks for.
    ///
    /// # Errors
    ///
    /// The first failure, with its phase. Running the same command again goes on from there.
    pub async fn all(&mut self) -> Result<(), Failure> {
        self.whole = true;
        let runs = |id| !is_skipped(id, &self.cx.settings.skip_phases);
        if runs("preflight") {
            let reads = if runs("tls-bootstrap") || runs("kubelet-start") { Reads::WithNode } else { Reads::Cluster };
            self.ahead = Some(Ahead::begin(reads, &self.cx));
        }
        for phase in PHASES {
            if is_skipped(phase.id, &self.cx.settings.skip_phases) {
                self.cx.reporter.step(phase.id, phase.summary).skipped("`--skip-phases` names it");
            } else if phase.roles == Roles::Both || (self.is_control_plane() && !phase.is_summary()) {
                self.phase(phase).await?;
            }
        }
        self.wait().await.map_err(|failure| failure.in_phase("wait"))
    }

    /// The checks alone, for `mortise preflight`.
    ///
    /// # Errors
    ///
    /// [`RunError::Preflight`], or why the cluster cannot be found where a discovery flag asks for it.
    pub async fn checks_alone(&mut self) -> Result<(), Failure> {
        if !matches!(self.cx.settings.discovery, Discovery::Recorded) {
            self.ahead = Some(Ahead::begin(Reads::Cluster, &self.cx));
        }
        self.preflight().await.map_err(|failure| failure.in_phase("preflight"))
    }

    /// One phase. Those of control planes do nothing on a worker, as in kubeadm.
    ///
    /// # Errors
    ///
    /// Its failure, with its name.
    pub async fn phase(&mut self, phase: &PhaseName) -> Result<(), Failure> {
        let id = phase.id;
        if let Some(plan) = self.cx.node.plan() {
            plan.enter(id);
        }
        let ended = match phase.part {
            Some(Part::Preflight) => self.preflight().await,
            Some(Part::Discovery) => self.discovery().await,
            Some(Part::TlsBootstrap) => self.tls_bootstrap().await,
            Some(Part::KubeletStart) => self.kubelet_start().await,
            Some(Part::KubeletWait) => self.kubelet_wait().await,
            Some(_) if phase.roles == Roles::ControlPlane && !self.is_control_plane() => {
                self.cx.reporter.step(id, "nothing to do").skipped("it belongs to control planes");
                Ok(())
            }
            Some(Part::PrepareAll) => self.prepare_all().await,
            Some(Part::DownloadCerts) => self.download_certs().await,
            Some(Part::Certs) => self.certs().await,
            Some(Part::Kubeconfig) => self.kubeconfig().await,
            Some(Part::Manifests) => self.manifests().await,
            Some(Part::CheckEtcd) => self.check_etcd().await,
            Some(Part::EtcdJoin) => self.etcd_join().await,
            Some(Part::Publish) => self.publish().await,
            Some(Part::Mark) => self.mark().await,
            Some(Part::WaitControlPlane) => self.wait_control_plane().await,
            None => {
                self.cx.reporter.step(id, "nothing to do").skipped("its children are run");
                Ok(())
            }
        };
        ended.map_err(|failure| failure.in_phase(id))
    }

    /// The checks of the machine, then those that need the cluster's configuration. Without anything that says where
    /// the cluster is, which only `mortise preflight` allows, the second kind is left out.
    async fn preflight(&mut self) -> Result<(), Failure> {
        if let Some(plan) = self.cx.node.plan() {
            for PluginDigest { name, version, digest, grants } in self.plugins.digests() {
                plan.note(Step::Plugin { name: format!("{name}@{version}"), digest, grants });
            }
        }
        let ended = self.checks(Stage::Node).await;
        self.tell_walls();
        ended?;
        if matches!(self.cx.settings.discovery, Discovery::Recorded) {
            self.cx.reporter.step("preflight", "checks that need the cluster").skipped("no discovery flag was given");
            return Ok(());
        }
        let (_, cluster) = self.cluster().await.map_err(|failure| failure.in_phase("discovery"))?;
        self.plugins.learn([("cluster-version", cluster.kubernetes_version)]);
        if self.is_control_plane() {
            self.kubelet_is_not_too_new().await?;
            self.control_plane_readiness().await?;
        }
        self.checks(Stage::Cluster).await?;
        if self.is_control_plane() {
            self.pull_images().await?;
        }
        Ok(())
    }

    /// Says what stood around the plugins that ran, and in a dry run what did not.
    fn tell_walls(&self) {
        let walls = self.plugins.walls();
        let missing = walls.all_missing();
        if let Some(plan) = self.cx.node.plan()
            && !missing.is_empty()
        {
            plan.note(Step::MissingWalls { missing });
        }
        if walls != Walls::default() {
            self.cx.reporter.tell(&Event::Walls { walls });
        }
    }

    /// Runs the checks of one stage.
    async fn checks(&mut self, stage: Stage) -> Result<(), Failure> {
        for PluginDigest { name, version, digest, .. } in self.plugins.digests() {
            self.cx.node.journal().use_plugin(UsedPlugin { name, version, digest });
        }
        let step = self.cx.reporter.step("preflight", stage.title());
        let results = self.plugins.run_stage(stage, &self.cx.settings.ignore, &self.cx.reporter).await;
        let failed: Vec<String> =
            results.iter().filter(|check| check.status == CheckStatus::Failed).map(|check| check.id.clone()).collect();
        if !failed.is_empty() {
            return Err(RunError::Preflight { names: failed }.into());
        }
        if results.is_empty() {
            step.skipped("no plugin has any");
        } else {
            let warned = results.iter().filter(|check| check.status == CheckStatus::Warned).count();
            step.done(format!("{} checks, {warned} with warnings", results.len()));
        }
        Ok(())
    }

    /// The cluster, discovered once.
    async fn access(&mut self) -> Result<Access, Failure> {
        if let Some(access) = &self.access {
            return Ok(access.clone());
        }
        let access = match self.ahead.take() {
            None => discovery::discover(&self.cx).await?,
            Some(ahead) => {
                let found = ahead.finish().await?;
                self.cluster = Some(found.cluster);
                self.seen = found.node;
                self.server_version = found.server_version;
                found.access
            }
        };
        self.cx.node.journal().bind_cluster(&access.cluster)?;
        self.access = Some(access.clone());
        Ok(access)
    }

    /// The cluster's configuration, fetched once.
    async fn cluster(&mut self) -> Result<(Access, ClusterConfiguration), Failure> {
        let access = self.access().await?;
        if let Some(cluster) = &self.cluster {
            return Ok((access, cluster.clone()));
        }
        let cluster = cluster_configuration::fetch(&access, &self.cx).await?;
        self.cluster = Some(cluster.clone());
        Ok((access, cluster))
    }

    async fn discovery(&mut self) -> Result<(), Failure> {
        let access = self.access().await?;
        discovery::remember(&access.cluster, &self.cx.node)?;
        Ok(())
    }

    /// The name is free, the CA is in place and the kubelet is stopped: what must be so before a certificate is asked
    /// for or the kubelet's files change.
    async fn stop_kubelet(&mut self) -> Result<(Access, ClusterConfiguration), Failure> {
        let (access, cluster) = self.cluster().await?;
        if !self.kubelet_stopped {
            node_lookup::ensure_name_is_free(&access, &cluster, self.seen.take(), &self.cx).await?;
            self.kubelet_unit = kubelet_start::stop(&self.cx).await?;
            kubelet_start::write_ca(&access, &self.cx)?;
            self.kubelet_stopped = true;
        }
        Ok((access, cluster))
    }

    async fn tls_bootstrap(&mut self) -> Result<(), Failure> {
        if self.cx.settings.tls_bootstrap_by == TlsBootstrapBy::Kubelet {
            let step = self.cx.reporter.step("tls-bootstrap", "ask for the kubelet's certificate");
            step.skipped("the kubelet asks for it itself");
            return Ok(());
        }
        let (access, cluster) = self.stop_kubelet().await?;
        // While the cluster answers, this machine can.
        let bootstrap = tls_bootstrap::by_host(&access, &cluster, &self.cx);
        let (identity, resolved) = future::join(bootstrap, kubelet_config::resolves_by_systemd(&self.cx.node)).await;
        self.identity = Some(identity?);
        self.resolved = Some(resolved);
        self.point_kubelet().await?;
        Ok(())
    }

    async fn kubelet_start(&mut self) -> Result<(), Failure> {
        let (access, cluster) = self.stop_kubelet().await?;
        if self.cx.settings.tls_bootstrap_by == TlsBootstrapBy::Kubelet {
            let access = self.kubelet_access(&access).await?;
            kubelet_start::write_bootstrap_kubeconfig(&access, &cluster, &self.cx)?;
        }
        let resolved = match self.resolved {
            Some(resolved) => resolved,
            None => kubelet_config::resolves_by_systemd(&self.cx.node).await,
        };
        kubelet_start::write_config(&cluster, resolved, &self.cx)?;
        let start = self.kubelet_flags().await?;
        kubelet_start::write_flags(start, &self.cx)?;
        kubelet_start::start(self.kubelet_unit.take(), &self.cx).await?;
        Ok(())
    }

    async fn kubelet_wait(&mut self) -> Result<(), Failure> {
        if self.cx.settings.wait == Wait::None {
            self.cx.reporter.step("kubelet-wait-bootstrap", "wait for the kubelet").skipped("`--wait=none`");
            return Ok(());
        }
        let (_, cluster) = self.cluster().await?;
        kubelet_wait::wait_for_kubelet(&cluster, &self.cx).await?;
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), Failure> {
        let wanted = match self.cx.settings.wait {
            Wait::None | Wait::Kubelet => return Ok(()),
            Wait::Registered => Registered::Exists,
            Wait::Ready => Registered::Ready,
        };
        let access = self.access().await?;
        let timeout = self.cx.settings.timeouts.kubelet_health_check;
        tls_bootstrap::wait_for_node(&access, wanted, timeout, &self.cx).await?;
        Ok(())
    }
}

/// Whether a phase is left out: it is named itself, or its parent is.
///
/// `kubelet-start` takes `tls-bootstrap` with it: with kubeadm the kubelet makes the request, so that leaving out its
/// start leaves out the certificate, and scripts rely on it.
fn is_skipped(id: &str, skipped: &[String]) -> bool {
    skipped.iter().any(|skip| {
        skip == id
            || id.strip_prefix(skip.as_str()).is_some_and(|rest| rest.starts_with('/'))
            || (id == "tls-bootstrap" && skip == "kubelet-start")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipping_a_parent_skips_its_children_and_nothing_else() {
        let skip = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(is_skipped("control-plane-prepare/certs", &skip(&["control-plane-prepare"])));
        assert!(!is_skipped("control-plane-prepare", &skip(&["control-plane-prepare/certs"])));
        assert!(!is_skipped("kubelet-wait-bootstrap", &skip(&["kubelet-start"])));
        assert!(is_skipped("tls-bootstrap", &skip(&["kubelet-start"])));
    }
}
