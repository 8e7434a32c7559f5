//! The command line: flags, help, and one call each. Hidden subcommands are the cluster's own processes.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::cluster::{Cluster, UpOptions};
use crate::state::{self, ClusterName, NodeRecord};
use crate::{balance, build, enter, keeper, kubeadm, node, teardown, units};

/// The cluster that is meant when none is named.
pub const DEFAULT_NAME: &str = "dev";

/// A real Kubernetes cluster on this machine, made by kubeadm, for tests.
#[derive(Debug, Parser)]
#[command(name = "mortise-cluster", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Named {
    /// The cluster.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
}

impl Named {
    fn parse(&self) -> Result<ClusterName> {
        ClusterName::parse(&self.name)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build binaries and images; done by `up` as well, once per set of versions.
    Build,
    /// Build what tests of registries run: oras and cosign.
    BuildRegistryTools,
    /// Make a cluster with control planes n1, n2, … and workers after them, made and joined by kubeadm.
    Up {
        #[command(flatten)]
        cluster: Named,
        /// How many control planes, each with an etcd member.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=7))]
        control_planes: u8,
        /// How many workers.
        #[arg(long, default_value_t = 0)]
        workers: u8,
        /// Take the cluster down when this process ends.
        #[arg(long, value_name = "PID")]
        die_with: Option<i32>,
        /// Only the network: no control plane, no node.
        #[arg(long, conflicts_with_all = ["workers", "control_planes"])]
        bare: bool,
        /// Leave what there is when a step fails, to look into it.
        #[arg(long)]
        keep_failed: bool,
    },
    /// Add a node that runs containerd and has joined nothing.
    Add {
        node: String,
        /// Size of the one file system under /etc/kubernetes, /var/lib/kubelet and /var/lib/mortise, e.g. 8M.
        #[arg(long, value_name = "SIZE")]
        disk: Option<String>,
        #[command(flatten)]
        cluster: Named,
    },
    /// Run a command in a node; input, output and exit code are the command's.
    Exec {
        node: String,
        #[command(flatten)]
        cluster: Named,
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Print a `kubeadm join` line.
    JoinLine {
        #[command(flatten)]
        cluster: Named,
        /// The one for a control plane, with a token and a certificate key made now.
        #[arg(long)]
        control_plane: bool,
        /// One with a token made now.
        #[arg(long)]
        fresh: bool,
    },
    /// Delay what goes through the control plane's endpoint, each way: 20ms; 0 turns it off.
    Delay {
        delay: String,
        #[command(flatten)]
        cluster: Named,
    },
    /// End a node at once, as if its power were cut.
    PowerOff {
        node: String,
        #[command(flatten)]
        cluster: Named,
    },
    /// Show clusters and nodes.
    List {
        /// `json` for machines.
        #[arg(short, long, value_parser = ["json"])]
        output: Option<String>,
    },
    /// Take a cluster down and leave nothing; fine if there is none.
    Down {
        #[command(flatten)]
        cluster: Named,
        /// Every cluster on this machine.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// The process that keeps a cluster.
    #[command(hide = true)]
    Keep {
        cluster: String,
        #[arg(long)]
        die_with: Option<i32>,
    },
    /// The first process of a cluster.
    #[command(hide = true)]
    ClusterInit { cluster: String },
    /// The first process of a node.
    #[command(hide = true)]
    NodeInit { spec: String },
    /// The balancer.
    #[command(hide = true)]
    Balance { cluster: String },
    /// Start a command in a control group and, if a cluster is named, in its namespaces.
    #[command(hide = true)]
    Enter {
        #[arg(long)]
        cluster: Option<String>,
        #[arg(long)]
        group: String,
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
}

/// Runs a parsed command line.
///
/// # Errors
///
/// Whatever the command's own failure is.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Build => {
            let artifacts = build::ensure(&say)?;
            println!("{}", artifacts.binaries().display());
        }
        Command::BuildRegistryTools => println!("{}", build::ensure_registry_tools(&say)?.display()),
        Command::Up { cluster, control_planes, workers, die_with, bare, keep_failed } => {
            let name = Some(cluster.name.clone());
            let options = UpOptions { name, control_planes, workers, bare, verbose: true };
            Cluster::up_for(&options, die_with, keep_failed)?;
        }
        Command::Add { node, disk, cluster } => {
            let cluster = Cluster::open(&cluster.name)?;
            let record = match &disk {
                Some(size) => cluster.add_with_disk(&node, size)?,
                None => cluster.add(&node)?,
            };
            println!("{} {}", record.name, record.address);
        }
        Command::Exec { node, cluster, argv } => return enter::exec(&cluster.parse()?, &node, &argv),
        Command::JoinLine { cluster, control_plane, fresh } => {
            let line = match (control_plane, fresh) {
                (true, _) => Cluster::open(&cluster.name)?.fresh_control_plane_join_line()?,
                (_, true) => Cluster::open(&cluster.name)?.fresh_join_line()?,
                _ => kubeadm::JoinLines::load(&cluster.parse()?)?.worker,
            };
            println!("{line}");
        }
        Command::Delay { delay, cluster } => {
            let delay = if delay == "0" { Duration::ZERO } else { units::parse_duration(&delay)? };
            Cluster::open(&cluster.name)?.set_delay(delay)?;
        }
        Command::PowerOff { node, cluster } => node::power_off(&cluster.parse()?, &node)?,
        Command::List { output } => list(output.is_some())?,
        Command::Down { all: true, .. } => {
            for cluster in teardown::down_all()? {
                say(&format!("cluster `{}` is down", cluster.as_str()));
            }
        }
        Command::Down { cluster, .. } => teardown::down(&cluster.parse()?)?,
        Command::Keep { cluster, die_with } => {
            return keeper::keep(&ClusterName::parse(&cluster)?, die_with);
        }
        Command::ClusterInit { cluster } => {
            return keeper::cluster_init(&ClusterName::parse(&cluster)?);
        }
        Command::NodeInit { spec } => return node::init::node_init(&spec),
        Command::Balance { cluster } => return balance::serve(&ClusterName::parse(&cluster)?),
        Command::Enter { cluster: Some(cluster), group, argv } => {
            return enter::detach(&ClusterName::parse(&cluster)?, &group, &argv);
        }
        Command::Enter { cluster: None, group, argv } => return enter::become_command(&group, &argv),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs as one of systemd's commands.
///
/// # Errors
///
/// When the node's first process does not answer, or an option is unknown.
pub fn run_stand_in(name: &str, arguments: &[String]) -> Result<ExitCode> {
    match name {
        "systemctl" => units::systemctl::systemctl(arguments),
        "journalctl" => units::journal::journalctl(arguments),
        other => bail!("no stand-in for `{other}`"),
    }
}

/// The names of the commands [`run_stand_in`] knows.
pub const STAND_INS: [&str; 2] = ["systemctl", "journalctl"];

fn say(text: &str) {
    eprintln!("mortise-cluster: {text}");
}

fn list(json: bool) -> Result<()> {
    let mut found = Vec::new();
    for cluster in state::known_clusters()? {
        let running = enter::cluster_init(&cluster).is_ok();
        found.push((cluster.clone(), running, state::nodes(&cluster)?));
    }
    if json {
        let clusters = found.iter().map(|(cluster, running, nodes)| {
            let nodes: Vec<_> = nodes.iter().map(describe_node).collect();
            serde_json::json!({"name": cluster.as_str(), "running": running, "endpoint": cluster.endpoint(), "nodes": nodes})
        });
        println!("{}", serde_json::to_string_pretty(&clusters.collect::<Vec<_>>())?);
        return Ok(());
    }
    for (cluster, running, nodes) in &found {
        println!("{} {} {}", cluster.as_str(), if *running { "running" } else { "down" }, cluster.endpoint());
        for node in nodes {
            println!("  {} {} {}", node.name, node.address, if node.is_running() { "running" } else { "down" });
        }
    }
    Ok(())
}

fn describe_node(node: &NodeRecord) -> serde_json::Value {
    serde_json::json!({"name": node.name, "address": node.address, "disk": node.disk, "running": node.is_running(),
        "pid": node.init.map(|init| init.pid)})
}
