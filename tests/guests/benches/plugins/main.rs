//! `make bench`: what plugins cost, each figure beside what was asked for, with what it is compared to in the same run.
//!
//! - One call: a fresh store, some 200 bytes of settings and answer, through runner and socket; beside fork and exec of a
//!   small static helper, and beside a script with jq, both given the same settings and giving the same answer. Many
//!   calls of one stage, less a stage with one: what a stage costs by itself is in the figure below. All on one core, so
//!   that nothing is won by working side by side.
//! - The first Python check: the whole process, from its start to its end, code compiled before.
//! - Memory: `preflight` with three vendor plugins, one in Python, beside the built-in one; all processes summed at their
//!   peak.
//!
//! Nothing is asserted but that answers are equal. `MORTISE_BIN` names the binary, else `target/release/mortise`; the number
//! of runs is the only argument (default 11). Needs a C compiler, jq, and python3 with pip.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

#[path = "../../../built.rs"]
mod built;
#[path = "../../../cluster/benches/join/memory.rs"]
mod memory;
mod plugin;
#[path = "../../../kinds/python.rs"]
mod python;

/// Calls of one stage; a plugin may have 256 checks.
const CALLS: u32 = 201;
/// Helpers started in one run.
const HELPERS: u32 = 50;
/// Scripts started in one run.
const SCRIPTS: u32 = 10;
/// What the GPU driver check wants.
const GPU_GRANTS: [&str; 4] = ["--grant", "facts=modules", "--grant", "files=/proc/driver/nvidia/version:read:4Ki"];
/// Runs in which memory is sampled.
const MEMORY_RUNS: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let runs = arguments.first().map_or(Ok(11), |word| word.parse()).context("the number of runs")?;
    let lab = Lab::set_up()?;
    println!("{:<66}{:>10}{:>10}   asked for", "", "measured", "ratio");
    lab.calls(runs)?;
    lab.python(runs)?;
    lab.memory()
}

/// A root directory with plugins that were agreed to, and the two that are compared.
struct Lab {
    mortise: PathBuf,
    directory: tempfile::TempDir,
}

impl Lab {
    fn set_up() -> Result<Self> {
        let path =
            std::env::var_os("MORTISE_BIN").map_or_else(|| plugin::top().join("target/release/mortise"), PathBuf::from);
        let mortise =
            path.canonicalize().with_context(|| format!("no binary at `{}`: run `make build`", path.display()))?;
        // Below the target directory: a mount like `/tmp` may forbid to execute.
        let lab = Self { mortise, directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))? };
        std::fs::create_dir(lab.root())?;
        let gpu = plugin::top().join("examples/gpu-driver");
        let python = python::component("gpu_driver", &[gpu.join("python")], "wit/preflight", "plugin");
        lab.add("many", &built::built("mortise-test-guests"))?;
        lab.add("gpu-driver", &built::built("mortise-example-gpu-driver"))?;
        lab.add("gpu-driver-py", &plugin::embedded(&python, &std::fs::read_to_string(gpu.join("plugin.yaml"))?)?)?;
        let source = plugin::top().join("tests/guests/benches/plugins/check.c");
        let cc = Command::new("cc").args(["-O2", "-static", "-o"]).args([&lab.helper(), &source]).status();
        ensure!(cc.context("a C compiler is needed")?.success(), "the helper cannot be compiled");
        Ok(lab)
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn helper(&self) -> PathBuf {
        self.directory.path().join("check")
    }

    fn file(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    fn mortise(&self) -> Command {
        let mut command = Command::new(&self.mortise);
        command.env_remove("MORTISE_TOKEN").stdin(Stdio::null());
        command
    }

    /// Agrees to a plugin, which compiles it into the store.
    fn add(&self, name: &str, component: &[u8]) -> Result<()> {
        let file = self.file(&format!("{name}.wasm"), component)?;
        let mut command = self.mortise();
        command.args(["plugin", "add", "--allow-unsigned", "--name", name, "--root"]).arg(self.root()).arg(file);
        if name.starts_with("gpu") {
            command.args(GPU_GRANTS);
        }
        let output = command.output()?;
        ensure!(output.status.success(), "`{name}`: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Runs a plugin's checks; the milliseconds of the whole process, and each check's result.
    fn run(&self, name: &str, words: &[&str]) -> Result<(f64, Vec<Value>)> {
        let file = self.directory.path().join(format!("{name}.wasm"));
        let mut command = self.mortise();
        command.args(["plugin", "run", "-o", "json", "--root"]).arg(self.root()).arg(file).args(words);
        let began = Instant::now();
        let output = command.output()?;
        let took = milliseconds(began);
        let events = String::from_utf8_lossy(&output.stdout);
        let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let checks: Vec<Value> = events.filter(|event| event["event"] == "check").collect();
        ensure!(!checks.is_empty(), "`{name}` ran no check: {}", String::from_utf8_lossy(&output.stderr));
        Ok((took, checks))
    }

    fn calls(&self, runs: usize) -> Result<()> {
        let many = self.file("many.json", settings(CALLS).to_string().as_bytes())?;
        let one = self.file("one.json", settings(1).to_string().as_bytes())?;
        let input = settings(1).to_string();
        let script = plugin::top().join("tests/guests/benches/plugins/check.sh");
        let call = |settings: &Path| self.run("many", &["--settings", &settings.display().to_string()]);
        let (_, checks) = call(&many)?;
        ensure!(checks.len() == CALLS as usize, "{} checks ran", checks.len());
        // An event tells evidence as pairs, in the plugin's order.
        let told: Vec<(String, Value)> = serde_json::from_value(checks[0]["evidence"].clone())?;
        let told = Value::from_iter(told);
        for program in [&self.helper(), &script] {
            let answer: Value = serde_json::from_str(&answer(program, &input)?)?;
            ensure!(answer["evidence"] == told, "`{}` answers {answer}, the plugin {told}", program.display());
        }
        let all = rustix::thread::sched_getaffinity(None)?;
        let mut single = rustix::thread::CpuSet::new();
        single.set((0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).context("no core")?);
        rustix::thread::sched_setaffinity(None, &single)?;
        let (mut calls, mut stages, mut helpers, mut scripts) = (vec![], vec![], vec![], vec![]);
        for _ in 0..runs {
            let (stage, with_calls) = (call(&one)?.0, call(&many)?.0);
            calls.push((with_calls - stage) / f64::from(CALLS - 1));
            stages.push(stage);
            helpers.push(each(HELPERS, &self.helper(), &input)?);
            scripts.push(each(SCRIPTS, &script, &input)?);
        }
        rustix::thread::sched_setaffinity(None, &all)?;
        let (call, helper, script) = (median(calls), median(helpers), median(scripts));
        row(&format!("one call, µs (median of {runs}, {CALLS} calls each, on one core)"), call * 1e3, None, "");
        row("fork and exec of a small static helper, µs", helper * 1e3, Some(call / helper), "<= 0.25");
        row("a script with jq, µs", script * 1e3, Some(call / script), "<= 0.025");
        row("process, runner, list of checks and one call together, ms", median(stages), None, "");
        Ok(())
    }

    fn python(&self, runs: usize) -> Result<()> {
        self.run("gpu-driver-py", &GPU_GRANTS)?;
        let times: Result<Vec<f64>> = (0..runs).map(|_| Ok(self.run("gpu-driver-py", &GPU_GRANTS)?.0)).collect();
        row(&format!("first Python check, compiled before, ms (median of {runs})"), median(times?), None, "<= 50");
        Ok(())
    }

    fn memory(&self) -> Result<()> {
        // Only a document gives a plugin settings.
        let many = json!({"name": "many", "path": self.directory.path().join("many.wasm"), "settings": settings(1)});
        let document = json!({"apiVersion": "mortise.dev/v1alpha1", "kind": "JoinPlugins", "plugins": [many]});
        let conf_d = self.root().join("etc/mortise/conf.d");
        std::fs::create_dir_all(&conf_d)?;
        std::fs::write(conf_d.join("many.yaml"), document.to_string())?;
        let mut peaks = Vec::new();
        for _ in 0..MEMORY_RUNS {
            let mut command = self.mortise();
            command.args(["preflight", "-o", "json", "--cri-socket", "unix:///nowhere", "--root"]).arg(self.root());
            command.args(["--plugin", "gpu-driver", "--plugin", "gpu-driver-py"]);
            let sampler = memory::Sampler::start(&self.mortise);
            let output = command.output()?;
            peaks.push(sampler.peak_mb());
            let events = String::from_utf8_lossy(&output.stdout);
            let ran = |name: &str| events.contains(&format!("\"plugin\":\"{name}@"));
            ensure!(
                ["preflight-node", "many", "gpu-driver", "gpu-driver-py"].into_iter().all(ran),
                "not all plugins ran: {events}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let title = format!("three vendor plugins beside the built-in one, MB (median of {MEMORY_RUNS})");
        row(&title, median(peaks), None, "<= 60");
        Ok(())
    }
}

/// So many checks, of which each says what the helper and the script say.
fn settings(count: u32) -> Value {
    json!({
        "list": "bench", "count": count, "driver": "550.54.15", "oldest": 550,
        "product": "a vendor's GPU product that needs a recent driver on every node",
        "remedy": "install an NVIDIA driver of branch 550 or newer",
    })
}

/// Milliseconds that one of many took.
fn each(count: u32, program: &Path, input: &str) -> Result<f64> {
    let began = Instant::now();
    for _ in 0..count {
        answer(program, input)?;
    }
    Ok(milliseconds(began) / f64::from(count))
}

fn answer(program: &Path, input: &str) -> Result<String> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().expect("it is piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "`{}` failed", program.display());
    Ok(String::from_utf8(output.stdout)?)
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn row(title: &str, measured: f64, ratio: Option<f64>, asked: &str) {
    let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"));
    println!("{title:<66}{measured:>10.1}{ratio:>10}   {asked}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
