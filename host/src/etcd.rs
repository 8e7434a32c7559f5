//! etcd's members: listed, added as learners, promoted, removed, asked for their state.
//!
//! A small client over checked-in generated code (`rpc`, from `host/proto/etcd.proto`). Questions go to several members
//! side by side, the next one a tenth of a second after the one before it, so that a dead member costs that much once. A
//! change goes to one member, the first with which a connection comes about, and is never sent twice: one that was not
//! answered is [`EtcdError::Unclear`], and the caller looks up what came of it. Each request has a deadline, and a
//! connection that failed is replaced at once. What etcd refuses is in [`Refusal`].
//!
//! - [`connection`]: mutual TLS, one stream a channel
//! - [`error`]: what etcd 3.7 answers, and what it means
//! - [`health`]: the state of all members side by side, and the arithmetic of quorums
//! - [`snapshot`]: the whole database into a file

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tonic::transport::Channel;
use tonic::{Response, Status as Answered};

use crate::api::quoted;
use error::Kind;
use rpc::cluster_client::ClusterClient;
use rpc::maintenance_client::MaintenanceClient;

pub mod connection;
pub mod error;
pub mod health;
pub mod snapshot;

#[expect(unreachable_pub, reason = "generated code")]
#[rustfmt::skip]
mod rpc;

use connection::CONNECT_TIMEOUT;
pub use connection::Credentials;
pub use error::{EtcdError, NoConnection, Refusal, Why};

/// After this time the next member is asked beside the one before it.
const NEXT_AFTER: Duration = Duration::from_millis(100);
/// A question is answered within this time, as in kubeadm.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A change is answered within this time, or looked up. Three orders more than it takes.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer; a list of a hundred members has 20 KiB.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Id of a member, which etcd's tools write in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// As etcd's tools write it: one to sixteen hexadecimal digits.
impl std::str::FromStr for MemberId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u64::from_str_radix(text, 16).ok().filter(|id| digits && *id != 0);
        id.map(Self).ok_or_else(|| format!("`{}` is no member id of 1 to 16 hexadecimal digits", quoted(text)))
    }
}

/// A member as the others know it. Texts are printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Name of its node; empty until it has started.
    pub name: String,
    /// How members reach it.
    pub peer_urls: Vec<String>,
    /// How clients reach it; none until it has started.
    pub client_urls: Vec<String>,
    /// It has no vote yet.
    pub is_learner: bool,
}

impl Member {
    /// Whether it has been up once: it tells its name then.
    pub fn has_started(&self) -> bool {
        !self.name.is_empty()
    }
}

/// `cp-2 (id 8e9e05c52164694d, https://192.0.2.12:2380)`
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.has_started() { &self.name } else { "a member that has not started" };
        write!(f, "{name} (id {}, {})", self.id, self.peer_urls.join(", "))
    }
}

/// All members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Id of the cluster.
    pub cluster_id: u64,
    /// In etcd's order: by id.
    pub members: Vec<Member>,
}

impl Membership {
    /// The member with this id.
    pub fn by_id(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The member that has this among its peer URLs.
    pub fn by_peer_url(&self, url: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.peer_urls.iter().any(|other| other == url))
    }

    /// Those that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.is_learner)
    }

    /// Those that do not vote yet.
    pub fn learners(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_learner)
    }

    /// Client URLs of those that answer more than their status.
    pub fn voters_endpoints(&self) -> Vec<String> {
        self.voters().flat_map(|member| member.client_urls.iter().cloned()).collect()
    }
}

/// The state of one member, told by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Who answered.
    pub id: MemberId,
    /// Id of its cluster.
    pub cluster_id: u64,
    /// For example `3.7.3`.
    pub version: String,
    /// Size of its database on the disk.
    pub db_bytes: u64,
    /// Largest size of its database.
    pub quota_bytes: u64,
    /// Whom it follows; none: nobody is known to lead.
    pub leader: Option<MemberId>,
    /// Latest entry that it knows to be agreed on.
    pub raft_index: u64,
    /// Latest entry that is in its database.
    pub applied_index: u64,
    /// Term of the leader.
    pub raft_term: u64,
    /// Revision of its keys.
    pub revision: i64,
    /// It has no vote yet.
    pub is_learner: bool,
    /// Alarms and the lack of a leader, in etcd's words.
    pub errors: Vec<String>,
}

/// A client of all members.
#[derive(Debug)]
pub struct Client {
    credentials: Credentials,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// Whom to ask, the one that answered last first.
    endpoints: Vec<String>,
    channels: HashMap<String, Channel>,
}

impl Client {
    /// A client that knows these client URLs. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`EtcdError::NoEndpoint`].
    pub fn new(credentials: Credentials, endpoints: Vec<String>) -> Result<Self, EtcdError> {
        if endpoints.is_empty() {
            return Err(EtcdError::NoEndpoint);
        }
        Ok(Self { credentials, known: Mutex::new(Known { endpoints, channels: HashMap::new() }) })
    }

    /// Whom it asks, in this order.
    pub fn endpoints(&self) -> Vec<String> {
        self.known().endpoints.clone()
    }

    /// Asks these from now on; none are taken for a mistake. Those known before keep their place.
    pub fn use_endpoints(&self, endpoints: Vec<String>) {
        if endpoints.is_empty() {
            return;
        }
        let mut known = self.known();
        known.channels.retain(|endpoint, _| endpoints.contains(endpoint));
        let mut ordered: Vec<String> = known.endpoints.iter().filter(|url| endpoints.contains(url)).cloned().collect();
        ordered.extend(endpoints.into_iter().filter(|url| !known.endpoints.contains(url)));
        ordered.dedup();
        known.endpoints = ordered;
    }

    /// All members, agreed on by a quorum at the time of the question.
    ///
    /// # Errors
    ///
    /// Any but [`EtcdError::Unclear`]; [`EtcdError::Unanswered`] where there is no quorum.
    pub async fn members(&self) -> Result<Membership, EtcdError> {
        let attempts = self.endpoints().into_iter().map(|endpoint| self.members_from(endpoint, Agreed::ByQuorum));
        let (endpoint, membership) = first_ok(attempts).await.map_err(most_telling)?;
        self.prefer(&endpoint);
        Ok(membership)
    }

    /// All members as one of them knows them, with or without a quorum.
    ///
    /// # Errors
    ///
    /// As [`Client::members`].
    pub async fn members_known_to(&self, endpoint: &str) -> Result<Membership, EtcdError> {
        self.members_from(endpoint.to_owned(), Agreed::No).await.map(|(_, membership)| membership)
    }

    async fn members_from(&self, endpoint: String, agreed: Agreed) -> Result<(String, Membership), EtcdError> {
        let linearizable = agreed == Agreed::ByQuorum;
        let answer = self
            .ask("MemberList", &endpoint, async |channel| {
                let mut client = ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                client.member_list(rpc::MemberListRequest { linearizable }).await
            })
            .await?;
        let membership = membership(answer.header, answer.members);
        Ok((endpoint, membership))
    }

    /// A new member without a vote, and all members then.
    ///
    /// # Errors
    ///
    /// [`Refusal::PeerUrlExists`], [`Refusal::MemberExists`], [`Refusal::TooManyLearners`], [`Refusal::Unhealthy`];
    /// [`EtcdError::Unclear`]: it may be there, to be found by its peer URL.
    pub async fn add_learner(&self, peer_url: &str) -> Result<(MemberId, Membership), EtcdError> {
        const CALL: &str = "MemberAdd";
        let request = rpc::MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
        let (endpoint, answer) = self
            .change(CALL, async |channel| {
                ClusterClient::new(channel)
                    .max_decoding_message_size(MAX_ANSWER_BYTES)
                    .member_add(request.clone())
                    .await
            })
            .await?;
        let malformed = || EtcdError::Malformed { call: CALL, endpoint, what: "no member".into() };
        let id = answer.member.map(|member| MemberId(member.id)).ok_or_else(malformed)?;
        Ok((id, membership(answer.header, answer.members)))
    }

    /// Gives a learner its vote; all members then.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotInSync`], [`Refusal::NotALearner`], [`Refusal::MemberNotFound`]; [`EtcdError::Unclear`]: it may
    /// vote.
    pub async fn promote(&self, id: MemberId) -> Result<Membership, EtcdError> {
        let promote = async |channel| {
            let mut client = ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            client.member_promote(rpc::MemberPromoteRequest { id: id.0 }).await
        };
        let (_, answer) = self.change("MemberPromote", promote).await?;
        Ok(membership(answer.header, answer.members))
    }

    /// Removes a member; all members then.
    ///
    /// # Errors
    ///
    /// [`Refusal::MemberNotFound`]; [`Refusal::Unhealthy`], [`Refusal::NotEnoughStarted`] where the quorum would be
    /// lost; [`EtcdError::Unclear`]: it may be gone.
    pub async fn remove(&self, id: MemberId) -> Result<Membership, EtcdError> {
        let remove = async |channel| {
            let mut client = ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            client.member_remove(rpc::MemberRemoveRequest { id: id.0 }).await
        };
        let (_, answer) = self.change("MemberRemove", remove).await?;
        Ok(membership(answer.header, answer.members))
    }

    /// The state of one member; a learner answers, too.
    ///
    /// # Errors
    ///
    /// [`EtcdError::Unreachable`], [`EtcdError::Unanswered`].
    pub async fn status(&self, endpoint: &str) -> Result<Status, EtcdError> {
        let answer = self
            .ask("Status", endpoint, async |channel| {
                let mut client = MaintenanceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                client.status(rpc::StatusRequest {}).await
            })
            .await?;
        let header = answer.header.unwrap_or_default();
        let size = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        Ok(Status {
            id: MemberId(header.member_id),
            cluster_id: header.cluster_id,
            version: quoted(&answer.version),
            db_bytes: size(answer.db_size),
            quota_bytes: size(answer.db_size_quota),
            leader: (answer.leader != 0).then_some(MemberId(answer.leader)),
            raft_index: answer.raft_index,
            applied_index: answer.raft_applied_index,
            raft_term: answer.raft_term,
            revision: header.revision,
            is_learner: answer.is_learner,
            errors: answer.errors.iter().take(16).map(|text| quoted(text)).collect(),
        })
    }

    /// The same of a member that is starting. It listens some time before it answers; a connection made meanwhile is served
    /// when it is ready, where one given up each second may always come too early on a busy machine.
    ///
    /// # Errors
    ///
    /// As [`Client::status`]; [`EtcdError::Unreachable`] at once where nobody listens, else after `limit`.
    pub async fn status_of_starting(&self, endpoint: &str, limit: Duration) -> Result<Status, EtcdError> {
        self.channel_within(limit, endpoint).await.map_err(unreachable)?;
        self.status(endpoint).await
    }

    /// The state of the first member that answers, of those it knows.
    ///
    /// # Errors
    ///
    /// [`EtcdError::Unreachable`], [`EtcdError::Unanswered`].
    pub async fn any_status(&self) -> Result<Status, EtcdError> {
        let endpoints = self.endpoints();
        let attempts = endpoints.iter().map(|endpoint| self.status(endpoint));
        first_ok(attempts).await.map_err(most_telling)
    }

    /// Asks one member, once more on a new connection where one broke: a question may be asked twice.
    async fn ask<T>(
        &self,
        call: &'static str,
        endpoint: &str,
        send: impl AsyncFn(Channel) -> Result<Response<T>, Answered>,
    ) -> Result<T, EtcdError> {
        let asking = async {
            let mut is_second = false;
            loop {
                let (channel, _) = self.channel(endpoint).await.map_err(unreachable)?;
                let error = match send(channel).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => error::meaning(call, Kind::Question, endpoint, &status),
                };
                if !matches!(error, EtcdError::Unanswered { .. }) {
                    return Err(error);
                }
                self.forget(endpoint);
                if std::mem::replace(&mut is_second, true) {
                    return Err(error);
                }
            }
        };
        tokio::time::timeout(ASK_TIMEOUT, asking).await.unwrap_or_else(|_| {
            self.forget(endpoint);
            Err(error::unanswered(call, Kind::Question, quoted(endpoint), silence(ASK_TIMEOUT)))
        })
    }

    /// Asks one member for a change: the first that can be connected to and is no learner.
    async fn change<T>(
        &self,
        call: &'static str,
        send: impl AsyncFn(Channel) -> Result<Response<T>, Answered>,
    ) -> Result<(String, T), EtcdError> {
        let mut candidates = self.endpoints();
        let mut learner = None;
        let mut closed = Vec::new();
        loop {
            let attempts = candidates.iter().map(async |endpoint| {
                let (channel, kept) = self.channel(endpoint).await?;
                Ok::<_, NoConnection>((endpoint.clone(), channel, kept))
            });
            let (endpoint, channel, kept) = match first_ok(attempts).await {
                Ok(found) => found,
                Err(mut tried) => {
                    tried.append(&mut closed);
                    return Err(learner.unwrap_or(EtcdError::Unreachable { tried }));
                }
            };
            let status = match tokio::time::timeout(CHANGE_TIMEOUT, send(channel)).await {
                Ok(Ok(answer)) => {
                    self.prefer(&endpoint);
                    return Ok((endpoint, answer.into_inner()));
                }
                Ok(Err(status)) => status,
                Err(_) => {
                    self.forget(&endpoint);
                    return Err(error::unanswered(call, Kind::Change, endpoint, silence(CHANGE_TIMEOUT)));
                }
            };
            if connection::was_not_sent(&status) {
                self.forget(&endpoint);
                // A kept one may have ended long ago; one that was just made says something about the member.
                if !kept {
                    candidates.retain(|candidate| *candidate != endpoint);
                    closed.push(NoConnection { endpoint: quoted(&endpoint), why: Why::Other("it hangs up".into()) });
                }
                continue;
            }
            let error = error::meaning(call, Kind::Change, &endpoint, &status);
            match error {
                EtcdError::Refused { refusal: Refusal::AskedALearner, .. } => {
                    candidates.retain(|candidate| *candidate != endpoint);
                    learner = Some(error);
                }
                EtcdError::Unclear { .. } => {
                    self.forget(&endpoint);
                    return Err(error);
                }
                _ => return Err(error),
            }
        }
    }

    /// A connection to a member, and whether it was made earlier.
    async fn channel(&self, endpoint: &str) -> Result<(Channel, bool), NoConnection> {
        self.channel_within(CONNECT_TIMEOUT, endpoint).await
    }

    async fn channel_within(&self, limit: Duration, endpoint: &str) -> Result<(Channel, bool), NoConnection> {
        if let Some(channel) = self.known().channels.get(endpoint) {
            return Ok((channel.clone(), true));
        }
        let channel = self.credentials.connect_within(limit, endpoint).await?;
        self.known().channels.insert(endpoint.to_owned(), channel.clone());
        Ok((channel, false))
    }

    fn forget(&self, endpoint: &str) {
        self.known().channels.remove(endpoint);
    }

    fn prefer(&self, endpoint: &str) {
        let mut known = self.known();
        if let Some(at) = known.endpoints.iter().position(|other| other == endpoint) {
            known.endpoints[..=at].rotate_right(1);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing is left half-done under this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Agreed {
    ByQuorum,
    No,
}

fn silence(limit: Duration) -> String {
    format!("nothing came within {} s", limit.as_secs())
}

fn unreachable(why: NoConnection) -> EtcdError {
    EtcdError::Unreachable { tried: vec![why] }
}

/// Begins one attempt after another, the next when one fails or after a moment; the first success ends them all.
async fn first_ok<T, E, F: Future<Output = Result<T, E>>>(attempts: impl Iterator<Item = F>) -> Result<T, Vec<E>> {
    let mut waiting = attempts.fuse();
    let mut running = FuturesUnordered::new();
    let mut failed = Vec::new();
    let mut more = true;
    loop {
        if more {
            match waiting.next() {
                Some(attempt) => running.push(attempt),
                None => more = false,
            }
        }
        if running.is_empty() {
            return Err(failed);
        }
        let ended =
            if more { tokio::time::timeout(NEXT_AFTER, running.next()).await } else { Ok(running.next().await) };
        match ended {
            Ok(Some(Ok(value))) => return Ok(value),
            Ok(Some(Err(error))) => failed.push(error),
            // Nobody runs: the next one begins. Or nothing came yet: the next one begins beside it.
            Ok(None) | Err(_) => {}
        }
    }
}

/// One error of several: what a member said counts for more than that another could not be asked.
fn most_telling(errors: Vec<EtcdError>) -> EtcdError {
    let mut tried = Vec::new();
    let mut said = None::<EtcdError>;
    for error in errors {
        match error {
            EtcdError::Unreachable { tried: more } => tried.extend(more),
            EtcdError::Refused { refusal: Refusal::AskedALearner, .. } => {
                said.get_or_insert(error);
            }
            error => match &said {
                Some(EtcdError::Refused { refusal, .. }) if *refusal != Refusal::AskedALearner => {}
                _ => said = Some(error),
            },
        }
    }
    match said {
        Some(error) => error,
        None if tried.is_empty() => EtcdError::NoEndpoint,
        None => EtcdError::Unreachable { tried },
    }
}

fn membership(header: Option<rpc::ResponseHeader>, members: Vec<rpc::Member>) -> Membership {
    let texts = |texts: Vec<String>| texts.iter().take(16).map(|text| quoted(text)).collect();
    let member = |member: rpc::Member| Member {
        id: MemberId(member.id),
        name: quoted(&member.name),
        peer_urls: texts(member.peer_ur_ls),
        client_urls: texts(member.client_ur_ls),
        is_learner: member.is_learner,
    };
    Membership {
        cluster_id: header.map_or(0, |header| header.cluster_id),
        members: members.into_iter().map(member).collect(),
    }
}

#[cfg(test)]
mod tests;
