//! `kube-apiserver.yaml`.

use serde_json::{Value, json};

use super::super::LocalNode;
use super::super::configuration::{ControlPlaneConfiguration, Etcd};
use super::super::images::{self, KubernetesImage};
use super::arguments::{Defaults, last};
use super::paths::join;
use super::probe::{Probes, host};
use super::{Component, Environment, Parts, Volumes, env};

const ENDPOINT_ANNOTATION: &str = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint";

pub(super) fn pod(cluster: &ControlPlaneConfiguration, node: &LocalNode, environment: &Environment) -> Value {
    let component = &cluster.api_server.component;
    let mut volumes = Volumes::with_certificates(&cluster.certificates_dir, environment);
    if let Etcd::External(etcd) = &cluster.etcd {
        volumes.add_external_etcd(etcd, &cluster.certificates_dir);
    }
    volumes.add_extra(&component.extra_volumes);
    super::pod(Parts {
        component: Component::ApiServer,
        annotation: Some((ENDPOINT_ANNOTATION, format!("{}:{}", node.url_host(), node.bind_port))),
        image: images::kubernetes(KubernetesImage::ApiServer, cluster),
        command: command(cluster, node),
        env: env(&environment.proxies, &component.extra_envs),
        probes: Probes {
            host: host(&node.advertise_address.to_string()),
            port: node.bind_port,
            scheme: "HTTPS",
            liveness: "/livez",
            readiness: Some("/readyz"),
            startup: "/livez",
            start_within: environment.health_check,
        },
        requests: json!({"cpu": "250m"}),
        volumes,
    })
}

fn command(cluster: &ControlPlaneConfiguration, node: &LocalNode) -> Vec<String> {
    let pki = |name: &str| join(&cluster.certificates_dir, name);
    let extra = &cluster.api_server.component.extra_args;
    let mut defaults = Defaults::new([
        ("advertise-address", node.advertise_address.to_string()),
        ("allow-privileged", "true".into()),
        ("client-ca-file", pki("ca.crt")),
        ("enable-admission-plugins", "NodeRestriction".into()),
        ("enable-bootstrap-token-auth", "true".into()),
        ("kubelet-client-certificate", pki("apiserver-kubelet-client.crt")),
        ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname".into()),
        ("proxy-client-cert-file", pki("front-proxy-client.crt")),
        ("proxy-client-key-file", pki("front-proxy-client.key")),
        ("requestheader-allowed-names", "front-proxy-client".into()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
        ("requestheader-group-headers", "X-Remote-Group".into()),
        ("requestheader-username-headers", "X-Remote-User".into()),
        ("secure-port", node.bind_port.to_string()),
        ("service-account-issuer", format!("https://kubernetes.default.svc.{}", cluster.networking.dns_domain)),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        ("service-cluster-ip-range", cluster.networking.service_subnet.clone()),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
    ]);
    // A file says more than modes could, and the API server takes only one of both.
    if last(extra, "authorization-config").is_none() {
        defaults.add("authorization-mode", "Node,RBAC");
    }
    match &cluster.etcd {
        Etcd::External(etcd) => {
            defaults.add("etcd-servers", etcd.endpoints.join(","));
            if !etcd.ca_file.is_empty() {
                defaults.add("etcd-cafile", &*etcd.ca_file);
            }
            if !etcd.cert_file.is_empty() && !etcd.key_file.is_empty() {
                defaults.add("etcd-certfile", &*etcd.cert_file);
                defaults.add("etcd-keyfile", &*etcd.key_file);
            }
        }
        Etcd::Local(etcd) => {
            let loopback =
                if node.advertise_address.is_ipv6() { "https://[::1]:2379" } else { "https://127.0.0.1:2379" };
            defaults.add("etcd-servers", last(&etcd.extra_args, "advertise-client-urls").unwrap_or(loopback));
            defaults.add("etcd-cafile", pki("etcd/ca.crt"));
            defaults.add("etcd-certfile", pki("apiserver-etcd-client.crt"));
            defaults.add("etcd-keyfile", pki("apiserver-etcd-client.key"));
        }
    }
    defaults.command(Component::ApiServer.name(), extra)
}
