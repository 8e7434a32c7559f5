//! Builds the Go programs from two pinned modules, `lab/go.mod.*` with their `go.sum`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{KUBERNETES_VERSION, machine};
use crate::process::{POLL_INTERVAL, tail_of};

const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);

/// One Go module whose `tool` lines are built together.
struct Module {
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    packages: &'static [&'static str],
}

const MODULES: [Module; 2] = [
    Module {
        name: "kubernetes",
        go_mod: include_str!("../../lab/go.mod.kubernetes"),
        go_sum: include_str!("../../lab/go.sum.kubernetes"),
        packages: &[
            "go.etcd.io/etcd/server/v3",
            "go.etcd.io/etcd/etcdctl/v3",
            "k8s.io/kubernetes/cmd/kubeadm",
            "k8s.io/kubernetes/cmd/kubectl",
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kubelet",
        ],
    },
    Module {
        name: "containerd",
        go_mod: include_str!("../../lab/go.mod.containerd"),
        go_sum: include_str!("../../lab/go.sum.containerd"),
        packages: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
    },
];

/// What plays a vendor's part in tests of registries; nothing of a cluster.
const REGISTRY_MODULES: [Module; 2] = [
    Module {
        name: "oras",
        go_mod: include_str!("../../lab/go.mod.oras"),
        go_sum: include_str!("../../lab/go.sum.oras"),
        packages: &["oras.land/oras/cmd/oras"],
    },
    Module {
        name: "cosign",
        go_mod: include_str!("../../lab/go.mod.cosign"),
        go_sum: include_str!("../../lab/go.sum.cosign"),
        packages: &["github.com/sigstore/cosign/v3/cmd/cosign"],
    },
];

/// Everything that decides what is built for registries.
pub(super) fn registry_inputs() -> impl Iterator<Item = &'static str> {
    of(&REGISTRY_MODULES)
}

/// Builds oras and cosign into `bin`.
pub(super) fn build_for_registries(root: &Path, bin: &Path, say: &dyn Fn(&str)) -> Result<()> {
    for module in &REGISTRY_MODULES {
        build_module(module, &root.join(module.name), bin, say)
            .with_context(|| format!("building Go module `{}`", module.name))?;
    }
    Ok(())
}

/// Everything that decides what is built for a cluster.
pub(super) fn inputs() -> impl Iterator<Item = &'static str> {
    of(&MODULES)
}

fn of(modules: &'static [Module]) -> impl Iterator<Item = &'static str> {
    modules.iter().flat_map(|module| [module.go_mod, module.go_sum].into_iter().chain(module.packages.iter().copied()))
}

/// Builds all programs into `bin`, with the modules and their logs in `root`.
pub(super) fn build(root: &Path, bin: &Path, say: &dyn Fn(&str)) -> Result<()> {
    for module in &MODULES {
        build_module(module, &root.join(module.name), bin, say)
            .with_context(|| format!("building Go module `{}`", module.name))?;
    }
    // Go names a program after its directory.
    let server = bin.join("server");
    if server.exists() {
        fs::rename(&server, bin.join("etcd")).context("naming etcd")?;
    }
    Ok(())
}

fn build_module(module: &Module, directory: &Path, bin: &Path, say: &dyn Fn(&str)) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making `{}`", directory.display()))?;
    fs::write(directory.join("go.mod"), module.go_mod).context("writing go.mod")?;
    fs::write(directory.join("go.sum"), module.go_sum).context("writing go.sum")?;
    let log = directory.join("go.log");
    let output = File::create(&log).with_context(|| format!("creating `{}`", log.display()))?;
    let mut child = Command::new(machine::go()?)
        .args(["build", "-trimpath", "-ldflags", &linker_flags(), "-o"])
        .arg(format!("{}/", bin.display()))
        .args(module.packages)
        .current_dir(directory)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("sharing the log")?)
        .stderr(output)
        .spawn()
        .context("starting `go build`")?;
    let (started, mut told) = (Instant::now(), Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for `go build`")? {
            break status;
        }
        if told.elapsed() > PROGRESS_INTERVAL {
            told = Instant::now();
            let done = crate::state::entries(bin)?.len();
            say(&format!("{}: {} s, {done} programs in place", module.name, started.elapsed().as_secs()));
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    if !status.success() {
        bail!("`go build` ended with {status}; {}", tail_of(&log));
    }
    Ok(())
}

/// Without a version kubeadm refuses to work.
fn linker_flags() -> String {
    let mut flags = "-s -w".to_owned();
    let mut parts = KUBERNETES_VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in
            [("gitVersion", KUBERNETES_VERSION), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")]
        {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}
