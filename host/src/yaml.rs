//! YAML byte for byte as kubeadm writes it: the emitter of go-yaml 2 (`go.yaml.in/yaml/v2` 2.4.4), for JSON values.
//!
//! serde-saphyr's writer quotes, folds and indents lists otherwise, and what a join leaves on a node should not differ
//! from what `kubeadm join` leaves. Reading stays serde-saphyr's. The steps keep the order of `emitterc.go`, so that
//! both can be read side by side; which strings need quotes is decided in `scalar`, the order of keys in `order`.

use serde_json::Value;

mod order;
mod scalar;

use scalar::Style;

/// Column after which long text is folded at the next single space.
const BEST_WIDTH: usize = 80;
/// Longer keys stand on lines of their own, after `?`.
const MAX_SIMPLE_KEY_BYTES: usize = 128;
/// Columns of one level.
const BEST_INDENT: usize = 2;

/// The document for a value, keys sorted, final newline included.
pub fn write(value: &Value) -> String {
    let mut emitter = Emitter { out: String::new(), column: 0, whitespace: true, indention: true };
    emitter.node(value, None, Context::Root);
    emitter.indent_to(0);
    emitter.out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    Root,
    Item,
    Key,
    Value,
}

struct Emitter {
    out: String,
    /// In characters.
    column: usize,
    /// The last thing written was white space or begins a line.
    whitespace: bool,
    /// Only indentation and indicators stand on this line.
    indention: bool,
}

impl Emitter {
    /// `indent` of the block this node stands in; none: at the top.
    fn node(&mut self, value: &Value, indent: Option<usize>, context: Context) {
        match value {
            Value::Null => self.scalar("null", Style::Plain, indent, context),
            Value::Bool(value) => self.scalar(if *value { "true" } else { "false" }, Style::Plain, indent, context),
            Value::Number(number) => self.scalar(&scalar::number(number), Style::Plain, indent, context),
            Value::String(text) => self.text(text, indent, context),
            Value::Array(items) if items.is_empty() => self.empty("[", "]"),
            Value::Object(entries) if entries.is_empty() => self.empty("{", "}"),
            Value::Array(items) => {
                // A list that is a mapping's value begins below its key, not indented.
                let indentless = context == Context::Value && !self.indention;
                let inner = indent.map_or(0, |indent| if indentless { indent } else { indent + BEST_INDENT });
                for item in items {
                    self.indent_to(inner);
                    self.indicator("-", true, true);
                    self.node(item, Some(inner), Context::Item);
                }
            }
            Value::Object(entries) => {
                let inner = indent.map_or(0, |indent| indent + BEST_INDENT);
                let mut keys: Vec<&String> = Vec::with_capacity(entries.len());
                for key in entries.keys() {
                    // The order of go-yaml is not total for all keys, so that a sort of the library might refuse it.
                    let at = keys.partition_point(|other| order::less(other, key));
                    keys.insert(at, key);
                }
                for key in keys {
                    self.indent_to(inner);
                    if key.len() <= MAX_SIMPLE_KEY_BYTES && !key.contains(scalar::is_break) {
                        self.text(key, Some(inner), Context::Key);
                        self.indicator(":", false, false);
                    } else {
                        self.indicator("?", true, true);
                        self.text(key, Some(inner), Context::Value);
                        self.indent_to(inner);
                        self.indicator(":", true, true);
                    }
                    self.node(&entries[key], Some(inner), Context::Value);
                }
            }
        }
    }

    fn empty(&mut self, open: &str, close: &str) {
        self.indicator(open, true, false);
        self.indicator(close, false, false);
    }

    fn text(&mut self, text: &str, indent: Option<usize>, context: Context) {
        let key = context == Context::Key;
        let style = scalar::style(text, key);
        self.scalar(text, style, indent, context);
    }

    fn scalar(&mut self, text: &str, style: Style, indent: Option<usize>, context: Context) {
        let indent = indent.map_or(BEST_INDENT, |indent| indent + BEST_INDENT);
        let fold = context != Context::Key;
        match style {
            Style::Plain => {
                if !self.whitespace {
                    self.put(' ');
                }
                self.flow(text, indent, fold, Quote::None);
            }
            Style::SingleQuoted => {
                self.indicator("'", true, false);
                self.flow(text, indent, fold, Quote::Single);
                self.indicator("'", false, false);
            }
            Style::DoubleQuoted => {
                self.indicator("\"", true, false);
                self.double_quoted(text, indent, fold);
                self.indicator("\"", false, false);
            }
            Style::Literal => return self.literal(text, indent),
        }
        self.whitespace = false;
        self.indention = false;
    }

    /// Plain and single-quoted text: folded where it is long, a break doubled.
    fn flow(&mut self, text: &str, indent: usize, fold: bool, quote: Quote) {
        let (mut spaces, mut breaks) = (false, false);
        let mut characters = text.char_indices().peekable();
        while let Some((at, c)) = characters.next() {
            let next = characters.peek().map(|(_, next)| *next);
            if c == ' ' {
                let inside = quote == Quote::None || at > 0 && next.is_some();
                if fold && !spaces && self.column > BEST_WIDTH && inside && next != Some(' ') {
                    self.indent_to(indent);
                } else {
                    self.put(c);
                }
                spaces = true;
            } else if scalar::is_break(c) {
                if !breaks && c == '\n' {
                    self.line_break('\n');
                }
                self.line_break(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.indent_to(indent);
                }
                if c == '\'' && quote == Quote::Single {
                    self.put(c);
                }
                self.put(c);
                self.indention = false;
                (spaces, breaks) = (false, false);
            }
        }
    }

    fn double_quoted(&mut self, text: &str, indent: usize, fold: bool) {
        let mut spaces = false;
        let mut characters = text.char_indices().peekable();
        while let Some((at, c)) = characters.next() {
            if scalar::needs_escape(c) {
                for c in scalar::escape(c).chars() {
                    self.put(c);
                }
                spaces = false;
            } else if c == ' ' {
                let next = characters.peek().map(|(_, next)| *next);
                if fold && !spaces && self.column > BEST_WIDTH && at > 0 && next.is_some() {
                    self.indent_to(indent);
                    if next == Some(' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(c);
                }
                spaces = true;
            } else {
                self.put(c);
                spaces = false;
            }
        }
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.indicator("|", true, false);
        if text.starts_with(|c| c == ' ' || scalar::is_break(c)) {
            self.indicator(&BEST_INDENT.to_string(), false, false);
        }
        let mut from_end = text.chars().rev();
        let last_two = (from_end.next(), from_end.next());
        match last_two {
            (Some(last), _) if !scalar::is_break(last) => self.indicator("-", false, false),
            (Some(_), None) => self.indicator("+", false, false),
            (Some(_), Some(previous)) if scalar::is_break(previous) => self.indicator("+", false, false),
            _ => {}
        }
        self.line_break('\n');
        self.indention = true;
        self.whitespace = true;
        let mut breaks = true;
        for c in text.chars() {
            if scalar::is_break(c) {
                self.line_break(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.indent_to(indent);
                }
                self.put(c);
                self.indention = false;
                breaks = false;
            }
        }
    }

    fn indicator(&mut self, text: &str, needs_space: bool, is_indention: bool) {
        if needs_space && !self.whitespace {
            self.put(' ');
        }
        for c in text.chars() {
            self.put(c);
        }
        self.whitespace = false;
        self.indention &= is_indention;
    }

    fn indent_to(&mut self, indent: usize) {
        if !self.indention || self.column > indent || self.column == indent && !self.whitespace {
            self.line_break('\n');
        }
        while self.column < indent {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn line_break(&mut self, c: char) {
        self.out.push(c);
        self.column = 0;
    }

    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made by `generate.go` beside it, which says how.
    const SAMPLES: &str = include_str!("yaml/go-yaml.json");

    #[test]
    fn writes_what_go_yaml_writes() {
        let samples: Vec<(Value, String)> = serde_json::from_str(SAMPLES).unwrap();
        assert!(samples.len() > 800, "{}", samples.len());
        for (value, expected) in samples {
            assert_eq!(write(&value), expected, "{value}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,100}".prop_map(Value::from),
            "[a-z: #\n'\"\\\\é0-9.-]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[ -~]{1,12}", inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn a_key_that_looks_like_a_merge_is_a_key() {
        let value = serde_json::json!({"a": {"<<": null, "<": "<<"}});
        assert_eq!(serde_saphyr::from_str::<Value>(&write(&value)).unwrap(), value);
    }

    proptest! {
        #[test]
        fn reads_back_as_the_same_value(value in prop::collection::vec(("[a-z]{1,9}", values()), 0..5)) {
            let value = Value::Object(value.into_iter().collect());
            let text = write(&value);
            let back: Value = serde_saphyr::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(back, value, "{}", text);
        }
    }
}
