//! The network as the machine sees it: names, connections, and the authorities the system trusts.
//!
//! What plugins are let do with it is the broker's business. Tests put another network in its place.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;

/// Where systems keep the authorities they trust; as in Go's `crypto/x509`.
const ROOT_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Answers for the machine; every method has the system's own answer.
pub trait Network: Send + Sync {
    /// Addresses of a name, as the resolver gives them.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) })
    }

    /// A connection to exactly this address.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(address))
    }

    /// Authorities that servers are trusted by; empty: none.
    fn roots(&self) -> Arc<RootCertStore> {
        static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
        Arc::clone(ROOTS.get_or_init(|| Arc::new(system_roots())))
    }
}

/// This machine's.
#[derive(Debug, Clone, Copy)]
pub struct SystemNetwork;

impl Network for SystemNetwork {}

/// No network: of a machine that was recorded.
#[derive(Debug, Clone, Copy)]
pub struct NoNetwork;

impl Network for NoNetwork {
    fn resolve<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(Err(not_recorded())))
    }

    fn connect(&self, _address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(std::future::ready(Err(not_recorded())))
    }
}

fn not_recorded() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a recorded machine has no network")
}

/// Of the first file that there is. A certificate that cannot be used is left out, as elsewhere.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = ROOT_FILES.iter().find_map(|path| std::fs::read(path).ok()) {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    }
    roots
}
