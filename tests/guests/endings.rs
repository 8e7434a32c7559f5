//! The ways a call can end, and that the next call is not touched by any.

use std::time::{Duration, Instant};

use mortise::plugin::{Answer, CheckResult, CheckStatus, Severity, Stage};

use crate::plugin::{Setup, guest};

/// Runs one misbehaving check beside one that passes; the first must have broken for this reason, in these words.
pub(crate) async fn breaks(setup: Setup, id: &str, reason: &str, words: &[&str]) -> CheckResult {
    let results = setup.only(&format!("{id},passes")).run(Stage::Node).await;
    let [passed, broken] = results.as_slice() else { panic!("{results:#?}") };
    assert_eq!(passed.status, CheckStatus::Passed, "the neighbour was touched: {passed:#?}");
    assert_eq!((broken.id.as_str(), broken.status), (id, CheckStatus::Failed));
    assert_eq!(broken.answer, Answer::Broke { reason: reason.into() }, "{broken:#?}");
    let message = &broken.findings[0].message;
    let place = format!("plugin `guest@1.2.3` broke in `mortise:preflight/check@0.1.0#run-check` for `{id}`: ");
    assert!(message.starts_with(&place), "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
    broken.clone()
}

#[tokio::test]
async fn a_check_that_passes_says_so() {
    let result = Setup::new(guest()).only("passes").run(Stage::Node).await;
    let [result] = result.as_slice() else { panic!("{result:#?}") };
    assert_eq!((result.id.as_str(), result.status), ("passes", CheckStatus::Passed));
    assert_eq!((&result.answer, result.plugin.as_str()), (&Answer::Report, "guest@1.2.3"));
}

#[tokio::test]
async fn a_finding_fails_the_check_unless_it_is_ignored_by_name() {
    let setup = Setup::new(guest()).only("finds");
    let found = setup.run(Stage::Node).await;
    assert_eq!((found[0].status, found[0].findings[0].severity), (CheckStatus::Failed, Severity::Error));
    let ignored = setup.ignoring("FINDS").run(Stage::Node).await;
    assert_eq!((ignored[0].status, ignored[0].ignored), (CheckStatus::Warned, true));
}

#[tokio::test]
async fn a_skip_and_an_inability_are_not_passes() {
    let results = Setup::new(guest()).only("skips,unable").run(Stage::Node).await;
    assert_eq!((results[0].status, results[0].skipped.as_deref()), (CheckStatus::Skipped, Some("does not apply")));
    assert_eq!((results[1].status, &results[1].answer), (CheckStatus::Failed, &Answer::Report));
    assert_eq!(results[1].findings[0].message, "the check could not be made: unavailable: no such device");
}

#[tokio::test]
async fn a_loop_is_stopped_by_its_deadline() {
    breaks(Setup::new(guest()), "loops", "deadline", &["stopped after 500 ms of computing"]).await;
}

#[tokio::test]
async fn a_sleep_is_stopped_by_its_deadline() {
    breaks(Setup::new(guest()), "sleeps", "deadline", &["stopped after 1500 ms of sleeping"]).await;
}

#[tokio::test]
async fn a_trap_is_an_error() {
    breaks(Setup::new(guest()), "traps", "trap", &["wasm trap", "unreachable"]).await;
}

#[tokio::test]
async fn a_panic_is_told_in_its_own_words() {
    breaks(Setup::new(guest()), "panics", "trap", &["the guest's own words"]).await;
}

#[tokio::test]
async fn memory_has_an_end() {
    let setup = Setup::new(guest());
    breaks(setup, "grows", "memory", &["bytes of memory; 67108864 are allowed"]).await;
}

#[tokio::test]
async fn recursion_has_an_end() {
    let broken = Setup::new(guest()).only("recurses").run(Stage::Node).await;
    assert_eq!(broken[0].answer, Answer::Broke { reason: "trap".into() }, "{broken:#?}");
}

#[tokio::test]
async fn an_answer_beyond_the_bounds_of_the_wit_is_no_answer() {
    let setup = Setup::new(guest());
    breaks(setup.clone(), "oversized", "oversized", &["300000 bytes; 4096 are allowed"]).await;
    breaks(setup, "many-findings", "oversized", &["300 findings; 256 are allowed"]).await;
}

#[tokio::test]
async fn a_flood_on_stderr_keeps_only_its_end() {
    breaks(Setup::new(guest()), "floods-stderr", "trap", &["after the flood"]).await;
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_the_check_goes_on() {
    let results = Setup::new(guest()).only("floods-log,passes").run(Stage::Node).await;
    assert_eq!((results[0].status, results[1].status), (CheckStatus::Passed, CheckStatus::Passed), "{results:#?}");
}

#[tokio::test]
async fn control_characters_do_not_reach_a_terminal() {
    let results = Setup::new(guest()).only("writes-terminal").run(Stage::Node).await;
    assert_eq!(results[0].findings[0].message, "\\u{1b}[2Jred");
}

#[tokio::test]
async fn requests_without_end_are_refused_and_then_the_deadline_comes() {
    let setup = Setup::new(guest()).manifest("grants: {facts: [swap]}\n").grant("facts=swap");
    let machine = setup.machine.clone();
    breaks(setup, "asks-forever", "deadline", &["computing"]).await;
    let asked = machine.asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!(asked <= 10_000, "{asked} requests");
}

#[tokio::test]
async fn a_list_that_loops_or_traps_fails_the_plugin_by_its_own_id() {
    for (kind, reason, words) in [("loop", "deadline", "500 ms"), ("trap", "trap", "no list today")] {
        let setup = Setup::new(guest()).setting("list", kind);
        let results = setup.run(Stage::Node).await;
        let [result] = results.as_slice() else { panic!("{results:#?}") };
        assert_eq!((result.id.as_str(), result.status), ("Plugin-guest", CheckStatus::Failed));
        assert_eq!(result.answer, Answer::Broke { reason: reason.into() });
        let message = &result.findings[0].message;
        assert!(
            message.contains("plugin `guest@1.2.3` broke in `mortise:preflight/check@0.1.0#list-checks`"),
            "{message}"
        );
        assert!(message.contains(words), "{message}");
        let ignored = setup.ignoring("plugin-guest").run(Stage::Node).await;
        assert_eq!(ignored[0].status, CheckStatus::Warned);
    }
}

#[tokio::test]
async fn a_malformed_check_id_fails_the_plugin() {
    let results = Setup::new(guest()).setting("list", "bad-id").run(Stage::Node).await;
    assert_eq!(results[0].answer, Answer::Broke { reason: "oversized".into() });
    assert!(results[0].findings[0].message.contains("check id `bad id`"), "{results:#?}");
}

#[tokio::test]
async fn each_stage_runs_its_own_checks_in_the_order_of_the_list() {
    let plugins = Setup::new(guest()).only("passes,cluster,finds,joined,skips").prepare().unwrap();
    let reporter = mortise::output::Reporter::new(mortise::output::Format::Text, false);
    for (stage, expected) in [
        (Stage::Node, &["passes", "finds", "skips"][..]),
        (Stage::Cluster, &["cluster"][..]),
        (Stage::Joined, &["joined"][..]),
    ] {
        let results = plugins.run_stage(stage, &Default::default(), &reporter).await;
        let ids: Vec<_> = results.iter().map(|result| result.id.as_str()).collect();
        assert_eq!(ids, expected);
    }
}

#[tokio::test]
async fn a_check_learns_its_join_and_its_settings_and_nothing_else() {
    let results = Setup::new(guest()).only("context,environment,network").run(Stage::Node).await;
    let seen: Vec<_> =
        results.iter().flat_map(|result| &result.evidence).map(|(name, value)| format!("{name}={value}")).collect();
    for expected in
        ["node-name=n1", "role=NodeRole::Worker", "endpoint-host=Some(\"10.0.0.1\")", "unknown=None", "variables=0"]
    {
        assert!(seen.iter().any(|it| it == expected), "{expected} is not in {seen:#?}");
    }
    for closed in ["file=Err", "tcp=Err", "udp=Err", "listen=Err"] {
        assert!(seen.iter().any(|it| it.starts_with(closed)), "{closed} is not in {seen:#?}");
    }
}

#[tokio::test]
async fn sleeping_checks_sleep_side_by_side() {
    let began = Instant::now();
    let results = Setup::new(guest()).only("sleeps,loops,passes").run(Stage::Node).await;
    assert_eq!(results[0].status, CheckStatus::Passed);
    assert!(results[0].took_ms < 2_000, "a loop held up its neighbour for {} ms", results[0].took_ms);
    assert!(began.elapsed() < Duration::from_secs(20));
}
