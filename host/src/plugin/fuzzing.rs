//! Doors for the fuzz targets in `tests/fuzz` to what is private here: the socket's protocol as the host reads it, and the
//! schema of settings. They call what a join calls and add nothing. In no release: the feature `fuzzing` is off.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::broker::{Broker, Refusal};
use super::grants::Effective;
use super::judge::Subject;
use super::limits::{FRAME_FROM_RUNNER, FRAME_TO_RUNNER};
use super::report::CheckInfo;
use super::secret::Vault;
use super::session::Ended;
use super::wire::{self, FromRunner, Outcome, ToRunner};
use super::{CheckResult, Severity, Stage, hook, manifest, source};
use crate::config::{IgnoredChecks, SecretSource};
use crate::facts::FactSource;

/// Largest frame to a runner.
pub const MOST_TO_RUNNER: usize = FRAME_TO_RUNNER;

/// The broker of one plugin.
pub struct Host(Broker);

impl Host {
    /// One that answers from `facts`.
    pub fn new(grants: Effective, facts: Arc<dyn FactSource>, secrets: BTreeMap<String, SecretSource>) -> Self {
        Self(Broker { grants, facts, vault: Vault(secrets) })
    }
}

/// What a runner said.
pub struct Message(FromRunner);

/// What the host made of it.
#[derive(Debug)]
pub enum Heard {
    /// A request was served: the frame that goes back.
    Answered(Vec<u8>),
    /// No grant covers the request: the text for the guest.
    Denied(String),
    /// The request makes no sense, or the machine has no answer: the text for the guest.
    Failed(String),
    /// A check ended: what people see.
    Checked(Box<CheckResult>),
    /// Another call ended: why its answer is not taken, if it is not.
    Ended(Result<(), String>),
    /// Nothing is to be done.
    Nothing,
}

impl Message {
    /// Reads the next message of a stream.
    ///
    /// # Errors
    ///
    /// An end of the stream, a frame that is too large or malformed.
    pub async fn read(stream: &mut &[u8]) -> io::Result<Self> {
        wire::read_async(stream, FRAME_FROM_RUNNER).await.map(Self)
    }

    /// As the runner would write it.
    pub fn frame(&self) -> Vec<u8> {
        wire::frame(&self.0)
    }

    /// Serves a request; judges how a call ended.
    pub async fn hear(self, host: &Host) -> Heard {
        match self.0 {
            FromRunner::Ask { call, ask } => match host.0.serve(ask).await {
                Ok(answer) => Heard::Answered(wire::frame(&ToRunner::Answer { call, answer: Ok(answer) })),
                Err(Refusal::Denied(denial)) => Heard::Denied(denial.message()),
                Err(Refusal::Failed(error)) => Heard::Failed(error.message),
            },
            FromRunner::Done { outcome, .. } => judged(*outcome),
            _ => Heard::Nothing,
        }
    }
}

fn judged(outcome: Outcome) -> Heard {
    let ignore = IgnoredChecks::default();
    let subject = Subject { name: "fuzzed", version: "1", stage: Stage::Node, ignore: &ignore };
    let ended = |outcome| Ended { outcome, denied: 0, denials: Vec::new(), took: Duration::ZERO };
    match outcome {
        Outcome::Checks(_) => match subject.listed(ended(outcome)) {
            Ok(_) => Heard::Ended(Ok(())),
            Err(result) => Heard::Checked(result),
        },
        Outcome::Cluster(cluster) => Heard::Ended(source::read(*cluster, SystemTime::now()).map(drop).map_err(said)),
        Outcome::Judgement(raw) => Heard::Ended(hook::read(raw).map(drop).map_err(said)),
        Outcome::Report(_) | Outcome::Unable(_) | Outcome::Broke { .. } => {
            let (id, title) = ("fuzzed".into(), "a check".into());
            let check = CheckInfo { id, title, stage: Stage::Node, severity: Severity::Error };
            Heard::Checked(Box::new(subject.checked(&check, ended(outcome))))
        }
    }
}

fn said((_, message): (String, String)) -> String {
    message
}

/// What of settings does not fit a manifest's schema.
///
/// # Errors
///
/// Why the schema is refused.
pub fn misfits(schema: &Value, settings: &Map<String, Value>) -> Result<Vec<String>, String> {
    Ok(manifest::Schema::parse(schema)?.misfits(settings))
}
