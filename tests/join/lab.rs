//! The cluster, its nodes, and `mortise` running on them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use mortise_cluster::{Cluster, IGNORED_PREFLIGHT_ERRORS, UpOptions};

/// How long a node may take to become Ready.
pub(crate) const READY: Duration = Duration::from_secs(120);
/// How long anything else that must happen may take.
pub(crate) const SOON: Duration = Duration::from_secs(90);

const MORTISE: &str = env!("CARGO_BIN_EXE_mortise");
/// What the exit code of a process killed by signal 9 is in a node.
pub(crate) const KILLED: i32 = 128 + 9;

static SHARED: RwLock<()> = RwLock::new(());

pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::up(&UpOptions::default()).expect("a cluster comes up"))
}

/// Other tests may run, none that changes the cluster for everybody. Kept for the length of the test.
pub(crate) fn shared() -> RwLockReadGuard<'static, ()> {
    SHARED.read().unwrap_or_else(PoisonError::into_inner)
}

/// No other test runs. What `undo` makes again is made again at the end of the test, also of one that fails.
pub(crate) struct Alone {
    undo: Vec<&'static str>,
    _lock: RwLockWriteGuard<'static, ()>,
}

impl Alone {
    pub(crate) fn until_undone_by(kubectl: &[&'static str]) -> Self {
        Self { undo: kubectl.to_vec(), _lock: SHARED.write().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Err(error) = cluster().kubectl(&self.undo) {
            eprintln!("the cluster is not as it was: {error:#}");
        }
    }
}

/// The secret of the token in the line that `kubeadm init` printed. No output ever shows it: see [`Ended`].
pub(crate) fn token_secret() -> String {
    let line = cluster().join_line().unwrap();
    line.split_once("--token ").unwrap().1[7..23].to_owned()
}

/// A node that has joined nothing; gone at the end of the test, its Node object as well.
pub(crate) struct Worker {
    pub(crate) name: String,
}

impl Worker {
    pub(crate) fn add(name: &str) -> Self {
        cluster().add(name).unwrap();
        Self { name: name.to_owned() }
    }

    pub(crate) fn add_with_disk(name: &str, size: &str) -> Self {
        cluster().add_with_disk(name, size).unwrap();
        Self { name: name.to_owned() }
    }

    /// `mortise join` with the line that `kubeadm init` printed, and more.
    pub(crate) fn join(&self, extra: &[&str]) -> Run<'_> {
        self.join_by(&cluster().join_line().unwrap(), extra)
    }

    /// `mortise join` with another `kubeadm join` line.
    pub(crate) fn join_by(&self, line: &str, extra: &[&str]) -> Run<'_> {
        let line = line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
        let line: Vec<&str> = line.iter().map(String::as_str).chain(extra.iter().copied()).collect();
        self.join_with(&line[1..])
    }

    /// `mortise join` with these arguments, and what this machine's control groups make necessary.
    pub(crate) fn join_with(&self, arguments: &[&str]) -> Run<'_> {
        let ignore = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
        self.mortise(&[&["join"], arguments, &[&ignore]].concat())
    }

    pub(crate) fn mortise(&self, arguments: &[&str]) -> Run<'_> {
        Run { worker: self, arguments: arguments.iter().map(|&word| word.to_owned()).collect(), fault: None }
    }

    pub(crate) fn reset(&self) -> Ended {
        self.mortise(&["reset", "--force"]).succeeds()
    }

    /// Output of a script that must succeed.
    pub(crate) fn shell(&self, script: &str) -> String {
        cluster().run(&self.name, &["bash", "-c", script]).unwrap()
    }

    /// Writes a file that only root may read, without its content on any command line.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let script = format!("umask 077; mkdir -p \"$(dirname {path})\"; cat > {path}");
        let mut command = cluster().command(&self.name, &["bash", "-c", &script]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "writing {path}");
    }

    /// A kubelet that dies is started again at once, rather than ten seconds later.
    pub(crate) fn restart_fast(&self) {
        self.write("/etc/systemd/system/kubelet.service.d/90-test.conf", "[Service]\nRestartSec=100ms\n");
        self.shell("systemctl daemon-reload");
    }

    pub(crate) fn is_ready(&self) -> bool {
        let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        cluster().kubectl(&["get", "node", &self.name, "-o", ready]).is_ok_and(|status| status == "True")
    }

    pub(crate) fn delete_node(&self) {
        cluster().kubectl(&["delete", "node", &self.name, "--ignore-not-found", "--wait=false"]).unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A test that failed says so itself; what is left goes with the cluster.
        let _ = cluster().power_off(&self.name);
        let _ = cluster().kubectl(&["delete", "node", &self.name, "--ignore-not-found", "--wait=false"]);
    }
}

/// `mortise` about to run.
pub(crate) struct Run<'a> {
    worker: &'a Worker,
    arguments: Vec<String>,
    fault: Option<String>,
}

impl Run<'_> {
    #[cfg(feature = "faults")]
    pub(crate) fn with_fault(mut self, fault: &str) -> Self {
        self.fault = Some(format!("MORTISE_FAULT={fault}"));
        self
    }

    fn command(&self, output: Option<&str>) -> Command {
        let mut argv: Vec<&str> = self.fault.as_deref().map_or_else(Vec::new, |fault| vec!["env", fault]);
        argv.push(MORTISE);
        argv.extend(self.arguments.iter().map(String::as_str));
        argv.extend(output);
        cluster().command(&self.worker.name, &argv)
    }

    /// Runs it to its end, whatever that is.
    pub(crate) fn ends(self) -> Ended {
        Ended::of(self.command(None))
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Ended {
        let ended = self.ends();
        assert_eq!(ended.status, Some(0), "{}\n{}", ended.stdout, ended.stderr);
        ended
    }

    /// Runs it with `-o json` to the failure that its last event tells.
    #[track_caller]
    pub(crate) fn fails(self) -> Failed {
        let ended = Ended::of(self.command(Some("--output=json")));
        ended.failure()
    }

    /// Starts it; with `-o json`, so that its lines can be awaited.
    pub(crate) fn starts(self) -> Running {
        let mut child =
            self.command(Some("--output=json")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _ = sender.send(line);
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            // What is no UTF-8 ends it early.
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Running { child, lines, seen: String::new(), stderr: Some(stderr) }
    }
}

/// `mortise` under way.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: String,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    /// The first line from now on that contains `text`.
    #[track_caller]
    pub(crate) fn tells(&mut self, text: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no `{text}` within {limit:?} in\n{}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without `{text}`:\n{}", self.seen),
            }
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ends(mut self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => panic!("no end within {limit:?}:\n{}", self.seen),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait().unwrap().code();
        let stderr = self.stderr.take().map(|thread| thread.join().unwrap()).unwrap_or_default();
        Ended::new(status, std::mem::take(&mut self.seen), stderr)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // That was what entered the node; mortise itself follows it a moment later, and its output ends then.
        while self.lines.recv_timeout(SOON).is_ok() {}
    }
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(mut command: Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self::new(output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// Every output of every test is looked through for the token's secret.
    fn new(status: Option<i32>, stdout: String, stderr: String) -> Self {
        for text in [&stdout, &stderr] {
            assert!(!text.contains(&token_secret()), "the token's secret is shown: {text}");
        }
        Self { status, stdout, stderr }
    }

    /// The failure that the last event tells.
    #[track_caller]
    pub(crate) fn failure(self) -> Failed {
        let last: serde_json::Value = self
            .stdout
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or_else(|| panic!("no event: {} {}", self.stdout, self.stderr));
        assert_eq!(last["event"], "error", "{}{}", self.stdout, self.stderr);
        let text = |key: &str| last[key].as_str().unwrap_or_default().to_owned();
        Failed { status: self.status, code: text("code"), message: text("message"), hint: text("hint") }
    }
}

/// A failure as `-o json` tells it.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) status: Option<i32>,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: String,
}
