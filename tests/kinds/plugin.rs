//! Components, built from this repository, and one plugin as an operator would name it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use mortise::config::PluginSettings;
use mortise::facts::{FactSource, HostFacts, HostSettings, Ownership};
use mortise::output::{Format, Reporter};
use mortise::plugin::grants::Grants;
use mortise::plugin::policy::Policy;
use mortise::plugin::{CertificateRequest, CheckContext, Launcher, PluginError, Plugins};

/// The top of the repository.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A component with this manifest, as `mortise plugin embed` makes it.
pub(crate) fn embedded(component: &[u8], manifest: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (wasm, yaml) = (directory.path().join("it.wasm"), directory.path().join("plugin.yaml"));
    std::fs::write(&wasm, component).unwrap();
    std::fs::write(&yaml, manifest).unwrap();
    mortise::plugin::embed(&wasm, &yaml, &wasm).unwrap_or_else(|error| panic!("{error}"));
    std::fs::read(wasm).unwrap()
}

/// One plugin with settings and grants.
pub(crate) struct Setup {
    component: Vec<u8>,
    settings: serde_json::Map<String, serde_json::Value>,
    grants: Grants,
    launcher: Launcher,
    machine: Arc<dyn FactSource>,
}

impl Setup {
    pub(crate) fn new(component: &[u8]) -> Self {
        Self {
            component: component.to_vec(),
            settings: serde_json::Map::new(),
            grants: Grants::default(),
            launcher: launcher(),
            machine: this_machine(),
        }
    }

    pub(crate) fn setting(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    pub(crate) fn grant(mut self, flag: &str) -> Self {
        self.grants.merge(Grants::parse_flag(flag).unwrap());
        self
    }

    /// All that these allow.
    pub(crate) fn grants(mut self, grants: Grants) -> Self {
        self.grants.merge(grants);
        self
    }

    /// Asked by the broker in the place of this machine.
    pub(crate) fn machine(mut self, machine: Arc<dyn FactSource>) -> Self {
        self.machine = machine;
        self
    }

    /// Helpers come from another program.
    pub(crate) fn launched_by(mut self, program: &str) -> Self {
        self.launcher = Launcher::at(program);
        self
    }

    /// Ready to be asked under the name `guest`.
    pub(crate) fn prepare(&self) -> Result<Plugins, PluginError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &self.component).unwrap();
        let settings = PluginSettings {
            name: "guest".into(),
            path: file.path().to_owned(),
            image: None,
            digest: None,
            settings: self.settings.clone(),
            grants: self.grants.clone(),
            secrets: std::collections::BTreeMap::new(),
            signer: None,
        };
        let context = CheckContext {
            control_plane: false,
            node_name: "n1".into(),
            parameters: std::collections::BTreeMap::new(),
        };
        Plugins::prepare_one(self.launcher.clone(), &settings, &Policy::default(), self.machine.clone(), context)
    }
}

/// Helpers are this very program's, which a test is not.
pub(crate) fn launcher() -> Launcher {
    Launcher::at(env!("CARGO_BIN_EXE_mortise"))
}

fn this_machine() -> Arc<dyn FactSource> {
    Arc::new(HostFacts::new(HostSettings {
        node_name: "n1".into(),
        cri_socket: String::new(),
        environment: mortise::config::Environment::default(),
        owned: Ownership { files: Box::new(|_| false), ports: Vec::new() },
        secrets: Vec::new(),
        root: "/".into(),
        launcher: launcher(),
    }))
}

pub(crate) fn reporter() -> Reporter {
    Reporter::new(Format::Text, false)
}

/// What an operator allows who pastes what the manifest wants.
pub(crate) fn everything_it_wants(component: &[u8]) -> Grants {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, component).unwrap();
    mortise::plugin::inspect("guest", file.path()).unwrap_or_else(|error| panic!("{error}")).grants
}

/// A certificate request as a kubelet makes it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) signer: &'static str,
    pub(crate) node: String,
    pub(crate) username: String,
    pub(crate) extra: Vec<(String, String)>,
    pub(crate) names: Vec<String>,
}

impl Request {
    /// Of the node itself, without alternative names.
    pub(crate) fn new(signer: &'static str, node: &str) -> Self {
        let (node, username) = (node.to_owned(), format!("system:node:{node}"));
        Self { signer, node, username, extra: Vec::new(), names: Vec::new() }
    }

    pub(crate) fn pem(&self) -> String {
        let mut params = rcgen::CertificateParams::new(self.names.clone()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{}", self.node));
        params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    /// As the API server shows it.
    pub(crate) fn object(&self) -> CertificateSigningRequest {
        let mut object = CertificateSigningRequest::default();
        object.metadata.name = Some("csr-1".into());
        object.spec.request = ByteString(self.pem().into());
        object.spec.signer_name = self.signer.into();
        object.spec.username = Some(self.username.clone());
        let extra = self.extra.iter().map(|(key, value)| (key.clone(), vec![value.clone()]));
        object.spec.extra = Some(extra.collect());
        object
    }

    pub(crate) fn parsed(&self) -> CertificateRequest {
        CertificateRequest::of(&self.object()).unwrap_or_else(|error| panic!("{error}"))
    }
}
