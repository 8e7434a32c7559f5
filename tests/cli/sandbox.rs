//! A whole join in the sandbox, as an ordinary user.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Run, mortise};

/// Debian's and everybody else's `nobody`.
const NOBODY: u32 = 65534;

/// A directory that everyone may enter, with the binary and a place to write in it.
fn workshop() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    // By another process: a child that another test forks meanwhile would hold our descriptor for writing, and a program
    // that is open for writing cannot be started.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_mortise")).arg(directory.path().join("mortise")).status();
    assert!(copied.unwrap().success());
    directory
}

/// Runs the binary as `nobody` where this test is root, else as who runs it.
fn as_ordinary_user(workshop: &Path, words: &[&str]) -> Run {
    let mut command = Command::new(workshop.join("mortise"));
    command.args(words).env_clear().env("TMPDIR", workshop).current_dir("/").stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    Run {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn an_ordinary_user_joins_both_ways() {
    let workshop = workshop();
    for by in ["host", "kubelet"] {
        let run = as_ordinary_user(workshop.path(), &["sandbox", "join", "-o", "json", "--tls-bootstrap-by", by]);
        assert_eq!(run.status, 0, "{by}\n{}\n{}", run.stdout, run.stderr);
        let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(events.iter().any(|event| event["event"] == "finished"), "{by}: {}", run.stdout);
        let checks = events.iter().filter(|event| event["event"] == "check").count();
        assert!(checks >= 16, "{by}: {checks} checks ran");
        let left = events.iter().find(|event| event["event"] == "sandbox").unwrap();
        let files: Vec<&str> = left["files"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for path in ["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/config.yaml", "/etc/kubernetes/pki/ca.crt"] {
            assert!(files.iter().any(|file| file.contains(path)), "{by}: {path} is missing in {files:?}");
        }
        assert!(!files.iter().any(|file| file.contains("bootstrap-kubelet.conf")), "{by}: the token stayed on disk");
        assert!(left["node"][0].as_str().unwrap().contains("Ready"), "{left}");
    }
}

#[test]
fn with_the_facts_of_this_host_the_node_describes_this_host() {
    let workshop = workshop();
    // What this host lacks for being a node is not the subject.
    let words = ["sandbox", "join", "-o", "json", "--facts", "host", "--ignore-preflight-errors", "all"];
    let run = as_ordinary_user(workshop.path(), &words);
    assert_eq!(run.status, 0, "{}\n{}", run.stdout, run.stderr);
    let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let left = events.iter().find(|event| event["event"] == "sandbox").unwrap();
    let system = rustix::system::uname();
    let kernel = format!("kernel {}", system.release().to_str().unwrap());
    assert!(left["node"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().ends_with(&kernel)), "{left}");
}

#[test]
fn a_directory_with_something_in_it_is_refused() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("mine"), "").unwrap();
    let run = mortise(&["sandbox", "join", "--root", root.path().to_str().unwrap()], &[]);
    assert_eq!(run.status, 2, "{}", run.stderr);
    assert!(run.stderr.contains("is not empty"), "{}", run.stderr);
    assert_eq!(super::entries(root.path()), ["mine"]);
}

#[test]
fn a_plugin_that_is_no_component_fails_before_anything_is_written() {
    let workshop = workshop();
    let plugin = workshop.path().join("vendor.wasm");
    std::fs::write(&plugin, "#!/bin/sh\n").unwrap();
    let root = workshop.path().join("root");
    let plugin = plugin.to_str().unwrap();
    let run = mortise(&["sandbox", "join", "--root", root.to_str().unwrap(), "--plugin", plugin], &[]);
    assert_ne!(run.status, 0);
    assert!(run.stderr.contains("vendor"), "{}", run.stderr);
    assert!(super::entries(&root).is_empty(), "something was written");
}
