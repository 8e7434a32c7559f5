use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::api::Dialer;
use crate::api::scripted::{TOKEN, test_context, token_discovery};
use crate::journal::{Header, Journal};
use crate::node::UnitState;
use crate::node::stub::StubMachine;
use crate::plan::Plan;

fn cluster() -> ClusterConfiguration {
    ClusterConfiguration {
        cluster_name: "kubernetes".into(),
        kubernetes_version: "v1.37.2".into(),
        certificates_dir: "/etc/kubernetes/pki".into(),
        kubeadm: serde_json::Value::Null,
        kubelet: json!({"kind": "KubeletConfiguration"}),
    }
}

/// A join on a stub machine whose record is in memory.
fn context(machine: StubMachine) -> (tempfile::TempDir, Arc<StubMachine>, JoinContext) {
    let (directory, mut cx) = test_context(&Dialer::Tcp, token_discovery("127.0.0.1:1", Vec::new()));
    let machine = Arc::new(machine);
    cx.node = Node::new(directory.path().to_owned(), machine.clone(), Arc::new(Journal::in_memory()));
    (directory, machine, cx)
}

async fn write_all(cx: &JoinContext) {
    write_config(&cluster(), kubelet_config::resolves_by_systemd(&cx.node).await, cx).unwrap();
    write_flags(Start::Lasting, cx).unwrap();
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn stops_writes_and_starts_with_kubeadms_modes() {
    let (directory, machine, cx) = context(StubMachine::default());
    stop(&cx).await.unwrap();
    write_all(&cx).await;
    start(None, &cx).await.unwrap();
    assert_eq!(machine.actions(), ["stop", "daemon-reload", "restart"]);
    let at = |path: &str| directory.path().join(path.trim_start_matches('/'));
    assert_eq!(mode(at(KUBELET_DIRECTORY)), 0o700);
    for path in [CONFIG, INSTANCE_CONFIG, FLAGS] {
        assert_eq!(mode(at(path)), 0o644, "{path}");
    }
    let text = |path: &str| std::fs::read_to_string(at(path)).unwrap();
    assert_eq!(text(FLAGS), "KUBELET_KUBEADM_ARGS=\"\"\n");
    assert_eq!(
        text(CONFIG),
        "containerRuntimeEndpoint: unix:///var/run/containerd/containerd.sock\nkind: KubeletConfiguration\n"
    );
    assert_eq!(text(INSTANCE_CONFIG), "containerRuntimeEndpoint: \"unix:///var/run/containerd/containerd.sock\"\n");
}

#[tokio::test]
async fn a_second_run_leaves_a_kubelet_alone_that_runs_with_these_files() {
    let (_directory, machine, cx) = context(StubMachine::default());
    for _ in 0..3 {
        stop(&cx).await.unwrap();
        write_all(&cx).await;
        start(None, &cx).await.unwrap();
    }
    assert_eq!(machine.actions().len(), 3, "{:?}", machine.actions());
    // Something it reads changed.
    cx.node.ensure_file(Path::new("/etc/kubernetes/kubelet.conf"), b"new", 0o600).unwrap();
    start(None, &cx).await.unwrap();
    assert_eq!(machine.actions().len(), 5);
    // It was stopped by somebody.
    machine.kubelet.lock().unwrap().as_mut().unwrap().active = false;
    start(None, &cx).await.unwrap();
    assert_eq!(machine.actions().len(), 7);
    // A removal is no reason: the bootstrap credential goes at the end.
    cx.node.remove(Path::new("/etc/kubernetes/kubelet.conf")).unwrap();
    start(None, &cx).await.unwrap();
    assert_eq!(machine.actions().len(), 7);
}

#[tokio::test]
async fn a_start_that_a_killed_run_did_not_complete_is_repeated() {
    let (directory, machine, mut cx) = context(StubMachine::default());
    let open = || {
        let header = Header { node_name: "n1".into(), endpoint: "e".into(), arguments: String::new() };
        Journal::open(directory.path(), header).unwrap()
    };
    let journal = open();
    journal.intend(Effect::Unit { unit: UNIT.into(), action: "restart".into() }).unwrap();
    drop(journal);
    cx.node = Node::new(directory.path().to_owned(), machine.clone(), Arc::new(open()));
    start(None, &cx).await.unwrap();
    assert_eq!(machine.actions(), ["daemon-reload", "restart"]);
}

#[tokio::test]
async fn a_failed_start_is_an_error_with_the_last_words_and_without_the_token() {
    let secret = TOKEN.split('.').nth(1).unwrap();
    let mut log: Vec<String> = (0..30).map(|n| format!("line {n}")).collect();
    log.push(format!("token {TOKEN} \u{1b}[31m and {secret} {}", "x".repeat(1000)));
    let (_directory, _machine, cx) = context(StubMachine { start_fails: true, log, ..StubMachine::default() });
    let error = start(None, &cx).await.unwrap_err();
    assert_eq!(error.code(), "kubelet-not-started");
    let text = error.to_string();
    assert!(text.contains("cannot restart unit `kubelet`: job failed; its last log lines:\n  - line 21\n"), "{text}");
    assert!(text.contains("token abcdef.<hidden> \\u{1b}[31m and <hidden> xxx"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() < LOG_LINE_CHARS + 20), "{text}");
    assert!(!text.contains(secret), "{text}");
}

#[tokio::test]
async fn a_missing_unit_is_an_error_and_a_missing_init_system_is_not() {
    let missing = UnitState { exists: false, active: false, restarts: None };
    let (_directory, machine, cx) = context(StubMachine { kubelet: Some(missing).into(), ..StubMachine::default() });
    assert_eq!(stop(&cx).await.unwrap_err().code(), "kubelet-no-unit");
    assert_eq!(start(None, &cx).await.unwrap_err().code(), "kubelet-no-unit");
    assert_eq!(machine.actions(), [""; 0]);
    let (_directory, machine, cx) = context(StubMachine { kubelet: None.into(), ..StubMachine::default() });
    stop(&cx).await.unwrap();
    start(None, &cx).await.unwrap();
    assert_eq!(machine.actions(), [""; 0]);
}

#[tokio::test]
async fn uses_the_resolver_file_of_systemd_resolved_unless_the_cluster_names_one() {
    for (kubelet, expected) in [
        (json!({}), "resolvConf: /run/systemd/resolve/resolv.conf\n"),
        (json!({"resolvConf": "/etc/own"}), "resolvConf: /etc/own\n"),
    ] {
        let (directory, _machine, cx) = context(StubMachine { resolved: true, ..StubMachine::default() });
        let resolved = kubelet_config::resolves_by_systemd(&cx.node).await;
        write_config(&ClusterConfiguration { kubelet, ..cluster() }, resolved, &cx).unwrap();
        let text = std::fs::read_to_string(directory.path().join("var/lib/kubelet/config.yaml")).unwrap();
        assert!(text.ends_with(expected), "{text}");
    }
}

#[tokio::test]
async fn a_dry_run_touches_neither_files_nor_units() {
    let (directory, machine, mut cx) = context(StubMachine::default());
    let plan = Arc::new(Plan::default());
    cx.node = Node::planning(directory.path().to_owned(), machine.clone(), plan.clone());
    stop(&cx).await.unwrap();
    write_all(&cx).await;
    start(None, &cx).await.unwrap();
    assert_eq!(machine.actions(), [""; 0]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let text = plan.text();
    for line in [
        "would stop the unit kubelet",
        "would write /var/lib/kubelet/config.yaml (mode 0644",
        "would restart the unit kubelet",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
