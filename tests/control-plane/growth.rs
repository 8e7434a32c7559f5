//! A cluster grows from one control plane to three, under a writer's eyes, and can then lose any one.

use std::time::{Duration, Instant};

use mortise_cluster::{Cluster, UpOptions};

use crate::lab::{self, By};
use crate::writer::Writer;

/// One control plane by kubeadm becomes three.
fn grow(second: By, third: By) -> Cluster {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    let writer = Writer::start(&cluster).unwrap();
    lab::join(&cluster, "n2", second);
    lab::join(&cluster, "n3", third);
    let history = writer.stop().unwrap();
    // A figure for the eye: on a busy machine it is the disk's.
    eprintln!("n2 by {second:?}, n3 by {third:?}: {}", history.summary());
    assert_eq!(history.violations(), Vec::<String>::new());
    assert_eq!(history.contents.len(), 3, "all three members were asked: {}", history.summary());
    for node in ["n1", "n2", "n3"] {
        assert_eq!(lab::members(&cluster, node), (3, 0), "voters and learners as {node} knows them");
        lab::answers_alone(&cluster, node);
    }
    cluster
}

/// Any one of three is stopped; workers stay Ready and the cluster takes writes.
fn lose_each_of_three(cluster: &Cluster) {
    cluster.add("n4").unwrap();
    cluster.join("n4").unwrap();
    for node in ["n1", "n2", "n3", "n4"] {
        cluster.wait_for_ready(node, lab::READY).unwrap();
    }
    for node in ["n3", "n2"] {
        lab::stop(cluster, node);
        lab::is_writable(cluster, &format!("without-{node}"));
        assert_eq!(lab::readiness(cluster, "n4").unwrap(), "True");
        lab::start(cluster, node);
    }
    // For good, and for long enough: once this Node is given up, a worker that had lost touch would be as well.
    cluster.power_off("n1").unwrap();
    lab::is_writable(cluster, "without-n1");
    lab::wait_until("n1 being given up", lab::SOON, || match lab::readiness(cluster, "n1")? {
        status if status == "True" => Err(status),
        _ => Ok(()),
    });
    for node in ["n2", "n3", "n4"] {
        assert_eq!(lab::readiness(cluster, node).unwrap(), "True", "{node}");
    }
}

#[test]
#[ignore = "needs a cluster: root, 150 s"]
fn three_control_planes_of_kubeadm_lose_no_write_and_can_lose_any_one() {
    lose_each_of_three(&grow(By::Kubeadm, By::Kubeadm));
}

#[test]
#[ignore = "needs a cluster: root, 150 s"]
fn two_control_planes_of_mortise_beside_one_of_kubeadm_lose_no_write_and_can_lose_any_one() {
    lose_each_of_three(&grow(By::Mortise, By::Mortise));
}

#[test]
#[ignore = "needs a cluster: root, 60 s"]
fn kubeadm_joins_after_mortise() {
    grow(By::Mortise, By::Kubeadm);
}

#[test]
#[ignore = "needs a cluster: root, 60 s"]
fn mortise_joins_after_kubeadm() {
    grow(By::Kubeadm, By::Mortise);
}

#[test]
#[ignore = "needs a cluster: root, 20 s"]
fn a_write_taken_away_by_hand_is_missed() {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    let writer = Writer::start(&cluster).unwrap();
    let (deadline, interval) = (Instant::now() + lab::SOON, Duration::from_millis(20));
    let lost = loop {
        if let Some(ack) = writer.so_far().acks.first() {
            break format!("/mortise-writer/written/{}/{:08}", ack.lane, ack.sequence);
        }
        assert!(Instant::now() < deadline, "nothing is acknowledged: {:?}", writer.so_far().failures);
        std::thread::sleep(interval);
    };
    assert_eq!(cluster.etcdctl("n1", &["del", &lost]).unwrap(), "1\n");
    let found = writer.stop().unwrap().violations();
    assert!(found.len() == 1 && found[0].contains(&lost), "{found:?}");
}
