//! Who is trusted with what before a node has a certificate: cluster-info, tokens, the configuration, paths.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use mortise::sandbox::client::Identity;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use super::{KUBE_SYSTEM, failure, forbidden, make_token};
use crate::report::{Report, eventually};
use crate::server::{Server, Token, get, post, send};

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const NODES: &str = "/api/v1/nodes";

pub(super) async fn cluster_info(server: &Server, token: &Token, report: &mut Report) {
    let anonymous = server.client(&Identity::Anonymous);
    let key = format!("jws-kubeconfig-{}", token.id);
    let answer =
        eventually(async || get(&anonymous, CLUSTER_INFO).await, |answer| !answer.body["data"][&key].is_null()).await;
    report.expect(
        "anybody reads cluster-info",
        &answer,
        200,
        &json!({
            "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        }),
    );
    let kubeconfig = answer.body["data"]["kubeconfig"].as_str().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id));
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(kubeconfig));
    let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, token.secret.as_bytes());
    let mac = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&hmac, input.as_bytes()));
    report.check("cluster-info is signed", answer.body["data"][&key] == format!("{header}..{mac}"), &answer.body);
    let parsed: Value = serde_saphyr::from_str(kubeconfig).unwrap_or_default();
    report.check(
        "cluster-info names one cluster",
        parsed
            == json!({
                "apiVersion": "v1", "kind": "Config", "contexts": null, "current-context": "", "users": null,
                "clusters": [{"name": "", "cluster": {
                    "certificate-authority-data": STANDARD.encode(server.ca_pem()), "server": server.url(),
                }}],
            }),
        &parsed,
    );
    let listed = get(&anonymous, "/api/v1/namespaces/kube-public/configmaps").await;
    report.expect("nobody lists ConfigMaps", &listed, 403, &forbidden("configmaps", "",
        "configmaps is forbidden: User \"system:anonymous\" cannot list resource \"configmaps\" in API group \"\" in the \
         namespace \"kube-public\""));
    let joining = server.bearer(&token.bearer());
    let user = format!("system:bootstrap:{}", token.id);
    report.expect("a token does not read cluster-info", &get(&joining, CLUSTER_INFO).await, 403,
        &forbidden("configmaps", "cluster-info", &format!(
            "configmaps \"cluster-info\" is forbidden: User \"{user}\" cannot get resource \"configmaps\" in API group \"\" \
             in the namespace \"kube-public\"")));
}

pub(super) async fn tokens(server: &Server, token: &Token, report: &mut Report) {
    let unauthorized = failure(401, "Unauthorized", "Unauthorized");
    let config = format!("{KUBE_SYSTEM}/configmaps/kubeadm-config");
    let unknown = Token::new();
    let wrong = Token { id: token.id.clone(), secret: unknown.secret.clone() };
    for (claim, bearer) in [
        ("an unknown token is refused", unknown.bearer()),
        ("a wrong secret is refused", wrong.bearer()),
        ("a malformed token is refused", "nonsense".into()),
    ] {
        let client = server.bearer(&bearer);
        report.expect(claim, &get(&client, &config).await, 401, &unauthorized);
        report.expect(claim, &get(&client, CLUSTER_INFO).await, 401, &unauthorized);
    }
    let expired = Token::new();
    make_token(server, &expired, json!({"expiration": "2020-01-01T00:00:00Z"})).await;
    report.expect(
        "an expired token is refused",
        &get(&server.bearer(&expired.bearer()), &config).await,
        401,
        &unauthorized,
    );
    let gone = eventually(async || get(&server.admin, &expired.path()).await, |answer| answer.code == 404).await;
    let name = format!("bootstrap-token-{}", expired.id);
    let mut not_found = failure(404, "NotFound", &format!("secrets \"{name}\" not found"));
    not_found["details"] = json!({"name": name, "kind": "secrets"});
    report.expect("an expired token is removed", &gone, 404, &not_found);

    let silent = Token::new();
    make_token(server, &silent, json!({"usage-bootstrap-authentication": null})).await;
    let answer = get(&server.bearer(&silent.bearer()), &config).await;
    report.expect("a token without authentication is refused", &answer, 401, &unauthorized);
    let mute = Token::new();
    make_token(server, &mute, json!({"usage-bootstrap-signing": null})).await;
    let anonymous = server.client(&Identity::Anonymous);
    let key = format!("jws-kubeconfig-{}", silent.id);
    let signed =
        eventually(async || get(&anonymous, CLUSTER_INFO).await, |answer| !answer.body["data"][&key].is_null()).await;
    let absent = &signed.body["data"][format!("jws-kubeconfig-{}", mute.id)];
    report.check("a token without signing signs nothing", absent.is_null(), &signed.body);
    let outside = Token::new();
    make_token(server, &outside, json!({"auth-extra-groups": "system:bootstrappers:others"})).await;
    let answer = get(&server.bearer(&outside.bearer()), &config).await;
    let user = format!("system:bootstrap:{}", outside.id);
    report.expect("a token of another group gets in and may nothing", &answer, 403, &forbidden("configmaps", "kubeadm-config",
        &format!("configmaps \"kubeadm-config\" is forbidden: User \"{user}\" cannot get resource \"configmaps\" in API group \
                  \"\" in the namespace \"kube-system\"")));
    for token in [silent, mute, outside] {
        let answer = send(&server.admin, Method::DELETE, &token.path(), None).await;
        let name = format!("bootstrap-token-{}", token.id);
        report.expect(
            "a deletion says so",
            &answer,
            200,
            &json!({
                "kind": "Status", "status": "Success", "details": {"name": name, "kind": "secrets"},
            }),
        );
    }

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "stranger");
    let stranger = Identity::Certificate {
        certificate_pem: params.self_signed(&key).unwrap().pem(),
        key_pem: key.serialize_pem().into(),
    };
    let answer = get(&server.client(&stranger), CLUSTER_INFO).await;
    report.expect("a certificate of another CA is refused", &answer, 401, &unauthorized);
}

pub(super) async fn configuration(server: &Server, token: &Token, report: &mut Report) {
    let joining = server.bearer(&token.bearer());
    let user = format!("system:bootstrap:{}", token.id);
    for (name, key, begin) in [
        ("kubeadm-config", "ClusterConfiguration", "apiServer:…"),
        ("kubelet-config", "kubelet", "apiVersion: kubelet.config.k8s.io/v1beta1\n…"),
        ("kube-proxy", "config.conf", "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n…"),
    ] {
        let path = format!("{KUBE_SYSTEM}/configmaps/{name}");
        let expected =
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {key: begin}});
        report.expect("a token reads the configuration", &get(&joining, &path).await, 200, &expected);
        let anonymous = get(&server.client(&Identity::Anonymous), &path).await;
        report.expect("nobody else reads it", &anonymous, 403, &forbidden("configmaps", name, &format!(
            "configmaps \"{name}\" is forbidden: User \"system:anonymous\" cannot get resource \"configmaps\" in API group \
             \"\" in the namespace \"kube-system\"")));
    }
    for (claim, path, kind, name, verb, place) in [
        (
            "other ConfigMaps",
            "/api/v1/namespaces/kube-system/configmaps/nope",
            "configmaps",
            "nope",
            "get",
            "in the namespace \"kube-system\"",
        ),
        (
            "all ConfigMaps",
            "/api/v1/namespaces/kube-system/configmaps",
            "configmaps",
            "",
            "list",
            "in the namespace \"kube-system\"",
        ),
        (
            "Secrets",
            "/api/v1/namespaces/kube-system/secrets/nope",
            "secrets",
            "nope",
            "get",
            "in the namespace \"kube-system\"",
        ),
        ("all Nodes", NODES, "nodes", "", "list", "at the cluster scope"),
    ] {
        let subject = if name.is_empty() { kind.to_owned() } else { format!("{kind} \"{name}\"") };
        report.expect(&format!("a token does not read {claim}"), &get(&joining, path).await, 403, &forbidden(kind, name, &format!(
            "{subject} is forbidden: User \"{user}\" cannot {verb} resource \"{kind}\" in API group \"\" {place}")));
    }
    let mut not_found = failure(404, "NotFound", "nodes \"nobody\" not found");
    not_found["details"] = json!({"name": "nobody", "kind": "nodes"});
    report.expect("a token looks a Node up", &get(&joining, &format!("{NODES}/nobody")).await, 404, &not_found);
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "nobody"}});
    report.expect("a token makes no Node", &post(&joining, NODES, &node).await, 403, &forbidden("nodes", "", &format!(
        "nodes is forbidden: User \"{user}\" cannot create resource \"nodes\" in API group \"\" at the cluster scope")));
}

pub(super) async fn paths(server: &Server, token: &Token, report: &mut Report) {
    let anonymous = server.client(&Identity::Anonymous);
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = get(&anonymous, path).await;
        report.check("anybody asks for health", answer.code == 200 && answer.body == "ok", &answer.body);
    }
    report.expect(
        "anybody asks for the version",
        &get(&anonymous, "/version").await,
        200,
        &json!({"major": "1", "gitVersion": "v1.…"}),
    );
    let answer = get(&anonymous, "/nope").await;
    report.expect(
        "unknown paths are forbidden first",
        &answer,
        403,
        &failure(403, "Forbidden", "forbidden: User \"system:anonymous\" cannot get path \"/nope\""),
    );
    let joining = server.bearer(&token.bearer());
    let things = "/apis/things.example/v1/things/a";
    report.expect("unknown resources are forbidden first", &get(&joining, things).await, 403, &forbidden("things", "a", &format!(
        "things.things.example \"a\" is forbidden: User \"system:bootstrap:{}\" cannot get resource \"things\" in API group \
         \"things.example\" at the cluster scope", token.id)));
    for path in ["/nope", things] {
        let answer = get(&server.admin, path).await;
        report.check(
            "then they are unknown",
            answer.code == 404 && answer.body == "404 page not found\n",
            &answer.body,
        );
    }
    let mut not_found = failure(404, "NotFound", "namespaces \"nowhere\" not found");
    not_found["details"] = json!({"name": "nowhere", "kind": "namespaces"});
    let lease = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": "a"}});
    let answer = post(&server.admin, "/apis/coordination.k8s.io/v1/namespaces/nowhere/leases", &lease).await;
    report.expect("nothing is made in an unknown namespace", &answer, 404, &not_found);
}
