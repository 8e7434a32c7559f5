//! A cluster under a writer, and joins on it that may fail, wait or be met by a fault half-way.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use mortise_cluster::{Cluster, IGNORED_PREFLIGHT_ERRORS, UpOptions};
use serde_json::{Value, json};

use crate::lab::{self, READY, SOON};
use crate::writer::{History, Writer};

const MORTISE: &str = env!("CARGO_BIN_EXE_mortise");
/// Where a node's `JoinConfiguration` is.
const CONFIGURATION: &str = "/etc/join.yaml";
/// `timeouts.etcdAPICall` where a join must succeed.
pub(super) const PATIENT: Duration = Duration::from_secs(60);
/// The same where it must fail: etcd starts within some 3 s.
pub(super) const HASTY: Duration = Duration::from_secs(12);

/// A cluster under a writer.
pub(super) struct Site {
    pub(super) cluster: Cluster,
    writer: Writer,
}

impl Site {
    /// So many control planes by kubeadm.
    pub(super) fn up(control_planes: u8) -> Self {
        let cluster = Cluster::up(&UpOptions { control_planes, ..UpOptions::default() }).unwrap();
        let writer = Writer::start(&cluster).unwrap();
        Self { cluster, writer }
    }

    /// Begins a join that gives etcd up after `patience` without progress.
    pub(super) fn join(&self, node: &str, patience: Duration, extra: &[&str]) -> Joining {
        self.configure(node, patience);
        let argv = [&[MORTISE, "join", "--config", CONFIGURATION, "--output=json"][..], extra].concat();
        Joining::of(self.cluster.command(node, &argv), secrets(&self.cluster))
    }

    /// Joins a node, which is Ready afterwards.
    #[track_caller]
    pub(super) fn joins(&self, node: &str, extra: &[&str]) -> Ended {
        let ended = self.join(node, PATIENT, extra).ends();
        ended.succeeded();
        self.cluster.wait_for_ready(node, READY).unwrap();
        ended
    }

    /// Makes a control plane as if it had never been: the next one has its name, its address and the same members before it.
    #[track_caller]
    pub(super) fn leaves(&self, node: &str) {
        let address = self.address(node);
        let members = self.members("n1");
        let member = members.iter().find(|member| member.peer_url.contains(&address));
        if let Some(member) = member {
            self.cluster.etcdctl("n1", &["member", "remove", &member.id]).unwrap();
        }
        self.cluster.power_off(node).unwrap();
        lab::delete_node(&self.cluster, node);
    }

    /// The join line as a configuration, for only that has time-outs.
    fn configure(&self, node: &str, patience: Duration) {
        let line = self.cluster.control_plane_join_line().unwrap();
        let after = |flag: &str| line.split_once(flag).unwrap().1.split_whitespace().next().unwrap().to_owned();
        let configuration = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "JoinConfiguration",
            "discovery": {"bootstrapToken": {
                "token": after("--token"),
                "apiServerEndpoint": after("join"),
                "caCertHashes": [after("--discovery-token-ca-cert-hash")],
            }},
            "controlPlane": {"certificateKey": after("--certificate-key")},
            "nodeRegistration": {"ignorePreflightErrors": [IGNORED_PREFLIGHT_ERRORS]},
            // What a join may need for all the rest.
            "timeouts": {
                "etcdAPICall": format!("{}s", patience.as_secs()),
                "discovery": format!("{}s", 2 * patience.as_secs()),
            },
        });
        let script = format!("umask 077; cat > {CONFIGURATION}");
        let mut command = self.cluster.command(node, &["bash", "-c", &script]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(configuration.to_string().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Output of a script that must succeed.
    #[track_caller]
    pub(super) fn shell(&self, node: &str, script: &str) -> String {
        self.cluster.run(node, &["bash", "-c", script]).unwrap()
    }

    /// The members as one node's own lists them.
    #[track_caller]
    pub(super) fn members(&self, node: &str) -> Vec<Listed> {
        let list = self.cluster.etcdctl(node, &["member", "list"]).unwrap();
        list.lines().map(Listed::parse).collect()
    }

    /// Waits until the machine of a node has a member, and returns it.
    #[track_caller]
    pub(super) fn member_of(&self, asked: &str, node: &str) -> Listed {
        let address = self.address(node);
        let mut found = None;
        lab::wait_until(&format!("a member of {node}"), SOON, || {
            found = self.members(asked).into_iter().find(|member| member.peer_url.contains(&address));
            found.as_ref().map(drop).ok_or_else(|| "none".into())
        });
        found.unwrap()
    }

    /// Waits until a join has added its learner, and returns that.
    #[track_caller]
    pub(super) fn learner_of(&self, asked: &str, node: &str, joining: &mut Joining) -> Listed {
        let address = self.address(node);
        let mut found = None;
        lab::wait_until(&format!("a learner of {node}"), SOON, || {
            let has_ended = joining.has_ended();
            found = self.members(asked).into_iter().find(|member| member.peer_url.contains(&address));
            assert!(found.is_some() || !has_ended, "the join of {node} ended without a learner");
            found.as_ref().map(drop).ok_or_else(|| "none".into())
        });
        let learner = found.unwrap();
        assert!(learner.is_learner, "{learner:?}");
        learner
    }

    pub(super) fn address(&self, node: &str) -> String {
        self.cluster.nodes().unwrap().into_iter().find(|found| found.name == node).unwrap().address.to_string()
    }

    /// Nothing was lost, these nodes' members vote and nobody else's, and their API servers answer.
    #[track_caller]
    pub(super) fn ends_with(self, what: &str, nodes: &[&str]) -> History {
        let history = self.writer.stop().unwrap();
        // A figure for the eye: on a busy machine it is the disk's.
        eprintln!("{what}: {}", history.summary());
        assert_eq!(history.violations(), Vec::<String>::new(), "{what}");
        for node in nodes {
            assert_eq!(lab::members(&self.cluster, node), (nodes.len(), 0), "{what}: voters and learners at {node}");
            lab::answers_alone(&self.cluster, node);
            self.cluster.wait_for_ready(node, READY).unwrap();
        }
        history
    }
}

/// A line of `etcdctl member list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) has_started: bool,
    pub(super) peer_url: String,
    pub(super) is_learner: bool,
}

impl Listed {
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split(", ").collect();
        Self {
            id: words[0].to_owned(),
            has_started: words[1] == "started",
            peer_url: words[3].to_owned(),
            is_learner: words.last() == Some(&"true"),
        }
    }
}

fn secrets(cluster: &Cluster) -> Vec<String> {
    let line = cluster.control_plane_join_line().unwrap();
    let after = |flag: &str| line.split_once(flag).unwrap().1.split_whitespace().next().unwrap().to_owned();
    vec![after("--token").split_once('.').unwrap().1.to_owned(), after("--certificate-key")]
}

/// A join under way.
pub(super) struct Joining {
    child: Child,
    lines: Receiver<String>,
    seen: String,
    secrets: Vec<String>,
}

impl Joining {
    fn of(mut command: std::process::Command, secrets: Vec<String>) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let pass_on = |lines: &mut dyn Iterator<Item = String>, sender: std::sync::mpsc::Sender<String>| {
            for line in lines {
                // Nobody may listen any more.
                let _ = sender.send(line);
            }
        };
        let second = sender.clone();
        std::thread::spawn(move || pass_on(&mut BufReader::new(stdout).lines().map_while(Result::ok), sender));
        std::thread::spawn(move || pass_on(&mut BufReader::new(stderr).lines().map_while(Result::ok), second));
        Self { child, lines, seen: String::new(), secrets }
    }

    fn next_line(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if wanted(&line) {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end, whatever that is. No output may show a secret.
    #[track_caller]
    pub(super) fn ends(mut self) -> Ended {
        let _ = self.next_line(READY + SOON, |_| false);
        let deadline = Instant::now() + Duration::from_secs(1);
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it does not end:\n{}", self.seen),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let output = std::mem::take(&mut self.seen);
        for secret in &self.secrets {
            assert!(!output.contains(secret), "a secret is shown: {output}");
        }
        Ended { status: status.code(), output }
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.seen.extend(self.lines.try_iter().map(|line| line + "\n"));
            eprintln!("a join under way when the test failed:\n{}", self.seen);
        }
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a join ended, and all its events.
#[derive(Debug)]
pub(super) struct Ended {
    status: Option<i32>,
    pub(super) output: String,
}

impl Ended {
    #[track_caller]
    pub(super) fn succeeded(&self) {
        assert_eq!(self.status, Some(0), "{}", self.output);
    }

    /// What it told about etcd, for the eye.
    pub(super) fn etcd_part(&self) -> String {
        self.output.lines().filter(|line| line.contains("\"etcd-join\"")).collect::<Vec<_>>().join("\n")
    }

    /// It ended with this failure.
    #[track_caller]
    pub(super) fn failed(&self, code: &str) -> Failed {
        let failed = self.failed_somehow();
        assert_eq!(failed.code, code, "{}", self.output);
        failed
    }

    /// It ended with a failure, told once and with what to run.
    #[track_caller]
    pub(super) fn failed_somehow(&self) -> Failed {
        let events = self.output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let errors: Vec<Value> = events.filter(|event| event["event"] == "error").collect();
        let [error] = &errors[..] else { panic!("not one error:\n{}", self.output) };
        assert_eq!(self.status, Some(1), "{}", self.output);
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let failed = Failed { code: text("code"), message: text("message"), hint: text("hint") };
        assert!(failed.hint.contains('`') || failed.hint.contains("same command"), "no next command: {failed:?}");
        failed
    }
}

/// A failure as the last event tells it.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) hint: String,
}
