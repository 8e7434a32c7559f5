//! Connections to members: mutual TLS, one a member, never mended behind the caller's back.
//!
//! tonic's channel would connect again by itself, and a request that was lost could not be told from one that was never
//! sent. So each channel gets one stream, made here with its own deadline, and is thrown away with it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use secrecy::SecretString;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::error::{EtcdError, NoConnection, Why};
use crate::api::tls::{self, ClientCertificate, Protocols};
use crate::api::{Trust, chain, quoted};
use crate::node::Node;

/// A connection, TLS included, is made within this time; a member on the same continent takes 100 ms.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest CA bundle, certificate or key that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The client certificate that kubeadm makes for probes, and etcd's CA.
#[derive(Clone)]
pub struct Credentials {
    config: Arc<ClientConfig>,
}

/// The key stays hidden.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Reads `etcd/ca.crt`, `etcd/healthcheck-client.crt` and `.key` in the directory of the certificates.
    ///
    /// # Errors
    ///
    /// [`EtcdError::Missing`], [`EtcdError::Files`], [`EtcdError::Credentials`].
    pub fn read(pki: &Path, node: &Node) -> Result<Self, EtcdError> {
        let directory = pki.join("etcd");
        let text = |name: &str| {
            let path = directory.join(name);
            let missing = || EtcdError::Missing { path: path.display().to_string() };
            let content = node.read(&path, MAX_FILE_BYTES)?.ok_or_else(missing)?;
            Ok::<_, EtcdError>(String::from_utf8_lossy(&content).into_owned())
        };
        let ca = text("ca.crt")?;
        let certificate = text("healthcheck-client.crt")?;
        let key = SecretString::from(text("healthcheck-client.key")?);
        Self::from_pem(&ca, &certificate, &key)
            .map_err(|source| EtcdError::Credentials { directory: directory.display().to_string(), source })
    }

    /// From PEM; the key PKCS#1, SEC1 or PKCS#8.
    ///
    /// # Errors
    ///
    /// [`crate::api::ApiError::Ca`], [`crate::api::ApiError::ClientCertificate`].
    pub fn from_pem(ca: &str, certificate: &str, key: &SecretString) -> Result<Self, crate::api::ApiError> {
        let trust = Trust::Ca { pem: ca.to_owned(), server_name: None };
        let client = ClientCertificate { certificate_pem: certificate, key_pem: key };
        let config = tls::client_config(&trust, Protocols::Http2, Some(client))?;
        Ok(Self { config: Arc::new(config) })
    }

    /// A connection to the member with this client URL. It is not mended when it ends.
    ///
    /// # Errors
    ///
    /// Why there is none, after [`CONNECT_TIMEOUT`] at the latest.
    pub async fn connect(&self, url: &str) -> Result<Channel, NoConnection> {
        self.connect_within(CONNECT_TIMEOUT, url).await
    }

    /// The same with a limit of its own.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn connect_within(&self, limit: Duration, url: &str) -> Result<Channel, NoConnection> {
        let connecting = async {
            let uri: Uri = url.parse().map_err(|_| Why::Url)?;
            let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| Why::Url)?;
            let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(Why::Url) };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(host.to_owned()).map_err(|_| Why::Url)?;
            let port = uri.port_u16().ok_or(Why::Url)?;
            let stream = TcpStream::connect((host, port)).await.map_err(|error| no_stream(&error))?;
            // Without effect on anything but speed.
            let _ = stream.set_nodelay(true);
            let stream = TlsConnector::from(Arc::clone(&self.config))
                .connect(name, stream)
                .await
                .map_err(|error| Why::Tls(tls::problem(&error)))?;
            let stream = Mutex::new(Some(TokioIo::new(stream)));
            let once = service_fn(move |_: Uri| {
                let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                async move { stream.ok_or(Spent) }
            });
            endpoint.connect_with_connector(once).await.map_err(|error| Why::Other(quoted(&chain(&error))))
        };
        tokio::time::timeout(limit, connecting)
            .await
            .unwrap_or(Err(Why::Timeout(limit)))
            .map_err(|why| NoConnection { endpoint: quoted(url), why })
    }
}

fn no_stream(error: &io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Why::Refused,
        _ => Why::Other(quoted(&error.to_string())),
    }
}

/// A channel's only connection ended before the request was sent on it.
#[derive(Debug, Clone, Copy, Error)]
#[error("the connection was closed")]
pub(super) struct Spent;

/// Whether a request that failed was never sent.
pub(super) fn was_not_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<Spent>() {
            return true;
        }
        cause = error.source();
    }
    false
}
