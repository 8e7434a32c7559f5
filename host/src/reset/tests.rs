use std::io::Cursor;

use super::*;
use crate::config::IgnoredChecks;
use crate::join::kubelet_start::KUBELET_DIRECTORY;
use crate::journal::{Effect, Header};
use crate::node::stub::{StubMachine, tree};
use crate::node::{Node, UnitAction};

fn settings(root: &Path) -> ResetSettings {
    ResetSettings {
        certificates_dir: None,
        cleanup_tmp_dir: false,
        cri_socket: None,
        dry_run: false,
        force: true,
        ignore: IgnoredChecks::default(),
        kubeconfig: "/etc/kubernetes/admin.conf".into(),
        skip_phases: Vec::new(),
        unmount_flags: Vec::new(),
        root: root.to_owned(),
    }
}

async fn reset(settings: &ResetSettings) -> Result<Vec<&'static str>, ResetError> {
    let machine = Arc::new(StubMachine::default());
    run(settings, machine.clone(), &Dialer::Tcp, &Reporter::new(Format::Json, false)).await?;
    Ok(machine.actions())
}

/// A machine with an empty kubelet directory and a file of the operator's.
fn fresh() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for directory in ["etc/kubernetes/manifests", "var/lib/kubelet", "var/lib/mortise", "run"] {
        std::fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    std::fs::write(root.path().join("etc/kubernetes/own"), "operator's").unwrap();
    root
}

fn open(root: &Path) -> Arc<Journal> {
    let header = Header { node_name: "n1".into(), endpoint: "e".into(), arguments: String::new() };
    Arc::new(Journal::open(root, header).unwrap())
}

/// What a join does, and what a kubelet makes of it.
async fn join(root: &Path, journal: Arc<Journal>) {
    let node = Node::new(root.to_owned(), Arc::new(StubMachine::default()), journal);
    crate::join::kubelet_start::claim_directory(&node).unwrap();
    node.ensure_file(Path::new("/var/lib/mortise/cluster.json"), b"{}", 0o600).unwrap();
    node.ensure_file(Path::new("/etc/kubernetes/pki/ca.crt"), b"ca", 0o644).unwrap();
    node.ensure_file(Path::new("/var/lib/kubelet/pki/kubelet-client-1.pem"), b"key", 0o600).unwrap();
    node.ensure_symlink(
        Path::new("/var/lib/kubelet/pki/kubelet-client-current.pem"),
        Path::new("kubelet-client-1.pem"),
    )
    .unwrap();
    node.ensure_file(Path::new("/etc/kubernetes/kubelet.conf"), b"broken", 0o600).unwrap();
    node.ensure_file(Path::new("/var/lib/kubelet/config.yaml"), b"{}", 0o644).unwrap();
    node.unit(UnitAction::Restart, "kubelet").await.unwrap();
    std::fs::create_dir_all(root.join("var/lib/kubelet/pods/uid/volumes")).unwrap();
    std::fs::write(root.join("var/lib/kubelet/cpu_manager_state"), "made by the kubelet").unwrap();
    std::fs::create_dir_all(root.join("var/log/pods/x")).unwrap();
    std::os::unix::fs::symlink("/etc", root.join("var/lib/kubelet/link")).unwrap();
}

#[tokio::test]
async fn leaves_the_machine_as_it_was_before_the_join() {
    let root = fresh();
    let before = tree(root.path());
    let journal = open(root.path());
    join(root.path(), journal.clone()).await;
    journal.finish().unwrap();
    drop(journal);
    crate::result::JoinResult::of("n1", None, std::time::Duration::ZERO, Ok(())).write(root.path()).unwrap();
    assert_ne!(tree(root.path()), before);
    assert_eq!(reset(&settings(root.path())).await.unwrap(), ["stop"]);
    // `/var/log` was made by the kubelet above what the record knows.
    std::fs::remove_dir(root.path().join("var/log")).unwrap();
    assert_eq!(tree(root.path()), before);
}

#[tokio::test]
async fn removes_the_state_directory_if_the_join_made_it() {
    let root = tempfile::tempdir().unwrap();
    let journal = open(root.path());
    journal.intend(Effect::Removal { path: "/x".into() }).unwrap();
    drop(journal);
    reset(&settings(root.path())).await.unwrap();
    assert!(!root.path().join("var/lib/mortise").exists());
}

#[tokio::test]
async fn a_reset_killed_after_any_step_goes_on() {
    // Removing any one thing by hand stands for a reset that was killed after that step.
    let gone = [
        "etc/kubernetes/pki/ca.crt",
        "etc/kubernetes/pki",
        "etc/kubernetes/kubelet.conf",
        "var/lib/kubelet",
        "var/lib/mortise/cluster.json",
    ];
    for path in gone {
        let root = fresh();
        let before = tree(root.path());
        let journal = open(root.path());
        join(root.path(), journal.clone()).await;
        drop(journal);
        Journal::begin_reset(root.path()).unwrap();
        let located = root.path().join(path);
        if located.is_dir() {
            std::fs::remove_dir_all(&located).unwrap();
        } else {
            std::fs::remove_file(&located).unwrap();
        }
        for _ in 0..2 {
            reset(&settings(root.path())).await.unwrap();
        }
        std::fs::create_dir_all(root.path().join("var/lib/kubelet")).unwrap();
        std::fs::remove_dir(root.path().join("var/log")).unwrap();
        assert_eq!(tree(root.path()), before, "{path}");
    }
}

#[tokio::test]
async fn a_join_after_half_a_reset_makes_a_whole_join() {
    let root = fresh();
    let before = tree(root.path());
    let journal = open(root.path());
    join(root.path(), journal.clone()).await;
    journal.finish().unwrap();
    drop(journal);
    Journal::begin_reset(root.path()).unwrap();
    std::fs::remove_file(root.path().join("etc/kubernetes/pki/ca.crt")).unwrap();
    let journal = open(root.path());
    assert!(journal.earlier().resetting && !journal.earlier().finished);
    let node = Node::new(root.path().to_owned(), Arc::new(StubMachine::default()), journal.clone());
    node.ensure_file(Path::new("/etc/kubernetes/pki/ca.crt"), b"ca", 0o644).unwrap();
    journal.finish().unwrap();
    drop((journal, node));
    assert!(Record::load(root.path()).unwrap().unwrap().finished);
    reset(&settings(root.path())).await.unwrap();
    std::fs::remove_dir(root.path().join("var/log")).unwrap();
    assert_eq!(tree(root.path()), before);
}

#[tokio::test]
async fn keeps_what_was_there_and_what_others_put_beside_it() {
    let root = fresh();
    std::fs::create_dir_all(root.path().join("etc/kubernetes/pki")).unwrap();
    std::fs::write(root.path().join("etc/kubernetes/kubelet.conf"), "operator's").unwrap();
    let journal = open(root.path());
    join(root.path(), journal).await;
    std::fs::write(root.path().join("etc/kubernetes/pki/mine.crt"), "").unwrap();
    reset(&settings(root.path())).await.unwrap();
    let at = |path: &str| root.path().join(path).exists();
    assert!(at("etc/kubernetes/pki/mine.crt") && at("etc/kubernetes/kubelet.conf") && at("etc/kubernetes/own"));
    assert!(!at("etc/kubernetes/pki/ca.crt"));
}

#[tokio::test]
async fn without_a_record_removes_what_kubeadm_reset_removes() {
    let root = fresh();
    let write = |path: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    };
    let removed = [
        "etc/kubernetes/pki/ca.crt",
        "etc/kubernetes/kubelet.conf",
        "etc/kubernetes/bootstrap-kubelet.conf",
        "etc/kubernetes/manifests/x.yaml",
        "var/lib/kubelet/config.yaml",
        "var/lib/kubelet/pods/a/b",
    ];
    let kept = ["etc/kubernetes/other.conf", "etc/kubernetes/tmp/x", "etc/cni/net.d/x", "var/lib/mortise/others"];
    removed.iter().chain(&kept).for_each(|path| write(path));
    reset(&settings(root.path())).await.unwrap();
    for path in removed {
        assert!(!root.path().join(path).exists(), "{path} is left");
    }
    for path in kept.iter().chain(&["etc/kubernetes/pki", "etc/kubernetes/manifests", "var/lib/kubelet"]) {
        assert!(root.path().join(path).exists(), "{path} is gone");
    }
    let all = ResetSettings {
        cleanup_tmp_dir: true,
        certificates_dir: Some("/etc/kubernetes/other".into()),
        ..settings(root.path())
    };
    write("etc/kubernetes/other/x");
    reset(&all).await.unwrap();
    assert!(!root.path().join("etc/kubernetes/tmp/x").exists() && !root.path().join("etc/kubernetes/other/x").exists());
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_lists_everything() {
    let root = fresh();
    join(root.path(), open(root.path())).await;
    let before = tree(root.path());
    let settings = ResetSettings { dry_run: true, force: false, ..settings(root.path()) };
    assert_eq!(reset(&settings).await.unwrap(), [""; 0]);
    assert_eq!(tree(root.path()), before);
    let record = Record::load(root.path()).unwrap();
    let listed: Vec<String> = plan::actions(
        record.as_ref(),
        &settings,
        &Journalless::new(root.path().to_owned()),
        plan::Asked { etcd: true, node: true },
        plan::EtcdPlan { local: None, departure: None },
    )
    .iter()
    .map(ToString::to_string)
    .collect();
    assert_eq!(
        listed,
        [
            "stop the kubelet",
            "mark the Node not ready, with its own certificate",
            "unmount everything below /var/lib/kubelet",
            "remove /etc/kubernetes/kubelet.conf",
            "remove /etc/kubernetes/pki/ca.crt",
            "remove /var/lib/mortise/cluster.json",
            "empty /usr/libexec/kubernetes",
            "empty /var/log/containers",
            "empty /var/log/pods",
            "empty /var/lib/kubelet",
            "remove the directory /etc/kubernetes/pki if it is empty",
            "remove the directory /usr/libexec/kubernetes if it is empty",
            "remove the directory /var/log/containers if it is empty",
            "remove the directory /var/log/pods if it is empty",
            "remove mortise's record of the join",
        ]
    );
}

#[tokio::test]
async fn an_etcd_member_a_running_join_and_an_unanswered_question_stop_it() {
    let root = fresh();
    let before = tree(root.path());
    for (file, content) in [
        (
            "etc/kubernetes/manifests/etcd.yaml",
            "spec: {containers: [{command: ['--advertise-client-urls=https://[::1]:1']}]}",
        ),
        ("etc/kubernetes/pki/etcd/ca.crt", "x"),
        ("etc/kubernetes/pki/etcd/healthcheck-client.crt", "x"),
        ("etc/kubernetes/pki/etcd/healthcheck-client.key", "x"),
    ] {
        std::fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
        std::fs::write(root.path().join(file), content).unwrap();
    }
    let unforced = ResetSettings { dry_run: true, force: false, ..settings(root.path()) };
    let joined = tree(root.path());
    let error = reset(&unforced).await.unwrap_err();
    assert_eq!(error.code(), "reset-etcd-unreachable");
    assert!(error.hint().unwrap().contains("--skip-phases remove-etcd-member"));
    assert_eq!(tree(root.path()), joined, "nothing was touched");
    std::fs::remove_dir_all(root.path().join("etc/kubernetes/pki")).unwrap();
    std::fs::remove_file(root.path().join("etc/kubernetes/manifests/etcd.yaml")).unwrap();
    assert_eq!(tree(root.path()), before);
    let running = open(root.path());
    assert_eq!(reset(&settings(root.path())).await.unwrap_err().code(), "join-in-progress");
    drop(running);
    for (answer, yes) in
        [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("yes please\n", false), ("n\n", false)]
    {
        assert_eq!(confirmed(&mut Cursor::new(answer), &mut Vec::new()), yes, "{answer:?}");
    }
}

#[tokio::test]
async fn what_fails_is_told_and_the_record_kept() {
    let root = fresh();
    let journal = open(root.path());
    journal
        .intend(Effect::File { path: "/etc/kubernetes/odd".into(), sha256: String::new(), mode: 0o600, replaced: None })
        .unwrap();
    join(root.path(), journal).await;
    // A directory where the record knows a file.
    std::fs::create_dir(root.path().join("etc/kubernetes/odd")).unwrap();
    let error = reset(&settings(root.path())).await.unwrap_err();
    assert_eq!(error.code(), "reset-incomplete");
    assert!(error.to_string().contains("cannot remove /etc/kubernetes/odd: "), "{error}");
    assert!(!root.path().join("etc/kubernetes/kubelet.conf").exists(), "the other steps are done");
    assert!(Record::load(root.path()).unwrap().unwrap().resetting);
    std::fs::remove_dir(root.path().join("etc/kubernetes/odd")).unwrap();
    reset(&settings(root.path())).await.unwrap();
    assert!(Record::load(root.path()).unwrap().is_none());
    assert!(root.path().join(KUBELET_DIRECTORY.trim_start_matches('/')).exists());
}

/// What a control plane has beside a worker, etcd's certificates left out so that nobody is asked.
fn make_control_plane(root: &Path) {
    let manifest = "spec: {volumes: [{name: etcd-data, hostPath: {path: /data/etcd}}]}";
    for (file, content) in [
        ("etc/kubernetes/manifests/etcd.yaml", manifest),
        ("etc/kubernetes/manifests/kube-apiserver.yaml", ""),
        ("etc/kubernetes/admin.conf", ""),
        ("etc/kubernetes/pki/ca.key", ""),
        ("data/etcd/member/wal/0.wal", "x"),
    ] {
        std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        std::fs::write(root.join(file), content).unwrap();
    }
}

#[tokio::test]
async fn without_a_record_a_control_plane_loses_what_kubeadm_takes() {
    let root = fresh();
    make_control_plane(root.path());
    reset(&settings(root.path())).await.unwrap();
    let left = |path: &str| std::fs::read_dir(root.path().join(path)).unwrap().count();
    assert_eq!((left("etc/kubernetes/manifests"), left("etc/kubernetes/pki"), left("data/etcd")), (0, 0, 0));
    assert!(!root.path().join("etc/kubernetes/admin.conf").exists());
    assert!(root.path().join("etc/kubernetes/own").exists());
}

#[tokio::test]
async fn data_of_a_member_that_was_not_looked_at_stays() {
    let root = fresh();
    make_control_plane(root.path());
    let skip = |phase: &str| ResetSettings { skip_phases: vec![phase.to_owned()], ..settings(root.path()) };
    reset(&skip("remove-etcd-member")).await.unwrap();
    assert!(root.path().join("data/etcd/member").exists());
    assert!(!root.path().join("etc/kubernetes/admin.conf").exists());
    make_control_plane(root.path());
    reset(&skip("cleanup-node")).await.unwrap();
    assert!(!root.path().join("data/etcd/member").exists());
    assert!(root.path().join("etc/kubernetes/admin.conf").exists(), "the rest was not asked for");
}

#[tokio::test]
async fn an_etcd_on_a_machine_that_is_no_control_plane_is_left_alone() {
    let root = fresh();
    std::fs::create_dir_all(root.path().join("var/lib/etcd/member")).unwrap();
    reset(&settings(root.path())).await.unwrap();
    assert!(root.path().join("var/lib/etcd/member").exists());
}

#[test]
fn the_plan_removes_the_member_before_its_data_and_certificates() {
    let root = fresh();
    make_control_plane(root.path());
    let (settings, files) = (settings(root.path()), Journalless::new(root.path().to_owned()));
    let local = member::local(None, &settings, &files).unwrap();
    let departure = member::Departure::Impossible { why: "the only voter".into() };
    let etcd = plan::EtcdPlan { local: Some(&local), departure: Some(&departure) };
    let actions = plan::actions(None, &settings, &files, plan::Asked { etcd: true, node: true }, etcd);
    let lines: Vec<String> = actions.iter().map(ToString::to_string).collect();
    let expected = [
        "stop the kubelet",
        "leave the etcd member where it is listed: the only voter",
        "empty /data/etcd",
        "unmount everything below /var/lib/kubelet",
        "empty /etc/kubernetes/manifests",
        "empty /var/lib/kubelet",
        "empty /etc/kubernetes/pki",
    ];
    assert_eq!(lines[..7], expected);
}
