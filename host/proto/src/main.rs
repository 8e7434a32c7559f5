//! Writes `host/src/cri/runtime_v1.rs` from `cri.proto` and `host/src/etcd/rpc.rs` from `etcd.proto`, in pure Rust.

use std::error::Error;
use std::path::Path;

/// Source, package in it, directory and name of the code.
const OUTPUTS: [(&str, &str, &str, &str); 2] =
    [("cri.proto", "runtime.v1", "../src/cri", "runtime_v1"), ("etcd.proto", "etcdserverpb", "../src/etcd", "rpc")];

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (source, package, directory, name) in OUTPUTS {
        let files = protox::compile([here.join(source)], [here])?;
        let out = here.join(directory);
        tonic_prost_build::configure()
            .build_server(false)
            .build_transport(false)
            .emit_rerun_if_changed(false)
            .out_dir(&out)
            .compile_fds(files)?;
        let generated = out.join(format!("{package}.rs"));
        let code = std::fs::read_to_string(&generated)?;
        std::fs::remove_file(&generated)?;
        let header = format!(
            "// Generated from host/proto/{source}; do not edit. Regenerate: cargo run --manifest-path \
             host/proto/Cargo.toml\n"
        );
        std::fs::write(out.join(format!("{name}.rs")), header + &code)?;
    }
    Ok(())
}
