//! What mortise asks of an API server, and what it must answer: one suite, run against the sandbox and against
//! kube-apiserver.
//!
//! The sandbox is right when both pass. kube-apiserver is reached from within a cluster's network only, so the second
//! test starts this program again on a node, where [`KUBECONFIG`] names an administrator's kubeconfig. That can be done
//! by hand, too, on a cluster that stays:
//!
//! ```text
//! mortise-cluster exec n1 -- env MORTISE_CONFORMANCE_KUBECONFIG=/etc/kubernetes/admin.conf \
//!     target/debug/deps/api_conformance-… --ignored
//! ```

use mortise_cluster::{ADMIN_CONFIG, Cluster, UpOptions};

use server::Server;

mod cases;
mod report;
mod server;

/// Names the kubeconfig of an administrator of the cluster to ask.
const KUBECONFIG: &str = "MORTISE_CONFORMANCE_KUBECONFIG";

#[tokio::test]
async fn the_sandbox_answers_as_the_api_server_does() {
    cases::run(&Server::sandbox()).await.assert_empty();
}

#[tokio::test]
#[ignore = "needs a cluster: root, 25 s, and 8 min for the first build"]
async fn the_api_server_answers_as_the_suite_says() {
    if let Ok(path) = std::env::var(KUBECONFIG) {
        cases::run(&Server::real(&path)).await.assert_empty();
        return;
    }
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    let node = cluster.control_plane().unwrap();
    let program = std::env::current_exe().unwrap();
    let kubeconfig = format!("{KUBECONFIG}={ADMIN_CONFIG}");
    let again = ["env", &kubeconfig, program.to_str().unwrap(), "--ignored"];
    let ended = cluster.exec(&node, &again).unwrap();
    cluster.down().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
}
