//! Everything a runner can write into its socket, against a broker whose machine and network fail the run when anything
//! reaches them that no grant names.

#![no_main]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use futures::future::{BoxFuture, ready};
use libfuzzer_sys::fuzz_target;
use mortise::config::SecretSource;
use mortise::facts::{
    CommandOutput, CommandRequest, Fact, FactRequest, FactSource, FileInfo, FileKind, FileRequest, HostError,
};
use mortise::network::Network;
use mortise::plugin::fuzzing::{Heard, Host, MOST_TO_RUNNER, Message};
use mortise::plugin::grants::{Effective, Grants};
use mortise_fuzz::verify_printable;
use tokio::net::TcpStream;

const GRANTS: &str = r#"
facts: [kernel, swap, executables, units, ports, proxy, "sysctl:net.ipv4.*"]
files:
  - {path: /etc/kubernetes/*.conf, max-bytes: 16}
  - {path: /run/granted, access: stat}
commands:
  - {program: /bin/granted, args: [-q, {one-of: [-i, -x]}, {match: "[0-9]{1,2}"}], env: [LANG], user: nobody, max-output: 64}
  - {program: /bin/keyed, args: [--key, "{secret}"]}
http:
  - {url: https://inventory.example/v1/, methods: [GET, POST], max-body: 16}
  - {url: http://inside.example:8080/a, private: true}
probe:
  - {tcp: "inside.example:2049", private: true}
  - {tls: registry.example:443}
  - {dns: registry.example}
secrets:
  - {name: token, url: https://inventory.example/v1/, header: authorization}
  - {name: key, argv: [/bin/keyed, --key, "{secret}"]}
  - {name: seed, reveal: true}
"#;
/// What is in the file of every secret.
const SECRET: &str = "hunter2-hunter2-hunter2";
const SECRET_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/secret");

static HOST: LazyLock<Host> = LazyLock::new(|| {
    let secrets = ["token", "key", "seed", "other"].map(|it| (it.to_owned(), SecretSource::File(SECRET_FILE.into())));
    Host::new(Effective::own(Grants::parse(GRANTS).unwrap()), Arc::new(Machine), secrets.into())
});
static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());

fuzz_target!(|data: &[u8]| {
    // Frames as they are, or lines that become frames: lengths that fit are hard to find by chance.
    let framed;
    let mut stream = match data.strip_prefix(b"\0") {
        Some(raw) => raw,
        None => {
            let frame = |line: &[u8]| [&u32::try_from(line.len()).unwrap().to_be_bytes(), line].concat();
            framed = data.split(|byte| *byte == b'\n').map(frame).collect::<Vec<_>>().concat();
            &framed
        }
    };
    RUNTIME.block_on(async {
        while let Ok(message) = Message::read(&mut stream).await {
            let frame = message.frame();
            let again = Message::read(&mut frame.as_slice()).await.expect("what is written can be read");
            assert_eq!(again.frame(), frame);
            heard(message.hear(&HOST).await);
        }
    });
});

fn heard(heard: Heard) {
    match heard {
        Heard::Answered(frame) => assert!(frame.len() <= MOST_TO_RUNNER, "an answer of {} bytes", frame.len()),
        Heard::Denied(text) | Heard::Failed(text) => {
            assert!(!text.contains(SECRET), "a secret in {text:?}");
            assert!(text.len() < 32 << 10, "{} bytes of refusal", text.len());
            verify_printable(&text);
        }
        Heard::Checked(result) => {
            let lines = result.lines();
            lines.iter().for_each(|line| verify_printable(line.trim_start_matches('\t')));
            assert!(lines.iter().map(String::len).sum::<usize>() < 4 << 20);
        }
        Heard::Ended(_) | Heard::Nothing => {}
    }
}

/// Answers anything that is granted, and takes anything else for a hole in the broker.
struct Machine;

fn answer<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, Result<T, HostError>> {
    Box::pin(ready(Ok(answer)))
}

fn is_kubernetes_conf(path: &Path) -> bool {
    path.parent() == Some(Path::new("/etc/kubernetes"))
        && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name.ends_with(".conf") && !name.starts_with('.') && !name.contains('/') && !name.contains('\0')
        })
}

impl FactSource for Machine {
    fn network(&self) -> &dyn Network {
        self
    }

    fn ask<'a>(&'a self, request: &'a FactRequest) -> BoxFuture<'a, Result<Fact, HostError>> {
        let plain = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(['/', '\0', '\n', ' ']);
        match request {
            FactRequest::Kernel | FactRequest::Swap => {}
            FactRequest::KernelOptions { names } => assert!(names.iter().all(|name| plain(name))),
            FactRequest::Sysctl { name } => {
                assert!(name.starts_with("net.ipv4.") && !name.contains("..") && !name.contains('\0'), "{name:?}");
            }
            FactRequest::TcpPort { port } => assert_ne!(*port, 0),
            FactRequest::Unit { name } | FactRequest::Executable { name } => assert!(plain(name), "{name:?}"),
            FactRequest::ProxyFor { url } => assert!(url.starts_with("http") && !url.chars().any(char::is_control)),
            other => panic!("nobody granted {other:?}"),
        }
        answer(Fact::Names(vec!["x".into()]))
    }

    fn stat<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Option<FileInfo>, HostError>> {
        assert!(is_kubernetes_conf(request.path) || request.path == Path::new("/run/granted"), "{:?}", request.path);
        assert!(!(request.permits)(Path::new("/etc/shadow")));
        let (kind, size_bytes) = (FileKind::Regular, 1);
        answer(Some(FileInfo { kind, size_bytes, mode: 0o644, uid: 0, gid: 0, ours: false }))
    }

    fn read<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<u8>, HostError>> {
        assert!(is_kubernetes_conf(request.path), "{:?}", request.path);
        assert!(!(request.permits)(Path::new("/run/granted")));
        assert_eq!(request.max_bytes, 16);
        answer(b"content".to_vec())
    }

    fn run<'a>(&'a self, request: &'a CommandRequest) -> BoxFuture<'a, Result<CommandOutput, HostError>> {
        let arguments: Vec<&str> = request.arguments.iter().map(String::as_str).collect();
        match (request.program.to_str().unwrap(), arguments.as_slice()) {
            ("/bin/granted", ["-q", "-i" | "-x", number]) => {
                assert!((1..=2).contains(&number.len()) && number.bytes().all(|it| it.is_ascii_digit()), "{number:?}");
                assert!(request.environment == ["LANG"] && request.max_output_bytes == 64);
            }
            ("/bin/keyed", ["--key", "{secret}" | SECRET]) => assert!(request.environment.is_empty()),
            other => panic!("nobody granted {other:?}"),
        }
        assert_eq!(request.user, "nobody");
        answer(CommandOutput { status: Some(0), stdout: arguments.concat().into_bytes(), stderr: Vec::new() })
    }
}

/// A resolver that answers every name with everything a guest might hope for.
const ADDRESSES: [&str; 8] = [
    "127.0.0.1",
    "169.254.169.254",
    "10.1.2.3",
    "::ffff:10.1.2.3",
    "64:ff9b::a01:203",
    "fe80::1",
    "0.0.0.0",
    "93.184.216.34",
];

impl Network for Machine {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        assert!(["inventory.example", "inside.example", "registry.example"].contains(&name), "{name:?}");
        Box::pin(ready(Ok(ADDRESSES.map(|address| address.parse().unwrap()).into())))
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        let inside = ["10.1.2.3:8080", "10.1.2.3:2049", "93.184.216.34:8080", "93.184.216.34:2049"];
        let outside = ["93.184.216.34:443"];
        let allowed = inside.iter().chain(&outside).any(|it| it.parse() == Ok(address));
        assert!(allowed, "dialled {address}");
        Box::pin(ready(Err(io::ErrorKind::ConnectionRefused.into())))
    }
}
