//! What mortise asks of an API server, and what it must answer: one suite, run against the sandbox and against
//! kube-apiserver.
//!
//! The sandbox is right when both pass. A real cluster is named by the kubeconfig of an administrator:
//!
//! ```text
//! mortise-cluster up --name conf
//! mortise-cluster exec --name conf n1 -- env MORTISE_CONFORMANCE_KUBECONFIG=/etc/kubernetes/admin.conf \
//!     target/debug/deps/api_conformance-… --ignored
//! mortise-cluster down --name conf
//! ```

mod cases;
mod report;
mod server;

use server::Server;

#[tokio::test]
async fn the_sandbox_answers_as_the_api_server_does() {
    cases::run(&Server::sandbox()).await.assert_empty();
}

#[tokio::test]
#[ignore = "needs a cluster: MORTISE_CONFORMANCE_KUBECONFIG names an administrator's kubeconfig"]
async fn the_api_server_answers_as_the_suite_says() {
    let path = std::env::var("MORTISE_CONFORMANCE_KUBECONFIG").expect("MORTISE_CONFORMANCE_KUBECONFIG is set");
    cases::run(&Server::real(&path)).await.assert_empty();
}
