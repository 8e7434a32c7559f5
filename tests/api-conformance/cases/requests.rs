//! Certificate signing requests: refused, decided by people, and by controllers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use mortise::sandbox::client::Identity;
use serde_json::{Value, json};

use super::{failure, forbidden};
use crate::report::{Report, eventually, next};
use crate::server::{JSON, REQUESTS, Server, Token, Wanted, get, post, send};

const MERGE: &str = "application/merge-patch+json";

pub(super) async fn refused_requests(server: &Server, token: &Token, report: &mut Report) {
    let joining = server.bearer(&token.bearer());
    let (good, _) = Wanted::of_node("system:node:refused").object();
    let with = |field: &str, value: Value| {
        let mut object = good.clone();
        object["metadata"] = json!({"name": "csr-refused"});
        object["spec"][field] = value;
        object
    };
    for (claim, object, reason, field) in [
        ("no request", with("request", STANDARD.encode("nothing").into()), "FieldValueInvalid", "spec.request"),
        ("no usages", with("usages", json!([])), "FieldValueRequired", "spec.usages"),
        ("an unknown usage", with("usages", json!(["juggling"])), "FieldValueNotSupported", "spec.usages[0]"),
        (
            "a usage twice",
            with("usages", json!(["client auth", "client auth"])),
            "FieldValueDuplicate",
            "spec.usages[1]",
        ),
        ("no signer", with("signerName", "".into()), "FieldValueRequired", "spec.signerName"),
        ("a signer without a domain", with("signerName", "mine".into()), "FieldValueInvalid", "spec.signerName"),
        (
            "the legacy signer",
            with("signerName", "kubernetes.io/legacy-unknown".into()),
            "FieldValueInvalid",
            "spec.signerName",
        ),
        ("a very short life", with("expirationSeconds", 10.into()), "FieldValueInvalid", "spec.expirationSeconds"),
    ] {
        let answer = post(&joining, REQUESTS, &object).await;
        report.expect(&format!("a request with {claim} is invalid"), &answer, 422, &json!({
            "kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422,
            "message": format!("CertificateSigningRequest.certificates.k8s.io \"csr-refused\" is invalid: {field}: …"),
            "details": {
                "name": "csr-refused", "group": "certificates.k8s.io", "kind": "CertificateSigningRequest",
                "causes": [{"reason": reason, "field": field}],
            },
        }));
    }
    let mut nameless = good.clone();
    nameless["metadata"] = json!({});
    let answer = post(&joining, REQUESTS, &nameless).await;
    report.expect("a request needs a name", &answer, 422, &json!({"reason": "Invalid", "details": {"causes": [{
        "reason": "FieldValueRequired", "field": "metadata.name", "message": "Required value: name or generateName is required",
    }]}}));
    let mut other = good.clone();
    other["kind"] = "Node".into();
    other["apiVersion"] = "v1".into();
    report.expect(
        "another kind is a bad request",
        &post(&joining, REQUESTS, &other).await,
        400,
        &json!({"kind": "Status", "reason": "BadRequest", "code": 400}),
    );
    let answer = send(&joining, Method::POST, REQUESTS, Some(("text/plain", &good))).await;
    report.expect("another media type is refused", &answer, 415, &json!({"reason": "UnsupportedMediaType", "code": 415,
        "message": "the body of the request was in an unknown format - accepted media types include: application/json…"}));
    let anonymous = server.client(&Identity::Anonymous);
    report.expect("nobody else makes requests", &post(&anonymous, REQUESTS, &good).await, 403, &forbidden(
        "certificatesigningrequests", "",
        "certificatesigningrequests.certificates.k8s.io is forbidden: User \"system:anonymous\" cannot create resource \
         \"certificatesigningrequests\" in API group \"certificates.k8s.io\" at the cluster scope"));
    let mut not_found = failure(404, "NotFound", "certificatesigningrequests.certificates.k8s.io \"nope\" not found");
    not_found["details"] =
        json!({"name": "nope", "group": "certificates.k8s.io", "kind": "certificatesigningrequests"});
    report.expect(
        "an unknown request is not found",
        &get(&joining, &format!("{REQUESTS}/nope")).await,
        404,
        &not_found,
    );
    report.expect(
        "an unknown field selects nothing",
        &get(&joining, &format!("{REQUESTS}?fieldSelector=spec.color%3Dred")).await,
        400,
        &json!({"kind": "Status", "reason": "BadRequest", "code": 400}),
    );
}

pub(super) async fn decided_requests(server: &Server, token: &Token, report: &mut Report) {
    let joining = server.bearer(&token.bearer());
    let user = format!("system:bootstrap:{}", token.id);
    // A client certificate of another signer is for an administrator to decide.
    let name = format!("csr-conformance-{}", token.id);
    let path = format!("{REQUESTS}/{name}");
    let mut wanted = Wanted::of_node("someone");
    wanted.organization = "team";
    wanted.signer = "kubernetes.io/kube-apiserver-client";
    let (mut object, _) = wanted.object();
    object["metadata"] = json!({"name": name});
    let made = post(&joining, REQUESTS, &object).await;
    report.expect("a request is made", &made, 201, &json!({
        "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1", "metadata": {"name": name},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client", "username": user,
            "groups": ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"],
            "usages": ["digital signature", "client auth"],
        },
        "status": {},
    }));
    let mut exists = failure(
        409,
        "AlreadyExists",
        &format!("certificatesigningrequests.certificates.k8s.io \"{name}\" already exists"),
    );
    exists["details"] = json!({"name": name, "group": "certificates.k8s.io", "kind": "certificatesigningrequests"});
    report.expect("a name is taken once", &post(&joining, REQUESTS, &object).await, 409, &exists);
    let listed = get(&joining, &format!("{REQUESTS}?fieldSelector=metadata.name%3D{name}")).await;
    report.expect(
        "a request is listed by name",
        &listed,
        200,
        &json!({
            "kind": "CertificateSigningRequestList", "apiVersion": "certificates.k8s.io/v1",
            "items": [{"metadata": {"name": name}, "kind": null}],
        }),
    );
    let denied = |kind: &str| json!({"type": kind, "status": "True", "reason": "Test", "message": "the suite says so"});
    let mut decision = made.body.clone();
    decision["status"] = json!({"conditions": [denied("Denied")]});
    let answer = send(&joining, Method::PUT, &format!("{path}/approval"), Some((JSON, &decision))).await;
    report.expect("a token decides nothing", &answer, 403, &forbidden("certificatesigningrequests", &name, &format!(
        "certificatesigningrequests.certificates.k8s.io \"{name}\" is forbidden: User \"{user}\" cannot update resource \
         \"certificatesigningrequests/approval\" in API group \"certificates.k8s.io\" at the cluster scope")));
    let since = made.body["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let mut watch = joining
        .watch(&format!("{REQUESTS}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={since}"))
        .await
        .unwrap();
    let mut both = decision.clone();
    both["status"] = json!({"conditions": [denied("Approved"), denied("Denied")]});
    let answer = send(&server.admin, Method::PUT, &format!("{path}/approval"), Some((JSON, &both))).await;
    report.expect("nobody approves and denies", &answer, 422, &json!({"reason": "Invalid"}));
    let mut stale = decision.clone();
    stale["metadata"]["resourceVersion"] = "1".into();
    let answer = send(&server.admin, Method::PUT, &format!("{path}/approval"), Some((JSON, &stale))).await;
    report.expect("a stale decision conflicts", &answer, 409, &failure(409, "Conflict", &format!(
        "Operation cannot be fulfilled on certificatesigningrequests.certificates.k8s.io \"{name}\": the object has been \
         modified; please apply your changes to the latest version and try again")));
    let answer = send(&server.admin, Method::PUT, &format!("{path}/approval"), Some((JSON, &decision))).await;
    let condition = json!({"type": "Denied", "status": "True", "reason": "Test", "message": "the suite says so"});
    report.expect("an administrator denies", &answer, 200, &json!({"status": {"conditions": [condition.clone()]}}));
    let event = next(&mut watch).await;
    report.check(
        "a watch sees the denial",
        event["type"] == "MODIFIED"
            && event["object"]["kind"] == "CertificateSigningRequest"
            && event["object"]["status"]["conditions"][0]["reason"] == "Test",
        &event,
    );
    send(&server.admin, Method::DELETE, &path, None).await;
    let event = next(&mut watch).await;
    report.check("a watch sees the deletion", event["type"] == "DELETED", &event);

    // Approved by hand, but not what the signer signs.
    let mut wanted = Wanted::of_node("system:node:named");
    wanted.names = &["named.example"];
    let (object, _) = wanted.object();
    let made = post(&joining, REQUESTS, &object).await;
    let name = made.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    report.check("a generated name has five characters", name.len() == 9 && name.starts_with("csr-"), &made.body);
    let path = format!("{REQUESTS}/{name}");
    let patch = json!({"status": {"conditions": [denied("Approved")]}});
    let answer = send(&server.admin, Method::PATCH, &format!("{path}/approval"), Some((MERGE, &patch))).await;
    report.expect("an approval is patched", &answer, 200, &json!({"status": {"conditions": [{"type": "Approved"}]}}));
    let failed =
        eventually(async || get(&joining, &path).await, |answer| answer.body["status"]["conditions"][1].is_object())
            .await;
    report.expect("the signer refuses names", &failed, 200, &json!({"status": {"certificate": null, "conditions": [
        {"type": "Approved"}, {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": "DNS subjectAltNames are not allowed"},
    ]}}));
    send(&server.admin, Method::DELETE, &path, None).await;
}
