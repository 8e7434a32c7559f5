//! Which checks apply to a join, in kubeadm's order and under kubeadm's names.

use crate::bindings::exports::mortise::preflight::check::{CheckInfo, Severity, Stage};
use crate::kubelet;
use crate::network::Forwarding;

/// Longest id the host takes.
const MAX_ID_BYTES: usize = 253;

/// What decides which checks apply.
pub struct Join {
    /// Whether the machine becomes a worker.
    pub worker: bool,
    /// Where the cluster CA will be written.
    pub ca_cert_path: Option<String>,
    /// Host of the API endpoint under token discovery.
    pub endpoint_host: Option<String>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `IsPrivilegedUser`.
    PrivilegedUser,
    /// `FileAvailable-<path>`.
    FileAvailable(String),
    /// `CRI`.
    Runtime,
    /// `ContainerRuntimeVersion`.
    RuntimeVersion,
    /// `Swap`.
    Swap,
    /// `FileExisting-<program>`.
    Program(&'static str),
    /// `SystemVerification`.
    System,
    /// `Hostname`.
    Hostname,
    /// `KubeletVersion`.
    KubeletVersion,
    /// `Service-kubelet`.
    KubeletService,
    /// `Port-10250`.
    KubeletPort,
    /// `HTTPProxy`, with the endpoint's host.
    Proxy(String),
    /// `FileContent-<path under /proc/sys>`.
    Forwarding(Forwarding),
}

/// The checks of a join.
pub fn checks(join: &Join) -> Vec<Check> {
    let mut checks = vec![
        Check::PrivilegedUser,
        Check::FileAvailable("/etc/kubernetes/kubelet.conf".to_owned()),
        Check::FileAvailable("/etc/kubernetes/bootstrap-kubelet.conf".to_owned()),
        Check::Runtime,
        Check::RuntimeVersion,
        Check::Swap,
        Check::Program("losetup"),
        Check::Program("mount"),
        Check::Program("cp"),
        Check::System,
        Check::Hostname,
        Check::KubeletVersion,
        Check::KubeletService,
        Check::KubeletPort,
    ];
    if join.worker {
        checks.extend(join.ca_cert_path.clone().map(Check::FileAvailable));
    }
    if let Some(host) = &join.endpoint_host {
        checks.push(Check::Proxy(host.clone()));
        checks.extend(Forwarding::of_host(host).map(Check::Forwarding));
    }
    checks
}

impl Check {
    /// As kubeadm prints it and `--ignore-preflight-errors` takes it: a path with `-` for each `/`.
    ///
    /// Characters that the host does not take in an id become `_`, and a long path is cut.
    pub fn id(&self) -> String {
        let mut id = match self {
            Self::PrivilegedUser => "IsPrivilegedUser".to_owned(),
            Self::FileAvailable(path) => format!("FileAvailable-{}", path),
            Self::Runtime => "CRI".to_owned(),
            Self::RuntimeVersion => "ContainerRuntimeVersion".to_owned(),
            Self::Swap => "Swap".to_owned(),
            Self::Program(name) => format!("FileExisting-{name}"),
            Self::System => "SystemVerification".to_owned(),
            Self::Hostname => "Hostname".to_owned(),
            Self::KubeletVersion => "KubeletVersion".to_owned(),
            Self::KubeletService => "Service-kubelet".to_owned(),
            Self::KubeletPort => format!("Port-{}", kubelet::PORT),
            Self::Proxy(_) => "HTTPProxy".to_owned(),
            Self::Forwarding(forwarding) => format!("FileContent-{}", forwarding.path()),
        };
        let plain = |c: char| match c {
            '/' => '-',
            '.' | '_' | '-' => c,
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        };
        id = id.chars().map(plain).collect();
        id.truncate(MAX_ID_BYTES);
        id
    }

    /// Id, title and the worst it can find.
    pub fn info(&self) -> CheckInfo {
        let title = match self {
            Self::PrivilegedUser => "the join runs as root".to_owned(),
            Self::FileAvailable(path) => format!("no other join left `{}`", cut(path)),
            Self::Runtime => "the container runtime answers and is ready".to_owned(),
            Self::RuntimeVersion => "the container runtime tells its cgroup driver".to_owned(),
            Self::Swap => "swap is off".to_owned(),
            Self::Program(name) => format!("`{name}` is installed"),
            Self::System => "kernel, operating system and control groups suit the kubelet".to_owned(),
            Self::Hostname => "the node name is well-formed and resolves".to_owned(),
            Self::KubeletVersion => "the kubelet is installed and not too old".to_owned(),
            Self::KubeletService => "the kubelet starts at boot".to_owned(),
            Self::KubeletPort => "the kubelet's port is free".to_owned(),
            Self::Proxy(_) => "the API server is reached without a proxy".to_owned(),
            Self::Forwarding(forwarding) => format!("`{}` is on", forwarding.sysctl()),
        };
        let severity = match self {
            Self::Swap | Self::Hostname | Self::KubeletService | Self::Proxy(_) => Severity::Warning,
            _ => Severity::Error,
        };
        CheckInfo { id: self.id(), title, stage: Stage::Node, severity }
    }
}

/// At most 150 bytes of a path, so that a title keeps within the host's 200.
fn cut(path: &str) -> &str {
    path.get(..path.floor_char_boundary(150)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(worker: bool, endpoint_host: Option<&str>) -> Vec<String> {
        let ca_cert_path = Some("/etc/kubernetes/pki/ca.crt".to_owned());
        let join = Join { worker, ca_cert_path, endpoint_host: endpoint_host.map(str::to_owned) };
        checks(&join).iter().map(Check::id).collect()
    }

    #[test]
    fn worker_has_kubeadms_checks_in_kubeadms_order() {
        let common = [
            "IsPrivilegedUser",
            "FileAvailable--etc-kubernetes-kubelet.conf",
            "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf",
            "CRI",
            "ContainerRuntimeVersion",
            "Swap",
            "FileExisting-losetup",
            "FileExisting-mount",
            "FileExisting-cp",
            "SystemVerification",
            "Hostname",
            "KubeletVersion",
            "Service-kubelet",
            "Port-10250",
        ];
        let with = |more: &[&'static str]| common.iter().chain(more).copied().collect::<Vec<_>>();
        let ca = "FileAvailable--etc-kubernetes-pki-ca.crt";
        assert_eq!(ids(true, None), with(&[ca]));
        assert_eq!(ids(false, None), with(&[]));
        assert_eq!(ids(true, Some("api.example.com")), with(&[ca, "HTTPProxy"]));
        assert_eq!(ids(true, Some("192.0.2.1")), with(&[ca, "HTTPProxy", "FileContent--proc-sys-net-ipv4-ip_forward"]));
        assert_eq!(
            ids(true, Some("2001:db8::1")),
            with(&[ca, "HTTPProxy", "FileContent--proc-sys-net-ipv6-conf-default-forwarding"])
        );
    }

    #[test]
    fn odd_path_still_makes_an_id_and_title_the_host_takes() {
        let check = Check::FileAvailable(format!("/a b/{}.crt", "ü".repeat(300)));
        let info = check.info();
        assert!(info.id.starts_with("FileAvailable--a_b-__"));
        assert_eq!(info.id.len(), MAX_ID_BYTES);
        assert!(info.title.len() <= 200);
    }

    #[test]
    fn warnings_of_kubeadm_are_warnings() {
        let join = Join { worker: true, ca_cert_path: None, endpoint_host: Some("192.0.2.1".to_owned()) };
        let warn: Vec<_> = checks(&join)
            .iter()
            .map(Check::info)
            .filter(|info| info.severity == Severity::Warning)
            .map(|info| info.id)
            .collect();
        assert_eq!(warn, ["Swap", "Hostname", "Service-kubelet", "HTTPProxy"]);
    }
}
