//! `meta/v1` Status objects, worded as the API server words them.
//!
//! Source: k8s.io/apimachinery, `pkg/api/errors`.

use serde_json::{Value, json};

use super::request::{Attributes, Kind, Target};

/// What a request is answered with, in place of an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) body: Value,
}

/// One violated rule of an object.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    /// `FieldValueInvalid` and the like.
    pub(super) reason: &'static str,
    /// Path within the object.
    pub(super) field: String,
    /// Without the field.
    pub(super) message: String,
}

impl Cause {
    pub(super) fn invalid(field: &str, value: &str, why: &str) -> Self {
        let message = format!("Invalid value: {value:?}: {why}");
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    pub(super) fn required(field: &str) -> Self {
        Self { reason: "FieldValueRequired", field: field.into(), message: "Required value".into() }
    }

    pub(super) fn duplicate(field: String, value: &str) -> Self {
        Self { reason: "FieldValueDuplicate", field, message: format!("Duplicate value: {value:?}") }
    }
}

impl Status {
    fn failure(code: u16, reason: &str, message: String, details: Value) -> Self {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": message, "reason": reason,
        });
        if !details.is_null() {
            body["details"] = details;
        }
        body["code"] = code.into();
        Self { code, body }
    }

    pub(super) fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized".into(), Value::Null)
    }

    /// `why` are the authorizers' reasons; there may be none.
    pub(super) fn unauthorized_action(user: &str, attributes: &Attributes, why: &str) -> Self {
        let verb = attributes.verb.as_str();
        let because = if why.is_empty() { String::new() } else { format!(": {why}") };
        match &attributes.target {
            Target::Path(path) => Self::failure(
                403,
                "Forbidden",
                format!("forbidden: User {user:?} cannot {verb} path {path:?}{because}"),
                json!({}),
            ),
            Target::Resource(target) => {
                let subresource = target.subresource.as_deref().map(|s| format!("/{s}")).unwrap_or_default();
                let place = match target.namespace.as_str() {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace {namespace:?}"),
                };
                Self::forbidden(
                    &target.group,
                    &target.plural,
                    &target.name,
                    &format!(
                        "User {user:?} cannot {verb} resource \"{}{subresource}\" in API group {:?} {place}{because}",
                        target.plural, target.group
                    ),
                )
            }
        }
    }

    pub(super) fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let subject = subject(group, plural, name);
        Self::failure(403, "Forbidden", format!("{subject} is forbidden: {why}"), details(group, plural, name))
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} not found", subject(kind.group, kind.plural, name));
        Self::failure(404, "NotFound", message, details(kind.group, kind.plural, name))
    }

    pub(super) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} already exists", subject(kind.group, kind.plural, name));
        Self::failure(409, "AlreadyExists", message, details(kind.group, kind.plural, name))
    }

    pub(super) fn conflict(kind: &Kind, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {}: the object has been modified; please apply your changes to the \
             latest version and try again",
            subject(kind.group, kind.plural, name)
        );
        Self::failure(409, "Conflict", message, details(kind.group, kind.plural, name))
    }

    pub(super) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let lines: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let all = if let [one] = lines.as_slice() { one.clone() } else { format!("[{}]", lines.join(", ")) };
        let subject = match kind.group {
            "" => format!("{} {name:?}", kind.kind),
            group => format!("{}.{group} {name:?}", kind.kind),
        };
        let mut details = details(kind.group, kind.kind, name);
        details["causes"] = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field}))
            .collect();
        Self::failure(422, "Invalid", format!("{subject} is invalid: {all}"), details)
    }

    pub(super) fn bad_request(message: String) -> Self {
        Self::failure(400, "BadRequest", message, Value::Null)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::failure(405, "MethodNotAllowed", message, json!({}))
    }

    pub(super) fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::failure(415, "UnsupportedMediaType", message, Value::Null)
    }

    pub(super) fn too_large() -> Self {
        let message = "Request entity too large: limit is 3145728".to_owned();
        Self::failure(413, "RequestEntityTooLarge", message, Value::Null)
    }

    /// The revision asked for is older than what is remembered.
    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::failure(410, "Expired", format!("too old resource version: {asked} ({oldest})"), Value::Null)
    }

    /// What a deletion is answered with.
    pub(super) fn deleted(kind: &Kind, name: &str, uid: &Value) -> Self {
        let mut details = details(kind.group, kind.plural, name);
        details["uid"] = uid.clone();
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        });
        Self { code: 200, body }
    }
}

fn subject(group: &str, plural: &str, name: &str) -> String {
    let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    if name.is_empty() { resource } else { format!("{resource} {name:?}") }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({});
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details[key] = value.into();
        }
    }
    details
}
