//! A value read into a Go type and written again: unknown fields go, empty ones as the type has it, quantities are canonical.

use serde_json::{Map, Value};

use super::quantity;
use super::schema::{Field, Kind, fields};

/// Why a value is not of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Field, with dots.
    at: String,
    wanted: &'static str,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.at.is_empty() {
            return write!(f, "it must be {}", self.wanted);
        }
        write!(f, "`{}` must be {}", crate::output::printable(&self.at), self.wanted)
    }
}

/// A Pod as Go writes it.
pub(crate) fn pod(value: &Value) -> Result<Value, Mismatch> {
    let (version, kind) = (value.get("apiVersion"), value.get("kind"));
    if version.is_none_or(|version| version != "v1") || kind.is_none_or(|kind| kind != "Pod") {
        return Err(Mismatch { at: String::new(), wanted: "a Pod of `v1`" });
    }
    structure("Pod", value)
}

/// A core/v1 EnvVar as Go writes it.
pub(crate) fn env_var(value: &Value) -> Result<Value, Mismatch> {
    structure("EnvVar", value)
}

fn structure(of: &str, value: &Value) -> Result<Value, Mismatch> {
    let none = Map::new();
    let entries = match value {
        Value::Null => &none,
        Value::Object(entries) => entries,
        _ => return mismatch("a mapping"),
    };
    let mut written = Map::new();
    for field in fields(of) {
        let value = entries.get(field.name).filter(|value| !value.is_null());
        let value =
            value.map(|value| convert(&field.kind, value).map_err(|below| below.in_field(field.name))).transpose()?;
        if let Some(value) = written_as(field, value) {
            written.insert(field.name.to_owned(), value);
        }
    }
    Ok(Value::Object(written))
}

/// What stands in the text for a field; none: it is left out.
fn written_as(field: &Field, value: Option<Value>) -> Option<Value> {
    match value {
        Some(value) if field.pointer => Some(value),
        None if field.pointer => (!field.omit_empty).then_some(Value::Null),
        value => {
            let is_struct = matches!(field.kind, Kind::Struct(_));
            let value = value.unwrap_or_else(|| zero(&field.kind));
            let out = if is_struct {
                field.omit_zero && value == zero(&field.kind)
            } else {
                field.omit_empty && is_empty(&value)
            };
            // A time that is not set is left out where it may be, whatever its tag says.
            let out = out || (field.omit_zero && value.is_null());
            (!out).then_some(value)
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// What Go writes of a value that was never set.
fn zero(kind: &Kind) -> Value {
    match kind {
        Kind::Struct(of) => structure(of, &Value::Null).expect("an empty mapping is of every type"),
        Kind::List(_) | Kind::Map(_) | Kind::Raw => Value::Null,
        Kind::String => "".into(),
        Kind::Bool => false.into(),
        Kind::Int32 | Kind::Int64 | Kind::IntOrString => 0.into(),
        Kind::Quantity => "0".into(),
    }
}

fn convert(kind: &Kind, value: &Value) -> Result<Value, Mismatch> {
    if value.is_null() {
        return Ok(zero(kind));
    }
    match (kind, value) {
        (Kind::Struct(of), value) => structure(of, value),
        (Kind::List(item), Value::Array(items)) => {
            let each = items
                .iter()
                .enumerate()
                .map(|(n, value)| convert(item, value).map_err(|below| below.in_field(&n.to_string())));
            Ok(Value::Array(each.collect::<Result<_, _>>()?))
        }
        (Kind::Map(item), Value::Object(entries)) => {
            let each = entries.iter().map(|(key, value)| {
                Ok((key.clone(), convert(item, value).map_err(|below: Mismatch| below.in_field(key))?))
            });
            Ok(Value::Object(each.collect::<Result<_, _>>()?))
        }
        (Kind::String, Value::String(_)) | (Kind::Bool, Value::Bool(_)) | (Kind::Raw, _) => Ok(value.clone()),
        (Kind::Int64, Value::Number(_)) => integer(value, i64::MIN, i64::MAX),
        (Kind::Int32 | Kind::IntOrString, Value::Number(_)) => integer(value, i32::MIN.into(), i32::MAX.into()),
        (Kind::IntOrString, Value::String(_)) => Ok(value.clone()),
        (Kind::Quantity, Value::String(text)) => canonical(text.trim()),
        (Kind::Quantity, Value::Number(number)) => canonical(&number.to_string()),
        (Kind::List(_), _) => mismatch("a list"),
        (Kind::Map(_), _) => mismatch("a mapping"),
        (Kind::String, _) => mismatch("a text"),
        (Kind::Bool, _) => mismatch("true or false"),
        (Kind::Int32 | Kind::Int64, _) => mismatch("a whole number"),
        (Kind::IntOrString, _) => mismatch("a whole number or a text"),
        (Kind::Quantity, _) => mismatch("a quantity"),
    }
}

fn integer(value: &Value, min: i64, max: i64) -> Result<Value, Mismatch> {
    // YAML's `1.0` is the whole number one for kubeadm, which reads patches by way of JSON.
    let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64);
    let number = value.as_i64().or_else(|| value.as_f64().and_then(whole));
    match number.filter(|number| (min..=max).contains(number)) {
        Some(number) => Ok(number.into()),
        None => mismatch("a whole number"),
    }
}

fn canonical(text: &str) -> Result<Value, Mismatch> {
    quantity::canonical(text).map(Value::String).map_or_else(|| mismatch("a quantity"), Ok)
}

fn mismatch<T>(wanted: &'static str) -> Result<T, Mismatch> {
    Err(Mismatch { at: String::new(), wanted })
}

impl Mismatch {
    fn in_field(self, name: &str) -> Self {
        let at = if self.at.is_empty() { name.to_owned() } else { format!("{name}.{}", self.at) };
        Self { at, ..self }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leaves_out_what_go_leaves_out() {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "unknown": 1,
            "metadata": {"labels": {}, "creationTimestamp": null},
            "spec": {
                "hostPID": false,
                "enableServiceLinks": false,
                "tolerations": [],
                "containers": [{"name": "a", "args": [], "securityContext": {}, "ports": [{"containerPort": 1.0}]}],
            },
        });
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {},
            "spec": {
                "enableServiceLinks": false,
                "containers": [{"name": "a", "resources": {}, "securityContext": {}, "ports": [{"containerPort": 1}]}],
            },
            "status": {},
        });
        assert_eq!(super::pod(&pod).unwrap(), expected);
    }

    #[test]
    fn names_the_field_that_is_not_of_its_type() {
        for (spec, told) in [
            (json!({"hostNetwork": "yes"}), "`spec.hostNetwork` must be true or false"),
            (json!({"containers": [{"name": 1}]}), "`spec.containers.0.name` must be a text"),
            (json!({"containers": {}}), "`spec.containers` must be a list"),
            (json!({"priority": 1.5}), "`spec.priority` must be a whole number"),
            (json!({"priority": 3_000_000_000_u32}), "`spec.priority` must be a whole number"),
            (json!({"overhead": {"cpu": "much"}}), "`spec.overhead.cpu` must be a quantity"),
            (json!([]), "`spec` must be a mapping"),
        ] {
            let refused = pod(&json!({"apiVersion": "v1", "kind": "Pod", "spec": spec})).unwrap_err();
            assert_eq!(refused.to_string(), told);
        }
        assert!(pod(&json!({"apiVersion": "v1", "kind": "Service"})).is_err());
    }
}
