//! Finding the program whose hidden subcommands a cluster's processes are, also from a test that only links the library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use crate::process::run;

const NAME: &str = "mortise-cluster";
/// Names a program to use instead of the one that Cargo builds.
const OVERRIDE: &str = "MORTISE_CLUSTER_BIN";

/// The program: this one, the one named in `MORTISE_CLUSTER_BIN`, or the one Cargo builds beside this test.
pub(crate) fn find() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| look().map_err(|error| format!("{error:#}"))).clone().map_err(|text| anyhow!(text))
}

fn look() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("finding this program")?;
    if own.file_name().is_some_and(|name| name == NAME) {
        return Ok(own);
    }
    // A test is <target>/<profile>/deps/<test>-<hash>. Cargo builds a dependency's library only, so the program is
    // asked for here; when it is fresh this takes a fraction of a second.
    let profile = own.ancestors().nth(2).context("this test does not lie in a target directory")?;
    let target = profile.parent().context("this test does not lie in a target directory")?;
    let profile_name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bin", NAME, "--profile", profile_name, "--manifest-path"]).arg(manifest);
    build.arg("--target-dir").arg(target);
    run(&mut build).with_context(|| format!("building `{NAME}`; or name it in {OVERRIDE}"))?;
    Ok(profile.join(NAME))
}
