//! What an approval hook judged. Nothing but the verdict `approve` in a whole answer approves: an error, a broken
//! plugin, a failed host, and an approval that rests on something denied are no verdict, and the request waits.

use std::time::Duration;

use super::answers::{RawJudgement, Verdict};
use super::ask::Asked;
use super::csr::CertificateRequest;
use super::error::PluginError;
use super::kind::Kind;
use super::stage::Plugins;
use super::wire::{Export, Outcome};
use crate::output::{Reporter, printable};

/// A hook's judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What the hook wants.
    pub verdict: Verdict,
    /// Why, for programs: kebab case.
    pub reason: String,
    /// Why, for people: one line, printable.
    pub message: String,
    /// With [`Verdict::Defer`] only: when it is worth asking again.
    pub retry_after: Option<Duration>,
    /// Names and values, printable.
    pub evidence: Vec<(String, String)>,
}

impl Plugins {
    /// Asks an approval hook once, about this request; without one, a hook that looks at it is told `unavailable`.
    ///
    /// # Errors
    ///
    /// [`PluginError`]: there is no such plugin, or it is of another kind. Whatever the plugin does is in the answer.
    pub async fn review(
        &self,
        name: &str,
        request: Option<CertificateRequest>,
        reporter: &Reporter,
    ) -> Result<Asked<Judgement>, PluginError> {
        let plugin = self.of_kind(name, Kind::Approval)?;
        let taken = |outcome| match outcome {
            Outcome::Judgement(raw) => read(raw),
            _ => Err(("protocol".to_owned(), "it answered something else".to_owned())),
        };
        let approves = |judgement: &Judgement| judgement.verdict == Verdict::Approve;
        Ok(self.ask(plugin, Export::Review(request.map(Box::new)), reporter, taken, approves).await)
    }
}

/// Checks the bounds of a judgement and makes its texts printable; else how the hook broke, and what was seen.
pub(super) fn read(raw: RawJudgement) -> Result<Judgement, (String, String)> {
    raw.verify().map_err(|message| ("oversized".to_owned(), message))?;
    let wait = raw.retry_after_seconds.filter(|_| raw.verdict == Verdict::Defer);
    let evidence = raw.evidence.iter().chain(&raw.extra);
    Ok(Judgement {
        verdict: raw.verdict,
        reason: raw.reason,
        message: printable(&raw.message),
        retry_after: wait.map(|seconds| Duration::from_secs(seconds.into())),
        evidence: evidence.map(|(name, value)| (printable(name), printable(value))).collect(),
    })
}
