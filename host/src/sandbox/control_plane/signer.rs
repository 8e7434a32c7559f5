//! Certificate signing requests: what the API server refuses, what is approved by itself, what is signed.
//!
//! Sources: kubernetes `pkg/apis/certificates/validation`, `pkg/controller/certificates/{approver,signer}`.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension};

use super::Approval;
use super::request::REQUESTS;
use super::status::{Cause, Status};
use super::store::{self, Key, Store};
use super::user::{GROUP_JOINING, GROUP_MASTERS, GROUP_NODES};

/// Signer of kubelets' client certificates.
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signer of kubelets' serving certificates.
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Signer of other clients' certificates.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Lifetime of what kube-controller-manager signs, unless less is asked for.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates begin this long ago, so that clocks may differ.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Shortest lifetime that may be asked for.
const SHORTEST: u64 = 600;

/// `spec.usages` that exist.
const USAGES: [&str; 23] = [
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
];

/// The cluster's certificate authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    /// A new one, as kubeadm names it.
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
        params.not_before = (SystemTime::now() - BACKDATE).into();
        params.not_after = (SystemTime::now() + 10 * LIFETIME).into();
        let key = new_key();
        let certificate = params.self_signed(&key).expect("a P-256 key signs these parameters");
        let pem = certificate.pem();
        Self { certificate: certificate.der().clone(), issuer: Issuer::new(params, key), pem }
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate that this process makes for itself, with its key; PEM, and DER of both.
    pub(super) fn issue(
        &self,
        common_name: &str,
        organization: Option<&str>,
        names: &[String],
        usage: ExtendedKeyUsagePurpose,
    ) -> (rcgen::Certificate, KeyPair) {
        let mut params =
            CertificateParams::new(names.to_vec()).expect("the sandbox's names are DNS names or IP addresses");
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (SystemTime::now() - BACKDATE).into();
        params.not_after = (SystemTime::now() + LIFETIME).into();
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a P-256 key signs these parameters");
        (certificate, key)
    }

    fn sign(&self, request: &Value) -> Result<String, String> {
        let der = request_der(request)?;
        let mut request_params =
            CertificateSigningRequestParams::from_der(&der).map_err(|error| format!("unable to sign: {error}"))?;
        let params = &mut request_params.params;
        let usages = strings(&request["spec"]["usages"]);
        params.key_usages = Vec::new();
        params.extended_key_usages = Vec::new();
        for usage in usages {
            match usage {
                "digital signature" | "signing" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
                "server auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
                other => return Err(format!("usage {other:?} is not signed by the sandbox")),
            }
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let lifetime =
            request["spec"]["expirationSeconds"].as_u64().map_or(LIFETIME, Duration::from_secs).min(LIFETIME);
        params.not_before = (SystemTime::now() - BACKDATE).into();
        params.not_after = (SystemTime::now() - BACKDATE + lifetime).into();
        let certificate = request_params.signed_by(&self.issuer).map_err(|error| format!("unable to sign: {error}"))?;
        Ok(certificate.pem())
    }
}

/// An ECDSA P-256 key.
pub(super) fn new_key() -> KeyPair {
    KeyPair::generate().expect("the system has random numbers")
}

/// What the API server finds wrong with a new request.
pub(super) fn violations(request: &Value) -> Vec<Cause> {
    let spec = &request["spec"];
    let mut causes = Vec::new();
    let signed = request_der(request).and_then(|der| {
        CertificateSigningRequestParams::from_der(&der).map(drop).or_else(|error| match error {
            // The API server signs nothing, so what rcgen cannot sign is no fault here.
            rcgen::Error::UnsupportedExtension | rcgen::Error::UnsupportedSignatureAlgorithm => Ok(()),
            error => Err(error.to_string()),
        })
    });
    if let Err(why) = signed {
        causes.push(Cause::invalid("spec.request", "<request>", &why));
    }
    let usages = strings(&spec["usages"]);
    if usages.is_empty() {
        causes.push(Cause::required("spec.usages"));
    }
    for (index, usage) in usages.iter().enumerate() {
        let field = format!("spec.usages[{index}]");
        if !USAGES.contains(usage) {
            let message = format!("Unsupported value: {usage:?}: supported values: {}", quoted_sorted(&USAGES));
            causes.push(Cause { reason: "FieldValueNotSupported", field, message });
        } else if usages[..index].contains(usage) {
            causes.push(Cause::duplicate(field, usage));
        }
    }
    match spec["signerName"].as_str().unwrap_or_default() {
        "" => causes.push(Cause::required("spec.signerName")),
        name if !name.contains('/') => causes.push(Cause::invalid(
            "spec.signerName",
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        )),
        name @ "kubernetes.io/legacy-unknown" => causes.push(Cause::invalid(
            "spec.signerName",
            name,
            "the legacy signerName is not allowed via this API version",
        )),
        _ => {}
    }
    if let Some(seconds) = spec["expirationSeconds"].as_i64().filter(|seconds| *seconds < SHORTEST as i64) {
        let message =
            format!("Invalid value: {seconds}: may not specify a duration less than 600 seconds (10 minutes)");
        causes.push(Cause { reason: "FieldValueInvalid", field: "spec.expirationSeconds".into(), message });
    }
    causes
}

/// What the API server finds wrong with a decision about a request.
pub(super) fn condition_violations(request: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let conditions = request["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, condition) in conditions.iter().enumerate() {
        let status = condition["status"].as_str().unwrap_or_default();
        let field = format!("status.conditions[{index}].status");
        if status.is_empty() {
            causes.push(Cause::required(&field));
        } else if status != "True" {
            let message = format!("Unsupported value: {status:?}: supported values: \"True\"");
            causes.push(Cause { reason: "FieldValueNotSupported", field, message });
        }
    }
    if has_condition(request, "Approved") && has_condition(request, "Denied") {
        let why = "Approved and Denied conditions are mutually exclusive";
        causes.push(Cause::invalid("status.conditions", "Denied", why));
    }
    causes
}

/// The common name that a request asks for.
pub(super) fn common_name(request: &Value) -> Result<String, String> {
    Subject::of(request).map(|subject| subject.common_name)
}

/// Does what kube-controller-manager does when it sees a request: decides, then signs.
pub(super) fn reconcile(store: &mut Store, name: &str, approval: &Approval, authority: &Authority) {
    let key = Key { kind: &REQUESTS, namespace: String::new(), name: name.to_owned() };
    if let Some(decided) = store.get(&key).and_then(|request| decided(request, approval)) {
        write(store, &key, decided);
    }
    if let Some(answered) = store.get(&key).and_then(|request| answered(request, approval, authority)) {
        write(store, &key, answered);
    }
}

fn write(store: &mut Store, key: &Key, request: Value) {
    let written: Result<Value, Status> = store.update(key, request);
    written.expect("the object was read under the same lock");
}

fn decided(request: &Value, approval: &Approval) -> Option<Value> {
    if has_condition(request, "Approved") || has_condition(request, "Denied") {
        return None;
    }
    let groups = strings(&request["spec"]["groups"]);
    let is_in = |group: &str| groups.contains(&group) || groups.contains(&GROUP_MASTERS);
    let for_kubelet = request["spec"]["signerName"] == KUBELET_CLIENT && kubelet_client_violation(request).is_none();
    let for_itself = for_kubelet && common_name(request).is_ok_and(|name| request["spec"]["username"] == name.as_str());
    let message = if for_itself && is_in(GROUP_NODES) {
        "Auto approving self kubelet client certificate after SubjectAccessReview."
    } else if for_kubelet && is_in(GROUP_JOINING) {
        "Auto approving kubelet client certificate after SubjectAccessReview."
    } else {
        return None;
    };
    match approval {
        Approval::Off => None,
        Approval::Deny { reason, message } => Some(with_condition(request, "Denied", reason, message)),
        Approval::Automatic | Approval::Fail { .. } => {
            Some(with_condition(request, "Approved", "AutoApproved", message))
        }
    }
}

fn answered(request: &Value, approval: &Approval, authority: &Authority) -> Option<Value> {
    let open = has_condition(request, "Approved")
        && !has_condition(request, "Failed")
        && request["status"]["certificate"].as_str().is_none_or(str::is_empty);
    let signer = request["spec"]["signerName"].as_str().unwrap_or_default();
    if !open || ![KUBELET_CLIENT, KUBELET_SERVING, CLIENT].contains(&signer) {
        return None;
    }
    if let Approval::Fail { reason, message } = approval {
        return Some(with_condition(request, "Failed", reason, message));
    }
    let violation = (signer == KUBELET_CLIENT).then(|| kubelet_client_violation(request)).flatten();
    match violation.map_or_else(|| authority.sign(request), Err) {
        Ok(pem) => {
            let mut request = request.clone();
            request["status"]["certificate"] = STANDARD.encode(pem).into();
            Some(request)
        }
        Err(why) => Some(with_condition(request, "Failed", "SignerValidationFailure", &why)),
    }
}

fn has_condition(request: &Value, name: &str) -> bool {
    let conditions = request["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition["type"] == name))
}

fn with_condition(request: &Value, name: &str, reason: &str, message: &str) -> Value {
    let mut request = request.clone();
    let condition = json!({
        "type": name, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": store::now(), "lastTransitionTime": store::now(),
    });
    match request["status"]["conditions"].as_array_mut() {
        Some(conditions) => conditions.push(condition),
        None => request["status"]["conditions"] = json!([condition]),
    }
    request
}

/// Why this is no request for a kubelet's client certificate.
fn kubelet_client_violation(request: &Value) -> Option<String> {
    let subject = match Subject::of(request) {
        Ok(subject) => subject,
        Err(why) => return Some(why),
    };
    let mut usages = strings(&request["spec"]["usages"]);
    usages.sort_unstable();
    if subject.organizations != [GROUP_NODES] {
        Some("subject organization is not system:nodes".into())
    } else if let Some(names) = subject.names {
        Some(format!("{names} subjectAltNames are not allowed"))
    } else if !subject.common_name.starts_with("system:node:") {
        Some("subject common name does not begin with system:node:".into())
    } else if usages != ["client auth", "digital signature"]
        && usages != ["client auth", "digital signature", "key encipherment"]
    {
        Some("usages did not match [client auth digital signature key encipherment]".into())
    } else {
        None
    }
}

/// What a request asks for, as far as rules look at it.
struct Subject {
    common_name: String,
    organizations: Vec<String>,
    /// Kind of the first alternative name that the API server would complain of.
    names: Option<&'static str>,
}

impl Subject {
    fn of(request: &Value) -> Result<Self, String> {
        let der = request_der(request)?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
        let info = &parsed.certification_request_info;
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().unwrap_or_default().to_owned()
        };
        let mut kinds: Vec<_> = parsed
            .requested_extensions()
            .into_iter()
            .flatten()
            .filter_map(|extension| match extension {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten()
            .filter_map(|name| match name {
                GeneralName::DNSName(_) => Some((0, "DNS")),
                GeneralName::RFC822Name(_) => Some((1, "Email")),
                GeneralName::IPAddress(_) => Some((2, "IP")),
                GeneralName::URI(_) => Some((3, "URI")),
                _ => None,
            })
            .collect();
        kinds.sort_unstable();
        Ok(Self {
            common_name: info.subject.iter_common_name().next().map(text).unwrap_or_default(),
            organizations: info.subject.iter_organization().map(text).collect(),
            names: kinds.first().map(|(_, kind)| *kind),
        })
    }
}

fn request_der(request: &Value) -> Result<CertificateSigningRequestDer<'static>, String> {
    let encoded = request["spec"]["request"].as_str().unwrap_or_default();
    let pem = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
    CertificateSigningRequestDer::from_pem_slice(&pem)
        .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|items| items.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn quoted_sorted(values: &[&str]) -> String {
    let mut quoted: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
    quoted.sort();
    quoted.join(", ")
}
