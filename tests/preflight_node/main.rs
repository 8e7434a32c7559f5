//! The built-in plugin through the real runner: kubeadm's checks of a recorded healthy node, of a sick one, and of this
//! machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use mortise::config::{Environment, IgnoredChecks};
use mortise::facts::{
    CgroupVersion, CommandRequest, ExecutableInfo, FactRequest, FactSource, HostFacts, HostSettings, Ownership,
};
use mortise::output::{Format, Reporter};
use mortise::plugin::policy::Policy;
use mortise::plugin::{Answer, CheckContext, CheckResult, CheckStatus, Launcher, Plugins, Severity, Stage};
use mortise::sandbox::facts::{RecordedContent, RecordedFacts, RecordedFile, Recording};

mod control_plane;

/// kubeadm's worker checks with token discovery at an IPv4 address, in kubeadm's order.
const IDS: [&str; 17] = [
    "IsPrivilegedUser",
    "FileAvailable--etc-kubernetes-kubelet.conf",
    "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf",
    "CRI",
    "ContainerRuntimeVersion",
    "Swap",
    "FileExisting-losetup",
    "FileExisting-mount",
    "FileExisting-cp",
    "SystemVerification",
    "Hostname",
    "KubeletVersion",
    "Service-kubelet",
    "Port-10250",
    "FileAvailable--etc-kubernetes-pki-ca.crt",
    "HTTPProxy",
    "FileContent--proc-sys-net-ipv4-ip_forward",
];

fn launcher() -> Launcher {
    Launcher::at(env!("CARGO_BIN_EXE_mortise"))
}

fn plugins(facts: Arc<dyn FactSource>) -> Plugins {
    let parameters = [
        ("endpoint-host", "192.0.2.1"),
        ("cri-socket", "unix:///var/run/containerd/containerd.sock"),
        ("ca-cert-path", "/etc/kubernetes/pki/ca.crt"),
        ("mortise-version", "0.1.0"),
        ("kubernetes-minor", "37"),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let context = CheckContext { control_plane: false, node_name: "localhost".into(), parameters: parameters.into() };
    Plugins::prepare_with(launcher(), true, &[], &Policy::default(), facts, context).unwrap()
}

async fn run(facts: Arc<dyn FactSource>) -> BTreeMap<String, CheckResult> {
    let reporter = Reporter::new(Format::Text, true);
    let results = plugins(facts).run_stage(Stage::Node, &IgnoredChecks::default(), &reporter).await;
    assert_eq!(results.iter().map(|result| result.id.as_str()).collect::<Vec<_>>(), IDS);
    for result in &results {
        assert_eq!((&result.answer, result.denied), (&Answer::Report, 0), "{result:?}");
    }
    results.into_iter().map(|result| (result.id.clone(), result)).collect()
}

/// Severity of the worst finding by check.
fn worst(results: &BTreeMap<String, CheckResult>) -> BTreeMap<&str, Option<Severity>> {
    let worst = |result: &CheckResult| result.findings.iter().map(|finding| finding.severity).max();
    results.iter().map(|(id, result)| (id.as_str(), worst(result))).collect()
}

fn healthy() -> Recording {
    RecordedFacts::healthy_node().recording().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_healthy_node_passes_every_check() {
    let results = run(Arc::new(RecordedFacts::new(healthy()))).await;
    for (id, result) in &results {
        assert_eq!(result.status, CheckStatus::Passed, "{id}: {result:?}");
        assert!(!result.evidence.is_empty(), "{id} says what it looked at");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sick_node_fails_every_check_with_kubeadms_severity() {
    let mut sick = healthy();
    let facts = &mut sick.facts;
    facts.current_uid = Some(1000);
    facts.swap = Some(vec!["/swapfile".into()]);
    facts.executables.values_mut().for_each(|program| *program = None);
    let kubelet = ExecutableInfo {
        path: "/usr/bin/kubelet".into(),
        version: Some("Kubernetes v1.30.4".into()),
        version_error: None,
    };
    facts.executables.insert("kubelet".into(), Some(kubelet));
    facts.kernel_options.insert("MEMCG".into(), None);
    facts.listening_tcp_ports = Some(vec![10250]);
    facts.node_name_addresses = Some(Vec::new());
    facts.proxy = Some("http://proxy:3128".into());
    facts.sysctls.insert("net.ipv4.ip_forward".into(), "0".into());
    facts.container_runtime = None;
    facts.units.get_mut("kubelet").unwrap().enabled = false;
    for file in ["kubelet.conf", "bootstrap-kubelet.conf", "pki/ca.crt"] {
        let content = RecordedContent::Text(String::new());
        let file_there = RecordedFile { mode: "0600".into(), uid: 0, gid: 0, content };
        sick.files.insert(format!("/etc/kubernetes/{file}").into(), Some(file_there));
    }
    let results = run(Arc::new(RecordedFacts::new(sick))).await;
    let warnings = ["Swap", "Hostname", "Service-kubelet", "HTTPProxy"];
    let expected = IDS.map(|id| (id, Some(if warnings.contains(&id) { Severity::Warning } else { Severity::Error })));
    assert_eq!(worst(&results), expected.into());
    for (id, result) in &results {
        assert!(result.findings.iter().any(|finding| finding.remedy.is_some()), "{id} says what to do");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cgroup_v1_is_an_error_for_the_kubelet_of_this_minor() {
    let mut legacy = healthy();
    let cgroup = legacy.facts.cgroup.as_mut().unwrap();
    cgroup.version = CgroupVersion::V1;
    cgroup.controllers =
        "cpu cpuacct cpuset devices freezer memory pids hugetlb blkio".split(' ').map(str::to_owned).collect();
    let results = run(Arc::new(RecordedFacts::new(legacy))).await;
    let failed: Vec<_> = worst(&results).into_iter().filter(|(_, worst)| worst.is_some()).collect();
    assert_eq!(failed, [("SystemVerification", Some(Severity::Error))]);
    assert_eq!(results["SystemVerification"].findings.len(), 1);
}

fn this_machine() -> Arc<HostFacts> {
    Arc::new(HostFacts::new(HostSettings {
        node_name: "localhost".into(),
        cri_socket: "unix:///var/run/containerd/containerd.sock".into(),
        environment: Environment { variables: std::env::vars().collect() },
        owned: Ownership { files: Box::new(|_| false), ports: Vec::new() },
        secrets: vec!["abcdef.0123456789abcdef".into()],
        root: "/".into(),
        launcher: launcher(),
    }))
}

/// Says on stderr how long it takes; the limit leaves room for a debug build that compiles the component.
#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_judged_without_a_denial() {
    let start = Instant::now();
    let facts = this_machine();
    facts.warm_up();
    let results = run(facts).await;
    let took = start.elapsed();
    for (id, result) in &results {
        eprintln!("{id}: {:?}, {} ms", result.status, result.took_ms);
    }
    eprintln!("all in {took:?}");
    assert!(took.as_secs() < 30, "{took:?}");
    assert!(results["IsPrivilegedUser"].evidence.iter().any(|(name, _)| name == "uid"));
    assert!(results["FileExisting-mount"].findings.is_empty(), "{:?}", results["FileExisting-mount"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn granted_programs_run_and_lose_the_hosts_secrets() {
    let command = CommandRequest {
        program: "/bin/echo".into(),
        arguments: vec!["token".into(), "abcdef.0123456789abcdef".into()],
        environment: Vec::new(),
        user: "nobody".into(),
        timeout: std::time::Duration::from_secs(10),
        max_output_bytes: 1000,
    };
    let output = this_machine().run(&command).await.unwrap();
    assert_eq!((output.status, output.stdout.as_slice()), (Some(0), &b"token [secret]\n"[..]));
    assert!(this_machine().ask(&FactRequest::CurrentUid).await.is_ok());
}
