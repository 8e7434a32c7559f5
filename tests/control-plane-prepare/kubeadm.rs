//! The real `kubeadm join`, phase by phase, in a root directory of its own, against an API server that knows only what is
//! asked and a real etcd with one member.

use std::collections::BTreeMap;
use std::fs;
use std::io::Seek as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::api::{Api, config_map};
use super::case::{Case, SEED, document, refused};

const DISCOVERY: &str = "/discovery.conf";
const CONFIG: &str = "/join.yaml";
const PATCHES: &str = "/patches";
/// How long a step of a case may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Kubeadm {
    root: tempfile::TempDir,
    binaries: PathBuf,
    api: Api,
}

impl Kubeadm {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::getuid().is_root(), "a root directory of its own needs root: run `sudo make test`");
        let binaries = mortise_cluster::ensure_built(&|line| eprintln!("{line}")).unwrap().binaries();
        let root = tempfile::tempdir().unwrap();
        fs::copy(binaries.join("kubeadm"), root.path().join("kubeadm")).unwrap();
        Self { root, binaries, api: Api::start() }
    }

    /// What kubeadm writes for a case, in the form of `expected/`.
    pub(crate) fn prepare(&self, case: &Case, version: &str) -> String {
        self.lay_out(case, version);
        self.phase(case, "control-plane-prepare", &["certs"]);
        let certificates = match case.configuration(version)["certificatesDir"].as_str() {
            None | Some("") => "/etc/kubernetes/pki".to_owned(),
            Some(directory) => directory.to_owned(),
        };
        self.phase(case, "control-plane-prepare", &["kubeconfig"]);
        if case.without_ca_key {
            fs::remove_file(self.at(&format!("{certificates}/ca.key"))).unwrap();
        }
        let output = self.try_phase(case, "control-plane-prepare", &["control-plane"]);
        assert!(output.status.success() || !case.patches.is_empty(), "{}: {}", case.name, text(&output));
        let mut names = vec!["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        let etcd = case.has_etcd().then(|| self.join_etcd(case, &certificates));
        names.extend(etcd.iter().map(|_| "etcd"));
        let read = |name: &str| fs::read_to_string(self.at(&format!("/etc/kubernetes/manifests/{name}.yaml")));
        let mut written = String::new();
        for name in names {
            match read(name) {
                Ok(text) => written.push_str(&document(name, &in_order(&text))),
                // What follows a refused manifest is not written either.
                Err(_) if !case.patches.is_empty() => written.push_str(&refused(name)),
                Err(_) => {
                    panic!("{}: no {name}\n{}\n{}", case.name, text(&output), etcd.as_deref().unwrap_or_default())
                }
            }
        }
        written
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn lay_out(&self, case: &Case, version: &str) {
        for entry in fs::read_dir(self.root.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            }
        }
        for directory in case.directories.iter().map(String::as_str).chain(["/etc/kubernetes", "/tmp", PATCHES, "/dev"])
        {
            fs::create_dir_all(self.at(directory)).unwrap();
        }
        fs::write(self.at("/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        for (name, patch) in &case.patches {
            fs::write(self.at(PATCHES).join(name), patch).unwrap();
        }
        let server = format!("http://{}", self.api.address);
        fs::write(self.at(DISCOVERY), kubeconfig(&server)).unwrap();
        let join = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "JoinConfiguration",
            "discovery": {"file": {"kubeConfigPath": DISCOVERY}, "tlsBootstrapToken": "abcdef.0123456789abcdef"},
            "nodeRegistration": {"name": case.join.name, "criSocket": "unix:///run/containerd/containerd.sock"},
            "controlPlane": {"localAPIEndpoint": {
                "advertiseAddress": case.join.advertise_address,
                "bindPort": case.join.bind_port,
            }},
            "patches": {"directory": PATCHES},
            "timeouts": {
                "controlPlaneComponentHealthCheck": format!("{}s", case.join.health_check_seconds),
            },
        });
        fs::write(self.at(CONFIG), join.to_string()).unwrap();
        let kubelet = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"});
        self.api.serve(BTreeMap::from([
            config_map(
                "kube-system",
                "kubeadm-config",
                &json!({"ClusterConfiguration": case.configuration(version).to_string()}),
            ),
            config_map("kube-system", "kubelet-config", &json!({"kubelet": kubelet.to_string()})),
            config_map("kube-public", "cluster-info", &json!({"kubeconfig": kubeconfig(&server)})),
        ]));
    }

    /// Runs `etcd-join` up to the manifest; its output.
    fn join_etcd(&self, case: &Case, certificates: &str) -> String {
        let seed = Seed::start(&self.binaries.join("etcd"), &self.at(certificates));
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "etcd-seed",
                "namespace": "kube-system",
                "annotations": {"kubeadm.kubernetes.io/etcd.advertise-client-urls": seed.url},
            },
        });
        let mut objects = self.api.objects();
        objects.insert(
            "/api/v1/namespaces/kube-system/pods".into(),
            json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod]}),
        );
        self.api.serve(objects);
        fs::write(self.at("/etc/kubernetes/admin.conf"), kubeconfig(&format!("http://{}", self.api.address))).unwrap();
        let mut log = tempfile::tempfile().unwrap();
        let mut joining = self
            .kubeadm(case, "etcd-join", &[])
            .stdout(log.try_clone().unwrap())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap();
        let manifest = self.at("/etc/kubernetes/manifests/etcd.yaml");
        let deadline = Instant::now() + PATIENCE;
        // The new member never starts, so that nothing more comes of the join once the manifest is whole.
        while joining.try_wait().unwrap().is_none() {
            if fs::read_to_string(&manifest).is_ok_and(|text| text.ends_with("status: {}\n")) {
                joining.kill().unwrap();
                joining.wait().unwrap();
            }
            assert!(Instant::now() < deadline, "{}: kubeadm writes no etcd.yaml", case.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        log.rewind().unwrap();
        std::io::read_to_string(log).unwrap()
    }

    fn phase(&self, case: &Case, phase: &str, below: &[&str]) {
        let output = self.try_phase(case, phase, below);
        assert!(output.status.success(), "{}: {phase} {below:?}: {}", case.name, text(&output));
    }

    fn try_phase(&self, case: &Case, phase: &str, below: &[&str]) -> Output {
        self.kubeadm(case, phase, below).output().unwrap()
    }

    fn kubeadm(&self, case: &Case, phase: &str, below: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command
            .arg(self.root.path())
            .args(["/kubeadm", "join", "phase", phase])
            .args(below)
            .args(["--config", CONFIG, "--v=1"])
            .env_clear()
            .envs(&case.environment)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

/// The cluster's etcd before the join.
struct Seed {
    process: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Seed {
    fn start(etcd: &Path, certificates: &Path) -> Self {
        let data = tempfile::tempdir().unwrap();
        let [client, peer] = [free_port(), free_port()];
        let url = format!("https://127.0.0.1:{client}");
        let (name, advertised) = SEED.split_once('=').unwrap();
        let at = |name: &str| certificates.join("etcd").join(name);
        let process = Command::new(etcd)
            .args(["--name", name, "--initial-cluster", SEED, "--initial-advertise-peer-urls", advertised])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}"), "--strict-reconfig-check=false"])
            .arg("--data-dir")
            .arg(data.path())
            .arg("--cert-file")
            .arg(at("server.crt"))
            .arg("--key-file")
            .arg(at("server.key"))
            .arg("--trusted-ca-file")
            .arg(at("ca.crt"))
            .arg("--client-cert-auth")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let seed = Self { process, url, _data: data };
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", client)).is_err() {
            assert!(Instant::now() < deadline, "etcd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        seed
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// kubeadm wants a certificate in it; over plain HTTP nobody uses it.
fn kubeconfig(server: &str) -> String {
    static CERTIFICATE: LazyLock<String> = LazyLock::new(|| {
        let pem = rcgen::generate_simple_self_signed(["kubernetes".to_owned()]).unwrap().cert.pem();
        base64::engine::general_purpose::STANDARD.encode(pem)
    });
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority-data": &*CERTIFICATE}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
        "users": [{"name": "u", "user": {"token": "abcdef.0123456789abcdef"}}],
    });
    config.to_string()
}

/// Members come in the order of their ids, which are random; here the seed comes first.
fn in_order(manifest: &str) -> String {
    let mut lines = String::new();
    for line in manifest.split_inclusive('\n') {
        match line.trim_end().split_once("--initial-cluster=") {
            Some((before, members)) if members.ends_with(SEED) => {
                let other = members.trim_end_matches(SEED).trim_end_matches(',');
                lines.push_str(&format!("{before}--initial-cluster={SEED},{other}\n"));
            }
            _ => lines.push_str(line),
        }
    }
    lines
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
