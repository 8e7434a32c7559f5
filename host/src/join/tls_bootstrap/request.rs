//! The certificate request: made or adopted, waited for, and its certificate checked.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::time::Instant;

use super::{NODE_USER_PREFIX, NODES_GROUP, PHASE, TlsBootstrapError, now_seconds};
use crate::api::retry::{Finding, Patience};
use crate::api::watch::{self, Known, Sight};
use crate::api::{ApiError, create, get};
use crate::join::{Access, JoinContext};
use crate::journal::{self, Effect, Recorded};
use crate::output::{Reporter, printable};
use crate::pki::{Certificate, ClientKey, Pin, spki_of_request};

/// Where requests are.
pub(super) const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// API kind of a request.
const KIND: &str = "CertificateSigningRequest";
/// The signer of kubelet client certificates.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// What the kubelet asks for with a P-256 key.
const USAGES: [&str; 2] = ["digital signature", "client auth"];
/// An undecided request is not worth a word for so long.
const QUIET: Duration = Duration::from_secs(2);
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
    let our_journal = cx.node.journal();
    let effect = Effect::ApiObject { kind: KIND.into(), name: csr_name.clone() };
    let made = |recorded: &Recorded| recorded.state == journal::State::Done && recorded.effect == effect;
    // An earlier run's request is recorded once.
    let entry =
        if our_journal.record().effects.iter().any(made) { None } else { Some(our_journal.intend(effect.clone())?) };
    // The watch is opened beside it, to spare a round trip: whatever comes to be under the name is seen.
    let making = create_or_adopt(key, node_name, &csr_name, access, cx);
    let watching = async { Ok(watch::open(access.client(), &csr_name, "0").await) };
    let (object, watch) = future::try_join(making, watching).await?;
    if let Some(entry) = entry {
        our_journal.complete(entry)?;
    }
    let step = cx.reporter.step(PHASE, format!("wait for the certificate of `{csr_name}`"));
    let pem = wait_for(Known { object, watch }, &csr_name, deadline, access, cx).await?;
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

/// Looks at the request until it is decided. What is seen is told when it lasts, since most clusters approve at once.
async fn wait_for(
    request: Known<CertificateSigningRequest>,
    csr_name: &str,
    deadline: Instant,
    access: &Access,
    cx: &JoinContext,
) -> Result<Vec<u8>, TlsBootstrapError> {
    let seen =
        Seen { csr_name, deadline, reporter: &cx.reporter, talks: AtomicBool::new(false), last: Mutex::default() };
    let uid = request.object.metadata.uid.clone();
    let judge = |sight: Sight<CertificateSigningRequest>| {
        let csr = csr_name.to_owned();
        let state = match sight {
            Sight::Object(object) if object.metadata.uid == uid => state(&object),
            Sight::Object(_) | Sight::Gone => return ControlFlow::Break(Err(TlsBootstrapError::Deleted { csr })),
            Sight::Trouble(error) => {
                seen.note(seen.pending(), Some(format!("`{csr_name}` cannot be seen: {error}")));
                return ControlFlow::Continue(());
            }
        };
        match state {
            State::Issued(pem) => return ControlFlow::Break(Ok(pem)),
            State::Denied { reason, message } => {
                return ControlFlow::Break(Err(TlsBootstrapError::Denied { csr, reason, message }));
            }
            State::Failed { reason, message } => {
                return ControlFlow::Break(Err(TlsBootstrapError::Failed { csr, reason, message }));
            }
            State::Approved => seen.note(false, None),
            State::Pending => seen.note(true, None),
        }
        ControlFlow::Continue(())
    };
    let mut waiting = pin!(watch::until(access.client(), csr_name, Some(request), deadline, judge));
    let outcome = match tokio::time::timeout(QUIET, &mut waiting).await {
        Ok(outcome) => outcome,
        Err(_) => {
            seen.talk();
            waiting.await
        }
    };
    outcome.unwrap_or_else(|watch::TimedOut| {
        let pending = seen.pending();
        let last = if pending { "pending, not approved" } else { "approved, not signed" }.to_owned();
        let seconds = cx.settings.timeouts.tls_bootstrap.as_secs();
        Err(TlsBootstrapError::TimedOut { csr: csr_name.to_owned(), seconds, last, pending })
    })
}

/// The last thing seen of an undecided request, and whether to tell it yet.
struct Seen<'a> {
    csr_name: &'a str,
    deadline: Instant,
    reporter: &'a Reporter,
    talks: AtomicBool,
    /// Whether it is pending (else approved), and what keeps it from being seen.
    last: Mutex<(bool, Option<String>)>,
}

impl Seen<'_> {
    fn pending(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn note(&self, pending: bool, trouble: Option<String>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *last != (pending, trouble.clone());
        *last = (pending, trouble);
        drop(last);
        if changed && self.talks.load(Ordering::Relaxed) {
            self.tell();
        }
    }

    fn talk(&self) {
        self.talks.store(true, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let csr = self.csr_name;
        let what = match &*self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            (_, Some(trouble)) => trouble.clone(),
            (true, None) => format!("`{csr}` is pending; `kubectl certificate approve {csr}` approves it"),
            (false, None) => format!("`{csr}` is approved and waits for its signer"),
        };
        self.reporter.waiting(PHASE, what, self.deadline.saturating_duration_since(Instant::now()));
    }
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
