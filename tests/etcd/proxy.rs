//! A proxy that loses a request or an answer. It holds the test's certificates, so it sees which call it is.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::lab::Cluster;

/// What is lost, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request of this call does not arrive.
    Request(&'static str),
    /// The request arrives and is answered, and the answer is lost with the connection.
    Answer(&'static str),
}

/// Where member 1 says it is, in front of where it is.
pub(crate) struct Proxy {
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Proxy {
    pub(crate) async fn in_front_of(cluster: &Cluster) -> Self {
        let pem = |path: &str| std::fs::read(cluster.pki().join("etcd").join(path)).expect("a file");
        let certificates = |path: &str| {
            CertificateDer::pem_slice_iter(&pem(path)).collect::<Result<Vec<_>, _>>().expect("certificates")
        };
        let key = |path: &str| PrivateKeyDer::from_pem_slice(&pem(path)).expect("a key");
        let mut roots = RootCertStore::empty();
        roots.add(certificates("ca.crt").remove(0)).expect("a CA");
        let mut server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certificates("proxy.crt"), key("proxy.key"))
            .expect("they fit");
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates("healthcheck-client.crt"), key("healthcheck-client.key"))
            .expect("they fit");
        client.alpn_protocols = vec![b"h2".to_vec()];

        let listener = TcpListener::bind((cluster.proxy_address(), 2379)).await.expect("a free address");
        let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
        let fault = Arc::new(Mutex::new(None));
        let proxy = Self { fault: Arc::clone(&fault) };
        let target = cluster.address(1);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let (acceptor, connector, fault) = (acceptor.clone(), connector.clone(), Arc::clone(&fault));
                let target = target.clone();
                tokio::spawn(async move { carry(client, &acceptor, &connector, target, fault).await });
            }
        });
        proxy
    }

    /// Loses this, once.
    pub(crate) fn lose(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Whether it was lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.fault.lock().unwrap().is_none()
    }
}

/// Carries requests until an end goes away or something is to be lost.
async fn carry(
    client: TcpStream,
    acceptor: &TlsAcceptor,
    connector: &TlsConnector,
    target: String,
    fault: Arc<Mutex<Option<Fault>>>,
) -> Option<()> {
    let client = acceptor.accept(client).await.ok()?;
    let server = TcpStream::connect((&*target, 2379)).await.ok()?;
    let name = ServerName::try_from(target).ok()?;
    let server = connector.connect(name, server).await.ok()?;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, upstream) = builder.handshake(TokioIo::new(server)).await.ok()?;
    tokio::spawn(upstream);
    let cut = Arc::new(Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        let (mut sender, fault, cut) = (sender.clone(), Arc::clone(&fault), Arc::clone(&cut));
        async move {
            let call = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            let lost = |wanted: fn(&'static str) -> Fault| {
                let mut fault = fault.lock().unwrap();
                let (Some(Fault::Request(name)) | Some(Fault::Answer(name))) = *fault else { return false };
                let now = name == call && *fault == Some(wanted(name));
                if now {
                    *fault = None;
                }
                now
            };
            if lost(Fault::Request) {
                cut.notify_one();
                std::future::pending::<()>().await;
            }
            let answer = sender.send_request(request).await;
            if lost(Fault::Answer) {
                cut.notify_one();
                std::future::pending::<()>().await;
            }
            Ok::<Response<Incoming>, Infallible>(answer.expect("etcd answers"))
        }
    });
    let serving =
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(client), service);
    tokio::select! { _ = serving => {}, () = cut.notified() => {} }
    Some(())
}
