//! Tokens, pins and servers that are not what they should be: each told apart, and the machine untouched.

use std::time::{Duration, Instant};

use crate::lab::{Alone, Failed, SOON, Worker, cluster, shared};
use crate::tree::Tree;

/// Within this what keeps a join waiting is named: at once by the product, but a busy machine compiles the built-in plugin
/// first. It is waited for minutes, so that naming it at the end would be late.
const NAMED: Duration = Duration::from_secs(45);

fn endpoint() -> String {
    cluster().join_line().unwrap().split(' ').nth(2).unwrap().to_owned()
}

fn pin() -> String {
    cluster().join_line().unwrap().split(' ').next_back().unwrap().to_owned()
}

fn join(worker: &Worker, endpoint: &str, token: &str, extra: &[&str]) -> Failed {
    let pin = pin();
    worker.join_with(&[&[endpoint, "--token", token, "--discovery-token-ca-cert-hash", &pin], extra].concat()).fails()
}

/// Runs what must fail, and looks whether it left anything.
fn untouched(worker: &Worker, failing: impl FnOnce() -> Failed) -> Failed {
    let fresh = Tree::of(cluster(), &worker.name);
    let failed = failing();
    assert_eq!(failed.status, Some(1), "{failed:?}");
    assert_eq!(fresh.differences(&Tree::of(cluster(), &worker.name)), Vec::<String>::new(), "{failed:?}");
    failed
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_wrong_secret_is_told_at_once() {
    let _shared = shared();
    let worker = Worker::add("wrong-secret");
    let started = Instant::now();
    let failed = untouched(&worker, || join(&worker, &endpoint(), "abcdef.fedcba9876543210", &[]));
    assert!(started.elapsed() < NAMED, "{:?}", started.elapsed());
    assert_eq!(failed.code, "discovery-bad-signature", "{failed:?}");
    assert!(failed.message.contains("secret"), "{failed:?}");
    assert!(!format!("{failed:?}").contains("fedcba9876543210"), "{failed:?}");
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn an_unknown_token_is_named_early_and_awaited() {
    let _shared = shared();
    let worker = Worker::add("early");
    let token = "early0.0123456789abcdee";
    let failed = untouched(&worker, || join(&worker, &endpoint(), token, &["--fail-fast"]));
    assert_eq!(failed.code, "discovery-no-signature", "{failed:?}");
    assert!(failed.message.contains("early0") && failed.hint.contains("kubeadm token create"), "{failed:?}");

    let pin = pin();
    let started = Instant::now();
    let mut waiting = worker
        .join_with(&[&endpoint(), "--token", token, "--discovery-token-ca-cert-hash", &pin, "--wait=registered"])
        .starts();
    waiting.tells("no signature for token id `early0`", SOON);
    assert!(started.elapsed() < NAMED, "{:?}", started.elapsed());
    create_token(token, &["--ttl=10m"]);
    let ended = waiting.ends(SOON);
    assert_eq!(ended.status, Some(0), "{}{}", ended.stdout, ended.stderr);
}

fn create_token(token: &str, extra: &[&str]) {
    let words = ["kubeadm", "--kubeconfig", mortise_cluster::ADMIN_CONFIG, "token", "create", token];
    cluster().run("n1", &[&words[..], extra].concat()).unwrap();
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_token_that_is_signed_but_refused_is_told_from_a_wrong_one() {
    let _shared = shared();
    let worker = Worker::add("refused");
    let secret = "0123456789abcdee";
    let literal = |key: &str, value: &str| format!("--from-literal={key}={value}");
    let words = [
        literal("token-id", "signed"),
        literal("token-secret", secret),
        literal("usage-bootstrap-signing", "true"),
        literal("usage-bootstrap-authentication", "false"),
    ];
    let mut create = vec!["-n", "kube-system", "create", "secret", "generic", "bootstrap-token-signed"];
    create.push("--type=bootstrap.kubernetes.io/token");
    create.extend(words.iter().map(String::as_str));
    cluster().kubectl(&create).unwrap();
    let signature = "--for=jsonpath={.data.jws-kubeconfig-signed}";
    cluster().kubectl(&["-n", "kube-public", "wait", signature, "configmap/cluster-info", "--timeout=30s"]).unwrap();
    let token = format!("signed.{secret}");
    let failed = untouched(&worker, || join(&worker, &endpoint(), &token, &["--fail-fast"]));
    assert_eq!(failed.code, "cluster-configuration-unauthorized", "{failed:?}");
    assert!(failed.hint.contains("kubeadm token list"), "{failed:?}");

    // Without --fail-fast it is named and awaited: a token made a moment ago is not everywhere yet.
    let pin = pin();
    let mut waiting =
        worker.join_with(&[&endpoint(), "--token", &token, "--discovery-token-ca-cert-hash", &pin]).starts();
    waiting.tells("does not accept the credential", NAMED);
    assert!(waiting.is_running());
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_pin_that_does_not_match_shows_the_pins_found() {
    let _shared = shared();
    let worker = Worker::add("pinned");
    let other = format!("sha256:{}", "0".repeat(64));
    let line = cluster().join_line().unwrap().replace(&pin(), &other);
    let failed = untouched(&worker, || worker.join_by(&line, &[]).fails());
    assert_eq!(failed.code, "discovery-pin-mismatch", "{failed:?}");
    assert!(failed.message.contains(&pin()), "{failed:?}");
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_server_that_does_not_answer_is_named_early() {
    let _shared = shared();
    let worker = Worker::add("lonely");
    let token = format!("abcdef.{}", crate::lab::token_secret());
    let failed = untouched(&worker, || join(&worker, "192.0.2.1:6444", &token, &["--fail-fast"]));
    assert_eq!(failed.code, "api-refused", "{failed:?}");

    // Nobody has this address, so that not even a refusal comes.
    let pin = pin();
    let started = Instant::now();
    let mut waiting =
        worker.join_with(&["192.0.2.254:6443", "--token", &token, "--discovery-token-ca-cert-hash", &pin]).starts();
    waiting.tells("192.0.2.254:6443", SOON);
    assert!(started.elapsed() < NAMED, "{:?}", started.elapsed());
    assert!(waiting.is_running(), "it goes on waiting");
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_certificate_for_another_host_is_told_as_that() {
    let _shared = shared();
    let worker = Worker::add("elsewhere");
    let token = format!("abcdef.{}", crate::lab::token_secret());
    // The balancer's address is in no certificate.
    let failed = untouched(&worker, || join(&worker, "192.0.2.1:6443", &token, &["--fail-fast"]));
    assert_eq!(failed.code, "api-tls-wrong-host", "{failed:?}");
    assert!(failed.message.contains("192.0.2.1"), "{failed:?}");
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn closed_public_access_is_told_with_the_way_around() {
    let binding = "kubeadm:bootstrap-signer-clusterinfo";
    let _alone = Alone::until_undone_by(&[
        "-n",
        "kube-public",
        "create",
        "rolebinding",
        binding,
        "--role=kubeadm:bootstrap-signer-clusterinfo",
        "--user=system:anonymous",
    ]);
    cluster().kubectl(&["-n", "kube-public", "delete", "rolebinding", binding]).unwrap();
    let worker = Worker::add("closed");
    let started = Instant::now();
    let failed = untouched(&worker, || worker.join(&["--fail-fast"]).fails());
    assert!(started.elapsed() < NAMED, "{:?}", started.elapsed());
    assert_eq!(failed.code, "discovery-public-access-closed", "{failed:?}");
    assert!(failed.hint.contains("--discovery-file"), "{failed:?}");
}
