//! Who asks: anonymous, a bootstrap token, or a client certificate.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::request::SECRETS;
use super::store::{Key, Store};

const PREFIX_NODE: &str = "system:node:";
/// Group of every node.
pub(super) const GROUP_NODES: &str = "system:nodes";
/// Group whose members may do everything.
pub(super) const GROUP_MASTERS: &str = "system:masters";
/// Group that kubeadm gives its tokens.
pub(super) const GROUP_JOINING: &str = "system:bootstrappers:kubeadm:default-node-token";

/// Name and groups that the authorizers judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

impl User {
    fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()] }
    }

    pub(super) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The name of the Node this user is.
    pub(super) fn node(&self) -> Option<&str> {
        self.name.strip_prefix(PREFIX_NODE).filter(|_| self.is_in(GROUP_NODES))
    }
}

/// Who sent a request; none: the credentials are no good.
pub(super) fn authenticate(
    certificate: Option<&CertificateDer<'_>>,
    authorization: Option<&str>,
    verifier: &RequestedCertificate,
    store: &Store,
) -> Option<User> {
    // The API server tries certificates first; a bad one does not keep a good token from being looked at.
    if let Some(user) = certificate.and_then(|certificate| verifier.user(certificate)) {
        return Some(user);
    }
    // Other schemes than bearer are nobody's business: such a request is anonymous.
    let token =
        authorization.and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match token {
        Some((_, token)) => bootstrap_user(token.trim(), store),
        None if certificate.is_some() => None,
        None => Some(User::anonymous()),
    }
}

fn bootstrap_user(token: &str, store: &Store) -> Option<User> {
    let (id, secret) = token.split_once('.')?;
    let key = Key { kind: &SECRETS, namespace: "kube-system".into(), name: format!("bootstrap-token-{id}") };
    let stored = store.get(&key)?;
    let valid = stored["type"] == "bootstrap.kubernetes.io/token"
        && secret_text(stored, "token-id").as_deref() == Some(id)
        && secret_text(stored, "token-secret").as_deref() == Some(secret)
        && secret_text(stored, "usage-bootstrap-authentication").as_deref() == Some("true")
        && !is_expired(stored);
    valid.then(|| {
        let extra = secret_text(stored, "auth-extra-groups").unwrap_or_default();
        let groups = ["system:bootstrappers"]
            .into_iter()
            .chain(extra.split(',').map(str::trim).filter(|group| !group.is_empty()))
            .chain(["system:authenticated"])
            .map(str::to_owned)
            .collect();
        User { name: format!("system:bootstrap:{id}"), groups }
    })
}

/// A key of a Secret, decoded.
pub(super) fn secret_text(secret: &Value, key: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(secret["data"][key].as_str()?).ok()?).ok()
}

/// Whether a bootstrap token's time is over. Unreadable counts as over; absent as endless.
pub(super) fn is_expired(secret: &Value) -> bool {
    secret_text(secret, "expiration")
        .is_some_and(|text| text.parse::<Timestamp>().map_or(true, |time| time <= Timestamp::now()))
}

/// Asks clients for a certificate and lets any pass the handshake.
///
/// As the API server does: a certificate of another CA is answered with 401, not with a TLS alert.
pub(super) struct RequestedCertificate {
    inner: Arc<dyn ClientCertVerifier>,
}

impl RequestedCertificate {
    pub(super) fn new(ca: &CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).expect("the sandbox's own CA certificate is well-formed");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("one root and no revocation lists are a complete configuration");
        Self { inner }
    }

    fn user(&self, certificate: &CertificateDer<'_>) -> Option<User> {
        self.inner.verify_client_cert(certificate, &[], UnixTime::now()).ok()?;
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let text =
            |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().map(str::to_owned).ok();
        let name = parsed.subject().iter_common_name().next().and_then(text)?;
        let mut groups: Vec<_> = parsed.subject().iter_organization().filter_map(text).collect();
        groups.push("system:authenticated".into());
        Some(User { name, groups })
    }
}

impl fmt::Debug for RequestedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestedCertificate")
    }
}

impl ClientCertVerifier for RequestedCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
