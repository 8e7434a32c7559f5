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
//! - [`add`]: the learner, added
//! - [`promotion`]: from a learner to a voter
//! - [`metrics`]: what our etcd says before it answers
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
use crate::etcd::{Client, Credentials, Member, MemberId, Membership};
use crate::node::Node;
use crate::output::Reporter;
use progress::Words;

mod add;
mod disk;
pub mod endpoints;
mod error;
pub mod leave;
mod metrics;
mod own;
mod peers;
mod progress;
mod promotion;

pub use error::EtcdJoinError;
pub use leave::{Removal, Removed, foresee, remove_own_member, replace_member};
pub use own::Conflict;
pub use promotion::OwnVoter;

/// Phase id of what is told.
pub const PHASE: &str = "etcd-join";
/// Phase id of the check before the kubelet is touched, as in kubeadm.
pub const CHECK_PHASE: &str = "check-etcd";

/// Pause between looks at a learner.
const POLL: Duration = Duration::from_millis(50);
/// Pause before a change that etcd refused for the moment is asked for again.
const RETRY: Duration = Duration::from_millis(200);
/// A leader that is lost is followed by another one within 5 s, since kubeadm's etcd has an election timeout of a second. A
/// member that got its vote a moment ago may be silent to clients for 7 s; see `EtcdJoin::own_state`.
const QUORUM_PATIENCE: Duration = Duration::from_secs(12);

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
    /// `http://HOST:PORT`, where its etcd serves metrics: it tells there how far it is before it answers clients.
    pub metrics_url: Option<&'a str>,
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

/// This machine's member votes, and every other member knows it. Its own etcd may not answer yet: see [`OwnVoter`].
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
    let deadline = Instant::now() + QUORUM_PATIENCE;
    let mut words = Words::to(reporter);
    let health = loop {
        let health = health::look_at_voters(client).await;
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
