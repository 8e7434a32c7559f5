//! Grants on a command line.

use std::path::PathBuf;

use super::machine::{RawArg, RawCommand, RawFact, RawFile, RawPattern};
use super::network::{RawHttp, RawProbe};
use super::secret::RawSecret;
use super::{
    Access, CommandGrant, FactGrant, FileGrant, GrantError, Grants, HttpGrant, ProbeGrant, SecretGrant, Size,
    TrustRootGrant,
};

impl Grants {
    /// Reads one `--grant`:
    ///
    /// - `facts=kernel,swap`
    /// - `files=/proc/driver/nvidia/version:read`, `files=/etc/os-release:read:4Ki`, `files=/etc/cni/net.d/*:stat`
    /// - `commands=/usr/bin/nvidia-smi -q {one-of:-i|-x} {match:[0-9]{1,2}}`, words separated by blanks
    /// - `http=https://inventory.example/v1/ GET,POST max-body=64Ki max-response=256Ki private link-local proxy`, all but
    ///   the URL may be left out
    /// - `probe=tcp:10.0.0.5:2049`, `probe=tls:registry.example:443 private`, `probe=dns:registry.example`
    /// - `secrets=token header=authorization https://inventory.example/v1/`,
    ///   `secrets=licence argv /usr/bin/activate --key {secret}`, `secrets=seed reveal`
    /// - `trust-root`
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
                    grants.facts.push(FactGrant::try_from(RawFact::Name(name.to_owned()))?);
                }
            }
            Some(("files", value)) => grants.files.push(parse_file(value)?),
            Some(("commands", value)) => grants.commands.push(parse_command(value)?),
            Some(("http", value)) => grants.http.push(parse_http(value)?),
            Some(("probe", value)) => grants.probe.push(parse_probe(value)?),
            Some(("secrets", value)) => grants.secrets.push(parse_secret(value)?),
            None if text == "trust-root" => grants.trust_root = Some(TrustRootGrant::default()),
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
    let max_bytes = parts.next().map(|size| Size::Text(size.to_owned()));
    if parts.next().is_some() {
        return Err(GrantError::Value(format!("`{}` is not `path:access:max-bytes`", value.escape_debug())));
    }
    FileGrant::try_from(RawFile { path, access, max_bytes, reason: None, optional: false })
}

fn parse_command(value: &str) -> Result<CommandGrant, GrantError> {
    let mut words = value.split_ascii_whitespace();
    let program = words.next().unwrap_or_default().to_owned();
    let args = words.map(|word| {
        let inner = word.strip_prefix('{').and_then(|word| word.strip_suffix('}'));
        match inner.and_then(|inner| inner.split_once(':')) {
            Some(("one-of", choices)) => {
                RawArg::Pattern(RawPattern::OneOf(choices.split('|').map(Into::into).collect()))
            }
            Some(("match", pattern)) => RawArg::Pattern(RawPattern::Match(pattern.into())),
            _ => RawArg::Literal(word.into()),
        }
    });
    let args = args.collect();
    let raw = RawCommand {
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

fn parse_http(value: &str) -> Result<HttpGrant, GrantError> {
    let mut raw = RawHttp::default();
    for word in value.split_ascii_whitespace() {
        match word.split_once('=') {
            Some(("max-body", size)) => raw.max_body = Some(Size::Text(size.to_owned())),
            Some(("max-response", size)) => raw.max_response = Some(Size::Text(size.to_owned())),
            _ if word == "private" => raw.private = true,
            _ if word == "link-local" => raw.link_local = true,
            _ if word == "proxy" => raw.proxy = true,
            _ if word.contains("://") && raw.url.is_empty() => raw.url = word.to_owned(),
            _ => raw.methods.extend(word.split(',').map(str::to_owned)),
        }
    }
    HttpGrant::try_from(raw)
}

fn parse_probe(value: &str) -> Result<ProbeGrant, GrantError> {
    let mut raw = RawProbe::default();
    for word in value.split_ascii_whitespace() {
        match word.split_once(':') {
            Some(("tcp", target)) if raw.tcp.is_none() => raw.tcp = Some(target.to_owned()),
            Some(("tls", target)) if raw.tls.is_none() => raw.tls = Some(target.to_owned()),
            Some(("dns", target)) if raw.dns.is_none() => raw.dns = Some(target.to_owned()),
            None if word == "private" => raw.private = true,
            None if word == "link-local" => raw.link_local = true,
            _ => {
                let word = word.escape_debug();
                return Err(GrantError::Value(format!(
                    "`{word}` is none of `tcp:HOST:PORT`, `tls:HOST:PORT`, `dns:NAME`, `private` and `link-local`"
                )));
            }
        }
    }
    ProbeGrant::try_from(raw)
}

fn parse_secret(value: &str) -> Result<SecretGrant, GrantError> {
    let mut words = value.split_ascii_whitespace();
    let mut raw = RawSecret { name: words.next().unwrap_or_default().to_owned(), ..RawSecret::default() };
    let rest: Vec<&str> = words.collect();
    match rest.as_slice() {
        ["reveal"] => raw.reveal = true,
        ["argv", words @ ..] => raw.argv = Some(words.iter().map(|word| (*word).to_owned()).collect()),
        [header, url] if header.starts_with("header=") => {
            raw.header = header.strip_prefix("header=").map(str::to_owned);
            raw.url = Some((*url).to_owned());
        }
        _ => {
            return Err(GrantError::Value(format!(
                "`{}` is none of `NAME header=HEADER URL`, `NAME argv PROGRAM ARGUMENTS` and `NAME reveal`",
                value.escape_debug()
            )));
        }
    }
    SecretGrant::try_from(raw)
}

#[cfg(test)]
mod tests {
    use super::super::{ArgPattern, Grant};
    use super::*;

    #[test]
    fn what_is_written_as_a_line_is_read_back_equal() {
        let mut grants = Grants::default();
        for flag in [
            "facts=kernel,sysctl:net.ipv4.*",
            "files=/proc/driver/nvidia/version:read:4Ki",
            "files=/etc/cni/net.d/*:stat",
            "commands=/usr/bin/nvidia-smi -q {one-of:-i|yes} {match:[0-9]{1,2}} 12",
            "http=https://inventory.example/v1/",
            "http=http://[fd00::1]:8080/a POST,GET max-body=1Ki max-response=1Mi private link-local proxy",
            "probe=tcp:10.0.0.5:2049",
            "probe=tls:[2001:db8::1]:443 private",
            "probe=dns:Registry.Example",
            "secrets=token header=Authorization https://inventory.example/v1/",
            "secrets=licence argv /usr/bin/activate --key {secret}",
            "secrets=seed reveal",
            "trust-root",
        ] {
            grants.merge(Grants::parse_flag(flag).unwrap());
        }
        assert_eq!(grants.lines().len(), 14);
        let mut again = Grants::default();
        for line in grants.lines() {
            again.merge(Grants::parse(&line).unwrap());
        }
        assert_eq!(again, grants);
        let mut again = Grants::default();
        for flag in grants.iter().filter_map(Grant::flag) {
            let words = flag.strip_prefix("--grant ").unwrap().trim_matches('\'').to_owned();
            again.merge(Grants::parse_flag(&words).unwrap());
        }
        assert_eq!(again, grants);
        let flag = Grant::Command(&grants.commands[0]).flag().unwrap();
        assert_eq!(flag, "--grant 'commands=/usr/bin/nvidia-smi -q {one-of:-i|yes} {match:[0-9]{1,2}} 12'");
    }

    #[test]
    fn a_line_has_no_character_that_a_terminal_obeys() {
        let text = "commands: [{program: /bin/echo, args: [\"\\u001b[2J\\u009b\\u007f\\u202e\\u2028ü\"]}]";
        let grants = Grants::parse(text).unwrap();
        let lines = grants.lines();
        assert_eq!(lines, [text]);
        assert_eq!(Grants::parse(&lines[0]).unwrap(), grants);
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
            "http=",
            "http=GET",
            "http=https://a/ https://b/",
            "http=https://a/ get",
            "http=https://a/ max-body=2Mi",
            "http=https://a/ max-response=3Mi",
            "http=https://a/ loopback",
            "probe=",
            "probe=udp:a:1",
            "probe=tcp:a",
            "probe=tcp:a:0",
            "probe=tcp:::1:80",
            "probe=tcp:a:1 tls:a:1",
            "probe=tcp:a:1 tcp:b:1",
            "probe=tls:a:1 tls:b:1",
            "probe=dns:a dns:b",
            "probe=tcp:a:1 loopback",
            "probe=dns:10.0.0.1",
            "probe=dns:a private",
            "secrets=a",
            "secrets=a header=authorization",
            "secrets=a header=authorization http://a/",
            "secrets=a header=host https://a/",
            "secrets=a header=a:b https://a/",
            "secrets=a argv /bin/x",
            "secrets=a argv /bin/x {secret} {secret}",
            "secrets=a argv x {secret}",
            "secrets=../a reveal",
            "trust-root=yes",
        ] {
            assert!(Grants::parse_flag(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn each_word_of_a_flag_has_its_meaning() {
        let command = Grants::parse_flag("commands=/a {one-of:-i|yes} {match:[0-9]} {other:x} plain").unwrap();
        let [ArgPattern::OneOf(choices), ArgPattern::Match(_), ArgPattern::Literal(odd), ArgPattern::Literal(plain)] =
            command.commands[0].args.as_slice()
        else {
            panic!("{command:?}")
        };
        assert_eq!(
            (choices.as_slice(), odd.as_str(), plain.as_str()),
            (&["-i".into(), "yes".into()][..], "{other:x}", "plain")
        );
        let scope = |flag: &str| {
            let grants = Grants::parse_flag(flag).unwrap();
            let scopes = grants.probe.iter().map(|it| it.scope).chain(grants.http.iter().map(|it| it.scope));
            scopes.map(|it| (it.private, it.link_local)).collect::<Vec<_>>()
        };
        assert_eq!(scope("probe=tcp:a:1"), [(false, false)]);
        assert_eq!(scope("probe=tcp:a:1 private"), [(true, false)]);
        assert_eq!(scope("probe=tcp:a:1 link-local"), [(false, true)]);
        assert_eq!(scope("http=https://a/ link-local"), [(false, true)]);
        let error = Grants::parse_flag("secrets=a x https://a/").unwrap_err().to_string();
        assert!(error.contains("is none of `NAME header="), "{error}");
    }

    #[test]
    fn a_file_of_grants_is_read_and_one_that_is_not_there_is_not() {
        let path = std::env::temp_dir().join(format!("mortise-grants-{}.yaml", std::process::id()));
        std::fs::write(&path, "facts: [swap]").unwrap();
        let read = Grants::parse_flag(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap().lines(), ["facts: [swap]"]);
        assert!(matches!(Grants::parse_flag(path.to_str().unwrap()), Err(GrantError::Flag(_))));
    }
}
