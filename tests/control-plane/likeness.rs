//! What control planes of one cluster have in common, and that a difference is seen.

use std::time::Duration;

use mortise_cluster::{Cluster, UpOptions};

use crate::leaves;

const READY: Duration = Duration::from_secs(120);

/// Joins a node that nothing was ever done to.
fn join_by_kubeadm(cluster: &Cluster, node: &str) {
    cluster.add(node).unwrap();
    cluster.join_control_plane(node).unwrap();
    cluster.wait_for_ready(node, READY).unwrap();
}

#[test]
#[ignore = "needs a cluster: root, 60 s"]
fn two_control_planes_differ_in_nothing_but_what_they_are_called_and_whom_etcd_met_first() {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    for node in ["control-two", "control-three"] {
        join_by_kubeadm(&cluster, node);
    }
    let [two, three] = ["control-two", "control-three"].map(|node| leaves::of(&cluster, node));
    for path in
        ["/etc/kubernetes/admin.conf", "/etc/kubernetes/pki/etcd/peer.key", "/etc/kubernetes/manifests/etcd.yaml"]
    {
        assert!(two.holds(path), "{path}");
    }
    let differences = two.differences(&three);
    assert!(
        differences.len() == 1 && differences[0].starts_with("differs: /etc/kubernetes/manifests/etcd.yaml"),
        "{differences:#?}"
    );
    let script = "cd /etc/kubernetes && sed -i s/leader-elect=true/leader-elect=false/ manifests/kube-scheduler.yaml && \
                  chmod 644 admin.conf && cp pki/apiserver-kubelet-client.crt pki/front-proxy-client.crt";
    cluster.run("control-two", &["sh", "-c", script]).unwrap();
    let differences = leaves::of(&cluster, "control-two").differences(&two);
    let told =
        |path: &str| differences.iter().any(|line| line.starts_with(&format!("differs: /etc/kubernetes/{path}")));
    let [scheduler, admin, client] =
        ["manifests/kube-scheduler.yaml", "admin.conf", "pki/front-proxy-client.crt"].map(told);
    assert!(scheduler && admin && client && differences.len() == 3, "{differences:#?}");
}
