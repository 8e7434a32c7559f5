//! What people and programs see of an answer: all but the secrets.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::answers::Verdict;
use super::hook::Judgement;
use super::source::{FoundCluster, FoundTrust};

/// An answer as it is printed. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum ShownAnswer {
    /// Of a discovery source.
    Cluster {
        /// `host:port` each.
        endpoints: Vec<String>,
        /// `certificate-authority`, `pins` or `operator-pins`.
        trust: &'static str,
        /// Of the authorities or as found: `sha256:` and 64 hex digits.
        pins: Vec<String>,
        /// Kind and end of the credential, when there is one.
        credential: Option<ShownCredential>,
        /// See `extra` of the WIT.
        tls_server_name: Option<String>,
        /// As above.
        cluster_name: Option<String>,
        /// Names and values.
        evidence: Vec<(String, String)>,
    },
    /// Of an approval hook.
    Judgement {
        /// What the hook wants.
        verdict: Verdict,
        /// Kebab case.
        reason: String,
        /// One line.
        message: String,
        /// With `defer`.
        retry_after_seconds: Option<u64>,
        /// Names and values.
        evidence: Vec<(String, String)>,
    },
}

/// All that is shown of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownCredential {
    /// `bearer token` or `client certificate`.
    pub kind: &'static str,
    /// RFC 3339; none where it is not known.
    pub expires_at: Option<String>,
}

impl FoundCluster {
    /// Without secrets.
    pub fn shown(&self) -> ShownAnswer {
        let (trust, pins) = match &self.trust {
            FoundTrust::Authorities(list) => {
                ("certificate-authority", list.iter().map(|authority| authority.pin().to_string()).collect())
            }
            FoundTrust::Pins(pins) => ("pins", pins.iter().map(ToString::to_string).collect()),
            FoundTrust::OperatorPins => ("operator-pins", Vec::new()),
        };
        let expires = |at| Timestamp::try_from(at).ok().map(|at| at.to_string());
        ShownAnswer::Cluster {
            endpoints: self.endpoints.iter().map(ToString::to_string).collect(),
            trust,
            pins,
            credential: self
                .credential
                .as_ref()
                .map(|it| ShownCredential { kind: it.secret.describe(), expires_at: it.expires_at.and_then(expires) }),
            tls_server_name: self.tls_server_name.clone(),
            cluster_name: self.cluster_name.clone(),
            evidence: self.evidence.clone(),
        }
    }
}

impl Judgement {
    /// As it is printed.
    pub fn shown(&self) -> ShownAnswer {
        ShownAnswer::Judgement {
            verdict: self.verdict,
            reason: self.reason.clone(),
            message: self.message.clone(),
            retry_after_seconds: self.retry_after.map(|wait| wait.as_secs()),
            evidence: self.evidence.clone(),
        }
    }
}

impl ShownAnswer {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Cluster { endpoints, trust, pins, credential, tls_server_name, cluster_name, evidence } => {
                let mut lines: Vec<String> = endpoints.iter().map(|it| format!("endpoint: {it}")).collect();
                lines.push(format!("trust: {trust}"));
                lines.extend(pins.iter().map(|pin| format!("pin: {pin}")));
                lines.push(match credential {
                    None => "credential: none; the operator's own is used".into(),
                    Some(ShownCredential { kind, expires_at: None }) => format!("credential: {kind}"),
                    Some(ShownCredential { kind, expires_at: Some(at) }) => format!("credential: {kind}, until {at}"),
                });
                lines.extend(tls_server_name.iter().map(|name| format!("tls-server-name: {name}")));
                lines.extend(cluster_name.iter().map(|name| format!("cluster-name: {name}")));
                lines.extend(evidence.iter().map(|(name, value)| format!("    {name}: {value}")));
                lines
            }
            Self::Judgement { verdict, reason, message, retry_after_seconds, evidence } => {
                let mut lines = vec![format!("{} ({reason}): {message}", verdict.name())];
                lines.extend(retry_after_seconds.iter().map(|it| format!("    ask again in {it} s")));
                lines.extend(evidence.iter().map(|(name, value)| format!("    {name}: {value}")));
                lines
            }
        }
    }
}
