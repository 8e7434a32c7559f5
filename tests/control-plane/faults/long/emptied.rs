//! A member's data taken away while its etcd is stopped.

use crate::faults::site::{HASTY, PATIENT, Site};
use crate::lab::{self, SOON};

#[test]
#[ignore = "needs a cluster: root, 3 min"]
fn a_member_whose_data_was_taken_away_comes_back_only_as_a_new_one() {
    let site = Site::up(1);
    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
        site.joins(node, &[]);
    }
    let old = site.member_of("n1", "n3");
    // The manifest goes first: etcd must not come back by itself.
    site.shell("n3", "rm /etc/kubernetes/manifests/etcd.yaml");
    lab::wait_until("etcd's end on n3", SOON, || match site.shell("n3", "pgrep -x etcd || true").trim() {
        "" => Ok(()),
        running => Err(running.to_owned()),
    });
    site.shell("n3", "rm -rf /var/lib/etcd/member");

    let failed = site.join("n3", HASTY, &[]).ends().failed("etcd-join-data-gone");
    assert!(failed.hint.contains(&format!("--replace-member {}", old.id)), "{failed:?}");
    assert_eq!(site.member_of("n1", "n3"), old, "nothing was changed");
    // The kubelet asks the API server of its own machine, which has no etcd, to forget the Pod first: 34 s, twice.
    site.join("n3", 3 * PATIENT, &["--replace-member", &old.id]).ends().succeeded();
    assert_ne!(site.member_of("n1", "n3").id, old.id);
    site.ends_with("a data directory emptied", &["n1", "n2", "n3"]);
}
