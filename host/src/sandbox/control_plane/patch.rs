//! The patch formats of the API: JSON patch, merge patch, and strategic merge as far as the served kinds need it.

use serde_json::Value;

use super::handle::Body;
use super::status::Status;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Lists that strategic merge joins by a key, by the field that holds them: those of a Node's status. All other lists
/// of the served kinds are replaced whole. Source: `patchMergeKey` in k8s.io/api.
const KEYED_LISTS: [(&str, &str); 2] = [("addresses", "type"), ("conditions", "type")];

/// The object as a patch leaves it. Server-side apply is not served.
pub(super) fn apply(old: &Value, body: &Body<'_>) -> Result<Value, Status> {
    let unreadable = |error: serde_json::Error| Status::bad_request(error.to_string());
    let mut new = old.clone();
    match body.content_type {
        JSON => {
            let patch: json_patch::Patch = serde_json::from_slice(body.bytes).map_err(unreadable)?;
            json_patch::patch(&mut new, &patch).map_err(|error| Status::bad_request(error.to_string()))?;
        }
        MERGE => json_patch::merge(&mut new, &serde_json::from_slice(body.bytes).map_err(unreadable)?),
        STRATEGIC => {
            let keyed = old["kind"] == "Node";
            merge(&mut new, serde_json::from_slice(body.bytes).map_err(unreadable)?, keyed)?;
        }
        _ => return Err(Status::unsupported_media_type(&[JSON, MERGE, STRATEGIC])),
    }
    Ok(new)
}

fn merge(old: &mut Value, patch: Value, keyed: bool) -> Result<(), Status> {
    let Value::Object(patch) = patch else {
        *old = patch;
        return Ok(());
    };
    if !old.is_object() {
        *old = Value::Object(serde_json::Map::new());
    }
    for (field, value) in patch {
        if field.starts_with("$setElementOrder/") {
            continue;
        }
        if field.starts_with('$') {
            return Err(Status::bad_request(format!("the directive {field} is not served by the sandbox")));
        }
        let list_key = KEYED_LISTS.iter().find(|(list, _)| keyed && *list == field).map(|(_, key)| *key);
        match (value, list_key) {
            (Value::Null, _) => drop(old.as_object_mut().and_then(|old| old.shift_remove(&field))),
            (Value::Array(items), Some(key)) if old[&field].is_array() => {
                for item in items {
                    let list = old[&field].as_array_mut().expect("checked by the guard");
                    match list.iter_mut().find(|old| old[key] == item[key]) {
                        Some(old) => merge(old, item, false)?,
                        None => list.push(item),
                    }
                }
            }
            (value @ Value::Object(_), _) => merge(&mut old[&field], value, keyed)?,
            (value, _) => old[&field] = value,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strategic_merge_joins_conditions_by_type_and_replaces_taints() {
        let old = json!({
            "kind": "Node",
            "spec": {"taints": [{"key": "a"}]},
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "r"}, {"type": "Disk"}]},
        });
        let patch = json!({
            "spec": {"taints": [{"key": "b"}]},
            "status": {
                "$setElementOrder/conditions": [{"type": "Ready"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}, {"type": "New"}],
            },
        });
        let bytes = patch.to_string();
        let new = apply(&old, &Body { content_type: STRATEGIC, bytes: bytes.as_bytes() }).unwrap();
        assert_eq!(
            new,
            json!({
                "kind": "Node",
                "spec": {"taints": [{"key": "b"}]},
                "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk"}, {"type": "New"}]},
            })
        );
    }
}
