//! Verbs: what each does to the store, and what it answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::request::{
    Attributes, Kind, LEASES, NAMESPACES, NODES, Query, REQUESTS, ResourceTarget, SECRETS, Target, Verb,
};
use super::status::{Cause, Status};
use super::store::{self, Key, Store};
use super::user::User;
use super::{Approval, access, objects, patch, signer};

/// Taint of a Node that is not Ready.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Content of a request, beside who sent it and what it names.
pub(super) struct Body<'a> {
    /// Without parameters.
    pub(super) content_type: &'a str,
    pub(super) bytes: &'a [u8],
}

/// What is sent back.
pub(super) enum Reply {
    Json(u16, Value),
    Text(u16, &'static str),
    /// Events of these objects, until the client goes or the time is up.
    Watch(Watch),
}

/// A watch to be served.
pub(super) struct Watch {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) query: Query,
    /// Events that come before anything else.
    pub(super) first: Vec<Value>,
    /// Where to go on.
    pub(super) after: u64,
}

/// The state of a control plane and its rules.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) approval: Approval,
    pub(super) authority: signer::Authority,
    pub(super) version: String,
}

impl State {
    /// Answers an authenticated request.
    pub(super) fn handle(
        &mut self,
        user: &User,
        attributes: &Attributes,
        query: &Query,
        body: &Body<'_>,
    ) -> Result<Reply, Status> {
        access::authorize(user, attributes)?;
        let target = match &attributes.target {
            Target::Path(path) => return Ok(self.path(path)),
            Target::Resource(target) => target,
        };
        let Some(kind) = target.kind() else { return Ok(Reply::Text(404, "404 page not found\n")) };
        let key = Key { kind, namespace: target.namespace.clone(), name: target.name.clone() };
        match (attributes.verb, target.subresource.as_deref()) {
            (Verb::Get, _) => {
                let found = self.store.get(&key).ok_or_else(|| Status::not_found(kind, &key.name))?;
                Ok(Reply::Json(200, found.clone()))
            }
            (Verb::List, None) => self.list(kind, target, query),
            (Verb::Watch, None) => self.watch(kind, target, query),
            (Verb::Create, None) if target.name.is_empty() => self.create(user, key, body),
            (Verb::Update, subresource) => {
                let new = parsed(kind, body)?;
                let named = new["metadata"]["name"].as_str().unwrap_or_default();
                if named != key.name {
                    return Err(Status::bad_request(format!(
                        "the name of the object ({named}) does not match the name on the URL ({})",
                        key.name
                    )));
                }
                self.write(user, &key, subresource, new)
            }
            (Verb::Patch, subresource) => {
                let old = self.store.get(&key).ok_or_else(|| Status::not_found(kind, &key.name))?;
                let new = patch::apply(old, body)?;
                let new = canonical(kind, new)?;
                self.write(user, &key, subresource, new)
            }
            (Verb::Delete, None) => {
                let gone = self.store.delete(&key)?;
                objects::reconcile_tokens(&mut self.store);
                let Status { code, body } = Status::deleted(kind, &key.name, &gone["metadata"]["uid"]);
                Ok(Reply::Json(code, body))
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    fn path(&self, path: &str) -> Reply {
        match path {
            "/healthz" | "/livez" | "/readyz" => Reply::Text(200, "ok"),
            "/version" | "/version/" => {
                let mut parts = self.version.trim_start_matches('v').split('.');
                Reply::Json(
                    200,
                    json!({
                        "major": parts.next(), "minor": parts.next(), "gitVersion": self.version,
                        "platform": format!("linux/{}", std::env::consts::ARCH),
                    }),
                )
            }
            _ => Reply::Text(404, "404 page not found\n"),
        }
    }

    fn list(&self, kind: &'static Kind, target: &ResourceTarget, query: &Query) -> Result<Reply, Status> {
        check_selectors(kind, query)?;
        let items = self
            .store
            .list(kind, &target.namespace)
            .filter(|(_, object)| selects(query, object))
            .map(|(_, object)| {
                let mut object = object.clone();
                for typed in ["kind", "apiVersion"] {
                    object.as_object_mut().and_then(|object| object.shift_remove(typed));
                }
                object
            })
            .collect();
        Ok(Reply::Json(200, store::list_of(kind, self.store.revision(), items)))
    }

    fn watch(&self, kind: &'static Kind, target: &ResourceTarget, query: &Query) -> Result<Reply, Status> {
        check_selectors(kind, query)?;
        let asked = query.resource_version.as_deref().unwrap_or("0");
        let revision: u64 = asked
            .parse()
            .map_err(|_| Status::bad_request(format!("Invalid value: {asked:?}: strconv.ParseUint: invalid syntax")))?;
        let mut first = Vec::new();
        let mut after = revision;
        if revision == 0 || query.send_initial_events {
            let existing = self.store.list(kind, &target.namespace).filter(|(_, object)| selects(query, object));
            first.extend(existing.map(|(_, object)| json!({"type": "ADDED", "object": object})));
            after = self.store.revision();
        }
        if query.send_initial_events && query.bookmarks {
            first.push(json!({"type": "BOOKMARK", "object": {
                "kind": kind.kind, "apiVersion": kind.api_version(),
                "metadata": {
                    "resourceVersion": after.to_string(),
                    "annotations": {"k8s.io/initial-events-end": "true"},
                },
            }}));
        }
        let namespace = target.namespace.clone();
        Ok(Reply::Watch(Watch { kind, namespace, query: query.clone(), first, after }))
    }

    fn create(&mut self, user: &User, mut key: Key, body: &Body<'_>) -> Result<Reply, Status> {
        let kind = key.kind;
        let mut object = parsed(kind, body)?;
        let metadata = &object["metadata"];
        key.name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
            (Some(name), _) if !name.is_empty() => name.to_owned(),
            (_, Some(prefix)) if !prefix.is_empty() => format!("{prefix}{}", store::random_name(5)),
            _ => {
                let mut missing = Cause::required("metadata.name");
                missing.message.push_str(": name or generateName is required");
                return Err(Status::invalid(kind, "", &[missing]));
            }
        };
        let namespace = Key { kind: &NAMESPACES, namespace: key.namespace.clone(), name: key.namespace.clone() };
        if kind.namespaced && self.namespace_is_missing(&namespace) {
            return Err(Status::not_found(&NAMESPACES, &key.namespace));
        }
        access::admit(user, kind, &key.name, None, &object)?;
        if *kind == REQUESTS {
            object["spec"]["username"] = user.name.clone().into();
            object["spec"]["groups"] = user.groups.clone().into();
            object["status"] = json!({});
            let causes = signer::violations(&object);
            if !causes.is_empty() {
                return Err(Status::invalid(kind, &key.name, &causes));
            }
        } else if *kind == NODES {
            with_taint(&mut object);
        }
        let created = self.store.create(key, object)?;
        self.react(kind, &created);
        Ok(Reply::Json(201, created))
    }

    fn namespace_is_missing(&self, key: &Key) -> bool {
        let key = Key { namespace: String::new(), ..key.clone() };
        self.store.get(&key).is_none()
    }

    fn write(&mut self, user: &User, key: &Key, subresource: Option<&str>, new: Value) -> Result<Reply, Status> {
        let kind = key.kind;
        let old = self.store.get(key).ok_or_else(|| Status::not_found(kind, &key.name))?;
        let new = merged(kind, subresource, old, new);
        access::admit(user, kind, &key.name, Some(old), &new)?;
        if *kind == REQUESTS && subresource.is_some() {
            let causes = signer::condition_violations(&new);
            if !causes.is_empty() {
                return Err(Status::invalid(kind, &key.name, &causes));
            }
        }
        let written = self.store.update(key, new)?;
        self.react(kind, &written);
        Ok(Reply::Json(200, written))
    }

    /// What controllers do when they see a change.
    fn react(&mut self, kind: &'static Kind, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if *kind == REQUESTS {
            signer::reconcile(&mut self.store, name, &self.approval, &self.authority);
        } else if *kind == SECRETS {
            objects::reconcile_tokens(&mut self.store);
        } else if *kind == NODES && is_ready(object) {
            let mut object = object.clone();
            if without_taint(&mut object) {
                let key = Key { kind, namespace: String::new(), name: name.to_owned() };
                self.store.update(&key, object).expect("the object was written under the same lock");
            }
        }
    }
}

/// The part of the new object that this subresource may write, over the old.
fn merged(kind: &Kind, subresource: Option<&str>, old: &Value, mut new: Value) -> Value {
    let keep = |new: &mut Value, field: &str| match old.get(field) {
        Some(value) => new[field] = value.clone(),
        None => drop(new.as_object_mut().and_then(|new| new.shift_remove(field))),
    };
    match subresource {
        None if *kind == NODES => keep(&mut new, "status"),
        None if *kind == REQUESTS => {
            keep(&mut new, "status");
            keep(&mut new, "spec");
        }
        None => {}
        Some("approval") => {
            keep(&mut new, "spec");
            if let Some(certificate) = old["status"].get("certificate") {
                new["status"]["certificate"] = certificate.clone();
            }
        }
        Some(_) => keep(&mut new, "spec"),
    }
    new
}

/// Refuses a selector that nothing here could judge, rather than return too much.
fn check_selectors(kind: &Kind, query: &Query) -> Result<(), Status> {
    let known = |field: &str| match field {
        "metadata.name" => true,
        "metadata.namespace" => kind.namespaced,
        "spec.signerName" => *kind == REQUESTS,
        "spec.unschedulable" => *kind == NODES,
        "type" => *kind == SECRETS,
        _ => false,
    };
    match query.fields.iter().find(|(field, _)| !known(field)) {
        Some((field, _)) => Err(Status::bad_request(format!("field label not supported: {field}"))),
        None if query.labels => Err(Status::bad_request("label selectors are not served by the sandbox".into())),
        None => Ok(()),
    }
}

/// Whether the query's field selector matches.
pub(super) fn selects(query: &Query, object: &Value) -> bool {
    query.fields.iter().all(|(field, wanted)| {
        let value = field.split('.').fold(object, |value, part| &value[part]);
        value.as_str().unwrap_or_default() == wanted
    })
}

fn parsed(kind: &'static Kind, body: &Body<'_>) -> Result<Value, Status> {
    if !matches!(body.content_type, "" | "application/json") {
        return Err(Status::unsupported_media_type(&["application/json"]));
    }
    let object = serde_json::from_slice(body.bytes).map_err(|error| unreadable(kind, &error))?;
    canonical(kind, object)
}

/// The object without fields that its type does not have.
fn canonical(kind: &'static Kind, mut object: Value) -> Result<Value, Status> {
    fn through<T: DeserializeOwned + Serialize>(object: Value) -> serde_json::Result<Value> {
        serde_json::to_value(serde_json::from_value::<T>(object)?)
    }
    if !object.is_object() {
        return Err(Status::bad_request("the object provided is no JSON object".into()));
    }
    let (api_version, named) = (object["apiVersion"].as_str(), object["kind"].as_str());
    let other = |given: Option<&str>, own: &str| given.is_some_and(|given| !given.is_empty() && given != own);
    if other(named, kind.kind) || other(api_version, &kind.api_version()) {
        return Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}",
            named.unwrap_or_default(),
            api_version.unwrap_or_default(),
            kind.kind
        )));
    }
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.into();
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    if *kind == SECRETS {
        encode_string_data(&mut object);
    }
    let typed = match kind {
        kind if *kind == NODES => through::<Node>(object),
        kind if *kind == SECRETS => through::<Secret>(object),
        kind if *kind == REQUESTS => through::<CertificateSigningRequest>(object),
        kind if *kind == LEASES => through::<Lease>(object),
        kind if *kind == NAMESPACES => through::<Namespace>(object),
        _ => through::<ConfigMap>(object),
    };
    typed.map_err(|error| unreadable(kind, &error))
}

fn unreadable(kind: &Kind, error: &serde_json::Error) -> Status {
    Status::bad_request(format!("{0} in version {1:?} cannot be handled as a {0}: {error}", kind.kind, kind.version))
}

fn encode_string_data(secret: &mut Value) {
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|secret| secret.shift_remove("stringData")) else {
        return;
    };
    for (key, text) in texts {
        secret["data"][key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
    }
}

fn with_taint(node: &mut Value) {
    if !node["spec"].is_object() {
        node["spec"] = json!({});
    }
    let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
    match node["spec"]["taints"].as_array_mut() {
        Some(taints) if taints.iter().any(|taint| taint["key"] == NOT_READY) => {}
        Some(taints) => taints.push(taint),
        None => node["spec"]["taints"] = json!([taint]),
    }
}

fn without_taint(node: &mut Value) -> bool {
    let Some(taints) = node["spec"]["taints"].as_array_mut() else { return false };
    let before = taints.len();
    taints.retain(|taint| taint["key"] != NOT_READY);
    let changed = taints.len() < before;
    if taints.is_empty() {
        node["spec"].as_object_mut().and_then(|spec| spec.shift_remove("taints"));
    }
    changed
}

/// Whether a Node's condition Ready is True.
pub(super) fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}
