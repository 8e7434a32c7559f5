//! A worker joins a cluster that kubeadm made: `mortise join` beside `kubeadm join`, on the real thing.
//!
//! One cluster serves all tests of this file; each test has nodes of its own.

use std::sync::OnceLock;
use std::time::Duration;

use mortise_cluster::{Cluster, IGNORED_PREFLIGHT_ERRORS, UpOptions};

mod tree;

use tree::Tree;

const MORTISE: &str = env!("CARGO_BIN_EXE_mortise");
/// How long a node may take to become Ready.
const READY: Duration = Duration::from_secs(60);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::up(&UpOptions::default()).expect("a cluster comes up"))
}

/// The line that `kubeadm init` printed, for mortise, with what this machine's control groups make necessary.
fn join_arguments(extra: &[&str]) -> Vec<String> {
    let line = cluster().join_line().unwrap();
    let mut arguments = vec![MORTISE.to_owned()];
    arguments.extend(line.split_whitespace().skip(1).map(str::to_owned));
    arguments.push(format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}"));
    arguments.extend(extra.iter().map(|&argument| argument.to_owned()));
    arguments
}

struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(node: &str, arguments: &[String]) -> Ended {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = cluster().exec(node, &arguments).unwrap();
    Ended {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[track_caller]
fn succeed(node: &str, arguments: &[String]) -> Ended {
    let ended = run(node, arguments);
    assert_eq!(ended.status, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    ended
}

fn reset(node: &str) {
    succeed(node, &[MORTISE.to_owned(), "reset".to_owned(), "--force".to_owned()]);
}

fn delete_node(node: &str) {
    cluster().kubectl(&["delete", "node", node]).unwrap();
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn joins_resets_to_what_add_made_and_joins_again() {
    cluster().add("n2").unwrap();
    let fresh = Tree::of(cluster(), "n2");
    succeed("n2", &join_arguments(&[]));
    cluster().wait_for_ready("n2", READY).unwrap();

    reset("n2");
    let after = Tree::of(cluster(), "n2");
    assert_eq!(fresh.differences(&after), Vec::<String>::new(), "reset leaves the node as it was");

    delete_node("n2");
    succeed("n2", &join_arguments(&["--wait=ready"]));
    delete_node("n2");
    cluster().power_off("n2").unwrap();
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn leaves_the_files_that_kubeadm_leaves() {
    for (node, extra) in [("n3", "--tls-bootstrap-by=host"), ("n4", "--tls-bootstrap-by=kubelet")] {
        cluster().add(node).unwrap();
        succeed(node, &join_arguments(&[extra]));
        cluster().wait_for_ready(node, READY).unwrap();
    }
    cluster().add("n5").unwrap();
    cluster().join("n5").unwrap();
    cluster().wait_for_ready("n5", READY).unwrap();
    let kubeadm = Tree::of(cluster(), "n5").normalized("n5");
    for node in ["n3", "n4"] {
        let ours = Tree::of(cluster(), node).normalized(node);
        assert_eq!(kubeadm.differences(&ours), Vec::<String>::new(), "{node}");
    }
    for node in ["n3", "n4", "n5"] {
        delete_node(node);
        cluster().power_off(node).unwrap();
    }
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_second_join_changes_nothing_and_says_so() {
    cluster().add("n6").unwrap();
    succeed("n6", &join_arguments(&[]));
    let once = Tree::of(cluster(), "n6");
    succeed("n6", &join_arguments(&[]));
    assert_eq!(once.differences(&Tree::of(cluster(), "n6")), Vec::<String>::new());
    delete_node("n6");
    cluster().power_off("n6").unwrap();
}
