//! The facts of the machine that runs the tests, as whoever runs them.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;

fn settings(variables: &[(&str, &str)]) -> HostSettings {
    HostSettings {
        node_name: "localhost".into(),
        cri_socket: "unix:///nonexistent/cri.sock".into(),
        environment: Environment {
            variables: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        },
        owned: Ownership { files: Box::new(|path| path == Path::new("/ours")), ports: vec![KUBELET_PORT] },
        secrets: vec!["0123456789abcdef".into()],
        root: "/".into(),
        launcher: Launcher::default(),
    }
}

fn every_request() -> Vec<FactRequest> {
    vec![
        FactRequest::Kernel,
        FactRequest::KernelOptions { names: vec!["NAMESPACES".into(), "NO_SUCH_OPTION".into()] },
        FactRequest::Modules,
        FactRequest::Sysctl { name: "net.ipv4.ip_forward".into() },
        FactRequest::Cgroup,
        FactRequest::Swap,
        FactRequest::UsableCpus,
        FactRequest::MemoryTotal,
        FactRequest::Mounts,
        // Not the one that another test listens on.
        FactRequest::TcpPort { address: None, port: 59_999 },
        FactRequest::Interfaces,
        FactRequest::Unit { name: "kubelet".into() },
        FactRequest::Executable { name: "losetup".into() },
        FactRequest::ContainerRuntime,
        FactRequest::Os,
        FactRequest::NodeNameAddresses,
        FactRequest::ProxyFor { url: "https://api.example.com".into() },
        FactRequest::CurrentUid,
    ]
}

#[tokio::test]
async fn every_fact_is_answered_fits_its_request_and_survives_the_wire() {
    let facts = HostFacts::new(settings(&[("HTTPS_PROXY", "http://joe:secret@proxy:3128")]));
    for request in every_request() {
        let answer = facts.ask(&request).await;
        let fits = match (&request, &answer) {
            (FactRequest::Kernel, Ok(Fact::Kernel(kernel))) => kernel.name == "Linux",
            (FactRequest::KernelOptions { .. }, Ok(Fact::KernelOptions(values))) => values.len() == 2,
            (FactRequest::KernelOptions { .. }, Err(error)) => error.code == "not-found",
            (FactRequest::Sysctl { .. }, Ok(Fact::Text(value))) => ["0", "1"].contains(&value.as_str()),
            (FactRequest::Cgroup, Ok(Fact::Cgroup(_)))
            | (FactRequest::Modules | FactRequest::Swap, Ok(Fact::Names(_)))
            | (FactRequest::Interfaces, Ok(Fact::Interfaces(_)))
            | (FactRequest::Unit { .. }, Ok(Fact::Unit(_)))
            | (FactRequest::Executable { .. }, Ok(Fact::Executable(_)))
            | (FactRequest::TcpPort { .. }, Ok(Fact::TcpPort(_))) => true,
            (FactRequest::UsableCpus | FactRequest::MemoryTotal, Ok(Fact::Number(number))) => *number > 0,
            (FactRequest::Mounts, Ok(Fact::Mounts(mounts))) => mounts.iter().any(|mount| mount.target == "/"),
            (FactRequest::ContainerRuntime, Err(error)) => {
                error.code == "unavailable" && error.message.contains("no such socket")
            }
            (FactRequest::Os, Ok(Fact::Os(os))) => !os.hostname.is_empty(),
            (FactRequest::NodeNameAddresses, Ok(Fact::Names(addresses))) => !addresses.is_empty(),
            (FactRequest::ProxyFor { .. }, Ok(Fact::Proxy(proxy))) => proxy.as_deref() == Some("http://proxy:3128"),
            (FactRequest::CurrentUid, Ok(Fact::Number(uid))) => *uid == u64::from(rustix::process::getuid().as_raw()),
            _ => false,
        };
        assert!(fits, "{request:?}: {answer:?}");
        let sent = serde_json::to_string(&(&request, &answer)).unwrap();
        assert_eq!(serde_json::from_str::<(FactRequest, Answer)>(&sent).unwrap(), (request, answer));
    }
}

#[tokio::test]
async fn asking_twice_or_at_the_same_time_looks_once() {
    let directory = tempfile::tempdir().unwrap();
    let kubelet = directory.path().join("kubelet");
    std::fs::write(&kubelet, "#!/bin/sh\necho run >> \"$0.runs\"\necho Kubernetes v1.37.2\n").unwrap();
    std::fs::set_permissions(&kubelet, std::fs::Permissions::from_mode(0o755)).unwrap();
    let facts = Arc::new(HostFacts::new(settings(&[("PATH", directory.path().to_str().unwrap())])));
    facts.warm_up();
    let request = FactRequest::Executable { name: "kubelet".into() };
    let (first, second) = tokio::join!(facts.ask(&request), facts.ask(&request));
    assert_eq!(first, second);
    assert_eq!(facts.ask(&request).await, first);
    assert_eq!(std::fs::read_to_string(directory.path().join("kubelet.runs")).unwrap(), "run\n");
}

#[tokio::test]
async fn listener_on_the_kubelets_port_is_ours_when_the_record_says_so() {
    // Somebody else may have the port here; either way it is in use.
    let _listener = std::net::TcpListener::bind(("127.0.0.1", KUBELET_PORT));
    let request = FactRequest::TcpPort { address: None, port: KUBELET_PORT };
    assert_eq!(HostFacts::new(settings(&[])).ask(&request).await, Ok(Fact::TcpPort(PortState::Ours)));
    let mut foreign = settings(&[]);
    foreign.owned.ports.clear();
    assert_eq!(HostFacts::new(foreign).ask(&request).await, Ok(Fact::TcpPort(PortState::InUse)));
}

#[tokio::test]
async fn files_of_the_record_are_ours_and_secrets_are_cut() {
    let root = tempfile::tempdir().unwrap();
    for name in ["ours", "theirs"] {
        std::fs::write(root.path().join(name), "key 0123456789abcdef").unwrap();
    }
    let facts = HostFacts::new(HostSettings { root: root.path().into(), ..settings(&[]) });
    let permits = |_: &Path| true;
    let request = |path| FileRequest { path: Path::new(path), permits: &permits, max_bytes: 100 };
    assert!(facts.stat(request("/ours")).await.unwrap().unwrap().ours);
    assert!(!facts.stat(request("/theirs")).await.unwrap().unwrap().ours);
    assert_eq!(facts.stat(request("/absent")).await.unwrap(), None);
    assert_eq!(facts.read(request("/theirs")).await.unwrap(), b"key [secret]");
    let system = facts.read(request("/proc/sys/kernel/ostype")).await.unwrap();
    assert_eq!(system, b"Linux\n");
}

/// Says on stderr how long the facts take; the limit leaves room for a busy machine and a debug build.
#[tokio::test(flavor = "multi_thread")]
async fn all_facts_together_are_quick() {
    let facts = Arc::new(HostFacts::new(settings(&[])));
    let requests = every_request();
    let start = Instant::now();
    futures::future::join_all(requests.iter().map(|request| facts.ask(request))).await;
    let took = start.elapsed();
    eprintln!("{} facts in {took:?}", requests.len());
    assert!(took.as_secs() < 5, "{took:?}");
}
