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
//! ```
//!
//! A plugin gets what both sides name ([`Effective`]). Unknown keys are errors: a typo must not grant, nor deny, silently.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

mod effective;
mod flag;
mod pattern;

pub use effective::{Allowance, Denial, Effective};
pub use pattern::{ArgPattern, PathPattern, PatternError};

use super::limits::{COMMAND_TIME_MAX, FILE_BYTES_MAX, OUTPUT_BYTES_MAX};

/// Names of the grant `facts`. `sysctl:<parameter>` comes beside them.
pub const FACTS: [&str; 16] = [
    "cgroup",
    "cpu",
    "executables",
    "interfaces",
    "kernel",
    "memory",
    "modules",
    "mounts",
    "os",
    "ports",
    "proxy",
    "resolver",
    "runtime",
    "swap",
    "units",
    "users",
];

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
}

/// One name of [`FACTS`], or `sysctl:` and a dotted name, `*` allowed as its end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawFact")]
pub struct FactGrant {
    /// Checked.
    pub name: String,
    /// Why a manifest asks.
    pub reason: Option<String>,
    /// The plugin can do without.
    pub optional: bool,
}

/// What may be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Its size, mode and owner.
    Stat,
    /// Its content, too.
    #[default]
    Read,
}

/// Files at paths that match.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawFile")]
pub struct FileGrant {
    /// Absolute, `*` within one segment.
    pub path: PathPattern,
    /// The most that may be done.
    pub access: Access,
    /// Largest content, at most 1 MiB.
    pub max_bytes: Option<u64>,
    /// Why a manifest asks.
    pub reason: Option<String>,
    /// The plugin can do without.
    pub optional: bool,
}

/// A program with exactly these arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawCommand")]
pub struct CommandGrant {
    /// Absolute.
    pub program: PathBuf,
    /// As many as will be passed.
    pub args: Vec<ArgPattern>,
    /// Names of variables that are passed on.
    pub env: Vec<String>,
    /// Wall clock, at most 50 s.
    pub timeout: Option<Duration>,
    /// Bytes of stdout and stderr each, at most 512 KiB.
    pub max_output: Option<u64>,
    /// User name when the host is root; `nobody` when none is named.
    pub user: Option<String>,
    /// Why a manifest asks.
    pub reason: Option<String>,
    /// The plugin can do without.
    pub optional: bool,
}

/// What is wrong with a grant.
#[derive(Debug, Error)]
pub enum GrantError {
    /// The text is no YAML of grants; line, column and reason are in it.
    #[error("{0}")]
    Syntax(String),
    /// `--grant` with an unknown beginning.
    #[error("`{0}` is neither `facts=…`, `files=…` or `commands=…` nor a file")]
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
        serde_saphyr::from_str(text).map_err(|error| GrantError::Syntax(error.to_string().trim_end().to_owned()))
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.files.is_empty() && self.commands.is_empty()
    }

    /// Adds another's grants.
    pub fn merge(&mut self, other: Self) {
        self.facts.extend(other.facts);
        self.files.extend(other.files);
        self.commands.extend(other.commands);
    }

    /// Puts values of the join in the place of `{name}` in file paths. Only the built-in plugin's manifest may have
    /// placeholders.
    ///
    /// # Errors
    ///
    /// [`PatternError::Placeholder`] for an unknown name or a value that is no path.
    pub fn fill(&mut self, values: &BTreeMap<String, String>) -> Result<(), PatternError> {
        for file in &mut self.files {
            file.path = file.path.filled(values)?;
        }
        Ok(())
    }
}

/// A plain name, or a name with its reason.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a name, or `name` with `reason` and `optional`")]
enum RawFact {
    Name(String),
    Full(FullFact),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullFact {
    name: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    optional: bool,
}

impl TryFrom<RawFact> for FactGrant {
    type Error = GrantError;

    fn try_from(raw: RawFact) -> Result<Self, GrantError> {
        let FullFact { name, reason, optional } = match raw {
            RawFact::Name(name) => FullFact { name, reason: None, optional: false },
            RawFact::Full(full) => full,
        };
        let sysctl = |name: &str| {
            let stem = name.strip_suffix('*').unwrap_or(name);
            !stem.is_empty() && stem.len() <= 256 && stem.bytes().all(is_sysctl_byte)
        };
        match name.strip_prefix("sysctl:") {
            Some(parameter) if sysctl(parameter) => {}
            None if FACTS.contains(&name.as_str()) => {}
            _ => {
                let known = FACTS.join("`, `");
                return Err(GrantError::Value(format!(
                    "unknown fact `{}`; there are `{known}` and `sysctl:<parameter>`, `*` allowed at its end",
                    name.escape_debug()
                )));
            }
        }
        Ok(Self { name, reason, optional })
    }
}

/// Bytes of a kernel parameter's name.
pub(super) fn is_sysctl_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawFile {
    path: String,
    #[serde(default)]
    access: Access,
    #[serde(default)]
    max_bytes: Option<Size>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    optional: bool,
}

impl TryFrom<RawFile> for FileGrant {
    type Error = GrantError;

    fn try_from(raw: RawFile) -> Result<Self, GrantError> {
        let RawFile { path, access, max_bytes, reason, optional } = raw;
        let path = path.parse()?;
        Ok(Self { path, access, max_bytes: size("max-bytes", max_bytes, FILE_BYTES_MAX)?, reason, optional })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawCommand {
    program: String,
    #[serde(default)]
    args: Vec<RawArg>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    max_output: Option<Size>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, `one-of: [texts]` or `match: pattern`")]
enum RawArg {
    Literal(String),
    Pattern(RawPattern),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum RawPattern {
    OneOf(Vec<String>),
    Match(String),
}

impl TryFrom<RawCommand> for CommandGrant {
    type Error = GrantError;

    fn try_from(raw: RawCommand) -> Result<Self, GrantError> {
        let args = raw.args.into_iter().map(|arg| match arg {
            RawArg::Literal(text) => ArgPattern::literal(text),
            RawArg::Pattern(RawPattern::OneOf(choices)) => ArgPattern::one_of(choices),
            RawArg::Pattern(RawPattern::Match(pattern)) => ArgPattern::matching(&pattern),
        });
        let args = args.collect::<Result<_, _>>()?;
        let program: PathPattern = raw.program.parse()?;
        if !program.is_literal() {
            return Err(GrantError::Value(format!("the program `{}` has a `*`; name one program", raw.program)));
        }
        let name = |text: &String| {
            !text.is_empty()
                && text.len() <= 64
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if let Some(bad) = raw.env.iter().chain(&raw.user).find(|text| !name(text)) {
            return Err(GrantError::Value(format!("`{}` is no name of a variable or user", bad.escape_debug())));
        }
        // They make the dynamic loader run other code than the grant names.
        if let Some(loader) = raw.env.iter().find(|name| name.starts_with("LD_") || *name == "GCONV_PATH") {
            return Err(GrantError::Value(format!("the variable `{loader}` cannot be passed on")));
        }
        let timeout = raw.timeout.as_deref().map(parse_duration).transpose()?;
        if timeout.is_some_and(|asked| asked > COMMAND_TIME_MAX || asked.is_zero()) {
            return Err(GrantError::Value(format!(
                "`timeout` must be above 0 and at most {} s",
                COMMAND_TIME_MAX.as_secs()
            )));
        }
        Ok(Self {
            program: raw.program.into(),
            args,
            env: raw.env,
            timeout,
            max_output: size("max-output", raw.max_output, OUTPUT_BYTES_MAX)?,
            user: raw.user,
            reason: raw.reason,
            optional: raw.optional,
        })
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
}
