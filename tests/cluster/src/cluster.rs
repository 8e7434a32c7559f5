//! The life of a cluster, from the outside: what tests and the command line call.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::balance::Settings;
use crate::build::{self, Artifacts};
use crate::kubeadm::{self, ADMIN_CONFIG, JoinLines};
use crate::process::{output, run};
use crate::state::{self, ClusterName, NodeRecord};
use crate::{keeper, node, program, teardown};

/// The node that `kubeadm init` runs on.
const FIRST_NODE: &str = "n1";
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Between two attempts of a wait that ended early.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How a cluster is to be made.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// Its name; without one it gets one that no other test has.
    pub name: Option<String>,
    /// Nodes `n1`, `n2`, … that the real kubeadm makes control planes, each with an etcd member; 0 means 1.
    pub control_planes: u8,
    /// The nodes after them, joined by the real kubeadm.
    pub workers: u8,
    /// No control plane and no node: for tests of nodes alone, in a fraction of a second.
    pub bare: bool,
    /// Whether steps and their times are told on stderr.
    pub verbose: bool,
}

/// A running cluster. One that was made with [`Cluster::up`] is taken down when dropped, and when its owner dies.
#[derive(Debug)]
pub struct Cluster {
    name: ClusterName,
    program: PathBuf,
    artifacts: Artifacts,
    owned: bool,
    /// Child of this process, if this process made the cluster: it is to be reaped.
    keeper: Option<Child>,
}

impl Cluster {
    /// Makes a cluster that lasts as long as this value, and no longer than this process.
    ///
    /// # Errors
    ///
    /// When a step fails; the text carries the last lines of its log, and nothing is left behind.
    pub fn up(options: &UpOptions) -> Result<Self> {
        let owner = i32::try_from(std::process::id()).context("own process number")?;
        let name = match &options.name {
            Some(name) => ClusterName::parse(name)?,
            None => unique_name()?,
        };
        let mut cluster = Self::start(name, Some(owner))?;
        cluster.fill(options)?;
        Ok(cluster)
    }

    /// Makes a cluster that outlives this process, unless `owner` is given: then it ends with that process. One that
    /// fails on the way is taken down, or left for inspection.
    pub(crate) fn up_for(options: &UpOptions, owner: Option<i32>, keep_failed: bool) -> Result<()> {
        let name = ClusterName::parse(options.name.as_deref().unwrap_or(crate::cli::DEFAULT_NAME))?;
        let mut cluster = Self::start(name, owner)?;
        let filled = cluster.fill(options);
        cluster.owned = filled.is_err() && !keep_failed;
        filled.with_context(|| match keep_failed {
            true => format!(
                "cluster `{0}` is half made; remove it with `mortise-cluster down --name {0}`",
                cluster.name.as_str()
            ),
            false => format!(
                "cluster `{}` is taken down again; with --keep-failed it is left to be looked into",
                cluster.name.as_str()
            ),
        })
    }

    /// Starts the processes every cluster has.
    fn start(name: ClusterName, owner: Option<i32>) -> Result<Self> {
        // A build takes minutes: it is told of in any case.
        let artifacts = build::ensure(&|text| eprintln!("mortise-cluster: {text}"))?;
        let program = program::find()?;
        let (root, directory) = (state::state_root(), name.directory());
        fs::create_dir_all(&root).with_context(|| format!("making `{}`", root.display()))?;
        if let Err(error) = fs::create_dir(&directory) {
            ensure!(error.kind() == std::io::ErrorKind::AlreadyExists, "making `{}`: {error}", directory.display());
            bail!("there is a cluster `{0}` already: run `mortise-cluster down --name {0}` first", name.as_str());
        }
        let mut cluster = Self { name, program, artifacts, owned: true, keeper: None };
        // Disks outlive a reboot, records do not.
        teardown::remove_disks(&cluster.name)?;
        cluster.keeper = Some(keeper::start(&cluster.name, owner, &cluster.program)?);
        Ok(cluster)
    }

    /// Makes the control plane and the workers.
    fn fill(&mut self, options: &UpOptions) -> Result<()> {
        let started = Instant::now();
        let say = |text: &str| {
            if options.verbose {
                eprintln!("{:6.1} s  {text}", started.elapsed().as_secs_f32());
            }
        };
        if options.bare {
            return Ok(());
        }
        let first = self.add(FIRST_NODE)?;
        say("n1 is added, containerd runs");
        kubeadm::init(&self.name, &first, &self.in_node())?;
        say("kubeadm init is done");
        let control_planes = options.control_planes.max(1);
        for index in 2..=control_planes + options.workers {
            let node = format!("n{index}");
            self.add(&node)?;
            if index <= control_planes {
                self.join_control_plane(&node)?;
            } else {
                self.join(&node)?;
            }
            say(&format!("{node} has joined"));
        }
        for node in self.nodes()? {
            self.wait_for_ready(&node.name, READY_LIMIT)?;
        }
        say("all nodes are Ready");
        Ok(())
    }

    /// A running cluster by its name; it is not taken down when this value is dropped.
    ///
    /// # Errors
    ///
    /// When there is no such cluster.
    pub fn open(name: &str) -> Result<Self> {
        let name = ClusterName::parse(name)?;
        crate::enter::cluster_init(&name)?;
        let artifacts = build::ensure(&|_| ())?;
        Ok(Self { name, program: program::find()?, artifacts, owned: false, keeper: None })
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// The binaries the cluster runs.
    #[must_use]
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The cluster's nodes, by address.
    ///
    /// # Errors
    ///
    /// When the records cannot be read.
    pub fn nodes(&self) -> Result<Vec<NodeRecord>> {
        state::nodes(&self.name)
    }

    /// Adds a node that runs containerd and has joined nothing.
    ///
    /// # Errors
    ///
    /// When the name is taken or no DNS label, or the node's first process fails; the text carries the end of its log.
    pub fn add(&self, node: &str) -> Result<NodeRecord> {
        node::add(&self.name, node, None, &self.artifacts, &self.program)
    }

    /// Adds a node whose `/etc/kubernetes`, `/var/lib/kubelet` and `/var/lib/mortise` share one file system of `size`,
    /// e.g. `8M`.
    ///
    /// # Errors
    ///
    /// As [`Cluster::add`].
    pub fn add_with_disk(&self, node: &str, size: &str) -> Result<NodeRecord> {
        node::add(&self.name, node, Some(size), &self.artifacts, &self.program)
    }

    /// A command in a node, for callers that feed it, time it or kill it: killing it kills what it runs.
    #[must_use]
    pub fn command(&self, node: &str, argv: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["exec", node, "--name", self.name.as_str(), "--"]).args(argv);
        command
    }

    /// Runs a command in a node to its end, whatever that is.
    ///
    /// # Errors
    ///
    /// When it cannot be started at all.
    pub fn exec(&self, node: &str, argv: &[&str]) -> Result<Output> {
        output(&mut self.command(node, argv))
    }

    /// Runs a command in a node and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it ends with anything but 0; the text carries its last lines.
    pub fn run(&self, node: &str, argv: &[&str]) -> Result<String> {
        run(&mut self.command(node, argv))
    }

    /// Runs kubectl as administrator on the first running control plane and returns what it printed.
    ///
    /// # Errors
    ///
    /// When no control plane runs or kubectl fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let words = [&["kubectl", "--kubeconfig", ADMIN_CONFIG][..], arguments].concat();
        self.run(&self.control_plane()?, &words)
    }

    /// The name of a running control plane.
    ///
    /// # Errors
    ///
    /// When none runs.
    pub fn control_plane(&self) -> Result<String> {
        Ok(self.running_control_plane()?.name)
    }

    fn running_control_plane(&self) -> Result<NodeRecord> {
        let mut nodes = self.nodes()?.into_iter();
        nodes
            .find(kubeadm::has_admin_config)
            .with_context(|| format!("no node of cluster `{}` has {ADMIN_CONFIG}", self.name.as_str()))
    }

    /// The `kubeadm join …` line for a worker, as `kubeadm init` printed it.
    ///
    /// # Errors
    ///
    /// When there is none yet.
    pub fn join_line(&self) -> Result<String> {
        Ok(JoinLines::load(&self.name)?.worker)
    }

    /// The same line for a control plane. Its certificate key lasts two hours.
    ///
    /// # Errors
    ///
    /// When there is none yet.
    pub fn control_plane_join_line(&self) -> Result<String> {
        Ok(JoinLines::load(&self.name)?.control_plane)
    }

    /// A worker's join line with a token made now.
    ///
    /// # Errors
    ///
    /// When kubeadm cannot make one.
    pub fn fresh_join_line(&self) -> Result<String> {
        kubeadm::fresh_join_line(&self.control_plane()?, &self.in_node())
    }

    /// Uploads the shared certificates anew and returns the key that opens them, 64 hex digits. No argument list of a
    /// process shows it: give it to a join in a file or its environment to keep it so.
    ///
    /// # Errors
    ///
    /// When kubeadm cannot.
    pub fn fresh_certificate_key(&self) -> Result<String> {
        kubeadm::fresh_certificate_key(&self.name, &self.running_control_plane()?, &self.in_node())
    }

    /// A control plane's join line with a token and a certificate key made now.
    ///
    /// # Errors
    ///
    /// When kubeadm cannot make them.
    pub fn fresh_control_plane_join_line(&self) -> Result<String> {
        let key = self.fresh_certificate_key()?;
        Ok(format!("{} --control-plane --certificate-key {key}", self.fresh_join_line()?))
    }

    /// Runs etcdctl with all rights on a control plane's own member and returns what it printed.
    ///
    /// # Errors
    ///
    /// When the node is no control plane or etcdctl fails.
    pub fn etcdctl(&self, node: &str, arguments: &[&str]) -> Result<String> {
        self.run(node, &[&["etcdctl"], arguments].concat())
    }

    /// Joins a node as a control plane with the real kubeadm.
    ///
    /// # Errors
    ///
    /// When kubeadm fails; the text carries its last lines.
    pub fn join_control_plane(&self, node: &str) -> Result<()> {
        kubeadm::join_control_plane(&self.name, node, &self.in_node())
    }

    /// Joins a node as a worker with the real kubeadm.
    ///
    /// # Errors
    ///
    /// When kubeadm fails; the text carries its last lines.
    pub fn join(&self, node: &str) -> Result<()> {
        kubeadm::join(&self.name, node, &self.in_node())
    }

    /// The content of a file of a running node.
    ///
    /// # Errors
    ///
    /// When the node does not run or the file cannot be read.
    pub fn read(&self, node: &str, path: &str) -> Result<Vec<u8>> {
        crate::enter::read_in(&crate::enter::running_node(&self.name, node)?, path)
    }

    /// Moves the calling thread to the network that all nodes hang on, for good: sockets that it opens from now on reach
    /// nodes and endpoint by their addresses. It belongs to no node, so it outlives each of them.
    ///
    /// # Errors
    ///
    /// When the cluster does not run.
    pub fn enter_network(&self) -> Result<()> {
        crate::enter::enter_network(&self.name)
    }

    /// Waits until a Node exists and is Ready.
    ///
    /// # Errors
    ///
    /// When it is not within `limit`.
    pub fn wait_for_ready(&self, node: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let resource = format!("node/{node}");
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = format!("--timeout={}s", left.as_secs().max(1));
            let waited = self
                .kubectl(&["wait", "--for=create", &resource, &timeout])
                .and_then(|_| self.kubectl(&["wait", "--for=condition=Ready", &resource, &timeout]));
            match waited {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                // A watch ends where its API server goes, or its etcd elects a leader.
                Err(_) => std::thread::sleep(RETRY_INTERVAL),
            }
        }
    }

    /// Delays every byte through the balancer by `delay` each way, from now on, also on open connections.
    ///
    /// # Errors
    ///
    /// When the balancer's settings cannot be written.
    pub fn set_delay(&self, delay: Duration) -> Result<()> {
        let delay = u64::try_from(delay.as_millis()).context("the delay is too long")?;
        Settings::change(&self.name, |settings| settings.delay_milliseconds = delay)
    }

    /// Ends a node at once, as if its power were cut.
    ///
    /// # Errors
    ///
    /// When there is no such node or it does not run.
    pub fn power_off(&self, node: &str) -> Result<()> {
        node::power_off(&self.name, node)
    }

    /// Takes the cluster down, with an error where dropping it would only print one.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub fn down(mut self) -> Result<()> {
        self.owned = false;
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        teardown::down(&self.name)?;
        if let Some(keeper) = &mut self.keeper {
            keeper.wait().context("reaping the keeper")?;
        }
        Ok(())
    }

    fn in_node(&self) -> impl Fn(&str, &[&str]) -> Command + '_ {
        |node, argv| self.command(node, argv)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.end()
        {
            eprintln!("mortise-cluster: {error:#}");
        }
    }
}

/// A name no other test has: this process and a count.
fn unique_name() -> Result<ClusterName> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    ClusterName::parse(&format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}
