//! Members whose data or machine is gone for good.

use super::site::{HASTY, PATIENT, Site};
use crate::lab::{self, SOON};

#[test]
#[ignore = "needs a cluster: root, 90 s"]
fn a_machine_made_again_gets_the_place_of_its_old_member_on_the_users_word_only() {
    let site = Site::up(1);
    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
        site.joins(node, &[]);
    }
    let old = site.member_of("n1", "n3");
    // A machine that is made again has nothing but its address.
    site.cluster.power_off("n3").unwrap();
    lab::delete_node(&site.cluster, "n3");
    site.cluster.add("n3").unwrap();
    let failed = site.join("n3", HASTY, &[]).ends().failed("etcd-join-member-not-ours");
    assert!(failed.hint.contains(&format!("--replace-member {}", old.id)), "{failed:?}");
    assert_eq!(site.member_of("n1", "n3"), old, "nothing was changed");
    site.joins("n3", &["--replace-member", &old.id]);
    assert_ne!(site.member_of("n1", "n3").id, old.id);
    site.ends_with("a machine made again", &["n1", "n2", "n3"]);
}

#[test]
#[ignore = "needs a cluster: root, 120 s"]
fn a_machine_lost_as_a_learner_or_as_a_third_voter_is_removed_by_id_from_another_node() {
    let site = Site::up(1);
    site.cluster.add("n2").unwrap();
    let mut joining = site.join("n2", PATIENT, &[]);
    let lost = site.learner_of("n1", "n2", &mut joining);
    site.cluster.power_off("n2").unwrap();
    drop(joining);
    site.cluster.etcdctl("n1", &["member", "remove", &lost.id]).unwrap();
    lab::delete_node(&site.cluster, "n2");

    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
        site.joins(node, &[]);
    }
    let lost = site.member_of("n1", "n3");
    site.cluster.power_off("n3").unwrap();
    // Any other control plane does it.
    site.cluster.etcdctl("n2", &["member", "remove", &lost.id]).unwrap();
    lab::delete_node(&site.cluster, "n3");
    site.ends_with("machines lost for good", &["n1", "n2"]);
}

#[test]
#[ignore = "needs a cluster: root, 100 s"]
fn one_of_two_lost_for_good_stops_the_cluster_and_the_message_names_what_brings_it_back() {
    let site = Site::up(1);
    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
    }
    site.joins("n2", &[]);
    site.cluster.power_off("n2").unwrap();
    let failed = site.join("n3", HASTY, &[]).ends().failed_somehow();
    eprintln!("{failed:?}");
    assert!(failed.hint.contains("add `--force-new-cluster` to /etc/kubernetes/manifests/etcd.yaml"), "{failed:?}");

    // What it says.
    let manifest = "/etc/kubernetes/manifests/etcd.yaml";
    site.shell("n1", &format!("sed -i 's/^    - etcd$/&\\n    - --force-new-cluster/' {manifest}"));
    lab::wait_until("one member", SOON, || {
        let list = site.cluster.etcdctl("n1", &["member", "list"]).map_err(|error| format!("{error:#}"))?;
        if list.lines().count() == 1 { Ok(()) } else { Err(list) }
    });
    site.shell("n1", &format!("sed -i /--force-new-cluster/d {manifest}"));
    lab::wait_until("etcd without the flag", SOON, || {
        let argv = site.shell("n1", "pgrep -x -a etcd || true");
        if argv.contains("etcd ") && !argv.contains("--force-new-cluster") { Ok(()) } else { Err(argv) }
    });
    lab::is_writable(&site.cluster, "again");
    lab::delete_node(&site.cluster, "n2");
    site.joins("n3", &[]);
    site.ends_with("one of two lost for good", &["n1", "n3"]);
}
