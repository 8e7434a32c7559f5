//! The guest crate, built once, with whatever manifest, grants and settings a test wants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use mortise::config::{IgnoredChecks, PluginSettings, SecretSource};
use mortise::output::{Format, Reporter};
use mortise::plugin::grants::Grants;
use mortise::plugin::policy::Policy;
use mortise::plugin::{CheckContext, CheckResult, Launcher, PluginError, Plugins, Stage};

use crate::built::built;
use crate::machine::Machine;

/// The component of `tests/guests`, without a manifest.
pub(crate) fn guest() -> &'static [u8] {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST.get_or_init(|| built("mortise-test-guests"))
}

/// A component with one more custom section.
pub(crate) fn with_section(component: &[u8], name: &str, data: &[u8]) -> Vec<u8> {
    let mut body = leb128(name.len());
    body.extend(name.as_bytes());
    body.extend(data);
    let mut whole = component.to_vec();
    whole.push(0);
    whole.extend(leb128(body.len()));
    whole.extend(body);
    whole
}

/// A component with another core module in the place of its first, which is the one that its author wrote.
pub(crate) fn with_module(component: &[u8], module: &[u8]) -> Vec<u8> {
    let mut payloads = wasmparser::Parser::new(0).parse_all(component);
    let range = payloads
        .find_map(|payload| match payload.unwrap() {
            wasmparser::Payload::ModuleSection { unchecked_range, .. } => Some(unchecked_range),
            _ => None,
        })
        .unwrap();
    let header = 1 + leb128(range.len()).len();
    let mut whole = component[..range.start - header].to_vec();
    whole.push(1);
    whole.extend(leb128(module.len()));
    whole.extend(module);
    whole.extend(&component[range.end..]);
    whole
}

/// A number as WebAssembly writes lengths.
pub(crate) fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The manifest with a reason for every grant that has none.
fn explained(manifest: &str) -> String {
    use serde_json::Value;
    let mut manifest: Value = serde_saphyr::from_str(manifest).unwrap();
    let kinds = manifest.get_mut("grants").and_then(Value::as_object_mut);
    for grants in kinds.into_iter().flat_map(|kinds| kinds.values_mut()) {
        let one = grants.as_bool().is_some();
        if one {
            *grants = serde_json::json!({"reason": "a test"});
        }
        for grant in grants.as_array_mut().into_iter().flatten() {
            if let Some(name) = grant.as_str() {
                *grant = serde_json::json!({"name": name});
            }
            if let Some(fields) = grant.as_object_mut() {
                fields.entry("reason").or_insert("a test".into());
            }
        }
    }
    // YAML has no control characters but those that are written so.
    let ascii = |c: char| if c.is_ascii() && c != '\x7f' { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
    manifest.to_string().chars().map(ascii).collect()
}

/// One plugin as an operator would name it.
#[derive(Clone)]
pub(crate) struct Setup {
    component: Vec<u8>,
    manifest: String,
    settings: serde_json::Map<String, serde_json::Value>,
    grants: Grants,
    secrets: BTreeMap<String, SecretSource>,
    policy: Policy,
    ignore: IgnoredChecks,
    launcher: Launcher,
    /// Asked by the broker.
    pub(crate) machine: Arc<Machine>,
}

impl Setup {
    pub(crate) fn new(component: &[u8]) -> Self {
        Self {
            component: component.to_vec(),
            manifest: "schema: mortise.dev/plugin/v1alpha1\nid: test.guest\nversion: 1.2.3\nkind: preflight\n\
                       limits: {time: 500ms}\n"
                .into(),
            settings: serde_json::Map::new(),
            grants: Grants::default(),
            secrets: BTreeMap::new(),
            policy: Policy::default(),
            ignore: IgnoredChecks::default(),
            launcher: Launcher::at(env!("CARGO_BIN_EXE_mortise")),
            machine: Arc::default(),
        }
    }

    /// Lists these checks only, separated by commas.
    pub(crate) fn only(mut self, ids: &str) -> Self {
        let ids: Vec<_> = ids.split(',').collect();
        self.settings.insert("only".into(), ids.into());
        self
    }

    pub(crate) fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// Lines below the manifest's own.
    pub(crate) fn manifest(mut self, lines: &str) -> Self {
        self.manifest.push_str(lines);
        self
    }

    /// As long as this a call may compute.
    pub(crate) fn time(mut self, time: &str) -> Self {
        self.manifest = self.manifest.replace("time: 500ms", &format!("time: {time}"));
        self
    }

    /// No manifest section at all.
    pub(crate) fn without_manifest(mut self) -> Self {
        self.manifest.clear();
        self
    }

    pub(crate) fn grant(mut self, flag: &str) -> Self {
        self.grants.merge(Grants::parse_flag(flag).unwrap());
        self
    }

    /// Grants in YAML that the manifest wants and the operator allows.
    pub(crate) fn granted(mut self, grants: &str) -> Self {
        self.grants.merge(Grants::parse(grants).unwrap());
        self.manifest(&format!("grants: {grants}\n"))
    }

    pub(crate) fn secret(mut self, name: &str, path: &Path) -> Self {
        self.secrets.insert(name.into(), SecretSource::File(path.into()));
        self
    }

    pub(crate) fn ignoring(mut self, name: &str) -> Self {
        self.ignore.names.push(name.to_lowercase());
        self
    }

    pub(crate) fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    pub(crate) fn launcher(mut self, program: impl Into<PathBuf>) -> Self {
        self.launcher = Launcher::at(program);
        self
    }

    pub(crate) fn prepare(&self) -> Result<Plugins, PluginError> {
        self.prepare_beside(None)
    }

    /// With another plugin beside it, as its neighbour's setup names it.
    fn prepare_beside(&self, neighbour: Option<&Self>) -> Result<Plugins, PluginError> {
        let (own, _file) = self.as_configured("guest");
        let mut all = vec![own];
        let other = neighbour.map(|neighbour| neighbour.as_configured("neighbour"));
        all.extend(other.iter().map(|(settings, _)| settings.clone()));
        let context = CheckContext {
            control_plane: false,
            node_name: "n1".into(),
            parameters: [("endpoint-host".to_owned(), "10.0.0.1".to_owned())].into(),
        };
        Plugins::prepare_with(self.launcher.clone(), false, &all, &self.policy, self.machine.clone(), context)
    }

    /// The component with its manifest.
    pub(crate) fn component(&self) -> Vec<u8> {
        if self.manifest.is_empty() {
            return self.component.clone();
        }
        with_section(&self.component, "mortise:manifest", explained(&self.manifest).as_bytes())
    }

    /// What the plugin is told, as JSON.
    pub(crate) fn settings(&self) -> String {
        serde_json::to_string(&self.settings).unwrap()
    }

    /// The component in a file, and what names it.
    fn as_configured(&self, name: &str) -> (PluginSettings, tempfile::NamedTempFile) {
        let component = self.component();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &component).unwrap();
        let settings = PluginSettings {
            name: name.into(),
            path: file.path().to_owned(),
            settings: self.settings.clone(),
            grants: self.grants.clone(),
            secrets: self.secrets.clone(),
            ..PluginSettings::default()
        };
        (settings, file)
    }

    /// Both plugins' results, this one's first.
    pub(crate) async fn beside(&self, neighbour: &Self, stage: Stage) -> Vec<CheckResult> {
        let plugins = self.prepare_beside(Some(neighbour)).unwrap_or_else(|error| panic!("{error}"));
        plugins.run_stage(stage, &self.ignore, &Reporter::new(Format::Text, true)).await
    }

    pub(crate) async fn run(&self, stage: Stage) -> Vec<CheckResult> {
        let plugins = self.prepare().unwrap_or_else(|error| panic!("{error}"));
        plugins.run_stage(stage, &self.ignore, &Reporter::new(Format::Text, true)).await
    }
}
