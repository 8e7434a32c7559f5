//! API clients: one pool of connections a level of trust, one client an identity.
//!
//! A [`Server`] is an API server together with how far its identity is checked. Clients made from one server share its
//! connections whatever bearer token or password they send, and a server that is asked before it can be verified has its
//! next connection made meanwhile ([`Server::open_ahead`]), so that a whole worker join needs two TLS handshakes at the same
//! time. A client certificate is part of a connection and therefore gets a pool of its own.
//!
//! Three things differ from what `kube` would do by itself: nothing is retried inside (callers have deadlines and tell
//! what they see), an answer is read only up to a limit, and TLS offers no hybrid key exchange (Go's servers would ask
//! for a second round trip to use it). Requests made side by side share an HTTP/2 connection; see [`connection`].

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http_body_util::BodyExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use connection::{Pool, Target};
pub use error::{ApiError, TlsProblem};
pub(crate) use error::{chain, quoted};
pub(crate) use tls::ALPN_HTTP2;
use tls::Protocols;

mod connection;
mod error;
pub mod retry;
#[cfg(test)]
pub(crate) mod scripted;
pub(crate) mod tls;
pub(crate) mod tunnel;
pub mod watch;

/// Largest answer that is read, in bytes. The largest thing a worker reads is a ConfigMap, which etcd limits to 1.5 MiB.
pub const ANSWER_LIMIT_BYTES: u64 = 4 << 20;
/// Largest answer while the server is not yet trusted, in bytes. A cluster-info with ten CAs has 30 KiB.
pub const UNVERIFIED_ANSWER_LIMIT_BYTES: u64 = 1 << 20;
/// A connection, TLS included, is made within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 4 });
/// An answer is complete within this time, as in kubeadm.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 4 } else { 10 });

/// A byte stream to an API server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How connections are made: TCP (through the environment's proxy where it says so), or the sandbox's in-memory pipe.
#[derive(Clone)]
pub enum Dialer {
    /// TCP.
    Tcp,
    /// Asks a function, which gets host and port.
    Pipe(PipeDialer),
}

/// Makes an in-memory stream to a host and port.
pub type PipeDialer = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync>;

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "Dialer::Tcp",
            Self::Pipe(_) => "Dialer::Pipe",
        })
    }
}

/// How far a server's identity is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Not at all: whatever is read must be proved by other means, and no credential may be sent.
    Unverified,
    /// By its certificate.
    Ca {
        /// CA certificates, PEM.
        pem: String,
        /// Name the certificate is checked against instead of the URL's host.
        server_name: Option<String>,
    },
}

/// Who asks.
#[derive(Clone)]
pub enum Identity {
    /// User `system:anonymous`.
    Anonymous,
    /// A bearer token.
    Bearer(SecretString),
    /// User name and password.
    Basic {
        /// Public.
        username: String,
        /// Secret.
        password: SecretString,
    },
    /// A client certificate.
    Certificate {
        /// Leaf first, PEM.
        certificate_pem: String,
        /// PEM: PKCS#8, PKCS#1 or SEC1.
        key_pem: SecretString,
    },
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Identity::Anonymous",
            Self::Bearer(_) => "Identity::Bearer",
            Self::Basic { .. } => "Identity::Basic",
            Self::Certificate { .. } => "Identity::Certificate",
        })
    }
}

/// An API server and how far it is trusted; holds the connections to it. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    dialer: Dialer,
    target: Target,
    trust: Trust,
    pool: Arc<Pool>,
    /// Of an unverified server: the connection to go on with when it is verified.
    ahead: Option<Arc<Pool>>,
}

impl Server {
    /// `url` is `https://host[:port][/prefix]`.
    ///
    /// # Errors
    ///
    /// [`ApiError::Url`], [`ApiError::Ca`]. Nothing is sent.
    pub fn new(dialer: Dialer, url: &str, trust: Trust) -> Result<Self, ApiError> {
        Self::at(dialer, Target::parse(url)?, trust)
    }

    fn at(dialer: Dialer, target: Target, trust: Trust) -> Result<Self, ApiError> {
        let pool = |protocols| Pool::new(dialer.clone(), target.clone(), &trust, protocols, None).map(Arc::new);
        let (pool, ahead) = match trust {
            Trust::Unverified => (pool(Protocols::Http1)?, Some(pool(Protocols::Http2)?)),
            Trust::Ca { .. } => (pool(Protocols::Http2)?, None),
        };
        Ok(Self { dialer, target, trust, pool, ahead })
    }

    /// Makes the connection that [`Server::verified`] goes on with, while the unverified server is still being asked.
    /// Nothing is sent over it; if it cannot be made, it will be made later, and the reason told then.
    pub async fn open_ahead(&self) {
        if let Some(ahead) = &self.ahead {
            let _ = ahead.open().await;
        }
    }

    /// This server, reached without being verified so far, once there is a CA: the certificate that it showed in its
    /// last handshake is checked now. So what was read from it is the verified server's word, and the connection made
    /// ahead, its certificate checked alike, needs no further handshake.
    ///
    /// # Errors
    ///
    /// [`ApiError::Ca`]; [`ApiError::Tls`] as a handshake would have ended.
    pub fn verified(&self, trust: Trust) -> Result<Self, ApiError> {
        self.pool.verify_peer(&trust)?;
        let server = Self::at(self.dialer.clone(), self.target.clone(), trust)?;
        // Behind a balancer it may be another machine's; then there will be a handshake to say what is wrong with it.
        if let Some(ahead) = &self.ahead
            && ahead.verify_peer(&server.trust).is_ok()
        {
            server.pool.take_over(ahead);
        }
        Ok(server)
    }

    /// Whether a URL is one that a server can be made from.
    ///
    /// # Errors
    ///
    /// [`ApiError::Url`].
    pub fn check_url(url: &str) -> Result<(), ApiError> {
        Target::parse(url).map(drop)
    }

    /// Whether a URL leads to the same host and port.
    pub fn is_at(&self, url: &str) -> bool {
        Target::parse(url).is_ok_and(|other| other == self.target)
    }

    /// A client for one identity.
    ///
    /// # Errors
    ///
    /// [`ApiError::ClientCertificate`] and [`ApiError::Credential`] for an identity that cannot be presented.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime; and when a credential is to be sent to an unverified server, which no caller may do.
    pub fn client(&self, identity: &Identity) -> Result<kube::Client, ApiError> {
        assert!(
            self.trust != Trust::Unverified || matches!(identity, Identity::Anonymous),
            "a credential is never sent before the server is verified"
        );
        let pool = match identity {
            Identity::Certificate { certificate_pem, key_pem } => {
                let certificate = tls::ClientCertificate { certificate_pem, key_pem };
                Arc::new(Pool::new(
                    self.dialer.clone(),
                    self.target.clone(),
                    &self.trust,
                    Protocols::Http2,
                    Some(certificate),
                )?)
            }
            _ => Arc::clone(&self.pool),
        };
        let authorization = authorization(identity)?;
        let limit = match self.trust {
            Trust::Unverified => UNVERIFIED_ANSWER_LIMIT_BYTES,
            Trust::Ca { .. } => ANSWER_LIMIT_BYTES,
        };
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (pool, authorization) = (Arc::clone(&pool), authorization.clone());
            async move {
                let (mut parts, body) = request.into_parts();
                let body = body.collect().await.map_err(|_| ApiError::malformed("the request"))?.to_bytes();
                if let Some(value) = authorization {
                    parts.headers.insert(AUTHORIZATION, value);
                }
                parts
                    .headers
                    .insert(USER_AGENT, HeaderValue::from_static(concat!("mortise/", env!("CARGO_PKG_VERSION"))));
                pool.exchange(http::Request::from_parts(parts, body), limit).await
            }
        });
        Ok(kube::Client::new(service, "default"))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Server({}, {})",
            self.target,
            if self.trust == Trust::Unverified { "unverified" } else { "verified" }
        )
    }
}

fn authorization(identity: &Identity) -> Result<Option<HeaderValue>, ApiError> {
    let text = match identity {
        Identity::Anonymous | Identity::Certificate { .. } => return Ok(None),
        Identity::Bearer(token) => format!("Bearer {}", token.expose_secret()),
        Identity::Basic { username, password } => {
            let pair = format!("{username}:{}", password.expose_secret());
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
    };
    // The cause would show the token.
    let mut value = HeaderValue::from_str(&text).map_err(|_| ApiError::Credential)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Sends a request and reads its answer, without `kube`'s habit of logging an answer that it cannot parse.
///
/// # Errors
///
/// Any [`ApiError`].
pub async fn ask<T: DeserializeOwned>(
    client: &kube::Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<T, ApiError> {
    let text = ask_text(client, request).await?;
    serde_json::from_str(&text).map_err(|error| ApiError::malformed(&error.to_string()))
}

/// As [`ask`], the answer's text unparsed.
///
/// # Errors
///
/// Any [`ApiError`].
pub async fn ask_text(
    client: &kube::Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<String, ApiError> {
    let request = request.map_err(|error| ApiError::malformed(&error.to_string()))?;
    Ok(client.request_text(request).await?)
}

/// `GET` of one object.
///
/// # Errors
///
/// Any [`ApiError`].
pub async fn get<K>(client: &kube::Client, namespace: Option<&str>, name: &str) -> Result<K, ApiError>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned,
{
    let path = kube::core::Request::new(K::url_path(&(), namespace));
    ask(client, path.get(name, &kube::api::GetParams::default())).await
}

/// `POST` of one object; the answer is the object as stored.
///
/// # Errors
///
/// Any [`ApiError`].
pub async fn create<K>(client: &kube::Client, namespace: Option<&str>, object: &K) -> Result<K, ApiError>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + serde::Serialize,
{
    let body = serde_json::to_vec(object).map_err(|error| ApiError::malformed(&error.to_string()))?;
    let path = kube::core::Request::new(K::url_path(&(), namespace));
    ask(client, path.create(&kube::api::PostParams::default(), body)).await
}

/// A complete answer, or one that is still coming.
type Answer = http_body_util::Either<http_body_util::Full<Bytes>, http_body_util::Limited<connection::Leased>>;
