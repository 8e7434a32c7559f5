//! Names of the images a control plane runs, as kubeadm 1.37 makes them (`cmd/kubeadm/app/images`).

use super::configuration::{ControlPlaneConfiguration, Etcd};

/// kubeadm's default repository, in which CoreDNS has a directory of its own.
const DEFAULT_REPOSITORY: &str = "registry.k8s.io";
const COREDNS_TAG: &str = "v1.14.6";
const PAUSE_TAG: &str = "3.10.2";
/// Tag of etcd's image for a minor version of the cluster, ascending (`constants.SupportedEtcdVersion`). kubeadm's table ends
/// at 1.36 and gives later versions its last entry; here 1.37 is written out.
const ETCD_TAGS: [(u32, &str); 4] = [(34, "3.7.0-0"), (35, "3.7.0-0"), (36, "3.7.0-0"), (37, "3.7.0-0")];

/// A component whose image bears the cluster's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubernetesImage {
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// `kube-proxy`.
    Proxy,
}

impl KubernetesImage {
    fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Proxy => "kube-proxy",
        }
    }
}

/// Every image that kubeadm pulls before a control plane joins, in its order.
pub fn required(cluster: &ControlPlaneConfiguration) -> Vec<String> {
    let mut images = vec![
        kubernetes(KubernetesImage::ApiServer, cluster),
        kubernetes(KubernetesImage::ControllerManager, cluster),
        kubernetes(KubernetesImage::Scheduler, cluster),
    ];
    if !cluster.proxy.disabled {
        images.push(kubernetes(KubernetesImage::Proxy, cluster));
    }
    if !cluster.dns.disabled {
        images.push(dns(cluster));
    }
    images.push(pause(cluster));
    images.extend(etcd(cluster));
    images
}

/// Image of a component.
pub fn kubernetes(image: KubernetesImage, cluster: &ControlPlaneConfiguration) -> String {
    format!("{}/{}:{}", cluster.image_repository, image.name(), version_tag(&cluster.kubernetes_version))
}

/// Image of a stacked etcd; none where etcd is external.
pub fn etcd(cluster: &ControlPlaneConfiguration) -> Option<String> {
    let Etcd::Local(etcd) = &cluster.etcd else { return None };
    let repository = or(&etcd.image_repository, &cluster.image_repository);
    Some(format!("{repository}/etcd:{}", or(&etcd.image_tag, etcd_tag(&cluster.kubernetes_version))))
}

/// Image of the sandbox of each Pod. The container runtime has a setting of its own for it.
pub fn pause(cluster: &ControlPlaneConfiguration) -> String {
    format!("{}/pause:{PAUSE_TAG}", cluster.image_repository)
}

fn dns(cluster: &ControlPlaneConfiguration) -> String {
    let mut repository = or(&cluster.dns.image_repository, &cluster.image_repository).to_owned();
    if repository == DEFAULT_REPOSITORY {
        repository.push_str("/coredns");
    }
    format!("{repository}/coredns:{}", or(&cluster.dns.image_tag, COREDNS_TAG))
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// The version with what a tag cannot hold replaced: `v1.37.2+build` is tagged `v1.37.2_build`. A release written without
/// its `v` gets it, as when kubeadm normalises the version.
fn version_tag(version: &str) -> String {
    let release = version.starts_with(|c: char| c.is_ascii_digit()) && minor(version).is_some();
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    release.then_some('v').into_iter().chain(version.chars().map(kept)).collect()
}

/// The entry of the version, or the nearest one. A version that cannot be read counts as the newest.
fn etcd_tag(version: &str) -> &'static str {
    let minor = minor(version).unwrap_or(u32::MAX);
    let at_or_below = ETCD_TAGS.iter().rev().find(|(of, _)| *of <= minor);
    at_or_below.unwrap_or(&ETCD_TAGS[0]).1
}

fn minor(version: &str) -> Option<u32> {
    version.strip_prefix('v').unwrap_or(version).split('.').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cluster(configuration: Value) -> ControlPlaneConfiguration {
        serde_json::from_value(configuration).unwrap()
    }

    #[test]
    fn names_what_kubeadm_pulls_in_its_order() {
        // As `kubeadm config images list` of 1.37.2 prints them.
        assert_eq!(
            required(&cluster(json!({"kubernetesVersion": "v1.37.2"}))),
            [
                "registry.k8s.io/kube-apiserver:v1.37.2",
                "registry.k8s.io/kube-controller-manager:v1.37.2",
                "registry.k8s.io/kube-scheduler:v1.37.2",
                "registry.k8s.io/kube-proxy:v1.37.2",
                "registry.k8s.io/coredns/coredns:v1.14.6",
                "registry.k8s.io/pause:3.10.2",
                "registry.k8s.io/etcd:3.7.0-0",
            ]
        );
    }

    #[test]
    fn leaves_out_what_the_cluster_leaves_to_others() {
        let without = json!({
            "kubernetesVersion": "v1.36.4",
            "proxy": {"disabled": true},
            "dns": {"disabled": true},
            "etcd": {"external": {"endpoints": ["https://etcd.example:2379"]}},
        });
        let images = required(&cluster(without));
        assert_eq!(images.len(), 4);
        assert_eq!(images[3], "registry.k8s.io/pause:3.10.2");
    }

    #[test]
    fn follows_repositories_and_tags() {
        let images = required(&cluster(json!({
            "kubernetesVersion": "v1.36.4+rke2r1",
            "imageRepository": "mirror.example:5000/k8s",
            "dns": {"imageRepository": "registry.k8s.io", "imageTag": "v1"},
            "etcd": {"local": {"imageRepository": "e.example", "imageTag": "3.6.0"}},
        })));
        assert_eq!(images[0], "mirror.example:5000/k8s/kube-apiserver:v1.36.4_rke2r1");
        assert_eq!(
            &images[4..],
            ["registry.k8s.io/coredns/coredns:v1", "mirror.example:5000/k8s/pause:3.10.2", "e.example/etcd:3.6.0"]
        );
        assert_eq!(required(&cluster(json!({"imageRepository": "m"})))[4], "m/coredns:v1.14.6");
    }

    #[test]
    fn takes_the_nearest_etcd_for_a_version_beyond_the_table() {
        for version in ["v1.20.0", "v1.36.0", "v1.37.2", "v1.99.0", "", "v", "1.x"] {
            assert_eq!(etcd_tag(version), "3.7.0-0", "{version}");
        }
        assert_eq!(version_tag("1.37.2"), "v1.37.2");
        assert_eq!(version_tag(""), "");
    }
}
