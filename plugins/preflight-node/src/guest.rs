//! Asks the host what a check needs and hands it to the judge.

use crate::bindings::exports::mortise::preflight::check::{CheckInfo, Guest, Report};
use crate::bindings::mortise::host::context::{self, NodeRole};
use crate::bindings::mortise::host::types::Error;
use crate::bindings::mortise::host::{facts, files as host_files};
use crate::list::{self, Check, Join};
use crate::{files, kernel, kubelet, network, runtime, system};

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
        Check::KubeletPort => kubelet::judge_port(kubelet::PORT, &answered(facts::tcp_port(kubelet::PORT))?),
        Check::Proxy(host) => network::judge_proxy(host, facts::proxy_for(&network::probe_url(host))?.as_deref()),
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
