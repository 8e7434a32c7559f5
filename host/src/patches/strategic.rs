//! Strategic merge, as `k8s.io/apimachinery/pkg/util/strategicpatch` does it over JSON values.
//!
//! Whether a list is replaced or merged, and by which key, stands in the schema of the object: a [`Schema::Atomic`] one, like
//! `KubeletConfiguration`, has no merging lists, a Pod's is in `schema`. A directive that asks for what is so already does
//! nothing; one that apimachinery would drop silently, with what it stands in, is refused.

use serde_json::{Map, Value};
use thiserror::Error;

use super::lists;
use super::schema::{Kind, ListMerge, fields};

/// `$patch: replace | delete` in a mapping.
pub(super) const PATCH: &str = "$patch";
/// `$retainKeys: [names]` in a mapping: other keys of the original go.
const RETAIN_KEYS: &str = "$retainKeys";
/// `$deleteFromPrimitiveList/<key>: [values]`.
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
/// `$setElementOrder/<key>: [items, or their merge keys]`.
const SET_ORDER: &str = "$setElementOrder/";

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
    #[error("there is no field `{0}`")]
    UnknownField(String),
    #[error("an item of a list lacks `{0}`, by which the list merges")]
    NoKey(&'static str),
    #[error("the items of a list are not of one type")]
    MixedItems,
    #[error("the list `{0}` is not in the order of its `$setElementOrder`")]
    Order(String),
}

/// What is known of the fields of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Schema {
    /// Any; lists are replaced.
    Atomic,
    /// Those of a type.
    Typed(&'static Kind),
}

impl Schema {
    /// Of a Pod.
    pub(crate) fn pod() -> Self {
        const POD: &Kind = &Kind::Struct("Pod");
        Self::Typed(POD)
    }

    /// Schema of a field's value, for a list of its items, and how a list there merges.
    fn field(self, name: &str) -> Result<(Self, ListMerge), StrategicError> {
        match self {
            Self::Atomic => Ok((Self::Atomic, ListMerge::Replace)),
            Self::Typed(Kind::Struct(of)) => {
                let field = fields(of).iter().find(|field| field.name == name);
                let field = field.ok_or_else(|| StrategicError::UnknownField(name.to_owned()))?;
                let of = if let Kind::List(item) = &field.kind { item.as_ref() } else { &field.kind };
                Ok((Self::Typed(of), field.merge))
            }
            Self::Typed(Kind::Map(value)) => Ok((Self::Typed(value), ListMerge::Replace)),
            Self::Typed(_) => Err(StrategicError::UnknownField(name.to_owned())),
        }
    }
}

/// Merges a patch into a value.
pub(crate) fn merge(value: &mut Value, patch: &Value, schema: Schema) -> Result<(), StrategicError> {
    let Value::Object(patch) = patch else { return Err(StrategicError::NoMapping) };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(original) = value else { return Err(StrategicError::NoMapping) };
    merge_mapping(original, patch, schema)
}

pub(super) fn merge_mapping(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Schema,
) -> Result<(), StrategicError> {
    match patch.get(PATCH).map(Value::as_str) {
        None => {}
        Some(Some("replace")) => {
            original.clear();
            for (key, value) in patch.iter().filter(|(key, _)| *key != PATCH) {
                add(original, key, value)?;
            }
            return Ok(());
        }
        Some(Some("delete")) => {
            original.clear();
            return Ok(());
        }
        Some(_) => return Err(StrategicError::Directive(PATCH.into())),
    }
    retain(original, patch)?;
    for (key, order) in patch {
        if let Some(list) = key.strip_prefix(SET_ORDER) {
            set_order(original, list, patch.get(list), order, schema)?;
        }
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
            delete_from(original, list, value)?;
            continue;
        }
        if key == RETAIN_KEYS || key.starts_with(SET_ORDER) || patch.contains_key(&format!("{SET_ORDER}{key}")) {
            continue;
        }
        if key.starts_with('$') {
            return Err(StrategicError::Directive(key.clone()));
        }
        match (original.get_mut(key), value) {
            // `shift_remove`: the order of the others stays.
            (_, Value::Null) => drop(original.shift_remove(key)),
            (Some(Value::Object(original)), Value::Object(patch)) => {
                merge_mapping(original, patch, schema.field(key)?.0)?;
            }
            (Some(Value::Array(original)), Value::Array(patch)) => {
                let (items, how) = schema.field(key)?;
                *original = lists::merge(std::mem::take(original), patch, items, how)?;
            }
            (_, value) => add(original, key, value)?,
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

/// Merges a list and orders it: first as the directive says, then as the patch's own list, then as it was.
fn set_order(
    original: &mut Map<String, Value>,
    list: &str,
    patch: Option<&Value>,
    order: &Value,
    schema: Schema,
) -> Result<(), StrategicError> {
    let no_list = || StrategicError::NoList(list.to_owned());
    let order = order.as_array().ok_or_else(no_list)?;
    let patch = patch.map(|patch| patch.as_array().ok_or_else(no_list)).transpose()?;
    let before = original.get(list).map(|before| before.as_array().cloned().ok_or_else(no_list)).transpose()?;
    let (items, how) = schema.field(list)?;
    if !lists::agrees(patch.map_or(&[], Vec::as_slice), order, how)? {
        return Err(StrategicError::Order(list.to_owned()));
    }
    let merged = match (before.clone(), patch) {
        (None, None) => return Ok(()),
        (Some(before), None) => before,
        (None, Some(patch)) => kept(patch)?,
        (Some(before), Some(patch)) => lists::merge(before, patch, items, how)?,
    };
    let ordered = lists::in_order(merged, order, &before.unwrap_or_default(), how)?;
    original.insert(list.to_owned(), Value::Array(ordered));
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

fn add(original: &mut Map<String, Value>, key: &str, value: &Value) -> Result<(), StrategicError> {
    match added(value)? {
        Some(value) => drop(original.insert(key.to_owned(), value)),
        None => drop(original.shift_remove(key)),
    }
    Ok(())
}

/// A value that is put where none is: nulls in it delete nothing and go, and so does what is to be deleted. None: nothing
/// remains.
pub(super) fn added(value: &Value) -> Result<Option<Value>, StrategicError> {
    Ok(Some(match value {
        Value::Object(entries) => {
            match entries.get(PATCH) {
                None => {}
                Some(directive) if directive == "delete" => return Ok(None),
                // apimachinery drops the mapping with its content.
                Some(_) => return Err(StrategicError::Directive(PATCH.into())),
            }
            let mut remaining = Map::new();
            for (key, value) in entries {
                // There is nothing else that could be retained, ordered or deleted.
                let idle = key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM_LIST);
                if key.starts_with('$') && !idle {
                    return Err(StrategicError::Directive(key.clone()));
                }
                if !idle && !value.is_null() {
                    remaining.extend(added(value)?.map(|value| (key.clone(), value)));
                }
            }
            Value::Object(remaining)
        }
        Value::Array(items) => Value::Array(kept(items)?),
        value => value.clone(),
    }))
}

/// Items of a list that is put where none is. A lone `$patch: replace` asks for what is so.
fn kept(items: &[Value]) -> Result<Vec<Value>, StrategicError> {
    let mut remaining = Vec::with_capacity(items.len());
    for item in items.iter().filter(|item| !lists::replaces(item)) {
        remaining.extend(added(item)?);
    }
    Ok(remaining)
}

#[cfg(test)]
mod tests;
