//! The leader of three goes while a fourth learns.

use crate::faults::site::{PATIENT, Site};
use crate::lab::{self, READY};

#[test]
#[ignore = "needs a cluster: root, 3 min"]
fn a_fourth_joins_although_the_leader_of_three_is_killed_while_it_learns() {
    let site = Site::up(1);
    for node in ["n2", "n3"] {
        site.cluster.add(node).unwrap();
        site.joins(node, &[]);
    }
    site.cluster.add("n4").unwrap();
    let mut joining = site.join("n4", PATIENT, &[]);
    site.learner_of("n1", "n4", &mut joining);
    let leader = leader(&site);
    lab::stop(&site.cluster, leader);
    let ended = joining.ends();
    eprintln!("killed: {leader}\n{}", ended.etcd_part());
    ended.succeeded();
    lab::start(&site.cluster, leader);
    site.cluster.wait_for_ready("n4", READY).unwrap();
    site.ends_with("the leader killed", &["n1", "n2", "n3", "n4"]);
}

/// The node whose member leads.
fn leader(site: &Site) -> &'static str {
    let leads = |node: &&&str| {
        let status = site.cluster.etcdctl(node, &["endpoint", "status", "-w", "json"]).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let status = &status[0]["Status"];
        status["leader"].is_u64() && status["leader"] == status["header"]["member_id"]
    };
    ["n1", "n2", "n3"].iter().find(leads).expect("one leads")
}
