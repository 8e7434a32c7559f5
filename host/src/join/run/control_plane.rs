//! The parts of a join that only control planes have, in the order of the list of phases.

use std::path::Path;

use futures::future;

use super::{Run, is_skipped};
use crate::config::ControlPlaneSettings;
use crate::error::Failure;
use crate::join::control_plane::admin::Admin;
use crate::join::control_plane::components::{self, Health};
use crate::join::control_plane::configuration::{ControlPlaneConfiguration, Etcd};
use crate::join::control_plane::keys_ahead::{Keys, Purpose};
use crate::join::control_plane::manifests::{Component, InitialCluster, etcd_metrics_url, files};
use crate::join::control_plane::skew::KubeletServer;
use crate::join::control_plane::{
    LocalNode, certs, checks, download_certs, handover, host_files, image_pull, kubeconfig, kubelet_access, mark,
    readiness, skew,
};
use crate::join::etcd_join::{self, EtcdJoin, OwnVoter};
use crate::join::{Access, TrustedCluster, kubelet_config, kubelet_start};
use crate::node::Change;
use crate::plan::Step;

const PREPARE_MANIFESTS: &str = "control-plane-prepare/control-plane";
const PUBLISH: &str = "publish";
const WAIT: &str = "wait-control-plane";

/// A control plane's part of what a join knows.
struct Known {
    access: Access,
    configuration: ControlPlaneConfiguration,
    settings: ControlPlaneSettings,
    local: LocalNode,
}

impl Run {
    /// Whether a control plane joins.
    pub(super) fn is_control_plane(&self) -> bool {
        self.cx.settings.control_plane.is_some()
    }

    async fn known(&mut self) -> Result<Known, Failure> {
        let (access, cluster) = self.cluster().await?;
        let settings = self.cx.settings.control_plane.clone().expect("the loop runs these parts for control planes");
        let configuration = ControlPlaneConfiguration::of(&cluster.kubeadm)?;
        configuration.check(&self.cx.node)?;
        let local = LocalNode {
            name: self.cx.settings.node.name.clone(),
            advertise_address: settings.advertise_address,
            bind_port: settings.bind_port,
        };
        Ok(Known { access, configuration, settings, local })
    }

    /// What must be so before the checks that need the cluster, and is not theirs.
    pub(super) async fn control_plane_readiness(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        let key = known.settings.certificate_key.as_ref();
        readiness::check(&known.configuration, key, &self.cx)?;
        host_files::require(&known.configuration, &self.cx.node)?;
        self.plugins.learn(checks::parameters(&known.configuration, &known.settings));
        Ok(())
    }

    /// The images of the static Pods, pulled while nothing is touched yet.
    pub(super) async fn pull_images(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        // Keys need nothing of the network, and those of RSA take as long as a small image.
        if self.whole {
            let purposes = [
                ("control-plane-prepare/certs", Purpose::Certificates),
                ("control-plane-prepare/kubeconfig", Purpose::Kubeconfigs),
            ];
            let purposes = purposes.into_iter().filter(|(id, _)| !is_skipped(id, &self.cx.settings.skip_phases));
            let purposes: Vec<_> = purposes.map(|(_, purpose)| purpose).collect();
            let Known { configuration, local, settings, .. } = &known;
            self.keys = Keys::begin(&purposes, configuration, local, settings, &self.cx)?;
        }
        image_pull::run(&known.configuration, &self.cx).await?;
        Ok(())
    }

    pub(super) async fn prepare_all(&mut self) -> Result<(), Failure> {
        self.download_certs().await?;
        self.certs().await?;
        self.kubeconfig().await?;
        self.manifests().await
    }

    pub(super) async fn download_certs(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        match &known.settings.certificate_key {
            Some(key) => download_certs::run(&known.access, &known.configuration, key, &self.cx).await?,
            None => {
                let step =
                    self.cx.reporter.step("control-plane-prepare/download-certs", "fetch the shared certificates");
                step.skipped("without a certificate key, they are on this machine");
            }
        }
        Ok(())
    }

    pub(super) async fn certs(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        certs::write(&known.configuration, &known.local, &mut self.keys, &self.cx).await?;
        Ok(())
    }

    pub(super) async fn kubeconfig(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        kubeconfig::write(&known.configuration, &known.local, &mut self.keys, &self.cx).await?;
        Ok(())
    }

    pub(super) async fn manifests(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        files::stage(&known.configuration, &known.local, PREPARE_MANIFESTS, &self.cx)?;
        Ok(())
    }

    pub(super) async fn check_etcd(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        match &known.configuration.etcd {
            Etcd::Local(_) => {
                let client = self.etcd(&known).await?;
                etcd_join::check_health(&client, etcd_join::CHECK_PHASE, &self.cx.reporter).await?;
            }
            Etcd::External(_) => self.skip_external(etcd_join::CHECK_PHASE),
        }
        Ok(())
    }

    pub(super) async fn etcd_join(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        let Etcd::Local(etcd) = &known.configuration.etcd else {
            self.skip_external(etcd_join::PHASE);
            return Ok(());
        };
        let client = self.etcd(&known).await?;
        let (peer_url, client_url) = (known.local.etcd_peer_url(), known.local.etcd_client_url());
        let metrics_url = etcd_metrics_url(etcd, &known.local);
        let timeout = self.cx.settings.timeouts.etcd_api_call;
        let join = EtcdJoin {
            client: &client,
            name: &known.local.name,
            peer_url: &peer_url,
            client_url: &client_url,
            metrics_url: metrics_url.as_deref(),
            data_dir: Path::new(&etcd.data_dir),
            timeout,
            snapshot_dir: known.settings.etcd_snapshot.as_deref(),
            replace: known.settings.replace_member,
        };
        let Known { configuration, local, .. } = &known;
        let publish = async |manifest: etcd_join::Manifest| {
            let step = self.cx.reporter.step(etcd_join::PHASE, "start etcd");
            let path = files::path(Component::Etcd);
            // One that was up before starts as well with the manifest it has; another one would only stop it.
            if manifest.has_started && files::keep(Component::Etcd, &self.cx.node)? {
                step.unchanged("it was started");
                return Ok(());
            }
            let members = InitialCluster { members: &manifest.initial_cluster, state: "existing" };
            match files::publish_etcd(members, configuration, local, &self.cx)? {
                Change::Made => step.done(format!("`{}`", path.display())),
                Change::Unchanged => step.unchanged("it was started"),
            }
            Ok(())
        };
        if let Some(plan) = self.cx.node.plan() {
            let (before, after) = join.preview(&self.cx.node).await?;
            plan.note(Step::EtcdMembers { before, after });
            // Whose names the manifest lists is known when the member was added.
            let initial_cluster = format!("{}={peer_url}", known.local.name);
            return publish(etcd_join::Manifest { initial_cluster, has_started: false }).await;
        }
        let withdraw = async || files::withdraw(Component::Etcd, &self.cx.node).map_err(Failure::from);
        let id = join.join(publish, withdraw, &self.cx.node, &self.cx.reporter).await?.id;
        let own = OwnVoter { client, client_url, id, timeout };
        if self.whole && !is_skipped(PUBLISH, &self.cx.settings.skip_phases) {
            // The API server starts meanwhile.
            self.own_voter = Some(own);
        } else {
            own.wait_until_it_answers(&self.cx.reporter).await?;
        }
        Ok(())
    }

    /// A client of all voters, with the certificate that this control plane checks etcd's health with.
    async fn etcd(&self, known: &Known) -> Result<crate::etcd::Client, Failure> {
        let api = Admin::load(&self.cx)?.client(&self.cx)?;
        let pki = Path::new(&known.configuration.certificates_dir);
        let timeout = self.cx.settings.timeouts.kubernetes_api_call;
        let (node, reporter, fail_fast) = (&self.cx.node, &self.cx.reporter, self.cx.settings.fail_fast);
        Ok(etcd_join::connect(&api, pki, node, reporter, timeout, fail_fast).await?)
    }

    fn skip_external(&self, phase: &'static str) {
        self.cx.reporter.step(phase, "join etcd").skipped("the cluster's etcd is not on its control planes");
    }

    /// The API server first, the rest when it is ready: nothing is started that could only fail.
    pub(super) async fn publish(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        self.publish_one(Component::ApiServer)?;
        if self.cx.node.plan().is_none() {
            let own_voter = self.own_voter.take();
            let etcd_answers = async {
                match own_voter {
                    Some(own) => own.wait_until_it_answers(&self.cx.reporter).await.map_err(Failure::from),
                    None => Ok(()),
                }
            };
            let ready = components::wait_for(&[Component::ApiServer], Health::Ready, &known.local, PUBLISH, &self.cx);
            future::try_join(etcd_answers, async { ready.await.map_err(Failure::from) }).await?;
        }
        self.publish_one(Component::ControllerManager)?;
        self.publish_one(Component::Scheduler)
    }

    fn publish_one(&self, component: Component) -> Result<(), Failure> {
        let step = self.cx.reporter.step(PUBLISH, format!("start {}", component.name()));
        match files::publish(component, &self.cx.node)? {
            Change::Made => step.done(format!("`{}`", files::path(component).display())),
            Change::Unchanged => step.unchanged("it was started"),
        }
        Ok(())
    }

    pub(super) async fn mark(&mut self) -> Result<(), Failure> {
        mark::mark(&self.cx).await?;
        Ok(())
    }

    pub(super) async fn wait_control_plane(&mut self) -> Result<(), Failure> {
        let known = self.known().await?;
        let (_, cluster) = self.cluster().await?;
        if self.cx.node.plan().is_none() {
            let healthy = components::wait_for(&components::SERVED, Health::Alive, &known.local, WAIT, &self.cx);
            let (healthy, ()) = future::join(healthy, kubelet_access::look(&known.configuration, &self.cx)).await;
            healthy?;
        }
        handover::hand_over(&known.access, &cluster, &known.local, &self.cx).await
    }

    /// With which flags the kubelet starts now.
    pub(super) async fn kubelet_flags(&self) -> Result<kubelet_config::Start, Failure> {
        if !self.is_control_plane() {
            return Ok(kubelet_config::Start::Lasting);
        }
        handover::start(self.plugins.facts(), &self.cx).await
    }

    pub(super) async fn kubelet_is_not_too_new(&mut self) -> Result<(), Failure> {
        let (_, cluster) = self.cluster().await?;
        let kubelet = skew::kubelet_version(self.plugins.facts()).await;
        Ok(skew::check(kubelet.as_deref(), &cluster.kubernetes_version, &self.cx)?)
    }

    /// With which API server the kubelet works until the local one is healthy; chosen once.
    async fn kubelet_server(&mut self) -> Result<KubeletServer, Failure> {
        if let Some(chosen) = self.kubelet_server {
            return Ok(chosen);
        }
        let (access, cluster) = self.cluster().await?;
        let server = &access.cluster.server;
        let asked = match self.server_version.take() {
            Some(version) => Ok(version),
            None => skew::server_version(&access).await,
        };
        let version = asked.unwrap_or_else(|error| {
            let version = cluster.kubernetes_version;
            let text =
                format!("cannot see the version of the API server `{server}`, so it counts as {version}: {error}");
            self.cx.reporter.warn(Some(kubelet_start::PHASE), text);
            version
        });
        let kubelet = skew::kubelet_version(self.plugins.facts()).await;
        let chosen = skew::choose(kubelet.as_deref(), &version);
        if chosen == KubeletServer::Local {
            let kubelet = kubelet.unwrap_or_default();
            let text = format!(
                "the kubelet is {kubelet} and the API server `{server}` is {version}, which must not be older; so the kubelet \
                 works with this machine's own from the start, as with kubeadm, and its Node comes some seconds later"
            );
            self.cx.reporter.warn(Some(kubelet_start::PHASE), text);
        }
        self.kubelet_server = Some(chosen);
        Ok(chosen)
    }

    /// Makes a kubelet work with the local API server from the start where it is too new for the one that was found.
    pub(super) async fn point_kubelet(&mut self) -> Result<(), Failure> {
        if !self.is_control_plane() || self.kubelet_server().await? == KubeletServer::Discovered {
            return Ok(());
        }
        let known = self.known().await?;
        handover::point(&known.access, &known.local, kubelet_start::PHASE, &self.cx)
    }

    /// The same for a kubelet that asks for its certificate itself.
    pub(super) async fn kubelet_access(&mut self, access: &Access) -> Result<Access, Failure> {
        if !self.is_control_plane() || self.kubelet_server().await? == KubeletServer::Discovered {
            return Ok(access.clone());
        }
        let known = self.known().await?;
        let cluster =
            TrustedCluster { server: known.local.api_server(), tls_server_name: None, ..access.cluster.clone() };
        Ok(Access { cluster, ..access.clone() })
    }
}
