//! What is asked of the real kubeadm: control planes, workers, tokens, certificate keys; and the join lines it prints.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::build::KUBERNETES_VERSION;
use crate::process::run;
use crate::state::{self, API_PORT, ClusterName};

/// What kubeadm must overlook here: on cgroup v1 it refuses, though the kubelet is told not to.
pub const IGNORED_PREFLIGHT_ERRORS: &str = "SystemVerification";
/// Where a control plane's administrator finds the way in.
pub const ADMIN_CONFIG: &str = "/etc/kubernetes/admin.conf";
const KUBECTL: [&str; 3] = ["kubectl", "--kubeconfig", ADMIN_CONFIG];
/// Where the first control plane finds its configuration.
const INIT_CONFIG: &str = "/var/lib/mortise/init.yaml";
/// The same without the key and the token of `kubeadm init`, so that kubeadm makes a key.
const UPLOAD_CONFIG: &str = "/var/lib/mortise/upload.yaml";
const TOKEN: &str = "abcdef.0123456789abcdef";
const CERTIFICATE_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The commands `kubeadm init` printed, each on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinLines {
    pub(crate) worker: String,
    pub(crate) control_plane: String,
}

impl JoinLines {
    /// Finds both commands in what `kubeadm init` printed.
    fn parse(output: &str) -> Option<Self> {
        let joined = output.replace("\\\n", " ");
        let lines: Vec<String> = joined
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|line| line.starts_with("kubeadm join "))
            .collect();
        let is_control_plane = |line: &&String| line.contains(" --control-plane");
        Some(Self {
            worker: lines.iter().find(|line| !is_control_plane(line))?.clone(),
            control_plane: lines.iter().find(is_control_plane)?.clone(),
        })
    }

    pub(crate) fn load(cluster: &ClusterName) -> Result<Self> {
        state::read_json(&Self::path(cluster))?.with_context(|| {
            format!("cluster `{}` has no join line: `kubeadm init` has not finished there", cluster.as_str())
        })
    }

    fn path(cluster: &ClusterName) -> std::path::PathBuf {
        cluster.directory().join("join.json")
    }
}

fn init_config(cluster: &ClusterName, address: Ipv4Addr, secrets: &str) -> String {
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {address}, bindPort: {API_PORT}}}
nodeRegistration:
  criSocket: unix:///run/containerd/containerd.sock
  imagePullPolicy: IfNotPresent
{secrets}---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {KUBERNETES_VERSION}
controlPlaneEndpoint: {}:{API_PORT}
networking: {{podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
",
        cluster.endpoint()
    )
}

/// A command in a node of the cluster, given as words.
pub(crate) type InNode<'a> = &'a dyn Fn(&str, &[&str]) -> Command;

/// Makes the first control plane on a node that has joined nothing.
pub(crate) fn init(cluster: &ClusterName, node: &state::NodeRecord, in_node: InNode<'_>) -> Result<()> {
    let secrets =
        format!("certificateKey: \"{CERTIFICATE_KEY}\"\nbootstrapTokens:\n- token: {TOKEN}\n  ttl: 24h0m0s\n");
    write_config(node, INIT_CONFIG, &init_config(cluster, node.address, &secrets))?;
    let ignored = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
    let with_config = format!("--config={INIT_CONFIG}");
    let output = run(&mut in_node(
        &node.name,
        &["kubeadm", "init", &with_config, "--upload-certs", "--skip-phases=addon", &ignored],
    ))?;
    fs::write(cluster.log("kubeadm-init"), &output).context("keeping kubeadm's output")?;
    let lines = JoinLines::parse(&output).with_context(|| {
        format!("`kubeadm init` printed no join lines; see `{}`", cluster.log("kubeadm-init").display())
    })?;
    // The ConfigMap and its rules are what a join reads; the Pods would need an image nobody has.
    run(&mut in_node(&node.name, &["kubeadm", "init", "phase", "addon", "kube-proxy", &with_config]))?;
    let delete = [&KUBECTL[..], &["-n", "kube-system", "delete", "daemonset", "kube-proxy", "--wait=false"]].concat();
    run(&mut in_node(&node.name, &delete))?;
    // Until the token's signature is there a join finds cluster-info unsigned, and looks again only five seconds later.
    let signature = format!("--for=jsonpath={{.data.jws-kubeconfig-{}}}", &TOKEN[..6]);
    let wait =
        [&KUBECTL[..], &["wait", "-n", "kube-public", &signature, "configmap/cluster-info", "--timeout=60s"]].concat();
    run(&mut in_node(&node.name, &wait))?;
    state::write_json(&JoinLines::path(cluster), &lines)
}

fn write_config(node: &state::NodeRecord, path: &str, text: &str) -> Result<()> {
    let pid = node.init.context("a running node has a first process")?.pid;
    let path = format!("/proc/{pid}/root{path}");
    fs::write(&path, text).with_context(|| format!("writing `{path}`"))
}

/// Joins a node as a worker, with the real kubeadm.
pub(crate) fn join(cluster: &ClusterName, node: &str, in_node: InNode<'_>) -> Result<()> {
    join_by(&JoinLines::load(cluster)?.worker, node, in_node)
}

/// Joins a node as a control plane, with the real kubeadm.
pub(crate) fn join_control_plane(cluster: &ClusterName, node: &str, in_node: InNode<'_>) -> Result<()> {
    join_by(&JoinLines::load(cluster)?.control_plane, node, in_node)
}

fn join_by(line: &str, node: &str, in_node: InNode<'_>) -> Result<()> {
    let ignored = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
    let words: Vec<&str> = line.split(' ').chain([ignored.as_str()]).collect();
    run(&mut in_node(node, &words)).map(drop)
}

/// Makes a token and returns the worker's join line with it.
pub(crate) fn fresh_join_line(node: &str, in_node: InNode<'_>) -> Result<String> {
    let create = ["kubeadm", "--kubeconfig", ADMIN_CONFIG, "token", "create", "--print-join-command"];
    Ok(run(&mut in_node(node, &create))?.trim().to_owned())
}

/// Uploads the shared certificates under a key that kubeadm makes, and returns the key.
pub(crate) fn fresh_certificate_key(
    cluster: &ClusterName,
    node: &state::NodeRecord,
    in_node: InNode<'_>,
) -> Result<String> {
    // Without a configuration kubeadm would ask the internet for the newest release first.
    write_config(node, UPLOAD_CONFIG, &init_config(cluster, node.address, ""))?;
    let with_config = format!("--config={UPLOAD_CONFIG}");
    let upload = ["kubeadm", "init", "phase", "upload-certs", "--upload-certs", &with_config];
    let printed = run(&mut in_node(&node.name, &upload))?;
    let is_key = |line: &&str| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    // What it printed is not shown: part of it is a secret.
    let key = printed.lines().find(is_key).context("`kubeadm init phase upload-certs` printed no key")?;
    Ok(key.to_owned())
}

/// Whether a path is kubeadm's administrator's way in, seen from outside through a node's root.
pub(crate) fn has_admin_config(node: &state::NodeRecord) -> bool {
    node.is_running() && crate::enter::exists_in(node, ADMIN_CONFIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_join_lines_in_what_init_prints() {
        let output = "You can now join any number of control-plane nodes:\n\n  kubeadm join api.x.test:6443 --token a.b \\\n\t--discovery-token-ca-cert-hash sha256:00 \\\n\t--control-plane --certificate-key 11\n\nThen:\n\nkubeadm join api.x.test:6443 --token a.b \\\n\t--discovery-token-ca-cert-hash sha256:00 \n";
        let lines = JoinLines::parse(output).unwrap();
        let worker = "kubeadm join api.x.test:6443 --token a.b --discovery-token-ca-cert-hash sha256:00";
        assert_eq!(lines.worker, worker);
        assert_eq!(lines.control_plane, format!("{worker} --control-plane --certificate-key 11"));
        assert_eq!(JoinLines::parse("kubeadm join x"), None);
    }
}
