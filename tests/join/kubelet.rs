//! Kubelets that are missing, die or never answer, and disks that are full.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::lab::{Worker, cluster, shared};

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_missing_kubelet_is_told_before_anything_is_written() {
    let _shared = shared();
    let worker = Worker::add("bare");
    worker.shell("rm -r /etc/systemd/system/kubelet.service* && systemctl daemon-reload");
    let failed = worker.join(&["--skip-phases=preflight"]).fails();
    assert_eq!((failed.status, failed.code.as_str()), (Some(1), "kubelet-no-unit"), "{failed:?}");
    assert_eq!(crate::approval::requests_for("bare"), Vec::<String>::new(), "no certificate was asked for");
    assert_eq!(worker.shell("ls -A /etc/kubernetes/kubelet.conf 2>/dev/null || true"), "");
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_dying_kubelet_is_told_with_its_last_words() {
    let _shared = shared();
    for way in ["host", "kubelet"] {
        let worker = Worker::add(&format!("dying-by-{way}"));
        worker.restart_fast();
        worker.write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=--no-such-flag\n");
        let started = Instant::now();
        let failed = worker.join(&["--tls-bootstrap-by", way]).fails();
        assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
        assert_eq!((failed.status, failed.code.as_str()), (Some(1), "kubelet-dying"), "{failed:?}");
        assert!(failed.message.contains("unknown flag: --no-such-flag"), "{failed:?}");
        assert!(failed.hint.contains("journalctl -u kubelet"), "{failed:?}");

        worker.write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n");
        worker.join(&["--tls-bootstrap-by", way, "--wait=registered"]).succeeds();
    }
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_kubelet_that_never_answers_is_told_with_its_last_words_when_time_is_up() {
    let _shared = shared();
    let worker = Worker::add("silent");
    worker.write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=--healthz-port=10258\n");
    let line = cluster().join_line().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let config = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken: {{apiServerEndpoint: '{}', token: {}, caCertHashes: ['{}']}}
timeouts: {{kubeletHealthCheck: 2s}}
",
        words[2],
        words[4],
        words.last().unwrap()
    );
    worker.write("/etc/test/join.yaml", &config);
    let failed = worker.join_with(&["--config", "/etc/test/join.yaml"]).fails();
    assert_eq!((failed.status, failed.code.as_str()), (Some(1), "kubelet-unhealthy"), "{failed:?}");
    assert!(failed.message.contains("10248") && failed.message.lines().count() > 1, "{failed:?}");
}

/// Files below the limited directories with their content, temporary ones included.
fn files(worker: &Worker) -> BTreeMap<String, String> {
    let script = "cd / && find etc/kubernetes var/lib/kubelet -type f ! -name fill -print0 | xargs -0r sha256sum";
    let listing = worker.shell(script);
    listing.lines().filter_map(|line| line.split_once("  ")).map(|(sum, path)| (path.into(), sum.into())).collect()
}

#[test]
#[ignore = "needs a cluster: root, 60 s"]
fn a_full_disk_leaves_nothing_half_written_wherever_it_strikes() {
    let _shared = shared();
    let worker = Worker::add_with_disk("full", "8M");
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut struck = 0;
    for free_pages in 0.. {
        assert!(free_pages < 100, "it never succeeds");
        worker.shell(&format!(
            "rm -f /var/lib/kubelet/fill; dd if=/dev/zero of=/var/lib/kubelet/fill bs=4k 2>/dev/null; \
             truncate -s -{} /var/lib/kubelet/fill",
            free_pages * 4096
        ));
        let ended = worker.join(&["--skip-phases=preflight,kubelet-wait-bootstrap", "-o", "json"]).ends();
        if ended.status == Some(0) {
            break;
        }
        struck += 1;
        let failed = ended.failure();
        assert_eq!(failed.status, Some(1), "{failed:?}");
        assert!(failed.message.contains("No space left on device"), "with {free_pages} pages: {failed:?}");
        let now = files(&worker);
        let torn: Vec<&String> = now.keys().filter(|path| path.contains("/.")).collect();
        assert!(torn.is_empty(), "with {free_pages} pages: {torn:?}");
        seen.extend(now.into_iter().filter(|(path, _)| !path.contains("/pki/kubelet")));
    }
    assert!(struck > 3, "it struck {struck} times only");
    let whole = files(&worker);
    for (path, sum) in &seen {
        assert_eq!(whole.get(path), Some(sum), "{path} was there in part");
    }
    // The kubelet started on the full disk. What it writes itself it may have torn, and then it never starts again.
    worker.shell("rm /var/lib/kubelet/fill; systemctl stop kubelet; rm -f /var/lib/kubelet/*_manager_state");
    worker.join(&["--wait=registered"]).succeeds();
    assert_eq!(crate::approval::requests_for("full").len(), 1, "every run asked with the same key");
}
