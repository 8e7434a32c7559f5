//! A kubelet as far as a join can tell: it reads the files, takes its certificate, registers its Node and stays healthy.
//!
//! Whatever keeps a real kubelet from starting ends this one, too, with the same words.

use std::path::Path;
use std::time::Duration;

use http::Method;
use k8s_openapi::jiff::Timestamp;
use kube::config::Kubeconfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::sandbox::client::{Client, ClientError, Identity};

use super::flags::Flags;
use super::{Shared, bootstrap, files};

const CONFIG: &str = "/var/lib/kubelet/config.yaml";
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json";
/// First pause after a refused registration; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(7);
/// `nodeLeaseDurationSeconds`.
const LEASE_SECONDS: u64 = 40;

/// One run of the kubelet.
pub(super) struct Kubelet<'a> {
    shared: &'a Shared,
}

/// What the run needs of the files.
struct Started {
    flags: Flags,
    node_name: String,
}

impl<'a> Kubelet<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared }
    }

    /// Runs until something ends it; says what.
    pub(super) async fn run(&self) -> String {
        let (started, config) = match self.start() {
            Ok(started) => started,
            Err(why) => return why,
        };
        let needs_certificate = match self.own_client() {
            Ok(_) => false,
            Err(own) => match bootstrap::check(self.shared) {
                Ok(()) => {
                    self.shared.log(&format!("no usable client certificate yet, bootstrapping: {own}"));
                    true
                }
                Err(why) => return format!("unable to load bootstrap kubeconfig: {why}"),
            },
        };
        let address = config["healthzBindAddress"].as_str().unwrap_or("127.0.0.1").to_owned();
        let port = config["healthzPort"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(10248);
        if port != 0 {
            self.shared.units().healthz = Some((address, port));
        }
        self.shared.log("\"Started kubelet\"");
        if needs_certificate {
            self.retried("Unable to get a client certificate", || bootstrap::run(self.shared, &started.node_name))
                .await;
        }
        let client = match self.own_client() {
            Ok(client) => client,
            Err(why) => return why,
        };
        self.retried("Unable to register node with API server", || self.register(&client, &started)).await;
        self.shared.log(&format!("\"Successfully registered node\" node={:?}", started.node_name));
        let renewal = Duration::from_secs(LEASE_SECONDS) / 4;
        loop {
            self.retried("Failed to update lease", || self.renew(&client, &started.node_name)).await;
            tokio::time::sleep(renewal).await;
        }
    }

    /// Repeats what the API server refuses, as a kubelet does, and logs each refusal.
    async fn retried<F: Future<Output = Result<(), String>>>(&self, what: &str, attempt: impl Fn() -> F) {
        let mut pause = FIRST_PAUSE;
        while let Err(why) = attempt().await {
            self.shared.log(&format!("{what:?} err={why:?}"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Reads flags and configuration, and judges them as a kubelet does before it does anything.
    fn start(&self) -> Result<(Started, Value), String> {
        let flags = Flags::read(self.shared.root())?;
        let text = files::read(self.shared.root(), CONFIG)
            .map_err(|error| format!("failed to load kubelet config file, path: {CONFIG}, error: {error}"))?;
        let config: Value = serde_saphyr::from_str(&text)
            .map_err(|error| format!("failed to load kubelet config file, path: {CONFIG}, error: {error}"))?;
        self.check(&config)?;
        let node_name = flags.hostname_override.clone().unwrap_or_else(|| self.shared.spec.hostname.clone());
        Ok((Started { flags, node_name }, config))
    }

    fn check(&self, config: &Value) -> Result<(), String> {
        let typed = ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration");
        if (config["apiVersion"].as_str(), config["kind"].as_str()) != (Some(typed.0), Some(typed.1)) {
            return Err(format!(
                "failed to load kubelet config file, path: {CONFIG}, error: no kind {:?} is registered for version {:?}",
                config["kind"].as_str().unwrap_or_default(),
                config["apiVersion"].as_str().unwrap_or_default()
            ));
        }
        let invalid =
            |why: String| Err(format!("failed to validate kubelet configuration, error: {why}, path: {CONFIG}"));
        if !config["clusterDNS"].is_null() {
            let addresses = config["clusterDNS"].as_array().map_or(&[][..], Vec::as_slice);
            let all = addresses
                .iter()
                .all(|address| address.as_str().is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok()));
            if !all || addresses.is_empty() {
                return invalid(format!("invalid configuration: clusterDNS is {}", config["clusterDNS"]));
            }
        }
        for (field, values) in [("cgroupDriver", &["systemd", "cgroupfs"][..]), ("failSwapOn", &[])] {
            let text = config[field].as_str();
            if text.is_some_and(|text| !values.contains(&text)) {
                return invalid(format!("invalid configuration: {field} is {}", config[field]));
            }
        }
        for field in ["healthzPort", "port", "readOnlyPort"] {
            if !config[field].is_null() && config[field].as_u64().is_none_or(|port| port > u64::from(u16::MAX)) {
                return invalid(format!("invalid configuration: {field} is {}", config[field]));
            }
        }
        if let Some(path) = config["authentication"]["x509"]["clientCAFile"].as_str().filter(|path| !path.is_empty()) {
            let pem = files::read(self.shared.root(), path)
                .map_err(|error| format!("unable to load client CA file {path}: {error}"))?;
            if CertificateDer::from_pem_slice(pem.as_bytes()).is_err() {
                return Err(format!("unable to load client CA file {path}: no certificate in it"));
            }
        }
        if let Some(path) = config["staticPodPath"].as_str()
            && !path.is_empty()
            && !Path::new(path).is_absolute()
        {
            return invalid(format!("invalid configuration: staticPodPath {path:?} is not absolute"));
        }
        self.check_endpoint(config["containerRuntimeEndpoint"].as_str().unwrap_or_default())
    }

    /// The runtime listens only where its kind listens by default.
    fn check_endpoint(&self, endpoint: &str) -> Result<(), String> {
        let refused = |why: &str| {
            Err(format!(
                "validate service connection: validate CRI v1 runtime API for endpoint {endpoint:?}: rpc error: code = \
                 Unavailable desc = {why}"
            ))
        };
        if endpoint.is_empty() {
            return Err("the container runtime endpoint address was not specified or empty".into());
        }
        let Some(path) = endpoint.strip_prefix("unix://") else { return refused("the endpoint is no unix socket") };
        let listening = self.shared.spec.runtime_socket().trim_start_matches("unix://");
        let real = |path: &str| path.strip_prefix("/var").unwrap_or(path).to_owned();
        if real(path) == real(listening) {
            return Ok(());
        }
        refused(&format!("connection error: dial unix {path}: connect: no such file or directory"))
    }

    /// The client that `kubelet.conf` describes.
    fn own_client(&self) -> Result<Client, String> {
        client_of(self.shared, KUBECONFIG)
    }

    async fn register(&self, client: &Client, started: &Started) -> Result<(), String> {
        let name = &started.node_name;
        let node = self.node(started);
        let made = client.send(Method::POST, "/api/v1/nodes", Some((JSON, &node))).await.map_err(deep)?;
        if made.code != 201 && made.body["reason"] != "AlreadyExists" {
            return Err(message(&made.body));
        }
        let status = json!({"status": self.status(started)});
        let path = format!("/api/v1/nodes/{name}/status");
        let patched = client.send(Method::PATCH, &path, Some((STRATEGIC, &status))).await.map_err(deep)?;
        if patched.code == 200 { Ok(()) } else { Err(message(&patched.body)) }
    }

    fn node(&self, started: &Started) -> Value {
        let mut labels = json!({
            "beta.kubernetes.io/arch": architecture(), "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(), "kubernetes.io/os": "linux",
            "kubernetes.io/hostname": self.hostname(started),
        });
        for (key, value) in &started.flags.labels {
            labels[key] = value.as_str().into();
        }
        let mut node = json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {
                "name": started.node_name,
                "labels": labels,
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {},
        });
        if !started.flags.taints.is_empty() {
            node["spec"]["taints"] = started.flags.taints.clone().into();
        }
        node
    }

    fn hostname<'b>(&'b self, started: &'b Started) -> &'b str {
        started.flags.hostname_override.as_deref().unwrap_or(&self.shared.spec.hostname)
    }

    fn status(&self, started: &Started) -> Value {
        let spec = &self.shared.spec;
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |name: &str, status: &str, reason: &str, message: &str| {
            json!({
                "type": name, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            })
        };
        let resources = json!({
            "cpu": spec.cpus.to_string(), "memory": format!("{}Ki", spec.memory_bytes / 1024), "pods": "110",
        });
        json!({
            "addresses": [
                {"type": "InternalIP", "address": started.flags.node_ip.as_ref().unwrap_or(&spec.address)},
                {"type": "Hostname", "address": self.hostname(started)},
            ],
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "architecture": architecture(), "operatingSystem": "linux",
                "bootID": "", "machineID": "", "systemUUID": "", "kubeProxyVersion": "",
                "kernelVersion": spec.kernel_release, "osImage": spec.os_image,
                "containerRuntimeVersion": format!("{}://{}", spec.runtime, spec.runtime_version),
                "kubeletVersion": spec.kubelet_version,
            },
        })
    }

    async fn renew(&self, client: &Client, name: &str) -> Result<(), String> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
        let lease = json!({
            "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec,
        });
        let all = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let own = format!("{all}/{name}");
        let mut answer = client.send(Method::PUT, &own, Some((JSON, &lease))).await.map_err(deep)?;
        if answer.code == 404 {
            answer = client.send(Method::POST, all, Some((JSON, &lease))).await.map_err(deep)?;
        }
        if answer.code < 300 { Ok(()) } else { Err(message(&answer.body)) }
    }
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The client that a kubeconfig under the root describes; the error is what the kubelet would say.
pub(super) fn client_of(shared: &Shared, path: &str) -> Result<Client, String> {
    let text = files::read(shared.root(), path).map_err(|error| format!("stat {path}: {error}"))?;
    // A kubeconfig error may quote the file, and the file holds secrets.
    let config = Kubeconfig::from_yaml(&text).map_err(|_| format!("{path} is no kubeconfig"))?;
    let missing = |what: &str| format!("invalid configuration: {path} has no {what}");
    let current = config.current_context.as_deref().ok_or_else(|| missing("current-context"))?;
    let context = config.contexts.iter().find(|context| context.name == current);
    let context = context.and_then(|context| context.context.as_ref()).ok_or_else(|| missing("such context"))?;
    let cluster = config.clusters.iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster.and_then(|cluster| cluster.cluster.as_ref()).ok_or_else(|| missing("such cluster"))?;
    let user = context.user.as_deref().and_then(|name| config.auth_infos.iter().find(|user| user.name == name));
    let user = user.and_then(|user| user.auth_info.as_ref()).ok_or_else(|| missing("such user"))?;
    let server = cluster.server.as_deref().ok_or_else(|| missing("server"))?;
    let of_file =
        |path: &str| files::read(shared.root(), path).map_err(|error| format!("unable to read {path}: {error}"));
    let embedded_or_file = |data: Option<&str>, path: Option<&String>, what: &str| match (data, path) {
        (Some(data), _) => decoded(data).ok_or_else(|| missing(what)),
        (None, Some(path)) => of_file(path),
        (None, None) => Err(missing(what)),
    };
    let ca = embedded_or_file(
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_ref(),
        "certificate authority",
    )?;
    let identity = match &user.token {
        Some(token) => Identity::Bearer(token.clone()),
        None => {
            use secrecy::ExposeSecret;
            let key_data = user.client_key_data.as_ref().map(ExposeSecret::expose_secret);
            Identity::Certificate {
                certificate_pem: embedded_or_file(
                    user.client_certificate_data.as_deref(),
                    user.client_certificate.as_ref(),
                    "client certificate",
                )?,
                key_pem: embedded_or_file(key_data, user.client_key.as_ref(), "client key")?.into(),
            }
        }
    };
    Client::new(shared.dialer.clone(), server, cluster.tls_server_name.as_deref(), &ca, &identity).map_err(deep)
}

fn decoded(base64: &str) -> Option<String> {
    use base64::Engine;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(base64).ok()?).ok()
}

/// The error and its causes.
#[expect(clippy::needless_pass_by_value, reason = "used as a function of `map_err`")]
pub(super) fn deep(error: ClientError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a Status says.
pub(super) fn message(body: &Value) -> String {
    body["message"].as_str().map_or_else(|| body.to_string(), str::to_owned)
}
