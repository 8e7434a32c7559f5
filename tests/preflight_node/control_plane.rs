//! The checks of a control plane, which come when the cluster's configuration is known.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use mortise::config::{Environment, IgnoredChecks};
use mortise::facts::{FactSource, HostFacts, HostSettings, Ownership};
use mortise::output::{Format, Reporter};
use mortise::plugin::policy::Policy;
use mortise::plugin::{Answer, CheckContext, CheckResult, CheckStatus, Plugins, Severity, Stage};
use mortise::sandbox::facts::{RecordedContent, RecordedFacts, RecordedFile, Recording};

use super::{healthy, launcher};

const MANIFESTS: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];

/// With a stacked etcd, in kubeadm's order.
const IDS: [&str; 15] = [
    "NumCPU",
    "Mem",
    "KubernetesVersion",
    "Firewalld",
    "Port-6443",
    "Port-10259",
    "Port-10257",
    "FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml",
    "FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml",
    "FileAvailable--etc-kubernetes-manifests-kube-scheduler.yaml",
    "FileAvailable--etc-kubernetes-manifests-etcd.yaml",
    "HTTPProxyCIDR",
    "Port-2379",
    "Port-2380",
    "DirAvailable--var-lib-etcd",
];

fn manifest(name: &str) -> String {
    format!("/etc/kubernetes/manifests/{name}.yaml")
}

fn file(content: RecordedContent) -> Option<RecordedFile> {
    Some(RecordedFile { mode: "0600".into(), uid: 0, gid: 0, content })
}

/// The healthy node of the recording, which nothing made a control plane yet.
fn fresh() -> Recording {
    let mut recording = healthy();
    recording.files.extend(MANIFESTS.map(|name| (manifest(name).into(), None)));
    recording.files.insert("/var/lib/etcd".into(), None);
    recording
}

/// Both stages; the second stage's checks, none of them denied anything.
async fn run(facts: Arc<dyn FactSource>, learned: &[(&str, &str)]) -> Vec<CheckResult> {
    let parameters = [
        ("cri-socket", "unix:///var/run/containerd/containerd.sock"),
        ("ca-cert-path", "/etc/kubernetes/pki/ca.crt"),
        ("kubernetes-minor", "37"),
        ("advertise-address", "192.0.2.7"),
        ("bind-port", "6443"),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let context = CheckContext { control_plane: true, node_name: "localhost".into(), parameters: parameters.into() };
    let mut plugins = Plugins::prepare_with(launcher(), true, &[], &Policy::default(), facts, context).unwrap();
    let (ignore, reporter) = (IgnoredChecks::default(), Reporter::new(Format::Text, true));
    let before = plugins.run_stage(Stage::Node, &ignore, &reporter).await;
    assert!(before.iter().any(|check| check.id == "HTTPProxy") && before.iter().all(|check| check.id != IDS[0]));
    assert!(before.iter().all(|check| check.id != "FileAvailable--etc-kubernetes-pki-ca.crt"), "it is a worker's");
    plugins.learn(learned.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let results = plugins.run_stage(Stage::Cluster, &ignore, &reporter).await;
    for result in &results {
        assert_eq!((&result.answer, result.denied), (&Answer::Report, 0), "{result:?}");
    }
    results
}

const STACKED: [(&str, &str); 5] = [
    ("cluster-version", "v1.37.2"),
    ("service-subnet", "10.96.0.0/12,fd00::/108"),
    ("pod-subnet", "10.244.0.0/16"),
    ("etcd-address", "127.0.0.1"),
    ("etcd-data-dir", "/var/lib/etcd"),
];

fn ids(results: &[CheckResult]) -> Vec<&str> {
    results.iter().map(|result| result.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_machine_passes_every_check_of_a_control_plane() {
    let results = run(Arc::new(RecordedFacts::new(fresh())), &STACKED).await;
    assert_eq!(ids(&results), IDS);
    for result in &results {
        assert_eq!(result.status, CheckStatus::Passed, "{result:?}");
        assert!(!result.evidence.is_empty(), "{} says what it looked at", result.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_control_planes_rest_fails_every_check_with_kubeadms_severity() {
    let mut sick = fresh();
    let facts = &mut sick.facts;
    facts.usable_cpus = Some(1);
    facts.memory_total = Some(1 << 30);
    facts.proxy = Some("http://proxy:3128".into());
    facts.listening_tcp_ports = Some(vec![6443, 10257, 10259, 2379, 2380]);
    let firewall = facts.units.get_mut("firewalld").unwrap();
    (firewall.exists, firewall.active) = (true, true);
    let content = || file(RecordedContent::Text("x".into()));
    sick.files.extend(MANIFESTS.map(|name| (manifest(name).into(), content())));
    sick.files.insert("/var/lib/etcd".into(), file(RecordedContent::Directory(true)));
    sick.files.insert("/var/lib/etcd/member".into(), file(RecordedContent::Directory(true)));
    let learned = STACKED.map(|(name, value)| (name, if name == "cluster-version" { "v1.38.0" } else { value }));
    let results = run(Arc::new(RecordedFacts::new(sick)), &learned).await;
    let worst = |result: &CheckResult| result.findings.iter().map(|finding| finding.severity).max();
    let found: BTreeMap<_, _> = results.iter().map(|result| (result.id.as_str(), worst(result))).collect();
    let warnings = ["KubernetesVersion", "Firewalld", "HTTPProxyCIDR"];
    let expected = IDS.map(|id| (id, Some(if warnings.contains(&id) { Severity::Warning } else { Severity::Error })));
    assert_eq!(found, expected.into());
    for result in &results {
        assert!(result.findings.iter().all(|finding| finding.remedy.is_some()), "{} says what to do", result.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn external_etcd_needs_its_certificates_and_no_port_or_directory() {
    let mut recording = fresh();
    recording.files.insert("/etc/kubernetes/pki/e/ca.crt".into(), file(RecordedContent::Text("x".into())));
    recording.files.insert("/etc/kubernetes/pki/e/c.key".into(), None);
    let learned = [
        ("cluster-version", "v1.37.2"),
        ("etcd-ca-file", "/etc/kubernetes/pki/e/ca.crt"),
        ("etcd-key-file", "/etc/kubernetes/pki/e/c.key"),
    ];
    let results = run(Arc::new(RecordedFacts::new(recording)), &learned).await;
    assert_eq!(ids(&results)[12..], ["ExternalEtcdClientCertificates"]);
    let messages: Vec<_> = results[12].findings.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(messages, ["/etc/kubernetes/pki/e/c.key doesn't exist"]);
}

/// On this machine's own file system, below a root: what an earlier run made is ours, what is not is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_of_the_join_made_is_no_obstacle() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path.trim_start_matches('/'));
    std::fs::create_dir_all(at("/etc/kubernetes/manifests")).unwrap();
    std::fs::create_dir_all(at("/var/lib/etcd/member")).unwrap();
    std::fs::write(at(&manifest("etcd")), "x").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bind_port = port.to_string();
    let learned = [&STACKED[..], &[("bind-port", &*bind_port), ("api-server-bind-address", "127.0.0.1")]].concat();
    let facts = |ours: bool| {
        let owned = |path: &Path| path == Path::new(&manifest("etcd")) || path.starts_with("/var/lib/etcd/member");
        Arc::new(HostFacts::new(HostSettings {
            node_name: "localhost".into(),
            cri_socket: "unix:///nowhere.sock".into(),
            environment: Environment { variables: std::env::vars().collect() },
            owned: Ownership {
                files: Box::new(move |path| ours && owned(path)),
                ports: if ours { vec![port] } else { Vec::new() },
            },
            secrets: Vec::new(),
            root: root.path().to_owned(),
            launcher: launcher(),
        }))
    };
    let checked = [format!("Port-{port}"), "FileAvailable--etc-kubernetes-manifests-etcd.yaml".into(), IDS[14].into()];
    for (ours, expected) in [(true, CheckStatus::Passed), (false, CheckStatus::Failed)] {
        let results = run(facts(ours), &learned).await;
        for id in &checked {
            let result = results.iter().find(|result| result.id == *id).unwrap();
            assert_eq!(result.status, expected, "{result:?}");
        }
    }
}
