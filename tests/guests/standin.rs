//! A native program in the runner's place, as if a guest had taken the runner over: whatever it says or does not say, the
//! host goes on, and no check passes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mortise::plugin::policy::Policy;
use mortise::plugin::walls::WallName;
use mortise::plugin::{Answer, CheckResult, CheckStatus, Stage};

use crate::plugin::{Setup, guest};

/// What precedes all that these programs say: without it there is no runner.
pub(crate) const CONFINED: &str = r#"{"confined":{"pid":null,"walls":{}}}"#;
pub(crate) const READY: &str = r#"{"ready":{"native_bytes":0}}"#;
pub(crate) const LIST: &str =
    r#"{"done":{"call":1,"outcome":{"checks":[{"id":"a","title":"t","stage":"node","severity":"error"}]}}}"#;

/// Reads whatever the host sends, so that it never waits.
const DRAIN: &str = "exec 3<&0; cat <&3 >/dev/null &";

/// A shell script that is the compiler when asked to be, and says these bytes when it is the runner.
pub(crate) fn stand_in(name: &str, said: &[&[u8]], then: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("standin");
    std::fs::create_dir_all(&directory).unwrap();
    let (script, data) = (directory.join(name), directory.join(format!("{name}.bytes")));
    std::fs::write(&data, said.concat()).unwrap();
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" != __runner ]; then exec {} \"$@\"; fi\ncat {} >&0\n{then}\n",
        env!("CARGO_BIN_EXE_mortise"),
        data.display()
    );
    executable(&script, &text);
    script
}

/// Writes a program. A process of its own has it open: a child that another test's thread forked meanwhile would hold it
/// open as well, and the kernel runs nothing that somebody may write (`ETXTBSY`).
pub(crate) fn executable(path: &Path, text: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", r#"cat >"$1" && chmod 755 "$1""#, "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

pub(crate) fn frame(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

async fn against(name: &str, said: &[&str], then: &str) -> Vec<CheckResult> {
    let frames: Vec<Vec<u8>> = std::iter::once(&CONFINED).chain(said).map(|text| frame(text)).collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    Setup::new(guest()).launcher(stand_in(name, &frames, then)).run(Stage::Node).await
}

/// One result, an error, with these words.
fn one_error<'a>(results: &'a [CheckResult], words: &str) -> &'a CheckResult {
    let [result] = results else { panic!("{results:#?}") };
    assert_eq!(result.status, CheckStatus::Failed, "{result:#?}");
    assert!(result.findings[0].message.contains(words), "`{words}` is not in {result:#?}");
    result
}

#[tokio::test]
async fn garbage_instead_of_a_greeting_is_a_failure_of_the_host() {
    let script = stand_in("garbage", &[&[0xff; 4096]], &format!("{DRAIN} exec sleep 60"));
    let results = Setup::new(guest()).launcher(script).run(Stage::Node).await;
    assert_eq!(one_error(&results, "a frame of 4294967295 bytes").answer, Answer::HostFailed);
}

#[tokio::test]
async fn a_greeting_names_a_child_of_the_host_or_nobody() {
    for (name, pid, words) in
        [("init", "1", "No child processes"), ("negative", "-7", "number -7"), ("none", "0", "number 0")]
    {
        let said = frame(&CONFINED.replace("null", pid));
        let results = Setup::new(guest())
            .launcher(stand_in(name, &[&said], &format!("{DRAIN} exec sleep 60")))
            .run(Stage::Node)
            .await;
        assert_eq!(one_error(&results, words).answer, Answer::HostFailed);
    }
}

#[tokio::test]
async fn a_greeting_with_another_wall_or_field_is_malformed() {
    for (name, said) in [
        ("wall", r#"{"confined":{"pid":null,"walls":{"moat":{"state":"up"}}}}"#),
        ("state", r#"{"confined":{"pid":null,"walls":{"uid":{"state":"up","height":3}}}}"#),
        ("field", r#"{"confined":{"pid":null,"walls":{},"user":0}}"#),
    ] {
        let said = frame(said);
        let results = Setup::new(guest())
            .launcher(stand_in(name, &[&said], &format!("{DRAIN} exec sleep 60")))
            .run(Stage::Node)
            .await;
        assert_eq!(one_error(&results, "malformed frame").answer, Answer::HostFailed);
    }
}

#[tokio::test]
async fn a_wall_that_policy_demands_and_nobody_put_up_stops_the_runner() {
    let policy = Policy {
        path: "/etc/mortise/policy.yaml".into(),
        require_walls: vec![WallName::Landlock],
        ..Policy::default()
    };
    let program = stand_in("bare", &[&frame(CONFINED)], &format!("{DRAIN} exec sleep 60"));
    let results = Setup::new(guest()).launcher(program).policy(policy).run(Stage::Node).await;
    let result = one_error(&results, "`/etc/mortise/policy.yaml` demands walls that are missing here: `landlock`");
    assert_eq!(result.answer, Answer::HostFailed);
}

#[tokio::test]
async fn a_runner_that_ends_at_once_is_a_failure_of_the_host() {
    let results = against("ends", &[], "exit 7").await;
    assert_eq!(one_error(&results, "it exited with 7").answer, Answer::HostFailed);
}

#[tokio::test]
async fn frames_that_the_protocol_does_not_allow_end_the_runner() {
    let log = r#"{"log":{"call":1,"level":"info","message":"x"}}"#;
    let ask = r#"{"ask":{"call":1,"ask":{"fact":{"fact":"swap"}}}}"#;
    let of_another = r#"{"ask":{"call":77,"ask":{"fact":{"fact":"swap"}}}}"#;
    let ended = r#"{"done":{"call":9,"outcome":{"broke":{"reason":"x","message":"y"}}}}"#;
    let many: Vec<&str> = std::iter::once(READY).chain(std::iter::repeat_n(log, 1500)).collect();
    for (name, said, words) in [
        ("no-json", vec![READY, "{"], "malformed frame"),
        (
            "unknown-field",
            vec![READY, r#"{"done":{"call":1,"grants":["all"],"outcome":{"checks":[]}}}"#],
            "malformed frame",
        ),
        ("unknown-kind", vec![READY, r#"{"grant":{}}"#], "malformed frame"),
        ("another-call", vec![READY, of_another], "asked for a call that is not open"),
        ("ended-twice", vec![READY, ended], "ended a call that is not open"),
        ("many-at-once", std::iter::once(READY).chain([ask; 64]).collect(), "asked too much"),
        ("flood", many, "logged too much"),
        ("started-twice", vec![READY, READY], "started twice"),
    ] {
        let results = against(name, &said, &format!("{DRAIN} exec sleep 60")).await;
        let result = one_error(&results, words);
        assert_eq!(result.answer, Answer::Broke { reason: "protocol".into() }, "{name}");
        assert_eq!(result.id, "Plugin-guest");
    }
}

#[tokio::test]
async fn an_oversized_answer_is_seen_by_the_host_itself() {
    let report = |message: &str| {
        format!(
            r#"{{"done":{{"call":2,"outcome":{{"report":{{"skipped":null,"findings":[{{"severity":"warning","message":"{message}","evidence":[],"remedy":null,"extra":[]}}],"evidence":[],"extra":[]}}}}}}}}"#
        )
    };
    let results = against("honest", &[READY, LIST, &report("fine")], &format!("{DRAIN} exec sleep 60")).await;
    // Said before it was called, yet in the order of calls: a stand-in can guess.
    assert!(results.iter().all(|result| result.status != CheckStatus::Passed), "{results:#?}");
    let results =
        against("oversized", &[READY, LIST, &report(&"x".repeat(5000))], &format!("{DRAIN} exec sleep 60")).await;
    assert!(results.iter().all(|result| result.status == CheckStatus::Failed), "{results:#?}");
}

#[tokio::test]
async fn a_silent_runner_is_killed_at_the_deadline() {
    let results = against("silent", &[READY], &format!("{DRAIN} exec sleep 60")).await;
    let result = one_error(&results, "ms of silence");
    assert_eq!(result.answer, Answer::Broke { reason: "deadline".into() });
}

#[tokio::test]
async fn a_crash_between_list_and_checks_breaks_every_check() {
    let results = against("crashes", &[READY, LIST], "kill -9 $$").await;
    let result = one_error(&results, "the runner is gone: it was ended by signal 9");
    assert_eq!(result.answer, Answer::Broke { reason: "crash".into() });
}
