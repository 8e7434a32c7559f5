use super::*;

fn said(code: Code, text: &str) -> EtcdError {
    meaning("MemberPromote", Kind::Change, "https://192.0.2.11:2379", &Status::new(code, text))
}

/// Code and text as etcd 3.7.3 sends them: `tests/etcd/answers.rs` sees the same.
#[test]
fn knows_each_refusal_by_its_text() {
    let table = [
        (Code::FailedPrecondition, "member ID already exist", Refusal::MemberExists, false),
        (Code::FailedPrecondition, "Peer URLs already exists", Refusal::PeerUrlExists, false),
        (Code::FailedPrecondition, "too many learner members in cluster", Refusal::TooManyLearners, true),
        (Code::Unavailable, "unhealthy cluster", Refusal::Unhealthy, true),
        (
            Code::FailedPrecondition,
            "can only promote a learner member which is in sync with leader",
            Refusal::NotInSync,
            true,
        ),
        (Code::FailedPrecondition, "can only promote a learner member", Refusal::NotALearner, false),
        (Code::NotFound, "member not found", Refusal::MemberNotFound, false),
        (Code::FailedPrecondition, "rpc not supported for learner", Refusal::AskedALearner, true),
        // etcd before 3.7.
        (Code::Unavailable, "rpc not supported for learner", Refusal::AskedALearner, true),
        (Code::ResourceExhausted, "mvcc: database space exceeded", Refusal::NoSpace, false),
    ];
    for (code, text, refusal, may_pass) in table {
        let error = said(code, &format!("etcdserver: {text}"));
        assert_eq!(error.refusal(), Some(&refusal), "{text}");
        assert_eq!(error.may_pass(), may_pass, "{text}");
    }
}

#[test]
fn does_not_take_a_change_that_etcd_gave_up_on_for_refused() {
    for (code, text) in [
        (Code::Unavailable, "etcdserver: request timed out"),
        (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
        (Code::Unavailable, "etcdserver: request timed out, waiting for the applied index took too long"),
        (Code::Unavailable, "etcdserver: leader changed"),
        (Code::Unavailable, "etcdserver: server stopped"),
        (Code::DeadlineExceeded, "context deadline exceeded"),
        (Code::Cancelled, "Timeout expired"),
        (Code::Unknown, "stream closed"),
    ] {
        let error = said(code, text);
        assert!(matches!(error, EtcdError::Unclear { .. }), "{text}: {error:?}");
        assert!(error.may_pass());
    }
}

#[test]
fn does_not_believe_a_code_of_its_own_side() {
    let mut status = Status::new(Code::NotFound, "etcdserver: member not found");
    status.set_source(std::sync::Arc::new(std::io::Error::other("connection reset")));
    let error = meaning("MemberRemove", Kind::Change, "https://192.0.2.11:2379", &status);
    assert!(matches!(&error, EtcdError::Unclear { reason, .. } if reason == "connection reset"), "{error:?}");
    let question = meaning("MemberList", Kind::Question, "https://192.0.2.11:2379", &status);
    assert!(matches!(question, EtcdError::Unanswered { .. }), "{question:?}");
}

#[test]
fn control_characters_of_a_server_do_not_reach_the_terminal() {
    let error = said(Code::PermissionDenied, "etcdserver: \u{1b}[2Jno");
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}
