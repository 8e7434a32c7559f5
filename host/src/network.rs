//! The network as the machine sees it: names, connections, the environment's proxy, and the authorities the system trusts.
//!
//! What plugins are let do with it is the broker's business. Tests put another network in its place.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;

use crate::api::tunnel;
use crate::proxy::Proxy;

/// The variable that names a file of authorities to trust in the place of the system's; as in Go and OpenSSL.
const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";
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

    /// The proxy that the environment wants for an https server; none: go directly.
    fn proxy_for(&self, host: &str, port: u16) -> Option<Proxy> {
        tunnel::proxy_for(host, port).cloned()
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

    fn proxy_for(&self, _host: &str, _port: u16) -> Option<Proxy> {
        None
    }
}

fn not_recorded() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a recorded machine has no network")
}

/// Of `SSL_CERT_FILE`, else of the system: of the first file that there is. A certificate that cannot be used is left out,
/// as elsewhere. Registries and plugins are served by the same.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os(ROOTS_VARIABLE).filter(|it| !it.is_empty()).map(PathBuf::from);
    // A file that is named and cannot be read is no reason to trust others in its place.
    let pem = match named {
        Some(path) => std::fs::read(path).ok(),
        None => ROOT_FILES.iter().find_map(|path| std::fs::read(path).ok()),
    };
    if let Some(pem) = pem {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    }
    roots
}
