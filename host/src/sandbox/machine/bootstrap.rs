//! The kubelet's own TLS bootstrap, for `--tls-bootstrap-by=kubelet`: from `bootstrap-kubelet.conf` to `kubelet.conf`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use k8s_openapi::jiff::Timestamp;
use kube::config::Kubeconfig;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use super::kubelet::{client_of, deep, message};
use super::{Shared, files};

const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
const CERTIFICATES: &str = "/var/lib/kubelet/pki";
const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Whether there is a bootstrap kubeconfig to begin with. Writes `kubelet.conf`, as a kubelet does before it asks.
pub(super) fn check(shared: &Shared) -> Result<(), String> {
    client_of(shared, BOOTSTRAP)?;
    let text = files::read(shared.root(), BOOTSTRAP).map_err(|error| format!("stat {BOOTSTRAP}: {error}"))?;
    let config = Kubeconfig::from_yaml(&text).map_err(|_| format!("{BOOTSTRAP} is no kubeconfig"))?;
    let cluster = config.clusters.first().and_then(|cluster| cluster.cluster.as_ref());
    let (server, ca) = cluster
        .and_then(|cluster| Some((cluster.server.as_deref()?, cluster.certificate_authority_data.as_deref()?)))
        .ok_or_else(|| format!("{BOOTSTRAP} has no server with a CA"))?;
    let kubeconfig = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: \
         default-cluster\ncontexts:\n- context:\n    cluster: default-cluster\n    namespace: default\n    user: \
         default-auth\n  name: default-context\ncurrent-context: default-context\nkind: Config\nusers:\n- name: \
         default-auth\n  user:\n    client-certificate: {CURRENT}\n    client-key: {CURRENT}\n"
    );
    files::write(shared.root(), KUBECONFIG, &kubeconfig, 0o600).map_err(|error| format!("open {KUBECONFIG}: {error}"))
}

/// Asks for a certificate, waits for it and stores it.
pub(super) async fn run(shared: &Shared, node_name: &str) -> Result<(), String> {
    let client = client_of(shared, BOOTSTRAP)?;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let request = request(node_name, &key).map_err(|error| error.to_string())?;
    let made = client.send(Method::POST, REQUESTS, Some(("application/json", &request))).await.map_err(deep)?;
    if made.code != 201 {
        return Err(message(&made.body));
    }
    let name = made.body["metadata"]["name"].as_str().unwrap_or_default();
    shared.log(&format!("\"Waiting for the certificate signing request\" csr={name:?}"));
    let path = format!("{REQUESTS}?watch=true&fieldSelector=metadata.name%3D{name}");
    let mut events = client.watch(&path).await.map_err(deep)?;
    while let Some(event) = events.next().await.map_err(deep)? {
        let status = &event["object"]["status"];
        let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        for bad in ["Denied", "Failed"] {
            if let Some(condition) = conditions.iter().find(|condition| condition["type"] == bad) {
                return Err(format!("certificate signing request {name} is {bad}: {}", message(condition)));
            }
        }
        if let Some(certificate) = certificate(status) {
            return store(shared, &certificate, &key).map_err(|error| error.to_string());
        }
    }
    Err(format!("the watch of {name} ended"))
}

fn certificate(status: &Value) -> Option<String> {
    String::from_utf8(STANDARD.decode(status["certificate"].as_str()?).ok()?).ok()
}

fn request(node_name: &str, key: &KeyPair) -> Result<Value, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node_name}"));
    let pem = params.serialize_request(key)?.pem()?;
    Ok(json!({
        "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1",
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": STANDARD.encode(pem),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    }))
}

/// Certificate and key in one dated file, and the link that names the newest.
fn store(shared: &Shared, certificate: &str, key: &KeyPair) -> std::io::Result<()> {
    let date = Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S").to_string();
    let path = format!("{CERTIFICATES}/kubelet-client-{date}.pem");
    files::write(shared.root(), &path, &format!("{certificate}{}", key.serialize_pem()), 0o600)?;
    files::link(shared.root(), CURRENT, &path)
}
