//! What a request to etcd can end with, told apart as far as etcd tells it.
//!
//! # What etcd 3.7.3 answers
//!
//! Measured by `tests/etcd/answers.rs` on one to three members with mutual TLS; the texts follow `etcdserver: `.
//!
//! | call | code, text |
//! | --- | --- |
//! | add again | FailedPrecondition "member ID already exist" in the same second, "Peer URLs already exists" later |
//! | add in the second in which it was removed | NotFound "member not found": an id is made of peer URL and second |
//! | second learner | FailedPrecondition "too many learner members in cluster" |
//! | add just after a promotion; with a voter down | Unavailable "unhealthy cluster" |
//! | promote, not started or behind | FailedPrecondition "can only promote a learner member which is in sync with leader" |
//! | promote a voter | FailedPrecondition "can only promote a learner member" |
//! | promote or remove an unknown one; remove again | NotFound "member not found" |
//! | remove the only voter | Unknown "re-configuration failed due to not enough started members" |
//! | anything but the status, asked of a learner | FailedPrecondition "rpc not supported for learner" |
//! | list without a quorum | no answer |
//! | status without a quorum | no leader, "etcdserver: no leader" among the errors |
//!
//! A change that was not answered, and one that etcd gave up waiting for, may still come true: both are
//! [`EtcdError::Unclear`], and whoever gets it looks the member up.

use std::time::Duration;

use thiserror::Error;
use tonic::{Code, Status};

use crate::api::{ApiError, TlsProblem, chain, quoted};
use crate::error::Diagnose;
use crate::node::NodeError;

/// Before every text of etcd's own.
const OWN: &str = "etcdserver: ";

/// What etcd refuses, and did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A member of this id is there: the same was added within the same second.
    MemberExists,
    /// A member has this peer URL.
    PeerUrlExists,
    /// As many learners as it takes are there.
    TooManyLearners,
    /// Not enough members have been connected for five seconds; also just after a promotion.
    Unhealthy,
    /// Too few members have started.
    NotEnoughStarted,
    /// The learner has less than nine tenths of the leader's log, or has not started.
    NotInSync,
    /// It votes already.
    NotALearner,
    /// No such member; one that was removed, too.
    MemberNotFound,
    /// The member that was asked is a learner, which answers nothing but its status.
    AskedALearner,
    /// It has no leader.
    NoLeader,
    /// The database has reached its quota.
    NoSpace,
    /// The peer URL is none.
    BadUrl,
    /// Anything else.
    Other {
        /// gRPC's.
        code: Code,
        /// Printable.
        message: String,
    },
}

impl Refusal {
    /// Whether the same request may succeed later although nobody mends anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::TooManyLearners | Self::Unhealthy | Self::NotInSync | Self::NoLeader | Self::AskedALearner => true,
            Self::Other { code, .. } => *code == Code::Unavailable,
            Self::MemberExists
            | Self::PeerUrlExists
            | Self::NotEnoughStarted
            | Self::NotALearner
            | Self::MemberNotFound
            | Self::NoSpace
            | Self::BadUrl => false,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::MemberExists => "a member with this id exists",
            Self::PeerUrlExists => "a member with this peer URL exists",
            Self::TooManyLearners => "there is a learner already",
            Self::Unhealthy => "too few of its members have been connected for 5 s",
            Self::NotEnoughStarted => "too few of its members have started",
            Self::NotInSync => "the learner is not in sync with the leader",
            Self::NotALearner => "the member is no learner",
            Self::MemberNotFound => "there is no such member",
            Self::AskedALearner => "it is a learner, which answers nothing but its status",
            Self::NoLeader => "it has no leader",
            Self::NoSpace => "its database has reached its quota",
            Self::BadUrl => "the peer URL is none",
            Self::Other { message, .. } => message,
        }
    }
}

/// Why a request to etcd has no useful answer.
#[derive(Debug, Error)]
pub enum EtcdError {
    /// The client certificate cannot be read.
    #[error("cannot read etcd's client certificate")]
    Files(#[from] NodeError),
    /// A file of the client certificate is not there.
    #[error("there is no `{path}`")]
    Missing {
        /// Without `--root`.
        path: String,
    },
    /// CA, certificate and key are not usable together.
    #[error("etcd's client certificate in `{directory}` is not usable")]
    Credentials {
        /// Without `--root`.
        directory: String,
        /// What is wrong.
        source: ApiError,
    },
    /// Nobody was named to ask.
    #[error("no etcd member is known to ask")]
    NoEndpoint,
    /// Nobody could be asked.
    #[error("no etcd member can be asked: {}", tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unreachable {
        /// Each member with its reason.
        tried: Vec<NoConnection>,
    },
    /// etcd refused, and did nothing.
    #[error("etcd at `{endpoint}` refuses `{call}`: {}", refusal.text())]
    Refused {
        /// For example `MemberAdd`.
        call: &'static str,
        /// Who refused.
        endpoint: String,
        /// Why.
        refusal: Refusal,
    },
    /// A question was not answered in time, or the connection broke. Nothing was changed by it.
    #[error("etcd at `{endpoint}` does not answer `{call}`: {reason}")]
    Unanswered {
        /// For example `MemberList`.
        call: &'static str,
        /// Who was asked.
        endpoint: String,
        /// What was seen.
        reason: String,
    },
    /// A change was asked for and not answered: it may have been made, or may yet be.
    #[error("etcd at `{endpoint}` did not say how `{call}` ended: {reason}")]
    Unclear {
        /// For example `MemberPromote`.
        call: &'static str,
        /// Who was asked.
        endpoint: String,
        /// What was seen.
        reason: String,
    },
    /// An answer that etcd does not give.
    #[error("etcd at `{endpoint}` answered `{call}` with {what}")]
    Malformed {
        /// For example `MemberAdd`.
        call: &'static str,
        /// Who answered.
        endpoint: String,
        /// What is wrong with it.
        what: String,
    },
}

/// A member that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{endpoint}`: {why}")]
pub struct NoConnection {
    /// Its client URL.
    pub endpoint: String,
    /// What was seen.
    pub why: Why,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Why {
    /// Not `https://host:port`.
    #[error("this is no client URL")]
    Url,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// Nothing came back in time.
    #[error("no connection within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// No agreement on TLS.
    #[error("{0}")]
    Tls(TlsProblem),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl EtcdError {
    /// Why etcd refused, if it did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// Whether the same may succeed later by itself.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.may_pass(),
            Self::Unreachable { .. } | Self::Unanswered { .. } | Self::Unclear { .. } => true,
            Self::Files(_)
            | Self::Missing { .. }
            | Self::Credentials { .. }
            | Self::NoEndpoint
            | Self::Malformed { .. } => false,
        }
    }
}

/// Whether a request that is not clearly answered can have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Question,
    Change,
}

/// What a failed call means.
pub(super) fn meaning(call: &'static str, kind: Kind, endpoint: &str, status: &Status) -> EtcdError {
    let endpoint = endpoint.to_owned();
    match refusal(status) {
        Some(refusal) => EtcdError::Refused { call, endpoint, refusal },
        None => {
            let reason = match std::error::Error::source(status) {
                Some(cause) => quoted(&chain(cause)),
                None => quoted(status.message().strip_prefix(OWN).unwrap_or(status.message())),
            };
            unanswered(call, kind, endpoint, reason)
        }
    }
}

pub(super) fn unanswered(call: &'static str, kind: Kind, endpoint: String, reason: String) -> EtcdError {
    match kind {
        Kind::Question => EtcdError::Unanswered { call, endpoint, reason },
        Kind::Change => EtcdError::Unclear { call, endpoint, reason },
    }
}

/// Why etcd refused; none: it did not say so, and the request may be under way.
fn refusal(status: &Status) -> Option<Refusal> {
    // The connection broke: what stands here is this side's own.
    if std::error::Error::source(status).is_some() {
        return None;
    }
    let message = status.message();
    Some(match message.strip_prefix(OWN).unwrap_or(message) {
        "member ID already exist" => Refusal::MemberExists,
        "Peer URLs already exists" => Refusal::PeerUrlExists,
        "too many learner members in cluster" => Refusal::TooManyLearners,
        "unhealthy cluster" => Refusal::Unhealthy,
        "re-configuration failed due to not enough started members" => Refusal::NotEnoughStarted,
        "can only promote a learner member which is in sync with leader" => Refusal::NotInSync,
        "can only promote a learner member" => Refusal::NotALearner,
        "member not found" => Refusal::MemberNotFound,
        "rpc not supported for learner" => Refusal::AskedALearner,
        "no leader" => Refusal::NoLeader,
        "mvcc: database space exceeded" => Refusal::NoSpace,
        "given member URLs are invalid" => Refusal::BadUrl,
        // It was proposed, and nobody knows whether it was agreed on.
        text if text.starts_with("request timed out") || matches!(text, "leader changed" | "server stopped") => {
            return None;
        }
        _ => match status.code() {
            Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal | Code::Aborted => return None,
            code => Refusal::Other { code, message: quoted(message) },
        },
    })
}

impl Diagnose for EtcdError {
    fn code(&self) -> &'static str {
        match self {
            Self::Files(error) => error.code(),
            Self::Missing { .. } => "etcd-certificate-missing",
            Self::Credentials { .. } => "etcd-certificate",
            Self::NoEndpoint => "etcd-no-endpoint",
            Self::Unreachable { .. } => "etcd-unreachable",
            Self::Refused { .. } => "etcd-refused",
            Self::Unanswered { .. } => "etcd-unanswered",
            Self::Unclear { .. } => "etcd-unclear",
            Self::Malformed { .. } => "etcd-malformed",
        }
    }

    fn hint(&self) -> Option<String> {
        let health = |endpoint: &str| {
            Some(format!(
                "`etcdctl --endpoints={endpoint} endpoint status --cluster -w table`, with the certificates of \
                 /etc/kubernetes/pki/etcd, shows its members"
            ))
        };
        match self {
            Self::Files(error) => error.hint(),
            Self::Missing { .. } | Self::Credentials { .. } => {
                Some("`mortise join phase control-plane-prepare certs` makes it from etcd's CA".into())
            }
            Self::NoEndpoint => {
                Some("`kubectl -n kube-system get pods -l component=etcd -o wide` lists etcd's Pods".into())
            }
            Self::Unreachable { tried } => {
                let certificate = tried.iter().any(|tried| matches!(tried.why, Why::Tls(_)));
                Some(if certificate {
                    "`openssl verify -CAfile /etc/kubernetes/pki/etcd/ca.crt /etc/kubernetes/pki/etcd/server.crt` on a \
                     member's node compares its certificate with the CA"
                        .into()
                } else {
                    "port 2379 of the control planes has to be open to this machine; `crictl ps --name etcd` on a \
                     member's node shows whether it runs"
                        .into()
                })
            }
            Self::Refused { endpoint, .. } | Self::Unanswered { endpoint, .. } | Self::Malformed { endpoint, .. } => {
                health(endpoint)
            }
            Self::Unclear { .. } => Some("run the same command again: it looks up what came of it".into()),
        }
    }
}

#[cfg(test)]
mod tests;
