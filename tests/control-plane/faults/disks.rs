//! No room on the new node.

use super::site::{HASTY, Site};

/// etcd asks for the database and 256 MiB.
const SMALL: &str = "mount -t tmpfs -o size=200m none /var/lib/etcd";
/// As much as is asked for; as soon as etcd begins there too little, at once, and then none.
const FILLED: &str = "mount -o remount,size=400m /var/lib/etcd
setsid bash -c 'until [ -d /var/lib/etcd/member ]; do sleep 0.01; done; mount -o remount,size=100m /var/lib/etcd; \
    cat /dev/zero > /var/lib/etcd/other' > /dev/null 2>&1 < /dev/null &";
const ROOM: &str = "rm -f /var/lib/etcd/other; mount -o remount,size=1g /var/lib/etcd";

#[test]
#[ignore = "needs a cluster: root, 50 s"]
fn a_disk_that_is_small_or_fills_up_before_promotion_costs_the_learner_only() {
    let site = Site::up(1);
    site.cluster.add("n2").unwrap();
    let before = site.members("n1");
    site.shell("n2", SMALL);
    let failed = site.join("n2", HASTY, &[]).ends().failed("etcd-join-space");
    assert!(failed.message.contains("`/var/lib/etcd` has 200 MiB free"), "{failed:?}");
    assert_eq!(site.members("n1"), before);

    site.shell("n2", FILLED);
    let ended = site.join("n2", HASTY, &[]).ends();
    let failed = ended.failed("etcd-join-space");
    assert!(failed.message.contains("MiB free, and a member needs 128 MiB"), "{failed:?}");
    assert!(ended.output.contains("add a learner"), "{}", ended.output);
    assert_eq!(site.members("n1"), before, "its learner is gone, and nothing else");

    site.shell("n2", ROOM);
    site.joins("n2", &[]);
    site.ends_with("no room for the new member", &["n1", "n2"]);
}
