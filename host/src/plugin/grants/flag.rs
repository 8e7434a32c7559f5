//! Grants on a command line, and grants as text.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Access, ArgPattern, CommandGrant, FactGrant, FileGrant, GrantError, Grants};

impl Grants {
    /// Reads one `--grant`:
    ///
    /// - `facts=kernel,swap`
    /// - `files=/proc/driver/nvidia/version:read`, `files=/etc/os-release:read:4Ki`, `files=/etc/cni/net.d/*:stat`
    /// - `commands=/usr/bin/nvidia-smi -q {one-of:-i|-x} {match:[0-9]{1,2}}`, words separated by blanks
    /// - a path to a file of grants in YAML
    ///
    /// # Errors
    ///
    /// [`GrantError`] naming what is wrong.
    pub fn parse_flag(text: &str) -> Result<Self, GrantError> {
        let mut grants = Self::default();
        match text.split_once('=') {
            Some(("facts", names)) => {
                for name in names.split(',').map(str::trim) {
                    grants.facts.push(FactGrant::try_from(super::RawFact::Name(name.to_owned()))?);
                }
            }
            Some(("files", value)) => grants.files.push(parse_file(value)?),
            Some(("commands", value)) => grants.commands.push(parse_command(value)?),
            _ => {
                let path = PathBuf::from(text);
                if !path.exists() {
                    return Err(GrantError::Flag(text.escape_debug().to_string()));
                }
                let content = std::fs::read_to_string(&path).map_err(|source| GrantError::File { path, source })?;
                return Self::parse(&content);
            }
        }
        Ok(grants)
    }

    /// One line a grant, in the syntax of a manifest; each can be pasted below `grants:`.
    pub fn lines(&self) -> Vec<String> {
        let facts = self.facts.iter().map(FactGrant::line);
        facts
            .chain(self.files.iter().map(FileGrant::line))
            .chain(self.commands.iter().map(CommandGrant::line))
            .collect()
    }
}

fn parse_file(value: &str) -> Result<FileGrant, GrantError> {
    let mut parts = value.split(':');
    let path = parts.next().unwrap_or_default().to_owned();
    let access = match parts.next() {
        None | Some("read") => Access::Read,
        Some("stat") => Access::Stat,
        Some(other) => {
            return Err(GrantError::Value(format!("`{}` is neither `stat` nor `read`", other.escape_debug())));
        }
    };
    let max_bytes = parts.next().map(|size| super::Size::Text(size.to_owned()));
    if parts.next().is_some() {
        return Err(GrantError::Value(format!("`{}` is not `path:access:max-bytes`", value.escape_debug())));
    }
    FileGrant::try_from(super::RawFile { path, access, max_bytes, reason: None, optional: false })
}

fn parse_command(value: &str) -> Result<CommandGrant, GrantError> {
    let mut words = value.split_ascii_whitespace();
    let program = words.next().unwrap_or_default().to_owned();
    let args = words.map(|word| {
        let inner = word.strip_prefix('{').and_then(|word| word.strip_suffix('}'));
        match inner.and_then(|inner| inner.split_once(':')) {
            Some(("one-of", choices)) => {
                super::RawArg::Pattern(super::RawPattern::OneOf(choices.split('|').map(Into::into).collect()))
            }
            Some(("match", pattern)) => super::RawArg::Pattern(super::RawPattern::Match(pattern.into())),
            _ => super::RawArg::Literal(word.into()),
        }
    });
    let args = args.collect();
    let raw = super::RawCommand {
        program,
        args,
        env: Vec::new(),
        timeout: None,
        max_output: None,
        user: None,
        reason: None,
        optional: false,
    };
    CommandGrant::try_from(raw)
}

impl FactGrant {
    /// In the syntax of a manifest.
    pub fn line(&self) -> String {
        format!("facts: [{}]", scalar(&self.name))
    }

    /// As `--grant` takes it.
    pub fn flag(&self) -> String {
        format!("--grant {}", shell(&format!("facts={}", self.name)))
    }
}

impl FileGrant {
    /// In the syntax of a manifest.
    pub fn line(&self) -> String {
        let mut line = format!("files: [{{path: {}, access: {}", scalar(&self.path.to_string()), self.access.as_str());
        if let Some(bytes) = self.max_bytes {
            let _ = write!(line, ", max-bytes: {bytes}");
        }
        line + "}]"
    }

    /// As `--grant` takes it.
    pub fn flag(&self) -> String {
        let size = self.max_bytes.map(|bytes| format!(":{bytes}")).unwrap_or_default();
        format!("--grant {}", shell(&format!("files={}:{}{size}", self.path, self.access.as_str())))
    }
}

impl Access {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Read => "read",
        }
    }
}

impl CommandGrant {
    /// In the syntax of a manifest.
    pub fn line(&self) -> String {
        let list = |texts: &[String]| texts.iter().map(|text| scalar(text)).collect::<Vec<_>>().join(", ");
        let args = self.args.iter().map(|arg| match arg {
            ArgPattern::Literal(text) => scalar(text),
            ArgPattern::OneOf(choices) => format!("{{one-of: [{}]}}", list(choices)),
            ArgPattern::Match(pattern) => format!("{{match: {}}}", scalar(ArgPattern::source(pattern))),
        });
        let args = args.collect::<Vec<_>>().join(", ");
        let mut line = format!("commands: [{{program: {}, args: [{args}]", scalar(&self.program.to_string_lossy()));
        if !self.env.is_empty() {
            let _ = write!(line, ", env: [{}]", list(&self.env));
        }
        if let Some(timeout) = self.timeout {
            let _ = write!(line, ", timeout: {}ms", timeout.as_millis());
        }
        if let Some(bytes) = self.max_output {
            let _ = write!(line, ", max-output: {bytes}");
        }
        if let Some(user) = &self.user {
            let _ = write!(line, ", user: {}", scalar(user));
        }
        line + "}]"
    }

    /// As `--grant` takes it, or none where only a file of grants can say it.
    pub fn flag(&self) -> Option<String> {
        if !self.env.is_empty() || self.user.is_some() {
            return None;
        }
        let words = self.args.iter().map(|arg| match arg {
            ArgPattern::Literal(text) => text.clone(),
            ArgPattern::OneOf(choices) => format!("{{one-of:{}}}", choices.join("|")),
            ArgPattern::Match(pattern) => format!("{{match:{}}}", ArgPattern::source(pattern)),
        });
        let words: Vec<String> = std::iter::once(self.program.to_string_lossy().into_owned()).chain(words).collect();
        let said = words.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace));
        said.then(|| format!("--grant {}", shell(&format!("commands={}", words.join(" ")))))
    }
}

/// A YAML scalar within a flow collection; quoted, as JSON, unless it is plain beyond doubt.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:=+-*".contains(&byte);
    let first = text.as_bytes().first().copied().unwrap_or_default();
    let typed = text.parse::<f64>().is_ok() || ["true", "false", "null", "yes", "no", "on", "off"].contains(&text);
    if !typed && text.bytes().all(plain) && (first.is_ascii_alphabetic() || first == b'/') && !text.ends_with(':') {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// One word of a shell.
fn shell(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./:=+-,".contains(&byte)) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_as_a_line_is_read_back_equal() {
        let mut grants = Grants::default();
        for flag in [
            "facts=kernel,sysctl:net.ipv4.*",
            "files=/proc/driver/nvidia/version:read:4Ki",
            "files=/etc/cni/net.d/*:stat",
            "commands=/usr/bin/nvidia-smi -q {one-of:-i|yes} {match:[0-9]{1,2}} 12",
        ] {
            grants.merge(Grants::parse_flag(flag).unwrap());
        }
        assert_eq!(grants.lines().len(), 5);
        let mut again = Grants::default();
        for line in grants.lines() {
            again.merge(Grants::parse(&line).unwrap());
        }
        assert_eq!(again, grants);
        let flag = grants.commands[0].flag().unwrap();
        assert_eq!(flag, "--grant 'commands=/usr/bin/nvidia-smi -q {one-of:-i|yes} {match:[0-9]{1,2}} 12'");
    }

    #[test]
    fn refuses_flags_it_cannot_read() {
        for bad in [
            "fact=kernel",
            "facts=",
            "facts=kernel,,swap",
            "files=/a:rw",
            "files=/a:read:x",
            "files=a",
            "commands=",
            "files=/a:read:1:2",
            "/nowhere/at/all.yaml",
        ] {
            assert!(Grants::parse_flag(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
