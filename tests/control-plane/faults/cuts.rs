//! Requests to etcd and answers that are lost, during a whole join.

use super::between::Between;
use super::site::{HASTY, PATIENT, Site};
use crate::lab::READY;
use crate::proxy::Fault;

/// All that a join asks etcd.
pub(super) const CALLS: [&str; 4] = ["MemberList", "Status", "MemberAdd", "MemberPromote"];

#[test]
#[ignore = "needs a cluster: root, 40 s"]
fn a_join_that_loses_each_request_and_each_answer_once_joins() {
    let site = Site::up(1);
    let between = Between::start(&site, "n1");
    site.cluster.add("n2").unwrap();
    between.redirect(&site, "n2");
    for call in CALLS {
        between.proxy.lose(Fault::Request(call));
        between.proxy.lose(Fault::Answer(call));
    }
    let joined = site.joins("n2", &[]);
    assert!(between.proxy.has_lost(), "{}", joined.output);
    let calls = between.proxy.calls();
    assert!(calls.iter().all(|call| CALLS.contains(&call.as_str())), "one was not lost: {calls:?}");
    site.ends_with("each request and answer lost once", &["n1", "n2"]);
}

#[test]
#[ignore = "needs a cluster: root, 70 s"]
fn a_promotion_answered_by_an_error_although_it_happened_is_looked_up() {
    let site = Site::up(1);
    let between = Between::start(&site, "n1");
    // gRPC's codes: what may have happened after all, and what a second request is refused with.
    for (code, text) in [(14, "etcdserver: request timed out"), (9, "etcdserver: can only promote a learner member")] {
        site.cluster.add("n2").unwrap();
        between.redirect(&site, "n2");
        between.proxy.lose(Fault::Error("MemberPromote", code, text));
        let joined = site.joins("n2", &[]);
        assert!(between.proxy.has_lost(), "{}", joined.output);
        assert!(joined.output.contains("it votes, although the answer was"), "{}", joined.output);
        assert_eq!(site.members("n1").iter().filter(|member| !member.is_learner).count(), 2);
        site.leaves("n2");
    }

    // A refusal that no etcd gives for what it has done. The join cannot know better, but it takes no vote back.
    site.cluster.add("n2").unwrap();
    between.redirect(&site, "n2");
    between.proxy.lose(Fault::Error("MemberPromote", 7, "etcdserver: permission denied"));
    let ended = site.join("n2", HASTY, &[]).ends();
    ended.failed("etcd-refused");
    assert!(ended.output.contains("votes already and stays; the same command goes on from there"), "{}", ended.output);
    site.join("n2", PATIENT, &[]).ends().succeeded();
    site.cluster.wait_for_ready("n2", READY).unwrap();
    site.ends_with("promotions answered by errors", &["n1", "n2"]);
}
