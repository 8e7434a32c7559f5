//! Whether the data directory's disk is large and fast enough for a member.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::own::{self, Data};
use super::{EtcdJoin, EtcdJoinError, PHASE};
use crate::node::Node;
use crate::output::Reporter;

/// What a member needs beside the database: two log segments of 64 MiB that etcd makes in full, and as much to grow.
const BESIDE_DATABASE_BYTES: u64 = 256 << 20;
/// What a member that runs must have left: it makes the next two segments ahead.
pub(super) const RUNNING_BYTES: u64 = BESIDE_DATABASE_BYTES / 2;
/// As many writes as give a median worth the name and take no time on a good disk.
const WRITES: usize = 9;
/// About what etcd appends for one request.
const WRITE_BYTES: usize = 2 << 10;
/// etcd's own advice (docs, "Hardware recommendations"): the log is synced within this time.
pub(super) const SLOW_SYNC: Duration = Duration::from_millis(10);
/// kubeadm's etcd has an election timeout of one second: with such a disk a member loses its leader at every write.
pub(super) const TOO_SLOW_SYNC: Duration = Duration::from_secs(1);

/// Bytes that a data directory must have free for a copy of a database.
pub(super) fn needed_bytes(db_bytes: u64) -> u64 {
    db_bytes.saturating_add(BESIDE_DATABASE_BYTES)
}

/// Bytes free for an ordinary program, on the file system of a directory.
pub(super) fn free_bytes(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The median time of a small write with its sync. The file is gone afterwards.
pub(super) fn sync_latency(directory: &Path) -> io::Result<Duration> {
    let path = directory.join(".mortise-sync");
    let measured = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let mut times = Vec::with_capacity(WRITES);
        for _ in 0..WRITES {
            let started = Instant::now();
            file.write_all(&[0; WRITE_BYTES])?;
            file.sync_data()?;
            times.push(started.elapsed());
            // Two are enough to know that it is no disk for etcd.
            if times.len() >= 2 && times.iter().all(|time| *time > TOO_SLOW_SYNC) {
                break;
            }
        }
        times.sort();
        Ok(times[times.len() / 2])
    })();
    let removed = std::fs::remove_file(&path);
    match (measured, removed) {
        (Ok(_), Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        (measured, _) => measured,
    }
}

/// `1.5 GiB`, `12 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mib = bytes >> 20;
    if mib >= 1024 { format!("{}.{} GiB", mib >> 10, ((mib & 1023) * 10) >> 10) } else { format!("{mib} MiB") }
}

impl EtcdJoin<'_> {
    pub(super) fn check_space(&self, db_bytes: u64, node: &Node) -> Result<(), EtcdJoinError> {
        // What the learner has written already is the database.
        let there = matches!(own::read_data(&node.locate(self.data_dir)), Ok(Data::Of(_)));
        self.require_free(if there { RUNNING_BYTES } else { needed_bytes(db_bytes) }, node)
    }

    pub(super) fn require_free(&self, needed_bytes: u64, node: &Node) -> Result<(), EtcdJoinError> {
        let directory = node.locate(self.data_dir);
        let free_bytes = free_bytes(&directory).map_err(|source| EtcdJoinError::DataDirectory {
            action: "measure",
            path: directory,
            source,
        })?;
        if free_bytes < needed_bytes {
            return Err(EtcdJoinError::Space { path: self.data_dir.to_owned(), free_bytes, needed_bytes });
        }
        Ok(())
    }

    pub(super) fn check_speed(&self, node: &Node, reporter: &Reporter) -> Result<(), EtcdJoinError> {
        let step = reporter.step(PHASE, "measure the data directory");
        let directory = node.locate(self.data_dir);
        let latency = sync_latency(&directory).map_err(|source| EtcdJoinError::DataDirectory {
            action: "measure",
            path: directory,
            source,
        })?;
        if latency > TOO_SLOW_SYNC {
            return Err(EtcdJoinError::SlowDisk { path: self.data_dir.to_owned(), latency });
        }
        if latency > SLOW_SYNC {
            let text = format!(
                "a small write to `{}` takes {} ms to reach the disk; etcd wants less than {} ms, or every write of the \
                 cluster may wait for this member",
                self.data_dir.display(),
                latency.as_millis(),
                SLOW_SYNC.as_millis()
            );
            reporter.warn(Some(PHASE), text);
        }
        step.done(format!("a small write reaches the disk in {:.1} ms", latency.as_secs_f64() * 1000.0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wants_room_for_the_database_and_its_log() {
        assert_eq!(needed_bytes(0), 256 << 20);
        assert_eq!(needed_bytes(1 << 30), (1 << 30) + (256 << 20));
        assert_eq!(needed_bytes(u64::MAX), u64::MAX);
    }

    #[test]
    fn shows_sizes_as_people_say_them() {
        assert_eq!(size(0), "0 MiB");
        assert_eq!(size(12 << 20), "12 MiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
    }

    #[test]
    fn measuring_a_disk_leaves_nothing_on_it() {
        let directory = tempfile::tempdir().unwrap();
        assert!(sync_latency(directory.path()).unwrap() > Duration::ZERO);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(free_bytes(directory.path()).unwrap() > 0);
        assert!(sync_latency(&directory.path().join("absent")).is_err());
    }
}
