//! Host functions under way when nobody waits for them any more: the stage is dropped, or the runner dies. The host stops
//! the work, ends what it started, closes what it opened, and the next call is right.
//!
//! What has nothing to stop: `context`, `settings`, `log`, `csr` and WASI are answered inside the runner, which is killed;
//! a secret is read from a regular file in one go, and where it stands in no regular file the read is refused.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mortise::config::IgnoredChecks;
use mortise::output::{Format, Reporter};
use mortise::plugin::{Answer, CheckStatus, Stage};

use crate::commands::sleepers;
use crate::machine::Machine;
use crate::network::{ScriptedNetwork, Server, answers, calling, passing};
use crate::plugin::{Setup, guest};
use crate::standin::{CONFINED, LIST, READY, frame, stand_in};
use crate::walls::wait_for;

const DEADLINE: Duration = Duration::from_secs(60);
const PUBLIC: &str = "93.184.215.14:443";

/// Where the work shows that a request makes.
enum Work {
    Machine,
    Network,
    Server(Server),
    /// Processes with this argument.
    Process(String),
}

/// A host function that does not end by itself.
struct Case {
    name: &'static str,
    /// As the guest's check `calls` reads it.
    words: Vec<String>,
    /// As a runner says it.
    ask: serde_json::Value,
    grants: String,
    work: Work,
}

impl Case {
    fn count(&self, machine: &Machine) -> usize {
        match &self.work {
            Work::Machine => machine.gauge.waiting(),
            Work::Network => machine.network.gauge.waiting(),
            Work::Server(server) => server.accepted.load(Ordering::SeqCst) - server.closed.load(Ordering::SeqCst),
            Work::Process(mark) => sleepers(mark).len(),
        }
    }

    /// The guest on a machine that keeps it waiting, and a secret's file.
    fn setup(&self, secret: &Path) -> Setup {
        let mut setup = Setup::new(guest()).granted(&self.grants).secret("licence", secret);
        let network = ScriptedNetwork {
            silent: vec!["silent.example".into()],
            dead: Some(PUBLIC.parse().unwrap()),
            ..ScriptedNetwork::default()
        };
        setup.machine = Arc::new(Machine { network, slow: true, runs: true, ..Machine::default() });
        setup.setting("calls", &(self.words.join("\u{1f}") + "\u{1e}"))
    }

    async fn wait_until(&self, machine: &Machine, begun: bool) {
        let what = format!("{} of {}", if begun { "beginning" } else { "end" }, self.name);
        // An end must come before the request's own: 50 s of a command, 5 s of a probe.
        let ending = Duration::from_secs(if matches!(self.work, Work::Process(_)) { 20 } else { 4 });
        let deadline = if begun { DEADLINE } else { ending };
        wait_for(&what, deadline, || ((self.count(machine) > 0) == begun).then_some(())).await;
    }
}

/// One for each function of the host that can take long. `name` tells apart what runs side by side.
async fn cases(name: &str) -> Vec<Case> {
    let case = |name, words: &[&str], ask, grants: String, work| Case {
        name,
        words: words.iter().map(|it| (*it).to_owned()).collect(),
        ask,
        grants,
        work,
    };
    let (fetched, probed) = (Server::start().await, Server::start().await);
    let (url, port) = (fetched.url("/silent"), probed.address.port());
    let fetch = serde_json::json!({"fetch": {"method": "GET", "url": url, "headers": [], "body": "",
        "timeout_ms": 50_000}});
    let mark = |offset: u32| (name.len() as u32 * 1_000_000 + offset + std::process::id()).to_string();
    let (plain, secret) = (mark(300_000), mark(400_000));
    let run = |argument: &str, secret: Option<&str>| serde_json::json!({"run": {"program": "/bin/sleep", "arguments": [argument], "secret": secret}});
    vec![
        case(
            "a fact",
            &["swap"],
            serde_json::json!({"fact": {"fact": "swap"}}),
            "{facts: [swap]}".into(),
            Work::Machine,
        ),
        case(
            "stat",
            &["stat", "/etc/hostname"],
            serde_json::json!({"stat": "/etc/hostname"}),
            "{files: [{path: /etc/hostname, access: stat}]}".into(),
            Work::Machine,
        ),
        case(
            "read",
            &["read", "/etc/hostname"],
            serde_json::json!({"read": "/etc/hostname"}),
            "{files: [{path: /etc/hostname}]}".into(),
            Work::Machine,
        ),
        case(
            "run",
            &["exec", "/bin/sleep", &plain],
            run(&plain, None),
            format!("{{commands: [{{program: /bin/sleep, args: ['{plain}'], timeout: 50s}}]}}"),
            Work::Process(plain.clone()),
        ),
        case(
            "run-with-secret",
            &["run", "licence", "/bin/sleep", "{secret}"],
            run("{secret}", Some("licence")),
            "{commands: [{program: /bin/sleep, args: ['{secret}'], timeout: 50s}], \
             secrets: [{name: licence, argv: [/bin/sleep, '{secret}']}]}"
                .into(),
            Work::Process(secret),
        ),
        case(
            "fetch",
            &["fetch", "GET", &url, "t50000"],
            fetch,
            format!("{{http: [{{url: '{url}'}}]}}"),
            Work::Server(fetched),
        ),
        case(
            "tcp",
            &["tcp", "93.184.215.14", "443"],
            serde_json::json!({"probe": {"tcp": {"host": "93.184.215.14", "port": 443}}}),
            format!("{{probe: [{{tcp: '{PUBLIC}'}}]}}"),
            Work::Network,
        ),
        case(
            "tls",
            &["tls", "127.0.0.1", &port.to_string()],
            serde_json::json!({"probe": {"tls": {"host": "127.0.0.1", "port": port}}}),
            format!("{{probe: [{{tls: '127.0.0.1:{port}'}}]}}"),
            Work::Server(probed),
        ),
        case(
            "dns",
            &["dns", "silent.example"],
            serde_json::json!({"probe": {"dns": {"name": "silent.example"}}}),
            "{probe: [{dns: silent.example}]}".into(),
            Work::Network,
        ),
    ]
}

/// What stands for the secret: the time a sleep is to take.
fn secret_of(case: &Case) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let value = if let Work::Process(mark) = &case.work { mark } else { "unused" };
    std::fs::write(file.path(), value).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_with_its_stage_and_the_next_stage_is_right() {
    for case in cases("stage").await {
        let secret = secret_of(&case);
        let setup = case.setup(secret.path()).only("calls,joined");
        let plugins = setup.prepare().unwrap_or_else(|error| panic!("{error}"));
        let (ignore, reporter) = (IgnoredChecks::default(), Reporter::new(Format::Text, false));
        tokio::select! {
            results = plugins.run_stage(Stage::Node, &ignore, &reporter) => panic!("{}: {results:#?}", case.name),
            () = case.wait_until(&setup.machine, true) => {}
        }
        case.wait_until(&setup.machine, false).await;
        let next = plugins.run_stage(Stage::Joined, &ignore, &reporter).await;
        assert_eq!((next.len(), next[0].status), (1, CheckStatus::Passed), "after {}: {next:#?}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_with_the_runner_that_asked() {
    for case in cases("runner").await {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let ask = serde_json::json!({"ask": {"call": 2, "ask": case.ask}}).to_string();
        let said = [CONFINED, READY, LIST, ask.as_str()].map(frame);
        let said: Vec<&[u8]> = said.iter().map(Vec::as_slice).collect();
        let then = format!(
            "exec 3<&0; cat <&3 >/dev/null & reader=$!; while [ ! -e {} ]; do sleep 0.05; done; kill -9 $reader $$",
            mark.display()
        );
        let secret = secret_of(&case);
        let dying = stand_in(&format!("dies-{}", case.name.replace(' ', "-")), &said, &then);
        let setup = case.setup(secret.path()).launcher(dying);
        let kill = async {
            case.wait_until(&setup.machine, true).await;
            File::create(&mark).unwrap();
        };
        let (results, ()) = tokio::join!(setup.run(Stage::Node), kill);
        assert_eq!(results[0].answer, Answer::Broke { reason: "crash".into() }, "{}: {results:#?}", case.name);
        case.wait_until(&setup.machine, false).await;
    }
    passing(calling(&[]).granted("{facts: [swap]}")).await;
}

/// The time of the host for one call is 60 s; so long this test takes, doing nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_does_not_answer_is_a_timeout_and_the_check_goes_on() {
    let one = async |case: Case| {
        let secret = secret_of(&case);
        let words = [case.words.clone(), vec!["host-time".into()], case.words.clone()];
        let calls: String = words[..].iter().map(|words| words.join("\u{1f}") + "\u{1e}").collect();
        let setup = case.setup(secret.path()).setting("calls", &calls).only("calls,passes");
        let results = setup.run(Stage::Node).await;
        assert_eq!(results[0].status, CheckStatus::Passed, "the neighbour of {}: {results:#?}", case.name);
        let seen: Vec<_> = results[1].evidence.iter().map(|(_, answer)| answer.as_str()).collect();
        let [first, left, again] = seen.as_slice() else { panic!("{}: {results:#?}", case.name) };
        assert!(first.starts_with("timeout") && again.starts_with("timeout"), "{}: {seen:?}", case.name);
        assert!(first.contains(" 60 s"), "{}: {seen:?}", case.name);
        assert!(left.parse::<u64>().unwrap() < 2_000, "{}: {seen:?}", case.name);
        assert_eq!((results[1].status, &results[1].answer), (CheckStatus::Passed, &Answer::Report), "{results:#?}");
        assert_eq!(case.count(&setup.machine), 0, "{} is still under way", case.name);
    };
    let cases = cases("time").await.into_iter().filter(|case| matches!(case.work, Work::Machine));
    futures::future::join_all(cases.map(one)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_beyond_its_time_or_output_is_ended_with_its_secret() {
    let (mark, hidden) = ((5_000_000 + std::process::id()).to_string(), (6_000_000 + std::process::id()).to_string());
    let calls: [&[&str]; 4] = [
        &["exec", "/bin/sleep", &mark],
        &["run", "licence", "/bin/sleep", "{secret}"],
        &["exec", "/usr/bin/yes", "noise"],
        &["run", "licence", "/usr/bin/yes", "{secret}"],
    ];
    let grants = format!(
        "{{facts: [swap], commands: [{{program: /bin/sleep, args: ['{mark}'], timeout: 300ms}}, \
         {{program: /bin/sleep, args: ['{{secret}}'], timeout: 300ms}}, \
         {{program: /usr/bin/yes, args: [noise], max-output: 4Ki}}, \
         {{program: /usr/bin/yes, args: ['{{secret}}'], max-output: 4Ki}}], \
         secrets: [{{name: licence, argv: [/bin/sleep, '{{secret}}']}}, \
         {{name: licence, argv: [/usr/bin/yes, '{{secret}}']}}]}}"
    );
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), &hidden).unwrap();
    let mut setup = calling(&calls).granted(&grants).secret("licence", secret.path());
    setup.machine = Arc::new(Machine { runs: true, ..Machine::default() });
    let result = passing(setup).await;
    let seen = answers(&result);
    for (answer, begins) in
        seen.iter().zip(["timeout (retryable): ", "timeout (retryable): ", "too-large", "too-large"])
    {
        assert!(answer.starts_with(begins), "{seen:?}");
    }
    assert!(!format!("{result:?}").contains(&hidden), "{result:#?}");
    assert_eq!([sleepers(&mark), sleepers(&hidden)], [Vec::<PathBuf>::new(), Vec::new()]);
}

/// Whatever would read it waits for a writer who never comes.
#[tokio::test]
async fn a_secret_in_a_fifo_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let server = Server::start().await;
    let url = server.url("/");
    let calls: [&[&str]; 3] = [
        &["reveal", "seed"],
        &["run", "seed", "/bin/echo", "{secret}"],
        &["fetch", "GET", &url, "sauthorization:seed:"],
    ];
    let grants = format!(
        "{{facts: [swap], http: [{{url: '{url}'}}], commands: [{{program: /bin/echo, args: ['{{secret}}']}}], secrets: \
         [{{name: seed, reveal: true}}, {{name: seed, argv: [/bin/echo, '{{secret}}']}}, \
         {{name: seed, url: '{url}', header: authorization}}]}}"
    );
    let result = passing(calling(&calls).granted(&grants).secret("seed", &fifo)).await;
    for answer in answers(&result) {
        assert!(answer.starts_with("unavailable: ") && answer.contains("no regular file"), "{answer}");
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 0);
}
