//! What a cluster can do, tried on one that these tests share. It goes when this process ends: its owner.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mortise_cluster::{Cluster, IGNORED_PREFLIGHT_ERRORS, UpOptions};

const READY_LIMIT: Duration = Duration::from_secs(60);

fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::up(&UpOptions::default()).unwrap())
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
#[ignore = "needs a cluster: root, 15 s, and 8 min for the first build"]
fn kubeadm_joins_a_worker_that_becomes_ready() {
    let cluster = shared();
    cluster.add("worker").unwrap();
    let line = cluster.join_line().unwrap();
    assert!(line.contains(&cluster.name().endpoint()), "the endpoint is a name: {line}");
    let ignored = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
    let printed = cluster.run("worker", &[&words(&line)[..], &[&ignored]].concat()).unwrap();
    assert!(printed.contains("This node has joined the cluster"), "{printed}");
    cluster.wait_for_ready("worker", READY_LIMIT).unwrap();
    assert_eq!(cluster.run("worker", &["systemctl", "is-active", "kubelet"]).unwrap(), "active\n");
}

#[test]
#[ignore = "needs a cluster: root, 15 s, and 8 min for the first build"]
fn a_fresh_join_line_has_a_token_of_its_own() {
    let cluster = shared();
    let fresh = cluster.fresh_join_line().unwrap();
    assert!(fresh.starts_with("kubeadm join "), "{fresh}");
    assert_ne!(fresh, cluster.join_line().unwrap());
    let control_plane = cluster.control_plane_join_line().unwrap();
    assert!(control_plane.contains("--control-plane --certificate-key "), "{control_plane}");
}

#[test]
#[ignore = "needs a cluster: root, 15 s, and 8 min for the first build"]
fn the_cluster_has_what_kubeadm_init_leaves() {
    let cluster = shared();
    let maps = cluster.kubectl(&["get", "configmaps", "-n", "kube-system", "-o", "name"]).unwrap();
    for name in ["kubeadm-config", "kubelet-config", "kube-proxy"] {
        assert!(maps.contains(&format!("configmap/{name}\n")), "{name} is not in {maps}");
    }
    let signature = ["get", "configmap", "cluster-info", "-n", "kube-public", "-o", "yaml"];
    assert!(cluster.kubectl(&signature).unwrap().contains("jws-kubeconfig-"), "cluster-info is signed");
}

#[test]
#[ignore = "needs a cluster: root, 15 s, and 8 min for the first build"]
fn a_delay_is_felt_each_way_until_it_is_turned_off() {
    let cluster = shared();
    let delay = Duration::from_millis(200);
    let ask = || {
        let started = Instant::now();
        cluster.kubectl(&["get", "--raw", "/version"]).unwrap();
        started.elapsed()
    };
    cluster.set_delay(delay).unwrap();
    let slow = ask();
    cluster.set_delay(Duration::ZERO).unwrap();
    // Connection, TLS and request: three round trips.
    assert!(slow >= delay * 6, "{slow:?}");
    let fast = ask();
    assert!(fast < slow - delay * 4, "{fast:?} without, {slow:?} with the delay");
}

#[test]
#[ignore = "needs root for namespaces"]
fn exec_passes_input_output_signals_and_exit_code() {
    let cluster = bare();
    cluster.add("n1").unwrap();
    let mut child = cluster
        .command("n1", &["sh", "-c", "hostname; cat; echo no >&2; exit 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"n1\nhello");
    assert_eq!(output.stderr, b"no\n");
    assert_eq!(output.status.code(), Some(7));
    let trap = "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = cluster.command("n1", &["sh", "-c", trap]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "told");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    let output = cluster.exec("n1", &["sh", "-c", "kill -KILL 0"]).unwrap();
    assert_eq!(output.status.code(), Some(128 + 9), "and this test's own process group is not meant");
}

#[test]
#[ignore = "needs root for namespaces"]
fn a_node_sees_nothing_of_another_and_writes_nothing_here() {
    let cluster = bare();
    for node in ["n1", "n2"] {
        cluster.add(node).unwrap();
    }
    cluster
        .run("n1", &["sh", "-c", "echo x > /etc/kubernetes/x; echo x > /etc/x; echo x > /var/lib/x; echo x > /run/x"])
        .unwrap();
    let look = ["sh", "-c", "ls /etc/kubernetes /etc/x /var/lib/x /run/x 2>/dev/null; true"];
    assert_eq!(cluster.run("n2", &look).unwrap().trim(), "/etc/kubernetes:");
    for path in ["/etc/x", "/var/lib/x", "/run/x", "/etc/kubernetes/x"] {
        assert!(!std::path::Path::new(path).exists(), "{path} was written on this machine");
    }
    let panic = std::fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    cluster.run("n1", &["sh", "-c", "echo 77 > /proc/sys/kernel/panic"]).unwrap();
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/panic").unwrap(), panic);
    let first = cluster.run("n1", &["cat", "/etc/machine-id", "/etc/hostname"]).unwrap();
    assert_ne!(first, cluster.run("n2", &["cat", "/etc/machine-id", "/etc/hostname"]).unwrap());
    assert_eq!(cluster.run("n1", &["cat", "/proc/1/comm"]).unwrap(), "mortise-cluster\n");
    cluster.run("n1", &["ping", "-c1", "-W1", "n2"]).map(drop).unwrap_or_else(|error| {
        // ping may not be installed; the name must be known in any case.
        let hosts = cluster.run("n1", &["cat", "/etc/hosts"]).unwrap();
        assert!(hosts.contains(" n2\n"), "{error:#}: {hosts}");
    });
}

#[test]
#[ignore = "needs root for namespaces"]
fn a_limited_disk_is_full_when_it_is_full() {
    let cluster = bare();
    cluster.add_with_disk("small", "1M").unwrap();
    let fill = ["dd", "if=/dev/zero", "of=/var/lib/kubelet/fill", "bs=64k", "count=32"];
    let error = cluster.run("small", &fill).unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    let write = cluster.exec("small", &["sh", "-c", "echo x > /etc/kubernetes/x"]).unwrap();
    assert!(!write.status.success(), "all three directories share one file system");
    cluster.run("small", &["sh", "-c", "echo x > /etc/x"]).unwrap();
}

#[test]
#[ignore = "needs root for namespaces"]
fn a_dying_kubelet_is_started_again_until_it_is_stopped() {
    let cluster = bare();
    cluster.add("n1").unwrap();
    let show = |property: &str| {
        let property = format!("--property={property}");
        cluster.run("n1", &["systemctl", "show", "kubelet", &property, "--value"]).unwrap().trim().to_owned()
    };
    assert_eq!((show("ActiveState"), show("NRestarts")), ("inactive".into(), "0".into()));
    let drop_in = "printf '[Service]\\nRestartSec=50ms\\n' > /etc/systemd/system/kubelet.service.d/90-test.conf";
    cluster.run("n1", &["sh", "-c", drop_in]).unwrap();
    cluster.run("n1", &["systemctl", "daemon-reload"]).unwrap();
    // Before a join there is no config.yaml, so it dies at once, as it does under systemd.
    cluster.run("n1", &["systemctl", "start", "kubelet"]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while show("NRestarts").parse::<u32>().unwrap() < 2 {
        assert!(Instant::now() < deadline, "restarted {} times", show("NRestarts"));
    }
    cluster.run("n1", &["systemctl", "stop", "kubelet"]).unwrap();
    assert_eq!((show("ActiveState"), show("SubState")), ("inactive".into(), "dead".into()));
    let restarts = show("NRestarts");
    let journal = cluster.run("n1", &["journalctl", "-u", "kubelet", "--no-pager", "-o", "cat"]).unwrap();
    assert!(journal.contains("/var/lib/kubelet/config.yaml"), "{journal}");
    assert!(journal.contains("Scheduled restart job, restart counter is at 2."), "{journal}");
    assert_eq!(show("NRestarts"), restarts, "a stopped kubelet stays stopped");
    let status = cluster.exec("n1", &["systemctl", "is-active", "kubelet"]).unwrap();
    assert_eq!((status.status.code(), &status.stdout[..]), (Some(3), &b"inactive\n"[..]));
}

#[test]
#[ignore = "needs root for namespaces"]
fn a_node_without_power_is_down_and_can_be_made_again() {
    let cluster = bare();
    let before = cluster.add("n1").unwrap();
    cluster.power_off("n1").unwrap();
    let error = String::from_utf8(cluster.exec("n1", &["true"]).unwrap().stderr).unwrap();
    assert!(error.contains("node `n1` is down"), "{error}");
    let after = cluster.add("n1").unwrap();
    assert_eq!(before.address, after.address);
    cluster.run("n1", &["ctr", "version"]).unwrap();
    let twice = cluster.add("n1").unwrap_err().to_string();
    assert!(twice.contains("already has a node `n1`"), "{twice}");
}

fn bare() -> Cluster {
    Cluster::up(&UpOptions { bare: true, ..UpOptions::default() }).unwrap()
}
