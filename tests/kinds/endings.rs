//! Sources and hooks that said no, that broke, that were denied, and a host that failed: never mistaken for another, and
//! never for an approval.

use std::sync::OnceLock;
use std::time::Duration;

use mortise::error::{Diagnose, ExitCode};
use mortise::plugin::{AskError, EndingKind, FoundSecret, FoundTrust, Verdict};

use crate::built::built;
use crate::plugin::{Setup, embedded, reporter};

const MANIFEST: &str = "schema: mortise.dev/plugin/v1alpha1\nid: test.guest\nversion: 1.2.3\nkind: approval\n\
                        limits: {time: 1s, memory: 16Mi}\n";

pub(crate) fn guest() -> &'static [u8] {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST.get_or_init(|| embedded(&built("mortise-test-kinds-guest"), MANIFEST))
}

fn that(action: &str) -> Setup {
    Setup::new(guest()).setting("do", action)
}

/// Each way to end that is no answer: what the guest does, the ending, its reason, words of its message.
const NO_ANSWER: [(&str, EndingKind, &str, &str); 7] = [
    ("error", EndingKind::Refused, "", "said: not-here: no cluster\\nfor me"),
    ("trap", EndingKind::Broke, "trap", "wasm `unreachable` instruction executed"),
    ("panic", EndingKind::Broke, "trap", "the guest's own words"),
    ("loop", EndingKind::Broke, "deadline", "stopped after 1000 ms"),
    ("grow", EndingKind::Broke, "memory", "bytes of memory"),
    ("denied", EndingKind::Denied, "", "facts: [kernel]"),
    ("nonsense", EndingKind::Broke, "", ""),
];

fn reason(error: &AskError) -> &str {
    match error {
        AskError::Broke { reason, .. } => reason,
        _ => "",
    }
}

#[tokio::test]
async fn a_source_that_does_not_answer_says_why() {
    for (action, ending, why, words) in NO_ANSWER {
        let asked = that(action).prepare().unwrap().discover("guest", &reporter()).await.unwrap();
        assert_eq!((asked.ending(), asked.plugin.as_str()), (ending, "guest@1.2.3"), "{action}: {:?}", asked.answer);
        let error = asked.answer.unwrap_err();
        assert!(why.is_empty() || reason(&error) == why, "{action}: {error:?}");
        assert!(error.to_string().contains(words), "{action}: {error}");
        assert!(error.to_string().contains("guest@1.2.3"), "{error}");
        assert_eq!(error.exit_code(), ExitCode::Failed);
    }
    for (action, why, words) in [
        ("nonsense", "malformed", "leave out the `https://`"),
        ("expired", "malformed", "the credential expired"),
        ("too-many", "oversized", "17 endpoints; 1 to 16 are allowed"),
    ] {
        let asked = that(action).prepare().unwrap().discover("guest", &reporter()).await.unwrap();
        let error = asked.answer.unwrap_err();
        assert_eq!(reason(&error), why, "{error}");
        assert!(error.to_string().contains("broke in `mortise:discovery/source@0.1.0#discover`"), "{error}");
        assert!(error.to_string().contains(words) && !error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_source_that_answers_is_taken_apart_and_its_secret_shown_to_nobody() {
    let asked = that("answer").prepare().unwrap().discover("guest", &reporter()).await.unwrap();
    assert_eq!((asked.ending(), asked.denied), (EndingKind::Answered, 0));
    let cluster = asked.answer.unwrap();
    assert_eq!(cluster.endpoints[0].to_string(), "10.0.0.1:6443");
    assert!(matches!(&cluster.trust, FoundTrust::Pins(pins) if pins.len() == 1));
    assert!(matches!(cluster.credential.as_ref().unwrap().secret, FoundSecret::BearerToken(_)));
    let shown = serde_json::to_string(&cluster.shown()).unwrap() + &cluster.shown().lines().join("\n");
    assert!(!shown.contains("hunter2") && !format!("{cluster:?}").contains("hunter2"), "{shown}");
    assert!(shown.contains("bearer token") && shown.contains("blue") && !shown.contains('\u{1b}'), "{shown}");
}

#[tokio::test]
async fn nothing_but_a_whole_verdict_approves() {
    for (action, ending, why, words) in NO_ANSWER {
        let asked = that(action).prepare().unwrap().review("guest", None, &reporter()).await.unwrap();
        assert_eq!(asked.ending(), ending, "{action}: {:?}", asked.answer);
        let error = asked.answer.unwrap_err();
        assert!(why.is_empty() || reason(&error) == why, "{action}: {error:?}");
        assert!(error.to_string().contains(words), "{action}: {error}");
    }
    for (action, words) in
        [("nonsense", "the reason `No Reason`"), ("defer-forever", "a wait of 86400 s; 1 to 3600 are allowed")]
    {
        let asked = that(action).prepare().unwrap().review("guest", None, &reporter()).await.unwrap();
        let error = asked.answer.unwrap_err();
        assert_eq!(reason(&error), "oversized", "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn each_verdict_arrives_with_its_reason() {
    for (action, verdict, retry) in [
        ("answer", Verdict::Approve, None),
        ("deny", Verdict::Deny, None),
        ("abstain", Verdict::Abstain, None),
        ("defer", Verdict::Defer, Some(Duration::from_secs(60))),
    ] {
        let asked = that(action).prepare().unwrap().review("guest", None, &reporter()).await.unwrap();
        let judgement = asked.answer.unwrap();
        assert_eq!((judgement.verdict, judgement.retry_after), (verdict, retry));
        assert_eq!((judgement.reason.as_str(), judgement.message.as_str()), ("as-set", "the settings\\u{1b} say so"));
        assert_eq!(judgement.evidence, [("do".to_owned(), action.to_owned())]);
    }
}

#[tokio::test]
async fn a_denial_voids_an_approval_and_leaves_a_refusal_alone() {
    let approving = that("denied").prepare().unwrap().review("guest", None, &reporter()).await.unwrap();
    assert_eq!((approving.ending(), approving.denied), (EndingKind::Denied, 1));
    assert_eq!(approving.missing_grants, ["facts: [kernel]"]);
    let denying = that("denied-deny").prepare().unwrap().review("guest", None, &reporter()).await.unwrap();
    assert_eq!((denying.answer.unwrap().verdict, denying.denied), (Verdict::Deny, 1));
    let optional = format!("{MANIFEST}grants:\n  facts: [{{name: kernel, optional: true, reason: for show}}]\n");
    let setup = Setup::new(&embedded(&built("mortise-test-kinds-guest"), &optional)).setting("do", "denied");
    let without = setup.prepare().unwrap().review("guest", None, &reporter()).await.unwrap();
    assert_eq!((without.answer.unwrap().verdict, without.denied), (Verdict::Approve, 1));
    let granted = setup.grant("facts=kernel").prepare().unwrap().review("guest", None, &reporter()).await.unwrap();
    assert_eq!((granted.answer.unwrap().verdict, granted.denied), (Verdict::Approve, 0));
}

#[tokio::test]
async fn a_host_that_cannot_start_a_runner_blames_itself() {
    let setup = that("answer").launched_by("/nonexistent");
    let plugins = setup.prepare().unwrap();
    let found = plugins.discover("guest", &reporter()).await.unwrap();
    assert_eq!(found.ending(), EndingKind::HostFailed);
    let judged = plugins.review("guest", None, &reporter()).await.unwrap();
    assert_eq!(judged.ending(), EndingKind::HostFailed);
    let error = judged.answer.unwrap_err();
    assert!(error.to_string().starts_with("plugin `guest@1.2.3` could not be asked"), "{error}");
}
