//! Whether the components of this control plane answer: after they were published, and at the end.
//!
//! Where they listen is read from their manifests, as kubeadm does, so that what patches changed counts. The API server
//! is asked with the administrator's certificate and verified; the other two serve a certificate of their own making and are
//! asked on the loopback interface.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use tokio::time::Instant;

use super::LocalNode;
use super::admin::{Admin, AdminError};
use super::manifests::{Component, files};
use crate::api::{ApiError, Identity, Server, Trust, ask_text};
use crate::error::Diagnose;
use crate::join::JoinContext;
use crate::node::{Node, NodeError};
use crate::output::printable;

/// Pauses between two looks: short while a start takes seconds, longer when something is wrong.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// The short pause is kept for so long.
const BRISK: Duration = Duration::from_secs(20);

/// The components that serve health over https; etcd is asked by a client of its own.
pub const SERVED: [Component; 3] = [Component::ApiServer, Component::ControllerManager, Component::Scheduler];

fn default_port(component: Component) -> u16 {
    match component {
        Component::ControllerManager => 10_257,
        Component::Scheduler => 10_259,
        Component::ApiServer | Component::Etcd => crate::config::DEFAULT_BIND_PORT,
    }
}

/// How much health is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It takes requests: `readyz`.
    Ready,
    /// It lives, as kubeadm asks at the end: `livez`, of the controller manager `healthz`.
    Alive,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Alive => "healthy",
        })
    }
}

/// Waits until all of these are as healthy as asked for, asking them side by side.
///
/// # Errors
///
/// [`ComponentsError::Unhealthy`] of those that are not, after `controlPlaneComponentHealthCheck`.
pub async fn wait_for(
    components: &[Component],
    health: Health,
    local: &LocalNode,
    phase: &'static str,
    cx: &JoinContext,
) -> Result<(), ComponentsError> {
    let admin = Admin::load(cx)?;
    let timeout = cx.settings.timeouts.control_plane_component_health_check;
    let deadline = Instant::now() + timeout;
    let mut probes = Vec::new();
    for component in components {
        probes.push(Probe::new(*component, health, local, &admin, cx)?);
    }
    let waits = probes.iter().map(|probe| async {
        let step = cx.reporter.step(phase, format!("wait until {} is {health}", probe.component.name()));
        match probe.until_healthy(deadline, phase, cx).await {
            Ok(looks) => {
                if looks == 1 {
                    step.unchanged(probe.url())
                } else {
                    step.done(probe.url())
                }
                None
            }
            Err(last) => Some(format!("{} at {}: {last}", probe.component.name(), probe.url())),
        }
    });
    let failed: Vec<String> = futures::future::join_all(waits).await.into_iter().flatten().collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(ComponentsError::Unhealthy { failed, seconds: timeout.as_secs() })
}

/// Whom to ask, and what.
struct Probe {
    component: Component,
    server: String,
    path: &'static str,
    client: kube::Client,
}

impl Probe {
    fn new(
        component: Component,
        health: Health,
        local: &LocalNode,
        admin: &Admin,
        cx: &JoinContext,
    ) -> Result<Self, ComponentsError> {
        let place = Place::of(component, &cx.node)?;
        let port = place.port.unwrap_or(default_port(component));
        let path = match (component, health) {
            (Component::ControllerManager, _) => "/healthz",
            (_, Health::Ready) => "/readyz",
            (_, Health::Alive) => "/livez",
        };
        let (server, client) = match component {
            Component::ApiServer => {
                let server = local.api_server();
                let client = admin.client_of(&server, cx)?;
                (server, client)
            }
            _ => {
                let host = place.bind_address.as_deref().unwrap_or("127.0.0.1");
                let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
                let server = format!("https://{host}:{port}");
                let client = Server::new(cx.dialer.clone(), &server, Trust::Unverified)
                    .and_then(|unverified| unverified.client(&Identity::Anonymous))
                    .map_err(|source| ComponentsError::Address { component: component.name(), source })?;
                (server, client)
            }
        };
        Ok(Self { component, server, path, client })
    }

    fn url(&self) -> String {
        format!("`{}{}`", self.server, self.path)
    }

    /// How often it was asked; what it said last where the time is over.
    async fn until_healthy(&self, deadline: Instant, phase: &'static str, cx: &JoinContext) -> Result<usize, String> {
        let begun = Instant::now();
        let mut looks = 0;
        let mut told = begun;
        loop {
            looks += 1;
            let request =
                http::Request::get(self.path).body(Vec::new()).map_err(kube::core::request::Error::BuildRequest);
            let Err(error) = ask_text(&self.client, request).await else { return Ok(looks) };
            let seen = printable(&error.to_string());
            let now = Instant::now();
            if now >= deadline {
                return Err(seen);
            }
            if now - told > Duration::from_secs(3) {
                cx.reporter.waiting(phase, format!("{}: {seen}", self.component.name()), deadline - now);
                told = now;
            }
            let pause = if now - begun < BRISK { PAUSE.0 } else { PAUSE.1 };
            tokio::time::sleep(pause.min(deadline - now)).await;
        }
    }
}

/// Where a component listens, as far as its manifest says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    bind_address: Option<String>,
    port: Option<u16>,
}

impl Place {
    fn of(component: Component, node: &Node) -> Result<Self, ComponentsError> {
        let path = files::path(component);
        let content = node.read(&path, files::LIMIT_BYTES)?;
        let content = content.ok_or_else(|| ComponentsError::NoManifest { path: path.clone() })?;
        let text = String::from_utf8_lossy(&content);
        let pod: Value = serde_saphyr::from_str(&text).map_err(|_| ComponentsError::NoManifest { path })?;
        Ok(Self::in_pod(&pod, component.name()))
    }

    /// The last flag of a name counts, as for the components themselves.
    fn in_pod(pod: &Value, program: &str) -> Self {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let commands = containers.filter_map(|container| container["command"].as_array());
        let words = commands.filter(|words| words.first().and_then(Value::as_str) == Some(program)).flatten();
        let mut place = Self::default();
        for word in words.filter_map(Value::as_str) {
            match word.split_once('=') {
                Some(("--bind-address", address)) => place.bind_address = Some(address.to_owned()),
                Some(("--secure-port", port)) => place.port = port.parse().ok(),
                _ => {}
            }
        }
        place
    }
}

/// Why a control plane does not count as started.
#[derive(Debug, Error)]
pub enum ComponentsError {
    /// `admin.conf`.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A manifest names no address that could be asked.
    #[error("`{component}` cannot be asked where its manifest says that it listens")]
    Address {
        /// Name.
        component: &'static str,
        /// The cause.
        source: ApiError,
    },
    /// A static Pod is missing.
    #[error("there is no readable manifest `{path}`")]
    NoManifest {
        /// Absolute.
        path: PathBuf,
    },
    /// Those that did not answer as they should.
    #[error("not healthy after {seconds} s: {}", failed.join("; "))]
    Unhealthy {
        /// Name, URL and last answer of each.
        failed: Vec<String>,
        /// Waited.
        seconds: u64,
    },
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl Diagnose for ComponentsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Admin(error) => error.code(),
            Self::Address { .. } => "component-address",
            Self::NoManifest { .. } => "component-no-manifest",
            Self::Unhealthy { .. } => "component-unhealthy",
            Self::Node(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Admin(error) => error.hint(),
            Self::Address { .. } | Self::NoManifest { .. } => {
                Some("`mortise join phase control-plane-prepare control-plane --control-plane …` writes it".into())
            }
            Self::Unhealthy { .. } => Some(
                "`crictl ps -a` lists the containers and `crictl logs` shows why one ended; then run the same command again"
                    .into(),
            ),
            Self::Node(error) => error.hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_flag_of_the_programs_own_container_says_where_it_listens() {
        let pod = json!({"spec": {"containers": [
            {"command": ["sidecar", "--bind-address=9.9.9.9"]},
            {"command": ["kube-scheduler", "--bind-address=127.0.0.1", "--secure-port=1", "--bind-address=::1", "--secure-port=2"]},
        ]}});
        let place = Place { bind_address: Some("::1".into()), port: Some(2) };
        assert_eq!(Place::in_pod(&pod, "kube-scheduler"), place);
        assert_eq!(Place::in_pod(&json!({}), "kube-scheduler"), Place::default());
    }
}
