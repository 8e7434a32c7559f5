//! Strategic merge for objects whose lists are atomic, as `KubeletConfiguration`'s all are: no field of it has a merge
//! key. Directives act as in `k8s.io/apimachinery/pkg/util/strategicpatch`; one that could not act is refused, where
//! apimachinery would drop it silently.

use serde_json::{Map, Value};
use thiserror::Error;

/// `$patch: replace | delete | merge` in a mapping.
const PATCH: &str = "$patch";
/// `$retainKeys: [names]` in a mapping: other keys of the original go.
const RETAIN_KEYS: &str = "$retainKeys";
/// `$deleteFromPrimitiveList/<key>: [values]`.
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Why a patch does not apply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum StrategicError {
    #[error("a strategic merge patch must be a mapping")]
    NoMapping,
    #[error("`{0}` cannot be used there")]
    Directive(String),
    #[error("`{0}` is no list")]
    NoList(String),
    #[error("`{0}` is set by the patch but not in its `$retainKeys`")]
    NotRetained(String),
}

/// Merges a patch into a value.
pub(crate) fn merge(value: &mut Value, patch: &Value) -> Result<(), StrategicError> {
    let Value::Object(patch) = patch else { return Err(StrategicError::NoMapping) };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(original) = value else { return Err(StrategicError::NoMapping) };
    merge_mapping(original, patch)
}

fn merge_mapping(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), StrategicError> {
    match patch.get(PATCH).map(Value::as_str) {
        None => {}
        Some(Some("replace")) => {
            original.clear();
            for (key, value) in patch.iter().filter(|(key, _)| *key != PATCH) {
                original.insert(key.clone(), added(value)?);
            }
            return Ok(());
        }
        Some(Some("delete")) => {
            original.clear();
            return Ok(());
        }
        // `merge` belongs to items of merging lists, which there are none of.
        Some(_) => return Err(StrategicError::Directive(PATCH.into())),
    }
    retain(original, patch)?;
    for (key, value) in patch {
        if key == RETAIN_KEYS {
            continue;
        }
        if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
            delete_from(original, list, value)?;
            continue;
        }
        if key.starts_with('$') {
            return Err(StrategicError::Directive(key.clone()));
        }
        match (original.get_mut(key), value) {
            // `shift_remove`: the order of the others stays.
            (_, Value::Null) => drop(original.shift_remove(key)),
            (Some(Value::Object(original)), Value::Object(patch)) => merge_mapping(original, patch)?,
            (_, value) => drop(original.insert(key.clone(), added(value)?)),
        }
    }
    Ok(())
}

fn retain(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), StrategicError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(StrategicError::NoList(RETAIN_KEYS.into())) };
    let retained = |key: &String| keys.iter().any(|retained| retained == key);
    if let Some((key, _)) =
        patch.iter().find(|(key, value)| !key.starts_with('$') && !value.is_null() && !retained(key))
    {
        return Err(StrategicError::NotRetained(key.clone()));
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

fn delete_from(original: &mut Map<String, Value>, key: &str, values: &Value) -> Result<(), StrategicError> {
    let no_list = || StrategicError::NoList(key.to_owned());
    let Value::Array(values) = values else { return Err(no_list()) };
    match original.get_mut(key) {
        None => Ok(()),
        Some(Value::Array(list)) => {
            list.retain(|item| !values.contains(item));
            Ok(())
        }
        Some(_) => Err(no_list()),
    }
}

/// A value that is added as it is: nulls in it delete nothing and go, directives have nothing to act on.
fn added(value: &Value) -> Result<Value, StrategicError> {
    Ok(match value {
        Value::Object(entries) => {
            let mut kept = Map::new();
            for (key, value) in entries {
                if key.starts_with('$') {
                    return Err(StrategicError::Directive(key.clone()));
                }
                if !value.is_null() {
                    kept.insert(key.clone(), added(value)?);
                }
            }
            Value::Object(kept)
        }
        Value::Array(items) => Value::Array(items.iter().map(added).collect::<Result<_, _>>()?),
        value => value.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges_mappings_and_replaces_everything_else() {
        for (original, patch, expected) in [
            (
                json!({"a": 1, "b": {"c": 1, "d": 2}}),
                json!({"b": {"c": 3, "d": null}, "e": 5}),
                json!({"a": 1, "b": {"c": 3}, "e": 5}),
            ),
            (json!({"l": [1, 2]}), json!({"l": [3]}), json!({"l": [3]})),
            (json!({"l": [{"name": "a", "v": 1}]}), json!({"l": [{"name": "b"}]}), json!({"l": [{"name": "b"}]})),
            (json!({"a": {"x": 1}}), json!({"a": "text"}), json!({"a": "text"})),
            (json!({"a": "text"}), json!({"a": {"x": 1, "y": null}}), json!({"a": {"x": 1}})),
            (json!({"a": 1}), json!({"none": null}), json!({"a": 1})),
            (json!(null), json!({"a": 1}), json!({"a": 1})),
        ] {
            let mut value = original.clone();
            merge(&mut value, &patch).unwrap();
            assert_eq!(value, expected, "{original} + {patch}");
        }
    }

    #[test]
    fn obeys_directives() {
        for (patch, expected) in [
            (json!({"m": {"$patch": "replace", "z": 9}}), json!({"m": {"z": 9}, "l": [1, 2, 3]})),
            (json!({"m": {"$patch": "delete"}}), json!({"m": {}, "l": [1, 2, 3]})),
            (json!({"$patch": "replace", "n": 1}), json!({"n": 1})),
            (json!({"m": {"$retainKeys": ["y", "n"], "n": 1}}), json!({"m": {"y": 2, "n": 1}, "l": [1, 2, 3]})),
            (json!({"$deleteFromPrimitiveList/l": [1, 3, 4]}), json!({"m": {"x": 1, "y": 2}, "l": [2]})),
            (json!({"$deleteFromPrimitiveList/none": [1]}), json!({"m": {"x": 1, "y": 2}, "l": [1, 2, 3]})),
        ] {
            let mut value = json!({"m": {"x": 1, "y": 2}, "l": [1, 2, 3]});
            merge(&mut value, &patch).unwrap();
            assert_eq!(value, expected, "{patch}");
        }
    }

    #[test]
    fn refuses_directives_that_could_not_act() {
        for patch in [
            json!({"m": {"$patch": "merge"}}),
            json!({"m": {"$patch": 1}}),
            json!({"m": {"$setElementOrder/l": [1]}}),
            json!({"m": {"$retainKeys": ["y"], "n": 1}}),
            json!({"m": {"$retainKeys": "y"}}),
            json!({"new": {"$patch": "delete"}}),
            json!({"l": [{"$patch": "delete"}]}),
            json!({"$deleteFromPrimitiveList/m": [1]}),
            json!({"$deleteFromPrimitiveList/l": 1}),
            json!([1]),
        ] {
            assert!(merge(&mut json!({"m": {"x": 1}, "l": [1]}), &patch).is_err(), "{patch} was accepted");
        }
    }
}
