//! The certificate request: made or adopted, waited for, and its certificate checked.

use std::ops::ControlFlow;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::time::Instant;

use super::{NODE_USER_PREFIX, NODES_GROUP, PHASE, TlsBootstrapError, now_seconds};
use crate::api::retry::{Finding, Patience};
use crate::api::watch::{self, Sight};
use crate::api::{ApiError, create, get};
use crate::join::{Access, JoinContext};
use crate::journal::Effect;
use crate::output::printable;
use crate::pki::{Certificate, ClientKey, Pin, spki_of_request};

/// The signer of kubelet client certificates.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// What the kubelet asks for with a P-256 key.
const USAGES: [&str; 2] = ["digital signature", "client auth"];
/// Hex digits of the key's hash in the request's name.
const NAME_DIGITS: usize = 20;

/// An answered request.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) csr_name: String,
    /// Leaf first, checked.
    pub(super) chain: Vec<Certificate>,
}

/// Asks for the node's certificate and waits for it.
pub(super) async fn certificate(
    key: &ClientKey,
    node_name: &str,
    access: &Access,
    cx: &JoinContext,
) -> Result<Answered, TlsBootstrapError> {
    let deadline = Instant::now() + cx.settings.timeouts.tls_bootstrap;
    let csr_name = name_for(key);
    let entry = cx
        .node
        .journal()
        .intend(Effect::ApiObject { kind: "CertificateSigningRequest".into(), name: csr_name.clone() })?;
    let request = create_or_adopt(key, node_name, &csr_name, access, cx).await?;
    cx.node.journal().complete(entry)?;
    let step = cx.reporter.step(PHASE, format!("wait for the certificate of `{csr_name}`"));
    let pem = wait_for(request, &csr_name, deadline, access, cx).await?;
    let chain =
        verify(&pem, key, node_name).map_err(|reason| TlsBootstrapError::Issued { csr: csr_name.clone(), reason })?;
    step.done("issued");
    Ok(Answered { csr_name, chain })
}

/// The request's name: `csr-mortise-` and the start of the key's hash.
pub(super) fn name_for(key: &ClientKey) -> String {
    let pin = Pin::of_spki(key.spki()).to_string();
    let hex = pin.rsplit(':').next().unwrap_or_default();
    format!("csr-mortise-{}", &hex[..NAME_DIGITS])
}

async fn create_or_adopt(
    key: &ClientKey,
    node_name: &str,
    csr_name: &str,
    access: &Access,
    cx: &JoinContext,
) -> Result<CertificateSigningRequest, TlsBootstrapError> {
    let step = cx.reporter.step(PHASE, format!("ask for a certificate as `{NODE_USER_PREFIX}{node_name}`"));
    let pem = key.request(NODES_GROUP, &format!("{NODE_USER_PREFIX}{node_name}"))?;
    let request = CertificateSigningRequest {
        metadata: ObjectMeta { name: Some(csr_name.to_owned()), ..Default::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: SIGNER.into(),
            usages: Some(USAGES.map(str::to_owned).to_vec()),
            ..Default::default()
        },
        status: None,
    };
    let patience = Patience {
        reporter: &cx.reporter,
        phase: PHASE,
        what: csr_name,
        timeout: cx.settings.timeouts.kubernetes_api_call,
        fail_fast: cx.settings.fail_fast,
    };
    // A request whose answer was lost is found again by its name.
    let (found, adopted) = patience
        .until_ok(async || match create(access.client(), None, &request).await {
            Ok(stored) => Ok((stored, false)),
            Err(error) if error.status() == Some(409) => {
                match get::<CertificateSigningRequest>(access.client(), None, csr_name).await {
                    Ok(stored) => Ok((stored, true)),
                    Err(source) => {
                        Err(finding(source, |source| TlsBootstrapError::Adopt { csr: csr_name.into(), source }))
                    }
                }
            }
            Err(source) => Err(finding(source, |source| TlsBootstrapError::Create { csr: csr_name.into(), source })),
        })
        .await?;
    if adopted {
        if let Some(difference) = difference(&found, key) {
            return Err(TlsBootstrapError::NotOurs { csr: csr_name.to_owned(), difference });
        }
        step.unchanged(format!("`{csr_name}` exists, made with the same key by an earlier run"));
    } else {
        step.done(format!("`{csr_name}`"));
    }
    Ok(found)
}

fn finding(source: ApiError, error: impl FnOnce(ApiError) -> TlsBootstrapError) -> Finding<TlsBootstrapError> {
    // Rights do not come by waiting, nor does a refused object become a good one.
    let passes = source.may_pass() && !matches!(source.status(), Some(400 | 401 | 403 | 422));
    if passes { Finding::MayPass(error(source)) } else { Finding::Final(error(source)) }
}

fn difference(found: &CertificateSigningRequest, key: &ClientKey) -> Option<&'static str> {
    if found.spec.signer_name != SIGNER {
        return Some("is for another signer");
    }
    match spki_of_request(&found.spec.request.0) {
        Some(spki) if spki == key.spki() => None,
        _ => Some("has another key"),
    }
}

/// What a look at the request says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Pending,
    Approved,
    Issued(Vec<u8>),
    Denied { reason: String, message: String },
    Failed { reason: String, message: String },
}

fn state(request: &CertificateSigningRequest) -> State {
    let Some(status) = &request.status else { return State::Pending };
    let condition = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let words = |condition: &k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition| {
        let text = |text: &Option<String>| printable(text.as_deref().unwrap_or("no reason given"));
        (text(&condition.reason), text(&condition.message))
    };
    if let Some((reason, message)) = condition("Denied").map(words) {
        return State::Denied { reason, message };
    }
    if let Some((reason, message)) = condition("Failed").map(words) {
        return State::Failed { reason, message };
    }
    match (&status.certificate, condition("Approved")) {
        (Some(certificate), Some(_)) if !certificate.0.is_empty() => State::Issued(certificate.0.clone()),
        (_, Some(_)) => State::Approved,
        _ => State::Pending,
    }
}

async fn wait_for(
    request: CertificateSigningRequest,
    csr_name: &str,
    deadline: Instant,
    access: &Access,
    cx: &JoinContext,
) -> Result<Vec<u8>, TlsBootstrapError> {
    let csr = csr_name.to_owned();
    let uid = request.metadata.uid.clone();
    let mut last = State::Pending;
    // Not told at once: a cluster that approves by itself does so within the first look.
    let mut told = String::new();
    let mut looks = 0;
    let mut tell = |what: String| {
        if what != told {
            cx.reporter.waiting(PHASE, &what, deadline.saturating_duration_since(Instant::now()));
            told = what;
        }
    };
    let pending = format!("`{csr_name}` is pending; `kubectl certificate approve {csr_name}` approves it");
    let outcome = {
        let judge = |sight: Sight<CertificateSigningRequest>| {
            looks += 1;
            match sight {
                Sight::Gone => return ControlFlow::Break(Err(TlsBootstrapError::Deleted { csr: csr.clone() })),
                Sight::Trouble(error) => tell(format!("`{csr_name}` cannot be seen: {error}")),
                Sight::Object(object) if object.metadata.uid != uid => {
                    return ControlFlow::Break(Err(TlsBootstrapError::Deleted { csr: csr.clone() }));
                }
                Sight::Object(object) => {
                    last = state(&object);
                    match last.clone() {
                        State::Issued(pem) => return ControlFlow::Break(Ok(pem)),
                        State::Denied { reason, message } => {
                            let csr = csr.clone();
                            return ControlFlow::Break(Err(TlsBootstrapError::Denied { csr, reason, message }));
                        }
                        State::Failed { reason, message } => {
                            let csr = csr.clone();
                            return ControlFlow::Break(Err(TlsBootstrapError::Failed { csr, reason, message }));
                        }
                        State::Approved => tell(format!("`{csr_name}` is approved and waits for its signer")),
                        State::Pending => tell(pending.clone()),
                    }
                }
            }
            ControlFlow::Continue(())
        };
        watch::until(access.client(), csr_name, Some(request), deadline, judge).await
    };
    outcome.unwrap_or_else(|watch::TimedOut| {
        let (last, pending) = match last {
            State::Approved => ("approved, not signed".to_owned(), false),
            _ => ("pending, not approved".to_owned(), true),
        };
        let seconds = cx.settings.timeouts.tls_bootstrap.as_secs();
        Err(TlsBootstrapError::TimedOut { csr: csr_name.to_owned(), seconds, last, pending })
    })
}

/// Checks that the certificate is the one asked for. Its issuer is not checked: a cluster may sign its clients with
/// another CA than its servers, and the API server will judge.
fn verify(pem: &[u8], key: &ClientKey, node_name: &str) -> Result<Vec<Certificate>, String> {
    let chain = Certificate::parse_pem(pem).map_err(|error| format!("is unusable: {error}"))?;
    let leaf = chain.first().ok_or("is empty")?;
    let user = format!("{NODE_USER_PREFIX}{node_name}");
    if leaf.spki != key.spki() {
        return Err("has another key".into());
    }
    if leaf.common_name != user || leaf.organizations != [NODES_GROUP] {
        return Err(format!("is for another user, `{}`", printable(&leaf.common_name)));
    }
    if !leaf.for_clients {
        return Err("is not for clients".into());
    }
    if leaf.not_after < now_seconds() {
        return Err("has expired by this machine's clock".into());
    }
    Ok(chain)
}
