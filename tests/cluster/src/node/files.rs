//! The files a node starts with: its identity, containerd's and the Pod network's configuration, and its units.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::NodeSpec;
use super::mounts::on_disk;
use crate::build::PAUSE_IMAGE;
use crate::enter::NODE_BINARIES;
use crate::units::UNIT_DIRECTORY;

const KUBELET_UNIT: &str = "\
[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=BIN/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
";

const KUBELET_DROP_IN: &str = r#"# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# This is a file that "kubeadm init" and "kubeadm join" generates at runtime, populating the KUBELET_KUBEADM_ARGS variable dynamically
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
# This is a file that the user can use for overrides of the kubelet args as a last resort.
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=BIN/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"#;

const CONTAINERD_UNIT: &str = "\
[Unit]
Description=containerd container runtime

[Service]
ExecStart=BIN/containerd --config /etc/containerd/config.toml
Type=notify
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target
";

/// `restrict_oom_score_adj`: a node may live where scores cannot be lowered. The plugin `opt` would make `/opt/containerd`
/// on this machine.
const CONTAINERD_CONFIG: &str = r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "PAUSE"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"
"#;

const CNI_CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"mortise","plugins":[{"type":"ptp","ipam":{"type":"host-local",
"ranges":[[{"subnet":"10.244.SUBNET.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
"#;

/// Writes what a fresh node has, from inside it.
pub(crate) fn write(spec: &NodeSpec) -> Result<()> {
    let name = &spec.record.name;
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for (address, name) in &spec.hosts {
        hosts.push_str(&format!("{address} {name}\n"));
    }
    let unit = |text: &str| text.replace("BIN", NODE_BINARIES);
    let units = Path::new(UNIT_DIRECTORY);
    for (path, text) in [
        (Path::new("/etc/hosts").to_owned(), hosts),
        (Path::new("/etc/hostname").to_owned(), format!("{name}\n")),
        (Path::new("/etc/machine-id").to_owned(), machine_id(&spec.cluster, name) + "\n"),
        // No resolver at all: one that does not answer costs ten seconds, again and again.
        (Path::new("/etc/resolv.conf").to_owned(), String::new()),
        (Path::new("/etc/default/kubelet").to_owned(), "KUBELET_EXTRA_ARGS=\n".to_owned()),
        (Path::new("/etc/containerd/config.toml").to_owned(), CONTAINERD_CONFIG.replace("PAUSE", PAUSE_IMAGE)),
        (
            Path::new("/etc/cni/net.d/10-mortise.conflist").to_owned(),
            CNI_CONFIG.replace("SUBNET", &spec.record.pod_subnet().to_string()),
        ),
        (units.join("kubelet.service"), unit(KUBELET_UNIT)),
        (units.join("kubelet.service.d/10-kubeadm.conf"), unit(KUBELET_DROP_IN)),
        (units.join("containerd.service"), unit(CONTAINERD_UNIT)),
    ] {
        replace(&path, &text)?;
    }
    Ok(())
}

/// Writes a file of the node's own, also where this machine has a link or a file.
fn replace(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making directory `{}`", parent.display()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("replacing `{}`", path.display()))
        }
        _ => fs::write(path, text).with_context(|| format!("writing `{}`", path.display())),
    }
}

/// 32 hex digits, the same for the same node of the same cluster and for no other.
fn machine_id(cluster: &str, node: &str) -> String {
    let digest = Sha256::digest(format!("{cluster}/{node}"));
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a node's disk, with all images already in containerd's store.
pub(crate) fn make_disk(disk: &Path, image_store: &Path) -> Result<()> {
    if let Some(parent) = disk.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making `{}`", parent.display()))?;
    }
    fs::create_dir(disk).with_context(|| format!("making `{}`", disk.display()))?;
    link_tree(image_store, &on_disk(disk, "/var/lib/containerd"))
}

/// Copies a tree: databases as copies, as they are written in place; all else as hard links, as it never is.
fn link_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making `{}`", to.display()))?;
    let mode = fs::metadata(from).with_context(|| format!("reading `{}`", from.display()))?.permissions().mode();
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting mode of `{}`", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading `{}`", from.display()))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            link_tree(&source, &target)?;
        } else if source.extension().is_some_and(|kind| kind == "db") || !link(&source, &target)? {
            fs::copy(&source, &target).with_context(|| format!("copying to `{}`", target.display()))?;
        }
    }
    Ok(())
}

/// Makes a hard link; false if the file system cannot. Never a copy over a name that exists: it may be a link already.
fn link(source: &Path, target: &Path) -> Result<bool> {
    match fs::hard_link(source, target) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("linking `{}`", target.display()))
        }
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_are_32_hex_digits_and_differ() {
        let id = machine_id("a", "n1");
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_ne!(id, machine_id("a", "n2"));
        assert_ne!(id, machine_id("b", "n1"));
    }
}
