//! An API server that answers what a control plane's preparation reads, to kubeadm and to mortise alike.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use mortise::api::Dialer;
use mortise::join::{Access, BootstrapCredential, TrustedCluster};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A bootstrap token of nobody.
pub(crate) const TOKEN: &str = "abcdef.0123456789abcdef";
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

/// Listens until the test ends.
pub(crate) struct Server {
    address: SocketAddr,
    ca_pem: String,
}

impl Server {
    /// With this ClusterConfiguration, and these entries in Secret `kubeadm-certs`.
    pub(crate) async fn start(cluster_configuration: String, certs: Value) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let objects = Arc::new(vec![
            ("configmaps/kubeadm-config", config_map("ClusterConfiguration", &cluster_configuration)),
            ("configmaps/kubelet-config", config_map("kubelet", KUBELET)),
            ("secrets/kubeadm-certs", json!({"kind": "Secret", "apiVersion": "v1", "metadata": {}, "data": certs})),
        ]);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, objects) = (acceptor.clone(), Arc::clone(&objects));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| answer(Arc::clone(&objects), request));
                    // A client that went away is no failure of the test.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, ca_pem }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A discovery file for kubeadm.
    pub(crate) fn discovery_file(&self) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca_pem);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": self.url(), "certificate-authority-data": ca}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
        })
        .to_string()
    }

    /// The same for mortise.
    pub(crate) fn access(&self) -> Access {
        let cluster = TrustedCluster {
            server: self.url(),
            ca_pem: self.ca_pem.clone(),
            tls_server_name: None,
            established_by: "a test".into(),
        };
        Access::new(Dialer::Tcp, cluster, Some(BootstrapCredential::Token(TOKEN.parse().unwrap()))).unwrap()
    }
}

fn config_map(key: &str, text: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}, "data": {key: text}})
}

async fn answer(
    objects: Arc<Vec<(&'static str, Value)>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path();
    let found = objects.iter().find(|(name, _)| path == format!("/api/v1/namespaces/kube-system/{name}"));
    let (code, body) = match found {
        Some((_, object)) => (200, object.clone()),
        // kubeadm takes the discovery file's word where cluster-info is forbidden.
        None if path.ends_with("/cluster-info") => (403, status(403, "Forbidden")),
        None => (404, status(404, "NotFound")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}
