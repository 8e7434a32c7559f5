//! What an operator agrees to on a node, and what is refused before anything of it is compiled.

use std::path::PathBuf;

use crate::lab::{Desk, Registry, component, component_with};

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn what_is_not_signed_as_asked_is_refused_before_anything_is_compiled() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    desk.make_other_keys();
    let unsigned = desk.push(&registry, "unsigned");
    desk.add(&unsigned, &[]).refused(2, "would be taken without a signature");
    desk.add(&unsigned, &["--key", "cosign.pub"]).refused(1, "has no signature");
    let signed = registry.reference("signed", "1");
    desk.write("gpu-driver.wasm", &component_with("\nversion: 0.1.0", "\nversion: 0.1.1"));
    desk.plugin(&["push", "gpu-driver.wasm", &signed]).good();
    desk.plugin(&["sign", "--key", "cosign.key", &signed]).good();
    desk.add(&signed, &["--key", "other.pub"]).refused(1, "has no signature by the key");
    desk.add(&signed, &["--key", "cosign.key"]).refused(2, "it is a private key");
    // Another component under the tag: its manifest has no signature.
    desk.write("gpu-driver.wasm", &component_with("\nversion: 0.1.0", "\nversion: 0.1.2"));
    desk.plugin(&["push", "gpu-driver.wasm", &signed]).good();
    desk.add(&signed, &["--key", "cosign.pub"]).refused(1, "has no signature");
    assert!(desk.store_is_empty(), "something was kept or compiled");
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn a_byte_changed_in_the_registry_is_refused() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    let reference = desk.push_signed(&registry, "1.0.0");
    let digest = |of: &str| {
        let manifest = desk.oras(&["manifest", "fetch", "--plain-http", &reference]).good();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        manifest.pointer(of).and_then(|it| it.as_str()).expect("a digest").to_owned()
    };
    let layer = registry.blob(&digest("/layers/0/digest"));
    assert_eq!(std::fs::read(&layer).unwrap(), component());
    std::fs::write(&layer, component_with("\nversion: 0.1.0", "\nversion: 0.1.1")).unwrap();
    let refused = desk.add(&reference, &["--key", "cosign.pub"]).refused(1, "it was changed on the way");
    assert!(refused.contains(&digest("/layers/0/digest")), "{refused}");
    assert!(desk.store_is_empty(), "something was kept or compiled");
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn an_update_passes_only_from_the_same_signer_and_without_more_wishes() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    desk.make_other_keys();
    let first = desk.push_signed(&registry, "1");
    desk.add(&first, &["--key", "cosign.pub"]).good();
    assert!(desk.plugin(&["update"]).good().contains("unchanged"));
    let push = |tag: &str, content: &[u8], key: &str| {
        desk.write("gpu-driver.wasm", content);
        let reference = desk.push(&registry, tag);
        desk.plugin(&["sign", "--key", key, &reference]).good();
        reference
    };
    let good = push("2", &component_with("\nversion: 0.1.0", "\nversion: 0.1.1"), "cosign.key");
    let updated = desk.plugin(&["update", "gpu-driver", "--to", &good]).good();
    assert!(updated.starts_with("gpu-driver 0.1.1 sha256:"), "{updated}");
    let before = lock(&desk);

    let greedy = push("3", &component_with("{name: modules,", "{name: runtime,"), "cosign.key");
    let update = |reference: &str| desk.plugin(&["update", "gpu-driver", "--to", reference]);
    update(&greedy).refused(1, "it wants more: facts: [runtime]");
    let foreign = push("4", &component_with("\nversion: 0.1.0", "\nversion: 0.1.3"), "other.key");
    update(&foreign).refused(1, "has no signature by the key");
    desk.add(&good, &["--key", "other.pub"]).refused(1, "has no signature by the key");
    desk.add(&first, &["--key", "cosign.pub"]).refused(2, "with other content");
    assert_eq!(lock(&desk), before, "a refused update changed the lock file");
    // The operator agrees to it by name.
    let more = ["--key", "cosign.pub", "--replace", "--grant", "facts=runtime"];
    assert!(desk.add(&greedy, &more).good().starts_with("gpu-driver 0.1.0"));
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn a_bundle_carries_plugin_and_signatures_to_a_machine_without_a_network() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    let reference = desk.push_signed(&registry, "1.0.0");
    desk.plugin(&["bundle", &reference, "-o", "plugins.tar"]).good();
    drop(registry);
    desk.add(&reference, &["--key", "cosign.pub"]).refused(1, "cannot reach the registry");
    desk.add(&reference, &["--key", "cosign.pub", "--bundle", "plugins.tar"]).good();
    // On a node with a copy of the lock file the bundle is enough.
    std::fs::remove_dir_all(desk.root().join("var/lib/mortise/plugins")).unwrap();
    let preflight = |more: &[&str]| {
        let flags = ["preflight", "--ignore-preflight-errors=all", "--cri-socket=unix:///run/none.sock"];
        desk.mortise(&[&flags[..], &["--plugin", "gpu-driver"], more].concat())
    };
    preflight(&[]).refused(2, "is not in the store");
    let ran = preflight(&["--bundle", "plugins.tar"]);
    assert!(ran.stderr.contains("the kernel module nvidia is not loaded"), "{}", ran.stderr);
    // oras reads it, too.
    std::fs::create_dir(desk.path("layout")).unwrap();
    desk.shell("tar -xf plugins.tar -C layout").good();
    let digest = desk.plugin(&["verify", "--key", "cosign.pub", "--bundle", "plugins.tar", &reference]).good();
    let digest = digest.trim().split_once('@').unwrap().1.to_owned();
    desk.oras(&["pull", "--oci-layout", &format!("layout@{digest}"), "-o", "pulled"]).good();
    assert_eq!(std::fs::read(desk.path("pulled/gpu-driver.wasm")).unwrap(), component());
    // A byte changed in it.
    let mut bundle = std::fs::read(desk.path("plugins.tar")).unwrap();
    let at = bundle.windows(14).position(|it| it == b"version: 0.1.0").expect("the component is in it");
    bundle[at + 13] = b'9';
    desk.write("plugins.tar", &bundle);
    let again = ["--key", "cosign.pub", "--bundle", "plugins.tar"];
    desk.add(&reference, &again).refused(1, "it was changed on the way");
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn a_file_from_a_stick_is_taken_with_the_signature_beside_it() {
    let desk = Desk::with_keys();
    desk.add("./gpu-driver.wasm", &["--key", "cosign.pub"]).refused(1, "has no signature");
    assert!(desk.store_is_empty());
    desk.plugin(&["sign", "--key", "cosign.key", "gpu-driver.wasm"]).good();
    desk.add("./gpu-driver.wasm", &["--key", "cosign.pub"]).good();
    std::fs::remove_file(desk.path("gpu-driver.wasm")).unwrap();
    desk.plugin(&["run", "gpu-driver"]).refused(3, "1 of 1 checks failed");
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn what_is_revoked_is_neither_run_nor_taken_again() {
    let (registry, desk) = (Registry::start(), Desk::with_keys());
    let reference = desk.push_signed(&registry, "1.0.0");
    desk.add(&reference, &["--key", "cosign.pub"]).good();
    desk.plugin(&["run", "gpu-driver"]).refused(3, "1 of 1 checks failed");
    let listed: serde_json::Value =
        serde_json::from_str(&desk.plugin(&["list", "-o", "json"]).good()).expect("it is JSON");
    let signer = listed["plugins"][0]["signer"].as_str().expect("a signer");
    desk.plugin(&["revoke", signer]).good();
    desk.plugin(&["run", "gpu-driver"]).refused(2, "its signer");
    desk.add(&reference, &["--key", "cosign.pub", "--name", "again"]).refused(2, "its signer");
    desk.plugin(&["remove", "gpu-driver"]).good();
    desk.plugin(&["run", "gpu-driver"]).refused(2, "no plugin `gpu-driver`");
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn stored_native_code_that_was_changed_is_made_again() {
    let desk = Desk::new();
    desk.add("./gpu-driver.wasm", &["--allow-unsigned"]).good();
    let code = native_code(&desk);
    let made = std::fs::read(&code).unwrap();
    let run = || desk.plugin(&["run", "gpu-driver"]);
    let says = |ran: crate::lab::Ran| format!("{}{}", ran.stdout, ran.stderr).contains("was changed");
    assert!(!says(run()), "untouched code was refused");
    let mut changed = made.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&code, &changed).unwrap();
    assert!(says(run()), "changed code was run");
    assert_ne!(std::fs::read(&code).unwrap(), changed, "it was not made again");
    assert!(!says(run()), "what was made again is not taken");
}

fn lock(desk: &Desk) -> String {
    std::fs::read_to_string(desk.root().join("etc/mortise/mortise.lock")).unwrap()
}

/// The one file of native code in the store.
fn native_code(desk: &Desk) -> PathBuf {
    let store = desk.root().join("var/lib/mortise/plugins");
    let entries = |path: &PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|it| it.path());
    let files: Vec<PathBuf> = entries(&store).flat_map(|path| entries(&path).collect::<Vec<_>>()).collect();
    let mut code = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "cwasm"));
    code.next().expect("it was compiled")
}
