//! Joins that succeed, what they leave, and what undoes them.

use crate::lab::{READY, SOON, Worker, cluster, shared};
use crate::tree::Tree;

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn joins_resets_to_what_add_made_and_joins_again() {
    let _shared = shared();
    let worker = Worker::add("again");
    let fresh = Tree::of(cluster(), &worker.name);
    worker.join(&[]).succeeds();
    cluster().wait_for_ready(&worker.name, READY).unwrap();

    worker.reset();
    let after = Tree::of(cluster(), &worker.name);
    assert_eq!(fresh.differences(&after), Vec::<String>::new(), "reset leaves the node as it was");
    assert_eq!(worker.shell("mount | grep /var/lib/kubelet/ || true"), "", "nothing stays mounted");
    assert!(!worker.is_ready(), "the Node is told to be not ready");

    worker.delete_node();
    worker.join(&["--wait=ready"]).succeeds();
    assert!(worker.is_ready());
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn leaves_the_files_that_kubeadm_leaves() {
    let _shared = shared();
    let theirs = Worker::add("kubeadm");
    cluster().join(&theirs.name).unwrap();
    cluster().wait_for_ready(&theirs.name, READY).unwrap();
    let kubeadm = Tree::of(cluster(), &theirs.name).normalized(&theirs.name);
    assert!(kubeadm.holds("/var/lib/kubelet/config.yaml"), "or nothing is compared");
    for way in ["host", "kubelet"] {
        let worker = Worker::add(&format!("files-by-{way}"));
        worker.join(&["--tls-bootstrap-by", way]).succeeds();
        cluster().wait_for_ready(&worker.name, READY).unwrap();
        let ours = Tree::of(cluster(), &worker.name).normalized(&worker.name);
        assert_eq!(kubeadm.differences(&ours), Vec::<String>::new(), "--tls-bootstrap-by={way}");
    }
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_second_join_changes_nothing_and_says_so() {
    let _shared = shared();
    for way in ["host", "kubelet"] {
        let worker = Worker::add(&format!("twice-by-{way}"));
        worker.join(&["--tls-bootstrap-by", way, "--wait=ready"]).succeeds();
        let once = Tree::of(cluster(), &worker.name);
        let kubelet = "systemctl show kubelet --property=MainPID --value";
        let before = worker.shell(kubelet);
        let second = worker.join(&["--tls-bootstrap-by", way]).succeeds();
        assert_eq!(once.differences(&Tree::of(cluster(), &worker.name)), Vec::<String>::new());
        assert_eq!(before, worker.shell(kubelet), "the kubelet is the same process");
        assert!(second.stderr.contains("unchanged"), "{}", second.stderr);
        assert!(!second.stderr.contains("restarted"), "{}", second.stderr);
    }
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn tells_a_program_each_step_and_leaves_its_result() {
    let _shared = shared();
    let worker = Worker::add("programs");
    let ended = worker.join(&["--wait=ready", "-o", "json"]).succeeds();
    assert!(worker.is_ready(), "--wait=ready returns when it is");
    let events: Vec<serde_json::Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.last().unwrap()["event"], "finished");
    let result: serde_json::Value = serde_json::from_str(&worker.shell("cat /run/mortise/result.json")).unwrap();
    assert_eq!(result["outcome"], "joined", "{result}");
    assert_eq!(result["nodeName"], "programs");
    let csr = result["csrName"].as_str().unwrap();
    cluster().kubectl(&["get", "csr", csr]).unwrap();
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let _shared = shared();
    let worker = Worker::add("dry");
    let fresh = Tree::of(cluster(), &worker.name);
    let ended = worker.join(&["--dry-run"]).succeeds();
    for path in ["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/config.yaml", "/etc/kubernetes/pki/ca.crt"] {
        assert!(ended.stdout.contains(path), "{path} is not in {}", ended.stdout);
    }
    assert_eq!(fresh.differences(&Tree::of(cluster(), &worker.name)), Vec::<String>::new());
    let calls = worker.shell("cat /var/log/node/systemctl.journal 2>/dev/null || true");
    for verb in [" stop ", " restart ", " start "] {
        assert!(!calls.contains(&format!("{verb}kubelet")), "{calls}");
    }
    let node = cluster().kubectl(&["get", "node", "dry", "--ignore-not-found"]).unwrap();
    assert_eq!(node, "");
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn verify_agrees_until_a_file_changes() {
    let _shared = shared();
    let worker = Worker::add("verified");
    worker.join(&["--wait=registered"]).succeeds();
    worker.mortise(&["verify"]).succeeds();
    worker.shell("echo '# changed' >> /var/lib/kubelet/kubeadm-flags.env");
    let ended = worker.mortise(&["verify"]).ends();
    assert_eq!(ended.status, Some(1), "{}{}", ended.stdout, ended.stderr);
    let all = ended.stdout + &ended.stderr;
    assert!(all.contains("/var/lib/kubelet/kubeadm-flags.env"), "{all}");
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn refuses_a_second_join_at_the_same_time() {
    let _shared = shared();
    let worker = Worker::add("crowded");
    let line = cluster().join_line().unwrap().replace("abcdef.", "uvwxyz.");
    let mut first = worker.join_by(&line, &[]).starts();
    first.tells("uvwxyz", SOON);
    let second = worker.join(&[]).fails();
    assert_eq!(second.status, Some(1), "{second:?}");
    assert_eq!(second.code, "join-in-progress", "{second:?}");
    assert!(first.is_running(), "the first is not disturbed");
    drop(first);
    worker.join(&["--wait=registered"]).succeeds();
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn refuses_the_name_of_a_ready_node_before_anything_is_asked_for() {
    let _shared = shared();
    let worker = Worker::add("impostor");
    let fresh = Tree::of(cluster(), &worker.name);
    let before = crate::approval::requests_for("n1");
    let failed = worker.join(&["--node-name", "n1"]).fails();
    assert_eq!((failed.status, failed.code.as_str()), (Some(1), "node-name-taken"), "{failed:?}");
    assert!(failed.message.contains("192.0.2.11"), "{failed:?}");
    assert_eq!(crate::approval::requests_for("n1"), before, "no request was made");
    let after = Tree::of(cluster(), &worker.name);
    assert_eq!(fresh.differences(&after), Vec::<String>::new());
}
