//! Takes typed fields out of a mapping and notes everything that does not fit: unknown, repeated and ill-typed fields,
//! each with its path and place, all of them in one run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::Warning;
use super::error::{At, ConfigError, Fault, shown};
use super::yaml::{Entry, Node, Place, Value};

/// What to do about fields that nothing reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownFields {
    /// They are errors.
    Refuse,
    /// They are warnings, as in kubeadm; of a repeated field the last value counts.
    Warn,
}

/// What was noted while a file was read.
pub(super) struct Notes {
    path: PathBuf,
    unknown_fields: UnknownFields,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<Warning>,
    /// Where each field that was read stands.
    pub(super) places: BTreeMap<String, Place>,
}

impl Notes {
    pub(super) fn new(path: &Path, unknown_fields: UnknownFields) -> Self {
        let path = path.to_owned();
        Self { path, unknown_fields, errors: Vec::new(), warnings: Vec::new(), places: BTreeMap::new() }
    }

    pub(super) fn at(&self, place: Place) -> At {
        At::File { path: self.path.clone(), place }
    }

    /// Notes a broken rule.
    pub(super) fn fault(&mut self, place: Place, field: &str, fault: Fault) {
        self.errors.push(ConfigError::Field { at: self.at(place), field: field.to_owned(), fault });
    }

    fn oddity(&mut self, place: Place, field: &str, fault: Fault) {
        match self.unknown_fields {
            UnknownFields::Refuse => self.fault(place, field, fault),
            UnknownFields::Warn => {
                let text = ConfigError::Field { at: self.at(place), field: field.to_owned(), fault }.to_string();
                self.warnings.push(Warning(text));
            }
        }
    }

    fn wrong_type(&mut self, node: &Node, field: &str, expected: &'static str) {
        self.fault(node.place, field, Fault::WrongType { expected, found: node.value.kind() });
    }
}

/// The fields of one mapping. [`Fields::finish`] must be called when all known ones were taken.
#[must_use]
pub(super) struct Fields<'n> {
    path: String,
    place: Place,
    entries: Vec<&'n Entry>,
}

impl<'n> Fields<'n> {
    /// The fields of a node at this path; empty for null. Anything but a mapping is noted.
    pub(super) fn of(node: &'n Node, path: &str, notes: &mut Notes) -> Self {
        let mut entries: Vec<&Entry> = Vec::new();
        match &node.value {
            Value::Null => {}
            Value::Map(all) => {
                for entry in all {
                    match entries.iter_mut().find(|earlier| earlier.key == entry.key) {
                        None => entries.push(entry),
                        Some(earlier) => {
                            notes.oddity(entry.place, &child(path, &entry.key), Fault::DuplicateField);
                            *earlier = entry;
                        }
                    }
                }
            }
            _ => notes.wrong_type(node, path, "a mapping"),
        }
        Self { path: path.to_owned(), place: node.place, entries }
    }

    /// Path of a field of this mapping.
    pub(super) fn path_of(&self, key: &str) -> String {
        child(&self.path, key)
    }

    /// Where the mapping begins.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The node of a field, whatever it is; none if absent or null.
    pub(super) fn node(&mut self, key: &str, notes: &mut Notes) -> Option<&'n Node> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        let node = &self.entries.remove(index).node;
        notes.places.insert(self.path_of(key), node.place);
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    pub(super) fn text(&mut self, key: &str, notes: &mut Notes) -> Option<String> {
        let node = self.node(key, notes)?;
        text(node, &self.path_of(key), notes)
    }

    /// As [`Fields::text`]; an empty one counts as absent, as in Go.
    pub(super) fn filled(&mut self, key: &str, notes: &mut Notes) -> Option<String> {
        self.text(key, notes).filter(|text| !text.is_empty())
    }

    pub(super) fn secret(&mut self, key: &str, notes: &mut Notes) -> Option<SecretString> {
        self.filled(key, notes).map(SecretString::from)
    }

    pub(super) fn flag(&mut self, key: &str, notes: &mut Notes) -> Option<bool> {
        let node = self.node(key, notes)?;
        if let Value::Bool(flag) = node.value {
            return Some(flag);
        }
        notes.wrong_type(node, &self.path_of(key), "a boolean");
        None
    }

    pub(super) fn integer(&mut self, key: &str, notes: &mut Notes) -> Option<i64> {
        let node = self.node(key, notes)?;
        if let Value::Number(number) = &node.value
            && let Some(number) = number.as_i64()
        {
            return Some(number);
        }
        notes.wrong_type(node, &self.path_of(key), "an integer");
        None
    }

    /// A Go duration.
    pub(super) fn duration(&mut self, key: &str, notes: &mut Notes) -> Option<std::time::Duration> {
        let node = self.node(key, notes)?;
        let field = self.path_of(key);
        let text = text(node, &field, notes)?;
        let parsed = super::duration::parse(&text);
        if parsed.is_none() {
            notes.fault(node.place, &field, Fault::Duration { value: shown(&text) });
        }
        parsed
    }

    /// The items of a list with their paths; none if absent or null.
    pub(super) fn list(&mut self, key: &str, notes: &mut Notes) -> Option<Vec<(String, &'n Node)>> {
        let node = self.node(key, notes)?;
        let field = self.path_of(key);
        if let Value::List(items) = &node.value {
            return Some(items.iter().enumerate().map(|(i, item)| (format!("{field}[{i}]"), item)).collect());
        }
        notes.wrong_type(node, &field, "a list");
        None
    }

    pub(super) fn texts(&mut self, key: &str, notes: &mut Notes) -> Vec<String> {
        let items = self.list(key, notes).unwrap_or_default();
        items.into_iter().filter_map(|(field, node)| text(node, &field, notes)).collect()
    }

    /// The fields of a nested mapping; none if absent or null.
    pub(super) fn fields(&mut self, key: &str, notes: &mut Notes) -> Option<Fields<'n>> {
        let node = self.node(key, notes)?;
        Some(Fields::of(node, &self.path_of(key), notes))
    }

    /// Notes the fields that nobody took.
    pub(super) fn finish(self, notes: &mut Notes) {
        for entry in &self.entries {
            notes.oddity(entry.place, &self.path_of(&entry.key), Fault::UnknownField);
        }
    }
}

fn text(node: &Node, field: &str, notes: &mut Notes) -> Option<String> {
    if let Value::Text(text) = &node.value {
        return Some(text.clone());
    }
    notes.wrong_type(node, field, "a string");
    None
}

/// The key is a user's text.
fn child(path: &str, key: &str) -> String {
    let key = shown(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
