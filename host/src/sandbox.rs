//! A whole worker join as an ordinary user: the control plane, the kubelet and the machine's facts are simulated.
//!
//! [`Sandbox::start`] makes a cluster inside this process ([`control_plane`]), a machine whose files are a directory
//! ([`machine`]) and the facts of a healthy worker ([`facts`]), and the [`JoinSettings`] with which a real user would
//! join it. The join loop itself is the real one: it writes real files into the directory, and the simulated kubelet
//! works with what it finds there.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

use crate::api::Dialer;
use crate::config::{
    Discovery, IgnoredChecks, ImagePull, JoinSettings, NodeSettings, PluginSettings, Taint, Timeouts, TlsBootstrapBy,
    TokenDiscovery, Wait,
};
use crate::error::{Diagnose, ExitCode};
use crate::facts::FactSource;

use self::client::{Client, ClientError, Identity};
use self::control_plane::{Approval, ControlPlane, ControlPlaneOptions};
use self::facts::{RecordedFacts, RecordingError};
use self::machine::{MachineSpec, SimulatedMachine};

pub mod client;
pub mod control_plane;
pub mod facts;
pub mod machine;

/// What a sandbox join is asked to be.
pub struct SandboxSettings {
    /// Where the machine's files go; empty or absent. None: a fresh directory under the temporary one.
    pub directory: Option<PathBuf>,
    /// Name of the Node. None: the host name that the facts tell.
    pub node_name: Option<String>,
    /// Which machine answers the checks.
    pub facts: Facts,
    /// Plugins beside the built-in ones.
    pub plugins: Vec<PluginSettings>,
    /// Who makes the kubelet's key and request.
    pub tls_bootstrap_by: TlsBootstrapBy,
    /// Taints the Node registers with. None: none.
    pub taints: Option<Vec<Taint>>,
    /// Checks whose errors only warn.
    pub ignore: IgnoredChecks,
    /// What the cluster does with certificate requests.
    pub approval: Approval,
    /// When the join succeeds.
    pub wait: Wait,
    /// Whether only the plan is printed.
    pub dry_run: bool,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            directory: None,
            node_name: None,
            facts: Facts::Healthy,
            plugins: Vec::new(),
            tls_bootstrap_by: TlsBootstrapBy::Host,
            taints: None,
            ignore: IgnoredChecks::default(),
            approval: Approval::Automatic,
            wait: Wait::Ready,
            dry_run: false,
        }
    }
}

/// Which machine answers the checks.
pub enum Facts {
    /// The healthy worker that comes with mortise.
    Healthy,
    /// A recording of the user's.
    Recording(PathBuf),
    /// Anything else, such as this machine.
    Source(Arc<dyn FactSource>),
}

/// A cluster and a machine that may join it.
pub struct Sandbox {
    control_plane: ControlPlane,
    settings: JoinSettings,
    machine: Arc<SimulatedMachine>,
    facts: Arc<dyn FactSource>,
}

/// Why there is no sandbox.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The directory cannot be made or read.
    #[error("cannot use the directory `{path}` for a sandbox")]
    Directory {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory holds something: perhaps an earlier sandbox, perhaps a real system.
    #[error("the directory `{path}` is not empty")]
    NotEmpty {
        /// As given.
        path: PathBuf,
    },
    /// The recorded facts.
    #[error(transparent)]
    Facts(#[from] RecordingError),
    /// The cluster inside does not answer.
    #[error("the sandbox's API server does not answer")]
    Api(#[from] ClientError),
}

impl Diagnose for SandboxError {
    fn code(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "sandbox-directory",
            Self::NotEmpty { .. } => "sandbox-not-empty",
            Self::Facts(error) => error.code(),
            Self::Api(_) => "sandbox-api",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotEmpty { .. } => Some("leave out `--root`, or name a directory that does not exist yet".into()),
            Self::Directory { .. } | Self::Api(_) => None,
            Self::Facts(error) => error.hint(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Usage
    }
}

impl Sandbox {
    /// Starts the cluster and prepares the machine. Must run within tokio.
    ///
    /// # Errors
    ///
    /// See [`SandboxError`]; nothing was written then but an empty directory.
    pub async fn start(asked: SandboxSettings) -> Result<Self, SandboxError> {
        let facts: Arc<dyn FactSource> = match asked.facts {
            Facts::Healthy => Arc::new(RecordedFacts::healthy_node()),
            Facts::Recording(path) => Arc::new(RecordedFacts::load(&path)?),
            Facts::Source(source) => source,
        };
        let root = prepare(asked.directory)?;
        let token = control_plane::random_token();
        let mut options = ControlPlaneOptions::new(token.clone());
        options.approval = asked.approval;
        let control_plane = ControlPlane::start(&options);
        let spec = MachineSpec::ask(&*facts).await;
        let settings = JoinSettings {
            node: NodeSettings {
                name: asked.node_name.unwrap_or_else(|| spec.hostname.clone()),
                cri_socket: Some(spec.runtime_socket().to_owned()),
                taints: asked.taints,
                kubelet_extra_args: Vec::new(),
                image_pull: ImagePull::default(),
            },
            discovery: Discovery::Token(TokenDiscovery {
                token: token.clone(),
                endpoints: vec![control_plane.endpoint().clone()],
                pins: vec![control_plane.pin()],
                unsafe_skip_ca_verification: false,
            }),
            tls_bootstrap_token: Some(token),
            control_plane: None,
            tls_bootstrap_by: asked.tls_bootstrap_by,
            ca_cert_path: "/etc/kubernetes/pki/ca.crt".into(),
            skip_phases: Vec::new(),
            patches: None,
            timeouts: Timeouts::default(),
            ignore: asked.ignore,
            dry_run: asked.dry_run,
            wait: asked.wait,
            bundle: None,
            fail_fast: false,
            plugins: asked.plugins,
            policy: crate::plugin::policy::Policy::default(),
            root: root.clone(),
        };
        let machine = Arc::new(SimulatedMachine::new(root, spec, control_plane.dialer()));
        Ok(Self { control_plane, settings, machine, facts })
    }

    /// The cluster.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// What a real user would have asked `mortise join` for.
    pub fn settings(&self) -> &JoinSettings {
        &self.settings
    }

    /// The machine beside its files.
    pub fn machine(&self) -> Arc<SimulatedMachine> {
        self.machine.clone()
    }

    /// How the cluster is reached.
    pub fn dialer(&self) -> Dialer {
        self.control_plane.dialer()
    }

    /// Who answers the checks.
    pub fn facts(&self) -> Arc<dyn FactSource> {
        self.facts.clone()
    }

    /// Where the machine's files are.
    pub fn root(&self) -> &Path {
        &self.settings.root
    }

    /// The line that `kubeadm token create --print-join-command` would print for this cluster, the secret hidden.
    pub fn join_line(&self) -> String {
        let Discovery::Token(discovery) = &self.settings.discovery else {
            unreachable!("`start` makes settings with token discovery");
        };
        let endpoint = self.control_plane.endpoint();
        let pin = self.control_plane.pin();
        format!("kubeadm join {endpoint} --token {} --discovery-token-ca-cert-hash {pin}", discovery.token)
    }

    /// Everything under the root, sorted by path.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Directory`].
    pub fn written(&self) -> Result<Vec<WrittenFile>, SandboxError> {
        let mut found = Vec::new();
        collect(self.root(), Path::new("/"), &mut found)
            .map_err(|source| SandboxError::Directory { path: self.root().to_owned(), source })?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The Node as an administrator sees it; none: it is not registered.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn node(&self) -> Result<Option<Value>, ClientError> {
        let admin = self.control_plane.administrator();
        let identity = Identity::Certificate { certificate_pem: admin.certificate_pem, key_pem: admin.key_pem };
        let server = format!("https://{}", self.control_plane.endpoint());
        let client = Client::new(self.dialer(), &server, None, &self.control_plane.ca_pem(), &identity)?;
        let answer = client.get(&format!("/api/v1/nodes/{}", self.settings.node.name)).await?;
        Ok((answer.code == 200).then_some(answer.body))
    }
}

fn prepare(directory: Option<PathBuf>) -> Result<PathBuf, SandboxError> {
    let Some(path) = directory else {
        return tempfile::Builder::new()
            .prefix("mortise-sandbox-")
            .tempdir()
            .map(tempfile::TempDir::keep)
            .map_err(|source| SandboxError::Directory { path: std::env::temp_dir(), source });
    };
    let fail = |source| SandboxError::Directory { path: path.clone(), source };
    std::fs::create_dir_all(&path).map_err(fail)?;
    if std::fs::read_dir(&path).map_err(fail)?.next().is_some() {
        return Err(SandboxError::NotEmpty { path });
    }
    path.canonicalize().map_err(fail)
}

/// Something under the root, as `ls -l` would show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Absolute, without the root.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: WrittenKind,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrittenKind {
    /// A directory.
    Directory,
    /// A file of this many bytes.
    File(u64),
    /// A symbolic link to this target.
    Link(PathBuf),
}

impl fmt::Display for WrittenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.kind {
            WrittenKind::Directory => write!(f, "{:04o} {path}/", self.mode),
            WrittenKind::File(bytes) => write!(f, "{:04o} {path}  {bytes} bytes", self.mode),
            WrittenKind::Link(target) => write!(f, "link {path} -> {}", target.display()),
        }
    }
}

fn collect(root: &Path, inside: &Path, found: &mut Vec<WrittenFile>) -> io::Result<()> {
    let located = root.join(inside.strip_prefix("/").unwrap_or(inside));
    for entry in std::fs::read_dir(located)? {
        let entry = entry?;
        let path = inside.join(entry.file_name());
        let metadata = entry.metadata()?;
        let kind = if metadata.is_dir() {
            WrittenKind::Directory
        } else if metadata.is_symlink() {
            WrittenKind::Link(std::fs::read_link(entry.path())?)
        } else {
            WrittenKind::File(metadata.len())
        };
        let is_directory = kind == WrittenKind::Directory;
        found.push(WrittenFile { path: path.clone(), mode: metadata.permissions().mode() & 0o7777, kind });
        if is_directory {
            collect(root, &path, found)?;
        }
    }
    Ok(())
}

/// What the Node is, a line each, for the end of a sandbox join.
pub fn describe_node(node: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let condition = list(&node["status"]["conditions"]).into_iter().find(|condition| condition["type"] == "Ready");
    let ready = condition.map_or("registered, not Ready".to_owned(), |condition| {
        let state = if condition["status"] == "True" { "Ready" } else { "not Ready" };
        format!("{state} ({})", text(&condition["message"]))
    });
    let info = &node["status"]["nodeInfo"];
    let taints: Vec<_> = list(&node["spec"]["taints"])
        .iter()
        .map(|taint| match text(&taint["value"]) {
            value if value.is_empty() => format!("{}:{}", text(&taint["key"]), text(&taint["effect"])),
            value => format!("{}={value}:{}", text(&taint["key"]), text(&taint["effect"])),
        })
        .collect();
    let addresses: Vec<_> =
        list(&node["status"]["addresses"]).iter().map(|address| text(&address["address"])).collect();
    vec![
        format!("Node {}: {ready}", text(&node["metadata"]["name"])),
        format!("  kubelet {}, {}", text(&info["kubeletVersion"]), text(&info["containerRuntimeVersion"])),
        format!("  {}, kernel {}", text(&info["osImage"]), text(&info["kernelVersion"])),
        format!("  addresses: {}", addresses.join(", ")),
        format!("  taints: {}", if taints.is_empty() { "none".to_owned() } else { taints.join(", ") }),
    ]
}

#[cfg(test)]
mod tests {
    use crate::node::{Machine, UnitAction};

    use super::*;

    #[tokio::test]
    async fn hands_out_settings_that_fit_its_cluster_and_hides_the_secret() {
        let directory = tempfile::tempdir().unwrap();
        let asked = SandboxSettings { directory: Some(directory.path().join("new")), ..SandboxSettings::default() };
        let sandbox = Sandbox::start(asked).await.unwrap();
        let Discovery::Token(discovery) = &sandbox.settings().discovery else { panic!("token discovery") };
        let line = sandbox.join_line();
        assert!(line.starts_with("kubeadm join api.sandbox.test:6443 --token "), "{line}");
        assert!(line.ends_with(&sandbox.control_plane().pin().to_string()), "{line}");
        assert!(!line.contains(discovery.token.expose_secret()), "{line}");
        assert_eq!(sandbox.settings().node.name, "n2");
        assert_eq!(sandbox.node().await.unwrap(), None);
        assert_eq!(sandbox.written().unwrap(), []);
    }

    #[tokio::test]
    async fn refuses_a_directory_that_holds_something() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("etc"), "").unwrap();
        let asked = SandboxSettings { directory: Some(directory.path().to_owned()), ..SandboxSettings::default() };
        assert!(matches!(Sandbox::start(asked).await, Err(SandboxError::NotEmpty { .. })));
    }

    #[tokio::test]
    async fn lists_what_was_written_with_modes_and_targets() {
        let directory = tempfile::tempdir().unwrap();
        let asked = SandboxSettings { directory: Some(directory.path().to_owned()), ..SandboxSettings::default() };
        let sandbox = Sandbox::start(asked).await.unwrap();
        let etc = sandbox.root().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::fs::set_permissions(&etc, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(etc.join("a"), "text").unwrap();
        std::fs::set_permissions(etc.join("a"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/etc/a", etc.join("b")).unwrap();
        let lines: Vec<_> = sandbox.written().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["0755 /etc/", "0600 /etc/a  4 bytes", "link /etc/b -> /etc/a"]);
    }

    #[tokio::test]
    async fn a_kubelet_without_files_never_gets_healthy() {
        let directory = tempfile::tempdir().unwrap();
        let asked = SandboxSettings { directory: Some(directory.path().to_owned()), ..SandboxSettings::default() };
        let sandbox = Sandbox::start(asked).await.unwrap();
        let machine = sandbox.machine();
        machine.unit(UnitAction::Restart, "kubelet").await.unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while machine.unit_log("kubelet", 5).await.is_empty() {
            assert!(std::time::Instant::now() < deadline, "the kubelet says nothing");
            tokio::task::yield_now().await;
        }
        let log = machine.unit_log("kubelet", 5).await;
        assert!(log[0].contains("failed to load kubelet config file"), "{log:?}");
    }
}
