//! `kube-controller-manager.yaml`.

use serde_json::{Value, json};

use super::super::configuration::ControlPlaneConfiguration;
use super::super::images::{self, KubernetesImage};
use super::arguments::{Defaults, last};
use super::paths::join;
use super::probe::{Probes, host};
use super::{Component, Environment, KUBERNETES_DIR, LOOPBACK, Parts, Volumes, env};

const PORT: u16 = 10257;

pub(super) fn pod(cluster: &ControlPlaneConfiguration, environment: &Environment) -> Value {
    let component = &cluster.controller_manager;
    let kubeconfig = format!("{KUBERNETES_DIR}/controller-manager.conf");
    let mut volumes = Volumes::with_certificates(&cluster.certificates_dir, environment);
    volumes.add_kubeconfig(&kubeconfig);
    volumes.add_extra(&component.extra_volumes);
    super::pod(Parts {
        component: Component::ControllerManager,
        annotation: None,
        image: images::kubernetes(KubernetesImage::ControllerManager, cluster),
        command: command(cluster, &kubeconfig, environment),
        env: env(&environment.proxies, &component.extra_envs),
        probes: Probes {
            host: host(last(&component.extra_args, "bind-address").unwrap_or(LOOPBACK)),
            port: PORT,
            scheme: "HTTPS",
            liveness: "/healthz",
            readiness: None,
            startup: "/healthz",
            start_within: environment.health_check,
        },
        requests: json!({"cpu": "200m"}),
        volumes,
    })
}

fn command(cluster: &ControlPlaneConfiguration, kubeconfig: &str, environment: &Environment) -> Vec<String> {
    let pki = |name: &str| join(&cluster.certificates_dir, name);
    // Who holds the CA's key signs; without it here, the signing controllers must not start.
    let signing = |name: &str| if environment.external_ca { String::new() } else { pki(name) };
    let mut defaults = Defaults::new([
        ("authentication-kubeconfig", kubeconfig.to_owned()),
        ("authorization-kubeconfig", kubeconfig.to_owned()),
        ("bind-address", LOOPBACK.into()),
        ("client-ca-file", pki("ca.crt")),
        ("cluster-name", cluster.cluster_name.clone()),
        ("cluster-signing-cert-file", signing("ca.crt")),
        ("cluster-signing-key-file", signing("ca.key")),
        ("controllers", "*,bootstrapsigner,tokencleaner".into()),
        ("kubeconfig", kubeconfig.to_owned()),
        ("leader-elect", "true".into()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("root-ca-file", pki("ca.crt")),
        ("service-account-private-key-file", pki("sa.key")),
        ("use-service-account-credentials", "true".into()),
    ]);
    if !cluster.networking.pod_subnet.is_empty() {
        defaults.add("allocate-node-cidrs", "true");
        defaults.add("cluster-cidr", &*cluster.networking.pod_subnet);
        defaults.add("service-cluster-ip-range", &*cluster.networking.service_subnet);
    }
    defaults.command(Component::ControllerManager.name(), &cluster.controller_manager.extra_args)
}
