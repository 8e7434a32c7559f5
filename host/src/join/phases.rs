//! The list of phases: ids, summaries and order. Help, `--skip-phases` and `join phase <id>` come from it.

/// Who runs a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// To every join.
    Always,
    /// To control planes; on a worker it does nothing.
    ControlPlane,
}

/// One entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// As `--skip-phases` takes it: kubeadm's path, or ours.
    pub id: &'static str,
    /// One line of help.
    pub summary: &'static str,
    /// Who runs it.
    pub applies: Applies,
    /// Whether `join phase <id>` exists.
    pub alone: bool,
}

const fn worker(id: &'static str, summary: &'static str) -> Phase {
    Phase { id, summary, applies: Applies::Always, alone: true }
}

const fn control_plane(id: &'static str, summary: &'static str, alone: bool) -> Phase {
    Phase { id, summary, applies: Applies::ControlPlane, alone }
}

/// Every phase in execution order. kubeadm's ids keep its names and meaning; `discovery`, `tls-bootstrap` and `wait`
/// are ours. `control-plane-prepare/all` and `control-plane-join/all` exist as commands only, as in kubeadm.
pub const PHASES: &[Phase] = &[
    worker("preflight", "Run the preflight checks of every plugin"),
    worker("discovery", "Establish the cluster's identity and leave it in /var/lib/mortise/cluster.json"),
    control_plane("control-plane-prepare", "Prepare the machine for serving a control plane", false),
    control_plane("control-plane-prepare/all", "Prepare the machine for serving a control plane", true),
    control_plane("control-plane-prepare/download-certs", "Download the shared certificates", true),
    control_plane("control-plane-prepare/certs", "Make the certificates of the control plane", true),
    control_plane("control-plane-prepare/kubeconfig", "Make the kubeconfig files of the control plane", true),
    control_plane("control-plane-prepare/control-plane", "Write the static Pod manifests", true),
    control_plane("check-etcd", "Check that the cluster's etcd is healthy", false),
    worker("tls-bootstrap", "Trade the bootstrap token for the kubelet's client certificate"),
    worker("kubelet-start", "Write the kubelet's settings and (re)start it"),
    control_plane("etcd-join", "Join the cluster's etcd", true),
    worker("kubelet-wait-bootstrap", "Wait until the kubelet is healthy and has its certificate"),
    control_plane("control-plane-join", "Join the machine as a control plane", false),
    control_plane("control-plane-join/all", "Join the machine as a control plane", true),
    control_plane("control-plane-join/mark-control-plane", "Label and taint the node", true),
    control_plane("wait-control-plane", "Wait until the control plane is healthy", true),
    worker("wait", "Wait until the Node is registered or Ready, as `--wait` says"),
];

/// The phase with exactly this id; ids are case-sensitive, as in kubeadm.
pub fn find(id: &str) -> Option<&'static Phase> {
    PHASES.iter().find(|phase| phase.id == id)
}

/// Whether a phase is left out: it is named itself, or its parent is.
///
/// `kubelet-start` takes `tls-bootstrap` with it: with kubeadm the kubelet makes the request, so that leaving out its
/// start leaves out the certificate, and scripts rely on it.
pub fn is_skipped(id: &str, skipped: &[String]) -> bool {
    skipped.iter().any(|skip| {
        skip == id
            || id.strip_prefix(skip.as_str()).is_some_and(|rest| rest.starts_with('/'))
            || (id == "tls-bootstrap" && skip == "kubelet-start")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_every_phase_of_kubeadm_1_37() {
        for id in [
            "preflight",
            "control-plane-prepare",
            "control-plane-prepare/all",
            "control-plane-prepare/download-certs",
            "control-plane-prepare/certs",
            "control-plane-prepare/kubeconfig",
            "control-plane-prepare/control-plane",
            "check-etcd",
            "kubelet-start",
            "etcd-join",
            "kubelet-wait-bootstrap",
            "control-plane-join",
            "control-plane-join/all",
            "control-plane-join/mark-control-plane",
            "wait-control-plane",
        ] {
            assert!(find(id).is_some(), "{id}");
        }
        assert!(find("Preflight").is_none());
        assert!(find("control-plane-join/etcd").is_none(), "removed in 1.35");
    }

    #[test]
    fn skipping_a_parent_skips_its_children_and_nothing_else() {
        let skip = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(is_skipped("control-plane-prepare/certs", &skip(&["control-plane-prepare"])));
        assert!(!is_skipped("control-plane-prepare", &skip(&["control-plane-prepare/certs"])));
        assert!(!is_skipped("kubelet-wait-bootstrap", &skip(&["kubelet-start"])));
        assert!(is_skipped("tls-bootstrap", &skip(&["kubelet-start"])));
    }
}
