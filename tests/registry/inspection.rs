//! What an operator sees of a plugin that is still in its registry.

use crate::lab::{Desk, Registry, component_with};

/// Nothing was kept: no store, no lock file, no file beside the keys.
fn nothing_is_kept(desk: &Desk, before: &[String]) {
    assert!(desk.store_is_empty() && !desk.root().join("etc").exists(), "something was kept or compiled");
    assert_eq!(names(desk), before);
}

fn names(desk: &Desk) -> Vec<String> {
    let entries = std::fs::read_dir(desk.path(".")).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn a_plugin_in_a_registry_is_shown_with_its_signer_and_nothing_is_kept() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    desk.make_other_keys();
    let reference = desk.push_signed(&registry, "1.0.0");
    let before = names(&desk);
    let shown = desk.plugin(&["inspect", &reference, "--key", "cosign.pub"]).good();
    for words in [
        "example.gpu-driver 0.1.0 (preflight)",
        &format!("from: {}@sha256:", reference.trim_end_matches(":1.0.0")),
        "signer: sha256:",
    ] {
        assert!(shown.contains(words), "`{words}` is not in {shown}");
    }
    assert!(shown.contains("facts: [modules]"), "{shown}");
    let shown = desk.plugin(&["inspect", &reference, "-o", "json"]).good();
    let json: serde_json::Value = serde_json::from_str(&shown).expect("it is JSON");
    assert_eq!(json["signer"], serde_json::Value::Null, "no key was named, and none is known: {json}");
    let of_file = desk.plugin(&["inspect", "gpu-driver.wasm", "-o", "json"]).good();
    let of_file: serde_json::Value = serde_json::from_str(&of_file).expect("it is JSON");
    assert_eq!((&json["digest"], &json["requests"]), (&of_file["digest"], &of_file["requests"]));
    desk.plugin(&["inspect", &reference, "--key", "other.pub"]).refused(1, "has no signature by the key");
    desk.plugin(&["inspect", &registry.reference("absent", "1")]).refused(1, "has no");
    nothing_is_kept(&desk, &before);
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn a_key_of_the_lock_file_is_recognised_without_being_named() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    desk.make_other_keys();
    let first = desk.push_signed(&registry, "1.0.0");
    desk.add(&first, &["--key", "cosign.pub"]).good();
    let signer = |subject: &str| {
        let shown = desk.plugin(&["inspect", subject, "-o", "json"]).good();
        serde_json::from_str::<serde_json::Value>(&shown).expect("it is JSON")["signer"].clone()
    };
    desk.write("gpu-driver.wasm", &component_with("\nversion: 0.1.0", "\nversion: 0.1.1"));
    let second = desk.push_signed(&registry, "1.0.1");
    assert!(signer(&second).is_string());
    assert_eq!(signer(&second), signer("gpu-driver"));
    desk.write("gpu-driver.wasm", &component_with("\nversion: 0.1.0", "\nversion: 0.1.2"));
    let foreign = desk.push(&registry, "1.0.2");
    desk.plugin(&["sign", "--key", "other.key", &foreign]).good();
    assert_eq!(signer(&foreign), serde_json::Value::Null);
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn a_component_larger_than_any_plugin_is_not_fetched() {
    let (registry, desk) = (Registry::start(), Desk::new());
    let reference = desk.push(&registry, "1");
    // What oras pushes under the same types may be of any size.
    desk.shell("head -c 70000000 /dev/zero > large.wasm").good();
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let config = serde_json::json!({"created": "", "architecture": "wasm", "os": "wasip2", "layerDigests": [digest]});
    desk.write("config.json", config.to_string().as_bytes());
    let config = "config.json:application/vnd.wasm.config.v0+json";
    desk.oras(&["push", "--plain-http", &reference, "--config", config, "large.wasm:application/wasm"]).good();
    let before = names(&desk);
    desk.plugin(&["inspect", &reference]).refused(1, "larger than");
    nothing_is_kept(&desk, &before);
}
