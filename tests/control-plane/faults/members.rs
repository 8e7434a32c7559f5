//! Members whose data or machine is gone for good.

use super::site::{HASTY, PATIENT, Site};
use crate::lab::{self, SOON};

#[test]
#[ignore = "needs a cluster: root, 90 s"]
fn a_member_whose_data_was_taken_away_comes_back_only_as_a_new_one() {
    let site = Site::up(1);
    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
        site.joins(node, &[]);
    }
    let old = site.member_of("n1", "n3");
    // Emptied under it; etcd may not come back by itself with nothing, so the manifest goes first.
    site.shell("n3", "rm /etc/kubernetes/manifests/etcd.yaml");
    lab::wait_until("etcd's end on n3", SOON, || match site.shell("n3", "pgrep -x etcd || true").trim() {
        "" => Ok(()),
        running => Err(running.to_owned()),
    });
    site.shell("n3", "rm -rf /var/lib/etcd/member");

    let failed = site.join("n3", HASTY, &[]).ends().failed("etcd-join-data-gone");
    assert!(failed.hint.contains(&format!("--replace-member {}", old.id)), "{failed:?}");
    assert_eq!(site.member_of("n1", "n3"), old, "nothing was changed");
    let ended = site.join("n3", PATIENT, &["--replace-member", &old.id]).ends();
    ended.succeeded();
    assert_ne!(site.member_of("n1", "n3").id, old.id);
    site.ends_with("a data directory emptied", &["n1", "n2", "n3"]);
}

#[test]
#[ignore = "needs a cluster: root, 120 s"]
fn a_machine_lost_as_a_learner_or_as_a_third_voter_is_removed_by_id_from_another_node() {
    let site = Site::up(1);
    site.cluster.add("n2").unwrap();
    let joining = site.join("n2", PATIENT, &[]);
    let lost = site.member_of("n1", "n2");
    site.cluster.power_off("n2").unwrap();
    drop(joining);
    assert!(lost.is_learner, "{lost:?}");
    site.cluster.etcdctl("n1", &["member", "remove", &lost.id]).unwrap();
    site.cluster.kubectl(&["delete", "node", "n2", "--ignore-not-found"]).unwrap();

    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
        site.joins(node, &[]);
    }
    let lost = site.member_of("n1", "n3");
    site.cluster.power_off("n3").unwrap();
    // Any other control plane does it.
    site.cluster.etcdctl("n2", &["member", "remove", &lost.id]).unwrap();
    site.cluster.kubectl(&["delete", "node", "n3"]).unwrap();
    site.ends_with("machines lost for good", &["n1", "n2"]);
}
