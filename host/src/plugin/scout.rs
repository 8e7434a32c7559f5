//! What a helper can do behind its walls while it has no list of system calls yet. The lists would hide the other walls
//! from a test, and each must hold alone. In no release.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::fs::StatVfsMountFlags;
use rustix::process::{DumpableBehavior, Pid, Resource};

use super::confine::{self, HelperUid};
use super::wire;

/// Process numbers that are looked for: the first, among which a namespace's are.
const NUMBERS: i32 = 50_000;
/// More descriptors than any limit here allows.
const MANY: usize = 100;

/// The life of the process: walls, one frame that tells what was seen, and then nothing, whoever closes the socket.
pub(super) fn main(uid: HelperUid) -> ExitCode {
    let socket = match confine::begin(uid) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    if wire::write(&socket, &seen(&socket)).is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        std::thread::park();
    }
}

/// What was tried, and how it ended: a number the kernel gave, or its error as a negative one.
fn seen(socket: &UnixStream) -> BTreeMap<&'static str, i64> {
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let limit = |resource| {
        let limit = rustix::process::getrlimit(resource).current;
        limit.and_then(|most| i64::try_from(most).ok()).unwrap_or(i64::MAX)
    };
    BTreeMap::from([
        ("own number", rustix::process::getpid().as_raw_pid().into()),
        ("processes in sight", count((1..NUMBERS).filter(|pid| is_in_sight(*pid)).count())),
        ("look at a file of the machine", ended(rustix::fs::stat("/etc/passwd").map_err(Into::into))),
        ("list the root", ended(std::fs::read_dir("/"))),
        (
            "write to the root",
            ended(rustix::fs::statvfs("/").map_err(Into::into).and_then(|root| {
                if root.f_flag.contains(StatVfsMountFlags::RDONLY) {
                    Err(rustix::io::Errno::ROFS.into())
                } else {
                    Ok(())
                }
            })),
        ),
        ("interfaces", if_addrs::get_if_addrs().map_or(-1, |interfaces| count(interfaces.len()))),
        ("reach loopback", ended(UdpSocket::bind(any).and_then(|socket| socket.connect("127.0.0.1:9")))),
        ("listen", ended(TcpListener::bind(any))),
        ("descriptors", count((0..MANY).map_while(|_| socket.try_clone().ok()).collect::<Vec<_>>().len())),
        (
            "traceable",
            match rustix::process::dumpable_behavior() {
                Ok(DumpableBehavior::NotDumpable) => 0,
                _ => 1,
            },
        ),
        ("bytes of locked memory", limit(Resource::Memlock)),
        ("bytes of message queues", limit(Resource::Msgqueue)),
        ("bytes of a file", limit(Resource::Fsize)),
        ("bytes of a core", limit(Resource::Core)),
        ("bytes of data", limit(Resource::Data)),
        ("seconds of computing", limit(Resource::Cpu)),
    ])
}

/// Whether another process could be sent a signal, or is refused for another reason than not being there.
fn is_in_sight(pid: i32) -> bool {
    let other = Pid::from_raw(pid).filter(|pid| *pid != rustix::process::getpid());
    other.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn ended<T>(result: io::Result<T>) -> i64 {
    match result {
        Ok(_) => 0,
        Err(error) => -i64::from(error.raw_os_error().unwrap_or(i32::MAX)),
    }
}
