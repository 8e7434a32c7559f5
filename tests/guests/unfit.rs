//! Files that are no plugin for this host: each is refused in its own words, and nothing runs.

use mortise::error::{Diagnose, ExitCode};
use mortise::plugin::{Answer, CheckStatus, Stage};

use crate::plugin::{Setup, guest, with_module, with_section};

fn refused(component: &[u8]) -> (String, &'static str) {
    let Err(error) = Setup::new(component).without_manifest().prepare().map(drop) else { panic!("it was prepared") };
    assert_eq!(error.exit_code(), ExitCode::Usage);
    (error.to_string(), error.code())
}

pub(crate) fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn each_kind_of_file_is_told_apart() {
    let garbage: Vec<u8> = (0..1000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let elf = std::fs::read("/proc/self/exe").unwrap();
    let cases: [(&[u8], &str, &str); 8] = [
        (&garbage, "plugin-not-wasm", "not a WebAssembly component but something else"),
        (b"", "plugin-not-wasm", "an empty file"),
        (&elf[..4096], "plugin-not-wasm", "an ELF file; native code is never taken"),
        (b"(component)", "plugin-not-wasm", "WebAssembly text"),
        (&wat("(module)"), "plugin-core-module", "a core WebAssembly module, not a component"),
        (&guest()[..guest().len() / 2], "plugin-malformed", "a malformed component"),
        (&wat("(component)"), "plugin-world", "it exports nothing"),
        (
            &wat("(component (import \"wasi:http/handler@0.2.0\" (instance)))"),
            "plugin-world",
            "a preflight plugin exports `mortise:preflight/check@0.1.0`",
        ),
    ];
    for (component, code, words) in cases {
        let (message, found) = refused(component);
        assert_eq!(found, code, "{message}");
        assert!(message.starts_with("plugin `guest`: ") && message.contains(words), "{message}");
    }
}

#[test]
fn interfaces_and_versions_are_named() {
    let export = |name: &str| format!("(instance $i) (export \"{name}\" (instance $i))");
    let check = export("mortise:preflight/check@0.1.3");
    for (text, code, words) in [
        (export("wasi:cli/run@0.2.6"), "plugin-world", "it exports `wasi:cli/run@0.2.6`"),
        (export("mortise:preflight/check@0.2.0"), "plugin-export-version", "exports `mortise:preflight/check@0.2.0`"),
        (
            format!("(import \"wasi:http/types@0.2.0\" (instance)) {check}"),
            "plugin-import",
            "imports `wasi:http/types@0.2.0`, which this host does not provide",
        ),
        (
            format!("(import \"mortise:host/facts@1.0.0\" (instance)) {check}"),
            "plugin-import-version",
            "imports `mortise:host/facts@1.0.0`; this host provides `mortise:host/*@0.1`",
        ),
        (
            format!("(import \"mortise:host/facts@0.10.0\" (instance)) {check}"),
            "plugin-import-version",
            "mortise:host/facts@0.10.0",
        ),
    ] {
        let (message, found) = refused(&wat(&format!("(component {text})")));
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_file_beyond_64_mib_is_not_even_parsed() {
    let mut large = guest().to_vec();
    large.resize((64 << 20) + 1, 0);
    let (message, code) = refused(&large);
    assert_eq!(code, "plugin-too-large");
    assert!(message.contains("larger than 64 MiB"), "{message}");
}

/// Nothing of it is read beyond the bound, and what is no file is not waited for.
#[test]
fn a_component_of_200_mb_and_one_without_end_are_refused_unread() {
    let directory = tempfile::tempdir().unwrap();
    let (large, fifo) = (directory.path().join("large.wasm"), directory.path().join("fifo.wasm"));
    let mut content = guest().to_vec();
    content.resize(4096, 0);
    std::fs::write(&large, content).unwrap();
    std::fs::File::options().write(true).open(&large).unwrap().set_len(200 << 20).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let before = read_bytes();
    for (path, code) in [(&*large, "plugin-too-large"), (&*fifo, "plugin-read"), ("/dev/zero".as_ref(), "plugin-read")]
    {
        let error = mortise::plugin::inspect("guest", path).unwrap_err();
        assert_eq!((error.code(), error.exit_code()), (code, ExitCode::Usage), "{error}");
    }
    let read = read_bytes() - before;
    assert!(read < 100 << 20, "{read} bytes were read");
    small_passes();
}

/// Bytes this thread has read.
fn read_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

fn small_passes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let results = runtime.block_on(Setup::new(guest()).only("passes").run(Stage::Node));
    assert_eq!(results[0].status, CheckStatus::Passed);
}

#[test]
fn a_manifest_is_strict() {
    let base = "schema: mortise.dev/plugin/v1alpha1\nid: a\nversion: 1.0.0\nkind: preflight\n";
    for (manifest, words) in [
        ("", "not valid"),
        ("schema: other/v1\nid: a\nversion: 1\nkind: preflight\n", "its schema is `other/v1`"),
        (&*format!("{base}grant: {{}}\n"), "grant"),
        (&*format!("{base}grants: {{facts: [kernle]}}\n"), "unknown fact `kernle`"),
        (&*format!("{base}grants: {{files: [{{path: '{{ca-cert-path}}', reason: r}}]}}\n"), "placeholder"),
        (&*format!("{base}limits: {{memory: 1024Mi}}\n"), "memory"),
        (&*format!("{base}limits: {{memory: 257Mi}}\n"), "memory"),
        (&*format!("{base}limits: {{time: 0s}}\n"), "time"),
        (&*format!("{base}limits: {{time: 61s}}\n"), "time"),
        (&*base.replace("preflight", "discovery"), "its kind is `discovery`"),
        (&*base.replace("id: a", "id: ../a"), "`id` and `version`"),
    ] {
        let component = with_section(guest(), "mortise:manifest", manifest.as_bytes());
        let (message, code) = refused(&component);
        assert_eq!(code, "plugin-manifest", "{message}");
        assert!(message.contains(words), "{manifest:?}: {message}");
    }
    let newer = with_section(guest(), "mortise:manifest", format!("{base}minHost: 99.0.0\n").as_bytes());
    assert_eq!(refused(&newer).1, "plugin-min-host");
    let one = with_section(guest(), "mortise:manifest", base.as_bytes());
    let two = with_section(&one, "mortise:manifest", base.as_bytes());
    assert!(refused(&two).0.contains("several"));
}

/// The right name, another type: found when the runner links it, before anything runs.
#[tokio::test]
async fn an_export_of_another_type_fails_the_plugin() {
    let component = wat("(component (instance $i) (export \"mortise:preflight/check@0.1.0\" (instance $i)))");
    let results = Setup::new(&component).run(Stage::Node).await;
    assert_eq!((results[0].id.as_str(), results[0].status), ("Plugin-guest", CheckStatus::Failed));
    assert_eq!(results[0].answer, Answer::Broke { reason: "load".into() });
    let message = &results[0].findings[0].message;
    assert!(message.contains("plugin `guest@1.2.3`") && message.contains("list-checks"), "{message}");
}

/// A component whose module loops in its start function, before any export is called.
#[tokio::test]
async fn a_loop_in_start_is_stopped_by_its_deadline() {
    for (body, reason, words) in [("(loop $l (br $l))", "deadline", "500 ms"), ("unreachable", "trap", "unreachable")] {
        let results = Setup::new(&starting(body)).run(Stage::Node).await;
        assert_eq!(results[0].answer, Answer::Broke { reason: reason.into() }, "{results:#?}");
        let message = &results[0].findings[0].message;
        assert!(message.contains("list-checks") && message.contains(words), "{message}");
    }
}

/// Returned lists whose place and length are lies.
#[tokio::test]
async fn lies_about_lengths_are_caught() {
    for (pointer, length) in [(0, 0x7fff_ffff_u32), (0xffff_0000, 1), (65_000, 2000)] {
        let results = Setup::new(&listing(pointer, length)).run(Stage::Node).await;
        assert_eq!(results[0].status, CheckStatus::Failed);
        assert!(matches!(results[0].answer, Answer::Broke { .. }), "{results:#?}");
    }
    let honest = Setup::new(&listing(0, 0)).run(Stage::Node).await;
    assert_eq!(honest, []);
}

/// Tables cost host memory that no memory limit counts.
#[tokio::test]
async fn a_table_cannot_grow_without_end() {
    let body = "(if (i32.ne (table.grow 0 (ref.null func) (i32.const 50000000)) (i32.const -1)) (then unreachable))";
    let results = Setup::new(&starting(body)).run(Stage::Node).await;
    assert_eq!(results, [], "the table grew");
}

/// What the engine calls of the guest beside its exports, and what it reads of its memory.
#[tokio::test]
async fn traps_beside_the_exports_and_texts_that_are_none_break_the_call() {
    let one = |id: &str| format!("(data (i32.const 32) \"{id}\") {ONE_CHECK}");
    let trap = "unreachable";
    for (module, reason, words) in [
        (abi(&one("\\ff\\fe\\80a"), "", "(i32.const 1024)", (64, 1)), "malformed", "utf-8"),
        (abi("", trap, "(i32.const 1024)", (0, 0)), "trap", "unreachable"),
        (abi("", "(loop $l (br $l))", "(i32.const 1024)", (0, 0)), "deadline", "500 ms"),
        // Its stage and its severity are none that the interface has.
        (
            abi(&one("abcd").replace(r#"\00\00\00\00")"#, r#"\07\09\00\00")"#), "", trap, (64, 1)),
            "malformed",
            "discriminant",
        ),
        (abi(&one("abcd"), "", "(i32.const 1024)", (66, 1)), "malformed", "align"),
    ] {
        let results = Setup::new(&with_module(guest(), &module)).run(Stage::Node).await;
        assert_eq!(results[0].answer, Answer::Broke { reason: reason.into() }, "{words}: {results:#?}");
        let message = results[0].findings[0].message.to_lowercase();
        assert!(message.contains(words), "`{words}` is not in {message}");
    }
    for (realloc, words) in [
        (trap, "unreachable"),
        ("(loop $l (br $l)) (i32.const 0)", "500 ms"),
        ("(i32.const -8)", "realloc"),
        ("(i32.const 0x7fffffff)", "realloc"),
    ] {
        let module = abi(&one("abcd"), "", realloc, (64, 1));
        let results = Setup::new(&with_module(guest(), &module)).run(Stage::Node).await;
        assert_eq!((results.len(), results[0].id.as_str()), (1, "abcd"), "{realloc}: {results:#?}");
        assert!(matches!(results[0].answer, Answer::Broke { .. }), "{realloc}: {results:#?}");
        assert!(results[0].findings[0].message.contains(words), "{realloc}: {results:#?}");
    }
    small_answers().await;
}

async fn small_answers() {
    assert_eq!(Setup::new(&small()).run(Stage::Node).await, []);
}

/// At 64: a check whose id has four bytes at 32, and whose title is empty.
const ONE_CHECK: &str = r#"(data (i32.const 64) "\20\00\00\00\04\00\00\00\20\00\00\00\00\00\00\00\00\00\00\00")"#;

/// A core module with these instructions after `list-checks` and in `cabi_realloc`.
fn abi(extra: &str, post: &str, realloc: &str, (pointer, length): (u32, u32)) -> Vec<u8> {
    let interface = "mortise:preflight/check@0.1.0";
    wat(&format!(
        r#"(module
          (memory (export "memory") 1)
          {extra}
          (func (export "{interface}#list-checks") (result i32)
            (i32.store (i32.const 16) (i32.const {pointer}))
            (i32.store (i32.const 20) (i32.const {length}))
            (i32.const 16))
          (func (export "{interface}#run-check") (param i32 i32) (result i32) unreachable)
          (func (export "cabi_post_{interface}#list-checks") (param i32) {post})
          (func (export "cabi_post_{interface}#run-check") (param i32))
          (func (export "_initialize"))
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc}))"#
    ))
}

fn starting(body: &str) -> Vec<u8> {
    component(&format!("(table 1 funcref) (func $start {body}) (start $start)"), 0, 0)
}

fn listing(pointer: u32, length: u32) -> Vec<u8> {
    component("", pointer, length)
}

/// Quick to compile, since there is next to nothing in it; it offers no check.
pub(crate) fn small() -> Vec<u8> {
    listing(0, 0)
}

/// The guest component around a core module written by hand: `list-checks` returns this list, `run-check` traps.
fn component(extra: &str, pointer: u32, length: u32) -> Vec<u8> {
    with_module(guest(), &abi(extra, "", "(i32.const 1024)", (pointer, length)))
}
