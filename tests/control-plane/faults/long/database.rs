//! A database of one gigabyte.

use crate::faults::site::{PATIENT, Site};
use crate::lab::{self, READY};

/// etcd takes requests of 1.5 MiB. A lab names the certificates only where `etcdctl` is the command itself.
const FILL: &str = "cd /etc/kubernetes/pki/etcd
export ETCDCTL_CACERT=ca.crt ETCDCTL_CERT=healthcheck-client.crt ETCDCTL_KEY=healthcheck-client.key
head -c 1000000 /dev/zero | tr '\\0' x > /run/value
for i in $(seq 1000); do etcdctl --command-timeout=60s put /fill/$i < /run/value > /dev/null || exit 1; done";

#[test]
#[ignore = "needs a cluster: root, 5 min, 4 GiB of memory"]
fn a_gigabyte_is_learned_and_costs_the_join_itself_nothing() {
    let site = Site::up(1);
    let small = measured(&site, "n2");
    site.leaves("n2");
    site.shell("n1", FILL);
    let status = site.cluster.etcdctl("n1", &["endpoint", "status", "-w", "table"]).unwrap();
    assert!(status.contains("1.0 GB"), "{status}");
    let large = measured(&site, "n2");
    eprintln!("memory: {} KiB, with 1 GB {} KiB", small, large);
    // Its memory is the same whatever it waits for; buffers of a copy would show.
    assert!(large < small + (16 << 10), "{large} KiB, and {small} KiB without");
    let held = site.cluster.etcdctl("n2", &["get", "/fill/", "--prefix", "--count-only", "-w", "fields"]).unwrap();
    assert!(held.contains("\"Count\" : 1000"), "{held}");
    lab::answers_alone(&site.cluster, "n2");
    site.ends_with("one gigabyte", &["n1", "n2"]);
}

/// Joins a node; the most memory that mortise had, in KiB.
fn measured(site: &Site, node: &str) -> u64 {
    site.cluster.add(node).unwrap();
    // All nodes share one disk; containerd, which has two seconds to tell what images it has, would wait for the gigabyte.
    site.shell(node, "sync");
    let mut joining = site.join(node, PATIENT, &[]);
    let mut most = 0;
    lab::wait_until("the end of the join", READY, || {
        // The high-water mark of a process that is there; its last one is that of the whole join.
        let status = site.shell(node, "for pid in $(pgrep -x mortise); do grep VmHWM /proc/$pid/status; done; true");
        let marks = status.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        most = marks.fold(most, u64::max);
        if joining.has_ended() { Ok(()) } else { Err(status) }
    });
    let ended = joining.ends();
    ended.succeeded();
    assert!(most > 0, "it was never seen");
    eprintln!("{}", ended.etcd_part());
    site.cluster.wait_for_ready(node, READY).unwrap();
    most
}
