//! A CA and what it signs: certificates whose every field is as kubeadm's, the extensions in Go's order.

use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

use super::der;
use super::key::{KeyError, PrivateKey};
use super::names::Names;
use crate::pki::{Certificate, PkiError};

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.4.10
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
/// 2.5.29.15
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// 2.5.29.37
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// 2.5.29.19
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// 2.5.29.35
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
/// 2.5.29.17
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 1.3.6.1.5.5.7.3.1
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
/// 1.3.6.1.5.5.7.3.2
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// `digitalSignature` and `keyEncipherment`, five bits unused; kubeadm's also for EC keys.
const LEAF_KEY_USAGE: [u8; 4] = [der::BIT_STRING, 2, 5, 0xa0];
/// Context tags of a SubjectAlternativeName and of the key identifier.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
const KEY_IDENTIFIER: u8 = 0x80;
/// From this year on, a certificate's times have four digits for it (RFC 5280, section 4.1.2.5).
const FIRST_LONG_YEAR: i16 = 2050;

/// Extended key usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::join::control_plane) enum Usage {
    Server,
    Client,
}

/// What a certificate says, beside its keys. Its issuer's word is all that this needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::join::control_plane) struct Subject {
    pub(in crate::join::control_plane) common_name: String,
    pub(in crate::join::control_plane) organization: Option<&'static str>,
    pub(in crate::join::control_plane) usages: &'static [Usage],
    pub(in crate::join::control_plane) names: Names,
}

/// Both ends included, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::join::control_plane) struct Validity {
    pub(in crate::join::control_plane) not_before: i64,
    pub(in crate::join::control_plane) not_after: i64,
}

/// A CA's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::join::control_plane) struct CaCertificate {
    pub(in crate::join::control_plane) certificate: Certificate,
    /// DER of its name.
    subject: Vec<u8>,
    key_identifier: Option<Vec<u8>>,
}

/// Why a file holds no CA. Its texts go on after the file's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CaProblem {
    /// No certificate can be read.
    #[error("{0}")]
    Unreadable(#[from] PkiError),
    /// A certificate, but of no CA.
    #[error("its first certificate is not that of a CA")]
    NoCa,
}

/// Why a certificate cannot be issued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IssueError {
    /// The library.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// X.509 knows the years to 9999.
    #[error("its end, {0} seconds after 1970, is later than a certificate can say")]
    Time(i64),
    /// Names are ASCII in certificates.
    #[error("`{0}` cannot stand in a certificate")]
    Name(String),
}

impl CaCertificate {
    /// The first certificate of a PEM text, which is the one that kubeadm takes for the CA.
    pub(in crate::join::control_plane) fn parse_pem(pem: &[u8]) -> Result<Self, CaProblem> {
        let certificate = Certificate::parse_pem(pem)?.swap_remove(0);
        let (_, parsed) = X509Certificate::from_der(&certificate.der).map_err(|_| PkiError::Certificate(1))?;
        if !parsed.is_ca() {
            return Err(CaProblem::NoCa);
        }
        let key_identifier = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        });
        let subject = parsed.subject().as_raw().to_vec();
        Ok(Self { subject, key_identifier, certificate })
    }
}

/// A CA that can sign.
#[derive(Debug)]
pub(in crate::join::control_plane) struct Authority {
    pub(in crate::join::control_plane) ca: CaCertificate,
    key: PrivateKey,
}

impl Authority {
    /// None: the key is another CA's.
    pub(in crate::join::control_plane) fn new(ca: CaCertificate, key: PrivateKey) -> Result<Option<Self>, KeyError> {
        Ok((key.spki()? == ca.certificate.spki).then_some(Self { ca, key }))
    }

    /// A certificate for the public half of `key`; DER.
    pub(in crate::join::control_plane) fn issue(
        &self,
        subject: &Subject,
        validity: Validity,
        key: &PrivateKey,
    ) -> Result<Vec<u8>, IssueError> {
        let algorithm = self.key.signature_algorithm();
        let content = der::sequence(&[
            &der::value(0xa0, &der::unsigned(2)),
            &der::unsigned(serial()?),
            &algorithm,
            &self.ca.subject,
            &der::sequence(&[&time(validity.not_before)?, &time(validity.not_after)?]),
            &name(subject),
            &key.spki()?,
            &der::value(0xa3, &self.extensions(subject)?),
        ]);
        let signature = self.key.sign(&content)?;
        Ok(der::sequence(&[&content, &algorithm, &der::bits(&signature)]))
    }

    fn extensions(&self, subject: &Subject) -> Result<Vec<u8>, IssueError> {
        let usages = subject
            .usages
            .iter()
            .flat_map(|usage| der::value(der::OID, if *usage == Usage::Server { SERVER_AUTH } else { CLIENT_AUTH }));
        let usages: Vec<u8> = usages.collect();
        let mut all = vec![
            extension(KEY_USAGE, Criticality::Critical, &LEAF_KEY_USAGE),
            extension(EXTENDED_KEY_USAGE, Criticality::Minor, &der::sequence(&[&usages])),
            extension(BASIC_CONSTRAINTS, Criticality::Critical, &der::sequence(&[])),
        ];
        if let Some(identifier) = &self.ca.key_identifier {
            let identifier = der::sequence(&[&der::value(KEY_IDENTIFIER, identifier)]);
            all.push(extension(AUTHORITY_KEY_IDENTIFIER, Criticality::Minor, &identifier));
        }
        let mut names = Vec::new();
        for name in &subject.names.dns {
            if !name.is_ascii() {
                return Err(IssueError::Name(crate::output::printable(name)));
            }
            names.extend(der::value(DNS_NAME, name.as_bytes()));
        }
        for address in &subject.names.ips {
            names.extend(match address {
                IpAddr::V4(address) => der::value(IP_ADDRESS, &address.octets()),
                IpAddr::V6(address) => der::value(IP_ADDRESS, &address.octets()),
            });
        }
        if !names.is_empty() {
            all.push(extension(SUBJECT_ALTERNATIVE_NAME, Criticality::Minor, &der::sequence(&[&names])));
        }
        Ok(der::sequence(&[&all.concat()]))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Criticality {
    Critical,
    Minor,
}

fn extension(oid: &[u8], criticality: Criticality, content: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if criticality == Criticality::Critical { &der::TRUE } else { &[] };
    der::sequence(&[&der::value(der::OID, oid), critical, &der::value(der::OCTET_STRING, content)])
}

/// 1 to 2^63 − 2, as in kubeadm.
fn serial() -> Result<u64, KeyError> {
    const LAST: u64 = (1 << 63) - 2;
    loop {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes)?;
        let number = u64::from_be_bytes(bytes) >> 1;
        if (1..=LAST).contains(&number) {
            return Ok(number);
        }
    }
}

/// The organization comes first, in a set of its own, as Go writes it.
fn name(subject: &Subject) -> Vec<u8> {
    let part = |oid, text: &str| {
        let printable = text.bytes().all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b));
        let tag = if printable { der::PRINTABLE_STRING } else { der::UTF8_STRING };
        let attribute = der::sequence(&[&der::value(der::OID, oid), &der::value(tag, text.as_bytes())]);
        der::value(der::SET, &attribute)
    };
    let organization = subject.organization.map(|organization| part(ORGANIZATION, organization)).unwrap_or_default();
    der::sequence(&[&organization, &part(COMMON_NAME, &subject.common_name)])
}

fn time(seconds: i64) -> Result<Vec<u8>, IssueError> {
    let time = Timestamp::from_second(seconds).map_err(|_| IssueError::Time(seconds))?.to_zoned(TimeZone::UTC);
    Ok(if time.year() < FIRST_LONG_YEAR {
        der::value(der::UTC_TIME, time.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        der::value(der::GENERALIZED_TIME, time.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_that_their_year_asks_for() {
        assert_eq!(time(0).unwrap()[2..], *b"700101000000Z");
        assert_eq!(time(2_524_607_999).unwrap(), [&[0x17, 13][..], b"491231235959Z"].concat());
        assert_eq!(time(2_524_608_000).unwrap(), [&[0x18, 15][..], b"20500101000000Z"].concat());
        assert_eq!(time(i64::MAX), Err(IssueError::Time(i64::MAX)));
    }

    #[test]
    fn serials_are_positive_and_differ() {
        let serials: std::collections::BTreeSet<u64> = (0..100).map(|_| serial().unwrap()).collect();
        assert_eq!(serials.len(), 100);
        assert!(serials.iter().all(|&serial| serial > 0 && serial < i64::MAX as u64));
    }
}
