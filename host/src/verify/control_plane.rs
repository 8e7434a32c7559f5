//! What a control plane runs: static Pods that answer, and an etcd member that votes.
//!
//! Where they listen is read from their manifests, which the record was compared with before.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Report;
use crate::api::{Dialer, Identity, Server, Trust, ask_text};
use crate::etcd::{Client, Credentials, Status};
use crate::join::control_plane::admin::ADMIN_CONF;
use crate::join::tls_bootstrap::ExistingIdentity;
use crate::journal::Record;
use crate::node::Node;
use crate::output::printable;

/// A manifest has 5 KB.
const LIMIT_BYTES: u64 = 1 << 20;
/// A component that lives answers at once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// kubeadm's components with the path that says whether they live, and where they listen by default.
const COMPONENTS: [(&str, &str, &str, &str); 3] = [
    ("kube-apiserver", "/livez", "advertise-address", "6443"),
    ("kube-controller-manager", "/healthz", "bind-address", "10257"),
    ("kube-scheduler", "/livez", "bind-address", "10259"),
];

/// Asks everything that the join published here.
pub(super) async fn look(record: &Record, node: &Node, dialer: &Dialer, report: &mut Report) {
    for (name, path, address_flag, port) in COMPONENTS {
        let Some(flags) = published(name, record, node) else { continue };
        let address = flags.last(address_flag).unwrap_or("127.0.0.1");
        let port = flags.last("secure-port").unwrap_or(port);
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let server = format!("https://{host}:{port}");
        let found = ask(name, &server, path, node, dialer).await.err();
        report.compare(name, &format!("an answer from {server}{path}"), found);
    }
    if let Some(flags) = published("etcd", record, node) {
        let id = record.etcd_member().and_then(|(_, _, id)| id);
        let expected = id.map_or_else(|| "a member that votes".to_owned(), |id| format!("member {id}, which votes"));
        let found = match status(&flags, node).await {
            Ok(status) => differs(&status, id),
            Err(why) => Some(why),
        };
        report.compare("etcd", &expected, found);
    }
}

/// What the member is instead; none: what is expected.
fn differs(status: &Status, id: Option<&str>) -> Option<String> {
    if id.is_some_and(|id| id != status.id.to_string()) {
        return Some(format!("member {}", status.id));
    }
    if status.is_learner {
        return Some(format!("member {}, a learner without a vote", status.id));
    }
    if status.leader.is_none() {
        return Some(format!("member {}, which knows no leader", status.id));
    }
    None
}

async fn status(flags: &Flags, node: &Node) -> Result<Status, String> {
    // It is `etcd/ca.crt` in the directory of the certificates.
    let ca_file = flags.last("trusted-ca-file").unwrap_or("/etc/kubernetes/pki/etcd/ca.crt");
    let pki = Path::new(ca_file).parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let url = flags.last("advertise-client-urls").and_then(|urls| urls.split(',').next()).unwrap_or_default();
    let credentials = Credentials::read(pki, node).map_err(|error| error.to_string())?;
    let client = Client::new(credentials, vec![url.to_owned()]).map_err(|error| error.to_string())?;
    let asked = tokio::time::timeout(TIMEOUT, client.status(url)).await;
    asked.map_err(|_| silence())?.map_err(|error| error.to_string())
}

/// The API server is verified and asked as its administrator; the others serve certificates of their own making.
async fn ask(name: &str, server: &str, path: &str, node: &Node, dialer: &Dialer) -> Result<(), String> {
    let client = if name == "kube-apiserver" {
        let admin = ExistingIdentity::in_file(ADMIN_CONF, node).map_err(|error| error.to_string())?;
        let unusable = || format!("`{ADMIN_CONF}` holds no credentials to ask with");
        let admin = admin.ok_or_else(unusable)?;
        let trust = admin.cluster.ok_or_else(unusable)?.trust();
        Server::new(dialer.clone(), server, trust).and_then(|server| server.client(&admin.client))
    } else {
        Server::new(dialer.clone(), server, Trust::Unverified).and_then(|server| server.client(&Identity::Anonymous))
    };
    let client = client.map_err(|error| error.to_string())?;
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::core::request::Error::BuildRequest);
    match tokio::time::timeout(TIMEOUT, ask_text(&client, request)).await {
        Err(_) => Err(silence()),
        Ok(Err(error)) => Err(printable(&error.to_string())),
        Ok(Ok(_)) => Ok(()),
    }
}

fn silence() -> String {
    format!("no answer within {} s", TIMEOUT.as_secs())
}

/// Flags of a static Pod's program.
#[derive(Debug, PartialEq, Eq)]
struct Flags(Vec<String>);

impl Flags {
    /// The last of a name counts, as for the components themselves.
    fn last(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|word| word.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('='))
    }
}

/// None: this join published no such Pod. One whose manifest is gone or broken has no flags: that is told as drift.
fn published(name: &str, record: &Record, node: &Node) -> Option<Flags> {
    let path = format!("/etc/kubernetes/manifests/{name}.yaml");
    let path = Path::new(&path);
    if !record.owns(path) {
        return None;
    }
    let content = node.read(path, LIMIT_BYTES).ok().flatten().unwrap_or_default();
    let pod: Value = serde_saphyr::from_slice(&content).unwrap_or_default();
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let commands = containers.filter_map(|container| container["command"].as_array());
    let words = commands.filter(|words| words.first().and_then(Value::as_str) == Some(name)).flatten();
    Some(Flags(words.filter_map(Value::as_str).map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::scripted::test_node;
    use crate::etcd::MemberId;
    use crate::journal::{Effect, Journal};
    use crate::node::stub::StubMachine;

    fn status(is_learner: bool, leader: Option<u64>) -> Status {
        Status {
            id: MemberId(0xab),
            cluster_id: 1,
            version: "3.7.0".into(),
            db_bytes: 1,
            quota_bytes: 0,
            leader: leader.map(MemberId),
            raft_index: 1,
            applied_index: 1,
            raft_term: 1,
            revision: 1,
            is_learner,
            errors: Vec::new(),
        }
    }

    #[test]
    fn a_member_that_is_another_or_has_no_vote_or_no_leader_differs() {
        assert_eq!(differs(&status(false, Some(1)), Some("ab")), None);
        assert_eq!(differs(&status(false, Some(1)), None), None);
        assert_eq!(differs(&status(false, Some(1)), Some("cd")).unwrap(), "member ab");
        assert_eq!(differs(&status(true, Some(1)), Some("ab")).unwrap(), "member ab, a learner without a vote");
        assert_eq!(differs(&status(false, None), Some("ab")).unwrap(), "member ab, which knows no leader");
    }

    #[tokio::test]
    async fn static_pods_of_the_join_that_do_not_answer_are_drift_and_others_are_not_asked() {
        let (root, _) = test_node();
        let journal = Arc::new(Journal::in_memory());
        let node = Node::new(root.path().to_owned(), Arc::new(StubMachine::default()), Arc::clone(&journal));
        let manifest = "spec: {containers: [{command: [kube-scheduler, --bind-address=::1, --secure-port=1]}]}";
        node.ensure_file(Path::new("/etc/kubernetes/manifests/kube-scheduler.yaml"), manifest.as_bytes(), 0o600)
            .unwrap();
        let peer_url = "https://192.0.2.7:2380".to_owned();
        journal.intend(Effect::EtcdMember { peer_url, id: Some("ab".into()) }).unwrap();
        node.ensure_file(Path::new("/etc/kubernetes/manifests/etcd.yaml"), b"{}", 0o600).unwrap();
        std::fs::write(root.path().join("etc/kubernetes/manifests/kube-apiserver.yaml"), "somebody else's").unwrap();
        let (node_name, server, plugins) = ("n1".into(), None, Vec::new());
        let mut report = Report { node_name, server, plugins, checked: 0, drift: Vec::new() };
        look(&journal.record(), &node, &Dialer::Tcp, &mut report).await;
        let told: Vec<_> = report.drift.iter().map(|drift| (&*drift.subject, &*drift.expected)).collect();
        let expected = [("kube-scheduler", "an answer from https://[::1]:1/livez"), ("etcd", "member ab, which votes")];
        assert_eq!((told, report.checked), (expected.to_vec(), 2));
    }
}
