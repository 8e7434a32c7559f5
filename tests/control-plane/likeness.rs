//! What control planes of one cluster have in common, and that a difference is seen; and that kubeadm goes on with ours.

use mortise_cluster::{Cluster, IGNORED_PREFLIGHT_ERRORS, UpOptions};

use crate::lab::{self, By};
use crate::leaves;
use crate::tree::Tree;

/// A name that is in no other word: see [`leaves::of`].
const NODE: &str = "control-two";

#[test]
#[ignore = "needs a cluster: root, 60 s"]
fn two_control_planes_differ_in_nothing_but_what_they_are_called_and_whom_etcd_met_first() {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    for node in [NODE, "control-three"] {
        lab::join(&cluster, node, By::Kubeadm);
    }
    let [two, three] = [NODE, "control-three"].map(|node| leaves::of(&cluster, node));
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
    cluster.run(NODE, &["sh", "-c", script]).unwrap();
    let differences = leaves::of(&cluster, NODE).differences(&two);
    let told =
        |path: &str| differences.iter().any(|line| line.starts_with(&format!("differs: /etc/kubernetes/{path}")));
    let [scheduler, admin, client] =
        ["manifests/kube-scheduler.yaml", "admin.conf", "pki/front-proxy-client.crt"].map(told);
    assert!(scheduler && admin && client && differences.len() == 3, "{differences:#?}");
}

#[test]
#[ignore = "needs a cluster: root, 90 s"]
fn mortise_leaves_what_kubeadm_leaves() {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    let theirs = joined_and_gone(&cluster, By::Kubeadm);
    let ours = joined_and_gone(&cluster, By::Mortise);
    assert_eq!(theirs.differences(&ours), Vec::<String>::new());
}

/// Joins the node, tells what it is left with, and makes it as if it had never been: the next one has its name, its
/// address and the same members before it.
fn joined_and_gone(cluster: &Cluster, by: By) -> Tree {
    lab::join(cluster, NODE, by);
    let tree = leaves::of(cluster, NODE);
    cluster.run(NODE, &["kubeadm", "reset", "--force"]).unwrap();
    assert_eq!(lab::members(cluster, "n1"), (1, 0), "kubeadm takes the member of {by:?} away");
    cluster.power_off(NODE).unwrap();
    lab::delete_node(cluster, NODE);
    tree
}

#[test]
#[ignore = "needs a cluster: root, 90 s"]
fn kubeadm_renews_and_upgrades_a_control_plane_of_its_own() {
    goes_on_with(By::Kubeadm);
}

#[test]
#[ignore = "needs a cluster: root, 90 s"]
fn kubeadm_renews_and_upgrades_a_control_plane_of_mortise() {
    goes_on_with(By::Mortise);
}

/// What an administrator does with a control plane later, each with the real kubeadm.
fn goes_on_with(by: By) {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    lab::join(&cluster, NODE, by);
    let expirations = || cluster.run(NODE, &["kubeadm", "certs", "check-expiration"]).unwrap();
    let listed = expirations();
    // Only `kubeadm init` writes that one.
    let missing: Vec<&str> = listed.lines().filter(|line| line.contains("MISSING")).map(str::trim).collect();
    assert_eq!(missing, ["!MISSING! super-admin.conf"], "{listed}");
    for name in ["admin.conf", "apiserver", "apiserver-etcd-client", "etcd-healthcheck-client", "front-proxy-client"] {
        assert!(listed.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} is not in {listed}");
    }
    let serial = || {
        let show = ["openssl", "x509", "-noout", "-serial", "-in", "/etc/kubernetes/pki/apiserver.crt"];
        cluster.run(NODE, &show).unwrap()
    };
    let before = serial();
    cluster.run(NODE, &["kubeadm", "certs", "renew", "all"]).unwrap();
    assert_ne!(serial(), before);
    let ignore = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
    let said = cluster.run(NODE, &["kubeadm", "upgrade", "node", &ignore]).unwrap();
    assert!(said.contains("The control plane instance for this node was successfully upgraded!"), "{said}");
    cluster.wait_for_ready(NODE, lab::READY).unwrap();
    lab::answers_alone(&cluster, NODE);
    assert_eq!(lab::members(&cluster, NODE), (2, 0));
}
