//! The grants `secrets` and `trust-root`.
//!
//! A secret of the site is used by the host in the plugin's stead, at one place. The plugin never sees it, unless
//! `reveal` says so.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Deserialize;

use super::network::names_address;
use super::url::{Scheme, UrlPrefix};
use super::{ArgPattern, GrantError, PathPattern};

/// What stands for the secret in an argv.
pub const PLACEHOLDER: &str = "{secret}";
/// Longest name.
const NAME_BYTES: usize = 64;
/// Headers that say where a message ends, whom it is for or how it is carried.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A secret by name, with the one place it may be used at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSecret")]
pub struct SecretGrant {
    /// As the operator configures it: 1 to 64 of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// None only with `reveal`.
    pub sink: Option<SecretSink>,
    /// The plugin may read it.
    pub reveal: bool,
    /// Why a manifest asks.
    pub reason: Option<String>,
    /// The plugin can do without.
    pub optional: bool,
}

/// Where a secret goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSink {
    /// Into a header of requests to this URL and below it.
    Header {
        /// `https`, or this machine by 127.0.0.1 or `localhost`.
        url: UrlPrefix,
        /// Lower-case; none that frames the message.
        header: String,
    },
    /// Into the arguments of one program.
    Argv {
        /// Absolute.
        program: PathBuf,
        /// Literal; exactly one of them is [`PLACEHOLDER`].
        arguments: Vec<String>,
    },
}

/// Use of a secret, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretUse<'a> {
    /// In a header of a request.
    Header {
        /// Whom it goes to; after a redirect, of the next request.
        url: &'a super::HttpUrl,
        /// Case does not matter.
        header: &'a str,
    },
    /// In the arguments of a program, [`PLACEHOLDER`] in its place.
    Argv {
        /// Absolute.
        program: &'a str,
        /// All of them.
        arguments: &'a [String],
    },
    /// By the plugin itself.
    Reveal,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawSecret {
    pub(super) name: String,
    #[serde(default)]
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) header: Option<String>,
    #[serde(default)]
    pub(super) argv: Option<Vec<String>>,
    #[serde(default)]
    pub(super) reveal: bool,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) optional: bool,
}

/// Whether a header, in lower case, frames its message: where it ends, whom it is for, how it is carried.
pub(in crate::plugin) fn is_framing(header: &str) -> bool {
    FRAMING.contains(&header) || header.starts_with("proxy-")
}

/// Whether a text can be the name of a secret.
pub fn is_secret_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.starts_with(['-', '.'])
}

impl TryFrom<RawSecret> for SecretGrant {
    type Error = GrantError;

    fn try_from(raw: RawSecret) -> Result<Self, GrantError> {
        if !is_secret_name(&raw.name) {
            return Err(GrantError::Value(format!(
                "`{}` is no name of a secret: 1 to {NAME_BYTES} of letters, digits, `-`, `_` and `.`",
                raw.name.escape_debug()
            )));
        }
        let sink = match (raw.url, raw.header, raw.argv) {
            (Some(url), Some(header), None) => Some(header_sink(&url, &header)?),
            (None, None, Some(argv)) => Some(argv_sink(argv)?),
            (None, None, None) if raw.reveal => None,
            _ => {
                return Err(GrantError::Value(format!(
                    "the secret `{}` is bound to one place: `url` and `header`, or `argv`",
                    raw.name
                )));
            }
        };
        Ok(Self { name: raw.name, sink, reveal: raw.reveal, reason: raw.reason, optional: raw.optional })
    }
}

fn header_sink(url: &str, header: &str) -> Result<SecretSink, GrantError> {
    let url: UrlPrefix = url.parse().map_err(|error| GrantError::Value(format!("the URL {error}")))?;
    let (scheme, host) = (url.url().scheme, &url.url().host);
    if scheme == Scheme::Http && !names_address(host, Ipv4Addr::LOCALHOST.into()) {
        return Err(GrantError::Value(format!("`{url}` would carry the secret in clear text; use `https`")));
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let header = header.to_ascii_lowercase();
    if header.is_empty() || header.len() > NAME_BYTES || !header.bytes().all(token) {
        return Err(GrantError::Value(format!("`{}` is no name of a header", header.escape_debug())));
    }
    if is_framing(&header) {
        return Err(GrantError::Value(format!("the header `{header}` is the host's own")));
    }
    Ok(SecretSink::Header { url, header })
}

fn argv_sink(argv: Vec<String>) -> Result<SecretSink, GrantError> {
    let mut words = argv.into_iter();
    let raw_program = words.next().unwrap_or_default();
    let program: PathPattern = raw_program.parse()?;
    if !program.is_literal() || program.has_placeholder() {
        return Err(GrantError::Value(format!("the program `{program}` is not one program")));
    }
    let arguments: Vec<String> = words.collect();
    for argument in &arguments {
        ArgPattern::literal(argument.clone())?;
    }
    if arguments.iter().filter(|argument| *argument == PLACEHOLDER).count() != 1 {
        return Err(GrantError::Value(format!("one argument after the program must be `{PLACEHOLDER}`")));
    }
    Ok(SecretSink::Argv { program: raw_program.into(), arguments })
}

impl SecretSink {
    /// Whether it admits whatever the other one does.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header { url: own, header: own_name }, Self::Header { url, header }) => {
                own.covers(url) && own_name == header
            }
            _ => self == other,
        }
    }
}

impl SecretGrant {
    /// The grant of this use and no other; none where no grant can say it.
    pub(super) fn asked(name: &str, using: SecretUse<'_>) -> Option<Self> {
        let sink = match using {
            SecretUse::Header { url, header } => {
                let url = UrlPrefix::of(url).to_string();
                Some(header_sink(&url, header).ok()?)
            }
            SecretUse::Argv { program, arguments } => {
                let argv = std::iter::once(program.to_owned()).chain(arguments.iter().cloned());
                Some(argv_sink(argv.collect()).ok()?)
            }
            SecretUse::Reveal => None,
        };
        let reveal = using == SecretUse::Reveal;
        is_secret_name(name).then(|| Self { name: name.into(), sink, reveal, reason: None, optional: false })
    }

    /// Whether it admits whatever the other one does.
    pub fn covers(&self, other: &Self) -> bool {
        let sink = match (&self.sink, &other.sink) {
            (_, None) => true,
            (Some(own), Some(other)) => own.covers(other),
            (None, Some(_)) => false,
        };
        self.name == other.name && self.reveal >= other.reveal && sink
    }
}

/// Leave to vouch for a cluster: what a discovery source says is the cluster's CA is believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustRootGrant {
    /// Why a manifest asks.
    pub reason: Option<String>,
    /// The plugin can do without: the operator's pin decides.
    pub optional: bool,
}

/// `true`, or a mapping with reason.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`true`, or `reason` and `optional`")]
enum RawTrustRoot {
    Flag(bool),
    Full(FullTrustRoot),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullTrustRoot {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    optional: bool,
}

/// Reads `trust-root`; `false` is the same as nothing.
pub(super) fn trust_root<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<TrustRootGrant>, D::Error> {
    Ok(match Option::<RawTrustRoot>::deserialize(deserializer)? {
        None | Some(RawTrustRoot::Flag(false)) => None,
        Some(RawTrustRoot::Flag(true)) => Some(TrustRootGrant::default()),
        Some(RawTrustRoot::Full(FullTrustRoot { reason, optional })) => Some(TrustRootGrant { reason, optional }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Grants;
    use super::*;

    #[test]
    fn names_of_secrets_are_plain_and_bounded() {
        for good in ["a", "A-b_c.1", &"x".repeat(64)] {
            assert!(is_secret_name(good), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "é", &"x".repeat(65)] {
            assert!(!is_secret_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_secret_has_one_place_and_the_place_is_safe() {
        let secret = |rest: &str| Grants::parse(&format!("secrets: [{{name: a{rest}}}]"));
        let (longest, longer) = ("x".repeat(64), "x".repeat(65));
        for good in [
            ", reveal: true",
            ", url: https://a/, header: X-Key",
            ", url: 'http://127.0.0.1:80/', header: b",
            ", url: 'http://localhost/', header: b",
            ", argv: [/a, '{secret}', b]",
            &format!(", url: https://a/, header: {longest}"),
        ] {
            assert!(secret(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ", reveal: false",
            ", url: https://a/",
            ", header: b",
            ", url: https://a/, header: b, argv: [/a, '{secret}']",
            ", url: http://a/, header: b",
            ", url: 'http://10.0.0.1/', header: b",
            ", url: https://a/, header: ''",
            ", url: https://a/, header: 'a b'",
            ", url: https://a/, header: Host",
            ", url: https://a/, header: Proxy-Anything",
            ", argv: []",
            ", argv: [a, '{secret}']",
            ", argv: [/a]",
            ", argv: ['/a/*', '{secret}']",
            ", argv: ['/a/{secret}', '{secret}']",
            ", argv: [/a, '{secret}', '{secret}']",
            ", argv: [/a, '{secret}', \"a\\0\"]",
            &format!(", url: https://a/, header: {longer}"),
        ] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_use_is_covered_by_the_same_use_only() {
        let all = "secrets: [{name: a, reveal: true}, {name: a, argv: [/a, '{secret}']}, \
                   {name: a, url: https://a/v1, header: b}, {name: a, argv: [/b, '{secret}']}]";
        let all = Grants::parse(all).unwrap().secrets;
        for (at, own) in all.iter().enumerate() {
            for (index, other) in all.iter().enumerate() {
                assert_eq!(own.covers(other), at == index, "{own:?} {other:?}");
            }
        }
    }
}
