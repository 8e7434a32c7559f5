//! From a learner to a voter that every member knows.

use std::time::Duration;

use tokio::time::Instant;

use super::metrics::OwnState;
use super::progress::{Position, Progress, Words};
use super::{EtcdJoin, EtcdJoinError, PHASE, POLL, disk, metrics, peers};
use crate::etcd::{Client, EtcdError, MemberId, Membership, NoConnection, Refusal};
use crate::node::Node;
use crate::output::Reporter;

/// A connection to our own etcd, which listens before it answers, is kept open for so long.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// The last look has so much time, whatever is left.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// So many looks at a learner apart, the list of members is read, too: somebody may have removed it.
const LOOKS_PER_LIST: u32 = 40;

impl EtcdJoin<'_> {
    /// Waits until the learner is in step with its leader.
    pub(super) async fn watch(&self, id: MemberId, node: &Node, reporter: &Reporter) -> Result<(), EtcdJoinError> {
        let step = reporter.step(PHASE, "bring the learner in step");
        let mut words = Words::to(reporter);
        let started = Instant::now();
        let mut progress = Progress::default();
        let mut moved_at = started;
        let mut seen = String::from("etcd has not started here");
        for look in 1_u32.. {
            let limit = START_PATIENCE.min(self.timeout.saturating_sub(moved_at.elapsed())).max(LAST_LOOK);
            let (own, others) = tokio::join!(self.own_state(limit), self.client.any_status());
            match (own, others) {
                (Ok(own), _) if own.id != id => {
                    seen = format!("member {} of another cluster or time answers at `{}`", own.id, self.client_url);
                }
                (Ok(own), Ok(others)) => {
                    let position = Position { learner: own.applied_index, leader: others.raft_index };
                    if progress.note(started.elapsed(), position) {
                        moved_at = Instant::now();
                    }
                    seen = progress.describe();
                    if position.is_in_step() && own.has_leader {
                        step.done(seen);
                        return Ok(());
                    }
                }
                (Ok(_), Err(error)) => seen = format!("the others do not answer: {error}"),
                (Err(EtcdError::Unreachable { tried }), _) => {
                    seen = format!("waiting for etcd to start here ({})", why(&tried));
                }
                (Err(error), _) => seen = error.to_string(),
            }
            if look % LOOKS_PER_LIST == 0
                && let Ok(membership) = self.client.members().await
            {
                match membership.by_id(id) {
                    None => return Err(EtcdJoinError::LearnerGone { id }),
                    // Somebody else promoted it.
                    Some(member) if !member.is_learner => return Ok(()),
                    Some(_) => {}
                }
            }
            // However long it takes: as long as it comes forward, it will arrive.
            let left = self.timeout.saturating_sub(moved_at.elapsed());
            if left.is_zero() {
                break;
            }
            words.tell(PHASE, format!("learner {id}: {seen}"), left);
            tokio::time::sleep(POLL).await;
        }
        // The two reasons that can be seen from here.
        self.require_free(disk::RUNNING_BYTES, node)?;
        let unreached = match self.client.members().await {
            Ok(membership) => peers::unreached_in(&membership).await,
            // That they do not answer is in what was seen.
            Err(_) => Vec::new(),
        };
        Err(EtcdJoinError::Stalled { id, seen, after: self.timeout, unreached })
    }

    /// From its metrics, which it serves from the start. To clients a new member is silent until its name is published,
    /// and where that is in the snapshot that it starts with, it notices after 7 s only (etcd 3.7, `publishV3`: its request is
    /// done when it applies the entry, and this one it never does).
    async fn own_state(&self, limit: Duration) -> Result<OwnState, EtcdError> {
        tokio::select! {
            biased;
            told = self.told_by_metrics() => Ok(told),
            status = self.client.status_of_starting(self.client_url, limit) => {
                let status = status?;
                Ok(OwnState { id: status.id, applied_index: status.applied_index, has_leader: status.leader.is_some() })
            }
        }
    }

    /// Never, where it serves none.
    async fn told_by_metrics(&self) -> OwnState {
        let Some(url) = self.metrics_url else { return std::future::pending().await };
        loop {
            if let Ok(told) = metrics::read(url).await {
                return told;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn promote(&self, id: MemberId, reporter: &Reporter) -> Result<Membership, EtcdJoinError> {
        let step = reporter.step(PHASE, "give the learner its vote");
        let mut words = Words::to(reporter);
        let deadline = Instant::now() + self.timeout;
        loop {
            let error = match self.client.promote(id).await {
                Ok(membership) => {
                    step.done("it votes");
                    return Ok(membership);
                }
                Err(error) => error,
            };
            let lookup = matches!(error.refusal(), None | Some(Refusal::NotALearner | Refusal::MemberNotFound));
            if lookup && let Ok(membership) = self.client.members().await {
                match membership.by_id(id) {
                    None => return Err(EtcdJoinError::LearnerGone { id }),
                    Some(member) if !member.is_learner => {
                        step.done(format!("it votes, although the answer was: {error}"));
                        return Ok(membership);
                    }
                    Some(_) => {}
                }
            }
            if !lookup && !error.may_pass() {
                return Err(error.into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = "the learner has no vote";
                return Err(EtcdJoinError::GaveUp { what, after: self.timeout, source: Box::new(error) });
            }
            words.tell(PHASE, format!("promoting the learner: {error}"), left);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until every other member that answers knows that ours votes.
    pub(super) async fn wait_for_agreement(
        &self,
        id: MemberId,
        membership: &Membership,
        reporter: &Reporter,
    ) -> Result<(), EtcdJoinError> {
        let step = reporter.step(PHASE, "wait until every member knows it");
        let deadline = Instant::now() + self.timeout;
        let others = membership.voters().filter(|member| member.id != id);
        let asked: Vec<String> = others.filter_map(|member| member.client_urls.first().cloned()).collect();
        self.client.use_endpoints(asked.clone());
        let mut words = Words::to(reporter);
        loop {
            let answers = asked.iter().map(|endpoint| self.client.members_known_to(endpoint));
            let answers = futures::future::join_all(answers).await;
            let mut behind = Vec::new();
            for (endpoint, answer) in asked.iter().zip(answers) {
                match answer {
                    Ok(known) if known.by_id(id).is_some_and(|member| !member.is_learner) => {}
                    Ok(_) => behind.push(format!("`{endpoint}` does not know it")),
                    // One that is down learns it from the log when it is back.
                    Err(EtcdError::Unreachable { .. }) => {}
                    Err(error) => behind.push(error.to_string()),
                }
            }
            if behind.is_empty() {
                step.done(format!("{} others agree", asked.len()));
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(EtcdJoinError::NotAgreed { id, behind, after: self.timeout });
            }
            words.tell(PHASE, behind.join("; "), left);
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Of the one endpoint that was tried.
fn why(tried: &[NoConnection]) -> String {
    tried.first().map(|tried| tried.why.to_string()).unwrap_or_default()
}

/// A voter of this machine that may not answer yet.
#[derive(Debug)]
pub struct OwnVoter {
    /// Knows the members there are.
    pub client: Client,
    /// `https://ADDRESS:2379`.
    pub client_url: String,
    /// Its member's.
    pub id: MemberId,
    /// `timeouts.etcdAPICall`: how long it may be silent.
    pub timeout: Duration,
}

impl OwnVoter {
    /// Waits until it answers clients, and knows that it votes.
    ///
    /// # Errors
    ///
    /// [`EtcdJoinError::Down`], [`EtcdJoinError::NotAgreed`].
    pub async fn wait_until_it_answers(&self, reporter: &Reporter) -> Result<(), EtcdJoinError> {
        let Self { client, client_url, id, timeout } = self;
        let step = reporter.step(PHASE, "wait until etcd answers here");
        let deadline = Instant::now() + *timeout;
        let mut words = Words::to(reporter);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = match client.status_of_starting(client_url, START_PATIENCE.min(left).max(LAST_LOOK)).await {
                Ok(_) => client.members_known_to(client_url).await,
                Err(error) => Err(error),
            };
            let (seen, is_up) = match answer {
                Ok(known) if known.by_id(*id).is_some_and(|member| !member.is_learner) => {
                    step.done(format!("`{client_url}`"));
                    return Ok(());
                }
                Ok(_) => (format!("`{client_url}` does not know that it votes"), true),
                Err(EtcdError::Unreachable { tried }) => {
                    (format!("etcd answers no client here yet ({})", why(&tried)), false)
                }
                Err(error) => (error.to_string(), !matches!(error, EtcdError::Unanswered { .. })),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(match is_up {
                    true => EtcdJoinError::NotAgreed { id: *id, behind: vec![seen], after: *timeout },
                    false => EtcdJoinError::Down { id: *id, seen, after: *timeout },
                });
            }
            words.tell(PHASE, seen, left);
            tokio::time::sleep(POLL).await;
        }
    }
}
