//! Plugins of a join: made ready once, asked at each stage.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::OnceCell;

use super::broker::Broker;
use super::code::NativeCode;
use super::compiler::{self, CompileError};
use super::error::{PluginError, Unfit};
use super::grants::{Effective, Grants};
use super::kind::Kind;
use super::limits::{COMPONENT_BYTES, GRANT_LINES, SETTINGS_BYTES};
use super::policy::{Policy, PolicySubject};
use super::process::Launcher;
use super::report::CheckInfo;
use super::secret::Vault;
use super::session::{Session, StartError};
use super::walls::Walls;
use super::wire::{Export, LogLevel, Start};
use super::{CheckResult, Stage, engine, judge, manifest};
use crate::config::{IgnoredChecks, PluginSettings};
use crate::facts::FactSource;
use crate::output::{Event, Reporter, printable};
use crate::registry::Digest;

/// Name of the plugin that carries kubeadm's checks.
const BUILTIN: &str = "preflight-node";

/// What a plugin is told of the join; nothing of it is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckContext {
    /// The machine is to become a control plane, not a worker.
    pub control_plane: bool,
    /// Of the Node.
    pub node_name: String,
    /// By the names that `context.parameter` of the WIT lists.
    pub parameters: BTreeMap<String, String>,
}

/// A plugin as the journal and a dry run show it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginDigest {
    /// As the operator named it.
    pub name: String,
    /// Of its manifest; `0` without one.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// What it was granted, in the syntax of a manifest.
    pub grants: Vec<String>,
}

/// All plugins of a join.
pub struct Plugins {
    pub(super) plugins: Vec<Plugin>,
    pub(super) context: CheckContext,
    pub(super) launcher: Launcher,
    facts: Arc<dyn FactSource>,
    /// Around every runner so far.
    walls: Mutex<Walls>,
}

/// One plugin, ready to be run.
pub(super) struct Plugin {
    index: usize,
    pub(super) name: String,
    version: String,
    digest: Digest,
    kinds: Vec<Kind>,
    /// Where the component is; none: in this program.
    file: Option<File>,
    settings: String,
    /// What its manifest asks for, placeholders unfilled; the built-in plugin's alone.
    wanted: Option<Grants>,
    memory_bytes: u64,
    guest_time: Duration,
    broker: Broker,
    /// Compiled code; not needed while the built-in plugin's own fits.
    code: OnceCell<Result<NativeCode, CompileError>>,
    /// What it offers, known after the first stage.
    checks: Mutex<Option<Vec<CheckInfo>>>,
}

impl Plugins {
    /// Reads, inspects and grants; runs nothing. `builtin`: with kubeadm's own checks, first of all.
    ///
    /// # Errors
    ///
    /// [`PluginError`] for the first plugin that cannot be used.
    pub fn prepare(
        builtin: bool,
        settings: &[PluginSettings],
        policy: &Policy,
        facts: Arc<dyn FactSource>,
        context: CheckContext,
    ) -> Result<Self, PluginError> {
        Self::prepare_with(Launcher::default(), builtin, settings, policy, facts, context)
    }

    /// As [`Self::prepare`], with helpers started from elsewhere. All must be of kind [`Kind::Preflight`].
    ///
    /// # Errors
    ///
    /// [`PluginError`] for the first plugin that cannot be used.
    pub fn prepare_with(
        launcher: Launcher,
        builtin: bool,
        settings: &[PluginSettings],
        policy: &Policy,
        facts: Arc<dyn FactSource>,
        context: CheckContext,
    ) -> Result<Self, PluginError> {
        let mut plugins = Vec::new();
        if builtin {
            let component = engine::builtin::COMPONENT;
            plugins.push(Plugin::new(0, BUILTIN, component, None, None, policy, &facts, &context)?);
        }
        for one in settings {
            if plugins.iter().any(|other| other.name == one.name) {
                return Err(PluginError::Twice { plugin: one.name.clone() });
            }
            plugins.push(Plugin::open(plugins.len(), one, policy, &facts, &context)?);
        }
        for plugin in &plugins {
            plugin.verify_kind(Kind::Preflight)?;
        }
        Ok(Self::below(policy, launcher, plugins, facts, context))
    }

    /// Reads, inspects and grants one plugin of whatever kind; runs nothing.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when it cannot be used.
    pub fn prepare_one(
        launcher: Launcher,
        settings: &PluginSettings,
        policy: &Policy,
        facts: Arc<dyn FactSource>,
        context: CheckContext,
    ) -> Result<Self, PluginError> {
        let plugin = Plugin::open(0, settings, policy, &facts, &context)?;
        Ok(Self::below(policy, launcher, vec![plugin], facts, context))
    }

    /// No runner of these, and no compiler for them, starts without the walls that the policy demands.
    fn below(
        policy: &Policy,
        launcher: Launcher,
        plugins: Vec<Plugin>,
        facts: Arc<dyn FactSource>,
        context: CheckContext,
    ) -> Self {
        let launcher = launcher.requiring(policy.require_walls.clone(), &policy.path);
        Self { plugins, context, launcher, facts, walls: Mutex::default() }
    }

    /// Of all plugins, in the order of [`Kind::ALL`].
    pub fn kinds(&self) -> Vec<Kind> {
        let has = |kind: &Kind| self.plugins.iter().any(|plugin| plugin.kinds.contains(kind));
        Kind::ALL.into_iter().filter(has).collect()
    }

    /// Adds parameters that became known, for example `cluster-version`. Grants of the built-in plugin may name them.
    pub fn learn<'a>(&mut self, known: impl IntoIterator<Item = (&'a str, String)>) {
        self.context.parameters.extend(known.into_iter().map(|(name, value)| (name.to_owned(), value)));
        for plugin in &mut self.plugins {
            if let Some(wanted) = &plugin.wanted {
                plugin.broker.grants = Effective::own(wanted.filled(&self.context.parameters));
            }
        }
    }

    /// The snapshot of facts that the checks are judged by.
    pub fn facts(&self) -> &dyn FactSource {
        &*self.facts
    }

    /// Remembers what stands around one more runner.
    pub(super) fn note_walls(&self, walls: &Walls) {
        self.walls.lock().unwrap_or_else(PoisonError::into_inner).merge(walls);
    }

    /// What stood around every runner so far; nothing is known before the first stage.
    pub fn walls(&self) -> Walls {
        self.walls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The plugins, in order.
    pub fn digests(&self) -> Vec<PluginDigest> {
        let digests = self.plugins.iter().map(|plugin| PluginDigest {
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            digest: plugin.digest.to_string(),
            grants: plugin.broker.grants.lines(),
        });
        digests.collect()
    }

    /// Runs all checks of a stage side by side. Each is told as it ends; the result keeps the order of plugins and of
    /// their lists. Whatever goes wrong is a result.
    pub async fn run_stage(&self, stage: Stage, ignore: &IgnoredChecks, reporter: &Reporter) -> Vec<CheckResult> {
        let stages = self.plugins.iter().map(|plugin| self.run_plugin(plugin, stage, ignore, reporter));
        join_all(stages).await.into_iter().flatten().collect()
    }

    async fn run_plugin(
        &self,
        plugin: &Plugin,
        stage: Stage,
        ignore: &IgnoredChecks,
        reporter: &Reporter,
    ) -> Vec<CheckResult> {
        if plugin.offers_nothing(stage) {
            return Vec::new();
        }
        let log = |level: LogLevel, message: &str| {
            let (plugin, message) = (plugin.name.clone(), printable(message));
            reporter.tell(&Event::PluginLog { plugin, level: level.as_str(), message });
        };
        let tell = |result: CheckResult| {
            reporter.tell(&Event::Check(result.clone()));
            result
        };
        let subject = judge::Subject { name: &plugin.name, version: &plugin.version, stage, ignore };
        let mut session = match plugin.start(&self.launcher, &self.context, &log).await {
            Ok(session) => session,
            Err(failure) => return vec![tell(subject.not_started(failure))],
        };
        self.note_walls(session.walls());
        let mut listed = None;
        session.call(&[Export::ListChecks], |_, ended| listed = Some(ended)).await;
        let checks = match listed.map(|ended| subject.listed(ended)) {
            Some(Ok(checks)) => checks,
            Some(Err(result)) => {
                session.finish().await;
                return vec![tell(*result)];
            }
            None => unreachable!("a session ends every call"),
        };
        *plugin.checks.lock().unwrap_or_else(PoisonError::into_inner) = Some(checks.clone());
        let checks: Vec<_> = checks.into_iter().filter(|check| check.stage == stage).collect();
        let exports: Vec<_> = checks.iter().map(|check| Export::RunCheck(check.id.clone())).collect();
        let mut results: Vec<Option<CheckResult>> = vec![None; checks.len()];
        session
            .call(&exports, |index, ended| results[index] = Some(tell(subject.checked(&checks[index], ended))))
            .await;
        session.finish().await;
        results.into_iter().flatten().collect()
    }
}

impl Plugin {
    fn open(
        index: usize,
        settings: &PluginSettings,
        policy: &Policy,
        facts: &Arc<dyn FactSource>,
        context: &CheckContext,
    ) -> Result<Self, PluginError> {
        let (file, component) = open(&settings.name, &settings.path)?;
        Self::new(index, &settings.name, &component, Some(file), Some(settings), policy, facts, context)
    }

    #[expect(clippy::too_many_arguments, reason = "one plugin is all of it, and only two callers make one")]
    fn new(
        index: usize,
        name: &str,
        component: &[u8],
        file: Option<File>,
        settings: Option<&PluginSettings>,
        policy: &Policy,
        facts: &Arc<dyn FactSource>,
        context: &CheckContext,
    ) -> Result<Self, PluginError> {
        let digest = Digest::of(component);
        let named = |plugin: &str| plugin.to_owned();
        if let Some(expected) = settings.and_then(|settings| settings.digest.as_ref())
            && !expected.eq_ignore_ascii_case(digest.as_str())
        {
            return Err(PluginError::Digest {
                plugin: named(name),
                expected: expected.clone(),
                found: digest.to_string(),
            });
        }
        let unfit = |plugin: String| move |reason: Unfit| PluginError::Unfit { plugin, reason };
        let inspected = manifest::inspect(component).map_err(unfit(named(name)))?;
        let version = inspected.manifest.as_ref().map_or_else(|| "0".into(), |manifest| manifest.version.clone());
        let full = format!("{name}@{version}");
        let (id, schema, wanted) = match inspected.manifest {
            Some(manifest) => (Some(manifest.id), manifest.settings, manifest.grants),
            None => (None, None, Grants::default()),
        };
        let unfilled = settings.is_none().then(|| wanted.clone());
        let grants = match settings {
            None => Effective::own(wanted.filled(&context.parameters)),
            Some(settings) => {
                verify_no_placeholder(&wanted).map_err(unfit(full.clone()))?;
                verify_settings(&full, schema.as_ref(), &settings.settings)?;
                let subject =
                    PolicySubject { id: id.as_deref(), digest: digest.as_str(), signer: settings.signer.as_deref() };
                policy.bound(&full, subject, Grants::intersect(wanted, settings.grants.clone()))?
            }
        };
        verify_complete(&full, &grants)?;
        let empty = serde_json::Map::new();
        let json = serde_json::to_string(settings.map_or(&empty, |settings| &settings.settings))
            .expect("a JSON object is written as JSON");
        if json.len() > SETTINGS_BYTES {
            return Err(PluginError::Settings { plugin: full });
        }
        Ok(Self {
            index,
            name: named(name),
            version,
            digest,
            kinds: inspected.kinds,
            file,
            settings: json,
            wanted: unfilled,
            memory_bytes: inspected.memory_bytes,
            guest_time: inspected.guest_time,
            broker: Broker {
                grants,
                facts: Arc::clone(facts),
                vault: Vault(settings.map(|it| it.secrets.clone()).unwrap_or_default()),
            },
            code: OnceCell::new(),
            checks: Mutex::default(),
        })
    }

    /// `name@version`.
    pub(super) fn full_name(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// A plugin of another kind is not asked.
    pub(super) fn verify_kind(&self, wanted: Kind) -> Result<(), PluginError> {
        if self.kinds.contains(&wanted) {
            return Ok(());
        }
        let found = self.kinds.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(" and ");
        Err(PluginError::Unfit { plugin: self.full_name(), reason: Unfit::Kind { found, wanted } })
    }

    /// Whether an earlier stage showed that there is nothing to run.
    fn offers_nothing(&self, stage: Stage) -> bool {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.as_ref().is_some_and(|checks| checks.iter().all(|check| check.stage != stage))
    }

    /// The bytes that were inspected. They are not kept: most plugins were compiled before, and some are large.
    fn component(&self) -> Result<Cow<'static, [u8]>, CompileError> {
        let Some(file) = &self.file else { return Ok(Cow::Borrowed(engine::builtin::COMPONENT)) };
        match content(file) {
            Ok(component) if Digest::of(&component) == self.digest => Ok(Cow::Owned(component)),
            Ok(_) => Err(CompileError::Failed("its file was changed after it was inspected".into())),
            Err(error) => Err(CompileError::Failed(format!("its file cannot be read again: {error}"))),
        }
    }

    /// A runner for this plugin. The built-in one starts from the code this program carries; where that does not fit
    /// the CPU, or there is none, it is compiled like any other.
    pub(super) async fn start<'a>(
        &'a self,
        launcher: &Launcher,
        context: &CheckContext,
        log: &'a (dyn Fn(LogLevel, &str) + Sync),
    ) -> Result<Session<'a>, judge::NotStarted> {
        let start = Start {
            native_bytes: None,
            control_plane: context.control_plane,
            node_name: context.node_name.clone(),
            parameters: context.parameters.clone(),
            settings: self.settings.clone(),
            grants: self.broker.grants.lines().into_iter().take(GRANT_LINES).collect(),
            memory_bytes: self.memory_bytes,
            guest_time: self.guest_time,
        };
        if self.file.is_none() && engine::builtin::NATIVE.is_some() && self.code.get().is_none() {
            match Session::start(launcher, self.index, start.clone(), None, &self.broker, log).await {
                Ok(session) => return Ok(session),
                Err(StartError::Host(message)) => return Err(judge::NotStarted::Host(message)),
                Err(StartError::Load(message)) => log(LogLevel::Debug, &format!("compiling afresh: {message}")),
            }
        }
        let compile = || compiler::obtain(launcher, self.index, &self.digest, || self.component(), log);
        let code = match self.code.get_or_init(compile).await {
            Ok(code) => code,
            Err(error @ CompileError::Refused(_)) => return Err(judge::NotStarted::Plugin(error.to_string())),
            Err(error @ CompileError::Failed(_)) => return Err(judge::NotStarted::Host(error.to_string())),
        };
        let start = Start { native_bytes: Some(code.bytes()), ..start };
        match Session::start(launcher, self.index, start, Some(code), &self.broker, log).await {
            Ok(session) => Ok(session),
            Err(StartError::Load(message)) => Err(judge::NotStarted::Plugin(format!("it cannot be loaded: {message}"))),
            Err(StartError::Host(message)) => Err(judge::NotStarted::Host(message)),
        }
    }
}

/// A component's file, and its content.
fn open(name: &str, path: &Path) -> Result<(File, Vec<u8>), PluginError> {
    let cannot = |source| PluginError::Read { plugin: name.to_owned(), path: path.to_owned(), source };
    // A FIFO must not hold the host up.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(cannot(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let content = content(&file).map_err(cannot)?;
    if content.len() as u64 > COMPONENT_BYTES {
        return Err(PluginError::TooLarge { plugin: name.to_owned(), path: path.to_owned() });
    }
    Ok((file, content))
}

/// One byte more than a component may have is the most that is read.
fn content(mut file: &File) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.rewind()?;
    file.take(COMPONENT_BYTES + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// A component's file.
pub(super) fn read(name: &str, path: &Path) -> Result<Vec<u8>, PluginError> {
    open(name, path).map(|(_, content)| content)
}

/// Refuses a plugin that does not get what it cannot do without.
pub(super) fn verify_complete(full: &str, grants: &Effective) -> Result<(), PluginError> {
    let missing = grants.missing();
    if missing.is_empty() {
        return Ok(());
    }
    let lines = missing.iter().map(|it| it.line()).collect();
    let flags = missing.iter().filter_map(|it| it.flag()).collect();
    Err(PluginError::MissingGrants { plugin: full.to_owned(), lines, flags })
}

/// What the operator set must be what the manifest's schema allows. Without a schema anything is.
fn verify_settings(
    plugin: &str,
    schema: Option<&serde_json::Value>,
    settings: &serde_json::Map<String, serde_json::Value>,
) -> Result<(), PluginError> {
    let Some(schema) = schema else { return Ok(()) };
    let schema = manifest::Schema::parse(schema).expect("a manifest's schema was read when it was inspected");
    let misfits = schema.misfits(settings);
    if misfits.is_empty() { Ok(()) } else { Err(PluginError::SettingsMisfit { plugin: plugin.to_owned(), misfits }) }
}

pub(super) fn verify_no_placeholder(wanted: &Grants) -> Result<(), Unfit> {
    match wanted.files.iter().find(|file| file.path.has_placeholder()) {
        Some(file) => Err(Unfit::Manifest(format!(
            "the path `{}` has a placeholder, which only built-in plugins may use",
            file.path
        ))),
        None => Ok(()),
    }
}
