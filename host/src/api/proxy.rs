//! The environment's proxy, by the rules of Go's `golang.org/x/net/http/httpproxy`, which kubeadm and kubelet follow.
//!
//! Only what an https request needs: `HTTPS_PROXY`, `NO_PROXY` and their lower-case forms. `curl` and many libraries
//! differ in details (ports, leading dots, loopback), so that a join could otherwise use a proxy where the kubelet does
//! not.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::OnceLock;

use base64::Engine as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest answer to CONNECT.
const CONNECT_ANSWER_LIMIT_BYTES: usize = 8 << 10;

/// Which https requests go through which proxy.
#[derive(Debug, Clone, Default)]
pub struct ProxyRules {
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// A proxy. `Display` and `Debug` leave user and password out.
#[derive(Clone)]
pub struct Proxy {
    scheme: String,
    host: String,
    port: u16,
    credential: Option<SecretString>,
}

#[derive(Debug, Clone)]
enum Exception {
    Everything,
    Network {
        address: IpAddr,
        prefix: u8,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    /// `suffix` begins with a dot; `itself` also matches the name without it.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
    /// A port that is no number: matches nothing.
    Nothing,
}

impl ProxyRules {
    /// The rules of this process's environment, read once.
    pub fn from_environment() -> &'static Self {
        static RULES: OnceLock<ProxyRules> = OnceLock::new();
        RULES.get_or_init(|| Self::from_variables(|name| std::env::var(name).ok()))
    }

    /// The rules that variables give; `variable` returns the value of a name.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |upper: &str, lower: &str| {
            [upper, lower].into_iter().filter_map(&variable).find(|value| !value.is_empty()).unwrap_or_default()
        };
        let https = Proxy::parse(&either("HTTPS_PROXY", "https_proxy"));
        let mut exceptions = Vec::new();
        for entry in either("NO_PROXY", "no_proxy").split(',') {
            exceptions.extend(Exception::parse(entry));
        }
        Self { https, exceptions }
    }

    /// The proxy for `https://host:port`, if any. IPv6 without brackets.
    pub fn for_https(&self, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = self.https.as_ref()?;
        let host = host.to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let direct = host == "localhost"
            || address.is_some_and(|address| address.is_loopback())
            || self.exceptions.iter().any(|exception| exception.covers(&host, port, address));
        (!direct).then_some(proxy)
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, prefix)) = entry.split_once('/')
            && let (Ok(address), Ok(prefix)) = (address.parse::<IpAddr>(), prefix.parse::<u8>())
            && prefix <= if address.is_ipv4() { 32 } else { 128 }
        {
            return Some(Self::Network { address, prefix });
        }
        let (host, port) = split_port(&entry);
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port)) => Some(port),
            Some(Err(_)) => return Some(Self::Nothing),
        };
        if let Ok(address) = host.parse() {
            return Some(Self::Address { address, port });
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        match host.strip_prefix('.') {
            _ if host.is_empty() => None,
            Some(_) => Some(Self::Domain { suffix: host.to_owned(), itself: false, port }),
            None => Some(Self::Domain { suffix: format!(".{host}"), itself: true, port }),
        }
    }

    fn covers(&self, host: &str, port: u16, address: Option<IpAddr>) -> bool {
        match self {
            Self::Everything => true,
            Self::Nothing => false,
            Self::Network { address: network, prefix } => {
                address.is_some_and(|address| in_network(address, *network, *prefix))
            }
            Self::Address { address: excepted, port: only } => {
                address.is_some_and(|address| address.to_canonical() == excepted.to_canonical())
                    && only.is_none_or(|only| only == port)
            }
            Self::Domain { suffix, itself, port: only } => {
                (host.ends_with(suffix.as_str()) || (*itself && host == &suffix[1..]))
                    && only.is_none_or(|only| only == port)
            }
        }
    }
}

fn in_network(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (address, network) = (address.to_canonical(), network.to_canonical());
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((address, width), (network, other)) = (bits(address), bits(network));
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    width == other && prefix <= width && address & mask == network & mask
}

/// `host:port`, `[host]:port`, or a host alone (also an IPv6 address without brackets).
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => (text, None),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

impl Proxy {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let scheme = scheme.to_ascii_lowercase();
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let (credential, place) = match authority.rsplit_once('@') {
            Some((credential, place)) => (Some(percent_decoded(credential).into()), place),
            None => (None, authority),
        };
        let (host, port) = split_port(place);
        let default = match scheme.as_str() {
            "https" => 443,
            "socks5" | "socks5h" => 1080,
            _ => 80,
        };
        let port = port.map_or(Some(default), |port| port.parse().ok())?;
        (!host.is_empty()).then(|| Self { scheme, host: host.to_owned(), port, credential })
    }

    /// Host and port to connect to.
    ///
    /// # Errors
    ///
    /// What is wrong, for a proxy that is not spoken to in plain HTTP.
    pub fn address(&self) -> Result<(&str, u16), &'static str> {
        match self.scheme.as_str() {
            "http" => Ok((&self.host, self.port)),
            _ => Err("only proxies of scheme `http` are supported"),
        }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let decoded = (*first == b'%')
            .then(|| tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{}{close}:{}", self.scheme, self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Asks a proxy to connect the stream to `endpoint` (`host:port`).
pub(super) async fn open_tunnel(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    endpoint: &str,
) -> io::Result<()> {
    let mut request = format!("CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n");
    if let Some(credential) = &proxy.credential {
        let encoded = base64::engine::general_purpose::STANDARD.encode(credential.expose_secret());
        request.push_str(&format!("Proxy-Authorization: Basic {encoded}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= CONNECT_ANSWER_LIMIT_BYTES {
            return Err(io::Error::other("its answer is too long"));
        }
        // Byte by byte: what follows the answer belongs to TLS.
        answer.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&answer);
    let status_line = head.lines().next().unwrap_or_default();
    match status_line.split(' ').nth(1) {
        Some(code) if code.len() == 3 && code.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("it answered `{status_line}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(https: &str, no: &str) -> ProxyRules {
        ProxyRules::from_variables(|name| match name {
            "HTTPS_PROXY" => Some(https.to_owned()),
            "no_proxy" => Some(no.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn follows_gos_rules_for_no_proxy() {
        for (no, host, port, proxied) in [
            ("", "api.example.com", 6443, true),
            ("", "localhost", 6443, false),
            ("", "127.0.0.1", 6443, false),
            ("", "::1", 6443, false),
            ("*", "api.example.com", 6443, false),
            ("example.com", "api.example.com", 6443, false),
            ("example.com", "example.com", 6443, false),
            (".example.com", "example.com", 6443, true),
            ("*.example.com", "api.example.com", 6443, false),
            ("example.com", "badexample.com", 6443, true),
            ("example.com:443", "api.example.com", 6443, true),
            ("example.com:6443", "api.example.com", 6443, false),
            (" EXAMPLE.com , x", "API.example.com", 1, false),
            ("10.0.0.0/8", "10.1.2.3", 6443, false),
            ("10.0.0.0/8", "11.1.2.3", 6443, true),
            ("10.1.2.3:443", "10.1.2.3", 6443, true),
            ("fd00::/8", "fd12::1", 6443, false),
            ("[fd00::1]:6443", "fd00::1", 6443, false),
            ("0.0.0.0/0", "fd00::1", 6443, true),
            ("example.com:http", "example.com", 80, true),
        ] {
            let found = rules("proxy:3128", no).for_https(host, port).is_some();
            assert_eq!(found, proxied, "NO_PROXY={no:?} {host}:{port}");
        }
    }

    #[test]
    fn reads_a_proxy_and_hides_its_password() {
        let rules = rules("http://user:c%61nary@proxy.example:3128/", "");
        let proxy = rules.for_https("api", 6443).unwrap();
        assert_eq!(proxy.address(), Ok(("proxy.example", 3128)));
        assert_eq!(proxy.credential.as_ref().unwrap().expose_secret(), "user:canary");
        assert!(!format!("{proxy} {proxy:?} {rules:?}").contains("canary"));
        assert!(self::rules("socks5://proxy", "").for_https("api", 1).unwrap().address().is_err());
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named_with_its_answer() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nX: y\r\n\r\n").await.unwrap();
        let proxy = Proxy::parse("http://user:pw@p:1").unwrap();
        let error = open_tunnel(&mut near, &proxy, "api:6443").await.unwrap_err();
        assert!(error.to_string().contains("407"), "{error}");
        let mut sent = vec![0; 200];
        let length = far.read(&mut sent).await.unwrap();
        let sent = String::from_utf8_lossy(&sent[..length]);
        assert!(sent.starts_with("CONNECT api:6443 HTTP/1.1\r\n"), "{sent}");
        assert!(sent.contains("Proxy-Authorization: Basic dXNlcjpwdw==\r\n"), "{sent}");
    }
}
