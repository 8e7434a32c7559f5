//! The client against members that are dead, silent, or lose answers.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use mortise::etcd::{EtcdError, Why, health, snapshot};

use crate::lab::{Cluster, SOON, until};
use crate::proxy::Fault;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_dead_or_silent_first_member_costs_next_to_nothing() {
    let cluster = Cluster::of_one();
    // Accepts and never says a word.
    let silent = tokio::net::TcpListener::bind((cluster.address(4), 2379)).await.unwrap();
    let endpoints = vec![cluster.client_url(3), cluster.client_url(4), cluster.client_url(1)];
    let client = cluster.client_of(endpoints);
    let started = Instant::now();
    assert_eq!(client.members().await.unwrap().members.len(), 1);
    println!("list past a dead and a silent member: {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(1), "no time-out was waited for");
    assert_eq!(client.endpoints()[0], cluster.client_url(1), "who answered is asked first");

    let client = cluster.client_of(vec![cluster.client_url(3), cluster.client_url(4), cluster.client_url(1)]);
    client.add_learner(&cluster.peer_url(2)).await.unwrap();
    let alone = cluster.client_of(vec![cluster.client_url(3)]);
    let error = alone.members().await.unwrap_err();
    assert!(matches!(&error, EtcdError::Unreachable { tried } if tried[0].why == Why::Refused), "{error:?}");
    let error = alone.add_learner(&cluster.peer_url(2)).await.unwrap_err();
    assert!(matches!(error, EtcdError::Unreachable { .. }), "certainly not sent: {error:?}");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_member_that_comes_back_is_asked_on_a_fresh_connection_at_once() {
    let cluster = Cluster::of_one();
    let client = cluster.client();
    client.members().await.unwrap();
    cluster.kill(1);
    assert!(client.members().await.is_err());
    cluster.start_again(1);
    until(SOON, async || client.members().await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_change_whose_request_or_answer_is_lost_is_unclear_and_sent_once() {
    let cluster = Cluster::of_one_behind_proxy();
    let proxy = cluster.proxy();
    let client = cluster.client_of(vec![format!("https://{}:2379", cluster.proxy_address())]);
    let before = client.members().await.unwrap();

    proxy.lose(Fault::Request("MemberAdd"));
    let error = client.add_learner(&cluster.peer_url(2)).await.unwrap_err();
    assert!(matches!(error, EtcdError::Unclear { .. }), "{error:?}");
    assert_eq!(client.members().await.unwrap(), before);

    proxy.lose(Fault::Answer("MemberAdd"));
    let error = client.add_learner(&cluster.peer_url(2)).await.unwrap_err();
    assert!(matches!(error, EtcdError::Unclear { .. }), "{error:?}");
    let learner = client.members().await.unwrap().by_peer_url(&cluster.peer_url(2)).unwrap().clone();
    assert!(learner.is_learner);

    proxy.lose(Fault::Answer("MemberRemove"));
    let error = client.remove(learner.id).await.unwrap_err();
    assert!(matches!(error, EtcdError::Unclear { .. }), "{error:?}");
    assert_eq!(client.members().await.unwrap(), before);

    // A question is simply asked again on a new connection.
    for fault in [Fault::Request("MemberList"), Fault::Answer("MemberList")] {
        proxy.lose(fault);
        assert_eq!(client.members().await.unwrap(), before);
        assert!(proxy.has_lost());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_snapshot_is_whole_private_and_one_that_etcd_can_read() {
    let cluster = Cluster::of_one();
    crate::writer::fill(&cluster.credentials(), &cluster.client_url(1), 50).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    let mut last = (0, 0);
    let saved =
        snapshot::save(&client, &cluster.client_url(1), directory.path(), |written, left| last = (written, left))
            .await
            .unwrap();
    let metadata = std::fs::metadata(&saved.path).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, saved.bytes));
    assert_eq!(last, (saved.bytes, 0));
    assert_eq!(saved.revision, 51);
    assert!(saved.bytes > 5 << 20, "{}", saved.bytes);
    // A database of whole pages, and the checksum that `etcdutl snapshot restore` looks for.
    assert_eq!(saved.bytes % 512, 32);
    let content = std::fs::read(&saved.path).unwrap();
    let (database, sum) = content.split_at(content.len() - 32);
    assert_eq!(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, database).as_ref(), sum);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_snapshot_that_breaks_off_leaves_nothing() {
    let cluster = Cluster::of_one_behind_proxy();
    let proxy = cluster.proxy();
    let endpoint = format!("https://{}:2379", cluster.proxy_address());
    let client = cluster.client_of(vec![endpoint.clone()]);
    let directory = tempfile::tempdir().unwrap();
    proxy.lose(Fault::Answer("Snapshot"));
    let error = snapshot::save(&client, &endpoint, directory.path(), |_, _| {}).await.unwrap_err();
    assert!(proxy.has_lost(), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn health_tells_who_is_down_with_and_without_a_quorum() {
    let cluster = Cluster::of(3).await;
    let client = cluster.client();
    let whole = health::look(&client).await.unwrap();
    assert!(whole.has_quorum() && whole.agreed);
    assert_eq!((whole.voters(), whole.voters_up()), (3, 3));

    cluster.kill(3);
    let two = until(SOON, async || health::look(&client).await.ok().filter(|health| health.voters_up() == 2)).await;
    assert!(two.has_quorum());
    let down: Vec<_> = two.voters_down().map(|down| down.member.name.clone()).collect();
    assert_eq!(down, ["cp-3"]);

    cluster.kill(2);
    let one = until(SOON, async || health::look(&client).await.ok().filter(|health| health.voters_up() == 0)).await;
    assert!(!one.has_quorum() && !one.agreed);
    assert!(one.members.iter().any(|health| health.describe().contains("connection refused")), "{one:?}");
    assert!(one.members.iter().any(|health| health.describe().contains("no leader")), "{one:?}");
}
