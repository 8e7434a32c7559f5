//! Components of this workspace, built for tests; several test targets include this file.

use std::path::Path;
use std::process::Command;

/// The component that a package is built into, with what earlier runs built.
pub(crate) fn built(package: &str) -> Vec<u8> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("plugins");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", "plugin", "--target", "wasm32-wasip2", "-p", package])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        // Meant for the host, not for a component.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status();
    assert!(status.unwrap().success(), "`{package}` cannot be built");
    std::fs::read(target.join(format!("wasm32-wasip2/plugin/{}.wasm", package.replace('-', "_")))).unwrap()
}
