//! What tests of registries run beside mortise: Debian's `docker-registry`, and oras and cosign from their Go modules.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{go, hash_of, machine};
use crate::state::cache_root;

/// What is installed and not built.
const INSTALLED: &[machine::Tool] = &[("docker-registry", "docker-registry"), ("openssl", "openssl"), ("go", "")];

/// Directory of `oras` and `cosign`, built now if need be (about four minutes on two cores the first time).
///
/// # Errors
///
/// When a tool is missing that cannot be installed, or a build fails; the text says which.
pub fn ensure(say: &dyn Fn(&str)) -> Result<PathBuf> {
    machine::ensure_tools(INSTALLED, say)?;
    let cache = cache_root()?;
    let name = format!("registry-{}", hash_of(go::registry_inputs()));
    let root = cache.join(&name);
    let bin = root.join("bin");
    if bin.is_dir() {
        return Ok(bin);
    }
    fs::create_dir_all(&cache).with_context(|| format!("making `{}`", cache.display()))?;
    let lock = fs::File::create(cache.join("registry.lock")).context("creating the build's lock")?;
    lock.lock().context("waiting for another build")?;
    if bin.is_dir() {
        return Ok(bin);
    }
    say(&format!("building oras and cosign into `{}`", root.display()));
    let partial = cache.join(format!("{name}.partial"));
    fs::create_dir_all(partial.join("bin")).with_context(|| format!("making `{}`", partial.display()))?;
    go::build_for_registries(&partial, &partial.join("bin"), say)?;
    fs::rename(&partial, &root).with_context(|| format!("renaming to `{}`", root.display()))?;
    Ok(bin)
}
