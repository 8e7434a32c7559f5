//! Each wall alone: a process that has put up all but the lists of system calls, which would hide the others, tells what
//! it can do. It is `host/src/plugin/scout.rs`. What it said is missing here must be missing, and nothing else.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use mortise::plugin::walls::{MissingWall, WallName};
use rustix::process::Pid;
use serde::Deserialize;

use crate::walls::{has_ended, helpers, status, wait_for};

/// First of the users that helpers take.
const UID: u32 = 60_800;

/// A scout's first two frames, and the end of its socket.
struct Scout {
    pid: Option<u32>,
    missing: Vec<MissingWall>,
    seen: BTreeMap<String, i64>,
    socket: UnixStream,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Greeting {
    Confined { pid: Option<u32>, walls: mortise::plugin::walls::Walls },
}

fn frame<T: serde::de::DeserializeOwned>(socket: &mut UnixStream) -> T {
    let mut length = [0; 4];
    socket.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)))
}

/// Starts one through this command, which gets the program and its arguments appended.
fn send_scout(command: &mut Command) -> (std::process::Child, Scout) {
    let (mut socket, theirs) = UnixStream::pair().unwrap();
    let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).spawn().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let Greeting::Confined { pid, walls } = frame(&mut socket);
    let seen = frame(&mut socket);
    (child, Scout { pid, missing: walls.missing(&WallName::ALL), seen, socket })
}

/// Ports came to Landlock with 6.7.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().unwrap().split(['.', '-']).map(|it| it.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

fn words() -> Vec<String> {
    let mut words = vec![env!("CARGO_BIN_EXE_mortise").to_owned(), "__scout".into()];
    if rustix::process::geteuid().is_root() {
        words.push(UID.to_string());
    }
    words
}

impl Scout {
    fn stands(&self, wall: WallName) -> bool {
        !self.missing.iter().any(|missing| missing.name == wall)
    }

    fn end(self, started: &mut std::process::Child) {
        // The one that went on, or the one that was started; the other is gone.
        let _ = started.kill();
        started.wait().unwrap();
        if let Some(pid) = self.pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        }
    }

    /// What is said to stand, does; what is said to be missing, is.
    fn verify(&self) {
        let errno = |errno: i32| -i64::from(errno);
        self.assert(WallName::PidNamespace, "own number", 1);
        self.assert(WallName::MountNamespace, "look at a file of the machine", errno(libc::ENOENT));
        self.assert(WallName::MountNamespace, "write to the root", errno(libc::EROFS));
        self.assert(WallName::Landlock, "list the root", errno(libc::EACCES));
        if kernel() >= (6, 7) {
            self.assert(WallName::Landlock, "listen", errno(libc::EACCES));
        }
        self.assert(WallName::NetworkNamespace, "interfaces", 0);
        self.assert(WallName::NetworkNamespace, "reach loopback", errno(libc::ENETUNREACH));
        if self.stands(WallName::PidNamespace) {
            assert_eq!(self.seen["processes in sight"], 0);
        }
        for (what, most) in [
            ("traceable", 0),
            ("bytes of a file", 0),
            ("bytes of a core", 0),
            ("bytes of locked memory", 0),
            ("bytes of message queues", 0),
            ("bytes of data", 4 << 30),
            ("seconds of computing", 900),
        ] {
            assert_eq!(self.seen[what], most, "{what}");
        }
        // Copies of the socket up to the limit of 16; none takes one of the first three numbers.
        assert_eq!(self.seen["descriptors"], 13);
    }

    #[track_caller]
    fn assert(&self, wall: WallName, what: &str, expected: i64) {
        let found = self.seen[what];
        let standing = self.stands(wall);
        assert_eq!(found == expected, standing, "`{wall}`, {what}: {found}; missing: {:?}", self.missing);
    }
}

/// Whether `unshare` gets namespaces, by its own means and with these options.
fn can_unshare(options: &str) -> bool {
    let output = Command::new("unshare").args([options, "true"]).output().unwrap();
    output.status.success()
}

/// Whether the kernel has Landlock and it is switched on; nothing is restricted by asking.
fn has_landlock() -> bool {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules.handle_access(AccessFs::from_all(ABI::V1)).is_ok_and(|rules| rules.create().is_ok())
}

/// Where this machine gives less than all, tests of what it does not give prove nothing; so it is asked by other means.
#[test]
fn what_this_machine_allows_stands() {
    let words = words();
    let (mut child, scout) = send_scout(Command::new(&words[0]).args(&words[1..]));
    let root = rustix::process::geteuid().is_root();
    let namespaces = can_unshare(if root { "-nmpf" } else { "-Unmpf" });
    for (wall, allowed) in [
        (WallName::Process, true),
        (WallName::Uid, root),
        (WallName::NoNewPrivs, true),
        (WallName::NetworkNamespace, namespaces),
        (WallName::MountNamespace, namespaces),
        (WallName::PidNamespace, namespaces),
        (WallName::Landlock, has_landlock()),
        (WallName::Seccomp, true),
        (WallName::ResourceLimits, true),
    ] {
        assert!(scout.stands(wall) || !allowed, "{:?}", scout.missing);
    }
    scout.end(&mut child);
}

#[test]
fn each_wall_holds_alone_or_is_reported_missing() {
    let words = words();
    let (mut child, scout) = send_scout(Command::new(&words[0]).args(&words[1..]));
    scout.verify();
    scout.end(&mut child);
}

#[test]
fn groups_of_the_host_are_not_passed_on() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can give a process more groups");
        return;
    }
    let (mut child, scout) = send_scout(Command::new("setpriv").args(["--groups", "4242,4243"]).args(words()));
    let pid = scout.pid.unwrap_or(child.id());
    assert_eq!(status(&PathBuf::from(format!("/proc/{pid}")))["Groups"], "");
    scout.end(&mut child);
}

/// Where no namespace can be had and no user is known but one; what is left are Landlock and what always stands.
fn limited() -> Option<Command> {
    if !can_unshare("-Ur") {
        eprintln!("this machine gives no user namespace, so that none can be limited either");
        return None;
    }
    let script = "for kind in net mnt pid user; do echo 0 > /proc/sys/user/max_${kind}_namespaces || exit 1; done; \
                  exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-Ur", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_mortise")]);
    Some(command)
}

const MISSING: [WallName; 4] =
    [WallName::Uid, WallName::NetworkNamespace, WallName::MountNamespace, WallName::PidNamespace];

#[test]
fn what_the_kernel_refuses_is_missing_and_said_so() {
    let Some(mut command) = limited() else { return };
    let (mut child, scout) = send_scout(command.args(["__scout", &UID.to_string()]));
    for wall in MISSING {
        let missing = scout.missing.iter().find(|missing| missing.name == wall);
        let reason = &missing.unwrap_or_else(|| panic!("{wall} stands")).reason;
        assert!(reason.contains("refused") || reason.contains("_namespaces` is reached"), "{reason}");
    }
    assert!(scout.stands(WallName::Seccomp));
    scout.verify();
    scout.end(&mut child);
}

#[test]
fn the_version_and_the_checks_tell_what_is_missing() {
    let Some(mut command) = limited() else { return };
    let output = command.args(["version", "-o", "json"]).output().unwrap();
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for wall in WallName::ALL {
        let expected = if MISSING.contains(&wall) { "missing" } else { "up" };
        if wall != WallName::Landlock {
            assert_eq!(version["walls"][wall.as_str()]["state"], expected, "{version:#}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    let preflight = |words: &[&str]| {
        let mut command = limited().unwrap();
        command.args(["preflight", "--cri-socket", "unix:///nowhere", "--root", root]).args(words).output().unwrap()
    };
    let text = String::from_utf8(preflight(&[]).stderr).unwrap();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("walls missing around plugins")).collect();
    let [told] = told.as_slice() else { panic!("{text}") };
    assert!(told.contains("`pid-namespace` (the limit `user.max_pid_namespaces` is reached)"), "{told}");
    let events = String::from_utf8(preflight(&["-o", "json"]).stdout).unwrap();
    let mut events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let walls = events.find(|event| event["event"] == "walls").unwrap();
    assert_eq!(walls["walls"]["network-namespace"]["state"], "missing", "{walls}");
}

/// Who is not root has no other user to give, and is told in documents, not by a warning.
#[test]
fn an_ordinary_user_is_not_warned_of_being_one() {
    if !can_unshare("-Ur") {
        eprintln!("this machine gives no user namespace");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let as_user = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-U", "--map-user=1000", "--map-group=1000", env!("CARGO_BIN_EXE_mortise")]).args(words);
        command.current_dir(&directory).output().unwrap()
    };
    let missing = |value: &serde_json::Value| value["walls"]["uid"]["state"] == "missing";
    let version: serde_json::Value = serde_json::from_slice(&as_user(&["version", "-o", "json"]).stdout).unwrap();
    assert!(missing(&version), "{version:#}");
    let words = ["preflight", "--cri-socket", "unix:///nowhere", "--root", "root"];
    let text = String::from_utf8(as_user(&words).stderr).unwrap();
    assert!(text.contains("checks failed") && !text.contains("`uid`"), "{text}");
    let events = String::from_utf8(as_user(&[&words[..], &["-o", "json"]].concat()).stdout).unwrap();
    let mut events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert!(events.any(|event| event["event"] == "walls" && missing(&event)));
}

/// Here nobody reads the socket, and its other end stays open: what ends the process is the end of its parent.
#[tokio::test]
async fn it_ends_with_its_parent() {
    let (mut shell, scout) = send_scout(Command::new("/bin/sh").args(["-c", "\"$@\"; read x", "sh"]).args(words()));
    let parent = shell.id().to_string();
    let path = match scout.pid {
        Some(pid) => PathBuf::from(format!("/proc/{pid}")),
        None => helpers("__scout", "PPid", &parent).remove(0),
    };
    assert_eq!(status(&path)["PPid"], parent);
    shell.kill().unwrap();
    shell.wait().unwrap();
    wait_for("end of the scout", Duration::from_secs(5), || has_ended(&path).then_some(())).await;
    drop(scout.socket);
}
