//! Discovery by a file: each kind of credential it may hold.

use crate::lab::{Worker, cluster, shared};

const FILE: &str = "/etc/test/discovery.conf";

/// A kubeconfig of this cluster with this user, a line of YAML.
fn kubeconfig(user: &str) -> String {
    let config = ["-n", "kube-public", "get", "configmap", "cluster-info", "-o", "jsonpath={.data.kubeconfig}"];
    let info = cluster().kubectl(&config).unwrap();
    let value = |key: &str| {
        let line = info.lines().find(|line| line.trim_start().starts_with(key)).unwrap();
        line.trim().to_owned()
    };
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: other
  cluster: {{server: 'https://192.0.2.254:6443'}}
- name: this
  cluster:
    {}
    {}
contexts:
- name: wrong
  context: {{cluster: other, user: me}}
- name: right
  context: {{cluster: this, user: me}}
current-context: right
users:
- name: me
  user: {user}
",
        value("certificate-authority-data:"),
        value("server:"),
    )
}

fn token() -> String {
    format!("abcdef.{}", crate::lab::token_secret())
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_file_with_a_token_is_enough() {
    let _shared = shared();
    let worker = Worker::add("by-token");
    worker.write(FILE, &kubeconfig(&format!("{{token: {}}}", token())));
    worker.join_with(&["--discovery-file", FILE, "--wait=registered"]).succeeds();
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_file_may_name_a_file_with_the_token() {
    let _shared = shared();
    for way in ["host", "kubelet"] {
        let worker = Worker::add(&format!("by-token-file-{way}"));
        worker.write("/etc/test/token", &format!("{}\n", token()));
        worker.write(FILE, &kubeconfig("{tokenFile: /etc/test/token}"));
        let way = ["--tls-bootstrap-by", way];
        worker.join_with(&[&["--discovery-file", FILE, "--wait=registered"], &way[..]].concat()).succeeds();
    }
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn an_administrators_file_with_a_client_certificate_is_enough() {
    let _shared = shared();
    let worker = Worker::add("by-certificate");
    worker.write(FILE, &cluster().run("n1", &["cat", mortise_cluster::ADMIN_CONFIG]).unwrap());
    worker.join_with(&["--discovery-file", FILE, "--wait=registered"]).succeeds();
    // The kubelet is the node, not the administrator.
    assert!(!worker.shell("cat /etc/kubernetes/kubelet.conf").contains("kubernetes-admin"));
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_file_without_a_credential_goes_with_a_token_for_tls_bootstrap() {
    let _shared = shared();
    let worker = Worker::add("by-both");
    worker.write(FILE, &kubeconfig("{}"));
    let failed = worker.join_with(&["--discovery-file", FILE]).fails();
    assert_eq!(failed.code, "discovery-no-credential", "{failed:?}");
    let token = token();
    worker.join_with(&["--discovery-file", FILE, "--tls-bootstrap-token", &token, "--wait=registered"]).succeeds();
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_configuration_for_kubeadm_works_as_it_is() {
    let _shared = shared();
    let worker = Worker::add("by-config");
    let line = cluster().join_line().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let config = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken:
    apiServerEndpoint: {}
    token: {}
    caCertHashes: [{}]
nodeRegistration:
  name: by-config
  kubeletExtraArgs:
  - name: node-labels
    value: mortise.dev/test=yes
  ignorePreflightErrors: [SystemVerification]
",
        words[2],
        words[4],
        words.last().unwrap()
    );
    worker.write("/etc/test/join.yaml", &config);
    worker.join_with(&["--config", "/etc/test/join.yaml", "--wait=registered"]).succeeds();
    let label = "jsonpath={.metadata.labels.mortise\\.dev/test}";
    assert_eq!(cluster().kubectl(&["get", "node", "by-config", "-o", label]).unwrap(), "yes");
}
