//! One HTTP exchange with a registry, or with the server of its tokens: bounded in time and size.
//!
//! Connections are HTTP/1.1, through the environment's proxy for `https`, and kept for the next request to the same
//! place. Plain `http` goes to loopback, or where the operator asked for it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::RegistryError;
use crate::api::{Stream, tunnel};
use crate::output::printable;

/// A connection, TLS included, is made within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The head of an answer, and every piece of its body, comes within this time. A registry may copy a large blob first.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// A whole answer comes within this time, however slowly.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(600);
/// Where a request goes: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Of `host` or `host:port`.
    pub(super) fn of_registry(registry: &str, tls: bool) -> Option<Self> {
        Self::of(&format!("{}://{registry}/", if tls { "https" } else { "http" }).parse().ok()?)
    }

    /// Of an absolute URL without a user name.
    pub(super) fn of(url: &Uri) -> Option<Self> {
        let tls = match url.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = url.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        (!host.is_empty() && port != 0).then_some(Self { tls, host, port })
    }

    /// Whether both are the same host, whatever the port.
    pub(super) fn host_equals(&self, other: &Self) -> bool {
        self.host == other.host
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => f.write_str(&host),
            (_, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// A request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// For errors, a few words.
    pub(super) what: &'a str,
    /// Largest answer, in bytes.
    pub(super) limit: u64,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

type Sender = SendRequest<Full<Bytes>>;

/// Makes and keeps connections.
pub(super) struct Http {
    tls: TlsConnector,
    idle: Mutex<HashMap<Origin, Sender>>,
}

impl Http {
    /// Trusts the system's authorities, and those in `ca_file`.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, RegistryError> {
        let mut roots = crate::network::system_roots();
        if let Some(path) = ca_file {
            let bad = |reason: String| RegistryError::CaFile { path: path.to_owned(), reason };
            let before = roots.len();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))? {
                let certificate = certificate.map_err(|error| bad(error.to_string()))?;
                roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            }
            if roots.len() == before {
                return Err(bad("there is no certificate in it".into()));
            }
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), idle: Mutex::default() })
    }

    /// Sends a request and reads the whole answer. Redirects are the caller's.
    pub(super) async fn exchange(&self, call: Call<'_>) -> Result<Answer, RegistryError> {
        let origin = Origin::of(call.url).ok_or_else(|| RegistryError::Malformed {
            what: format!("the address of {}", call.what),
            reason: "it is no `https` or `http` URL".into(),
        })?;
        let whole = async {
            let (response, sender) = self.send(&origin, &call).await?;
            let (head, body) = response.into_parts();
            let body = read(&origin, &call, body).await?;
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).insert(origin.clone(), sender);
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        match tokio::time::timeout(EXCHANGE_TIMEOUT, whole).await {
            Ok(result) => result,
            Err(_) => Err(broken(&origin, call.what, &format!("not done after {} s", EXCHANGE_TIMEOUT.as_secs()))),
        }
    }

    /// On a kept connection, else on a new one. The registry may have closed a kept one: all requests here may be made
    /// twice, uploads are begun anew.
    async fn send(
        &self,
        origin: &Origin,
        call: &Call<'_>,
    ) -> Result<(http::Response<hyper::body::Incoming>, Sender), RegistryError> {
        let path = call.url.path_and_query().map_or("/", |path| path.as_str());
        let build = || {
            let mut request = Request::new(Full::new(call.body.clone()));
            *request.method_mut() = call.method.clone();
            *request.uri_mut() = path.parse().expect("the path of a URL is one");
            *request.headers_mut() = call.headers.clone();
            let host = HeaderValue::from_str(&origin.to_string()).expect("a host is a header's value");
            request.headers_mut().insert(header::HOST, host);
            let agent = concat!("mortise/", env!("CARGO_PKG_VERSION"));
            request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(agent));
            request
        };
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(origin);
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
            && let Ok(Ok(response)) = tokio::time::timeout(SILENCE_TIMEOUT, sender.send_request(build())).await
        {
            return Ok((response, sender));
        }
        let mut sender = self.connect(origin).await?;
        match tokio::time::timeout(SILENCE_TIMEOUT, sender.send_request(build())).await {
            Ok(Ok(response)) => Ok((response, sender)),
            Ok(Err(error)) => Err(broken(origin, call.what, &chain(&error))),
            Err(_) => Err(broken(origin, call.what, &format!("silent for {} s", SILENCE_TIMEOUT.as_secs()))),
        }
    }

    async fn connect(&self, origin: &Origin) -> Result<Sender, RegistryError> {
        let connect = async {
            let stream = dial(origin).await?;
            let stream: Box<dyn Stream> = if origin.tls {
                let tls = |reason| RegistryError::Tls { endpoint: origin.to_string(), reason };
                let name = ServerName::try_from(origin.host.clone())
                    .map_err(|_| tls("its host is neither a DNS name nor an address".into()))?;
                Box::new(self.tls.connect(name, stream).await.map_err(|error| tls(chain(&error)))?)
            } else {
                stream
            };
            handshake(TokioIo::new(stream)).await.map_err(|error| broken(origin, "a connection", &chain(&error)))
        };
        let (sender, connection) = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| {
            let reason = format!("no connection after {} s", CONNECT_TIMEOUT.as_secs());
            Err(RegistryError::Unreachable { endpoint: origin.to_string(), reason })
        })?;
        tokio::spawn(async move {
            // Whoever waits for an answer is told by the answer.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

async fn read(origin: &Origin, call: &Call<'_>, mut body: hyper::body::Incoming) -> Result<Bytes, RegistryError> {
    let mut content = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(SILENCE_TIMEOUT, body.frame()).await {
            Ok(None) => return Ok(content.freeze()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(broken(origin, call.what, &chain(&error))),
            Err(_) => {
                return Err(broken(origin, call.what, &format!("silent for {} s", SILENCE_TIMEOUT.as_secs())));
            }
        };
        if let Ok(data) = frame.into_data() {
            if (content.len() + data.len()) as u64 > call.limit {
                return Err(RegistryError::TooLarge { what: call.what.to_owned(), limit: call.limit });
            }
            content.extend_from_slice(&data);
        }
    }
}

async fn dial(origin: &Origin) -> Result<Box<dyn Stream>, RegistryError> {
    let Origin { tls, host, port } = origin;
    let unreachable =
        |error: std::io::Error| RegistryError::Unreachable { endpoint: origin.to_string(), reason: error.to_string() };
    let tcp = |host: String, port: u16| async move {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let proxy = if *tls { tunnel::proxy_for(host, *port) } else { None };
    let Some(proxy) = proxy else {
        return Ok(Box::new(tcp(host.clone(), *port).await.map_err(unreachable)?));
    };
    let endpoint = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let refused = |reason: String| RegistryError::Proxy {
        proxy: proxy.to_string(),
        endpoint: endpoint.clone(),
        reason: printable(&reason),
    };
    let (proxy_host, proxy_port) = tunnel::address(proxy).map_err(|reason| refused(reason.to_owned()))?;
    let mut stream =
        tcp(proxy_host.to_owned(), proxy_port).await.map_err(|error: std::io::Error| refused(error.to_string()))?;
    tunnel::open_tunnel(&mut stream, proxy, &endpoint).await.map_err(|error| refused(error.to_string()))?;
    Ok(Box::new(stream))
}

fn broken(origin: &Origin, what: &str, reason: &str) -> RegistryError {
    RegistryError::Broken { endpoint: origin.to_string(), what: what.to_owned(), reason: printable(reason) }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) if !error.to_string().ends_with(&cause.to_string()) => format!("{error}: {}", chain(cause)),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_connection_is_kept_for() {
        for (url, shown, loopback) in [
            ("https://R.example/v2/", "r.example", false),
            ("https://r.example:5000/v2/", "r.example:5000", false),
            ("http://127.0.0.1:5000/", "127.0.0.1:5000", true),
            ("http://[::1]:5000/", "[::1]:5000", true),
            ("http://[::ffff:127.0.0.1]/", "[::ffff:127.0.0.1]", true),
            ("http://localhost/", "localhost", true),
            ("http://localhost.example/", "localhost.example", false),
        ] {
            let origin = Origin::of(&url.parse().unwrap()).unwrap();
            assert_eq!((origin.to_string().as_str(), origin.is_loopback()), (shown, loopback), "{url}");
        }
        for url in ["/v2/", "ftp://r.example/", "https://user:pw@r.example/"] {
            assert!(Origin::of(&url.parse().unwrap()).is_none(), "{url}");
        }
    }
}
