//! Who may do what: the Node authorizer, kubeadm's roles, and the NodeRestriction admission.
//!
//! Sources: kubernetes `plugin/pkg/auth/authorizer/node`, `plugin/pkg/admission/noderestriction`, and the roles that
//! `kubeadm init` makes.

use serde_json::Value;

use super::request::{Attributes, Kind, LEASES, NODES, REQUESTS, ResourceTarget, Target, Verb};
use super::signer;
use super::status::Status;
use super::user::{GROUP_JOINING, GROUP_MASTERS, GROUP_NODES, User};

/// Paths that anybody may read.
const PUBLIC_PATHS: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
/// Namespace of the nodes' leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Labels under `kubernetes.io` that a kubelet may set; beside them the namespaces `kubelet.` and `node.kubernetes.io`.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Lets a request pass, or says 403.
pub(super) fn authorize(user: &User, attributes: &Attributes) -> Result<(), Status> {
    if user.is_in(GROUP_MASTERS) {
        return Ok(());
    }
    let allowed = match &attributes.target {
        Target::Path(path) => {
            let read = matches!(attributes.verb, Verb::Other("get"));
            let discovery = path == "/api" || path == "/apis" || path.starts_with("/openapi");
            let known = !user.is_in("system:unauthenticated");
            (read && (PUBLIC_PATHS.contains(&path.as_str()) || (discovery && known)))
                .then_some(())
                .ok_or_else(String::new)
        }
        Target::Resource(target) => {
            let of_node = user.node().map(|node| node_authorizes(node, attributes.verb, target));
            match of_node {
                Some(Ok(())) => Ok(()),
                _ if role_allows(user, attributes.verb, target) => Ok(()),
                Some(Err(why)) if !why.is_empty() => Err(format!("node: {why}")),
                Some(Err(_)) => Err(String::new()),
                None => Err(String::new()),
            }
        }
    };
    allowed.map_err(|why| Status::unauthorized_action(&user.name, attributes, &why))
}

/// What kubeadm's roles and bindings allow.
fn role_allows(user: &User, verb: Verb, target: &ResourceTarget) -> bool {
    let joining = user.is_in(GROUP_JOINING);
    let read = matches!(verb, Verb::Get | Verb::List | Verb::Watch);
    if target.subresource.is_some() {
        return false;
    }
    match (&*target.group, &*target.namespace, &*target.plural, &*target.name) {
        ("", "kube-public", "configmaps", "cluster-info") => verb == Verb::Get && user.name == "system:anonymous",
        ("", "kube-system", "configmaps", "kubeadm-config" | "kubelet-config") => {
            verb == Verb::Get && (joining || user.is_in(GROUP_NODES))
        }
        ("", "kube-system", "configmaps", "kube-proxy") => verb == Verb::Get && joining,
        ("", "", "nodes", _) => verb == Verb::Get && joining,
        ("certificates.k8s.io", _, "certificatesigningrequests", _) => joining && (read || verb == Verb::Create),
        _ => false,
    }
}

/// What the Node authorizer lets a node do; its reason where it does not.
fn node_authorizes(node: &str, verb: Verb, target: &ResourceTarget) -> Result<(), String> {
    let read = matches!(verb, Verb::Get | Verb::List | Verb::Watch);
    let unrelated = || Err(format!("no relationship found between node '{node}' and this object"));
    match (&*target.group, &*target.plural, target.subresource.as_deref()) {
        ("", "nodes", None) => match verb {
            Verb::Create | Verb::Update | Verb::Patch => Ok(()),
            _ if read && target.name == node => Ok(()),
            _ if read && target.name.is_empty() => {
                Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
            }
            _ if read => Err(format!("node '{node}' cannot read '{}', only its own Node object", target.name)),
            _ => Err(String::new()),
        },
        ("", "nodes", Some("status")) if matches!(verb, Verb::Update | Verb::Patch) => Ok(()),
        ("", "secrets" | "configmaps", subresource) => {
            if !read {
                Err("can only read resources of this type".into())
            } else if subresource.is_some() {
                Err("cannot read subresource".into())
            } else if target.namespace.is_empty() {
                Err("can only read namespaced object of this type".into())
            } else if target.name.is_empty() {
                Err("No Object name found".into())
            } else {
                // Only Pods make relationships, and the sandbox runs none.
                unrelated()
            }
        }
        ("coordination.k8s.io", "leases", _) => match verb {
            Verb::List | Verb::Watch | Verb::DeleteCollection | Verb::Other(_) => {
                Err("can only get, create, update, patch, or delete a node lease".into())
            }
            _ if target.namespace != LEASE_NAMESPACE => {
                Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"))
            }
            _ if verb != Verb::Create && target.name != node => {
                Err("can only access node lease with the same name as the requesting node".into())
            }
            _ => Ok(()),
        },
        ("certificates.k8s.io", "certificatesigningrequests", None) if read || verb == Verb::Create => Ok(()),
        _ => Err(String::new()),
    }
}

/// NodeRestriction: what a node may write. `name` is what the URL names (on creation: the object's); `old` is absent
/// on creation.
pub(super) fn admit(
    user: &User,
    kind: &'static Kind,
    name: &str,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    let Some(node) = user.node() else { return Ok(()) };
    let refuse = |why: String| Err(Status::forbidden(kind.group, kind.plural, name, &why));
    if *kind == NODES {
        return admit_node(node, name, old, new).or_else(refuse);
    }
    if *kind == LEASES && name != node {
        return refuse("can only access node lease with the same name as the requesting node".into());
    }
    let for_node = |signer: &str| [signer::KUBELET_CLIENT, signer::KUBELET_SERVING].contains(&signer);
    if *kind == REQUESTS && old.is_none() && new["spec"]["signerName"].as_str().is_some_and(for_node) {
        return match signer::common_name(new) {
            Err(why) => refuse(format!("unable to parse csr: {why}")),
            Ok(common_name) if common_name.strip_prefix("system:node:") != Some(node) => {
                refuse(format!("can only create a node CSR with CN=system:node:{node}"))
            }
            Ok(_) => Ok(()),
        };
    }
    Ok(())
}

fn admit_node(node: &str, name: &str, old: Option<&Value>, new: &Value) -> Result<(), String> {
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let forbidden = forbidden_labels(old.unwrap_or(&Value::Null), new);
    match old {
        None if !forbidden.is_empty() => {
            Err(format!("node {node:?} is not allowed to set the following labels: {forbidden}"))
        }
        Some(old) if old["spec"]["taints"] != new["spec"]["taints"] => {
            Err(format!("node {node:?} is not allowed to modify taints"))
        }
        Some(old) if old["metadata"]["ownerReferences"] != new["metadata"]["ownerReferences"] => {
            Err(format!("node {node:?} is not allowed to modify ownerReferences"))
        }
        Some(_) if !forbidden.is_empty() => Err(format!("is not allowed to modify labels: {forbidden}")),
        _ => Ok(()),
    }
}

/// Changed labels that a kubelet may not touch, joined by commas.
fn forbidden_labels(old: &Value, new: &Value) -> String {
    let labels = |object: &Value| object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (old, new) = (labels(old), labels(new));
    let within = |space: &str, domain: &str| space == domain || space.ends_with(&format!(".{domain}"));
    let mut forbidden: Vec<_> = old
        .keys()
        .chain(new.keys())
        .filter(|label| old.get(*label) != new.get(*label))
        .filter(|label| {
            let space = label.split_once('/').map_or("", |(space, _)| space);
            let kubernetes = within(space, "kubernetes.io") || within(space, "k8s.io");
            let kubelet = KUBELET_LABELS.contains(&label.as_str())
                || within(space, "kubelet.kubernetes.io")
                || within(space, "node.kubernetes.io");
            within(space, "node-restriction.kubernetes.io") || (kubernetes && !kubelet)
        })
        .cloned()
        .collect();
    forbidden.sort();
    forbidden.dedup();
    forbidden.join(", ")
}
