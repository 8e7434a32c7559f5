//! Where components come from.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// The top of the repository.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A component with this manifest, as `mortise plugin embed` makes it.
pub(crate) fn embedded(component: &[u8], manifest: &str) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let (wasm, yaml) = (directory.path().join("it.wasm"), directory.path().join("plugin.yaml"));
    std::fs::write(&wasm, component)?;
    std::fs::write(&yaml, manifest)?;
    mortise::plugin::embed(&wasm, &yaml, &wasm)?;
    Ok(std::fs::read(wasm)?)
}
