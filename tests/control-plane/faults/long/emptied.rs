//! A member's data taken away under it. A member that forgot what it agreed to may only come back as a new one.

use crate::faults::site::{HASTY, Listed, PATIENT, Site};
use crate::lab::{self, SOON};

/// Three control planes, and the third one's member.
fn three() -> (Site, Listed) {
    let site = Site::up(1);
    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
        site.joins(node, &[]);
    }
    let member = site.member_of("n1", "n3");
    (site, member)
}

/// The join says what to add to it, changes nothing, and with that takes the old member's place.
fn comes_back_as_a_new_one(site: Site, old: &Listed, code: &str, what: &str) {
    let failed = site.join("n3", HASTY, &[]).ends().failed(code);
    assert!(failed.hint.contains(&format!("--replace-member {}", old.id)), "{failed:?}");
    assert_eq!(site.member_of("n1", "n3"), *old, "nothing was changed");
    // The kubelet asks the API server of its own machine, which has no etcd, to forget the Pod first: 34 s, twice.
    site.join("n3", 3 * PATIENT, &["--replace-member", &old.id]).ends().succeeded();
    assert_ne!(site.member_of("n1", "n3").id, old.id);
    site.ends_with(what, &["n1", "n2", "n3"]);
}

#[test]
#[ignore = "needs a cluster: root, 3 min"]
fn a_member_whose_data_was_taken_away_while_it_was_stopped_comes_back_as_a_new_one() {
    let (site, old) = three();
    site.shell("n3", "rm /etc/kubernetes/manifests/etcd.yaml");
    lab::wait_until("etcd's end on n3", SOON, || match site.shell("n3", "pgrep -x etcd || true").trim() {
        "" => Ok(()),
        running => Err(running.to_owned()),
    });
    site.shell("n3", "rm -rf /var/lib/etcd/member");
    // Its etcd is not even started.
    comes_back_as_a_new_one(site, &old, "etcd-join-data-gone", "emptied while stopped");
}

#[test]
#[ignore = "needs a cluster: root, 3 min"]
fn a_member_whose_data_was_taken_away_while_it_ran_comes_back_as_a_new_one() {
    let (site, old) = three();
    // etcd starts again by itself, as the member that it was, and ends at the first word of its leader.
    site.shell("n3", "rm -rf /var/lib/etcd/member; pkill -9 -x etcd");
    lab::wait_until("etcd's complaint on n3", SOON, || {
        let found = site.shell("n3", "grep -l 'Was the raft log corrupted' /var/log/pods/*_etcd-*/etcd/*.log || true");
        if found.is_empty() { Err("none".into()) } else { Ok(()) }
    });
    // The new log has the ids of the old one: only etcd itself knows.
    comes_back_as_a_new_one(site, &old, "etcd-join-down", "emptied while running");
}
