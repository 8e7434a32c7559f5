//! Artifacts and signatures, written by one program and read by the other.

use crate::lab::{Desk, Registry, component};

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn oras_reads_what_mortise_pushed_and_mortise_what_oras_copied() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    let reference = desk.push_signed(&registry, "1.0.0");
    desk.oras(&["pull", "--plain-http", &reference, "-o", "pulled"]).good();
    assert_eq!(std::fs::read(desk.path("pulled/gpu-driver.wasm")).unwrap(), component());
    let manifest = desk.oras(&["manifest", "fetch", "--plain-http", &reference]).good();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    let config = desk.oras(&["manifest", "fetch-config", "--plain-http", &reference]).good();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["component"]["exports"][0], "mortise:preflight/check@0.1.0");

    let copy = registry.reference("copy", "1.0.0");
    desk.oras(&["copy", "--recursive", "--from-plain-http", "--to-plain-http", &reference, &copy]).good();
    desk.plugin(&["pull", &copy, "--key", "cosign.pub", "-o", "back.wasm"]).good();
    assert_eq!(std::fs::read(desk.path("back.wasm")).unwrap(), component());
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn the_same_component_pushed_twice_is_one_artifact() {
    let (registry, desk) = (Registry::start(), Desk::new());
    let digest = |reference: &str| {
        let printed = desk.plugin(&["push", "gpu-driver.wasm", reference]).good();
        printed.trim().split_once('@').expect("a digest is printed").1.to_owned()
    };
    assert_eq!(digest(&registry.reference("a", "1")), digest(&registry.reference("b", "2")));
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn mortise_verifies_what_cosign_signed_in_either_form() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    desk.make_other_keys();
    let (bundle, tag) = (desk.push(&registry, "bundle"), registry.reference("old", "1"));
    desk.cosign(&["sign", "-y", "--key", "cosign.key", "--signing-config", "signing-config.json", &bundle]).good();
    let verified = desk.plugin(&["verify", "-o", "json", "--key", "cosign.pub", &bundle]).good();
    assert!(verified.contains(r#""form":"bundle""#), "{verified}");

    desk.plugin(&["push", "gpu-driver.wasm", &tag]).good();
    let old = ["--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=false"];
    desk.cosign(&[&["sign", "-y", "--key", "cosign.key"], &old[..], &[&tag]].concat()).good();
    let verified = desk.plugin(&["verify", "-o", "json", "--key", "cosign.pub", &tag]).good();
    assert!(verified.contains(r#""form":"tag""#), "{verified}");

    for reference in [&bundle, &tag] {
        desk.plugin(&["verify", "--key", "other.pub", reference]).refused(1, "has no signature by the key");
    }
    // A second vendor's signature beside the first takes nothing from it.
    desk.cosign(&["sign", "-y", "--key", "other.key", "--signing-config", "signing-config.json", &bundle]).good();
    for key in ["cosign.pub", "other.pub"] {
        desk.plugin(&["verify", "--key", key, &bundle]).good();
    }
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn cosign_verifies_what_mortise_signed_in_either_form() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    desk.make_other_keys();
    let reference = desk.push_signed(&registry, "1.0.0");
    for form in ["--new-bundle-format=true", "--new-bundle-format=false"] {
        let verify =
            |key: &str| desk.cosign(&["verify", "--key", key, "--insecure-ignore-tlog=true", form, &reference]);
        verify("cosign.pub").good();
        assert_ne!(verify("other.pub").status, 0, "another key verified it, {form}");
    }
    // Signed by both programs and by a second key, all are found.
    desk.cosign(&["sign", "-y", "--key", "other.key", "--signing-config", "signing-config.json", &reference]).good();
    desk.plugin(&["sign", "--key", "other.key", &reference]).good();
    for key in ["cosign.pub", "other.pub"] {
        desk.cosign(&["verify", "--key", key, "--insecure-ignore-tlog=true", &reference]).good();
        desk.plugin(&["verify", "--key", key, &reference]).good();
    }
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn signatures_of_files_are_read_both_ways() {
    let desk = Desk::with_keys();
    desk.plugin(&["sign", "--key", "cosign.key", "gpu-driver.wasm"]).good();
    let bundle = ["--bundle", "gpu-driver.wasm.sigstore.json"];
    let verify = ["verify-blob", "--key", "cosign.pub", "--insecure-ignore-tlog=true"];
    desk.cosign(&[&verify[..], &bundle, &["gpu-driver.wasm"]].concat()).good();
    std::fs::remove_file(desk.path("gpu-driver.wasm.sigstore.json")).unwrap();
    desk.plugin(&["verify", "--key", "cosign.pub", "./gpu-driver.wasm"]).refused(1, "has no signature");

    let sign = ["sign-blob", "-y", "--key", "cosign.key"];
    let with_config = ["--signing-config", "signing-config.json"];
    desk.cosign(&[&sign[..], &with_config, &bundle, &["gpu-driver.wasm"]].concat()).good();
    desk.plugin(&["verify", "--key", "cosign.pub", "gpu-driver.wasm"]).good();
    std::fs::remove_file(desk.path("gpu-driver.wasm.sigstore.json")).unwrap();
    let old = ["--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=false"];
    let bare = ["--output-signature", "gpu-driver.wasm.sig", "gpu-driver.wasm"];
    desk.cosign(&[&sign[..], &old, &bare].concat()).good();
    desk.plugin(&["verify", "--key", "cosign.pub", "gpu-driver.wasm"]).good();
    desk.write("gpu-driver.wasm", &crate::lab::component_with("\nversion: 0.1.0", "\nversion: 0.1.1"));
    desk.plugin(&["verify", "--key", "cosign.pub", "gpu-driver.wasm"]).refused(1, "has no signature by the key");
}
