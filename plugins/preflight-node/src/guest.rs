//! Asks the host what a check needs and hands it to the judge.

use crate::bindings::exports::mortise::preflight::check::{CheckInfo, Guest, Report};
use crate::bindings::mortise::host::context::{self, NodeRole};
use crate::bindings::mortise::host::types::Error;
use crate::bindings::mortise::host::{facts, files as host_files};
use crate::control_plane::{self, Directory};
use crate::list::{self, Check, Join};
use crate::{files, kernel, kubelet, network, runtime, system};

/// kubeadm's default.
const API_SERVER_PORT: u16 = 6443;

struct Plugin;

impl Guest for Plugin {
    fn list_checks() -> Vec<CheckInfo> {
        list::checks(&this_join()).iter().map(Check::info).collect()
    }

    fn run_check(id: String) -> Result<Report, Error> {
        let check = list::checks(&this_join()).into_iter().find(|check| check.id() == id);
        run(&check.ok_or_else(|| invalid(format!("no check has the id `{id}`")))?)
    }
}

#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "generated code")]
mod export {
    use super::Plugin;
    crate::bindings::export!(Plugin with_types_in crate::bindings);
}

fn this_join() -> Join {
    Join {
        worker: context::role() == NodeRole::Worker,
        ca_cert_path: context::parameter("ca-cert-path"),
        endpoint_host: context::parameter("endpoint-host"),
        advertise_address: context::parameter("advertise-address"),
        bind_port: context::parameter("bind-port").and_then(|port| port.parse().ok()).unwrap_or(API_SERVER_PORT),
        bind_addresses: ["api-server-bind-address", "scheduler-bind-address", "controller-manager-bind-address"]
            .map(context::parameter),
        etcd_address: context::parameter("etcd-address"),
        etcd_data_dir: context::parameter("etcd-data-dir"),
        etcd_certificates: ["etcd-ca-file", "etcd-cert-file", "etcd-key-file"]
            .into_iter()
            .filter_map(context::parameter)
            .collect(),
    }
}

fn run(check: &Check) -> Result<Report, Error> {
    Ok(match check {
        Check::PrivilegedUser => files::judge_user(facts::current_uid()?),
        Check::FileAvailable(path) => files::judge_available(path, host_files::stat(path)?.as_ref()),
        Check::Runtime => runtime::judge_runtime(&cri_socket(), &answered(facts::container_runtime())?),
        Check::RuntimeVersion => runtime::judge_runtime_version(&cri_socket(), &answered(facts::container_runtime())?),
        Check::Swap => system::judge_swap(&facts::swap()?),
        Check::Program(name) => files::judge_program(name, facts::executable(name)?.as_ref()),
        Check::System => verify_system()?,
        Check::Hostname => network::judge_hostname(&context::node_name(), &answered(facts::node_name_addresses())?),
        Check::KubeletVersion => kubelet::judge_version(facts::executable("kubelet")?.as_ref(), kubernetes_minor()?),
        Check::KubeletService => kubelet::judge_service(&facts::unit("kubelet")?),
        Check::Port(port, None) => kubelet::judge_port(*port, None, &answered(facts::tcp_port(*port))?),
        Check::Port(port, Some(address)) => {
            kubelet::judge_port(*port, Some(address), &answered(facts::tcp_port_on(address, *port))?)
        }
        Check::Proxy(hosts) => {
            let mut report = Report::passed();
            for host in hosts {
                report = network::judge_proxy(report, host, facts::proxy_for(&network::probe_url(host))?.as_deref());
            }
            report
        }
        Check::ProxyCidr => verify_subnets()?,
        Check::Cpus => control_plane::judge_cpus(facts::usable_cpus()?),
        Check::Memory => control_plane::judge_memory(facts::memory_total_bytes()?),
        Check::ClusterVersion => {
            let version = context::parameter("cluster-version").unwrap_or_default();
            control_plane::judge_cluster_version(&version, kubernetes_minor()?)
        }
        Check::Firewall(port) => control_plane::judge_firewall(&facts::unit("firewalld")?, &[*port, kubelet::PORT]),
        Check::ManifestAvailable(path) => files::judge_available(path, host_files::stat(path)?.as_ref()),
        Check::DirectoryAvailable(path) => control_plane::judge_directory(path, &answered(directory(path))?),
        Check::EtcdCertificates(paths) => {
            let there = |path: &String| Ok((path.clone(), host_files::stat(path)?.is_some()));
            control_plane::judge_certificates(&paths.iter().map(there).collect::<Result<Vec<_>, Error>>()?)
        }
        Check::Forwarding(forwarding) => {
            network::judge_forwarding(*forwarding, &answered(facts::sysctl(forwarding.sysctl()))?)
        }
    })
}

fn verify_system() -> Result<Report, Error> {
    let cgroups = facts::cgroup()?;
    Ok(system::judge_system(&system::System {
        kubelet: facts::executable("kubelet")?.as_ref(),
        kernel: &facts::kernel()?,
        cgroups: &cgroups,
        options: &answered(facts::kernel_options(&kernel::option_names(cgroups.version)))?,
    }))
}

fn verify_subnets() -> Result<Report, Error> {
    let mut report = Report::passed();
    let subnets = ["service-subnet", "pod-subnet"].into_iter().filter_map(context::parameter);
    for cidr in subnets.flat_map(|both| both.split(',').map(str::to_owned).collect::<Vec<_>>()) {
        let proxy = match network::first_address_url(&cidr) {
            Some(url) => Some(facts::proxy_for(&url)?),
            None => None,
        };
        report = network::judge_subnet(report, &cidr, proxy.as_ref());
    }
    Ok(report)
}

fn directory(path: &str) -> Result<Directory, Error> {
    let names = match host_files::entries(path) {
        Ok(names) => names,
        Err(error) if error.code == "not-found" => return Ok(Directory::Empty),
        Err(error) if error.code == "too-large" => return Ok(Directory::Foreign(error.message)),
        // An argument was well-formed: it is no directory.
        Err(error) => return Err(Error { code: "unavailable".to_owned(), ..error }),
    };
    let mut found = Directory::Empty;
    for name in names {
        // What the grant does not cover, a dot file, is nobody's of us.
        let ours = host_files::stat(&format!("{path}/{name}")).is_ok_and(|file| file.is_none_or(|file| file.ours));
        if !ours {
            return Ok(Directory::Foreign(name));
        }
        found = Directory::Ours;
    }
    Ok(found)
}

/// An answer that can be judged: the fact, or why the machine has none. Without the grant there is nothing to judge.
fn answered<T>(answer: Result<T, Error>) -> Result<Result<T, Error>, Error> {
    match answer {
        Err(error) if error.code == "denied" || error.code == "invalid" => Err(error),
        answered => Ok(answered),
    }
}

fn cri_socket() -> String {
    context::parameter("cri-socket").unwrap_or_else(|| "unix:///var/run/containerd/containerd.sock".to_owned())
}

fn kubernetes_minor() -> Result<u32, Error> {
    let minor = context::parameter("kubernetes-minor").and_then(|minor| minor.parse().ok());
    minor.ok_or_else(|| invalid("the host does not say which Kubernetes minor it is built for".to_owned()))
}

fn invalid(message: String) -> Error {
    Error { code: "invalid".to_owned(), message, retryable: false }
}
