//! A small API client of one identity: what the simulated kubelet and the conformance suite send.
//!
//! It shares no code with the client of a join, so that one's mistakes do not hide the other's. Each request has a
//! connection of its own.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use thiserror::Error;
use tokio_rustls::TlsConnector;

use crate::api::{Dialer, Stream};

/// Largest line of a watch.
const MAX_EVENT_BYTES: usize = 3 * 1024 * 1024;

/// Who asks.
#[derive(Clone)]
pub enum Identity {
    /// `system:anonymous`.
    Anonymous,
    /// A bearer token.
    Bearer(SecretString),
    /// A client certificate; the key may be in the same text.
    Certificate {
        /// PEM.
        certificate_pem: String,
        /// PEM.
        key_pem: SecretString,
    },
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The server's URL is not `https://host:port`.
    #[error("`{0}` is not the https URL of a server")]
    Server(String),
    /// The CA, the certificate or the key is no PEM, or they do not fit.
    #[error("cannot use the {what}: {why}")]
    Credentials {
        /// `CA certificates`, `client certificate`, `client key`.
        what: &'static str,
        /// Without secrets.
        why: String,
    },
    /// No connection, or TLS failed.
    #[error("cannot connect to `{server}`")]
    Connect {
        /// URL.
        server: String,
        /// The cause.
        source: io::Error,
    },
    /// The connection broke.
    #[error("cannot exchange HTTP with the server")]
    Http(#[source] hyper::Error),
    /// The method, path or header cannot be sent.
    #[error("cannot build the request")]
    Request(#[source] http::Error),
    /// A watch sent something that is no event.
    #[error("the watch sent no JSON event")]
    Event,
}

/// An answer, its body read.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// JSON, or a string of what else was sent.
    pub body: Value,
}

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    dialer: Dialer,
    server: Uri,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    authorization: Option<SecretString>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.server)
    }
}

impl Client {
    /// A client that trusts the CA certificates of `ca_pem`. `tls_name` replaces the host of `server` in TLS.
    ///
    /// # Errors
    ///
    /// [`ClientError::Server`], [`ClientError::Credentials`].
    pub fn new(
        dialer: Dialer,
        server: &str,
        tls_name: Option<&str>,
        ca_pem: &str,
        identity: &Identity,
    ) -> Result<Self, ClientError> {
        let bad_server = || ClientError::Server(server.to_owned());
        let uri: Uri = server.parse().map_err(|_| bad_server())?;
        if uri.scheme_str() != Some("https") {
            return Err(bad_server());
        }
        let host = uri.host().ok_or_else(bad_server)?.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(tls_name.unwrap_or(&host).to_owned()).map_err(|_| bad_server())?;
        let bad = |what, why: String| ClientError::Credentials { what, why };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| bad("CA certificates", error.to_string()))?;
            roots.add(certificate).map_err(|error| bad("CA certificates", error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("CA certificates", "there is none".into()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default protocol versions")
            .with_root_certificates(roots);
        let mut tls = match identity {
            Identity::Anonymous | Identity::Bearer(_) => builder.with_no_client_auth(),
            Identity::Certificate { certificate_pem, key_pem } => {
                let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| bad("client certificate", error.to_string()))?;
                let key = PrivateKeyDer::from_pem_slice(key_pem.expose_secret().as_bytes())
                    .map_err(|error| bad("client key", error.to_string()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| bad("client certificate", error.to_string()))?
            }
        };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let authorization = match identity {
            Identity::Bearer(token) => Some(format!("Bearer {}", token.expose_secret()).into()),
            _ => None,
        };
        Ok(Self { dialer, server: uri, name, tls: Arc::new(tls), authorization })
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    ///
    /// Any but [`ClientError::Event`].
    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.send(Method::GET, path, None).await
    }

    /// Sends a request; the body comes with its content type.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn send(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Answer, ClientError> {
        let (code, body) = self.open(method, path, body).await?;
        let bytes = body.collect().await.map_err(ClientError::Http)?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Ok(Answer { code, body })
    }

    /// Starts a watch: `path` has `watch=true` in its query.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]; a status other than 200 is the first event.
    pub async fn watch(&self, path: &str) -> Result<Events, ClientError> {
        let (code, body) = self.open(Method::GET, path, None).await?;
        Ok(Events { code, body, read: Vec::new() })
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<(u16, Incoming), ClientError> {
        let connect = |source| ClientError::Connect { server: self.server.to_string(), source };
        let stream = self.dial().await.map_err(connect)?;
        let connector = TlsConnector::from(self.tls.clone());
        let stream = connector.connect(self.name.clone(), stream).await.map_err(connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Http)?;
        // Its errors arrive at the request, too.
        tokio::spawn(async move { drop(connection.await) });
        let host = self.server.authority().map_or("", http::uri::Authority::as_str);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.expose_secret());
        }
        let content = match body {
            Some((content_type, body)) => {
                request = request.header(header::CONTENT_TYPE, content_type);
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(content)).map_err(ClientError::Request)?;
        let response = sender.send_request(request).await.map_err(ClientError::Http)?;
        Ok((response.status().as_u16(), response.into_body()))
    }

    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let host = self.server.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = self.server.port_u16().unwrap_or(443);
        match &self.dialer {
            Dialer::Tcp => Ok(Box::new(tokio::net::TcpStream::connect((host, port)).await?)),
            Dialer::Pipe(dial) => dial(host, port).await,
        }
    }
}

/// A running watch.
pub struct Events {
    /// HTTP status of the answer.
    pub code: u16,
    body: Incoming,
    read: Vec<u8>,
}

impl Events {
    /// The next event; none: the server ended the watch.
    ///
    /// # Errors
    ///
    /// [`ClientError::Http`], [`ClientError::Event`].
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(|_| ClientError::Event);
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(ClientError::Http)?;
                    self.read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                    if self.read.len() > MAX_EVENT_BYTES {
                        return Err(ClientError::Event);
                    }
                }
                None if self.read.is_empty() => return Ok(None),
                None => {
                    let rest = std::mem::take(&mut self.read);
                    return serde_json::from_slice(&rest).map(Some).map_err(|_| ClientError::Event);
                }
            }
        }
    }
}
