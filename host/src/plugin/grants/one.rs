//! Any one grant, whatever its kind: for lists that hold them all.

use super::{
    ArgPattern, CommandGrant, FactGrant, FileGrant, Grants, HttpGrant, ProbeGrant, SecretGrant, TrustRootGrant,
};

/// User a command runs as when its grant names none.
pub(super) const DEFAULT_USER: &str = "nobody";

/// One grant of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant<'a> {
    /// `facts`.
    Fact(&'a FactGrant),
    /// `files`.
    File(&'a FileGrant),
    /// `commands`.
    Command(&'a CommandGrant),
    /// `http`.
    Http(&'a HttpGrant),
    /// `probe`.
    Probe(&'a ProbeGrant),
    /// `secrets`.
    Secret(&'a SecretGrant),
    /// `trust-root`.
    TrustRoot(&'a TrustRootGrant),
}

impl Grants {
    /// All of them, kind by kind.
    pub fn iter(&self) -> impl Iterator<Item = Grant<'_>> {
        let facts = self.facts.iter().map(Grant::Fact);
        facts
            .chain(self.files.iter().map(Grant::File))
            .chain(self.commands.iter().map(Grant::Command))
            .chain(self.http.iter().map(Grant::Http))
            .chain(self.probe.iter().map(Grant::Probe))
            .chain(self.secrets.iter().map(Grant::Secret))
            .chain(self.trust_root.iter().map(Grant::TrustRoot))
    }

    /// One line a grant, in the syntax of a manifest; each can be pasted below `grants:`.
    pub fn lines(&self) -> Vec<String> {
        self.iter().map(Grant::line).collect()
    }

    /// Whether one of these grants covers that one whole.
    pub fn cover(&self, other: Grant<'_>) -> bool {
        self.iter().any(|own| own.covers(other))
    }
}

impl Grant<'_> {
    /// In the syntax of a manifest.
    pub fn line(self) -> String {
        match self {
            Self::Fact(it) => it.line(),
            Self::File(it) => it.line(),
            Self::Command(it) => it.line(),
            Self::Http(it) => it.line(),
            Self::Probe(it) => it.line(),
            Self::Secret(it) => it.line(),
            Self::TrustRoot(_) => "trust-root: true".into(),
        }
    }

    /// Why a manifest asks.
    pub fn reason(self) -> Option<String> {
        match self {
            Self::Fact(it) => it.reason.clone(),
            Self::File(it) => it.reason.clone(),
            Self::Command(it) => it.reason.clone(),
            Self::Http(it) => it.reason.clone(),
            Self::Probe(it) => it.reason.clone(),
            Self::Secret(it) => it.reason.clone(),
            Self::TrustRoot(it) => it.reason.clone(),
        }
    }

    /// Whether the plugin can do without.
    pub fn is_optional(self) -> bool {
        match self {
            Self::Fact(it) => it.optional,
            Self::File(it) => it.optional,
            Self::Command(it) => it.optional,
            Self::Http(it) => it.optional,
            Self::Probe(it) => it.optional,
            Self::Secret(it) => it.optional,
            Self::TrustRoot(it) => it.optional,
        }
    }

    /// Whether it allows everything that the other one asks for. Sizes and times do not matter: the smaller counts.
    pub fn covers(self, other: Grant<'_>) -> bool {
        match (self, other) {
            (Self::Fact(own), Grant::Fact(other)) => own.covers(&other.name),
            (Self::File(own), Grant::File(other)) => own.access >= other.access && own.path.covers(&other.path),
            (Self::Command(own), Grant::Command(other)) => own.covers(other),
            (Self::Http(own), Grant::Http(other)) => own.covers(other),
            (Self::Probe(own), Grant::Probe(other)) => own.covers(other),
            (Self::Secret(own), Grant::Secret(other)) => own.covers(other),
            (Self::TrustRoot(_), Grant::TrustRoot(_)) => true,
            _ => false,
        }
    }
}

impl Grant<'_> {
    /// Whether the other one asks for what this one names, whichever way: a forbidden URL is forbidden with every method,
    /// a forbidden program with all arguments.
    pub(super) fn names(self, other: Grant<'_>) -> bool {
        match (self, other) {
            (Self::Fact(own), Grant::Fact(other)) => own.covers(&other.name),
            (Self::File(own), Grant::File(other)) => own.path.covers(&other.path),
            (Self::Command(own), Grant::Command(other)) => own.program == other.program,
            (Self::Http(own), Grant::Http(other)) => own.url.covers(&other.url),
            (Self::Probe(own), Grant::Probe(other)) => own.probe == other.probe,
            (Self::Secret(own), Grant::Secret(other)) => own.name == other.name,
            (Self::TrustRoot(_), Grant::TrustRoot(_)) => true,
            _ => false,
        }
    }
}

impl Grant<'_> {
    /// Whether anything could be granted by both. Where that is hard to see, it is said to be so.
    pub(super) fn overlaps(self, other: Grant<'_>) -> bool {
        match (self, other) {
            (Self::Fact(own), Grant::Fact(other)) => own.covers(&other.name) || other.covers(&own.name),
            (Self::File(own), Grant::File(other)) => own.path.overlaps(&other.path),
            (Self::Command(own), Grant::Command(other)) => {
                own.program == other.program && own.args.len() == other.args.len()
            }
            (Self::Http(own), Grant::Http(other)) => own.url.covers(&other.url) || other.url.covers(&own.url),
            (Self::Probe(own), Grant::Probe(other)) => own.probe.covers(&other.probe) || other.probe.covers(&own.probe),
            (Self::Secret(own), Grant::Secret(other)) => own.name == other.name,
            (Self::TrustRoot(_), Grant::TrustRoot(_)) => true,
            _ => false,
        }
    }
}

impl FactGrant {
    /// Whether its name stands for an asked one.
    pub(super) fn covers(&self, asked: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(stem) => asked.starts_with(stem),
            None => self.name == asked,
        }
    }
}

impl CommandGrant {
    /// The user it runs as when the host is root.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or(DEFAULT_USER)
    }

    fn covers(&self, other: &Self) -> bool {
        let covered = |(own, other): (&ArgPattern, &ArgPattern)| own.covers(other);
        self.program == other.program
            && self.args.len() == other.args.len()
            && self.args.iter().zip(&other.args).all(covered)
            && other.env.iter().all(|name| self.env.contains(name))
            && other.user.as_ref().is_none_or(|user| user == self.user())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(yaml: &str) -> Grants {
        Grants::parse(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
    }

    type Relation = for<'a, 'b> fn(Grant<'a>, Grant<'b>) -> bool;
    const COVERS: Relation = |own, other| own.covers(other);
    const NAMES: Relation = |own, other| own.names(other);
    const OVERLAPS: Relation = |own, other| own.overlaps(other);

    fn any(own: &str, other: &str, relation: Relation) -> bool {
        let (own, other) = (grants(own), grants(other));
        own.iter().any(|own| other.iter().any(|other| relation(own, other)))
    }

    /// One grant of each kind, and another of its kind that has nothing to do with it.
    const UNRELATED: [(&str, &str); 6] = [
        ("facts: [kernel]", "facts: [swap]"),
        ("files: [{path: /a}]", "files: [{path: /b}]"),
        ("commands: [{program: /a, args: [x]}]", "commands: [{program: /b, args: [x]}]"),
        ("http: [{url: https://a/}]", "http: [{url: https://b/}]"),
        ("probe: [{dns: a}]", "probe: [{dns: b}]"),
        ("secrets: [{name: a, reveal: true}]", "secrets: [{name: b, reveal: true}]"),
    ];

    #[test]
    fn every_kind_relates_to_itself_and_to_no_other() {
        let kinds: Vec<&str> = UNRELATED.iter().map(|(own, _)| *own).chain(["trust-root: true"]).collect();
        for (index, own) in kinds.iter().enumerate() {
            for (at, other) in kinds.iter().enumerate() {
                assert_eq!(any(own, other, COVERS), index == at, "{own} covers {other}");
                assert_eq!(any(own, other, NAMES), index == at, "{own} names {other}");
                assert_eq!(any(own, other, OVERLAPS), index == at, "{own} overlaps {other}");
            }
        }
        for (own, other) in UNRELATED {
            for relation in [COVERS, NAMES, OVERLAPS] {
                assert!(!any(own, other, relation) && !any(other, own, relation), "{own} {other}");
            }
        }
    }

    #[test]
    fn what_is_forbidden_by_name_is_forbidden_in_every_form() {
        for (own, other) in [
            ("facts: ['sysctl:net.*']", "facts: ['sysctl:net.ipv4.x']"),
            ("files: [{path: /etc/*, access: stat}]", "files: [{path: /etc/shadow}]"),
            ("commands: [{program: /a}]", "commands: [{program: /a, args: [x], user: daemon}]"),
            ("http: [{url: https://a/v1}]", "http: [{url: https://a/v1/x, methods: [DELETE], private: true}]"),
            ("probe: [{tcp: 'a:1'}]", "probe: [{tcp: 'a:1', private: true}]"),
            ("secrets: [{name: a, reveal: true}]", "secrets: [{name: a, url: https://a/, header: b}]"),
            ("trust-root: true", "trust-root: {reason: x}"),
        ] {
            assert!(any(own, other, NAMES), "{own} does not name {other}");
        }
        for (own, other) in [
            ("facts: ['sysctl:net.ipv4.x']", "facts: ['sysctl:net.*']"),
            ("http: [{url: https://a/v1/x}]", "http: [{url: https://a/v1}]"),
            ("probe: [{tls: 'a:1'}]", "probe: [{tcp: 'a:1'}]"),
        ] {
            assert!(!any(own, other, NAMES), "{own} names {other}");
        }
    }

    #[test]
    fn grants_overlap_where_a_request_could_be_within_both() {
        for (own, other) in [
            ("facts: ['sysctl:net.*']", "facts: ['sysctl:net.ipv4.x']"),
            ("files: [{path: /a/*}]", "files: [{path: /a/b*}]"),
            ("commands: [{program: /a, args: [{match: x}]}]", "commands: [{program: /a, args: [b]}]"),
            ("http: [{url: https://a/v1}]", "http: [{url: https://a/, methods: [PUT]}]"),
            ("probe: [{tls: 'a:1'}]", "probe: [{tcp: 'a:1'}]"),
            ("secrets: [{name: a, reveal: true}]", "secrets: [{name: a, url: https://a/, header: b}]"),
        ] {
            assert!(any(own, other, OVERLAPS) && any(other, own, OVERLAPS), "{own} {other}");
        }
        for (own, other) in [
            ("commands: [{program: /a, args: [x]}]", "commands: [{program: /a}]"),
            ("http: [{url: https://a/v1}]", "http: [{url: https://a/v2}]"),
            ("probe: [{tls: 'a:1'}]", "probe: [{tcp: 'a:2'}]"),
        ] {
            assert!(!any(own, other, OVERLAPS) && !any(other, own, OVERLAPS), "{own} {other}");
        }
    }

    #[test]
    fn a_reason_is_told_of_every_kind() {
        for (own, _) in UNRELATED {
            let reasoned = match own.rsplit_once('}') {
                Some((before, after)) => format!("{before}, reason: because, optional: true}}{after}"),
                None => "facts: [{name: kernel, reason: because, optional: true}]".into(),
            };
            let reasoned = grants(&reasoned);
            let grant = reasoned.iter().next().unwrap();
            assert_eq!((grant.reason().as_deref(), grant.is_optional()), (Some("because"), true), "{own}");
            let plain = grants(own);
            let grant = plain.iter().next().unwrap();
            assert_eq!((grant.reason(), grant.is_optional()), (None, false), "{own}");
        }
        let trust = grants("trust-root: {reason: because, optional: true}");
        let grant = trust.iter().next().unwrap();
        assert_eq!((grant.reason().as_deref(), grant.is_optional()), (Some("because"), true));
    }
}
