//! The vendor example of `examples/gpu-driver`, as its header says.

use mortise::error::Diagnose;
use mortise::plugin::{CheckStatus, Stage};

use crate::built::built;
use crate::plugin::Setup;

const FLAGS: [&str; 2] = ["facts=modules", "files=/proc/driver/nvidia/version:read"];

#[tokio::test]
async fn the_gpu_example_runs_with_the_grants_its_header_names() {
    let component = built("mortise-example-gpu-driver");
    let setup = Setup::new(&component).without_manifest();
    let hint = setup.prepare().err().unwrap().hint().unwrap();
    assert_eq!(hint, "allow them with --grant facts=modules --grant files=/proc/driver/nvidia/version:read:4096");
    let results = FLAGS.iter().fold(setup, |setup, flag| setup.grant(flag)).run(Stage::Node).await;
    let [result] = results.as_slice() else { panic!("{results:#?}") };
    assert_eq!((result.plugin.as_str(), result.status), ("guest@0.1.0", CheckStatus::Failed));
    assert_eq!(result.findings[0].message, "the kernel module nvidia is not loaded");
    assert_eq!(result.denied, 0);
}
