//! The names of the phases: kubeadm's, with its meaning, and ours beside them.
//!
//! `--skip-phases`, `skipPhases` and `mortise join phase …` know exactly these. An entry says who runs the phase and which
//! part of a join it is; [`crate::join::run`] has an arm for each part.

use super::error::Fault;

/// Flags that a phase command registers, beside those every command has.
///
/// Letters as in kubeadm's own tables: D discovery and tokens, A advertise address, B bind port, C control plane,
/// K certificate key, E etcd, N node name, R runtime socket, P patches, I ignored checks, X configuration and dry run,
/// T `--tls-bootstrap-by`, G plugins and grants.
type Flags = &'static str;

/// Name, summary and command line of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhaseName {
    /// As `--skip-phases` takes it: `parent` or `parent/child`.
    pub id: &'static str,
    /// One line for the help.
    pub summary: &'static str,
    /// Whether `join phase` has a command for it.
    pub command: Command,
    /// Who runs it.
    pub roles: Roles,
    /// What it does; none for a parent, whose children do it.
    pub part: Option<Part>,
}

/// Who runs a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// Workers and control planes.
    Both,
    /// On a worker it does nothing, as in kubeadm.
    ControlPlane,
}

/// What a phase does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The checks of the machine, then those that need the cluster.
    Preflight,
    /// Finds the cluster and proves it.
    Discovery,
    /// The kubelet's certificate.
    TlsBootstrap,
    /// The kubelet's files and its start.
    KubeletStart,
    /// Until the kubelet is healthy and knows the cluster.
    KubeletWait,
    /// All children of `control-plane-prepare`, as one command.
    PrepareAll,
    /// The files that control planes share.
    DownloadCerts,
    /// Certificates of the components.
    Certs,
    /// Kubeconfigs of the administrator and the components.
    Kubeconfig,
    /// Manifests of the static Pods, not seen by the kubelet yet.
    Manifests,
    /// Whether etcd can take a member.
    CheckEtcd,
    /// The etcd member.
    EtcdJoin,
    /// The static Pods, seen by the kubelet.
    Publish,
    /// Labels and taints.
    Mark,
    /// Until the components are healthy.
    WaitControlPlane,
}

impl PhaseName {
    /// Whether the phase, run alone, looks for the cluster itself. The others may use what a discovery left behind.
    pub(super) fn needs_discovery(&self) -> bool {
        matches!(self.id, "preflight" | "discovery")
    }

    /// Whether it stands only for others of the list, which a whole join runs themselves.
    pub fn is_summary(&self) -> bool {
        self.part.is_none() || self.id.ends_with("/all")
    }
}

/// How a phase is run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `mortise join phase <id>` (a slash becomes a space).
    Alone {
        /// Groups of flags, a letter each: see the type `Flags` of this module.
        flags: &'static str,
        /// Whether an endpoint may be given.
        endpoint: bool,
    },
    /// Its children are run alone.
    Parent,
    /// Never: it can only be skipped.
    Hidden,
}

const fn both(id: &'static str, summary: &'static str, command: Command, part: Part) -> PhaseName {
    PhaseName { id, summary, command, roles: Roles::Both, part: Some(part) }
}

const fn control_plane(id: &'static str, summary: &'static str, command: Command, part: Part) -> PhaseName {
    PhaseName { id, summary, command, roles: Roles::ControlPlane, part: Some(part) }
}

const fn parent(id: &'static str, summary: &'static str) -> PhaseName {
    PhaseName { id, summary, command: Command::Parent, roles: Roles::ControlPlane, part: None }
}

const fn alone(flags: Flags) -> Command {
    Command::Alone { flags, endpoint: true }
}

const fn without_endpoint(flags: Flags) -> Command {
    Command::Alone { flags, endpoint: false }
}

/// Every phase, in the order of a join. `discovery`, `tls-bootstrap` and `publish` are ours, the others kubeadm's.
pub const PHASES: &[PhaseName] = &[
    both("preflight", "Run join pre-flight checks", alone("XDABCKNRIG"), Part::Preflight),
    both("discovery", "Find the cluster and establish trust in it", alone("XD"), Part::Discovery),
    parent("control-plane-prepare", "Prepare the machine for serving a control plane"),
    control_plane(
        "control-plane-prepare/all",
        "Prepare the machine for serving a control plane",
        alone("XDABCKNP"),
        Part::PrepareAll,
    ),
    control_plane(
        "control-plane-prepare/download-certs",
        "Download certificates shared among control-plane nodes from the kubeadm-certs Secret",
        alone("XDCK"),
        Part::DownloadCerts,
    ),
    control_plane(
        "control-plane-prepare/certs",
        "Generate the certificates for the new control plane components",
        alone("XDACN"),
        Part::Certs,
    ),
    control_plane(
        "control-plane-prepare/kubeconfig",
        "Generate the kubeconfig for the new control plane components",
        alone("XDCK"),
        Part::Kubeconfig,
    ),
    control_plane(
        "control-plane-prepare/control-plane",
        "Generate the manifests for the new control plane components",
        without_endpoint("XABCP"),
        Part::Manifests,
    ),
    control_plane("check-etcd", "Check the health of the etcd cluster", Command::Hidden, Part::CheckEtcd),
    both(
        "tls-bootstrap",
        "Trade the bootstrap token for the kubelet's client certificate",
        alone("XDNT"),
        Part::TlsBootstrap,
    ),
    both(
        "kubelet-start",
        "Write kubelet settings, certificates and (re)start the kubelet",
        alone("XDNRPT"),
        Part::KubeletStart,
    ),
    control_plane("etcd-join", "Join etcd for control plane nodes", without_endpoint("XACENP"), Part::EtcdJoin),
    control_plane(
        "publish",
        "Start the control plane components, each when it has what it needs",
        without_endpoint("XABCNP"),
        Part::Publish,
    ),
    both("kubelet-wait-bootstrap", "Wait for the kubelet to bootstrap itself", alone("XR"), Part::KubeletWait),
    parent("control-plane-join", "Join a machine as a control plane instance"),
    control_plane(
        "control-plane-join/all",
        "Join a machine as a control plane instance",
        without_endpoint("XACNP"),
        Part::Mark,
    ),
    control_plane(
        "control-plane-join/mark-control-plane",
        "Mark a node as a control plane",
        without_endpoint("XCN"),
        Part::Mark,
    ),
    control_plane("wait-control-plane", "Wait for the control plane to start", alone("XABCN"), Part::WaitControlPlane),
];

/// The phase of this exact name.
///
/// # Errors
///
/// [`Fault::UnknownPhase`].
pub(super) fn find(id: &str) -> Result<&'static PhaseName, Fault> {
    PHASES.iter().find(|phase| phase.id == id).ok_or_else(|| Fault::UnknownPhase(super::error::shown(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_exact_names_only() {
        for good in ["preflight", "check-etcd", "control-plane-prepare/all", "control-plane-join", "tls-bootstrap"] {
            assert_eq!(find(good).unwrap().id, good);
        }
        for bad in
            ["", "Preflight", "control-plane-join/etcd", "certs", "all", "preflight/", "control-plane-prepare certs"]
        {
            assert!(find(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
