//! Builds the built-in plugin and embeds it.
//!
//! The component comes from a cargo of its own, for another target. `make build` then runs a first `mortise` to turn it
//! into native code for a baseline CPU, and builds again with `MORTISE_PREFLIGHT_NODE_CWASM` naming that file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PACKAGE: &str = "mortise-preflight-node";
const TARGET: &str = "wasm32-wasip2";
/// Names a file of native code to embed beside the component.
const NATIVE: &str = "MORTISE_PREFLIGHT_NODE_CWASM";

fn main() {
    for path in ["../plugins/preflight-node", "../wit", "../Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-env-changed={NATIVE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let component = build_component(&out);
    let native = match env::var_os(NATIVE).filter(|path| !path.is_empty()) {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            // At the beginning of a page, so that it can be run where it lies.
            let page = if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") { 4096 } else { 65536 };
            format!(
                "Some(&CODE.0);\n\
                 #[repr(C, align({page}))]\n\
                 struct Paged<T>(T);\n\
                 static CODE: Paged<[u8; include_bytes!({path:?}).len()]> = Paged(*include_bytes!({path:?}))"
            )
        }
        None => "None".into(),
    };
    let source = format!(
        "/// The component.\npub(in crate::plugin) static COMPONENT: &[u8] = include_bytes!({component:?});\n\
         /// Its native code for a baseline CPU, when `make build` put it here.\n\
         pub(in crate::plugin) static NATIVE: Option<&[u8]> = {native};\n"
    );
    fs::write(out.join("builtin.rs"), source).expect("OUT_DIR is writable");
}

fn build_component(out: &Path) -> PathBuf {
    // Every target directory has this file at its top; below, the layout depends on flags.
    let target = out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).unwrap_or(out).join("plugins");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo.args(["build", "--profile", "plugin", "--target", TARGET, "-p", PACKAGE, "--target-dir"]).arg(&target);
    // What the outer build was told is meant for the host, not for a component.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let outer = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"];
        let outer_prefix = ["CARGO_FEATURE_", "CARGO_CFG_", "CARGO_PROFILE_", "CLIPPY_", "LLVM_PROFILE"];
        if outer.contains(&name.as_str()) || outer_prefix.iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    let built = cargo.output().expect("cargo can be started again");
    if !built.status.success() {
        let text = String::from_utf8_lossy(&built.stderr);
        for line in text.lines().filter(|line| !line.is_empty()) {
            println!("cargo::error={line}");
        }
        if text.contains("can't find crate for `std`") || text.contains("can't find crate for `core`") {
            println!("cargo::error=the Rust target {TARGET} is missing: run `rustup target add {TARGET}`");
        }
        std::process::exit(1);
    }
    target.join(TARGET).join("plugin").join(format!("{}.wasm", PACKAGE.replace('-', "_")))
}
