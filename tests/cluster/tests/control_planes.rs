//! Clusters of several control planes: the real kubeadm's joins, and a balancer that knows who can answer.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mortise_cluster::{Cluster, IGNORED_PREFLIGHT_ERRORS, UpOptions};

const READY_LIMIT: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_millis(200);
/// Connections, each a new one: with two backends every second one would go to the wrong one.
const REQUESTS: usize = 20;

#[test]
#[ignore = "needs a cluster: root, 60 s, and 8 min for the first build"]
fn a_fresh_line_makes_a_third_control_plane_and_the_cluster_survives_the_first() {
    let cluster = Cluster::up(&UpOptions { control_planes: 2, ..UpOptions::default() }).unwrap();
    let key = |line: &str| line.split(' ').next_back().unwrap().to_owned();
    let line = cluster.fresh_control_plane_join_line().unwrap();
    assert_ne!(key(&line), key(&cluster.control_plane_join_line().unwrap()));
    cluster.add("n3").unwrap();
    let ignored = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
    let words: Vec<&str> = line.split(' ').chain([ignored.as_str()]).collect();
    cluster.run("n3", &words).unwrap();
    cluster.wait_for_ready("n3", READY_LIMIT).unwrap();
    let members = cluster.etcdctl("n3", &["member", "list"]).unwrap();
    let voters: Vec<&str> = members.lines().filter(|line| line.ends_with("false")).collect();
    assert_eq!(voters.len(), 3, "{members}");
    // A flag given by hand is not given twice.
    cluster.etcdctl("n3", &["--cacert=/etc/kubernetes/pki/etcd/ca.crt", "endpoint", "health"]).unwrap();
    cluster.power_off("n1").unwrap();
    assert_ne!(cluster.control_plane().unwrap(), "n1");
    wait_for_answer(&cluster);
    for _ in 0..REQUESTS {
        assert_eq!(cluster.kubectl(&["get", "--raw", "/livez/ping"]).unwrap(), "ok");
    }
}

/// Until a request is answered: the members that are left elect a leader first, and no API server is ready meanwhile.
fn wait_for_answer(cluster: &Cluster) {
    let deadline = Instant::now() + READY_LIMIT;
    while let Err(error) = cluster.kubectl(&["get", "--raw", "/livez/ping", "--request-timeout=5s"]) {
        assert!(Instant::now() < deadline, "{error:#}");
        std::thread::sleep(INTERVAL);
    }
}

#[test]
#[ignore = "needs a cluster: root, 20 s, and 8 min for the first build"]
fn nobody_is_sent_to_a_node_that_accepts_connections_and_is_not_ready() {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    cluster.add("silent").unwrap();
    let listen = "socat -d -d TCP-LISTEN:6443,fork,reuseaddr SYSTEM:'cat >/dev/null' 2>&1";
    let mut silent = cluster.command("silent", &["sh", "-c", listen]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(silent.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("listening on")));
    for _ in 0..REQUESTS {
        assert_eq!(cluster.kubectl(&["get", "--raw", "/livez/ping", "--request-timeout=5s"]).unwrap(), "ok");
    }
    silent.kill().unwrap();
    silent.wait().unwrap();
}
