//! A proxy that loses requests and answers, or answers something else. It holds a member's certificates, so it sees which
//! call it is.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What goes wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request of this call does not arrive.
    Request(&'static str),
    /// The request arrives and is answered, and the answer is lost with the connection.
    Answer(&'static str),
    /// The request arrives and is answered, and what comes back is an error: gRPC's code and a text.
    Error(&'static str, u16, &'static str),
}

impl Fault {
    fn call(self) -> &'static str {
        match self {
            Self::Request(call) | Self::Answer(call) | Self::Error(call, ..) => call,
        }
    }
}

/// Between whom a proxy is. Certificates and keys are PEM.
pub(crate) struct Ends {
    pub(crate) listener: TcpListener,
    pub(crate) target: SocketAddr,
    pub(crate) ca: Vec<u8>,
    /// What it shows to clients: for the address that they know the member by.
    pub(crate) server: [Vec<u8>; 2],
    /// What it shows to the member.
    pub(crate) client: [Vec<u8>; 2],
}

/// Hands requests on until told otherwise.
#[derive(Clone)]
pub(crate) struct Proxy {
    state: Arc<Mutex<State>>,
    /// Every connection ends when this is true.
    dead: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    /// Where everything ends: the fault of this call that comes after that one.
    end: Option<(Option<&'static str>, Fault)>,
    calls: Vec<String>,
}

impl Proxy {
    /// Between these ends, in the runtime of the caller.
    pub(crate) fn start(ends: Ends) -> Self {
        let certificates =
            |pem: &[u8]| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().expect("certificates");
        let key = |pem: &[u8]| PrivateKeyDer::from_pem_slice(pem).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&ends.ca).remove(0)).expect("a CA");
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(certificates(&ends.server[0]), key(&ends.server[1]))
            .expect("they fit");
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&ends.client[0]), key(&ends.client[1]))
            .expect("they fit");
        client.alpn_protocols = vec![b"h2".to_vec()];
        let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));

        ends.listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(ends.listener).expect("a runtime");
        let proxy = Self { state: Arc::default(), dead: Arc::new(watch::Sender::new(false)) };
        let inner = proxy.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let (acceptor, connector, proxy) = (acceptor.clone(), connector.clone(), inner.clone());
                tokio::spawn(async move {
                    let mut dead = proxy.dead.subscribe();
                    tokio::select! {
                        _ = proxy.carry(client, &acceptor, &connector, ends.target) => {}
                        _ = dead.wait_for(|dead| *dead) => {}
                    }
                });
            }
        });
        proxy
    }

    /// Does this, once, beside what it is still to do. Of one call the request goes before the answer.
    pub(crate) fn lose(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Whether all of it was done.
    pub(crate) fn has_lost(&self) -> bool {
        self.state().faults.is_empty()
    }

    /// From this fault on nothing passes, if `after` was called before it.
    pub(crate) fn end_at(&self, after: Option<&'static str>, fault: Fault) {
        self.state().end = Some((after, fault));
    }

    /// Whether it came to that.
    pub(crate) fn has_ended(&self) -> bool {
        *self.dead.borrow()
    }

    /// Everything passes again, and no call counts as made.
    pub(crate) fn heal(&self) {
        *self.state() = State::default();
        self.dead.send_replace(false);
    }

    /// The calls so far, each once.
    pub(crate) fn calls(&self) -> Vec<String> {
        let mut calls = self.state().calls.clone();
        calls.sort();
        calls.dedup();
        calls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test fails under this lock")
    }

    /// Whether this is to happen now. At the end of all, this call stays where it is and its connection ends with the others.
    async fn takes(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let (found, ends) = {
            let mut state = self.state();
            let at = state.faults.iter().position(&wanted);
            let found = at.map(|at| state.faults.remove(at));
            let has_called = |call: &str| state.calls.iter().any(|seen| seen == call);
            let ends = state.end.is_some_and(|(after, fault)| wanted(&fault) && after.is_none_or(has_called));
            (found, ends)
        };
        if ends {
            self.dead.send_replace(true);
            std::future::pending::<()>().await;
        }
        found
    }

    /// Carries requests until an end goes away or something is to be lost.
    async fn carry(
        &self,
        client: TcpStream,
        acceptor: &TlsAcceptor,
        connector: &TlsConnector,
        target: SocketAddr,
    ) -> Option<()> {
        let client = acceptor.accept(client).await.ok()?;
        let server = TcpStream::connect(target).await.ok()?;
        let server = connector.connect(ServerName::from(target.ip()), server).await.ok()?;
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (sender, upstream) = builder.handshake(TokioIo::new(server)).await.ok()?;
        tokio::spawn(upstream);
        let cut = Arc::new(tokio::sync::Notify::new());
        let service = service_fn(|request: Request<Incoming>| {
            let (proxy, mut sender, cut) = (self.clone(), sender.clone(), Arc::clone(&cut));
            async move {
                let call = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                if proxy.takes(|fault| matches!(fault, Fault::Request(name) if *name == call)).await.is_some() {
                    cut.notify_one();
                    std::future::pending::<()>().await;
                }
                let answer = sender.send_request(request).await;
                let fault = proxy.takes(|fault| !matches!(fault, Fault::Request(_)) && fault.call() == call).await;
                proxy.state().calls.push(call);
                match fault {
                    Some(Fault::Error(_, code, text)) => Ok(error(code, text)),
                    Some(_) => {
                        cut.notify_one();
                        std::future::pending().await
                    }
                    None => Ok::<_, Infallible>(answer.expect("etcd answers").map(Either::Left)),
                }
            }
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(client), service);
        tokio::select! { _ = serving => {}, () = cut.notified() => {} }
        Some(())
    }
}

/// gRPC's answer without a message.
fn error(code: u16, text: &str) -> Response<Either<Incoming, Empty<Bytes>>> {
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", text)
        .body(Either::Right(Empty::new()))
        .expect("these are headers")
}
