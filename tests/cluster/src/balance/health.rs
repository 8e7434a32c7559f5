//! Which API servers may be given connections: each is asked for `/readyz` again and again, as a load balancer would.
//!
//! Nobody's certificate is checked: the answer only says where connections go, and those check it themselves.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::Watched;
use crate::state::API_PORT;

/// Between two questions to one that is not ready: it may be so any moment.
const SOON: Duration = Duration::from_millis(100);
/// Between two questions to one that is ready: its end is mostly seen by a connection first.
const LATER: Duration = Duration::from_millis(500);
/// For connection, handshake and answer together.
const LIMIT: Duration = Duration::from_secs(1);
const QUESTION: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n";

/// What was last found out about a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Nobody accepts a connection, or does not answer in time.
    Dead,
    /// It answers that it is not ready.
    Starting,
    Ready,
}

/// All backends, and who is asked.
#[derive(Default)]
pub(super) struct Backends {
    known: Mutex<HashMap<Ipv4Addr, watch::Sender<Health>>>,
}

impl Backends {
    /// Those of `backends` that are ready; all, where none is: before there is an API server at all, a client that is
    /// refused learns more than one that is not connected.
    pub(super) fn eligible(&self, backends: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ready = |backend: &&Ipv4Addr| known.get(backend).is_some_and(|health| *health.borrow() == Health::Ready);
        let ready: Vec<Ipv4Addr> = backends.iter().filter(is_ready).copied().collect();
        if ready.is_empty() { backends.to_vec() } else { ready }
    }

    /// Follows one backend; `None` if nobody looks after it yet.
    pub(super) fn follow(&self, backend: Ipv4Addr) -> Option<watch::Receiver<Health>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&backend).map(watch::Sender::subscribe)
    }

    /// Asks every backend of the settings for as long as it is among them.
    pub(super) async fn look_after(self: Arc<Self>, settings: Arc<Watched>) -> Result<()> {
        let connector = connector()?;
        loop {
            for backend in settings.current().backends {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.entry(backend).or_insert_with(|| {
                    let (sender, _) = watch::channel(Health::Dead);
                    tokio::spawn(ask(backend, sender.clone(), Arc::clone(&settings), connector.clone()));
                    sender
                });
            }
            self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|backend, health| {
                let stays = settings.current().backends.contains(backend);
                // Whoever still follows it is told.
                health.send_if_modified(|health| !stays && std::mem::replace(health, Health::Dead) != Health::Dead);
                stays
            });
            sleep(SOON).await;
        }
    }
}

/// Asks one backend until it is no longer in the settings.
async fn ask(backend: Ipv4Addr, health: watch::Sender<Health>, settings: Arc<Watched>, connector: TlsConnector) {
    while settings.current().backends.contains(&backend) {
        let found = timeout(LIMIT, probe(backend, &connector)).await.unwrap_or(Health::Dead);
        health.send_if_modified(|health| std::mem::replace(health, found) != found);
        sleep(if found == Health::Ready { LATER } else { SOON }).await;
    }
}

async fn probe(backend: Ipv4Addr, connector: &TlsConnector) -> Health {
    let Ok(stream) = TcpStream::connect(SocketAddr::from((backend, API_PORT))).await else {
        return Health::Dead;
    };
    let name = ServerName::IpAddress(std::net::IpAddr::V4(backend).into());
    // It accepts connections, so it lives, whatever else goes wrong.
    let Ok(mut stream) = connector.connect(name, stream).await else {
        return Health::Starting;
    };
    let mut status = [0; 12];
    if stream.write_all(QUESTION).await.is_err() || stream.read_exact(&mut status).await.is_err() {
        return Health::Starting;
    }
    judge(&status)
}

/// From the first bytes of the answer, `HTTP/1.1 200`. One that answers nobody without a name (401) has no more to say.
fn judge(status: &[u8]) -> Health {
    match status.get(9..) {
        Some(b"200" | b"401") => Health::Ready,
        _ => Health::Starting,
    }
}

fn connector() -> Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts every certificate.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_readiness_is_ready() {
        for (status, expected) in [
            (&b"HTTP/1.1 200"[..], Health::Ready),
            (b"HTTP/1.1 401", Health::Ready),
            (b"HTTP/1.1 500", Health::Starting),
            (b"HTTP/1.1 403", Health::Starting),
            (b"HTTP", Health::Starting),
        ] {
            assert_eq!(judge(status), expected, "{}", String::from_utf8_lossy(status));
        }
    }

    #[test]
    fn one_that_is_not_ready_is_passed_over_unless_nobody_is() {
        let [one, two] = [1, 2].map(|last| Ipv4Addr::new(192, 0, 2, last));
        let backends = Backends::default();
        assert_eq!(backends.eligible(&[one, two]), [one, two]);
        let set = |address, health| {
            backends.known.lock().unwrap().insert(address, watch::channel(health).0);
        };
        set(one, Health::Starting);
        assert_eq!(backends.eligible(&[one, two]), [one, two]);
        set(two, Health::Ready);
        assert_eq!(backends.eligible(&[one, two]), [two]);
    }
}
