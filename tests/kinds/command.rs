//! `mortise plugin run` and `plugin embed`, as an author or operator types them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::built::built;
use crate::endings::guest;
use crate::plugin::Request;

/// A directory with a plugin, its settings and whatever else a test writes.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new(component: &[u8]) -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        bench.write("it.wasm", component);
        bench
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn mortise(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mortise"));
        command.current_dir(self.directory.path()).arg("plugin").args(arguments).output().unwrap()
    }

    /// Exit status, stdout and stderr of `plugin run` of the guest that does so.
    fn run(&self, action: &str, more: &[&str]) -> (i32, String, String) {
        self.write("settings.yaml", format!("do: {action}\n"));
        texts(self.mortise(&[&["run", "it.wasm", "--settings", "settings.yaml"], more].concat()))
    }
}

fn texts(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn prints_what_a_plugin_of_every_kind_answers_without_its_secret() {
    let bench = Bench::new(guest());
    let (code, stdout, stderr) = bench.run("answer", &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    insta::assert_snapshot!(stdout, @r"
    no checks in this stage
    endpoint: 10.0.0.1:6443
    trust: pins
    pin: sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a
    credential: bearer token
    cluster-name: blue
        zone: \u{1b}[2Jeu
    approve (as-set): the settings\u{1b} say so
        do: answer
    ");
}

#[test]
fn programs_read_each_ending_and_then_the_error() {
    let bench = Bench::new(guest());
    for (action, ending, code) in [
        ("error", "refused", "plugin-refused"),
        ("trap", "broke", "plugin-broke"),
        ("denied", "denied", "plugin-denied"),
    ] {
        let (status, stdout, _) = bench.run(action, &["-o", "json"]);
        let events: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let answer = events.iter().find(|event| event["event"] == "plugin-answer").unwrap();
        assert_eq!((status, &answer["ending"], &answer["answer"]), (1, &ending.into(), &serde_json::Value::Null));
        let last = events.last().unwrap();
        assert_eq!((&last["event"], &last["code"]), (&"error".into(), &code.into()), "{stdout}");
    }
}

#[test]
fn a_log_line_is_shown_without_its_control_characters() {
    let (_, _, stderr) = Bench::new(guest()).run("log", &[]);
    assert!(stderr.contains("[it] info: asked\\u{1b}[2J") && !stderr.contains('\u{1b}'), "{stderr}");
}

#[test]
fn wrong_files_are_named_before_anything_runs() {
    let hook = Bench::new(&built("mortise-example-approve-inventory"));
    let grant = ["--grant", "files=/etc/mortise/inventory:read:1Mi"];
    let ask = |more: &[&str]| texts(hook.mortise(&[&["run", "it.wasm"], &grant[..], more].concat()));
    hook.write("key.pem", rcgen::KeyPair::generate().unwrap().serialize_pem());
    hook.write("list.yaml", "- one\n");
    hook.write("object.yaml", "kind: Node\n");
    for (more, words) in [
        (&[][..], "an approval hook judges a certificate request, and none was given\nhint: give it with `--csr FILE`"),
        (&["--csr", "absent.pem"], "cannot read the certificate request `absent.pem`"),
        (&["--csr", "key.pem"], "no single block `CERTIFICATE REQUEST`"),
        (&["--csr", "object.yaml"], "`object.yaml` is neither a request in PEM nor a CertificateSigningRequest"),
        (&["--settings", "absent.yaml"], "cannot read the settings `absent.yaml`"),
        (&["--settings", "list.yaml"], "the settings `list.yaml` are no mapping"),
    ] {
        let (code, stdout, stderr) = ask(more);
        assert_eq!((code, stdout.as_str()), (2, ""), "{more:?}: {stderr}");
        assert!(stderr.contains(words) && !stderr.contains("PRIVATE"), "{more:?}: {stderr}");
    }
    let check = Bench::new(&built("mortise-example-gpu-driver"));
    check.write("node.pem", Request::new("", "n1").pem());
    let flags = ["--grant", "facts=modules", "--grant", "files=/proc/driver/nvidia/version:read"];
    let (code, _, stderr) = texts(check.mortise(&[&["run", "it.wasm", "--csr", "node.pem"], &flags[..]].concat()));
    assert_eq!(code, 2);
    assert!(stderr.contains("the plugin is no approval hook\nhint: leave out `--csr`"), "{stderr}");
}

/// A PEM alone is judged as the kubelet that would send it; an object of the API as the API server shows it.
#[test]
fn a_hook_judges_a_pem_and_an_object() {
    let bench = Bench::new(guest());
    bench.write("it.pem", Request::new("", "worker-1").pem());
    let object = Request::new("kubernetes.io/kubelet-serving", "worker-1").object();
    bench.write("it.yaml", serde_json::to_vec(&object).unwrap());
    for file in ["it.pem", "it.yaml"] {
        let (code, stdout, stderr) = bench.run("answer", &["--csr", file]);
        assert!(code == 0 && stdout.contains("approve (as-set)"), "{file}: {stdout}{stderr}");
    }
}

#[test]
fn a_manifest_is_embedded_once_and_only_a_good_one() {
    let bench = Bench::new(&built("mortise-test-kinds-guest"));
    let before = std::fs::read(bench.directory.path().join("it.wasm")).unwrap();
    bench.write("bad.yaml", "schema: mortise.dev/plugin/v1alpha1\nid: a\nversion: 1\nkind: cni\n");
    let good = "schema: mortise.dev/plugin/v1alpha1\nid: a\nversion: '1'\nkind: approval\n";
    bench.write("plugin.yaml", good);
    let embed = |more: &[&str]| texts(bench.mortise(&[&["embed", "it.wasm"], more].concat()));
    let (code, _, stderr) = embed(&["--manifest", "bad.yaml"]);
    assert!(code == 2 && stderr.contains("its manifest is not valid"), "{stderr}");
    assert_eq!(std::fs::read(bench.directory.path().join("it.wasm")).unwrap(), before, "it was written all the same");
    let (code, stdout, stderr) = embed(&[]);
    assert!(code == 0 && stdout.starts_with("sha256:"), "{stderr}");
    let (code, _, stderr) = embed(&[]);
    assert!(code == 2 && stderr.contains("hint: it has a manifest already"), "{stderr}");
    let (code, _, stderr) = texts(bench.mortise(&["embed", "it.wasm", "--manifest", "absent.yaml"]));
    assert!(code == 2 && stderr.contains("cannot read the manifest `absent.yaml`"), "{stderr}");
    assert!(
        Path::new(bench.directory.path())
            .read_dir()
            .unwrap()
            .all(|it| { !it.unwrap().file_name().to_string_lossy().starts_with(".mortise-") })
    );
}
