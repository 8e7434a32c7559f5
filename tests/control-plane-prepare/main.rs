//! What a joining control plane writes, compared with what the real kubeadm wrote over the same configurations.
//!
//! `corpus/` holds the configurations, `expected/` kubeadm's files, checked in. The comparison needs neither kubeadm nor
//! root; that kubeadm still writes what is checked in is a test of the cluster tier, which also is the generator.

mod api;
mod case;
mod kubeadm;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;

/// The older of the minor versions that control planes may have.
const OLDER: &str = "v1.36.4";
/// Cases that the generator runs at a time.
const SIDE_BY_SIDE: usize = 4;

#[test]
fn manifests_are_byte_for_byte_kubeadms() {
    let cases = Case::all();
    assert!(cases.len() >= 40, "{} configurations", cases.len());
    let mut differing = Vec::new();
    for case in &cases {
        for &version in case.versions() {
            let (ours, theirs) = (case.ours(version), case.expected(version));
            if ours != theirs {
                differing.push(format!("{} {version}:\n{}", case.name, difference(&theirs, &ours)));
            }
        }
    }
    assert!(differing.is_empty(), "{} differ\n{}", differing.len(), differing.join("\n"));
}

/// Also the generator: with `MORTISE_REGENERATE` set, what kubeadm writes becomes what is expected.
#[test]
#[ignore = "needs root and the cluster's binaries: runs the real kubeadm over the corpus"]
fn kubeadm_still_writes_what_is_checked_in() {
    let regenerate = std::env::var_os("MORTISE_REGENERATE").is_some();
    let only = std::env::var("MORTISE_CASE").ok();
    let cases: Vec<Case> =
        Case::all().into_iter().filter(|case| only.as_ref().is_none_or(|only| case.name == *only)).collect();
    let (next, differing) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // Most of a case is waiting.
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                let kubeadm = kubeadm::Kubeadm::new();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for &version in case.versions() {
                        let written = kubeadm.prepare(case, version);
                        if regenerate && version == case.versions()[0] {
                            std::fs::write(case.expected_path(), &written).unwrap();
                        }
                        let expected = case.expected(version);
                        if written != expected {
                            let difference = difference(&expected, &written);
                            differing.lock().unwrap().push(format!("{} {version}:\n{difference}", case.name));
                        }
                    }
                }
            });
        }
    });
    let differing = differing.into_inner().unwrap();
    assert!(differing.is_empty(), "{} differ\n{}", differing.len(), differing.join("\n"));
}

/// The first lines that differ.
fn difference(expected: &str, found: &str) -> String {
    let mut lines = expected.lines().zip(found.lines()).enumerate().filter(|(_, (a, b))| a != b);
    match lines.next() {
        Some((n, (expected, found))) => format!("  line {}: expected `{expected}`\n  found `{found}`", n + 1),
        None => format!("  {} lines expected, {} found", expected.lines().count(), found.lines().count()),
    }
}
