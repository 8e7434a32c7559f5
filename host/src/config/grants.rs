//! Grants within a configuration file, each with its own place.

use super::error::{Fault, shown};
use super::reader::Notes;
use super::yaml::{Entry, Node, Place, Value};
use crate::plugin::grants::Grants;

/// All grants of a mapping of kinds. What does not parse is in the notes.
pub(super) fn read(node: &Node, field: &str, notes: &mut Notes) -> Grants {
    let mut grants = Grants::default();
    for (_, one) in each(node, field, notes) {
        grants.merge(one);
    }
    grants
}

/// Each grant by itself, with its place.
pub(super) fn each(node: &Node, field: &str, notes: &mut Notes) -> Vec<(Place, Grants)> {
    let Value::Map(kinds) = &node.value else { return parse(node, field, notes).into_iter().collect() };
    let mut all = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for kind in kinds {
        if seen.contains(&kind.key.as_str()) {
            notes.fault(kind.place, &format!("{field}.{}", shown(&kind.key)), Fault::DuplicateField);
        }
        seen.push(&kind.key);
        let alone = |place: Place, value: Value| {
            let node = Node { place: kind.node.place, value };
            let entry = Entry { key: kind.key.clone(), place: kind.place, node };
            Node { place, value: Value::Map(vec![entry]) }
        };
        match &kind.node.value {
            Value::List(items) if !items.is_empty() => {
                for item in items {
                    let node = alone(item.place, Value::List(vec![item.clone()]));
                    all.extend(parse(&node, field, notes));
                }
            }
            // Of an unknown kind the key is what is wrong.
            value => all.extend(parse(&alone(kind.place, value.clone()), field, notes)),
        }
    }
    all
}

fn parse(node: &Node, field: &str, notes: &mut Notes) -> Option<(Place, Grants)> {
    match serde_json::from_value(node.to_json()) {
        Ok(grants) => Some((node.place, grants)),
        Err(error) => {
            notes.fault(node.place, field, Fault::Grant(shown(&error.to_string())));
            None
        }
    }
}
