//! The process that keeps a cluster, and the first process inside it.
//!
//! The keeper stays outside: it starts the cluster's first process in new PID, mount and network namespaces, waits for
//! it or for the cluster's owner to end, and clears away what the kernel does not clear by itself (cgroups, records,
//! disks). All else hangs on the first process: when it dies, the kernel kills every process below it, and with the
//! last of them go mounts, interfaces and namespaces. Should the keeper itself be killed, the first process goes with
//! it and `down` finds the rest.

use std::fs;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, setsid, wait};

use crate::process::{Identity, run};
use crate::state::{self, ClusterName, ENDPOINT_ADDRESS};
use crate::teardown;

/// The cgroup of the cluster's own processes.
pub(crate) const OWN_GROUP: &str = "cluster";
/// The bridge all nodes hang on.
pub(crate) const BRIDGE: &str = "mo-br";
/// Locally administered.
const BRIDGE_HARDWARE_ADDRESS: &str = "02:00:00:00:00:01";
const INOTIFY_INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";
/// Fifty control planes; the usual 128 end with the seventh.
const MINIMUM_INOTIFY_INSTANCES: u32 = 1024;

/// Keeps a cluster until its first process or its owner ends, then removes what is left.
pub(crate) fn keep(cluster: &ClusterName, owner: Option<i32>) -> Result<ExitCode> {
    // A session of its own: a terminal's hang-up or ^C is not meant for the cluster.
    setsid().context("starting a session")?;
    let own = Identity::of(i32::try_from(std::process::id())?).context("own process is not in /proc")?;
    state::write_json(&cluster.directory().join("keeper.json"), &own)?;
    let owner = owner.map(open_owner).transpose()?;
    let program = std::env::current_exe().context("finding this program")?;
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&program)
        .args(["enter", "--group", &format!("{}/{OWN_GROUP}", cluster.cgroup()), "--", "unshare"])
        .args(["--kill-child", "--pid", "--net", "--mount", "--propagation", "private", "--"])
        .arg(&program)
        .args(["cluster-init", cluster.as_str()])
        .stdin(Stdio::null())
        .spawn()
        .context("starting `unshare`")?;
    let child_fd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).context("watching the first process")?;
    let mut awaited = vec![PollFd::new(&child_fd, PollFlags::IN)];
    if let Some(owner) = &owner {
        awaited.push(PollFd::from_borrowed_fd(owner.as_fd(), PollFlags::IN));
    }
    while let Err(error) = poll(&mut awaited, None) {
        if error != rustix::io::Errno::INTR {
            return Err(error).context("waiting for the cluster's end");
        }
    }
    // Either `unshare` ended or it is to end; the cgroup's removal below kills whatever did not go with it.
    let _ = child.kill();
    child.wait().context("reaping `unshare`")?;
    teardown::remove_traces(cluster)?;
    Ok(ExitCode::SUCCESS)
}

fn open_owner(pid: i32) -> Result<std::os::fd::OwnedFd> {
    let identity = Identity::of(pid).with_context(|| format!("the owner, process {pid}, does not run"))?;
    identity.pidfd().with_context(|| format!("the owner, process {pid}, ended"))
}

/// First process of a cluster: lays the bridge, starts the balancer, and reaps.
pub(crate) fn cluster_init(cluster: &ClusterName) -> Result<ExitCode> {
    let own = Identity::current()?;
    lay_bridge()?;
    allow_inotify_instances()?;
    let program = std::env::current_exe().context("finding this program")?;
    Command::new(&program)
        .args(["balance", cluster.as_str()])
        .stdin(Stdio::null())
        .spawn()
        .context("starting the balancer")?;
    state::write_json(&cluster.directory().join("init.json"), &own)?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                bail!("the cluster's first process has no child left to wait for: {error}")
            }
        }
    }
}

fn lay_bridge() -> Result<()> {
    let address = format!("{ENDPOINT_ADDRESS}/24");
    for arguments in [
        &["link", "set", "lo", "up"][..],
        // A bridge without an address of its own takes the lowest of its ports': ending that node would leave all others
        // with a stale neighbour entry for the balancer.
        &["link", "add", BRIDGE, "address", BRIDGE_HARDWARE_ADDRESS, "type", "bridge"],
        &["addr", "add", &address, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
    ] {
        run(Command::new("ip").args(arguments))?;
    }
    // Nodes talk to each other's Pods through the bridge's address only if somebody forwards.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("switching on forwarding on the bridge")
}

/// Raises what this machine grants one user, never lowers it. A control plane takes about 18 (kubelet, containerd), all
/// nodes are root's, and a kubelet that is refused one ends.
fn allow_inotify_instances() -> Result<()> {
    let granted = fs::read_to_string(INOTIFY_INSTANCES).context("reading the limit of inotify instances")?;
    if granted.trim().parse::<u32>().is_ok_and(|granted| granted >= MINIMUM_INOTIFY_INSTANCES) {
        return Ok(());
    }
    fs::write(INOTIFY_INSTANCES, MINIMUM_INOTIFY_INSTANCES.to_string())
        .context("raising the limit of inotify instances")
}

/// Starts a keeper that outlives the caller, and returns it once the cluster's first process runs.
pub(crate) fn start(cluster: &ClusterName, owner: Option<i32>, program: &std::path::Path) -> Result<Child> {
    let log = cluster.log("keeper");
    let file = fs::File::create(&log).with_context(|| format!("creating `{}`", log.display()))?;
    let mut command = Command::new(program);
    command.args(["keep", cluster.as_str()]);
    if let Some(owner) = owner {
        command.args(["--die-with", &owner.to_string()]);
    }
    let mut keeper = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("sharing the keeper's log")?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting `{}`", crate::process::describe(&command)))?;
    crate::process::wait_for("the cluster's first process", std::time::Duration::from_secs(20), || {
        if keeper.try_wait()?.is_some() {
            bail!("the keeper ended at once; {}", crate::process::tail_of(&log));
        }
        let init = state::read_json::<Identity>(&cluster.directory().join("init.json"))?;
        Ok(init.filter(Identity::is_alive))
    })?;
    Ok(keeper)
}
