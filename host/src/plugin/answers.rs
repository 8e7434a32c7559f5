//! What discovery sources and approval hooks answer, with the bounds their WIT promises. Runner and host both check them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::REPORT_BYTES;
use super::report::{Oversize, Pairs, pairs, text};

/// Endpoints, pins or authorities of one cluster.
pub(super) const PLACES: usize = 16;
/// Certificates or a key, PEM.
const PEM_BYTES: usize = 64 << 10;
/// A bearer token.
const TOKEN_BYTES: usize = 16 << 10;
/// A hook's reason for programs.
const REASON_BYTES: usize = 64;
/// A hook's reason for people.
const MESSAGE_BYTES: usize = 1 << 10;
/// Longest wait a hook may ask for.
const RETRY_SECONDS: u32 = 3600;

/// `cluster` of the WIT, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) endpoints: Vec<String>,
    pub(super) trust: Trust,
    pub(super) credential: Option<Credential>,
    pub(super) evidence: Pairs,
    pub(super) extra: Pairs,
}

/// `trust` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Trust {
    CertificateAuthority(String),
    Pins(Vec<String>),
    OperatorPins,
}

/// `credential` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub(super) secret: Secret,
    pub(super) expires_at: Option<u64>,
}

/// `secret` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Secret {
    BearerToken(Hidden),
    ClientCertificate { certificates: String, key: Hidden },
}

/// A text that is shown to nobody. Serialized only on the socket between host and runner.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Hidden(pub(super) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl Cluster {
    /// Checks every count and length; whether the texts mean anything is for [`super::source`].
    pub(super) fn verify(&self) -> Result<(), Oversize> {
        between("endpoints", self.endpoints.len(), 1, PLACES)?;
        let mut total = pairs(&self.evidence)? + pairs(&self.extra)?;
        for endpoint in &self.endpoints {
            total += text("an endpoint", endpoint)?;
        }
        match &self.trust {
            Trust::CertificateAuthority(pem) => total += at_most("the certificate authority", pem, PEM_BYTES)?,
            Trust::Pins(pins) => {
                between("pins", pins.len(), 1, PLACES)?;
                for pin in pins {
                    total += text("a pin", pin)?;
                }
            }
            Trust::OperatorPins => {}
        }
        match self.credential.as_ref().map(|credential| &credential.secret) {
            None => {}
            Some(Secret::BearerToken(token)) => total += at_most("the token", &token.0, TOKEN_BYTES)?,
            Some(Secret::ClientCertificate { certificates, key }) => {
                total += at_most("the client certificate", certificates, PEM_BYTES)?;
                total += at_most("the client key", &key.0, PEM_BYTES)?;
            }
        }
        within("a cluster", total)
    }
}

/// `verdict` of the WIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// This machine may have this certificate, as far as this hook goes.
    Approve,
    /// It must not.
    Deny,
    /// None of this hook's business.
    Abstain,
    /// Not yet.
    Defer,
}

impl Verdict {
    /// As the WIT writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Abstain => "abstain",
            Self::Defer => "defer",
        }
    }
}

/// `judgement` of the WIT, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJudgement {
    pub(super) verdict: Verdict,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) retry_after_seconds: Option<u32>,
    pub(super) evidence: Pairs,
    pub(super) extra: Pairs,
}

impl RawJudgement {
    /// Checks every count, length and form.
    pub(super) fn verify(&self) -> Result<(), Oversize> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.reason.is_empty() || self.reason.len() > REASON_BYTES || !self.reason.bytes().all(plain) {
            let shown: String = self.reason.chars().take(REASON_BYTES).collect();
            return Err(format!(
                "the reason `{}` is not 1 to {REASON_BYTES} bytes of lower-case kebab case",
                shown.escape_debug()
            ));
        }
        let mut total = at_most("the message", &self.message, MESSAGE_BYTES)?;
        if self.message.contains(['\n', '\r']) {
            return Err("the message has several lines".into());
        }
        if let (Verdict::Defer, Some(seconds)) = (self.verdict, self.retry_after_seconds)
            && !(1..=RETRY_SECONDS).contains(&seconds)
        {
            return Err(format!("a wait of {seconds} s; 1 to {RETRY_SECONDS} are allowed"));
        }
        total += pairs(&self.evidence)? + pairs(&self.extra)?;
        within("a judgement", total)
    }
}

fn between(what: &str, found: usize, least: usize, most: usize) -> Result<(), Oversize> {
    if (least..=most).contains(&found) { Ok(()) } else { Err(format!("{found} {what}; {least} to {most} are allowed")) }
}

fn at_most(what: &str, text: &str, most: usize) -> Result<usize, Oversize> {
    if text.len() > most {
        return Err(format!("{what} has {} bytes; {most} are allowed", text.len()));
    }
    Ok(text.len())
}

fn within(what: &str, total: usize) -> Result<(), Oversize> {
    if total > REPORT_BYTES {
        return Err(format!("{what} of {total} bytes; {REPORT_BYTES} are allowed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::limits::TEXT_BYTES;
    use super::*;

    fn cluster() -> Cluster {
        Cluster {
            endpoints: vec!["10.0.0.1:6443".into()],
            trust: Trust::OperatorPins,
            credential: None,
            evidence: vec![],
            extra: vec![],
        }
    }

    fn judgement() -> RawJudgement {
        RawJudgement {
            verdict: Verdict::Approve,
            reason: "in-inventory".into(),
            message: "listed".into(),
            retry_after_seconds: None,
            evidence: vec![],
            extra: vec![],
        }
    }

    #[test]
    fn clusters_beyond_a_bound_are_refused_and_those_at_it_are_not() {
        let token = |bytes: usize| {
            Some(Credential { secret: Secret::BearerToken(Hidden("x".repeat(bytes))), expires_at: None })
        };
        let ca = |bytes: usize| Trust::CertificateAuthority("x".repeat(bytes));
        let pair = |bytes: usize| Credential {
            secret: Secret::ClientCertificate { certificates: "x".repeat(PEM_BYTES), key: Hidden("x".repeat(bytes)) },
            expires_at: None,
        };
        let full: Pairs = (0..63).map(|n| (n.to_string(), "x".repeat(1 << 10))).collect();
        for good in [
            cluster(),
            Cluster { endpoints: vec!["a".into(); PLACES], ..cluster() },
            Cluster { trust: ca(PEM_BYTES), credential: token(TOKEN_BYTES), ..cluster() },
            Cluster { trust: Trust::Pins(vec!["x".into(); PLACES]), credential: Some(pair(PEM_BYTES)), ..cluster() },
        ] {
            assert_eq!(good.verify(), Ok(()), "{good:?}");
        }
        for (bad, words) in [
            (Cluster { endpoints: vec![], ..cluster() }, "0 endpoints; 1 to 16"),
            (Cluster { endpoints: vec!["a".into(); PLACES + 1], ..cluster() }, "17 endpoints"),
            (Cluster { endpoints: vec!["a".repeat(TEXT_BYTES + 1)], ..cluster() }, "an endpoint of"),
            (Cluster { trust: Trust::Pins(vec![]), ..cluster() }, "0 pins"),
            (Cluster { trust: ca(PEM_BYTES + 1), ..cluster() }, "the certificate authority has"),
            (Cluster { credential: token(TOKEN_BYTES + 1), ..cluster() }, "the token has"),
            (Cluster { credential: Some(pair(PEM_BYTES + 1)), ..cluster() }, "the client key has"),
            (
                Cluster {
                    trust: ca(PEM_BYTES),
                    credential: Some(pair(PEM_BYTES)),
                    evidence: full,
                    extra: vec![("x".into(), "y".repeat(4096))],
                    ..cluster()
                },
                "a cluster of",
            ),
        ] {
            let error = bad.verify().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn judgements_beyond_a_bound_are_refused() {
        assert_eq!(judgement().verify(), Ok(()));
        let defer =
            |seconds| RawJudgement { verdict: Verdict::Defer, retry_after_seconds: Some(seconds), ..judgement() };
        assert_eq!(defer(3600).verify(), Ok(()));
        for (bad, words) in [
            (RawJudgement { reason: String::new(), ..judgement() }, "is not 1 to 64 bytes"),
            (RawJudgement { reason: "Not Listed".into(), ..judgement() }, "`Not Listed`"),
            (RawJudgement { reason: "a".repeat(65), ..judgement() }, "is not 1 to 64 bytes"),
            (RawJudgement { message: "a".repeat(1025), ..judgement() }, "the message has 1025 bytes"),
            (RawJudgement { message: "a\nb".into(), ..judgement() }, "several lines"),
            (defer(0), "a wait of 0 s"),
            (defer(3601), "a wait of 3601 s"),
        ] {
            let error = bad.verify().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn no_secret_of_a_credential_is_shown() {
        let secrets = [
            Secret::BearerToken(Hidden("hunter2".into())),
            Secret::ClientCertificate { certificates: "public".into(), key: Hidden("hunter2".into()) },
        ];
        for secret in secrets {
            let shown = format!("{:?}", Credential { secret, expires_at: Some(1) });
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
