//! What stops a member from joining, leaving or being replaced.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::disk::size;
use super::own::Conflict;
use crate::api::ApiError;
use crate::error::{Diagnose, ExitCode};
use crate::etcd::snapshot::SnapshotError;
use crate::etcd::{EtcdError, Member, MemberId};
use crate::node::{NodeError, file_hint};

/// What shows the members, with kubeadm's certificates.
const LIST: &str = "`kubectl -n kube-system exec etcd-<node> -- etcdctl --cacert=/etc/kubernetes/pki/etcd/ca.crt \
                    --cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt \
                    --key=/etc/kubernetes/pki/etcd/healthcheck-client.key member list -w table` shows the members";

/// What lets members talk to each other.
const OPEN_PORTS: &str = "open port 2380 between the control planes, both ways (`nft list ruleset` or `iptables -S` shows what \
                          is closed here, `timeout 3 bash -c '< /dev/tcp/ADDRESS/2380'` tries one), then run the same \
                          command again";

/// Why the phase ended.
#[derive(Debug, Error)]
pub enum EtcdJoinError {
    /// etcd's Pods cannot be listed.
    #[error("cannot list etcd's Pods")]
    Pods {
        /// The cause.
        source: ApiError,
    },
    /// No Pod tells where a member is.
    #[error("no Pod in `kube-system` tells where a member of etcd is{}", silent_pods(silent))]
    NoPods {
        /// Pods of etcd without the annotation.
        silent: Vec<String>,
    },
    /// etcd did not do it.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The machine did not.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The snapshot that was asked for cannot be had.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Too few voters are up.
    #[error("etcd has no quorum: {up} of {voters} voters are up, {needed} are needed; {}", down.join("; "))]
    NoQuorum {
        /// Members that vote.
        voters: usize,
        /// Those that are up.
        up: usize,
        /// Those that must be.
        needed: usize,
        /// Who is down, and what was seen of each.
        down: Vec<String>,
    },
    /// etcd raised an alarm.
    #[error("etcd has raised an alarm: {}", alarms.join("; "))]
    Alarm {
        /// In etcd's words.
        alarms: Vec<String>,
    },
    /// Whose the member or the data is has not been proved.
    #[error("{}", conflict_text(conflict, data_dir))]
    Conflict {
        /// Without `--root`.
        data_dir: PathBuf,
        /// What was found.
        conflict: Conflict,
    },
    /// The member to be replaced is not there.
    #[error("etcd has no member {id}; it has {}", members.join("; "))]
    NoMember {
        /// As given.
        id: MemberId,
        /// Those that there are.
        members: Vec<String>,
    },
    /// Without this member the others are too few.
    #[error("without {member} etcd loses its quorum: {up} of {voters} voters would be up, {needed} are needed")]
    BreaksQuorum {
        /// Who would go.
        member: String,
        /// Voters that would be left.
        voters: usize,
        /// Those of them that are up.
        up: usize,
        /// Those that must be.
        needed: usize,
    },
    /// It is the only one that votes.
    #[error("{member} is the only voter of etcd: with it the cluster's data would be gone")]
    LastVoter {
        /// Who would go.
        member: String,
    },
    /// Another learner is in the way.
    #[error("etcd takes one learner at a time, and after {} s it still has {}", after.as_secs(), super::told(learners))]
    Slot {
        /// Those that there are.
        learners: Vec<Member>,
        /// How long was waited.
        after: Duration,
    },
    /// etcd went on refusing, or not answering.
    #[error("after {} s {what}", after.as_secs())]
    GaveUp {
        /// What was still the case.
        what: &'static str,
        /// How long was tried.
        after: Duration,
        /// The last answer.
        source: Box<EtcdError>,
    },
    /// Members that are up are not reached where members talk to each other.
    #[error("this machine does not reach {} where etcd's members talk to each other", unreached.join("; "))]
    Peers {
        /// Name, id and peer URL of each, with the reason.
        unreached: Vec<String>,
    },
    /// The disk is too small.
    #[error("`{path}` has {} free, and a member needs {}", size(*free_bytes), size(*needed_bytes))]
    Space {
        /// The data directory, without `--root`.
        path: PathBuf,
        /// Free for it.
        free_bytes: u64,
        /// The database and its log.
        needed_bytes: u64,
    },
    /// The disk is too slow.
    #[error("a small write to `{path}` takes {} ms to reach the disk: etcd would lose its leader again and again", latency.as_millis())]
    SlowDisk {
        /// The data directory, without `--root`.
        path: PathBuf,
        /// Median of some writes.
        latency: Duration,
    },
    /// The data directory cannot be looked at.
    #[error("cannot {action} etcd's data directory `{path}`")]
    DataDirectory {
        /// `read`, `measure`, `empty`.
        action: &'static str,
        /// With `--root`.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The learner does not come forward.
    #[error("the learner {id} made no progress for {} s: {seen}{}", after.as_secs(), and_unreached(unreached))]
    Stalled {
        /// Ours.
        id: MemberId,
        /// What was seen last.
        seen: String,
        /// How long.
        after: Duration,
        /// Members that this machine does not reach at their peer URLs, each with the reason.
        unreached: Vec<String>,
    },
    /// Somebody removed the learner.
    #[error("the learner {id} is gone: somebody removed it from etcd")]
    LearnerGone {
        /// Ours.
        id: MemberId,
    },
    /// Our member votes, and its etcd does not run.
    #[error("this machine's member {id} votes, but after {} s its etcd does not answer: {seen}", after.as_secs())]
    Down {
        /// Ours.
        id: MemberId,
        /// What was seen last.
        seen: String,
        /// How long was waited.
        after: Duration,
    },
    /// Members go on believing something else.
    #[error("after {} s not every member knows that {id} votes: {}", after.as_secs(), behind.join("; "))]
    NotAgreed {
        /// Ours.
        id: MemberId,
        /// Who does not, and what it says.
        behind: Vec<String>,
        /// How long was waited.
        after: Duration,
    },
}

fn silent_pods(silent: &[String]) -> String {
    if silent.is_empty() { String::new() } else { format!(" (without the annotation: {})", silent.join(", ")) }
}

fn and_unreached(unreached: &[String]) -> String {
    if unreached.is_empty() { String::new() } else { format!("; not reached from here: {}", unreached.join("; ")) }
}

fn conflict_text(conflict: &Conflict, data_dir: &std::path::Path) -> String {
    let data_dir = data_dir.display();
    match conflict {
        Conflict::NotProved(member) => {
            format!("etcd has {member} already, and nothing proves that it is this machine's")
        }
        Conflict::DataGone(member) => format!(
            "{member} is this machine's and has been up, but `{data_dir}` no longer has its data: a member that forgot \
             what it agreed to must not come back"
        ),
        Conflict::OtherData { of: Some((cluster, member)) } => {
            format!("`{data_dir}` has the data of member {member} of etcd cluster {cluster}, which is no member here")
        }
        Conflict::OtherData { of: None } => format!("`{data_dir}` has data that does not tell whose it is"),
    }
}

impl Diagnose for EtcdJoinError {
    fn code(&self) -> &'static str {
        match self {
            Self::Pods { .. } => "etcd-join-pods",
            Self::NoPods { .. } => "etcd-join-no-pods",
            Self::Etcd(error) => error.code(),
            Self::Node(error) => error.code(),
            Self::Snapshot(error) => error.code(),
            Self::NoQuorum { .. } => "etcd-no-quorum",
            Self::Alarm { .. } => "etcd-alarm",
            Self::Conflict { conflict, .. } => match conflict {
                Conflict::NotProved(_) => "etcd-join-member-not-ours",
                Conflict::DataGone(_) => "etcd-join-data-gone",
                Conflict::OtherData { .. } => "etcd-join-other-data",
            },
            Self::NoMember { .. } => "etcd-no-member",
            Self::BreaksQuorum { .. } => "etcd-breaks-quorum",
            Self::LastVoter { .. } => "etcd-last-voter",
            Self::Slot { .. } => "etcd-join-slot",
            Self::GaveUp { .. } => "etcd-join-gave-up",
            Self::Peers { .. } => "etcd-join-peers",
            Self::Space { .. } => "etcd-join-space",
            Self::SlowDisk { .. } => "etcd-join-slow-disk",
            Self::DataDirectory { .. } => "etcd-join-data-directory",
            Self::Stalled { .. } => "etcd-join-stalled",
            Self::LearnerGone { .. } => "etcd-join-learner-gone",
            Self::Down { .. } => "etcd-join-down",
            Self::NotAgreed { .. } => "etcd-join-not-agreed",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Pods { source } => source.hint().unwrap_or_else(|| {
                "`kubectl --kubeconfig /etc/kubernetes/admin.conf -n kube-system get pods -l component=etcd` asks the same"
                    .into()
            }),
            Self::Etcd(error) => return error.hint(),
            Self::Node(error) => return error.hint(),
            Self::Snapshot(error) => return error.hint(),
            Self::NoPods { .. } => {
                "`kubectl -n kube-system get pods -l component=etcd -o yaml` shows etcd's Pods and their annotations"
                    .into()
            }
            Self::NoQuorum { voters, .. } => no_quorum_hint(*voters),
            Self::Alarm { .. } => format!(
                "free space or repair the member, then `etcdctl alarm disarm`; {LIST}, with `alarm list` the alarms"
            ),
            Self::Conflict { conflict: Conflict::NotProved(member) | Conflict::DataGone(member), .. } => format!(
                "`mortise join --replace-member {id} …` removes member {id} first; only if no machine runs it any more",
                id = member.id
            ),
            Self::Conflict { data_dir, conflict: Conflict::OtherData { .. }, .. } => {
                format!("`mortise reset` empties it; or move `{}` away if it is worth keeping", data_dir.display())
            }
            Self::NoMember { .. } => LIST.into(),
            Self::BreaksQuorum { .. } => {
                "bring a member that is down back first; `--force` goes on all the same, and writes stop".into()
            }
            Self::LastVoter { .. } => {
                "let another control plane join first; `--force` goes on, and the cluster ends with this machine".into()
            }
            Self::Slot { learners, .. } => format!(
                "wait until it votes and run the same command again; if its machine is gone, add `--replace-member {}` to \
                 it, which removes that learner first",
                learners.first().map_or_else(|| "ID".to_owned(), |learner| learner.id.to_string())
            ),
            Self::GaveUp { source, .. } => return source.hint(),
            Self::Peers { .. } => OPEN_PORTS.into(),
            Self::Space { path, .. } => format!("`df -h {}` shows the file system; free space on it", path.display()),
            Self::SlowDisk { path, .. } => {
                format!("`findmnt -T {}` shows the file system; etcd wants an SSD of its own", path.display())
            }
            Self::DataDirectory { path, source, .. } => return file_hint(source, path),
            Self::Stalled { unreached, .. } if !unreached.is_empty() => OPEN_PORTS.into(),
            Self::Stalled { .. } => {
                "`crictl ps -a --name etcd` and `crictl logs` show why etcd does not run here, `df -h` whether there is room \
                 for it; port 2380 of this machine has to be open to the other control planes"
                    .into()
            }
            Self::LearnerGone { .. } => format!("run the same command again to add it once more; {LIST}"),
            Self::Down { id, .. } => format!(
                "`crictl ps -a --name etcd` and `crictl logs` show why. If they say that its log was lost or truncated, add \
                 `--replace-member {id}` to the same command: it leaves and comes back as a new one; else run it again"
            ),
            Self::NotAgreed { .. } => format!("run the same command again, it goes on from here; {LIST}"),
        })
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoMember { .. } => ExitCode::Usage,
            _ => ExitCode::Failed,
        }
    }
}

/// What to do where the voters are too few. With two of them the loss of one is the loss of the quorum, and only a
/// survivor that starts a cluster of its own brings it back.
pub(super) fn no_quorum_hint(voters: usize) -> String {
    let back = "start the members that are down: `crictl ps -a --name etcd` on their nodes shows why they are";
    if voters == 2 {
        format!(
            "{back}. If the other machine of the two is gone for good: on the survivor add `--force-new-cluster` to \
             /etc/kubernetes/manifests/etcd.yaml, and take it out again when etcd is up"
        )
    } else {
        format!(
            "{back}. If too many are gone for good: `etcdutl snapshot restore`, or `--force-new-cluster` on one survivor"
        )
    }
}
