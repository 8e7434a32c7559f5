//! Connections to one server: dialled, kept, and lent to one request at a time.
//!
//! `hyper-util`'s pool hands a connection back from a background task, so that a request that follows at once may find
//! none and open a second one; a join would then make more TLS handshakes than it needs, now and then. Here a
//! connection goes back when the last byte of an answer is taken out, and whoever takes it next waits until it is
//! ready.

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
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::{ApiError, TlsProblem, chain, quoted};
use super::tls::{self, ClientCertificate};
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

type Sender = SendRequest<Full<Bytes>>;

/// Connections to one server with one TLS configuration.
pub(super) struct Pool {
    dialer: Dialer,
    target: Target,
    name: ServerName<'static>,
    tls: TlsConnector,
    idle: Mutex<Vec<Sender>>,
}

impl Pool {
    pub(super) fn new(
        dialer: Dialer,
        target: Target,
        trust: &Trust,
        client: Option<ClientCertificate<'_>>,
    ) -> Result<Self, ApiError> {
        let config = tls::client_config(trust, client)?;
        let name = tls::server_name(trust, &target.host)?;
        Ok(Self { dialer, target, name, tls: TlsConnector::from(Arc::new(config)), idle: Mutex::default() })
    }

    /// Sends a request; the answer is complete unless it is a watch.
    pub(super) async fn exchange(
        self: Arc<Self>,
        request: Request<Bytes>,
        limit: u64,
    ) -> Result<Response<Answer>, ApiError> {
        let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        let (parts, sender) = self.timed(self.send(request)).await?;
        let (parts, body) = (parts.0, parts.1);
        let leased = Leased { incoming: body, sender: Some(sender), pool: Arc::clone(&self) };
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
        Ok(Response::from_parts(parts, Either::Left(Full::new(whole))))
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => Err(self.timeout("answer", REQUEST_TIMEOUT)),
        }
    }

    /// Sends on a kept connection, else on a new one. A kept connection may have been closed meanwhile: what was
    /// certainly not answered on it, and what may be asked twice, is asked again on a new one.
    async fn send(&self, request: Request<Bytes>) -> Result<((http::response::Parts, Incoming), Sender), ApiError> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("{}{path}", self.target.prefix);
        parts.uri = uri.parse().map_err(|_| ApiError::malformed("the request's path"))?;
        let host = HeaderValue::from_str(&self.target.to_string()).map_err(|_| ApiError::malformed("the host"))?;
        parts.headers.insert(header::HOST, host);
        let build = || Request::from_parts(parts.clone(), Full::new(body.clone()));

        while let Some(mut sender) = self.take_idle() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(build()).await {
                Ok(response) => return Ok((response.into_parts(), sender)),
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    if !unsent && parts.method != http::Method::GET {
                        return Err(self.broken(&chain(error.error())));
                    }
                }
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(build()).await.map_err(|error| self.broken(&chain(&error)))?;
        Ok((response.into_parts(), sender))
    }

    fn take_idle(&self) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<Sender, ApiError> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let stream = self.dial().await?;
            let stream = self
                .tls
                .connect(self.name.clone(), stream)
                .await
                .map_err(|error| ApiError::Tls { endpoint: self.target.to_string(), problem: tls::problem(&error) })?;
            handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&chain(&error)))
        });
        let (sender, connection) =
            connected.await.unwrap_or_else(|_| Err(self.timeout("accept a connection", CONNECT_TIMEOUT)))?;
        tokio::spawn(async move {
            // Whoever waits for an answer is told by the answer.
            let _ = connection.await;
        });
        Ok(sender)
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

/// An answer that holds its connection until it has been read.
pub(super) struct Leased {
    incoming: Incoming,
    sender: Option<Sender>,
    pool: Arc<Pool>,
}

impl Leased {
    fn give_back_at_end(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(sender) = self.sender.take()
        {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }
}

impl Body for Leased {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => self.give_back_at_end(),
            Some(Err(_)) => drop(self.sender.take()),
            None => {
                if let Some(sender) = self.sender.take() {
                    self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // Not the inner answer: the end must be polled for the connection to go back.
        self.sender.is_none() && self.incoming.is_end_stream()
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
        let pool = Arc::new(Pool::new(Dialer::Tcp, target, &trust, None).unwrap());
        let error = pool.exchange(Request::get("/").body(Bytes::new()).unwrap(), 1).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, ApiError::Refused { .. }), "{error:?}");
    }

    proptest::proptest! {
        #[test]
        fn no_url_panics(text: String) {
            let _ = Target::parse(&text);
            if let Ok(target) = Target::parse(&format!("https://{text}")) {
                let _ = Pool::new(Dialer::Tcp, target, &Trust::Unverified, None);
            }
        }
    }
}
