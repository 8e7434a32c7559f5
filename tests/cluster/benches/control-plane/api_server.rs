//! When a node's own API server is ready, seen from inside the node by this very program.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use mortise_cluster::{API_PORT, Cluster};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

/// First word of the command line of the part that runs in the node.
pub(crate) const WORD: &str = "--watch-api-server";

const AUTHORITY: &str = "/etc/kubernetes/pki/ca.crt";
/// A name that every API server's certificate has.
const NAME: &str = "kubernetes";
const INTERVAL: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(180);

/// The part that runs in the node; it ends with this value.
pub(crate) struct Watcher {
    child: Child,
}

impl Watcher {
    /// Starts it; it asks until the API server answers that it is ready.
    pub(crate) fn start(cluster: &Cluster, node: &str) -> Result<Self> {
        let program = std::env::current_exe()?.display().to_string();
        let child = cluster.command(node, &[&program, WORD]).stdout(Stdio::piped()).spawn()?;
        Ok(Self { child })
    }

    /// Seconds since 1970.
    pub(crate) fn ready_at(mut self) -> Result<f64> {
        let mut text = String::new();
        self.child.stdout.take().context("its output is piped")?.read_to_string(&mut text)?;
        text.trim().parse().context("the API server was never ready")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the node: prints the time of the first answer that it is ready.
pub(crate) fn main() -> Result<()> {
    let started = SystemTime::now();
    while started.elapsed().unwrap_or_default() < LIMIT {
        if is_ready().unwrap_or(false) {
            println!("{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64());
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
    anyhow::bail!("not ready within {LIMIT:?}")
}

fn is_ready() -> Result<bool> {
    // First: mostly nobody listens, and there may be no authority yet either.
    let stream = TcpStream::connect(("127.0.0.1", API_PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(AUTHORITY)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from(NAME)?)?;
    let mut stream = rustls::StreamOwned::new(connection, stream);
    stream.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
