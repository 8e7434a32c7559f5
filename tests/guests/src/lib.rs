//! One plugin that misbehaves in as many ways as it has checks. The host's test target `guests` builds and runs it.
//!
//! It has no manifest of its own: each test appends the one it needs.

#[expect(unsafe_code, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit/preflight", world: "plugin", generate_all });
    use super::Guest;
    export!(Guest);
}

use std::hint::black_box;

use bindings::exports::mortise::preflight::check::{
    CheckInfo, Error, Finding, Guest as Check, Report, Severity, Stage,
};
mod calls;
mod many;
mod wasi;

use bindings::mortise::host::{commands, context, facts, files, log, settings};

struct Guest;

/// Ids, in the order they are listed. `joined` and `cluster` run in their stages, all others in stage `node`.
const CHECKS: &[&str] = &[
    "passes",
    "finds",
    "skips",
    "unable",
    "loops",
    "sleeps",
    "traps",
    "panics",
    "grows",
    "recurses",
    "facts",
    "files",
    "commands",
    "ignores-denial",
    "oversized",
    "many-findings",
    "floods-log",
    "floods-stderr",
    "context",
    "environment",
    "cluster",
    "joined",
    "asks-forever",
    "network",
    "writes-terminal",
    "evil-texts",
    "evil-error",
    "evil-panic",
    "floods-stdout",
    "random",
    "handles",
    "hostcall-bytes",
    "many-asks",
    "much-evidence",
    "much-finding-evidence",
    "large-report",
    "large-remedy",
    "large-skip",
    "long-lines",
    "calls",
];

impl Check for Guest {
    fn list_checks() -> Vec<CheckInfo> {
        if settings::get().contains("\"list\":\"bench\"") {
            return many::list();
        }
        if settings::get().contains("\"list\":\"bad-id\"") {
            let title = String::new();
            return vec![CheckInfo { id: "bad id".into(), title, stage: Stage::Node, severity: Severity::Error }];
        }
        let check =
            |id: &str, title: String| CheckInfo { id: id.into(), title, stage: Stage::Node, severity: Severity::Error };
        match settings::text("list").as_deref() {
            Some("many") => return (0..257).map(|n| check(&format!("c{n}"), String::new())).collect(),
            Some("twice") => return vec![check("once", String::new()), check("Once", String::new())],
            Some("long-title") => return vec![check("a", "x".repeat(201))],
            Some("long-id") => return vec![check(&"x".repeat(254), String::new())],
            _ => {}
        }
        let wanted: Vec<String> = only();
        CHECKS
            .iter()
            .filter(|id| wanted.is_empty() || wanted.iter().any(|name| name == *id))
            .map(|id| CheckInfo {
                id: (*id).into(),
                title: if id.starts_with("evil") { evil("title") } else { format!("what happens when a check {id}") },
                stage: match *id {
                    "cluster" => Stage::Cluster,
                    "joined" => Stage::Joined,
                    _ => Stage::Node,
                },
                severity: Severity::Error,
            })
            .collect()
    }

    fn run_check(id: String) -> Result<Report, Error> {
        match id.as_str() {
            "finds" => Ok(Report { findings: vec![finding("swap is on".into())], ..passed() }),
            "skips" => Ok(Report { skipped: Some("does not apply".into()), ..passed() }),
            "unable" => Err(Error { code: "unavailable".into(), message: "no such device".into(), retryable: false }),
            "loops" => loop {
                black_box(());
            },
            "sleeps" => {
                std::thread::sleep(std::time::Duration::from_secs(3600));
                Ok(passed())
            }
            "traps" => std::process::abort(),
            "panics" => panic!("the guest's own words"),
            "grows" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(vec![1_u8; 1 << 20]);
                    black_box(&kept);
                }
            }
            "recurses" => Ok(Report { skipped: Some(recurse(0).to_string()), ..passed() }),
            "facts" => Ok(answers(vec![
                ("swap", facts::swap().map(|areas| areas.join(","))),
                ("sysctl", facts::sysctl("net.ipv4.ip_forward")),
                ("kernel", facts::kernel().map(|kernel| kernel.release)),
            ])),
            "files" => Ok(answers(vec![
                ("stat", files::stat("/etc/os-release").map(|found| format!("{found:?}"))),
                ("read", files::read("/etc/os-release").map(|content| String::from_utf8_lossy(&content).into_owned())),
                ("shadow", files::read("/etc/shadow").map(|content| content.len().to_string())),
            ])),
            "commands" => Ok(answers(vec![(
                "true",
                commands::run("/bin/echo", &["hello".into()])
                    .map(|output| format!("{:?} {}", output.status, String::from_utf8_lossy(&output.stdout))),
            )])),
            "ignores-denial" => {
                let _ = facts::kernel();
                Ok(passed())
            }
            "oversized" => Ok(Report { findings: vec![finding("x".repeat(300_000))], ..passed() }),
            "many-findings" => Ok(Report { findings: (0..300).map(|n| finding(n.to_string())).collect(), ..passed() }),
            "floods-log" => {
                for line in 0..5_000 {
                    log::write(log::Level::Info, &format!("line {line}"));
                }
                Ok(passed())
            }
            "floods-stderr" => {
                for _ in 0..1_000 {
                    eprintln!("{}", "noise ".repeat(100));
                }
                panic!("after the flood");
            }
            "writes-terminal" => {
                log::write(log::Level::Warn, "\u{1b}[2Jgone\nsecond line");
                Ok(Report { findings: vec![finding("\u{1b}[2Jred".into())], ..passed() })
            }
            "context" => Ok(Report {
                evidence: vec![
                    ("node-name".into(), context::node_name()),
                    ("role".into(), format!("{:?}", context::role())),
                    ("settings".into(), settings::get()),
                    ("endpoint-host".into(), format!("{:?}", context::parameter("endpoint-host"))),
                    ("unknown".into(), format!("{:?}", context::parameter("unknown"))),
                ],
                ..passed()
            }),
            "environment" => Ok(Report {
                evidence: vec![
                    ("variables".into(), std::env::vars().count().to_string()),
                    ("file".into(), format!("{:?}", std::fs::read("/etc/passwd").map(|content| content.len()))),
                ],
                ..passed()
            }),
            "network" => Ok(Report {
                evidence: vec![
                    ("tcp".into(), format!("{:?}", std::net::TcpStream::connect("127.0.0.1:22").map(drop))),
                    ("udp".into(), format!("{:?}", std::net::UdpSocket::bind("127.0.0.1:0").map(drop))),
                    ("listen".into(), format!("{:?}", std::net::TcpListener::bind("127.0.0.1:0").map(drop))),
                ],
                ..passed()
            }),
            "evil-texts" => {
                let one = || vec![(evil("name"), evil("value"))];
                let finding = Finding {
                    severity: Severity::Warning,
                    message: evil("message"),
                    evidence: one(),
                    remedy: Some(evil("remedy")),
                    extra: one(),
                };
                log::write(log::Level::Warn, &evil("log"));
                Ok(Report { skipped: Some(evil("skipped")), findings: vec![finding], evidence: one(), extra: one() })
            }
            "evil-error" => Err(Error { code: evil("code"), message: evil("message"), retryable: false }),
            "evil-panic" => panic!("{}", evil("panic")),
            "floods-stdout" => {
                for _ in 0..10_000 {
                    println!("{}", "noise ".repeat(100));
                }
                Ok(passed())
            }
            "random" => Ok(Report { skipped: Some(wasi::random(64 << 10, 1 << 20)), ..passed() }),
            "handles" => Ok(Report { skipped: Some(wasi::handles(5_000)), ..passed() }),
            "many-asks" => {
                let mut asked = 0;
                let last = loop {
                    match facts::swap() {
                        Ok(_) => asked += 1,
                        Err(error) => break error,
                    }
                };
                Ok(Report { skipped: Some(format!("{asked} answers, then {}", last.message)), ..passed() })
            }
            "much-evidence" => Ok(Report { evidence: pairs(65), ..passed() }),
            "much-finding-evidence" => {
                let finding = Finding { evidence: pairs(65), ..finding("m".into()) };
                Ok(Report { findings: vec![finding], ..passed() })
            }
            "large-report" => Ok(Report { findings: (0..65).map(|_| finding("x".repeat(4096))).collect(), ..passed() }),
            "large-remedy" => {
                let finding = Finding { remedy: Some("x".repeat(4097)), ..finding("m".into()) };
                Ok(Report { findings: vec![finding], ..passed() })
            }
            "large-skip" => Ok(Report { skipped: Some("x".repeat(4097)), ..passed() }),
            "long-lines" => {
                for _ in 0..100 {
                    log::write(log::Level::Info, &"y".repeat(5000));
                }
                Ok(passed())
            }
            "hostcall-bytes" => {
                log::write(log::Level::Info, &"x".repeat(8 << 20));
                Ok(passed())
            }
            id if id.starts_with("many-") => many::check(),
            "calls" => Ok(Report { evidence: calls::all(), ..passed() }),
            "asks-forever" => loop {
                let _ = black_box(facts::swap());
            },
            _ => Ok(passed()),
        }
    }
}

/// `only` of the settings: the checks to list. A loop or trap there makes `list-checks` itself misbehave.
fn only() -> Vec<String> {
    let settings = settings::get();
    if settings.contains("\"list\":\"loop\"") {
        loop {
            black_box(());
        }
    }
    if settings.contains("\"list\":\"trap\"") {
        panic!("no list today");
    }
    let Some((_, rest)) = settings.split_once("\"only\":[") else { return Vec::new() };
    let (names, _) = rest.split_once(']').unwrap_or((rest, ""));
    names.split(',').map(|name| name.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty()).collect()
}

/// A text that would clear a terminal, end its line, hang up a client of JSON, or be read in another direction.
fn evil(name: &str) -> String {
    format!("{name}\u{1b}[2J\u{9b}1m\u{7}\r\n\0\u{7f}\u{202e}\u{2028}\u{85}\"\\</script>")
}

fn recurse(depth: u64) -> u64 {
    if black_box(depth) == u64::MAX { depth } else { recurse(black_box(depth + 1)).wrapping_add(1) }
}

fn answers(asked: Vec<(&str, Result<String, facts::Error>)>) -> Report {
    let mut report = passed();
    for (name, answer) in asked {
        match answer {
            Ok(value) => report.evidence.push((name.into(), value)),
            Err(error) => report.findings.push(finding(format!("{name}: {}: {}", error.code, error.message))),
        }
    }
    report
}

fn finding(message: String) -> Finding {
    Finding { severity: Severity::Error, message, evidence: Vec::new(), remedy: None, extra: Vec::new() }
}

fn pairs(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (n.to_string(), String::new())).collect()
}

fn passed() -> Report {
    Report { skipped: None, findings: Vec::new(), evidence: Vec::new(), extra: Vec::new() }
}
