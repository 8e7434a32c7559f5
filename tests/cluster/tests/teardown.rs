//! Nothing of a cluster is left, however it ended: processes, control groups, mounts, interfaces, files.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mortise_cluster::{Cluster, ClusterName, UpOptions};

const GONE_LIMIT: Duration = Duration::from_secs(30);

/// Everything on this machine that carries the cluster's name.
fn traces(name: &ClusterName) -> Vec<String> {
    let name = name.as_str();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read =
            |file: &str| fs::read(entry.path().join(file)).map(|text| String::from_utf8_lossy(&text).into_owned());
        // A process may end while it is looked at, and a zombie has no command line.
        let (Ok(command), Ok(groups)) = (read("cmdline"), read("cgroup")) else {
            continue;
        };
        if command.is_empty() || entry.file_name().to_str() == Some(&std::process::id().to_string()) {
            continue;
        }
        let words: Vec<&str> = command.split('\0').collect();
        if words.contains(&name) || groups.contains(&format!("/mo-{name}")) {
            found.push(format!("process {}: {}", entry.file_name().display(), words.join(" ")));
        }
    }
    for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"] {
        let group = Path::new(hierarchy).join(format!("mo-{name}"));
        found.extend(group.exists().then(|| group.display().to_string()));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    let links = Command::new("ip").args(["-brief", "link"]).output().unwrap().stdout;
    let links = String::from_utf8(links).unwrap();
    found.extend(links.lines().filter(|line| line.starts_with("mo-")).map(|line| format!("interface {line}")));
    let parsed = ClusterName::parse(name).unwrap();
    let disks = std::env::var("HOME").unwrap() + "/.cache/mortise/nodes/" + name;
    for path in [parsed.directory(), disks.into()] {
        found.extend(path.exists().then(|| path.display().to_string()));
    }
    found
}

fn wait_until_gone(name: &ClusterName) {
    let deadline = Instant::now() + GONE_LIMIT;
    while !traces(name).is_empty() {
        assert!(Instant::now() < deadline, "left of {name:?}: {:#?}", traces(name));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mortise-cluster"))
}

/// A shell that owns a cluster and then does nothing.
fn owner(name: &ClusterName, arguments: &str) -> Child {
    let program = env!("CARGO_BIN_EXE_mortise-cluster");
    let script =
        format!("{program} up --name {} --die-with $$ {arguments} && echo up && exec sleep 600", name.as_str());
    Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap()
}

fn wait_until_up(owner: &mut Child) {
    use std::io::{BufRead as _, BufReader};
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
}

#[test]
#[ignore = "needs a cluster: root, 40 s, and 8 min for the first build"]
fn two_clusters_live_side_by_side_and_one_goes_without_the_other() {
    let (first, second) = std::thread::scope(|scope| {
        let up = || Cluster::up(&UpOptions { workers: 1, ..UpOptions::default() }).unwrap();
        let first = scope.spawn(up);
        let second = scope.spawn(up);
        (first.join().unwrap(), second.join().unwrap())
    });
    assert_ne!(first.name(), second.name());
    for cluster in [&first, &second] {
        let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"]).unwrap();
        assert_eq!(nodes, "node/n1\nnode/n2\n");
        assert!(!traces(cluster.name()).is_empty(), "a running cluster leaves traces, or this test sees nothing");
    }
    let gone = first.name().clone();
    first.down().unwrap();
    assert_eq!(traces(&gone), Vec::<String>::new());
    assert_eq!(second.kubectl(&["get", "--raw", "/readyz"]).unwrap(), "ok");
    let gone = second.name().clone();
    drop(second);
    assert_eq!(traces(&gone), Vec::<String>::new());
}

#[test]
#[ignore = "needs a cluster: root, 20 s, and 8 min for the first build"]
fn a_killed_owner_takes_a_whole_cluster_along() {
    let name = ClusterName::parse(&format!("killed-{}", std::process::id())).unwrap();
    let mut owner = owner(&name, "--workers 1");
    wait_until_up(&mut owner);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until_gone(&name);
}

#[test]
#[ignore = "needs root for namespaces"]
fn an_owner_killed_half_way_takes_the_half_made_cluster_along() {
    let name = ClusterName::parse(&format!("half-{}", std::process::id())).unwrap();
    let mut owner = owner(&name, "");
    let deadline = Instant::now() + GONE_LIMIT;
    while !name.directory().join("nodes/n1.json").exists() {
        assert!(Instant::now() < deadline, "n1 was not even begun");
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until_gone(&name);
}

#[test]
#[ignore = "needs root for namespaces"]
fn a_panic_takes_the_cluster_down() {
    let mut name = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let cluster = Cluster::up(&UpOptions { bare: true, ..UpOptions::default() }).unwrap();
        name = Some(cluster.name().clone());
        cluster.add("n1").unwrap();
        panic!("a failed assertion");
    }));
    assert!(result.is_err());
    assert_eq!(traces(&name.unwrap()), Vec::<String>::new());
}

#[test]
#[ignore = "needs root for namespaces"]
fn down_removes_a_cluster_whose_keeper_and_first_process_were_killed_and_may_be_repeated() {
    let name = ClusterName::parse(&format!("torn-{}", std::process::id())).unwrap();
    let text = name.as_str();
    assert!(program().args(["up", "--bare", "--name", text]).status().unwrap().success());
    assert!(program().args(["add", "n1", "--name", text]).stdout(Stdio::null()).status().unwrap().success());
    for record in ["keeper.json", "init.json"] {
        let record = fs::read_to_string(name.directory().join(record)).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        Command::new("kill").args(["-9", &record["pid"].to_string()]).stderr(Stdio::null()).status().unwrap();
    }
    assert!(!traces(&name).is_empty(), "files are left for `down`");
    for _ in 0..2 {
        assert!(program().args(["down", "--name", text]).status().unwrap().success());
        assert_eq!(traces(&name), Vec::<String>::new());
    }
}
