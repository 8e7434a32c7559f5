//! Granted programs on this machine: who they are, how they are ended, and that nothing of them stays.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mortise::facts::{CommandOutput, CommandRequest, HostError};
use mortise::plugin::{Launcher, commands};

fn request(program: &str, arguments: &[&str]) -> CommandRequest {
    CommandRequest {
        program: program.into(),
        arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
        environment: vec!["CARGO".into()],
        user: if rustix::process::geteuid().is_root() { "nobody".into() } else { "irrelevant".into() },
        timeout: Duration::from_secs(10),
        max_output_bytes: 4096,
    }
}

async fn run(request: CommandRequest) -> Result<CommandOutput, HostError> {
    commands::run_with(&Launcher::at(env!("CARGO_BIN_EXE_mortise")), &request).await
}

async fn shell(script: &str) -> Result<CommandOutput, HostError> {
    run(request("/bin/sh", &["-c", script])).await
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_command_ends_with_its_status_and_both_outputs() {
    let output = shell("echo out; echo err >&2; exit 3").await.unwrap();
    assert_eq!((output.status, text(&output.stdout), text(&output.stderr)), (Some(3), "out\n", "err\n"));
    let output = shell("kill -TERM $$").await.unwrap();
    assert_eq!(output.status, None);
}

#[tokio::test]
async fn a_command_has_no_privileges_no_network_and_only_the_granted_environment() {
    let output = shell("cat /proc/self/status; pwd; ls /proc/self/fd; env; cat; cat /proc/net/dev").await.unwrap();
    let seen = text(&output.stdout);
    assert!(seen.contains("NoNewPrivs:\t1"), "{seen}");
    assert!(seen.contains("CARGO=") && !seen.contains("HOME="), "{seen}");
    assert!(seen.contains("\n/\n0\n1\n2\n3\n"), "other descriptors than `ls` itself has: {seen}");
    if rustix::process::geteuid().is_root() {
        assert!(seen.contains("Uid:\t65534\t65534\t65534\t65534"), "{seen}");
        assert!(seen.contains("CapPrm:\t0000000000000000") && seen.contains("CapBnd:\t0000000000000000"), "{seen}");
        assert!(seen.contains("lo:") && !seen.contains("eth"), "{seen}");
    }
}

#[tokio::test]
async fn a_command_that_runs_too_long_is_ended_with_all_it_started() {
    let mark = format!("{}", 100_000 + std::process::id());
    let script = format!("setsid sleep {mark} & (setsid sh -c 'sleep {mark} & sleep {mark}' &) ; sleep {mark}");
    let began = Instant::now();
    let error =
        run(CommandRequest { timeout: Duration::from_millis(700), ..request("/bin/sh", &["-c", &script]) }).await;
    assert_eq!(error.unwrap_err().code, "timeout");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(sleepers(&mark), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn what_a_finished_command_leaves_behind_is_ended_too() {
    let mark = format!("{}", 200_000 + std::process::id());
    let output =
        shell(&format!("(setsid sleep {mark} >/dev/null 2>&1 &); (setsid sleep {mark} &); echo done")).await.unwrap();
    assert_eq!(text(&output.stdout), "done\n");
    assert_eq!(sleepers(&mark), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn output_has_an_end() {
    assert_eq!(shell("yes").await.unwrap_err().code, "too-large");
    assert_eq!(shell("yes >&2").await.unwrap_err().code, "too-large");
    let exact = shell("head -c 4096 /dev/zero").await.unwrap();
    assert_eq!(exact.stdout.len(), 4096);
}

#[tokio::test]
async fn programs_that_others_can_change_are_not_run() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    std::fs::copy("/bin/true", &program).unwrap();
    // Below a directory that everybody may write to.
    let error = run(request(program.to_str().unwrap(), &[])).await.unwrap_err();
    assert_eq!(error.code, "denied");
    assert!(error.message.contains("can be changed by others"), "{}", error.message);
    assert_eq!(run(request("/no/such/program", &[])).await.unwrap_err().code, "not-found");
    assert_eq!(run(request("/etc/hostname", &[])).await.unwrap_err().code, "unavailable");
}

/// Processes that have this argument.
pub(crate) fn sleepers(mark: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let sleeps = |path: &Path| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
    };
    entries.filter(|path| sleeps(path)).collect()
}
