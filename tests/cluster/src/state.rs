//! What is written down about a cluster, and where: one directory a cluster for records and logs, one for node disks.
//!
//! Records live in memory-backed `/run` where that is writable; node disks lie beside the built binaries, so that
//! images can be hard links. Nothing here starts or ends a process.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::process::Identity;

/// The bridge's address in every cluster; the balancer listens here.
pub const ENDPOINT_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The port of every API server and of the balancer.
pub const API_PORT: u16 = 6443;
/// What every cgroup of a cluster starts with.
pub(crate) const PREFIX: &str = "mo-";
/// Last byte of the first node's address.
const FIRST_HOST: u8 = 11;
const LAST_HOST: u8 = 250;
/// Fits a DNS label beside `api.` and a cgroup name beside [`PREFIX`].
const LONGEST_NAME: usize = 40;

/// A cluster's name: a DNS label of at most 40 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterName(String);

impl ClusterName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When it is not a lower-case DNS label of at most 40 characters.
    pub fn parse(text: &str) -> Result<Self> {
        verify_label("cluster", text)?;
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The control plane's name, the same on every node: `api.NAME.test`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("api.{}.test", self.0)
    }

    /// Directory of records and logs.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        state_root().join(&self.0)
    }

    /// Directory of the nodes' disks.
    pub(crate) fn disks(&self) -> Result<PathBuf> {
        Ok(disks_root()?.join(&self.0))
    }

    /// The cgroup above all of the cluster's cgroups, relative to a hierarchy's root.
    pub(crate) fn cgroup(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }

    /// The log of one of the cluster's own processes.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.directory().join(format!("{process}.log"))
    }
}

/// A node as written down by `add`; `init` is missing while the node is being made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Node and host name.
    pub name: String,
    /// Its address on the cluster's bridge.
    pub address: Ipv4Addr,
    /// Size of the file system under `/etc/kubernetes`, `/var/lib/kubelet` and `/var/lib/mortise`, if limited.
    pub disk: Option<String>,
    /// The first process of its PID namespace.
    pub init: Option<Identity>,
}

impl NodeRecord {
    /// Whether the node's first process still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.init.is_some_and(|init| init.is_alive())
    }

    /// The third byte of its Pods' subnet, 10.244.N.0/24.
    pub(crate) fn pod_subnet(&self) -> u8 {
        self.address.octets()[3]
    }
}

/// Checks that `text` is a DNS label short enough for what is derived from it.
pub(crate) fn verify_label(what: &str, text: &str) -> Result<()> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure!(
        !text.is_empty()
            && text.len() <= LONGEST_NAME
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-'),
        "{what} name `{text}` is not a DNS label: use a-z, 0-9 and `-`, at most {LONGEST_NAME} characters"
    );
    Ok(())
}

/// Where all clusters keep their records: `/run/mortise-cluster`, or below `$TMPDIR` where `/run` is not ours.
#[must_use]
pub(crate) fn state_root() -> PathBuf {
    let run = Path::new("/run/mortise-cluster");
    if fs::create_dir_all(run).is_ok() {
        return run.to_owned();
    }
    std::env::temp_dir().join("mortise-cluster")
}

/// `${XDG_CACHE_HOME:-~/.cache}/mortise`: what tests build or fetch once.
///
/// # Errors
///
/// Neither variable is set.
pub fn cache_root() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: set one to a directory with 5 GB free")?;
    Ok(cache.join("mortise"))
}

pub(crate) fn disks_root() -> Result<PathBuf> {
    Ok(cache_root()?.join("nodes"))
}

/// Names of all clusters that left a trace in records or disks.
pub(crate) fn known_clusters() -> Result<Vec<ClusterName>> {
    let mut names: Vec<String> = Vec::new();
    for root in [state_root(), disks_root()?] {
        names.extend(entries(&root)?);
    }
    names.sort();
    names.dedup();
    Ok(names.iter().filter_map(|name| ClusterName::parse(name).ok()).collect())
}

/// File names in a directory, none if it does not exist.
pub(crate) fn entries(directory: &Path) -> Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading directory `{}`", directory.display())),
    }
}

/// Writes JSON whole: a second name, then a rename.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec_pretty(value)?).with_context(|| format!("writing `{}`", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("renaming to `{}`", path.display()))
}

/// Reads JSON; a missing file is `None`.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| format!("parsing `{}`", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading `{}`", path.display())),
    }
}

/// Path of a node's record.
pub(crate) fn node_record(cluster: &ClusterName, node: &str) -> PathBuf {
    cluster.directory().join("nodes").join(format!("{node}.json"))
}

/// All nodes of a cluster, by address.
pub(crate) fn nodes(cluster: &ClusterName) -> Result<Vec<NodeRecord>> {
    let directory = cluster.directory().join("nodes");
    let mut nodes = Vec::new();
    for entry in entries(&directory)?.iter().filter(|entry| entry.ends_with(".json")) {
        nodes.extend(read_json::<NodeRecord>(&directory.join(entry))?);
    }
    nodes.sort_by_key(|node| node.address);
    Ok(nodes)
}

/// The lowest address no node has.
pub(crate) fn free_address(nodes: &[NodeRecord]) -> Result<Ipv4Addr> {
    (FIRST_HOST..=LAST_HOST)
        .map(|host| Ipv4Addr::new(192, 0, 2, host))
        .find(|address| nodes.iter().all(|node| node.address != *address))
        .with_context(|| format!("all {} node addresses are taken", LAST_HOST - FIRST_HOST + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_dns_labels_and_nothing_else() {
        for good in ["a", "join-42-1", "0x"] {
            assert!(ClusterName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "../x", &"a".repeat(41)] {
            assert!(ClusterName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hands_out_the_lowest_free_address() {
        let node = |host| NodeRecord {
            name: format!("n{host}"),
            address: Ipv4Addr::new(192, 0, 2, host),
            disk: None,
            init: None,
        };
        assert_eq!(free_address(&[]).unwrap(), Ipv4Addr::new(192, 0, 2, 11));
        assert_eq!(free_address(&[node(11), node(13)]).unwrap(), Ipv4Addr::new(192, 0, 2, 12));
    }
}
