//! A scripted API server for tests: TLS over an in-memory pipe, each expected request with its reply.
//!
//! A request that is not the next expected one is answered 500 and fails the test, as does one that never comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::{ALPN_HTTP2, Dialer, Stream};
use crate::config::{
    Discovery, Endpoint, IgnoredChecks, ImagePull, JoinSettings, NodeSettings, Timeouts, TlsBootstrapBy,
    TokenDiscovery, Wait,
};
use crate::join::{JoinContext, TrustedCluster};
use crate::journal::Journal;
use crate::node::{Machine, Node, NodeError, UnitAction, UnitState};
use crate::output::{Format, Reporter};
use crate::pki::{Certificate, Pin};

/// A CA.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Arc<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Arc::new(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// Of an API server that it signed for.
    pub(crate) fn cluster(&self, server: &str) -> TrustedCluster {
        TrustedCluster {
            server: server.into(),
            ca_pem: self.pem.clone(),
            tls_server_name: None,
            established_by: "a test".into(),
        }
    }

    pub(crate) fn pin(&self) -> Pin {
        Certificate::parse_pem(self.pem.as_bytes()).unwrap()[0].pin()
    }

    fn acceptor(&self, names: &[&str], years: (i32, i32), protocols: &[&[u8]]) -> TlsAcceptor {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Signs a request as kube-controller-manager does; `alter` spoils it.
    pub(crate) fn sign(&self, request_pem: &str, alter: impl FnOnce(&mut CertificateParams)) -> String {
        let mut request = rcgen::CertificateSigningRequestParams::from_pem(request_pem).unwrap();
        request.params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        request.params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        alter(&mut request.params);
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// A kubeconfig as kubeadm puts it into cluster-info.
    pub(crate) fn cluster_info_kubeconfig(&self, server: &str) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.pem);
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: \
             \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n"
        )
    }
}

/// An answer.
pub(crate) enum Reply {
    Json(u16, Value),
    Raw(u16, String),
    /// Lines of a watch, each after a pause, then its end.
    Watch(Vec<(Duration, Value)>),
    /// This many bytes of nothing useful.
    Flood(usize),
    /// The connection is cut.
    Cut,
    Never,
}

/// Answers a Status, as an API server does.
pub(crate) fn status(code: u16, reason: &str) -> Reply {
    Reply::Json(
        code,
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": format!("{reason}, as scripted")}),
    )
}

type Answering = Box<dyn FnOnce(&Request<Bytes>) -> Reply + Send>;

struct Expected {
    method: Method,
    path: String,
    when: When,
    reply: Answering,
}

impl Expected {
    fn fits(&self, request: &Request<Bytes>) -> bool {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let same_path = match self.path.strip_suffix('?') {
            Some(bare) => path.split('?').next() == Some(bare),
            None => path == self.path,
        };
        self.method == *request.method() && same_path
    }
}

/// When a request is expected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// After the one before.
    Next,
    /// Made at the same time as the one before; answered after it.
    Beside,
    /// As above, but its maker may have given up before it was sent.
    Perhaps,
}

/// A request that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
}

#[derive(Default)]
struct State {
    expected: Mutex<VecDeque<Expected>>,
    seen: Mutex<Vec<Seen>>,
    unexpected: Mutex<Vec<String>>,
    handshakes: Mutex<usize>,
    /// One of the expected requests was answered.
    answered: tokio::sync::Notify,
}

/// What listens at a host and port.
enum Listener {
    Api(TlsAcceptor),
    PlainHttp,
    Refuses,
    Silent,
}

/// Servers by `host:port`, one script for all.
pub(crate) struct Script {
    state: Arc<State>,
    listeners: BTreeMap<String, Listener>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), listeners: BTreeMap::new() }
    }

    /// An API server whose certificate has these names.
    pub(crate) fn listen(mut self, place: &str, authority: &Authority, names: &[&str]) -> Self {
        self.listeners
            .insert(place.into(), Listener::Api(authority.acceptor(names, (2020, 2100), &[ALPN_HTTP2, b"http/1.1"])));
        self
    }

    /// As above, but it knows HTTP/1.1 alone.
    pub(crate) fn listen_http1(mut self, place: &str, authority: &Authority, names: &[&str]) -> Self {
        self.listeners.insert(place.into(), Listener::Api(authority.acceptor(names, (2020, 2100), &[])));
        self
    }

    pub(crate) fn listen_expired(mut self, place: &str, authority: &Authority, names: &[&str]) -> Self {
        self.listeners
            .insert(place.into(), Listener::Api(authority.acceptor(names, (2020, 2021), &[ALPN_HTTP2, b"http/1.1"])));
        self
    }

    pub(crate) fn plain_http(mut self, place: &str) -> Self {
        self.listeners.insert(place.into(), Listener::PlainHttp);
        self
    }

    pub(crate) fn refuses(mut self, place: &str) -> Self {
        self.listeners.insert(place.into(), Listener::Refuses);
        self
    }

    pub(crate) fn silent(mut self, place: &str) -> Self {
        self.listeners.insert(place.into(), Listener::Silent);
        self
    }

    /// The next request. A path ending in `?` may have any query.
    pub(crate) fn on(
        self,
        method: Method,
        path: &str,
        reply: impl FnOnce(&Request<Bytes>) -> Reply + Send + 'static,
    ) -> Self {
        self.push(When::Next, method, path, reply)
    }

    /// A request made at the same time as the one before; it is answered after it.
    pub(crate) fn beside(
        self,
        method: Method,
        path: &str,
        reply: impl FnOnce(&Request<Bytes>) -> Reply + Send + 'static,
    ) -> Self {
        self.push(When::Beside, method, path, reply)
    }

    /// As [`Script::beside`], but it need not come.
    pub(crate) fn perhaps(self, method: Method, path: &str) -> Self {
        self.push(When::Perhaps, method, path, |_| Reply::Never)
    }

    fn push(
        self,
        when: When,
        method: Method,
        path: &str,
        reply: impl FnOnce(&Request<Bytes>) -> Reply + Send + 'static,
    ) -> Self {
        let expected = Expected { method, path: path.to_owned(), when, reply: Box::new(reply) };
        self.state.expected.lock().unwrap().push_back(expected);
        self
    }

    pub(crate) fn get(self, path: &str, reply: Reply) -> Self {
        self.on(Method::GET, path, move |_| reply)
    }

    pub(crate) fn start(self) -> Running {
        let listeners = Arc::new(self.listeners);
        let state = Arc::clone(&self.state);
        let dialer = Dialer::Pipe(Arc::new(move |host, port| {
            let (listeners, state) = (Arc::clone(&listeners), Arc::clone(&state));
            Box::pin(async move { connect(&listeners, state, &format!("{host}:{port}")) })
        }));
        Running { state: self.state, dialer }
    }
}

/// A running script.
pub(crate) struct Running {
    state: Arc<State>,
    pub(crate) dialer: Dialer,
}

impl Running {
    /// One more request, after those scripted so far.
    pub(crate) fn expect(
        &self,
        method: Method,
        path: &str,
        reply: impl FnOnce(&Request<Bytes>) -> Reply + Send + 'static,
    ) {
        let expected = Expected { method, path: path.to_owned(), when: When::Next, reply: Box::new(reply) };
        self.state.expected.lock().unwrap().push_back(expected);
    }

    pub(crate) fn handshakes(&self) -> usize {
        *self.state.handshakes.lock().unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Every expected request came, and no other.
    pub(crate) fn finish(self) {
        let unexpected = self.state.unexpected.lock().unwrap();
        assert!(unexpected.is_empty(), "unexpected requests: {unexpected:#?}\nseen: {:#?}", self.seen());
        let missing = self.state.expected.lock().unwrap();
        let missing = missing.iter().filter(|expected| expected.when != When::Perhaps);
        let missing: Vec<_> = missing.map(|expected| format!("{} {}", expected.method, expected.path)).collect();
        assert!(missing.is_empty(), "requests that did not come: {missing:#?}\nseen: {:#?}", self.seen());
    }
}

fn connect(listeners: &BTreeMap<String, Listener>, state: Arc<State>, place: &str) -> std::io::Result<Box<dyn Stream>> {
    let (near, mut far) = tokio::io::duplex(64 << 10);
    match listeners.get(place) {
        None => return Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no such host in the script")),
        Some(Listener::Refuses) => return Err(std::io::ErrorKind::ConnectionRefused.into()),
        Some(Listener::Silent) => {
            tokio::spawn(async move {
                let _kept = far;
                std::future::pending::<()>().await;
            });
        }
        Some(Listener::PlainHttp) => {
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut hello = [0; 64];
                let _ = far.read(&mut hello).await;
                let _ = far.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
            });
        }
        Some(Listener::Api(acceptor)) => {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(far).await else { return };
                *state.handshakes.lock().unwrap() += 1;
                let cut = Arc::new(tokio::sync::Notify::new());
                let cutter = Arc::clone(&cut);
                let service =
                    hyper::service::service_fn(move |request| answer(Arc::clone(&state), Arc::clone(&cutter), request));
                let serving = async {
                    if stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2) {
                        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
                    } else {
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                    }
                };
                // A client that went away is no failure of the script.
                tokio::select! {
                    _ = serving => {}
                    () = cut.notified() => {}
                }
            });
        }
    }
    Ok(Box::new(near))
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

async fn answer(
    state: Arc<State>,
    cut: Arc<tokio::sync::Notify>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let request = Request::from_parts(parts, body);
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let line = format!("{} {path}", request.method());
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    state.seen.lock().unwrap().push(Seen { line: line.clone(), authorization: header });
    let reply = loop {
        let answered = state.answered.notified();
        {
            let mut expected = state.expected.lock().unwrap();
            let place = expected.iter().position(|next| next.fits(&request));
            let Some(place) = place else { break None };
            let is_turn = expected.iter().take(place).all(|before| before.when != When::Next);
            if is_turn {
                let next = expected.remove(place).expect("it was found there");
                break Some((next.reply)(&request));
            }
            if expected[place].when == When::Next {
                break None;
            }
        }
        answered.await;
    };
    state.answered.notify_waiters();
    let Some(reply) = reply else {
        state.unexpected.lock().unwrap().push(line);
        return Ok(respond(500, full("unexpected")));
    };
    Ok(match reply {
        Reply::Json(code, value) => respond(code, full(&value.to_string())),
        Reply::Raw(code, text) => respond(code, full(&text)),
        Reply::Flood(bytes) => respond(200, full(&"x".repeat(bytes))),
        Reply::Watch(events) => {
            let lines = futures::stream::unfold(events.into_iter(), |mut events| async move {
                let (pause, event) = events.next()?;
                tokio::time::sleep(pause).await;
                Some((Ok(Frame::data(Bytes::from(format!("{event}\n")))), events))
            });
            respond(200, http_body_util::BodyExt::boxed_unsync(StreamBody::new(lines)))
        }
        Reply::Cut => {
            // Answers given before are to reach the client.
            tokio::time::sleep(Duration::from_millis(10)).await;
            cut.notify_one();
            std::future::pending().await
        }
        Reply::Never => std::future::pending().await,
    })
}

fn full(text: &str) -> Body {
    http_body_util::Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed_unsync()
}

fn respond(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

struct StillMachine;

impl Machine for StillMachine {
    fn hostname(&self) -> Result<String, NodeError> {
        Ok("n1".into())
    }

    fn unit<'a>(&'a self, _: UnitAction, _: &'a str) -> BoxFuture<'a, Result<(), NodeError>> {
        Box::pin(async { Ok(()) })
    }

    fn unit_state<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<UnitState, NodeError>> {
        Box::pin(async { Err(NodeError::NoInit) })
    }

    fn unit_log<'a>(&'a self, _: &'a str, _: usize) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async { Vec::new() })
    }

    fn healthz<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<u16, std::io::Error>> {
        Box::pin(async { Ok(200) })
    }
}

/// A machine in a directory that goes away with the first value.
pub(crate) fn test_node() -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::new(directory.path().to_owned(), Arc::new(StillMachine), Arc::new(Journal::in_memory()));
    (directory, node)
}

/// The same machine in a dry run.
pub(crate) fn planning_node(root: &std::path::Path, plan: &Arc<crate::plan::Plan>) -> Node {
    Node::planning(root.to_owned(), Arc::new(StillMachine), Arc::clone(plan))
}

/// A bootstrap token whose secret is a canary.
pub(crate) const TOKEN: &str = "abcdef.0canary0canary00";

pub(crate) fn token_discovery(endpoint: &str, pins: Vec<Pin>) -> Discovery {
    let endpoints = endpoint
        .split(',')
        .map(|endpoint| {
            let (host, port) = endpoint.rsplit_once(':').unwrap();
            Endpoint { host: host.into(), port: port.parse().unwrap() }
        })
        .collect();
    let unsafe_skip_ca_verification = pins.is_empty();
    Discovery::Token(TokenDiscovery { token: TOKEN.parse().unwrap(), endpoints, pins, unsafe_skip_ca_verification })
}

/// A join of node `n1` on a machine of its own, which fails fast unless changed.
pub(crate) fn test_context(dialer: &Dialer, discovery: Discovery) -> (tempfile::TempDir, JoinContext) {
    let (directory, node) = test_node();
    let token = match &discovery {
        Discovery::Token(token) => Some(token.token.clone()),
        _ => None,
    };
    let settings = JoinSettings {
        node: NodeSettings {
            name: "n1".into(),
            cri_socket: None,
            taints: None,
            kubelet_extra_args: Vec::new(),
            image_pull: ImagePull::default(),
        },
        discovery,
        tls_bootstrap_token: token,
        tls_bootstrap_by: TlsBootstrapBy::Host,
        ca_cert_path: "/etc/kubernetes/pki/ca.crt".into(),
        skip_phases: Vec::new(),
        patches: None,
        timeouts: Timeouts::default(),
        ignore: IgnoredChecks::default(),
        dry_run: false,
        control_plane: None,
        wait: Wait::Kubelet,
        bundle: None,
        fail_fast: true,
        plugins: Vec::new(),
        policy: crate::plugin::policy::Policy::default(),
        root: directory.path().to_owned(),
    };
    let reporter = Reporter::new(Format::Text, false);
    (directory, JoinContext { settings: Arc::new(settings), node, reporter, dialer: dialer.clone() })
}

impl JoinContext {
    /// Changes the settings of a test.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut JoinSettings)) -> Self {
        change(Arc::get_mut(&mut self.settings).expect("settings are changed before they are shared"));
        self
    }
}
