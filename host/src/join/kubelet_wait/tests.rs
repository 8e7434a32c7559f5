use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::api::Dialer;
use crate::api::scripted::{test_context, token_discovery};
use crate::journal::Journal;
use crate::node::Node;
use crate::node::stub::StubMachine;

/// Long enough that an early end is told from it on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Waits on a stub machine, on which a bootstrap credential lies; its time runs faster.
async fn wait_on(
    machine: StubMachine,
    by: TlsBootstrapBy,
    kubelet: serde_json::Value,
) -> (Result<(), KubeletWaitError>, bool) {
    let (directory, cx) = test_context(&Dialer::Tcp, token_discovery("127.0.0.1:1", Vec::new()));
    let mut cx = cx.with(|settings| {
        settings.tls_bootstrap_by = by;
        settings.timeouts.kubelet_health_check = TIMEOUT;
        settings.timeouts.tls_bootstrap = Duration::from_millis(100);
    });
    cx.node = Node::new(directory.path().to_owned(), Arc::new(machine), Arc::new(Journal::in_memory()));
    cx.node.ensure_file(Path::new(BOOTSTRAP_KUBECONFIG), b"secret", 0o600).unwrap();
    let cluster = ClusterConfiguration {
        cluster_name: "kubernetes".into(),
        kubernetes_version: "v1.37.2".into(),
        certificates_dir: "/etc/kubernetes/pki".into(),
        kubeadm: serde_json::Value::Null,
        kubelet,
    };
    let pace = Pace {
        pause: (Duration::from_millis(1), Duration::from_millis(5)),
        brisk: Duration::ZERO,
        unit_pause: Duration::from_millis(10),
        gone_after: Duration::from_millis(50),
    };
    let waited = wait_at(pace, &cluster, &cx).await;
    (waited, directory.path().join("etc/kubernetes/bootstrap-kubelet.conf").exists())
}

async fn wait(machine: StubMachine) -> Result<(), KubeletWaitError> {
    let (waited, credential_there) = wait_on(machine, TlsBootstrapBy::Host, json!({})).await;
    assert!(!credential_there, "the bootstrap credential is left");
    waited
}

#[tokio::test]
async fn ends_with_the_first_good_answer() {
    let healths = vec![None, None, Some(503), Some(200), None].into();
    let started = Instant::now();
    wait(StubMachine { healths, ..StubMachine::default() }).await.unwrap();
    assert!(started.elapsed() < TIMEOUT, "{:?}", started.elapsed());
}

#[tokio::test]
async fn gives_up_at_its_deadline_with_what_it_saw_and_the_log() {
    let (healths, log) = (vec![Some(500)].into(), vec!["E1 bad".to_owned()]);
    let started = Instant::now();
    let error = wait(StubMachine { healths, log, ..StubMachine::default() }).await.unwrap_err();
    assert_eq!(error.code(), "kubelet-unhealthy");
    let expected = "the kubelet was not healthy within 1 s: http://127.0.0.1:10248/healthz answers 500; its last log lines:\n  - E1 bad";
    assert_eq!(error.to_string(), expected);
    assert!(started.elapsed() >= TIMEOUT);
}

#[tokio::test]
async fn a_kubelet_that_dies_again_and_again_ends_the_wait_early() {
    let (healths, log) = (vec![None].into(), vec!["F1 no swap, please".to_owned()]);
    let started = Instant::now();
    let error = wait(StubMachine { healths, log, dies: 1, ..StubMachine::default() }).await.unwrap_err();
    assert_eq!(error.code(), "kubelet-dying");
    assert!(error.to_string().ends_with("F1 no swap, please"), "{error}");
    assert!(started.elapsed() < TIMEOUT, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_kubelet_that_does_not_run_or_has_no_unit_ends_the_wait_early() {
    for (exists, code) in [(true, "kubelet-not-running"), (false, "kubelet-no-unit")] {
        let state = UnitState { exists, active: false, restarts: Some(0) };
        let machine = StubMachine { kubelet: Some(state).into(), healths: vec![None].into(), ..StubMachine::default() };
        let started = Instant::now();
        assert_eq!(wait(machine).await.unwrap_err().code(), code);
        assert!(started.elapsed() < TIMEOUT, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn port_zero_is_not_asked() {
    let machine = StubMachine { healths: vec![None].into(), ..StubMachine::default() };
    wait_on(machine, TlsBootstrapBy::Host, json!({"healthzPort": 0})).await.0.unwrap();
}

#[tokio::test]
async fn a_kubelet_that_asks_itself_is_waited_for_until_it_has_its_certificate() {
    let (waited, credential_there) = wait_on(StubMachine::default(), TlsBootstrapBy::Kubelet, json!({})).await;
    assert_eq!(waited.unwrap_err().code(), "kubelet-no-certificate");
    assert!(!credential_there);
}
