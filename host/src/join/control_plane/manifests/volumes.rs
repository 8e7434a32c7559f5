//! Directories and files of the machine that a component sees.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::configuration::{ExternalEtcd, HostPathMount};
use super::Environment;
use super::paths::dir;

/// In this order in kubeadm; the volumes are sorted by name in the end.
pub const CA_DIRECTORIES: [&str; 5] = [
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];
const CA_CERTIFICATES: &str = "/etc/ssl/certs";
const DIRECTORY: &str = "DirectoryOrCreate";
const FILE: &str = "FileOrCreate";

/// Volumes with their mounts, one a name.
#[derive(Default)]
pub(super) struct Volumes {
    by_name: BTreeMap<String, (Value, Value)>,
    /// Names in the order of their mounts, where that is not by name.
    mount_order: Option<Vec<&'static str>>,
}

impl Volumes {
    /// What the API server and the controller manager see of certificates.
    pub(super) fn with_certificates(certificates_dir: &str, environment: &Environment) -> Self {
        let mut volumes = Self::default();
        volumes.directory("k8s-certs", certificates_dir);
        volumes.directory("ca-certs", CA_CERTIFICATES);
        for path in &environment.ca_directories {
            volumes.directory(&path[1..].replace('/', "-"), path);
        }
        volumes
    }

    /// etcd's: it writes to them.
    pub(super) fn of_etcd(data_dir: &str, certificates_dir: &str) -> Self {
        let mut volumes = Self { mount_order: Some(vec!["etcd-data", "etcd-certs"]), ..Self::default() };
        let certificates = format!("{certificates_dir}/etcd");
        for (name, path) in [("etcd-data", data_dir), ("etcd-certs", &certificates)] {
            volumes.add(name, path, path, false, DIRECTORY);
        }
        volumes
    }

    /// The component's kubeconfig.
    pub(super) fn add_kubeconfig(&mut self, path: &str) {
        self.add("kubeconfig", path, path, true, FILE);
    }

    /// The directories of the files by which an external etcd is reached.
    pub(super) fn add_external_etcd(&mut self, etcd: &ExternalEtcd, certificates_dir: &str) {
        for (n, directory) in external_directories(etcd, certificates_dir).iter().enumerate() {
            self.directory(&format!("etcd-certs-{n}"), directory);
        }
    }

    /// The operator's, which replace what has their name.
    pub(super) fn add_extra(&mut self, extra: &[HostPathMount]) {
        for volume in extra {
            self.add(&volume.name, &volume.host_path, &volume.mount_path, volume.read_only, &volume.path_type);
        }
    }

    fn directory(&mut self, name: &str, path: &str) {
        self.add(name, path, path, true, DIRECTORY);
    }

    fn add(&mut self, name: &str, host_path: &str, mount_path: &str, read_only: bool, path_type: &str) {
        let volume = json!({"hostPath": {"path": host_path, "type": path_type}, "name": name});
        let mut mount = json!({"mountPath": mount_path, "name": name});
        if read_only {
            mount["readOnly"] = true.into();
        }
        self.by_name.insert(name.to_owned(), (volume, mount));
    }

    /// Volumes and mounts.
    pub(super) fn into_lists(self) -> (Vec<Value>, Vec<Value>) {
        let mounts = match &self.mount_order {
            Some(names) => {
                names.iter().filter_map(|name| self.by_name.get(*name)).map(|(_, mount)| mount.clone()).collect()
            }
            None => self.by_name.values().map(|(_, mount)| mount.clone()).collect(),
        };
        (self.by_name.into_values().map(|(volume, _)| volume).collect(), mounts)
    }
}

/// Directories that no other volume holds, no one below another; "below" is kubeadm's: a prefix of the text.
fn external_directories(etcd: &ExternalEtcd, certificates_dir: &str) -> BTreeSet<String> {
    let mut directories = BTreeSet::new();
    let mounted = CA_DIRECTORIES.into_iter().chain([CA_CERTIFICATES, certificates_dir]);
    for directory in [&etcd.ca_file, &etcd.cert_file, &etcd.key_file].map(|file| dir(file)) {
        if directory == "." || mounted.clone().any(|mounted| directory.starts_with(mounted)) {
            continue;
        }
        directories.retain(|other: &String| !other.starts_with(&directory));
        if !directories.iter().any(|other| directory.starts_with(other.as_str())) {
            directories.insert(directory);
        }
    }
    directories
}
