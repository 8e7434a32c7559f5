//! Connections to one server: dialled, kept, and lent to requests.
//!
//! `hyper-util`'s pool hands a connection back from a background task, so that a request that follows at once may find
//! none and open a second one; a join would then make more TLS handshakes than it needs, now and then. Here an HTTP/2
//! connection (every kube-apiserver has it) is shared by all requests. An HTTP/1.1 connection (a proxy in between may
//! speak nothing else) goes back when the last byte of an answer is taken out, and one request at a time is made, so
//! that requests made side by side need no second connection; only a watch keeps one to itself.
//!
//! A connection made before trust may become a verified one: the handshake proved that the peer has the key of its
//! certificate, and the certificate is kept, so it can be checked as soon as there is a CA to check it by. What is asked
//! before trust goes over HTTP/1.1, since kube-apiserver closes an HTTP/2 connection after an anonymous request
//! (`UnauthenticatedHTTP2DOSMitigation`); so one connection asks, and one is made beside it to go on with.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::MutexGuard;
use tokio_rustls::TlsConnector;

use super::error::{ApiError, TlsProblem, chain, quoted};
use super::tls::{self, ClientCertificate, Protocols};
use super::tunnel;
use super::{Answer, CONNECT_TIMEOUT, Dialer, REQUEST_TIMEOUT, Stream, Trust};

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    host: String,
    port: u16,
    prefix: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, ApiError> {
        let bad = |reason| ApiError::Url { url: quoted(url), reason };
        let uri: Uri = url.parse().map_err(|_| bad("it does not parse"))?;
        if uri.scheme_str() != Some("https") {
            return Err(bad("its scheme is not `https`"));
        }
        if uri.query().is_some() {
            return Err(bad("it has a query"));
        }
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it has a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        let given_port = authority.as_str().rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = match authority.port_u16() {
            Some(0) => return Err(bad("its port is 0")),
            Some(port) => port,
            None if given_port => return Err(bad("its port is no number below 65536")),
            None => 443,
        };
        Ok(Self { host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Pause before the next address of a name is tried beside the one before it; as in Go.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(300);
/// Largest sum of one watch's events, in bytes; a watch is short and of one object.
const WATCH_LIMIT_BYTES: usize = 16 << 20;

/// An HTTP/2 connection that is waited on is asked for a sign of life this often, and must give one within this time.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

type RequestBody = Full<Bytes>;

/// One end of a connection.
enum Sender {
    One(http1::SendRequest<RequestBody>),
    Two(http2::SendRequest<RequestBody>),
}

impl Sender {
    /// Waits until it takes a request.
    async fn ready(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::One(sender) => sender.try_send_request(request).await,
            Self::Two(sender) => sender.try_send_request(request).await,
        }
    }
}

/// What is kept between requests.
#[derive(Default)]
struct Kept {
    idle: Vec<http1::SendRequest<RequestBody>>,
    shared: Option<http2::SendRequest<RequestBody>>,
    /// Certificates of the peer of the newest connection, its own first.
    peer: Vec<CertificateDer<'static>>,
}

impl Kept {
    fn has_connection(&self) -> bool {
        self.shared.as_ref().is_some_and(|sender| !sender.is_closed())
            || self.idle.iter().any(|sender| !sender.is_closed())
    }
}

/// Connections to one server with one TLS configuration.
pub(super) struct Pool {
    dialer: Dialer,
    target: Target,
    name: ServerName<'static>,
    tls: TlsConnector,
    kept: Mutex<Kept>,
    /// Held while a connection is made, and with HTTP/1.1 until the answer has been read.
    turn: tokio::sync::Mutex<()>,
}

impl Pool {
    pub(super) fn new(
        dialer: Dialer,
        target: Target,
        trust: &Trust,
        protocols: Protocols,
        client: Option<ClientCertificate<'_>>,
    ) -> Result<Self, ApiError> {
        let config = tls::client_config(trust, protocols, client)?;
        let name = tls::server_name(trust, &target.host)?;
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { dialer, target, name, tls, kept: Mutex::default(), turn: tokio::sync::Mutex::default() })
    }

    /// Makes a connection, if there is none, for requests to come.
    pub(super) async fn open(&self) -> Result<(), ApiError> {
        let _turn = self.turn.lock().await;
        if self.kept().has_connection() {
            return Ok(());
        }
        let sender = self.connect().await?;
        let mut kept = self.kept();
        match sender {
            Sender::One(sender) => kept.idle.push(sender),
            Sender::Two(sender) => kept.shared = Some(sender),
        }
        Ok(())
    }

    /// Whether the peer of the newest connection is one to trust.
    pub(super) fn verify_peer(&self, trust: &Trust) -> Result<(), ApiError> {
        tls::verify_peer(trust, &self.kept().peer, &self.name)
            .map_err(|problem| ApiError::Tls { endpoint: self.target.to_string(), problem })
    }

    /// Takes the connections of another pool whose peer was verified.
    pub(super) fn take_over(&self, verified: &Self) {
        *self.kept() = std::mem::take(&mut *verified.kept());
    }

    /// Sends a request; the answer is complete unless it is a watch.
    pub(super) async fn exchange(
        self: Arc<Self>,
        request: Request<Bytes>,
        limit: u64,
    ) -> Result<Response<Answer>, ApiError> {
        let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        let turn = self.turn.lock().await;
        let (parts, body, sender, turn) = self.timed(self.send(request, turn)).await?;
        let lease = sender.map(|sender| (sender, Arc::clone(&self)));
        let leased = Leased { incoming: body, lease };
        if is_watch && parts.status.is_success() {
            return Ok(Response::from_parts(parts, Either::Right(Limited::new(leased, WATCH_LIMIT_BYTES))));
        }
        let limit_bytes = usize::try_from(limit).unwrap_or(usize::MAX);
        let read = async {
            Limited::new(leased, limit_bytes).collect().await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    return ApiError::TooLarge { limit };
                }
                self.broken(&chain(&*error))
            })
        };
        let whole = self.timed(read).await?.to_bytes();
        drop(turn);
        Ok(Response::from_parts(parts, Either::Left(Full::new(whole))))
    }

    /// Work that is bounded in time. What took too long, or broke, is not trusted to carry the next request.
    async fn timed<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        let result = tokio::time::timeout(REQUEST_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| Err(self.timeout("answer", REQUEST_TIMEOUT)));
        if matches!(result, Err(ApiError::Timeout { .. } | ApiError::Broken { .. })) {
            self.kept().shared = None;
        }
        result
    }

    /// Sends on a kept connection, else on a new one. A kept connection may have been closed meanwhile: what was
    /// certainly not answered on it, and what may be asked twice, is asked again on a new one.
    async fn send<'a>(&'a self, request: Request<Bytes>, turn: MutexGuard<'a, ()>) -> Result<Sent<'a>, ApiError> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let path = format!("{}{path}", self.target.prefix);
        let target = self.target.to_string();
        let host = HeaderValue::from_str(&target).map_err(|_| ApiError::malformed("the host"))?;
        let build = |sender: &Sender| {
            let mut parts = parts.clone();
            // The place of the host differs (RFC 9110 section 7.2, RFC 9113 section 8.3.1).
            let uri = match sender {
                Sender::One(_) => {
                    parts.headers.insert(header::HOST, host.clone());
                    path.parse()
                }
                Sender::Two(_) => format!("https://{target}{path}").parse(),
            };
            parts.uri = uri.map_err(|_| ApiError::malformed("the request's path"))?;
            Ok::<_, ApiError>(Request::from_parts(parts, Full::new(body.clone())))
        };

        let mut turn = Some(turn);
        while let Some(mut sender) = self.take_kept() {
            if !sender.ready().await {
                self.kept().shared = None;
                continue;
            }
            if matches!(sender, Sender::Two(_)) {
                turn = None;
            }
            match sender.send(build(&sender)?).await {
                Ok(response) => return Ok(sent(response, sender, turn)),
                Err(mut error) => {
                    self.kept().shared = None;
                    let unsent = error.take_message().is_some();
                    if !unsent && parts.method != http::Method::GET {
                        return Err(self.broken(&chain(error.error())));
                    }
                }
            }
            if turn.is_none() {
                turn = Some(self.turn.lock().await);
            }
        }
        let mut sender = self.connect().await?;
        if let Sender::Two(shared) = &sender {
            self.kept().shared = Some(shared.clone());
            turn = None;
        }
        let response = sender.send(build(&sender)?).await.map_err(|error| self.broken(&chain(error.error())))?;
        Ok(sent(response, sender, turn))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_kept(&self) -> Option<Sender> {
        let mut kept = self.kept();
        kept.shared.clone().map(Sender::Two).or_else(|| kept.idle.pop().map(Sender::One))
    }

    async fn connect(&self) -> Result<Sender, ApiError> {
        let connecting = async {
            let stream = self.dial().await?;
            let stream = self
                .tls
                .connect(self.name.clone(), stream)
                .await
                .map_err(|error| ApiError::Tls { endpoint: self.target.to_string(), problem: tls::problem(&error) })?;
            let (_, session) = stream.get_ref();
            let peer = session.peer_certificates().unwrap_or_default();
            self.kept().peer = peer.iter().map(|certificate| certificate.clone().into_owned()).collect();
            let speaks_two = session.alpn_protocol() == Some(tls::ALPN_HTTP2);
            let broken = |error: hyper::Error| self.broken(&chain(&error));
            // Whoever waits for an answer is told by the answer how the connection ended.
            if speaks_two {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.timer(TokioTimer::new()).keep_alive_interval(SIGN_OF_LIFE).keep_alive_timeout(SIGN_OF_LIFE);
                let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
                tokio::spawn(async move { drop(connection.await) });
                Ok(Sender::Two(sender))
            } else {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
                tokio::spawn(async move { drop(connection.await) });
                Ok(Sender::One(sender))
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(self.timeout("accept a connection", CONNECT_TIMEOUT)))
    }

    async fn dial(&self) -> Result<Box<dyn Stream>, ApiError> {
        let Target { host, port, .. } = &self.target;
        match &self.dialer {
            Dialer::Pipe(open) => open(host.clone(), *port).await.map_err(|error| self.unreachable(error)),
            Dialer::Tcp => match tunnel::proxy_for(host, *port) {
                None => Ok(Box::new(self.dial_tcp(host, *port).await?)),
                Some(proxy) => {
                    let refused = |reason: String| ApiError::Proxy {
                        proxy: proxy.to_string(),
                        endpoint: self.target.to_string(),
                        reason,
                    };
                    let (host, port) = tunnel::address(proxy).map_err(|reason| refused(reason.to_owned()))?;
                    let mut stream = self.dial_tcp(host, port).await.map_err(|error| refused(chain(&error)))?;
                    let tunnel = tunnel::open_tunnel(&mut stream, proxy, &self.target.to_string()).await;
                    tunnel.map_err(|error| refused(quoted(&error.to_string())))?;
                    Ok(Box::new(stream))
                }
            },
        }
    }

    async fn dial_tcp(&self, host: &str, port: u16) -> Result<TcpStream, ApiError> {
        let dns = |source| ApiError::Dns { host: host.to_owned(), source };
        let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(dns)?.collect();
        // One address that swallows packets must not use up the time of the others (RFC 8305, without its sorting).
        let attempts = addresses.into_iter().zip(0u32..).map(|(address, place)| async move {
            tokio::time::sleep(NEXT_ADDRESS_AFTER * place).await;
            TcpStream::connect(address).await
        });
        let mut attempts: FuturesUnordered<_> = attempts.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let stream = loop {
            match attempts.next().await {
                Some(Ok(stream)) => break stream,
                Some(Err(error)) => last = error,
                None => return Err(self.unreachable(last)),
            }
        };
        // Requests are small and each waits for its answer.
        stream.set_nodelay(true).map_err(|error| self.unreachable(error))?;
        Ok(stream)
    }

    fn unreachable(&self, error: io::Error) -> ApiError {
        let endpoint = self.target.to_string();
        match error.kind() {
            io::ErrorKind::ConnectionRefused => ApiError::Refused { endpoint },
            io::ErrorKind::TimedOut => self.timeout("accept a connection", CONNECT_TIMEOUT),
            io::ErrorKind::NotFound => ApiError::Dns { host: self.target.host.clone(), source: error },
            _ => ApiError::Connect { endpoint, source: error },
        }
    }

    fn timeout(&self, what: &'static str, limit: Duration) -> ApiError {
        ApiError::Timeout { endpoint: self.target.to_string(), what, seconds: limit.as_secs() }
    }

    fn broken(&self, reason: &str) -> ApiError {
        let endpoint = self.target.to_string();
        // A server that wants a client certificate says so only after the handshake in TLS 1.3.
        if reason.contains("received fatal alert") {
            return ApiError::Tls { endpoint, problem: TlsProblem::Other(quoted(reason)) };
        }
        ApiError::Broken { endpoint, reason: quoted(reason) }
    }
}

/// The beginning of an answer; of HTTP/1.1 with its connection and the turn.
type Sent<'a> = (http::response::Parts, Incoming, Option<http1::SendRequest<RequestBody>>, Option<MutexGuard<'a, ()>>);

fn sent(response: Response<Incoming>, sender: Sender, turn: Option<MutexGuard<'_, ()>>) -> Sent<'_> {
    let (parts, body) = response.into_parts();
    match sender {
        Sender::One(sender) => (parts, body, Some(sender), turn),
        Sender::Two(_) => (parts, body, None, None),
    }
}

/// An answer that holds its connection until it has been read, if no other request may use it.
pub(super) struct Leased {
    incoming: Incoming,
    lease: Option<(http1::SendRequest<RequestBody>, Arc<Pool>)>,
}

impl Leased {
    fn give_back(&mut self) {
        if let Some((sender, pool)) = self.lease.take() {
            pool.kept().idle.push(sender);
        }
    }
}

impl Body for Leased {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !self.incoming.is_end_stream() => {}
            Some(Ok(_)) | None => self.give_back(),
            Some(Err(_)) => drop(self.lease.take()),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // Not the inner answer: the end must be polled for the connection to go back.
        self.lease.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_server_urls() {
        for (url, shown) in [
            ("https://CP.example", "cp.example:443"),
            ("https://10.0.0.1:6443/", "10.0.0.1:6443"),
            ("https://[fd00::1]:6443", "[fd00::1]:6443"),
            ("https://[fd00::1]", "[fd00::1]:443"),
            ("https://rancher.example/k8s/clusters/c1", "rancher.example:443"),
        ] {
            assert_eq!(Target::parse(url).unwrap().to_string(), shown);
        }
        for url in [
            "",
            "x",
            "http://a",
            "https://",
            "https://a:0",
            "https://a:99999",
            "https://u:p@a",
            "https://a?b",
            "https://a b",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_real_socket_is_dialled_and_a_closed_port_is_a_refusal() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let trust = Trust::Unverified;
        let target = Target::parse(&format!("https://localhost:{}", free.port())).unwrap();
        let pool = Arc::new(Pool::new(Dialer::Tcp, target, &trust, Protocols::Http1, None).unwrap());
        let error = pool.exchange(Request::get("/").body(Bytes::new()).unwrap(), 1).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, ApiError::Refused { .. }), "{error:?}");
    }

    proptest::proptest! {
        #[test]
        fn no_url_panics(text: String) {
            let _ = Target::parse(&text);
            if let Ok(target) = Target::parse(&format!("https://{text}")) {
                let _ = Pool::new(Dialer::Tcp, target, &Trust::Unverified, Protocols::Http1, None);
            }
        }
    }
}
