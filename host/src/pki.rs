//! Keys, certificate requests, public-key pins, and the key of uploaded certificates.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use rcgen::PublicKeyData as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};
use zeroize::Zeroize as _;

mod certificate_key;

pub use certificate_key::{CertificateKey, CertificateKeyError};

/// SHA-256 of a certificate's SubjectPublicKeyInfo (DER), 32 bytes.
///
/// Written `sha256:` (case does not matter) and 64 hex digits. Definition: RFC 7469, section 2.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// Why a text is no pin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PinError {
    /// Any prefix other than `sha256:`.
    #[error("the pin `{0}` does not begin with `sha256:`")]
    Algorithm(String),
    /// Anything but 64 hex digits after the prefix.
    #[error("the pin `{0}` does not have 64 hex digits after `sha256:`")]
    Length(String),
}

impl Pin {
    /// The pin of a DER-encoded SubjectPublicKeyInfo.
    pub fn of_spki(der: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let hex = match text.split_once(':') {
            Some((algorithm, hex)) if algorithm.eq_ignore_ascii_case("sha256") => hex,
            _ => return Err(PinError::Algorithm(text.to_owned())),
        };
        let length = || PinError::Length(text.to_owned());
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(length());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| length())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| length())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why certificates or a key are not usable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PkiError {
    /// No PEM, or no certificate in it.
    #[error("there is no PEM certificate in it")]
    NoCertificate,
    /// Not X.509.
    #[error("certificate {0} of it is no X.509 certificate")]
    Certificate(usize),
    /// No usable private key.
    #[error("there is no usable P-256 private key in it")]
    Key,
    /// The request could not be signed.
    #[error("the certificate request cannot be made: {0}")]
    Request(String),
}

/// What this program reads of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// DER.
    pub der: Vec<u8>,
    /// DER of its SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Common name of its subject, empty if there is none.
    pub common_name: String,
    /// Organizations of its subject.
    pub organizations: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Extended key usage has client authentication, or any.
    pub for_clients: bool,
}

impl Certificate {
    /// Every certificate of a PEM text, in order; other PEM blocks are passed over.
    ///
    /// # Errors
    ///
    /// [`PkiError::NoCertificate`], [`PkiError::Certificate`].
    pub fn parse_pem(pem: &[u8]) -> Result<Vec<Self>, PkiError> {
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            let der = der.map_err(|_| PkiError::NoCertificate)?;
            certificates.push(Self::parse(&der).ok_or(PkiError::Certificate(certificates.len() + 1))?);
        }
        if certificates.is_empty() { Err(PkiError::NoCertificate) } else { Ok(certificates) }
    }

    fn parse(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let subject = parsed.subject();
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().ok().map(str::to_owned);
        Some(Self {
            der: der.to_vec(),
            spki: parsed.public_key().raw.to_vec(),
            common_name: subject.iter_common_name().next().and_then(text).unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(text).collect(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            for_clients: parsed.extensions().iter().any(|extension| match extension.parsed_extension() {
                ParsedExtension::ExtendedKeyUsage(usage) => usage.client_auth || usage.any,
                _ => false,
            }),
        })
    }

    /// The pin of its public key.
    pub fn pin(&self) -> Pin {
        Pin::of_spki(&self.spki)
    }

    /// As a PEM block.
    pub fn to_pem(&self) -> String {
        pem_block("CERTIFICATE", &self.der)
    }
}

/// A P-256 private key as the kubelet keeps it: PEM, `EC PRIVATE KEY` (SEC1, RFC 5915).
#[derive(Clone)]
pub struct ClientKey {
    pem: SecretString,
    spki: Vec<u8>,
}

impl ClientKey {
    /// A new one.
    ///
    /// # Errors
    ///
    /// [`PkiError::Key`]: the random generator failed.
    pub fn generate() -> Result<Self, PkiError> {
        use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| PkiError::Key)?;
        let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(|_| PkiError::Key)?;
        let mut der = Vec::with_capacity(121);
        // SEQUENCE { INTEGER 1, OCTET STRING (32), [0] { OID prime256v1 }, [1] { BIT STRING (65) } }: RFC 5915, section 3.
        der.extend_from_slice(&[0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20]);
        der.extend_from_slice(scalar.as_ref());
        der.extend_from_slice(&[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        der.extend_from_slice(&[0xa1, 0x44, 0x03, 0x42, 0x00]);
        der.extend_from_slice(pair.public_key().as_ref());
        let pem = pem_block("EC PRIVATE KEY", &der);
        der.zeroize();
        Self::parse_pem(pem.into())
    }

    /// A key that was kept. Text around the PEM block is passed over and not kept.
    ///
    /// # Errors
    ///
    /// [`PkiError::Key`], which says nothing of the content.
    pub fn parse_pem(pem: SecretString) -> Result<Self, PkiError> {
        let pair = key_pair(&pem)?;
        if !pair.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
            return Err(PkiError::Key);
        }
        Ok(Self { spki: pair.subject_public_key_info(), pem })
    }

    /// DER of the public key.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The PEM text. Must not reach any output.
    pub fn expose_pem(&self) -> &str {
        self.pem.expose_secret()
    }

    /// A PKCS#10 request for this subject, PEM.
    ///
    /// # Errors
    ///
    /// [`PkiError::Request`].
    pub fn request(&self, organization: &str, common_name: &str) -> Result<String, PkiError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let request = params.serialize_request(&key_pair(&self.pem)?);
        let request = request.map_err(|error| PkiError::Request(error.to_string()))?;
        Ok(pem_block("CERTIFICATE REQUEST", request.der()))
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({})", Pin::of_spki(&self.spki))
    }
}

fn key_pair(pem: &SecretString) -> Result<rcgen::KeyPair, PkiError> {
    let der = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| PkiError::Key)?;
    rcgen::KeyPair::try_from(&der).map_err(|_| PkiError::Key)
}

/// DER of the public key in a private key's PEM, whatever its algorithm; to see whether a certificate belongs to it.
///
/// # Errors
///
/// [`PkiError::Key`].
pub fn spki_of_key(pem: &SecretString) -> Result<Vec<u8>, PkiError> {
    Ok(key_pair(pem)?.subject_public_key_info())
}

/// DER of the public key in a PKCS#10 request, PEM; none: it is no such request.
pub fn spki_of_request(pem: &[u8]) -> Option<Vec<u8>> {
    use x509_parser::certification_request::X509CertificationRequest;
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).ok()?;
    Some(request.certification_request_info.subject_pki.raw.to_vec())
}

/// A PEM block as Go's `encoding/pem` writes it: 64 characters a line, newline at the end.
pub fn pem_block(label: &str, der: &[u8]) -> String {
    let mut encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::with_capacity(encoded.len() + encoded.len() / 64 + 2 * label.len() + 40);
    pem.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    encoded.zeroize();
    pem
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_key_is_written_as_go_writes_it_and_read_back() {
        let key = ClientKey::generate().unwrap();
        let pem = key.expose_pem();
        let lines: Vec<_> = pem.lines().collect();
        assert_eq!((lines[0], lines.len()), ("-----BEGIN EC PRIVATE KEY-----", 5));
        assert_eq!(lines[1].len(), 64);
        let again = ClientKey::parse_pem(pem.into()).unwrap();
        assert_eq!(again.spki(), key.spki());
        assert_eq!(spki_of_key(&pem.into()).unwrap(), key.spki());
        assert_eq!(spki_of_request(key.request("o", "c").unwrap().as_bytes()).unwrap(), key.spki());
    }

    #[test]
    fn a_key_shows_itself_nowhere() {
        let key = ClientKey::generate().unwrap();
        let secret = key.expose_pem().lines().nth(1).unwrap().to_owned();
        assert!(!format!("{key:?}").contains(&secret[..20]));
        let broken = key.expose_pem().replacen("M", "N", 1);
        assert!(!ClientKey::parse_pem(broken.into()).unwrap_err().to_string().contains(&secret[..20]));
    }

    #[test]
    fn a_key_of_another_algorithm_is_refused() {
        let rsa_or_p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        assert_eq!(ClientKey::parse_pem(rsa_or_p384.into()).unwrap_err(), PkiError::Key);
    }

    proptest! {
        #[test]
        fn a_pin_reads_back_what_it_shows(bytes: [u8; 32]) {
            let pin = Pin(bytes);
            let shown = pin.to_string();
            prop_assert_eq!(shown.parse::<Pin>().unwrap(), pin);
            prop_assert_eq!(shown.to_uppercase().parse::<Pin>().unwrap(), pin);
            prop_assert!(shown[..70].parse::<Pin>().is_err());
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>, text: String) {
            let _ = text.parse::<Pin>();
            let _ = format!("sha256:{text}").parse::<Pin>();
            let _ = Certificate::parse_pem(&bytes);
            let _ = Certificate::parse_pem(pem_block("CERTIFICATE", &bytes).as_bytes());
            let _ = spki_of_request(pem_block("CERTIFICATE REQUEST", &bytes).as_bytes());
            let _ = ClientKey::parse_pem(pem_block("EC PRIVATE KEY", &bytes).into());
        }
    }
}
