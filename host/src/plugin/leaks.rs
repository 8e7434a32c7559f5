//! Pairs of grants that leak: one lets a plugin learn something, the other lets it send that away.
//!
//! Neither is wrong by itself, so they are shown and a site's policy can forbid them. Whoever may be asked for a URL below a
//! prefix may be told anything in it, whatever the method.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::grants::{Access, AddressClass, Grants, HttpGrant, NetHost, address_class};

/// A kind of leak, by what gets away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeakKind {
    /// Content of files.
    FilesToNetwork,
    /// Output of programs.
    CommandsToNetwork,
    /// Secrets that the plugin may read.
    SecretsToNetwork,
    /// What a cloud's metadata service, or the link, answers.
    MetadataToNetwork,
    /// What servers of the private network answer.
    PrivateToNetwork,
    /// Facts about the machine.
    FactsToNetwork,
}

impl LeakKind {
    /// All, worst first.
    pub const ALL: [Self; 6] = [
        Self::SecretsToNetwork,
        Self::MetadataToNetwork,
        Self::FilesToNetwork,
        Self::CommandsToNetwork,
        Self::PrivateToNetwork,
        Self::FactsToNetwork,
    ];

    /// As a policy names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FilesToNetwork => "files-to-network",
            Self::CommandsToNetwork => "commands-to-network",
            Self::SecretsToNetwork => "secrets-to-network",
            Self::MetadataToNetwork => "metadata-to-network",
            Self::PrivateToNetwork => "private-to-network",
            Self::FactsToNetwork => "facts-to-network",
        }
    }
}

impl fmt::Display for LeakKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LeakKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// One leak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// What gets away.
    pub kind: LeakKind,
    /// A sentence without a period: `reads files (/etc/*) and can send to inventory.example`.
    pub text: String,
}

/// The leaks among these grants, worst first.
pub fn leaks(grants: &Grants) -> Vec<Leak> {
    LeakKind::ALL.into_iter().filter_map(|kind| leak(kind, grants)).collect()
}

fn leak(kind: LeakKind, grants: &Grants) -> Option<Leak> {
    let (verb, sources): (_, Vec<String>) = match kind {
        LeakKind::FilesToNetwork => {
            let read = grants.files.iter().filter(|file| file.access == Access::Read);
            ("reads files", read.map(|file| file.path.to_string()).collect())
        }
        LeakKind::CommandsToNetwork => {
            ("runs programs", grants.commands.iter().map(|it| it.program.display().to_string()).collect())
        }
        LeakKind::SecretsToNetwork => {
            let read = grants.secrets.iter().filter(|secret| secret.reveal);
            ("reads secrets", read.map(|secret| secret.name.clone()).collect())
        }
        LeakKind::MetadataToNetwork => ("asks the cloud's metadata or its link", hosts(grants, near)),
        LeakKind::PrivateToNetwork => ("asks the private network", hosts(grants, private)),
        LeakKind::FactsToNetwork => {
            ("sees facts of this machine", grants.facts.iter().map(|fact| fact.name.clone()).collect())
        }
    };
    let mut targets = match kind {
        LeakKind::MetadataToNetwork => hosts(grants, |it| !near(it)),
        LeakKind::PrivateToNetwork => hosts(grants, |it| !private(it)),
        _ => hosts(grants, |_| true),
    };
    // What a server said is no news to itself.
    if matches!(kind, LeakKind::MetadataToNetwork | LeakKind::PrivateToNetwork) {
        targets.retain(|target| !sources.contains(target));
    }
    if sources.is_empty() || targets.is_empty() {
        return None;
    }
    let text = format!("{verb} ({}) and can send to {}", sources.join(", "), targets.join(", "));
    Some(Leak { kind, text })
}

fn hosts(grants: &Grants, chosen: impl Fn(&HttpGrant) -> bool) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for host in grants.http.iter().filter(|it| chosen(it)).map(|it| it.url.url().authority()) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

fn literal(grant: &HttpGrant) -> Option<AddressClass> {
    match grant.url.url().host {
        NetHost::Address(address) => Some(address_class(address)),
        NetHost::Name(_) => None,
    }
}

fn near(grant: &HttpGrant) -> bool {
    grant.scope.link_local || matches!(literal(grant), Some(AddressClass::LinkLocal | AddressClass::Metadata))
}

fn private(grant: &HttpGrant) -> bool {
    grant.scope.private || literal(grant) == Some(AddressClass::Private)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<&'static str> {
        leaks(&Grants::parse(text).unwrap()).into_iter().map(|leak| leak.kind.name()).collect()
    }

    #[test]
    fn a_leak_needs_something_to_tell_and_somebody_to_tell_it_to() {
        const OUT: &str = "http: [{url: https://out}]\n";
        for (grants, expected) in [
            ("files: [{path: /a}]", None),
            ("http: [{url: https://out}]", None),
            ("probe: [{tcp: 'a:1'}]\nfiles: [{path: /a}]", None),
            (&*format!("{OUT}files: [{{path: /a, access: stat}}]"), None),
            (&*format!("{OUT}files: [{{path: /a}}]"), Some("files-to-network")),
            (&*format!("{OUT}commands: [{{program: /bin/x}}]"), Some("commands-to-network")),
            (&*format!("{OUT}secrets: [{{name: s, url: https://out, header: x}}]"), None),
            (&*format!("{OUT}secrets: [{{name: s, reveal: true}}]"), Some("secrets-to-network")),
            (&*format!("{OUT}facts: [users]"), Some("facts-to-network")),
            ("http: [{url: 'http://169.254.169.254'}]", None),
            ("http: [{url: 'http://169.254.169.254'}, {url: https://out}]", Some("metadata-to-network")),
            ("http: [{url: 'http://meta', link-local: true}, {url: https://out}]", Some("metadata-to-network")),
            ("http: [{url: https://in, private: true}, {url: https://out}]", Some("private-to-network")),
            ("http: [{url: https://in, private: true}, {url: https://in}]", None),
            ("http: [{url: https://a, private: true}, {url: https://b, private: true}]", None),
        ] {
            assert_eq!(kinds(grants), expected.into_iter().collect::<Vec<_>>(), "{grants}");
        }
        let grants = Grants::parse(&format!("{OUT}files: [{{path: /etc/*}}, {{path: /a}}]")).unwrap();
        assert_eq!(leaks(&grants)[0].text, "reads files (/etc/*, /a) and can send to out");
        for kind in LeakKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
    }
}
