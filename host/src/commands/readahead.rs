//! This program, read into the page cache at once.
//!
//! A node joins once, so this program starts cold, and its pages would come from the disk a few at a time, for the host and
//! its runner alike. Asked for together they come as fast as the disk reads. (The kubelet's were tried, too: it has four
//! times the size, and everything else waited behind it.)

use std::fs::File;

use rustix::fs::{Advice, fadvise};

/// Begins to read. Where that is not possible, the pages come one by one.
pub(super) fn read_program_ahead() {
    let read = || {
        if let Ok(program) = File::open("/proc/self/exe") {
            // A hint: a file system that does not take it is no reason to tell anybody.
            let _ = fadvise(&program, 0, None, Advice::WillNeed);
        }
    };
    // Without a thread there is no hint.
    let _ = std::thread::Builder::new().name("readahead".into()).stack_size(128 << 10).spawn(read);
}
