//! Each wall alone: a process that has put up all but the lists of system calls, which would hide the others, tells what
//! it can do. It is `host/src/plugin/probe.rs`. What it said is missing here must be missing, and nothing else.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use mortise::plugin::walls::{MissingWall, WallName};
use rustix::process::Pid;
use serde::Deserialize;

use crate::walls::{has_ended, helpers, status, wait_for};

/// First of the users that helpers take.
const UID: u32 = 60_800;

/// A probe's first two frames, and the end of its socket.
struct Probe {
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
fn probe(command: &mut Command) -> (std::process::Child, Probe) {
    let (mut socket, theirs) = UnixStream::pair().unwrap();
    let child = command.env_clear().stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).spawn().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let Greeting::Confined { pid, walls } = frame(&mut socket);
    let seen = frame(&mut socket);
    (child, Probe { pid, missing: walls.missing(&WallName::ALL), seen, socket })
}

/// Ports came to Landlock with 6.7.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().unwrap().split(['.', '-']).map(|it| it.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

fn words() -> Vec<String> {
    let mut words = vec![env!("CARGO_BIN_EXE_mortise").to_owned(), "__probe".into()];
    if rustix::process::geteuid().is_root() {
        words.push(UID.to_string());
    }
    words
}

impl Probe {
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

    #[track_caller]
    fn assert(&self, wall: WallName, what: &str, expected: i64) {
        let found = self.seen[what];
        let standing = self.stands(wall);
        assert_eq!(found == expected, standing, "`{wall}`, {what}: {found}; missing: {:?}", self.missing);
    }
}

#[test]
fn each_wall_holds_alone_or_is_reported_missing() {
    let words = words();
    let (mut child, probe) = probe(Command::new(&words[0]).args(&words[1..]));
    let errno = |errno: i32| -i64::from(errno);
    probe.assert(WallName::PidNamespace, "own number", 1);
    probe.assert(WallName::MountNamespace, "look at a file of the machine", errno(libc::ENOENT));
    probe.assert(WallName::MountNamespace, "write to the root", errno(libc::EROFS));
    probe.assert(WallName::Landlock, "list the root", errno(libc::EACCES));
    if kernel() >= (6, 7) {
        probe.assert(WallName::Landlock, "listen", errno(libc::EACCES));
    }
    probe.assert(WallName::NetworkNamespace, "interfaces", 0);
    probe.assert(WallName::NetworkNamespace, "reach loopback", errno(libc::ENETUNREACH));
    if probe.stands(WallName::PidNamespace) {
        assert_eq!(probe.seen["processes in sight"], 0);
    }
    for (what, most) in
        [("bytes of a file", 0), ("bytes of a core", 0), ("bytes of data", 4 << 30), ("seconds of computing", 900)]
    {
        assert_eq!(probe.seen[what], most, "{what}");
    }
    // Copies of the socket up to the limit of 16; none takes one of the first three numbers.
    assert_eq!(probe.seen["descriptors"], 13);
    assert_eq!(probe.stands(WallName::Uid), rustix::process::geteuid().is_root());
    probe.end(&mut child);
}

/// Here nobody reads the socket, and its other end stays open: what ends the process is the end of its parent.
#[tokio::test]
async fn it_ends_with_its_parent() {
    let (mut shell, probe) = probe(Command::new("/bin/sh").args(["-c", "\"$@\"; read x", "sh"]).args(words()));
    let parent = shell.id().to_string();
    let path = match probe.pid {
        Some(pid) => PathBuf::from(format!("/proc/{pid}")),
        None => helpers("__probe", "PPid", &parent).remove(0),
    };
    assert_eq!(status(&path)["PPid"], parent);
    shell.kill().unwrap();
    shell.wait().unwrap();
    wait_for("end of the probe", Duration::from_secs(5), || has_ended(&path).then_some(())).await;
    drop(probe.socket);
}
