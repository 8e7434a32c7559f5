//! Less common ways for a control plane to join: cluster-info closed, approval by hand, a kubelet that is called otherwise,
//! has credentials already or is too new for the API server, and a cluster without a binding that kubeadm makes today.
//!
//! One cluster that grows serves all; each test changes it for everybody, so that they go one after the other.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use mortise_cluster::{ADMIN_CONFIG, Cluster, IGNORED_PREFLIGHT_ERRORS, UpOptions};

use crate::lab::{self, text};

const MORTISE: &str = env!("CARGO_BIN_EXE_mortise");
const AUTO_APPROVAL: &str = "kubeadm:node-autoapprove-bootstrap";
const KUBELET_CLIENT: &str = "kubeadm:apiserver-kubelet-client";
const CLUSTER_INFO: &str = "kubeadm:bootstrap-signer-clusterinfo";

/// The cluster, and no other test in it.
fn alone() -> (&'static Cluster, MutexGuard<'static, ()>) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (CLUSTER.get_or_init(|| Cluster::up(&UpOptions::default()).unwrap()), turn)
}

/// `mortise join` with a configuration file, to be run or watched.
fn join_by(cluster: &Cluster, node: &str, config: &str) -> Command {
    let ignore = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
    cluster.command(node, &[MORTISE, "join", "--config", config, &ignore])
}

#[test]
#[ignore = "needs a cluster: root, 40 s"]
fn a_renamed_kubelet_joins_by_a_file_where_cluster_info_is_closed_and_people_approve() {
    let (cluster, _turn) = alone();
    let line = cluster.control_plane_join_line().unwrap();
    cluster.add("by-hand").unwrap();
    let config = ["-n", "kube-public", "get", "configmap", "cluster-info", "-o", "jsonpath={.data.kubeconfig}"];
    let info = cluster.kubectl(&config).unwrap();
    lab::write(cluster, "by-hand", "/etc/test/discovery.conf", &info);
    let join = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  file: {{kubeConfigPath: /etc/test/discovery.conf}}
  tlsBootstrapToken: {}
controlPlane: {{certificateKey: {}}}
nodeRegistration:
  kubeletExtraArgs: [{{name: hostname-override, value: renamed}}]
",
        lab::after(&line, "--token"),
        lab::after(&line, "--certificate-key")
    );
    lab::write(cluster, "by-hand", "/etc/test/join.yaml", &join);
    cluster.kubectl(&["-n", "kube-public", "delete", "rolebinding", CLUSTER_INFO]).unwrap();
    cluster.kubectl(&["delete", "clusterrolebinding", AUTO_APPROVAL]).unwrap();

    let mut join = join_by(cluster, "by-hand", "/etc/test/join.yaml");
    let mut join = join.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(join.stderr.take().unwrap());
    let mut seen = String::new();
    let request = loop {
        let begun = seen.len();
        assert_ne!(lines.read_line(&mut seen).unwrap(), 0, "it ended without a request:\n{seen}");
        if let Some((_, rest)) = seen[begun..].split_once("kubectl certificate approve ") {
            break rest.split([' ', '`', '\n', '"']).next().unwrap().to_owned();
        }
    };
    cluster.kubectl(&["certificate", "approve", &request]).unwrap();
    lines.read_to_string(&mut seen).unwrap();
    let output = Output { stderr: seen.into_bytes(), ..join.wait_with_output().unwrap() };

    let undo = ["--role=kubeadm:bootstrap-signer-clusterinfo", "--user=system:anonymous"];
    cluster.kubectl(&[&["-n", "kube-public", "create", "rolebinding", CLUSTER_INFO][..], &undo].concat()).unwrap();
    let undo = [
        "--clusterrole=system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "--group=system:bootstrappers:kubeadm:default-node-token",
    ];
    cluster.kubectl(&[&["create", "clusterrolebinding", AUTO_APPROVAL][..], &undo].concat()).unwrap();
    lab::is_whole(cluster, "renamed", &output);
    let address = cluster.nodes().unwrap().into_iter().find(|found| found.name == "by-hand").unwrap().address;
    let server = format!("--server=https://{address}:6443");
    cluster.run("by-hand", &["kubectl", "--kubeconfig", ADMIN_CONFIG, &server, "get", "node", "renamed"]).unwrap();
    assert_eq!(lab::members(cluster, "by-hand").1, 0, "no learner is left");
}

#[test]
#[ignore = "needs a cluster: root, 40 s"]
fn credentials_that_the_kubelet_has_already_stay_as_they_are() {
    let (cluster, _turn) = alone();
    cluster.add("has-credentials").unwrap();
    // As an operator's own PKI would make them.
    let script = "set -e; cd \"$(mktemp -d)\"; openssl ecparam -genkey -name prime256v1 -noout -out key; \
                  openssl req -new -key key -subj '/O=system:nodes/CN=system:node:has-credentials' -out request 2>/dev/null; \
                  printf 'extendedKeyUsage=clientAuth\n' > extensions; \
                  openssl x509 -req -in request -CA /etc/kubernetes/pki/ca.crt -CAkey /etc/kubernetes/pki/ca.key \
                  -CAcreateserial -CAserial serial -days 2 -extfile extensions 2>/dev/null; cat key";
    let pair = cluster.run("n1", &["bash", "-c", script]).unwrap();
    lab::write(cluster, "has-credentials", "/etc/test/pair.pem", &pair);
    let config = ["-n", "kube-public", "get", "configmap", "cluster-info", "-o", "jsonpath={.data.kubeconfig}"];
    let info = cluster.kubectl(&config).unwrap();
    let value = |key: &str| info.lines().find(|line| line.trim_start().starts_with(key)).unwrap().trim().to_owned();
    let kubeconfig = format!(
        "apiVersion: v1
kind: Config
clusters:
- name: c
  cluster:
    {}
    {}
contexts:
- name: c
  context: {{cluster: c, user: u}}
current-context: c
users:
- name: u
  user: {{client-certificate: /etc/test/pair.pem, client-key: /etc/test/pair.pem}}
",
        value("certificate-authority-data:"),
        value("server:"),
    );
    lab::write(cluster, "has-credentials", "/etc/kubernetes/kubelet.conf", &kubeconfig);
    let ignore = "--ignore-preflight-errors=FileAvailable--etc-kubernetes-kubelet.conf";
    let output = lab::try_mortise(cluster, "has-credentials", &[ignore]);
    lab::is_whole(cluster, "has-credentials", &output);
    let there = text(&cluster.read("has-credentials", "/etc/kubernetes/kubelet.conf").unwrap());
    assert_eq!(there, kubeconfig);
    let requests = cluster.kubectl(&["get", "csr", "-o", "jsonpath={.items[*].spec.request}"]).unwrap();
    let asked = requests.split(' ').filter(|request| {
        use base64::Engine as _;
        let pem = base64::engine::general_purpose::STANDARD.decode(request).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        pem.contents.windows(15).any(|window| window == b"has-credentials")
    });
    assert_eq!(asked.count(), 0, "no certificate was asked for");
    lab::answers_alone(cluster, "has-credentials");
}

#[test]
#[ignore = "needs a cluster: root, 50 s"]
fn a_kubelet_too_new_for_the_server_works_with_its_own_and_a_missing_binding_is_told() {
    let (cluster, _turn) = alone();
    // What unit tests script is what a real server answers.
    let version: serde_json::Value =
        serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/version"]).unwrap()).unwrap();
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.37."), "{version}");

    let node = "too-new";
    cluster.add(node).unwrap();
    lab::write(cluster, node, "/etc/test/bin/kubelet", "#!/bin/sh\necho Kubernetes v1.38.0\n");
    cluster.run(node, &["chmod", "755", "/etc/test/bin/kubelet"]).unwrap();
    let line = cluster.control_plane_join_line().unwrap();
    let join = |ignored: &str| {
        let ignore = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS},{ignored}");
        let script = format!("PATH=/etc/test/bin:$PATH exec {MORTISE} \"$@\"");
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let argv = [&["bash", "-c", &script, "bash"][..], &words, &[&ignore]].concat();
        cluster.exec(node, &argv).unwrap()
    };
    let refused = join("Mem");
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("[ERROR KubeletVersion]") && told.contains("v1.38.0"), "{told}");

    cluster.kubectl(&["delete", "clusterrolebinding", KUBELET_CLIENT]).unwrap();
    let joined = join("KubeletVersion");
    lab::is_whole(cluster, node, &joined);
    let told = text(&joined.stderr);
    let at = |words: &str| told.find(words).unwrap_or_else(|| panic!("no `{words}` in\n{told}"));
    assert!(at("works with this machine's own from the start") < at("[kubelet-start] start the kubelet"), "{told}");
    let pointed = at("[kubelet-start] let the kubelet work with the local API server");
    assert!(pointed < at("[kubelet-start] start the kubelet") && pointed < at("add a learner"), "{told}");

    // Without the binding that this API server's certificate needs, and with what the warning says.
    let address = cluster.nodes().unwrap().into_iter().find(|found| found.name == node).unwrap().address;
    let server = format!("--server=https://{address}:6443");
    let pod = format!("etcd-{node}");
    let logs = ["kubectl", "--kubeconfig", ADMIN_CONFIG, &server, "-n", "kube-system", "logs", "--tail=1", &pod];
    let refused = format!("{:#}", cluster.run(node, &logs).unwrap_err());
    assert!(refused.contains("Forbidden"), "{refused}");
    let command = told.split('`').find(|word| word.starts_with("kubectl create clusterrolebinding")).unwrap();
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    cluster.kubectl(&words).unwrap();
    lab::wait_until("logs through the new API server", lab::SOON, || {
        cluster.run(node, &logs).map(drop).map_err(|error| format!("{error:#}"))
    });
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_machine_whose_own_name_does_not_resolve_is_told_so_and_its_kubelet_does_not_ask_for_it() {
    let (cluster, _turn) = alone();
    let node = "unnamed";
    let address = cluster.add(node).unwrap().address.to_string();
    // Nobody has that address.
    let forget = "echo nameserver 192.0.2.250 > /etc/resolv.conf; hosts=$(grep -v ' unnamed$' /etc/hosts); \
                  echo \"$hosts\" > /etc/hosts";
    cluster.run(node, &["bash", "-c", forget]).unwrap();
    let line = cluster.control_plane_join_line().unwrap();
    let ignore = format!("--ignore-preflight-errors={IGNORED_PREFLIGHT_ERRORS}");
    let words = [&[MORTISE], &line.split(' ').skip(1).collect::<Vec<_>>()[..], &[ignore.as_str()]].concat();
    let mut join = cluster.command(node, &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(join.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("[kubelet-start] start the kubelet: ") {
        assert_ne!(lines.read_line(&mut seen).unwrap(), 0, "it ended before the kubelet started:\n{seen}");
    }
    let flags = || text(&cluster.read(node, "/var/lib/kubelet/kubeadm-flags.env").unwrap());
    let first = flags();
    lines.read_to_string(&mut seen).unwrap();
    let output = Output { stderr: seen.clone().into_bytes(), ..join.wait_with_output().unwrap() };
    lab::is_whole(cluster, node, &output);
    assert!(seen.contains("[WARNING Hostname]: hostname \"unnamed\" could not be reached"), "{seen}");
    assert!(first.contains(&format!("--node-ip={address}")), "{first}");
    // As kubeadm leaves it, and with the address that it had before.
    assert_eq!(flags(), "KUBELET_KUBEADM_ARGS=\"\"\n");
    let internal = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    assert_eq!(cluster.kubectl(&["get", "node", node, "-o", internal]).unwrap(), address);
}
