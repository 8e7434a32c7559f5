//! Facts of a recorded machine: what it answered once, it answers again.
//!
//! A recording is a JSON document; the shipped one is a healthy worker. What a recording does not hold is
//! `unavailable`, never guessed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::{BoxFuture, FutureExt, ready};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::{Diagnose, ExitCode};
use crate::facts::{
    CgroupInfo, CommandOutput, CommandRequest, ExecutableInfo, Fact, FactRequest, FactSource, FileInfo, FileKind,
    FileRequest, HostError, KernelInfo, Mount, NetworkInterface, OsInfo, PortState, RuntimeInfo, UnitInfo,
};
use crate::network::{Network, NoNetwork};

/// Largest recording, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// The one version of the document.
const SCHEMA: &str = "mortise.dev/facts/v1";

/// A machine as it was recorded. Absent facts are `unavailable`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recording {
    /// `mortise.dev/facts/v1`.
    pub schema: String,
    /// Which machine, when, with which commands; what was changed by hand.
    pub origin: Vec<String>,
    /// The facts.
    pub facts: RecordedAnswers,
    /// Files by absolute path; null: the machine has none there.
    #[serde(default)]
    pub files: BTreeMap<PathBuf, Option<RecordedFile>>,
    /// Program runs.
    #[serde(default)]
    pub commands: Vec<RecordedCommand>,
}

/// Facts by the function of `mortise:host/facts` that asks for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is the WIT function of the same name")]
pub struct RecordedAnswers {
    pub kernel: Option<KernelInfo>,
    /// Options without `CONFIG_`; null: not set.
    #[serde(default)]
    pub kernel_options: BTreeMap<String, Option<String>>,
    pub modules: Option<Vec<String>>,
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    pub cgroup: Option<CgroupInfo>,
    pub swap: Option<Vec<String>>,
    pub usable_cpus: Option<u64>,
    pub memory_total: Option<u64>,
    pub mounts: Option<Vec<Mount>>,
    /// All TCP ports that something listens on.
    pub listening_tcp_ports: Option<Vec<u16>>,
    pub interfaces: Option<Vec<NetworkInterface>>,
    #[serde(default)]
    pub units: BTreeMap<String, UnitInfo>,
    /// Programs by base name; null: not on the search path.
    #[serde(default)]
    pub executables: BTreeMap<String, Option<ExecutableInfo>>,
    pub container_runtime: Option<RuntimeInfo>,
    pub os: Option<OsInfo>,
    pub node_name_addresses: Option<Vec<String>>,
    /// The proxy for all URLs; an empty text: none is set.
    pub proxy: Option<String>,
    pub current_uid: Option<u64>,
}

/// A regular file or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedFile {
    /// Permission bits, octal digits.
    pub mode: String,
    /// Owner.
    #[serde(default)]
    pub uid: u32,
    /// Group.
    #[serde(default)]
    pub gid: u32,
    /// What it holds; a directory holds nothing.
    #[serde(flatten)]
    pub content: RecordedContent,
}

/// Content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecordedContent {
    /// A file of UTF-8.
    Text(String),
    /// Any file.
    Base64(String),
    /// A directory; `true`.
    Directory(bool),
}

/// A program run and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordedCommand {
    /// Absolute.
    pub program: PathBuf,
    /// All of them.
    pub arguments: Vec<String>,
    /// None: ended by a signal.
    pub status: Option<i32>,
    /// UTF-8.
    #[serde(default)]
    pub stdout: String,
    /// UTF-8.
    #[serde(default)]
    pub stderr: String,
}

/// Answers from a recording.
#[derive(Debug, Clone)]
pub struct RecordedFacts {
    recording: Recording,
}

/// Why a recording cannot be used.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("cannot read the recorded facts `{path}`")]
    Read {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It is no recording.
    #[error("`{path}` holds no recorded facts")]
    Parse {
        /// As given.
        path: PathBuf,
        /// With line and column.
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("`{path}` has the schema `{schema}`; this version reads `{SCHEMA}`")]
    Schema {
        /// As given.
        path: PathBuf,
        /// Found.
        schema: String,
    },
}

impl Diagnose for RecordingError {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "sandbox-facts-read",
            Self::Parse { .. } => "sandbox-facts-parse",
            Self::Schema { .. } => "sandbox-facts-schema",
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Usage
    }
}

impl RecordedFacts {
    /// A healthy worker; its recording says which.
    pub fn healthy_node() -> Self {
        let recording =
            serde_json::from_str(include_str!("healthy-node.json")).expect("the shipped recording is read by a test");
        Self { recording }
    }

    /// Reads a recording of at most 16 MiB.
    ///
    /// # Errors
    ///
    /// See [`RecordingError`].
    pub fn load(path: &Path) -> Result<Self, RecordingError> {
        let read = |source| RecordingError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > MAX_BYTES {
            let message = format!("larger than {MAX_BYTES} bytes");
            return Err(read(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message)));
        }
        let bytes = std::fs::read(path).map_err(read)?;
        let recording: Recording =
            serde_json::from_slice(&bytes).map_err(|source| RecordingError::Parse { path: path.to_owned(), source })?;
        if recording.schema != SCHEMA {
            return Err(RecordingError::Schema { path: path.to_owned(), schema: recording.schema });
        }
        Ok(Self { recording })
    }

    /// Answers from this recording.
    pub fn new(recording: Recording) -> Self {
        Self { recording }
    }

    /// What it answers from.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    fn answer(&self, request: &FactRequest) -> Result<Fact, HostError> {
        let facts = &self.recording.facts;
        let answer = match request {
            FactRequest::Kernel => facts.kernel.clone().map(Fact::Kernel),
            FactRequest::KernelOptions { names } => {
                let values = names.iter().map(|name| {
                    let missing = || unavailable(&format!("the kernel option {name}"));
                    facts.kernel_options.get(name).cloned().ok_or_else(missing)
                });
                return Ok(Fact::KernelOptions(values.collect::<Result<_, _>>()?));
            }
            FactRequest::Modules => facts.modules.clone().map(Fact::Names),
            FactRequest::Sysctl { name } => facts.sysctls.get(name).cloned().map(Fact::Text),
            FactRequest::Cgroup => facts.cgroup.clone().map(Fact::Cgroup),
            FactRequest::Swap => facts.swap.clone().map(Fact::Names),
            FactRequest::UsableCpus => facts.usable_cpus.map(Fact::Number),
            FactRequest::MemoryTotal => facts.memory_total.map(Fact::Number),
            FactRequest::Mounts => facts.mounts.clone().map(Fact::Mounts),
            FactRequest::TcpPort { port, .. } => facts
                .listening_tcp_ports
                .as_ref()
                .map(|ports| Fact::TcpPort(if ports.contains(port) { PortState::InUse } else { PortState::Free })),
            FactRequest::Interfaces => facts.interfaces.clone().map(Fact::Interfaces),
            FactRequest::Unit { name } => facts.units.get(name).cloned().map(Fact::Unit),
            FactRequest::Executable { name } => facts.executables.get(name).cloned().map(Fact::Executable),
            FactRequest::ContainerRuntime => facts.container_runtime.clone().map(Fact::ContainerRuntime),
            FactRequest::Os => facts.os.clone().map(Fact::Os),
            FactRequest::NodeNameAddresses => facts.node_name_addresses.clone().map(Fact::Names),
            FactRequest::ProxyFor { .. } => {
                facts.proxy.clone().map(|url| Fact::Proxy(Some(url).filter(|url| !url.is_empty())))
            }
            FactRequest::CurrentUid => facts.current_uid.map(Fact::Number),
        };
        answer.ok_or_else(|| {
            let name = serde_json::to_value(request).unwrap_or_default();
            let detail = name["name"].as_str().map(|detail| format!(" {detail}")).unwrap_or_default();
            unavailable(&format!("the fact {}{detail}", name["fact"].as_str().unwrap_or_default()))
        })
    }

    fn file(&self, path: &Path) -> Result<Option<&RecordedFile>, HostError> {
        let found = self.recording.files.get(path);
        found.map(Option::as_ref).ok_or_else(|| unavailable(&format!("the file {}", path.display())))
    }

    fn info(&self, path: &Path) -> Result<Option<FileInfo>, HostError> {
        let Some(file) = self.file(path)? else { return Ok(None) };
        let content = content(path, file)?;
        let mode = u32::from_str_radix(&file.mode, 8)
            .map_err(|_| error("invalid", format!("the recording's mode of {} is not octal", path.display())))?;
        Ok(Some(FileInfo {
            kind: if content.is_some() { FileKind::Regular } else { FileKind::Directory },
            size_bytes: content.map_or(0, |content| content.len() as u64),
            mode,
            uid: file.uid,
            gid: file.gid,
            ours: false,
        }))
    }

    fn listed(&self, path: &Path) -> Result<Vec<String>, HostError> {
        match self.file(path)?.map(|file| &file.content) {
            None => return Err(error("not-found", format!("there is no {}", path.display()))),
            Some(RecordedContent::Directory(_)) => {}
            Some(_) => return Err(error("invalid", format!("{} is no directory", path.display()))),
        }
        let inside = self.recording.files.iter().filter(|(file, there)| there.is_some() && file.parent() == Some(path));
        Ok(inside.filter_map(|(file, _)| Some(file.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn content(&self, request: FileRequest<'_>) -> Result<Vec<u8>, HostError> {
        let path = request.path;
        let nothing = || error("not-found", format!("there is no regular file {}", path.display()));
        let file = self.file(path)?.ok_or_else(nothing)?;
        let content = content(path, file)?.ok_or_else(nothing)?;
        if content.len() as u64 > request.max_bytes {
            return Err(error("too-large", format!("{} is larger than {} bytes", path.display(), request.max_bytes)));
        }
        Ok(content)
    }

    fn run_recorded(&self, request: &CommandRequest) -> Result<CommandOutput, HostError> {
        let found = self
            .recording
            .commands
            .iter()
            .find(|command| command.program == request.program && command.arguments == request.arguments)
            .ok_or_else(|| unavailable(&format!("this run of {}", request.program.display())))?;
        let capped = |text: &str| {
            let cap = usize::try_from(request.max_output_bytes).unwrap_or(usize::MAX);
            text.as_bytes()[..text.len().min(cap)].to_vec()
        };
        Ok(CommandOutput { status: found.status, stdout: capped(&found.stdout), stderr: capped(&found.stderr) })
    }
}

impl FactSource for RecordedFacts {
    fn network(&self) -> &dyn Network {
        &NoNetwork
    }

    fn ask<'a>(&'a self, request: &'a FactRequest) -> BoxFuture<'a, Result<Fact, HostError>> {
        ready(self.answer(request)).boxed()
    }

    fn stat<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Option<FileInfo>, HostError>> {
        ready(self.info(request.path)).boxed()
    }

    fn read<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<u8>, HostError>> {
        ready(self.content(request)).boxed()
    }

    fn entries<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<String>, HostError>> {
        ready(self.listed(request.path)).boxed()
    }

    fn run<'a>(&'a self, request: &'a CommandRequest) -> BoxFuture<'a, Result<CommandOutput, HostError>> {
        ready(self.run_recorded(request)).boxed()
    }
}

/// None: a directory.
fn content(path: &Path, file: &RecordedFile) -> Result<Option<Vec<u8>>, HostError> {
    match &file.content {
        RecordedContent::Text(text) => Ok(Some(text.clone().into_bytes())),
        RecordedContent::Base64(text) => STANDARD
            .decode(text)
            .map(Some)
            .map_err(|_| error("invalid", format!("the recording of {} is no base64", path.display()))),
        RecordedContent::Directory(_) => Ok(None),
    }
}

fn unavailable(what: &str) -> HostError {
    error("unavailable", format!("{what} was not recorded"))
}

fn error(code: &str, message: String) -> HostError {
    HostError { code: code.into(), message, retryable: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_recording_answers_what_kubeadms_checks_ask() {
        let facts = RecordedFacts::healthy_node();
        assert_eq!(facts.recording().schema, SCHEMA);
        let sysctl = FactRequest::Sysctl { name: "net.ipv4.ip_forward".into() };
        assert_eq!(facts.answer(&sysctl), Ok(Fact::Text("1".into())));
        let free = FactRequest::TcpPort { address: None, port: 10250 };
        assert_eq!(facts.answer(&free), Ok(Fact::TcpPort(PortState::Free)));
        for request in [
            FactRequest::Kernel,
            FactRequest::Modules,
            FactRequest::Cgroup,
            FactRequest::Swap,
            FactRequest::UsableCpus,
            FactRequest::MemoryTotal,
            FactRequest::Mounts,
            FactRequest::Interfaces,
            FactRequest::ContainerRuntime,
            FactRequest::Os,
            FactRequest::NodeNameAddresses,
            FactRequest::CurrentUid,
            FactRequest::ProxyFor { url: "https://api.sandbox.test:6443".into() },
            FactRequest::Unit { name: "kubelet".into() },
            FactRequest::Executable { name: "losetup".into() },
        ] {
            assert!(facts.answer(&request).is_ok(), "{request:?}");
        }
    }

    #[test]
    fn says_unavailable_for_what_was_not_recorded() {
        let facts = RecordedFacts::healthy_node();
        let unknown = FactRequest::Sysctl { name: "kernel.unheard_of".into() };
        let error = facts.answer(&unknown).unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("unavailable", "the fact sysctl kernel.unheard_of was not recorded")
        );
        let unknown = FactRequest::KernelOptions { names: vec!["NAMESPACES".into(), "UNHEARD_OF".into()] };
        assert_eq!(facts.answer(&unknown).unwrap_err().message, "the kernel option UNHEARD_OF was not recorded");
    }

    #[test]
    fn refuses_recordings_with_unknown_fields_and_versions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("facts.json");
        std::fs::write(&path, r#"{"schema": "mortise.dev/facts/v1", "origin": [], "facts": {"kernels": 1}}"#).unwrap();
        assert!(matches!(RecordedFacts::load(&path), Err(RecordingError::Parse { .. })));
        std::fs::write(&path, r#"{"schema": "mortise.dev/facts/v9", "origin": [], "facts": {}}"#).unwrap();
        assert!(matches!(RecordedFacts::load(&path), Err(RecordingError::Schema { .. })));
    }
}
