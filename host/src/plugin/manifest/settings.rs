//! The JSON Schema of a plugin's settings, and whether an operator's settings fit it.
//!
//! A subset of draft 2020-12, the part that says what a value may be: `type`, `enum`, `const`; of objects `properties`,
//! `required`, `additionalProperties`; of lists `items`, `minItems`, `maxItems`; of strings `pattern`, `minLength`,
//! `maxLength`; of numbers `minimum`, `maximum`. `title`, `description`, `default`, `examples`, `$comment` and `$schema` say
//! something to people only. Any other keyword is an error in the manifest: a rule that nobody checks is none.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

/// Deepest schema.
const DEPTH: usize = 32;
/// Keywords that constrain nothing.
const ANNOTATIONS: [&str; 6] = ["$schema", "$comment", "title", "description", "default", "examples"];
/// Names of types.
const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "integer", "string"];
/// Misfits that are told of one object.
const MISFITS: usize = 20;

/// A checked schema.
#[derive(Debug, Clone, Default)]
pub(in crate::plugin) struct Schema {
    types: Option<Vec<&'static str>>,
    choices: Option<Vec<Value>>,
    properties: BTreeMap<String, Schema>,
    required: Vec<String>,
    additional: Additional,
    items: Option<Box<Schema>>,
    item_count: Bounds<u64>,
    pattern: Option<Regex>,
    length: Bounds<u64>,
    number: Bounds<f64>,
}

/// Properties that are not named.
#[derive(Debug, Clone, Default)]
enum Additional {
    #[default]
    Any,
    None,
    Fitting(Box<Schema>),
}

/// Least and most, both included.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds<N> {
    least: Option<N>,
    most: Option<N>,
}

impl<N: PartialOrd + Copy> Bounds<N> {
    fn hold(self, value: N) -> bool {
        self.least.is_none_or(|least| value >= least) && self.most.is_none_or(|most| value <= most)
    }
}

impl<N: std::fmt::Display> std::fmt::Display for Bounds<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.least, &self.most) {
            (Some(least), Some(most)) => write!(f, "{least} to {most}"),
            (Some(least), None) => write!(f, "{least} or more"),
            (None, Some(most)) => write!(f, "{most} or less"),
            (None, None) => f.write_str("anything"),
        }
    }
}

impl Schema {
    /// Reads the schema of a manifest: of an object.
    ///
    /// # Errors
    ///
    /// Where and what, in words.
    pub(in crate::plugin) fn parse(schema: &Value) -> Result<Self, String> {
        let parsed = Self::read(schema, "", 0)?;
        match parsed.types.as_deref() {
            Some(["object"]) => Ok(parsed),
            _ => Err("`settings`: its `type` must be `object`".into()),
        }
    }

    fn read(schema: &Value, at: &str, depth: usize) -> Result<Self, String> {
        let wrong = |keyword: &str, what: &str| Err(format!("`settings{at}`: `{}` {what}", keyword.escape_debug()));
        let Value::Object(keywords) = schema else {
            return Err(format!("`settings{at}` is no mapping of JSON Schema keywords"));
        };
        if depth > DEPTH {
            return Err(format!("`settings` is nested deeper than {DEPTH}"));
        }
        let mut read = Self::default();
        for (keyword, value) in keywords {
            let inner = |value: &Value, step: &str| Self::read(value, &format!("{at}/{keyword}{step}"), depth + 1);
            let count = || value.as_u64();
            match keyword.as_str() {
                "type" => match types(value) {
                    Some(types) => read.types = Some(types),
                    None => return wrong(keyword, "is not one or several of JSON's types"),
                },
                "enum" => match value.as_array().filter(|choices| !choices.is_empty()) {
                    Some(choices) => read.choices = Some(choices.clone()),
                    None => return wrong(keyword, "is no list of values"),
                },
                "const" => read.choices = Some(vec![value.clone()]),
                "properties" => {
                    let Some(properties) = value.as_object() else { return wrong(keyword, "is no mapping") };
                    for (name, schema) in properties {
                        let name = name.escape_debug().to_string();
                        read.properties.insert(name.clone(), inner(schema, &format!("/{name}"))?);
                    }
                }
                "required" => match texts(value) {
                    Some(names) => read.required = names,
                    None => return wrong(keyword, "is no list of names"),
                },
                "additionalProperties" => {
                    read.additional = match value {
                        Value::Bool(true) => Additional::Any,
                        Value::Bool(false) => Additional::None,
                        schema => Additional::Fitting(Box::new(inner(schema, "")?)),
                    };
                }
                "items" => read.items = Some(Box::new(inner(value, "")?)),
                "pattern" => match value.as_str().and_then(pattern) {
                    Some(pattern) => read.pattern = Some(pattern),
                    None => return wrong(keyword, "is no regular expression"),
                },
                "minItems" | "maxItems" | "minLength" | "maxLength" if count().is_none() => {
                    return wrong(keyword, "is no whole number of 0 or more");
                }
                "minItems" => read.item_count.least = count(),
                "maxItems" => read.item_count.most = count(),
                "minLength" => read.length.least = count(),
                "maxLength" => read.length.most = count(),
                "minimum" | "maximum" if !value.is_number() => return wrong(keyword, "is no number"),
                "minimum" => read.number.least = value.as_f64(),
                "maximum" => read.number.most = value.as_f64(),
                annotation if ANNOTATIONS.contains(&annotation) => {}
                _ => return wrong(keyword, "is no keyword that this host checks"),
            }
        }
        // Else nothing could ever fit, or a typo would hide a rule.
        let named =
            |name: &&String| !read.properties.contains_key(*name) && matches!(read.additional, Additional::None);
        match read.required.iter().find(named) {
            Some(name) => wrong("required", &format!("names `{}`, which `properties` does not", name.escape_debug())),
            None => Ok(read),
        }
    }

    /// What does not fit, each with its place. The values are not told: they may be nobody's business.
    pub(in crate::plugin) fn misfits(&self, settings: &Map<String, Value>) -> Vec<String> {
        let mut misfits = Vec::new();
        self.check_object(settings, "", &mut misfits);
        misfits.truncate(MISFITS);
        misfits
    }

    fn check(&self, value: &Value, at: &str, misfits: &mut Vec<String>) {
        let mut misfit = |what: String| misfits.push(format!("`{at}` {what}"));
        if let Some(types) = &self.types
            && !types.iter().any(|name| is_of(value, name))
        {
            return misfit(format!("must be of type {}", types.join(" or ")));
        }
        if let Some(choices) = &self.choices
            && !choices.iter().any(|choice| equal(choice, value))
        {
            let shown: Vec<String> = choices.iter().map(Value::to_string).collect();
            return misfit(format!("must be {}", shown.join(" or ")));
        }
        match value {
            Value::Object(object) => self.check_object(object, at, misfits),
            Value::Array(items) => {
                if !self.item_count.hold(items.len() as u64) {
                    misfit(format!("must have {} items", self.item_count));
                }
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.check(item, &format!("{at}/{index}"), misfits);
                    }
                }
            }
            Value::String(text) => {
                if !self.length.hold(text.chars().count() as u64) {
                    misfit(format!("must have {} characters", self.length));
                }
                if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
                    misfit(format!("must match `{}`", pattern.as_str().escape_debug()));
                }
            }
            Value::Number(number) => {
                if !number.as_f64().is_some_and(|number| self.number.hold(number)) {
                    misfit(format!("must be {}", self.number));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_object(&self, object: &Map<String, Value>, at: &str, misfits: &mut Vec<String>) {
        let path = |name: &str| format!("{at}/{}", name.escape_debug());
        for name in self.required.iter().filter(|name| !object.contains_key(*name)) {
            misfits.push(format!("`{}` is missing", path(name)));
        }
        for (name, value) in object {
            match (self.properties.get(name), &self.additional) {
                (Some(schema), _) => schema.check(value, &path(name), misfits),
                (None, Additional::Fitting(schema)) => schema.check(value, &path(name), misfits),
                (None, Additional::Any) => {}
                (None, Additional::None) => misfits.push(format!("`{}` is no setting of this plugin", path(name))),
            }
        }
    }
}

fn types(value: &Value) -> Option<Vec<&'static str>> {
    let known = |text: &str| TYPES.into_iter().find(|name| *name == text);
    match value {
        Value::String(name) => Some(vec![known(name)?]),
        Value::Array(names) if !names.is_empty() => names.iter().map(|name| known(name.as_str()?)).collect(),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

fn pattern(text: &str) -> Option<Regex> {
    regex::RegexBuilder::new(text).size_limit(1 << 20).build().ok()
}

fn is_of(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Object(_) => name == "object",
        Value::Array(_) => name == "array",
        Value::String(_) => name == "string",
        Value::Number(number) => {
            let whole = number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|it| it.fract() == 0.0);
            name == "number" || (name == "integer" && whole)
        }
    }
}

/// Equal as JSON: `1` is `1.0`.
fn equal(own: &Value, other: &Value) -> bool {
    match (own, other) {
        (Value::Number(own), Value::Number(other)) => own == other || own.as_f64() == other.as_f64(),
        (Value::Array(own), Value::Array(other)) => {
            own.len() == other.len() && own.iter().zip(other).all(|(own, other)| equal(own, other))
        }
        (Value::Object(own), Value::Object(other)) => {
            own.len() == other.len()
                && own.iter().all(|(name, own)| other.get(name).is_some_and(|other| equal(own, other)))
        }
        _ => own == other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn misfits(schema: &Value, settings: Value) -> Vec<String> {
        let Value::Object(settings) = settings else { panic!("no object") };
        Schema::parse(schema).unwrap().misfits(&settings)
    }

    #[test]
    fn every_keyword_is_checked() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "t", "description": "d", "type": "object", "required": ["region"], "additionalProperties": false,
            "properties": {
                "region": {"type": "string", "pattern": "^eu-", "minLength": 4, "maxLength": 6, "default": "eu-1"},
                "count": {"type": "integer", "minimum": 1, "maximum": 3},
                "share": {"type": ["number", "null"], "maximum": 0.5},
                "mode": {"enum": ["a", "b", 1]},
                "fixed": {"const": {"x": 1.0}},
                "hosts": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
                "labels": {"type": "object", "additionalProperties": {"type": "boolean"}},
            },
        });
        let good = [
            json!({"region": "eu-1"}),
            json!({"region": "eu-12", "count": 3, "share": null, "mode": 1, "fixed": {"x": 1}}),
            json!({"region": "eu-1", "count": 2.0, "share": 0.5, "hosts": ["a", "b"], "labels": {"x": true}}),
        ];
        for settings in good {
            assert_eq!(misfits(&schema, settings.clone()), [""; 0], "{settings}");
        }
        for (settings, expected) in [
            (json!({}), "`/region` is missing"),
            (json!({"region": 1}), "`/region` must be of type string"),
            (json!({"region": "us-1"}), "`/region` must match `^eu-`"),
            (json!({"region": "eu-"}), "`/region` must have 4 to 6 characters"),
            (json!({"region": "eu-1234"}), "`/region` must have 4 to 6 characters"),
            (json!({"region": "eu-1", "regoin": 1}), "`/regoin` is no setting of this plugin"),
            (json!({"region": "eu-1", "count": 0}), "`/count` must be 1 to 3"),
            (json!({"region": "eu-1", "count": 4}), "`/count` must be 1 to 3"),
            (json!({"region": "eu-1", "count": 1.5}), "`/count` must be of type integer"),
            (json!({"region": "eu-1", "share": 0.6}), "`/share` must be 0.5 or less"),
            (json!({"region": "eu-1", "share": "x"}), "`/share` must be of type number or null"),
            (json!({"region": "eu-1", "mode": "c"}), "`/mode` must be \"a\" or \"b\" or 1"),
            (json!({"region": "eu-1", "fixed": {"x": 2}}), "`/fixed` must be {\"x\":1.0}"),
            (json!({"region": "eu-1", "hosts": []}), "`/hosts` must have 1 to 2 items"),
            (json!({"region": "eu-1", "hosts": ["a", "b", "c"]}), "`/hosts` must have 1 to 2 items"),
            (json!({"region": "eu-1", "hosts": ["a", 7]}), "`/hosts/1` must be of type string"),
            (json!({"region": "eu-1", "labels": {"x": 1}}), "`/labels/x` must be of type boolean"),
        ] {
            assert_eq!(misfits(&schema, settings.clone()), [expected], "{settings}");
        }
    }

    #[test]
    fn a_schema_that_is_not_checked_whole_is_refused() {
        for (schema, expected) in [
            (json!(true), "no mapping"),
            (json!({}), "`type` must be `object`"),
            (json!({"type": "string"}), "`type` must be `object`"),
            (json!({"type": "object", "propertys": {}}), "`propertys` is no keyword"),
            (json!({"type": "object", "$ref": "https://a/"}), "`$ref` is no keyword"),
            (json!({"type": "object", "oneOf": []}), "`oneOf` is no keyword"),
            (json!({"type": "object", "properties": {"a": {"format": "uri"}}}), "`settings/properties/a`: `format`"),
            (json!({"type": "object", "properties": []}), "`properties` is no mapping"),
            (json!({"type": "object", "properties": {"a": {"type": "text"}}}), "`type` is not one"),
            (json!({"type": "object", "properties": {"a": {"pattern": "("}}}), "`pattern` is no regular"),
            (json!({"type": "object", "properties": {"a": {"minLength": -1}}}), "`minLength` is no whole"),
            (json!({"type": "object", "properties": {"a": {"minimum": "1"}}}), "`minimum` is no number"),
            (json!({"type": "object", "properties": {"a": {"enum": []}}}), "`enum` is no list"),
            (json!({"type": "object", "required": "a"}), "`required` is no list"),
            (json!({"type": "object", "required": ["a"], "additionalProperties": false}), "names `a`"),
            (json!({"type": "object", "properties": {"a": {"items": 1}}}), "`settings/properties/a/items`"),
        ] {
            let error = Schema::parse(&schema).unwrap_err();
            assert!(error.contains(expected), "{schema}: {error}");
        }
        let mut deep = json!({"type": "object"});
        for _ in 0..DEPTH + 1 {
            deep = json!({"type": "object", "properties": {"a": deep}});
        }
        assert!(Schema::parse(&deep).unwrap_err().contains("nested"));
    }

    proptest! {
        #[test]
        fn no_misfit_repeats_a_value(secret in "[a-z]{12}") {
            let schema = json!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 3, "pattern": "^X"}});
            for misfit in misfits(&schema, json!({"a": secret, "b": [secret]})) {
                prop_assert!(!misfit.contains(&secret), "{}", misfit);
            }
        }
    }
}
