//! Requests under TLS, by authorities of the site's own, and through the environment's proxy: it may carry what was looked
//! at, and is no way around the rules for addresses.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use mortise::plugin::grants::{AddressClass, Grants};
use mortise::plugin::policy::Policy;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::network::{ScriptedNetwork, Server, answers, calling, denied, on, passing, serve};

const NAME: &str = "inventory.example";
const PUBLIC: &str = "93.184.215.14";
const GRANT: &str = "{facts: [swap], http: [{url: 'https://inventory.example/v1/'}]}";
const FLAG: &str = "http=https://inventory.example/v1/";
const URL: &str = "https://inventory.example/v1/x";
const CALL: &[&str] = &["fetch", "GET", URL, "t3000"];

/// An authority of the site's own, and a server for [`NAME`] by it.
struct Site {
    server: SocketAddr,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Site {
    async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config =
            builder.unwrap().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that does not trust it goes away.
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        let _ = serve(&mut stream).await;
                        let _ = stream.shutdown().await;
                    }
                });
            }
        });
        Self { server, authority }
    }

    /// Where the name leads to a public address, behind which the server is, and its authority is trusted.
    fn network(&self) -> ScriptedNetwork {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let network = ScriptedNetwork::default().naming(NAME, &[PUBLIC]);
        ScriptedNetwork { instead: Some(self.server), roots: Some(Arc::new(roots)), ..network }
    }
}

/// A proxy on loopback, whatever it is asked for leading to the same server.
struct Gateway {
    address: SocketAddr,
    /// Whole requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// It says this instead of carrying anything; `{}` is where it waits for the end.
    async fn refusing(answer: &'static [u8]) -> Self {
        Self::start(None, answer).await
    }

    async fn to(server: SocketAddr) -> Self {
        Self::start(Some(server), b"HTTP/1.1 200 Connection established\r\n\r\n").await
    }

    async fn start(server: Option<SocketAddr>, answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let heard = Arc::clone(&heard);
                // The other side may go at any time.
                tokio::spawn(async move { carry(stream, server, answer, &heard).await.unwrap_or_default() });
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://joe:hunter2@{}", self.address)
    }

    /// First words of what it was asked for.
    fn targets(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

async fn carry(
    mut stream: TcpStream,
    server: Option<SocketAddr>,
    answer: &[u8],
    heard: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    heard.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    stream.write_all(answer).await?;
    match server {
        Some(server) => copy_bidirectional(&mut stream, &mut TcpStream::connect(server).await?).await.map(drop),
        None => stream.read_u8().await.map(drop),
    }
}

#[tokio::test]
async fn a_server_of_a_private_authority_is_asked_where_that_is_trusted_and_it_has_the_name() {
    let site = Site::start().await;
    let result = passing(on(site.network(), calling(&[CALL]).granted(GRANT))).await;
    let seen = answers(&result)[0];
    assert!(seen.starts_with("200 ") && seen.contains("GET /v1/x HTTP/1.1|host: inventory.example|"), "{seen}");

    let other = Site::start().await;
    let unknown = ScriptedNetwork { instead: Some(other.server), ..site.network() };
    let result = passing(on(unknown, calling(&[CALL]).granted(GRANT))).await;
    let seen = answers(&result)[0];
    assert!(seen.starts_with("unavailable: no trust in `inventory.example`: "), "{seen}");

    let network = site.network().naming("other.example", &[PUBLIC]);
    let grant = "{facts: [swap], http: [{url: 'https://other.example/'}]}";
    let result = passing(on(network, calling(&[&["fetch", "GET", "https://other.example/"]]).granted(grant))).await;
    let seen = answers(&result)[0];
    assert!(seen.starts_with("unavailable: no trust in `other.example`: "), "{seen}");
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_address_that_was_looked_at() {
    let site = Site::start().await;
    let gateway = Gateway::to(site.server).await;
    let setup = on(site.network().proxied(&gateway.url()), calling(&[CALL]).granted(GRANT));
    let machine = setup.machine.clone();
    let result = passing(setup).await;
    let seen = answers(&result)[0];
    assert!(seen.starts_with("200 ") && seen.contains("|host: inventory.example|"), "{seen}");
    assert_eq!(gateway.targets(), [format!("CONNECT {PUBLIC}:443 HTTP/1.1")]);
    let asked = gateway.asked.lock().unwrap()[0].clone();
    assert!(
        asked.contains("Proxy-Authorization: Basic am9lOmh1bnRlcjI=\r\n") && !asked.contains("inventory"),
        "{asked}"
    );
    assert_eq!(*machine.network.dialled.lock().unwrap(), [gateway.address]);
    assert_eq!(*machine.network.resolved.lock().unwrap(), [NAME], "one question a request");
}

#[tokio::test]
async fn a_proxy_is_no_way_around_the_rules_for_addresses() {
    let gateway = Gateway::refusing(b"HTTP/1.1 200 OK\r\n\r\n").await;
    for (address, words) in [
        ("127.0.0.1", "this machine itself"),
        ("10.0.0.5", "private: true"),
        ("169.254.169.254", "link-local: true"),
        ("64:ff9b::a9fe:a9fe", "an IPv4 address inside IPv6"),
    ] {
        let network = ScriptedNetwork::default().naming(NAME, &[address]).proxied(&gateway.url());
        let result = denied(on(network, calling(&[CALL]).granted(GRANT)), 1).await;
        let seen = answers(&result)[0];
        assert!(seen.starts_with("denied: ") && seen.contains(words), "{address}: {seen}");
    }
    assert_eq!(gateway.targets(), [] as [String; 0]);
    // Nor is the manifest's word enough, nor the operator's below a policy that judges addresses itself.
    let wishing =
        "grants: {facts: [swap], http: [{url: 'https://inventory.example/v1/', proxy: true, optional: true}]}\n";
    let wishing = calling(&[CALL]).manifest(wishing).grant("facts=swap");
    let ceiling = |grants: &str| Policy {
        addresses: vec![("policy.yaml:3".into(), AddressClass::Metadata)],
        ceilings: vec![mortise::plugin::policy::CeilingRule {
            place: "policy.yaml:5".into(),
            grants: Grants::parse(grants).unwrap(),
            ..Default::default()
        }],
        ..Policy::default()
    };
    let narrow = ceiling("{facts: [swap], http: [{url: 'https://inventory.example/v1/'}]}");
    let by_policy = ceiling("{facts: [swap], http: [{url: 'https://inventory.example/v1/', proxy: true}]}");
    for (setup, allowed) in [
        (wishing.clone().grant(FLAG), false),
        (wishing.clone().grant(&format!("{FLAG} proxy")).policy(narrow), false),
        (wishing.clone().grant(&format!("{FLAG} proxy")).policy(by_policy), true),
    ] {
        let network = ScriptedNetwork::default().naming("nothing.example", &[PUBLIC]).proxied(&gateway.url());
        let result = passing(on(network, setup)).await;
        let seen = answers(&result)[0];
        assert_eq!(!seen.starts_with("not-found"), allowed, "{seen}");
    }
}

#[tokio::test]
async fn the_operators_word_lets_the_proxy_look_a_name_up() {
    let site = Site::start().await;
    let gateway = Gateway::to(site.server).await;
    let network = || ScriptedNetwork { names: Default::default(), ..site.network() }.proxied(&gateway.url());
    let asking = calling(&[CALL]).manifest(&format!("grants: {GRANT}\n")).grant("facts=swap");
    let result = passing(on(network(), asking.clone().grant(FLAG))).await;
    let seen = answers(&result)[0];
    assert!(seen.starts_with("not-found (retryable): `inventory.example` has no address"), "{seen}");
    assert!(
        seen.ends_with("the operator allows http: [{url: https://inventory.example/v1/, methods: [GET], proxy: true}]"),
        "{seen}"
    );
    assert_eq!(gateway.targets(), [] as [String; 0]);
    let setup = on(network(), asking.grant(&format!("{FLAG} proxy")));
    let machine = setup.machine.clone();
    let result = passing(setup).await;
    let seen = answers(&result)[0];
    assert!(seen.starts_with("200 "), "{seen}");
    assert_eq!(gateway.targets(), ["CONNECT inventory.example:443 HTTP/1.1"]);
    assert_eq!(*machine.network.resolved.lock().unwrap(), [] as [&str; 0]);
}

#[tokio::test]
async fn an_exception_and_plain_http_go_directly() {
    let (site, server) = (Site::start().await, Server::start().await);
    let gateway = Gateway::refusing(b"").await;
    let variables = [("HTTPS_PROXY", gateway.url()), ("HTTP_PROXY", gateway.url()), ("NO_PROXY", NAME.to_owned())];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
    let proxy = mortise::proxy::ProxySettings::from_env(&variables);
    let network = ScriptedNetwork { proxy: proxy.clone(), ..site.network() };
    let result = passing(on(network, calling(&[CALL]).granted(GRANT))).await;
    assert!(answers(&result)[0].starts_with("200 "), "{result:#?}");
    let network = ScriptedNetwork { proxy, instead: Some(server.address), ..ScriptedNetwork::default() };
    let grant = "{facts: [swap], http: [{url: 'http://plain.example/'}]}";
    let network = network.naming("plain.example", &[PUBLIC]);
    let result = passing(on(network, calling(&[&["fetch", "GET", "http://plain.example/"]]).granted(grant))).await;
    assert!(answers(&result)[0].starts_with("200 "), "{result:#?}");
    assert_eq!(gateway.targets(), [] as [String; 0]);
}

#[tokio::test]
async fn a_proxy_that_refuses_or_misbehaves_is_an_answer_in_time() {
    let long: &'static [u8] = Vec::leak(b"HTTP/1.1 200 OK\r\nx: ".iter().copied().chain([b'y'; 20_000]).collect());
    for (answer, begins) in [
        (&b"HTTP/1.1 403 \x1b[2JForbidden\r\n\r\n"[..], "unavailable (retryable): cannot connect"),
        (b"SSH-2.0-x\r\n\r\n\r\n", "unavailable (retryable): cannot connect"),
        (long, "unavailable (retryable): cannot connect"),
        (b"", "timeout (retryable)"),
        (b"HTTP/1.1 200 OK\r\n\r\nno TLS at all, but a page that explains why it is not let through", "unavailable"),
    ] {
        let gateway = Gateway::refusing(answer).await;
        let site = Site::start().await;
        let call: &[&str] = &["fetch", "GET", URL, "t700"];
        let result = passing(on(site.network().proxied(&gateway.url()), calling(&[call]).granted(GRANT))).await;
        let seen = answers(&result)[0];
        assert!(seen.starts_with(begins), "{answer:?}: {seen}");
        assert!(!seen.contains("hunter2") && !seen.contains('\u{1b}'), "{seen}");
    }
}

/// The environment of a real process: its authorities, its proxy, and what `grants explain` makes of them.
#[tokio::test(flavor = "multi_thread")]
async fn authorities_and_proxy_come_from_the_hosts_environment() {
    let site = Site::start().await;
    let gateway = Gateway::to(site.server).await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let setup = calling(&[CALL]).manifest(&format!("grants: {GRANT}\n"));
    std::fs::write(at("guest.wasm"), setup.component()).unwrap();
    std::fs::write(at("settings.json"), setup.settings()).unwrap();
    std::fs::write(at("ca.pem"), site.authority.pem()).unwrap();
    std::fs::write(at("other.pem"), Site::start().await.authority.pem()).unwrap();
    let run = |authorities: &str, words: &[&str]| {
        let flag = format!("{FLAG} proxy");
        let output = Command::new(env!("CARGO_BIN_EXE_mortise"))
            .args(["plugin", words[0], words[1]].iter().filter(|it| !it.is_empty()))
            .arg(at("guest.wasm"))
            .args(["-o", "json", "--grant", "facts=swap", "--grant", &flag])
            .args(&words[2..])
            .env("HTTPS_PROXY", gateway.url())
            .env("SSL_CERT_FILE", at(authorities))
            .current_dir(directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        text
    };
    let good = run("ca.pem", &["run", "", "--settings", "settings.json"]);
    assert!(good.contains("GET /v1/x HTTP/1.1|host: inventory.example|"), "{good}");
    let bad = run("other.pem", &["run", "", "--settings", "settings.json"]);
    assert!(bad.contains("no trust in `inventory.example`"), "{bad}");
    assert_eq!(gateway.targets(), ["CONNECT inventory.example:443 HTTP/1.1"; 2]);
    let explained = run("ca.pem", &["grants", "explain"]);
    let words = format!("wherever the proxy `http://{}` lets it lead", gateway.address);
    assert!(explained.contains(&words), "{explained}");
}
