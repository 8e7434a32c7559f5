//! Which member of the list is this machine's, and whether it may be taken over.
//!
//! A member is adopted only where something proves that it is ours: the journal, which wrote the peer URL down before
//! the member was asked for, as long as nobody has started under it; or the data directory, whose log begins with the
//! ids of its cluster and member. Anything else with our peer URL may be another machine's past, and taking it over
//! could bring a voter back that has forgotten what it voted for.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use prost::Message;

use crate::etcd::{Member, MemberId, Membership};

/// Below the data directory: everything etcd keeps.
pub(super) const MEMBER_DIRECTORY: &str = "member";
/// The two records at the beginning of a log file have less than 100 bytes.
const MAX_HEAD_BYTES: u64 = 4096;
/// `walpb.Record.type` of the metadata.
const METADATA: i64 = 1;

/// What the journal says about the member at our peer URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// Nothing.
    Nothing,
    /// It was about to be added.
    Intended,
    /// It was added.
    Added(MemberId),
}

/// What is in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Nothing.
    Empty,
    /// A member's.
    Of(Identity),
    /// Files without a log: etcd began there and came no further, for example because it reached no other member. To etcd
    /// such a member has never been up (server/etcdserver/bootstrap.go, `haveWAL`).
    NoLog,
    /// Something that does not tell whose it is.
    Unknown,
}

/// Whose a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster_id: u64,
    pub(super) member: MemberId,
}

/// What is to be done about the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Add a learner.
    Add,
    /// The data directory is what is left of our learner that was removed: empty it, then add.
    EmptyAndAdd,
    /// Go on with this one.
    Adopt(Member),
    /// Remove this one, which the user named, and what it left in the data directory, then add.
    Replace {
        /// Who goes.
        member: Member,
        /// Whether the data directory is its.
        holds_data: bool,
    },
    /// Stop.
    Refuse(Conflict),
}

/// Why a join stops before it changes anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// A member that has not been proved to be this machine's has its peer URL.
    NotProved(Member),
    /// Our member has been up, and what it knew is gone.
    DataGone(Member),
    /// The data directory is that of another member or cluster.
    OtherData {
        /// Cluster and member, hexadecimal digits; none: it does not tell.
        of: Option<(String, String)>,
    },
}

/// Decides what is to be done.
pub(super) fn decide(
    membership: &Membership,
    peer_url: &str,
    recorded: Recorded,
    data: Data,
    replace: Option<MemberId>,
) -> Plan {
    let Some(member) = membership.by_peer_url(peer_url) else {
        return match (data, recorded) {
            (Data::Empty, _) => Plan::Add,
            (Data::Of(of), Recorded::Added(id)) if of.cluster_id == membership.cluster_id && of.member == id => {
                Plan::EmptyAndAdd
            }
            // The directory was empty before the learner that the journal has, and no log means that it agreed to nothing.
            (Data::NoLog, Recorded::Added(_)) => Plan::EmptyAndAdd,
            (data, _) => Plan::Refuse(other_data(data)),
        };
    };
    if replace == Some(member.id) {
        let holds_data = match data {
            Data::Empty => false,
            Data::Of(of) if of.cluster_id == membership.cluster_id && of.member == member.id => true,
            Data::NoLog if recorded == Recorded::Added(member.id) => true,
            data => return Plan::Refuse(other_data(data)),
        };
        return Plan::Replace { member: member.clone(), holds_data };
    }
    match data {
        Data::Of(of) if of.cluster_id == membership.cluster_id && of.member == member.id => {
            return Plan::Adopt(member.clone());
        }
        Data::Of(_) => return Plan::Refuse(other_data(data)),
        Data::Empty | Data::NoLog | Data::Unknown => {}
    }
    let ours = match recorded {
        Recorded::Nothing => false,
        Recorded::Intended => true,
        Recorded::Added(id) => id == member.id,
    };
    match (ours, member.is_learner && !member.has_started()) {
        (true, true) => Plan::Adopt(member.clone()),
        (true, false) => Plan::Refuse(Conflict::DataGone(member.clone())),
        (false, _) => Plan::Refuse(Conflict::NotProved(member.clone())),
    }
}

fn other_data(data: Data) -> Conflict {
    let of = match data {
        Data::Of(of) => Some((format!("{:x}", of.cluster_id), of.member.to_string())),
        Data::Empty | Data::NoLog | Data::Unknown => None,
    };
    Conflict::OtherData { of }
}

/// What is in a data directory, with `--root`.
pub(super) fn read_data(directory: &Path) -> io::Result<Data> {
    // A mount point has `lost+found`, which etcd does not mind.
    let member = directory.join(MEMBER_DIRECTORY);
    if !member.try_exists()? {
        return Ok(Data::Empty);
    }
    let mut logs: Vec<_> = match fs::read_dir(member.join("wal")) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Data::NoLog);
        }
        Err(error) => return Err(error),
    };
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    logs.sort();
    let Some(first) = logs.first() else { return Ok(Data::NoLog) };
    let mut head = Vec::new();
    fs::File::open(first)?.take(MAX_HEAD_BYTES).read_to_end(&mut head)?;
    Ok(identity(&head).map_or(Data::Unknown, Data::Of))
}

/// `walpb.Record` of etcd's server, storage/wal/walpb/record.proto.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, optional, tag = "1")]
    kind: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    data: Option<Vec<u8>>,
}

/// `etcdserverpb.Metadata`, the content of the metadata record.
#[derive(Clone, Copy, PartialEq, Message)]
struct Metadata {
    #[prost(uint64, optional, tag = "1")]
    node_id: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    cluster_id: Option<u64>,
}

/// The ids at the beginning of a log file, each of whose frames has eight bytes of length, little-endian, of which the
/// highest tells the padding (etcd's server, storage/wal/decoder.go).
fn identity(mut head: &[u8]) -> Option<Identity> {
    loop {
        let (length, rest) = head.split_first_chunk::<8>()?;
        let length = u64::from_le_bytes(*length);
        let padding = if length >> 63 == 1 { (length >> 56) & 7 } else { 0 };
        let bytes = usize::try_from(length & !(0xff << 56)).ok().filter(|bytes| *bytes > 0)?;
        let record = Record::decode(rest.get(..bytes)?).ok()?;
        if record.kind == Some(METADATA) {
            let metadata = Metadata::decode(&*record.data?).ok()?;
            return Some(Identity { cluster_id: metadata.cluster_id?, member: MemberId(metadata.node_id?) });
        }
        head = rest.get(bytes + usize::try_from(padding).ok()?..)?;
    }
}

#[cfg(test)]
mod tests;
