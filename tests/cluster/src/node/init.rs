//! The first process of a node: makes the node, starts containerd, says so, then supervises and reaps.

use std::fs::{self, File};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::{NodeSpec, files, mounts};
use crate::cgroup;
use crate::keeper::BRIDGE;
use crate::process::{Identity, run};
use crate::state::ENDPOINT_ADDRESS;
use crate::units::supervisor::Supervisor;
use crate::units::{journal::LOG_DIRECTORY, systemctl};

/// Runs as process 1 of a fresh PID, network, mount, UTS and cgroup namespace.
pub(crate) fn node_init(spec: &str) -> Result<ExitCode> {
    let spec: NodeSpec = serde_json::from_str(spec).context("parsing the node's description")?;
    // The machine's /proc is still mounted here, so this is the number the outside knows.
    let identity = Identity::current()?;
    plug_in(&spec)?;
    rustix::system::sethostname(spec.record.name.as_bytes()).context("setting the host name")?;
    mounts::make(&spec)?;
    cgroup::enter("init")?;
    files::write(&spec)?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("switching on forwarding")?;
    let supervisor = Supervisor::new();
    let reaper = supervisor.clone();
    std::thread::spawn(move || reaper.reap());
    systemctl::serve(supervisor.clone())?;
    // Like the kubelet's package: enabled, but this node was not booted since.
    systemctl::enable("kubelet")?;
    systemctl::enable("containerd")?;
    supervisor
        .start("containerd")
        .with_context(|| format!("starting containerd; see `{LOG_DIRECTORY}/containerd.journal`"))?;
    println!("{}", serde_json::to_string(&identity)?);
    let nothing = File::open("/dev/null").context("opening `/dev/null`")?;
    rustix::stdio::dup2_stdout(&nothing).context("closing the standard output")?;
    loop {
        std::thread::park();
    }
}

/// Connects the node to the cluster's bridge.
fn plug_in(spec: &NodeSpec) -> Result<()> {
    let bridge_side = format!("/proc/{}/ns/net", spec.cluster_init.pid);
    let port = format!("mo-{}", spec.record.pod_subnet());
    let address = format!("{}/24", spec.record.address);
    let gateway = ENDPOINT_ADDRESS.to_string();
    let enter = format!("--net={bridge_side}");
    // A node that had this place before may be gone and its network not yet: the kernel takes its time. Mostly there is
    // nothing to delete.
    let _ = Command::new("nsenter").args([&enter, "ip", "link", "delete", &port]).output();
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &["link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &bridge_side],
        &["addr", "add", &address, "dev", "eth0"],
        &["link", "set", "eth0", "up"],
        &["route", "add", "default", "via", &gateway],
    ] {
        run(Command::new("ip").args(arguments))?;
    }
    run(Command::new("nsenter").args([&enter, "ip", "link", "set", &port, "master", BRIDGE, "up"]))?;
    Ok(())
}
