//! The way into a cluster or a node: this process moves to its cgroup, joins its namespaces, and starts the command.
//!
//! Joining a mount namespace is for single-threaded processes only, so this is always a process of its own, the hidden
//! subcommand `enter`; the library starts that rather than joining anything itself.

use std::fs::{self, File};
use std::io::IsTerminal as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::signal::unix::{SignalKind, signal};

use crate::cgroup;
use crate::process::{Identity, describe};
use crate::state::{self, ClusterName, NodeRecord};

/// Where a node sees the stand-ins for systemd's commands.
pub(crate) const NODE_SHIMS: &str = "/run/node/shim";
/// Where a node sees the cluster's binaries.
pub(crate) const NODE_BINARIES: &str = "/run/node/bin";
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The certificates with which a command `etcdctl` asks the member of its own node: those of the liveness probe.
const ETCDCTL: [(&str, &str, &str); 3] = [
    ("--cacert", "ETCDCTL_CACERT", "/etc/kubernetes/pki/etcd/ca.crt"),
    ("--cert", "ETCDCTL_CERT", "/etc/kubernetes/pki/etcd/healthcheck-client.crt"),
    ("--key", "ETCDCTL_KEY", "/etc/kubernetes/pki/etcd/healthcheck-client.key"),
];

/// Runs a command in a node and returns its exit code (128 + N for signal N).
///
/// Signals are handed on, and the command dies with this process: whoever kills `exec` kills what it runs.
pub(crate) fn exec(cluster: &ClusterName, node: &str, argv: &[String]) -> Result<ExitCode> {
    let node = running_node(cluster, node)?;
    let init = node.init.context("a running node has a first process")?;
    let here = std::env::current_dir().ok();
    cgroup::enter(&format!("{}/{}/init", cluster.cgroup(), node.name))?;
    join(&init, &NODE_NAMESPACES)?;
    if let Some(here) = here.filter(|here| here.is_dir()) {
        std::env::set_current_dir(here).context("returning to the working directory")?;
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).args(argv);
    node_environment(&mut command);
    command.envs(etcdctl_environment(argv));
    let line = describe(&command);
    let status = run_and_forward_signals(command).with_context(|| format!("running `{line}`"))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Runs a command to its end and hands it the signals sent to this process, so that a caller may interrupt it.
fn run_and_forward_signals(mut command: Command) -> Result<ExitStatus> {
    // A group of its own, or `kill 0` in the node reaches the caller's processes; but a terminal's ^C is for its group.
    let at_terminal = std::io::stdin().is_terminal();
    if !at_terminal {
        command.process_group(0);
    }
    // One thread only: the command dies with the thread that started it.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut child = tokio::process::Command::from(command).spawn()?;
        loop {
            let received = tokio::select! {
                status = child.wait() => return Ok(status?),
                _ = terminate.recv() => Signal::TERM,
                _ = interrupt.recv() => Signal::INT,
                _ = hang_up.recv() => Signal::HUP,
            };
            // A terminal has sent it to the command as well.
            let sent_already = received == Signal::INT && at_terminal;
            if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
                && !sent_already
            {
                // Not reaped yet, so the number is still the command's.
                let _ = kill_process(pid, received);
            }
        }
    })
}

/// Certificates for `etcdctl`, but those that the caller names: it refuses to be told twice.
fn etcdctl_environment(argv: &[String]) -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_meant = argv.first().is_some_and(|program| program == "etcdctl");
    let is_named = |flag: &str| argv.iter().any(|word| word.split('=').next() == Some(flag));
    ETCDCTL.into_iter().filter(move |(flag, ..)| is_meant && !is_named(flag)).map(|(_, name, file)| (name, file))
}

/// Starts a command that outlives this process inside a cluster's namespaces, in cgroup `group`.
pub(crate) fn detach(cluster: &ClusterName, group: &str, argv: &[String]) -> Result<ExitCode> {
    let init = cluster_init(cluster)?;
    cgroup::enter(&format!("{}/{group}", cluster.cgroup()))?;
    join(&init, &CLUSTER_NAMESPACES)?;
    let Some((program, arguments)) = argv.split_first() else { bail!("no command given") };
    Command::new(program).args(arguments).spawn().with_context(|| format!("starting `{program}`"))?;
    Ok(ExitCode::SUCCESS)
}

/// Moves this process to cgroup `group` and becomes the command.
pub(crate) fn become_command(group: &str, argv: &[String]) -> Result<ExitCode> {
    cgroup::enter(group)?;
    let Some((program, arguments)) = argv.split_first() else { bail!("no command given") };
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("starting `{program}`"))
}

/// What every process of a node finds in its environment: the node's PATH, and no proxy of this machine's.
pub(crate) fn node_environment(command: &mut Command) {
    let path = std::env::var("PATH").unwrap_or_else(|_| USUAL_PATH.to_owned());
    let outside = path.trim_start_matches(&format!("{NODE_SHIMS}:{NODE_BINARIES}:")).to_owned();
    command.env("PATH", format!("{NODE_SHIMS}:{NODE_BINARIES}:{outside}"));
    for proxy in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
        command.env_remove(proxy).env_remove(proxy.to_uppercase());
    }
    command.env_remove("KUBECONFIG").env_remove("NOTIFY_SOCKET");
}

/// The first process of a cluster, alive.
pub(crate) fn cluster_init(cluster: &ClusterName) -> Result<Identity> {
    let record = cluster.directory().join("init.json");
    state::read_json::<Identity>(&record)?.filter(Identity::is_alive).with_context(|| {
        format!(
            "cluster `{0}` is not running: see `mortise-cluster list`, or run `mortise-cluster up --name {0}`",
            cluster.as_str()
        )
    })
}

/// A node that runs.
pub(crate) fn running_node(cluster: &ClusterName, node: &str) -> Result<NodeRecord> {
    cluster_init(cluster)?;
    let found = state::nodes(cluster)?;
    let names: Vec<&str> = found.iter().map(|node| node.name.as_str()).collect();
    let known = format!("cluster `{}` has nodes {}", cluster.as_str(), names.join(", "));
    let node =
        found.iter().find(|candidate| candidate.name == node).with_context(|| format!("no node `{node}`: {known}"))?;
    if !node.is_running() {
        bail!("node `{}` is down: its first process ended; see `{}`", node.name, cluster.log(&node.name).display());
    }
    Ok(node.clone())
}

const CLUSTER_NAMESPACES: [(&str, LinkNameSpaceType); 3] =
    [("net", LinkNameSpaceType::Network), ("pid", LinkNameSpaceType::ProcessID), ("mnt", LinkNameSpaceType::Mount)];

const NODE_NAMESPACES: [(&str, LinkNameSpaceType); 5] = [
    ("net", LinkNameSpaceType::Network),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("cgroup", LinkNameSpaceType::ControlGroup),
    ("pid", LinkNameSpaceType::ProcessID),
    ("mnt", LinkNameSpaceType::Mount),
];

/// Moves the calling thread, and what it starts from now on, to the network that all nodes hang on.
pub(crate) fn enter_network(cluster: &ClusterName) -> Result<()> {
    join(&cluster_init(cluster)?, &CLUSTER_NAMESPACES[..1])
}

/// Joins namespaces of a process; children join its PID namespace, this process does not.
fn join(target: &Identity, namespaces: &[(&str, LinkNameSpaceType)]) -> Result<()> {
    let directory = PathBuf::from(format!("/proc/{}/ns", target.pid));
    // All opened before the first is joined: afterwards this `/proc` may be out of sight.
    let mut opened = Vec::new();
    for (name, kind) in namespaces {
        opened.push((name, kind, open(&directory.join(name))?));
    }
    if !target.is_alive() {
        bail!("process {} ended while its namespaces were being joined", target.pid);
    }
    for (name, kind, file) in &opened {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(file), Some(**kind))
            .with_context(|| format!("joining namespace `{name}` of process {}: root is needed", target.pid))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("opening `{}`: root is needed", path.display()))
}

/// A file's content as a node sees it.
pub(crate) fn read_in(node: &NodeRecord, path: &str) -> Result<Vec<u8>> {
    let init = node.init.context("a running node has a first process")?;
    fs::read(format!("/proc/{}/root{path}", init.pid)).with_context(|| format!("reading `{path}` of `{}`", node.name))
}

/// Whether a file exists as a node sees it.
pub(crate) fn exists_in(node: &NodeRecord, path: &str) -> bool {
    node.init.is_some_and(|init| fs::exists(format!("/proc/{}/root{path}", init.pid)).unwrap_or(false))
}
