//! The whole phase: 1 → 2 → 3 members under a writer, and what goes wrong on the way.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mortise::error::Failure;
use mortise::etcd::{Client, MemberId};
use mortise::join::etcd_join::{EtcdJoin, Joined, Manifest, OwnVoter};
use mortise::node::Node;

use crate::lab::{Cluster, SOON, name, reporter, until};
use crate::proxy::Fault;
use crate::writer::{Writer, fill, lengthen};

/// Where etcd's data is below a machine's root.
const DATA_DIR: &str = "/var/lib/etcd";

/// A machine that joins. `publish` starts the real etcd.
struct Machine<'a> {
    cluster: &'a Cluster,
    index: u8,
    client: Client,
    /// Another one than its etcd's, if given.
    client_url: Option<String>,
    has_metrics: bool,
    timeout: Duration,
    snapshot: Option<&'a Path>,
    replace: Option<MemberId>,
}

impl<'a> Machine<'a> {
    fn new(cluster: &'a Cluster, index: u8) -> Self {
        Self {
            cluster,
            index,
            client: cluster.client(),
            client_url: None,
            has_metrics: true,
            timeout: SOON,
            snapshot: None,
            replace: None,
        }
    }

    async fn join(&self) -> Result<Joined, Failure> {
        let cluster = self.cluster;
        let start = async |manifest: Manifest| {
            if manifest.has_started {
                cluster.start_again(self.index);
            } else {
                cluster.start(self.index, "existing", &manifest.initial_cluster);
            }
            Ok(())
        };
        let node = cluster.node(self.index);
        self.join_with(&node, start).await
    }

    async fn join_with(
        &self,
        node: &Node,
        publish: impl AsyncFnOnce(Manifest) -> Result<(), Failure>,
    ) -> Result<Joined, Failure> {
        let (cluster, index) = (self.cluster, self.index);
        let (name, peer_url, metrics_url) = (name(index), cluster.peer_url(index), cluster.metrics_url(index));
        let client_url = self.client_url.clone().unwrap_or_else(|| cluster.client_url(index));
        let join = EtcdJoin {
            client: &self.client,
            name: &name,
            peer_url: &peer_url,
            client_url: &client_url,
            metrics_url: self.has_metrics.then_some(&metrics_url),
            data_dir: Path::new(DATA_DIR),
            timeout: self.timeout,
            snapshot_dir: self.snapshot,
            replace: self.replace,
        };
        let withdraw = async || {
            cluster.kill_if_running(index);
            Ok(())
        };
        let joined = join.join(publish, withdraw, node, &reporter()).await?;
        let own = OwnVoter { client: cluster.client(), client_url, id: joined.id, timeout: self.timeout };
        own.wait_until_it_answers(&reporter()).await?;
        Ok(joined)
    }
}

/// A publish that must not be reached.
async fn never(_: Manifest) -> Result<(), Failure> {
    panic!("nothing is published")
}

fn code(result: Result<Joined, Failure>) -> &'static str {
    result.expect_err("it fails").code()
}

fn journal(cluster: &Cluster, index: u8) -> String {
    std::fs::read_to_string(cluster.root(index).join("var/lib/mortise/join.jsonl")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn one_becomes_two_becomes_three_and_no_write_is_lost() {
    let cluster = Cluster::of_one();
    fill(&cluster.credentials(), &cluster.client_url(1), 300).await;
    let writer = Writer::start(cluster.credentials(), cluster.client_url(1));
    let mut cluster_ids = Vec::new();
    for index in [2, 3] {
        let mut machine = Machine::new(&cluster, index);
        std::fs::create_dir_all(cluster.root(index).join("snapshots")).unwrap();
        machine.snapshot = Some(Path::new("/snapshots"));
        let started = std::time::Instant::now();
        let joined = machine.join().await.unwrap_or_else(|failure| panic!("{failure}\n{}", cluster.last_words(index)));
        println!("{} → {index} voters: {:?}", index - 1, started.elapsed());
        assert_eq!(joined.voters, usize::from(index));
        cluster_ids.push(joined.cluster_id);
        assert!(journal(&cluster, index).contains(&format!(r#""memberId":"{}""#, joined.id)));
        let snapshots = std::fs::read_dir(cluster.root(index).join("snapshots")).unwrap();
        assert_eq!(snapshots.count(), 1);
        // A second run finds everything done.
        let node = cluster.node(index);
        let again = machine.join_with(&node, async |manifest| {
            assert!(manifest.has_started);
            Ok(())
        });
        assert_eq!(again.await.unwrap(), joined);
    }
    let written = writer.stop().await;
    println!("longest stall {:?}, {} not acknowledged", written.longest_stall, written.failed);
    assert_eq!(cluster_ids[0], cluster_ids[1]);
    for index in 1..=3 {
        written.assert_all_in(&cluster.credentials(), &cluster.client_url(index)).await;
    }
    let members = cluster.client().members().await.unwrap();
    assert_eq!((members.members.len(), members.voters().count()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_long_log_is_caught_up_before_the_vote() {
    let cluster = Cluster::of_one();
    lengthen(&cluster.credentials(), &cluster.client_url(1), 20_000).await;
    let writer = Writer::start(cluster.credentials(), cluster.client_url(1));
    let joined = Machine::new(&cluster, 2).join().await.unwrap();
    let written = writer.stop().await;
    println!("longest stall {:?}", written.longest_stall);
    assert_eq!(joined.voters, 2);
    written.assert_all_in(&cluster.credentials(), &cluster.client_url(2)).await;
}

/// So is a new one for 7 s where its name came to it with the snapshot; etcd's own chance, made certain here.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_learner_that_is_silent_to_clients_votes_by_what_its_metrics_say() {
    for has_metrics in [true, false] {
        let cluster = Cluster::of_one();
        let silent = std::net::TcpListener::bind((cluster.proxy_address(), 2379)).unwrap();
        let mut machine = Machine::new(&cluster, 2);
        machine.client_url = Some(format!("https://{}", silent.local_addr().unwrap()));
        machine.has_metrics = has_metrics;
        machine.timeout = Duration::from_secs(3);
        let joined = machine.join().await;
        let members = cluster.client().members().await.unwrap();
        let ended = (code(joined), members.members.len(), members.voters().count());
        // It votes, and then does not answer.
        let expected = if has_metrics { ("etcd-join-down", 2, 2) } else { ("etcd-join-stalled", 1, 1) };
        assert_eq!(ended, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn each_lost_request_and_answer_is_looked_up() {
    for call in ["MemberAdd", "MemberPromote", "MemberList", "Status"] {
        for fault in [Fault::Request(call), Fault::Answer(call)] {
            let cluster = Cluster::of_one_behind_proxy();
            let proxy = cluster.proxy();
            let mut machine = Machine::new(&cluster, 2);
            machine.client = cluster.client_of(vec![format!("https://{}:2379", cluster.proxy_address())]);
            proxy.lose(fault);
            let joined = machine.join().await.unwrap_or_else(|failure| panic!("{fault:?}: {failure}"));
            assert!(proxy.has_lost(), "{fault:?}");
            assert_eq!(joined.voters, 2, "{fault:?}");
            let members = cluster.client_of(vec![cluster.client_url(2)]).members().await.unwrap();
            assert_eq!((members.members.len(), members.voters().count()), (2, 2), "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_second_join_waits_for_the_place_of_the_first() {
    let cluster = Cluster::of_one();
    let (first, second) = (Machine::new(&cluster, 2), Machine::new(&cluster, 3));
    let (first, second) = tokio::join!(first.join(), second.join());
    first.unwrap();
    second.unwrap();
    assert_eq!(cluster.client().members().await.unwrap().voters().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_learner_in_the_way_is_named_and_left_alone() {
    let cluster = Cluster::of_one();
    let (other, _) = cluster.client().add_learner(&cluster.peer_url(3)).await.unwrap();
    let mut machine = Machine::new(&cluster, 2);
    machine.timeout = Duration::from_secs(2);
    let failure = machine.join_with(&cluster.node(2), never).await.unwrap_err();
    assert_eq!(failure.code(), "etcd-join-slot");
    for part in [other.to_string(), cluster.peer_url(3)] {
        assert!(failure.message().contains(&part), "{failure}");
    }
    assert!(cluster.client().members().await.unwrap().by_id(other).is_some());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_join_that_fails_before_the_vote_takes_exactly_its_own_learner_back() {
    let cluster = Cluster::of_one();
    let before = cluster.client().members().await.unwrap();
    let mut machine = Machine::new(&cluster, 2);
    // Nothing starts there.
    machine.timeout = Duration::from_secs(2);
    assert_eq!(code(machine.join_with(&cluster.node(2), async |_| Ok(())).await), "etcd-join-stalled");
    assert_eq!(cluster.client().members().await.unwrap(), before);

    // It starts, and is killed before it has its vote.
    let manifest_seen = AtomicU32::new(0);
    let start_and_kill = async |manifest: Manifest| {
        manifest_seen.fetch_add(1, Ordering::SeqCst);
        cluster.start(2, "existing", &manifest.initial_cluster);
        until(SOON, async || {
            cluster.data_dir(2).join("member/wal/0000000000000000-0000000000000000.wal").exists().then_some(())
        })
        .await;
        cluster.kill(2);
        Ok(())
    };
    assert_eq!(code(machine.join_with(&cluster.node(2), start_and_kill).await), "etcd-join-stalled");
    assert_eq!(manifest_seen.load(Ordering::SeqCst), 1);
    assert_eq!(cluster.client().members().await.unwrap(), before);

    // The data of the learner that was taken back is in the way of nothing.
    machine.timeout = SOON;
    machine.join().await.unwrap();
    assert_eq!(cluster.client().members().await.unwrap().voters().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_run_that_was_killed_goes_on_with_its_own_learner() {
    let cluster = Cluster::of_one();
    let machine = Machine::new(&cluster, 2);
    // Killed while it publishes: the future is dropped, and nothing is taken back.
    let node = cluster.node(2);
    let reached = tokio::sync::Notify::new();
    let killed = machine.join_with(&node, async |_| {
        reached.notify_one();
        std::future::pending().await
    });
    tokio::select! { _ = killed => panic!("it was killed"), () = reached.notified() => {} }
    drop(node);
    let left = cluster.client().members().await.unwrap().by_peer_url(&cluster.peer_url(2)).unwrap().clone();
    assert!(left.is_learner);

    let joined = machine.join().await.unwrap();
    assert_eq!(joined.id, left.id);

    // Killed when its data is there and the record is not: the data directory proves whose it is.
    let third = Machine::new(&cluster, 3);
    let id = cluster.add_started(3).await;
    assert_eq!(third.join_with(&cluster.node(3), async |_| Ok(())).await.unwrap().id, id);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn a_member_that_is_not_proved_ours_is_named_and_needs_the_users_word() {
    let cluster = Cluster::of_one();
    // A learner that a kubeadm left which died.
    let (left, _) = cluster.client().add_learner(&cluster.peer_url(2)).await.unwrap();
    let mut machine = Machine::new(&cluster, 2);
    let failure = machine.join_with(&cluster.node(2), never).await.unwrap_err();
    assert_eq!(failure.code(), "etcd-join-member-not-ours");
    assert!(failure.hint().unwrap().contains(&format!("--replace-member {left}")), "{failure}");
    machine.replace = Some(left);
    let joined = machine.join().await.unwrap();
    assert_ne!(joined.id, left);
    assert_eq!(cluster.client().members().await.unwrap().members.len(), 2);

    // Its data directory is emptied under it.
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data_dir(2)).unwrap();
    machine.replace = None;
    let failure = machine.join_with(&cluster.node(2), never).await.unwrap_err();
    assert_eq!(failure.code(), "etcd-no-quorum", "{failure}");
    assert!(failure.hint().unwrap().contains("--force-new-cluster"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: `make cluster`"]
async fn an_old_member_whose_data_is_gone_is_replaced_on_the_users_word_only() {
    let cluster = Cluster::of(2).await;
    let mut machine = Machine::new(&cluster, 3);
    let old = machine.join().await.unwrap();
    cluster.kill(3);
    std::fs::remove_dir_all(cluster.data_dir(3)).unwrap();
    machine.client = cluster.client();
    let failure = machine.join_with(&cluster.node(3), never).await.unwrap_err();
    assert_eq!(failure.code(), "etcd-join-data-gone");
    machine.replace = Some(old.id);
    let joined = machine.join().await.unwrap();
    assert_ne!(joined.id, old.id);
    let members = cluster.client().members().await.unwrap();
    assert_eq!((members.members.len(), members.voters().count()), (3, 3));

    // The data of another cluster is not touched.
    let other = Cluster::of_one();
    let foreign = Machine::new(&cluster, 4);
    std::fs::create_dir_all(cluster.data_dir(4)).unwrap();
    std::fs::rename(other.data_dir(1).join("member"), cluster.data_dir(4).join("member")).unwrap();
    let failure = foreign.join_with(&cluster.node(4), never).await.unwrap_err();
    assert_eq!(failure.code(), "etcd-join-other-data");
    assert!(cluster.data_dir(4).join("member/wal").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and root for a file system of its own: `make cluster`"]
async fn a_disk_without_room_stops_before_anything_is_announced() {
    let cluster = Cluster::of_one();
    let directory = cluster.data_dir(2);
    std::fs::create_dir_all(&directory).unwrap();
    let small = Mounted::of_size(&directory, "16m");
    let failure = Machine::new(&cluster, 2).join_with(&cluster.node(2), never).await.unwrap_err();
    assert_eq!(failure.code(), "etcd-join-space");
    assert_eq!(cluster.client().members().await.unwrap().members.len(), 1);
    drop(small);
}

struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn of_size(path: &'a Path, size: &str) -> Self {
        let arguments = ["-t", "tmpfs", "-o", &format!("size={size}"), "none"];
        assert!(std::process::Command::new("mount").args(arguments).arg(path).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}
