//! The requests and their answers, in the order of a join.

use http::Method;
use mortise::sandbox::client::Answer;
use serde_json::{Value, json};

use crate::report::Report;
use crate::server::{Server, Token, post, send};

mod node;
mod requests;
mod trust;

const KUBE_SYSTEM: &str = "/api/v1/namespaces/kube-system";

/// Asks everything and cleans up.
pub(crate) async fn run(server: &Server) -> Report {
    let mut report = Report::default();
    let token = Token::new();
    report.expect(
        "an administrator makes a token",
        &make_token(server, &token, json!({})).await,
        201,
        &json!({
            "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "metadata": {"namespace": "kube-system"},
        }),
    );
    trust::cluster_info(server, &token, &mut report).await;
    trust::tokens(server, &token, &mut report).await;
    trust::configuration(server, &token, &mut report).await;
    trust::paths(server, &token, &mut report).await;
    requests::refused_requests(server, &token, &mut report).await;
    requests::decided_requests(server, &token, &mut report).await;
    node::node(server, &token, &mut report).await;
    send(&server.admin, Method::DELETE, &token.path(), None).await;
    report
}

async fn make_token(server: &Server, token: &Token, changes: Value) -> Answer {
    post(&server.admin, &format!("{KUBE_SYSTEM}/secrets"), &token.secret(&changes)).await
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    })
}

fn forbidden(kind: &str, name: &str, message: &str) -> Value {
    let mut status = failure(403, "Forbidden", message);
    status["details"] = json!({"kind": kind});
    if !name.is_empty() {
        status["details"]["name"] = name.into();
    }
    status
}
