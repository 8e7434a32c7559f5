use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use kube::api::{Api, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio_rustls::TlsConnector;

use super::*;

const SERVER: &str = "api.sandbox.test";

fn token() -> BootstrapToken {
    "abcdef.0123456789abcdef".parse().unwrap()
}

/// A kube client over the dialer's pipes, a connection a request.
fn kube_client(plane: &ControlPlane, bearer: Option<String>, certificate: Option<&ClientCertificate>) -> kube::Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(plane.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let tls = match certificate {
        Some(ClientCertificate { certificate_pem, key_pem }) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key_pem.expose_secret().as_bytes()).unwrap(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    let (tls, dialer) = (TlsConnector::from(Arc::new(tls)), plane.dialer());
    let service = tower::service_fn(move |mut request: Request<kube::client::Body>| {
        let (tls, dialer, bearer) = (tls.clone(), dialer.clone(), bearer.clone());
        async move {
            let Dialer::Pipe(dial) = dialer else { unreachable!("the sandbox makes pipes") };
            let stream = dial(SERVER.into(), 6443).await?;
            let stream = tls.connect(ServerName::try_from(SERVER).unwrap(), stream).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            *request.uri_mut() =
                Uri::builder().path_and_query(request.uri().path_and_query().unwrap().clone()).build().unwrap();
            request.headers_mut().insert(header::HOST, header::HeaderValue::from_static(SERVER));
            if let Some(bearer) = bearer {
                request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {bearer}").parse().unwrap());
            }
            sender.send_request(request).await.map_err(io::Error::other)
        }
    });
    kube::Client::new(tower::ServiceBuilder::new().service(service), "default")
}

fn kubelet_request(node: &str) -> (CertificateSigningRequest, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    let key = KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = json!({
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": STANDARD.encode(pem),
            "signerName": signer::KUBELET_CLIENT,
            "usages": ["digital signature", "client auth"],
        },
    });
    (serde_json::from_value(with_type(request, "CertificateSigningRequest", "certificates.k8s.io/v1")).unwrap(), key)
}

fn with_type(mut object: Value, kind: &str, api_version: &str) -> Value {
    object["kind"] = kind.into();
    object["apiVersion"] = api_version.into();
    object
}

fn status_of<T>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message),
        Err(other) => panic!("no Status but {other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

#[tokio::test]
async fn serves_every_request_of_a_worker_join() {
    let plane = ControlPlane::start(&ControlPlaneOptions::new(token()));

    let anonymous = kube_client(&plane, None, None);
    let cluster_info = Api::<ConfigMap>::namespaced(anonymous, "kube-public").get("cluster-info").await.unwrap();
    let data = cluster_info.data.unwrap();
    assert!(data.contains_key("jws-kubeconfig-abcdef"));
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&data["kubeconfig"]).unwrap();
    let cluster = kubeconfig.clusters[0].cluster.as_ref().unwrap();
    assert_eq!(cluster.server.as_deref(), Some("https://api.sandbox.test:6443"));
    let ca = STANDARD.decode(cluster.certificate_authority_data.as_ref().unwrap()).unwrap();
    assert_eq!(String::from_utf8(ca).unwrap(), plane.ca_pem());

    let joining = kube_client(&plane, Some(token().expose_bearer()), None);
    let maps = Api::<ConfigMap>::namespaced(joining.clone(), "kube-system");
    for (name, key) in
        [("kubeadm-config", "ClusterConfiguration"), ("kubelet-config", "kubelet"), ("kube-proxy", "config.conf")]
    {
        assert!(maps.get(name).await.unwrap().data.unwrap().contains_key(key), "{name}");
    }
    assert_eq!(
        status_of(Api::<Node>::all(joining.clone()).get("n1").await),
        (404, "nodes \"n1\" not found".to_owned())
    );
    let requests = Api::<CertificateSigningRequest>::all(joining);
    let (request, key) = kubelet_request("n1");
    let made = requests.create(&PostParams::default(), &request).await.unwrap();
    let name = made.metadata.name.unwrap();
    assert!(made.status.unwrap().certificate.is_none());
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = Box::pin(requests.watch(&params, &made.metadata.resource_version.unwrap()).await.unwrap());
    let certificate = loop {
        if let WatchEvent::Modified(seen) = events.next().await.unwrap().unwrap()
            && let Some(certificate) = seen.status.unwrap().certificate
        {
            break String::from_utf8(certificate.0).unwrap();
        }
    };

    let own = ClientCertificate { certificate_pem: certificate, key_pem: key.serialize_pem().into() };
    let kubelet = kube_client(&plane, None, Some(&own));
    let node: Node = serde_json::from_value(with_type(json!({"metadata": {"name": "n1"}}), "Node", "v1")).unwrap();
    let nodes = Api::<Node>::all(kubelet.clone());
    let made = nodes.create(&PostParams::default(), &node).await.unwrap();
    assert_eq!(made.spec.unwrap().taints.unwrap()[0].key, "node.kubernetes.io/not-ready");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(&ready)).await.unwrap();
    assert_eq!(nodes.get("n1").await.unwrap().spec.unwrap().taints, None);
    let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40}});
    let lease: Lease = serde_json::from_value(with_type(lease, "Lease", "coordination.k8s.io/v1")).unwrap();
    Api::<Lease>::namespaced(kubelet, "kube-node-lease").create(&PostParams::default(), &lease).await.unwrap();
}

#[tokio::test]
async fn refuses_what_the_roles_do_not_allow() {
    let plane = ControlPlane::start(&ControlPlaneOptions::new(token()));
    let anonymous = kube_client(&plane, None, None);
    assert_eq!(
        status_of(Api::<ConfigMap>::namespaced(anonymous, "kube-system").get("kubeadm-config").await),
        (
            403,
            "configmaps \"kubeadm-config\" is forbidden: User \"system:anonymous\" cannot get resource \"configmaps\" in \
             API group \"\" in the namespace \"kube-system\""
                .to_owned()
        )
    );
    let wrong = kube_client(&plane, Some("abcdef.fedcba9876543210".into()), None);
    assert_eq!(
        status_of(Api::<Secret>::namespaced(wrong, "kube-system").get("x").await),
        (401, "Unauthorized".to_owned())
    );
    let other = ControlPlane::start(&ControlPlaneOptions::new(token())).administrator();
    let stranger = kube_client(&plane, None, Some(&other));
    assert_eq!(status_of(Api::<Node>::all(stranger).get("n1").await).0, 401);
}

#[tokio::test]
async fn an_expired_token_signs_nothing_and_opens_nothing() {
    let mut options = ControlPlaneOptions::new(token());
    options.tokens[0].ttl = Duration::ZERO;
    let plane = ControlPlane::start(&options);
    let anonymous = kube_client(&plane, None, None);
    let cluster_info = Api::<ConfigMap>::namespaced(anonymous, "kube-public").get("cluster-info").await.unwrap();
    assert_eq!(cluster_info.data.unwrap().into_keys().collect::<Vec<_>>(), ["kubeconfig"]);
    let joining = kube_client(&plane, Some(token().expose_bearer()), None);
    assert_eq!(status_of(Api::<Node>::all(joining).get("n1").await).0, 401);
}

#[tokio::test]
async fn refuses_connections_to_other_hosts() {
    let plane = ControlPlane::start(&ControlPlaneOptions::new(token()));
    let Dialer::Pipe(dial) = plane.dialer() else { panic!("the sandbox makes pipes") };
    for (host, port) in [("example.org", 6443), (SERVER, 443)] {
        let Err(error) = dial(host.into(), port).await else { panic!("{host}:{port} answered") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

/// kube-apiserver forgets after minutes only, so that the conformance suite cannot ask it for this.
#[tokio::test]
async fn a_watch_from_a_forgotten_revision_ends_with_410() {
    let plane = ControlPlane::start(&ControlPlaneOptions::new(token()));
    let joining = kube_client(&plane, Some(token().expose_bearer()), None);
    let requests = Api::<CertificateSigningRequest>::all(joining);
    let mut events = Box::pin(requests.watch(&WatchParams::default(), "1").await.unwrap());
    let WatchEvent::Error(status) = events.next().await.unwrap().unwrap() else { panic!("the watch went on") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(status.message.starts_with("too old resource version: 1 ("), "{}", status.message);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn requests_are_denied_failed_or_left_as_asked() {
    for (approval, expected) in [
        (Approval::Off, None),
        (Approval::Deny { reason: "Policy".into(), message: "no".into() }, Some(("Denied", "Policy", "no"))),
        (Approval::Fail { reason: "Broken".into(), message: "no key".into() }, Some(("Failed", "Broken", "no key"))),
    ] {
        let mut options = ControlPlaneOptions::new(token());
        options.approval = approval;
        let plane = ControlPlane::start(&options);
        let requests = Api::<CertificateSigningRequest>::all(kube_client(&plane, Some(token().expose_bearer()), None));
        let made = requests.create(&PostParams::default(), &kubelet_request("n1").0).await.unwrap();
        let status = requests.get(&made.metadata.name.unwrap()).await.unwrap().status.unwrap();
        assert!(status.certificate.is_none());
        let conditions = status.conditions.unwrap_or_default();
        let last = conditions.last().map(|condition| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            (condition.type_.clone(), text(&condition.reason), text(&condition.message))
        });
        let expected = expected.map(|(kind, reason, message)| (kind.to_owned(), reason.to_owned(), message.to_owned()));
        assert_eq!(last, expected);
    }
}
