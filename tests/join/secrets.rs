//! Secrets stay where they belong: canaries in outputs, records, and every process' arguments.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lab::{Worker, cluster, shared};

/// Looks at the arguments of all processes, again and again, until told to stop; how often, and what was found.
fn watch_arguments(secret: &str, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut looks, mut found) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            // A process may end while it is looked at.
            let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            if arguments.contains(secret) {
                found.push(arguments);
            }
        }
        looks += 1;
    }
    (looks, found)
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn no_output_record_or_argument_shows_the_tokens_secret() {
    let _shared = shared();
    for (way, format) in [("host", "text"), ("kubelet", "json")] {
        let worker = Worker::add(&format!("canary-{way}"));
        let line = cluster().fresh_join_line().unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let token = words[4];
        let secret = token.split_once('.').unwrap().1;
        worker.write("/etc/test/token", token);
        let pin = words.last().unwrap();
        let arguments = [
            words[2],
            "--token-file=/etc/test/token",
            "--discovery-token-ca-cert-hash",
            pin,
            "-v=9",
            "--wait=registered",
            "--tls-bootstrap-by",
            way,
            "-o",
            format,
        ];
        let stop = AtomicBool::new(false);
        let (ended, (looks, found)) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| watch_arguments(secret, &stop));
            let ended = worker.join_with(&arguments).succeeds();
            stop.store(true, Ordering::Relaxed);
            (ended, watcher.join().unwrap())
        });
        assert!(looks > 5, "looked {looks} times only");
        assert_eq!(found, Vec::<String>::new());
        for (what, text) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
            assert!(!text.contains(secret), "{what} of {way}: {text}");
        }
        worker.write("/etc/test/pattern", secret);
        let left = worker.shell(
            "grep -rlsF -f /etc/test/pattern --exclude-dir=test --exclude-dir=containerd \
             /etc /run /var/lib/mortise /var/lib/kubelet /var/log || true",
        );
        assert_eq!(left, "", "it is left on the disk");
        let key = worker.shell("sed -n '/BEGIN.*KEY/{n;p}' /var/lib/kubelet/pki/kubelet-client-current.pem");
        let key = key.trim();
        assert!(key.len() > 40, "the key is found: {}", key.len());
        assert!(!ended.stdout.contains(key) && !ended.stderr.contains(key), "the key is shown");
    }
}
