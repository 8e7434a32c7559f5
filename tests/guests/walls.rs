//! What a runner is, seen from outside while it runs a guest.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mortise::plugin::Stage;

use crate::plugin::{Setup, guest, with_section};

/// Processes whose second word this is and that have this line in `/proc/<pid>/status`.
pub(crate) fn helpers(word: &str, key: &str, value: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    entries
        .filter(|path| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let is_helper = line.split(|byte| *byte == 0).nth(1) == Some(word.as_bytes());
            is_helper && status(path).get(key).is_some_and(|it| it == value)
        })
        .collect()
}

/// The binary under another name, at most 15 bytes, by which the kernel lists its helpers: tests run side by side.
fn named(name: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join(name);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mortise"), &link).unwrap();
    (directory, link)
}

/// A runner that put up its last wall.
fn settled(runners: Vec<PathBuf>) -> Option<PathBuf> {
    // Both lists of the start and the one for all threads.
    runners.into_iter().find(|path| status(path).get("Seccomp_filters").is_some_and(|count| count == "3"))
}

/// `/proc/<pid>/status` by key.
pub(crate) fn status(process: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// Whether it is gone, or only waits to be reaped.
pub(crate) fn has_ended(process: &Path) -> bool {
    status(process).get("State").is_none_or(|state| state.starts_with('Z'))
}

/// Looks every few milliseconds until something is there.
pub(crate) async fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < deadline, "no {what} within {deadline:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_runner_has_given_everything_up_and_is_gone_after_its_stage() {
    let (_directory, program) = named("walls-all");
    let setup = Setup::new(guest()).launcher(program).only("sleeps");
    let running = tokio::spawn(async move { setup.run(Stage::Node).await });
    let all = || helpers("__runner", "Name", "walls-all");
    let path = wait_for("runner with all its walls", Duration::from_secs(60), || settled(all())).await;
    let status = status(&path);
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Seccomp"], "2");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    if rustix::process::geteuid().is_root() {
        assert_eq!(status["CapBnd"], "0000000000000000");
        for ids in [&status["Uid"], &status["Gid"]] {
            let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert!(ids.iter().all(|id| *id == ids[0] && (60_800..61_056).contains(id)), "{ids:?}");
        }
        assert_eq!(status["Groups"], "");
        let descriptors: Vec<_> = std::fs::read_dir(path.join("fd")).unwrap().flatten().collect();
        let targets: Vec<_> = descriptors.iter().map(|it| std::fs::read_link(it.path()).unwrap()).collect();
        let [socket] = targets.as_slice() else { panic!("{targets:?}") };
        assert!(socket.to_string_lossy().starts_with("socket:"), "{socket:?}");
        assert_eq!(std::fs::read(path.join("environ")).unwrap(), b"");
        let limits = std::fs::read_to_string(path.join("limits")).unwrap();
        for limit in [
            "Max file size             0",
            "Max core file size        0",
            "Max processes             0",
            "Max locked memory         0",
        ] {
            assert!(limits.contains(limit), "{limit} is not in\n{limits}");
        }
    }
    assert_eq!(namespace_number(&status), Some("1"), "{status:#?}");
    let of_its_own = ["net", "mnt", "pid"];
    if rustix::process::geteuid().is_root() {
        for name in of_its_own {
            let (ours, its) = (link(Path::new("/proc/self"), name), link(&path, name));
            assert_ne!(ours.unwrap(), its.unwrap(), "namespace {name}");
        }
        let mounts = std::fs::read_to_string(path.join("mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(mounts.contains(" / / ro,nosuid,nodev,noexec") && mounts.contains(" - tmpfs "), "{mounts}");
        // Neither memory nor environment can be looked at by another process of its user.
        let uid = status["Uid"].split_whitespace().next().unwrap().parse().unwrap();
        for file in ["environ", "mem", "maps"] {
            let looked = Command::new("/bin/cat").arg(path.join(file)).uid(uid).gid(uid).output().unwrap();
            assert!(String::from_utf8_lossy(&looked.stderr).contains("Permission denied"), "{file}: {looked:?}");
        }
    } else {
        // Of another user's process, or one that cannot be traced, even the names are hidden.
        for name in of_its_own {
            assert_eq!(link(&path, name).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied, "namespace {name}");
        }
    }
    running.await.unwrap();
    assert_eq!(all(), [] as [PathBuf; 0], "the runner outlived its stage");
}

/// As the innermost namespace of a process counts it, from `/proc/<pid>/status`.
fn namespace_number(status: &BTreeMap<String, String>) -> Option<&str> {
    status.get("NSpid")?.split_whitespace().nth(1)
}

fn link(process: &Path, namespace: &str) -> std::io::Result<PathBuf> {
    std::fs::read_link(process.join("ns").join(namespace))
}

#[tokio::test]
async fn a_runner_ends_when_its_host_drops_it() {
    let (_directory, program) = named("walls-drops");
    let setup = Setup::new(guest()).launcher(program).only("sleeps,skips");
    let running = tokio::spawn(async move { setup.run(Stage::Node).await });
    let all = || helpers("__runner", "Name", "walls-drops");
    let path = wait_for("runner", Duration::from_secs(60), || settled(all())).await;
    running.abort();
    wait_for("end of the runner", Duration::from_secs(5), || has_ended(&path).then_some(())).await;
}

/// Nobody tells a runner that its host is gone: it sees it. The intruder computes without end and reads nothing.
#[tokio::test]
async fn runners_end_when_their_host_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = "schema: mortise.dev/plugin/v1alpha1\nid: test.guest\nversion: 1.2.3\nkind: preflight\n\
                    limits: {time: 60s}\n";
    let plugin = directory.path().join("guest.wasm");
    std::fs::write(&plugin, with_section(guest(), "mortise:manifest", manifest.as_bytes())).unwrap();
    let configuration = directory.path().join("join.yaml");
    let text = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\nnodeRegistration: {{criSocket: \"unix:///nowhere\"}}\n\
         ---\napiVersion: mortise.dev/v1alpha1\nkind: JoinPlugins\nplugins:\n- name: guest\n  path: {}\n  \
         settings: {{intruder: spin}}\n",
        plugin.display()
    );
    std::fs::write(&configuration, text).unwrap();
    let mut host = Command::new(env!("CARGO_BIN_EXE_mortise"))
        .args(["preflight", "--config"])
        .arg(&configuration)
        .arg("--root")
        .arg(directory.path().join("root"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let parent = host.id().to_string();
    let all = || helpers("__runner", "PPid", &parent);
    let spinning = || settled(all()).filter(|path| computed(path) > 10);
    let path = wait_for("spinning runner", Duration::from_secs(120), spinning).await;
    let mut all = all();
    host.kill().unwrap();
    host.wait().unwrap();
    all.push(path);
    for path in all {
        wait_for("end of a runner", Duration::from_secs(5), || has_ended(&path).then_some(())).await;
    }
}

/// Computing time so far, in ticks of the kernel's clock, 10 ms each.
fn computed(process: &Path) -> u64 {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    fields.get(11).and_then(|ticks| ticks.parse().ok()).unwrap_or_default()
}
