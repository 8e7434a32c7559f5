//! `etcd.yaml`.

use serde_json::{Value, json};

use super::super::LocalNode;
use super::super::configuration::{ControlPlaneConfiguration, Etcd, LocalEtcd};
use super::super::images;
use super::arguments::{Defaults, last};
use super::paths::join;
use super::probe::Probes;
use super::{Component, Environment, InitialCluster, LOOPBACK, Parts, Volumes, env};

const CLIENT_URLS_ANNOTATION: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";
const METRICS_PORT: u16 = 2381;

pub(super) fn pod(
    cluster: &ControlPlaneConfiguration,
    node: &LocalNode,
    environment: &Environment,
    initial_cluster: InitialCluster<'_>,
) -> Value {
    let Etcd::Local(etcd) = &cluster.etcd else { panic!("an external etcd has no manifest here") };
    let (host, port, scheme) = metrics(etcd, node);
    super::pod(Parts {
        component: Component::Etcd,
        annotation: Some((CLIENT_URLS_ANNOTATION, node.etcd_client_url())),
        image: images::etcd(cluster).expect("it is stacked"),
        command: command(cluster, etcd, node, initial_cluster),
        env: env(&[], &etcd.extra_envs),
        probes: Probes {
            host,
            port,
            scheme,
            liveness: "/livez",
            readiness: Some("/readyz"),
            startup: "/readyz",
            start_within: environment.health_check,
        },
        requests: json!({"cpu": "100m", "memory": "100Mi"}),
        volumes: Volumes::of_etcd(&etcd.data_dir, &cluster.certificates_dir),
    })
}

/// Host, port and scheme that are probed.
fn metrics(etcd: &LocalEtcd, node: &LocalNode) -> (String, u16, &'static str) {
    let loopback = if node.advertise_address.is_ipv6() { "::1" } else { LOOPBACK };
    metrics_endpoint(last(&etcd.extra_args, "listen-metrics-urls"), loopback)
}

/// `http://HOST:PORT` of its metrics; none where they are served over TLS.
pub(in crate::join) fn metrics_url(etcd: &LocalEtcd, node: &LocalNode) -> Option<String> {
    let (host, port, scheme) = metrics(etcd, node);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    (scheme == "HTTP").then(|| format!("http://{host}:{port}"))
}

fn command(
    cluster: &ControlPlaneConfiguration,
    etcd: &LocalEtcd,
    node: &LocalNode,
    initial_cluster: InitialCluster<'_>,
) -> Vec<String> {
    let pki = |name: &str| join(&cluster.certificates_dir, name);
    let loopback = if node.advertise_address.is_ipv6() { "[::1]" } else { LOOPBACK };
    let mut defaults = Defaults::new([
        ("advertise-client-urls", node.etcd_client_url()),
        ("cert-file", pki("etcd/server.crt")),
        ("client-cert-auth", "true".into()),
        ("data-dir", etcd.data_dir.clone()),
        ("feature-gates", "InitialCorruptCheck=true".into()),
        ("initial-advertise-peer-urls", node.etcd_peer_url()),
        ("initial-cluster", initial_cluster.members.into()),
        ("key-file", pki("etcd/server.key")),
        ("listen-client-urls", format!("https://{loopback}:2379,{}", node.etcd_client_url())),
        ("listen-metrics-urls", format!("http://{loopback}:{METRICS_PORT}")),
        ("listen-peer-urls", node.etcd_peer_url()),
        ("name", node.name.clone()),
        ("peer-cert-file", pki("etcd/peer.crt")),
        ("peer-client-cert-auth", "true".into()),
        ("peer-key-file", pki("etcd/peer.key")),
        ("peer-trusted-ca-file", pki("etcd/ca.crt")),
        ("snapshot-count", "10000".into()),
        ("trusted-ca-file", pki("etcd/ca.crt")),
        ("watch-progress-notify-interval", "5s".into()),
    ]);
    if !initial_cluster.state.is_empty() {
        defaults.add("initial-cluster-state", initial_cluster.state);
    }
    defaults.command(Component::Etcd.name(), &etcd.extra_args)
}

/// Host, port and scheme of the first of the URLs; what is missing or cannot be read is kubeadm's default.
fn metrics_endpoint(urls: Option<&str>, loopback: &str) -> (String, u16, &'static str) {
    let default = (loopback.to_owned(), METRICS_PORT, "HTTP");
    let Some(first) = urls.and_then(|urls| urls.split(',').next()) else { return default };
    // `url.Parse`: without a scheme a colon in the first segment is an error, and without `//` there is no host.
    let Some((scheme, rest)) = first.split_once(':') else { return default };
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !valid {
        return default;
    }
    let scheme = if scheme.eq_ignore_ascii_case("https") { "HTTPS" } else { "HTTP" };
    let Some(rest) = rest.strip_prefix("//") else { return (loopback.to_owned(), METRICS_PORT, scheme) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, port)) => (host, port),
            None => return default,
        },
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.chars().all(|c| c.is_ascii_digit()) => digits,
        None if port.is_empty() => "",
        _ => return default,
    };
    let host = if host.is_empty() { loopback } else { host };
    (host.to_owned(), port.parse().ok().filter(|port| *port != 0).unwrap_or(METRICS_PORT), scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_where_the_metrics_are() {
        for (urls, host, port, scheme) in [
            (None, "127.0.0.1", 2381, "HTTP"),
            (Some("http://10.0.0.1:2390,http://127.0.0.1:2381"), "10.0.0.1", 2390, "HTTP"),
            (Some("HTTPS://[fd00::1]:9000/x"), "fd00::1", 9000, "HTTPS"),
            (Some("https://etcd.example"), "etcd.example", 2381, "HTTPS"),
            (Some("http://:2399"), "127.0.0.1", 2399, "HTTP"),
            (Some("http://h:0"), "h", 2381, "HTTP"),
            (Some("http://h:99999"), "h", 2381, "HTTP"),
            (Some("https://h:x"), "127.0.0.1", 2381, "HTTP"),
            (Some("10.0.0.1:2390"), "127.0.0.1", 2381, "HTTP"),
            (Some("localhost:2390"), "127.0.0.1", 2381, "HTTP"),
            (Some(""), "127.0.0.1", 2381, "HTTP"),
            (Some("https://[fd00::1"), "127.0.0.1", 2381, "HTTP"),
        ] {
            assert_eq!(metrics_endpoint(urls, "127.0.0.1"), (host.to_owned(), port, scheme), "{urls:?}");
        }
    }
}
