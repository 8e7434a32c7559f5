//! From method, path and query to what is asked of which resource.
//!
//! Source: k8s.io/apiserver, `pkg/endpoints/request/requestinfo.go`.

use http::Method;

/// A kind of object the sandbox stores.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    /// API group; empty for the core one.
    pub(super) group: &'static str,
    /// The one version served.
    pub(super) version: &'static str,
    /// As in paths.
    pub(super) plural: &'static str,
    /// As in objects.
    pub(super) kind: &'static str,
    /// Whether objects live in a namespace.
    pub(super) namespaced: bool,
    /// Subresources beside the object itself.
    pub(super) subresources: &'static [&'static str],
}

const fn kind(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
    subresources: &'static [&'static str],
) -> Kind {
    Kind { group, version: "v1", plural, kind, namespaced, subresources }
}

pub(super) static CONFIG_MAPS: Kind = kind("", "configmaps", "ConfigMap", true, &[]);
pub(super) static NAMESPACES: Kind = kind("", "namespaces", "Namespace", false, &[]);
pub(super) static NODES: Kind = kind("", "nodes", "Node", false, &["status"]);
pub(super) static SECRETS: Kind = kind("", "secrets", "Secret", true, &[]);
pub(super) static REQUESTS: Kind = kind(
    "certificates.k8s.io",
    "certificatesigningrequests",
    "CertificateSigningRequest",
    false,
    &["approval", "status"],
);
pub(super) static LEASES: Kind = kind("coordination.k8s.io", "leases", "Lease", true, &[]);

static KINDS: [&Kind; 6] = [&CONFIG_MAPS, &NAMESPACES, &NODES, &SECRETS, &REQUESTS, &LEASES];

impl Kind {
    /// `apiVersion` of its objects.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A method on a path that is no resource.
    Other(&'static str),
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Other(method) => method,
        }
    }
}

/// What the verb is done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Anything outside `/api/v1` and `/apis/<group>/<version>`.
    Path(String),
    /// An object or a list of them, known or not.
    Resource(ResourceTarget),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourceTarget {
    pub(super) group: String,
    pub(super) version: String,
    /// Empty: all, or none where the kind has none.
    pub(super) namespace: String,
    pub(super) plural: String,
    pub(super) subresource: Option<String>,
    /// Empty for a list; the field selector's for a list of one.
    pub(super) name: String,
}

impl ResourceTarget {
    /// The kind, where this server has it.
    pub(super) fn kind(&self) -> Option<&'static Kind> {
        KINDS.into_iter().find(|kind| {
            kind.group == self.group
                && kind.version == self.version
                && kind.plural == self.plural
                && self.subresource.as_deref().is_none_or(|name| kind.subresources.contains(&name))
        })
    }
}

/// What the authorizers look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) verb: Verb,
    pub(super) target: Target,
}

/// The query parameters that this server heeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) watch: bool,
    pub(super) resource_version: Option<String>,
    /// Terms `field=value` that all must hold.
    pub(super) fields: Vec<(String, String)>,
    /// Whether there is a label selector.
    pub(super) labels: bool,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) bookmarks: bool,
    pub(super) send_initial_events: bool,
}

impl Query {
    /// Unknown parameters are ignored, as the API server does.
    pub(super) fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        let yes = |value: &str| value == "true" || value == "1";
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value);
            match name {
                "watch" => parsed.watch = yes(&value),
                "resourceVersion" if !value.is_empty() => parsed.resource_version = Some(value),
                "labelSelector" => parsed.labels = !value.is_empty(),
                "timeoutSeconds" => parsed.timeout_seconds = value.parse().ok(),
                "allowWatchBookmarks" => parsed.bookmarks = yes(&value),
                "sendInitialEvents" => parsed.send_initial_events = yes(&value),
                "fieldSelector" => {
                    parsed.fields = value
                        .split(',')
                        .filter_map(|term| term.split_once("==").or_else(|| term.split_once('=')))
                        .map(|(field, value)| (field.to_owned(), value.to_owned()))
                        .collect();
                }
                _ => {}
            }
        }
        parsed
    }

    fn name(&self) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == "metadata.name").map(|(_, name)| name.as_str())
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let escaped = (first == b'%')
            .then(|| rest.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[2..];
            }
            None => bytes.push(if first == b'+' { b' ' } else { first }),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Attributes {
    /// Reads method, path and query.
    pub(super) fn of(method: &Method, path: &str, query: &Query) -> Self {
        let parts: Vec<String> =
            path.trim_matches('/').split('/').filter(|part| !part.is_empty()).map(percent_decoded).collect();
        let (group, version, rest) = match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["api", version, _, ..] => ("", version, &parts[2..]),
            ["apis", group, version, _, ..] => (group, version, &parts[3..]),
            _ => {
                let verb = match *method {
                    Method::GET => "get",
                    Method::POST => "post",
                    Method::PUT => "put",
                    Method::PATCH => "patch",
                    Method::DELETE => "delete",
                    Method::HEAD => "head",
                    Method::OPTIONS => "options",
                    _ => "unknown",
                };
                return Self { verb: Verb::Other(verb), target: Target::Path(path.to_owned()) };
            }
        };
        let (namespace, rest) = match rest {
            [word, namespace, rest @ ..] if word == "namespaces" && !rest.is_empty() => (namespace.clone(), rest),
            [word, namespace] if word == "namespaces" => (namespace.clone(), rest),
            _ => (String::new(), rest),
        };
        let mut target = ResourceTarget {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace,
            plural: rest[0].clone(),
            subresource: rest.get(2).cloned(),
            name: rest.get(1).cloned().unwrap_or_default(),
        };
        let one = !target.name.is_empty();
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if one => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ if one => Verb::Get,
            _ if query.watch => Verb::Watch,
            _ => Verb::List,
        };
        if let (Verb::List | Verb::Watch | Verb::DeleteCollection, Some(name)) = (verb, query.name()) {
            target.name = name.to_owned();
        }
        Self { verb, target: Target::Resource(target) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, path: &str, query: &str) -> (Verb, Target) {
        let attributes = Attributes::of(&method, path, &Query::parse(query));
        (attributes.verb, attributes.target)
    }

    #[test]
    fn reads_paths_as_the_api_server_does() {
        for (method, path, query, verb, namespace, plural, subresource, name) in [
            (Method::GET, "/api/v1/nodes/n1", "", Verb::Get, "", "nodes", None, "n1"),
            (Method::GET, "/api/v1/nodes", "", Verb::List, "", "nodes", None, ""),
            (Method::GET, "/api/v1/nodes", "watch=true", Verb::Watch, "", "nodes", None, ""),
            (
                Method::GET,
                "/api/v1/nodes",
                "watch=1&fieldSelector=metadata.name%3Dn1",
                Verb::Watch,
                "",
                "nodes",
                None,
                "n1",
            ),
            (Method::PATCH, "/api/v1/nodes/n1/status", "", Verb::Patch, "", "nodes", Some("status"), "n1"),
            (Method::GET, "/api/v1/namespaces/a", "", Verb::Get, "a", "namespaces", None, "a"),
            (Method::POST, "/api/v1/namespaces", "", Verb::Create, "", "namespaces", None, ""),
            (Method::GET, "/api/v1/namespaces/a/secrets/b", "", Verb::Get, "a", "secrets", None, "b"),
        ] {
            let (read_verb, target) = read(method, path, query);
            let Target::Resource(target) = target else { panic!("{path} is a resource") };
            assert_eq!(
                (read_verb, &*target.namespace, &*target.plural, target.subresource.as_deref(), &*target.name),
                (verb, namespace, plural, subresource, name),
                "{path}?{query}"
            );
        }
        assert_eq!(read(Method::GET, "/healthz", "").1, Target::Path("/healthz".into()));
    }
}
