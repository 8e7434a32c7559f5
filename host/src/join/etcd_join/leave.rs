//! Members that leave: the one that a join replaces, and our own in a reset.

use std::time::Duration;

use tokio::time::Instant;

use super::error::EtcdJoinError;
use super::{PHASE, POLL, RETRY};
use crate::etcd::health::{self, Health, quorum};
use crate::etcd::{Client, EtcdError, Member, MemberId, Refusal};
use crate::output::Reporter;

/// What removing a member would mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is not a member any more.
    Gone,
    /// Nobody would notice.
    Harmless(Member),
    /// The others go on without it.
    KeepsQuorum {
        /// Who would go.
        member: Member,
        /// Voters that are left.
        voters: usize,
        /// Those of them that are up.
        up: usize,
    },
    /// The others could agree on nothing any more, or cannot now.
    BreaksQuorum {
        /// Who would go.
        member: Member,
        /// Voters that are left.
        voters: usize,
        /// Those of them that are up.
        up: usize,
    },
    /// Nobody would be left to vote.
    LastVoter(Member),
}

impl Removal {
    /// What would happen, one line.
    pub fn describe(&self) -> String {
        match self {
            Self::Gone => "it is not a member any more".into(),
            Self::Harmless(member) => format!("{member} leaves; it has no vote"),
            Self::KeepsQuorum { member, voters: 1, .. } => {
                format!("{member} leaves; one voter is left, and losing it loses the cluster's data")
            }
            Self::KeepsQuorum { member, voters, up } => format!(
                "{member} leaves; {voters} voters are left, {up} of them up, and {} more may be lost",
                up - quorum(*voters)
            ),
            Self::BreaksQuorum { member, voters, up } => format!(
                "without {member} etcd has {up} of {voters} voters up and needs {}: nothing could be written any more",
                quorum(*voters)
            ),
            Self::LastVoter(member) => format!("{member} is the only voter: the cluster's data would be gone"),
        }
    }

    fn refusal(self) -> Option<EtcdJoinError> {
        match self {
            Self::Gone | Self::Harmless(_) | Self::KeepsQuorum { .. } => None,
            Self::BreaksQuorum { member, voters, up } => {
                Some(EtcdJoinError::BreaksQuorum { member: member.to_string(), voters, up, needed: quorum(voters) })
            }
            Self::LastVoter(member) => Some(EtcdJoinError::LastVoter { member: member.to_string() }),
        }
    }
}

/// What removing this member would mean now.
pub fn foresee(health: &Health, id: MemberId) -> Removal {
    let Some(found) = health.members.iter().find(|health| health.member.id == id) else { return Removal::Gone };
    let member = found.member.clone();
    if member.is_learner {
        return Removal::Harmless(member);
    }
    let others = || health.members.iter().filter(|other| !other.member.is_learner && other.member.id != id);
    let (voters, up) = (others().count(), others().filter(|other| other.is_up()).count());
    if voters == 0 {
        Removal::LastVoter(member)
    } else if health.has_quorum() && health.has_quorum_without(id) {
        Removal::KeepsQuorum { member, voters, up }
    } else {
        Removal::BreaksQuorum { member, voters, up }
    }
}

/// What a removal came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// It was no member.
    WasGone,
    /// It left.
    Now(Removal),
    /// It stays in the list of members, because etcd could not agree; only with `force`.
    LeftBehind(String),
}

/// Takes this machine's member out of etcd, as a reset does: by its id, and only while the others keep a quorum.
///
/// With `force` it is tried all the same, and what etcd refuses is [`Removed::LeftBehind`].
///
/// # Errors
///
/// [`EtcdJoinError::BreaksQuorum`], [`EtcdJoinError::LastVoter`] without `force`; [`EtcdJoinError::GaveUp`].
pub async fn remove_own_member(
    client: &Client,
    id: MemberId,
    force: bool,
    timeout: Duration,
    reporter: &Reporter,
) -> Result<Removed, EtcdJoinError> {
    let health = health::look(client).await?;
    let removal = foresee(&health, id);
    match (&removal, force) {
        (Removal::Gone, _) => return Ok(Removed::WasGone),
        (Removal::LastVoter(_), true) => return Ok(Removed::LeftBehind(removal.describe())),
        (Removal::BreaksQuorum { .. } | Removal::LastVoter(_), false) => {
            return Err(removal.refusal().expect("these two are refused"));
        }
        _ => {}
    }
    match remove(client, id, timeout, reporter, PHASE).await {
        Ok(()) => Ok(Removed::Now(removal)),
        Err(error) if force => Ok(Removed::LeftBehind(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Removes the member that `--replace-member` names, whose machine is gone or about to join anew.
///
/// # Errors
///
/// [`EtcdJoinError::NoMember`]; [`EtcdJoinError::BreaksQuorum`], [`EtcdJoinError::LastVoter`]: nothing was done.
pub async fn replace_member(
    client: &Client,
    id: MemberId,
    timeout: Duration,
    reporter: &Reporter,
) -> Result<(), EtcdJoinError> {
    let step = reporter.step(PHASE, format!("remove member {id}"));
    let health = health::look(client).await?;
    let removal = foresee(&health, id);
    if removal == Removal::Gone {
        let members = health.members.iter().map(|health| health.member.to_string()).collect();
        return Err(EtcdJoinError::NoMember { id, members });
    }
    let described = removal.describe();
    if let Some(refusal) = removal.refusal() {
        return Err(refusal);
    }
    remove(client, id, timeout, reporter, PHASE).await?;
    step.done(described);
    Ok(())
}

/// Removes a member and is content where it is gone. etcd may refuse for five seconds after a change.
pub(super) async fn remove(
    client: &Client,
    id: MemberId,
    timeout: Duration,
    reporter: &Reporter,
    phase: &'static str,
) -> Result<(), EtcdJoinError> {
    let deadline = Instant::now() + timeout;
    loop {
        let error = match client.remove(id).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        match &error {
            EtcdError::Refused { refusal: Refusal::MemberNotFound, .. } => return Ok(()),
            given if !given.may_pass() => return Err(error.into()),
            // Looked up: it may be gone.
            EtcdError::Unclear { .. }
                if client.members().await.is_ok_and(|membership| membership.by_id(id).is_none()) =>
            {
                return Ok(());
            }
            _ => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(EtcdJoinError::GaveUp {
                what: "the member is still there",
                after: timeout,
                source: Box::new(error),
            });
        }
        reporter.waiting(phase, format!("removing member {id}: {error}"), left);
        tokio::time::sleep(if matches!(error, EtcdError::Unclear { .. }) { POLL } else { RETRY }).await;
    }
}
