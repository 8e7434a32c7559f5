//! What a runner is, seen from outside while it runs a guest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mortise::plugin::Stage;

use crate::plugin::{Setup, guest};

/// Processes of this test whose command line has this word.
fn helpers(word: &str) -> Vec<PathBuf> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    entries
        .filter(|path| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let parent = status(path).remove("PPid").unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(word.as_bytes()) && parent == own
        })
        .collect()
}

/// `/proc/<pid>/status` by key.
fn status(process: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// Looks every few milliseconds until something is there.
async fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < deadline, "no {what} within {deadline:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// Alone in its process group of tests: other tests have runners of their own, which are as confined as this one.
#[tokio::test]
async fn a_runner_has_given_everything_up() {
    let setup = Setup::new(guest()).manifest("").only("sleeps");
    let running = tokio::spawn(async move { setup.run(Stage::Node).await });
    let settled = || {
        helpers("__runner").into_iter().find_map(|path| {
            let status = status(&path);
            // Both filters of the start and the one for all threads.
            (status.get("Seccomp_filters").is_some_and(|count| count == "3")).then_some((path, status))
        })
    };
    let (path, status) = wait_for("runner with all its walls", Duration::from_secs(60), settled).await;
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
    running.await.unwrap();
    assert!(!path.exists(), "the runner outlived its stage");
}

#[tokio::test]
async fn a_runner_ends_when_its_host_drops_it() {
    let setup = Setup::new(guest()).manifest("").only("sleeps,skips");
    let running = tokio::spawn(async move { setup.run(Stage::Node).await });
    let path = wait_for("runner", Duration::from_secs(60), || helpers("__runner").pop()).await;
    running.abort();
    let gone = || {
        (!path.join("root").exists() && status(&path).get("State").is_none_or(|it| it.starts_with('Z'))).then_some(())
    };
    wait_for("end of the runner", Duration::from_secs(5), gone).await;
}
