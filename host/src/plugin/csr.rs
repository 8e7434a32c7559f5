//! A certificate request as hooks see it: parsed once, by the host, as a strict part of what the API server takes.
//!
//! Two parsers that read the same bytes differently are how a gate approves one thing and a signer signs another: whatever
//! is said twice, stands beside the request or cannot be shown in full is refused here. Whether a request is one that a
//! kubelet may make is for the approver's rules.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension};

use super::wire::Bytes;
use crate::error::{Diagnose, ExitCode};

/// `spec.request`.
const PEM_BYTES: usize = 64 << 10;
/// Groups, alternative names.
const MANY: usize = 256;
/// Keys of `spec.extra`, and values of each.
const EXTRA: usize = 64;
/// All of `spec.extra` together.
const EXTRA_BYTES: usize = 256 << 10;
/// Usages, attributes of the subject.
const FEW: usize = 32;
/// A name, group or attribute.
const TEXT_BYTES: usize = 1 << 10;
/// A text of `spec.extra`.
const EXTRA_TEXT_BYTES: usize = 4 << 10;
/// The public key.
const KEY_BYTES: usize = 8 << 10;

/// One request with all that `mortise:host/csr` shows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    pub(super) name: String,
    pub(super) signer_name: String,
    pub(super) requested_at: u64,
    pub(super) expiration_seconds: Option<u32>,
    pub(super) username: String,
    pub(super) groups: Vec<String>,
    pub(super) uid: String,
    pub(super) extra: Vec<(String, Vec<String>)>,
    pub(super) usages: Vec<String>,
    pub(super) subject: Vec<(String, String)>,
    pub(super) names: Names,
    pub(super) public_key: Bytes,
    pub(super) pem: Bytes,
}

/// Subject alternative names, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Names {
    pub(super) dns: Vec<String>,
    pub(super) ip: Vec<String>,
    pub(super) email: Vec<String>,
    pub(super) uri: Vec<String>,
    pub(super) others: u32,
}

/// Why a request is shown to no hook.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CsrError {
    /// The PEM around it.
    #[error("the certificate request is no single block `CERTIFICATE REQUEST`")]
    Pem,
    /// What is in it.
    #[error("the certificate request is malformed: {0}")]
    Malformed(String),
    /// Not signed by the key in it.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// Too large.
    #[error("the certificate request has {what} beyond its bound of {most}")]
    Bound {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        most: usize,
    },
}

impl Diagnose for CsrError {
    fn code(&self) -> &'static str {
        match self {
            Self::Pem => "csr-pem",
            Self::Malformed(_) => "csr-malformed",
            Self::Signature => "csr-signature",
            Self::Bound { .. } => "csr-bound",
        }
    }

    fn hint(&self) -> Option<String> {
        (*self == Self::Pem).then(|| "it is one block from `-----BEGIN CERTIFICATE REQUEST-----` on".into())
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Usage
    }
}

impl CertificateRequest {
    /// Takes an object of the API apart.
    ///
    /// # Errors
    ///
    /// [`CsrError`] for one that is to be shown to no hook.
    pub fn of(object: &CertificateSigningRequest) -> Result<Self, CsrError> {
        let spec = &object.spec;
        let parsed = Parsed::of(&spec.request.0)?;
        let expiration = spec.expiration_seconds.map(u32::try_from).transpose();
        let created = object.metadata.creation_timestamp.as_ref().map_or(0, |at| at.0.as_second());
        let extra = spec.extra.iter().flatten().map(|(key, values)| (key.clone(), values.clone()));
        let request = Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            signer_name: spec.signer_name.clone(),
            requested_at: u64::try_from(created).unwrap_or_default(),
            expiration_seconds: expiration.map_err(|_| CsrError::Malformed("a negative lifetime".into()))?,
            username: spec.username.clone().unwrap_or_default(),
            groups: spec.groups.clone().unwrap_or_default(),
            uid: spec.uid.clone().unwrap_or_default(),
            extra: extra.collect(),
            usages: spec.usages.clone().unwrap_or_default(),
            subject: parsed.subject,
            names: parsed.names,
            public_key: Bytes(parsed.public_key),
            pem: Bytes(spec.request.0.clone()),
        };
        request.verify()?;
        Ok(request)
    }

    /// The one common name of the subject without `system:node:`.
    pub fn node_name(&self) -> Option<&str> {
        let mut names = self.subject.iter().filter(|(kind, _)| kind == "CN").map(|(_, value)| value);
        match (names.next(), names.next()) {
            (Some(name), None) => name.strip_prefix("system:node:").filter(|name| !name.is_empty()),
            _ => None,
        }
    }

    /// Whether it asks for names that a server goes by.
    pub fn has_names(&self) -> bool {
        self.names != Names::default()
    }

    /// Every bound of the WIT.
    fn verify(&self) -> Result<(), CsrError> {
        let Names { dns, ip, email, uri, others } = &self.names;
        let named = || dns.iter().chain(ip).chain(email).chain(uri);
        let extra = || self.extra.iter().flat_map(|(key, values)| std::iter::once(key).chain(values));
        let longest = |texts: &mut dyn Iterator<Item = &String>| texts.map(String::len).max().unwrap_or_default();
        let longest_extra = self.extra.iter().map(|(_, values)| values.len()).max().unwrap_or_default();
        let others = usize::try_from(*others).unwrap_or(usize::MAX);
        for (what, found, most) in [
            ("a name", self.name.len(), 253),
            ("a signer's name", self.signer_name.len(), 571),
            ("a user name", self.username.len(), TEXT_BYTES),
            ("a user id", self.uid.len(), TEXT_BYTES),
            ("groups", self.groups.len(), MANY),
            ("a group", longest(&mut self.groups.iter()), TEXT_BYTES),
            ("extra keys", self.extra.len(), EXTRA),
            ("extra values", longest_extra, EXTRA),
            ("an extra text", longest(&mut extra()), EXTRA_TEXT_BYTES),
            ("extra texts", extra().map(String::len).sum(), EXTRA_BYTES),
            ("usages", self.usages.len(), FEW),
            ("a usage", longest(&mut self.usages.iter()), TEXT_BYTES),
            ("attributes", self.subject.len(), FEW),
            ("an attribute", longest(&mut self.subject.iter().map(|(_, value)| value)), TEXT_BYTES),
            ("alternative names", named().count().saturating_add(others), MANY),
            ("an alternative name", longest(&mut named()), TEXT_BYTES),
            ("a public key", self.public_key.0.len(), KEY_BYTES),
        ] {
            if found > most {
                return Err(CsrError::Bound { what, most });
            }
        }
        Ok(())
    }
}

/// What is in the PEM.
struct Parsed {
    subject: Vec<(String, String)>,
    names: Names,
    public_key: Vec<u8>,
}

impl Parsed {
    fn of(pem: &[u8]) -> Result<Self, CsrError> {
        if pem.len() > PEM_BYTES {
            return Err(CsrError::Bound { what: "bytes", most: PEM_BYTES });
        }
        // The parser passes over what comes before a block, and knows no end of what comes after.
        if !pem.trim_ascii_start().starts_with(b"-----BEGIN ") {
            return Err(CsrError::Pem);
        }
        let (rest, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| CsrError::Pem)?;
        if !rest.trim_ascii().is_empty() || !["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&&*block.label)
        {
            return Err(CsrError::Pem);
        }
        let malformed = |what: &str| CsrError::Malformed(what.into());
        let (rest, request) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|error| CsrError::Malformed(error.to_string()))?;
        let info = &request.certification_request_info;
        if !rest.is_empty() || info.version.0 != 0 {
            return Err(malformed("bytes beyond it, or another version"));
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        let mut subject = Vec::new();
        for attribute in info.subject.iter_attributes() {
            let value = attribute.as_str().map_err(|_| malformed("an attribute that is no text"))?;
            subject.push((attribute_name(&attribute.attr_type().to_id_string()), value.to_owned()));
        }
        let mut extensions =
            request.requested_extensions().into_iter().flatten().filter_map(|extension| match extension {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            });
        let names = extensions.next().map(|names| Names::of(names)).transpose()?.unwrap_or_default();
        if extensions.next().is_some() {
            return Err(malformed("alternative names twice"));
        }
        Ok(Self { subject, names, public_key: info.subject_pki.raw.to_vec() })
    }
}

/// Short names of RFC 4519, as the WIT lists them.
fn attribute_name(oid: &str) -> String {
    match oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        other => other,
    }
    .to_owned()
}

impl Names {
    fn of(all: &[GeneralName<'_>]) -> Result<Self, CsrError> {
        let mut names = Self::default();
        for name in all {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => names.email.push((*name).to_owned()),
                GeneralName::URI(name) => names.uri.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
                    let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
                    let address = address.map_err(|_| CsrError::Malformed("an address of another length".into()))?;
                    names.ip.push(address.to_string());
                }
                _ => names.others = names.others.saturating_add(1),
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:n1");
        params
    }

    fn pem(params: &CertificateParams) -> String {
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    fn object(pem: impl Into<Vec<u8>>) -> CertificateSigningRequest {
        let mut object = CertificateSigningRequest::default();
        object.metadata.name = Some("csr-1".into());
        object.spec.request = ByteString(pem.into());
        object.spec.signer_name = "kubernetes.io/kubelet-serving".into();
        object.spec.username = Some("system:node:n1".into());
        object
    }

    #[test]
    fn a_request_is_shown_in_full() {
        let mut params = params();
        params.subject_alt_names = vec![
            SanType::DnsName("n1.example".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::IpAddress("fd00::1".parse().unwrap()),
            SanType::URI("spiffe://x".try_into().unwrap()),
        ];
        let request = CertificateRequest::of(&object(pem(&params))).unwrap();
        assert_eq!(request.subject, [("O".into(), "system:nodes".into()), ("CN".into(), "system:node:n1".into())]);
        assert_eq!((request.node_name(), request.has_names()), (Some("n1"), true));
        assert_eq!(request.names.dns, ["n1.example"]);
        assert_eq!(request.names.ip, ["10.0.0.1", "fd00::1"]);
        assert_eq!((request.names.uri.len(), request.names.others), (1, 0));
        assert!(!request.public_key.0.is_empty());
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let good = pem(&params());
        let other = pem(&CertificateParams::default());
        let flipped = {
            let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
            let last = lines.len() - 2;
            let swapped: String = lines[last].chars().rev().collect();
            lines[last - 1] = lines[last - 1].to_lowercase();
            lines[last] = if lines[last].ends_with('=') { lines[last].clone() } else { swapped };
            lines.join("\n")
        };
        for (text, is) in [
            (format!("{good}{other}"), CsrError::Pem),
            (format!("text\n{good}"), CsrError::Pem),
            (format!("{good}text"), CsrError::Pem),
            (good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), CsrError::Pem),
            (String::new(), CsrError::Pem),
            ("x".repeat(PEM_BYTES + 1), CsrError::Bound { what: "bytes", most: PEM_BYTES }),
        ] {
            assert_eq!(CertificateRequest::of(&object(text.clone())), Err(is), "{text}");
        }
        let error = CertificateRequest::of(&object(flipped)).unwrap_err();
        assert!(matches!(error, CsrError::Signature | CsrError::Malformed(_)), "{error}");
        assert!(CertificateRequest::of(&object(good)).is_ok());
    }

    #[test]
    fn a_subject_of_two_common_names_names_no_node() {
        let mut two = CertificateRequest::of(&object(pem(&params()))).unwrap();
        two.subject.push(("CN".into(), "system:node:n2".into()));
        assert_eq!(two.node_name(), None);
    }

    #[test]
    fn a_request_beyond_a_bound_is_shown_to_nobody() {
        let mut groups = object(pem(&params()));
        groups.spec.groups = Some(vec!["g".into(); MANY + 1]);
        let mut extra = object(pem(&params()));
        extra.spec.extra = Some([("k".to_owned(), vec!["v".repeat(EXTRA_TEXT_BYTES); EXTRA])].into());
        for (object, what) in [(groups, "groups"), (extra, "extra texts")] {
            let error = CertificateRequest::of(&object).unwrap_err();
            assert!(matches!(error, CsrError::Bound { what: found, .. } if found == what), "{error}");
        }
    }
}
