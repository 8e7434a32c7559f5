//! `make bench`: a worker join by mortise beside one by the real kubeadm, in turn, on fresh nodes of one real cluster.
//!
//! Figures are medians of whole processes, caches dropped before each run of either. The kubelet's own start is the time
//! from `systemctl restart kubelet` to the first healthy answer, which a watcher in the node sees to 2 ms; it is taken
//! out of both in the second row. Memory is sampled in runs of its own, since sampling disturbs the times. Nothing is
//! asserted: the table says what was asked for beside what was measured.
//!
//! `MORTISE_BIN` names the binary, else `target/release/mortise`; the number of runs is the only argument (default 10).

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use mortise_cluster::{Cluster, IGNORED_PREFLIGHT_ERRORS, UpOptions};

mod memory;
mod watcher;

/// Runs of either command in which memory is sampled.
const MEMORY_RUNS: usize = 3;
/// How long a node may take to become Ready.
const READY: Duration = Duration::from_secs(60);
/// Each way, for the rows with a distant control plane.
const DELAY: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if arguments.first().is_some_and(|word| word == watcher::WORD) {
        return watcher::main();
    }
    let runs = arguments.first().map_or(Ok(10), |word| word.parse()).context("the number of runs")?;
    let mortise = binary()?;
    let cluster = Cluster::up(&UpOptions::default())?;
    let kubeadm = cluster.artifacts().binaries().join("kubeadm");
    let lab = Lab { cluster, mortise, kubeadm, turn: Cell::new(0) };
    println!("{}", machine());
    lab.sizes()?;
    lab.times("control plane on the same machine", runs)?;
    lab.cluster.set_delay(DELAY)?;
    lab.times("control plane 20 ms away, each way", runs)?;
    lab.cluster.set_delay(Duration::ZERO)?;
    lab.memory()?;
    lab.cluster.down()
}

struct Lab {
    cluster: Cluster,
    mortise: PathBuf,
    kubeadm: PathBuf,
    /// Nodes made so far.
    turn: Cell<usize>,
}

/// One join.
struct Run {
    wall: f64,
    without_kubelet: f64,
    cpu: f64,
    checks: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rival {
    Mortise,
    Kubeadm,
}

impl Lab {
    /// The line to run, all but the program as `kubeadm init` printed it.
    fn line(&self, rival: Rival) -> Result<String> {
        let line = self.cluster.join_line()?;
        let rest = line.trim_start_matches("kubeadm").trim();
        let (program, extra) = match rival {
            Rival::Mortise => (&self.mortise, " -o json"),
            Rival::Kubeadm => (&self.kubeadm, ""),
        };
        Ok(format!("{} {rest} --ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}{extra}", program.display()))
    }

    /// A node that nothing was ever done to.
    fn fresh(&self) -> Result<String> {
        let turn = self.turn.get();
        self.turn.set(turn + 1);
        let node = format!("w{turn}");
        self.cluster.add(&node)?;
        // As root of this machine: the caches of both rivals' binaries, and of everything they read.
        std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop caches")?;
        Ok(node)
    }

    fn used(&self, node: &str) -> Result<()> {
        // The kubelet registers the Node after either command has ended.
        self.cluster.wait_for_ready(node, READY)?;
        self.cluster.power_off(node)?;
        self.cluster.kubectl(&["delete", "node", node])?;
        Ok(())
    }

    fn join(&self, rival: Rival) -> Result<Run> {
        let node = self.fresh()?;
        let watcher = watcher::Watcher::start(&self.cluster, &node)?;
        let script = format!(
            "TIMEFORMAT='%R %U %S'; time {} 2>/tmp/bench.stderr || cat /tmp/bench.stderr >&2",
            self.line(rival)?
        );
        let output = self.cluster.exec(&node, &["bash", "-c", &script])?;
        let healthy = watcher.healthy_at()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "the join failed:\n{stderr}");
        let calls = self.cluster.run(&node, &["cat", "/var/log/node/systemctl.journal"])?;
        let restart = restarted_at(&calls).context("no restart of the kubelet is in the journal")?;
        self.used(&node)?;
        // bash's own account: wall clock, then user and system time with children.
        let last = stderr.lines().last().unwrap_or_default();
        let times: Vec<f64> = last.split(' ').filter_map(|part| part.parse().ok()).collect();
        let &[wall, user, system] = times.as_slice() else { anyhow::bail!("no times in:\n{stderr}") };
        let checks = (rival == Rival::Mortise).then(|| checks_ms(&String::from_utf8_lossy(&output.stdout))).flatten();
        Ok(Run { wall, without_kubelet: wall - (healthy - restart), cpu: user + system, checks })
    }

    fn times(&self, title: &str, runs: usize) -> Result<()> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            theirs.push(self.join(Rival::Kubeadm)?);
            ours.push(self.join(Rival::Mortise)?);
        }
        println!("\n{title}, {runs} runs of each in turn, medians");
        println!("{:<34}{:>10}{:>10}{:>8}   asked for", "", "mortise", "kubeadm", "ratio");
        let far = title.contains("away");
        let (wall, own) = if far { ("<= 0.50", "") } else { ("<= 0.80", "<= 0.33") };
        row("wall, s", &ours, &theirs, |run| run.wall, wall);
        row("wall without the kubelet's start, s", &ours, &theirs, |run| run.without_kubelet, own);
        row("CPU with children, s", &ours, &theirs, |run| run.cpu, "<= 1.00");
        let checks: Vec<f64> = ours.iter().filter_map(|run| run.checks).collect();
        println!("{:<34}{:>10.0}{:>10}{:>8}   <= 85", "all checks, cold, ms", median(checks), "", "");
        Ok(())
    }

    fn memory(&self) -> Result<()> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..MEMORY_RUNS {
            for (rival, peaks) in [(Rival::Kubeadm, &mut theirs), (Rival::Mortise, &mut ours)] {
                let node = self.fresh()?;
                let program = if rival == Rival::Mortise { &self.mortise } else { &self.kubeadm };
                let sampler = memory::Sampler::start(program);
                let output = self.cluster.exec(&node, &["bash", "-c", &self.line(rival)?])?;
                peaks.push(sampler.peak_mb());
                anyhow::ensure!(output.status.success(), "the join failed");
                self.used(&node)?;
            }
        }
        println!("\nmemory, {MEMORY_RUNS} runs, medians (proportional set size, all processes of the binary at once)");
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{:<34}{ours:>10.1}{theirs:>10.1}{:>8.2}   <= 0.50", "peak, MB", ours / theirs);
        Ok(())
    }

    fn sizes(&self) -> Result<()> {
        let mb = |path: &Path| Ok::<_, std::io::Error>(std::fs::metadata(path)?.len() as f64 / 1e6);
        let (ours, theirs) = (mb(&self.mortise)?, mb(&self.kubeadm)?);
        println!("binary: mortise {ours:.1} MB (<= 25), kubeadm {theirs:.1} MB");
        Ok(())
    }
}

fn row(title: &str, ours: &[Run], theirs: &[Run], figure: impl Fn(&Run) -> f64, asked: &str) {
    let ours = median(ours.iter().map(&figure).collect());
    let theirs = median(theirs.iter().map(&figure).collect());
    println!("{title:<34}{ours:>10.3}{theirs:>10.3}{:>8.2}   {asked}", ours / theirs);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Milliseconds of the steps in which the checks ran, from mortise's events.
fn checks_ms(events: &str) -> Option<f64> {
    let steps = events.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let checks = steps.filter(|event| event["event"] == "step" && event["phase"] == "preflight");
    checks.filter_map(|step| step["tookMs"].as_f64()).reduce(|sum, took| sum + took)
}

/// Seconds since 1970 of the last `systemctl restart kubelet` in the stand-in's journal (microseconds, then words).
fn restarted_at(journal: &str) -> Option<f64> {
    let line = journal.lines().rfind(|line| line.contains("restart") && line.contains("kubelet"))?;
    Some(line.split(' ').next()?.parse::<f64>().ok()? / 1e6)
}

fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("MORTISE_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/mortise"), PathBuf::from);
    path.canonicalize().with_context(|| format!("no binary at `{}`: run `make build`", path.display()))
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, Linux {}, Kubernetes {}", kernel.trim(), mortise_cluster::KUBERNETES_VERSION)
}
