//! Adding a node: a disk, an address, and a first process that makes the rest of the node from inside.

pub(crate) mod files;
pub(crate) mod init;
pub(crate) mod mounts;

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::balance::Settings;
use crate::build::Artifacts;
use crate::process::{Identity, describe, tail_of};
use crate::state::{self, ClusterName, ENDPOINT_ADDRESS, NodeRecord};
use crate::{cgroup, enter, keeper};

/// All that a node's first process must know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeSpec {
    pub(crate) cluster: String,
    pub(crate) record: NodeRecord,
    /// The node's directory on a real disk.
    pub(crate) disk: PathBuf,
    /// An empty directory that may be mounted on.
    pub(crate) mount_point: PathBuf,
    pub(crate) binaries: PathBuf,
    /// This program, which is also the node's `systemctl` and `journalctl`.
    pub(crate) program: PathBuf,
    /// The cluster's first process: the other end of the node's cable is with it.
    pub(crate) cluster_init: Identity,
    /// Addresses and names for `/etc/hosts`.
    pub(crate) hosts: Vec<(std::net::Ipv4Addr, String)>,
}

/// Adds a node that runs containerd and has joined nothing.
pub(crate) fn add(
    cluster: &ClusterName,
    name: &str,
    disk_size: Option<&str>,
    artifacts: &Artifacts,
    program: &Path,
) -> Result<NodeRecord> {
    state::verify_label("node", name)?;
    ensure!(
        name != keeper::OWN_GROUP,
        "a node cannot be called `cluster`: that is the control group of the cluster's own processes"
    );
    let cluster_init = enter::cluster_init(cluster)?;
    let mut record = reserve(cluster, name, disk_size)?;
    match make(cluster, &record, cluster_init, artifacts, program) {
        Ok(init) => record.init = Some(init),
        Err(error) => {
            // The name is free again; what cannot be removed now goes with the cluster.
            let _ = fs::remove_dir_all(cluster.disks()?.join(name));
            let _ = fs::remove_file(state::node_record(cluster, name));
            return Err(error.context(format!("adding node `{name}`")));
        }
    }
    state::write_json(&state::node_record(cluster, name), &record)?;
    introduce(cluster, &record)?;
    Ok(record)
}

/// Makes the node's disk and everything else.
fn make(
    cluster: &ClusterName,
    record: &NodeRecord,
    cluster_init: Identity,
    artifacts: &Artifacts,
    program: &Path,
) -> Result<Identity> {
    let name = &record.name;
    let disk = cluster.disks()?.join(name);
    files::make_disk(&disk, &artifacts.image_store())?;
    let mount_point = cluster.directory().join("nodes").join(name);
    fs::create_dir_all(&mount_point).with_context(|| format!("making `{}`", mount_point.display()))?;
    let mut hosts = vec![(ENDPOINT_ADDRESS, cluster.endpoint())];
    hosts.extend(state::nodes(cluster)?.into_iter().map(|node| (node.address, node.name)));
    let spec = NodeSpec {
        cluster: cluster.as_str().to_owned(),
        record: record.clone(),
        disk,
        mount_point,
        binaries: artifacts.binaries(),
        program: program.to_owned(),
        cluster_init,
        hosts,
    };
    start(cluster, &spec)
}

/// Writes the node down with an address of its own, so that no other `add` takes name or address.
fn reserve(cluster: &ClusterName, name: &str, disk: Option<&str>) -> Result<NodeRecord> {
    let directory = cluster.directory().join("nodes");
    fs::create_dir_all(&directory).with_context(|| format!("making `{}`", directory.display()))?;
    let lock = fs::File::create(directory.join("lock")).context("locking the list of nodes")?;
    lock.lock().context("locking the list of nodes")?;
    let nodes = state::nodes(cluster)?;
    let address = match nodes.iter().find(|node| node.name == name) {
        Some(known) if known.init.is_none() || known.is_running() => {
            bail!("cluster `{}` already has a node `{name}`", cluster.as_str())
        }
        // One that is down is made again, from nothing, at its old address.
        Some(known) => {
            let disk = cluster.disks()?.join(name);
            fs::remove_dir_all(&disk).with_context(|| format!("removing the old disk `{}`", disk.display()))?;
            // A version 2 group that has handed its controllers down takes no process any more.
            cgroup::remove(&format!("{}/{name}", cluster.cgroup()))?;
            known.address
        }
        None => state::free_address(&nodes)?,
    };
    let record = NodeRecord { name: name.to_owned(), address, disk: disk.map(str::to_owned), init: None };
    state::write_json(&state::node_record(cluster, name), &record)?;
    Ok(record)
}

/// Starts the node's first process and waits for the one line it prints when the node is made.
fn start(cluster: &ClusterName, spec: &NodeSpec) -> Result<Identity> {
    let log = cluster.log(&spec.record.name);
    let file = fs::File::create(&log).with_context(|| format!("creating `{}`", log.display()))?;
    let mut command = Command::new(&spec.program);
    // `unshare` itself waits in the cluster's group, for a version 2 node's group must hold no process but in a leaf. The
    // first process moves before its cgroup namespace is made: where it is then becomes the node's root.
    let group = format!("{}/{}", cluster.cgroup(), spec.record.name);
    command.args(["enter", "--cluster", cluster.as_str(), "--group", keeper::OWN_GROUP, "--", "unshare"]);
    command.args(["--kill-child", "--pid", "--net", "--mount", "--uts", "--propagation", "private", "--"]);
    command.arg(&spec.program).args(["enter", "--group", &group, "--", "unshare", "--cgroup", "--"]);
    command.arg(&spec.program).arg("node-init").arg(serde_json::to_string(spec)?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting `{}`", describe(&command)))?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("the child's output is piped")?;
    BufReader::new(stdout).read_line(&mut line).context("waiting for the node's first process")?;
    child.wait().context("reaping the node's starter")?;
    // No line: it failed before it could print one, and its log says how.
    let printed = serde_json::from_str(&line).ok();
    printed.with_context(|| format!("its first process failed; {}", tail_of(&log)))
}

/// Tells the other nodes the new one's name, and the balancer its address.
fn introduce(cluster: &ClusterName, record: &NodeRecord) -> Result<()> {
    for other in state::nodes(cluster)?.iter().filter(|other| other.name != record.name && other.is_running()) {
        let Some(init) = other.init else { continue };
        // One that ended, perhaps this very moment, needs no entry: added again it is told of all.
        if !init.is_alive() {
            continue;
        }
        let hosts = format!("/proc/{}/root/etc/hosts", init.pid);
        fs::OpenOptions::new()
            .append(true)
            .open(&hosts)
            .and_then(|mut file| writeln!(file, "{} {}", record.address, record.name))
            .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .with_context(|| format!("writing `/etc/hosts` of node `{}`", other.name))?;
    }
    Settings::change(cluster, |settings| {
        if !settings.backends.contains(&record.address) {
            settings.backends.push(record.address);
        }
    })
}

/// Ends a node at once, as if its power were cut. Adding a node of the same name replaces it.
pub(crate) fn power_off(cluster: &ClusterName, name: &str) -> Result<()> {
    let node = enter::running_node(cluster, name)?;
    let init = node.init.context("a running node has a first process")?;
    init.kill();
    ensure!(
        init.wait_for_end(std::time::Duration::from_secs(10)),
        "the first process of node `{name}` ({}) does not end",
        init.pid
    );
    // An address that does not even refuse costs whoever connects next a third of a second.
    Settings::change(cluster, |settings| settings.backends.retain(|backend| *backend != node.address))
}
