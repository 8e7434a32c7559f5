//! What a node may do with its certificate: its Node, its lease, its renewal.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use mortise::sandbox::client::{Client, Identity};
use mortise::sandbox::control_plane::random_token;
use serde_json::{Value, json};

use super::{KUBE_SYSTEM, failure, forbidden};
use crate::report::{Report, eventually, next};
use crate::server::{JSON, REQUESTS, Server, Token, Wanted, get, post, send};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const NODES: &str = "/api/v1/nodes";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

#[expect(clippy::too_many_lines, reason = "one node's life, in its order")]
pub(super) async fn node(server: &Server, token: &Token, report: &mut Report) {
    let (name, other) = (format!("a-{}", token.id), format!("b-{}", token.id));
    let own = node_client(server, token, &name, report).await;
    let neighbour = node_client(server, token, &other, report).await;
    let (path, other_path) = (format!("{NODES}/{name}"), format!("{NODES}/{other}"));
    let user = format!("system:node:{name}");
    let object = |name: &str| json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});

    let mut not_found = failure(404, "NotFound", &format!("nodes \"{name}\" not found"));
    not_found["details"] = json!({"name": name, "kind": "nodes"});
    report.expect("a node looks itself up", &get(&own, &path).await, 404, &not_found);
    report.expect(
        "a node makes no other Node",
        &post(&own, NODES, &object(&other)).await,
        403,
        &forbidden(
            "nodes",
            &other,
            &format!("nodes \"{other}\" is forbidden: node \"{name}\" is not allowed to modify node \"{other}\""),
        ),
    );
    let mut labelled = object(&name);
    labelled["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = "".into();
    report.expect(
        "a node takes no role",
        &post(&own, NODES, &labelled).await,
        403,
        &forbidden(
            "nodes",
            &name,
            &format!(
                "nodes \"{name}\" is forbidden: node \"{name}\" is not allowed to set the following labels: \
         node-role.kubernetes.io/control-plane"
            ),
        ),
    );
    let made = post(&own, NODES, &object(&name)).await;
    report.expect(
        "a node makes its Node",
        &made,
        201,
        &json!({
            "kind": "Node", "apiVersion": "v1", "metadata": {"name": name},
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
        }),
    );
    let mut exists = failure(409, "AlreadyExists", &format!("nodes \"{name}\" already exists"));
    exists["details"] = json!({"name": name, "kind": "nodes"});
    report.expect("a node makes it once", &post(&own, NODES, &object(&name)).await, 409, &exists);
    let joining = server.bearer(&token.bearer());
    report.expect("a token sees the Node", &get(&joining, &path).await, 200, &json!({"metadata": {"name": name}}));

    report.expect("the neighbour registers", &post(&neighbour, NODES, &object(&other)).await, 201, &json!({}));
    report.expect("a node does not read another", &get(&own, &other_path).await, 403, &forbidden("nodes", &other, &format!(
        "nodes \"{other}\" is forbidden: User \"{user}\" cannot get resource \"nodes\" in API group \"\" at the cluster scope: node: \
         node '{name}' cannot read '{other}', only its own Node object")));
    report.expect("a node does not list Nodes", &get(&own, NODES).await, 403, &forbidden("nodes", "", &format!(
        "nodes is forbidden: User \"{user}\" cannot list resource \"nodes\" in API group \"\" at the cluster scope: node: \
         node '{name}' cannot read all nodes, only its own Node object")));
    let watch = own.watch(&format!("{NODES}?watch=true&fieldSelector=metadata.name%3D{other}")).await.unwrap();
    report.check("a node does not watch another", watch.code == 403, &json!(watch.code));
    let mut watch = own.watch(&format!("{NODES}?watch=true&fieldSelector=metadata.name%3D{name}")).await.unwrap();
    let event = next(&mut watch).await;
    report.check(
        "a node watches itself",
        event["type"] == "ADDED" && event["object"]["metadata"]["name"] == name.as_str(),
        &event,
    );

    let ready = json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "conformance",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    let patched = send(&own, Method::PATCH, &format!("{path}/status"), Some((STRATEGIC, &ready))).await;
    report.check(
        "a node patches its status",
        patched.code == 200 && ready_of(&patched.body) == Some("True"),
        &patched.body,
    );
    for (kind, patch) in [
        (MERGE, json!({"metadata": {"annotations": {"conformance/merge": "1"}}})),
        (STRATEGIC, json!({"metadata": {"annotations": {"conformance/strategic": "1"}}})),
        (JSON_PATCH, json!([{"op": "add", "path": "/metadata/annotations/conformance~1json", "value": "1"}])),
    ] {
        let answer = send(&own, Method::PATCH, &path, Some((kind, &patch))).await;
        report.expect(&format!("a node is patched by {kind}"), &answer, 200, &json!({"metadata": {"name": name}}));
    }
    let answer = get(&own, &path).await;
    report.expect(
        "all patches arrived",
        &answer,
        200,
        &json!({"metadata": {"annotations": {
            "conformance/merge": "1", "conformance/strategic": "1", "conformance/json": "1",
        }}}),
    );
    let answer = send(&own, Method::PATCH, &path, Some(("text/plain", &json!({})))).await;
    report.expect("other patches are refused", &answer, 415, &json!({"reason": "UnsupportedMediaType", "code": 415}));
    let untainted = eventually(async || get(&own, &path).await, |answer| answer.body["spec"]["taints"].is_null()).await;
    report.expect("a Ready node loses its taint", &untainted, 200, &json!({"spec": {"taints": null}}));
    let patch = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let answer = send(&own, Method::PATCH, &path, Some((STRATEGIC, &patch))).await;
    report.expect(
        "a node does not taint itself",
        &answer,
        403,
        &forbidden(
            "nodes",
            &name,
            &format!("nodes \"{name}\" is forbidden: node \"{name}\" is not allowed to modify taints"),
        ),
    );
    let patch = json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": ""}}});
    let answer = send(&own, Method::PATCH, &path, Some((STRATEGIC, &patch))).await;
    report.expect(
        "a node takes no role later",
        &answer,
        403,
        &forbidden(
            "nodes",
            &name,
            &format!("nodes \"{name}\" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/worker"),
        ),
    );
    for target in [format!("{other_path}/status"), other_path.clone()] {
        let answer = send(&own, Method::PATCH, &target, Some((STRATEGIC, &ready))).await;
        report.expect(
            "a node does not patch another",
            &answer,
            403,
            &forbidden(
                "nodes",
                &other,
                &format!("nodes \"{other}\" is forbidden: node \"{name}\" is not allowed to modify node \"{other}\""),
            ),
        );
    }
    let answer = send(&own, Method::PATCH, &format!("{NODES}/nobody/status"), Some((STRATEGIC, &ready))).await;
    report.expect(
        "a Node must exist to be patched",
        &answer,
        404,
        &failure(404, "NotFound", "nodes \"nobody\" not found"),
    );
    let mut stale = untainted.body.clone();
    stale["metadata"]["resourceVersion"] = "1".into();
    let answer = send(&own, Method::PUT, &format!("{path}/status"), Some((JSON, &stale))).await;
    report.expect("a stale status conflicts", &answer, 409, &failure(409, "Conflict", &format!(
        "Operation cannot be fulfilled on nodes \"{name}\": the object has been modified; please apply your changes to the \
         latest version and try again")));
    let answer = send(&own, Method::PUT, &format!("{path}/status"), Some((JSON, &object("misnamed")))).await;
    report.expect(
        "the name must be the URL's",
        &answer,
        400,
        &failure(
            400,
            "BadRequest",
            &format!("the name of the object (misnamed) does not match the name on the URL ({name})"),
        ),
    );
    let answer = send(&own, Method::DELETE, &path, None).await;
    report.expect("a node does not delete itself", &answer, 403, &forbidden("nodes", &name, &format!(
        "nodes \"{name}\" is forbidden: User \"{user}\" cannot delete resource \"nodes\" in API group \"\" at the cluster scope")));

    configuration_of_node(&own, &name, report).await;
    lease(&own, &name, &other, report).await;
    requests_of_node(server, &own, &name, report).await;
    for path in [path, other_path, format!("{LEASES}/{name}")] {
        send(&server.admin, Method::DELETE, &path, None).await;
    }
}

/// A kubelet's certificate by way of a request that is approved by itself.
async fn node_client(server: &Server, token: &Token, name: &str, report: &mut Report) -> Client {
    let joining = server.bearer(&token.bearer());
    let common_name = format!("system:node:{name}");
    let (object, key) = Wanted::of_node(&common_name).object();
    let made = post(&joining, REQUESTS, &object).await;
    let request = made.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut watch =
        joining.watch(&format!("{REQUESTS}?watch=true&fieldSelector=metadata.name%3D{request}")).await.unwrap();
    let mut first = None;
    let certificate = loop {
        let event = next(&mut watch).await;
        assert!(!event.is_null(), "{request} got no certificate");
        first.get_or_insert_with(|| event["type"].clone());
        if let Some(certificate) = event["object"]["status"]["certificate"].as_str() {
            report.check(
                "the approval says why",
                event["object"]["status"]["conditions"][0]["reason"] == "AutoApproved"
                    && event["object"]["status"]["conditions"][0]["message"]
                        == "Auto approving kubelet client certificate after SubjectAccessReview.",
                &event,
            );
            break String::from_utf8(STANDARD.decode(certificate).unwrap()).unwrap();
        }
    };
    report.check("a watch without revision begins with what is there", first == Some("ADDED".into()), &json!(first));
    send(&server.admin, Method::DELETE, &format!("{REQUESTS}/{request}"), None).await;
    let identity = Identity::Certificate { certificate_pem: certificate, key_pem: key.serialize_pem().into() };
    server.client(&identity)
}

fn ready_of(node: &Value) -> Option<&str> {
    let conditions = node["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")?["status"].as_str()
}

async fn configuration_of_node(own: &Client, name: &str, report: &mut Report) {
    for config in ["kubeadm-config", "kubelet-config"] {
        let answer = get(own, &format!("{KUBE_SYSTEM}/configmaps/{config}")).await;
        report.expect("a node reads the configuration", &answer, 200, &json!({"metadata": {"name": config}}));
    }
    for (kind, object) in [("configmaps", "kube-proxy"), ("secrets", "nope")] {
        let answer = get(own, &format!("{KUBE_SYSTEM}/{kind}/{object}")).await;
        report.expect("a node reads only what its Pods use", &answer, 403, &forbidden(kind, object, &format!(
            "{kind} \"{object}\" is forbidden: User \"system:node:{name}\" cannot get resource \"{kind}\" in API group \"\" in \
             the namespace \"kube-system\": node: no relationship found between node '{name}' and this object")));
    }
}

async fn lease(own: &Client, name: &str, other: &str, report: &mut Report) {
    let object = |name: &str| {
        json!({
            "kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"},
        })
    };
    let path = format!("{LEASES}/{name}");
    let mut not_found = failure(404, "NotFound", &format!("leases.coordination.k8s.io \"{name}\" not found"));
    not_found["details"] = json!({"name": name, "group": "coordination.k8s.io", "kind": "leases"});
    report.expect("a lease is looked up", &get(own, &path).await, 404, &not_found);
    let made = post(own, LEASES, &object(name)).await;
    report.expect(
        "a node makes its lease",
        &made,
        201,
        &json!({
            "kind": "Lease", "metadata": {"namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"},
        }),
    );
    let mut renewed = made.body.clone();
    renewed["spec"]["renewTime"] = "2026-01-01T00:00:10.000000Z".into();
    let answer = send(own, Method::PUT, &path, Some((JSON, &renewed))).await;
    report.expect(
        "a node renews its lease",
        &answer,
        200,
        &json!({"spec": {"renewTime": "2026-01-01T00:00:10.000000Z"}}),
    );
    let why = "can only access node lease with the same name as the requesting node";
    report.expect(
        "a node makes no other lease",
        &post(own, LEASES, &object(other)).await,
        403,
        &forbidden("leases", other, &format!("leases.coordination.k8s.io \"{other}\" is forbidden: {why}")),
    );
    let refused = |verb: &str, subject: &str, why: &str, namespace: &str| {
        format!(
            "leases.coordination.k8s.io{subject} is forbidden: User \"system:node:{name}\" cannot {verb} resource \"leases\" in API \
         group \"coordination.k8s.io\" in the namespace \"{namespace}\": node: {why}"
        )
    };
    report.expect(
        "a node reads no other lease",
        &get(own, &format!("{LEASES}/{other}")).await,
        403,
        &forbidden("leases", other, &refused("get", &format!(" \"{other}\""), why, "kube-node-lease")),
    );
    report.expect(
        "a node lists no leases",
        &get(own, LEASES).await,
        403,
        &forbidden(
            "leases",
            "",
            &refused("list", "", "can only get, create, update, patch, or delete a node lease", "kube-node-lease"),
        ),
    );
    let elsewhere = format!("/apis/coordination.k8s.io/v1/namespaces/default/leases/{name}");
    report.expect(
        "a node's lease has its namespace",
        &get(own, &elsewhere).await,
        403,
        &forbidden(
            "leases",
            name,
            &refused(
                "get",
                &format!(" \"{name}\""),
                "can only access leases in the \"kube-node-lease\" system namespace",
                "default",
            ),
        ),
    );
}

async fn requests_of_node(server: &Server, own: &Client, name: &str, report: &mut Report) {
    let stranger = format!("system:node:{}", random_token().id());
    let (object, _) = Wanted::of_node(&stranger).object();
    let answer = post(own, REQUESTS, &object).await;
    report.expect(
        "a node asks for itself only",
        &answer,
        403,
        &json!({"reason": "Forbidden", "message":
        "certificatesigningrequests.certificates.k8s.io \"csr-…"}),
    );
    report.check(
        "and is told so",
        answer.body["message"].as_str().is_some_and(|message| {
            message.ends_with(&format!("\" is forbidden: can only create a node CSR with CN=system:node:{name}"))
        }),
        &answer.body,
    );
    let common_name = format!("system:node:{name}");
    let (object, _) = Wanted::of_node(&common_name).object();
    let made = post(own, REQUESTS, &object).await;
    let path = format!("{REQUESTS}/{}", made.body["metadata"]["name"].as_str().unwrap_or_default());
    let signed =
        eventually(async || get(own, &path).await, |answer| answer.body["status"]["certificate"].is_string()).await;
    report.expect(
        "a node renews its certificate",
        &signed,
        200,
        &json!({
            "spec": {"username": common_name, "groups": ["system:nodes", "system:authenticated"]},
            "status": {"conditions": [{
                "type": "Approved", "status": "True", "reason": "AutoApproved",
                "message": "Auto approving self kubelet client certificate after SubjectAccessReview.",
            }]},
        }),
    );
    send(&server.admin, Method::DELETE, &path, None).await;
}
