//! Peak memory of all processes of one binary together, sampled from `/proc`.
//!
//! Proportional set size: a page that several processes share counts once, which a sum of resident sizes would not do.
//! Between its birth and its exec a child shares all memory of its parent and is left out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(2);

/// A thread that looks every 2 ms.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    peak_kb: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Sampler {
    /// Begins to look for processes of `program`.
    pub(crate) fn start(program: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let peak_kb = Arc::new(AtomicU64::new(0));
        let (program, stopped, peak) = (program.to_owned(), stop.clone(), peak_kb.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                peak.fetch_max(held_kb(&program), Ordering::Relaxed);
                std::thread::sleep(INTERVAL);
            }
        });
        Self { stop, peak_kb, thread }
    }

    /// Ends it: the largest sum seen, in megabytes.
    pub(crate) fn peak_mb(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        // A sampler that panicked has seen what it has seen.
        let _ = self.thread.join();
        self.peak_kb.load(Ordering::Relaxed) as f64 * 1024.0 / 1e6
    }
}

fn held_kb(program: &Path) -> u64 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let ours: Vec<PathBuf> =
        processes.filter(|path| std::fs::read_link(path.join("exe")).is_ok_and(|exe| exe == program)).collect();
    let apart = ours.iter().filter(|path| {
        let parent = field(path, "status", "PPid:").map(|id| Path::new("/proc").join(id.to_string()));
        // The same memory to the last page: not yet a process of its own.
        !parent.is_some_and(|parent| ours.contains(&parent) && sizes(&parent) == sizes(path))
    });
    apart.filter_map(|path| field(path, "smaps_rollup", "Pss:")).sum()
}

fn sizes(process: &Path) -> Option<String> {
    std::fs::read_to_string(process.join("statm")).ok()
}

/// The number behind a word in one of a process' files.
fn field(process: &Path, file: &str, word: &str) -> Option<u64> {
    let text = std::fs::read_to_string(process.join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(word))?.split_whitespace().next()?.parse().ok()
}
