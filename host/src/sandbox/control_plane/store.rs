//! Objects, their revisions, and what changed since one.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::request::Kind;
use super::status::Status;

/// Changes that are remembered; a watch that begins before them gets 410.
const REMEMBERED_EVENTS: usize = 1000;

/// Where an object is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// How an object changed.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) revision: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) event: &'static str,
    pub(super) key: Key,
    pub(super) object: Value,
}

/// The cluster's state, as etcd would hold it.
#[derive(Debug, Default)]
pub(super) struct Store {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    changes: VecDeque<Change>,
    /// Newest revision that is no longer remembered.
    forgotten: u64,
}

impl Store {
    /// Revision of the last change.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// Objects of a kind; an empty namespace stands for all.
    pub(super) fn list<'a>(
        &'a self,
        kind: &'static Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        self.objects
            .iter()
            .filter(move |(key, _)| key.kind == kind && (namespace.is_empty() || key.namespace == namespace))
    }

    /// Adds an object, filling in what the server owns of its metadata.
    pub(super) fn create(&mut self, key: Key, mut object: Value) -> Result<Value, Status> {
        if self.objects.contains_key(&key) {
            return Err(Status::already_exists(key.kind, &key.name));
        }
        let metadata = &mut object["metadata"];
        metadata["name"] = key.name.clone().into();
        if key.kind.namespaced {
            metadata["namespace"] = key.namespace.clone().into();
        }
        metadata["uid"] = random_uid().into();
        metadata["creationTimestamp"] = now().into();
        object["kind"] = key.kind.kind.into();
        object["apiVersion"] = key.kind.api_version().into();
        Ok(self.put("ADDED", key, object))
    }

    /// Replaces an object. A `resourceVersion` in it must be the stored one. Nothing changed: nothing is written.
    pub(super) fn update(&mut self, key: &Key, mut object: Value) -> Result<Value, Status> {
        let Some(old) = self.objects.get(key) else { return Err(Status::not_found(key.kind, &key.name)) };
        let asked = &object["metadata"]["resourceVersion"];
        if asked.as_str().is_some_and(|asked| !asked.is_empty() && *asked != old["metadata"]["resourceVersion"]) {
            return Err(Status::conflict(key.kind, &key.name));
        }
        for owned in ["name", "namespace", "uid", "creationTimestamp", "resourceVersion"] {
            match old["metadata"].get(owned) {
                Some(value) => object["metadata"][owned] = value.clone(),
                None => drop(object["metadata"].as_object_mut().and_then(|metadata| metadata.remove(owned))),
            }
        }
        object["kind"] = key.kind.kind.into();
        object["apiVersion"] = key.kind.api_version().into();
        if object == *old {
            return Ok(object);
        }
        Ok(self.put("MODIFIED", key.clone(), object))
    }

    pub(super) fn delete(&mut self, key: &Key) -> Result<Value, Status> {
        let Some(mut object) = self.objects.remove(key) else {
            return Err(Status::not_found(key.kind, &key.name));
        };
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.remember("DELETED", key.clone(), object.clone());
        Ok(object)
    }

    /// Forgets how the objects came to be: a watch must begin at what is there now, as one at an API server that has
    /// just been started.
    pub(super) fn forget_changes(&mut self) {
        self.changes.clear();
        self.forgotten = self.revision;
    }

    /// Changes after a revision, oldest first.
    pub(super) fn changes_since(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Status> {
        if revision < self.forgotten {
            return Err(Status::expired(revision, self.forgotten));
        }
        Ok(self.changes.iter().filter(move |change| change.revision > revision))
    }

    fn put(&mut self, event: &'static str, key: Key, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.objects.insert(key.clone(), object.clone());
        self.remember(event, key, object.clone());
        object
    }

    fn remember(&mut self, event: &'static str, key: Key, object: Value) {
        self.changes.push_back(Change { revision: self.revision, event, key, object });
        if self.changes.len() > REMEMBERED_EVENTS {
            self.forgotten = self.changes.pop_front().map_or(self.forgotten, |change| change.revision);
        }
    }
}

/// RFC 3339, UTC, whole seconds.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn random_uid() -> String {
    let mut bytes: [u8; 16] = random_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

/// Random characters as the API server appends them to a `generateName`, and as tokens are made of.
pub(super) fn random_name(length: usize) -> String {
    /// Without vowels and what looks like them, so that no words arise.
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let bytes: [u8; 32] = random_bytes();
    bytes.iter().cycle().take(length).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

/// The empty list of a kind, at a revision.
pub(super) fn list_of(kind: &Kind, revision: u64, items: Vec<Value>) -> Value {
    json!({
        "kind": format!("{}List", kind.kind),
        "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string()},
        "items": items,
    })
}
