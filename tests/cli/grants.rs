//! What an operator learns of a plugin before it runs, and what a site's policy and its directory of plugins do.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Run, mortise};

const MANIFEST: &str = "schema: mortise.dev/plugin/v1alpha1
id: com.example.gpu
version: 1.2.3
kind: preflight
title: a GPU check
grants:
  facts:
    - {name: kernel, reason: the driver's module}
    - {name: dmi, reason: the board, optional: true}
  files:
    - {path: /etc/passwd, reason: accounts}
    - {path: /etc/shadow, reason: mischief, optional: true}
    - {path: /proc/sys/kernel/*release, reason: the release, optional: true}
  http:
    - {url: http://127.0.0.1:9/v1, reason: the inventory, optional: true}
settings: {type: object, properties: {least: {type: integer, minimum: 1}}, additionalProperties: false}
limits: {memory: 32Mi, time: 2s}
";

/// A machine's directory with a component in it. It cannot run; nothing here does.
fn machine(manifest: &str) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let text = "(component (instance $i) (export \"mortise:preflight/check@0.1.0\" (instance $i)))";
    let mut component = wat::parse_str(text).unwrap();
    let mut body = vec![16];
    body.extend(b"mortise:manifest");
    body.extend(manifest.as_bytes());
    component.push(0);
    let length = u32::try_from(body.len()).unwrap();
    // LEB128 of two bytes, enough for 16 KiB.
    component.extend([u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()]);
    component.extend(body);
    let path = root.path().join("gpu.wasm");
    std::fs::write(&path, component).unwrap();
    std::fs::create_dir_all(root.path().join("etc/mortise/conf.d")).unwrap();
    (root, path)
}

fn policy(root: &Path, text: &str) {
    let text = format!("apiVersion: mortise.dev/v1alpha1\nkind: Policy\n{text}");
    std::fs::write(root.join("etc/mortise/policy.yaml"), text).unwrap();
}

fn configure(root: &Path, file: &str, plugins: &str) {
    let text = format!("apiVersion: mortise.dev/v1alpha1\nkind: JoinPlugins\nplugins:\n{plugins}");
    std::fs::write(root.join("etc/mortise/conf.d").join(file), text).unwrap();
}

fn run(root: &Path, words: &[&str]) -> Run {
    let mut all = words.to_vec();
    all.extend(["--root", root.to_str().unwrap()]);
    mortise(&all, &[])
}

fn json(run: &Run) -> Value {
    assert_eq!(run.status, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn inspect_shows_wants_reasons_limits_and_leaks_without_running_anything() {
    let (root, path) = machine(MANIFEST);
    let path = path.to_str().unwrap();
    let run_text = run(root.path(), &["plugin", "inspect", path]);
    assert_eq!(run_text.status, 0, "{}", run_text.stderr);
    for line in [
        "com.example.gpu 1.2.3 (preflight)",
        "  title: a GPU check",
        "  signer: none known",
        "  limits: 32 MiB of memory, 2000 ms of computing a call",
        "  facts: [kernel]\n      the driver's module",
        "  facts: [{name: dmi, optional: true}] (optional) (not known to this host)",
        "  files: [{path: /etc/shadow, access: read}] (optional)\n      mischief",
        "reads files (/etc/passwd, /etc/shadow, /proc/sys/kernel/*release) and can send to 127.0.0.1:9 [files-to-network]",
    ] {
        assert!(run_text.stdout.contains(line), "{line:?} is not in\n{}", run_text.stdout);
    }
    let seen = json(&run(root.path(), &["plugin", "inspect", path, "-o", "json"]));
    assert_eq!(seen["id"], "com.example.gpu");
    assert_eq!(seen["requests"][0]["reason"], "the driver's module");
    assert_eq!(seen["limits"], serde_json::json!({"memoryBytes": 32 << 20, "timeMs": 2000}));
    assert_eq!(seen["settings"]["properties"]["least"]["minimum"], 1);
    assert_eq!(seen["leaks"][0]["kind"], "files-to-network");
    assert_eq!(seen["signer"], Value::Null);
}

fn targets<'a>(explained: &'a Value, grant: &str) -> Vec<(&'a str, bool)> {
    let reaches = explained["reaches"].as_array().unwrap();
    let reach = reaches.iter().find(|it| it["grant"].as_str().unwrap().contains(grant)).unwrap();
    let targets = reach["targets"].as_array().unwrap().iter();
    targets.map(|it| (it["name"].as_str().unwrap(), it["reachable"].as_bool().unwrap())).collect()
}

#[test]
fn explain_lists_what_is_there_now_and_what_is_never_shown() {
    let (root, path) = machine(MANIFEST);
    let path = path.to_str().unwrap();
    let explained = json(&run(root.path(), &["plugin", "grants", "explain", path, "-o", "json"]));
    assert_eq!(targets(&explained, "/etc/passwd"), [("/etc/passwd", true)]);
    assert_eq!(targets(&explained, "/etc/shadow"), [("/etc/shadow", false)]);
    assert_eq!(targets(&explained, "*release"), [("/proc/sys/kernel/osrelease", true)]);
    assert_eq!(targets(&explained, "http"), [("127.0.0.1", true)]);
    assert_eq!(explained["withheld"], serde_json::json!([]));
}

#[test]
fn explain_says_what_given_grants_leave_out_and_which_flag_would_add_it() {
    let (root, path) = machine(MANIFEST);
    let path = path.to_str().unwrap();
    let run = run(root.path(), &["plugin", "grants", "explain", path, "--grant", "facts=kernel"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("gpu@1.2.3 could reach\n  facts: [kernel]\ndoes not get\n"), "{}", run.stdout);
    let line = "the operator would have to allow it with --grant files=/etc/passwd:read";
    assert!(run.stdout.contains(line), "{}", run.stdout);
    let wrong = crate::mortise(&["plugin", "grants", "explain", path, "--grant", "fact=kernel"], &[]);
    assert_eq!((wrong.status, wrong.stdout.as_str()), (2, ""));
    assert!(wrong.stderr.contains("`fact=kernel` is neither `facts=…`"), "{}", wrong.stderr);
}

#[test]
fn a_policy_forbids_whatever_is_granted_and_is_named_with_its_line() {
    let (root, path) = machine(MANIFEST);
    let name = path.to_str().unwrap();
    policy(root.path(), "forbid:\n  grants:\n    files:\n      - {path: /etc/passwd}\n");
    let explained = json(&run(root.path(), &["plugin", "grants", "explain", name, "-o", "json"]));
    let by = explained["withheld"][0]["by"].as_str().unwrap();
    assert!(by.starts_with("the site's policy, `") && by.ends_with("etc/mortise/policy.yaml:6`"), "{by}");
    let words = ["plugin", "run", name, "--grant", "facts=kernel", "--grant", "files=/etc/passwd"];
    let refused = run(root.path(), &words);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    let expected =
        "plugin `gpu@1.2.3` needs what the site's policy forbids: files: [{path: /etc/passwd, access: read}]";
    assert!(refused.stderr.contains(expected) && refused.stderr.contains("policy.yaml:6`"), "{}", refused.stderr);
    policy(root.path(), "forbid: {leaks: [files-to-network]}\n");
    let leaking = run(root.path(), &[&words[..], &["--grant", "http=http://127.0.0.1:9/v1"]].concat());
    assert!(leaking.stderr.contains("forbids as `files-to-network`"), "{}", leaking.stderr);
    policy(root.path(), "allowUnsigned: false\n");
    assert!(run(root.path(), &words).stderr.contains("forbidden by the site's policy: it is not signed"));
    policy(root.path(), "allowUnsinged: false\n");
    let typo = run(root.path(), &words);
    assert_eq!(typo.status, 2);
    assert!(typo.stderr.contains("policy.yaml:3:1`: `allowUnsinged`: unknown field"), "{}", typo.stderr);
}

#[test]
fn a_plugin_of_conf_d_is_found_by_name_with_its_grants() {
    let (root, path) = machine(MANIFEST);
    let path = path.display();
    configure(root.path(), "a.yaml", &format!("  - {{name: mine, path: {path}, grants: {{facts: [kernel]}}}}\n"));
    let explained = json(&run(root.path(), &["plugin", "grants", "explain", "mine", "-o", "json"]));
    assert_eq!(explained["reaches"].as_array().unwrap().len(), 1);
    assert_eq!(explained["plugin"], "mine@1.2.3");
    configure(root.path(), "b.yaml", &format!("  - {{name: mine, path: {path}}}\n"));
    let twice = run(root.path(), &["plugin", "inspect", "mine"]);
    assert_eq!(twice.status, 2);
    let stderr = twice.stderr.replace(&format!("{}/", root.path().display()), "");
    assert!(
        stderr.contains(
            "`etc/mortise/conf.d/b.yaml:4:5`: `plugins`: the plugin name `mine` is used twice; first by \
                         `etc/mortise/conf.d/a.yaml:4:5`"
        ),
        "{stderr}"
    );
}

#[test]
fn settings_that_do_not_fit_are_named_without_their_values() {
    let (root, path) = machine(&MANIFEST.replace("    - {path: /etc/passwd, reason: accounts}\n", ""));
    let file = root.path().join("settings.yaml");
    std::fs::write(&file, "least: 0\nlaest: canary\n").unwrap();
    let words =
        ["plugin", "run", path.to_str().unwrap(), "--grant", "facts=kernel", "--settings", file.to_str().unwrap()];
    let run = run(root.path(), &words);
    assert_eq!(run.status, 2, "{}", run.stderr);
    let expected = "its settings do not fit: `/least` must be 1 or more; `/laest` is no setting of this plugin";
    assert!(run.stderr.contains(expected) && !run.stderr.contains("canary"), "{}", run.stderr);
}

#[test]
fn a_manifest_without_a_reason_is_refused_and_a_newer_one_asks_for_a_newer_host() {
    for (manifest, expected) in [
        (MANIFEST.replace(", reason: accounts", ""), "it does not give the `reason` why it asks for files"),
        (MANIFEST.replace("title: a GPU check", "minHost: 99.0.0\nteleport: true"), "asks for mortise 99.0.0 or newer"),
        (MANIFEST.replace("title: a GPU check", "teleport: true"), "teleport"),
        (MANIFEST.replace("grants:\n", "grants:\n  trust-root: {reason: x}\n"), "for discovery plugins only"),
        (MANIFEST.replace("least: {type", "least: {tpye"), "`tpye` is no keyword that this host checks"),
    ] {
        let (root, path) = machine(&manifest);
        let run = run(root.path(), &["plugin", "inspect", path.to_str().unwrap()]);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{expected}");
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
}
