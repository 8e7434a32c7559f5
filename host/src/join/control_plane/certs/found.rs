//! What is there already: CAs, certificates of an earlier run or of the operator's own PKI, the service account key.
//!
//! kubeadm's rule: what is there is used if it is in order, and never overwritten. Beyond kubeadm, a key must be that of
//! its certificate, since no server could start with another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::authority::{Authority, CaCertificate};
use super::key::PrivateKey;
use super::list::Leaf;
use super::names::Names;
use super::{CertsError, FILE_LIMIT_BYTES, file};
use crate::join::control_plane::configuration::ControlPlaneConfiguration;
use crate::node::{Node, NodeError};
use crate::pki::{Certificate, PkiError, pem_block};

/// A CA as it is on this machine.
pub(super) enum Ca {
    /// It can sign.
    Here(Box<Authority>),
    /// Its key is elsewhere: an external CA.
    Elsewhere(CaCertificate),
    /// The file of its key holds none that can be used, which kubeadm takes for the same.
    Locked(CaCertificate),
    /// Neither certificate nor key.
    Missing,
}

/// A certificate of this machine as it was found.
pub(super) enum Found {
    /// In order.
    Whole,
    /// A run of ours ended between the key and its certificate.
    KeyOfOurs(PrivateKey),
    Nothing,
}

/// Why a certificate that was found cannot be used. Its texts go on after the file's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LeafProblem {
    /// No certificate can be read.
    #[error("{0}")]
    Unreadable(#[from] PkiError),
    /// Not yet, or no longer valid.
    #[error("it is valid from {} to {} only", date(.not_before), date(.not_after))]
    Time {
        /// Seconds since 1970.
        not_before: i64,
        /// Seconds since 1970.
        not_after: i64,
    },
    /// No chain to the CA.
    #[error("the CA in `{}` did not sign it ({reason})", .ca.display())]
    Foreign {
        /// Path of the CA's certificate.
        ca: PathBuf,
        /// What the verification said.
        reason: String,
    },
    /// Expected names are not in it.
    #[error("it does not hold for {0}")]
    Names(String),
    /// The file beside it has the key of another certificate.
    #[error("the key beside it is not its own")]
    Key,
}

/// A CA by the name of its files.
pub(super) fn ca(configuration: &ControlPlaneConfiguration, name: &'static str, node: &Node) -> Result<Ca, CertsError> {
    let (certificate_path, key_path) = paths(configuration, name);
    let key = read(&key_path, node)?;
    let Some(pem) = read(&certificate_path, node)? else {
        return match key {
            None => Ok(Ca::Missing),
            Some(_) => Err(CertsError::KeyWithoutCa { key: key_path, certificate: certificate_path }),
        };
    };
    let unusable = |problem| CertsError::Ca { path: certificate_path.clone(), problem };
    let ca = CaCertificate::parse_pem(&pem).map_err(unusable)?;
    let Some(key) = key else { return Ok(Ca::Elsewhere(ca)) };
    let Some(key) = PrivateKey::parse_pem(&key) else { return Ok(Ca::Locked(ca)) };
    let authority = Authority::new(ca, key)?;
    authority
        .map(|authority| Ca::Here(Box::new(authority)))
        .ok_or(CertsError::KeyOfAnotherCa { key: key_path, certificate: certificate_path })
}

/// Looks for a certificate of this machine. `names` are those that it must hold for.
pub(super) fn leaf(
    configuration: &ControlPlaneConfiguration,
    leaf: &Leaf,
    ca: (&'static str, &CaCertificate),
    names: &Names,
    node: &Node,
) -> Result<Found, CertsError> {
    let (certificate_path, key_path) = paths(configuration, leaf.file);
    let (certificate, key) = (read(&certificate_path, node)?, read(&key_path, node)?);
    if certificate.is_none() && key.is_none() {
        return Ok(Found::Nothing);
    }
    let key = key.map(|pem| PrivateKey::parse_pem(&pem).ok_or_else(|| CertsError::Key { path: key_path.clone() }));
    let key = key.transpose()?;
    let (certificate, key) = match (certificate, key) {
        (None, Some(key)) if node.journal().owns(&key_path) => return Ok(Found::KeyOfOurs(key)),
        (Some(certificate), Some(key)) => (certificate, key),
        (certificate, _) => {
            let (there, missing) =
                if certificate.is_some() { (certificate_path, key_path) } else { (key_path, certificate_path) };
            return Err(CertsError::Half { there, missing });
        }
    };
    let ca_path = file(configuration, &format!("{}.crt", ca.0));
    match verify(&certificate, &key.spki()?, (&ca_path, ca.1), names) {
        Ok(()) => Ok(Found::Whole),
        Err(problem) => Err(CertsError::Leaf { certificate: certificate_path, key: key_path, problem }),
    }
}

/// The service account key pair. Returns the file of the public half and what belongs into it, where it is missing.
pub(super) fn service_account(
    configuration: &ControlPlaneConfiguration,
    node: &Node,
) -> Result<Option<(PathBuf, String)>, CertsError> {
    let (key_path, public_path) = (file(configuration, "sa.key"), file(configuration, "sa.pub"));
    let Some(pem) = read(&key_path, node)? else { return Err(CertsError::ServiceAccount { path: key_path }) };
    let key = PrivateKey::parse_pem(&pem).ok_or(CertsError::Key { path: key_path })?;
    if read(&public_path, node)?.is_some() {
        return Ok(None);
    }
    Ok(Some((public_path, pem_block("PUBLIC KEY", &key.spki()?))))
}

pub(in crate::join::control_plane) fn read(
    path: &Path,
    node: &Node,
) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, NodeError> {
    Ok(node.read(path, FILE_LIMIT_BYTES)?.map(zeroize::Zeroizing::new))
}

/// Certificate and key.
pub(super) fn paths(configuration: &ControlPlaneConfiguration, name: &str) -> (PathBuf, PathBuf) {
    (file(configuration, &format!("{name}.crt")), file(configuration, &format!("{name}.key")))
}

fn verify(pem: &[u8], spki: &[u8], ca: (&Path, &CaCertificate), names: &Names) -> Result<(), LeafProblem> {
    let chain = Certificate::parse_pem(pem)?;
    let (leaf, intermediates) = chain.split_first().ok_or(PkiError::NoCertificate)?;
    let now = UnixTime::now();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (not_before, not_after) = (leaf.not_before, leaf.not_after);
    if !(not_before..=not_after).contains(&seconds) {
        return Err(LeafProblem::Time { not_before, not_after });
    }
    is_signed(leaf, intermediates, &ca.1.certificate, now)
        .map_err(|reason| LeafProblem::Foreign { ca: ca.0.to_owned(), reason })?;
    if leaf.spki != spki {
        return Err(LeafProblem::Key);
    }
    let missing = missing_names(&leaf.der, names);
    if missing == Names::default() { Ok(()) } else { Err(LeafProblem::Names(missing.shown())) }
}

/// Whether there is a chain from the leaf to the CA, all of it valid now.
fn is_signed(leaf: &Certificate, intermediates: &[Certificate], ca: &Certificate, now: UnixTime) -> Result<(), String> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if !(ca.not_before..=ca.not_after).contains(&seconds) {
        return Err(format!("the CA itself is valid from {} to {} only", date(&ca.not_before), date(&ca.not_after)));
    }
    let text = |error: rustls::Error| error.to_string();
    let der = |certificate: &Certificate| CertificateDer::from(certificate.der.clone());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(der(ca)).map_err(text)?;
    let roots = Arc::new(roots);
    let intermediates: Vec<_> = intermediates.iter().map(der).collect();
    // kubeadm asks for no particular use; a library that verifies for one of two is asked for both.
    let end = der(leaf);
    let parsed = rustls::server::ParsedCertificate::try_from(&end).map_err(text)?;
    let algorithms = provider.signature_verification_algorithms.all;
    let as_server =
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &intermediates, now, algorithms);
    if as_server.is_ok() {
        return Ok(());
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    verifier.verify_client_cert(&end, &intermediates, now).map(drop).map_err(text)
}

/// Of the expected names, those for which the certificate does not hold.
fn missing_names(der: &[u8], expected: &Names) -> Names {
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return expected.clone() };
    let extension = parsed.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let has_dns = |wanted: &str| {
        names.iter().any(|name| matches!(name, GeneralName::DNSName(pattern) if matches_name(pattern, wanted)))
    };
    let has_ip = |wanted: &std::net::IpAddr| {
        let octets = match wanted {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        names.iter().any(|name| matches!(name, GeneralName::IPAddress(address) if *address == octets))
    };
    Names {
        dns: expected.dns.iter().filter(|name| !has_dns(name)).cloned().collect(),
        ips: expected.ips.iter().filter(|address| !has_ip(address)).copied().collect(),
    }
}

/// Whether a name of a certificate holds for a host, as in Go: `*` stands for the whole of the first label.
pub(super) fn matches_name(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(pattern), Some((label, host))) => label != "*" && pattern.eq_ignore_ascii_case(host),
        _ => false,
    }
}

fn date(seconds: &i64) -> String {
    k8s_openapi::jiff::Timestamp::from_second(*seconds)
        .map_or_else(|_| "the year 9999".to_owned(), |time| time.to_string())
}
