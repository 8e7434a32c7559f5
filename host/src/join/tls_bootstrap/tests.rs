//! Cluster configuration, Node lookup and TLS bootstrap against a scripted API server.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use super::*;
use crate::api::scripted::{Authority, Reply, Running, Script, TOKEN, status, test_context, token_discovery};
use crate::error::Diagnose as _;
use crate::join::{BootstrapCredential, cluster_configuration, discovery, node_lookup};

const CP: &str = "cp.example:6443";
const CP_URL: &str = "https://cp.example:6443";
const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const NODE: &str = "/api/v1/nodes/n1";

fn config_map(name: &str, key: &str, text: &str) -> Reply {
    Reply::Json(200, json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {key: text}}))
}

const KUBEADM: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nclusterName: \
                       c1\nkubernetesVersion: v1.37.2\n";
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

trait JoinScript {
    fn configuration(self, kubeadm: &str, kubelet: &str) -> Self;
}

impl JoinScript for Script {
    fn configuration(self, kubeadm: &str, kubelet: &str) -> Self {
        let maps = "/api/v1/namespaces/kube-system/configmaps";
        let kubelet = config_map("kubelet-config", "kubelet", kubelet);
        self.get(&format!("{maps}/kubeadm-config"), config_map("kubeadm-config", "ClusterConfiguration", kubeadm))
            .beside(Method::GET, &format!("{maps}/kubelet-config"), move |_| kubelet)
    }
}

fn script(authority: &Authority) -> Script {
    Script::new().listen(CP, authority, &["cp.example"])
}

/// A join that has the cluster already, with its own machine.
fn joining(authority: &Authority, running: &Running) -> (tempfile::TempDir, JoinContext, Access) {
    let (directory, cx) = test_context(&running.dialer, token_discovery(CP, vec![authority.pin()]));
    let access = access(authority, running);
    (directory, cx, access)
}

fn access(authority: &Authority, running: &Running) -> Access {
    let cluster = authority.cluster(CP_URL);
    let credential = BootstrapCredential::Token(TOKEN.parse().unwrap());
    Access::new(running.dialer.clone(), cluster, Some(credential)).unwrap()
}

fn configuration() -> ClusterConfiguration {
    ClusterConfiguration {
        cluster_name: "c1".into(),
        kubernetes_version: "v1.37.2".into(),
        certificates_dir: "/etc/kubernetes/pki".into(),
        kubeadm: serde_json::Value::Null,
        kubelet: json!({}),
    }
}

/// The request as stored.
fn stored(request: &Request<Bytes>, status: Value) -> Value {
    let mut object: Value = serde_json::from_slice(request.body()).unwrap();
    object["kind"] = json!("CertificateSigningRequest");
    object["apiVersion"] = json!("certificates.k8s.io/v1");
    object["metadata"]["uid"] = json!("u1");
    object["metadata"]["resourceVersion"] = json!("7");
    object["status"] = status;
    object
}

fn approved(certificate_pem: &str) -> Value {
    let condition = json!({"type": "Approved", "status": "True", "reason": "AutoApproved"});
    json!({"conditions": [condition], "certificate": STANDARD.encode(certificate_pem)})
}

fn request_pem(object: &Value) -> String {
    String::from_utf8(STANDARD.decode(object["spec"]["request"].as_str().unwrap()).unwrap()).unwrap()
}

type Shared = Arc<std::sync::Mutex<Value>>;

/// Answers the POST with a pending request and keeps it for the watch.
fn on_post(script: Script, kept: &Shared) -> Script {
    let kept = Arc::clone(kept);
    script.on(Method::POST, &format!("{CSRS}?"), move |request| {
        let object = stored(request, json!({}));
        *kept.lock().unwrap() = object.clone();
        Reply::Json(201, object)
    })
}

/// Answers the watch with the kept request, its status replaced.
fn on_watch(script: Script, kept: &Shared, status: impl FnOnce(&Value) -> Value + Send + 'static) -> Script {
    let kept = Arc::clone(kept);
    script.beside(Method::GET, &format!("{CSRS}?"), move |request| {
        let query = request.uri().query().unwrap();
        assert!(query.contains("watch=true"), "{query}");
        let mut object = kept.lock().unwrap().clone();
        assert!(
            query.contains(&format!("metadata.name%3D{}", object["metadata"]["name"].as_str().unwrap())),
            "{query}"
        );
        object["status"] = status(&object);
        Reply::Watch(vec![(Duration::from_millis(10), json!({"type": "MODIFIED", "object": object}))])
    })
}

/// POST, then a watch that brings the signed certificate.
fn signed_at_once(script: Script, authority: &Arc<Authority>) -> Script {
    let kept = Shared::default();
    let authority = Arc::clone(authority);
    on_watch(on_post(script, &kept), &kept, move |object| approved(&authority.sign(&request_pem(object), |_| {})))
}

fn read(directory: &tempfile::TempDir, path: &str) -> String {
    std::fs::read_to_string(directory.path().join(path.trim_start_matches('/'))).unwrap()
}

fn exists(directory: &tempfile::TempDir, path: &str) -> bool {
    directory.path().join(path.trim_start_matches('/')).exists()
}

#[tokio::test]
async fn a_whole_worker_join_makes_two_handshakes_and_six_requests() {
    let authority = Authority::new();
    whole_join(&authority, script(&authority)).await;
}

#[tokio::test]
async fn a_proxy_that_speaks_http_1_needs_no_third_connection() {
    let authority = Authority::new();
    whole_join(&authority, Script::new().listen_http1(CP, &authority, &["cp.example"])).await;
}

async fn whole_join(authority: &Arc<Authority>, script: Script) {
    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let kubeconfig = authority.cluster_info_kubeconfig(CP_URL);
    let signature = discovery::sign_for_tests(&kubeconfig, &TOKEN.parse().unwrap());
    let cluster_info = || {
        let data = json!({"kubeconfig": kubeconfig, "jws-kubeconfig-abcdef": signature});
        Reply::Json(200, json!({"kind": "ConfigMap", "metadata": {"name": "cluster-info"}, "data": data}))
    };
    let script = script.get(info, cluster_info()).configuration(KUBEADM, KUBELET).get(NODE, status(404, "NotFound"));
    let running = signed_at_once(script, authority).start();
    let (directory, cx) = test_context(&running.dialer, token_discovery(CP, vec![authority.pin()]));

    let access = discovery::discover(&cx).await.unwrap();
    let cluster = cluster_configuration::fetch(&access, &cx).await.unwrap();
    node_lookup::ensure_name_is_free(&access, &cluster, None, &cx).await.unwrap();
    assert!(!exists(&directory, "/var/lib"), "the machine was touched before the Node was looked up");
    let identity = by_host(&access, &cluster, &cx).await.unwrap();

    assert_eq!(running.handshakes(), 2);
    assert_eq!(running.seen().len(), 6, "{:#?}", running.seen());
    assert_eq!(running.seen()[1].authorization.as_deref(), Some(&*format!("Bearer {TOKEN}")));
    assert_eq!(identity.node_name, "n1");
    assert!(identity.csr_name.unwrap().starts_with("csr-mortise-"));
    let current = std::fs::read_link(directory.path().join("var/lib/kubelet/pki/kubelet-client-current.pem")).unwrap();
    assert_eq!(current, Path::new("/var/lib/kubelet/pki/kubelet-client-2024-02-29-00-00-00.pem"));
    let pair = read(&directory, current.to_str().unwrap());
    assert!(pair.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(pair.contains("-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n"));
    assert!(read(&directory, KUBELET_CONF).contains("server: https://cp.example:6443\n  name: default-cluster"));
    assert!(!exists(&directory, PENDING_KEY));
    for (path, mode) in [
        ("etc/kubernetes/kubelet.conf", 0o600),
        ("var/lib/kubelet", 0o700),
        ("var/lib/kubelet/pki", 0o755),
        ("var/lib/kubelet/pki/kubelet-client-2024-02-29-00-00-00.pem", 0o600),
    ] {
        let found = std::fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
    running.finish();
}

#[tokio::test]
async fn a_second_run_changes_and_asks_nothing() {
    let authority = Authority::new();
    let running = signed_at_once(script(&authority), &authority).start();
    let (_directory, cx, access) = joining(&authority, &running);
    by_host(&access, &configuration(), &cx).await.unwrap();
    let identity = by_host(&access, &configuration(), &cx).await.unwrap();
    assert_eq!(identity.csr_name, None);
    running.finish();
}

#[tokio::test]
async fn the_request_is_the_kubelets() {
    let authority = Authority::new();
    let kept = Shared::default();
    let signer = Arc::clone(&authority);
    let script = on_watch(on_post(script(&authority), &kept), &kept, move |object| {
        approved(&signer.sign(&request_pem(object), |_| {}))
    });
    let running = script.start();
    let (_directory, cx, access) = joining(&authority, &running);
    by_host(&access, &configuration(), &cx).await.unwrap();
    let object = kept.lock().unwrap().clone();
    assert_eq!(object["spec"]["signerName"], "kubernetes.io/kube-apiserver-client-kubelet");
    assert_eq!(object["spec"]["usages"], json!(["digital signature", "client auth"]));
    assert!(object["spec"].get("expirationSeconds").is_none());
    let pem = request_pem(&object);
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    use x509_parser::prelude::FromDer as _;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&block.contents).unwrap();
    assert_eq!(request.certification_request_info.subject.to_string(), "O=system:nodes, CN=system:node:n1");
    request.verify_signature().unwrap();
}

#[tokio::test]
async fn a_killed_run_is_continued_with_its_own_key_and_request() {
    let authority = Authority::new();
    let kept = Shared::default();
    // The first run dies while it waits.
    let running = on_post(script(&authority), &kept).beside(Method::GET, &format!("{CSRS}?"), |_| Reply::Never).start();
    let (directory, cx, first_access) = joining(&authority, &running);
    let first = tokio::time::timeout(Duration::from_millis(500), by_host(&first_access, &configuration(), &cx)).await;
    assert!(first.is_err());
    let key = read(&directory, PENDING_KEY);
    let mode = std::fs::metadata(directory.path().join(&PENDING_KEY[1..])).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    running.finish();

    let object = kept.lock().unwrap().clone();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let mut signed = object.clone();
    signed["status"] = approved(&authority.sign(&request_pem(&object), |_| {}));
    let running = script(&authority)
        .on(Method::POST, &format!("{CSRS}?"), |_| status(409, "AlreadyExists"))
        .perhaps(Method::GET, &format!("{CSRS}?"))
        .get(&format!("{CSRS}/{name}"), Reply::Json(200, signed))
        .start();
    let identity = by_host(&access(&authority, &running), &configuration(), &cx).await.unwrap();
    assert_eq!(identity.csr_name.as_deref(), Some(&*name));
    assert!(read(&directory, "/var/lib/kubelet/pki/kubelet-client-2024-02-29-00-00-00.pem").ends_with(&key));
    running.finish();
}

#[tokio::test]
async fn a_request_of_its_name_with_another_key_is_not_adopted() {
    let authority = Authority::new();
    let other = ClientKey::generate().unwrap().request(NODES_GROUP, "system:node:n1").unwrap();
    let kept = Shared::default();
    let seen = Arc::clone(&kept);
    let running = script(&authority)
        .on(Method::POST, &format!("{CSRS}?"), move |request| {
            *seen.lock().unwrap() = stored(request, json!({}));
            status(409, "AlreadyExists")
        })
        .perhaps(Method::GET, &format!("{CSRS}?"))
        .start();
    let (_directory, cx, access) = joining(&authority, &running);
    // The name is known only when the key is: the second answer is scripted from it.
    let key = pending_key(&cx).unwrap();
    let name = request::name_for(&key);
    let path = format!("{CSRS}/{name}");
    running.expect(Method::GET, &path, move |_| {
        let mut object = kept.lock().unwrap().clone();
        object["spec"]["request"] = json!(STANDARD.encode(other));
        Reply::Json(200, object)
    });
    let error = by_host(&access, &configuration(), &cx).await.unwrap_err();
    assert_eq!(error.code(), "tls-bootstrap-csr-not-ours", "{error}");
    running.finish();
}

/// Runs until the watch shows this status.
async fn ending(status: impl FnOnce(&Value) -> Value + Send + 'static) -> TlsBootstrapError {
    let authority = Authority::new();
    let kept = Shared::default();
    let running = on_watch(on_post(script(&authority), &kept), &kept, status).start();
    let (directory, cx, access) = joining(&authority, &running);
    let error = by_host(&access, &configuration(), &cx).await.unwrap_err();
    running.finish();
    assert!(!exists(&directory, KUBELET_CONF) && !exists(&directory, CURRENT_PEM));
    error
}

#[tokio::test]
async fn denied_and_failed_requests_end_it_at_once_with_their_reason() {
    for (kind, code) in [("Denied", "tls-bootstrap-csr-denied"), ("Failed", "tls-bootstrap-csr-failed")] {
        let condition =
            json!({"type": kind, "status": "True", "reason": "Policy", "message": "no\u{1b}[2J such machine"});
        let error = ending(move |_| json!({"conditions": [condition]})).await;
        assert_eq!(error.code(), code);
        let text = error.to_string();
        assert!(text.contains("(Policy)") && text.contains("such machine") && !text.contains('\u{1b}'), "{text}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_the_one_asked_for_is_refused() {
    let authority = Authority::new();
    let spoiled = |alter: fn(&mut rcgen::CertificateParams)| {
        let authority = Arc::clone(&authority);
        move |object: &Value| approved(&authority.sign(&request_pem(object), alter))
    };
    let expired = ending(spoiled(|params| params.not_after = rcgen::date_time_ymd(2024, 3, 1))).await;
    assert!(expired.to_string().contains("has expired"), "{expired}");
    let server = ending(spoiled(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    }))
    .await;
    assert!(server.to_string().contains("not for clients"), "{server}");
    let other_user = ending(spoiled(|params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n2");
    }))
    .await;
    assert!(other_user.to_string().contains("another user"), "{other_user}");
    let signer = Arc::clone(&authority);
    let other_key = ending(move |_| {
        let request = ClientKey::generate().unwrap().request(NODES_GROUP, "system:node:n1").unwrap();
        approved(&signer.sign(&request, |_| {}))
    })
    .await;
    assert!(other_key.to_string().contains("another key"), "{other_key}");
    let garbage = ending(|_| approved("garbage")).await;
    assert_eq!(garbage.code(), "tls-bootstrap-certificate");
}

#[tokio::test]
async fn a_request_that_nobody_approves_is_told_at_the_deadline_with_the_line_that_approves_it() {
    let authority = Authority::new();
    let kept = Shared::default();
    let mut script = on_post(script(&authority), &kept);
    for _ in 0..2 {
        script = script.beside(Method::GET, &format!("{CSRS}?"), |_| Reply::Watch(vec![]));
    }
    let running = script.on(Method::GET, &format!("{CSRS}?"), |_| Reply::Never).start();
    let (_directory, cx, access) = joining(&authority, &running);
    let cx = cx.with(|settings| settings.timeouts.tls_bootstrap = Duration::from_secs(1));
    let error = by_host(&access, &configuration(), &cx).await.unwrap_err();
    assert_eq!(error.code(), "tls-bootstrap-csr-pending");
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("`kubectl certificate approve csr-mortise-"), "{hint}");
    running.finish();
}

#[tokio::test]
async fn a_forgotten_resource_version_is_followed_by_a_fresh_read_and_a_forbidden_watch_by_polling() {
    for first in [
        Reply::Watch(vec![(
            Duration::ZERO,
            json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}),
        )]),
        status(410, "Gone"),
        status(403, "Forbidden"),
    ] {
        let authority = Authority::new();
        let kept = Shared::default();
        let running = on_post(script(&authority), &kept).beside(Method::GET, &format!("{CSRS}?"), |_| first).start();
        let (_directory, cx, access) = joining(&authority, &running);
        let name = request::name_for(&pending_key(&cx).unwrap());
        let signer = Arc::clone(&authority);
        running.expect(Method::GET, &format!("{CSRS}/{name}"), move |_| {
            let mut object = kept.lock().unwrap().clone();
            object["status"] = approved(&signer.sign(&request_pem(&object), |_| {}));
            Reply::Json(200, object)
        });
        by_host(&access, &configuration(), &cx).await.unwrap();
        running.finish();
    }
}

#[tokio::test]
async fn a_kept_connection_that_breaks_is_replaced_and_the_read_repeated() {
    let authority = Authority::new();
    let kept = Shared::default();
    let signer = Arc::clone(&authority);
    let script = on_post(script(&authority), &kept).beside(Method::GET, &format!("{CSRS}?"), |_| Reply::Cut);
    let running = on_watch(script, &kept, move |object| approved(&signer.sign(&request_pem(object), |_| {}))).start();
    let (_directory, cx, access) = joining(&authority, &running);
    by_host(&access, &configuration(), &cx).await.unwrap();
    assert_eq!(running.handshakes(), 2);
    running.finish();
}

#[tokio::test]
async fn a_refused_token_is_told_at_once() {
    for (code, wanted) in [(401, "tls-bootstrap-unauthorized"), (403, "tls-bootstrap-forbidden")] {
        let authority = Authority::new();
        let running = script(&authority).on(Method::POST, &format!("{CSRS}?"), move |_| status(code, "No"));
        let running = running.perhaps(Method::GET, &format!("{CSRS}?")).start();
        let (_directory, cx, access) = joining(&authority, &running);
        let cx = cx.with(|settings| settings.fail_fast = false);
        let error = by_host(&access, &configuration(), &cx).await.unwrap_err();
        assert_eq!(error.code(), wanted);
        assert!(!format!("{error:?}").contains("canary"));
        running.finish();
    }
}

fn node_object(ready: &str, machine_id: &str) -> Reply {
    Reply::Json(
        200,
        json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1", "resourceVersion": "3"}, "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "InternalIP", "address": "10.9.8.7"}],
            "nodeInfo": {"machineID": machine_id, "architecture": "", "bootID": "", "containerRuntimeVersion": "",
                "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "operatingSystem": "", "osImage": "",
                "systemUUID": ""},
        }}),
    )
}

/// Looks up Node `n1` on a machine with id `m1`, which an earlier run gave its certificate, or not.
async fn look_up(reply: Reply, joined: bool) -> Result<(), node_lookup::NodeLookupError> {
    let authority = Authority::new();
    let script = script(&authority);
    let script = if joined { signed_at_once(script, &authority) } else { script };
    let running = script.get(NODE, reply).start();
    let (directory, cx, access) = joining(&authority, &running);
    std::fs::create_dir_all(directory.path().join("etc")).unwrap();
    std::fs::write(directory.path().join("etc/machine-id"), "m1\n").unwrap();
    // A directory that was empty makes the journal count anything in it as ours.
    cx.node.note_if_empty(Path::new("/var/lib/kubelet")).unwrap();
    if joined {
        by_host(&access, &configuration(), &cx).await.unwrap();
    }
    let result = node_lookup::ensure_name_is_free(&access, &configuration(), None, &cx).await;
    running.finish();
    result
}

#[tokio::test]
async fn a_ready_node_is_refused_unless_machine_id_and_certificate_prove_that_it_is_this_machine() {
    look_up(status(404, "NotFound"), false).await.unwrap();
    look_up(node_object("False", "other"), false).await.unwrap();
    look_up(node_object("Unknown", "other"), false).await.unwrap();
    look_up(node_object("True", "m1"), true).await.unwrap();
    for (machine, joined) in [("other", false), ("other", true), ("m1", false), ("", true)] {
        let error = look_up(node_object("True", machine), joined).await.unwrap_err();
        assert_eq!(error.code(), "node-name-taken", "{machine} {joined}");
        assert!(error.to_string().contains("10.9.8.7"));
    }
    assert_eq!(look_up(status(403, "Forbidden"), false).await.unwrap_err().code(), "node-lookup-forbidden");
}

/// Fetches the configuration from these texts.
async fn fetch(
    kubeadm: &str,
    kubelet: &str,
) -> Result<ClusterConfiguration, cluster_configuration::ClusterConfigurationError> {
    let authority = Authority::new();
    let running = script(&authority).configuration(kubeadm, kubelet).start();
    let (_directory, cx, access) = joining(&authority, &running);
    let result = cluster_configuration::fetch(&access, &cx).await;
    running.finish();
    result
}

#[tokio::test]
async fn the_configuration_is_read_completed_and_judged() {
    let found = fetch(KUBEADM, KUBELET).await.unwrap();
    assert_eq!((found.cluster_name.as_str(), found.kubernetes_version.as_str()), ("c1", "v1.37.2"));
    assert_eq!(found.kubelet["rotateCertificates"], json!(true));
    let newer = KUBEADM.replace("v1.37.2", "v1.40.0");
    fetch(&newer, KUBELET).await.unwrap();
    for (kubeadm, kubelet, code) in [
        (KUBEADM.replace("v1.37.2", "v1.33.9"), KUBELET.to_owned(), "cluster-configuration-too-old"),
        (KUBEADM.replace("v1beta4", "v1beta3"), KUBELET.to_owned(), "cluster-configuration-api-version"),
        (KUBEADM.replace("kubernetesVersion: v1.37.2", ""), KUBELET.to_owned(), "cluster-configuration-no-version"),
        (format!("{KUBEADM}certificatesDir: /etc/ssh\n"), KUBELET.to_owned(), "cluster-path-refused"),
        (KUBEADM.to_owned(), format!("{KUBELET}staticPodPath: /etc/cron.d\n"), "cluster-path-refused"),
        (
            KUBEADM.to_owned(),
            format!("{KUBELET}authentication: {{x509: {{clientCAFile: /etc/shadow}}}}\n"),
            "cluster-path-refused",
        ),
        ("[".to_owned(), KUBELET.to_owned(), "cluster-configuration-malformed"),
        (KUBEADM.to_owned(), "x".to_owned(), "cluster-configuration-malformed"),
    ] {
        let error = fetch(&kubeadm, &kubelet).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn a_token_that_signs_but_is_not_accepted_is_told_apart() {
    for (code, wanted) in [(401, "cluster-configuration-unauthorized"), (403, "cluster-configuration-forbidden")] {
        let authority = Authority::new();
        let path = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
        let other = path.replace("kubeadm", "kubelet");
        let script = script(&authority).get(path, status(code, "No"));
        let running = script.beside(Method::GET, &other, move |_| status(code, "No")).start();
        let (_directory, cx, access) = joining(&authority, &running);
        let error = cluster_configuration::fetch(&access, &cx).await.unwrap_err();
        assert_eq!(error.code(), wanted);
        running.finish();
    }
}

#[tokio::test]
async fn a_node_that_has_its_certificate_joins_on_though_the_token_is_gone() {
    let authority = Authority::new();
    let running = signed_at_once(script(&authority), &authority).start();
    let (_directory, cx, access) = joining(&authority, &running);
    discovery::remember(&access.cluster, &cx.node).unwrap();
    by_host(&access, &configuration(), &cx).await.unwrap();
    running.finish();

    let kubeconfig = authority.cluster_info_kubeconfig(CP_URL);
    let data = json!({ "kubeconfig": kubeconfig });
    let info = Reply::Json(200, json!({"kind": "ConfigMap", "metadata": {"name": "cluster-info"}, "data": data}));
    let running = script(&authority)
        .get("/api/v1/namespaces/kube-public/configmaps/cluster-info", info)
        .configuration(KUBEADM, KUBELET)
        .start();
    let cx = JoinContext { dialer: running.dialer.clone(), ..cx };
    let access = discovery::discover(&cx).await.unwrap();
    cluster_configuration::fetch(&access, &cx).await.unwrap();
    assert!(running.seen().iter().all(|seen| seen.authorization.is_none()));
    running.finish();
}

#[tokio::test]
async fn the_node_is_waited_for_with_its_own_certificate() {
    let authority = Authority::new();
    let script = signed_at_once(script(&authority), &authority).get(NODE, node_object("False", "m1")).on(
        Method::GET,
        "/api/v1/nodes?",
        |_| {
            let Reply::Json(_, object) = node_object("True", "m1") else { unreachable!() };
            Reply::Watch(vec![(Duration::from_millis(5), json!({"type": "MODIFIED", "object": object}))])
        },
    );
    let running = script.start();
    let (_directory, cx, access) = joining(&authority, &running);
    by_host(&access, &configuration(), &cx).await.unwrap();
    wait_for_node(&access, Registered::Ready, Duration::from_secs(20), &cx).await.unwrap();
    assert_eq!(running.seen().last().unwrap().authorization, None);
    running.finish();
}

#[tokio::test]
async fn credentials_of_another_node_are_not_overwritten() {
    let authority = Authority::new();
    let running = signed_at_once(script(&authority), &authority).start();
    let (_directory, cx, access) = joining(&authority, &running);
    by_host(&access, &configuration(), &cx).await.unwrap();
    running.finish();
    let running = script(&authority).start();
    let cx = cx.with(|settings| settings.node.name = "n2".into());
    let error = by_host(&access, &configuration(), &cx).await.unwrap_err();
    assert_eq!(error.code(), "tls-bootstrap-other-node");
    running.finish();
}

#[tokio::test]
async fn a_dry_run_asks_for_no_certificate_and_says_what_it_would_do() {
    let authority = Authority::new();
    let running = script(&authority).start();
    let (directory, cx, access) = joining(&authority, &running);
    let plan = Arc::new(crate::plan::Plan::default());
    let node = crate::api::scripted::planning_node(directory.path(), &plan);
    let cx = JoinContext { node, ..cx };
    by_host(&access, &configuration(), &cx).await.unwrap();
    let text = plan.text();
    for part in ["POST /apis/certificates.k8s.io/v1/certificatesigningrequests", KUBELET_CONF, CURRENT_PEM, PENDING_KEY]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    assert!(!exists(&directory, "/var") && !exists(&directory, "/etc"));
    running.finish();
}

#[tokio::test]
async fn a_repeated_request_is_recorded_once() {
    let authority = Authority::new();
    let running = signed_at_once(script(&authority), &authority).start();
    let (_directory, cx, access) = joining(&authority, &running);
    by_host(&access, &configuration(), &cx).await.unwrap();
    running.finish();
    assert_eq!(cx.node.journal().record().api_objects("CertificateSigningRequest").len(), 1);
}

#[test]
fn the_pair_is_named_by_the_certificates_start() {
    for (seconds, name) in [
        (0, "1970-01-01-00-00-00"),
        (1_709_208_000, "2024-02-29-12-00-00"),
        (4_102_444_799, "2099-12-31-23-59-59"),
        // The last second that X.509 can tell.
        (253_402_300_799, "9999-12-30-22-00-00"),
    ] {
        assert_eq!(pair_path(seconds), Path::new(PKI_DIR).join(format!("kubelet-client-{name}.pem")));
    }
}

#[tokio::test]
#[ignore = "needs a cluster: MORTISE_TEST_JOIN='host:port token pin', as `mortise-cluster join-line` prints them"]
async fn a_real_api_server_sees_two_connections_and_issues_a_certificate() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::api::{Dialer, Stream};
    use crate::config::{Discovery, Endpoint, TokenDiscovery};

    let line = std::env::var("MORTISE_TEST_JOIN").unwrap();
    let [place, token, pin] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("three words are needed") };
    let (host, port) = place.rsplit_once(':').unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let dialer = Dialer::Pipe(Arc::new(move |host, port| {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect((host, port)).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }));
    let token: crate::token::BootstrapToken = token.parse().unwrap();
    let discovery = Discovery::Token(TokenDiscovery {
        token: token.clone(),
        endpoints: vec![Endpoint { host: host.into(), port: port.parse().unwrap() }],
        pins: vec![pin.parse().unwrap()],
        unsafe_skip_ca_verification: false,
    });
    let (directory, cx) = test_context(&dialer, discovery);
    let cx = cx.with(|settings| {
        settings.tls_bootstrap_token = Some(token);
        settings.node.name = "mortise-test-node".into();
    });
    let access = discovery::discover(&cx).await.unwrap();
    let cluster = cluster_configuration::fetch(&access, &cx).await.unwrap();
    node_lookup::ensure_name_is_free(&access, &cluster, None, &cx).await.unwrap();
    let identity = by_host(&access, &cluster, &cx).await.unwrap();
    assert!(identity.csr_name.is_some());
    assert_eq!(connections.load(Ordering::Relaxed), 2);
    println!("{}", serde_json::to_string_pretty(&cluster.kubelet).unwrap());
    println!("{}", read(&directory, KUBELET_CONF));
    // As the node: it does not exist, and the node may ask for it.
    let waited = wait_for_node(&access, Registered::Exists, Duration::from_millis(500), &cx).await.unwrap_err();
    assert!(waited.to_string().ends_with("last seen: it does not exist"), "{waited}");
}
