//! `make bench`: control planes joined by mortise beside ones joined by the real kubeadm, in turn, each in a fresh cluster
//! that kubeadm made.
//!
//! Wall times are bash's own. The components' own start is measured in the same runs, so that what a join adds to it
//! can be told: etcd from its container's start to its vote, the API server from its container's start to `/readyz`, the
//! kubelet from its restart to `/healthz`. With the node's own name unknown and a name server that never answers, each
//! joins once more. Nothing is asserted: the table says what was asked for beside what was measured.
//!
//! `MORTISE_BIN` names the binary, else `target/release/mortise`; arguments: the number of runs (default 3), and the rivals
//! (`kubeadm`, `mortise`; default both). A rival whose join fails is said to, and not asked again.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mortise_cluster::{Cluster, IGNORED_PREFLIGHT_ERRORS, UpOptions};

mod api_server;
mod logs;
mod taint;
#[path = "../join/watcher.rs"]
mod watcher;

const READY: Duration = Duration::from_secs(180);
/// What a join may add to its components' own start.
const OWN: f64 = 1.5;
/// An address of the clusters' network that nobody has.
const DEAD_NAME_SERVER: &str = "192.0.2.250";

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some(watcher::WORD) => return watcher::main(),
        Some(api_server::WORD) => return api_server::main(),
        _ => {}
    }
    let mut rivals = vec![Rival::Kubeadm, Rival::Mortise];
    if let Some(at) = arguments.iter().position(|word| word == "kubeadm" || word == "mortise") {
        rivals = vec![if arguments.remove(at) == "kubeadm" { Rival::Kubeadm } else { Rival::Mortise }];
    }
    let runs: usize = arguments.first().map_or(Ok(3), |word| word.parse()).context("the number of runs")?;
    let mut results: Vec<Results> = rivals.into_iter().map(Results::new).collect();
    for _ in 0..runs {
        for results in &mut results {
            results.add(grow);
        }
    }
    for results in &mut results {
        results.add(join_unresolved);
    }
    print(&results, runs);
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    Mortise,
    Kubeadm,
}

impl Rival {
    fn program(self, cluster: &Cluster) -> Result<PathBuf> {
        if self == Self::Kubeadm {
            return Ok(cluster.artifacts().binaries().join("kubeadm"));
        }
        let path = std::env::var_os("MORTISE_BIN")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/mortise"), PathBuf::from);
        path.canonicalize().with_context(|| format!("no binary at `{}`: run `make build`", path.display()))
    }
}

/// One join.
#[derive(Debug, Clone)]
struct Join {
    wall: f64,
    etcd: f64,
    api_server: f64,
    kubelet: f64,
    /// Starts of that static Pod's container which was started most.
    starts: usize,
    untainted: f64,
}

impl Join {
    fn own_start(&self) -> f64 {
        self.etcd + self.api_server + self.kubelet
    }
}

/// What one rival did.
struct Results {
    rival: Rival,
    second: Vec<Join>,
    third: Vec<Join>,
    unresolved: Vec<Join>,
    failed: Option<String>,
}

impl Results {
    fn new(rival: Rival) -> Self {
        Self { rival, second: Vec::new(), third: Vec::new(), unresolved: Vec::new(), failed: None }
    }

    fn add(&mut self, run: impl Fn(&mut Self) -> Result<()>) {
        if self.failed.is_none()
            && let Err(error) = run(self)
        {
            self.failed = Some(format!("{error:#}"));
        }
    }
}

/// One → two → three.
fn grow(results: &mut Results) -> Result<()> {
    let cluster = Cluster::up(&UpOptions::default())?;
    results.second.push(join(&cluster, results.rival, "n2", "")?);
    results.third.push(join(&cluster, results.rival, "n3", "")?);
    cluster.down()
}

/// One → two, where asking for the node's own name takes for ever.
fn join_unresolved(results: &mut Results) -> Result<()> {
    let cluster = Cluster::up(&UpOptions::default())?;
    let forget = format!(
        "echo nameserver {DEAD_NAME_SERVER} > /etc/resolv.conf; grep -v ' n2$' /etc/hosts > /tmp/hosts.$$; \
         cat /tmp/hosts.$$ > /etc/hosts; rm /tmp/hosts.$$"
    );
    results.unresolved.push(join(&cluster, results.rival, "n2", &forget)?);
    cluster.down()
}

fn join(cluster: &Cluster, rival: Rival, node: &str, prepare: &str) -> Result<Join> {
    cluster.add(node)?;
    if !prepare.is_empty() {
        cluster.run(node, &["bash", "-c", prepare])?;
    }
    let program = rival.program(cluster)?;
    let line = cluster.control_plane_join_line()?;
    let rest = line.strip_prefix("kubeadm").context("a join line begins with kubeadm")?;
    let line = format!("{}{rest} --ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}", program.display());
    // As root of this machine: the caches of both rivals' binaries, and of everything they read.
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop caches")?;
    let taints = taint::Watch::start(cluster)?;
    let kubelet = watcher::Watcher::start(cluster, node)?;
    let api_server = api_server::Watcher::start(cluster, node)?;
    let output = format!("/tmp/bench.{}", std::process::id());
    let script = format!("TIMEFORMAT=%R; time {line} > {output} 2>&1 || (cat {output} >&2; exit 1)");
    let ended = cluster.exec(node, &["bash", "-c", &script])?;
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    // It may not be there; nobody needs it any more.
    let _ = std::fs::remove_file(&output);
    if !ended.status.success() {
        let last: Vec<&str> = told.lines().rev().filter(|line| line.contains("rror")).take(3).collect();
        bail!("the join of {node} failed: {}", last.into_iter().rev().collect::<Vec<_>>().join(" "));
    }
    let wall = told.lines().last().and_then(|line| line.parse().ok()).context("bash told no time")?;
    let (kubelet, api_server) = (kubelet.healthy_at()?, api_server.ready_at()?);
    cluster.wait_for_ready(node, READY)?;
    let calls = cluster.run(node, &["cat", "/var/log/node/systemctl.journal"])?;
    // The first start counts: a second one, for other settings, is the join's own affair.
    let restart = logs::first_restart(&calls).context("no restart of the kubelet is in the journal")?;
    let starts = logs::container_starts(&cluster.run(node, &["cat", "/var/log/node/containerd.journal"])?);
    let first = |name: &str| {
        let times = starts.get(name).with_context(|| format!("no container `{name}` was started"))?;
        times.first().copied().with_context(|| format!("no start of `{name}`"))
    };
    let log = cluster.run(node, &["sh", "-c", "cat /var/log/pods/kube-system_etcd-*/etcd/*.log"])?;
    let voter = logs::voter_since(&log).context("etcd's log tells of no vote")?;
    Ok(Join {
        wall,
        etcd: voter - first("etcd")?,
        api_server: api_server - first("kube-apiserver")?,
        kubelet: kubelet - restart,
        starts: starts.values().map(Vec::len).max().unwrap_or(0),
        untainted: taints.untainted(node)?,
    })
}

/// Which of a rival's joins a row is about.
type Joins = fn(&Results) -> &[Join];

fn print(results: &[Results], runs: usize) {
    let of = |rival: Rival| results.iter().find(|results| results.rival == rival);
    println!("\ncontrol planes, {runs} fresh clusters of each in turn, medians");
    println!("{:<46}{:>10}{:>10}{:>8}   asked for", "", "mortise", "kubeadm", "ratio");
    let row = |title: &str, asked: &dyn Display, joins: Joins, figure: &dyn Fn(&Join) -> f64| {
        let figure = |rival| of(rival).map_or(f64::NAN, |results| median(joins(results).iter().map(figure).collect()));
        let (ours, theirs) = (figure(Rival::Mortise), figure(Rival::Kubeadm));
        println!("{title:<46}{:>10}{:>10}{:>8}   {asked}", shown(ours), shown(theirs), shown(ours / theirs));
    };
    let both: [(&str, Joins); 2] =
        [("first -> second", |results| &results.second), ("second -> third", |results| &results.third)];
    for (title, joins) in both {
        let own = of(Rival::Mortise).map_or(f64::NAN, |ours| median(joins(ours).iter().map(Join::own_start).collect()));
        let asked = format!("<= 0.50, and mortise <= {} s", shown(own + OWN));
        row(&format!("{title}, wall, s"), &asked, joins, &|join| join.wall);
        row("  etcd's container to its vote, s", &"", joins, &|join| join.etcd);
        row("  API server's container to ready, s", &"", joins, &|join| join.api_server);
        row("  kubelet's restart to healthy, s", &"", joins, &|join| join.kubelet);
        row("  starts of a static Pod's container, at most", &"1", joins, &|join| join.starts as f64);
        row("  Node without its taint, s", &"0", joins, &|join| join.untainted);
    }
    row("own name unknown, first -> second, wall, s", &"<= 0.12", |results| &results.unresolved, &|join| join.wall);
    for results in results {
        if let Some(failed) = &results.failed {
            println!("{:?} was not asked again: {failed}", results.rival);
        }
    }
}

/// A figure, or that there is none.
fn shown(figure: f64) -> String {
    if figure.is_finite() { format!("{figure:.2}") } else { "-".into() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
