//! Lists in a strategic merge.

use serde_json::Value;

use super::schema::ListMerge;
use super::strategic::{PATCH, Schema, StrategicError, added, merge_mapping};

/// Merges the list of a patch into one that is there. What the patch names comes in the patch's order, the others stay
/// where they were among them as far as that goes.
pub(super) fn merge(
    original: Vec<Value>,
    patch: &[Value],
    items: Schema,
    how: ListMerge,
) -> Result<Vec<Value>, StrategicError> {
    if how != ListMerge::Replace && original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    match how {
        ListMerge::Replace => patch.iter().map(plain).collect(),
        ListMerge::Set => {
            let mut merged: Vec<Value> = Vec::new();
            for item in original.iter().chain(patch) {
                if item.is_object() || item.is_array() {
                    return Err(StrategicError::MixedItems);
                }
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            in_order(merged, patch, &original, how)
        }
        ListMerge::ByKey(key) => by_key(original, patch, items, key),
    }
}

fn by_key(
    mut original: Vec<Value>,
    patch: &[Value],
    items: Schema,
    key: &'static str,
) -> Result<Vec<Value>, StrategicError> {
    if original.iter().chain(patch).any(|item| !item.is_object()) {
        return Err(StrategicError::MixedItems);
    }
    let mut plain_items = Vec::with_capacity(patch.len());
    let mut replaced = false;
    for item in patch {
        match item.get(PATCH) {
            None => plain_items.push(item),
            Some(directive) if directive == "delete" => {
                let deleted = item.get(key).ok_or(StrategicError::NoKey(key))?;
                original.retain(|item| item.get(key) != Some(deleted));
            }
            Some(_) if replaces(item) => replaced = true,
            Some(_) => return Err(StrategicError::Directive(PATCH.into())),
        }
    }
    if replaced {
        original.clear();
    }
    let before = original.clone();
    for item in &plain_items {
        let value = item.get(key).ok_or(StrategicError::NoKey(key))?;
        let there = original.iter_mut().find(|there| there.get(key) == Some(value));
        match (there.and_then(Value::as_object_mut), item.as_object()) {
            (Some(there), Some(item)) => merge_mapping(there, item, items)?,
            _ => original.extend(added(item)?),
        }
    }
    // A list that replaces stands as it is.
    if replaced {
        return Ok(original);
    }
    let order: Vec<Value> = plain_items.into_iter().cloned().collect();
    in_order(original, &order, &before, ListMerge::ByKey(key))
}

/// Whether an item is `$patch: replace` and nothing else: it empties the list.
pub(super) fn replaces(item: &Value) -> bool {
    item.as_object()
        .is_some_and(|entries| entries.len() == 1 && entries.get(PATCH).is_some_and(|value| value == "replace"))
}

/// Orders a merged list: items that `first` names in that order, the others as in `then`; those of both as in `then`
/// where it has both.
pub(super) fn in_order(
    merged: Vec<Value>,
    first: &[Value],
    then: &[Value],
    how: ListMerge,
) -> Result<Vec<Value>, StrategicError> {
    if let ListMerge::ByKey(key) = how
        && merged.iter().chain(first).chain(then).any(|item| item.get(key).is_none())
    {
        return Err(StrategicError::NoKey(key));
    }
    let index = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item, how));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| index(first, item).is_some());
    named.sort_by_key(|item| index(first, item));
    others.sort_by_key(|item| index(then, item));
    let mut ordered = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(left), Some(right)) = (others.peek(), named.peek()) {
        let left_first = match (index(then, left), index(then, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        ordered.extend(if left_first { others.next() } else { named.next() });
    }
    ordered.extend(named);
    ordered.extend(others);
    Ok(ordered)
}

/// Whether the items of a patch come in the order of a `$setElementOrder`, which names each that is not deleted.
pub(super) fn agrees(patch: &[Value], order: &[Value], how: ListMerge) -> Result<bool, StrategicError> {
    if let ListMerge::ByKey(key) = how
        && patch.iter().chain(order).any(|item| item.get(key).is_none() && !replaces(item))
    {
        return Err(StrategicError::NoKey(key));
    }
    let mut order = order.iter().peekable();
    if order.peek().is_none() {
        return Ok(true);
    }
    let mut wanted = patch.iter().filter(|item| item.get(PATCH).is_none());
    Ok(wanted.all(|item| order.any(|other| same(other, item, how))))
}

fn same(a: &Value, b: &Value, how: ListMerge) -> bool {
    match how {
        ListMerge::ByKey(key) => a.get(key) == b.get(key),
        ListMerge::Replace | ListMerge::Set => a == b,
    }
}

/// An item of a list that is replaced whole: directives would stay in it as they are.
fn plain(item: &Value) -> Result<Value, StrategicError> {
    Ok(match item {
        Value::Object(entries) => {
            let mut remaining = serde_json::Map::new();
            for (key, value) in entries {
                if key.starts_with('$') {
                    return Err(StrategicError::Directive(key.clone()));
                }
                if !value.is_null() {
                    remaining.insert(key.clone(), plain(value)?);
                }
            }
            Value::Object(remaining)
        }
        Value::Array(items) => Value::Array(items.iter().map(plain).collect::<Result<_, _>>()?),
        value => value.clone(),
    })
}
