//! A control plane inside this process: what a worker's join asks of an API server, over in-memory TLS connections.
//!
//! It stores ConfigMaps, Secrets, Nodes, Leases and certificate signing requests, authenticates bootstrap tokens and
//! client certificates, applies the roles that `kubeadm init` binds, and does what kube-controller-manager does to
//! requests and tokens. It speaks JSON only, over HTTP/2 or HTTP/1.1. The same suite (`tests/api-conformance`) runs against it and
//! against kube-apiserver.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api::{ALPN_HTTP2, Dialer, Stream};
use crate::config::Endpoint;
use crate::pki::Pin;
use crate::token::BootstrapToken;

use self::handle::{Body, Reply, State, Watch};
use self::request::{Attributes, Query};
use self::status::Status;
use self::store::Store;
use self::user::RequestedCertificate;

mod access;
mod handle;
mod objects;
mod patch;
mod request;
mod signer;
mod status;
mod store;
mod user;

/// Largest request body, as of the API server.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// Bytes that one direction of a connection holds.
const PIPE_BYTES: usize = 64 * 1024;
/// How long a watch lasts that names no time of its own.
const WATCH_TIME: Duration = Duration::from_secs(30 * 60);

/// What kube-controller-manager would do with a kubelet's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approval {
    /// Approve and sign.
    Automatic,
    /// Nothing, until somebody approves; then sign.
    Off,
    /// Deny.
    Deny {
        /// Of the condition.
        reason: String,
        /// Of the condition.
        message: String,
    },
    /// Approve, and fail to sign.
    Fail {
        /// Of the condition.
        reason: String,
        /// Of the condition.
        message: String,
    },
}

/// A bootstrap token as `kubeadm token create` would make it.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// Id and secret.
    pub token: BootstrapToken,
    /// Lifetime from the start.
    pub ttl: Duration,
    /// `signing`, `authentication`.
    pub usages: Vec<String>,
    /// Groups beside `system:bootstrappers`.
    pub groups: Vec<String>,
}

impl TokenOptions {
    /// kubeadm's defaults: 24 hours, both usages, the group that may join nodes.
    pub fn new(token: BootstrapToken) -> Self {
        Self {
            token,
            ttl: Duration::from_secs(24 * 3600),
            usages: vec!["signing".into(), "authentication".into()],
            groups: vec![user::GROUP_JOINING.into()],
        }
    }
}

/// A bootstrap token that nobody knows yet.
pub fn random_token() -> BootstrapToken {
    let text = format!("{}.{}", store::random_name(6), store::random_name(16));
    text.parse().expect("the alphabet is part of `[a-z0-9]`")
}

/// What kind of cluster it is.
#[derive(Debug, Clone)]
pub struct ControlPlaneOptions {
    /// Name and port it is reached by; any other is refused.
    pub endpoint: Endpoint,
    /// For example `v1.37.2`.
    pub kubernetes_version: String,
    /// Its bootstrap tokens.
    pub tokens: Vec<TokenOptions>,
    /// What happens to certificate requests.
    pub approval: Approval,
}

impl ControlPlaneOptions {
    /// A cluster at `api.sandbox.test:6443` that approves by itself and has this token.
    pub fn new(token: BootstrapToken) -> Self {
        Self {
            endpoint: Endpoint { host: "api.sandbox.test".into(), port: 6443 },
            kubernetes_version: "v1.37.2".into(),
            tokens: vec![TokenOptions::new(token)],
            approval: Approval::Automatic,
        }
    }
}

/// A client certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// Public.
    pub certificate_pem: String,
    /// Secret.
    pub key_pem: SecretString,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    /// For example `GET`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// User name; none: 401.
    pub user: Option<String>,
    /// Of the answer.
    pub code: u16,
}

/// What has arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// TLS handshakes that were finished.
    pub handshakes: usize,
    /// In the order of their answers.
    pub requests: Vec<SeenRequest>,
}

/// A running control plane. It lives as long as a clone of it, its dialer or a connection does.
#[derive(Clone)]
pub struct ControlPlane {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    state: Mutex<State>,
    revision: watch::Sender<u64>,
    verifier: Arc<RequestedCertificate>,
    tls: TlsAcceptor,
    traffic: Mutex<Traffic>,
}

impl ControlPlane {
    /// Makes the authority, the server's certificate and the objects of a new cluster.
    pub fn start(options: &ControlPlaneOptions) -> Self {
        let authority = signer::Authority::new();
        let server = format!("https://{}", options.endpoint);
        let mut store = Store::default();
        objects::seed(&mut store, options, &server, authority.pem());
        store.forget_changes();
        let verifier = Arc::new(RequestedCertificate::new(authority.certificate()));
        let tls = server_tls(&authority, &options.endpoint, verifier.clone());
        let revision = watch::Sender::new(store.revision());
        let state =
            State { store, approval: options.approval.clone(), authority, version: options.kubernetes_version.clone() };
        Self {
            inner: Arc::new(Inner {
                endpoint: options.endpoint.clone(),
                state: Mutex::new(state),
                revision,
                verifier,
                tls: TlsAcceptor::from(Arc::new(tls)),
                traffic: Mutex::default(),
            }),
        }
    }

    /// Where it is reached.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Its CA certificate, PEM.
    pub fn ca_pem(&self) -> String {
        self.inner.state().authority.pem().to_owned()
    }

    /// The pin of its CA.
    pub fn pin(&self) -> Pin {
        let state = self.inner.state();
        let (_, ca) = x509_parser::parse_x509_certificate(state.authority.certificate())
            .expect("the sandbox's own CA certificate is well-formed");
        Pin::of_spki(ca.public_key().raw)
    }

    /// Connections to it. Any other host or port is refused as by a machine that listens to nothing.
    pub fn dialer(&self) -> Dialer {
        let inner = self.inner.clone();
        Dialer::Pipe(Arc::new(move |host, port| {
            let inner = inner.clone();
            async move {
                if host != inner.endpoint.host || port != inner.endpoint.port {
                    let message = format!("nothing listens on {host}:{port} in the sandbox");
                    return Err(io::Error::new(io::ErrorKind::ConnectionRefused, message));
                }
                let (near, far) = tokio::io::duplex(PIPE_BYTES);
                tokio::spawn(inner.serve(far));
                Ok(Box::new(near) as Box<dyn Stream>)
            }
            .boxed()
        }))
    }

    /// A certificate of group `system:masters`, which may do everything.
    pub fn administrator(&self) -> ClientCertificate {
        self.client_certificate("kubernetes-admin", user::GROUP_MASTERS)
    }

    /// A certificate for a user of one group, signed by the cluster's CA.
    pub fn client_certificate(&self, user: &str, group: &str) -> ClientCertificate {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let (certificate, key) = self.inner.state().authority.issue(user, Some(group), &[], usage);
        ClientCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem().into() }
    }

    /// From now on.
    pub fn set_approval(&self, approval: Approval) {
        self.inner.state().approval = approval;
    }

    /// What has arrived so far.
    pub fn traffic(&self) -> Traffic {
        self.inner.traffic().clone()
    }
}

fn server_tls(authority: &signer::Authority, endpoint: &Endpoint, verifier: Arc<RequestedCertificate>) -> ServerConfig {
    let names = [endpoint.host.as_str(), "kubernetes", "kubernetes.default.svc", "10.96.0.1"].map(str::to_owned);
    let (certificate, key) = authority.issue("kube-apiserver", None, &names, ExtendedKeyUsagePurpose::ServerAuth);
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default protocol versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("the key was made for the certificate");
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), b"http/1.1".to_vec()];
    config
}

type ReplyBody = UnsyncBoxBody<Bytes, Infallible>;

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, stream: tokio::io::DuplexStream) {
        // A client that breaks the handshake or the connection is told by its own end of the pipe.
        let Ok(stream) = self.tls.accept(stream).await else { return };
        self.traffic().handshakes += 1;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
        let service = service_fn(|request| {
            let (inner, certificate) = (self.clone(), certificate.clone());
            async move { Ok::<_, Infallible>(inner.respond(request, certificate.as_ref()).await) }
        });
        let _ = if stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2) {
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
        } else {
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
        };
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Response<ReplyBody> {
        let (parts, body) = request.into_parts();
        let content = Limited::new(body, MAX_BODY_BYTES).collect().await;
        let mut user_name = None;
        let reply = match content {
            Ok(content) => self.answer(&parts, &content.to_bytes(), certificate, &mut user_name),
            Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large()),
            Err(error) => Err(Status::bad_request(error.to_string())),
        };
        let reply = reply.unwrap_or_else(|status| Reply::Json(status.code, status.body));
        let (code, content_type, body) = match reply {
            Reply::Json(code, value) => (code, "application/json", whole(value.to_string())),
            Reply::Text(code, text) => (code, "text/plain; charset=utf-8", whole(text)),
            Reply::Watch(watch) => (200, "application/json", self.clone().events(watch)),
        };
        self.traffic().requests.push(SeenRequest {
            method: parts.method.to_string(),
            path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            user: user_name,
            code,
        });
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(code).expect("every reply has a status of three digits");
        let content_type = header::HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }

    fn answer(
        &self,
        parts: &http::request::Parts,
        bytes: &[u8],
        certificate: Option<&CertificateDer<'_>>,
        user_name: &mut Option<String>,
    ) -> Result<Reply, Status> {
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let attributes = Attributes::of(&parts.method, parts.uri.path(), &query);
        let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        let mut state = self.state();
        objects::reconcile_tokens(&mut state.store);
        let user = user::authenticate(certificate, text(header::AUTHORIZATION), &self.verifier, &state.store)
            .ok_or_else(Status::unauthorized)?;
        *user_name = Some(user.name.clone());
        let reply = state.handle(&user, &attributes, &query, &Body { content_type, bytes });
        self.revision.send_if_modified(|revision| {
            let changed = *revision != state.store.revision();
            *revision = state.store.revision();
            changed
        });
        reply
    }

    /// Events one a line, as they happen.
    fn events(self: Arc<Self>, watch: Watch) -> ReplyBody {
        let time = watch.query.timeout_seconds.map_or(WATCH_TIME, Duration::from_secs);
        let deadline = tokio::time::Instant::now() + time;
        let revision = self.revision.subscribe();
        let first = watch.first.clone();
        let later =
            stream::unfold((self, watch, revision, false), move |(inner, mut watch, mut revision, ended)| async move {
                if ended {
                    return None;
                }
                loop {
                    revision.mark_unchanged();
                    let news = inner.news(&mut watch);
                    match news {
                        Ok(events) if events.is_empty() => {}
                        Ok(events) => return Some((events, (inner, watch, revision, false))),
                        Err(status) => {
                            let event = json!({"type": "ERROR", "object": status.body});
                            return Some((vec![event], (inner, watch, revision, true)));
                        }
                    }
                    tokio::time::timeout_at(deadline, revision.changed()).await.ok()?.ok()?;
                }
            });
        let frames = stream::once(async { first })
            .chain(later)
            .flat_map(stream::iter)
            .map(|event: Value| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))));
        StreamBody::new(frames).boxed_unsync()
    }

    fn news(&self, watch: &mut Watch) -> Result<Vec<Value>, Status> {
        let state = self.state();
        let changes = state.store.changes_since(watch.after)?;
        let events = changes
            .filter(|change| change.key.kind == watch.kind)
            .filter(|change| watch.namespace.is_empty() || change.key.namespace == watch.namespace)
            .filter(|change| handle::selects(&watch.query, &change.object))
            .map(|change| json!({"type": change.event, "object": change.object}))
            .collect();
        watch.after = watch.after.max(state.store.revision());
        Ok(events)
    }
}

fn whole(content: impl Into<Bytes>) -> ReplyBody {
    Full::new(content.into()).boxed_unsync()
}

#[cfg(test)]
mod tests;
