//! This machine's learner: found where an earlier run left one, else added.

use std::time::Duration;

use tokio::time::Instant;

use super::leave::replace_member;
use super::own::{Plan, Recorded};
use super::progress::Words;
use super::{Conflict, EtcdJoin, EtcdJoinError, PHASE, RETRY, disk, own, peers, told};
use crate::etcd::health::Health;
use crate::etcd::{EtcdError, Member, MemberId, Membership, Refusal, snapshot};
use crate::journal::Effect;
use crate::node::Node;
use crate::output::Reporter;

/// A member that is ours, in the list or just added.
pub(super) struct Own {
    pub(super) id: MemberId,
    pub(super) membership: Membership,
    pub(super) has_started: bool,
}

impl EtcdJoin<'_> {
    pub(super) async fn ensure_learner(
        &self,
        health: &Health,
        node: &Node,
        reporter: &Reporter,
    ) -> Result<Own, EtcdJoinError> {
        let mut membership = self.client.members().await?;
        if let Some(id) = self.replace
            && membership.by_peer_url(self.peer_url).is_none_or(|own| own.id != id)
        {
            // Gone already where an earlier run got that far.
            if membership.by_id(id).is_some() || !self.has_begun(node) {
                replace_member(self.client, id, self.timeout, reporter).await?;
                membership = self.client.members().await?;
            }
        }
        let plan = self.decide(&membership, node)?;
        if let Plan::Adopt(member) = plan {
            let step = reporter.step(PHASE, "add a learner");
            self.note_adopted(member.id, node)?;
            step.unchanged(format!("{member} is this machine's already"));
            return Ok(Own { id: member.id, has_started: member.has_started(), membership });
        }
        if let Some(other) =
            membership.members.iter().find(|member| member.name == self.name && Some(member.id) != self.replace)
        {
            let text = format!(
                "etcd has {other} under this machine's name; if it is its past, `--replace-member {}`",
                other.id
            );
            reporter.warn(Some(PHASE), text);
        }
        if plan == Plan::EmptyAndAdd {
            // First: it takes the room that is asked for next.
            self.empty(node, reporter)?;
        }
        self.check_peers(health, reporter).await?;
        self.check_space(health.db_bytes(), node)?;
        self.check_speed(node, reporter)?;
        self.save_snapshot(node, reporter).await?;
        if let Plan::Replace { member, holds_data } = plan {
            replace_member(self.client, member.id, self.timeout, reporter).await?;
            if holds_data {
                // Its etcd ends by itself, if it still ran: it is a member no more.
                self.empty(node, reporter)?;
            }
        }
        self.add(node, reporter).await
    }

    /// Removes what this machine's removed learner left.
    fn empty(&self, node: &Node, reporter: &Reporter) -> Result<(), EtcdJoinError> {
        let path = node.locate(self.data_dir).join(own::MEMBER_DIRECTORY);
        let step = reporter.step(PHASE, format!("empty `{}`", self.data_dir.display()));
        // No line in the journal: the directory was noted as empty before the join.
        std::fs::remove_dir_all(&path).map_err(|source| EtcdJoinError::DataDirectory {
            action: "empty",
            path,
            source,
        })?;
        step.done("it had the data of this machine's member that is one no more");
        Ok(())
    }

    fn has_begun(&self, node: &Node) -> bool {
        self.recorded(node) != Recorded::Nothing
    }

    fn recorded(&self, node: &Node) -> Recorded {
        match node.journal().record().etcd_member() {
            Some((_, url, id)) if url == self.peer_url => match id.and_then(|id| id.parse().ok()) {
                Some(id) => Recorded::Added(id),
                None => Recorded::Intended,
            },
            _ => Recorded::Nothing,
        }
    }

    pub(super) fn decide(&self, membership: &Membership, node: &Node) -> Result<Plan, EtcdJoinError> {
        let directory = node.locate(self.data_dir);
        let data = own::read_data(&directory).map_err(|source| EtcdJoinError::DataDirectory {
            action: "read",
            path: directory,
            source,
        })?;
        match own::decide(membership, self.peer_url, self.recorded(node), data, self.replace) {
            Plan::Refuse(conflict) => Err(EtcdJoinError::Conflict { data_dir: self.data_dir.to_owned(), conflict }),
            plan => Ok(plan),
        }
    }

    /// The journal owns what is adopted, so that a reset takes it out again.
    fn note_adopted(&self, id: MemberId, node: &Node) -> Result<(), EtcdJoinError> {
        let record = node.journal().record();
        let entry = match record.etcd_member() {
            Some((_, url, Some(noted))) if url == self.peer_url && noted == id.to_string() => return Ok(()),
            Some((entry, url, None)) if url == self.peer_url => entry,
            _ => self.intend(node)?,
        };
        Ok(node.journal().complete_member(entry, &id.to_string()).map_err(crate::node::NodeError::from)?)
    }

    fn intend(&self, node: &Node) -> Result<crate::journal::EntryId, EtcdJoinError> {
        let effect = Effect::EtcdMember { peer_url: self.peer_url.to_owned(), id: None };
        Ok(node.journal().intend(effect).map_err(crate::node::NodeError::from)?)
    }

    async fn check_peers(&self, health: &Health, reporter: &Reporter) -> Result<(), EtcdJoinError> {
        let step = reporter.step(PHASE, "reach the other members");
        let unreached = peers::unreached_of(health).await;
        if !unreached.is_empty() {
            return Err(EtcdJoinError::Peers { unreached });
        }
        step.done("those that are up answer at their peer URLs");
        Ok(())
    }

    async fn save_snapshot(&self, node: &Node, reporter: &Reporter) -> Result<(), EtcdJoinError> {
        let Some(directory) = self.snapshot_dir else { return Ok(()) };
        let step = reporter.step(PHASE, "save a snapshot of etcd");
        let endpoint = self.client.endpoints().into_iter().next().ok_or(EtcdError::NoEndpoint)?;
        let mut told = Instant::now();
        let saved = snapshot::save(self.client, &endpoint, &node.locate(directory), |written, left| {
            if told.elapsed() > Duration::from_millis(500) {
                told = Instant::now();
                let text = format!("snapshot: {} of {}", disk::size(written), disk::size(written + left));
                reporter.waiting(PHASE, text, self.timeout);
            }
        })
        .await?;
        step.done(format!("`{}`, {}, revision {}", saved.path.display(), disk::size(saved.bytes), saved.revision));
        Ok(())
    }

    /// Adds the learner, the journal first. Waits for the one place that etcd has for learners.
    async fn add(&self, node: &Node, reporter: &Reporter) -> Result<Own, EtcdJoinError> {
        let step = reporter.step(PHASE, "add a learner");
        let mut words = Words::to(reporter);
        // What an earlier run asked for may still come true.
        let (entry, mut asked_before) = match node.journal().record().etcd_member() {
            Some((entry, url, None)) if url == self.peer_url => (entry, true),
            _ => (self.intend(node)?, false),
        };
        let mut deadline = Instant::now() + self.timeout;
        let mut in_the_way: Vec<MemberId> = Vec::new();
        let (id, membership) = loop {
            let error = match self.client.add_learner(self.peer_url).await {
                Ok(added) => break added,
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match error.refusal() {
                Some(Refusal::TooManyLearners) => {
                    let membership = self.client.members().await?;
                    let learners: Vec<Member> = membership.learners().cloned().collect();
                    let ids: Vec<MemberId> = learners.iter().map(|member| member.id).collect();
                    if ids != in_the_way {
                        // Somebody else's turn came: the line moves.
                        in_the_way = ids;
                        deadline = Instant::now() + self.timeout;
                    } else if left.is_zero() {
                        let _ = self.void(entry, node);
                        return Err(EtcdJoinError::Slot { learners, after: self.timeout });
                    }
                    let text = format!("etcd takes one learner at a time; now it has {}", told(&learners));
                    self.wait_for_slot(&in_the_way, deadline, &text, reporter).await?;
                    continue;
                }
                Some(Refusal::PeerUrlExists | Refusal::MemberExists) | None if error.may_pass() || asked_before => {
                    asked_before = true;
                    if let Ok(membership) = self.client.members().await
                        && let Some(member) = membership.by_peer_url(self.peer_url)
                    {
                        break (member.id, membership);
                    }
                }
                Some(Refusal::PeerUrlExists) => {
                    // It was not there a moment ago, and we have not asked before.
                    let _ = self.void(entry, node);
                    let membership = self.client.members().await?;
                    let Some(member) = membership.by_peer_url(self.peer_url).cloned() else { continue };
                    return Err(EtcdJoinError::Conflict {
                        data_dir: self.data_dir.to_owned(),
                        conflict: Conflict::NotProved(member),
                    });
                }
                // etcd makes an id of peer URL and second, and takes none twice: a member of ours was removed in this one.
                Some(Refusal::MemberNotFound) => {}
                Some(refusal) if refusal.may_pass() => {}
                _ => {
                    let _ = self.void(entry, node);
                    return Err(error.into());
                }
            }
            if left.is_zero() {
                if !asked_before {
                    let _ = self.void(entry, node);
                }
                return Err(EtcdJoinError::GaveUp {
                    what: "etcd has not taken the learner",
                    after: self.timeout,
                    source: Box::new(error),
                });
            }
            words.tell(PHASE, format!("adding a learner: {error}"), left);
            tokio::time::sleep(RETRY).await;
        };
        node.journal().complete_member(entry, &id.to_string()).map_err(crate::node::NodeError::from)?;
        step.done(format!("id {id}"));
        Ok(Own { id, membership, has_started: false })
    }

    fn void(&self, entry: crate::journal::EntryId, node: &Node) -> Result<(), crate::journal::JournalError> {
        node.journal().void(entry)
    }

    async fn wait_for_slot(
        &self,
        in_the_way: &[MemberId],
        deadline: Instant,
        text: &str,
        reporter: &Reporter,
    ) -> Result<(), EtcdJoinError> {
        let mut words = Words::to(reporter);
        words.tell(PHASE, text, deadline.saturating_duration_since(Instant::now()));
        loop {
            tokio::time::sleep(RETRY).await;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.client.members().await {
                Ok(membership) => {
                    let learners: Vec<MemberId> = membership.learners().map(|member| member.id).collect();
                    if learners != in_the_way || left.is_zero() {
                        return Ok(());
                    }
                }
                Err(error) if !error.may_pass() || left.is_zero() => return Err(error.into()),
                Err(_) => {}
            }
            words.tell(PHASE, text, left);
        }
    }
}
