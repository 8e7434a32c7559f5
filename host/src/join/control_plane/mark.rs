//! `control-plane-join/mark-control-plane`: labels and taints of the Node.
//!
//! The kubelet registered the Node with its taints and the label that keeps load balancers away; a kubelet may not give
//! itself a role, so the administrator does. What is there already is not sent again. The taints are one list to the API
//! server, which also the node controller writes; so they are patched together with the version that was read, and read
//! again on a conflict, where server-side apply would take the whole list. kubeadm reports success without labels when
//! the kubelet never labelled the Node; here that is an error. And it looks for `nodeRegistration.name` even where the kubelet
//! has another one by `hostname-override`, and never finds it; here the Node is the one that the kubelet registers.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::api::PatchParams;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::Instant;

use super::admin::{Admin, AdminError};
use crate::api::{ApiError, ask, get};
use crate::config::Taint;
use crate::error::Diagnose;
use crate::join::JoinContext;
use crate::join::node_lookup::kubelet_node_name;

/// Phase id of what is told.
const PHASE: &str = "control-plane-join/mark-control-plane";
/// The role.
pub const ROLE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// Services of type LoadBalancer leave such a Node out.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Made by the kubelet when it registers.
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The taints a control plane has: as configured, else kubeadm's.
pub fn taints(configured: Option<&[Taint]>) -> Vec<Taint> {
    configured.map_or_else(
        || vec![Taint { key: ROLE_LABEL.into(), value: String::new(), effect: "NoSchedule".into() }],
        <[Taint]>::to_vec,
    )
}

/// Labels and taints the Node, as soon as the kubelet has registered it.
///
/// # Errors
///
/// [`MarkError`]; run again, it goes on.
pub async fn mark(cx: &JoinContext) -> Result<(), MarkError> {
    let name = &*kubelet_node_name(&cx.settings);
    let step = cx.reporter.step(PHASE, format!("mark Node `{name}` as a control plane"));
    let wanted = taints(cx.settings.node.taints.as_deref());
    if let Some(plan) = cx.node.plan() {
        plan.api_call(
            "PATCH",
            format!("/api/v1/nodes/{name}"),
            format!("label `{ROLE_LABEL}`, {} taints", wanted.len()),
        );
        return Ok(());
    }
    let admin = Admin::load(cx)?;
    let client = admin.client(cx)?;
    let timeout = cx.settings.timeouts.kubernetes_api_call;
    let deadline = Instant::now() + timeout;
    let mut told = String::new();
    loop {
        let seen = match attempt(&client, name, &wanted).await {
            Ok(Attempt::Marked) => {
                step.done(format!("labels and {} taints", wanted.len()));
                return Ok(());
            }
            Ok(Attempt::Unchanged) => {
                step.unchanged("it is");
                return Ok(());
            }
            Ok(Attempt::NotRegistered) => "the kubelet has not registered it yet".to_owned(),
            Err(source) if Instant::now() >= deadline => {
                return Err(MarkError::Refused { name: name.to_owned(), server: admin.server().to_owned(), source });
            }
            Err(source) => source.to_string(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(MarkError::NotRegistered { name: name.to_owned(), seconds: timeout.as_secs() });
        }
        if seen != told {
            cx.reporter.waiting(PHASE, format!("Node `{name}`: {seen}"), left);
            told = seen;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

enum Attempt {
    Marked,
    Unchanged,
    NotRegistered,
}

async fn attempt(client: &kube::Client, name: &str, wanted: &[Taint]) -> Result<Attempt, ApiError> {
    let node = match get::<ApiNode>(client, None, name).await {
        Ok(node) => node,
        Err(error) if error.status() == Some(404) => return Ok(Attempt::NotRegistered),
        Err(error) => return Err(error),
    };
    if !node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(HOSTNAME_LABEL)) {
        return Ok(Attempt::NotRegistered);
    }
    let Some(patch) = patch(&node, wanted) else { return Ok(Attempt::Unchanged) };
    let path = kube::core::Request::new("/api/v1/nodes");
    let params = PatchParams { field_manager: Some("mortise".into()), ..PatchParams::default() };
    ask::<Value>(client, path.patch(name, &params, &kube::api::Patch::Strategic(patch))).await?;
    Ok(Attempt::Marked)
}

/// What the Node lacks; none: nothing. Other taints, and what others wrote, stay.
fn patch(node: &ApiNode, wanted: &[Taint]) -> Option<Value> {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let labelled = [ROLE_LABEL, EXCLUDE_LABEL].iter().all(|label| labels.get(*label).is_some_and(String::is_empty));
    let found = serde_json::to_value(node.spec.as_ref().and_then(|spec| spec.taints.as_ref())).unwrap_or_default();
    let found = found.as_array().cloned().unwrap_or_default();
    let same = |taint: &Value, wanted: &Taint| {
        let text = |key: &str| taint.get(key).and_then(Value::as_str).unwrap_or_default();
        (text("key"), text("value"), text("effect")) == (&*wanted.key, &*wanted.value, &*wanted.effect)
    };
    let tainted = wanted.iter().all(|taint| found.iter().any(|found| same(found, taint)));
    if labelled && tainted {
        return None;
    }
    let mut patch = json!({ "metadata": {
        "labels": { ROLE_LABEL: "", EXCLUDE_LABEL: "" },
        "resourceVersion": node.metadata.resource_version,
    }});
    if !tainted {
        let ours = wanted.iter().map(|taint| {
            let mut value = json!({ "key": taint.key, "effect": taint.effect });
            if !taint.value.is_empty() {
                value["value"] = json!(taint.value);
            }
            value
        });
        let others = found.iter().filter(|found| !wanted.iter().any(|taint| same(found, taint))).cloned();
        patch["spec"] = json!({ "taints": ours.chain(others).collect::<Vec<_>>() });
    }
    Some(patch)
}

/// Why the Node is not marked.
#[derive(Debug, Error)]
pub enum MarkError {
    /// `admin.conf`.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// No Node, or one without the label that every kubelet makes.
    #[error("Node `{name}` was not registered by its kubelet within {seconds} s")]
    NotRegistered {
        /// Of the Node.
        name: String,
        /// Waited.
        seconds: u64,
    },
    /// The last answer.
    #[error("cannot mark Node `{name}` at `{server}`")]
    Refused {
        /// Of the Node.
        name: String,
        /// URL.
        server: String,
        /// The cause.
        source: ApiError,
    },
}

impl Diagnose for MarkError {
    fn code(&self) -> &'static str {
        match self {
            Self::Admin(error) => error.code(),
            Self::NotRegistered { .. } => "node-not-registered",
            Self::Refused { .. } => "node-not-marked",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Admin(error) => error.hint(),
            Self::NotRegistered { .. } => {
                Some("`journalctl -u kubelet -n 50` says why; then run the same command again".into())
            }
            Self::Refused { .. } => Some("run the same command again; it goes on from here".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: Value, taints: Value) -> ApiNode {
        serde_json::from_value(json!({
            "metadata": {"name": "n2", "resourceVersion": "7", "labels": labels},
            "spec": {"taints": taints},
        }))
        .unwrap()
    }

    #[test]
    fn what_is_marked_is_left_alone() {
        let labels = json!({ROLE_LABEL: "", EXCLUDE_LABEL: "", HOSTNAME_LABEL: "n2"});
        let ours = json!({"key": ROLE_LABEL, "effect": "NoSchedule"});
        let marked = node(labels.clone(), json!([{"key": "other", "effect": "NoExecute"}, ours]));
        assert_eq!(patch(&marked, &taints(None)), None);
        assert_eq!(patch(&node(labels, json!([])), &taints(Some(&[]))), None);
    }

    #[test]
    fn the_taints_of_others_stay_and_the_version_that_was_read_is_named() {
        let other =
            json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "timeAdded": "2026-11-25T00:00:00Z"});
        let patch = patch(&node(json!({HOSTNAME_LABEL: "n2"}), json!([other])), &taints(None)).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["labels"], json!({ROLE_LABEL: "", EXCLUDE_LABEL: ""}));
        assert_eq!(patch["spec"]["taints"], json!([{"key": ROLE_LABEL, "effect": "NoSchedule"}, other]));
    }

    #[test]
    fn a_label_with_another_value_is_set_and_taints_that_are_there_are_not_sent() {
        let labels = json!({ROLE_LABEL: "x", EXCLUDE_LABEL: "", HOSTNAME_LABEL: "n2"});
        let patch = patch(&node(labels, json!([{"key": ROLE_LABEL, "effect": "NoSchedule"}])), &taints(None)).unwrap();
        assert!(patch.get("spec").is_none(), "{patch}");
    }
}
