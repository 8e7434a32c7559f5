//! A control plane's join, killed before and after each entry of the journal, then the same command again.
//!
//! Every round begins with the one control plane of kubeadm, and goes back to it: `mortise reset` takes the second one away.
//! The writer writes on both ways. With every change those faults are tried that lie around what the cluster sees; all of
//! them take most of an hour, and are `make test-long`'s. `MORTISE_CASE=before:7,after:9` tries only these of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mortise_cluster::{Cluster, UpOptions};

use crate::lab::{self, MORTISE, text};
use crate::leaves;
use crate::tree::Tree;
use crate::writer::{History, Writer};

/// A name that is in no other word: see [`leaves::of`].
const NODE: &str = "control-two";
/// Clusters side by side: a join waits more than it computes.
const LANES: usize = 2;
/// What the exit code of a process killed by signal 9 is in a node.
const KILLED: i32 = 128 + 9;
/// The first entry after the new member got its vote.
const PROMOTED: &str = "intent file /etc/kubernetes/manifests/kube-apiserver.yaml";
/// No fault before that is to keep the writer waiting for longer. It is told and not asserted: the disk has its part in it.
const STALL_ASKED_FOR: Duration = Duration::from_secs(3);

/// Where a run is killed that the cluster has seen something of: at every entry of this kind.
const SEEN: [(&str, &str); 14] = [
    ("before", "done api-object CertificateSigningRequest"),
    ("before", "intent file /etc/kubernetes/kubelet.conf"),
    ("after", "intent unit kubelet restart"),
    ("before", "done unit kubelet restart"),
    ("after", "intent etcd-member"),
    ("before", "done etcd-member"),
    ("after", "done etcd-member"),
    ("before", "intent file /etc/kubernetes/manifests/etcd.yaml"),
    // The learner starts and is not watched.
    ("after", "done file /etc/kubernetes/manifests/etcd.yaml"),
    ("before", PROMOTED),
    ("after", "done file /etc/kubernetes/manifests/kube-apiserver.yaml"),
    ("before", "intent file /etc/kubernetes/manifests/kube-controller-manager.yaml"),
    // The Node is not marked yet.
    ("after", "done removal /etc/kubernetes/manifests/.kube-scheduler.yaml"),
    ("before", "finished"),
];

#[test]
#[ignore = "needs a cluster: root, 4 min"]
fn killed_around_what_the_cluster_sees_a_join_ends_well_when_run_again() {
    killed_and_run_again(|entries| {
        let faults = SEEN.iter().flat_map(|&(side, entry)| {
            let at: Vec<usize> = (1..).zip(entries).filter(|(_, text)| *text == entry).map(|(at, _)| at).collect();
            assert!(!at.is_empty(), "no entry `{entry}` in {entries:#?}");
            at.into_iter().map(move |number| Fault { side, number })
        });
        faults.collect()
    });
}

mod long {
    use super::*;

    #[test]
    #[ignore = "needs a cluster: root, 50 min"]
    fn killed_before_and_after_each_entry_a_join_ends_well_when_run_again() {
        killed_and_run_again(|entries| {
            let sides = |number| ["before", "after"].map(|side| Fault { side, number });
            let only = std::env::var("MORTISE_CASE").ok();
            let is_asked_for =
                |fault: &Fault| only.as_deref().is_none_or(|only| only.split(',').any(|it| it == fault.at()));
            // The cluster sees most of the last ones.
            (1..=entries.len()).rev().flat_map(sides).filter(is_asked_for).collect()
        });
    }
}

/// Where the first run is killed.
#[derive(Debug, Clone, Copy)]
struct Fault {
    side: &'static str,
    number: usize,
}

impl Fault {
    /// As `MORTISE_FAULT` has it.
    fn at(self) -> String {
        format!("{}:{}", self.side, self.number)
    }
}

fn killed_and_run_again(choose: impl Fn(&[String]) -> Vec<Fault> + Sync) {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let stalls = Mutex::new(BTreeMap::new());
    let counts = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let lane = Lane::new();
                let faults = choose(&lane.whole.entries);
                assert!(!faults.is_empty(), "none is chosen");
                counts.lock().unwrap().insert(faults.len());
                while let Some(&fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (mut found, stall) = lane.kill_and_join_again(fault);
                    let left = lane.reset();
                    let is_over = left.is_err();
                    found.extend(left.unwrap_or_else(|why| vec![why]));
                    stalls.lock().unwrap().entry(lane.is_before_promotion(fault)).or_insert(Vec::new()).push(stall);
                    if !found.is_empty() {
                        let told = format!("killed {}:\n{}", lane.describe(fault), found.join("\n"));
                        eprintln!("{told}");
                        wrong.lock().unwrap().push(told);
                    }
                    assert!(!is_over, "the cluster has not one control plane again: {}", lane.describe(fault));
                }
            });
        }
    });
    let (wrong, counts) = (wrong.into_inner().unwrap(), counts.into_inner().unwrap());
    for (before, stalls) in stalls.into_inner().unwrap() {
        let over = stalls.iter().filter(|stall| **stall > STALL_ASKED_FOR).count();
        let (side, longest) = (if before { "before" } else { "after" }, stalls.iter().max().unwrap());
        eprintln!(
            "{} faults {side} promotion: longest stall {longest:.2?}, {over} over {STALL_ASKED_FOR:?}",
            stalls.len()
        );
    }
    assert_eq!(counts.len(), 1, "uninterrupted joins write the same entries");
    assert!(wrong.is_empty(), "{} faults ended badly:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// An uninterrupted join, and what it leaves.
struct Whole {
    /// What each line of the journal says.
    entries: Vec<String>,
    tree: Tree,
    marks: String,
    cluster_ids: BTreeSet<u64>,
}

/// A cluster of one control plane, and a node that may become the second one.
struct Lane {
    cluster: Cluster,
    fresh: Tree,
    whole: Whole,
}

impl Lane {
    fn new() -> Self {
        let cluster = Cluster::up(&UpOptions::default()).unwrap();
        cluster.add(NODE).unwrap();
        let fresh = Tree::of(&cluster, NODE);
        let (output, history) = watched(&cluster, || {
            let output = lab::try_mortise_in(&cluster, NODE, &["MORTISE_FAULT=count"], &[]);
            cluster.wait_for_ready(NODE, lab::READY).unwrap();
            output
        });
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{}{stderr}", text(&output.stdout));
        assert_eq!(history.violations(), Vec::<String>::new());
        let count = stderr.lines().find_map(|line| line.strip_prefix("journal entries: ")).unwrap();
        let entries = entries(&text(&cluster.read(NODE, "/var/lib/mortise/join.jsonl").unwrap()));
        assert_eq!(count, entries.len().to_string());
        let (tree, marks) = (leaves::of(&cluster, NODE), marks(&cluster));
        let whole = Whole { entries, tree, marks, cluster_ids: history.cluster_ids.clone() };
        eprintln!("{}: not killed, {}", cluster.name().as_str(), history.summary());
        let lane = Self { cluster, fresh, whole };
        assert_eq!(lane.reset(), Ok(Vec::new()));
        lane
    }

    fn is_before_promotion(&self, fault: Fault) -> bool {
        let promoted = 1 + self.whole.entries.iter().position(|entry| entry == PROMOTED).expect("it is there");
        fault.number < promoted
    }

    fn describe(&self, fault: Fault) -> String {
        format!("{} of {} ({})", fault.at(), self.whole.entries.len(), self.whole.entries[fault.number - 1])
    }

    /// Joins, is killed, joins again; what is wrong afterwards, and the writer's longest stall.
    fn kill_and_join_again(&self, fault: Fault) -> (Vec<String>, Duration) {
        let cluster = &self.cluster;
        let variable = format!("MORTISE_FAULT={}", fault.at());
        let mut wrong = Vec::new();
        let (took, history) = watched(cluster, || {
            let killed = lab::try_mortise_in(cluster, NODE, &[&variable], &[]);
            if killed.status.code() != Some(KILLED) {
                wrong.push(format!("not killed: {}\n{}{}", killed.status, text(&killed.stdout), text(&killed.stderr)));
            }
            let started = Instant::now();
            let again = lab::try_mortise_in(cluster, NODE, &[], &[]);
            if again.status.code() != Some(0) {
                let (stdout, stderr) = (text(&again.stdout), text(&again.stderr));
                wrong.push(format!("the second run fails: {}\n{stdout}{stderr}", again.status));
            }
            started.elapsed()
        });
        let (stall, _) = history.longest_stall();
        let over = if stall > STALL_ASKED_FOR && self.is_before_promotion(fault) { ", TOO LONG" } else { "" };
        eprintln!(
            "{}: killed {}: again {:.1} s, longest stall {:.2} s{over}",
            cluster.name().as_str(),
            self.describe(fault),
            took.as_secs_f64(),
            stall.as_secs_f64()
        );
        if wrong.is_empty() {
            wrong.extend(self.differences(&history));
        }
        wrong.extend(history.violations());
        (wrong, stall)
    }

    /// How the cluster and the node differ from what an uninterrupted join makes of them.
    fn differences(&self, history: &History) -> Vec<String> {
        let cluster = &self.cluster;
        if let Err(error) = cluster.wait_for_ready(NODE, lab::READY) {
            return vec![format!("{error:#}")];
        }
        let mut wrong = self.whole.tree.differences(&leaves::of(cluster, NODE));
        let mut expect = |what: &str, found: String, expected: &str| {
            if found != expected {
                wrong.push(format!("{what}: {found}, not {expected}"));
            }
        };
        for node in ["n1", NODE] {
            expect("voters and learners", format!("{:?}", lab::members(cluster, node)), "(2, 0)");
        }
        expect("members that hold all", history.contents.len().to_string(), "2");
        expect("cluster", format!("{:x?}", history.cluster_ids), &format!("{:x?}", self.whole.cluster_ids));
        let ask = |arguments: &[&str]| cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
        expect("Nodes", ask(&["get", "nodes", "-o", "name"]), &format!("node/{NODE}\nnode/n1\n"));
        expect("labels and taint", marks(cluster), &self.whole.marks);
        let requests = ask(&["get", "csr", "-o", "name"]);
        expect("certificate requests", requests.lines().count().to_string(), "1");
        let verified = cluster.exec(NODE, &[MORTISE, "verify"]).unwrap();
        if !verified.status.success() {
            wrong.push(format!("verify: {}{}", text(&verified.stdout), text(&verified.stderr)));
        }
        lab::answers_alone(cluster, NODE);
        wrong
    }

    /// Makes the node one that has joined nothing; what is wrong afterwards. An error: no other round may begin.
    fn reset(&self) -> Result<Vec<String>, String> {
        let cluster = &self.cluster;
        let (output, history) = watched(cluster, || cluster.exec(NODE, &[MORTISE, "reset", "--force"]).unwrap());
        if !output.status.success() {
            return Err(format!("the reset fails: {}{}", text(&output.stdout), text(&output.stderr)));
        }
        if lab::members(cluster, "n1") != (1, 0) {
            return Err(format!("the reset leaves its member: {}", history.summary()));
        }
        for objects in [&["node", NODE, "--ignore-not-found"][..], &["csr", "--all"]] {
            lab::wait_until("a request through the endpoint", lab::SOON, || {
                cluster.kubectl(&[&["delete"], objects].concat()).map(drop).map_err(|error| format!("{error:#}"))
            });
        }
        let mut wrong = self.fresh.differences(&Tree::of(cluster, NODE));
        wrong.extend(history.violations());
        Ok(wrong)
    }
}

/// Does something while the writer writes.
fn watched<T>(cluster: &Cluster, act: impl FnOnce() -> T) -> (T, History) {
    // What an earlier writer wrote could stand for what is lost of this one.
    cluster.etcdctl("n1", &["del", "--prefix", "/mortise-writer/"]).unwrap();
    let writer = Writer::start(cluster).unwrap();
    let done = act();
    (done, writer.stop().unwrap())
}

/// What the join itself puts on the Node, and the kubelet.
fn marks(cluster: &Cluster) -> String {
    let wanted = "jsonpath={.metadata.labels}{.spec.taints[?(@.key==\"node-role.kubernetes.io/control-plane\")]}\
                  {.metadata.annotations.kubeadm\\.alpha\\.kubernetes\\.io/cri-socket}";
    cluster.kubectl(&["get", "node", NODE, "-o", wanted]).unwrap()
}

/// What each line of a journal says, without what differs between two joins: `done file /etc/kubernetes/kubelet.conf`.
fn entries(journal: &str) -> Vec<String> {
    let mut effects = BTreeMap::new();
    let described = journal.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| line[key].as_str().unwrap_or_default();
        let seq = line["seq"].as_u64().unwrap();
        let kind = word("kind");
        if kind == "intent" {
            let words = [word("effect"), word("path"), word("unit"), word("action"), word("objectKind")];
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            effects.insert(seq, words.join(" "));
        }
        match effects.get(&seq) {
            Some(effect) => format!("{kind} {effect}"),
            None => kind.to_owned(),
        }
    });
    described.collect()
}
