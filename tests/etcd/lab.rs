//! A stacked etcd as kubeadm starts it, on loopback.

use std::cell::RefCell;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mortise::etcd::{Client, Credentials, MemberId, Membership};
use mortise::journal::{Header, Journal};
use mortise::node::{HostMachine, Node};
use mortise::output::{Format, Reporter};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use crate::proxy::{Ends, Proxy};

/// How long anything may take that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(20);

fn binaries() -> &'static Path {
    static BINARIES: OnceLock<PathBuf> = OnceLock::new();
    BINARIES.get_or_init(|| mortise_cluster::ensure_built(&|text| eprintln!("{text}")).expect("etcd").binaries())
}

/// One certificate authority for members, peers and clients, as kubeadm has it, and the members under it.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    number: u8,
    authority: Issuer<'static, KeyPair>,
    members: RefCell<Vec<Running>>,
}

struct Running {
    index: u8,
    process: Child,
}

impl Cluster {
    /// One member, as `kubeadm init` makes it.
    pub(crate) fn of_one() -> Self {
        let cluster = Self::of_none();
        cluster.start(1, "new", &format!("{}={}", name(1), cluster.peer_url(1)));
        cluster.wait_until_up(1);
        cluster
    }

    /// One member that tells clients the proxy's address.
    pub(crate) fn of_one_behind_proxy() -> Self {
        let cluster = Self::of_none();
        let proxy = format!("https://{}:2379", cluster.proxy_address());
        cluster.start_advertising(1, "new", &format!("{}={}", name(1), cluster.peer_url(1)), &proxy);
        cluster.wait_until_up(1);
        cluster
    }

    /// So many voters.
    pub(crate) async fn of(voters: u8) -> Self {
        let cluster = Self::of_one();
        for index in 2..=voters {
            let client = cluster.client();
            let id = cluster.add_started(index).await;
            until(SOON, async || client.promote(id).await.ok()).await;
        }
        cluster
    }

    fn of_none() -> Self {
        static NUMBER: AtomicU8 = AtomicU8::new(0);
        let directory = tempfile::tempdir().expect("a directory");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pki = directory.path().join("pki/etcd");
        std::fs::create_dir_all(&pki).expect("a directory");
        std::fs::write(pki.join("ca.crt"), params.self_signed(&key).expect("a CA").pem()).expect("a file");
        let authority = Issuer::new(params, key);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cluster = Self { directory, number, authority, members: RefCell::default() };
        cluster.issue(&pki.join("healthcheck-client"), None);
        cluster.issue(&pki.join("proxy"), Some(cluster.proxy_address()));
        cluster
    }

    /// A proxy at [`Cluster::proxy_address`].
    pub(crate) fn proxy(&self) -> Proxy {
        let read = |name: &str| std::fs::read(self.pki().join("etcd").join(name)).expect("a file");
        Proxy::start(Ends {
            listener: TcpListener::bind((self.proxy_address(), 2379)).expect("a free address"),
            target: SocketAddr::new(self.address(1).parse().expect("an address"), 2379),
            ca: read("ca.crt"),
            server: [read("proxy.crt"), read("proxy.key")],
            client: [read("healthcheck-client.crt"), read("healthcheck-client.key")],
        })
    }

    fn issue(&self, path: &Path, address: Option<IpAddr>) {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        // From loopback comes what one member says to another; etcd compares the certificate with that, and kubeadm's have it.
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        params.subject_alt_names.extend(address.into_iter().flat_map(|own| [own, loopback]).map(SanType::IpAddress));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        std::fs::write(path.with_extension("crt"), certificate.pem()).expect("a file");
        std::fs::write(path.with_extension("key"), key.serialize_pem()).expect("a file");
    }

    /// Of a member. The process's id keeps test processes apart.
    pub(crate) fn address(&self, index: u8) -> String {
        let [.., high, low] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, 64 | (high & 63), low, self.number * 8 + index).to_string()
    }

    /// Of a proxy in front of member 1.
    pub(crate) fn proxy_address(&self) -> IpAddr {
        self.address(7).parse().expect("an address")
    }

    pub(crate) fn peer_url(&self, index: u8) -> String {
        format!("https://{}:2380", self.address(index))
    }

    pub(crate) fn client_url(&self, index: u8) -> String {
        format!("https://{}:2379", self.address(index))
    }

    pub(crate) fn metrics_url(&self, index: u8) -> String {
        format!("http://{}:2381", self.address(index))
    }

    /// Root of a machine: its data directory and journal.
    pub(crate) fn root(&self, index: u8) -> PathBuf {
        let root = self.directory.path().join(name(index));
        std::fs::create_dir_all(&root).expect("a directory");
        root
    }

    pub(crate) fn data_dir(&self, index: u8) -> PathBuf {
        self.root(index).join("var/lib/etcd")
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.directory.path().join("pki")
    }

    /// The machine, and the record of its join.
    pub(crate) fn node(&self, index: u8) -> Node {
        let root = self.root(index);
        let header =
            Header { node_name: name(index), endpoint: "https://192.0.2.1:6443".into(), arguments: "test".into() };
        let journal = Journal::open(&root, header).expect("a journal");
        Node::new(root.clone(), Arc::new(HostMachine::detect(&root)), Arc::new(journal))
    }

    pub(crate) fn credentials(&self) -> Credentials {
        let read = |name: &str| std::fs::read_to_string(self.pki().join("etcd").join(name)).expect("a file");
        let key = secrecy::SecretString::from(read("healthcheck-client.key"));
        Credentials::from_pem(&read("ca.crt"), &read("healthcheck-client.crt"), &key).expect("they fit")
    }

    /// Knows the members that run.
    pub(crate) fn client(&self) -> Client {
        let endpoints = self.members.borrow().iter().map(|running| self.client_url(running.index)).collect();
        self.client_of(endpoints)
    }

    pub(crate) fn client_of(&self, endpoints: Vec<String>) -> Client {
        Client::new(self.credentials(), endpoints).expect("an endpoint")
    }

    /// Starts a member with the arguments of kubeadm's manifest.
    pub(crate) fn start(&self, index: u8, state: &str, initial_cluster: &str) {
        self.start_advertising(index, state, initial_cluster, &self.client_url(index));
    }

    fn start_advertising(&self, index: u8, state: &str, initial_cluster: &str, client_url: &str) {
        let address = self.address(index).parse().expect("an address");
        let certificates = self.root(index).join("certificates");
        std::fs::create_dir_all(&certificates).expect("a directory");
        self.issue(&certificates.join("server"), Some(address));
        let log = File::options().create(true).append(true).open(self.log(index)).expect("a log");
        let path = |name: &str| certificates.join(name).display().to_string();
        let ca = self.pki().join("etcd/ca.crt").display().to_string();
        // Killed with this test, also where the test is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(binaries().join("etcd"))
            .arg(format!("--name={}", name(index)))
            .arg(format!("--data-dir={}", self.data_dir(index).display()))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-client-urls={}", self.client_url(index)))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer_url(index)))
            .arg(format!("--listen-peer-urls={}", self.peer_url(index)))
            .arg(format!("--listen-metrics-urls={}", self.metrics_url(index)))
            .arg(format!("--cert-file={}", path("server.crt")))
            .arg(format!("--key-file={}", path("server.key")))
            .arg(format!("--peer-cert-file={}", path("server.crt")))
            .arg(format!("--peer-key-file={}", path("server.key")))
            .arg(format!("--trusted-ca-file={ca}"))
            .arg(format!("--peer-trusted-ca-file={ca}"))
            .args(["--client-cert-auth=true", "--peer-client-cert-auth=true", "--snapshot-count=10000"])
            .args(["--feature-gates=InitialCorruptCheck=true", "--watch-progress-notify-interval=5s"])
            .arg(format!("--initial-cluster={initial_cluster}"))
            .arg(format!("--initial-cluster-state={state}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        self.members.borrow_mut().push(Running { index, process });
    }

    fn log(&self, index: u8) -> PathBuf {
        self.root(index).join("etcd.log")
    }

    /// The end of a member's log, for a test that fails.
    pub(crate) fn last_words(&self, index: u8) -> String {
        let text = std::fs::read_to_string(self.log(index)).unwrap_or_default();
        text.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    fn wait_until_up(&self, index: u8) {
        let started = Instant::now();
        while !self.etcdctl(index, &["endpoint", "health"]).status.success() {
            assert!(started.elapsed() < SOON, "{}", self.last_words(index));
            std::thread::sleep(INTERVAL);
        }
    }

    /// Adds a learner and starts it.
    pub(crate) async fn add_started(&self, index: u8) -> MemberId {
        let client = self.client();
        let (id, membership) = until(SOON, async || client.add_learner(&self.peer_url(index)).await.ok()).await;
        self.start(index, "existing", &initial_cluster(&membership, id, &name(index)));
        until(SOON, async || client.status(&self.client_url(index)).await.ok()).await;
        id
    }

    /// Starts a stopped member again from what it has.
    pub(crate) fn start_again(&self, index: u8) {
        self.start(index, "existing", &format!("{}={}", name(index), self.peer_url(index)));
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, index: u8) {
        let mut members = self.members.borrow_mut();
        let at = members.iter().position(|running| running.index == index).expect("it runs");
        let mut running = members.remove(at);
        running.process.kill().expect("it is killed");
        running.process.wait().expect("it is gone");
    }

    /// SIGKILL, if it runs.
    pub(crate) fn kill_if_running(&self, index: u8) {
        let running = self.members.borrow().iter().any(|running| running.index == index);
        if running {
            self.kill(index);
        }
    }

    /// The real `etcdctl` against one member.
    pub(crate) fn etcdctl(&self, index: u8, arguments: &[&str]) -> Output {
        let pki = self.pki().join("etcd");
        Command::new(binaries().join("etcdctl"))
            .arg(format!("--endpoints={}", self.client_url(index)))
            .arg(format!("--cacert={}", pki.join("ca.crt").display()))
            .arg(format!("--cert={}", pki.join("healthcheck-client.crt").display()))
            .arg(format!("--key={}", pki.join("healthcheck-client.key").display()))
            .args(["--dial-timeout=2s", "--command-timeout=20s"])
            .args(arguments)
            .output()
            .expect("etcdctl runs")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for running in self.members.get_mut() {
            // One that has ended is as good.
            let _ = running.process.kill();
            let _ = running.process.wait();
        }
    }
}

pub(crate) fn name(index: u8) -> String {
    format!("cp-{index}")
}

pub(crate) fn initial_cluster(membership: &Membership, own: MemberId, own_name: &str) -> String {
    let members = membership.members.iter();
    let name = |id, name: &str| if id == own { own_name.to_owned() } else { name.to_owned() };
    members
        .map(|member| format!("{}={}", name(member.id, &member.name), member.peer_urls[0]))
        .collect::<Vec<_>>()
        .join(",")
}

pub(crate) fn reporter() -> Reporter {
    Reporter::new(Format::Text, true)
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(timeout: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < timeout, "it did not happen within {timeout:?}");
        tokio::time::sleep(INTERVAL).await;
    }
}
