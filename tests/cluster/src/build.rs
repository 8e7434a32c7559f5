//! What a cluster is made of, built once for a set of versions and kept in the cache.
//!
//! A finished build appears whole, by a rename, under the hash of everything that went into it; a lock lets concurrent
//! test processes wait for the one that builds. An interrupted build is continued, by Go's own cache.

mod go;
mod image;
pub(crate) mod machine;
mod registry;
mod store;

pub use registry::ensure as ensure_registry_tools;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use crate::process::run;
use crate::state::cache_root;

/// The Kubernetes release that clusters run.
pub const KUBERNETES_VERSION: &str = "v1.37.2";
/// The image every Pod's namespaces hang on, as kubeadm names it.
pub(crate) const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";
const ETCD_IMAGE: &str = "registry.k8s.io/etcd:3.7.0-0";
/// Raised when the way of building changes in a manner the inputs do not show.
const LAYOUT: &str = "1";
const PAUSE_SOURCE: &str = include_str!("../lab/pause.c");

/// A finished build.
#[derive(Debug, Clone)]
pub struct Artifacts {
    root: PathBuf,
}

impl Artifacts {
    /// Directory of kubeadm, kubelet, kubectl, etcd, etcdctl, containerd and the rest.
    #[must_use]
    pub fn binaries(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// A containerd root directory that holds all images.
    pub(crate) fn image_store(&self) -> PathBuf {
        self.root.join("store")
    }
}

/// Returns the build for these versions, made now if need be; `say` gets a line when something takes long.
///
/// # Errors
///
/// When a tool is missing that cannot be installed, or a step fails; the text says which and shows its last lines.
pub fn ensure(say: &dyn Fn(&str)) -> Result<Artifacts> {
    machine::ensure_tools(machine::TO_RUN, say)?;
    let cache = cache_root()?;
    let artifacts = Artifacts { root: cache.join(key()) };
    if artifacts.root.is_dir() {
        return Ok(artifacts);
    }
    fs::create_dir_all(&cache).with_context(|| format!("making `{}`", cache.display()))?;
    let lock = fs::File::create(cache.join("build.lock")).context("creating the build's lock")?;
    if lock.try_lock().is_err() {
        say("another process builds the cluster's binaries; waiting for it");
        lock.lock().context("waiting for the other build")?;
    }
    if artifacts.root.is_dir() {
        return Ok(artifacts);
    }
    machine::ensure_tools(machine::TO_BUILD, say)?;
    let started = Instant::now();
    say(&format!(
        "building Kubernetes {KUBERNETES_VERSION}, etcd and containerd into `{}`: about 8 minutes and 6 GB of Go caches \
         the first time, 2 minutes with warm caches (two cores)",
        artifacts.root.display()
    ));
    let partial = Artifacts { root: cache.join(format!("{}.partial", key())) };
    build_into(&partial, say)?;
    fs::rename(&partial.root, &artifacts.root)
        .with_context(|| format!("renaming to `{}`", artifacts.root.display()))?;
    say(&format!("built in {} s", started.elapsed().as_secs()));
    Ok(artifacts)
}

/// Names a build by its inputs.
fn key() -> String {
    let fixed = [LAYOUT, KUBERNETES_VERSION, PAUSE_IMAGE, ETCD_IMAGE, PAUSE_SOURCE];
    format!("{KUBERNETES_VERSION}-{}", hash_of(fixed.into_iter().chain(go::inputs())))
}

/// Twelve hex digits of everything together.
fn hash_of<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn build_into(partial: &Artifacts, say: &dyn Fn(&str)) -> Result<()> {
    let bin = partial.binaries();
    fs::create_dir_all(&bin).with_context(|| format!("making `{}`", bin.display()))?;
    go::build(&partial.root, &bin, say)?;
    say("building pause and the images");
    let source = partial.root.join("pause.c");
    fs::write(&source, PAUSE_SOURCE).context("writing pause.c")?;
    run(Command::new("cc").args(["-O2", "-static", "-o"]).arg(bin.join("pause")).arg(&source))?;
    let images = partial.root.join("images");
    fs::create_dir_all(&images).with_context(|| format!("making `{}`", images.display()))?;
    let mut archives = Vec::new();
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        archives.push((component, format!("registry.k8s.io/{component}:{KUBERNETES_VERSION}"), "usr/local/bin"));
    }
    archives.push(("etcd", ETCD_IMAGE.to_owned(), "usr/local/bin"));
    archives.push(("pause", PAUSE_IMAGE.to_owned(), ""));
    let mut files = Vec::new();
    for (binary, name, directory) in archives {
        let archive = images.join(format!("{binary}.tar"));
        image::write(&archive, &name, &bin.join(binary), directory)
            .with_context(|| format!("writing image `{name}` to `{}`", archive.display()))?;
        files.push(archive);
    }
    store::fill(&partial.image_store(), &bin, &files)?;
    // Their content is in the store now.
    fs::remove_dir_all(&images).context("removing the image archives")
}
