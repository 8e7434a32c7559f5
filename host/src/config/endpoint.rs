//! `host:port` of an API server, as a user writes it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Endpoint;
use super::error::{Fault, shown};

/// Parses one or several endpoints, separated by commas or spaces, in order of preference. At least one.
///
/// # Errors
///
/// [`Fault::Endpoint`] of the first one that is none.
pub(super) fn parse_list(text: &str) -> Result<Vec<Endpoint>, Fault> {
    let parts = text.split([',', ' ', '\t', '\n', '\r']).filter(|part| !part.is_empty());
    let endpoints: Vec<Endpoint> = parts.map(parse).collect::<Result<_, _>>()?;
    if endpoints.is_empty() {
        return Err(Fault::Endpoint { value: shown(text), reason: "it is empty" });
    }
    Ok(endpoints)
}

/// Parses `host:port`; an IPv6 address stands in brackets, the port is a number from 1 to 65535.
///
/// # Errors
///
/// [`Fault::Endpoint`].
pub(super) fn parse(text: &str) -> Result<Endpoint, Fault> {
    let fail = |reason| Fault::Endpoint { value: recognizable(text), reason };
    if text.contains("://") {
        return Err(fail("leave out the `https://`"));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| fail("the bracket is not closed"))?;
        let address = host.split_once('%').map_or(host, |(address, _zone)| address);
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(fail("between the brackets is no IPv6 address"));
        }
        (host, rest.strip_prefix(':').ok_or_else(|| fail("the port is missing"))?)
    } else {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| fail("the port is missing"))?;
        if host.contains(':') {
            return Err(fail("too many colons; an IPv6 address stands in brackets"));
        }
        if !is_host(host) {
            return Err(fail("the host is neither a DNS name nor an IP address"));
        }
        (host, port)
    };
    let plain = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port| plain && *port > 0);
    let port = port.ok_or_else(|| fail("the port is no number from 1 to 65535"))?;
    Ok(Endpoint { host: host.to_owned(), port })
}

/// Enough of the text to know which one is meant: what has no colon may be a mistyped token in the wrong place.
fn recognizable(text: &str) -> String {
    /// Length of a token's public id.
    const PUBLIC_CHARS: usize = 6;
    if text.contains(':') || text.chars().count() <= PUBLIC_CHARS {
        return shown(text);
    }
    format!("{}…", shown(&text.chars().take(PUBLIC_CHARS).collect::<String>()))
}

fn is_host(host: &str) -> bool {
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    // Underscores and a final dot are no host name, but resolvers answer them.
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_same_endpoint() {
        for text in ["1.2.3.4:6443", "api.example.com:1", "[fd00::1]:65535", "[fe80::1%eth0]:6443", "a_b-c.d.:443"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("[::1]:6443").unwrap().host, "::1");
    }

    #[test]
    fn refuses_what_cannot_be_dialled() {
        for text in [
            "",
            ":6443",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host:https",
            "https://host:6443",
            "fd00::1:6443",
            "[fd00::1]",
            "[fd00::1",
            "[host]:6443",
            "[1.2.3.4]:6443",
            "1.2.3:6443",
            "1.2.3.400:6443",
            "a b:1",
            "-a:1",
            "a..b:1",
            "user@host:1",
            "host/path:1",
        ] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn does_not_repeat_what_may_be_a_mistyped_token() {
        for text in ["abcdef.canarycanary", "ABCDEF.CANARYCANARYCANA", "abcdef.canarycanarycana:x"] {
            let error = parse(text).expect_err(text).to_string().to_lowercase();
            assert!(!error.contains("canary") && error.contains("abcdef"), "{error}");
        }
    }

    #[test]
    fn a_list_keeps_its_order() {
        let hosts =
            |text| parse_list(text).map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        assert_eq!(hosts("b:1,a:2, [::1]:3").unwrap(), "b:1 a:2 [::1]:3");
        assert!(hosts(" , ").is_err());
        assert!(hosts("a:1,b").is_err());
    }
}
