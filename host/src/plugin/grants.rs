//! What a plugin may ask for: one syntax for what its manifest wants and what an operator allows.
//!
//! ```yaml
//! facts: [kernel, {name: "sysctl:net.ipv4.*", reason: forwarding, optional: true}]
//! files:
//!   - {path: /proc/driver/nvidia/version, access: read, max-bytes: 4Ki, reason: the driver's version}
//! commands:
//!   - program: /usr/bin/nvidia-smi
//!     args: [-q, {one-of: [-i, -x]}, {match: "[0-9]{1,2}"}]
//!     env: [LANG]
//!     timeout: 5s
//!     max-output: 64Ki
//!     user: nobody
//! http:
//!   - url: https://inventory.example/v1/
//!     methods: [GET, POST]
//!     max-body: 64Ki
//!     max-response: 256Ki
//!     private: true
//!     link-local: false
//! probe:
//!   - {tls: registry.example:443, private: true}
//!   - {tcp: "10.0.0.5:2049"}
//!   - {dns: registry.example}
//! secrets:
//!   - {name: inventory-token, url: https://inventory.example/v1/, header: authorization}
//!   - {name: licence, argv: [/usr/bin/activate, --key, "{secret}"]}
//!   - {name: seed, reveal: true}
//! trust-root: true
//! ```
//!
//! A plugin gets what both sides name ([`Effective`]). Unknown keys are errors: a typo must not grant, nor deny, silently.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

mod address;
mod effective;
mod flag;
mod line;
mod machine;
mod network;
mod one;
mod pattern;
mod secret;
mod url;

pub use address::{AddressClass, AddressScope, address_class};
pub use effective::{Allowance, Ceiling, Denial, DeniedBy, Effective, HttpAllowance, ProbeAllowance};
pub(super) use machine::is_sysctl_byte;
pub use machine::{Access, CommandGrant, FACTS, FactGrant, FileGrant};
pub use network::{HttpGrant, METHODS, Probe, ProbeGrant};
pub use one::Grant;
pub use pattern::{ArgPattern, PathPattern, PatternError};
pub(super) use secret::is_framing;
pub use secret::{PLACEHOLDER, SecretGrant, SecretSink, SecretUse, TrustRootGrant, is_secret_name};
pub use url::{HttpUrl, NetHost, Scheme, UrlError, UrlPrefix};

/// Grants by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Facts by name.
    pub facts: Vec<FactGrant>,
    /// Files by path.
    pub files: Vec<FileGrant>,
    /// Programs with their arguments.
    pub commands: Vec<CommandGrant>,
    /// Requests by URL.
    pub http: Vec<HttpGrant>,
    /// Connections, handshakes and look-ups.
    pub probe: Vec<ProbeGrant>,
    /// Secrets by name and place.
    pub secrets: Vec<SecretGrant>,
    /// Leave to vouch for a cluster. Discovery only.
    #[serde(rename = "trust-root", deserialize_with = "secret::trust_root")]
    pub trust_root: Option<TrustRootGrant>,
}

/// What is wrong with a grant.
#[derive(Debug, Error)]
pub enum GrantError {
    /// The text is no YAML of grants; line, column and reason are in it.
    #[error("{0}")]
    Syntax(String),
    /// `--grant` with an unknown beginning.
    #[error(
        "`{0}` is neither `facts=…`, `files=…`, `commands=…`, `http=…`, `probe=…`, `secrets=…` or `trust-root` nor a file"
    )]
    Flag(String),
    /// A file named by `--grant`.
    #[error("cannot read the grants in `{path}`")]
    File {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A value.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A number or name out of bounds.
    #[error("{0}")]
    Value(String),
}

impl Grants {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    ///
    /// [`GrantError::Syntax`] with line and column.
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str_with_options(text, serde_saphyr::options! { with_snippet: false })
            .map_err(|error| GrantError::Syntax(error.to_string().trim_end().to_owned()))
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another's grants.
    pub fn merge(&mut self, other: Self) {
        self.facts.extend(other.facts);
        self.files.extend(other.files);
        self.commands.extend(other.commands);
        self.http.extend(other.http);
        self.probe.extend(other.probe);
        self.secrets.extend(other.secrets);
        self.trust_root = self.trust_root.take().or(other.trust_root);
    }

    /// Puts values of the join in the place of `{name}` in file paths; a line whose value is not known (yet) grants
    /// nothing. Only the built-in plugin's manifest may have placeholders.
    pub fn filled(&self, values: &BTreeMap<String, String>) -> Self {
        let filled = |file: &FileGrant| file.path.filled(values).map(|path| FileGrant { path, ..file.clone() });
        Self { files: self.files.iter().filter_map(filled).collect(), ..self.clone() }
    }
}

/// Bytes, as a number or with `Ki` or `Mi`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a number of bytes, also with `Ki` or `Mi`")]
pub(super) enum Size {
    Bytes(u64),
    Text(String),
}

/// A size of at most `most` bytes.
pub(super) fn size(what: &str, size: Option<Size>, most: u64) -> Result<Option<u64>, GrantError> {
    let Some(size) = size else { return Ok(None) };
    let bytes = match &size {
        Size::Bytes(bytes) => Some(*bytes),
        Size::Text(text) => {
            let (number, unit) = match (text.strip_suffix("Ki"), text.strip_suffix("Mi")) {
                (Some(number), _) => (number, 1 << 10),
                (_, Some(number)) => (number, 1 << 20),
                _ => (text.as_str(), 1),
            };
            number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit))
        }
    };
    match bytes {
        Some(bytes) if (1..=most).contains(&bytes) => Ok(Some(bytes)),
        _ => Err(GrantError::Value(format!("`{what}` must be 1 to {most} bytes, as a number or with `Ki` or `Mi`"))),
    }
}

/// `500ms`, `5s` or `1m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, GrantError> {
    let bad = || GrantError::Value(format!("`{}` is no time such as `500ms`, `5s` or `1m`", text.escape_debug()));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| bad())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(60 * u64::from(number))),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_documented_form() {
        let grants = Grants::parse(
            "facts: [kernel, {name: 'sysctl:net.ipv4.*', reason: forwarding, optional: true}]\n\
             files:\n  - {path: /proc/driver/nvidia/version, access: read, max-bytes: 4Ki}\n\
             commands:\n  - program: /usr/bin/nvidia-smi\n    args: [-q, {one-of: [-i, -x]}, {match: '[0-9]{1,2}'}]\n\
             \x20   timeout: 500ms\n    max-output: 1024\n    env: [LANG]\n    user: nobody\n",
        )
        .unwrap();
        assert_eq!(grants.facts[1].name, "sysctl:net.ipv4.*");
        assert!(grants.facts[1].optional);
        assert_eq!(grants.files[0].max_bytes, Some(4096));
        assert_eq!(grants.commands[0].timeout, Some(Duration::from_millis(500)));
        assert_eq!(grants.commands[0].args.len(), 3);
    }

    #[test]
    fn refuses_what_it_does_not_know_with_its_place() {
        for (bad, expected) in [
            ("fact: [kernel]", "fact"),
            ("facts: [kernl]", "unknown fact `kernl`"),
            ("facts: ['sysctl:*.x']", "unknown fact"),
            ("facts: ['sysctl:']", "unknown fact"),
            ("files:\n  - {path: /a, acces: read}", "acces"),
            ("files:\n  - {path: a, access: read}", "absolute"),
            ("files:\n  - {path: /a/../b}", "`..`"),
            ("files:\n  - {path: /a/**}", "`**`"),
            ("files:\n  - {path: /a, access: write}", "write"),
            ("files:\n  - {path: /a, max-bytes: 2Mi}", "max-bytes"),
            ("commands:\n  - {program: echo}", "absolute"),
            ("commands:\n  - {program: /bin/*}", "one program"),
            ("commands:\n  - {program: /bin/echo, args: [{match: '('}]}", "("),
            ("commands:\n  - {program: /bin/echo, args: [{any: '('}]}", "line 2"),
            ("commands:\n  - {program: /bin/echo, env: [LD_PRELOAD]}", "LD_PRELOAD"),
            ("commands:\n  - {program: /bin/echo, timeout: 5}", "5"),
            ("commands:\n  - {program: /bin/echo, timeout: 5h}", "5h"),
        ] {
            let error = Grants::parse(bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{bad:?}: {error}");
            assert!(error.contains("line"), "no place: {error}");
        }
    }

    #[test]
    fn nothing_granted_is_empty_and_anything_is_not() {
        assert!(Grants::default().is_empty() && Grants::parse("facts: []").unwrap().is_empty());
        assert!(!Grants::parse("trust-root: true").unwrap().is_empty());
    }

    #[test]
    fn a_placeholder_is_filled_with_a_path_and_nothing_else() {
        let filled = |path: &str, value: &str| {
            let grants = Grants::parse(&format!("files: [{{path: '{path}'}}]")).unwrap();
            assert_eq!(grants.files[0].path.has_placeholder(), path.contains('{'));
            let filled = grants.filled(&[("dir".to_owned(), value.to_owned())].into());
            filled.files.first().map(|file| file.path.to_string())
        };
        assert_eq!(filled("{dir}/a", "/etc/x").unwrap(), "/etc/x/a");
        assert_eq!(filled("/b/{dir}/{dir}", "x").unwrap(), "/b/x/x");
        assert_eq!(filled("/plain", "x").unwrap(), "/plain");
        for (path, value) in
            [("{dir}/a", "x"), ("{dir}", "/a/*"), ("{dir}", "/{dir}"), ("/a/{dir}", ".."), ("/a/{other}", "x")]
        {
            assert_eq!(filled(path, value), None, "{path} {value}");
        }
    }

    #[test]
    fn times_and_sizes_have_units() {
        for (text, milliseconds) in [("250ms", 250), ("3s", 3000), ("2m", 120_000), ("0s", 0)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for bad in ["", "s", "5", "5h", "-5s", "1.5s", "4294967296s", "5 s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        let read = |text: &str| size("it", Some(Size::Text(text.into())), 2 << 20).ok().flatten();
        for (text, bytes) in [("1", 1), ("3Ki", 3 << 10), ("2Mi", 2 << 20)] {
            assert_eq!(read(text), Some(bytes), "{text}");
        }
        for bad in ["0", "2049Ki", "3Mi", "1Gi", "", "Ki", "-1", "18014398509481985Ki"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
