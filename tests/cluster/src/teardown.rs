//! Taking a cluster down: idempotent, and content with one that was never finished.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cgroup;
use crate::keeper::OWN_GROUP;
use crate::process::{Identity, tail_of};
use crate::state::{self, ClusterName, PREFIX};

/// How long a keeper may take to clear up after its cluster.
const KEEPER_LIMIT: Duration = Duration::from_secs(30);

/// Ends every process of a cluster and removes every trace; a cluster that does not exist is fine.
///
/// # Errors
///
/// When something cannot be removed; the text names it. Running it again is safe.
pub fn down(cluster: &ClusterName) -> Result<()> {
    let directory = cluster.directory();
    let keeper = state::read_json::<Identity>(&directory.join("keeper.json")).ok().flatten();
    let init = state::read_json::<Identity>(&directory.join("init.json")).ok().flatten();
    if let Some(init) = init.filter(Identity::is_alive) {
        init.kill();
    } else if let Some(keeper) = keeper {
        // No first process to be waited for: the keeper is between its start and the cluster's.
        keeper.kill();
    }
    if let Some(keeper) = keeper
        && !keeper.wait_for_end(KEEPER_LIMIT)
    {
        keeper.kill();
        ensure!(
            keeper.wait_for_end(KEEPER_LIMIT),
            "keeper {} does not end; {}",
            keeper.pid,
            tail_of(&cluster.log("keeper"))
        );
    }
    remove_traces(cluster)
}

/// Takes down every cluster that left a process, a record, a disk or a cgroup.
///
/// # Errors
///
/// The first failure, after all of them were tried.
pub fn down_all() -> Result<Vec<ClusterName>> {
    let mut clusters = state::known_clusters()?;
    for group in cgroup::top_level(PREFIX, OWN_GROUP)? {
        if let Ok(name) = ClusterName::parse(group.trim_start_matches(PREFIX))
            && !clusters.contains(&name)
        {
            clusters.push(name);
        }
    }
    let mut failed = None;
    for cluster in &clusters {
        if let Err(error) = down(cluster) {
            failed.get_or_insert(error.context(format!("taking down cluster `{}`", cluster.as_str())));
        }
    }
    failed.map_or(Ok(clusters), Err)
}

/// Removes processes, cgroups, disks and records; the kernel has removed mounts and interfaces with the processes.
pub(crate) fn remove_traces(cluster: &ClusterName) -> Result<()> {
    cgroup::remove(&cluster.cgroup())?;
    remove_disks(cluster)?;
    remove_tree(&cluster.directory())
}

/// Removes the nodes' disks, which nothing may use any more.
pub(crate) fn remove_disks(cluster: &ClusterName) -> Result<()> {
    remove_tree(&cluster.disks()?)
}

/// Removes a directory that another remover may be busy with.
fn remove_tree(path: &Path) -> Result<()> {
    for _ in 0..100 {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !path.exists() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            result => return result.with_context(|| format!("removing `{}`", path.display())),
        }
        std::thread::sleep(crate::process::POLL_INTERVAL);
    }
    fs::remove_dir_all(path).with_context(|| format!("removing `{}`", path.display()))
}
