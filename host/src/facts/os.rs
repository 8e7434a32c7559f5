//! os-release(5) and the host name.

use std::io::Read;

use super::{HostError, OsInfo};

/// It is a few lines.
const MAX_OS_RELEASE_BYTES: u64 = 64 * 1024;

/// A machine without os-release has empty texts.
pub(super) fn os() -> Result<OsInfo, HostError> {
    let places = ["/etc/os-release", "/usr/lib/os-release"];
    let mut text = String::new();
    if let Some(file) = places.iter().find_map(|place| std::fs::File::open(place).ok()) {
        file.take(MAX_OS_RELEASE_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| HostError::unavailable(format_args!("cannot read os-release: {error}")))?;
    }
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(parse(&text, hostname))
}

fn parse(text: &str, hostname: String) -> OsInfo {
    let value = |wanted: &str| {
        let assignments = text.lines().filter_map(|line| line.trim().split_once('='));
        assignments.rev().find(|(name, _)| *name == wanted).map(|(_, value)| unquote(value)).unwrap_or_default()
    };
    OsInfo { id: value("ID"), version_id: value("VERSION_ID"), pretty_name: value("PRETTY_NAME"), hostname }
}

/// Shell quotes; within double ones a backslash keeps what follows.
fn unquote(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unquoted_and_absent_ones_empty() {
        let text =
            "# comment\nID=debian\nPRETTY_NAME=\"A \\\"B\\\" \\$C\"\nVERSION_ID='12'\nVERSION_ID='13'\nID_LIKE=x\n";
        let os = parse(text, "n1".into());
        assert_eq!((os.id.as_str(), os.version_id.as_str(), os.pretty_name.as_str()), ("debian", "13", "A \"B\" $C"));
        assert_eq!(
            parse("", "n1".into()),
            OsInfo { id: String::new(), version_id: String::new(), pretty_name: String::new(), hostname: "n1".into() }
        );
    }

    #[test]
    fn this_machine_has_a_host_name() {
        assert!(!os().unwrap().hostname.is_empty());
    }
}
