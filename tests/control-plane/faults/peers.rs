//! Members that do not reach each other.

use super::site::{HASTY, Site};

#[test]
#[ignore = "needs a cluster: root, 50 s"]
fn a_machine_that_reaches_no_member_is_refused_or_loses_its_learner_and_joins_when_it_does() {
    let site = Site::up(1);
    site.cluster.add("n2").unwrap();
    let before = site.members("n1");
    // Clients are let through, members are not; silently, as by a firewall.
    site.shell("n2", "iptables -A OUTPUT -p tcp --dport 2380 -j DROP");
    let ended = site.join("n2", HASTY, &[]).ends();
    let failed = ended.failed("etcd-join-peers");
    assert!(failed.message.contains("https://192.0.2.11:2380): no connection within"), "{failed:?}");
    assert!(!ended.output.contains("add a learner"), "nothing is announced: {}", ended.output);

    // It is closed when the learner is there already.
    site.shell("n2", "iptables -F OUTPUT");
    let mut joining = site.join("n2", HASTY, &[]);
    site.learner_of("n1", "n2", &mut joining);
    site.shell(
        "n2",
        "iptables -A OUTPUT -p tcp --dport 2380 -j REJECT; iptables -A INPUT -p tcp --dport 2380 -j REJECT",
    );
    let ended = joining.ends();
    let failed = ended.failed("etcd-join-stalled");
    assert!(failed.message.contains("not reached from here: n1 (id "), "{failed:?}");
    assert_eq!(site.members("n1"), before, "its learner is gone, and nothing else");
    assert!(site.shell("n2", "ls /etc/kubernetes/manifests").is_empty(), "nothing starts etcd");

    site.shell("n2", "iptables -F");
    site.joins("n2", &[]);
    site.ends_with("no way between members", &["n1", "n2"]);
}
