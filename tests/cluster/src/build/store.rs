//! Fills a containerd root directory with images once, so that a node starts with them instead of importing them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{run, tail_of, wait_for};

const START_LIMIT: Duration = Duration::from_secs(30);

/// Kills its containerd when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Its databases are consistent at any time; there is nothing to save.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Imports `archives` into a fresh store at `root`.
pub(super) fn fill(root: &Path, bin: &Path, archives: &[PathBuf]) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("removing `{}`", root.display()))?;
    }
    // A short path: a socket's may have 107 bytes.
    let state = PathBuf::from(format!("/tmp/mortise-store-{}", std::process::id()));
    fs::create_dir_all(&state).with_context(|| format!("making `{}`", state.display()))?;
    let result = import(root, &state, bin, archives);
    fs::remove_dir_all(&state).with_context(|| format!("removing `{}`", state.display()))?;
    result
}

fn import(root: &Path, state: &Path, bin: &Path, archives: &[PathBuf]) -> Result<()> {
    let (config, socket, log) = (state.join("config.toml"), state.join("c.sock"), root.with_extension("log"));
    let text = format!(
        "version = 3\nroot = {root:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
         \"io.containerd.cri.v1.runtime\", \"io.containerd.cri.v1.images\", \"io.containerd.nri.v1.nri\", \
         \"io.containerd.internal.v1.opt\"]\n[grpc]\n  address = {socket:?}\n[ttrpc]\n  address = {:?}\n",
        state.join("state"),
        state.join("c.ttrpc.sock"),
    );
    fs::write(&config, text).context("writing containerd's configuration")?;
    let output = File::create(&log).with_context(|| format!("creating `{}`", log.display()))?;
    // A mount namespace of its own: layers are mounted while they are unpacked.
    let mut containerd = Command::new("unshare");
    containerd
        .args(["--mount", "--propagation", "private", "--"])
        .arg(bin.join("containerd"))
        .arg("--config")
        .arg(&config);
    containerd.stdin(Stdio::null()).stdout(output.try_clone().context("sharing the log")?).stderr(output);
    let mut containerd = Running(containerd.spawn().context("starting containerd")?);
    let ctr = |arguments: &[&str]| {
        let mut command = Command::new(bin.join("ctr"));
        command.arg("--address").arg(&socket).args(["--namespace", "k8s.io"]).args(arguments);
        command
    };
    wait_for("containerd's answer", START_LIMIT, || {
        if let Some(status) = containerd.0.try_wait()? {
            bail!("containerd ended with {status}; {}", tail_of(&log));
        }
        Ok(run(&mut ctr(&["version"])).ok())
    })?;
    for archive in archives {
        run(ctr(&["images", "import"]).arg(archive)).with_context(|| tail_of(&log))?;
    }
    Ok(())
}
