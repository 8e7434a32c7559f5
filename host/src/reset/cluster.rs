//! Tells the cluster that its Node is going: the last use of the node's own certificate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;
use zeroize::Zeroizing;

use crate::api::{self, Dialer, Identity, Server, Trust};
use crate::join::tls_bootstrap::KUBELET_CONF;
use crate::kubeconfig::Kubeconfig;
use crate::node::Journalless;
use crate::pki::Certificate;

/// A cluster that is gone must not hold up a reset.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A kubeconfig has some 5 KiB.
const LIMIT_BYTES: u64 = 1 << 20;
/// User name prefix of nodes.
const NODE_USER_PREFIX: &str = "system:node:";

/// Sets the Node's Ready condition to False; the Node's name. The Node stays: its certificate may not delete it.
///
/// # Errors
///
/// A line for a person: whatever fails here is no reason to keep the machine joined.
pub(super) async fn mark_not_ready(files: &Journalless, dialer: &Dialer) -> Result<String, String> {
    let attempt = tokio::time::timeout(TIMEOUT, patch(files, dialer)).await;
    attempt.unwrap_or_else(|_| Err(format!("the API server did not answer within {} s", TIMEOUT.as_secs())))
}

async fn patch(files: &Journalless, dialer: &Dialer) -> Result<String, String> {
    let (server, identity, name) = credentials(files, dialer)?;
    let now = Timestamp::now();
    let condition = json!({
        "type": "Ready",
        "status": "False",
        "reason": "NodeReset",
        "message": "mortise reset undid the join of this machine",
        "lastHeartbeatTime": format!("{now:.0}"),
        "lastTransitionTime": format!("{now:.0}"),
    });
    let body = json!({ "status": { "conditions": [condition] } }).to_string();
    let request = http::Request::patch(format!("/api/v1/nodes/{name}/status"))
        .header(http::header::CONTENT_TYPE, "application/strategic-merge-patch+json")
        .body(body.into_bytes());
    let request = request.map_err(|_| "the Node's name cannot be part of a URL".to_owned())?;
    let client = server.client(&identity).map_err(|error| error.to_string())?;
    api::ask_text(&client, Ok(request)).await.map_err(|error| error.to_string())?;
    Ok(name)
}

fn credentials(files: &Journalless, dialer: &Dialer) -> Result<(Server, Identity, String), String> {
    let text = read(files, Path::new(KUBELET_CONF))?;
    let kubeconfig = Kubeconfig::parse(&text).map_err(|error| error.to_string())?;
    let cluster = kubeconfig.cluster().map_err(|error| error.to_string())?;
    let pem = match cluster.ca_pem().map_err(|error| error.to_string())? {
        Some(pem) => pem,
        None => read(files, Path::new(&cluster.certificate_authority))?.to_string(),
    };
    let server_name = (!cluster.tls_server_name.is_empty()).then(|| cluster.tls_server_name.clone());
    let server = Server::new(dialer.clone(), &cluster.server, Trust::Ca { pem, server_name })
        .map_err(|error| error.to_string())?;
    let (_, _, user) = kubeconfig.user().ok_or("its current context has no user")?;
    let certificate_pem = match user.certificate_pem().map_err(|error| error.to_string())? {
        Some(pem) => pem,
        None => read(files, Path::new(&user.client_certificate))?.to_string(),
    };
    let key_pem = match user.key_pem().map_err(|error| error.to_string())? {
        Some(pem) => pem,
        None => SecretString::from(read(files, Path::new(&user.client_key))?.as_str()),
    };
    let certificates = Certificate::parse_pem(certificate_pem.as_bytes()).map_err(|error| error.to_string())?;
    let leaf = certificates.first().ok_or("there is no certificate")?;
    let name = leaf.common_name.strip_prefix(NODE_USER_PREFIX).ok_or("the certificate is no node's")?.to_owned();
    let certificate_pem = certificates.iter().map(Certificate::to_pem).collect();
    Ok((server, Identity::Certificate { certificate_pem, key_pem }, name))
}

/// A text file; a link is followed as the machine sees it, without `--root`.
fn read(files: &Journalless, path: &Path) -> Result<Zeroizing<String>, String> {
    let target: PathBuf = match files.read_link(path) {
        Some(target) => path.parent().unwrap_or(path).join(target),
        None => path.to_owned(),
    };
    let content = files.read(&target, LIMIT_BYTES).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let content = content.ok_or_else(|| format!("`{}` is missing", path.display()))?;
    String::from_utf8(content).map(Zeroizing::new).map_err(|_| format!("`{}` is no text", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use http::Method;

    use super::*;
    use crate::api::scripted::{Authority, Reply, Script, status};
    use crate::join::TrustedCluster;
    use crate::kubeconfig::kubelet_conf;

    const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    const PATH: &str = "/api/v1/nodes/n1/status";

    /// A machine below a root with a kubelet's credentials.
    fn joined(authority: &Authority) -> (tempfile::TempDir, Journalless) {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(at("/etc/kubernetes")).unwrap();
        std::fs::create_dir_all(at("/var/lib/kubelet/pki")).unwrap();
        let cluster = TrustedCluster {
            server: "https://api.test:6443".into(),
            ca_pem: authority.pem.clone(),
            tls_server_name: None,
            established_by: String::new(),
        };
        std::fs::write(at(KUBELET_CONF), kubelet_conf(&cluster, CURRENT)).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n1");
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let pair = authority.sign(&request, |_| {}) + &key.serialize_pem();
        std::fs::write(at("/var/lib/kubelet/pki/1.pem"), pair).unwrap();
        // As the kubelet writes it: absolute, without the root.
        symlink("/var/lib/kubelet/pki/1.pem", at(CURRENT)).unwrap();
        let files = Journalless::new(root.path().to_owned());
        (root, files)
    }

    #[tokio::test]
    async fn sets_ready_to_false_and_nothing_else() {
        let authority = Authority::new();
        let (_root, files) = joined(&authority);
        let script =
            Script::new().listen("api.test:6443", &authority, &["api.test"]).on(Method::PATCH, PATH, |request| {
                assert_eq!(request.headers()["content-type"], "application/strategic-merge-patch+json");
                let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
                let condition = &body["status"]["conditions"][0];
                assert_eq!((condition["type"].as_str(), condition["status"].as_str()), (Some("Ready"), Some("False")));
                assert_eq!(condition["lastTransitionTime"].as_str().unwrap().len(), "2026-11-24T00:00:00Z".len());
                assert_eq!(body.as_object().unwrap().len(), 1);
                Reply::Json(200, json!({"kind": "Node"}))
            });
        let running = script.start();
        assert_eq!(mark_not_ready(&files, &running.dialer).await.unwrap(), "n1");
        running.finish();
    }

    #[tokio::test]
    async fn tells_why_it_could_not() {
        let authority = Authority::new();
        let (root, files) = joined(&authority);
        let script = Script::new().listen("api.test:6443", &authority, &["api.test"]);
        let running = script.on(Method::PATCH, PATH, |_| status(404, "NotFound")).start();
        assert!(mark_not_ready(&files, &running.dialer).await.unwrap_err().contains("NotFound"));
        let other = Script::new().listen("api.test:6443", &Authority::new(), &["api.test"]).start();
        assert!(mark_not_ready(&files, &other.dialer).await.is_err(), "another CA was trusted");
        std::fs::remove_file(root.path().join("var/lib/kubelet/pki/1.pem")).unwrap();
        let why = mark_not_ready(&files, &running.dialer).await.unwrap_err();
        assert_eq!(why, format!("`{CURRENT}` is missing"));
    }
}
