//! What host and runner say to each other: frames on one socket, each a length (four bytes, big endian) and JSON.
//!
//! The host believes nothing of what comes from a runner: a frame has a largest size, unknown fields are errors, and
//! what a frame may refer to is checked by the session. The runner trusts the host.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::answers::{Cluster, RawJudgement};
use super::csr::CertificateRequest;
use super::http::{HttpAnswer, HttpRequest};
use super::probe::{ProbeRequest, Probed};
use super::report::{CheckInfo, Report};
use super::secret::SecretBytes;
use super::walls::Walls;
use crate::facts::{Fact, FactRequest, FileInfo, HostError};

/// From the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ToRunner {
    /// First of all. A descriptor of native code comes with the frame when `native_bytes` is set; else it is the built-in
    /// plugin's, which the runner carries itself.
    Start(Box<Start>),
    /// Calls an export.
    Call {
        /// Chosen by the host, never used twice.
        call: u64,
        /// Which.
        export: Export,
    },
    /// The answer to the one open request of a call.
    Answer {
        /// Of the request.
        call: u64,
        /// What the broker found.
        answer: Result<HostAnswer, HostError>,
    },
}

/// All that a runner knows of its plugin and of the join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) native_bytes: Option<u64>,
    pub(super) control_plane: bool,
    pub(super) node_name: String,
    pub(super) parameters: BTreeMap<String, String>,
    /// JSON.
    pub(super) settings: String,
    /// Granted in full, as lines.
    pub(super) grants: Vec<String>,
    pub(super) memory_bytes: u64,
    pub(super) guest_time: Duration,
}

/// An export of the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Export {
    /// `list-checks`.
    ListChecks,
    /// `run-check` with this id.
    RunCheck(String),
    /// `discover`.
    Discover,
    /// `review` of this request; none where a hook is only tried.
    Review(Option<Box<CertificateRequest>>),
}

impl Export {
    /// As an error names it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::ListChecks => "mortise:preflight/check@0.1.0#list-checks",
            Self::RunCheck(_) => "mortise:preflight/check@0.1.0#run-check",
            Self::Discover => "mortise:discovery/source@0.1.0#discover",
            Self::Review(_) => "mortise:approval/hook@0.1.0#review",
        }
    }
}

/// From a runner, or from the compiler.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum FromRunner {
    /// First of all: the walls stand, and nothing was read yet.
    Confined {
        /// The process that goes on behind them, when it is not the one that was started.
        pid: Option<i32>,
        /// Which of them.
        walls: Walls,
    },
    /// The component is loaded and the last list stands. From the compiler: its output follows, of this length.
    Ready {
        /// Bytes after this frame.
        native_bytes: u64,
    },
    /// It could not be loaded, or a wall could not be put up. The process ends.
    Refused {
        /// Whether it was the component: the built-in one may not fit this CPU.
        load: bool,
        /// Why.
        message: String,
    },
    /// A guest asks. A call has at most one open request.
    Ask {
        /// On whose behalf.
        call: u64,
        /// What.
        ask: Ask,
    },
    /// A guest logs.
    Log {
        /// On whose behalf.
        call: u64,
        /// How loud.
        level: LogLevel,
        /// As the guest said.
        message: String,
    },
    /// A call ended.
    Done {
        /// Which.
        call: u64,
        /// How.
        outcome: Box<Outcome>,
    },
}

/// Three endings of a call, as far as a runner can tell them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Outcome {
    /// `list-checks` returned.
    Checks(Vec<CheckInfo>),
    /// `run-check` returned a report.
    Report(Report),
    /// `discover` returned a cluster.
    Cluster(Box<Cluster>),
    /// `review` returned a judgement.
    Judgement(RawJudgement),
    /// The function returned its error case.
    Unable(HostError),
    /// It did not return, or returned what it must not.
    Broke {
        /// `trap`, `deadline`, `memory`, `oversized`, `instantiation`.
        reason: String,
        /// What was seen.
        message: String,
    },
}

/// What a guest wants of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Ask {
    /// Grant `facts`.
    Fact(FactRequest),
    /// Grant `files`.
    Stat(String),
    /// Grant `files` with access `read`.
    Read(String),
    /// Grant `files` with access `read`.
    Entries(String),
    /// Grant `commands`.
    Run {
        /// As the guest wrote it.
        program: String,
        /// As the guest wrote them.
        arguments: Vec<String>,
        /// Name of the secret that stands for one of them.
        secret: Option<String>,
    },
    /// Grant `http`.
    Fetch(Box<HttpRequest>),
    /// Grant `probe`.
    Probe(ProbeRequest),
    /// Grant `secrets` with `reveal`.
    Reveal(String),
}

/// What the host answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HostAnswer {
    /// For [`Ask::Fact`].
    Fact(Fact),
    /// For [`Ask::Stat`].
    Stat(Option<FileInfo>),
    /// For [`Ask::Read`].
    Content(Bytes),
    /// For [`Ask::Entries`].
    Entries(Vec<String>),
    /// For [`Ask::Run`].
    Output {
        /// None: ended by a signal.
        status: Option<i32>,
        /// Within the grant's cap.
        stdout: Bytes,
        /// Within the grant's cap.
        stderr: Bytes,
    },
    /// For [`Ask::Fetch`].
    Fetched(Box<HttpAnswer>),
    /// For [`Ask::Probe`].
    Probed(Probed),
    /// For [`Ask::Reveal`].
    Revealed(SecretBytes),
}

/// Bytes, written in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// See `level` in the WIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogLevel {
    Debug,
    Info,
    Warn,
}

impl LogLevel {
    /// As an event shows it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
        }
    }
}

/// The frame that holds a message.
pub(super) fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).expect("messages hold strings, numbers and enums");
    let length = u32::try_from(frame.len() - 4).expect("answers are bounded before they are framed");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Writes one message.
pub(super) fn write<T: Serialize>(mut stream: impl Write, message: &T) -> io::Result<()> {
    stream.write_all(&frame(message))
}

/// Reads one message; an end of the stream is an error of kind `UnexpectedEof`.
pub(super) fn read<T: DeserializeOwned>(mut stream: impl Read, max_bytes: usize) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; bounded(length, max_bytes)?];
    stream.read_exact(&mut body)?;
    parse(&body)
}

/// Reads one message; an end of the stream is an error of kind `UnexpectedEof`.
pub(super) async fn read_async<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    max_bytes: usize,
) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut body = vec![0; bounded(length, max_bytes)?];
    stream.read_exact(&mut body).await?;
    parse(&body)
}

fn bounded(length: [u8; 4], max_bytes: usize) -> io::Result<usize> {
    let length = u32::from_be_bytes(length) as usize;
    if length > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes; {max_bytes} are allowed"),
        ));
    }
    Ok(length)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("a malformed frame: {error}")))
}
