//! What is known of a machine: asked of this one, or recorded from a healthy one.
//!
//! The requests and answers mirror `wit/host/facts.wit`; they travel between the broker and a runner as JSON. One
//! snapshot serves a whole join. This module answers; whether a plugin may ask is the broker's business.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::network::{Network, SystemNetwork};

mod cgroup;
mod host;
mod kernel;
mod mounts;
mod network;
mod os;
mod programs;
mod redact;
mod runtime;

pub use host::{HostFacts, HostSettings, Ownership};

/// Answers what the broker has found to be granted. Two kinds: this machine, and a recorded one.
pub trait FactSource: Send + Sync {
    /// The network that plugins reach through the broker.
    fn network(&self) -> &dyn Network {
        &SystemNetwork
    }

    /// One fact of the snapshot.
    fn ask<'a>(&'a self, request: &'a FactRequest) -> BoxFuture<'a, Result<Fact, HostError>>;
    /// What is known of a file; none: nothing is there.
    fn stat<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Option<FileInfo>, HostError>>;
    /// The whole content of a regular file.
    fn read<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<u8>, HostError>>;
    /// Names in a directory, at most [`MAX_ENTRIES`].
    fn entries<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<String>, HostError>>;
    /// Runs a program to its end.
    fn run<'a>(&'a self, request: &'a CommandRequest) -> BoxFuture<'a, Result<CommandOutput, HostError>>;
}

/// A file that a grant names.
#[derive(Clone, Copy)]
pub struct FileRequest<'a> {
    /// Absolute, without `.` and `..`, already matched by a grant.
    pub path: &'a Path,
    /// Whether a path that a link leads to is granted, too.
    pub permits: &'a (dyn Fn(&Path) -> bool + Send + Sync),
    /// Largest content, for `read`.
    pub max_bytes: u64,
}

/// A program run that a grant names, all limits filled in.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// Absolute.
    pub program: PathBuf,
    /// Each already matched by the grant.
    pub arguments: Vec<String>,
    /// Names of variables that are passed on.
    pub environment: Vec<String>,
    /// User name it runs as when the host is root.
    pub user: String,
    /// Wall clock.
    pub timeout: Duration,
    /// Of stdout and stderr each.
    pub max_output_bytes: u64,
}

impl std::fmt::Debug for CommandRequest {
    /// An argument may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (program, arguments) = (&self.program, self.arguments.len());
        f.debug_struct("CommandRequest")
            .field("program", program)
            .field("arguments", &arguments)
            .finish_non_exhaustive()
    }
}

/// A question about the machine, one case a function of `mortise:host/facts`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FactRequest {
    /// uname(2).
    Kernel,
    /// Values of kernel build options, names without `CONFIG_`.
    KernelOptions {
        /// At most 256.
        names: Vec<String>,
    },
    /// Loaded modules.
    Modules,
    /// One kernel parameter.
    Sysctl {
        /// Dotted form.
        name: String,
    },
    /// How control groups are mounted.
    Cgroup,
    /// Active swap areas.
    Swap,
    /// Processors this process may run on.
    UsableCpus,
    /// Total memory.
    MemoryTotal,
    /// The mount table.
    Mounts,
    /// Whether a TCP port can be listened on.
    TcpPort {
        /// None: on all addresses.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        /// 1 to 65535.
        port: u16,
    },
    /// Interfaces that are up.
    Interfaces,
    /// A unit of the init system.
    Unit {
        /// Without suffix.
        name: String,
    },
    /// A program on the search path.
    Executable {
        /// Base name.
        name: String,
    },
    /// What the container runtime answers.
    ContainerRuntime,
    /// os-release(5) and host name.
    Os,
    /// What the resolver says of the node name.
    NodeNameAddresses,
    /// The proxy a URL would use.
    ProxyFor {
        /// `http:` or `https:`.
        url: String,
    },
    /// Who runs the join.
    CurrentUid,
}

/// An answer; the case fits the request's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// For [`FactRequest::Kernel`].
    Kernel(KernelInfo),
    /// For [`FactRequest::KernelOptions`], in the order asked for.
    KernelOptions(Vec<Option<String>>),
    /// For [`FactRequest::Modules`], [`FactRequest::Swap`] (paths) and [`FactRequest::NodeNameAddresses`].
    Names(Vec<String>),
    /// For [`FactRequest::Sysctl`].
    Text(String),
    /// For [`FactRequest::Cgroup`].
    Cgroup(CgroupInfo),
    /// For [`FactRequest::UsableCpus`], [`FactRequest::MemoryTotal`] (bytes) and [`FactRequest::CurrentUid`].
    Number(u64),
    /// For [`FactRequest::Mounts`].
    Mounts(Vec<Mount>),
    /// For [`FactRequest::TcpPort`].
    TcpPort(PortState),
    /// For [`FactRequest::Interfaces`].
    Interfaces(Vec<NetworkInterface>),
    /// For [`FactRequest::Unit`].
    Unit(UnitInfo),
    /// For [`FactRequest::Executable`].
    Executable(Option<ExecutableInfo>),
    /// For [`FactRequest::ContainerRuntime`].
    ContainerRuntime(RuntimeInfo),
    /// For [`FactRequest::Os`].
    Os(OsInfo),
    /// For [`FactRequest::ProxyFor`].
    Proxy(Option<String>),
}

/// `error` of `mortise:host/types`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostError {
    /// `denied`, `not-found`, `too-large`, `timeout`, `unavailable` or `invalid`.
    pub code: String,
    /// One line, at most 4 KiB.
    pub message: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
}

impl HostError {
    fn new(code: &str, message: impl std::fmt::Display) -> Self {
        let mut message = crate::output::printable(&message.to_string());
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        Self { code: code.to_owned(), message, retryable: false }
    }

    /// The machine cannot tell.
    pub fn unavailable(message: impl std::fmt::Display) -> Self {
        Self::new("unavailable", message)
    }

    /// What was asked for is not there.
    pub fn not_found(message: impl std::fmt::Display) -> Self {
        Self::new("not-found", message)
    }

    /// The question makes no sense.
    pub fn invalid(message: impl std::fmt::Display) -> Self {
        Self::new("invalid", message)
    }

    /// No answer in time.
    pub fn timeout(message: impl std::fmt::Display) -> Self {
        Self { retryable: true, ..Self::new("timeout", message) }
    }
}

/// Most names that a directory may have for [`FactSource::entries`]; as the WIT promises.
pub const MAX_ENTRIES: usize = 1024;
/// As the WIT promises.
const MAX_MESSAGE_BYTES: usize = 4096;

/// See `kernel-info` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelInfo {
    /// `Linux`.
    pub name: String,
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
}

/// See `cgroup-version` in the WIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupVersion {
    /// No control group file system is mounted.
    None,
    /// Legacy or hybrid.
    V1,
    /// Unified.
    V2,
}

/// See `cgroup-info` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CgroupInfo {
    /// What decides is kubeadm's rule.
    pub version: CgroupVersion,
    /// Enabled ones.
    pub controllers: Vec<String>,
}

/// See `mount` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Device or name.
    pub source: String,
    /// Mount point.
    pub target: String,
    /// For example `ext4`.
    pub fs_type: String,
    /// Comma-separated.
    pub options: String,
}

/// See `port-state` in the WIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// Can be listened on.
    Free,
    /// Somebody listens.
    InUse,
    /// What an earlier run of this join started listens.
    Ours,
}

/// See `network-interface` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInterface {
    /// For example `eth0`.
    pub name: String,
    /// Text form.
    pub addresses: Vec<String>,
}

/// See `unit-info` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitInfo {
    /// `systemd`, `openrc` or none.
    pub init_system: Option<String>,
    /// The init system knows it.
    pub exists: bool,
    /// Started at boot.
    pub enabled: bool,
    /// Runs now.
    pub active: bool,
}

/// See `executable-info` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutableInfo {
    /// Absolute.
    pub path: String,
    /// What `--version` printed.
    pub version: Option<String>,
    /// Why there is none.
    pub version_error: Option<String>,
}

/// See `runtime-info` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeInfo {
    /// For example `containerd`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Condition `RuntimeReady`.
    pub ready: Option<bool>,
    /// Its reason and message.
    pub ready_message: String,
    /// `RuntimeConfig` is implemented.
    pub config_supported: bool,
    /// `systemd` or `cgroupfs`.
    pub cgroup_driver: Option<String>,
    /// What went wrong with `RuntimeConfig`.
    pub config_error: Option<String>,
}

/// See `os-info` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OsInfo {
    /// `ID`.
    pub id: String,
    /// `VERSION_ID`.
    pub version_id: String,
    /// `PRETTY_NAME`.
    pub pretty_name: String,
    /// Kernel host name.
    pub hostname: String,
}

/// See `file-kind` in the WIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// See `file-info` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    /// What the path leads to.
    pub kind: FileKind,
    /// Of the content.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// An earlier run of this join wrote it.
    pub ours: bool,
}

/// See `output` in the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandOutput {
    /// None: ended by a signal.
    pub status: Option<i32>,
    /// At most the grant's cap.
    pub stdout: Vec<u8>,
    /// At most the grant's cap.
    pub stderr: Vec<u8>,
}
