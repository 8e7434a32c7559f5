use super::*;
use crate::journal::{Header, Journal};
use crate::node::stub::StubMachine;
use crate::node::{Change, Node, UnitAction, UnitState};
use std::sync::Arc;

const FILE: &str = "/etc/kubernetes/pki/ca.crt";

/// A machine that joined.
async fn joined() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let header = Header { node_name: "n1".into(), endpoint: "e".into(), arguments: String::new() };
    let journal = Arc::new(Journal::open(root.path(), header).unwrap());
    let node = Node::new(root.path().to_owned(), Arc::new(StubMachine::default()), journal.clone());
    node.delegate(Path::new("/etc/kubernetes/kubelet.conf")).unwrap();
    assert_eq!(node.ensure_file(Path::new(FILE), b"old", 0o644).unwrap(), Change::Made);
    node.ensure_file(Path::new(FILE), b"ca", 0o644).unwrap();
    node.ensure_file(Path::new(CONFIG), b"healthzPort: 1\n", 0o644).unwrap();
    node.ensure_file(Path::new("/etc/kubernetes/bootstrap-kubelet.conf"), b"x", 0o600).unwrap();
    node.remove(Path::new("/etc/kubernetes/bootstrap-kubelet.conf")).unwrap();
    node.ensure_symlink(Path::new(CURRENT_PEM), Path::new("/var/lib/kubelet/pki/kubelet-client-1.pem")).unwrap();
    node.unit(UnitAction::Restart, UNIT).await.unwrap();
    std::fs::write(root.path().join("etc/kubernetes/kubelet.conf"), "made by the kubelet").unwrap();
    journal.finish().unwrap();
    root
}

async fn drift(root: &Path, machine: StubMachine) -> Vec<String> {
    let report = run(root, Arc::new(machine), &Dialer::Tcp).await.unwrap();
    assert_eq!(report.verdict().is_err(), !report.drift.is_empty());
    report.drift.into_iter().map(|drift| format!("{}: {} / {}", drift.subject, drift.expected, drift.found)).collect()
}

#[tokio::test]
async fn a_machine_as_it_was_joined_has_no_drift() {
    let root = joined().await;
    let report = run(root.path(), Arc::<StubMachine>::default(), &Dialer::Tcp).await.unwrap();
    assert_eq!(report.drift, []);
    report.verdict().unwrap();
    // The record, 5 paths, 5 directories above them that the join made, the unit and its health.
    assert_eq!(report.checked, 13);
    assert_eq!(report.text(), "node `n1`: 13 compared, as joined\n");
}

#[tokio::test]
async fn tells_every_kind_of_difference() {
    let root = joined().await;
    let at = |path: &str| root.path().join(path.trim_start_matches('/'));
    std::fs::write(at(FILE), "other").unwrap();
    std::fs::set_permissions(at("/etc/kubernetes/pki"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::remove_file(at("/etc/kubernetes/kubelet.conf")).unwrap();
    std::fs::write(at("/etc/kubernetes/bootstrap-kubelet.conf"), "").unwrap();
    std::fs::remove_file(at(CURRENT_PEM)).unwrap();
    std::os::unix::fs::symlink("/tmp/evil.pem", at(CURRENT_PEM)).unwrap();
    let state = UnitState { exists: true, active: false, restarts: None };
    let machine =
        StubMachine { kubelet: Some(state).into(), healths: vec![Some(500)].into(), ..StubMachine::default() };
    let found = drift(root.path(), machine).await;
    let hash = sha256_hex;
    assert_eq!(
        found,
        [
            "/etc/kubernetes/bootstrap-kubelet.conf: nothing / a file".to_owned(),
            "/etc/kubernetes/kubelet.conf: a file / nothing".to_owned(),
            "/etc/kubernetes/pki: a directory with mode 0755 / a directory with mode 0700".to_owned(),
            format!(
                "{FILE}: a file with mode 0644 and sha256 {} / a file with mode 0644 and sha256 {}",
                hash(b"ca"),
                hash(b"other")
            ),
            format!("{CURRENT_PEM}: a link to `/var/lib/kubelet/pki/kubelet-client-1.pem` / a link to `/tmp/evil.pem`"),
            "unit kubelet: running / not running".to_owned(),
            "health: status 200 from http://127.0.0.1:1/healthz / status 500".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_rotated_certificate_is_no_drift() {
    let root = joined().await;
    let link = root.path().join(CURRENT_PEM.trim_start_matches('/'));
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("/var/lib/kubelet/pki/kubelet-client-2.pem", link).unwrap();
    assert_eq!(drift(root.path(), StubMachine::default()).await, [""; 0]);
}

#[tokio::test]
async fn a_join_that_did_not_finish_is_drift_and_no_record_an_error() {
    let root = joined().await;
    let header = Header { node_name: "n1".into(), endpoint: "e".into(), arguments: String::new() };
    let journal = Journal::open(root.path(), header).unwrap();
    journal.intend(Effect::Removal { path: "/x".into() }).unwrap();
    drop(journal);
    let found = drift(root.path(), StubMachine::default()).await;
    assert_eq!(found, ["record: a finished join / a join that did not finish"]);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        run(empty.path(), Arc::<StubMachine>::default(), &Dialer::Tcp).await.unwrap_err().code(),
        "verify-no-record"
    );
}
