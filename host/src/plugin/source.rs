//! What a discovery source found, every text of it parsed.
//!
//! Nothing here is trusted yet: whether the authority may be taken at its word is decided by the grant `trust-root` and
//! the operator's pins, where the cluster is verified. A failed source is no reason to ask a weaker one.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::SecretString;

use super::answers::{self, Cluster, Secret};
use super::ask::Asked;
use super::error::PluginError;
use super::kind::Kind;
use super::stage::Plugins;
use super::wire::{Export, Outcome};
use crate::config::Endpoint;
use crate::output::{Reporter, printable};
use crate::pki::{Certificate, Pin, spki_of_key};

/// A cluster that a plugin found.
#[derive(Debug, Clone)]
pub struct FoundCluster {
    /// In the order in which they are tried; at least one.
    pub endpoints: Vec<Endpoint>,
    /// How the API server has to prove itself.
    pub trust: FoundTrust,
    /// None: the operator's own is used.
    pub credential: Option<FoundCredential>,
    /// DNS name in the API server's certificate, where it is not the endpoint's host.
    pub tls_server_name: Option<String>,
    /// For people only; printable.
    pub cluster_name: Option<String>,
    /// Names and values, printable.
    pub evidence: Vec<(String, String)>,
}

/// See `trust` of the WIT.
#[derive(Debug, Clone)]
pub enum FoundTrust {
    /// Authorities of the API server, at least one.
    Authorities(Vec<Certificate>),
    /// Pins of them, at least one.
    Pins(Vec<Pin>),
    /// The operator's pins decide alone.
    OperatorPins,
}

/// What the kubelet's first certificate is asked for with.
#[derive(Clone)]
pub struct FoundCredential {
    /// The secret part is shown to nobody.
    pub secret: FoundSecret,
    /// When the API server begins to refuse it.
    pub expires_at: Option<SystemTime>,
}

/// See `secret` of the WIT.
#[derive(Clone)]
pub enum FoundSecret {
    /// Visible ASCII.
    BearerToken(SecretString),
    /// The key belongs to the first certificate.
    ClientCertificate {
        /// PEM, the client's own first.
        certificates: String,
        /// PEM.
        key: SecretString,
    },
}

impl FoundSecret {
    /// A few words for people.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::BearerToken(_) => "bearer token",
            Self::ClientCertificate { .. } => "client certificate",
        }
    }
}

impl fmt::Debug for FoundCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, expires_at } = self;
        f.debug_struct("FoundCredential").field("kind", &secret.describe()).field("expires_at", expires_at).finish()
    }
}

impl Plugins {
    /// Asks a discovery source once.
    ///
    /// # Errors
    ///
    /// [`PluginError`]: there is no such plugin, or it is of another kind. Whatever the plugin does is in the answer.
    pub async fn discover(&self, name: &str, reporter: &Reporter) -> Result<Asked<FoundCluster>, PluginError> {
        let plugin = self.of_kind(name, Kind::Discovery)?;
        let taken = |outcome| match outcome {
            Outcome::Cluster(cluster) => read(*cluster, SystemTime::now()),
            _ => Err(("protocol".to_owned(), "it answered something else".to_owned())),
        };
        Ok(self.ask(plugin, Export::Discover, reporter, taken, |_| true).await)
    }
}

/// Checks the bounds of what a source answered and gives it its meaning; else how it broke, and what was seen.
pub(super) fn read(cluster: Cluster, now: SystemTime) -> Result<FoundCluster, (String, String)> {
    cluster.verify().map_err(|message| ("oversized".to_owned(), message))?;
    parse(cluster, now).map_err(|message| ("malformed".to_owned(), message))
}

/// Gives every text its meaning, or says which has none. No message repeats a secret.
fn parse(cluster: Cluster, now: SystemTime) -> Result<FoundCluster, String> {
    let endpoint = |text: &String| text.parse::<Endpoint>().map_err(|error| format!("an endpoint: {error}"));
    let endpoints = cluster.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?;
    let trust = match cluster.trust {
        answers::Trust::CertificateAuthority(pem) => {
            let authorities = Certificate::parse_pem(pem.as_bytes())
                .map_err(|error| format!("the certificate authority: {error}"))?;
            if authorities.len() > answers::PLACES {
                return Err(format!("{} certificate authorities; {} are allowed", authorities.len(), answers::PLACES));
            }
            FoundTrust::Authorities(authorities)
        }
        answers::Trust::Pins(pins) => {
            let pins = pins.iter().map(|pin| pin.parse::<Pin>()).collect::<Result<_, _>>();
            FoundTrust::Pins(pins.map_err(|error| error.to_string())?)
        }
        answers::Trust::OperatorPins => FoundTrust::OperatorPins,
    };
    let credential = cluster.credential.map(|credential| parse_credential(credential, now)).transpose()?;
    let extra = |key: &str| cluster.extra.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let tls_server_name = match extra("tls-server-name") {
        // A name and a port is what the parser of endpoints checks; the port is ours.
        Some(name) => match format!("{name}:1").parse::<Endpoint>() {
            Ok(endpoint) if endpoint.host == name && endpoint.ip().is_none() => Some(endpoint.host),
            _ => return Err("`tls-server-name` is no DNS name".into()),
        },
        None => None,
    };
    Ok(FoundCluster {
        endpoints,
        trust,
        credential,
        tls_server_name,
        cluster_name: extra("cluster-name").map(printable),
        evidence: cluster.evidence.iter().map(|(name, value)| (printable(name), printable(value))).collect(),
    })
}

fn parse_credential(mut credential: answers::Credential, now: SystemTime) -> Result<FoundCredential, String> {
    let expires_at = match credential.expires_at {
        None => None,
        Some(seconds) => {
            let at =
                UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or("the credential expires after all time")?;
            if at <= now {
                let late = now.duration_since(at).unwrap_or_default().as_secs();
                return Err(format!("the credential expired {late} s ago"));
            }
            Some(at)
        }
    };
    let secret = match &mut credential.secret {
        Secret::BearerToken(token) => {
            let token = std::mem::take(&mut token.0);
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("the token is not visible ASCII".into());
            }
            FoundSecret::BearerToken(token.into())
        }
        Secret::ClientCertificate { certificates, key } => {
            let key = SecretString::from(std::mem::take(&mut key.0));
            let chain = Certificate::parse_pem(certificates.as_bytes())
                .map_err(|error| format!("the client certificate: {error}"))?;
            let spki = spki_of_key(&key).map_err(|_| "the client key is no private key")?;
            if chain[0].spki != spki {
                return Err("the client key does not belong to the first certificate".into());
            }
            FoundSecret::ClientCertificate { certificates: std::mem::take(certificates), key }
        }
    };
    Ok(FoundCredential { secret, expires_at })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::answers::{Credential, Hidden, Trust};
    use super::*;

    fn found(endpoint: &str) -> Cluster {
        Cluster {
            endpoints: vec![endpoint.into()],
            trust: Trust::OperatorPins,
            credential: None,
            evidence: vec![],
            extra: vec![],
        }
    }

    fn token(token: &str, expires_at: Option<u64>) -> Option<Credential> {
        Some(Credential { secret: Secret::BearerToken(Hidden(token.into())), expires_at })
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_whole_cluster_is_taken_apart() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let pem = certificate.pem();
        let cluster = Cluster {
            endpoints: vec!["[fd00::1]:6443".into(), "api.example:443".into()],
            trust: Trust::CertificateAuthority(pem.clone()),
            credential: Some(Credential {
                secret: Secret::ClientCertificate { certificates: pem, key: Hidden(key.serialize_pem()) },
                expires_at: Some(20),
            }),
            evidence: vec![("zone".into(), "eu\u{1b}[2J".into())],
            extra: vec![("tls-server-name".into(), "kubernetes.default".into()), ("unknown".into(), "x".into())],
        };
        let found = parse(cluster, at(19)).unwrap();
        assert_eq!(found.endpoints[0].to_string(), "[fd00::1]:6443");
        assert!(matches!(&found.trust, FoundTrust::Authorities(list) if list.len() == 1));
        assert_eq!(found.credential.as_ref().unwrap().expires_at, Some(at(20)));
        assert_eq!(found.tls_server_name.as_deref(), Some("kubernetes.default"));
        assert_eq!(found.evidence[0].1, "eu\\u{1b}[2J");
        assert!(!format!("{found:?}").contains("PRIVATE"), "{found:?}");
    }

    #[test]
    fn a_bearer_token_arrives_whole_and_is_not_shown() {
        let credential =
            parse(Cluster { credential: token("hunter2", None), ..found("a:1") }, at(0)).unwrap().credential;
        let credential = credential.unwrap();
        assert!(!format!("{credential:?}").contains("hunter2"));
        let FoundSecret::BearerToken(token) = credential.secret else { panic!() };
        assert_eq!(token.expose_secret(), "hunter2");
    }

    #[test]
    fn each_text_without_a_meaning_is_named_without_repeating_a_secret() {
        let key = rcgen::KeyPair::generate().unwrap();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let pem = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let pair = |certificates: &str, key: &str| {
            let (certificates, key) = (certificates.to_owned(), Hidden(key.to_owned()));
            Some(Credential { secret: Secret::ClientCertificate { certificates, key }, expires_at: None })
        };
        let extra = |value: &str| vec![("tls-server-name".to_owned(), value.to_owned())];
        for (bad, words) in [
            (found("https://a:1"), "leave out the `https://`"),
            (found("a"), "the port is missing"),
            (
                Cluster { trust: Trust::CertificateAuthority("none".into()), ..found("a:1") },
                "the certificate authority",
            ),
            (
                Cluster { trust: Trust::CertificateAuthority(pem.repeat(17)), ..found("a:1") },
                "17 certificate authorities",
            ),
            (Cluster { trust: Trust::Pins(vec!["sha1:00".into()]), ..found("a:1") }, "does not begin with `sha256:`"),
            (Cluster { credential: token("hunter2 x", None), ..found("a:1") }, "the token is not visible ASCII"),
            (Cluster { credential: token("", None), ..found("a:1") }, "the token is not visible ASCII"),
            (Cluster { credential: token("hunter2", Some(10)), ..found("a:1") }, "the credential expired 90 s ago"),
            (Cluster { credential: token("hunter2", Some(u64::MAX)), ..found("a:1") }, "after all time"),
            (Cluster { credential: pair(&pem, "hunter2"), ..found("a:1") }, "the client key is no private key"),
            (Cluster { credential: pair(&pem, &other), ..found("a:1") }, "does not belong to the first certificate"),
            (Cluster { credential: pair("", &other), ..found("a:1") }, "the client certificate"),
            (Cluster { extra: extra("10.0.0.1"), ..found("a:1") }, "`tls-server-name` is no DNS name"),
            (Cluster { extra: extra("a b"), ..found("a:1") }, "`tls-server-name` is no DNS name"),
        ] {
            let error = parse(bad, at(100)).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
