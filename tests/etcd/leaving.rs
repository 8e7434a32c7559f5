//! Members that leave: our own in a reset, and the one that is replaced.

use mortise::etcd::health;
use mortise::join::etcd_join::{
    CHECK_PHASE, EtcdJoinError, Removal, Removed, check_health, foresee, remove_own_member, replace_member,
};

use crate::lab::{Cluster, SOON, reporter, until};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_reset_takes_its_member_out_by_id_and_finds_it_gone_the_second_time() {
    let cluster = Cluster::of(3).await;
    let client = cluster.client();
    let own = client.members().await.unwrap().by_peer_url(&cluster.peer_url(3)).unwrap().id;
    let removed = remove_own_member(&client, own, false, SOON, &reporter()).await.unwrap();
    assert!(matches!(removed, Removed::Now(Removal::KeepsQuorum { voters: 2, up: 2, .. })), "{removed:?}");
    assert_eq!(remove_own_member(&client, own, false, SOON, &reporter()).await.unwrap(), Removed::WasGone);
    assert_eq!(client.members().await.unwrap().members.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_reset_does_not_break_the_quorum_unasked() {
    let cluster = Cluster::of(3).await;
    let client = cluster.client();
    let members = client.members().await.unwrap();
    let id = |index| members.by_peer_url(&cluster.peer_url(index)).unwrap().id;
    cluster.kill(3);
    until(SOON, async || health::look(&client).await.ok().filter(|health| health.voters_up() == 2)).await;
    let error = remove_own_member(&client, id(2), false, SOON, &reporter()).await.unwrap_err();
    assert!(matches!(error, EtcdJoinError::BreaksQuorum { voters: 2, up: 1, needed: 2, .. }), "{error}");
    let error = replace_member(&client, id(2), SOON, &reporter()).await.unwrap_err();
    assert!(matches!(error, EtcdJoinError::BreaksQuorum { .. }), "{error}");
    assert_eq!(client.members().await.unwrap(), members, "nothing was done");

    // The one that is lost for good goes.
    replace_member(&client, id(3), SOON, &reporter()).await.unwrap();
    let error = replace_member(&client, id(3), SOON, &reporter()).await.unwrap_err();
    assert!(matches!(&error, EtcdJoinError::NoMember { members, .. } if members.len() == 2), "{error}");
    // Of two that are up, either may go.
    let removed = remove_own_member(&client, id(2), false, SOON, &reporter()).await.unwrap();
    assert!(matches!(removed, Removed::Now(Removal::KeepsQuorum { voters: 1, .. })), "{removed:?}");
    let error = remove_own_member(&client, id(1), false, SOON, &reporter()).await.unwrap_err();
    assert!(matches!(error, EtcdJoinError::LastVoter { .. }), "{error}");
    let forced = remove_own_member(&client, id(1), true, SOON, &reporter()).await.unwrap();
    assert!(matches!(forced, Removed::LeftBehind(_)), "{forced:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_lost_quorum_is_told_with_who_is_down() {
    let cluster = Cluster::of(2).await;
    let client = cluster.client();
    check_health(&client, CHECK_PHASE, &reporter()).await.unwrap();
    cluster.kill(2);
    until(SOON, async || health::look(&client).await.ok().filter(|health| health.voters_up() == 0)).await;
    let error = check_health(&client, CHECK_PHASE, &reporter()).await.unwrap_err();
    let EtcdJoinError::NoQuorum { voters: 2, up: 0, needed: 2, down } = &error else { panic!("{error}") };
    assert!(down.iter().any(|down| down.contains("cp-2") && down.contains("connection refused")), "{down:?}");
    let health = health::look(&client).await.unwrap();
    let own = health.members.iter().find(|health| health.member.name == "cp-1").unwrap().member.id;
    assert!(matches!(foresee(&health, own), Removal::BreaksQuorum { .. }));
}
