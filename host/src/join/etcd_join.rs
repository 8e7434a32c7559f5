//! Phases `check-etcd` and `etcd-join`: this machine becomes a member of a stacked etcd.
//!
//! The order is that of how hard a step is to take back. First what only looks: quorum, disk, the snapshot that the user
//! wants. Then the journal says that a member with our peer URL is about to be added, the learner is added, and its id
//! follows in the journal. A learner has no vote: until it is promoted nobody depends on it, and a failure removes exactly
//! this one again. The manifest is published, the learner is watched by raft index until it is in step with its leader,
//! and health and disk are looked at once more. Promotion is the commit point: from then on the others count on it, and
//! nothing is undone. A change whose answer was lost is looked up, never guessed.
//!
//! A second run finds its own half-done work by the journal's peer URL and id, or by the ids in the data directory; see
//! [`own`] for what counts as proof.
//!
//! - [`endpoints`]: where etcd is, from the API
//! - [`own`]: which member is ours
//! - [`peers`]: whether the others are reached where members talk to each other
//! - [`disk`]: room and speed of the data directory
//! - [`progress`]: how far the learner is
//! - [`leave`]: members that go
//! - [`error`]: why it stops

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Failure;
use crate::etcd::health::{self, Health, quorum};
use crate::etcd::{Client, Credentials, EtcdError, Member, MemberId, Membership, Refusal, snapshot};
use crate::journal::Effect;
use crate::node::Node;
use crate::output::Reporter;
use own::{Data, Plan, Recorded};
use progress::{Position, Progress, Words};

mod disk;
pub mod endpoints;
mod error;
pub mod leave;
mod own;
mod peers;
mod progress;

pub use error::EtcdJoinError;
pub use leave::{Removal, Removed, foresee, remove_own_member, replace_member};
pub use own::Conflict;

/// Phase id of what is told.
pub const PHASE: &str = "etcd-join";
/// Phase id of the check before the kubelet is touched, as in kubeadm.
pub const CHECK_PHASE: &str = "check-etcd";

/// Pause between looks at a learner.
const POLL: Duration = Duration::from_millis(50);
/// Pause before a change that etcd refused for the moment is asked for again.
const RETRY: Duration = Duration::from_millis(200);
/// A leader that is lost is followed by another one within this time: kubeadm's etcd has an election timeout of a second.
const ELECTION_PATIENCE: Duration = Duration::from_secs(5);
/// A connection to our own etcd, which listens before it answers, is kept open for so long.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// So many looks at a learner apart, the list of members is read, too: somebody may have removed it.
const LOOKS_PER_LIST: u32 = 40;

/// What this machine's membership is made of.
#[derive(Debug, Clone, Copy)]
pub struct EtcdJoin<'a> {
    /// Knows the members there are: see [`connect`].
    pub client: &'a Client,
    /// Name of the Node, and of the member.
    pub name: &'a str,
    /// `https://ADDRESS:2380`.
    pub peer_url: &'a str,
    /// `https://ADDRESS:2379`.
    pub client_url: &'a str,
    /// etcd's `dataDir`, without `--root`.
    pub data_dir: &'a Path,
    /// `timeouts.etcdAPICall`: how long to go on without any progress.
    pub timeout: Duration,
    /// `--etcd-snapshot`: where the database is saved before anything changes.
    pub snapshot_dir: Option<&'a Path>,
    /// `--replace-member`: who is removed first.
    pub replace: Option<MemberId>,
}

/// What the manifest of etcd is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `--initial-cluster`: `name=peerURL,…` of all members; its state is `existing`.
    pub initial_cluster: String,
    /// The member has been up before: a manifest that is there already starts it as well as this one, and rewriting it
    /// would only stop it.
    pub has_started: bool,
}

/// This machine's member votes, and every member knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Of this machine.
    pub id: MemberId,
    /// Of etcd.
    pub cluster_id: u64,
    /// How many vote now.
    pub voters: usize,
}

/// A client that knows all voters: found by the API, then asked from each other.
///
/// # Errors
///
/// [`EtcdJoinError::Pods`], [`EtcdJoinError::NoPods`], and etcd's for the client certificate.
pub async fn connect(
    api: &kube::Client,
    pki: &Path,
    node: &Node,
    reporter: &Reporter,
    timeout: Duration,
    fail_fast: bool,
) -> Result<Client, EtcdJoinError> {
    let credentials = Credentials::read(pki, node)?;
    let endpoints = endpoints::find(api, reporter, timeout, fail_fast).await?;
    Ok(Client::new(credentials, endpoints)?)
}

/// Looks at every member side by side and refuses where they could not agree on a new one.
///
/// # Errors
///
/// [`EtcdJoinError::NoQuorum`] with who is down, [`EtcdJoinError::Alarm`]; etcd's where nobody answers.
pub async fn check_health(client: &Client, phase: &'static str, reporter: &Reporter) -> Result<Health, EtcdJoinError> {
    let step = reporter.step(phase, "look at etcd's members");
    let deadline = Instant::now() + ELECTION_PATIENCE;
    let mut words = Words::to(reporter);
    let health = loop {
        let health = health::look(client).await;
        let left = deadline.saturating_duration_since(Instant::now());
        match health {
            Ok(health) if health.has_quorum() || left.is_zero() => break health,
            Err(error) if left.is_zero() || !error.may_pass() => return Err(error.into()),
            _ => words.tell(phase, "a quorum of etcd's members", left),
        }
        tokio::time::sleep(RETRY).await;
    };
    let alarms = health.alarms();
    if !alarms.is_empty() {
        return Err(EtcdJoinError::Alarm { alarms });
    }
    let (voters, up) = (health.voters(), health.voters_up());
    if !health.has_quorum() {
        let down = health.voters_down().map(health::MemberHealth::describe).collect();
        return Err(EtcdJoinError::NoQuorum { voters, up, needed: quorum(voters), down });
    }
    let voting = health.members.iter().filter(|health| !health.member.is_learner).map(|health| &health.member);
    client.use_endpoints(voting.flat_map(|member| member.client_urls.iter().cloned()).collect());
    for down in health.voters_down() {
        reporter.warn(Some(phase), format!("a member of etcd is not up: {}", down.describe()));
    }
    step.done(format!("{up} of {voters} voters are up, {} are needed", quorum(voters)));
    Ok(health)
}

/// A member that is ours, in the list or just added.
struct Own {
    id: MemberId,
    membership: Membership,
    has_started: bool,
}

impl EtcdJoin<'_> {
    /// Members now, and as they would be: what a dry run shows. Nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`EtcdJoin::join`] before its first change.
    pub async fn preview(&self, node: &Node) -> Result<(Vec<String>, Vec<String>), EtcdJoinError> {
        let before = self.client.members().await?;
        let mut after: Vec<String> = before
            .members
            .iter()
            .filter(|member| {
                Some(member.id) != self.replace && !member.peer_urls.iter().any(|url| url == self.peer_url)
            })
            .map(line)
            .collect();
        if self.replace.is_none_or(|id| before.by_peer_url(self.peer_url).is_some_and(|own| own.id == id)) {
            self.decide(&before, node)?;
        }
        after.push(format!("{} ({}), voter", self.name, self.peer_url));
        Ok((before.members.iter().map(line).collect(), after))
    }

    /// Makes this machine a voter; a second run goes on where the first one ended.
    ///
    /// `publish` makes the kubelet start etcd. `withdraw` takes that back: it is called where the learner has to be
    /// removed again, before it is.
    ///
    /// # Errors
    ///
    /// [`EtcdJoinError`], and what `publish` fails with. Before promotion our learner has been removed then; where that
    /// failed, too, the reporter says so.
    pub async fn join(
        &self,
        publish: impl AsyncFnOnce(Manifest) -> Result<(), Failure>,
        withdraw: impl AsyncFnOnce() -> Result<(), Failure>,
        node: &Node,
        reporter: &Reporter,
    ) -> Result<Joined, Failure> {
        let health = check_health(self.client, PHASE, reporter).await?;
        node.note_if_empty(self.data_dir)?;
        node.ensure_dir(self.data_dir, 0o700)?;
        let own = self.ensure_learner(&health, node, reporter).await?;
        let promoted = async {
            let manifest = Manifest {
                initial_cluster: initial_cluster(&own.membership, own.id, self.name),
                has_started: own.has_started,
            };
            publish(manifest).await?;
            if own.membership.by_id(own.id).is_some_and(|member| !member.is_learner) {
                return Ok(own.membership.clone());
            }
            self.watch(own.id, node, reporter).await?;
            let health = check_health(self.client, PHASE, reporter).await?;
            self.check_space(health.db_bytes(), node)?;
            // The commit point: from here on the others count on this member, and nothing is undone.
            Ok::<_, Failure>(self.promote(own.id, reporter).await?)
        };
        let membership = match promoted.await {
            Ok(membership) => membership,
            Err(failure) => {
                self.take_back(own.id, withdraw, reporter).await;
                return Err(failure);
            }
        };
        self.wait_for_agreement(own.id, &membership, reporter).await?;
        let voters = membership.voters().count();
        reporter.step(PHASE, "count voters").done(what_a_loss_means(voters));
        Ok(Joined { id: own.id, cluster_id: membership.cluster_id, voters })
    }

    async fn ensure_learner(&self, health: &Health, node: &Node, reporter: &Reporter) -> Result<Own, EtcdJoinError> {
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

    fn decide(&self, membership: &Membership, node: &Node) -> Result<Plan, EtcdJoinError> {
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

    fn check_space(&self, db_bytes: u64, node: &Node) -> Result<(), EtcdJoinError> {
        // What the learner has written already is the database.
        let there = matches!(own::read_data(&node.locate(self.data_dir)), Ok(Data::Of(_)));
        self.require_free(if there { disk::RUNNING_BYTES } else { disk::needed_bytes(db_bytes) }, node)
    }

    fn require_free(&self, needed_bytes: u64, node: &Node) -> Result<(), EtcdJoinError> {
        let directory = node.locate(self.data_dir);
        let free_bytes = disk::free_bytes(&directory).map_err(|source| EtcdJoinError::DataDirectory {
            action: "measure",
            path: directory,
            source,
        })?;
        if free_bytes < needed_bytes {
            return Err(EtcdJoinError::Space { path: self.data_dir.to_owned(), free_bytes, needed_bytes });
        }
        Ok(())
    }

    fn check_speed(&self, node: &Node, reporter: &Reporter) -> Result<(), EtcdJoinError> {
        let step = reporter.step(PHASE, "measure the data directory");
        let directory = node.locate(self.data_dir);
        let latency = disk::sync_latency(&directory).map_err(|source| EtcdJoinError::DataDirectory {
            action: "measure",
            path: directory,
            source,
        })?;
        if latency > disk::TOO_SLOW_SYNC {
            return Err(EtcdJoinError::SlowDisk { path: self.data_dir.to_owned(), latency });
        }
        if latency > disk::SLOW_SYNC {
            let text = format!(
                "a small write to `{}` takes {} ms to reach the disk; etcd wants less than {} ms, or every write of the \
                 cluster may wait for this member",
                self.data_dir.display(),
                latency.as_millis(),
                disk::SLOW_SYNC.as_millis()
            );
            reporter.warn(Some(PHASE), text);
        }
        step.done(format!("a small write reaches the disk in {:.1} ms", latency.as_secs_f64() * 1000.0));
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

    /// Waits until the learner is in step with its leader.
    async fn watch(&self, id: MemberId, node: &Node, reporter: &Reporter) -> Result<(), EtcdJoinError> {
        let step = reporter.step(PHASE, "bring the learner in step");
        let mut words = Words::to(reporter);
        let started = Instant::now();
        let mut progress = Progress::default();
        let mut moved_at = started;
        let mut seen = String::from("etcd has not started here");
        for look in 1_u32.. {
            let limit = START_PATIENCE.min(self.timeout.saturating_sub(moved_at.elapsed()));
            let own = self.client.status_of_starting(self.client_url, limit);
            let (own, others) = tokio::join!(own, self.client.any_status());
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
                    if position.is_in_step() && own.leader.is_some() {
                        step.done(seen);
                        return Ok(());
                    }
                }
                (Ok(_), Err(error)) => seen = format!("the others do not answer: {error}"),
                (Err(EtcdError::Unreachable { tried }), _) => {
                    let why = tried.into_iter().next().map(|tried| tried.why.to_string()).unwrap_or_default();
                    seen = format!("waiting for etcd to start here ({why})");
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

    async fn promote(&self, id: MemberId, reporter: &Reporter) -> Result<Membership, EtcdJoinError> {
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

    /// Waits until every member that answers knows that ours votes; ours has to.
    async fn wait_for_agreement(
        &self,
        id: MemberId,
        membership: &Membership,
        reporter: &Reporter,
    ) -> Result<(), EtcdJoinError> {
        let step = reporter.step(PHASE, "wait until every member knows it");
        let deadline = Instant::now() + self.timeout;
        let others = membership.voters().filter(|member| member.id != id);
        let mut asked: Vec<String> = others.filter_map(|member| member.client_urls.first().cloned()).collect();
        asked.push(self.client_url.to_owned());
        self.client.use_endpoints(asked.clone());
        let mut words = Words::to(reporter);
        loop {
            let answers = asked.iter().map(|endpoint| self.client.members_known_to(endpoint));
            let answers = futures::future::join_all(answers).await;
            let mut behind = Vec::new();
            let mut own_is_down = None;
            for (endpoint, answer) in asked.iter().zip(answers) {
                match answer {
                    Ok(known) if known.by_id(id).is_some_and(|member| !member.is_learner) => {}
                    Ok(_) => behind.push(format!("`{endpoint}` does not know it")),
                    Err(error @ EtcdError::Unreachable { .. }) if endpoint == self.client_url => {
                        own_is_down = Some(error.to_string());
                        behind.push(error.to_string());
                    }
                    // One that is down learns it from the log when it is back.
                    Err(EtcdError::Unreachable { .. }) => {}
                    Err(error) => behind.push(error.to_string()),
                }
            }
            if behind.is_empty() {
                step.done(format!("{} members agree", asked.len()));
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(match own_is_down {
                    Some(seen) => EtcdJoinError::Down { id, seen, after: self.timeout },
                    None => EtcdJoinError::NotAgreed { id, behind, after: self.timeout },
                });
            }
            words.tell(PHASE, behind.join("; "), left);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Removes our learner again, unless it votes after all. What fails here is told; the error that led here stands.
    async fn take_back(&self, id: MemberId, withdraw: impl AsyncFnOnce() -> Result<(), Failure>, reporter: &Reporter) {
        let by_hand =
            format!("`etcdctl member remove {id}` on another control plane removes it, or a second run goes on");
        let step = reporter.step(PHASE, format!("remove this machine's learner {id} again"));
        match self.client.members().await.map(|membership| membership.by_id(id).cloned()) {
            Ok(None) => return step.unchanged("it is no member any more"),
            Ok(Some(member)) if !member.is_learner => {
                let text = format!("{member} votes already and stays; the same command goes on from there");
                return reporter.warn(Some(PHASE), text);
            }
            Ok(Some(_)) => {}
            Err(error) => {
                let text = format!("this machine's learner {id} may still be in etcd: {error}; {by_hand}");
                return reporter.warn(Some(PHASE), text);
            }
        }
        if let Err(failure) = withdraw().await {
            reporter.warn(Some(PHASE), format!("etcd's manifest stays: {failure}"));
        }
        match leave::remove(self.client, id, self.timeout, reporter, PHASE).await {
            Ok(()) => step.done("it had no vote, and nothing is left of it in etcd"),
            Err(error) => {
                let text = format!("this machine's learner {id} is still in etcd: {error}; {by_hand}");
                reporter.warn(Some(PHASE), text);
            }
        }
    }
}

/// `--initial-cluster` as etcd wants it: every member with every peer URL, ours under its name, another one that has not
/// started under its id, as kubeadm does.
fn initial_cluster(membership: &Membership, own: MemberId, name: &str) -> String {
    let pairs = membership.members.iter().flat_map(|member| {
        let name = if member.id == own {
            name.to_owned()
        } else if member.has_started() {
            member.name.clone()
        } else {
            member.id.to_string()
        };
        member.peer_urls.iter().map(move |url| format!("{name}={url}"))
    });
    pairs.collect::<Vec<_>>().join(",")
}

/// Name, id and peer URL of each.
fn told(members: &[Member]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn line(member: &Member) -> String {
    format!("{member}, {}", if member.is_learner { "learner" } else { "voter" })
}

/// What the loss of a control plane means with so many voters.
pub fn what_a_loss_means(voters: usize) -> String {
    match voters {
        1 => "1 voter: losing it loses the cluster's data".into(),
        2 => "2 voters: losing either one stops every write until it is back; a third one ends that".into(),
        _ => {
            let spare = voters - quorum(voters);
            format!("{voters} voters: {spare} of them may be lost at a time, one more stops every write")
        }
    }
}

#[cfg(test)]
mod tests;
