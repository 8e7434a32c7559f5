//! `JoinConfiguration` of `kubeadm.k8s.io/v1beta4` as written, before its rules are checked.
//!
//! Flags fill the same structure, so that both ways share every rule.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::error::{At, Fault};
use super::reader::{Fields, Notes};
use super::yaml::Node;
use super::{Arg, Taint, Timeouts, control_plane};

/// What was written; empty strings count as absent, as in Go, where kubeadm's type has no pointer.
#[derive(Debug, Default)]
pub(super) struct JoinConfiguration {
    pub(super) dry_run: Option<bool>,
    pub(super) node_name: Option<String>,
    pub(super) cri_socket: Option<String>,
    pub(super) taints: Option<Vec<Taint>>,
    pub(super) kubelet_extra_args: Vec<Arg>,
    pub(super) ignore: Vec<String>,
    pub(super) image_pull_policy: Option<String>,
    pub(super) image_pull_serial: Option<bool>,
    pub(super) ca_cert_path: Option<String>,
    pub(super) bootstrap_token: Option<BootstrapTokenInput>,
    /// `discovery.file.kubeConfigPath`; empty where the mapping is there without it.
    pub(super) file: Option<String>,
    pub(super) tls_bootstrap_token: Option<SecretString>,
    pub(super) control_plane: Option<control_plane::Written>,
    pub(super) skip_phases: Vec<String>,
    pub(super) patches: Option<String>,
    pub(super) timeouts: Timeouts,
    /// Where each field was written, by its path.
    pub(super) origins: BTreeMap<String, At>,
}

/// `discovery.bootstrapToken` as written.
#[derive(Debug, Default)]
pub(super) struct BootstrapTokenInput {
    pub(super) token: Option<SecretString>,
    pub(super) endpoint: Option<String>,
    pub(super) hashes: Vec<String>,
    pub(super) unsafe_skip: bool,
}

impl JoinConfiguration {
    pub(super) fn origin(&self, field: &str) -> At {
        self.origins.get(field).cloned().unwrap_or(At::Nowhere)
    }
}

/// Reads the document; what does not fit is in the notes.
pub(super) fn read(document: &Node, notes: &mut Notes) -> JoinConfiguration {
    let mut all = Fields::of(document, "", notes);
    all.text("apiVersion", notes);
    all.text("kind", notes);
    let mut read = JoinConfiguration {
        dry_run: all.flag("dryRun", notes),
        ca_cert_path: all.filled("caCertPath", notes),
        skip_phases: all.texts("skipPhases", notes),
        ..Default::default()
    };
    if let Some(node) = all.fields("nodeRegistration", notes) {
        read_node(node, &mut read, notes);
    }
    if let Some(discovery) = all.fields("discovery", notes) {
        read_discovery(discovery, &mut read, notes);
    }
    if let Some(mut control_plane) = all.fields("controlPlane", notes) {
        let mut written = control_plane::Written {
            certificate_key: control_plane.secret("certificateKey", notes),
            ..Default::default()
        };
        if let Some(mut endpoint) = control_plane.fields("localAPIEndpoint", notes) {
            written.advertise_address = endpoint.filled("advertiseAddress", notes);
            written.bind_port = endpoint.integer("bindPort", notes);
            endpoint.finish(notes);
        }
        control_plane.finish(notes);
        read.control_plane = Some(written);
    }
    if let Some(mut patches) = all.fields("patches", notes) {
        read.patches = patches.filled("directory", notes);
        patches.finish(notes);
    }
    read.timeouts = read_timeouts(&mut all, notes);
    all.finish(notes);
    read.origins = notes.places.iter().map(|(field, place)| (field.clone(), notes.at(*place))).collect();
    read
}

fn read_node(mut node: Fields<'_>, read: &mut JoinConfiguration, notes: &mut Notes) {
    read.node_name = node.filled("name", notes);
    read.cri_socket = node.filled("criSocket", notes);
    read.ignore = node.texts("ignorePreflightErrors", notes);
    read.image_pull_policy = node.filled("imagePullPolicy", notes);
    read.image_pull_serial = node.flag("imagePullSerial", notes);
    if let Some(taints) = node.list("taints", notes) {
        let taints = taints.into_iter().map(|(path, item)| {
            let mut taint = Fields::of(item, &path, notes);
            let mut text = |key| taint.text(key, notes).unwrap_or_default();
            let read = Taint { key: text("key"), value: text("value"), effect: text("effect") };
            text("timeAdded");
            taint.finish(notes);
            read
        });
        read.taints = Some(taints.collect());
    }
    for (path, item) in node.list("kubeletExtraArgs", notes).unwrap_or_default() {
        let mut arg = Fields::of(item, &path, notes);
        let name = arg.filled("name", notes);
        let value = arg.text("value", notes).unwrap_or_default();
        match name {
            Some(name) => read.kubelet_extra_args.push(Arg { name, value }),
            None => notes.fault(arg.place(), &arg.path_of("name"), Fault::Missing),
        }
        arg.finish(notes);
    }
    node.finish(notes);
}

fn read_discovery(mut discovery: Fields<'_>, read: &mut JoinConfiguration, notes: &mut Notes) {
    if let Some(mut token) = discovery.fields("bootstrapToken", notes) {
        read.bootstrap_token = Some(BootstrapTokenInput {
            token: token.secret("token", notes),
            endpoint: token.filled("apiServerEndpoint", notes),
            hashes: token.texts("caCertHashes", notes),
            unsafe_skip: token.flag("unsafeSkipCAVerification", notes).unwrap_or(false),
        });
        token.finish(notes);
    }
    if let Some(mut file) = discovery.fields("file", notes) {
        read.file = Some(file.text("kubeConfigPath", notes).unwrap_or_default());
        file.finish(notes);
    }
    read.tls_bootstrap_token = discovery.secret("tlsBootstrapToken", notes);
    discovery.finish(notes);
}

/// `timeouts` of a kubeadm document: those a join uses, the others read and dropped.
pub(super) fn read_timeouts(parent: &mut Fields<'_>, notes: &mut Notes) -> Timeouts {
    let default = Timeouts::default();
    let Some(mut fields) = parent.fields("timeouts", notes) else { return default };
    fields.duration("upgradeManifests", notes);
    let mut duration = |key, default| fields.duration(key, notes).unwrap_or(default);
    let timeouts = Timeouts {
        kubelet_health_check: duration("kubeletHealthCheck", default.kubelet_health_check),
        kubernetes_api_call: duration("kubernetesAPICall", default.kubernetes_api_call),
        tls_bootstrap: duration("tlsBootstrap", default.tls_bootstrap),
        discovery: duration("discovery", default.discovery),
        etcd_api_call: duration("etcdAPICall", default.etcd_api_call),
        control_plane_component_health_check: duration(
            "controlPlaneComponentHealthCheck",
            default.control_plane_component_health_check,
        ),
    };
    fields.finish(notes);
    timeouts
}
