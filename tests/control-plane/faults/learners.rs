//! etcd takes one learner at a time.

use std::process::{Child, Stdio};

use mortise_cluster::IGNORED_PREFLIGHT_ERRORS;

use super::site::{HASTY, PATIENT, Site};
use crate::lab::{self, READY, SOON};

const ETCD_MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

#[test]
#[ignore = "needs a cluster: root, 60 s"]
fn two_join_at_once_and_the_second_waits_and_says_for_whom() {
    let site = Site::up(1);
    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
    }
    let joining = ["n2", "n3"].map(|node| site.join(node, PATIENT, &[]));
    let ended = joining.map(|joining| joining.ends());
    for ended in &ended {
        ended.succeeded();
    }
    // Either may have come first.
    let waited = |own: usize, other: &str| {
        let place = "etcd takes one learner at a time; now it has ";
        let peer = format!("https://{}:2380", site.address(other));
        ended[own].output.lines().any(|line| line.contains(place) && line.contains(&peer))
    };
    assert!(waited(0, "n3") != waited(1, "n2"), "one waits for the other: {ended:#?}");
    site.ends_with("two joins at once", &["n1", "n2", "n3"]);
}

#[test]
#[ignore = "needs a cluster: root, 90 s"]
fn a_learner_of_a_kubeadm_that_died_is_named_and_goes_on_the_users_word() {
    let site = Site::up(1);
    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
    }
    let mut kubeadm = kubeadm(&site, "n2");
    // The moment after it was added; the machine goes with it, so that nobody starts it.
    let left = site.member_of("n1", "n2");
    site.cluster.power_off("n2").unwrap();
    kubeadm.wait().unwrap();
    assert!(left.is_learner, "{left:?}");

    let failed = site.join("n3", HASTY, &[]).ends().failed("etcd-join-slot");
    for part in [&left.id, &left.peer_url] {
        assert!(failed.message.contains(part), "{failed:?}");
    }
    assert!(failed.hint.contains(&format!("--replace-member {}", left.id)), "{failed:?}");
    assert_eq!(site.members("n1").len(), 2, "nothing is added and nobody else's is removed");
    assert!(site.members("n1").contains(&left));

    site.joins("n3", &["--replace-member", &left.id]);
    // The machine comes back, under its name and with nothing.
    lab::delete_node(&site.cluster, "n2");
    lab::join(&site.cluster, "n2", lab::By::Mortise);
    site.cluster.wait_for_ready("n2", READY).unwrap();
    site.ends_with("a learner of a dead kubeadm", &["n1", "n2", "n3"]);
}

#[test]
#[ignore = "needs a cluster: root, 90 s"]
fn a_learner_that_runs_on_after_its_kubeadm_died_is_named_and_goes_with_a_reset_of_its_machine() {
    let site = Site::up(1);
    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
    }
    let mut kubeadm = kubeadm(&site, "n2");
    // From here on the kubelet alone starts etcd, and nobody is left to ask for its vote.
    site.shell("n2", &format!("until [ -e {ETCD_MANIFEST} ]; do sleep 0.01; done"));
    kubeadm.kill().unwrap();
    kubeadm.wait().unwrap();
    let mut left = site.member_of("n1", "n2");
    lab::wait_until("the learner's start", SOON, || {
        left = site.member_of("n1", "n2");
        if left.has_started { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert!(left.is_learner, "{left:?}");

    // Another machine's join neither waits for good nor takes what is not its own.
    let failed = site.join("n3", HASTY, &[]).ends().failed("etcd-join-slot");
    for part in [&left.id, &left.peer_url] {
        assert!(failed.message.contains(part), "{failed:?}");
    }
    // A join of its own machine is refused by the files there, and says what ends it.
    let refused = site.join("n2", HASTY, &[]).ends().output;
    assert!(refused.contains("kubelet.conf already exists") && refused.contains("run `mortise reset`"), "{refused}");
    assert_eq!(site.member_of("n1", "n2"), left, "nothing was changed");
    assert_eq!(site.members("n1").len(), 2, "nothing was added");

    site.cluster.run("n2", &[lab::MORTISE, "reset", "--force"]).unwrap();
    let ids: Vec<String> = site.members("n1").into_iter().map(|member| member.id).collect();
    assert!(!ids.contains(&left.id) && ids.len() == 1, "{ids:?}");
    for node in ["n2", "n3"] {
        site.joins(node, &[]);
    }
    site.ends_with("a learner that runs on without its kubeadm", &["n1", "n2", "n3"]);
}

/// `kubeadm join --control-plane`, which dies with the value returned when that is killed.
fn kubeadm(site: &Site, node: &str) -> Child {
    let line = site.cluster.control_plane_join_line().unwrap();
    let ignore = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
    let words: Vec<&str> = line.split(' ').chain([ignore.as_str()]).collect();
    let mut command = site.cluster.command(node, &words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}
