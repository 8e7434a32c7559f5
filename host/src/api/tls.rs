//! TLS settings of the two levels of trust, and what rustls' errors mean.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use secrecy::{ExposeSecret as _, SecretString};

use super::Trust;
use super::error::{ApiError, TlsProblem, quoted};

/// HTTP/2 in ALPN (RFC 9113, section 3.2).
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";

/// What a connection may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocols {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 where the server has it.
    Http2,
}

/// What a client presents.
pub(crate) struct ClientCertificate<'a> {
    pub(crate) certificate_pem: &'a str,
    pub(crate) key_pem: &'a SecretString,
}

/// The classic groups only: Go's servers prefer the hybrid one and would ask for a second hello to get it.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups =
        vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1];
    provider
}

pub(crate) fn client_config(
    trust: &Trust,
    protocols: Protocols,
    client: Option<ClientCertificate<'_>>,
) -> Result<ClientConfig, ApiError> {
    let provider = Arc::new(provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3");
    let builder = match trust {
        Trust::Unverified => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
        }
        Trust::Ca { pem, .. } => builder.with_root_certificates(roots(pem)?),
    };
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { certificate_pem, key_pem }) => {
            let bad = |what: &str| ApiError::ClientCertificate(what.to_owned());
            let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| bad("the certificate is no PEM"))?;
            let key = PrivateKeyDer::from_pem_slice(key_pem.expose_secret().as_bytes())
                .map_err(|_| bad("the key is no PEM"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| bad(&error.to_string()))?
        }
    };
    config.alpn_protocols = match protocols {
        Protocols::Http1 => vec![b"http/1.1".to_vec()],
        Protocols::Http2 => vec![ALPN_HTTP2.to_vec(), b"http/1.1".to_vec()],
    };
    Ok(config)
}

/// Checks, after the handshake, the certificates that the peer showed in it, its own first.
pub(super) fn verify_peer(trust: &Trust, peer: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), TlsProblem> {
    let Trust::Ca { pem, .. } = trust else { return Err(TlsProblem::Other("there is no CA to check it by".into())) };
    let verify = || {
        let roots = roots(pem).map_err(|error| rustls::Error::General(error.to_string()))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let (own, intermediates) = peer.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        verifier.verify_server_cert(own, intermediates, name, &[], UnixTime::now())
    };
    verify().map(drop).map_err(|error| meaning(&error))
}

/// Takes any certificate, for one look at it: no application protocol is offered.
pub(crate) fn unverified_config() -> ClientConfig {
    let mut config = client_config(&Trust::Unverified, Protocols::Http1, None).expect("no certificate is read");
    config.alpn_protocols.clear();
    config
}

fn roots(pem: &str) -> Result<RootCertStore, ApiError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| ApiError::Ca("a certificate is no PEM".into()))?;
        roots.add(certificate).map_err(|error| ApiError::Ca(quoted(&error.to_string())))?;
    }
    if roots.is_empty() {
        return Err(ApiError::Ca("there is no certificate among them".into()));
    }
    Ok(roots)
}

/// The name the certificate must have.
pub(super) fn server_name(trust: &Trust, host: &str) -> Result<ServerName<'static>, ApiError> {
    let name = match trust {
        Trust::Ca { server_name: Some(name), .. } => name,
        _ => host,
    };
    ServerName::try_from(name.to_owned())
        .map_err(|_| ApiError::Url { url: quoted(name), reason: "the host is neither a DNS name nor an IP address" })
}

/// Accepts any certificate, but only from a peer that has its key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake means.
pub(crate) fn problem(error: &io::Error) -> TlsProblem {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                TlsProblem::Closed
            }
            _ => TlsProblem::Other(error.to_string()),
        };
    };
    meaning(cause)
}

/// What an error of TLS means.
pub(crate) fn meaning(error: &rustls::Error) -> TlsProblem {
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            // With a single self-signed server certificate, webpki reports the second.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsProblem::UnknownIssuer,
            CertificateError::NotValidForNameContext { expected, presented } => TlsProblem::WrongHost {
                expected: quoted(&expected.to_str()),
                found: presented.iter().take(16).map(|name| quoted(&plain_name(name))).collect(),
            },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsProblem::Validity("has expired"),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsProblem::Validity("is not valid yet")
            }
            other => TlsProblem::Other(quoted(&other.to_string())),
        },
        rustls::Error::InvalidMessage(_) => TlsProblem::NotTls,
        other => TlsProblem::Other(quoted(&other.to_string())),
    }
}

/// `DnsName("a.example")` and `IpAddress(10.0.0.1)`, as webpki shows them, without the wrapping.
fn plain_name(shown: &str) -> String {
    let inner = shown.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(shown);
    inner.trim_matches('"').to_owned()
}
