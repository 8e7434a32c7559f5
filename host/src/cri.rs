//! The container runtime, asked over the Container Runtime Interface v1 on its unix socket.
//!
//! Only what a join and a reset need: version, conditions, configuration, images and the Pod sandboxes. The generated code
//! (`runtime_v1`) comes from `host/proto/cri.proto`.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::error::{Diagnose, ExitCode};
use runtime_v1::image_service_client::ImageServiceClient;
use runtime_v1::runtime_service_client::RuntimeServiceClient;

mod images;

#[expect(unreachable_pub, reason = "generated code")]
#[rustfmt::skip]
mod runtime_v1;

/// The socket assumed where none answers.
pub const DEFAULT_SOCKET: &str = "unix:///var/run/containerd/containerd.sock";

/// Sockets that detection tries, in this order.
const KNOWN_SOCKETS: [&str; 3] = [DEFAULT_SOCKET, "unix:///var/run/crio/crio.sock", "unix:///var/run/cri-dockerd.sock"];

/// For the connection, and for each call that only asks. As kubeadm and crictl.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// For stopping or removing one sandbox, which ends processes.
const ACT_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer, as in the kubelet's client.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Most of the text that is kept of a message of the runtime.
const MAX_MESSAGE_CHARS: usize = 1000;

/// A connection to a runtime that has told its version.
#[derive(Debug, Clone)]
pub struct Client {
    service: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    url: String,
    version: RuntimeVersion,
}

/// Answer to `Version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// For example `containerd`.
    pub name: String,
    /// For example `v2.4.2`, as the runtime writes it.
    pub version: String,
    /// For example `v1`.
    pub api_version: String,
}

/// Answer to `Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// In the runtime's order.
    pub conditions: Vec<Condition>,
    /// With `verbose` only: the runtime's configuration, JSON in containerd's and CRI-O's case.
    pub config: Option<String>,
}

/// One condition of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `RuntimeReady`, `NetworkReady` or one of the runtime's own.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// One word.
    pub reason: String,
    /// For a person.
    pub message: String,
}

/// Answer to `RuntimeConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeConfig {
    /// The runtime is older than the call.
    Unsupported,
    /// It is supported, but tells no Linux configuration.
    Empty,
    /// The cgroup driver that the kubelet must use, too.
    CgroupDriver(CgroupDriver),
}

/// Who makes control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    /// systemd.
    Systemd,
    /// The runtime itself.
    Cgroupfs,
}

impl CgroupDriver {
    /// As KubeletConfiguration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Cgroupfs => "cgroupfs",
        }
    }
}

/// A Pod sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// `namespace/name` of the Pod; empty where the runtime does not say.
    pub pod: String,
    /// Whether it runs.
    pub ready: bool,
}

/// What failed about the container runtime.
#[derive(Debug, Error)]
pub enum CriError {
    /// Not the URL of a unix socket.
    #[error("`{url}` is not the URL of a unix socket")]
    Url {
        /// As given.
        url: String,
    },
    /// Nobody listens, or not with gRPC.
    #[error("cannot connect to the container runtime at `{url}`: {message}")]
    Connect {
        /// The socket.
        url: String,
        /// The innermost cause.
        message: String,
    },
    /// A call was answered with an error.
    #[error("CRI call `{call}` to `{url}` failed: {message}")]
    Call {
        /// The socket.
        url: String,
        /// For example `Status`.
        call: &'static str,
        /// gRPC code and message.
        message: String,
    },
    /// A call was not answered in time.
    #[error("CRI call `{call}` to `{url}` was not answered within {} s", after.as_secs())]
    Timeout {
        /// The socket.
        url: String,
        /// For example `Status`.
        call: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// More than one runtime listens, and none was named.
    #[error("found multiple CRI endpoints on the host: {}", sockets.join(", "))]
    SeveralSockets {
        /// URLs.
        sockets: Vec<String>,
    },
}

impl Diagnose for CriError {
    fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } => "cri-url",
            Self::Connect { .. } => "cri-connect",
            Self::Call { .. } => "cri-call",
            Self::Timeout { .. } => "cri-timeout",
            Self::SeveralSockets { .. } => "cri-several-sockets",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Url { .. } => format!("write it as `{DEFAULT_SOCKET}`"),
            Self::Connect { .. } => {
                "`systemctl status containerd` shows whether it runs; another socket is named with \
                                     `--cri-socket`"
                    .into()
            }
            Self::Call { url, .. } | Self::Timeout { url, .. } => {
                format!("`crictl --runtime-endpoint {url} info` asks the same")
            }
            Self::SeveralSockets { sockets } => {
                let first = sockets.first().map_or(DEFAULT_SOCKET, String::as_str);
                format!("name the one to use: `--cri-socket {first}`, or `nodeRegistration.criSocket` in the file")
            }
        })
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Url { .. } | Self::SeveralSockets { .. } => ExitCode::Usage,
            Self::Connect { .. } | Self::Call { .. } | Self::Timeout { .. } => ExitCode::Failed,
        }
    }
}

/// URL of the socket on which a container runtime listens; [`DEFAULT_SOCKET`] where none does.
///
/// A socket counts when a connection is accepted, as in kubeadm. Does not block.
///
/// # Errors
///
/// [`CriError::SeveralSockets`]: the user must choose.
pub fn detect_socket() -> Result<String, CriError> {
    detect_among(&KNOWN_SOCKETS)
}

fn detect_among(urls: &[&str]) -> Result<String, CriError> {
    let mut sockets: Vec<_> = urls.iter().filter(|url| listens(url)).map(|url| (*url).to_owned()).collect();
    match sockets.len() {
        0 => Ok(DEFAULT_SOCKET.to_owned()),
        1 => Ok(sockets.remove(0)),
        _ => Err(CriError::SeveralSockets { sockets }),
    }
}

fn listens(url: &str) -> bool {
    let Ok(path) = socket_path(url) else { return false };
    let connect = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
    };
    // Again: somebody listens, but the queue is full just now.
    matches!(connect(), Ok(()) | Err(Errno::AGAIN))
}

/// The path in `unix:///path`; a bare absolute path is taken, too, as kubeadm takes `--cri-socket` verbatim.
fn socket_path(url: &str) -> Result<&Path, CriError> {
    let path = Path::new(url.strip_prefix("unix://").unwrap_or(url));
    if path.is_absolute() { Ok(path) } else { Err(CriError::Url { url: url.to_owned() }) }
}

impl Client {
    /// Connects and asks for the version, within two seconds.
    ///
    /// # Errors
    ///
    /// [`CriError::Url`], [`CriError::Connect`]; [`CriError::Call`] where what listens does not speak CRI v1;
    /// [`CriError::Timeout`].
    pub async fn connect(url: &str) -> Result<Self, CriError> {
        let path = socket_path(url)?;
        let connect_error =
            |error: &(dyn Error + 'static)| CriError::Connect { url: url.to_owned(), message: innermost(error) };
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).map_err(|e| connect_error(&e))?;
        let connecting = async {
            let channel = endpoint.connect().await.map_err(|error| connect_error(&error))?;
            let images = ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
            let mut service = RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            // What the kubelet's client sends.
            let request = runtime_v1::VersionRequest { version: "v1".to_owned() };
            let answer = service.version(request).await.map_err(|status| call_error(url, "Version", &status))?;
            let runtime_v1::VersionResponse {
                runtime_name: name, runtime_version: version, runtime_api_version, ..
            } = answer.into_inner();
            let version = RuntimeVersion { name, version, api_version: runtime_api_version };
            Ok(Self { service, images, url: url.to_owned(), version })
        };
        let timeout = |_| CriError::Timeout { url: url.to_owned(), call: "Version", after: ASK_TIMEOUT };
        tokio::time::timeout(ASK_TIMEOUT, connecting).await.map_err(timeout)?
    }

    /// What it said at the connection.
    pub fn version(&self) -> &RuntimeVersion {
        &self.version
    }

    /// Conditions; with `verbose` the runtime's configuration, too.
    ///
    /// # Errors
    ///
    /// [`CriError::Call`], [`CriError::Timeout`].
    pub async fn status(&mut self, verbose: bool) -> Result<RuntimeStatus, CriError> {
        let url = self.url.clone();
        let answer = self.service.status(runtime_v1::StatusRequest { verbose });
        let runtime_v1::StatusResponse { status, mut info } = answered(&url, "Status", ASK_TIMEOUT, answer).await?;
        let conditions = status.unwrap_or_default().conditions.into_iter();
        let condition = |condition: runtime_v1::RuntimeCondition| Condition {
            kind: condition.r#type,
            holds: condition.status,
            reason: condition.reason,
            message: condition.message,
        };
        Ok(RuntimeStatus { conditions: conditions.map(condition).collect(), config: info.remove("config") })
    }

    /// What the kubelet would take over.
    ///
    /// # Errors
    ///
    /// [`CriError::Call`], [`CriError::Timeout`]; not that the call is unknown to the runtime.
    pub async fn runtime_config(&mut self) -> Result<RuntimeConfig, CriError> {
        let url = self.url.clone();
        let asking = async {
            match self.service.runtime_config(runtime_v1::RuntimeConfigRequest {}).await {
                Err(status) if status.code() == Code::Unimplemented => Ok(Response::new(RuntimeConfig::Unsupported)),
                Err(status) => Err(status),
                Ok(answer) => Ok(answer.map(|answer| match answer.linux.map(|linux| linux.cgroup_driver()) {
                    None => RuntimeConfig::Empty,
                    Some(runtime_v1::CgroupDriver::Systemd) => RuntimeConfig::CgroupDriver(CgroupDriver::Systemd),
                    Some(runtime_v1::CgroupDriver::Cgroupfs) => RuntimeConfig::CgroupDriver(CgroupDriver::Cgroupfs),
                })),
            }
        };
        answered(&url, "RuntimeConfig", ASK_TIMEOUT, asking).await
    }

    /// All Pod sandboxes, running or not.
    ///
    /// # Errors
    ///
    /// [`CriError::Call`], [`CriError::Timeout`].
    pub async fn pod_sandboxes(&mut self) -> Result<Vec<Sandbox>, CriError> {
        let url = self.url.clone();
        let answer = self.service.list_pod_sandbox(runtime_v1::ListPodSandboxRequest {});
        let answer = answered(&url, "ListPodSandbox", ASK_TIMEOUT, answer).await?;
        let sandbox = |sandbox: runtime_v1::PodSandbox| Sandbox {
            ready: sandbox.state() == runtime_v1::PodSandboxState::SandboxReady,
            pod: sandbox.metadata.map(|pod| format!("{}/{}", pod.namespace, pod.name)).unwrap_or_default(),
            id: sandbox.id,
        };
        Ok(answer.items.into_iter().map(sandbox).collect())
    }

    /// Stops a sandbox and its containers. Stopping a stopped or unknown one succeeds.
    ///
    /// # Errors
    ///
    /// [`CriError::Call`], [`CriError::Timeout`]; trying again may help.
    pub async fn stop_pod_sandbox(&mut self, id: &str) -> Result<(), CriError> {
        let url = self.url.clone();
        let request = runtime_v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let answer = self.service.stop_pod_sandbox(request);
        answered(&url, "StopPodSandbox", ACT_TIMEOUT, answer).await.map(drop)
    }

    /// Removes a sandbox and its containers, running or not. Removing an unknown one succeeds.
    ///
    /// # Errors
    ///
    /// [`CriError::Call`], [`CriError::Timeout`]; trying again may help.
    pub async fn remove_pod_sandbox(&mut self, id: &str) -> Result<(), CriError> {
        let url = self.url.clone();
        let request = runtime_v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let answer = self.service.remove_pod_sandbox(request);
        answered(&url, "RemovePodSandbox", ACT_TIMEOUT, answer).await.map(drop)
    }
}

async fn answered<T>(
    url: &str,
    call: &'static str,
    after: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CriError> {
    match tokio::time::timeout(after, answer).await {
        Err(_) => Err(CriError::Timeout { url: url.to_owned(), call, after }),
        Ok(Err(status)) => Err(call_error(url, call, &status)),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
    }
}

fn call_error(url: &str, call: &'static str, status: &Status) -> CriError {
    let text = if status.message().is_empty() { innermost(status) } else { status.message().to_owned() };
    let message = format!("{}: {text}", status.code());
    CriError::Call { url: url.to_owned(), call, message: printable(&message) }
}

/// The cause at the bottom says what happened; those above it only that something did.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::NotFound => "no such socket".to_owned(),
        _ => printable(&cause.to_string()),
    }
}

fn printable(text: &str) -> String {
    crate::output::printable(&text.chars().take(MAX_MESSAGE_CHARS).collect::<String>())
}

#[cfg(test)]
pub(crate) mod tests;
