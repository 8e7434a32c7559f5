//! A cluster grows under a writer's eyes.

use std::time::Duration;

use mortise_cluster::{Cluster, UpOptions};

use crate::writer::Writer;

#[test]
#[ignore = "needs a cluster: root, 60 s"]
fn a_cluster_that_kubeadm_grows_to_three_loses_no_write() {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    let writer = Writer::start(&cluster).unwrap();
    for node in ["n2", "n3"] {
        cluster.add(node).unwrap();
        cluster.join_control_plane(node).unwrap();
    }
    let history = writer.stop().unwrap();
    assert_eq!(history.violations(), Vec::<String>::new());
    assert_eq!(history.contents.len(), 3, "all three were asked: {:?}", history.members);
    // A figure for the eye: on a busy machine it is the disk's.
    eprintln!("{}", history.summary());
}

#[test]
#[ignore = "needs a cluster: root, 20 s"]
fn a_write_taken_away_by_hand_is_missed() {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    let writer = Writer::start(&cluster).unwrap();
    let (deadline, interval) = (std::time::Instant::now() + Duration::from_secs(30), Duration::from_millis(20));
    let lost = loop {
        if let Some(ack) = writer.so_far().acks.first() {
            break format!("/mortise-writer/written/{}/{:08}", ack.lane, ack.sequence);
        }
        assert!(std::time::Instant::now() < deadline, "nothing is acknowledged: {:?}", writer.so_far().failures);
        std::thread::sleep(interval);
    };
    assert_eq!(cluster.etcdctl("n1", &["del", &lost]).unwrap(), "1\n");
    let found = writer.stop().unwrap().violations();
    assert!(found.len() == 1 && found[0].contains(&lost), "{found:?}");
}
