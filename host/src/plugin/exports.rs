//! The exports of a component: which of the three interfaces it has, and the call of one.
//!
//! WIT knows no optional exports, so a component is asked through the interfaces that its type shows.

use wasmtime::Store;
use wasmtime::component::{Component, InstancePre};

use super::answers::{Cluster, Credential, Hidden, RawJudgement, Secret, Trust, Verdict};
use super::bindings::exports::mortise::{approval::hook, discovery::source, preflight::check};
use super::guest::Guest;
use super::kind::Kind;
use super::wire::{Export, Outcome};

/// A component that is linked, and what it can be asked.
#[derive(Clone)]
pub(super) struct Exports {
    instance: InstancePre<Guest>,
    check: Option<check::GuestIndices>,
    source: Option<source::GuestIndices>,
    hook: Option<hook::GuestIndices>,
}

impl Exports {
    /// Looks the interfaces up.
    ///
    /// # Errors
    ///
    /// An interface that is there under its name, but lacks a function.
    pub(super) fn of(component: &Component, instance: InstancePre<Guest>) -> wasmtime::Result<Self> {
        let has = |kind: Kind| component.get_export_index(None, kind.interface()).is_some();
        Ok(Self {
            check: has(Kind::Preflight).then(|| check::GuestIndices::new(&instance)).transpose()?,
            source: has(Kind::Discovery).then(|| source::GuestIndices::new(&instance)).transpose()?,
            hook: has(Kind::Approval).then(|| hook::GuestIndices::new(&instance)).transpose()?,
            instance,
        })
    }

    /// Of the component.
    pub(super) fn engine(&self) -> &wasmtime::Engine {
        self.instance.component().engine()
    }

    /// Calls one in a fresh instance.
    ///
    /// # Errors
    ///
    /// Traps, and an interface that the component does not have.
    pub(super) async fn call(&self, store: &mut Store<Guest>, export: &Export) -> wasmtime::Result<Outcome> {
        let instance = self.instance.instantiate_async(&mut *store).await?;
        let absent = || wasmtime::Error::msg(format!("the component does not export `{}`", export.name()));
        Ok(match export {
            Export::ListChecks => {
                let check = self.check.as_ref().ok_or_else(absent)?.load(&mut *store, &instance)?;
                let checks = check.call_list_checks(store).await?;
                Outcome::Checks(checks.into_iter().map(Into::into).collect())
            }
            Export::RunCheck(id) => {
                let check = self.check.as_ref().ok_or_else(absent)?.load(&mut *store, &instance)?;
                match check.call_run_check(store, id).await? {
                    Ok(report) => Outcome::Report(report.into()),
                    Err(error) => Outcome::Unable(error.into()),
                }
            }
            Export::Discover => {
                let source = self.source.as_ref().ok_or_else(absent)?.load(&mut *store, &instance)?;
                match source.call_discover(store).await? {
                    Ok(cluster) => Outcome::Cluster(Box::new(cluster.into())),
                    Err(error) => Outcome::Unable(error.into()),
                }
            }
            Export::Review(_) => {
                let hook = self.hook.as_ref().ok_or_else(absent)?.load(&mut *store, &instance)?;
                match hook.call_review(store).await? {
                    Ok(judgement) => Outcome::Judgement(judgement.into()),
                    Err(error) => Outcome::Unable(error.into()),
                }
            }
        })
    }
}

impl From<source::Cluster> for Cluster {
    fn from(cluster: source::Cluster) -> Self {
        let source::Cluster { endpoints, trust, credential, evidence, extra } = cluster;
        let trust = match trust {
            source::Trust::CertificateAuthority(pem) => Trust::CertificateAuthority(pem),
            source::Trust::Pins(pins) => Trust::Pins(pins),
            source::Trust::OperatorPins => Trust::OperatorPins,
        };
        let credential = credential.map(|it| Credential {
            secret: match it.secret {
                source::Secret::BearerToken(token) => Secret::BearerToken(Hidden(token)),
                source::Secret::ClientCertificate(it) => {
                    Secret::ClientCertificate { certificates: it.certificates, key: Hidden(it.key) }
                }
            },
            expires_at: it.expires_at,
        });
        Self { endpoints, trust, credential, evidence, extra }
    }
}

impl From<hook::Judgement> for RawJudgement {
    fn from(judgement: hook::Judgement) -> Self {
        let hook::Judgement { verdict, reason, message, retry_after_seconds, evidence, extra } = judgement;
        let verdict = match verdict {
            hook::Verdict::Approve => Verdict::Approve,
            hook::Verdict::Deny => Verdict::Deny,
            hook::Verdict::Abstain => Verdict::Abstain,
            hook::Verdict::Defer => Verdict::Defer,
        };
        Self { verdict, reason, message, retry_after_seconds, evidence, extra }
    }
}
