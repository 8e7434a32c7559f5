//! The state of all members side by side, and the arithmetic of quorums.

use futures::future::join_all;

use super::{Client, EtcdError, Member, MemberId, Membership, Status};

/// Every member with what it said about itself.
#[derive(Debug)]
pub struct Health {
    /// Id of the cluster.
    pub cluster_id: u64,
    /// In etcd's order.
    pub members: Vec<MemberHealth>,
    /// Whether a quorum answered: it agreed on who the members are.
    pub agreed: bool,
}

/// A member with what it said about itself.
#[derive(Debug)]
pub struct MemberHealth {
    /// As the others know it.
    pub member: Member,
    /// What it says.
    pub state: State,
}

/// What a member says about itself.
#[derive(Debug)]
pub enum State {
    /// It answers and follows a leader.
    Up(Status),
    /// It answers, but knows no leader.
    Leaderless(Status),
    /// It does not answer.
    Down(EtcdError),
    /// It has never been up, so there is nobody to ask.
    NotStarted,
}

impl MemberHealth {
    /// Whether it counts for the quorum, if it votes.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// What it said, if it said anything.
    pub fn status(&self) -> Option<&Status> {
        match &self.state {
            State::Up(status) | State::Leaderless(status) => Some(status),
            State::Down(_) | State::NotStarted => None,
        }
    }

    /// `cp-2 (id …, https://…): connection refused`
    pub fn describe(&self) -> String {
        let state = match &self.state {
            State::Up(_) => "is up".to_owned(),
            State::Leaderless(_) => "knows no leader".to_owned(),
            State::Down(EtcdError::Unreachable { tried }) => {
                tried.iter().map(|tried| tried.why.to_string()).collect::<Vec<_>>().join("; ")
            }
            State::Down(EtcdError::Unanswered { reason, .. }) => reason.clone(),
            State::Down(error) => error.to_string(),
            State::NotStarted => "has never been up".to_owned(),
        };
        format!("{}: {state}", self.member)
    }
}

impl Health {
    /// Members that vote.
    pub fn voters(&self) -> usize {
        self.members.iter().filter(|health| !health.member.is_learner).count()
    }

    /// Members that vote and are up.
    pub fn voters_up(&self) -> usize {
        self.members.iter().filter(|health| !health.member.is_learner && health.is_up()).count()
    }

    /// Whether enough voters are up to agree on anything.
    pub fn has_quorum(&self) -> bool {
        self.agreed && self.voters_up() >= quorum(self.voters())
    }

    /// Voters that are not up.
    pub fn voters_down(&self) -> impl Iterator<Item = &MemberHealth> {
        self.members.iter().filter(|health| !health.member.is_learner && !health.is_up())
    }

    /// The member that most recently was said to lead.
    pub fn leader(&self) -> Option<MemberId> {
        let newest = self.members.iter().filter_map(MemberHealth::status).max_by_key(|status| status.raft_term);
        newest.and_then(|status| status.leader)
    }

    /// Alarms that are raised, each once, in etcd's words: `memberID:… alarm:NOSPACE`.
    pub fn alarms(&self) -> Vec<String> {
        let errors = self.members.iter().filter_map(MemberHealth::status).flat_map(|status| &status.errors);
        let mut alarms: Vec<_> = errors.filter(|text| text.contains("alarm:")).cloned().collect();
        alarms.sort();
        alarms.dedup();
        alarms
    }

    /// Whether a quorum is left when a member is gone for good: removed, so that it no longer counts.
    ///
    /// A learner and a member that is unknown change nothing.
    pub fn has_quorum_without(&self, id: MemberId) -> bool {
        let others = || self.members.iter().filter(|health| !health.member.is_learner && health.member.id != id);
        let voters = others().count();
        voters > 0 && others().filter(|health| health.is_up()).count() >= quorum(voters)
    }

    /// The database of the largest member, in bytes.
    pub fn db_bytes(&self) -> u64 {
        self.members.iter().filter_map(MemberHealth::status).map(|status| status.db_bytes).max().unwrap_or(0)
    }
}

/// How many of so many voters must agree.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Asks every member for its state, side by side. Without a quorum the list of members is that of whoever answers.
///
/// # Errors
///
/// Where no member tells who the members are.
pub async fn look(client: &Client) -> Result<Health, EtcdError> {
    look_at(client, |_| true).await
}

/// The same of those that vote: a learner may keep everybody waiting while it starts.
///
/// # Errors
///
/// As [`look`].
pub async fn look_at_voters(client: &Client) -> Result<Health, EtcdError> {
    look_at(client, |member| !member.is_learner).await
}

async fn look_at(client: &Client, wanted: impl Fn(&Member) -> bool) -> Result<Health, EtcdError> {
    let (mut membership, agreed) = match client.members().await {
        Ok(membership) => (membership, true),
        Err(error) => (known_to_anyone(client).await.ok_or(error)?, false),
    };
    membership.members.retain(wanted);
    let states = membership.members.iter().map(|member| state_of(client, member));
    let states = join_all(states).await;
    let members = membership.members.into_iter().zip(states).map(|(member, state)| MemberHealth { member, state });
    Ok(Health { cluster_id: membership.cluster_id, members: members.collect(), agreed })
}

async fn known_to_anyone(client: &Client) -> Option<Membership> {
    let endpoints = client.endpoints();
    let answers = join_all(endpoints.iter().map(|endpoint| client.members_known_to(endpoint))).await;
    answers.into_iter().find_map(Result::ok)
}

async fn state_of(client: &Client, member: &Member) -> State {
    let mut failed = State::NotStarted;
    for url in &member.client_urls {
        match client.status(url).await {
            // Whoever answers there is another one.
            Ok(status) if status.id != member.id => {
                let what = format!("the id {} of another member", status.id);
                failed = State::Down(EtcdError::Malformed { call: "Status", endpoint: url.clone(), what });
            }
            Ok(status) if status.leader.is_some() => return State::Up(status),
            Ok(status) => failed = State::Leaderless(status),
            Err(error) if matches!(failed, State::NotStarted) => failed = State::Down(error),
            Err(_) => {}
        }
    }
    failed
}
