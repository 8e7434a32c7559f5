//! What a wrong command line or configuration gets: status 2, what was seen, what to run next.

use crate::{configuration, entries, mortise};

const PIN: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const TOKEN: &str = "abcdef.0123456789abcdef";
const JOIN: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken:
    apiServerEndpoint: api:6443
    token: abcdef.0123456789abcdef
    unsafeSkipCAVerification: true
";

/// Runs with these words; the error text, after status 2 and a silent stdout were seen.
fn refused(words: &[&str]) -> String {
    let run = mortise(words, &[]);
    assert_eq!(run.status, 2, "{words:?}: {}", run.stderr);
    assert_eq!(run.stdout, "", "{words:?}");
    run.stderr
}

/// The same for `join --config` with this text; the file's directory is left out and nothing else is in it.
fn refused_file(text: &str, more: &[&str]) -> String {
    let (root, path) = configuration(text);
    let directory = root.path().to_str().unwrap();
    let words: Vec<&str> = ["join", "--config", &path, "--root", directory].iter().chain(more).copied().collect();
    let stderr = refused(&words);
    assert_eq!(entries(root.path()), ["join.yaml"]);
    stderr.replace(&format!("{directory}/"), "")
}

#[test]
fn an_unknown_flag_is_named_with_the_one_that_was_meant() {
    let stderr = refused(&["join", "a:1", "--tokn", "abcdef.canarycanarycana"]);
    assert!(stderr.starts_with("error: unexpected argument '--tokn' found"), "{stderr}");
    assert!(stderr.contains("'--token'"), "{stderr}");
    assert!(!stderr.contains("canary"), "{stderr}");
}

#[test]
fn an_unknown_phase_is_refused_before_anything_else() {
    let words = ["join", "a:1", "--token", TOKEN, "--discovery-token-ca-cert-hash", PIN, "--skip-phases", "etcd"];
    assert_eq!(
        refused(&words),
        "error: `--skip-phases`: `skipPhases`: invalid phase name: etcd\nhint: `mortise join phase --help` lists the phases\n"
    );
    assert!(refused(&["join", "phase", "etcd"]).contains("unrecognized subcommand 'etcd'"));
    assert!(refused(&["join", "phase"]).contains("Usage: mortise join phase"));
}

#[test]
fn flags_cannot_be_mixed_with_a_file() {
    assert_eq!(
        refused_file(JOIN, &["--token", TOKEN, "--patches", "/x", "-v", "1"]),
        "error: can not mix '--config' with arguments [patches token]\nhint: move these settings into the file, or leave out \
         `--config`\n"
    );
}

#[test]
fn misfits_of_a_file_are_named_with_line_and_column() {
    let text = format!("{JOIN}  tokn: CANARY\nnodeRegistration:\n  taints: x\n  name: a\n  name: b\n");
    assert_eq!(
        refused_file(&text, &[]),
        "error: 3 problems:
  - `join.yaml:8:3`: `discovery.tokn`: unknown field
  - `join.yaml:10:11`: `nodeRegistration.taints`: must be a list, found a string
  - `join.yaml:12:3`: `nodeRegistration.name`: duplicate field
hint: correct the field, or pass `--allow-unknown-fields` to be warned only, as kubeadm does
"
    );
    let one = refused_file(&format!("{JOIN}dryRun: CANARY\n"), &[]);
    assert_eq!(one, "error: `join.yaml:8:9`: `dryRun`: must be a boolean, found a string\n");
}

#[test]
fn an_old_api_is_refused_with_the_way_to_migrate() {
    let stderr = refused_file(&JOIN.replace("v1beta4", "v1beta3"), &[]);
    assert_eq!(
        stderr,
        "error: `join.yaml:1:1`: `kubeadm.k8s.io/v1beta3` of `JoinConfiguration` is an old API; only \
         `kubeadm.k8s.io/v1beta4` is read\nhint: use kubeadm v1.36: `kubeadm config migrate --old-config old.yaml \
         --new-config new.yaml`\n"
    );
}

#[test]
fn a_malformed_certificate_key_is_never_shown() {
    let line = ["join", "a:1", "--token", TOKEN, "--discovery-token-ca-cert-hash", PIN, "--control-plane"];
    let text = refused(&[&line[..], &["--certificate-key", "CANARY"]].concat());
    assert!(text.contains("64 hex digits; this one has 6 characters") && !text.contains("CANARY"), "{text}");
    assert!(text.contains("kubeadm init phase upload-certs"), "{text}");
    let text = refused_file(&format!("{JOIN}controlPlane: {{certificateKey: CANARY}}\n"), &[]);
    assert!(!text.contains("CANARY"), "{text}");
}

#[test]
fn a_malformed_token_is_never_shown_wherever_it_stands() {
    let pin = ["--discovery-token-ca-cert-hash", PIN];
    let broken = "abcdef.CANARYCANARYCANA";
    for words in [
        &["--token", broken][..],
        &["--token", TOKEN, "--tls-bootstrap-token", broken],
        &["--token", TOKEN, "abcdef.canarycanarycana"],
        &["--token", TOKEN, "abcdef.CANARYCANARYCANARY"],
        &["--token", TOKEN, "--node-name", broken, "--wait", "never"],
        &["--token", TOKEN, "--plugin", "a.wasm", "--grant", broken],
        &["--config", broken],
        &["--token", TOKEN, "--discovery-token-ca-cert-hash", broken],
        &["--token", TOKEN, "--skip-phases", broken],
        &["--token", TOKEN, "--wait", broken],
        &["--token", TOKEN, "--apiserver-bind-port", broken],
        &["--token", TOKEN, "--cri-socket", broken, "--discovery-file", broken],
        &["--token", TOKEN, "--dry-run=abcdef.canarycanarycana"],
    ] {
        let line: &[&str] = if words[0] == "--config" { &["join"] } else { &["join", "a:1", pin[0], pin[1]] };
        let words: Vec<&str> = line.iter().chain(words).copied().collect();
        let stderr = refused(&words);
        assert!(!stderr.to_lowercase().contains("canary"), "{words:?}: {stderr}");
        let json: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
        let run = mortise(&json, &[]);
        assert!(!(run.stdout + &run.stderr).to_lowercase().contains("canary"), "{words:?}");
    }
    let (root, _) = configuration("abcdef.CANARYCANARYCANA\n");
    let file = root.path().join("join.yaml");
    let stderr = refused(&["join", "a:1", pin[0], pin[1], "--token-file", file.to_str().unwrap()]);
    assert!(stderr.contains("`--token-file`: `discovery.bootstrapToken.token`"), "{stderr}");
    assert!(!stderr.contains("CANARY"), "{stderr}");
    let run = mortise(&["join", "a:1", pin[0], pin[1]], &[("MORTISE_TOKEN", broken)]);
    assert_eq!(run.status, 2);
    assert!(run.stderr.starts_with("error: `MORTISE_TOKEN`:") && !run.stderr.contains("CANARY"), "{}", run.stderr);
}

#[test]
fn a_broken_file_never_shows_its_content() {
    for text in [
        JOIN.replace("abcdef.0123456789abcdef", "\"abcdef.canarycanarycana"),
        JOIN.replace("abcdef.0123456789abcdef", "abcdef.canarycanarycana: x"),
        JOIN.replace("abcdef.0123456789abcdef", "[abcdef.canarycanarycana]"),
        JOIN.replace("abcdef.0123456789abcdef", "{abcdef.canarycanarycana: 1}"),
        JOIN.replace("abcdef.0123456789abcdef", "abcdef.canarycanarycana0"),
        JOIN.replace("token:", "abcdef.canarycanarycana:"),
        JOIN.replace("api:6443", "abcdef.canarycanarycana"),
        JOIN.replace("JoinConfiguration", "abcdef.canarycanarycana"),
        format!("{JOIN}skipPhases: [abcdef.canarycanarycana]\n"),
        format!("{JOIN}timeouts: {{discovery: abcdef.canarycanarycana}}\n"),
    ] {
        let stderr = refused_file(&text, &[]);
        assert!(!stderr.contains("canary"), "{text}\n{stderr}");
    }
}

#[test]
fn discovery_is_needed_once() {
    let stderr = refused(&["join"]);
    assert!(stderr.starts_with("error: `discovery`: bootstrapToken or file must be set\nhint: "), "{stderr}");
    let (root, path) = configuration("");
    let directory = root.path().to_str().unwrap();
    let both = ["join", "a:1", "--token", TOKEN, "--discovery-token-ca-cert-hash", PIN, "--discovery-file", &path];
    let both: Vec<&str> = both.iter().copied().chain(["--root", directory]).collect();
    assert_eq!(refused(&both), "error: `discovery`: bootstrapToken and file cannot both be set\n");
}

#[test]
fn programs_get_one_json_event_with_a_stable_code() {
    let run = mortise(&["join", "-o", "json"], &[]);
    assert_eq!((run.status, &*run.stderr), (2, ""));
    let event: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(event["event"], "error");
    assert_eq!(event["code"], "config-no-discovery");
    assert!(event["hint"].as_str().unwrap().contains("kubeadm token create"));
    let run = mortise(&["join", "--output=json", "--nonsense"], &[]);
    assert_eq!(run.status, 2);
    let event: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(event["code"], "usage");
    assert_eq!(event["message"], "unexpected argument '--nonsense' found");
}

#[test]
fn help_version_and_completion_go_to_stdout() {
    for (words, parts) in [
        (&["--help"][..], &["join", "preflight", "reset", "verify", "sandbox", "completion"][..]),
        (&["join", "--help"], &["--discovery-token-ca-cert-hash", "MORTISE_TOKEN", "--token-file", "HOST:PORT"]),
        (&["join", "phase", "--help"], &["kubelet-start", "tls-bootstrap", "control-plane-prepare"]),
        (&["join", "phase", "control-plane-prepare", "certs", "-h"], &["--apiserver-advertise-address"]),
        (&["preflight", "-h"], &["--ignore-preflight-errors", "--plugin", "--grant"]),
        (&["reset", "-h"], &["--cert-dir", "--cleanup-tmp-dir", "--force"]),
        (&["sandbox", "join", "-h"], &["--facts", "--plugin", "--root"]),
        (&["completion", "bash"], &["_mortise", "--discovery-token-ca-cert-hash"]),
        (&["completion", "zsh"], &["#compdef mortise"]),
        (&["completion", "fish"], &["complete -c mortise"]),
        (&["config", "print", "join-defaults"], &["kind: JoinConfiguration", "kubernetesAPICall: 1m0s"]),
        (&["version"], &["mortise v0."]),
        (&["version", "-o", "yaml"], &["version: v0."]),
    ] {
        let run = mortise(words, &[]);
        assert_eq!((run.status, &*run.stderr), (0, ""), "{words:?}");
        for part in parts {
            assert!(run.stdout.contains(part), "{part} is not in the output of {words:?}:\n{}", run.stdout);
        }
    }
    assert_eq!(mortise(&["version", "-o", "short"], &[]).stdout, concat!("v", env!("CARGO_PKG_VERSION"), "\n"));
    let json: serde_json::Value = serde_json::from_str(&mortise(&["version", "-o", "json"], &[]).stdout).unwrap();
    assert_eq!(json["kubeadm"], "v1.37.2");
}

#[test]
fn help_shows_no_value_of_the_environment() {
    let help = mortise(&["join", "--help"], &[("MORTISE_TOKEN", "canary"), ("MORTISE_DISCOVERY_TOKEN", "canary")]);
    assert!(help.stdout.contains("MORTISE_DISCOVERY_TOKEN") && !help.stdout.contains("canary"));
}

#[test]
fn a_join_that_cannot_begin_leaves_its_result_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_str().unwrap();
    let plugin = root.path().join("none.wasm");
    let words = ["join", "api.example:6443", "--token", "abcdef.0123456789abcdef", "--root", path, "--plugin"];
    let unsafe_skip = "--discovery-token-unsafe-skip-ca-verification";
    let socket = ["--cri-socket", "unix:///run/none.sock", "--node-name", "n1"];
    let words = [&words[..], &[plugin.to_str().unwrap(), unsafe_skip], &socket].concat();
    let run = mortise(&words, &[]);
    assert_ne!(run.status, 0, "{}", run.stderr);
    assert_eq!(entries(root.path()), ["run"]);
    let result = std::fs::read(root.path().join("run/mortise/result.json")).unwrap();
    let result: serde_json::Value = serde_json::from_slice(&result).unwrap();
    assert_eq!((&result["outcome"], &result["nodeName"]), (&"failed".into(), &"n1".into()));
    assert_eq!(result["error"]["exitCode"], run.status);
    // Whoever only looks changes nothing.
    std::fs::remove_dir_all(root.path().join("run")).unwrap();
    mortise(&[&words[..], &["--dry-run"]].concat(), &[]);
    assert!(entries(root.path()).is_empty());
}
