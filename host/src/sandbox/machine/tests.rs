use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::sandbox::client::{Client, Identity};
use crate::sandbox::control_plane::{Approval, ControlPlane, ControlPlaneOptions};
use crate::token::BootstrapToken;

const SERVER: &str = "https://api.sandbox.test:6443";
const CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nhealthzPort: 10248\n\
                      healthzBindAddress: 127.0.0.1\nclusterDNS: [10.96.0.10]\ncontainerRuntimeEndpoint: \
                      unix:///var/run/containerd/containerd.sock\nauthentication: {x509: {clientCAFile: \
                      /etc/kubernetes/pki/ca.crt}}\n";

/// A machine beside a cluster, with the files of a join by the kubelet.
struct Bench {
    plane: ControlPlane,
    root: tempfile::TempDir,
    machine: SimulatedMachine,
}

impl Bench {
    async fn new(approval: Approval) -> Self {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let mut options = ControlPlaneOptions::new(token.clone());
        options.approval = approval;
        let plane = ControlPlane::start(&options);
        let root = tempfile::tempdir().unwrap();
        let facts = crate::sandbox::facts::RecordedFacts::healthy_node();
        let spec = MachineSpec::ask(&facts).await;
        let machine = SimulatedMachine::new(root.path().to_owned(), spec, plane.dialer());
        let bench = Self { plane, root, machine };
        bench.write("/var/lib/kubelet/config.yaml", CONFIG);
        bench.write(
            "/var/lib/kubelet/kubeadm-flags.env",
            "KUBELET_KUBEADM_ARGS=\"--register-with-taints=a=b:NoExecute\"\n",
        );
        bench.write("/etc/kubernetes/pki/ca.crt", &bench.plane.ca_pem());
        bench.write(
            "/etc/kubernetes/bootstrap-kubelet.conf",
            &format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: k, cluster: {{server: '{SERVER}', \
                 certificate-authority-data: {}}}}}]\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\nusers: \
                 [{{name: u, user: {{token: {}}}}}]\n",
                STANDARD.encode(bench.plane.ca_pem()),
                token.expose_bearer()
            ),
        );
        bench
    }

    fn write(&self, path: &str, content: &str) {
        files::write(self.root.path(), path, content, 0o644).unwrap();
    }

    async fn restart(&self) {
        self.machine.unit(UnitAction::Restart, KUBELET).await.unwrap();
    }

    async fn log(&self) -> String {
        self.machine.unit_log(KUBELET, 50).await.join("\n")
    }

    /// Until the log has a line with this text.
    async fn wait_for_log(&self, text: &str) {
        self.wait_until(async || self.log().await.contains(text), text).await;
    }

    async fn wait_until(&self, seen: impl AsyncFn() -> bool, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !seen().await {
            assert!(Instant::now() < deadline, "no {what:?} in:\n{}", self.log().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn node(&self) -> serde_json::Value {
        let admin = self.plane.administrator();
        let identity = Identity::Certificate { certificate_pem: admin.certificate_pem, key_pem: admin.key_pem };
        let client = Client::new(self.plane.dialer(), SERVER, None, &self.plane.ca_pem(), &identity).unwrap();
        client.get("/api/v1/nodes/n2").await.unwrap().body
    }
}

#[tokio::test]
async fn a_kubelet_bootstraps_registers_and_is_ready() {
    let bench = Bench::new(Approval::Automatic).await;
    assert!(bench.machine.healthz("http://127.0.0.1:10248/healthz").await.is_err());
    bench.restart().await;
    bench.wait_for_log("Successfully registered node").await;
    assert_eq!(bench.machine.healthz("http://127.0.0.1:10248/healthz").await.unwrap(), 200);
    assert!(bench.machine.healthz("http://127.0.0.1:10249/healthz").await.is_err());
    let node = bench.node().await;
    assert_eq!(node["spec"]["taints"], serde_json::json!([{"effect": "NoExecute", "key": "a", "value": "b"}]));
    let current = bench.root.path().join("var/lib/kubelet/pki/kubelet-client-current.pem");
    assert!(std::fs::read_link(current).unwrap().starts_with("/var/lib/kubelet/pki"));
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    bench
        .wait_until(
            async || {
                bench.plane.traffic().requests.iter().any(|request| request.method == "POST" && request.path == lease)
            },
            "lease",
        )
        .await;
    // A restart goes on with the certificate that is there.
    std::fs::remove_file(bench.root.path().join("etc/kubernetes/bootstrap-kubelet.conf")).unwrap();
    bench.restart().await;
    bench
        .wait_until(async || bench.log().await.matches("Successfully registered node").count() == 2, "second start")
        .await;
}

#[tokio::test]
async fn a_wrong_file_keeps_the_kubelet_from_starting() {
    for (path, content, why) in [
        ("/var/lib/kubelet/config.yaml", "kind: Other\n", "no kind"),
        (
            "/var/lib/kubelet/kubeadm-flags.env",
            "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni\"\n",
            "unknown flag: --network-plugin",
        ),
        ("/etc/kubernetes/pki/ca.crt", "nothing", "unable to load client CA file"),
        (
            "/etc/kubernetes/bootstrap-kubelet.conf",
            "apiVersion: v1\nkind: Config\n",
            "unable to load bootstrap kubeconfig",
        ),
        (
            "/var/lib/kubelet/config.yaml",
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///nowhere.sock\n",
            "dial unix /nowhere.sock",
        ),
    ] {
        let bench = Bench::new(Approval::Automatic).await;
        bench.write(path, content);
        bench.restart().await;
        bench.wait_for_log(why).await;
        let restarts = || async { bench.machine.unit_state(KUBELET).await.unwrap().restarts };
        assert!(restarts().await >= Some(1), "{path}");
        assert!(bench.machine.healthz("http://127.0.0.1:10248/healthz").await.is_err());
    }
}

#[tokio::test]
async fn a_denied_request_is_told_in_the_log() {
    let deny = Approval::Deny { reason: "Policy".into(), message: "not in the inventory".into() };
    let bench = Bench::new(deny).await;
    bench.restart().await;
    bench.wait_for_log("not in the inventory").await;
    assert_eq!(bench.node().await["code"], 404);
}

#[tokio::test]
async fn units_that_do_not_exist_are_refused_as_by_systemctl() {
    let bench = Bench::new(Approval::Automatic).await;
    let error = bench.machine.unit(UnitAction::Stop, "firewalld").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot stop unit `firewalld`: Unit firewalld.service not found.");
    assert!(!bench.machine.unit_state("firewalld").await.unwrap().exists);
}
