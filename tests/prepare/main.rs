//! What mortise prepares for a control plane beside what the real kubeadm does, file by file and field by field.
//!
//! For each configuration the CAs are kubeadm's own, served encrypted in Secret `kubeadm-certs`; `kubeadm join phase
//! control-plane-prepare` runs in one directory (its `--rootfs`), mortise's phases in another. Neither asks for more than
//! `server` answers. Then each goes over the other's files, and must find nothing to do.

mod certificate;
mod configurations;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use certificate::{Expected, Runs, compare};
use configurations::{CONFIGURATIONS, Configuration};
use mortise::cli::Command as CliCommand;
use mortise::config::Environment;
use mortise::error::Failure;
use mortise::join::JoinContext;
use mortise::join::control_plane::configuration::ControlPlaneConfiguration;
use mortise::join::control_plane::{LocalNode, certs, download_certs, kubeconfig};
use mortise::journal::{Header, Journal};
use mortise::node::{HostMachine, Node};
use mortise::output::{Format, Reporter};
use mortise::pki::CertificateKey;
use serde_json::{Value, json};
use server::Server;
use tempfile::TempDir;

/// Name of the machine that joins.
const NAME: &str = "n2";
const PORT: u16 = 6443;
const CERTIFICATE_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const KUBERNETES: &str = "etc/kubernetes";

/// What is in the Secret, and the files that it is for.
const SHARED: [(&str, &str); 8] = [
    ("ca.crt", "ca.crt"),
    ("ca.key", "ca.key"),
    ("front-proxy-ca.crt", "front-proxy-ca.crt"),
    ("front-proxy-ca.key", "front-proxy-ca.key"),
    ("sa.pub", "sa.pub"),
    ("sa.key", "sa.key"),
    ("etcd-ca.crt", "etcd/ca.crt"),
    ("etcd-ca.key", "etcd/ca.key"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster: the real kubeadm, and root for its --rootfs"]
async fn certificates_and_kubeconfigs_are_those_of_kubeadm() {
    for configuration in CONFIGURATIONS {
        let started = Instant::now();
        Comparison::prepare(configuration).await.run().await;
        eprintln!("{}: the same ({:.1} s)", configuration.name, started.elapsed().as_secs_f64());
    }
}

/// What is done to what stands there, and whether both, or only kubeadm, then go on.
type Spoil = (&'static str, Verdict, fn(&Path));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    BothGoOn,
    BothStop,
    /// On purpose: kubeadm's control plane would not work.
    KubeadmGoesOn,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster: the real kubeadm, and root for its --rootfs"]
async fn what_is_there_already_is_judged_as_kubeadm_judges_it() {
    use Verdict::{BothGoOn, BothStop, KubeadmGoesOn};
    fn remove(root: &Path, names: &[&str]) {
        names.iter().for_each(|name| fs::remove_file(root.join(KUBERNETES).join(name)).unwrap());
    }
    fn copy(root: &Path, from: &str, to: &str) {
        fs::copy(root.join(KUBERNETES).join(from), root.join(KUBERNETES).join(to)).unwrap();
    }
    fn write(root: &Path, name: &str, content: &str) {
        fs::write(root.join(KUBERNETES).join(name), content).unwrap();
    }
    let cases: [Spoil; 18] = [
        ("nothing", BothGoOn, |_| {}),
        ("a pair is gone", BothGoOn, |root| remove(root, &["pki/apiserver.crt", "pki/apiserver.key"])),
        ("a kubeconfig is gone", BothGoOn, |root| remove(root, &["admin.conf"])),
        ("a certificate is gone", BothStop, |root| remove(root, &["pki/apiserver.crt"])),
        ("a key is gone", BothStop, |root| remove(root, &["pki/etcd/peer.key"])),
        ("a key is none", BothStop, |root| write(root, "pki/etcd/peer.key", "none")),
        ("a certificate is none", BothStop, |root| write(root, "pki/etcd/peer.crt", "none")),
        ("a certificate of another CA", BothStop, |root| {
            copy(root, "pki/front-proxy-client.crt", "pki/apiserver-etcd-client.crt");
        }),
        ("a certificate without the names", BothStop, |root| {
            copy(root, "pki/apiserver-kubelet-client.crt", "pki/apiserver.crt");
            copy(root, "pki/apiserver-kubelet-client.key", "pki/apiserver.key");
        }),
        ("a client's certificate for another client", BothGoOn, |root| {
            copy(root, "pki/etcd/healthcheck-client.crt", "pki/apiserver-etcd-client.crt");
            copy(root, "pki/etcd/healthcheck-client.key", "pki/apiserver-etcd-client.key");
        }),
        ("the key of another certificate", KubeadmGoesOn, |root| {
            copy(root, "pki/etcd/healthcheck-client.key", "pki/apiserver-etcd-client.key");
        }),
        ("the CA's key is elsewhere", BothGoOn, |root| remove(root, &["pki/ca.key", "pki/etcd/ca.key"])),
        ("the CA's key is elsewhere, and a pair is gone", BothStop, |root| {
            remove(root, &["pki/etcd/ca.key", "pki/etcd/server.crt", "pki/etcd/server.key"]);
        }),
        ("the CA's key is none", BothGoOn, |root| write(root, "pki/front-proxy-ca.key", "none")),
        ("the CA's certificate is none", BothStop, |root| write(root, "pki/front-proxy-ca.crt", "none")),
        ("the CA is none", BothStop, |root| copy(root, "pki/apiserver.crt", "pki/ca.crt")),
        ("a CA is gone with all that it signed", KubeadmGoesOn, |root| {
            let front_proxy =
                ["front-proxy-ca.crt", "front-proxy-ca.key", "front-proxy-client.crt", "front-proxy-client.key"];
            remove(root, &front_proxy.map(|name| format!("pki/{name}")).each_ref().map(String::as_str));
        }),
        ("the service account key is gone", KubeadmGoesOn, |root| remove(root, &["pki/sa.key", "pki/sa.pub"])),
    ];
    let configuration = &CONFIGURATIONS[1];
    for (name, verdict, spoil) in cases {
        let comparison = Comparison::prepare(configuration).await;
        for root in [comparison.kubeadm.path(), comparison.mortise.path()] {
            comparison.by_mortise(root).await;
            // With its record, mortise would go on with what it made itself.
            fs::remove_dir_all(root.join("var/lib/mortise")).unwrap();
            spoil(root);
        }
        let theirs = ["certs", "kubeconfig"].map(|phase| comparison.try_kubeadm(phase, comparison.kubeadm.path()));
        let theirs = theirs.into_iter().collect::<Result<Vec<_>, _>>();
        let ours = comparison.issue_by_mortise(comparison.mortise.path()).await;
        let seen = (theirs.is_ok(), ours.is_ok());
        let wanted = match verdict {
            BothGoOn => (true, true),
            BothStop => (false, false),
            KubeadmGoesOn => (true, false),
        };
        assert_eq!(seen, wanted, "{name}: {theirs:?} {ours:?}");
        eprintln!("{name}: {verdict:?}; {}", ours.err().map(|failure| failure.message()).unwrap_or_default());
    }
}

/// One configuration, prepared by both.
struct Comparison {
    configuration: &'static Configuration,
    server: Server,
    kubeadm: TempDir,
    mortise: TempDir,
}

impl Comparison {
    async fn prepare(configuration: &'static Configuration) -> Self {
        let (kubeadm, mortise) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shared = tempfile::tempdir().unwrap();
        make_shared(shared.path(), configuration.ca_algorithm);
        let server = Server::start(configuration.cluster.to_owned(), sealed(shared.path(), configuration)).await;
        for root in [kubeadm.path(), mortise.path()] {
            fs::write(root.join("discovery.conf"), server.discovery_file()).unwrap();
            fs::write(root.join("join.json"), join_configuration(configuration).to_string()).unwrap();
        }
        Self { configuration, server, kubeadm, mortise }
    }

    async fn run(&self) {
        let name = self.configuration.name;
        let (first, started) = (now_seconds(), Instant::now());
        for phase in ["download-certs", "certs", "kubeconfig"] {
            self.by_kubeadm(phase, self.kubeadm.path());
        }
        let by_kubeadm = started.elapsed();
        let (second, started) = (now_seconds(), Instant::now());
        self.by_mortise(self.mortise.path()).await;
        let by_mortise = started.elapsed();
        let validity_seconds = self.parsed().certificate_validity_period.as_secs().try_into().unwrap();
        let runs = Runs { theirs: (first, second), ours: (second, now_seconds()), validity_seconds };
        eprintln!("{name}: {:.3} s by kubeadm, {:.3} s by mortise", by_kubeadm.as_secs_f64(), by_mortise.as_secs_f64());

        let (theirs, ours) = (files(self.kubeadm.path()), files(self.mortise.path()));
        let paths = |files: &BTreeMap<PathBuf, (u32, Vec<u8>)>| {
            files.iter().map(|(path, (mode, _))| format!("{mode:04o} {}", path.display())).collect::<Vec<_>>()
        };
        assert_eq!(paths(&ours), paths(&theirs), "{name}");
        assert!(ours.len() >= 10, "{name}: {:#?}", paths(&ours));
        let ca = mortise::pki::Certificate::parse_pem(&ours[&self.pki().join("ca.crt")].1).unwrap();
        let ca_start = ca[0].not_before;
        for (path, (_, content)) in &ours {
            let expected = if path.extension().is_some_and(|extension| extension == "conf") {
                Expected::Kubeconfig { ca_start }
            } else {
                Expected::Pem
            };
            let differences = compare(&theirs[path].1, content, expected, &runs);
            assert!(differences.is_empty(), "{name}: {}: {differences:#?}", path.display());
        }
        self.verify_by_openssl(&ours);

        // Each takes the other's files for its own.
        for phase in ["certs", "kubeconfig"] {
            let output = self.by_kubeadm(phase, self.mortise.path());
            assert!(!output.contains("Generating \"") && !output.contains("Writing \""), "{name}: {output}");
        }
        self.by_mortise(self.kubeadm.path()).await;
        assert_eq!(files(self.mortise.path()), ours, "{name}");
        assert_eq!(files(self.kubeadm.path()), theirs, "{name}");
        if self.configuration.valid {
            self.renew();
        }
    }

    fn by_kubeadm(&self, phase: &str, root: &Path) -> String {
        self.try_kubeadm(phase, root).unwrap_or_else(|text| panic!("{}: {phase}: {text}", self.configuration.name))
    }

    fn try_kubeadm(&self, phase: &str, root: &Path) -> Result<String, String> {
        try_kubeadm(root, &["join", "phase", "control-plane-prepare", phase, "--config", "/join.json"])
    }

    async fn by_mortise(&self, root: &Path) {
        let key: CertificateKey = CERTIFICATE_KEY.parse().unwrap();
        download_certs::run(&self.server.access(), &self.parsed(), &key, &context(root)).await.unwrap();
        self.issue_by_mortise(root).await.unwrap();
    }

    async fn issue_by_mortise(&self, root: &Path) -> Result<(), Failure> {
        let local = LocalNode {
            name: NAME.into(),
            advertise_address: self.configuration.address.parse().unwrap(),
            bind_port: PORT,
        };
        let cx = context(root);
        let mut keys = mortise::join::control_plane::keys_ahead::Keys::default();
        certs::write(&self.parsed(), &local, &mut keys, &cx).await?;
        kubeconfig::write(&self.parsed(), &local, &mut keys, &cx).await?;
        Ok(())
    }

    /// The certificates' directory, below that of Kubernetes.
    fn pki(&self) -> PathBuf {
        let directory = self.parsed().certificates_dir;
        Path::new(&directory).strip_prefix(Path::new("/").join(KUBERNETES)).unwrap().to_owned()
    }

    fn parsed(&self) -> ControlPlaneConfiguration {
        serde_saphyr::from_str(self.configuration.cluster).unwrap()
    }

    /// Every leaf by its CA, by an implementation that is neither's.
    fn verify_by_openssl(&self, files: &BTreeMap<PathBuf, (u32, Vec<u8>)>) {
        let pki = self.mortise.path().join(KUBERNETES).join(self.pki());
        for path in files.keys().filter(|path| path.extension().is_some_and(|extension| extension == "crt")) {
            let path = path.strip_prefix(self.pki()).unwrap();
            let ca = match path.to_str().unwrap() {
                "front-proxy-client.crt" | "front-proxy-ca.crt" => "front-proxy-ca.crt",
                "apiserver-etcd-client.crt" => "etcd/ca.crt",
                text if text.starts_with("etcd/") => "etcd/ca.crt",
                "external.crt" | "external-ca.crt" => continue,
                _ => "ca.crt",
            };
            let verified = Command::new("openssl")
                .args(["verify", "-CAfile"])
                .arg(pki.join(ca))
                .arg(pki.join(path))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&verified.stderr);
            assert!(verified.status.success(), "{}: {}: {text}", self.configuration.name, path.display());
        }
    }

    /// kubeadm's own upkeep of what mortise wrote.
    fn renew(&self) {
        let root = self.mortise.path();
        let before = files(root);
        fs::write(root.join("init.json"), self.init_configuration()).unwrap();
        let output = kubeadm(root, &["certs", "check-expiration", "--config", "/init.json"]);
        assert!(output.contains("admin.conf"), "{output}");
        kubeadm(root, &["certs", "renew", "all", "--config", "/init.json"]);
        let after = files(root);
        let pki = self.pki();
        let certificates = ["apiserver.crt", "front-proxy-client.crt"].map(|name| pki.join(name));
        for file in certificates.into_iter().chain(["admin.conf", "scheduler.conf"].map(PathBuf::from)) {
            assert_ne!(before[&file], after[&file], "{}: {}", self.configuration.name, file.display());
        }
    }

    fn init_configuration(&self) -> String {
        let init = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": self.configuration.address, "bindPort": PORT},
            "nodeRegistration": {"name": NAME, "criSocket": "unix:///run/none.sock"},
        });
        format!("{init}\n---\n{}", self.configuration.cluster)
    }
}

/// Runs kubeadm with this root; what it printed.
fn kubeadm(root: &Path, arguments: &[&str]) -> String {
    try_kubeadm(root, arguments).unwrap_or_else(|text| panic!("kubeadm {arguments:?}: {text}"))
}

fn try_kubeadm(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let binaries = mortise_cluster::ensure_built(&|line| eprintln!("{line}")).unwrap().binaries();
    let output = Command::new(binaries.join("kubeadm")).args(arguments).arg("--rootfs").arg(root).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// What a first control plane has, made by kubeadm.
fn make_shared(directory: &Path, algorithm: &str) {
    let cluster = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "kubernetesVersion": "v1.37.2",
        "certificatesDir": "/pki", "encryptionAlgorithm": algorithm,
    });
    fs::write(directory.join("init.json"), cluster.to_string()).unwrap();
    for phase in ["ca", "front-proxy-ca", "etcd-ca", "sa"] {
        kubeadm(directory, &["init", "phase", "certs", phase, "--config", "/init.json"]);
    }
}

/// The entries of Secret `kubeadm-certs`, as `kubeadm init phase upload-certs` seals them.
fn sealed(shared: &Path, configuration: &Configuration) -> Value {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use base64::Engine as _;
    let key: Vec<u8> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(&CERTIFICATE_KEY[at..at + 2], 16).unwrap()).collect();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let external = [
        ("external-etcd-ca.crt", "etcd/ca.crt"),
        ("external-etcd.crt", "etcd/ca.crt"),
        ("external-etcd.key", "etcd/ca.key"),
    ];
    let entries: &[_] =
        if configuration.cluster.contains("external:") { &[&SHARED[..6], &external].concat() } else { &SHARED };
    let mut data = serde_json::Map::new();
    for (entry, file) in entries {
        let mut content = fs::read(shared.join("pki").join(file)).unwrap();
        let mut nonce = [0; 12];
        aws_lc_rs::rand::fill(&mut nonce).unwrap();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut content).unwrap();
        let sealed = [&nonce[..], &content].concat();
        data.insert((*entry).to_owned(), base64::engine::general_purpose::STANDARD.encode(sealed).into());
    }
    data.into()
}

fn join_configuration(configuration: &Configuration) -> Value {
    json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "JoinConfiguration",
        "discovery": {"file": {"kubeConfigPath": "/discovery.conf"}},
        "nodeRegistration": {"name": NAME, "criSocket": "unix:///run/none.sock"},
        "controlPlane": {
            "localAPIEndpoint": {"advertiseAddress": configuration.address, "bindPort": PORT},
            "certificateKey": CERTIFICATE_KEY,
        },
        "timeouts": {"discovery": "20s", "kubernetesAPICall": "10s"},
    })
}

/// A machine in this directory, as the phases get it. The flags do not matter to them.
fn context(root: &Path) -> JoinContext {
    let line = [
        "mortise",
        "join",
        "cp.example:6443",
        "--token",
        server::TOKEN,
        "--discovery-token-unsafe-skip-ca-verification",
    ];
    let cli = mortise::cli::parse(line.map(Into::into)).unwrap();
    let CliCommand::Join(command) = cli.command else { panic!("it is a join") };
    let (settings, _) =
        mortise::config::join_settings(&command.0, &Environment::default(), NAME, root.to_owned()).unwrap();
    let machine = Arc::new(HostMachine::detect(root));
    let journal = Journal::open(root, Header::of(&settings)).unwrap();
    JoinContext {
        settings: Arc::new(settings),
        node: Node::new(root.to_owned(), machine, Arc::new(journal)),
        reporter: Reporter::new(Format::Text, true),
        dialer: mortise::api::Dialer::Tcp,
    }
}

/// What stands below `/etc/kubernetes`: mode and content of files, mode of directories.
fn files(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let top = root.join(KUBERNETES);
    let mut all = BTreeMap::new();
    let mut open = vec![top.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::metadata(&path).unwrap();
            let content = if metadata.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            all.insert(path.strip_prefix(&top).unwrap().to_owned(), (metadata.permissions().mode() & 0o7777, content));
            if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    all
}

fn now_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}
