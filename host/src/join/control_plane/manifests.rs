//! Static Pods of a control plane, field by field those of `kubeadm join phase control-plane-prepare control-plane` and, for
//! etcd, of `etcd-join` (`cmd/kubeadm/app/phases/{controlplane,etcd}` of 1.37.2).
//!
//! [`build`] is pure: what it needs to know of the machine stands in an [`Environment`]. [`render`] applies the operator's
//! patches and gives the file's text. The files reach the kubelet's directory by [`files`].

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::LocalNode;
use super::configuration::ControlPlaneConfiguration;
use crate::patches::{PatchError, Patches, Target};
use crate::yaml;

mod api_server;
mod arguments;
mod controller_manager;
mod etcd;
pub mod files;
mod paths;
mod probe;
mod scheduler;
mod volumes;

pub(in crate::join) use etcd::metrics_url as etcd_metrics_url;
use volumes::Volumes;

/// kubeadm's directory of kubeconfigs.
const KUBERNETES_DIR: &str = "/etc/kubernetes";
/// Also where the cluster is IPv6.
const LOOPBACK: &str = "127.0.0.1";
/// Priority of the class `system-node-critical`.
const PRIORITY: u32 = 2_000_001_000;
/// What kubeadm calls the port that is probed.
const PROBE_PORT: &str = "probe-port";

/// A static Pod of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// `etcd`, stacked.
    Etcd,
}

impl Component {
    /// Name of the Pod, its container, its program and its manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Etcd => "etcd",
        }
    }
}

/// Which manifest is wanted, with what only it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manifest<'a> {
    /// `kube-apiserver.yaml`.
    ApiServer,
    /// `kube-controller-manager.yaml`.
    ControllerManager,
    /// `kube-scheduler.yaml`.
    Scheduler,
    /// `etcd.yaml`.
    Etcd(InitialCluster<'a>),
}

impl From<Component> for Target {
    fn from(component: Component) -> Self {
        match component {
            Component::ApiServer => Self::KubeApiserver,
            Component::ControllerManager => Self::KubeControllerManager,
            Component::Scheduler => Self::KubeScheduler,
            Component::Etcd => Self::Etcd,
        }
    }
}

/// How an etcd without data finds its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitialCluster<'a> {
    /// `--initial-cluster`: `NAME=PEER-URL`, separated by commas, this member included.
    pub members: &'a str,
    /// `--initial-cluster-state`: `existing` in a join; empty: etcd's default, for the first member of all.
    pub state: &'a str,
}

impl Manifest<'_> {
    /// Whose manifest it is.
    pub fn component(self) -> Component {
        match self {
            Self::ApiServer => Component::ApiServer,
            Self::ControllerManager => Component::ControllerManager,
            Self::Scheduler => Component::Scheduler,
            Self::Etcd(_) => Component::Etcd,
        }
    }
}

/// What the manifests follow beside the cluster's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Variables for the components of Kubernetes, name and value: see [`proxies`].
    pub proxies: Vec<(String, String)>,
    /// Which of [`CA_DIRECTORIES`] this machine has.
    pub ca_directories: Vec<&'static str>,
    /// Whether the cluster's CA certificate is here without its key: then the controller manager signs nothing.
    pub external_ca: bool,
    /// `timeouts.controlPlaneComponentHealthCheck`: how long a component may take to start.
    pub health_check: Duration,
}

/// Where files that `/etc/ssl/certs` links to may be; each is mounted if it exists.
pub use volumes::CA_DIRECTORIES;

/// The variables of kubeadm's own environment that it hands on: those that end in `_proxy`, in any case, and are not empty.
pub fn proxies(variables: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    variables.filter(|(name, value)| name.to_lowercase().ends_with("_proxy") && !value.is_empty()).collect()
}

/// The Pod, without patches.
///
/// # Panics
///
/// If etcd's is asked for where etcd is external.
pub fn build(
    manifest: Manifest<'_>,
    cluster: &ControlPlaneConfiguration,
    node: &LocalNode,
    environment: &Environment,
) -> Value {
    match manifest {
        Manifest::ApiServer => api_server::pod(cluster, node, environment),
        Manifest::ControllerManager => controller_manager::pod(cluster, environment),
        Manifest::Scheduler => scheduler::pod(cluster, environment),
        Manifest::Etcd(initial_cluster) => etcd::pod(cluster, node, environment, initial_cluster),
    }
}

/// The file's text: the Pod with the operator's patches.
///
/// # Errors
///
/// [`PatchError::Apply`].
///
/// # Panics
///
/// As [`build`].
pub fn render(
    manifest: Manifest<'_>,
    cluster: &ControlPlaneConfiguration,
    node: &LocalNode,
    environment: &Environment,
    patches: &Patches,
) -> Result<String, PatchError> {
    let mut pod = build(manifest, cluster, node, environment);
    patches.apply(manifest.component().into(), &mut pod)?;
    Ok(yaml::write(&pod))
}

/// What differs from component to component.
struct Parts {
    component: Component,
    /// Name and value.
    annotation: Option<(&'static str, String)>,
    image: String,
    command: Vec<String>,
    env: Vec<Value>,
    probes: probe::Probes,
    /// Quantities by resource.
    requests: Value,
    volumes: Volumes,
}

fn pod(parts: Parts) -> Value {
    let name = parts.component.name();
    let (volumes, mounts) = parts.volumes.into_lists();
    let mut container = json!({
        "command": parts.command,
        "image": parts.image,
        "imagePullPolicy": "IfNotPresent",
        "name": name,
        "ports": [{"containerPort": parts.probes.port, "name": PROBE_PORT, "protocol": "TCP"}],
        "resources": {"requests": parts.requests},
        "volumeMounts": mounts,
    });
    let fields = container.as_object_mut().expect("a mapping was written");
    parts.probes.write(fields);
    if !parts.env.is_empty() {
        fields.insert("env".into(), parts.env.into());
    }
    let mut metadata = json!({
        "labels": {"component": name, "tier": "control-plane"},
        "name": name,
        "namespace": "kube-system",
    });
    if let Some((key, value)) = parts.annotation {
        metadata["annotations"] = json!({ key: value });
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": [container],
            "hostNetwork": true,
            "priority": PRIORITY,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": volumes,
        },
        "status": {},
    })
}

/// Variables of a container, sorted by name; of several with one name the last counts.
fn env(proxies: &[(String, String)], extra: &[Value]) -> Vec<Value> {
    let proxies = proxies.iter().map(|(name, value)| json!({"name": name, "value": value}));
    let mut by_name = std::collections::BTreeMap::new();
    for variable in proxies.chain(extra.iter().cloned()) {
        let name = variable.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        by_name.insert(name, variable);
    }
    by_name.into_values().collect()
}

/// A mapping without the entries whose text is empty, as Go leaves them out.
fn without_empty(fields: Value) -> Value {
    match fields {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(_, value)| value != "").collect::<Map<_, _>>())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_the_variables_that_end_so() {
        let variables = [("HTTP_PROXY", "a"), ("No_Proxy", "b"), ("x_proxy", ""), ("PROXY", "c"), ("PROXY_URL", "d")];
        let found = proxies(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(found, [("HTTP_PROXY".to_owned(), "a".to_owned()), ("No_Proxy".to_owned(), "b".to_owned())]);
    }
}
