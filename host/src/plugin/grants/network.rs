//! The grants `http` and `probe`: which servers a plugin may reach through the host.

use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

use super::address::AddressScope;
use super::url::{NetHost, UrlPrefix, parse_port};
use super::{GrantError, Size, size};
use crate::plugin::limits::{HTTP_BODY_MAX, HTTP_RESPONSE_MAX};

/// Methods a grant can name. The others tunnel or echo.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Requests to a URL and to what lies below it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawHttp")]
pub struct HttpGrant {
    /// Scheme, host, port and path.
    pub url: UrlPrefix,
    /// Of [`METHODS`]; `GET` when none is named.
    pub methods: Vec<String>,
    /// Largest body of a request, at most 1 MiB.
    pub max_body: Option<u64>,
    /// Largest body of an answer, at most 2 MiB.
    pub max_response: Option<u64>,
    /// Addresses beside public ones that the host's name may lead to.
    pub scope: AddressScope,
    /// Why a manifest asks.
    pub reason: Option<String>,
    /// The plugin can do without.
    pub optional: bool,
}

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Whether a port takes connections.
    Tcp {
        /// Name or address.
        host: NetHost,
        /// 1 to 65535.
        port: u16,
    },
    /// What a TLS handshake shows.
    Tls {
        /// Name or address.
        host: NetHost,
        /// 1 to 65535.
        port: u16,
    },
    /// Which addresses a name has.
    Dns {
        /// A name, lower-case.
        name: String,
    },
}

/// Connections, handshakes and look-ups; nothing is sent beyond them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawProbe")]
pub struct ProbeGrant {
    /// Exactly this.
    pub probe: Probe,
    /// Addresses beside public ones that the host's name may lead to. Without meaning for DNS.
    pub scope: AddressScope,
    /// Why a manifest asks.
    pub reason: Option<String>,
    /// The plugin can do without.
    pub optional: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawHttp {
    pub(super) url: String,
    #[serde(default)]
    pub(super) methods: Vec<String>,
    #[serde(default)]
    pub(super) max_body: Option<Size>,
    #[serde(default)]
    pub(super) max_response: Option<Size>,
    #[serde(default)]
    pub(super) link_local: bool,
    #[serde(default)]
    pub(super) private: bool,
    #[serde(default)]
    pub(super) proxy: bool,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) optional: bool,
}

impl TryFrom<RawHttp> for HttpGrant {
    type Error = GrantError;

    fn try_from(raw: RawHttp) -> Result<Self, GrantError> {
        let url = raw.url.parse().map_err(|error| GrantError::Value(format!("the URL {error}")))?;
        let mut methods = raw.methods;
        if let Some(bad) = methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            let known = METHODS.join("`, `");
            return Err(GrantError::Value(format!("`{}` is no method; there are `{known}`", bad.escape_debug())));
        }
        if methods.is_empty() {
            methods.push("GET".into());
        }
        methods.sort_by_key(|method| METHODS.iter().position(|it| it == method));
        methods.dedup();
        Ok(Self {
            url,
            methods,
            max_body: size("max-body", raw.max_body, HTTP_BODY_MAX)?,
            max_response: size("max-response", raw.max_response, HTTP_RESPONSE_MAX)?,
            scope: AddressScope { link_local: raw.link_local, private: raw.private, proxy: raw.proxy },
            reason: raw.reason,
            optional: raw.optional,
        })
    }
}

impl HttpGrant {
    /// Whether it covers every request that the other one does, sizes aside: the smaller of two counts.
    pub fn covers(&self, other: &Self) -> bool {
        self.url.covers(&other.url)
            && other.methods.iter().all(|method| self.methods.contains(method))
            && self.scope.covers(other.scope)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawProbe {
    #[serde(default)]
    pub(super) tcp: Option<String>,
    #[serde(default)]
    pub(super) tls: Option<String>,
    #[serde(default)]
    pub(super) dns: Option<String>,
    #[serde(default)]
    pub(super) link_local: bool,
    #[serde(default)]
    pub(super) private: bool,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) optional: bool,
}

impl TryFrom<RawProbe> for ProbeGrant {
    type Error = GrantError;

    fn try_from(raw: RawProbe) -> Result<Self, GrantError> {
        let probe = match (raw.tcp, raw.tls, raw.dns) {
            (Some(target), None, None) => {
                let (host, port) = host_and_port(&target)?;
                Probe::Tcp { host, port }
            }
            (None, Some(target), None) => {
                let (host, port) = host_and_port(&target)?;
                Probe::Tls { host, port }
            }
            (None, None, Some(name)) => Probe::Dns { name: dns_name(&name)? },
            _ => return Err(GrantError::Value("a probe has one of `tcp`, `tls` and `dns`".into())),
        };
        let scope = AddressScope { link_local: raw.link_local, private: raw.private, proxy: false };
        if matches!(probe, Probe::Dns { .. }) && scope != AddressScope::default() {
            return Err(GrantError::Value("`private` and `link-local` mean nothing for `dns`".into()));
        }
        Ok(Self { probe, scope, reason: raw.reason, optional: raw.optional })
    }
}

/// `host:port`, IPv6 in brackets.
fn host_and_port(text: &str) -> Result<(NetHost, u16), GrantError> {
    let bad = |reason: String| GrantError::Value(format!("`{}` is no `host:port`: {reason}", text.escape_debug()));
    let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("the port is missing".into()))?;
    if host.contains(':') && !host.starts_with('[') {
        return Err(bad("an IPv6 address needs brackets".into()));
    }
    let port = parse_port(port).ok_or_else(|| bad("a port is 1 to 65535".into()))?;
    let host = host.parse().map_err(|error: super::url::UrlError| bad(error.to_string()))?;
    Ok((host, port))
}

fn dns_name(text: &str) -> Result<String, GrantError> {
    match NetHost::from_str(text) {
        Ok(NetHost::Name(name)) => Ok(name),
        Ok(NetHost::Address(_)) => Err(GrantError::Value(format!("`{}` is an address, no name", text.escape_debug()))),
        Err(error) => Err(GrantError::Value(error.to_string())),
    }
}

impl Probe {
    /// The kind, as written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Tls { .. } => "tls",
            Self::Dns { .. } => "dns",
        }
    }

    /// The target, as written: `host:port` or a name.
    pub fn target(&self) -> String {
        match self {
            Self::Tcp { host, port } | Self::Tls { host, port } => format!("{host}:{port}"),
            Self::Dns { name } => name.clone(),
        }
    }

    /// The host that is connected to; none for DNS.
    pub fn host(&self) -> Option<&NetHost> {
        match self {
            Self::Tcp { host, .. } | Self::Tls { host, .. } => Some(host),
            Self::Dns { .. } => None,
        }
    }

    /// The same with an address in the place of the host.
    pub(super) fn at(&self, address: IpAddr) -> Self {
        let host = NetHost::Address(address.to_canonical());
        match self {
            Self::Tcp { port, .. } => Self::Tcp { host, port: *port },
            Self::Tls { port, .. } => Self::Tls { host, port: *port },
            Self::Dns { .. } => self.clone(),
        }
    }

    /// Whether everything that the other one shows may be seen, too. A handshake shows that a port takes connections.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tls { host: own, port: own_port }, Self::Tcp { host, port }) => (own, own_port) == (host, port),
            _ => self == other,
        }
    }
}

impl ProbeGrant {
    /// Whether it covers what the other one does.
    pub fn covers(&self, other: &Self) -> bool {
        self.probe.covers(&other.probe) && self.scope.covers(other.scope)
    }
}

/// Whether an address stands in the grant itself: then the operator has read it.
pub(super) fn names_address(host: &NetHost, address: IpAddr) -> bool {
    match host {
        NetHost::Address(own) => *own == address,
        NetHost::Name(name) => (name == "localhost" || name.ends_with(".localhost")) && address.is_loopback(),
    }
}
