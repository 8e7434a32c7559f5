//! Types of a core/v1 Pod: which fields there are, how Go writes them, and by which key their lists merge.
//!
//! `pod-fields.txt` is made from the struct tags of `k8s.io/api/core/v1` 0.37.2 by `generate.go`: a type a paragraph, a field a
//! line.

use std::collections::HashMap;
use std::sync::LazyLock;

const FIELDS: &str = include_str!("pod-fields.txt");

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By name.
    Struct(&'static str),
    List(Box<Self>),
    /// From text.
    Map(Box<Self>),
    String,
    Bool,
    Int32,
    Int64,
    Quantity,
    IntOrString,
    /// Anything that is written as it was read.
    Raw,
}

/// How a list of a patch meets the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListMerge {
    Replace,
    /// A set of scalars.
    Set,
    /// Mappings, told apart by this field.
    ByKey(&'static str),
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// An empty value is left out; a struct never is.
    pub(super) omit_empty: bool,
    /// A struct whose fields are all unset is left out.
    pub(super) omit_zero: bool,
    /// An empty value is told from none.
    pub(super) pointer: bool,
    pub(super) merge: ListMerge,
}

static TYPES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let mut types: HashMap<&str, Vec<Field>> = HashMap::new();
    let mut current = "";
    for line in FIELDS.lines() {
        match line.strip_prefix("  ") {
            Some(field) => types.entry(current).or_default().push(read(field)),
            None => {
                current = line;
                types.entry(current).or_default();
            }
        }
    }
    types
});

/// Fields of a type.
pub(super) fn fields(of: &str) -> &'static [Field] {
    TYPES.get(of).expect("every type that a field names has its paragraph")
}

fn read(line: &'static str) -> Field {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let kind = kind(words.next().unwrap_or_default());
    let mut field =
        Field { name, kind, omit_empty: false, omit_zero: false, pointer: false, merge: ListMerge::Replace };
    for word in words {
        match word.split_once('=') {
            None if word == "omitempty" => field.omit_empty = true,
            None if word == "omitzero" => field.omit_zero = true,
            None if word == "pointer" => field.pointer = true,
            // A key follows where the list is of mappings.
            Some(("strategy", strategies)) if strategies.split(',').any(|one| one == "merge") => {
                field.merge = ListMerge::Set;
            }
            Some(("key", key)) if field.merge == ListMerge::Set => field.merge = ListMerge::ByKey(key),
            _ => unreachable!("`generate.go` writes no other words"),
        }
    }
    field
}

fn kind(text: &'static str) -> Kind {
    if let Some(item) = text.strip_prefix("[]") {
        return Kind::List(Box::new(kind(item)));
    }
    if let Some(value) = text.strip_prefix("map:") {
        return Kind::Map(Box::new(kind(value)));
    }
    match text {
        "string" => Kind::String,
        "bool" => Kind::Bool,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "quantity" => Kind::Quantity,
        "intOrString" => Kind::IntOrString,
        "time" | "raw" | "bytes" => Kind::Raw,
        name => Kind::Struct(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_type_is_there() {
        fn named(kind: &Kind) -> Option<&str> {
            match kind {
                Kind::Struct(name) => Some(name),
                Kind::List(of) | Kind::Map(of) => named(of),
                _ => None,
            }
        }
        for (of, field) in TYPES.iter().flat_map(|(of, fields)| fields.iter().map(move |field| (of, field))) {
            assert!(named(&field.kind).is_none_or(|name| TYPES.contains_key(name)), "{of}: {field:?}");
        }
    }

    #[test]
    fn lists_merge_by_the_keys_of_the_struct_tags() {
        // Read in k8s.io/api/core/v1/types.go 0.37.2.
        for (of, field, merge) in [
            ("PodSpec", "containers", ListMerge::ByKey("name")),
            ("PodSpec", "initContainers", ListMerge::ByKey("name")),
            ("PodSpec", "volumes", ListMerge::ByKey("name")),
            ("PodSpec", "hostAliases", ListMerge::ByKey("ip")),
            ("PodSpec", "imagePullSecrets", ListMerge::ByKey("name")),
            ("PodSpec", "topologySpreadConstraints", ListMerge::ByKey("topologyKey")),
            ("PodSpec", "tolerations", ListMerge::Replace),
            ("Container", "env", ListMerge::ByKey("name")),
            ("Container", "envFrom", ListMerge::Replace),
            ("Container", "ports", ListMerge::ByKey("containerPort")),
            ("Container", "volumeMounts", ListMerge::ByKey("mountPath")),
            ("Container", "volumeDevices", ListMerge::ByKey("devicePath")),
            ("Container", "command", ListMerge::Replace),
            ("ObjectMeta", "finalizers", ListMerge::Set),
            ("ObjectMeta", "ownerReferences", ListMerge::ByKey("uid")),
        ] {
            let found = fields(of).iter().find(|known| known.name == field).unwrap();
            assert_eq!(found.merge, merge, "{of} {field}");
        }
    }
}
