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
    /// Where a control plane's API server will be reached.
    pub advertise_address: Option<String>,
    /// Port of a control plane's API server.
    pub bind_port: u16,
    /// Where the components listen by the cluster's configuration: API server, scheduler, controller manager.
    pub bind_addresses: [Option<String>; 3],
    /// Where the member of a stacked etcd is reached.
    pub etcd_address: Option<String>,
    /// Where the member of a stacked etcd keeps its data.
    pub etcd_data_dir: Option<String>,
    /// Files that reach an external etcd.
    pub etcd_certificates: Vec<String>,
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
    /// `Port-<port>`; on all addresses where none is given.
    Port(u16, Option<String>),
    /// `HTTPProxy`, with the hosts of the endpoint and of the local API server.
    Proxy(Vec<String>),
    /// `FileContent-<path under /proc/sys>`.
    Forwarding(Forwarding),
    /// `NumCPU`.
    Cpus,
    /// `Mem`.
    Memory,
    /// `KubernetesVersion`.
    ClusterVersion,
    /// `Firewalld`, with the API server's port.
    Firewall(u16),
    /// `FileAvailable-<path>` of a static Pod's manifest.
    ManifestAvailable(&'static str),
    /// `HTTPProxyCIDR`.
    ProxyCidr,
    /// `DirAvailable-<path>`.
    DirectoryAvailable(String),
    /// `ExternalEtcdClientCertificates`, with the files.
    EtcdCertificates(Vec<String>),
}

/// kubeadm's static Pods.
const MANIFESTS: [&str; 4] = [
    "/etc/kubernetes/manifests/kube-apiserver.yaml",
    "/etc/kubernetes/manifests/kube-controller-manager.yaml",
    "/etc/kubernetes/manifests/kube-scheduler.yaml",
    "/etc/kubernetes/manifests/etcd.yaml",
];
const CONTROLLER_MANAGER_PORT: u16 = 10257;
const SCHEDULER_PORT: u16 = 10259;
const ETCD_CLIENT_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;

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
        Check::Port(kubelet::PORT, None),
    ];
    if join.worker {
        checks.extend(join.ca_cert_path.clone().map(Check::FileAvailable));
    }
    // kubeadm has two checks of this name on a control plane, of which one can be ignored no more than both.
    let hosts: Vec<_> = [&join.endpoint_host, &join.advertise_address].into_iter().flatten().cloned().collect();
    if !hosts.is_empty() {
        checks.push(Check::Proxy(hosts));
    }
    checks.extend(join.endpoint_host.as_deref().and_then(Forwarding::of_host).map(Check::Forwarding));
    if !join.worker {
        extend_for_control_plane(&mut checks, join);
    }
    checks
}

fn extend_for_control_plane(checks: &mut Vec<Check>, join: &Join) {
    let [api_server, scheduler, controller_manager] = &join.bind_addresses;
    checks.extend([
        Check::Cpus,
        Check::Memory,
        Check::ClusterVersion,
        Check::Firewall(join.bind_port),
        Check::Port(join.bind_port, api_server.clone()),
        Check::Port(SCHEDULER_PORT, scheduler.clone()),
        Check::Port(CONTROLLER_MANAGER_PORT, controller_manager.clone()),
    ]);
    checks.extend(MANIFESTS.map(Check::ManifestAvailable));
    checks.push(Check::ProxyCidr);
    if let (Some(address), Some(directory)) = (&join.etcd_address, &join.etcd_data_dir) {
        checks.push(Check::Port(ETCD_CLIENT_PORT, Some(address.clone())));
        checks.push(Check::Port(ETCD_PEER_PORT, Some(address.clone())));
        checks.push(Check::DirectoryAvailable(directory.clone()));
    }
    if !join.etcd_certificates.is_empty() {
        checks.push(Check::EtcdCertificates(join.etcd_certificates.clone()));
    }
}

impl Check {
    /// As kubeadm prints it and `--ignore-preflight-errors` takes it: a path with `-` for each `/`.
    ///
    /// Characters that the host does not take in an id become `_`, and a long path is cut.
    pub fn id(&self) -> String {
        let mut id = match self {
            Self::PrivilegedUser => "IsPrivilegedUser".to_owned(),
            Self::FileAvailable(path) => format!("FileAvailable-{path}"),
            Self::ManifestAvailable(path) => format!("FileAvailable-{path}"),
            Self::DirectoryAvailable(path) => format!("DirAvailable-{path}"),
            Self::Runtime => "CRI".to_owned(),
            Self::RuntimeVersion => "ContainerRuntimeVersion".to_owned(),
            Self::Swap => "Swap".to_owned(),
            Self::Program(name) => format!("FileExisting-{name}"),
            Self::System => "SystemVerification".to_owned(),
            Self::Hostname => "Hostname".to_owned(),
            Self::KubeletVersion => "KubeletVersion".to_owned(),
            Self::KubeletService => "Service-kubelet".to_owned(),
            Self::Port(port, _) => format!("Port-{port}"),
            Self::Proxy(_) => "HTTPProxy".to_owned(),
            Self::Forwarding(forwarding) => format!("FileContent-{}", forwarding.path()),
            Self::Cpus => "NumCPU".to_owned(),
            Self::Memory => "Mem".to_owned(),
            Self::ClusterVersion => "KubernetesVersion".to_owned(),
            Self::Firewall(_) => "Firewalld".to_owned(),
            Self::ProxyCidr => "HTTPProxyCIDR".to_owned(),
            Self::EtcdCertificates(_) => "ExternalEtcdClientCertificates".to_owned(),
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
            Self::ManifestAvailable(path) => format!("no other join left `{path}`"),
            Self::DirectoryAvailable(path) => format!("no other etcd member left data in `{}`", cut(path)),
            Self::Runtime => "the container runtime answers and is ready".to_owned(),
            Self::RuntimeVersion => "the container runtime tells its cgroup driver".to_owned(),
            Self::Swap => "swap is off".to_owned(),
            Self::Program(name) => format!("`{name}` is installed"),
            Self::System => "kernel, operating system and control groups suit the kubelet".to_owned(),
            Self::Hostname => "the node name is well-formed and resolves".to_owned(),
            Self::KubeletVersion => "the kubelet is installed and not too old".to_owned(),
            Self::KubeletService => "the kubelet starts at boot".to_owned(),
            Self::Port(port, _) => format!("TCP port {port} is free"),
            Self::Cpus => "there are enough processors".to_owned(),
            Self::Memory => "there is enough memory".to_owned(),
            Self::ClusterVersion => "this mortise knows the cluster's version".to_owned(),
            Self::Firewall(_) => "no firewall closes the ports".to_owned(),
            Self::ProxyCidr => "Services and Pods are reached without a proxy".to_owned(),
            Self::EtcdCertificates(_) => "the files that reach the external etcd are there".to_owned(),
            Self::Proxy(_) => "the API server is reached without a proxy".to_owned(),
            Self::Forwarding(forwarding) => format!("`{}` is on", forwarding.sysctl()),
        };
        let severity = match self {
            Self::Swap | Self::Hostname | Self::KubeletService | Self::Proxy(_) | Self::Firewall(_) => {
                Severity::Warning
            }
            _ => Severity::Error,
        };
        CheckInfo { id: self.id(), title, stage: self.stage(), severity }
    }

    /// A control plane's own come when the cluster's configuration is known, as in kubeadm.
    fn stage(&self) -> Stage {
        match self {
            Self::Port(kubelet::PORT, _) => Stage::Node,
            Self::Port(..)
            | Self::Cpus
            | Self::Memory
            | Self::ClusterVersion
            | Self::Firewall(_)
            | Self::ManifestAvailable(_)
            | Self::ProxyCidr
            | Self::DirectoryAvailable(_)
            | Self::EtcdCertificates(_) => Stage::Cluster,
            _ => Stage::Node,
        }
    }
}

/// At most 150 bytes of a path, so that a title keeps within the host's 200.
fn cut(path: &str) -> &str {
    path.get(..path.floor_char_boundary(150)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(worker: bool) -> Join {
        Join {
            worker,
            ca_cert_path: Some("/etc/kubernetes/pki/ca.crt".to_owned()),
            endpoint_host: None,
            advertise_address: None,
            bind_port: 6443,
            bind_addresses: [const { None }; 3],
            etcd_address: None,
            etcd_data_dir: None,
            etcd_certificates: Vec::new(),
        }
    }

    fn ids_at(join: &Join, stage: Stage) -> Vec<String> {
        checks(join).iter().map(Check::info).filter(|info| info.stage == stage).map(|info| info.id).collect()
    }

    fn ids(worker: bool, endpoint_host: Option<&str>) -> Vec<String> {
        ids_at(&Join { endpoint_host: endpoint_host.map(str::to_owned), ..join(worker) }, Stage::Node)
    }

    #[test]
    fn control_plane_has_kubeadms_further_checks_in_kubeadms_order() {
        let common = [
            "NumCPU",
            "Mem",
            "KubernetesVersion",
            "Firewalld",
            "Port-6443",
            "Port-10259",
            "Port-10257",
            "FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml",
            "FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml",
            "FileAvailable--etc-kubernetes-manifests-kube-scheduler.yaml",
            "FileAvailable--etc-kubernetes-manifests-etcd.yaml",
            "HTTPProxyCIDR",
        ];
        let with = |more: &[&'static str]| common.iter().chain(more).copied().collect::<Vec<_>>();
        let known = Join { advertise_address: Some("192.0.2.7".to_owned()), ..join(false) };
        assert_eq!(ids_at(&known, Stage::Cluster), with(&[]));
        assert!(ids_at(&known, Stage::Node).contains(&"HTTPProxy".to_owned()));
        let stacked = Join {
            etcd_address: Some("192.0.2.7".to_owned()),
            etcd_data_dir: Some("/var/lib/etcd".to_owned()),
            ..join(false)
        };
        assert_eq!(ids_at(&stacked, Stage::Cluster), with(&["Port-2379", "Port-2380", "DirAvailable--var-lib-etcd"]));
        let external = Join { etcd_certificates: vec!["/e/ca.crt".to_owned()], ..join(false) };
        assert_eq!(ids_at(&external, Stage::Cluster), with(&["ExternalEtcdClientCertificates"]));
        assert_eq!(ids_at(&join(true), Stage::Cluster), [""; 0], "a worker has none of them");
    }

    #[test]
    fn components_ports_are_tried_where_they_will_listen() {
        let address = |text: &str| Some(text.to_owned());
        let join =
            Join { bind_addresses: [None, address("127.0.0.1"), address("::1")], bind_port: 7443, ..join(false) };
        let checks = checks(&join);
        let ports: Vec<_> = checks.iter().filter(|check| matches!(check, Check::Port(..))).collect();
        let expected = [
            &Check::Port(10250, None),
            &Check::Port(7443, None),
            &Check::Port(10259, address("127.0.0.1")),
            &Check::Port(10257, address("::1")),
        ];
        assert_eq!(ports, expected);
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
        let join = Join { endpoint_host: Some("192.0.2.1".to_owned()), ..join(false) };
        let warn: Vec<_> = checks(&join)
            .iter()
            .map(Check::info)
            .filter(|info| info.severity == Severity::Warning)
            .map(|info| info.id)
            .collect();
        assert_eq!(warn, ["Swap", "Hostname", "Service-kubelet", "HTTPProxy", "Firewalld"]);
    }
}
