//! The kubelet's certificate request: waiting for approval, refusal.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::lab::{Alone, SOON, Worker, cluster};

const AUTO_APPROVAL: &str = "kubeadm:node-autoapprove-bootstrap";

/// Auto-approval is off until the returned value goes.
fn without_auto_approval() -> Alone {
    let alone = Alone::until_undone_by(&[
        "create",
        "clusterrolebinding",
        AUTO_APPROVAL,
        "--clusterrole=system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "--group=system:bootstrappers:kubeadm:default-node-token",
    ]);
    cluster().kubectl(&["delete", "clusterrolebinding", AUTO_APPROVAL]).unwrap();
    alone
}

/// Names of the requests for a node's certificate.
pub(crate) fn requests_for(node: &str) -> Vec<String> {
    let columns = "jsonpath={range .items[*]}{.metadata.name} {.spec.request}{\"\\n\"}{end}";
    let listing = cluster().kubectl(&["get", "csr", "-o", columns]).unwrap();
    let wanted = format!("CN=system:node:{node}");
    let is_for = |request: &str| {
        let pem = STANDARD.decode(request).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        request.certification_request_info.subject.to_string().split(", ").any(|part| part == wanted)
    };
    let lines = listing.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(_, request)| is_for(request)).map(|(name, _)| name.to_owned()).collect()
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn names_the_request_that_waits_and_goes_on_when_it_is_approved() {
    let _alone = without_auto_approval();
    let worker = Worker::add("patient");
    let mut join = worker.join(&["--wait=registered"]).starts();
    let line = join.tells("kubectl certificate approve", SOON);
    let name = line.split("kubectl certificate approve ").nth(1).unwrap();
    let name = name.split(['`', ' ', '"', '\\']).next().unwrap();
    assert_eq!(requests_for("patient"), [name]);
    cluster().kubectl(&["certificate", "approve", name]).unwrap();
    let ended = join.ends(SOON);
    assert_eq!(ended.status, Some(0), "{}{}", ended.stdout, ended.stderr);
}

#[test]
#[ignore = "needs a cluster: root, 30 s"]
fn a_denied_request_ends_it_at_once_with_the_reason() {
    let _alone = without_auto_approval();
    let worker = Worker::add("denied");
    let mut join = worker.join(&[]).starts();
    join.tells("kubectl certificate approve", SOON);
    let names = requests_for("denied");
    assert_eq!(names.len(), 1, "{names:?}");
    cluster().kubectl(&["certificate", "deny", &names[0]]).unwrap();
    let denied = Instant::now();
    let failed = join.ends(SOON).failure();
    assert!(denied.elapsed() < Duration::from_secs(45), "{:?}", denied.elapsed());
    assert_eq!((failed.status, failed.code.as_str()), (Some(1), "tls-bootstrap-csr-denied"), "{failed:?}");
    assert!(failed.message.contains("KubectlDeny"), "{failed:?}");
    assert!(failed.hint.contains(&names[0]), "{failed:?}");

    // What the hint says helps.
    cluster().kubectl(&["delete", "csr", &names[0]]).unwrap();
    let mut join = worker.join(&["--wait=registered"]).starts();
    join.tells("kubectl certificate approve", SOON);
    cluster().kubectl(&["certificate", "approve", &requests_for("denied")[0]]).unwrap();
    assert_eq!(join.ends(SOON).status, Some(0));
}
