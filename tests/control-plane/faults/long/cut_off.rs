//! etcd is out of reach from one request or answer of a whole join on, for good: the join ends, and the same command joins
//! when etcd is back.

use crate::faults::between::Between;
use crate::faults::cuts::CALLS;
use crate::faults::site::{HASTY, PATIENT, Site};
use crate::lab::READY;
use crate::proxy::Fault;

#[test]
#[ignore = "needs a cluster: root, 10 min"]
fn cut_off_from_any_request_or_answer_on_a_join_says_so_once_and_the_same_command_joins() {
    let site = Site::up(1);
    let between = Between::start(&site, "n1");
    let first = CALLS.map(|call| (None, call));
    // The same questions again, about a learner and about a voter.
    let later = [("MemberAdd", "MemberList"), ("MemberAdd", "Status"), ("MemberPromote", "MemberList")];
    let later = later.map(|(after, call)| (Some(after), call));
    for (after, call) in first.into_iter().chain(later) {
        for fault in [Fault::Request(call), Fault::Answer(call)] {
            let what = format!("{fault:?} after {after:?}");
            site.cluster.add("n2").unwrap();
            between.redirect(&site, "n2");
            between.proxy.end_at(after, fault);
            let ended = site.join("n2", HASTY, &[]).ends();
            assert!(between.proxy.has_ended(), "{what}: {}", ended.output);
            let failed = ended.failed_somehow();
            eprintln!("{what}: {failed:?}");
            let ids: Vec<String> = site.members("n1").into_iter().map(|member| member.id).collect();
            between.proxy.heal();
            site.join("n2", PATIENT, &[]).ends().succeeded();
            site.cluster.wait_for_ready("n2", READY).unwrap();
            let now = site.members("n1");
            assert!(now.len() == 2 && now.iter().all(|member| !member.is_learner), "{what}: {now:?}");
            assert!(ids.iter().all(|id| now.iter().any(|member| member.id == *id)), "{what}: {ids:?} became {now:?}");
            site.leaves("n2");
        }
    }
    site.ends_with("cut off at each request and answer", &["n1"]);
}
