//! Joins by either program, and what is asked of a cluster afterwards.

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use mortise_cluster::{ADMIN_CONFIG, Cluster, IGNORED_PREFLIGHT_ERRORS};

/// How long a node may take to become Ready.
pub(crate) const READY: Duration = Duration::from_secs(180);
/// How long anything else that must happen may take.
pub(crate) const SOON: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_millis(200);
pub(crate) const MORTISE: &str = env!("CARGO_BIN_EXE_mortise");

/// What a node is joined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Kubeadm,
    Mortise,
}

/// Adds a node and joins it as a control plane, until it is Ready.
#[track_caller]
pub(crate) fn join(cluster: &Cluster, node: &str, by: By) {
    cluster.add(node).unwrap();
    match by {
        By::Kubeadm => cluster.join_control_plane(node).unwrap(),
        By::Mortise => {
            let output = try_mortise(cluster, node, &[]);
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success(), "the join of {node} ended with {}:\n{stdout}{stderr}", output.status);
        }
    }
    cluster.wait_for_ready(node, READY).unwrap();
}

/// `mortise join --control-plane` on a node that was added, to its end, whatever that is. No output may show a secret.
#[track_caller]
pub(crate) fn try_mortise(cluster: &Cluster, node: &str, extra: &[&str]) -> Output {
    try_mortise_in(cluster, node, &[], extra)
}

/// The same with variables, each as `NAME=value`.
#[track_caller]
pub(crate) fn try_mortise_in(cluster: &Cluster, node: &str, environment: &[&str], extra: &[&str]) -> Output {
    let line = cluster.control_plane_join_line().unwrap();
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let ignore = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
    let argv = [&["env"][..], environment, &[MORTISE], &words, &[ignore.as_str()], extra].concat();
    let output = cluster.exec(node, &argv).unwrap();
    let after = |flag: &str| words[words.iter().position(|word| *word == flag).unwrap() + 1];
    let (_, token_secret) = after("--token").split_once('.').unwrap();
    for secret in [token_secret, after("--certificate-key")] {
        for shown in [&output.stdout, &output.stderr] {
            assert!(!text(shown).contains(secret), "a secret is shown: {}", text(shown));
        }
    }
    output
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a file that only root may read, without its content on any command line.
pub(crate) fn write(cluster: &Cluster, node: &str, path: &str, content: &str) {
    let script = format!("umask 077; mkdir -p \"$(dirname {path})\"; cat > {path}");
    let mut child = cluster.command(node, &["bash", "-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "writing {path}");
}

/// A word of the line that joins a control plane.
pub(crate) fn after(line: &str, flag: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    words[words.iter().position(|word| *word == flag).unwrap() + 1].to_owned()
}

/// A control plane's join that ended well, and its Node.
#[track_caller]
pub(crate) fn is_whole(cluster: &Cluster, node: &str, output: &Output) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "the join of {node} ended with {}:\n{stdout}{stderr}", output.status);
    cluster.wait_for_ready(node, READY).unwrap();
    let columns = "jsonpath={.metadata.labels} {.spec.taints}";
    let marks = cluster.kubectl(&["get", "node", node, "-o", columns]).unwrap();
    let role = "node-role.kubernetes.io/control-plane";
    assert!(marks.contains(&format!("\"{role}\":\"\"")) && marks.contains(&format!("\"key\":\"{role}\"")), "{marks}");
}

/// Waits until `holds` does.
#[track_caller]
pub(crate) fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + limit;
    while let Err(last) = holds() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}; last seen: {last}");
        std::thread::sleep(INTERVAL);
    }
}

/// Voters and learners, as a node's own member lists them.
pub(crate) fn members(cluster: &Cluster, node: &str) -> (usize, usize) {
    let list = cluster.etcdctl(node, &["member", "list"]).unwrap();
    let learners = list.lines().filter(|line| line.ends_with("true")).count();
    (list.lines().count() - learners, learners)
}

/// Asks one API server alone, by its address.
#[track_caller]
pub(crate) fn answers_alone(cluster: &Cluster, node: &str) {
    let address = cluster.nodes().unwrap().into_iter().find(|found| found.name == node).unwrap().address;
    let server = format!("--server=https://{address}:6443");
    let argv = ["kubectl", "--kubeconfig", ADMIN_CONFIG, &server, "get", "nodes", "-o", "name"];
    let nodes = cluster.run(node, &argv).unwrap();
    assert!(nodes.contains(&format!("node/{node}\n")), "{nodes}");
}

/// The status of a Node's condition Ready: `True`, `False` or `Unknown`.
pub(crate) fn readiness(cluster: &Cluster, node: &str) -> Result<String, String> {
    let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    cluster.kubectl(&["get", "node", node, "-o", ready]).map_err(|error| format!("{error:#}"))
}

/// Writes through the endpoint: one attempt may hit an election.
#[track_caller]
pub(crate) fn is_writable(cluster: &Cluster, name: &str) {
    wait_until("a write through the endpoint", SOON, || {
        let written = cluster.kubectl(&["create", "configmap", name, "-n", "default"]);
        match written.map_err(|error| format!("{error:#}")) {
            Err(error) if !error.contains("AlreadyExists") && !error.contains("already exists") => Err(error),
            _ => Ok(()),
        }
    });
}

/// One attempt may hit an API server that loses its etcd for a moment: a member of it was removed, or began again.
#[track_caller]
pub(crate) fn delete_node(cluster: &Cluster, node: &str) {
    wait_until(&format!("Node {node} is deleted"), SOON, || {
        let deleted = cluster.kubectl(&["delete", "node", node, "--ignore-not-found"]);
        deleted.map(drop).map_err(|error| format!("{error:#}"))
    });
}

/// Stops all that runs on a control plane but containerd, at once.
pub(crate) fn stop(cluster: &Cluster, node: &str) {
    let script = "systemctl stop kubelet; for task in $(ctr -n k8s.io task ls -q); do \
                  ctr -n k8s.io task kill -s SIGKILL \"$task\"; done; true";
    cluster.run(node, &["bash", "-c", script]).unwrap();
}

/// Starts it again, and waits until its member is healthy and its API server answers.
#[track_caller]
pub(crate) fn start(cluster: &Cluster, node: &str) {
    cluster.run(node, &["systemctl", "start", "kubelet"]).unwrap();
    wait_until("etcd's health", SOON, || {
        cluster.etcdctl(node, &["endpoint", "health"]).map(drop).map_err(|error| format!("{error:#}"))
    });
    let ready = ["kubectl", "--kubeconfig", ADMIN_CONFIG, "--server=https://127.0.0.1:6443", "get", "--raw", "/readyz"];
    let ready = [&ready[..], &["--tls-server-name=kubernetes"]].concat();
    wait_until("the API server's readiness", SOON, || {
        cluster.run(node, &ready).map(drop).map_err(|error| format!("{error:#}"))
    });
}
