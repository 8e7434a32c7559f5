//! Which proxy the environment wants for a URL, by Go's rules (`golang.org/x/net/http/httpproxy`).
//!
//! The one implementation: the check `HTTPProxy` and the API client use the same. Variables are read once; the upper-case
//! name wins over the lower-case one. A host that is not ASCII is compared as written, not in its IDNA form.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use secrecy::SecretString;

/// The environment's proxies and exceptions.
#[derive(Debug, Clone, Default)]
pub struct ProxySettings {
    https: Option<Proxy>,
    http: Option<Proxy>,
    direct: Vec<Exception>,
}

/// A proxy. Its text form has no user and password.
#[derive(Clone)]
pub struct Proxy {
    /// `http`, `https` or `socks5`, lower case.
    pub scheme: String,
    /// Name or address, without brackets.
    pub host: String,
    /// As written, or the scheme's.
    pub port: u16,
    /// `user:password`, still percent-encoded.
    pub user_info: Option<SecretString>,
    /// Whether the port was written.
    explicit_port: bool,
}

/// One entry of NO_PROXY.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    /// `*`.
    All,
    /// `192.0.2.0/24`.
    Network { base: IpAddr, prefix_bits: u32 },
    /// `192.0.2.1` or `192.0.2.1:6443`.
    Address { address: IpAddr, port: Option<String> },
    /// Matches names that end in `.suffix`, and with `itself` the name without the dot.
    Domain { suffix: String, itself: bool, port: Option<String> },
}

impl ProxySettings {
    /// Reads HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or their lower-case forms. What cannot be parsed is ignored.
    pub fn from_env(variables: &BTreeMap<String, String>) -> Self {
        let value = |upper: &str| {
            let names = [upper.to_owned(), upper.to_ascii_lowercase()];
            names.iter().filter_map(|name| variables.get(name)).find(|value| !value.is_empty())
        };
        let proxy = |name| value(name).and_then(|text| parse_proxy(text));
        Self {
            https: proxy("HTTPS_PROXY"),
            http: proxy("HTTP_PROXY"),
            direct: value("NO_PROXY").map(|list| parse_exceptions(list)).unwrap_or_default(),
        }
    }

    /// The proxy for an `https:` or `http:` URL; none: go directly.
    pub fn for_url(&self, url: &str) -> Option<&Proxy> {
        let (scheme, rest) = url.split_once("://")?;
        let (proxy, default_port) = match scheme {
            "https" => (self.https.as_ref()?, "443"),
            "http" => (self.http.as_ref()?, "80"),
            _ => return None,
        };
        let (_, authority) = split_user_info(authority(rest));
        let (host, port) = split_port(authority)?;
        (!self.is_direct(host, port.unwrap_or(default_port))).then_some(proxy)
    }

    fn is_direct(&self, host: &str, port: &str) -> bool {
        if host == "localhost" {
            return true;
        }
        let address: Option<IpAddr> = host.parse().ok().map(|address: IpAddr| address.to_canonical());
        if address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let host = host.trim().to_lowercase();
        self.direct.iter().any(|exception| exception.matches(&host, address, port))
    }
}

impl Exception {
    fn matches(&self, host: &str, address: Option<IpAddr>, port: &str) -> bool {
        let port_fits = |wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| wanted == port);
        match self {
            Self::All => true,
            Self::Network { base, prefix_bits } => {
                address.is_some_and(|address| is_within(address, *base, *prefix_bits))
            }
            Self::Address { address: wanted, port } => address == Some(*wanted) && port_fits(port),
            Self::Domain { suffix, itself, port } => {
                address.is_none() && (host.ends_with(suffix) || (*itself && host == &suffix[1..])) && port_fits(port)
            }
        }
    }
}

fn is_within(address: IpAddr, base: IpAddr, prefix_bits: u32) -> bool {
    match (address, base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - prefix_bits).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - prefix_bits).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        _ => false,
    }
}

fn parse_exceptions(list: &str) -> Vec<Exception> {
    let mut exceptions = Vec::new();
    for entry in list.split(',') {
        let entry = entry.trim().to_lowercase();
        if entry == "*" {
            return vec![Exception::All];
        }
        exceptions.extend(parse_exception(&entry));
    }
    exceptions
}

fn parse_exception(entry: &str) -> Option<Exception> {
    if let Some((base, bits)) = entry.split_once('/')
        && let (Ok(base), Ok(prefix_bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>())
    {
        let widest = if base.is_ipv4() { 32 } else { 128 };
        return (prefix_bits <= widest).then_some(Exception::Network { base, prefix_bits });
    }
    // An IPv6 address without brackets has no port.
    let (host, port) = match entry.parse::<IpAddr>() {
        Ok(_) => (entry, None),
        Err(_) => split_port(entry)?,
    };
    let port = port.map(str::to_owned);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(Exception::Address { address: address.to_canonical(), port });
    }
    let host = if host.starts_with("*.") { &host[1..] } else { host };
    match host.strip_prefix('.') {
        _ if host.is_empty() => None,
        Some(_) => Some(Exception::Domain { suffix: host.to_owned(), itself: false, port }),
        None => Some(Exception::Domain { suffix: format!(".{host}"), itself: true, port }),
    }
}

/// A URL, or `host[:port]`, which means `http://`.
fn parse_proxy(text: &str) -> Option<Proxy> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let (user_info, authority) = split_user_info(authority(rest));
    let (host, port) = split_port(authority)?;
    if host.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => 443,
        "socks5" => 1080,
        _ => 80,
    };
    let explicit_port = port.is_some_and(|port| !port.is_empty());
    let port = if explicit_port { port?.parse().ok()? } else { default_port };
    Some(Proxy { scheme, host: host.to_owned(), port, user_info: user_info.map(SecretString::from), explicit_port })
}

/// What stands before the path.
fn authority(rest: &str) -> &str {
    &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]
}

fn split_user_info(authority: &str) -> (Option<&str>, &str) {
    match authority.rsplit_once('@') {
        Some((user_info, host)) => (Some(user_info), host),
        None => (None, authority),
    }
}

/// Host without brackets, and port. None: malformed.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, Some(port))),
        Some(_) => None,
        None => Some((authority, None)),
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{}{close}", self.scheme, self.host)?;
        if self.explicit_port { write!(f, ":{}", self.port) } else { Ok(()) }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> ProxySettings {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ProxySettings::from_env(&variables.collect())
    }

    fn proxy_of(variables: &[(&str, &str)], url: &str) -> Option<String> {
        settings(variables).for_url(url).map(ToString::to_string)
    }

    #[test]
    fn scheme_chooses_the_variable_and_upper_case_wins() {
        let variables = [
            ("HTTPS_PROXY", "http://secure:3128"),
            ("https_proxy", "http://lower:1"),
            ("HTTP_PROXY", ""),
            ("http_proxy", "plain:8080"),
        ];
        assert_eq!(proxy_of(&variables, "https://api:6443/x").as_deref(), Some("http://secure:3128"));
        assert_eq!(proxy_of(&variables, "http://api").as_deref(), Some("http://plain:8080"));
        assert_eq!(proxy_of(&variables, "ftp://api"), None);
        assert_eq!(proxy_of(&[], "https://api"), None);
    }

    /// Cases of Go's `proxy_test.go`, and more.
    #[test]
    fn exceptions_match_as_in_go() {
        let cases = [
            ("", "https://api.example.com", true),
            ("*", "https://api.example.com", false),
            ("other, *", "https://api.example.com", false),
            ("example.com", "https://api.example.com", false),
            ("example.com", "https://example.com", false),
            (".example.com", "https://example.com", true),
            (".example.com", "https://api.example.com", false),
            ("*.example.com", "https://api.example.com", false),
            ("*.example.com", "https://example.com", true),
            ("ample.com", "https://example.com", true),
            ("Example.COM", "https://API.example.com", false),
            ("example.com:6443", "https://example.com", true),
            ("example.com:6443", "https://example.com:6443", false),
            ("example.com:443", "https://example.com", false),
            ("example.com:443", "https://api.example.com:443/x", false),
            ("192.0.2.1", "https://192.0.2.1:6443", false),
            ("192.0.2.1:443", "https://192.0.2.1:6443", true),
            ("192.0.2.0/24", "https://192.0.2.200:6443", false),
            ("192.0.2.0/24", "https://192.0.3.200:6443", true),
            ("192.0.2.77/24", "https://192.0.2.200", false),
            ("0.0.0.0/0", "https://203.0.113.1", false),
            ("0.0.0.0/0", "https://[2001:db8::1]", true),
            ("192.0.2.0/33", "https://192.0.2.1", true),
            ("2001:db8::/32", "https://[2001:db8::1]:6443", false),
            ("2001:db8::1", "https://[2001:db8::1]:6443", false),
            ("[2001:db8::1]:6443", "https://[2001:db8::1]:6443", false),
            ("[2001:db8::1]:443", "https://[2001:db8::1]:6443", true),
            ("::/0", "https://[2001:db8::1]", false),
            ("192.0.2.1", "https://[::ffff:192.0.2.1]", false),
            (".2.1", "https://192.0.2.1", true),
            (",, ,", "https://example.com", true),
            ("https://example.com", "https://example.com", true),
        ];
        for (no_proxy, url, proxied) in cases {
            let variables = [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", no_proxy)];
            assert_eq!(proxy_of(&variables, url).is_some(), proxied, "{no_proxy} {url}");
        }
    }

    #[test]
    fn loopback_is_never_proxied() {
        for url in ["https://localhost:6443", "https://127.0.0.1", "https://127.9.9.9:1", "https://[::1]:6443"] {
            assert_eq!(proxy_of(&[("HTTPS_PROXY", "http://proxy")], url), None, "{url}");
        }
    }

    #[test]
    fn forms_of_a_proxy() {
        for (value, shown, port) in [
            ("proxy", "http://proxy", 80),
            ("proxy:3128", "http://proxy:3128", 3128),
            ("https://proxy", "https://proxy", 443),
            ("SOCKS5://proxy/", "socks5://proxy", 1080),
            ("http://[2001:db8::1]:3128/path", "http://[2001:db8::1]:3128", 3128),
            ("http://proxy:/", "http://proxy", 80),
        ] {
            let settings = settings(&[("HTTPS_PROXY", value)]);
            let proxy = settings.for_url("https://api").unwrap();
            assert_eq!((proxy.to_string().as_str(), proxy.port), (shown, port), "{value}");
        }
        for value in ["http://", ":3128", "http://proxy:port", "http://proxy:99999", "http://[::1", "ht tp://proxy"] {
            assert_eq!(proxy_of(&[("HTTPS_PROXY", value)], "https://api"), None, "{value}");
        }
    }

    #[test]
    fn user_and_password_are_kept_out_of_every_text() {
        use secrecy::ExposeSecret;
        let settings = settings(&[("HTTPS_PROXY", "http://joe:pa@ss@proxy:3128")]);
        let proxy = settings.for_url("https://api").unwrap();
        assert_eq!(proxy.user_info.as_ref().unwrap().expose_secret(), "joe:pa@ss");
        for text in [proxy.to_string(), format!("{proxy:?}"), format!("{settings:?}")] {
            assert!(!text.contains("pa@ss") && !text.contains("joe"), "{text}");
        }
    }
}
