//! Between the generated types and the host's, both ways; and the host functions, each one request to the broker.

use std::time::Duration;

use super::bindings::exports::mortise::preflight::check as wit;
use super::bindings::mortise::host::{commands, context, csr, facts as host_facts, files, log, settings, types};
use super::csr::CertificateRequest;
use super::guest::Guest;
use super::report::{CheckInfo, Report, ReportedFinding};
use super::wire::{Ask, HostAnswer, LogLevel};
use super::{Severity, Stage};
use crate::facts::{CgroupVersion, Fact, FactRequest, FileKind, HostError, PortState};

mod network;

impl From<wit::CheckInfo> for CheckInfo {
    fn from(check: wit::CheckInfo) -> Self {
        let stage = match check.stage {
            wit::Stage::Node => Stage::Node,
            wit::Stage::Cluster => Stage::Cluster,
            wit::Stage::Joined => Stage::Joined,
        };
        Self { id: check.id, title: check.title, stage, severity: check.severity.into() }
    }
}

impl From<wit::Severity> for Severity {
    fn from(severity: wit::Severity) -> Self {
        match severity {
            wit::Severity::Error => Self::Error,
            wit::Severity::Warning => Self::Warning,
        }
    }
}

impl From<wit::Report> for Report {
    fn from(report: wit::Report) -> Self {
        let findings = report.findings.into_iter().map(Into::into).collect();
        Self { skipped: report.skipped, findings, evidence: report.evidence, extra: report.extra }
    }
}

impl From<wit::Finding> for ReportedFinding {
    fn from(finding: wit::Finding) -> Self {
        let wit::Finding { severity, message, evidence, remedy, extra } = finding;
        Self { severity: severity.into(), message, evidence, remedy, extra }
    }
}

impl From<types::Error> for HostError {
    fn from(error: types::Error) -> Self {
        Self { code: error.code, message: error.message, retryable: error.retryable }
    }
}

impl From<HostError> for types::Error {
    fn from(error: HostError) -> Self {
        Self { code: error.code, message: error.message, retryable: error.retryable }
    }
}

/// An answer of another kind than was asked for.
fn mismatched() -> types::Error {
    types::Error { code: "unavailable".into(), message: "the host answered something else".into(), retryable: false }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl types::Host for Guest {}

impl context::Host for Guest {
    async fn role(&mut self) -> context::NodeRole {
        if self.start.control_plane { context::NodeRole::ControlPlane } else { context::NodeRole::Worker }
    }

    async fn node_name(&mut self) -> String {
        self.start.node_name.clone()
    }

    async fn parameter(&mut self, name: String) -> Option<String> {
        self.start.parameters.get(&name).cloned()
    }

    async fn grants(&mut self) -> Vec<String> {
        self.start.grants.clone()
    }

    async fn call_time_ms(&mut self) -> u64 {
        millis(self.start.guest_time)
    }

    async fn host_time_left_ms(&mut self) -> u64 {
        millis(self.host_time_left())
    }
}

impl settings::Host for Guest {
    async fn get(&mut self) -> String {
        self.start.settings.clone()
    }

    async fn text(&mut self, name: String) -> Option<String> {
        let settings: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&self.start.settings).ok()?;
        Some(match settings.get(&name)? {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}

impl log::Host for Guest {
    async fn write(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
        };
        self.log(level, &message);
    }
}

impl Guest {
    async fn fact(&mut self, request: FactRequest) -> Result<Fact, types::Error> {
        match self.ask(Ask::Fact(request)).await? {
            HostAnswer::Fact(fact) => Ok(fact),
            _ => Err(mismatched()),
        }
    }
}

/// Asks for a fact and takes the case that fits.
macro_rules! fact {
    ($guest:expr, $request:expr, $case:pat => $value:expr) => {
        match $guest.fact($request).await? {
            $case => Ok($value),
            _ => Err(mismatched()),
        }
    };
}

impl host_facts::Host for Guest {
    async fn kernel(&mut self) -> Result<host_facts::KernelInfo, types::Error> {
        fact!(self, FactRequest::Kernel, Fact::Kernel(it) => host_facts::KernelInfo {
            name: it.name, release: it.release, machine: it.machine,
        })
    }

    async fn kernel_options(&mut self, names: Vec<String>) -> Result<Vec<Option<String>>, types::Error> {
        fact!(self, FactRequest::KernelOptions { names }, Fact::KernelOptions(values) => values)
    }

    async fn modules(&mut self) -> Result<Vec<String>, types::Error> {
        fact!(self, FactRequest::Modules, Fact::Names(names) => names)
    }

    async fn sysctl(&mut self, name: String) -> Result<String, types::Error> {
        fact!(self, FactRequest::Sysctl { name }, Fact::Text(value) => value)
    }

    async fn cgroup(&mut self) -> Result<host_facts::CgroupInfo, types::Error> {
        fact!(self, FactRequest::Cgroup, Fact::Cgroup(it) => host_facts::CgroupInfo {
            version: match it.version {
                CgroupVersion::None => host_facts::CgroupVersion::None,
                CgroupVersion::V1 => host_facts::CgroupVersion::V1,
                CgroupVersion::V2 => host_facts::CgroupVersion::V2,
            },
            controllers: it.controllers,
        })
    }

    async fn swap(&mut self) -> Result<Vec<String>, types::Error> {
        fact!(self, FactRequest::Swap, Fact::Names(paths) => paths)
    }

    async fn usable_cpus(&mut self) -> Result<u32, types::Error> {
        fact!(self, FactRequest::UsableCpus, Fact::Number(count) => u32::try_from(count).unwrap_or(u32::MAX))
    }

    async fn memory_total_bytes(&mut self) -> Result<u64, types::Error> {
        fact!(self, FactRequest::MemoryTotal, Fact::Number(bytes) => bytes)
    }

    async fn mounts(&mut self) -> Result<Vec<host_facts::Mount>, types::Error> {
        fact!(self, FactRequest::Mounts, Fact::Mounts(mounts) => mounts.into_iter().map(|it| host_facts::Mount {
            source: it.source, target: it.target, fs_type: it.fs_type, options: it.options,
        }).collect())
    }

    async fn tcp_port(&mut self, port: u16) -> Result<host_facts::PortState, types::Error> {
        self.port_state(None, port).await
    }

    async fn tcp_port_on(&mut self, address: String, port: u16) -> Result<host_facts::PortState, types::Error> {
        let invalid = || types::Error { code: "invalid".into(), message: "no IP address".into(), retryable: false };
        self.port_state(Some(address.parse().map_err(|_| invalid())?), port).await
    }

    async fn interfaces(&mut self) -> Result<Vec<host_facts::NetworkInterface>, types::Error> {
        fact!(self, FactRequest::Interfaces, Fact::Interfaces(list) => list.into_iter().map(|it| {
            host_facts::NetworkInterface { name: it.name, addresses: it.addresses }
        }).collect())
    }

    async fn unit(&mut self, name: String) -> Result<host_facts::UnitInfo, types::Error> {
        fact!(self, FactRequest::Unit { name }, Fact::Unit(it) => host_facts::UnitInfo {
            init_system: it.init_system, exists: it.exists, enabled: it.enabled, active: it.active,
        })
    }

    async fn executable(&mut self, name: String) -> Result<Option<host_facts::ExecutableInfo>, types::Error> {
        fact!(self, FactRequest::Executable { name }, Fact::Executable(found) => found.map(|it| {
            host_facts::ExecutableInfo { path: it.path, version: it.version, version_error: it.version_error }
        }))
    }

    async fn container_runtime(&mut self) -> Result<host_facts::RuntimeInfo, types::Error> {
        fact!(self, FactRequest::ContainerRuntime, Fact::ContainerRuntime(it) => host_facts::RuntimeInfo {
            name: it.name,
            version: it.version,
            ready: it.ready,
            ready_message: it.ready_message,
            config_supported: it.config_supported,
            cgroup_driver: it.cgroup_driver,
            config_error: it.config_error,
        })
    }

    async fn os(&mut self) -> Result<host_facts::OsInfo, types::Error> {
        fact!(self, FactRequest::Os, Fact::Os(it) => host_facts::OsInfo {
            id: it.id, version_id: it.version_id, pretty_name: it.pretty_name, hostname: it.hostname,
        })
    }

    async fn node_name_addresses(&mut self) -> Result<Vec<String>, types::Error> {
        fact!(self, FactRequest::NodeNameAddresses, Fact::Names(addresses) => addresses)
    }

    async fn proxy_for(&mut self, url: String) -> Result<Option<String>, types::Error> {
        fact!(self, FactRequest::ProxyFor { url }, Fact::Proxy(proxy) => proxy)
    }

    async fn current_uid(&mut self) -> Result<u32, types::Error> {
        fact!(self, FactRequest::CurrentUid, Fact::Number(uid) => u32::try_from(uid).unwrap_or(u32::MAX))
    }
}

impl Guest {
    async fn port_state(
        &mut self,
        address: Option<std::net::IpAddr>,
        port: u16,
    ) -> Result<host_facts::PortState, types::Error> {
        fact!(self, FactRequest::TcpPort { address, port }, Fact::TcpPort(state) => match state {
            PortState::Free => host_facts::PortState::Free,
            PortState::InUse => host_facts::PortState::InUse,
            PortState::Ours => host_facts::PortState::Ours,
        })
    }
}

impl files::Host for Guest {
    async fn stat(&mut self, path: String) -> Result<Option<files::FileInfo>, types::Error> {
        let HostAnswer::Stat(found) = self.ask(Ask::Stat(path)).await? else { return Err(mismatched()) };
        Ok(found.map(|it| files::FileInfo {
            kind: match it.kind {
                FileKind::Regular => files::FileKind::Regular,
                FileKind::Directory => files::FileKind::Directory,
                FileKind::Other => files::FileKind::Other,
            },
            size_bytes: it.size_bytes,
            mode: it.mode,
            uid: it.uid,
            gid: it.gid,
            ours: it.ours,
        }))
    }

    async fn read(&mut self, path: String) -> Result<Vec<u8>, types::Error> {
        match self.ask(Ask::Read(path)).await? {
            HostAnswer::Content(content) => Ok(content.0),
            _ => Err(mismatched()),
        }
    }

    async fn entries(&mut self, path: String) -> Result<Vec<String>, types::Error> {
        match self.ask(Ask::Entries(path)).await? {
            HostAnswer::Entries(names) => Ok(names),
            _ => Err(mismatched()),
        }
    }
}

impl commands::Host for Guest {
    async fn run(&mut self, program: String, arguments: Vec<String>) -> Result<commands::Output, types::Error> {
        self.run_program(program, arguments, None).await
    }

    async fn run_with_secret(
        &mut self,
        program: String,
        arguments: Vec<String>,
        secret: String,
    ) -> Result<commands::Output, types::Error> {
        self.run_program(program, arguments, Some(secret)).await
    }
}

impl Guest {
    async fn run_program(
        &mut self,
        program: String,
        arguments: Vec<String>,
        secret: Option<String>,
    ) -> Result<commands::Output, types::Error> {
        match self.ask(Ask::Run { program, arguments, secret }).await? {
            HostAnswer::Output { status, stdout, stderr } => {
                Ok(commands::Output { status, stdout: stdout.0, stderr: stderr.0 })
            }
            _ => Err(mismatched()),
        }
    }
}

impl Guest {
    /// The request that this call is about.
    fn request(&self) -> Result<&CertificateRequest, types::Error> {
        self.request.as_deref().ok_or_else(|| types::Error {
            code: "unavailable".into(),
            message: "there is no certificate request in this call".into(),
            retryable: false,
        })
    }
}

impl csr::Host for Guest {
    async fn name(&mut self) -> Result<String, types::Error> {
        Ok(self.request()?.name.clone())
    }

    async fn signer_name(&mut self) -> Result<String, types::Error> {
        Ok(self.request()?.signer_name.clone())
    }

    async fn requested_at(&mut self) -> Result<u64, types::Error> {
        Ok(self.request()?.requested_at)
    }

    async fn expiration_seconds(&mut self) -> Result<Option<u32>, types::Error> {
        Ok(self.request()?.expiration_seconds)
    }

    async fn username(&mut self) -> Result<String, types::Error> {
        Ok(self.request()?.username.clone())
    }

    async fn node_name(&mut self) -> Result<String, types::Error> {
        self.request()?.node_name().map(str::to_owned).ok_or_else(|| types::Error {
            code: "not-found".into(),
            message: "the subject names no node".into(),
            retryable: false,
        })
    }

    async fn groups(&mut self) -> Result<Vec<String>, types::Error> {
        Ok(self.request()?.groups.clone())
    }

    async fn uid(&mut self) -> Result<String, types::Error> {
        Ok(self.request()?.uid.clone())
    }

    async fn extra(&mut self) -> Result<Vec<(String, Vec<String>)>, types::Error> {
        Ok(self.request()?.extra.clone())
    }

    async fn usages(&mut self) -> Result<Vec<String>, types::Error> {
        Ok(self.request()?.usages.clone())
    }

    async fn subject(&mut self) -> Result<Vec<(String, String)>, types::Error> {
        Ok(self.request()?.subject.clone())
    }

    async fn alternative_names(&mut self) -> Result<csr::Names, types::Error> {
        let names = self.request()?.names.clone();
        Ok(csr::Names { dns: names.dns, ip: names.ip, email: names.email, uri: names.uri, others: names.others })
    }

    async fn public_key(&mut self) -> Result<Vec<u8>, types::Error> {
        Ok(self.request()?.public_key.0.clone())
    }

    async fn pem(&mut self) -> Result<Vec<u8>, types::Error> {
        Ok(self.request()?.pem.0.clone())
    }
}
