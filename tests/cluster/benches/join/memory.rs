//! Peak resident memory of all processes of one binary together, sampled from `/proc`.

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
                peak.fetch_max(resident_kb(&program), Ordering::Relaxed);
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

fn resident_kb(program: &PathBuf) -> u64 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = processes.filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == *program));
    let resident = ours.filter_map(|entry| {
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        status.lines().find(|line| line.starts_with("VmRSS:"))?.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    resident.sum()
}
