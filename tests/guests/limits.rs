//! Each number of `host/src/plugin/limits.rs` that no other file here meets: beyond it a call breaks, or is refused, and
//! says the number; within it nothing happens. A limit that is lifted fails a test.
//!
//! Elsewhere: memory, recursion, results and deadlines in `endings`, one table in `unfit`, requests and probes in `http` and
//! `probe`, secrets in `secrets`, the host's time in `cancelled`, what a native program meets in `native`.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mortise::plugin::{Answer, CheckStatus, Stage};

use crate::endings::breaks;
use crate::machine::Machine;
use crate::network::{ScriptedNetwork, Server, answers, calling, on, passing};
use crate::plugin::{Setup, guest, leb128};
use crate::standin::{CONFINED, executable, frame, stand_in};
use crate::unfit::wat;

/// The guest with a core module of this text in it, instantiated so often beside its own.
fn beside(module: &str, count: u8) -> Vec<u8> {
    let modules = wasmparser::Parser::new(0).parse_all(guest()).filter_map(Result::ok);
    let mut depth = 0;
    let mut own = 0_u8;
    for payload in modules {
        match payload {
            wasmparser::Payload::ModuleSection { .. } => {
                own += u8::from(depth == 0);
                depth += 1;
            }
            wasmparser::Payload::ComponentSection { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            _ => {}
        }
    }
    assert!(own < 128 && count < 128, "one byte each");
    let module = wat(module);
    let mut whole = guest().to_vec();
    let section = |whole: &mut Vec<u8>, id: u8, body: &[u8]| {
        whole.push(id);
        whole.extend(leb128(body.len()));
        whole.extend(body);
    };
    section(&mut whole, 1, &module);
    // Each: instantiate, which module, no arguments.
    let instances: Vec<u8> = std::iter::once(count).chain((0..count).flat_map(|_| [0, own, 0])).collect();
    section(&mut whole, 2, &instances);
    whole
}

#[tokio::test]
async fn instances_memories_and_tables_have_a_number() {
    for (module, within, beyond, words) in [
        ("(module)", 20, 64, "instance count too high at 65"),
        ("(module (memory 1))", 3, 4, "memory count too high at 5"),
        ("(module (table 1 funcref))", 2, 8, "table count too high at 9"),
    ] {
        let honest = Setup::new(&beside(module, within)).only("passes").run(Stage::Node).await;
        assert_eq!(honest[0].status, CheckStatus::Passed, "{within} of {module}: {honest:#?}");
        let greedy = Setup::new(&beside(module, beyond)).only("passes").run(Stage::Node).await;
        assert!(matches!(greedy[0].answer, Answer::Broke { .. }), "{beyond} of {module}: {greedy:#?}");
        assert!(greedy[0].findings[0].message.contains(words), "{greedy:#?}");
    }
}

#[tokio::test]
async fn handles_random_bytes_and_copied_bytes_have_an_end() {
    let setup = Setup::new(guest());
    breaks(setup.clone(), "handles", "malformed", &["table"]).await;
    breaks(setup.clone(), "random", "malformed", &["random"]).await;
    breaks(setup, "hostcall-bytes", "malformed", &["fuel"]).await;
}

#[tokio::test]
async fn stdout_goes_nowhere_and_holds_nobody_up() {
    let results = Setup::new(guest()).time("30s").only("floods-stdout,passes").run(Stage::Node).await;
    assert_eq!((results[0].status, results[1].status), (CheckStatus::Passed, CheckStatus::Passed), "{results:#?}");
}

#[tokio::test]
async fn each_part_of_an_answer_has_its_bound() {
    let setup = Setup::new(guest());
    for (id, words) in [
        ("much-evidence", "65 evidence entries; 64 are allowed"),
        ("much-finding-evidence", "65 evidence entries; 64 are allowed"),
        ("large-remedy", "a remedy of 4097 bytes; 4096 are allowed"),
        ("large-skip", "the reason to skip of 4097 bytes; 4096 are allowed"),
        ("large-report", "a report of 266240 bytes; 262144 are allowed"),
    ] {
        breaks(setup.clone(), id, "oversized", &[words]).await;
    }
    for (list, words) in [
        ("many", "257 checks; 256 are allowed"),
        ("twice", "the check id `Once` is there twice"),
        ("long-title", "the title of `a` has 201 bytes; 200 are allowed"),
        ("long-id", "is not 1 to 253 bytes"),
    ] {
        let results = setup.clone().setting("list", list).run(Stage::Node).await;
        assert_eq!(results[0].answer, Answer::Broke { reason: "oversized".into() }, "{list}: {results:#?}");
        assert!(results[0].findings[0].message.contains(words), "{list}: {results:#?}");
    }
}

#[tokio::test]
async fn a_call_has_ten_thousand_requests() {
    let setup = Setup::new(guest()).granted("{facts: [swap]}").only("many-asks,passes");
    let machine = setup.machine.clone();
    let results = setup.time("30s").run(Stage::Node).await;
    let expected = "10000 answers, then more than 10000 requests in one call";
    assert_eq!(results[0].status, CheckStatus::Passed, "{results:#?}");
    assert_eq!(results[1].skipped.as_deref(), Some(expected), "{results:#?}");
    assert_eq!(machine.asked.load(Ordering::Relaxed), 10_000);
}

#[tokio::test]
async fn a_guest_without_a_manifest_computes_for_five_seconds() {
    let results = Setup::new(guest()).without_manifest().only("loops").run(Stage::Node).await;
    assert!(results[0].findings[0].message.contains("stopped after 5000 ms of computing"), "{results:#?}");
}

/// What the host shows of log lines, by a process of its own.
#[test]
fn log_lines_are_cut_in_length_number_and_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let told = |check: &str| {
        let setup = Setup::new(guest()).time("30s").only(check);
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("guest.wasm"), setup.component()).unwrap();
        std::fs::write(at("settings.json"), setup.settings()).unwrap();
        let run = Command::new(env!("CARGO_BIN_EXE_mortise"))
            .args(["plugin", "run", "guest.wasm", "--settings", "settings.json"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(run.status.success(), "{run:?}");
        String::from_utf8(run.stderr).unwrap()
    };
    let flood = told("floods-log");
    assert_eq!(flood.lines().filter(|line| line.contains(" info: line ")).count(), 1000);
    assert!(flood.contains("warn: log cut: 5000 lines"), "{flood}");
    let long = told("long-lines");
    let lines: Vec<usize> = long.lines().map(|line| line.matches('y').count()).filter(|count| *count > 100).collect();
    assert_eq!(lines, [4096; 16], "16 lines of 4 KiB are 64 KiB");
    assert!(long.contains("warn: log cut: 100 lines, 409600 bytes"), "{long}");
}

#[tokio::test]
async fn a_file_and_an_output_without_a_size_have_one() {
    let calls: [&[&str]; 3] = [
        &["read", "/proc/kallsyms"],
        &["exec", "/usr/bin/head", "-c", "65536", "/dev/zero"],
        &["exec", "/usr/bin/head", "-c", "65537", "/dev/zero"],
    ];
    let grants = "{facts: [swap], files: [{path: /proc/kallsyms}], commands: \
                  [{program: /usr/bin/head, args: [-c, {match: '[0-9]+'}, /dev/zero]}]}";
    let mut setup = calling(&calls).granted(grants);
    setup.machine = Arc::new(Machine { runs: true, ..Machine::default() });
    let result = passing(setup).await;
    let seen = answers(&result);
    assert!(seen[0].starts_with("too-large: "), "{seen:?}");
    assert!(seen[1].starts_with('\0') || seen[1].starts_with("\\u{0}"), "{seen:?}");
    assert!(seen[2].starts_with("too-large: "), "{seen:?}");
}

#[test]
fn settings_have_a_size() {
    let large = "x".repeat(256 << 10);
    let Err(error) = Setup::new(guest()).setting("a", &large).prepare().map(drop) else { panic!("it was prepared") };
    assert!(error.to_string().contains("settings"), "{error}");
}

#[tokio::test]
async fn requests_and_look_ups_have_numbers() {
    let server = Server::start().await;
    let (url, whole, more) = (server.url("/"), server.url("/256Ki"), server.url("/more"));
    let headers: Vec<String> = (0..65).map(|n| format!("hx-{n}:y")).collect();
    let long: Vec<String> = (0..5).map(|n| format!("hx-{n}:{}", "y".repeat(8000))).collect();
    let fetch = |options: &[String]| {
        let words = ["fetch", "POST", &url].into_iter().chain(options.iter().map(String::as_str));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let plain = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let calls = [
        (fetch(&headers[1..]), "200 "),
        (fetch(&headers), "invalid: 65 headers; 64 are allowed"),
        (fetch(&long[1..]), "200 "),
        (fetch(&long), "invalid: 40015 bytes of headers; 32768 are allowed"),
        (plain(&["fetch", "POST", &url, "b65537"]), "too-large: a body of 65537 bytes; the grant allows 65536"),
        (plain(&["fetch", "GET", &whole]), "200 262144 "),
        (plain(&["fetch", "GET", &more]), "too-large: the answer's body has more than 262144 bytes"),
        (plain(&["dns", "many.example"]), "1.0.0.0,"),
    ];
    let words: Vec<Vec<&str>> = calls.iter().map(|(words, _)| words.iter().map(String::as_str).collect()).collect();
    let words: Vec<&[&str]> = words.iter().map(Vec::as_slice).collect();
    let addresses: String = (0..100).map(|n| format!("1.0.0.{n} ")).collect();
    let network = ScriptedNetwork::default().naming("many.example", &[&addresses]);
    let grants =
        format!("{{facts: [swap], http: [{{url: '{url}', methods: [GET, POST]}}], probe: [{{dns: many.example}}]}}");
    let result = passing(on(network, calling(&words).time("30s").granted(&grants))).await;
    let seen = answers(&result);
    for (answer, (_, begins)) in seen.iter().zip(&calls) {
        assert!(answer.starts_with(begins), "{answer} does not begin with {begins}");
    }
    assert_eq!(seen.last().unwrap().split(',').count(), 64);
}

/// They wait as long as the host does: 50 s.
#[tokio::test(flavor = "multi_thread")]
async fn what_names_no_time_or_too_much_has_one() {
    let server = Server::start().await;
    let url = server.url("/silent");
    let mark = (7_000_000 + std::process::id()).to_string();
    let one = async |words: &[&str], grants: &str, expected: &str| {
        let mut setup = calling(&[words]).granted(grants);
        setup.machine = Arc::new(Machine { runs: true, ..Machine::default() });
        let result = passing(setup).await;
        let seen = answers(&result)[0];
        assert!(seen.starts_with("timeout (retryable): ") && seen.contains(expected), "{seen}");
    };
    let http = format!("{{facts: [swap], http: [{{url: '{url}'}}]}}");
    let sleep = format!("{{facts: [swap], commands: [{{program: /bin/sleep, args: ['{mark}']}}]}}");
    let (unnamed, long) = (["fetch", "GET", &url], ["fetch", "GET", &url, "t4000000000"]);
    let command = ["exec", "/bin/sleep", &mark];
    tokio::join!(
        one(&unnamed, &http, "within 10000 ms"),
        one(&long, &http, "within 50000 ms"),
        one(&command, &sleep, "for more than 10000 ms")
    );
}

#[tokio::test]
async fn a_plugin_is_told_of_a_thousand_grants() {
    let files: Vec<String> = (0..1100).map(|n| format!("{{path: /etc/{n}, access: stat}}")).collect();
    let setup =
        calling(&[&["grants"]]).time("30s").granted(&format!("{{facts: [swap], files: [{}]}}", files.join(", ")));
    assert_eq!(answers(&passing(setup).await), ["1024"]);
}

/// In the place of a helper of this role, something else; as the others, the real one.
fn instead_of(role: &str, name: &str, script: &str) -> std::path::PathBuf {
    let path = stand_in(name, &[], "exit 1");
    let real = env!("CARGO_BIN_EXE_mortise");
    let text = format!("#!/bin/sh\nif [ \"$1\" != {role} ]; then exec {real} \"$@\"; fi\n{script}\n");
    executable(&path, &text);
    path
}

/// They wait as long as the host does: 20 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_does_not_get_ready_is_given_up() {
    let drain = "exec 3<&0; cat <&3 >/dev/null & exec sleep 90";
    let mute = instead_of("__runner", "mute", drain);
    let slow = stand_in("slow-to-start", &[&frame(CONFINED)], drain);
    let deaf = instead_of("__compiler", "mute-compiler", drain);
    let one = async |program, words: &str| {
        let began = Instant::now();
        let results = Setup::new(guest()).launcher(program).run(Stage::Node).await;
        assert_eq!((results.len(), &results[0].answer), (1, &Answer::HostFailed), "{results:#?}");
        assert!(results[0].findings[0].message.contains(words), "`{words}` is not in {results:#?}");
        assert!(began.elapsed() < Duration::from_secs(60), "given up after {:?}", began.elapsed());
    };
    tokio::join!(
        one(mute, "was not ready after 20 s"),
        one(slow, "was not ready after 20 s"),
        one(deaf, "was not ready after 20 s")
    );
}

/// What a compiler that was taken over could say of its size; nothing of it is read or waited for.
#[tokio::test]
async fn native_code_has_a_size() {
    let directory = tempfile::tempdir().unwrap();
    let said = directory.path().join("said");
    let ready = frame(r#"{"ready":{"native_bytes":536870913}}"#);
    std::fs::write(&said, [frame(CONFINED), ready].concat()).unwrap();
    let drain = format!("cat {} >&0; exec 3<&0; cat <&3 >/dev/null & exec sleep 90", said.display());
    let results =
        Setup::new(guest()).launcher(instead_of("__compiler", "greedy-compiler", &drain)).run(Stage::Node).await;
    assert_eq!((results.len(), &results[0].answer), (1, &Answer::HostFailed), "{results:#?}");
    let message = &results[0].findings[0].message;
    assert!(message.contains("536870913 bytes of code; 536870912 are allowed"), "{message}");
}

/// A component of some megabytes whose one function has more live values at more places than a compiler can look through.
fn hours_to_compile() -> Vec<u8> {
    const LOCALS: usize = 20_000;
    const BRANCHES: usize = 200_000;
    let mut body = String::with_capacity(BRANCHES * 80);
    for n in 0..BRANCHES {
        let (from, to) = (n * 7919 % LOCALS, (n * 104_729 + 1) % LOCALS);
        body +=
            &format!("(if (local.get {from}) (then (local.set {to} (i32.add (local.get {from}) (i32.const {n})))))");
    }
    let locals = "i32 ".repeat(LOCALS);
    beside(&format!("(module (func (export \"f\") (local {locals}) (loop $l {body} (br_if $l (local.get 3)))))"), 1)
}

#[tokio::test]
#[ignore = "keeps a processor busy for two minutes: run `make test-cluster`"]
async fn one_made_to_compile_for_hours_is_given_up_after_two_minutes() {
    let began = Instant::now();
    let results = Setup::new(&hours_to_compile()).only("passes").run(Stage::Node).await;
    let took = began.elapsed();
    assert_eq!((results.len(), results[0].status), (1, CheckStatus::Failed), "{results:#?}");
    assert_eq!(results[0].answer, Answer::HostFailed, "{results:#?}");
    let message = &results[0].findings[0].message;
    assert!(message.contains("the compiler failed: "), "{message}");
    assert!(took > Duration::from_secs(60) && took < Duration::from_secs(200), "{took:?}: {message}");
    let next = Setup::new(guest()).only("passes").run(Stage::Node).await;
    assert_eq!(next[0].status, CheckStatus::Passed, "{next:#?}");
}
