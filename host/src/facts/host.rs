//! This machine's facts: one snapshot a join. Whoever asks first computes; everybody else waits for the same answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use secrecy::SecretString;
use tokio::sync::OnceCell;

use super::programs::{self, SearchPath};
use super::{
    CommandOutput, CommandRequest, Fact, FactRequest, FactSource, FileInfo, FileRequest, HostError, PortState,
};
use super::{cgroup, kernel, mounts, network, os, redact, runtime};
use crate::config::Environment;
use crate::journal::Record;
use crate::plugin::{Launcher, commands, files};
use crate::proxy::ProxySettings;

/// The kubelet's port, whose listener may be ours.
const KUBELET_PORT: u16 = 10250;
const API_SERVER_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
/// Ports of the other static Pods, fixed by kubeadm.
const MANIFEST_PORTS: [(&str, &[u16]); 3] = [
    ("/etc/kubernetes/manifests/kube-controller-manager.yaml", &[10257]),
    ("/etc/kubernetes/manifests/kube-scheduler.yaml", &[10259]),
    ("/etc/kubernetes/manifests/etcd.yaml", &[2379, 2380]),
];

/// What an earlier run of this join made.
pub struct Ownership {
    /// Whether it wrote the file at this absolute path.
    pub files: Box<dyn Fn(&Path) -> bool + Send + Sync>,
    /// Ports of what it started: the kubelet, and static Pods whose manifests it published.
    pub ports: Vec<u16>,
}

impl Ownership {
    /// What this record owns. `bind_port`: of the API server, on a control plane.
    pub fn of(record: Record, bind_port: Option<u16>) -> Self {
        let mut ports = Vec::new();
        if record.owns_kubelet() {
            ports.push(KUBELET_PORT);
        }
        for (manifest, listens) in MANIFEST_PORTS {
            if record.owns(Path::new(manifest)) {
                ports.extend(listens);
            }
        }
        if record.owns(Path::new(API_SERVER_MANIFEST)) {
            ports.extend(bind_port);
        }
        Self { files: Box::new(move |path| record.owns(path)), ports }
    }
}

/// What the facts depend on beside the machine.
pub struct HostSettings {
    /// Name the Node will have.
    pub node_name: String,
    /// URL of the container runtime's socket.
    pub cri_socket: String,
    /// PATH and the proxy variables are read from it.
    pub environment: Environment,
    /// What is ours.
    pub owned: Ownership,
    /// Texts that no answer may contain, for example the bootstrap token.
    pub secrets: Vec<SecretString>,
    /// Prefix of the files of this machine, `/` unless `--root`; what the kernel shows in `/proc` and `/sys` has none.
    pub root: PathBuf,
    /// Starts the helper under which granted programs run.
    pub launcher: Launcher,
}

/// The facts of this machine.
pub struct HostFacts {
    settings: HostSettings,
    search_path: SearchPath,
    proxies: ProxySettings,
    answers: Mutex<HashMap<FactRequest, Arc<OnceCell<Answer>>>>,
}

type Answer = Result<Fact, HostError>;

impl HostFacts {
    /// Nothing is looked at yet.
    pub fn new(settings: HostSettings) -> Self {
        let search_path = SearchPath::new(settings.environment.variables.get("PATH").map(String::as_str));
        let proxies = ProxySettings::from_env(&settings.environment.variables);
        Self { settings, search_path, proxies, answers: Mutex::default() }
    }

    /// Starts on the slow facts, so that they are there when the first check asks. Nobody has to wait for it.
    pub fn warm_up(self: &Arc<Self>) {
        let kubelet = || "kubelet".to_owned();
        let slow = [
            FactRequest::Executable { name: kubelet() },
            FactRequest::ContainerRuntime,
            FactRequest::Unit { name: kubelet() },
        ];
        for request in slow {
            let facts = self.clone();
            // The answer is in the snapshot; an error is for whoever asks.
            drop(tokio::spawn(async move { facts.ask(&request).await }));
        }
    }

    async fn look(&self, request: &FactRequest) -> Answer {
        let path = &self.search_path;
        Ok(match request {
            FactRequest::Kernel => Fact::Kernel(kernel::kernel()),
            FactRequest::KernelOptions { names } => Fact::KernelOptions(kernel::options(names, path).await?),
            FactRequest::Modules => Fact::Names(kernel::modules()?),
            FactRequest::Sysctl { name } => Fact::Text(kernel::sysctl(name)?),
            FactRequest::Cgroup => Fact::Cgroup(cgroup::cgroup()?),
            FactRequest::Swap => Fact::Names(mounts::swap()?),
            FactRequest::UsableCpus => Fact::Number(kernel::usable_cpus()?),
            FactRequest::MemoryTotal => Fact::Number(kernel::memory_total()),
            FactRequest::Mounts => Fact::Mounts(mounts::mounts()?),
            FactRequest::TcpPort { address, port } => Fact::TcpPort(self.tcp_port(*address, *port)?),
            FactRequest::Interfaces => Fact::Interfaces(network::interfaces()?),
            FactRequest::Unit { name } => Fact::Unit(programs::unit(name, path).await?),
            FactRequest::Executable { name } => Fact::Executable(programs::executable(name, path).await?),
            FactRequest::ContainerRuntime => {
                Fact::ContainerRuntime(runtime::container_runtime(&self.settings.cri_socket).await?)
            }
            FactRequest::Os => Fact::Os(os::os()?),
            FactRequest::NodeNameAddresses => Fact::Names(network::resolve(&self.settings.node_name).await?),
            FactRequest::ProxyFor { url } => Fact::Proxy(self.proxies.for_url(url).map(ToString::to_string)),
            FactRequest::CurrentUid => Fact::Number(rustix::process::getuid().as_raw().into()),
        })
    }

    fn within_root<T>(&self, request: FileRequest<'_>, look: fn(FileRequest<'_>) -> T) -> T {
        let root = self.settings.root.as_path();
        if root == Path::new("/") || ["/proc", "/sys"].iter().any(|kernel| request.path.starts_with(kernel)) {
            return look(request);
        }
        let located = root.join(request.path.strip_prefix("/").unwrap_or(request.path));
        let permits =
            |path: &Path| path.strip_prefix(root).is_ok_and(|inner| (request.permits)(&Path::new("/").join(inner)));
        look(FileRequest { path: &located, permits: &permits, max_bytes: request.max_bytes })
    }

    fn tcp_port(&self, address: Option<IpAddr>, port: u16) -> Result<PortState, HostError> {
        let state = network::tcp_port(address, port)?;
        let ours = state == PortState::InUse && self.settings.owned.ports.contains(&port);
        Ok(if ours { PortState::Ours } else { state })
    }
}

impl FactSource for HostFacts {
    fn ask<'a>(&'a self, request: &'a FactRequest) -> BoxFuture<'a, Answer> {
        let cell = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.entry(request.clone()).or_default().clone()
        };
        Box::pin(async move {
            let look = || async {
                let secrets = &self.settings.secrets;
                match self.look(request).await {
                    Ok(fact) => Ok(redact::cut_texts(fact, secrets)),
                    Err(error) => Err(redact::cut_texts(error, secrets)),
                }
            };
            cell.get_or_init(look).await.clone()
        })
    }

    fn stat<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Option<FileInfo>, HostError>> {
        Box::pin(async move {
            let found = self.within_root(request, files::stat)?;
            Ok(found.map(|file| FileInfo { ours: (self.settings.owned.files)(request.path), ..file }))
        })
    }

    fn read<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<u8>, HostError>> {
        Box::pin(async move { Ok(redact::cut(self.within_root(request, files::read)?, &self.settings.secrets)) })
    }

    fn entries<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<String>, HostError>> {
        Box::pin(async move { self.within_root(request, files::entries) })
    }

    fn run<'a>(&'a self, request: &'a CommandRequest) -> BoxFuture<'a, Result<CommandOutput, HostError>> {
        Box::pin(async move {
            let CommandOutput { status, stdout, stderr } = commands::run_with(&self.settings.launcher, request).await?;
            let secrets = &self.settings.secrets;
            Ok(CommandOutput { status, stdout: redact::cut(stdout, secrets), stderr: redact::cut(stderr, secrets) })
        })
    }
}

#[cfg(test)]
mod tests;
