//! What is wrong with what the user wrote. Nothing was done yet: every one of these exits with 2.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::yaml::Place;
use crate::error::{Diagnose, ExitCode};
use crate::output::printable;
use crate::token::TokenError;

/// Longest piece of a user's text an error repeats, in characters.
const MAX_SHOWN_CHARS: usize = 160;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A place in a file.
    File {
        /// As given.
        path: PathBuf,
        /// Of the value.
        place: Place,
    },
    /// A flag with its dashes, an argument, or a variable of the environment.
    Named(&'static str),
    /// Nobody wrote it: a default, or a value that is missing.
    Nowhere,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, place } if place.line > 0 => {
                write!(f, "`{}:{}:{}`: ", path.display(), place.line, place.column)
            }
            Self::File { path, .. } => write!(f, "`{}`: ", path.display()),
            Self::Named(name) => write!(f, "`{name}`: "),
            Self::Nowhere => Ok(()),
        }
    }
}

/// One rule that a value breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// Nothing reads this field.
    #[error("unknown field")]
    UnknownField,
    /// The field was there already.
    #[error("duplicate field")]
    DuplicateField,
    /// Another type is needed.
    #[error("must be {expected}, found {found}")]
    WrongType {
        /// With its article.
        expected: &'static str,
        /// With its article.
        found: &'static str,
    },
    /// A field that has no default.
    #[error("must be set")]
    Missing,
    /// Neither way of discovery was given.
    #[error("bootstrapToken or file must be set")]
    NoDiscovery,
    /// Both were.
    #[error("bootstrapToken and file cannot both be set")]
    TwoDiscoveries,
    /// Token discovery without pins, and the user did not accept that.
    #[error("token discovery without a pin trusts whoever answers first")]
    Unpinned,
    /// Token discovery without a token.
    #[error("must be set")]
    NoToken,
    /// The text, which is not repeated, is no token.
    #[error(transparent)]
    Token(TokenError),
    /// No `host:port`.
    #[error("`{value}` is no `host:port`: {reason}")]
    Endpoint {
        /// As written, tokens hidden.
        value: String,
        /// What is missing or too much.
        reason: &'static str,
    },
    /// No pin.
    #[error("the pin `{value}` {reason}")]
    Pin {
        /// As written, tokens hidden.
        value: String,
        /// Which part is wrong.
        reason: &'static str,
    },
    /// No Go duration.
    #[error("`{value}` is no duration such as `4m0s`")]
    Duration {
        /// As written, tokens hidden.
        value: String,
    },
    /// No phase has this name.
    #[error("invalid phase name: {0}")]
    UnknownPhase(String),
    /// `all` beside other checks.
    #[error("don't specify individual checks if `all` is used; found `{0}`")]
    AllWithOthers(String),
    /// Another rule for a single value.
    #[error("`{value}` {reason}")]
    Value {
        /// As written, tokens hidden.
        value: String,
        /// The rule, as a verb phrase.
        reason: String,
    },
    /// The text, which is not repeated, is no certificate key.
    #[error(transparent)]
    CertificateKey(crate::pki::CertificateKeyError),
    /// Grants that do not parse.
    #[error("not a grant: {0}")]
    Grant(String),
    /// Two plugins of one name.
    #[error("the plugin name `{name}` is used twice; first by {first}")]
    PluginName {
        /// Of both.
        name: String,
        /// File, line and column, or the flag.
        first: String,
    },
    /// A secret with no source, or with two.
    #[error("a secret is taken from one of `file` and `env`")]
    SecretSource,
}

impl Fault {
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownField => "config-unknown-field",
            Self::DuplicateField => "config-duplicate-field",
            Self::WrongType { .. } => "config-wrong-type",
            Self::Missing => "config-missing-field",
            Self::NoDiscovery => "config-no-discovery",
            Self::TwoDiscoveries => "config-two-discoveries",
            Self::Unpinned => "config-unpinned",
            Self::NoToken => "token-missing",
            Self::Token(_) => "token-malformed",
            Self::CertificateKey(_) => "certificate-key-malformed",
            Self::Endpoint { .. } => "config-endpoint",
            Self::Pin { .. } => "config-pin",
            Self::Duration { .. } => "config-duration",
            Self::UnknownPhase(_) => "config-unknown-phase",
            Self::AllWithOthers(_) => "config-ignore-all",
            Self::Value { .. } => "config-invalid-value",
            Self::Grant(_) => "config-grant",
            Self::PluginName { .. } => "config-plugin-name",
            Self::SecretSource => "config-secret-source",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownField | Self::DuplicateField => {
                "correct the field, or pass `--allow-unknown-fields` to be warned only, as kubeadm does".to_owned()
            }
            Self::WrongType { expected: "a string", found: "a number" | "a boolean" } => {
                "put the value in quotes".to_owned()
            }
            Self::NoDiscovery => {
                "on a control-plane node, `kubeadm token create --print-join-command` prints the line \
                                  to run; or pass `--discovery-file`"
                    .to_owned()
            }
            Self::Unpinned => "add `--discovery-token-ca-cert-hash sha256:…` (printed by `kubeadm token create \
                               --print-join-command`), or accept the risk with \
                               `--discovery-token-unsafe-skip-ca-verification`"
                .to_owned(),
            Self::NoToken => "pass `--token`, `--token-file` or the variable `MORTISE_TOKEN`".to_owned(),
            Self::Token(_) | Self::Pin { .. } => {
                "copy the line that `kubeadm token create --print-join-command` prints on a control-plane node"
                    .to_owned()
            }
            Self::CertificateKey(_) => {
                "`kubeadm init phase upload-certs --upload-certs` on a control-plane node prints a new one".to_owned()
            }
            Self::UnknownPhase(_) => "`mortise join phase --help` lists the phases".to_owned(),
            _ => return None,
        })
    }
}

/// What is wrong with flags, environment or configuration files.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {what} `{path}`")]
    Read {
        /// For example `the configuration`.
        what: &'static str,
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is no YAML.
    #[error("{at}{reason}")]
    Syntax {
        /// Where the parser stopped.
        at: At,
        /// Without the file's content.
        reason: String,
    },
    /// A document of the file cannot be used at all.
    #[error("{at}{problem}")]
    Document {
        /// Its first line.
        at: At,
        /// What is wrong.
        problem: DocumentProblem,
    },
    /// A field or flag breaks a rule.
    #[error("{at}`{field}`: {fault}")]
    Field {
        /// Where the value came from.
        at: At,
        /// Path as kubeadm names it, or the flag.
        field: String,
        /// The rule.
        fault: Fault,
    },
    /// Several of the above.
    #[error("{} problems:{}", .0.len(), Bullets(.0))]
    Several(Vec<ConfigError>),
    /// Flags that a configuration file replaces.
    #[error("can not mix '--config' with arguments [{}]", .0.join(" "))]
    Mixed(Vec<String>),
}

/// Why a document is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DocumentProblem {
    /// No `apiVersion` or no `kind`.
    #[error("a document needs `apiVersion` (with its group) and `kind`")]
    Untyped,
    /// A kind that was there already.
    #[error("the kind `{0}` is specified twice")]
    Twice(String),
    /// kubeadm itself can read it no more.
    #[error("`{version}` of `{kind}` is an old API; only `kubeadm.k8s.io/v1beta4` is read")]
    Old {
        /// Group and version.
        version: String,
        /// Kind.
        kind: String,
        /// Release that can migrate it.
        kubeadm: &'static str,
    },
    /// kubeadm does not read it yet.
    #[error("`{version}` of `{kind}` is an experimental API")]
    Experimental {
        /// Group and version.
        version: String,
        /// Kind.
        kind: String,
    },
    /// Nobody knows it.
    #[error("unknown API `{version}` of kind `{kind}`")]
    Unknown {
        /// Group and version.
        version: String,
        /// Kind.
        kind: String,
    },
    /// The kind that is needed is not there.
    #[error("no `{0}` in the file")]
    None(&'static str),
    /// A kind that has no business in this directory.
    #[error("`{0}` does not belong here: only documents of `mortise.dev` do")]
    Misplaced(String),
}

struct Bullets<'a>(&'a [ConfigError]);

impl fmt::Display for Bullets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|error| write!(f, "\n  - {error}"))
    }
}

impl ConfigError {
    /// None of no errors, the one of one, [`ConfigError::Several`] of more.
    pub(super) fn of(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several(errors)),
        }
    }
}

impl Diagnose for ConfigError {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "config-unreadable",
            Self::Syntax { .. } => "config-syntax",
            Self::Document { problem, .. } => match problem {
                DocumentProblem::Untyped => "config-untyped-document",
                DocumentProblem::Twice(_) => "config-kind-twice",
                DocumentProblem::Old { .. } => "config-old-version",
                DocumentProblem::Experimental { .. } => "config-experimental-version",
                DocumentProblem::Unknown { .. } => "config-unknown-version",
                DocumentProblem::None(_) => "config-kind-missing",
                DocumentProblem::Misplaced(_) => "config-misplaced-document",
            },
            Self::Field { fault, .. } => fault.code(),
            Self::Several(errors) => {
                let first = errors.first().map_or("config-invalid", Self::code);
                if errors.iter().all(|error| error.code() == first) { first } else { "config-invalid" }
            }
            Self::Mixed(_) => "config-mixed",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Field { fault, .. } => fault.hint(),
            // The first one that knows something; the list itself says the rest.
            Self::Several(errors) => errors.iter().find_map(Self::hint),
            Self::Document { problem: DocumentProblem::Old { kubeadm, .. }, .. } => Some(format!(
                "use kubeadm {kubeadm}: `kubeadm config migrate --old-config old.yaml --new-config new.yaml`"
            )),
            Self::Document { problem: DocumentProblem::None("JoinConfiguration"), .. } => {
                Some("`mortise config print join-defaults` prints one to start from".to_owned())
            }
            Self::Mixed(_) => Some("move these settings into the file, or leave out `--config`".to_owned()),
            _ => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Usage
    }
}

/// A piece of a user's text as an error may repeat it: printable, short, tokens hidden.
pub(super) fn shown(text: &str) -> String {
    let text = hide_tokens(text);
    let mut short: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    printable(&short)
}

/// Replaces the secret half of everything that has the shape of a bootstrap token, whatever its case.
///
/// Used for texts that repeat what a user typed, where a token may stand in the wrong place.
pub fn hide_tokens(text: &str) -> String {
    /// As in a bootstrap token.
    const ID: usize = 6;
    const SECRET: usize = 16;
    let word = |c: char| c.is_ascii_alphanumeric();
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dot) = rest.find('.') {
        let (before, after) = (&rest[..dot], &rest[dot + 1..]);
        let id = before.len() - before.trim_end_matches(word).len();
        let secret = after.len() - after.trim_start_matches(word).len();
        if id == ID && secret == SECRET {
            hidden.push_str(before);
            hidden.push_str(".<hidden>");
            rest = &after[secret..];
        } else {
            hidden.push_str(&rest[..=dot]);
            rest = after;
        }
    }
    hidden.push_str(rest);
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_what_looks_like_a_token_and_nothing_else() {
        for (text, shown) in [
            ("abcdef.0123456789abcdef", "abcdef.<hidden>"),
            ("--x=ABCDEF.0123456789ABCDEF' is", "--x=ABCDEF.<hidden>' is"),
            ("abcdef.0123456789abcdef,abcdef.0123456789abcdef", "abcdef.<hidden>,abcdef.<hidden>"),
            ("a.b.abcdef.0123456789abcdef", "a.b.abcdef.<hidden>"),
            ("master.example.com:6443", "master.example.com:6443"),
            ("abcdef.0123456789abcde", "abcdef.0123456789abcde"),
            ("ä.ö", "ä.ö"),
            ("", ""),
        ] {
            assert_eq!(hide_tokens(text), shown);
        }
    }

    #[test]
    fn repeats_only_a_short_and_printable_piece() {
        assert_eq!(shown("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), MAX_SHOWN_CHARS + 1);
    }
}
