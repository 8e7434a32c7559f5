//! What etcd 3.7 answers: the table that `host/src/etcd/error.rs` follows, asked with the real `etcdctl`.

use mortise::etcd::{EtcdError, Refusal};

use crate::lab::{Cluster, SOON, until};

/// gRPC code and text, from the line that etcdctl ends with.
fn answer(output: &std::process::Output) -> (String, String) {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let error =
        text.rsplit_once("rpc error: code = ").map(|(_, rest)| rest.trim_end_matches(['}', '"', '\n']).to_owned());
    let error = error.or_else(|| text.rsplit_once("Error: ").map(|(_, rest)| format!("? desc = {}", rest.trim())));
    let error = error.unwrap_or_else(|| panic!("no error in: {text}"));
    let (code, text) = error.split_once(" desc = ").expect("code and text");
    (code.to_owned(), text.strip_prefix("etcdserver: ").unwrap_or(text).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn etcd_refuses_in_the_words_that_the_client_knows() {
    let cluster = Cluster::of_one();
    let client = cluster.client();
    let peer = |index| cluster.peer_url(index);
    let refusal = |error: EtcdError| error.refusal().cloned().unwrap_or_else(|| panic!("{error:?}"));
    let mut table = Vec::new();
    let mut say = |what: &str, output: std::process::Output| {
        let (code, text) = answer(&output);
        table.push(format!("{what}: {code} {text:?}"));
        text
    };

    // A learner that never starts.
    let (learner, membership) = client.add_learner(&peer(2)).await.unwrap();
    assert_eq!((membership.members.len(), membership.learners().count()), (2, 1));
    let again = ["member", "add", "again", "--learner", &format!("--peer-urls={}", peer(2))];
    let text = say("add again", cluster.etcdctl(1, &again));
    assert!(["Peer URLs already exists", "member ID already exist"].contains(&&*text), "{text}");
    assert!(matches!(
        refusal(client.add_learner(&peer(2)).await.unwrap_err()),
        Refusal::PeerUrlExists | Refusal::MemberExists
    ));

    let second = ["member", "add", "second", "--learner", &format!("--peer-urls={}", peer(3))];
    assert_eq!(say("second learner", cluster.etcdctl(1, &second)), "too many learner members in cluster");
    assert_eq!(refusal(client.add_learner(&peer(3)).await.unwrap_err()), Refusal::TooManyLearners);

    let id = learner.to_string();
    let not_in_sync = "can only promote a learner member which is in sync with leader";
    assert_eq!(say("promote, not started", cluster.etcdctl(1, &["member", "promote", &id])), not_in_sync);
    assert_eq!(refusal(client.promote(learner).await.unwrap_err()), Refusal::NotInSync);

    let one = membership.voters().next().unwrap().id;
    let promote_voter = cluster.etcdctl(1, &["member", "promote", &one.to_string()]);
    assert_eq!(say("promote a voter", promote_voter), "can only promote a learner member");
    assert_eq!(refusal(client.promote(one).await.unwrap_err()), Refusal::NotALearner);

    let unknown = "1234".parse().unwrap();
    assert_eq!(say("promote unknown", cluster.etcdctl(1, &["member", "promote", "1234"])), "member not found");
    assert_eq!(refusal(client.promote(unknown).await.unwrap_err()), Refusal::MemberNotFound);
    assert_eq!(say("remove unknown", cluster.etcdctl(1, &["member", "remove", "1234"])), "member not found");
    assert_eq!(refusal(client.remove(unknown).await.unwrap_err()), Refusal::MemberNotFound);
    say("remove the only voter", cluster.etcdctl(1, &["member", "remove", &one.to_string()]));

    client.remove(learner).await.unwrap();
    say("remove again", cluster.etcdctl(1, &["member", "remove", &id]));
    assert_eq!(refusal(client.remove(learner).await.unwrap_err()), Refusal::MemberNotFound);

    // A learner that runs.
    let learner = cluster.add_started(2).await;
    let of_learner = cluster.client_of(vec![cluster.client_url(2)]);
    assert_eq!(say("list from a learner", cluster.etcdctl(2, &["member", "list"])), "rpc not supported for learner");
    assert_eq!(refusal(of_learner.members().await.unwrap_err()), Refusal::AskedALearner);
    assert_eq!(refusal(of_learner.add_learner(&peer(3)).await.unwrap_err()), Refusal::AskedALearner);
    assert!(of_learner.status(&cluster.client_url(2)).await.unwrap().is_learner);
    until(SOON, async || client.promote(learner).await.ok()).await;

    // Two voters whose connection is younger than five seconds.
    assert_eq!(say("add just after a promotion", cluster.etcdctl(1, &second)), "unhealthy cluster");
    assert_eq!(refusal(client.add_learner(&peer(3)).await.unwrap_err()), Refusal::Unhealthy);

    // One of two voters is gone.
    cluster.kill(2);
    say("add, a voter down", cluster.etcdctl(1, &second));
    say("promote without a quorum", cluster.etcdctl(1, &["member", "promote", &id]));
    say("list without a quorum", cluster.etcdctl(1, &["member", "list"]));
    let started = std::time::Instant::now();
    assert!(matches!(client.members().await.unwrap_err(), EtcdError::Unanswered { .. }));
    table.push(format!("our list without a quorum: {} ms", started.elapsed().as_millis()));
    assert_eq!(client.members_known_to(&cluster.client_url(1)).await.unwrap().members.len(), 2);
    let status = client.status(&cluster.client_url(1)).await.unwrap();
    table.push(format!("status without a quorum: leader {:?}, {:?}", status.leader, status.errors));
    println!("{}", table.join("\n"));
}
