//! Probes: a connection, a handshake or a look-up, and nothing beyond. Never through a proxy: they tell what this machine
//! reaches by itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsConnector;

use super::broker::{Refusal, failed};
use super::dial::{self, Dialled};
use super::grants::{Effective, NetHost, Probe};
use super::limits::{PEER_BYTES, PEER_CERTIFICATES, PROBE_ADDRESSES, PROBE_TIME};
use super::wire::Bytes;
use crate::api::tls;
use crate::facts::HostError;
use crate::network::Network;
use crate::output::printable;

/// What is probed, as the guest wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum ProbeRequest {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16 },
    Dns { name: String },
}

/// What was seen; the case fits the request's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Probed {
    Tcp(Connected),
    Tls(Box<Handshake>),
    Dns { addresses: Vec<String>, lookup_us: u64 },
}

/// `connected` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Connected {
    pub(super) address: String,
    pub(super) connect_us: u64,
}

/// `handshake` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handshake {
    pub(super) connection: Connected,
    pub(super) handshake_us: u64,
    pub(super) protocol: String,
    pub(super) certificates: Vec<Bytes>,
    pub(super) distrust: Option<String>,
}

/// Probes within [`PROBE_TIME`].
///
/// # Errors
///
/// As the WIT says.
pub(super) async fn probe(
    network: &dyn Network,
    grants: &Effective,
    request: &ProbeRequest,
) -> Result<Probed, Refusal> {
    let parsed = parse(request)?;
    let allowance = grants.probe(&parsed)?;
    let allows = |address: IpAddr| allowance.allows_address(address);
    let work = async {
        match &parsed {
            Probe::Tcp { host, port } => {
                Ok(Probed::Tcp(Connected::of(&dial::dial(network, host, *port, None, allows).await?)))
            }
            Probe::Tls { host, port } => {
                let dialled = dial::dial(network, host, *port, None, allows).await?;
                Ok(Probed::Tls(Box::new(handshake(network, host, dialled).await?)))
            }
            Probe::Dns { name } => {
                let began = Instant::now();
                let mut addresses = dial::resolve(network, name).await?;
                let lookup_us = micros(began);
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(PROBE_ADDRESSES);
                Ok(Probed::Dns { addresses: addresses.iter().map(ToString::to_string).collect(), lookup_us })
            }
        }
    };
    match tokio::time::timeout(PROBE_TIME, work).await {
        Ok(result) => result,
        Err(_) => Err(HostError::timeout(format!("no answer within {} s", PROBE_TIME.as_secs())).into()),
    }
}

fn parse(request: &ProbeRequest) -> Result<Probe, HostError> {
    let host = |text: &str, port: u16| {
        if port == 0 {
            return Err(HostError::invalid("port 0"));
        }
        // The grammar of grants bounds the length of a name.
        text.parse::<NetHost>().map_err(|error| HostError::invalid(format!("the host {error}")))
    };
    match request {
        ProbeRequest::Tcp { host: text, port } => Ok(Probe::Tcp { host: host(text, *port)?, port: *port }),
        ProbeRequest::Tls { host: text, port } => Ok(Probe::Tls { host: host(text, *port)?, port: *port }),
        ProbeRequest::Dns { name } => match host(name, 1)? {
            NetHost::Name(name) => Ok(Probe::Dns { name }),
            NetHost::Address(_) => Err(HostError::invalid("an address has no addresses")),
        },
    }
}

impl Connected {
    fn of(dialled: &Dialled) -> Self {
        let connect_us = u64::try_from(dialled.took.as_micros()).unwrap_or(u64::MAX);
        Self { address: dialled.address.to_string(), connect_us }
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn handshake(network: &dyn Network, host: &NetHost, dialled: Dialled) -> Result<Handshake, Refusal> {
    let connection = Connected::of(&dialled);
    let name = server_name(host)?;
    let connector = TlsConnector::from(Arc::new(tls::unverified_config()));
    let began = Instant::now();
    let stream = connector.connect(name.clone(), dialled.stream).await.map_err(|error| {
        let error = HostError::unavailable(format!("no handshake with `{host}`: {}", tls::problem(&error)));
        HostError { retryable: true, ..error }
    })?;
    let handshake_us = micros(began);
    let session = stream.get_ref().1;
    let chain = session.peer_certificates().unwrap_or_default();
    let total: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if chain.len() > PEER_CERTIFICATES || total > PEER_BYTES {
        let message = format!("{} certificates of {total} bytes; {PEER_CERTIFICATES} are allowed", chain.len());
        return Err(failed("too-large", message).into());
    }
    let protocol = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    Ok(Handshake {
        connection,
        handshake_us,
        protocol: protocol.into(),
        certificates: chain.iter().map(|certificate| Bytes(certificate.to_vec())).collect(),
        distrust: distrust(network, &name, chain),
    })
}

/// For SNI and for the certificate.
///
/// # Errors
///
/// `invalid`: a name that a certificate cannot have.
pub(super) fn server_name(host: &NetHost) -> Result<ServerName<'static>, HostError> {
    match host {
        NetHost::Address(address) => Ok(ServerName::IpAddress((*address).into())),
        NetHost::Name(name) => ServerName::try_from(name.clone())
            .map_err(|_| HostError::invalid(format!("`{name}` is no name of a TLS server"))),
    }
}

/// Why the chain is not one that the system trusts.
fn distrust(network: &dyn Network, name: &ServerName<'_>, chain: &[CertificateDer<'_>]) -> Option<String> {
    let Some((own, others)) = chain.split_first() else { return Some("no certificate was sent".into()) };
    let verifier = WebPkiServerVerifier::builder_with_provider(network.roots(), Arc::new(tls::provider())).build();
    let Ok(verifier) = verifier else { return Some("the system trusts no authority".into()) };
    let verified = verifier.verify_server_cert(own, others, name, &[], UnixTime::now());
    verified.err().map(|error| printable(&tls::meaning(&error).to_string()))
}
