//! README, "A vendor's check, from its registry to your node": its lines, run as they stand.

use crate::lab::{Desk, Registry};

const HEADING: &str = "## A vendor's check, from its registry to your node";

/// The commands of the section's console block, continued lines joined.
fn commands() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let section = readme.split_once(HEADING).expect("the section is there").1;
    let block = section.split_once("```console\n").expect("it has a block").1.split_once("```").expect("it ends").0;
    let joined = block.replace("\\\n", " ");
    let commands = joined.lines().filter_map(|line| line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")));
    commands.map(str::to_owned).collect()
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn the_readmes_tour_does_what_it_says() {
    let (registry, desk) = (Registry::start(), Desk::new());
    let commands = commands();
    assert!(commands.len() >= 7, "{commands:#?}");
    let mut last = String::new();
    for command in &commands {
        let ran = desk.shell(&command.replace("registry.example", &registry.address));
        // There is no such driver here: the check's own verdict.
        let expected = if command.starts_with("mortise plugin run") { 3 } else { 0 };
        assert_eq!(ran.status, expected, "{command}\n{}{}", ran.stdout, ran.stderr);
        last = ran.stdout;
    }
    assert!(last.contains("the kernel module nvidia is not loaded"), "{last}");
    let lock = std::fs::read_to_string(desk.root().join("etc/mortise/mortise.lock")).unwrap();
    assert!(lock.contains("name: gpu-driver") && lock.contains("signer: sha256:"), "{lock}");
}
