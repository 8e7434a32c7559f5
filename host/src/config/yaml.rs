//! YAML as written: every node with its place, every key in order, repeated keys kept.
//!
//! What a document means is [`super::reader`]'s business; here only its shape is read. Error texts never quote the
//! document, since it may hold tokens.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Spanned};

/// Line and column, counted from 1; 0 where the parser knows none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Line of the file, not of the document.
    pub line: u64,
    /// Column in characters.
    pub column: u64,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A node with its place.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a node is. Scalars are resolved as Go's YAML does for kubeadm: `yes` and `on` are booleans.
#[derive(Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    /// In the order written; a key may repeat.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Value {
    /// For messages: `a number`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// The same as JSON. Of a repeated key the last value counts.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json()));
                serde_json::Value::Object(pairs.collect())
            }
        }
    }
}

/// Why a text is no YAML. The text is not quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) place: Place,
    pub(super) reason: String,
}

/// The documents of a YAML or JSON text, empty ones left out.
///
/// # Errors
///
/// [`SyntaxError`] for anything that is no YAML, and for anchors that grow beyond the parser's limits.
pub(super) fn parse_documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let options = serde_saphyr::options! { with_snippet: false, duplicate_keys: DuplicateKeyPolicy::PassThrough };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().map(Place::from).unwrap_or_default();
        SyntaxError { place, reason: reason(error) }
    })
}

/// The parser's own words where they are fixed texts; else a description without the document's content.
fn reason(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::ExternalMessage { msg, .. } => msg.clone(),
        serde_saphyr::Error::Budget { .. } | serde_saphyr::Error::AliasExpansionLimitExceeded { .. } => {
            "the document is larger than the parser allows".to_owned()
        }
        serde_saphyr::Error::UnknownAnchor { .. } => "an alias names an anchor that does not exist".to_owned(),
        _ => "this is no valid YAML".to_owned(),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { place: spanned.referenced.into(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let place = key.referenced.into();
            entries.push(Entry { key: key.value, place, node: access.next_value()? });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: &Node) -> (u64, u64) {
        (node.place.line, node.place.column)
    }

    #[test]
    fn knows_the_place_of_every_key_and_value() {
        let documents = parse_documents("# a\na: 1\nb:\n  - x\n  - {c: yes}\n---\na: null\na: 2\n").unwrap();
        assert_eq!(documents.len(), 2);
        let Value::Map(first) = &documents[0].value else { panic!("no mapping") };
        assert_eq!((first[0].place.line, first[0].place.column), (2, 1));
        assert_eq!(place(&first[0].node), (2, 4));
        let Value::List(items) = &first[1].node.value else { panic!("no list") };
        assert_eq!(place(&items[0]), (4, 5));
        let Value::Map(inner) = &items[1].value else { panic!("no mapping") };
        assert_eq!((inner[0].place.line, inner[0].place.column), (5, 6));
        assert!(matches!(inner[0].node.value, Value::Bool(true)));
        let Value::Map(second) = &documents[1].value else { panic!("no mapping") };
        assert_eq!(second.len(), 2, "a repeated key was lost");
        assert_eq!(place(&second[1].node), (8, 4));
        assert_eq!(documents[1].to_json(), serde_json::json!({"a": 2}));
    }

    #[test]
    fn no_syntax_error_quotes_the_document() {
        let numeric = parse_documents("token: 1e987654").err().map(|error| format!("{error:?}")).unwrap_or_default();
        assert!(numeric.contains("no valid YAML") && !numeric.contains("987654"), "{numeric}");
        for broken in [
            "token: abcdef.canarycanarycana\n  x: [\n",
            "token: \"abcdef.canarycanarycana\nx: y",
            "a: *canarycanarycana",
            "a: &x [*x, canarycanarycana]",
            "'canarycanarycana': 'canarycanarycana' 'canarycanarycana'",
            "a: !!float canarycanarycana",
            "a: .inf\ntoken: canarycanarycana",
            "canarycanarycana:\n\tcanarycanarycana: 1",
            "? [canarycanarycana]\n: 1",
            "a: \"\\qcanarycanarycana\"",
            "%canarycanarycana 1\n---\na: 1",
            "a: !canarycanarycana!x 1",
            "<<: canarycanarycana",
        ] {
            if let Err(error) = parse_documents(broken) {
                assert!(!format!("{error:?}").contains("canary"), "{error:?}");
            }
        }
        assert!(parse_documents("a: [1").is_err());
    }
}
