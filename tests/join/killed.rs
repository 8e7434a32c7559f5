//! Killed before and after each entry of the journal, and run again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::approval::requests_for;
use crate::lab::{KILLED, Worker, cluster, shared};
use crate::tree::Tree;

/// Runs side by side: a join waits more than it computes.
const LANES: usize = 3;

/// An uninterrupted join: how many entries it writes, and what it leaves.
fn uninterrupted(name: &str, way: &str) -> (usize, Tree, String) {
    let worker = Worker::add(name);
    let ended = worker.join(&["--tls-bootstrap-by", way, "--wait=registered"]).with_fault("count").succeeds();
    let count = ended.stderr.lines().find_map(|line| line.strip_prefix("journal entries: ")).unwrap();
    let journal = worker.shell("cat /var/lib/mortise/join.jsonl");
    (count.parse().unwrap(), Tree::of(cluster(), &worker.name).normalized(&worker.name), journal)
}

/// Joins, is killed at `fault`, joins again; what is wrong afterwards.
fn kill_and_join_again(worker: &Worker, way: &str, fault: &Fault, whole: &Tree) -> Vec<String> {
    let arguments = ["--tls-bootstrap-by", way, "--wait=registered"];
    let first = if fault.checks { arguments.to_vec() } else { [&arguments[..], &["--skip-phases=preflight"]].concat() };
    let killed = worker.join(&first).with_fault(&fault.at).ends();
    if killed.status != Some(KILLED) {
        return vec![format!("it was not killed: {:?} {}{}", killed.status, killed.stdout, killed.stderr)];
    }
    let again = worker.join(&arguments).ends();
    if again.status != Some(0) {
        return vec![format!("the second run fails: {:?} {}{}", again.status, again.stdout, again.stderr)];
    }
    let mut wrong = whole.differences(&Tree::of(cluster(), &worker.name).normalized(&worker.name));
    let requests = requests_for(&worker.name);
    if requests.len() != 1 {
        wrong.push(format!("{} certificate requests", requests.len()));
    }
    let verified = worker.mortise(&["verify"]).ends();
    if verified.status != Some(0) {
        wrong.push(format!("verify: {}{}", verified.stdout, verified.stderr));
    }
    for request in requests {
        cluster().kubectl(&["delete", "csr", &request]).unwrap();
    }
    wrong
}

/// Where the first run is killed.
struct Fault {
    at: String,
    /// The checks cost it a second, and write one entry: which plugin made them. The second run always makes them, among
    /// what the first one left.
    checks: bool,
}

impl Fault {
    fn around(entry: usize, checks: bool) -> [Self; 2] {
        ["before", "after"].map(|side| Self { at: format!("{side}:{entry}"), checks })
    }
}

fn killed_at_each_entry(way: &str) {
    let _shared = shared();
    let (count, whole, journal) = uninterrupted(&format!("whole-by-{way}"), way);
    assert!(count > 20, "{count} entries only");
    let of_plugins: Vec<usize> = (1..)
        .zip(journal.lines())
        .filter(|(_, line)| line.contains("\"kind\":\"plugin\""))
        .map(|(line, _)| line)
        .collect();
    let [of_checks] = of_plugins[..] else { panic!("{journal}") };
    let faults: Vec<Fault> =
        (1..count).flat_map(|entry| Fault::around(entry, false)).chain(Fault::around(of_checks, true)).collect();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let (faults, next, whole, wrong) = (&faults, &next, &whole, &wrong);
            scope.spawn(move || {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let worker = Worker::add(&format!("killed-by-{way}-{lane}"));
                    let found = kill_and_join_again(&worker, way, fault, whole);
                    if !found.is_empty() {
                        let at = &fault.at;
                        wrong.lock().unwrap().push(format!("killed {at} of {count}:\n{}", found.join("\n")));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), faults.len(), wrong.join("\n\n"));
}

#[test]
#[ignore = "needs a cluster: root, 4 min"]
fn killed_at_each_journal_entry_it_joins_when_run_again() {
    killed_at_each_entry("host");
}

#[test]
#[ignore = "needs a cluster: root, 4 min"]
fn killed_at_each_journal_entry_it_joins_when_run_again_with_a_kubelet_that_asks_itself() {
    killed_at_each_entry("kubelet");
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_token_deleted_after_the_certificate_came_does_not_matter_to_the_second_run() {
    let _shared = shared();
    let (_, whole, journal) = uninterrupted("whole-with-token", "host");
    let entry =
        1 + journal.lines().position(|line| line.contains("\"path\":\"/etc/kubernetes/kubelet.conf\"")).unwrap();
    let worker = Worker::add("forgotten");
    let line = cluster().fresh_join_line().unwrap();
    let killed = worker.join_by(&line, &[]).with_fault(&format!("after:{}", entry + 1)).ends();
    assert_eq!(killed.status, Some(KILLED), "{}", killed.stderr);

    let token = line.split(' ').nth(4).unwrap();
    let delete = ["kubeadm", "--kubeconfig", mortise_cluster::ADMIN_CONFIG, "token", "delete", &token[..6]];
    cluster().run("n1", &delete).unwrap();
    let absent = format!("--for=jsonpath={{.data.jws-kubeconfig-{}}}", &token[..6]);
    let gone = ["-n", "kube-public", "wait", &absent, "configmap/cluster-info", "--timeout=0"];
    let deadline = std::time::Instant::now() + crate::lab::SOON;
    while cluster().kubectl(&gone).is_ok() {
        assert!(std::time::Instant::now() < deadline, "the signature stays");
    }
    worker.join_by(&line, &["--wait=registered"]).succeeds();
    let after = Tree::of(cluster(), &worker.name).normalized(&worker.name);
    assert_eq!(whole.differences(&after), Vec::<String>::new());
}
