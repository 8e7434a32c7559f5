//! URLs and hosts, in the one form that is compared and sent.
//!
//! Whatever two programs could read in two ways is refused: user names, dot segments in any spelling, empty segments,
//! encoded slashes, back slashes, numbers that some resolvers take for addresses. So the path that a grant is matched
//! with is the path that the server sees.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// Longest URL.
const LONGEST: usize = 4096;

/// Why a URL or a host is refused. The text is the caller's to show.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` {reason}")]
pub struct UrlError {
    /// The beginning of what was given, escaped.
    pub text: String,
    /// A verb phrase.
    pub reason: &'static str,
}

/// A name or an address, as it stands in a grant and in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NetHost {
    /// Lower-case, no dot at its end.
    Name(String),
    /// Never an IPv4 address written inside IPv6.
    Address(IpAddr),
}

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// A request's URL, normalised: lower-case scheme and host, the port always known, no fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    /// With TLS or without.
    pub scheme: Scheme,
    /// Whom to dial.
    pub host: NetHost,
    /// 1 to 65535.
    pub port: u16,
    /// Begins with `/`; percent signs only before what must be encoded, hex digits upper-case.
    pub path: String,
    /// After the `?`, as given.
    pub query: Option<String>,
}

/// What a grant allows: this URL, and what lies below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UrlPrefix(HttpUrl);

impl Scheme {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

fn refuse<T>(text: &str, reason: &'static str) -> Result<T, UrlError> {
    Err(UrlError { text: text.chars().take(100).collect::<String>().escape_debug().to_string(), reason })
}

impl FromStr for NetHost {
    type Err = UrlError;

    /// IPv6 with brackets or without.
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            return match address.to_ipv4_mapped() {
                Some(_) => refuse(text, "is IPv4 inside IPv6; write the IPv4 address"),
                None => Ok(Self::Address(address.into())),
            };
        }
        if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let name = text.to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.is_empty() || name.len() > 253 || !name.split('.').all(label) {
            return refuse(text, "is neither a host's name nor its address");
        }
        // `0x7f.1`, `2130706433` and `127.1` are addresses to some resolvers.
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if hex || last.bytes().all(|b| b.is_ascii_digit()) {
            return refuse(text, "ends in a number but is no address of four numbers");
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for NetHost {
    /// As in a URL: IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl FromStr for HttpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > LONGEST {
            return refuse(text, "is too long");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse(text, "has a character that must be percent-encoded");
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return refuse(text, "does not begin with `https://` or `http://`"),
        };
        if rest.contains(['#', '\\', '"', '<', '>', '^', '`', '{', '|', '}']) {
            return refuse(text, "has a fragment, or a character that must be percent-encoded");
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.contains('@') {
            return refuse(text, "has a user name");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => match parse_port(port) {
                Some(port) => (host, port),
                None => return refuse(text, "has no port of 1 to 65535 after its `:`"),
            },
            _ => (authority, scheme.port()),
        };
        if host.contains(':') && !host.starts_with('[') {
            return refuse(text, "has an IPv6 address without brackets");
        }
        let host = match host.parse() {
            Ok(host) => host,
            Err(UrlError { reason, .. }) => return refuse(host, reason),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        let path = match normalised(path) {
            Ok(path) => path,
            Err(reason) => return refuse(text, reason),
        };
        Ok(Self { scheme, host, port, path, query })
    }
}

/// A decimal port without sign and leading zero.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

/// Decodes what need not be encoded (RFC 3986, section 6.2.2) and refuses what servers read differently.
fn normalised(path: &str) -> Result<String, &'static str> {
    let mut plain = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        plain.push('/');
    }
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(char::from(byte));
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|digit| digit.and_then(|it| char::from(it).to_digit(16)));
        let [Some(high), Some(low)] = digits else { return Err("has a `%` without two hex digits") };
        let decoded = u8::try_from(high * 16 + low).expect("two hex digits are a byte");
        match decoded {
            b'/' | b'\\' => return Err("has an encoded slash in its path"),
            0..=0x1f | 0x7f => return Err("has an encoded control character in its path"),
            _ if decoded.is_ascii_alphanumeric() || b"-._~".contains(&decoded) => plain.push(char::from(decoded)),
            _ => plain.push_str(&format!("%{decoded:02X}")),
        }
    }
    let mut segments = plain.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // Some servers cut parameters off first.
        let name = segment.split(';').next().unwrap_or_default();
        match name {
            "." | ".." => return Err("has `.` or `..` as a segment of its path"),
            "" if segments.peek().is_some() || segment != name => return Err("has an empty segment in its path"),
            _ => {}
        }
    }
    Ok(plain)
}

impl HttpUrl {
    /// `host:port`, as the `Host` header has it: without the scheme's own port.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.port() { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Path and query, as the request line has them.
    pub fn path_and_query(&self) -> String {
        let query = self.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{query}", self.path)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.path_and_query())
    }
}

impl FromStr for UrlPrefix {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url: HttpUrl = text.parse()?;
        if url.query.is_some() {
            return refuse(text, "has a query; a grant ends with the path");
        }
        if url.path.contains('*') {
            return refuse(text, "has a `*`; a grant covers everything below its path");
        }
        Ok(Self(url))
    }
}

impl UrlPrefix {
    /// What lies at and below a request's URL.
    pub(super) fn of(url: &HttpUrl) -> Self {
        Self(HttpUrl { query: None, ..url.clone() })
    }

    /// Whether a request's URL lies at or below this one. Segments count whole: `/v1` does not cover `/v10`.
    pub fn matches(&self, url: &HttpUrl) -> bool {
        let own = &self.0;
        let below = url.path.strip_prefix(own.path.as_str());
        let at_border = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || own.path.ends_with('/'));
        own.scheme == url.scheme && own.host == url.host && own.port == url.port && at_border
    }

    /// Whether it covers everything that the other one does.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }

    /// The same with an address in the place of the host.
    pub(super) fn at(&self, address: IpAddr) -> Self {
        Self(HttpUrl { host: NetHost::Address(address.to_canonical()), ..self.0.clone() })
    }

    /// The URL itself.
    pub fn url(&self) -> &HttpUrl {
        &self.0
    }
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> HttpUrl {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_url_has_one_form() {
        for (text, form) in [
            ("https://Example.COM", "https://example.com/"),
            ("HTTPS://example.com:443/", "https://example.com/"),
            ("http://example.com:443/a", "http://example.com:443/a"),
            ("http://10.0.0.1:8080/%41%7e%2D/b?x=//../%2e", "http://10.0.0.1:8080/A~-/b?x=//../%2e"),
            ("https://[2001:DB8::1]:8443/a/", "https://[2001:db8::1]:8443/a/"),
            ("https://a/%c3%a9%20", "https://a/%C3%A9%20"),
            ("https://a?q", "https://a/?q"),
            ("https://a-b_c.d/", "https://a-b_c.d/"),
            ("https://a/..a/b../.c/...", "https://a/..a/b../.c/..."),
        ] {
            assert_eq!(url(text).to_string(), form);
            assert_eq!(url(form).to_string(), form, "not stable");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (bad, reason) in [
            ("ftp://a/", "https://"),
            ("https:/a/", "https://"),
            ("https//a", "https://"),
            ("file:///etc/passwd", "https://"),
            ("https://user@a/", "user name"),
            ("https://user:secret@a/", "user name"),
            ("https://a@169.254.169.254/", "user name"),
            ("https://a\\@b/", "percent-encoded"),
            ("https://a/x\\..\\y", "percent-encoded"),
            ("https://a/#f", "fragment"),
            ("https://a/ b", "percent-encoded"),
            ("https://a/\tb", "percent-encoded"),
            ("https://a/\r\nHost: b", "percent-encoded"),
            ("https://ä/", "percent-encoded"),
            ("https://a%2eb/", "neither"),
            ("https:///a", "neither"),
            ("https://a.:443/", "neither"),
            ("https://a..b/", "neither"),
            ("https://-a/", "neither"),
            ("https://127.1/", "ends in a number"),
            ("https://2130706433/", "ends in a number"),
            ("https://0x7f000001/", "ends in a number"),
            ("https://0177.0.0.1/", "ends in a number"),
            ("https://1.2.3.4.5/", "ends in a number"),
            ("https://a.0x1/", "ends in a number"),
            ("https://[::ffff:10.0.0.1]/", "IPv4 inside IPv6"),
            ("https://[fe80::1%25eth0]/", "neither"),
            ("https://::1/", "without brackets"),
            ("https://[::1/", "neither"),
            ("https://a:0/", "port"),
            ("https://a:/", "port"),
            ("https://a:65536/", "port"),
            ("https://a:+443/", "port"),
            ("https://a:0443/", "port"),
            ("https://a/b/../c", "`..`"),
            ("https://a/b/%2e%2E/c", "`..`"),
            ("https://a/b/.%2e", "`..`"),
            ("https://a/./b", "`.`"),
            ("https://a/b/..;x/c", "`..`"),
            ("https://a//b", "empty segment"),
            ("https://a/b//", "empty segment"),
            ("https://a/b/;x", "empty segment"),
            ("https://a/b%2fc", "encoded slash"),
            ("https://a/b%5Cc", "encoded slash"),
            ("https://a/b%00", "control"),
            ("https://a/b%0d%0a", "control"),
            ("https://a/b%", "hex"),
            ("https://a/b%4", "hex"),
            ("https://a/b%zz", "hex"),
        ] {
            let error = bad.parse::<HttpUrl>().map(|it| it.to_string()).unwrap_err();
            assert!(error.reason.contains(reason), "{bad}: {error}");
        }
        assert!(format!("https://a/{}", "b".repeat(LONGEST)).parse::<HttpUrl>().is_err());
    }

    #[test]
    fn a_host_and_a_url_may_have_their_longest_length_and_no_more() {
        let label = "x".repeat(63);
        let longest = [label.as_str(); 4].join(".")[..253].to_owned();
        assert!(longest.parse::<NetHost>().is_ok() && format!("{longest}x").parse::<NetHost>().is_err());
        assert!(label.parse::<NetHost>().is_ok() && format!("{label}x").parse::<NetHost>().is_err());
        let url = format!("https://a/{}", "b".repeat(LONGEST - "https://a/".len()));
        assert!(url.parse::<HttpUrl>().is_ok() && (url + "b").parse::<HttpUrl>().is_err());
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let matches = |prefix: &str, other: &str| prefix.parse::<UrlPrefix>().unwrap().matches(&url(other));
        for (prefix, other) in [
            ("https://a", "https://a/"),
            ("https://a/", "https://a/x/y?z"),
            ("https://a/v1", "https://a/v1"),
            ("https://a/v1", "https://A:443/v%31/x"),
            ("https://a/v1/", "https://a/v1/"),
        ] {
            assert!(matches(prefix, other), "{prefix} does not match {other}");
        }
        for (prefix, other) in [
            ("https://a/v1", "https://a/v10"),
            ("https://a/v1", "https://a/v1%20/x"),
            ("https://a/v1/", "https://a/v1"),
            ("https://a/v1", "https://a/V1"),
            ("https://a/v1", "http://a/v1"),
            ("https://a/v1", "https://a:8443/v1"),
            ("https://a/v1", "https://a.b/v1"),
            ("https://a/v1", "https://xa/v1"),
            ("https://a/v1", "https://a/"),
        ] {
            assert!(!matches(prefix, other), "{prefix} matches {other}");
        }
        assert!("https://a/?x".parse::<UrlPrefix>().is_err());
        assert!("https://a/v1/*".parse::<UrlPrefix>().is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_stable_and_below_its_own_root(text in "(https?://)?[a-zA-Z0-9./:%@\\[\\]?;#~_-]{0,40}") {
            if let Ok(url) = text.parse::<HttpUrl>() {
                let again: HttpUrl = url.to_string().parse().unwrap();
                prop_assert_eq!(&again, &url);
                prop_assert!(url.path.split('/').skip(1).all(|it| it != ".." && it != "."));
                let root: UrlPrefix = format!("{}://{}", url.scheme.as_str(), url.authority()).parse().unwrap();
                prop_assert!(root.matches(&url));
            }
        }

        #[test]
        fn a_prefix_that_matches_covers_whole_segments(prefix in "(/[a-c]{1,2}){0,3}", path in "(/[a-c]{1,2}){0,4}") {
            let own: UrlPrefix = format!("https://h{prefix}").parse().unwrap();
            let segments = |text: &str| text.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
            let expected = segments(&path).starts_with(&segments(&prefix));
            prop_assert_eq!(own.matches(&url(&format!("https://h{path}"))), expected);
        }
    }
}
