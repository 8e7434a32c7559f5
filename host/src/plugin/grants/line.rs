//! Grants as text: one line each in the syntax of a manifest, and the flag that says the same.

use std::fmt::Write as _;

use super::{
    Access, AddressScope, ArgPattern, CommandGrant, FactGrant, FileGrant, Grant, Grants, HttpGrant, ProbeGrant,
    SecretGrant, SecretSink,
};
use crate::output::misleads;

impl FactGrant {
    /// In the syntax of a manifest.
    pub fn line(&self) -> String {
        // Only an optional grant can name a fact of newer hosts; the line has to be one that can be read.
        if self.is_known() {
            format!("facts: [{}]", scalar(&self.name))
        } else {
            format!("facts: [{{name: {}, optional: true}}]", scalar(&self.name))
        }
    }

    fn flag(&self) -> String {
        format!("facts={}", self.name)
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

    fn flag(&self) -> String {
        let size = self.max_bytes.map(|bytes| format!(":{bytes}")).unwrap_or_default();
        format!("files={}:{}{size}", self.path, self.access.as_str())
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

    fn flag(&self) -> String {
        let words = self.args.iter().map(|arg| match arg {
            ArgPattern::Literal(text) => text.clone(),
            ArgPattern::OneOf(choices) => format!("{{one-of:{}}}", choices.join("|")),
            ArgPattern::Match(pattern) => format!("{{match:{}}}", ArgPattern::source(pattern)),
        });
        let words: Vec<String> = std::iter::once(self.program.to_string_lossy().into_owned()).chain(words).collect();
        format!("commands={}", words.join(" "))
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

    fn flag(&self) -> String {
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
        words + &scope_words(self.scope, " ", "")
    }
}

impl ProbeGrant {
    /// In the syntax of a manifest.
    pub fn line(&self) -> String {
        let scope = scope_words(self.scope, ", ", ": true");
        format!("probe: [{{{}: {}{scope}}}]", self.probe.kind(), scalar(&self.probe.target()))
    }

    fn flag(&self) -> String {
        let scope = scope_words(self.scope, " ", "");
        format!("probe={}:{}{scope}", self.probe.kind(), self.probe.target())
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

    fn flag(&self) -> String {
        let use_words = match &self.sink {
            Some(SecretSink::Header { url, header }) => format!("header={header} {url}"),
            Some(SecretSink::Argv { program, arguments }) => {
                format!("argv {} {}", program.display(), arguments.join(" "))
            }
            None => "reveal".into(),
        };
        format!("secrets={} {use_words}", self.name)
    }
}

impl Grant<'_> {
    /// As `--grant` takes it, or none where only a file of grants can say it: what a flag is read as has to be this grant,
    /// sizes and times aside.
    pub fn flag(self) -> Option<String> {
        let text = match self {
            Self::Fact(it) => it.flag(),
            Self::File(it) => it.flag(),
            Self::Command(it) => it.flag(),
            Self::Http(it) => it.flag(),
            Self::Probe(it) => it.flag(),
            Self::Secret(it) => it.flag(),
            Self::TrustRoot(_) => "trust-root".into(),
        };
        let read = Grants::parse_flag(&text).ok()?;
        let said = read.iter().count() == 1 && read.cover(self) && read.iter().all(|it| self.covers(it));
        said.then(|| format!("--grant {}", shell(&text)))
    }
}

/// Words that YAML, in one of its versions, takes for something else than text, whatever their case.
const TYPED: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// A YAML scalar within a flow collection; quoted, as JSON, unless it is plain beyond doubt.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:=+-*".contains(&byte);
    let first = text.as_bytes().first().copied().unwrap_or_default();
    let typed = text.parse::<f64>().is_ok() || TYPED.iter().any(|it| text.eq_ignore_ascii_case(it));
    if !typed && text.bytes().all(plain) && (first.is_ascii_alphabetic() || first == b'/') && !text.ends_with(':') {
        return text.to_owned();
    }
    // JSON leaves some characters as they are that YAML folds, drops or refuses, or that turn the direction of a text.
    let foreign = |c: char| {
        c.is_control() || misleads(c) || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    let quoted = serde_json::Value::from(text).to_string();
    quoted.chars().fold(String::new(), |mut all, c| {
        let _ = if foreign(c) { write!(all, "\\u{:04x}", u32::from(c)) } else { all.write_char(c) };
        all
    })
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

    fn grants(yaml: &str) -> Grants {
        Grants::parse(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
    }

    #[test]
    fn a_line_is_read_back_whatever_its_texts_are() {
        let texts = [
            "",
            "-q",
            "True",
            "NULL",
            "yes",
            "N",
            "infinity",
            "0x1f",
            "12",
            "~",
            "a: b",
            "a:",
            "# c",
            "a,b",
            "*",
            "'",
            "\"",
            "\\",
            "\t",
            "\u{7f}",
            "\u{85}",
            "\u{a0}",
            "\u{2028}",
            "\u{2029}",
            "\u{feff}x",
            "\u{fffe}",
            "\u{ffff}",
            "é",
            "🦀",
            "{match:.*}",
            "[a",
            "a]",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "?",
            "=",
            "<<",
        ];
        for text in texts {
            let args = vec![
                ArgPattern::literal(text.into()).unwrap(),
                ArgPattern::one_of(vec![text.into(), "x".into()]).unwrap(),
            ];
            let command = CommandGrant { args, ..grants("commands: [{program: /a}]").commands.remove(0) };
            let line = command.line();
            assert_eq!(grants(&line).commands, [command], "{line}");
        }
    }

    #[test]
    fn a_flag_is_offered_only_where_it_says_the_same() {
        for yaml in [
            "facts: [{name: newer-fact, optional: true}]",
            "files: [{path: '/a:b'}]",
            "commands: [{program: /a, args: ['{match:.*}']}]",
            "commands: [{program: /a, args: ['{one-of:a|b}']}]",
            "commands: [{program: /a, args: [{one-of: ['a|b']}]}]",
            "commands: [{program: /a, args: [{one-of: ['a b']}]}]",
            "commands: [{program: /a, args: [{match: 'a b'}]}]",
            "commands: [{program: /a, args: ['']}]",
            "commands: [{program: /a b}]",
            "commands: [{program: /a, env: [LANG]}]",
            "commands: [{program: /a, user: daemon}]",
            "secrets: [{name: a, argv: [/a, '{secret}', 'b c']}]",
            "secrets: [{name: a, argv: [/a, '{secret}', '']}]",
            "secrets: [{name: a, argv: ['/a b', '{secret}']}]",
            "secrets: [{name: a, argv: [/a, '{secret}'], reveal: true}]",
            "secrets: [{name: a, url: https://a/, header: b, reveal: true}]",
        ] {
            let flags: Vec<_> = grants(yaml).iter().filter_map(Grant::flag).collect();
            assert_eq!(flags, [""; 0], "{yaml}");
        }
        for (yaml, flag) in [
            ("files: [{path: '/a b'}]", "--grant 'files=/a b:read'"),
            ("commands: [{program: /a, args: [it's], timeout: 5s}]", r"--grant 'commands=/a it'\''s'"),
            ("commands: [{program: /a, user: nobody}]", "--grant commands=/a"),
            (
                "http: [{url: https://a/, methods: [GET, PUT], private: true}]",
                "--grant 'http=https://a/ GET,PUT private'",
            ),
        ] {
            let flags: Vec<_> = grants(yaml).iter().filter_map(Grant::flag).collect();
            assert_eq!(flags, [flag], "{yaml}");
        }
    }

    #[test]
    fn a_line_says_all_of_a_grant_and_quotes_only_what_needs_it() {
        for line in [
            "facts: [kernel]",
            "facts: [{name: newer-fact, optional: true}]",
            "files: [{path: /etc/cni/net.d/*, access: stat, max-bytes: 4096}]",
            "files: [{path: \"/a b\", access: read}]",
            "commands: [{program: /bin/x, args: [\"-q\", {one-of: [a, \"1\"]}, {match: \"[a-z]\"}], env: [LANG, HOME], timeout: 500ms, \
             max-output: 1024, user: daemon}]",
            "commands: [{program: /bin/x, args: []}]",
            "http: [{url: https://a/v1, methods: [GET, PUT], max-body: 1, max-response: 2, link-local: true, private: true}]",
            "probe: [{tcp: a:1, private: true}]",
            "secrets: [{name: a, url: https://a/, header: b, reveal: true}]",
            "secrets: [{name: a, argv: [/bin/x, \"{secret}\"]}]",
            "trust-root: true",
        ] {
            assert_eq!(grants(line).lines(), [line]);
        }
    }
}
