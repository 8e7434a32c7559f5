//! What was not granted is refused, named, counted, and never a pass.

use mortise::error::{Diagnose, ExitCode};
use mortise::plugin::{CheckResult, CheckStatus, PluginError, Stage};

use crate::plugin::{Setup, guest};

const FACTS: &str = "grants: {facts: [swap, 'sysctl:net.ipv4.*', kernel]}\n";
const OPTIONAL: &str = "grants: {facts: [{name: kernel, optional: true}]}\n";

fn missing(result: &CheckResult) -> Vec<&str> {
    let evidence = result.findings.iter().flat_map(|finding| &finding.evidence);
    evidence.filter(|(name, _)| name == "missing grant").map(|(_, line)| line.as_str()).collect()
}

#[tokio::test]
async fn granted_facts_are_answered() {
    let setup = Setup::new(guest()).manifest(FACTS).grant("facts=kernel,swap").grant("facts=sysctl:net.ipv4.*");
    let results = setup.only("facts").run(Stage::Node).await;
    assert_eq!((results[0].status, results[0].denied), (CheckStatus::Passed, 0), "{results:#?}");
    let seen: Vec<_> = results[0].evidence.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(seen, ["/dev/sda2", "1", "6.1.0"]);
}

#[tokio::test]
async fn a_required_grant_that_is_missing_stops_everything_before_it_runs() {
    let setup = Setup::new(guest()).manifest(FACTS).grant("facts=swap");
    let Err(error @ PluginError::MissingGrants { .. }) = setup.prepare().map(drop) else { panic!("it was prepared") };
    assert_eq!(
        error.to_string(),
        "plugin `guest@1.2.3` needs grants that were not given: facts: [sysctl:net.ipv4.*]; facts: [kernel]"
    );
    let hint = error.hint().unwrap();
    assert_eq!(hint, "allow them with --grant 'facts=sysctl:net.ipv4.*' --grant facts=kernel");
    assert_eq!((error.code(), error.exit_code()), ("plugin-missing-grants", ExitCode::Usage));
}

#[tokio::test]
async fn what_the_manifest_does_not_ask_for_is_denied_whatever_the_operator_says() {
    let setup = Setup::new(guest()).grant("facts=kernel,swap,sysctl:net.*");
    let machine = setup.machine.clone();
    let results = setup.only("facts").run(Stage::Node).await;
    assert_eq!((results[0].status, results[0].denied), (CheckStatus::Failed, 3));
    let expected = ["facts: [swap]", "facts: [sysctl:net.ipv4.ip_forward]", "facts: [kernel]"];
    assert_eq!(missing(&results[0]), expected, "{results:#?}");
    assert!(results[0].findings[0].message.contains("manifest would have to ask for facts: [swap]"), "{results:#?}");
    assert_eq!(machine.asked.load(std::sync::atomic::Ordering::Relaxed), 0, "a denied request reached the machine");
}

#[tokio::test]
async fn a_component_without_a_manifest_gets_nothing() {
    let setup = Setup::new(guest()).without_manifest().grant("facts=kernel,swap").only("facts,passes");
    let results = setup.run(Stage::Node).await;
    assert_eq!((results[1].denied, results[1].plugin.as_str()), (3, "guest@0"));
    assert_eq!(results[0].status, CheckStatus::Passed);
}

#[tokio::test]
async fn a_check_that_hides_a_denial_does_not_pass() {
    let results = Setup::new(guest()).only("ignores-denial").run(Stage::Node).await;
    assert_eq!((results[0].status, results[0].denied), (CheckStatus::Failed, 1));
    assert!(results[0].findings[0].message.starts_with("the check was denied what it asked for"), "{results:#?}");
}

#[tokio::test]
async fn a_denial_of_an_optional_grant_is_only_counted() {
    let results = Setup::new(guest()).manifest(OPTIONAL).only("ignores-denial").run(Stage::Node).await;
    assert_eq!((results[0].status, results[0].denied), (CheckStatus::Passed, 1), "{results:#?}");
}

#[tokio::test]
async fn a_remedy_names_the_flag_the_operator_can_give() {
    let manifest = "grants: {facts: [{name: kernel, optional: true}, {name: swap, optional: true}]}\n";
    let results = Setup::new(guest()).manifest(manifest).only("facts").run(Stage::Node).await;
    assert_eq!(results[0].denied, 3);
    assert_eq!(missing(&results[0]), ["facts: [sysctl:net.ipv4.ip_forward]"], "{results:#?}");
}

#[tokio::test]
async fn granted_files_are_read_and_shadow_is_never() {
    // `/etc/os-release` is a link on most systems.
    let manifest = "grants: {files: [{path: /etc/*}, {path: /usr/lib/os-release}]}\n";
    let setup = Setup::new(guest()).manifest(manifest).grant("files=/etc/*").grant("files=/usr/lib/os-release");
    let results = setup.only("files").run(Stage::Node).await;
    let findings: Vec<_> = results[0].findings.iter().map(|finding| finding.message.as_str()).collect();
    let [only] = findings.as_slice() else { panic!("{findings:#?}") };
    assert!(only.starts_with("shadow: denied: `/etc/shadow` is never shown"), "{only}");
    assert!(results[0].evidence.iter().any(|(name, _)| name == "stat"), "{results:#?}");
}

#[tokio::test]
async fn ungranted_files_and_commands_name_their_line() {
    let results = Setup::new(guest()).only("files,commands").run(Stage::Node).await;
    assert_eq!(
        missing(&results[0]),
        [
            "files: [{path: /etc/os-release, access: stat}]",
            "files: [{path: /etc/os-release, access: read}]",
            "files: [{path: /etc/shadow, access: read}]"
        ]
    );
    assert_eq!(missing(&results[1]), ["commands: [{program: /bin/echo, args: [hello]}]"]);
}

#[tokio::test]
async fn a_granted_command_reaches_the_machine() {
    let manifest = "grants: {commands: [{program: /bin/echo, args: [{match: '[a-z]+'}]}]}\n";
    let setup = Setup::new(guest()).manifest(manifest).grant("commands=/bin/echo {match:[a-z]+}");
    let results = setup.only("commands").run(Stage::Node).await;
    assert_eq!(results[0].status, CheckStatus::Passed, "{results:#?}");
    assert_eq!(results[0].evidence[0].1, "Some(0) ran /bin/echo hello");
}
