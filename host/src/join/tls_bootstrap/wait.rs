//! Waiting for the Node, seen with the node's own certificate: `--wait=registered` and `--wait=ready`.

use std::ops::ControlFlow;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node as ApiNode;
use tokio::time::Instant;

use super::{TlsBootstrapError, existing_identity};
use crate::api::Identity;
use crate::api::watch::{self, Sight};
use crate::join::node_lookup::{is_ready, kubelet_node_name};
use crate::join::{Access, JoinContext};
use crate::output::printable;

/// Phase id of what is told.
const PHASE: &str = "wait";

/// How far the Node is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It exists.
    Exists,
    /// Its condition Ready is True.
    Ready,
}

/// Waits for the Node of this machine.
///
/// # Errors
///
/// [`TlsBootstrapError::NodeTimedOut`] with the last state; [`TlsBootstrapError::NoIdentity`] before TLS bootstrap.
pub async fn wait_for_node(
    access: &Access,
    wanted: Registered,
    timeout: Duration,
    cx: &JoinContext,
) -> Result<(), TlsBootstrapError> {
    let name = &*kubelet_node_name(&cx.settings);
    let word = match wanted {
        Registered::Exists => "registered",
        Registered::Ready => "Ready",
    };
    let step = cx.reporter.step(PHASE, format!("wait until Node `{name}` is {word}"));
    let identity = existing_identity(cx)?.ok_or(TlsBootstrapError::NoIdentity)?;
    let Identity::Certificate { certificate_pem, key_pem } = identity.client else {
        return Err(TlsBootstrapError::NoIdentity);
    };
    let client = access.as_node(certificate_pem, key_pem).map_err(TlsBootstrapError::Client)?;
    let deadline = Instant::now() + timeout;
    let mut last = "nothing".to_owned();
    let judge = |sight: Sight<ApiNode>| {
        let now = match sight {
            Sight::Object(node) if wanted == Registered::Exists || is_ready(&node) => return ControlFlow::Break(()),
            Sight::Object(node) => not_ready(&node),
            Sight::Gone => "it does not exist".to_owned(),
            Sight::Trouble(error) => error.to_string(),
        };
        if now != last {
            let left = deadline.saturating_duration_since(Instant::now());
            cx.reporter.waiting(PHASE, format!("Node `{name}`: {now}"), left);
            last = now;
        }
        ControlFlow::Continue(())
    };
    let outcome = watch::until(&client, name, None, deadline, judge).await;
    match outcome {
        Ok(()) => {
            step.done(format!("it is {word}"));
            Ok(())
        }
        Err(watch::TimedOut) => Err(TlsBootstrapError::NodeTimedOut {
            name: name.to_owned(),
            wanted: word,
            seconds: timeout.as_secs(),
            last,
        }),
    }
}

fn not_ready(node: &ApiNode) -> String {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    let message =
        ready.and_then(|condition| condition.message.as_deref()).unwrap_or("the kubelet has not reported yet");
    printable(&format!("not ready, {message}"))
}
