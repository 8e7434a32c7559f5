//! The lines of the record, and what they add up to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::{Effect, EntryId, JournalError, VERSION};

/// Largest record that is read; a join writes about 10 KB.
const MAX_BYTES: u64 = 16 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// An intent's number is its completion's, too.
    pub(super) seq: u64,
    /// RFC 3339, UTC.
    pub(super) time: String,
    #[serde(flatten)]
    pub(super) what: What,
}

impl Line {
    pub(super) fn now(seq: u64, what: What) -> Self {
        Self { seq, time: format!("{:.6}", Timestamp::now()), what }
    }
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum What {
    /// A run begins. The first line of every record.
    Run(Run),
    /// The trusted cluster.
    Cluster(BoundCluster),
    /// A plugin answers the checks. No effect: there is nothing to undo.
    Plugin(UsedPlugin),
    /// An effect is about to be made.
    Intent(Effect),
    /// It was made.
    Done(Made),
    /// It was looked at later and found not to have been made.
    Void,
    /// Everything the join was asked for is true.
    Finished,
    /// A reset has begun: nothing may be relied on any more.
    Resetting,
}

/// What is known of an effect only when it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Made {
    /// Of a member of etcd, hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) member_id: Option<String>,
}

/// How a run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Of the format.
    pub version: u32,
    /// Version of the program.
    pub mortise: String,
    /// `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// Name of the Node.
    pub node_name: String,
    /// Where trust was looked for.
    pub endpoint: String,
    /// See [`super::Header::arguments`].
    pub arguments: String,
    /// Whether `/var/lib/mortise` was absent before the first run.
    pub state_directory_made: bool,
    /// Whether `/run/mortise` was absent before the first run.
    pub runtime_directory_made: bool,
}

/// The cluster a record belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BoundCluster {
    /// Its API server when the join began.
    pub server: String,
    /// Hex SHA-256 of each CA certificate.
    pub certificates: BTreeSet<String>,
}

/// A plugin whose checks a run asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsedPlugin {
    /// As the operator named it.
    pub name: String,
    /// Of its manifest; `0` without one.
    #[serde(rename = "pluginVersion")] // `version` is the format's: see `parse`.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
}

/// SHA-256 of each certificate in a bundle; of the text where there is none.
pub(super) fn certificate_digests(pem: &str) -> BTreeSet<String> {
    let digests: BTreeSet<String> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(Result::ok)
        .map(|certificate| crate::node::sha256_hex(&certificate))
        .collect();
    if digests.is_empty() { BTreeSet::from([crate::node::sha256_hex(pem.as_bytes())]) } else { digests }
}

/// How far an effect got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Intended; the run ended before it said more.
    Intended,
    /// Made.
    Done,
    /// Not made.
    Void,
}

/// An effect with its number and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Unique and rising within a record.
    pub seq: u64,
    /// What it is.
    pub effect: Effect,
    /// How far it got.
    pub state: State,
}

/// All lines of a record added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The latest run; none: the record is empty.
    pub run: Option<Run>,
    /// The cluster, once known.
    pub cluster: Option<BoundCluster>,
    /// The latest of each name, in the order of their first use.
    pub plugins: Vec<UsedPlugin>,
    /// In the order of their intents.
    pub effects: Vec<Recorded>,
    /// The join ended well and nothing began since.
    pub finished: bool,
    /// A reset began.
    pub resetting: bool,
    /// `/var/lib/mortise` was absent before the first run.
    pub state_directory_made: bool,
    /// `/run/mortise` was absent before the first run.
    pub runtime_directory_made: bool,
    last_seq: u64,
}

impl Record {
    /// The record on a machine; none: there is none.
    ///
    /// # Errors
    ///
    /// [`JournalError::Read`], [`JournalError::Damaged`], [`JournalError::Newer`].
    pub fn load(root: &Path) -> Result<Option<Self>, JournalError> {
        Ok(read(&super::locate(root, super::JOURNAL_PATH))?.map(|(record, _)| record))
    }

    /// Nothing on the machine or in the cluster is known to have been changed.
    pub fn is_without_effects(&self) -> bool {
        self.effects.iter().all(|recorded| recorded.state == State::Void)
    }

    /// Whether the join made what stands at this path (without `--root`): a file or link of ours that we did not
    /// remove, one that we left to the kubelet, or anything in a directory that was empty before.
    pub fn owns(&self, path: &Path) -> bool {
        let mut owned = false;
        for Recorded { effect, state, .. } in self.effects.iter().filter(|recorded| recorded.state != State::Void) {
            match effect {
                Effect::File { path: made, .. }
                | Effect::Symlink { path: made, .. }
                | Effect::Delegated { path: made }
                    if made == path =>
                {
                    owned = true;
                }
                // One that was only intended left the file, or there is nothing to own.
                Effect::Removal { path: gone } if gone == path && *state == State::Done => owned = false,
                Effect::WasEmpty { path: directory, .. } if path != directory && path.starts_with(directory) => {
                    owned = true;
                }
                _ => {}
            }
        }
        owned
    }

    /// The latest effect on a unit that is known to have been made, with its number.
    pub fn last_unit_action(&self, name: &str) -> Option<(u64, &str)> {
        self.effects.iter().rev().find_map(|recorded| match &recorded.effect {
            Effect::Unit { unit, action } if unit == name && recorded.state == State::Done => {
                Some((recorded.seq, action.as_str()))
            }
            _ => None,
        })
    }

    /// Whether a kubelet that runs now is one that this join started, or may have started just before it was killed.
    pub fn owns_kubelet(&self) -> bool {
        let last = self.effects.iter().rev().find_map(|recorded| match &recorded.effect {
            Effect::Unit { unit, action } if unit == "kubelet" && action == "restart" => Some(true),
            // One that was only intended proves nothing.
            Effect::Unit { unit, action } if unit == "kubelet" && action == "stop" && recorded.state == State::Done => {
                Some(false)
            }
            _ => None,
        });
        last.unwrap_or(false)
    }

    /// Names of API objects of a kind that were made, or may have been: newest first.
    pub fn api_objects(&self, of_kind: &str) -> Vec<String> {
        let names = self.effects.iter().rev().filter_map(|recorded| match &recorded.effect {
            Effect::ApiObject { kind, name } if kind == of_kind && recorded.state != State::Void => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }

    /// The latest member of etcd that was added, or may have been: its number, peer URL and, where known, id.
    pub fn etcd_member(&self) -> Option<(EntryId, &str, Option<&str>)> {
        self.effects.iter().rev().find_map(|recorded| match &recorded.effect {
            Effect::EtcdMember { peer_url, id } if recorded.state != State::Void => {
                Some((EntryId(recorded.seq), peer_url.as_str(), id.as_deref()))
            }
            _ => None,
        })
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.last_seq + 1
    }

    /// Adds one line.
    pub(super) fn apply(&mut self, line: Line) {
        self.last_seq = self.last_seq.max(line.seq);
        match line.what {
            What::Run(run) => {
                self.state_directory_made |= run.state_directory_made;
                self.runtime_directory_made |= run.runtime_directory_made;
                self.run = Some(run);
                self.resetting = false;
            }
            What::Cluster(cluster) => self.cluster = Some(cluster),
            What::Plugin(used) => match self.plugins.iter_mut().find(|other| other.name == used.name) {
                Some(other) => *other = used,
                None => self.plugins.push(used),
            },
            What::Intent(effect) => {
                self.finished = false;
                self.effects.push(Recorded { seq: line.seq, effect, state: State::Intended });
            }
            What::Done(made) => {
                self.mark(line.seq, State::Done);
                let of = self.effects.iter_mut().rev().find(|recorded| recorded.seq == line.seq);
                if let (Some(Recorded { effect: Effect::EtcdMember { id, .. }, .. }), Some(made)) = (of, made.member_id)
                {
                    *id = Some(made);
                }
            }
            What::Void => self.mark(line.seq, State::Void),
            What::Finished => self.finished = true,
            What::Resetting => {
                self.finished = false;
                self.resetting = true;
            }
        }
    }

    fn mark(&mut self, seq: u64, state: State) {
        if let Some(recorded) = self.effects.iter_mut().rev().find(|recorded| recorded.seq == seq) {
            recorded.state = state;
        }
    }
}

/// Reads a record and how many bytes of the file are whole lines. A torn last line is left out: its effect was not
/// made, since the line is whole and synced before that.
pub(super) fn read(path: &Path) -> Result<Option<(Record, u64)>, JournalError> {
    let fail = |source| JournalError::Read { path: path.to_owned(), source };
    let length = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(fail(std::io::Error::other("not a regular file"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if length > MAX_BYTES {
        return Err(fail(std::io::ErrorKind::FileTooLarge.into()));
    }
    parse(&std::fs::read(path).map_err(fail)?, path).map(Some)
}

fn parse(content: &[u8], path: &Path) -> Result<(Record, u64), JournalError> {
    let mut record = Record::default();
    let mut whole_bytes = 0;
    let mut lines = content.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((index, text)) = lines.next() {
        let damaged = || JournalError::Damaged { path: path.to_owned(), line: index + 1 };
        let last = lines.peek().is_none();
        let value: serde_json::Value = match serde_json::from_slice(text) {
            Ok(value) if text.ends_with(b"\n") => value,
            // A crash of the machine may leave anything at the end.
            _ if last => break,
            _ => return Err(damaged()),
        };
        // Before the line's other fields, which a newer format may have changed.
        if let Some(found) = value.get("version").and_then(serde_json::Value::as_u64)
            && found > u64::from(VERSION)
        {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(JournalError::Newer { path: PathBuf::from(path), found });
        }
        let line: Line = serde_json::from_value(value).map_err(|_| damaged())?;
        if record.run.is_none() && !matches!(line.what, What::Run(_)) {
            return Err(damaged());
        }
        record.apply(line);
        whole_bytes += text.len() as u64;
    }
    Ok((record, whole_bytes))
}
