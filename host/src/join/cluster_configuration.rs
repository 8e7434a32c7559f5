//! The cluster's configuration: ConfigMaps `kubeadm-config` and `kubelet-config`.
//!
//! kubeadm reads `kube-proxy`, too, and on a worker uses nothing of it; a join here is spared the request. The
//! KubeletConfiguration stays a tree: what this program does not know reaches the kubelet as the cluster wrote it, where
//! kubeadm drops it. What `kubeadm init` stored has passed through kubeadm's types already (`0s` for unset durations), so
//! for its clusters the results are equal.

use std::net::{Ipv4Addr, Ipv6Addr};

use futures::future;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::cluster_paths::{self, PathRefused, Use};
use super::{Access, ClusterConfiguration, JoinContext};
use crate::api::retry::{Finding, Patience};
use crate::api::{ApiError, get};
use crate::error::Diagnose;
use crate::output::printable;

/// Phase id of what is told.
const PHASE: &str = "cluster-configuration";
/// Minor versions of the control plane that a worker joins.
const SUPPORTED_MINORS: std::ops::RangeInclusive<u32> = 34..=37;
/// kubeadm's default for `networking.serviceSubnet` has its DNS server here.
const DEFAULT_CLUSTER_DNS: &str = "10.96.0.10";
/// What the DNS server's address adds to that of its network.
const DNS_INDEX: u8 = 10;

/// Reads, checks and completes the cluster's configuration.
///
/// # Errors
///
/// [`ClusterConfigurationError`]; the machine is as it was.
pub async fn fetch(access: &Access, cx: &JoinContext) -> Result<ClusterConfiguration, ClusterConfigurationError> {
    let step = cx.reporter.step(PHASE, "read the cluster's configuration");
    let patience = Patience {
        reporter: &cx.reporter,
        phase: PHASE,
        what: "ConfigMaps `kubeadm-config` and `kubelet-config`",
        timeout: cx.settings.timeouts.kubernetes_api_call,
        fail_fast: cx.settings.fail_fast,
    };
    let both = async || {
        let kubeadm = read(access, "kubeadm-config", "ClusterConfiguration");
        let (kubeadm, kubelet) = future::join(kubeadm, read(access, "kubelet-config", "kubelet")).await;
        Ok((kubeadm?, kubelet?))
    };
    let (kubeadm, kubelet) = patience.until_ok(both).await?;
    let cluster = parse_cluster(&kubeadm)?;
    let minor = minor_version(&cluster.kubernetes_version)?;
    if minor < *SUPPORTED_MINORS.start() {
        return Err(ClusterConfigurationError::TooOld { version: cluster.kubernetes_version });
    }
    if minor > *SUPPORTED_MINORS.end() {
        let message = format!(
            "the cluster's version {} is newer than 1.{}, the newest that is known here",
            cluster.kubernetes_version,
            SUPPORTED_MINORS.end()
        );
        cx.reporter.warn(Some(PHASE), message);
    }
    let (kubelet, warnings) = complete_kubelet(&kubelet, &cluster)?;
    for warning in warnings {
        cx.reporter.warn(Some(PHASE), warning);
    }
    let configuration = ClusterConfiguration {
        cluster_name: cluster.name,
        kubernetes_version: cluster.kubernetes_version,
        certificates_dir: cluster.certificates_dir,
        kubeadm: Value::Object(cluster.written),
        kubelet,
    };
    check_paths(&configuration, cx)?;
    step.done(format!("cluster `{}`, {}", configuration.cluster_name, configuration.kubernetes_version));
    Ok(configuration)
}

async fn read(
    access: &Access,
    map: &'static str,
    key: &'static str,
) -> Result<String, Finding<ClusterConfigurationError>> {
    let found = get::<ConfigMap>(access.client(), Some("kube-system"), map).await.map_err(|source| {
        let may_pass = source.may_pass();
        let server = access.cluster.server.clone();
        let error = match source.status() {
            Some(401) => ClusterConfigurationError::CredentialRefused { server, source },
            _ => ClusterConfigurationError::Unread { map, server, source },
        };
        if may_pass { Finding::MayPass(error) } else { Finding::Final(error) }
    })?;
    let value = found.data.and_then(|mut data| data.remove(key));
    value.ok_or(Finding::Final(ClusterConfigurationError::NoKey { map, key }))
}

/// What is used of kubeadm's ClusterConfiguration, defaults filled in.
struct Cluster {
    name: String,
    kubernetes_version: String,
    certificates_dir: String,
    service_subnet: String,
    dns_domain: String,
    written: Map<String, Value>,
}

fn parse_cluster(text: &str) -> Result<Cluster, ClusterConfigurationError> {
    let map = "kubeadm-config";
    let tree = parse_tree(text, map)?;
    match (tree.get("apiVersion").and_then(Value::as_str), tree.get("kind").and_then(Value::as_str)) {
        (Some("kubeadm.k8s.io/v1beta4"), Some("ClusterConfiguration")) => {}
        (version, _) => {
            let version = printable(version.unwrap_or("none"));
            return Err(ClusterConfigurationError::Version { map, version, wanted: "kubeadm.k8s.io/v1beta4" });
        }
    }
    let text = |path: &[&str], default: &str| match lookup(&tree, path) {
        None | Some(Value::Null) => Ok(default.to_owned()),
        Some(Value::String(text)) if text.is_empty() => Ok(default.to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(ClusterConfigurationError::Field { map, field: path.join(".") }),
    };
    Ok(Cluster {
        name: text(&["clusterName"], "kubernetes")?,
        kubernetes_version: text(&["kubernetesVersion"], "")?,
        certificates_dir: text(&["certificatesDir"], "/etc/kubernetes/pki")?,
        service_subnet: text(&["networking", "serviceSubnet"], "10.96.0.0/12")?,
        dns_domain: text(&["networking", "dnsDomain"], "cluster.local")?,
        written: tree,
    })
}

fn parse_tree(text: &str, map: &'static str) -> Result<Map<String, Value>, ClusterConfigurationError> {
    match serde_saphyr::from_str::<Value>(text) {
        Ok(Value::Object(tree)) => Ok(tree),
        Ok(_) => Err(ClusterConfigurationError::Malformed { map, reason: "it is no mapping".into() }),
        Err(error) => {
            let place = error.location().map_or(String::new(), |place| format!(" at line {}", place.line()));
            Err(ClusterConfigurationError::Malformed { map, reason: format!("it is no YAML{place}") })
        }
    }
}

fn lookup<'a>(tree: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (last, parents) = path.split_last()?;
    let mut tree = tree;
    for parent in parents {
        tree = tree.get(*parent)?.as_object()?;
    }
    tree.get(*last)
}

/// Minor of `v1.<minor>…`.
pub(super) fn minor_version(version: &str) -> Result<u32, ClusterConfigurationError> {
    let minor = version.strip_prefix("v1.").and_then(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    minor.ok_or_else(|| ClusterConfigurationError::NoVersion { found: printable(version) })
}

/// kubeadm's defaults for a KubeletConfiguration; with what differs from them, as warnings.
fn complete_kubelet(text: &str, cluster: &Cluster) -> Result<(Value, Vec<String>), ClusterConfigurationError> {
    let map = "kubelet-config";
    let mut tree = parse_tree(text, map)?;
    match tree.get("apiVersion").and_then(Value::as_str) {
        Some("kubelet.config.k8s.io/v1beta1") => {}
        version => {
            let version = printable(version.unwrap_or("none"));
            return Err(ClusterConfigurationError::Version { map, version, wanted: "kubelet.config.k8s.io/v1beta1" });
        }
    }
    let ca = format!("{}/ca.crt", cluster.certificates_dir.trim_end_matches('/'));
    let dns = json!([dns_address(&cluster.service_subnet)]);
    let mut warnings = Vec::new();
    // Whether "" counts as unset: for text, not for pointers and lists.
    let defaults: [(&[&str], Value); 9] = [
        (&["staticPodPath"], json!("/etc/kubernetes/manifests")),
        (&["clusterDNS"], dns),
        (&["clusterDomain"], json!(cluster.dns_domain)),
        (&["authentication", "x509", "clientCAFile"], json!(ca)),
        (&["authentication", "anonymous", "enabled"], json!(false)),
        (&["authorization", "mode"], json!("Webhook")),
        (&["authentication", "webhook", "enabled"], json!(true)),
        (&["healthzBindAddress"], json!("127.0.0.1")),
        (&["healthzPort"], json!(10248)),
    ];
    for (path, default) in defaults {
        let slot = slot(&mut tree, path).ok_or_else(|| wrong(map, path))?;
        match slot {
            Value::Null => *slot = default,
            Value::String(text) if text.is_empty() => *slot = default,
            found if *found == default => {}
            found if std::mem::discriminant(found) != std::mem::discriminant(&default) => return Err(wrong(map, path)),
            found => warnings.push(format!(
                "KubeletConfiguration of the cluster has `{}: {}`; kubeadm recommends `{default}`",
                path.join("."),
                printable(&found.to_string())
            )),
        }
    }
    match tree.get("readOnlyPort") {
        None | Some(Value::Null) => {}
        Some(port) if port.as_u64() == Some(0) => {}
        Some(port) => warnings.push(format!(
            "KubeletConfiguration of the cluster has `readOnlyPort: {}`; kubeadm recommends `0`",
            printable(&port.to_string())
        )),
    }
    // The kubelet must ask for its own next certificates.
    tree.insert("rotateCertificates".into(), json!(true));
    let driver = tree.entry("cgroupDriver").or_insert(Value::Null);
    if driver.is_null() || driver.as_str() == Some("") {
        *driver = json!("systemd");
    }
    Ok((Value::Object(tree), warnings))
}

fn wrong(map: &'static str, path: &[&str]) -> ClusterConfigurationError {
    ClusterConfigurationError::Field { map, field: path.join(".") }
}

/// The place of a field, parents made where they are missing; none: a parent is no mapping.
fn slot<'a>(tree: &'a mut Map<String, Value>, path: &[&str]) -> Option<&'a mut Value> {
    let (last, parents) = path.split_last()?;
    let mut tree = tree;
    for parent in parents {
        let child = tree.entry(*parent).or_insert(Value::Null);
        if child.is_null() {
            *child = Value::Object(Map::new());
        }
        tree = child.as_object_mut()?;
    }
    Some(tree.entry(*last).or_insert(Value::Null))
}

/// Network address of the first service subnet plus 10; kubeadm's default where there is none.
fn dns_address(subnets: &str) -> String {
    let first = subnets.split(',').next().unwrap_or_default().trim();
    let address = first.split_once('/').and_then(|(address, prefix)| {
        let prefix: u32 = prefix.parse().ok()?;
        if let Ok(address) = address.parse::<Ipv4Addr>() {
            // Fewer than 4 host bits hold no eleventh address.
            let mask = u32::MAX.checked_shl(32u32.checked_sub(prefix)?).unwrap_or(0);
            return (prefix <= 28)
                .then(|| Ipv4Addr::from((u32::from(address) & mask) + u32::from(DNS_INDEX)).to_string());
        }
        let address: Ipv6Addr = address.parse().ok()?;
        let mask = u128::MAX.checked_shl(128u32.checked_sub(prefix)?).unwrap_or(0);
        (prefix <= 124).then(|| Ipv6Addr::from((u128::from(address) & mask) + u128::from(DNS_INDEX)).to_string())
    });
    address.unwrap_or_else(|| DEFAULT_CLUSTER_DNS.to_owned())
}

fn check_paths(configuration: &ClusterConfiguration, cx: &JoinContext) -> Result<(), ClusterConfigurationError> {
    cluster_paths::check("certificatesDir", &configuration.certificates_dir, Use::Written, &cx.node)?;
    let tree = configuration.kubelet.as_object().expect("a completed configuration is a mapping");
    let fields: [(&'static str, &[&str], Use); 6] = [
        ("staticPodPath", &["staticPodPath"], Use::Written),
        ("authentication.x509.clientCAFile", &["authentication", "x509", "clientCAFile"], Use::ReadCertificates),
        ("tlsCertFile", &["tlsCertFile"], Use::ReadCertificates),
        ("tlsPrivateKeyFile", &["tlsPrivateKeyFile"], Use::ReadCertificates),
        ("volumePluginDir", &["volumePluginDir"], Use::Written),
        ("podLogsDir", &["podLogsDir"], Use::Written),
    ];
    for (field, path, r#use) in fields {
        match lookup(tree, path) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(Value::String(text)) => cluster_paths::check(field, text, r#use, &cx.node)?,
            Some(_) => return Err(wrong("kubelet-config", path)),
        }
    }
    Ok(())
}

/// Why the cluster's configuration is not known, or not to be followed.
#[derive(Debug, Error)]
pub enum ClusterConfigurationError {
    /// No answer, or a refusal.
    #[error("cannot read ConfigMap `kube-system/{map}` from `{server}`, the server that discovery found")]
    Unread {
        /// Name.
        map: &'static str,
        /// URL.
        server: String,
        /// The cause.
        source: ApiError,
    },
    /// 401.
    #[error("`{server}` does not accept the credential for TLS bootstrap")]
    CredentialRefused {
        /// URL.
        server: String,
        /// The cause.
        source: ApiError,
    },
    /// The ConfigMap lacks its key.
    #[error("ConfigMap `kube-system/{map}` has no key `{key}`")]
    NoKey {
        /// Name.
        map: &'static str,
        /// Key.
        key: &'static str,
    },
    /// Not YAML, or no mapping.
    #[error("ConfigMap `kube-system/{map}` is malformed: {reason}")]
    Malformed {
        /// Name.
        map: &'static str,
        /// Why.
        reason: String,
    },
    /// A field of another type.
    #[error("`{field}` in ConfigMap `kube-system/{map}` has another type")]
    Field {
        /// Name.
        map: &'static str,
        /// Dotted.
        field: String,
    },
    /// Stored in another API version.
    #[error("ConfigMap `kube-system/{map}` has apiVersion `{version}`, not `{wanted}`")]
    Version {
        /// Name.
        map: &'static str,
        /// Printable.
        version: String,
        /// Group and version.
        wanted: &'static str,
    },
    /// `kubernetesVersion` is no `v1.<minor>…`.
    #[error("`kubernetesVersion` in ConfigMap `kube-system/kubeadm-config` is `{found}`")]
    NoVersion {
        /// Printable, possibly empty.
        found: String,
    },
    /// Older than what is supported.
    #[error("the cluster's version {version} is older than 1.34")]
    TooOld {
        /// For example `v1.33.1`.
        version: String,
    },
    /// A path is refused.
    #[error(transparent)]
    Path(#[from] PathRefused),
}

impl Diagnose for ClusterConfigurationError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unread { source, .. } => match source.status() {
                Some(403) => "cluster-configuration-forbidden",
                Some(404) => "cluster-configuration-missing",
                _ => source.code(),
            },
            Self::CredentialRefused { .. } => "cluster-configuration-unauthorized",
            Self::NoKey { .. } => "cluster-configuration-no-key",
            Self::Malformed { .. } => "cluster-configuration-malformed",
            Self::Field { .. } => "cluster-configuration-field",
            Self::Version { .. } => "cluster-configuration-api-version",
            Self::NoVersion { .. } => "cluster-configuration-no-version",
            Self::TooOld { .. } => "cluster-configuration-too-old",
            Self::Path(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unread { source, map, .. } => match source.status() {
                Some(403) => {
                    "the token's group must be `system:bootstrappers:kubeadm:default-node-token`; create one with \
                              `kubeadm token create`"
                        .into()
                }
                Some(404) => format!(
                    "`kubeadm init phase upload-config {}` on a control-plane node makes `{map}`",
                    if *map == "kubeadm-config" { "kubeadm" } else { "kubelet" }
                ),
                _ => return source.hint(),
            },
            Self::CredentialRefused { .. } => {
                "the token may have expired just now, or lack the usage `authentication`: `kubeadm token list` shows it"
                    .into()
            }
            Self::Version { map: "kubeadm-config", .. } => {
                "`kubeadm upgrade apply` on a control-plane node stores it in the current version".into()
            }
            Self::NoKey { map, .. }
            | Self::Malformed { map, .. }
            | Self::Field { map, .. }
            | Self::Version { map, .. } => {
                format!("`kubectl -n kube-system get configmap {map} -o yaml` shows it")
            }
            Self::NoVersion { .. } => "`kubectl -n kube-system get configmap kubeadm-config -o yaml` shows it".into(),
            Self::TooOld { .. } => "join with the `kubeadm` of the cluster's version, or upgrade the cluster".into(),
            Self::Path(error) => return error.hint(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        parse_cluster("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.37.2\n")
            .unwrap()
    }

    #[test]
    fn fills_in_kubeadms_defaults_and_keeps_what_it_does_not_know() {
        let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfutureField: {a: [1, 0s]}\n\
                    syncFrequency: 0s\n";
        let (tree, warnings) = complete_kubelet(text, &cluster()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let wanted = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "futureField": {"a": [1, "0s"]},
            "syncFrequency": "0s",
            "staticPodPath": "/etc/kubernetes/manifests",
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            "authentication": {
                "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
            },
            "authorization": {"mode": "Webhook"},
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": 10248,
            "rotateCertificates": true,
            "cgroupDriver": "systemd",
        });
        assert_eq!(tree, wanted);
    }

    #[test]
    fn keeps_what_differs_and_warns_but_forces_certificate_rotation() {
        let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nclusterDNS: [10.0.0.10, 10.0.0.11]\nhealthzPort: \
                    1\nreadOnlyPort: 10255\nrotateCertificates: false\ncgroupDriver: cgroupfs\nauthentication: \
                    {anonymous: {enabled: true}}\n";
        let (tree, warnings) = complete_kubelet(text, &cluster()).unwrap();
        assert_eq!(tree["clusterDNS"], json!(["10.0.0.10", "10.0.0.11"]));
        assert_eq!(tree["authentication"]["anonymous"]["enabled"], json!(true));
        assert_eq!(tree["rotateCertificates"], json!(true));
        assert_eq!(tree["cgroupDriver"], json!("cgroupfs"));
        assert_eq!(warnings.len(), 4, "{warnings:#?}");
    }

    #[test]
    fn refuses_fields_of_another_type_and_other_versions() {
        let complete = |text: &str| complete_kubelet(text, &cluster()).unwrap_err();
        let version = "apiVersion: kubelet.config.k8s.io/v1beta1\n";
        assert!(matches!(complete("a: b"), ClusterConfigurationError::Version { .. }));
        assert!(matches!(complete("[a]"), ClusterConfigurationError::Malformed { .. }));
        assert!(matches!(complete("a: [b"), ClusterConfigurationError::Malformed { .. }));
        for text in ["authentication: x", "clusterDNS: x", "healthzPort: [1]", "authorization: {mode: {}}"] {
            let text = format!("{version}{text}\n");
            assert!(matches!(complete(&text), ClusterConfigurationError::Field { .. }), "{text}");
        }
        let old = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n";
        assert!(matches!(parse_cluster(old), Err(ClusterConfigurationError::Version { .. })));
    }

    #[test]
    fn finds_the_dns_address_of_a_service_subnet() {
        for (subnets, wanted) in [
            ("10.96.0.0/12", "10.96.0.10"),
            ("172.20.5.9/16,fd00::/108", "172.20.0.10"),
            ("fd00:1::/108", "fd00:1::a"),
            ("0.0.0.0/0", "0.0.0.10"),
            ("10.0.0.0/29", DEFAULT_CLUSTER_DNS),
            ("10.0.0.0/28", "10.0.0.10"),
            ("10.0.0.0/99", DEFAULT_CLUSTER_DNS),
            ("x", DEFAULT_CLUSTER_DNS),
        ] {
            assert_eq!(dns_address(subnets), wanted, "{subnets}");
        }
    }

    #[test]
    fn reads_versions() {
        for (version, minor) in [("v1.37.2", 37), ("v1.34.0-rc.1+abc", 34), ("v1.40", 40)] {
            assert_eq!(minor_version(version).unwrap(), minor);
        }
        for version in ["", "1.37.2", "v2.1.0", "v1.", "v1.x", "v1.99999999999"] {
            assert!(minor_version(version).is_err(), "{version}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(text: String, subnet: String) {
            let _ = parse_cluster(&text);
            let _ = complete_kubelet(&format!("apiVersion: kubelet.config.k8s.io/v1beta1\n{text}"), &cluster());
            let _ = dns_address(&subnet);
            let _ = minor_version(&subnet);
        }
    }
}
