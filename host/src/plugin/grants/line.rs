//! Grants as text: one line each in the syntax of a manifest, and the flag that says the same.

use std::fmt::Write as _;

use super::{
    Access, AddressScope, ArgPattern, CommandGrant, FactGrant, FileGrant, HttpGrant, ProbeGrant, SecretGrant,
    SecretSink,
};
use crate::output::misleads;

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

impl HttpGrant {
    /// In the syntax of a manifest.
    pub fn line(&self) -> String {
        let mut line =
            format!("http: [{{url: {}, methods: [{}]", scalar(&self.url.to_string()), self.methods.join(", "));
        if let Some(bytes) = self.max_body {
            let _ = write!(line, ", max-body: {bytes}");
        }
        if let Some(bytes) = self.max_response {
            let _ = write!(line, ", max-response: {bytes}");
        }
        line + &scope_words(self.scope, ", ", ": true") + "}]"
    }

    /// As `--grant` takes it.
    pub fn flag(&self) -> String {
        let mut words = format!("http={}", self.url);
        if self.methods != ["GET"] {
            let _ = write!(words, " {}", self.methods.join(","));
        }
        if let Some(bytes) = self.max_body {
            let _ = write!(words, " max-body={bytes}");
        }
        if let Some(bytes) = self.max_response {
            let _ = write!(words, " max-response={bytes}");
        }
        format!("--grant {}", shell(&(words + &scope_words(self.scope, " ", ""))))
    }
}

impl ProbeGrant {
    /// In the syntax of a manifest.
    pub fn line(&self) -> String {
        let scope = scope_words(self.scope, ", ", ": true");
        format!("probe: [{{{}: {}{scope}}}]", self.probe.kind(), scalar(&self.probe.target()))
    }

    /// As `--grant` takes it.
    pub fn flag(&self) -> String {
        let scope = scope_words(self.scope, " ", "");
        format!("--grant {}", shell(&format!("probe={}:{}{scope}", self.probe.kind(), self.probe.target())))
    }
}

/// Each flag with what stands before and after it.
fn scope_words(scope: AddressScope, before: &str, after: &str) -> String {
    let words = [(scope.link_local, "link-local"), (scope.private, "private"), (scope.proxy, "proxy")];
    words.iter().filter(|(on, _)| *on).map(|(_, word)| format!("{before}{word}{after}")).collect()
}

impl SecretGrant {
    /// In the syntax of a manifest.
    pub fn line(&self) -> String {
        let mut line = format!("secrets: [{{name: {}", scalar(&self.name));
        match &self.sink {
            Some(SecretSink::Header { url, header }) => {
                let _ = write!(line, ", url: {}, header: {}", scalar(&url.to_string()), scalar(header));
            }
            Some(SecretSink::Argv { program, arguments }) => {
                let program = scalar(&program.to_string_lossy());
                let words = std::iter::once(program).chain(arguments.iter().map(|it| scalar(it)));
                let _ = write!(line, ", argv: [{}]", words.collect::<Vec<_>>().join(", "));
            }
            None => {}
        }
        if self.reveal {
            line += ", reveal: true";
        }
        line + "}]"
    }

    /// As `--grant` takes it, or none where only a file of grants can say it.
    pub fn flag(&self) -> Option<String> {
        let Self { name, sink, reveal, .. } = self;
        let words = match (sink, reveal) {
            (Some(SecretSink::Header { url, header }), false) => format!("{name} header={header} {url}"),
            (Some(SecretSink::Argv { program, arguments }), false) => {
                let blank = |word: &String| word.is_empty() || word.contains(char::is_whitespace);
                if arguments.iter().any(blank) || program.to_string_lossy().contains(char::is_whitespace) {
                    return None;
                }
                format!("{name} argv {} {}", program.display(), arguments.join(" "))
            }
            (None, true) => format!("{name} reveal"),
            _ => return None,
        };
        Some(format!("--grant {}", shell(&format!("secrets={words}"))))
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
        // JSON leaves the end of ASCII, C1 and what turns the direction of a text as they are.
        let escaped = |c: char| if misleads(c) { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
        serde_json::Value::from(text).to_string().chars().map(escaped).collect()
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
