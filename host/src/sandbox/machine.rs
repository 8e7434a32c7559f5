//! A machine whose units are simulated: systemd, and a kubelet that works with the files under the root.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::task::AbortHandle;

use crate::api::Dialer;
use crate::facts::{Fact, FactRequest, FactSource};
use crate::node::{Machine, NodeError, UnitAction, UnitState};

use self::kubelet::Kubelet;

mod bootstrap;
mod files;
mod flags;
mod kubelet;

/// Pause before a unit that ended is started again. kubeadm's drop-in says 10 s; nobody learns from waiting here.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Lines of a unit's log that are kept.
const LOG_LINES: usize = 200;
/// The unit that does something.
const KUBELET: &str = "kubelet";

/// What the simulated kubelet tells the cluster of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSpec {
    /// Kernel host name, lower-cased.
    pub hostname: String,
    /// Address of the Node.
    pub address: String,
    /// For example `v1.37.2`.
    pub kubelet_version: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `PRETTY_NAME`.
    pub os_image: String,
    /// Name of the runtime; its socket must fit.
    pub runtime: String,
    /// Version of the runtime.
    pub runtime_version: String,
    /// Processors.
    pub cpus: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

impl MachineSpec {
    /// Where a runtime of this name listens by default.
    pub fn runtime_socket(&self) -> &'static str {
        match self.runtime.as_str() {
            "cri-o" => "unix:///var/run/crio/crio.sock",
            "docker" => "unix:///var/run/cri-dockerd.sock",
            _ => "unix:///var/run/containerd/containerd.sock",
        }
    }

    /// Asks the facts; what they do not tell is that of a small machine.
    pub async fn ask(facts: &dyn FactSource) -> Self {
        let mut spec = Self {
            hostname: "node-1".into(),
            address: "192.0.2.10".into(),
            kubelet_version: "v1.37.2".into(),
            kernel_release: "6.1.0".into(),
            os_image: "Linux".into(),
            runtime: "containerd".into(),
            runtime_version: "2.4.2".into(),
            cpus: 2,
            memory_bytes: 4 << 30,
        };
        if let Ok(Fact::Os(os)) = facts.ask(&FactRequest::Os).await {
            spec.hostname = os.hostname.trim().to_lowercase();
            spec.os_image = os.pretty_name;
        }
        if let Ok(Fact::Interfaces(interfaces)) = facts.ask(&FactRequest::Interfaces).await {
            let addresses = interfaces.into_iter().flat_map(|interface| interface.addresses);
            let global = |text: &String| {
                text.parse::<std::net::IpAddr>().is_ok_and(|address| match address {
                    std::net::IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
                    std::net::IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
                })
            };
            spec.address = addresses.into_iter().find(global).unwrap_or(spec.address);
        }
        if let Ok(Fact::Kernel(kernel)) = facts.ask(&FactRequest::Kernel).await {
            spec.kernel_release = kernel.release;
        }
        if let Ok(Fact::ContainerRuntime(runtime)) = facts.ask(&FactRequest::ContainerRuntime).await {
            (spec.runtime, spec.runtime_version) = (runtime.name, runtime.version);
        }
        let kubelet = FactRequest::Executable { name: KUBELET.into() };
        if let Ok(Fact::Executable(Some(kubelet))) = facts.ask(&kubelet).await
            && let Some(version) = kubelet.version.as_deref().and_then(|text| text.split(' ').next_back())
        {
            spec.kubelet_version = version.to_owned();
        }
        if let Ok(Fact::Number(cpus)) = facts.ask(&FactRequest::UsableCpus).await {
            spec.cpus = cpus;
        }
        if let Ok(Fact::Number(bytes)) = facts.ask(&FactRequest::MemoryTotal).await {
            spec.memory_bytes = bytes;
        }
        spec
    }
}

/// Units, health and logs of a machine that exists only under a directory.
pub struct SimulatedMachine {
    shared: Arc<Shared>,
}

/// What the kubelet's task and the machine have in common.
struct Shared {
    root: PathBuf,
    spec: MachineSpec,
    dialer: Dialer,
    state: Mutex<Units>,
}

#[derive(Default)]
struct Units {
    active: BTreeMap<String, bool>,
    restarts: u32,
    log: VecDeque<String>,
    actions: Vec<(UnitAction, String)>,
    task: Option<AbortHandle>,
    /// Where the kubelet answers `/healthz` while it runs.
    healthz: Option<(String, u16)>,
}

impl SimulatedMachine {
    /// `root` is where mortise writes; `dialer` reaches the API server that the written files name.
    pub fn new(root: PathBuf, spec: MachineSpec, dialer: Dialer) -> Self {
        let units =
            Units { active: [(KUBELET.to_owned(), false), ("containerd".to_owned(), true)].into(), ..Units::default() };
        Self { shared: Arc::new(Shared { root, spec, dialer, state: Mutex::new(units) }) }
    }

    /// What was done to units so far.
    pub fn actions(&self) -> Vec<(UnitAction, String)> {
        self.shared.units().actions.clone()
    }

    fn act(&self, action: UnitAction, unit: &str) -> Result<(), NodeError> {
        let mut units = self.shared.units();
        units.actions.push((action, unit.to_owned()));
        if action == UnitAction::DaemonReload {
            return Ok(());
        }
        let Some(active) = units.active.get_mut(unit) else {
            return Err(NodeError::Unit {
                action: action.as_str(),
                unit: unit.to_owned(),
                message: format!("Unit {unit}.service not found."),
            });
        };
        *active = action == UnitAction::Restart;
        if unit == KUBELET {
            units.healthz = None;
            units.restarts = 0;
            if let Some(task) = units.task.take() {
                task.abort();
            }
            if action == UnitAction::Restart {
                units.task = Some(tokio::spawn(supervise(self.shared.clone())).abort_handle());
            }
        }
        Ok(())
    }
}

impl Drop for SimulatedMachine {
    fn drop(&mut self) {
        if let Some(task) = self.shared.units().task.take() {
            task.abort();
        }
    }
}

/// Starts the kubelet again whenever it ends.
async fn supervise(shared: Arc<Shared>) {
    loop {
        let ended = Kubelet::new(&shared).run().await;
        shared.ended();
        shared.log(&format!("\"command failed\" err={:?}", format!("failed to run Kubelet: {ended}")));
        tokio::time::sleep(RESTART_DELAY).await;
    }
}

impl Shared {
    fn units(&self) -> MutexGuard<'_, Units> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, line: &str) {
        let mut units = self.units();
        if units.log.len() == LOG_LINES {
            units.log.pop_front();
        }
        units.log.push_back(line.to_owned());
    }

    fn ended(&self) {
        let mut units = self.units();
        units.healthz = None;
        units.restarts += 1;
    }

    fn root(&self) -> &Path {
        &self.root
    }
}

impl Machine for SimulatedMachine {
    fn hostname(&self) -> Result<String, NodeError> {
        Ok(self.shared.spec.hostname.clone())
    }

    fn unit<'a>(&'a self, action: UnitAction, unit: &'a str) -> BoxFuture<'a, Result<(), NodeError>> {
        ready(self.act(action, unit)).boxed()
    }

    fn unit_state<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<UnitState, NodeError>> {
        let units = self.shared.units();
        let active = units.active.get(unit).copied();
        let restarts = (unit == KUBELET).then_some(units.restarts);
        ready(Ok(UnitState { exists: active.is_some(), active: active.unwrap_or(false), restarts })).boxed()
    }

    fn unit_log<'a>(&'a self, unit: &'a str, lines: usize) -> BoxFuture<'a, Vec<String>> {
        let units = self.shared.units();
        let skipped = units.log.len().saturating_sub(lines);
        let log = if unit == KUBELET { units.log.iter().skip(skipped).cloned().collect() } else { Vec::new() };
        ready(log).boxed()
    }

    fn healthz<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<u16, io::Error>> {
        let units = self.shared.units();
        let uri: Option<http::Uri> = url.parse().ok();
        let asked = uri.as_ref().and_then(|uri| {
            let host = uri.host()?.trim_matches(['[', ']']).to_owned();
            (uri.scheme_str() == Some("http")).then_some((host, uri.port_u16().unwrap_or(80)))
        });
        let answer = match &units.healthz {
            Some(served) if Some(served) == asked.as_ref() => {
                Ok(if uri.is_some_and(|uri| uri.path() == "/healthz") { 200 } else { 404 })
            }
            _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nothing listens there in the sandbox")),
        };
        ready(answer).boxed()
    }
}

#[cfg(test)]
mod tests;
