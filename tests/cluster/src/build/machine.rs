//! What this machine must bring: root, tools, CNI plugins. Installed with apt where that is possible.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::run;

/// Where Debian puts the CNI plugins.
const CNI_DIRECTORY: &str = "/usr/lib/cni";
/// A program or file, and the Debian package it comes in.
pub(crate) type Tool = (&'static str, &'static str);
/// What a running cluster needs.
pub(crate) const TO_RUN: &[Tool] = &[
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ethtool", "ethtool"),
    ("socat", "socat"),
    ("modprobe", "kmod"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
];
/// What a build needs.
pub(crate) const TO_BUILD: &[Tool] = &[("cc", "gcc libc6-dev"), ("go", "")];

/// Checks for root and for tools, and installs those that are missing, if this is root on a machine with apt.
pub(crate) fn ensure_tools(tools: &[Tool], say: &dyn Fn(&str)) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a cluster needs root for its namespaces and mounts: run this with sudo or in a privileged container");
    }
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let mut packages: Vec<&str> = missing.iter().flat_map(|(_, packages)| packages.split(' ')).collect();
    packages.retain(|package| !package.is_empty());
    packages.dedup();
    if names.contains(&"go") {
        bail!("no `go` on PATH: install Go 1.26 or later from https://go.dev/dl");
    }
    if find("apt-get").is_none() {
        bail!("missing on this machine: {}; install what Debian calls {}", names.join(", "), packages.join(" "));
    }
    say(&format!("installing {}", packages.join(" ")));
    let apt =
        |arguments: &[&str]| run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments));
    apt(&["update", "-q"])?;
    apt(&[&["install", "-q", "-y", "--no-install-recommends"][..], &packages].concat())?;
    match self::missing(tools).first() {
        None => Ok(()),
        Some((name, packages)) => {
            bail!("`{name}` is still missing after installing `{packages}`; look into {CNI_DIRECTORY} and PATH")
        }
    }
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().copied().filter(|(name, _)| find(name).is_none()).collect()
}

/// A program on PATH or where PATH of an ordinary user does not look; an absolute path must exist.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|directory| directory.join(name)).find(|file| Path::is_file(file))
}

/// The Go command.
pub(crate) fn go() -> Result<PathBuf> {
    find("go").context("no `go` on PATH: install Go 1.26 or later from https://go.dev/dl")
}
