//! Programs, read into the page cache before they are needed.
//!
//! A node joins once, so this program and the kubelet start cold, and their pages would come from the disk a few at a
//! time. Asked for together they come as fast as the disk reads. This program's come first, for host and runner alike. The
//! kubelet has four times the size, and everything else would wait behind it: its turn comes when it has said its version,
//! from when on a join waits for the network more than for the disk.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};

use crate::facts::{Fact, FactRequest, FactSource};

/// Begins to read this program. Where that is not possible, the pages come one by one.
pub(super) fn read_program_ahead() {
    read("/proc/self/exe".into());
}

/// Begins to read the kubelet once it has said its version.
pub(super) fn read_kubelet_ahead(facts: Arc<dyn FactSource>) {
    drop(tokio::spawn(async move {
        let request = FactRequest::Executable { name: "kubelet".into() };
        if let Ok(Fact::Executable(Some(kubelet))) = facts.ask(&request).await {
            read(kubelet.path.into());
        }
    }));
}

fn read(program: PathBuf) {
    let read = move || {
        if let Ok(program) = File::open(program) {
            // A hint: a file system that does not take it is no reason to tell anybody.
            let _ = fadvise(&program, 0, None, Advice::WillNeed);
        }
    };
    // Without a thread there is no hint.
    let _ = std::thread::Builder::new().name("readahead".into()).stack_size(128 << 10).spawn(read);
}
