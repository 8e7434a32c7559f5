//! `kube-scheduler.yaml`.

use serde_json::{Value, json};

use super::super::configuration::ControlPlaneConfiguration;
use super::super::images::{self, KubernetesImage};
use super::arguments::{Defaults, last};
use super::probe::{Probes, host};
use super::{Component, Environment, KUBERNETES_DIR, LOOPBACK, Parts, Volumes, env};

const PORT: u16 = 10259;

pub(super) fn pod(cluster: &ControlPlaneConfiguration, environment: &Environment) -> Value {
    let component = &cluster.scheduler;
    let kubeconfig = format!("{KUBERNETES_DIR}/scheduler.conf");
    let mut volumes = Volumes::default();
    volumes.add_kubeconfig(&kubeconfig);
    volumes.add_extra(&component.extra_volumes);
    let defaults = Defaults::new([
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig.clone()),
        ("bind-address", LOOPBACK.into()),
        ("kubeconfig", kubeconfig),
        ("leader-elect", "true".into()),
    ]);
    super::pod(Parts {
        component: Component::Scheduler,
        annotation: None,
        image: images::kubernetes(KubernetesImage::Scheduler, cluster),
        command: defaults.command(Component::Scheduler.name(), &component.extra_args),
        env: env(&environment.proxies, &component.extra_envs),
        probes: Probes {
            host: host(last(&component.extra_args, "bind-address").unwrap_or(LOOPBACK)),
            port: PORT,
            scheme: "HTTPS",
            liveness: "/livez",
            readiness: Some("/readyz"),
            startup: "/livez",
            start_within: environment.health_check,
        },
        requests: json!({"cpu": "100m"}),
        volumes,
    })
}
