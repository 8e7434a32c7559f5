//! From what the user wrote to what the host will do. Every rule is checked here, before anything is touched.
//!
//! A [`JoinSettings`] is complete and valid: phases never look at flags, files or the environment again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::pki::Pin;
use crate::token::BootstrapToken;

mod control_plane;
mod discovery_file;
mod duration;
mod endpoint;
mod error;
mod file;
mod grants;
mod join;
mod join_configuration;
mod join_plugins;
mod phases;
mod policy;
mod reader;
mod reset;
mod yaml;

pub(crate) use control_plane::default_route_address;
pub use control_plane::{ControlPlaneSettings, DEFAULT_BIND_PORT};
pub(crate) use duration::parse as go_duration;
pub use error::{At, ConfigError, DocumentProblem, Fault, hide_tokens};
pub use join::join_settings;
pub use join_plugins::{
    PluginFlag, check_plugin_name, configured_plugins, grants_of_flags, locked_name, sandbox_plugins,
};
pub use phases::{Command, PHASES, Part, PhaseName, Roles};
pub use policy::load as policy;
pub use reset::{RESET_PHASES, ResetSettings, reset_settings};
pub use yaml::Place;

/// What kubeadm prints for `config print join-defaults`, but for the node's name.
const JOIN_DEFAULTS: &str = include_str!("config/join-defaults.yaml");

/// One line an operator should know. Not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub String);

/// A join as the user asked for it, every rule checked.
#[derive(Debug, Clone)]
pub struct JoinSettings {
    /// `nodeRegistration`.
    pub node: NodeSettings,
    /// Where trust in the cluster comes from.
    pub discovery: Discovery,
    /// `discovery.tlsBootstrapToken`; required for token discovery, optional for file discovery.
    pub tls_bootstrap_token: Option<BootstrapToken>,
    /// Who makes the kubelet's key and certificate request.
    pub tls_bootstrap_by: TlsBootstrapBy,
    /// `controlPlane`; none: a worker joins.
    pub control_plane: Option<ControlPlaneSettings>,
    /// `caCertPath`: absolute, ends in `.crt`.
    pub ca_cert_path: PathBuf,
    /// Phase ids to leave out, each known.
    pub skip_phases: Vec<String>,
    /// `patches.directory`.
    pub patches: Option<PathBuf>,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// Lower-cased names of checks whose errors only warn.
    pub ignore: IgnoredChecks,
    /// Whether the machine stays as it is and the plan is printed.
    pub dry_run: bool,
    /// What must be true before the command succeeds.
    pub wait: Wait,
    /// Whether waiting that may help is left out.
    pub fail_fast: bool,
    /// Plugins beside the built-in ones, in order.
    pub plugins: Vec<PluginSettings>,
    /// Bundle that holds plugins of the lock file.
    pub bundle: Option<PathBuf>,
    /// The site's policy; forbids nothing where there is none.
    pub policy: crate::plugin::policy::Policy,
    /// Prefix of every path that is written; `/` unless `--root`.
    pub root: PathBuf,
}

/// `nodeRegistration` of kubeadm's v1beta4.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Name of the Node; trimmed, lower-cased, RFC 1123 subdomain (verbatim when it came from `--node-name`).
    pub name: String,
    /// URL of the runtime's socket, scheme `unix`. None: to be detected on the machine.
    pub cri_socket: Option<String>,
    /// None: the default of the role. Empty: no taint.
    pub taints: Option<Vec<Taint>>,
    /// In the order given; names may repeat.
    pub kubelet_extra_args: Vec<Arg>,
    /// How a control plane's images are fetched before it joins.
    pub image_pull: ImagePull,
}

/// `nodeRegistration.imagePullPolicy` and `imagePullSerial`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagePull {
    /// Which images are fetched.
    pub policy: ImagePullPolicy,
    /// One after the other, not side by side.
    pub serial: bool,
}

impl Default for ImagePull {
    fn default() -> Self {
        Self { policy: ImagePullPolicy::IfNotPresent, serial: true }
    }
}

/// `core/v1` PullPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// Every image, also those that are there.
    Always,
    /// Those that the runtime does not have.
    IfNotPresent,
    /// None.
    Never,
}

impl ImagePullPolicy {
    /// None: no such policy.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Always" => Self::Always,
            "IfNotPresent" => Self::IfNotPresent,
            "Never" => Self::Never,
            _ => return None,
        })
    }
}

/// `name` and `value` of a kubelet argument, without dashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Arg {
    /// Not empty.
    pub name: String,
    /// May be empty.
    #[serde(default)]
    pub value: String,
}

/// `core/v1` Taint, as far as a join writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Taint {
    /// Label key.
    pub key: String,
    /// May be empty.
    #[serde(default)]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; not checked, as in kubeadm.
    pub effect: String,
}

/// Source of trust.
#[derive(Debug, Clone)]
pub enum Discovery {
    /// Cluster-info signed with a bootstrap token.
    Token(TokenDiscovery),
    /// A kubeconfig file on this machine.
    File {
        /// Path as given.
        path: PathBuf,
    },
    /// A kubeconfig fetched over https, verified by the host's CAs.
    Https {
        /// URL, scheme `https`.
        url: String,
    },
    /// None was given: what an earlier discovery on this machine left in `/var/lib/mortise/cluster.json`. Never in a
    /// whole join; only for `mortise preflight` and for phases run alone that come after discovery.
    Recorded,
}

/// `discovery.bootstrapToken`.
#[derive(Debug, Clone)]
pub struct TokenDiscovery {
    /// Verifies cluster-info.
    pub token: BootstrapToken,
    /// API endpoints in order of preference, at least one.
    pub endpoints: Vec<Endpoint>,
    /// Pins of the cluster's CA. Empty only with `unsafe_skip_ca_verification`.
    pub pins: Vec<Pin>,
    /// The user accepted that whoever answers first may be the cluster.
    pub unsafe_skip_ca_verification: bool,
}

/// `host:port` of an API server; IPv6 in brackets when written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// DNS name or IP address, without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Only an IPv6 address, perhaps with its zone, holds a colon.
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        endpoint::parse(text)
    }
}

impl Endpoint {
    /// The host as an IP address, when it is a literal.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Who trades the token for the kubelet's client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsBootstrapBy {
    /// mortise: it names the request, tells its state, and starts the kubelet with its certificate.
    Host,
    /// The kubelet, as with kubeadm.
    Kubelet,
}

/// When the command succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// When the kubelet was started.
    None,
    /// When the kubelet is healthy and has its certificate (what kubeadm waits for).
    Kubelet,
    /// When the Node exists.
    Registered,
    /// When the Node is Ready.
    Ready,
}

/// `timeouts` of kubeadm's v1beta4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `kubeletHealthCheck`, 4 minutes.
    pub kubelet_health_check: Duration,
    /// `kubernetesAPICall`, 1 minute.
    pub kubernetes_api_call: Duration,
    /// `tlsBootstrap`, 5 minutes.
    pub tls_bootstrap: Duration,
    /// `discovery`, 5 minutes.
    pub discovery: Duration,
    /// `etcdAPICall`, 2 minutes.
    pub etcd_api_call: Duration,
    /// `controlPlaneComponentHealthCheck`, 4 minutes.
    pub control_plane_component_health_check: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            kubelet_health_check: minutes(4),
            kubernetes_api_call: minutes(1),
            tls_bootstrap: minutes(5),
            discovery: minutes(5),
            etcd_api_call: minutes(2),
            control_plane_component_health_check: minutes(4),
        }
    }
}

/// Names of checks whose errors only warn, from `--ignore-preflight-errors` and the file together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoredChecks {
    /// Lower-cased; `all` stands alone.
    pub names: Vec<String>,
}

impl IgnoredChecks {
    /// Whether errors of the check with this id only warn. Case does not matter.
    pub fn covers(&self, check_id: &str) -> bool {
        self.names.iter().any(|name| name == "all" || name.eq_ignore_ascii_case(check_id))
    }
}

/// A plugin as the operator names it: `plugins[]` of `JoinPlugins`, or `--plugin` with `--grant`.
#[derive(Debug, Clone, Default)]
pub struct PluginSettings {
    /// Name in output and logs.
    pub name: String,
    /// Component file; empty while `image` names it.
    pub path: PathBuf,
    /// Name or origin of a plugin in the lock file, until [`crate::plugin::lock::Lock::resolve`] puts its file above.
    pub image: Option<String>,
    /// `sha256:<64 hex>` the file must have.
    pub digest: Option<String>,
    /// JSON object handed to the plugin.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// What the operator allows; the plugin gets what its manifest wants of it.
    pub grants: crate::plugin::grants::Grants,
    /// Where the secrets are that it may use, by the name in its grants.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Fingerprint of the key whose signature of the component was verified.
    pub signer: Option<String>,
}

/// Where the host finds a secret. It is read when it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The content of a file, without the newline at its end.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
}

/// Values of the environment a join reads, taken once. May hold tokens: `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment {
    /// Proxy variables, tokens and the like, by name.
    pub variables: BTreeMap<String, String>,
}

impl Environment {
    /// The environment of this process. Variables that are no UTF-8 are left out.
    pub fn of_process() -> Self {
        let pairs =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { variables: pairs.collect() }
    }

    /// A variable as it is.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A variable, trimmed; an empty one counts as absent.
    fn filled(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// The document of `mortise config print join-defaults`, for a machine of this name.
pub fn join_defaults(hostname: &str) -> String {
    JOIN_DEFAULTS.replace("name: HOSTNAME\n", &format!("name: {}\n", hostname.trim().to_ascii_lowercase()))
}

/// Refuses flags that a configuration file replaces. `given` are the names of the flags on the command line.
fn mixed(given: &std::collections::BTreeSet<String>, beside_config: &[&str]) -> Result<(), ConfigError> {
    let fits = |name: &str| beside_config.contains(&name) || name.starts_with("skip-");
    let others: Vec<String> = given.iter().filter(|name| !fits(name)).cloned().collect();
    if others.is_empty() { Ok(()) } else { Err(ConfigError::Mixed(others)) }
}

/// The runtime's socket as a URL: kubeadm prepends the scheme where there is none, and so do we.
fn socket_url(socket: &str, warnings: &mut Vec<Warning>) -> String {
    if socket.starts_with("unix") {
        return socket.to_owned();
    }
    let url = format!("unix://{socket}");
    warnings.push(Warning(format!("the runtime's socket is a URL; `{}` is used", error::shown(&url))));
    url
}

/// Whether a socket is `unix://` and an absolute path.
fn check_socket(socket: &str) -> Result<(), Fault> {
    match socket.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(()),
        _ => Err(Fault::Value {
            value: error::shown(socket),
            reason: "is no `unix://` URL of an absolute path".to_owned(),
        }),
    }
}

/// The union of both lists, lower-cased, sorted.
fn ignored_checks(file: &[String], flags: &[String]) -> Result<IgnoredChecks, Fault> {
    let names = file.iter().chain(flags).map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty());
    let names: std::collections::BTreeSet<String> = names.collect();
    let names: Vec<String> = names.into_iter().collect();
    if names.len() > 1 && names.iter().any(|name| name == "all") {
        return Err(Fault::AllWithOthers(error::shown(&names.join(","))));
    }
    Ok(IgnoredChecks { names })
}
