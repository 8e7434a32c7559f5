//! `controlPlaneEndpoint`: where all control planes are reached together. Read by Go's and kubeadm's rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::output::printable;

/// Where none is written; kubeadm takes its default `bindPort`, not that of the joining machine.
const DEFAULT_PORT: u16 = 6443;
/// Longest name (RFC 1123).
const NAME_LIMIT_BYTES: usize = 253;

/// Host and port that reach any control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneEndpoint {
    /// DNS name or IP address as written, without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

/// A `controlPlaneEndpoint` that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`controlPlaneEndpoint` of the cluster's configuration is `{text}`, which {reason}")]
pub struct EndpointError {
    /// Printable.
    pub text: String,
    /// Why.
    pub reason: &'static str,
}

impl ControlPlaneEndpoint {
    /// Reads `host`, `host:port` or `[IPv6]:port` as kubeadm's `ParseHostPort` does.
    ///
    /// # Errors
    ///
    /// [`EndpointError`].
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let fail = |reason| Err(EndpointError { text: printable(text), reason });
        let (host, port) = split(text).unwrap_or((text, ""));
        let port = match port {
            "" => DEFAULT_PORT,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
                Ok(port) if port > 0 => port,
                _ => return fail("has no port from 1 to 65535"),
            },
            _ => return fail("has no port from 1 to 65535"),
        };
        if parse_ip(host).is_none() && !is_dns_name(host) {
            return fail("is neither an IP address nor a DNS name");
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// `https://HOST:PORT`; an IPv6 address stands in brackets.
    pub fn url(&self) -> String {
        if self.host.contains(':') {
            format!("https://[{}]:{}", self.host, self.port)
        } else {
            format!("https://{}:{}", self.host, self.port)
        }
    }

    /// The host, where it is an IP address.
    pub fn ip(&self) -> Option<IpAddr> {
        parse_ip(&self.host)
    }
}

/// Go's `net.SplitHostPort`; none where it has an error.
fn split(text: &str) -> Option<(&str, &str)> {
    let (before, port) = text.rsplit_once(':')?;
    let host = match before.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None if before.contains(':') => return None,
        None => before,
    };
    let stray = |part: &str| part.contains(['[', ']']);
    (!stray(host) && !stray(port)).then_some((host, port))
}

/// An IP address as Kubernetes still reads it (`ParseIPSloppy`): IPv4 may have leading zeros, and an IPv4 address written
/// as IPv6 is one of IPv4.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(address.to_canonical());
    }
    let mut parts = text.split('.');
    let mut octets = [0; 4];
    for octet in &mut octets {
        let digits = parts.next()?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let significant = digits.trim_start_matches('0');
        *octet = if significant.is_empty() { 0 } else { significant.parse().ok()? };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

/// RFC 1123 subdomain: lower-case labels of letters, digits and inner dashes.
pub(super) fn is_dns_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= NAME_LIMIT_BYTES
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.iter().all(|&b| inner(b) || b == b'-')
                && bytes.first().is_some_and(|&b| inner(b))
                && bytes.last().is_some_and(|&b| inner(b))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubeadm_reads() {
        for (text, url) in [
            ("cp.example", "https://cp.example:6443"),
            ("cp.example:443", "https://cp.example:443"),
            ("cp.example:", "https://cp.example:6443"),
            ("10.0.0.1:8443", "https://10.0.0.1:8443"),
            ("010.0.0.01", "https://010.0.0.01:6443"),
            ("[fd00::1]:8443", "https://[fd00::1]:8443"),
            ("fd00::1", "https://[fd00::1]:6443"),
        ] {
            assert_eq!(ControlPlaneEndpoint::parse(text).unwrap().url(), url, "{text}");
        }
        let address = ControlPlaneEndpoint::parse("[::ffff:10.0.0.1]:1").unwrap().ip();
        assert_eq!(address, Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn refuses_what_kubeadm_refuses() {
        for text in [
            "",
            ":6443",
            "[fd00::1]",
            "cp.example:0",
            "cp.example:65536",
            "cp:+1",
            "Cp.example",
            "a_b",
            "[a]b:1",
            "-a:1",
        ] {
            assert!(ControlPlaneEndpoint::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(text: String) {
            let _ = ControlPlaneEndpoint::parse(&text);
            let _ = ControlPlaneEndpoint::parse(&format!("[{text}]:1"));
        }
    }
}
