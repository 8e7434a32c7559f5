//! The grants `facts`, `files` and `commands`: what a plugin may see and run of this machine.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{ArgPattern, GrantError, PathPattern, Size, parse_duration, size};
use crate::plugin::limits::{COMMAND_TIME_MAX, FILE_BYTES_MAX, OUTPUT_BYTES_MAX};

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

/// A plain name, or a name with its reason.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a name, or `name` with `reason` and `optional`")]
pub(super) enum RawFact {
    Name(String),
    Full(FullFact),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FullFact {
    pub(super) name: String,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) optional: bool,
}

impl TryFrom<RawFact> for FactGrant {
    type Error = GrantError;

    fn try_from(raw: RawFact) -> Result<Self, GrantError> {
        let FullFact { name, reason, optional } = match raw {
            RawFact::Name(name) => FullFact { name, reason: None, optional: false },
            RawFact::Full(full) => full,
        };
        let grant = Self { name, reason, optional };
        // What a plugin can do without may be something that only newer hosts know.
        let may_be_newer = optional && is_name(&grant.name);
        if !grant.is_known() && !may_be_newer {
            let known = FACTS.join("`, `");
            return Err(GrantError::Value(format!(
                "unknown fact `{}`; there are `{known}` and `sysctl:<parameter>`, `*` allowed at its end",
                grant.name.escape_debug()
            )));
        }
        Ok(grant)
    }
}

impl FactGrant {
    /// Whether this host has such a fact. Only an optional grant can name another.
    pub fn is_known(&self) -> bool {
        match self.name.strip_prefix("sysctl:") {
            Some(parameter) => {
                let stem = parameter.strip_suffix('*').unwrap_or(parameter);
                !stem.is_empty() && stem.len() <= 256 && stem.bytes().all(is_sysctl_byte)
            }
            None => FACTS.contains(&self.name.as_str()),
        }
    }
}

/// What names of facts look like.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// Bytes of a kernel parameter's name.
pub(in crate::plugin) fn is_sysctl_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawFile {
    pub(super) path: String,
    #[serde(default)]
    pub(super) access: Access,
    #[serde(default)]
    pub(super) max_bytes: Option<Size>,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) optional: bool,
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
pub(super) struct RawCommand {
    pub(super) program: String,
    #[serde(default)]
    pub(super) args: Vec<RawArg>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) timeout: Option<String>,
    #[serde(default)]
    pub(super) max_output: Option<Size>,
    #[serde(default)]
    pub(super) user: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) optional: bool,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, `one-of: [texts]` or `match: pattern`")]
pub(super) enum RawArg {
    Literal(String),
    Pattern(RawPattern),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum RawPattern {
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

#[cfg(test)]
mod tests {
    use super::super::Grants;

    #[test]
    fn only_an_optional_fact_may_be_one_of_a_newer_host() {
        let fact =
            |name: &str, optional: bool| Grants::parse(&format!("facts: [{{name: '{name}', optional: {optional}}}]"));
        let longest = "x".repeat(64);
        for name in ["new-fact", "x", longest.as_str()] {
            assert!(fact(name, true).is_ok_and(|it| !it.facts[0].is_known()), "{name}");
            assert!(fact(name, false).is_err(), "{name}");
        }
        for bad in ["", "New", "new_fact", "sysctl:", "sysctl:*", "sysctl:a b", "x*", &"x".repeat(65)] {
            assert!(fact(bad, true).is_err(), "{bad}");
        }
        assert!(fact(&format!("sysctl:{}*", "x".repeat(256)), false).is_ok());
        assert!(fact(&format!("sysctl:{}", "x".repeat(257)), false).is_err());
    }

    #[test]
    fn variables_users_and_times_of_a_command_are_bounded() {
        let command = |rest: &str| Grants::parse(&format!("commands: [{{program: /a, {rest}}}]"));
        let (longest, longer) = ("x".repeat(64), "x".repeat(65));
        for good in ["env: [A-b_c.1]", "user: x", "timeout: 50s", "timeout: 1ms", &format!("env: [{longest}]")] {
            assert!(command(good).is_ok(), "{good}");
        }
        for bad in [
            "env: ['']",
            "env: [a=b]",
            "env: [LD_AUDIT]",
            "env: [GCONV_PATH]",
            "user: 'a b'",
            "user: ''",
            "timeout: 0s",
            "timeout: 50001ms",
            &format!("env: [{longer}]"),
        ] {
            assert!(command(bad).is_err(), "{bad}");
        }
    }
}
