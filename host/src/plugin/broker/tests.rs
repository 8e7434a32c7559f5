use std::sync::Mutex;

use futures::future::{BoxFuture, ready};

use super::super::grants::Grants;
use super::super::wire::Ask;
use super::*;
use crate::config::SecretSource;
use crate::facts::{CommandOutput, CommandRequest, Fact, FileInfo, FileKind};

/// Answers everything, and keeps what it was asked to run.
#[derive(Default)]
struct Machine {
    text: String,
    content: Vec<u8>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ran: Mutex<Vec<CommandRequest>>,
}

fn answer<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, Result<T, HostError>> {
    Box::pin(ready(Ok(answer)))
}

impl FactSource for Machine {
    fn ask<'a>(&'a self, _request: &'a FactRequest) -> BoxFuture<'a, Result<Fact, HostError>> {
        answer(Fact::Text(self.text.clone()))
    }

    fn stat<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Option<FileInfo>, HostError>> {
        let known = FileInfo { kind: FileKind::Regular, size_bytes: 1, mode: 0o644, uid: 0, gid: 0, ours: false };
        answer((request.permits)(Path::new("/granted/other")).then_some(known))
    }

    fn read<'a>(&'a self, _request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<u8>, HostError>> {
        answer(self.content.clone())
    }

    fn entries<'a>(&'a self, _request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<String>, HostError>> {
        answer(vec!["entry".into()])
    }

    fn run<'a>(&'a self, request: &'a CommandRequest) -> BoxFuture<'a, Result<CommandOutput, HostError>> {
        self.ran.lock().unwrap().push(request.clone());
        answer(CommandOutput { status: Some(0), stdout: self.stdout.clone(), stderr: self.stderr.clone() })
    }
}

fn broker(grants: &str, machine: &Arc<Machine>) -> Broker {
    let grants = Grants::parse(grants).unwrap_or_else(|error| panic!("{error}"));
    Broker { grants: Effective::own(grants), facts: Arc::<Machine>::clone(machine) as _, vault: Vault::default() }
}

/// The answer, or `denied`, or the code of the error.
async fn serve(broker: &Broker, ask: Ask) -> Result<HostAnswer, String> {
    broker.serve(ask).await.map_err(|refusal| match refusal {
        Refusal::Denied(_) => "denied".into(),
        Refusal::Failed(error) => error.code,
    })
}

fn run(program: &str, arguments: &[&str], secret: Option<&str>) -> Ask {
    let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
    Ask::Run { program: program.into(), arguments, secret: secret.map(Into::into) }
}

#[tokio::test]
async fn a_question_is_well_formed_before_it_is_granted_or_asked() {
    let machine = Arc::new(Machine { text: "1".into(), ..Machine::default() });
    let all = broker("facts: [kernel, ports, units, executables, proxy, 'sysctl:net.*', swap]", &machine);
    let sysctl = |name: &str| FactRequest::Sysctl { name: name.into() };
    let options = |names: &[&str]| FactRequest::KernelOptions { names: names.iter().map(|it| (*it).into()).collect() };
    let unit = |name: &str| FactRequest::Unit { name: name.into() };
    let program = |name: &str| FactRequest::Executable { name: name.into() };
    let proxy = |url: &str| FactRequest::ProxyFor { url: url.into() };
    let (longest, longer) = ("x".repeat(256), "x".repeat(257));
    let address = format!("http://{}", "x".repeat(LONGEST_TEXT - "http://".len()));
    for request in [
        FactRequest::Kernel,
        FactRequest::Swap,
        FactRequest::TcpPort { address: None, port: 1 },
        sysctl("net.ipv4.conf/eth0-1:2.x_y"),
        sysctl(&format!("net.{}", "x".repeat(252))),
        options(&[]),
        options(&["A_1", &longest]),
        options(&["A"; MOST_NAMES]),
        unit("a-b_c.d@e:f"),
        unit(&longest),
        program("a.b-c_d+"),
        proxy("https://a/"),
        proxy(&address),
    ] {
        assert!(matches!(serve(&all, Ask::Fact(request.clone())).await, Ok(HostAnswer::Fact(_))), "{request:?}");
    }
    for request in [
        FactRequest::TcpPort { address: None, port: 0 },
        sysctl(""),
        sysctl("net.a b"),
        sysctl(".net.x"),
        sysctl("/net.x"),
        sysctl("net..x"),
        sysctl("net.x/"),
        sysctl(&format!("net.{}", "x".repeat(253))),
        options(&[""]),
        options(&["-A"]),
        options(&["A-B"]),
        options(&["A.B"]),
        options(&["A", &longer]),
        options(&["A"; MOST_NAMES + 1]),
        unit(""),
        unit("-a"),
        unit("a/b"),
        unit(&longer),
        program(".a"),
        program("a/b"),
        program("a\nb"),
        proxy("ftp://a/"),
        proxy("https://a/\n"),
        proxy(&(address + "x")),
    ] {
        assert_eq!(serve(&all, Ask::Fact(request.clone())).await, Err("invalid".into()), "{request:?}");
    }
    assert_eq!(serve(&all, Ask::Fact(FactRequest::Os)).await, Err("denied".into()));
}

#[tokio::test]
async fn an_answer_that_would_fill_a_frame_is_too_large() {
    let most = FRAME_TO_RUNNER / 2 - r#"{"text":""}"#.len();
    for (bytes, expected) in [(1, true), (most, true), (most + 1, false), (most * 2, false)] {
        let machine = Arc::new(Machine { text: "x".repeat(bytes), ..Machine::default() });
        let got = serve(&broker("facts: [os]", &machine), Ask::Fact(FactRequest::Os)).await;
        assert_eq!(got.map(|_| ()), expected.then_some(()).ok_or("too-large".into()), "{bytes}");
    }
}

#[tokio::test]
async fn a_path_is_whole_before_it_is_granted() {
    let machine = Arc::new(Machine { content: b"content".into(), ..Machine::default() });
    let some = broker("files: [{path: /granted/*, max-bytes: 7}, {path: /stat, access: stat}]", &machine);
    assert_eq!(serve(&some, Ask::Read("/granted/a".into())).await, Ok(HostAnswer::Content(Bytes(b"content".into()))));
    assert!(matches!(serve(&some, Ask::Stat("/granted/a".into())).await, Ok(HostAnswer::Stat(Some(_)))));
    assert!(matches!(serve(&some, Ask::Stat("/stat".into())).await, Ok(HostAnswer::Stat(_))));
    for path in ["/stat", "/other", "/granted/a/b", "/granted/.a"] {
        assert_eq!(serve(&some, Ask::Read(path.into())).await, Err("denied".into()), "{path}");
    }
    assert_eq!(serve(&some, Ask::Stat("/other".into())).await, Err("denied".into()));
    let longest = format!("/{}", "x".repeat(LONGEST_TEXT - 1));
    assert_eq!(serve(&some, Ask::Stat(longest.clone())).await, Err("denied".into()));
    let bad =
        ["", "granted/a", "/granted/../a", "/granted/./a", "/granted//a", "/granted/a/", "/granted/a\n", "/", "/a\0"];
    for path in bad.into_iter().chain([(longest + "x").as_str()]) {
        for ask in [Ask::Read(path.into()), Ask::Stat(path.into()), run(path, &[], None)] {
            assert_eq!(serve(&some, ask).await, Err("invalid".into()), "{path:?}");
        }
    }
}

#[tokio::test]
async fn a_machine_that_reads_more_than_it_was_let_is_not_believed() {
    for (bytes, expected) in
        [(0, Ok(())), (6, Ok(())), (7, Ok(())), (8, Err("too-large".to_owned())), (99, Err("too-large".to_owned()))]
    {
        let machine = Arc::new(Machine { content: vec![b'x'; bytes], ..Machine::default() });
        let some = broker("files: [{path: /a, max-bytes: 7}]", &machine);
        assert_eq!(serve(&some, Ask::Read("/a".into())).await.map(|_| ()), expected, "{bytes}");
    }
}

#[tokio::test]
async fn arguments_are_bounded_in_number_and_bytes() {
    let machine = Arc::new(Machine::default());
    let with = |count: usize| {
        broker(&format!("commands: [{{program: /a, args: [{}]}}]", vec!["{match: '.*'}"; count].join(", ")), &machine)
    };
    let most = "x".repeat(4096);
    for (arguments, expected) in [
        (vec![], Ok(())),
        (vec!["x"], Ok(())),
        (vec!["x"; MOST_ARGUMENTS], Ok(())),
        (vec!["x"; MOST_ARGUMENTS + 1], Err("invalid".to_owned())),
        (vec!["x"; MOST_ARGUMENTS + 2], Err("invalid".to_owned())),
        (vec![most.as_str(); 16], Ok(())),
        ([vec![most.as_str(); 16], vec!["x"]].concat(), Err("invalid".to_owned())),
        ([vec![most.as_str(); 16], vec!["xx"]].concat(), Err("invalid".to_owned())),
        (vec!["x", "a\0b"], Err("invalid".to_owned())),
        (vec!["a\nb"], Err("denied".to_owned())),
    ] {
        let got = serve(&with(arguments.len()), run("/a", &arguments, None)).await;
        assert_eq!(got.map(|_| ()), expected, "{} arguments", arguments.len());
    }
}

#[tokio::test]
async fn output_beyond_its_bound_is_refused() {
    for (stdout, stderr, expected) in [
        (0, 0, Ok(())),
        (8, 8, Ok(())),
        (9, 0, Err("too-large".to_owned())),
        (0, 9, Err("too-large".to_owned())),
        (99, 99, Err("too-large".to_owned())),
    ] {
        let (stdout, stderr) = (vec![b'x'; stdout], vec![b'x'; stderr]);
        let machine = Arc::new(Machine { stdout, stderr, ..Machine::default() });
        let some = broker("commands: [{program: /a, max-output: 8}]", &machine);
        assert_eq!(serve(&some, run("/a", &[], None)).await.map(|_| ()), expected);
    }
}

#[tokio::test]
async fn a_secret_goes_into_its_one_argument_and_comes_back_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str, value: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, value).unwrap();
        (name.to_owned(), SecretSource::File(path))
    };
    let secrets =
        [at("key", b"hunter2"), at("nul", b"a\0b"), at("bytes", b"\xff"), at("other", b"x"), at("seed", b"y")];
    let said = b"hunter2, and hunter2 again".to_vec();
    let machine = Arc::new(Machine { stdout: said.clone(), stderr: said, ..Machine::default() });
    let argv = |name: &str| format!("{{name: {name}, argv: [/a, --key, '{{secret}}']}}");
    let grants = format!(
        "commands: [{{program: /a, args: [--key, '{{secret}}']}}, {{program: /a, args: ['{{secret}}', '{{secret}}']}}, {{program: /a}}]\n\
         secrets: [{}, {}, {}, {{name: seed, reveal: true}}]",
        argv("key"),
        argv("nul"),
        argv("bytes")
    );
    let some = Broker { vault: Vault(secrets.into()), ..broker(&grants, &machine) };
    let clean = Bytes(b"[secret], and [secret] again".to_vec());
    let expected = HostAnswer::Output { status: Some(0), stdout: clean.clone(), stderr: clean };
    assert_eq!(serve(&some, run("/a", &["--key", PLACEHOLDER], Some("key"))).await, Ok(expected));
    assert_eq!(machine.ran.lock().unwrap().pop().unwrap().arguments, ["--key", "hunter2"]);
    for (arguments, secret, code) in [
        (&["--key", PLACEHOLDER][..], "nul", "unavailable"),
        (&["--key", PLACEHOLDER], "bytes", "unavailable"),
        (&["--key", PLACEHOLDER], "other", "denied"),
        (&["--key", PLACEHOLDER], "../key", "invalid"),
        (&["--kex", PLACEHOLDER], "key", "denied"),
        (&[PLACEHOLDER, PLACEHOLDER], "key", "invalid"),
        (&[PLACEHOLDER], "key", "denied"),
        (&[], "key", "invalid"),
    ] {
        let got = serve(&some, run("/a", arguments, Some(secret))).await;
        assert_eq!(got, Err(code.into()), "{arguments:?} {secret}");
    }
    assert!(machine.ran.lock().unwrap().is_empty(), "something ran without its secret");
    // Without a secret the mark is a text like any other.
    assert!(serve(&some, run("/a", &["--key", PLACEHOLDER], None)).await.is_ok());
    assert_eq!(machine.ran.lock().unwrap().pop().unwrap().arguments, ["--key", PLACEHOLDER]);
    let Ok(HostAnswer::Revealed(seed)) = serve(&some, Ask::Reveal("seed".into())).await else { panic!("no secret") };
    assert_eq!(seed.expose(), b"y");
    assert_eq!(serve(&some, Ask::Reveal("key".into())).await, Err("denied".into()));
    assert_eq!(serve(&some, Ask::Reveal("-".into())).await, Err("invalid".into()));
}

#[test]
fn only_a_machine_that_was_slow_is_worth_asking_again() {
    let (slow, large) = (failed("timeout", "slow".into()), failed("too-large", "large".into()));
    assert_eq!((slow.code.as_str(), slow.message.as_str(), slow.retryable), ("timeout", "slow", true));
    assert_eq!((large.code.as_str(), large.retryable), ("too-large", false));
}
