//! A network as a test writes it, servers on loopback that misbehave, and calls of the guest's check `calls`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use mortise::network::Network;
use mortise::plugin::{CheckResult, CheckStatus, Stage};
use mortise::proxy::{Proxy, ProxySettings};
use rustls::RootCertStore;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::machine::Machine;
use crate::plugin::{Setup, guest};

/// How many requests wait for an answer that never comes.
#[derive(Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    /// Never returns, but may be dropped.
    pub(crate) async fn wait_forever<T>(&self) -> T {
        struct Leaving<'a>(&'a AtomicUsize);
        impl Drop for Leaving<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.0.fetch_add(1, Ordering::SeqCst);
        let _leaving = Leaving(&self.0);
        std::future::pending().await
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the resolver says, where connections go, and what was asked.
#[derive(Default)]
pub(crate) struct ScriptedNetwork {
    /// Answers for a name, one a question; the last is kept.
    pub(crate) names: BTreeMap<String, Vec<Vec<IpAddr>>>,
    /// Names for which the resolver never answers.
    pub(crate) silent: Vec<String>,
    /// Where connections to other addresses than loopback's lead.
    pub(crate) instead: Option<SocketAddr>,
    pub(crate) roots: Option<Arc<RootCertStore>>,
    /// Of the environment.
    pub(crate) proxy: ProxySettings,
    /// Look-ups of silent names, and connections to addresses nobody answers at.
    pub(crate) gauge: Gauge,
    /// Nobody answers at this address.
    pub(crate) dead: Option<SocketAddr>,
    pub(crate) resolved: Mutex<Vec<String>>,
    pub(crate) dialled: Mutex<Vec<SocketAddr>>,
}

impl Network for ScriptedNetwork {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            if self.silent.iter().any(|it| it == name) {
                self.gauge.wait_forever::<()>().await;
            }
            let mut resolved = self.resolved.lock().unwrap();
            let before = resolved.iter().filter(|it| *it == name).count();
            resolved.push(name.to_owned());
            let answers = self.names.get(name).ok_or_else(|| io::Error::other("no such name"))?;
            Ok(answers[before.min(answers.len() - 1)].clone())
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        self.dialled.lock().unwrap().push(address);
        if self.dead == Some(address) {
            return Box::pin(async { Ok(self.gauge.wait_forever().await) });
        }
        let target = self.instead.filter(|_| !address.ip().is_loopback()).unwrap_or(address);
        Box::pin(TcpStream::connect(target))
    }

    fn proxy_for(&self, host: &str, port: u16) -> Option<Proxy> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.proxy.for_url(&format!("https://{host}:{port}")).cloned()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        self.roots.clone().unwrap_or_else(|| Arc::new(RootCertStore::empty()))
    }
}

impl ScriptedNetwork {
    /// With the environment's proxy for https at this address.
    pub(crate) fn proxied(mut self, url: &str) -> Self {
        self.proxy = ProxySettings::from_env(&[("HTTPS_PROXY".to_owned(), url.to_owned())].into());
        self
    }

    pub(crate) fn naming(mut self, name: &str, answers: &[&str]) -> Self {
        let answer = |text: &&str| text.split_whitespace().map(|it| it.parse().unwrap()).collect();
        self.names.insert(name.into(), answers.iter().map(answer).collect());
        self
    }
}

/// The guest, which makes these calls and then asks for a fact.
pub(crate) fn calling(calls: &[&[&str]]) -> Setup {
    let mut text: String = calls.iter().map(|words| words.join("\u{1f}") + "\u{1e}").collect();
    text.push_str("swap\u{1e}");
    Setup::new(guest()).only("calls").setting("calls", &text)
}

pub(crate) fn on(network: ScriptedNetwork, mut setup: Setup) -> Setup {
    setup.machine = Arc::new(Machine { network, ..Machine::default() });
    setup
}

/// Answers in order, the last one's being checked: whatever came before, the next call is answered.
pub(crate) fn answers(result: &CheckResult) -> Vec<&str> {
    let mut answers: Vec<_> = result.evidence.iter().map(|(_, answer)| answer.as_str()).collect();
    assert_eq!(answers.pop(), Some("/dev/sda2"), "{result:#?}");
    answers
}

/// Runs calls that end by themselves; none is denied.
pub(crate) async fn passing(setup: Setup) -> CheckResult {
    let result = setup.run(Stage::Node).await.remove(0);
    assert_eq!((result.status, result.denied), (CheckStatus::Passed, 0), "{result:#?}");
    result
}

/// Runs calls of which so many are denied: the check cannot pass.
pub(crate) async fn denied(setup: Setup, count: u32) -> CheckResult {
    let result = setup.run(Stage::Node).await.remove(0);
    assert_eq!((result.status, result.denied), (CheckStatus::Failed, count), "{result:#?}");
    result
}

/// A server on loopback that misbehaves as the path of a request says.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Arc<AtomicUsize>,
    pub(crate) closed: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, closed): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (opening, closing) = (Arc::clone(&accepted), Arc::clone(&closed));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                opening.fetch_add(1, Ordering::SeqCst);
                let closing = Arc::clone(&closing);
                tokio::spawn(async move {
                    // The other side may go at any time.
                    let _ = serve(stream).await;
                    closing.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, accepted, closed }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Until as many connections are closed as were accepted.
    pub(crate) async fn wait_until_closed(&self, count: usize) {
        let all = async {
            while self.closed.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("a connection stays open");
    }
}

/// Answers one request.
pub(crate) async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await?;
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let plain = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = match path.as_str() {
        "/redirect" => {
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest/\r\ncontent-length: 0\r\n\r\n".into()
        }
        "/absent" => "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone".into(),
        "/silent" => {
            stream.read_u8().await?;
            return Ok(());
        }
        "/slow" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n").await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            loop {
                stream.write_all(b"5\r\nhello\r\n").await?;
            }
        }
        "/endless-head" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(b"x-filler: yes yes yes yes yes yes yes yes yes\r\n").await?;
            }
        }
        "/long-header" => format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000)),
        "/huge" => "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\nx".into(),
        "/cut" => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".into(),
        "/upgrade" => "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".into(),
        "/garbage" => "SSH-2.0-OpenSSH_9.2\r\n\r\n".into(),
        "/two-lengths" => "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 5\r\n\r\nhello".into(),
        "/256Ki" => plain(&"z".repeat(256 << 10)),
        "/more" => plain(&"z".repeat((256 << 10) + 1)),
        "/many" => plain(&"z".repeat(5000)),
        _ => plain(&head.replace("\r\n", "|")),
    };
    stream.write_all(answer.as_bytes()).await
}
