//! What a manifest wants, what an operator allows, and requests against both, decided a second time by plainer rules.
//!
//! Two or three parts with [`BORDER`] between them: grants wanted, as YAML or as flags; grants allowed, unless they are the
//! same; requests, one a line.

#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use mortise::facts::FactRequest;
use mortise::plugin::grants::{
    Access, ArgPattern, Ceiling, CommandGrant, Effective, Grant, Grants, HttpUrl, NetHost, Probe, SecretSink, SecretUse,
};
use mortise_fuzz::verify_printed;

const BORDER: &str = "\n---\n";
/// Flags that name no file.
const FLAGS: [&str; 7] = ["facts=", "files=", "commands=", "http=", "probe=", "secrets=", "trust-root"];

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    let parts: Vec<&str> = text.splitn(3, BORDER).collect();
    let Some(wanted) = grants(parts[0]) else { return Corpus::Keep };
    let allowed = if parts.len() == 3 { grants(parts[1]) } else { Some(wanted.clone()) };
    let Some(allowed) = allowed else { return Corpus::Keep };
    verify_printed(&wanted);
    verify_printed(&allowed);
    for grant in wanted.iter() {
        assert!(grant.covers(grant), "{} does not cover itself", grant.line());
    }
    let sides = Sides {
        both: Grants::intersect(wanted.clone(), allowed.clone()),
        listed: Effective::own(wanted.clone())
            .below(Ceiling { list: Some(("policy".into(), allowed.clone())), ..Ceiling::default() }),
        possible: Grants::intersect(wanted.clone(), allowed.clone()).possible(),
        each: [Effective::own(wanted.clone()), Effective::own(allowed.clone())],
        wanted,
        allowed,
    };
    for request in parts.last().filter(|_| parts.len() > 1).into_iter().flat_map(|part| part.lines()) {
        sides.ask(request);
    }
    Corpus::Keep
});

fn grants(text: &str) -> Option<Grants> {
    if !text.starts_with("--grant ") {
        return Grants::parse(text).ok();
    }
    let mut all = Grants::default();
    for line in text.lines() {
        let flag = line.strip_prefix("--grant ")?;
        if !FLAGS.iter().any(|it| flag.starts_with(it)) || !flag.contains('=') && flag != "trust-root" {
            return None;
        }
        all.merge(Grants::parse_flag(flag).ok()?);
    }
    Some(all)
}

struct Sides {
    both: Effective,
    /// The operator allows all; a policy's list does not.
    listed: Effective,
    each: [Effective; 2],
    /// What of the wanted ones could be granted at all.
    possible: Grants,
    wanted: Grants,
    allowed: Grants,
}

impl Sides {
    fn ask(&self, request: &str) {
        let words: Vec<&str> = request.split('\t').collect();
        match words.as_slice() {
            ["read", path] => self.file(path, Access::Read),
            ["stat", path] => self.file(path, Access::Stat),
            ["sysctl", name] => self.sysctl(name),
            ["run", program, arguments @ ..] => self.command(program, arguments),
            ["tcp" | "tls" | "dns", target, port] => self.probe(words[0], target, port),
            ["secret", name, header, url] => self.secret(name, header, url),
            [method, url] => self.http(method, url),
            _ => {}
        }
    }

    /// What both sides together decide follows from what each of them does.
    fn verify<T>(&self, what: &str, decide: impl Fn(&Effective) -> Option<T>) -> bool {
        let granted = decide(&self.both).is_some();
        let each = self.each.iter().all(|side| decide(side).is_some());
        assert_eq!(granted, each, "{what}: both sides together decide otherwise than one by one");
        assert_eq!(granted, decide(&self.listed).is_some(), "{what}: a policy decides otherwise than an operator");
        granted
    }

    fn all(&self, expected: impl Fn(&Grants) -> bool) -> bool {
        [&self.wanted, &self.allowed].into_iter().all(expected)
    }

    fn verify_possible(&self, what: &str, expected: impl Fn(&Grants) -> bool) {
        assert!(expected(&self.possible), "{what} is granted, but said to be impossible");
    }

    fn file(&self, text: &str, access: Access) {
        let path = Path::new(text);
        // The broker passes nothing else on.
        let malformed = text.split('/').skip(1).any(|it| matches!(it, "" | "." | ".."));
        if malformed || !text.starts_with('/') || text.len() > 4096 || text.chars().any(char::is_control) {
            return;
        }
        let granted = self.verify(text, |side| side.file(path, access).ok());
        let named = |grants: &Grants| {
            grants.files.iter().any(|it| it.access >= access && stands_for(&it.path.to_string(), text))
        };
        // A file of such a name is never granted.
        assert_eq!(granted, self.all(named) && !text.contains("**"), "{text}");
        if granted {
            self.verify_possible(text, named);
        }
        for (own, other) in pairs(&self.wanted.files, &self.allowed.files) {
            let (covers, overlaps) = (own.path.covers(&other.path), Grant::File(own).covers(Grant::File(other)));
            assert!(covers || !overlaps);
            assert!(!(covers && other.path.matches(path)) || own.path.matches(path), "{} {}", own.path, other.path);
        }
    }

    fn sysctl(&self, name: &str) {
        let request = FactRequest::Sysctl { name: name.into() };
        let granted = self.verify(name, |side| side.fact(&request).ok());
        let named = |grants: &Grants| {
            let sysctls = grants.facts.iter().filter_map(|it| it.name.strip_prefix("sysctl:"));
            sysctls.into_iter().any(|own| own == name || own.strip_suffix('*').is_some_and(|it| name.starts_with(it)))
        };
        assert_eq!(granted, self.all(named), "{name}");
        if granted {
            self.verify_possible(name, named);
        }
    }

    fn command(&self, program: &str, arguments: &[&str]) {
        let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        let named = |grants: &Grants| grants.commands.iter().any(|it| runs(it, program, &arguments));
        let Ok(request) = self.both.command(program, &arguments) else { return };
        assert!(self.all(named), "{program} {arguments:?}");
        assert!(request.arguments == arguments && request.program == Path::new(program));
        assert!(self.each.iter().all(|side| side.command(program, &arguments).is_ok()));
        assert!(
            self.listed.command(program, &arguments).is_ok()
                || self.allowed.commands.iter().any(|it| it.user.is_some())
        );
        assert!(request.max_output_bytes <= 512 << 10 && request.timeout.as_secs() <= 50);
        let passed = |grants: &Grants, name: &String| grants.commands.iter().any(|it| it.env.contains(name));
        assert!(request.environment.iter().all(|name| self.all(|grants| passed(grants, name))));
        self.verify_possible(program, named);
    }

    fn http(&self, method: &str, text: &str) {
        let Ok(url) = text.parse::<HttpUrl>() else { return };
        let form = url.to_string();
        assert_eq!(form.parse().as_ref(), Ok(&url), "{form} is not stable");
        assert!(!url.path.split('/').any(|it| matches!(decoded(it).as_slice(), b"." | b"..")), "{form}");
        let granted = self.verify(text, |side| side.http(method, &url).ok());
        let bare = form.split('?').next().unwrap();
        let named = |grants: &Grants| {
            grants.http.iter().any(|it| it.methods.iter().any(|own| own == method) && below(&it.url.to_string(), bare))
        };
        assert_eq!(granted, self.all(named), "{method} {form}");
        if granted {
            self.verify_possible(text, named);
            let allowance = self.both.http(method, &url).unwrap();
            assert!(allowance.max_body_bytes <= 1 << 20 && allowance.max_response_bytes <= 2 << 20);
            for (address, scope) in
                [("127.0.0.1", None), ("0.0.0.0", None), ("10.0.0.1", Some(true)), ("169.254.169.254", Some(false))]
            {
                let address = address.parse().unwrap();
                let flagged = |grants: &Grants| {
                    grants.http.iter().any(|it| match scope {
                        Some(true) => it.scope.private,
                        Some(false) => it.scope.link_local,
                        None => false,
                    })
                };
                let literal = matches!(&url.host, NetHost::Address(own) if *own == address);
                let local = matches!(&url.host, NetHost::Name(name) if name.ends_with("localhost"));
                if allowance.allows_address(address).is_ok() {
                    assert!(literal || local || self.all(flagged), "{form} leads to {address}");
                }
            }
        }
    }

    fn probe(&self, kind: &str, target: &str, port: &str) {
        let Ok(host) = target.parse::<NetHost>() else { return };
        assert_eq!(host.to_string().parse().as_ref(), Ok(&host));
        let port = port.parse().unwrap_or(1);
        let probe = match (kind, host) {
            ("tcp", host) => Probe::Tcp { host, port },
            ("tls", host) => Probe::Tls { host, port },
            (_, NetHost::Name(name)) => Probe::Dns { name },
            _ => return,
        };
        let granted = self.verify(target, |side| side.probe(&probe).ok());
        let named = |grants: &Grants| {
            grants.probe.iter().any(|it| {
                it.probe.target() == probe.target()
                    && (it.probe.kind() == probe.kind() || it.probe.kind() == "tls" && probe.kind() == "tcp")
            })
        };
        assert_eq!(granted, self.all(named), "{kind} {target} {port}");
        if granted {
            self.verify_possible(target, named);
        }
    }

    fn secret(&self, name: &str, header: &str, text: &str) {
        let Ok(url) = text.parse::<HttpUrl>() else { return };
        let using = SecretUse::Header { url: &url, header };
        let form = url.to_string();
        let bare = form.split('?').next().unwrap();
        if !self.verify(name, |side| side.secret(name, using).ok()) {
            return;
        }
        let named = |grants: &Grants| {
            grants.secrets.iter().filter(|it| it.name == name).any(|it| match &it.sink {
                Some(SecretSink::Header { url, header: own }) => {
                    own.eq_ignore_ascii_case(header) && below(&url.to_string(), bare)
                }
                _ => false,
            })
        };
        assert!(self.all(named), "{name} {header} {form}");
        self.verify_possible(name, named);
        let local = matches!(&url.host, NetHost::Name(name) if name.ends_with("localhost"));
        assert!(form.starts_with("https://") || local || form.starts_with("http://127.0.0.1"), "{form} in clear text");
    }
}

fn pairs<'a, T>(own: &'a [T], other: &'a [T]) -> impl Iterator<Item = (&'a T, &'a T)> {
    own.iter().take(8).flat_map(|own| other.iter().take(8).map(move |other| (own, other)))
}

/// Whether a pattern stands for a path: each segment is tried on its own, character by character.
fn stands_for(pattern: &str, path: &str) -> bool {
    let (own, other): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    own.len() == other.len()
        && own.iter().zip(&other).all(|(own, other)| {
            (own.starts_with('.') || !other.starts_with('.')) && glob(own.as_bytes(), other.as_bytes())
        })
}

/// The table of all beginnings of a pattern against all beginnings of a text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    for own in pattern {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match own {
                b'*' => fits[at] || at > 0 && next[at - 1],
                own => at > 0 && fits[at - 1] && text[at - 1] == *own,
            };
        }
        fits = next;
    }
    fits[text.len()]
}

fn below(prefix: &str, url: &str) -> bool {
    url == prefix || url.strip_prefix(prefix).is_some_and(|rest| prefix.ends_with('/') || rest.starts_with('/'))
}

fn runs(grant: &CommandGrant, program: &str, arguments: &[String]) -> bool {
    grant.program == Path::new(program)
        && grant.args.len() == arguments.len()
        && grant.args.iter().zip(arguments).all(|(own, argument)| match own {
            ArgPattern::Literal(text) => text == argument,
            ArgPattern::OneOf(choices) => choices.contains(argument),
            // The first match need not be the longest, so the end is asked for.
            ArgPattern::Match(pattern) => {
                let whole = pattern.find(argument).is_some_and(|it| it.start() == 0 && it.end() == argument.len());
                whole && !argument.starts_with('-') && !argument.contains(['\0', '\n', '\r'])
            }
        })
}

fn decoded(segment: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| byte.and_then(|it| char::from(it).to_digit(16));
        bytes.push(if byte == b'%' {
            u8::try_from(hex(rest.next()).unwrap() * 16 + hex(rest.next()).unwrap()).unwrap()
        } else {
            byte
        });
    }
    bytes
}
