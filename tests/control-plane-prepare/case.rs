//! A configuration of the corpus, and what mortise makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mortise::join::control_plane::LocalNode;
use mortise::join::control_plane::configuration::{ControlPlaneConfiguration, Etcd};
use mortise::join::control_plane::manifests::{CA_DIRECTORIES, Environment, InitialCluster, Manifest, proxies, render};
use mortise::patches::Patches;
use serde::Deserialize;
use serde_json::{Value, json};

/// The version at which the expected files were written.
pub(crate) const VERSION: &str = "v1.37.2";
/// The member that a new etcd joins.
pub(crate) const SEED: &str = "seed=https://192.0.2.1:2380";

/// `corpus/NAME.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    #[serde(skip)]
    pub(crate) name: String,
    /// What it is about.
    #[expect(dead_code, reason = "for the reader of the file")]
    about: String,
    /// ClusterConfiguration without type and, unless the case is about that, version and endpoint.
    #[serde(default)]
    cluster: Value,
    #[serde(default)]
    pub(crate) join: Join,
    /// Of kubeadm's process.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    /// Directories of CA certificates that the machine has.
    #[serde(default)]
    pub(crate) directories: Vec<String>,
    /// File name and text.
    #[serde(default)]
    pub(crate) patches: BTreeMap<String, String>,
    /// The CA's key is elsewhere.
    #[serde(default)]
    pub(crate) without_ca_key: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Join {
    pub(crate) name: String,
    pub(crate) advertise_address: IpAddr,
    pub(crate) bind_port: u16,
    /// `timeouts.controlPlaneComponentHealthCheck`.
    pub(crate) health_check_seconds: u64,
}

impl Default for Join {
    fn default() -> Self {
        Self {
            name: "second".into(),
            advertise_address: IpAddr::from([192, 0, 2, 2]),
            bind_port: 6443,
            health_check_seconds: 240,
        }
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/control-plane-prepare")
}

impl Case {
    pub(crate) fn all() -> Vec<Self> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(directory().join("corpus")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let case: Self = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { name: path.file_stem().unwrap().to_str().unwrap().to_owned(), ..case }
    }

    /// Versions it is tried at: both, unless it names its own.
    pub(crate) fn versions(&self) -> &'static [&'static str] {
        if self.cluster.get("kubernetesVersion").is_some() { &[VERSION] } else { &[VERSION, super::OLDER] }
    }

    /// The cluster's configuration as in the ConfigMap.
    pub(crate) fn configuration(&self, version: &str) -> Value {
        let mut configuration = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": version,
            "controlPlaneEndpoint": "api.example:6443",
        });
        if let Value::Object(fields) = &self.cluster {
            configuration.as_object_mut().unwrap().extend(fields.clone());
        }
        configuration
    }

    /// Whether etcd is stacked.
    pub(crate) fn has_etcd(&self) -> bool {
        self.cluster.pointer("/etcd/external").is_none()
    }

    pub(crate) fn expected_path(&self) -> PathBuf {
        directory().join("expected").join(format!("{}.yaml", self.name))
    }

    /// kubeadm's files at a version: only tags of images tell one from another.
    pub(crate) fn expected(&self, version: &str) -> String {
        let path = self.expected_path();
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if version == VERSION { text } else { text.replace(&format!(":{VERSION}\n"), &format!(":{version}\n")) }
    }

    /// mortise's files.
    pub(crate) fn ours(&self, version: &str) -> String {
        let cluster: ControlPlaneConfiguration = serde_json::from_value(self.configuration(version)).unwrap();
        let node = LocalNode {
            name: self.join.name.clone(),
            advertise_address: self.join.advertise_address,
            bind_port: self.join.bind_port,
        };
        let environment = Environment {
            proxies: proxies(self.environment.clone().into_iter()),
            ca_directories: CA_DIRECTORIES
                .into_iter()
                .filter(|path| self.directories.iter().any(|there| there == path))
                .collect(),
            external_ca: self.without_ca_key,
            health_check: Duration::from_secs(self.join.health_check_seconds),
        };
        let members = format!("{SEED},{}={}", node.name, node.etcd_peer_url());
        let mut manifests = vec![Manifest::ApiServer, Manifest::ControllerManager, Manifest::Scheduler];
        if matches!(cluster.etcd, Etcd::Local(_)) {
            manifests.push(Manifest::Etcd(InitialCluster { members: &members, state: "existing" }));
        }
        let patches = self.loaded_patches();
        let mut text = String::new();
        let mut failed = false;
        for manifest in manifests {
            let name = manifest.component().name();
            // etcd's is written by another phase; of the others kubeadm writes those before the one it refuses.
            let rendered = if failed && !matches!(manifest, Manifest::Etcd(_)) {
                None
            } else {
                render(manifest, &cluster, &node, &environment, &patches).ok()
            };
            failed |= rendered.is_none();
            text.push_str(&rendered.map_or_else(|| refused(name), |rendered| document(name, &rendered)));
        }
        text
    }

    fn loaded_patches(&self) -> Patches {
        let directory = tempfile::tempdir().unwrap();
        for (name, patch) in &self.patches {
            fs::write(directory.path().join(name), patch).unwrap();
        }
        Patches::load(directory.path()).unwrap()
    }
}

/// A file among those of a case.
pub(crate) fn document(name: &str, text: &str) -> String {
    format!("---\n# /etc/kubernetes/manifests/{name}.yaml\n{text}")
}

/// In place of a file that is not written because a patch does not apply.
pub(crate) fn refused(name: &str) -> String {
    format!("---\n# {name} is refused\n")
}
