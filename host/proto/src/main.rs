//! Writes `host/src/cri/runtime_v1.rs` from `cri.proto`, in pure Rust.

use std::error::Error;
use std::path::Path;

const HEADER: &str = "\
// Generated from host/proto/cri.proto; do not edit. Regenerate: cargo run --manifest-path host/proto/Cargo.toml
";

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile([here.join("cri.proto")], [here])?;
    let out = here.join("../src/cri");
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(&out)
        .compile_fds(files)?;
    let code = std::fs::read_to_string(out.join("runtime.v1.rs"))?;
    std::fs::remove_file(out.join("runtime.v1.rs"))?;
    std::fs::write(out.join("runtime_v1.rs"), format!("{HEADER}{code}"))?;
    Ok(())
}
