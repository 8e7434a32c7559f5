//! The plugins of `examples/`, Rust and Python: each answers what its README says, and both languages the same.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mortise::config::IgnoredChecks;
use mortise::plugin::{AskError, CheckStatus, FoundSecret, FoundTrust, Kind, Plugins, Stage, Verdict};
use secrecy::ExposeSecret as _;

use crate::built::built;
use crate::machine::Machine;
use crate::plugin::{Request, Setup, embedded, everything_it_wants, reporter, top};
use crate::python;

/// Rust components of the three examples.
pub(crate) fn rust_examples() -> [(Kind, Vec<u8>); 3] {
    [
        (Kind::Preflight, built("mortise-example-gpu-driver")),
        (Kind::Discovery, built("mortise-example-discovery-cloud")),
        (Kind::Approval, built("mortise-example-approve-inventory")),
    ]
}

/// One Python component of all three, since building and compiling CPython three times takes minutes.
pub(crate) fn python_examples() -> Vec<u8> {
    let examples = ["gpu-driver", "discovery-cloud", "approve-inventory"];
    let mut directories: Vec<_> = examples.iter().map(|it| top().join("examples").join(it).join("python")).collect();
    directories.push(top().join("tests/kinds/python"));
    let component = python::component("every_kind", &directories, "wit/runner", "every-kind");
    embedded(&component, &std::fs::read_to_string(top().join("tests/kinds/python/plugin.yaml")).unwrap())
}

/// Ready to be asked, with all that it wants, on a machine that the test changes between calls.
fn plugins(machine: &Arc<Machine>, component: &[u8]) -> Plugins {
    let setup = Setup::new(component).grants(everything_it_wants(component)).machine(machine.clone());
    setup.prepare().unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn the_rust_examples_answer_as_their_readme_says() {
    let machine = Arc::<Machine>::default();
    let [check, source, hook] = rust_examples().map(|(_, component)| plugins(&machine, &component));
    checks_the_driver(&machine, &check).await;
    finds_the_cluster(&machine, &source).await;
    judges_by_the_inventory(&machine, &hook).await;
}

#[tokio::test]
async fn the_python_examples_answer_the_same_within_the_limits_every_plugin_has() {
    let machine = Arc::<Machine>::default();
    let plugin = plugins(&machine, &python_examples());
    assert_eq!(plugin.kinds(), Kind::ALL);
    checks_the_driver(&machine, &plugin).await;
    finds_the_cluster(&machine, &plugin).await;
    judges_by_the_inventory(&machine, &plugin).await;
}

async fn checks_the_driver(machine: &Machine, plugins: &Plugins) {
    let run = || async {
        let mut results = plugins.run_stage(Stage::Node, &IgnoredChecks::default(), &reporter()).await;
        assert_eq!((results.len(), results[0].denied), (1, 0), "{results:#?}");
        results.remove(0)
    };
    let without = run().await;
    assert_eq!(without.findings[0].message, "the kernel module nvidia is not loaded");
    machine.load_module("nvidia");
    let line =
        |version: &str| format!("NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue\nGCC version: 12.2\n");
    machine.put("/proc/driver/nvidia/version", line("535.54.15"));
    let old = run().await;
    assert_eq!(old.findings[0].message, "driver 535.54.15 is older than branch 550");
    assert!(old.findings[0].remedy.as_deref().unwrap().contains("branch 550 or newer"));
    machine.put("/proc/driver/nvidia/version", line("550.90.7"));
    let new = run().await;
    assert_eq!((new.status, new.findings.len()), (CheckStatus::Passed, 0), "{new:#?}");
    assert_eq!(new.evidence, [("driver".to_owned(), "550.90.7".to_owned())]);
}

fn token(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

async fn finds_the_cluster(machine: &Machine, plugins: &Plugins) {
    const ATTRIBUTES: &str = "/computeMetadata/v1/instance/attributes";
    const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/identity?audience=kubernetes";
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    let good = token(r#"{"sub": "i-1", "exp": 4102444800}"#);
    let cloud = machine.cloud();
    cloud.put(&format!("{ATTRIBUTES}/kubernetes-endpoints"), "10.0.0.1:6443, [fd00::1]:6443");
    cloud.put(&format!("{ATTRIBUTES}/kubernetes-ca"), &authority);
    cloud.put("/computeMetadata/v1/instance/id", "i-1");
    let ask = || async { plugins.discover("guest", &reporter()).await.unwrap() };

    let refused = ask().await;
    match refused.answer.unwrap_err() {
        AskError::Refused { code, message, retryable: false, .. } => {
            assert_eq!(code, "no-cluster");
            assert!(message.contains("service-accounts/default/identity"), "{message}");
        }
        other => panic!("{other:?}"),
    }

    cloud.put(TOKEN, &format!("{good}\n"));
    let found = ask().await;
    let cluster = found.answer.unwrap();
    let endpoints: Vec<String> = cluster.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["10.0.0.1:6443", "[fd00::1]:6443"]);
    assert!(matches!(&cluster.trust, FoundTrust::Authorities(list) if list.len() == 1));
    assert_eq!(cluster.evidence, [("instance".to_owned(), "i-1".to_owned())]);
    let credential = cluster.credential.unwrap();
    assert_eq!(credential.expires_at, Some(UNIX_EPOCH + Duration::from_secs(4_102_444_800)));
    let FoundSecret::BearerToken(secret) = credential.secret else { panic!("another kind of secret") };
    assert_eq!(secret.expose_secret(), good);

    cloud.put(TOKEN, &token(r#"{"exp": 1000000000}"#));
    match ask().await.answer.unwrap_err() {
        AskError::Broke { reason, message, .. } => {
            assert!(reason == "malformed" && message.contains("the credential expired"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    cloud.fail(503);
    match ask().await.answer.unwrap_err() {
        AskError::Refused { code, retryable: true, .. } => assert_eq!(code, "unavailable"),
        other => panic!("{other:?}"),
    }
}

async fn judges_by_the_inventory(machine: &Machine, plugins: &Plugins) {
    const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
    const SERVING: &str = "kubernetes.io/kubelet-serving";
    let newcomer = |node: &str, instance: &str| Request {
        username: "system:serviceaccount:clouds:i-1".into(),
        extra: vec![("mortise.dev/instance-id".into(), instance.into())],
        ..Request::new(CLIENT, node)
    };
    let serving = |names: &[&str]| Request {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        ..Request::new(SERVING, "worker-1")
    };
    let ask = |request: Request| async move {
        plugins.review("guest", Some(request.parsed()), &reporter()).await.unwrap().answer
    };

    match ask(Request::new(CLIENT, "worker-1")).await.unwrap_err() {
        AskError::Refused { code, .. } => assert_eq!(code, "not-found"),
        other => panic!("without an inventory: {other:?}"),
    }
    let inventory = std::fs::read_to_string(top().join("examples/approve-inventory/inventory")).unwrap();
    machine.put("/etc/mortise/inventory", inventory);
    for (request, verdict, reason) in [
        (Request::new(CLIENT, "worker-1"), Verdict::Approve, "in-inventory"),
        (newcomer("worker-1", "i-0a1b2c"), Verdict::Approve, "in-inventory"),
        (newcomer("worker-1", "i-9"), Verdict::Deny, "wrong-instance"),
        (newcomer("worker-3", "i-0a1b2c"), Verdict::Deny, "not-in-inventory"),
        (serving(&["worker-1", "10.0.0.11", "worker-1.example"]), Verdict::Approve, "in-inventory"),
        (serving(&["10.0.0.12"]), Verdict::Deny, "name-not-listed"),
        (serving(&["kubernetes.default"]), Verdict::Deny, "name-not-listed"),
        (Request::new("example.com/other", "worker-1"), Verdict::Abstain, "not-a-kubelet"),
    ] {
        let shown = format!("{request:?}");
        let judgement = ask(request).await.unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!((judgement.verdict, judgement.reason.as_str()), (verdict, reason), "{shown}: {judgement:?}");
    }
}
