//! kubeadm's `ClusterConfiguration` (`kubeadm.k8s.io/v1beta4`), as far as control planes follow it.
//!
//! Read from ConfigMap `kube-system/kubeadm-config`, kubeadm's defaults filled in (`SetDefaults_ClusterConfiguration`). Unknown
//! fields are passed over, as in kubeadm: a newer kubeadm may have written them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::config::Arg;
use crate::error::Diagnose;
use crate::join::cluster_configuration::minor_version;
use crate::join::cluster_paths::{self, PathRefused, Use};
use crate::node::Node;
use crate::output::printable;

/// kubeadm's ClusterConfiguration. Unset texts hold their default.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlPlaneConfiguration {
    /// For example `v1.37.2`; the tag of the components' images.
    pub kubernetes_version: String,
    /// Default `kubernetes`.
    #[serde(deserialize_with = "cluster_name")]
    pub cluster_name: String,
    /// Default `/etc/kubernetes/pki`. Checked: see `join::cluster_paths`.
    #[serde(deserialize_with = "certificates_dir")]
    pub certificates_dir: String,
    /// Default `registry.k8s.io`.
    #[serde(deserialize_with = "image_repository")]
    pub image_repository: String,
    /// `host` or `host:port`; empty: the cluster takes no further control planes.
    pub control_plane_endpoint: String,
    /// Subnets and the domain.
    pub networking: Networking,
    /// kube-apiserver.
    pub api_server: ApiServer,
    /// kube-controller-manager.
    pub controller_manager: Component,
    /// kube-scheduler.
    pub scheduler: Component,
    /// Stacked or external.
    pub etcd: Etcd,
    /// CoreDNS; only its image matters to a join.
    pub dns: Addon,
    /// kube-proxy; only whether it is wanted matters to a join.
    pub proxy: Addon,
    /// Keys that are generated.
    pub encryption_algorithm: EncryptionAlgorithm,
    /// Of leaf certificates; default one year.
    #[serde(deserialize_with = "go_duration")]
    pub certificate_validity_period: Duration,
    /// Of CAs; default ten years.
    #[serde(rename = "caCertificateValidityPeriod", deserialize_with = "go_duration")]
    pub ca_certificate_validity_period: Duration,
    /// kubeadm's own gates, not the components'.
    pub feature_gates: BTreeMap<String, bool>,
}

impl Default for ControlPlaneConfiguration {
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 24 * 3600);
        Self {
            kubernetes_version: String::new(),
            cluster_name: "kubernetes".into(),
            certificates_dir: "/etc/kubernetes/pki".into(),
            image_repository: "registry.k8s.io".into(),
            control_plane_endpoint: String::new(),
            networking: Networking::default(),
            api_server: ApiServer::default(),
            controller_manager: Component::default(),
            scheduler: Component::default(),
            etcd: Etcd::default(),
            dns: Addon::default(),
            proxy: Addon::default(),
            encryption_algorithm: EncryptionAlgorithm::default(),
            certificate_validity_period: days(365),
            ca_certificate_validity_period: days(3650),
            feature_gates: BTreeMap::new(),
        }
    }
}

impl ControlPlaneConfiguration {
    /// From the stored document.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::Malformed`].
    pub fn of(stored: &serde_json::Value) -> Result<Self, ConfigurationError> {
        Self::deserialize(stored)
            .map_err(|error| ConfigurationError::Malformed { reason: printable(&error.to_string()) })
    }

    /// Checks what a control plane would follow before anything is done.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::Version`], [`ConfigurationError::Path`], [`ConfigurationError::Rootless`].
    pub fn check(&self, node: &Node) -> Result<(), ConfigurationError> {
        if !minor_version(&self.kubernetes_version).is_ok_and(|minor| SUPPORTED_MINORS.contains(&minor)) {
            return Err(ConfigurationError::Version { found: printable(&self.kubernetes_version) });
        }
        if self.feature_gates.get(ROOTLESS) == Some(&true) {
            return Err(ConfigurationError::Rootless);
        }
        cluster_paths::check("certificatesDir", &self.certificates_dir, Use::Written, node)?;
        if let Etcd::Local(etcd) = &self.etcd {
            cluster_paths::check("etcd.local.dataDir", &etcd.data_dir, Use::Written, node)?;
        }
        Ok(())
    }
}

/// Minor versions whose manifests and images are known here; of a newer one they are not, so that a control plane is refused
/// where a worker is only warned.
const SUPPORTED_MINORS: RangeInclusive<u32> = 36..=37;
/// kubeadm's gate, alpha and deprecated: it makes users and groups and hands keys to them.
const ROOTLESS: &str = "RootlessControlPlane";

/// Why no control plane can follow the cluster's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigurationError {
    /// A field of another type, or a word that nobody knows.
    #[error("ClusterConfiguration in ConfigMap `kube-system/kubeadm-config` cannot be followed: {reason}")]
    Malformed {
        /// What does not fit.
        reason: String,
    },
    /// A version whose control plane is not known here.
    #[error(
        "the cluster's version is `{found}`; control planes of 1.{} to 1.{} can be made here",
        SUPPORTED_MINORS.start(),
        SUPPORTED_MINORS.end()
    )]
    Version {
        /// Printable.
        found: String,
    },
    /// A path.
    #[error(transparent)]
    Path(#[from] PathRefused),
    /// Users and groups of the machine, made by a gate that kubeadm deprecates and never left alpha.
    #[error("the cluster's configuration turns on kubeadm's feature gate `{ROOTLESS}`, which mortise does not follow")]
    Rootless,
}

impl Diagnose for ConfigurationError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "cluster-configuration-field",
            Self::Version { .. } => "cluster-version-unsupported",
            Self::Path(refused) => refused.code(),
            Self::Rootless => "cluster-rootless-control-plane",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed { .. } => {
                Some("`kubectl -n kube-system get configmap kubeadm-config -o yaml` shows it".into())
            }
            Self::Path(refused) => refused.hint(),
            Self::Version { .. } | Self::Rootless => Some("join this node with `kubeadm join --control-plane`".into()),
        }
    }
}

/// `networking`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Networking {
    /// One CIDR, or one of each family, separated by a comma; default `10.96.0.0/12`.
    #[serde(deserialize_with = "service_subnet")]
    pub service_subnet: String,
    /// As above; empty: the controller manager allocates none.
    pub pod_subnet: String,
    /// Default `cluster.local`.
    #[serde(deserialize_with = "dns_domain")]
    pub dns_domain: String,
}

impl Default for Networking {
    fn default() -> Self {
        Self { service_subnet: "10.96.0.0/12".into(), pod_subnet: String::new(), dns_domain: "cluster.local".into() }
    }
}

/// `controllerManager`, `scheduler`, and the same fields of `apiServer`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Component {
    /// Follow the defaults, in this order; a default of the same name is dropped.
    #[serde(deserialize_with = "list")]
    pub extra_args: Vec<Arg>,
    /// Replace a volume of the same name.
    #[serde(deserialize_with = "list")]
    pub extra_volumes: Vec<HostPathMount>,
    /// `core/v1` EnvVar, as Go writes it.
    #[serde(deserialize_with = "env_vars")]
    pub extra_envs: Vec<serde_json::Value>,
}

/// `apiServer`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServer {
    /// What all components have.
    #[serde(flatten)]
    pub component: Component,
    /// Further names of the serving certificate: DNS names, wildcards or IP addresses.
    #[serde(rename = "certSANs")]
    pub cert_sans: Vec<String>,
}

/// `extraVolumes[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostPathMount {
    /// Of the volume.
    pub name: String,
    /// On the machine.
    pub host_path: String,
    /// In the container.
    pub mount_path: String,
    /// Whether the container may not write.
    pub read_only: bool,
    /// `core/v1` HostPathType; empty: nothing is checked.
    pub path_type: String,
}

/// `etcd`: where neither is written, stacked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", from = "WrittenEtcd")]
pub enum Etcd {
    /// A member on each control plane.
    Local(LocalEtcd),
    /// A cluster of the operator's own.
    External(ExternalEtcd),
}

impl Default for Etcd {
    fn default() -> Self {
        Self::Local(LocalEtcd::default())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenEtcd {
    local: Option<LocalEtcd>,
    external: Option<ExternalEtcd>,
}

impl From<WrittenEtcd> for Etcd {
    fn from(written: WrittenEtcd) -> Self {
        // kubeadm refuses both at `init`; where both got in, `local` decides as in its phases.
        match (written.local, written.external) {
            (None, Some(external)) => Self::External(external),
            (local, _) => Self::Local(local.unwrap_or_default()),
        }
    }
}

/// `etcd.local`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalEtcd {
    /// Empty: the cluster's.
    pub image_repository: String,
    /// Empty: kubeadm's for the version.
    pub image_tag: String,
    /// Default `/var/lib/etcd`. Checked: see `join::cluster_paths`.
    #[serde(deserialize_with = "etcd_data_dir")]
    pub data_dir: String,
    /// Follow the defaults, in this order; a default of the same name is dropped.
    #[serde(deserialize_with = "list")]
    pub extra_args: Vec<Arg>,
    /// `core/v1` EnvVar, as Go writes it.
    #[serde(deserialize_with = "env_vars")]
    pub extra_envs: Vec<serde_json::Value>,
    /// Further names of the serving certificate.
    #[serde(rename = "serverCertSANs")]
    pub server_cert_sans: Vec<String>,
    /// Further names of the peer certificate.
    #[serde(rename = "peerCertSANs")]
    pub peer_cert_sans: Vec<String>,
}

impl Default for LocalEtcd {
    fn default() -> Self {
        Self {
            image_repository: String::new(),
            image_tag: String::new(),
            data_dir: "/var/lib/etcd".into(),
            extra_args: Vec::new(),
            extra_envs: Vec::new(),
            server_cert_sans: Vec::new(),
            peer_cert_sans: Vec::new(),
        }
    }
}

/// `etcd.external`. Files are on the machine, or come from the Secret `kubeadm-certs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalEtcd {
    /// URLs.
    pub endpoints: Vec<String>,
    /// Path; may be empty.
    pub ca_file: String,
    /// As above.
    pub cert_file: String,
    /// As above.
    pub key_file: String,
}

/// `dns`, `proxy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Addon {
    /// Empty: the cluster's.
    pub image_repository: String,
    /// Empty: kubeadm's for the version.
    pub image_tag: String,
    /// Whether kubeadm leaves it to others.
    pub disabled: bool,
}

/// `encryptionAlgorithm`: the keys that kubeadm generates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum EncryptionAlgorithm {
    /// `RSA-2048`, also where nothing is written.
    #[default]
    #[serde(rename = "RSA-2048", alias = "")]
    Rsa2048,
    /// `RSA-3072`.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
    /// `RSA-4096`.
    #[serde(rename = "RSA-4096")]
    Rsa4096,
    /// `ECDSA-P256`.
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// `ECDSA-P384`.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
}

impl EncryptionAlgorithm {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::Rsa4096 => "RSA-4096",
            Self::EcdsaP256 => "ECDSA-P256",
            Self::EcdsaP384 => "ECDSA-P384",
        }
    }
}

/// A text where an empty one counts as unset, as in Go, whose type has no pointer there.
fn filled<'de, D: Deserializer<'de>>(deserializer: D, default: &str) -> Result<String, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    Ok(if text.is_empty() { default.to_owned() } else { text })
}

fn cluster_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    filled(deserializer, "kubernetes")
}

fn certificates_dir<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    filled(deserializer, "/etc/kubernetes/pki")
}

fn image_repository<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    filled(deserializer, "registry.k8s.io")
}

fn service_subnet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    filled(deserializer, "10.96.0.0/12")
}

fn dns_domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    filled(deserializer, "cluster.local")
}

fn etcd_data_dir<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    filled(deserializer, "/var/lib/etcd")
}

/// A list where null counts as empty, as in Go.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn env_vars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<serde_json::Value>, D::Error> {
    let written = Option::<Vec<serde_json::Value>>::deserialize(deserializer)?.unwrap_or_default();
    let typed = written.iter().map(|variable| {
        let mut variable = crate::patches::env_var(variable).map_err(serde::de::Error::custom)?;
        // The one default: `SetDefaults_EnvVar`.
        if let Some(serde_json::Value::Object(field)) = variable.pointer_mut("/valueFrom/fieldRef") {
            field.entry("apiVersion").or_insert_with(|| "v1".into());
        }
        Ok(variable)
    });
    typed.collect()
}

fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::config::go_duration(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no duration")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_written_has_kubeadms_default() {
        let read: ControlPlaneConfiguration = serde_json::from_value(json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": "v1.37.2",
            "clusterName": "",
            "networking": {"dnsDomain": ""},
            "apiServer": {},
        }))
        .unwrap();
        let default = ControlPlaneConfiguration { kubernetes_version: "v1.37.2".into(), ..Default::default() };
        assert_eq!(read, default);
    }

    #[test]
    fn every_field_that_a_join_follows_is_read() {
        let read: ControlPlaneConfiguration = serde_json::from_value(json!({
            "certificateValidityPeriod": "48h0m0s",
            "encryptionAlgorithm": "ECDSA-P384",
            "apiServer": {
                "certSANs": ["a.example"],
                "extraArgs": [{"name": "v", "value": "4"}],
                "extraVolumes": [{"name": "audit", "hostPath": "/a", "mountPath": "/b", "readOnly": true, "pathType": "File"}],
                "extraEnvs": [{"name": "A", "value": "1"}],
            },
            "etcd": {"local": {"dataDir": "", "serverCertSANs": ["s"], "peerCertSANs": ["p"]}},
        }))
        .unwrap();
        assert_eq!(read.certificate_validity_period, Duration::from_secs(48 * 3600));
        assert_eq!(read.encryption_algorithm, EncryptionAlgorithm::EcdsaP384);
        assert_eq!(read.api_server.cert_sans, ["a.example"]);
        assert_eq!(read.api_server.component.extra_args[0].value, "4");
        assert!(read.api_server.component.extra_volumes[0].read_only);
        let Etcd::Local(etcd) = read.etcd else { panic!("stacked") };
        assert_eq!(
            (&*etcd.data_dir, &*etcd.server_cert_sans[0], &*etcd.peer_cert_sans[0]),
            ("/var/lib/etcd", "s", "p")
        );
    }

    #[test]
    fn an_external_etcd_is_one_without_a_local_one() {
        let external = json!({"etcd": {"external": {"endpoints": ["https://e:2379"], "caFile": "/ca"}}});
        let read: ControlPlaneConfiguration = serde_json::from_value(external).unwrap();
        assert!(matches!(read.etcd, Etcd::External(etcd) if etcd.ca_file == "/ca"));
    }

    #[test]
    fn refuses_what_it_does_not_follow() {
        let (_directory, node) = crate::api::scripted::test_node();
        for (mut configuration, code) in [
            (json!({"kubernetesVersion": "v1.35.9"}), Some("cluster-version-unsupported")),
            (json!({"kubernetesVersion": "v1.38.0"}), Some("cluster-version-unsupported")),
            (json!({"kubernetesVersion": "v1.36.0"}), None),
            (json!({"featureGates": {"RootlessControlPlane": true}}), Some("cluster-rootless-control-plane")),
            (json!({"featureGates": {"RootlessControlPlane": false}}), None),
            (json!({"certificatesDir": "/etc/cron.d"}), Some("cluster-path-refused")),
            (json!({"etcd": {"local": {"dataDir": "/usr/bin"}}}), Some("cluster-path-refused")),
            (json!({"certificatesDir": "/data/pki", "etcd": {"local": {"dataDir": "/data/etcd"}}}), None),
        ] {
            if configuration.get("kubernetesVersion").is_none() {
                configuration["kubernetesVersion"] = json!("v1.37.2");
            }
            let read: ControlPlaneConfiguration = serde_json::from_value(configuration.clone()).unwrap();
            assert_eq!(read.check(&node).err().map(|refused| refused.code()), code, "{configuration}");
        }
    }

    #[test]
    fn variables_are_as_go_writes_them() {
        let written =
            json!({"scheduler": {"extraEnvs": [{"name": "A", "value": "", "unknown": 1}], "extraArgs": null}});
        let read: ControlPlaneConfiguration = serde_json::from_value(written).unwrap();
        assert_eq!(read.scheduler.extra_envs, [json!({"name": "A"})]);
        let wrong = json!({"scheduler": {"extraEnvs": [{"name": "A", "value": 1}]}});
        assert!(serde_json::from_value::<ControlPlaneConfiguration>(wrong).is_err());
    }
}
