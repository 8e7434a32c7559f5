//! `mortise plugin run`: one plugin of any kind, asked as a join or the approver would ask it, its answer printed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::cli::{OutputFormat, PluginRunArgs};
use crate::config::{self, Environment, IgnoredChecks, PluginSettings};
use crate::cri;
use crate::error::{Diagnose, ExitCode, Failure};
use crate::facts::{HostFacts, HostSettings, Ownership};
use crate::output::{Event, Reporter};
use crate::plugin::lock::Lock;
use crate::plugin::store::Store;
use crate::plugin::walls::Walls;
use crate::plugin::{AskError, Asked, CheckContext, CheckStatus, Kind, Launcher, Plugins, ShownAnswer};

mod request;

/// Why there is nothing to run, or what ran did not pass.
#[derive(Debug, Error)]
pub enum PluginRunError {
    /// `--settings`.
    #[error("cannot read the settings `{}`", path.display())]
    ReadSettings {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// What is in it.
    #[error("the settings `{}` are no mapping: {reason}", path.display())]
    Settings {
        /// As given.
        path: PathBuf,
        /// With line and column.
        reason: String,
    },
    /// `--csr`.
    #[error("cannot read the certificate request `{}`", path.display())]
    ReadRequest {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// What is in it.
    #[error("`{}` is neither a request in PEM nor a CertificateSigningRequest: {reason}", path.display())]
    Request {
        /// As given.
        path: PathBuf,
        /// With line and column.
        reason: String,
    },
    /// A hook without anything to judge.
    #[error("an approval hook judges a certificate request, and none was given")]
    NoRequest,
    /// A request for a plugin that judges none.
    #[error("a certificate request was given, but the plugin is no approval hook")]
    NoHook,
    /// Checks found errors.
    #[error("{failed} of {all} checks failed")]
    Checks {
        /// With errors that nobody ignores.
        failed: usize,
        /// In the stage.
        all: usize,
    },
}

impl Diagnose for PluginRunError {
    fn code(&self) -> &'static str {
        match self {
            Self::ReadSettings { .. } => "plugin-run-settings-read",
            Self::Settings { .. } => "plugin-run-settings",
            Self::ReadRequest { .. } => "plugin-run-csr-read",
            Self::Request { .. } => "plugin-run-csr",
            Self::NoRequest => "plugin-run-no-csr",
            Self::NoHook => "plugin-run-no-hook",
            Self::Checks { .. } => "preflight-failed",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Settings { .. } => {
                Some("write the settings as a mapping in YAML or JSON, for example `cluster: blue`".into())
            }
            Self::NoRequest => {
                Some("give it with `--csr FILE`: PEM, or what `kubectl get csr NAME -o yaml` prints".into())
            }
            Self::NoHook => Some("leave out `--csr`".into()),
            Self::ReadSettings { .. } | Self::ReadRequest { .. } | Self::Request { .. } | Self::Checks { .. } => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Checks { .. } => ExitCode::Preflight,
            _ => ExitCode::Usage,
        }
    }
}

/// Runs every kind that the plugin is of; a component may be of several.
///
/// # Errors
///
/// A plugin that cannot be used; checks that fail; an answer that is none.
pub(super) async fn plugin_run(
    args: PluginRunArgs,
    root: &Path,
    environment: Environment,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let name = args.plugin.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut settings = PluginSettings {
        name: name.clone(),
        path: args.plugin.clone(),
        image: config::locked_name(&args.plugin),
        settings: args.settings.as_deref().map(read_settings).transpose()?.unwrap_or_default(),
        grants: config::grants_of_flags(&args.grants)?,
        ..PluginSettings::default()
    };
    let store = Store::of(root);
    let lock = Lock::load(&Lock::path(root))?;
    lock.resolve(std::slice::from_mut(&mut settings), &store)?;
    let mut request = args.csr.as_deref().map(request::read).transpose()?;
    let node_name = args.node_name.clone().unwrap_or_else(hostname);
    // A machine without a runtime is fine until a plugin asks for it.
    let cri_socket = cri::detect_socket().unwrap_or_default();
    let facts = Arc::new(HostFacts::new(HostSettings {
        node_name: node_name.clone(),
        cri_socket: cri_socket.clone(),
        environment,
        owned: Ownership { files: Box::new(|_| false), ports: Vec::new() },
        secrets: Vec::new(),
        root: root.to_owned(),
        launcher: Launcher::default(),
    }));
    let parameters = BTreeMap::from([
        ("cri-socket".to_owned(), cri_socket),
        ("mortise-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("kubernetes-minor".to_owned(), crate::KUBERNETES_MINOR.to_string()),
    ]);
    let context = CheckContext { control_plane: args.control_plane, node_name, parameters };
    let launcher = Launcher::default().keeping_code_in(store);
    let plugins = Plugins::prepare_one(launcher, &settings, &config::policy(root)?, facts, context)?;
    lock.verify_all(&plugins.digests())?;
    let kinds = plugins.kinds();
    match (&request, kinds.contains(&Kind::Approval)) {
        // One that is of another kind, too, can be tried without.
        (None, true) if kinds.len() == 1 => return Err(PluginRunError::NoRequest.into()),
        (Some(_), false) => return Err(PluginRunError::NoHook.into()),
        _ => {}
    }
    let ended = async {
        for kind in kinds {
            match kind {
                Kind::Preflight => run_checks(&plugins, &args, reporter).await?,
                Kind::Discovery => {
                    let asked = plugins.discover(&name, reporter).await?;
                    show(kind, asked, |cluster| cluster.shown(), reporter)?;
                }
                Kind::Approval => {
                    let asked = plugins.review(&name, request.take(), reporter).await?;
                    show(kind, asked, |judgement| judgement.shown(), reporter)?;
                }
            }
        }
        Ok::<(), Failure>(())
    };
    let ended = ended.await;
    let walls = plugins.walls();
    if walls != Walls::default() {
        reporter.tell(&Event::Walls { walls });
    }
    ended
}

async fn run_checks(plugins: &Plugins, args: &PluginRunArgs, reporter: &Reporter) -> Result<(), Failure> {
    let quiet = reporter.without_checks();
    let text = args.output == OutputFormat::Text;
    let told = if text { &quiet } else { reporter };
    let results = plugins.run_stage(args.stage.into(), &IgnoredChecks::default(), told).await;
    if text {
        for result in &results {
            result.lines().iter().for_each(|line| println!("{}", line.trim_start_matches('\t')));
            result.evidence.iter().for_each(|(name, value)| println!("    {name}: {value}"));
        }
        if results.is_empty() {
            println!("no checks in this stage");
        }
    }
    let failed = results.iter().filter(|result| result.status == CheckStatus::Failed).count();
    if failed > 0 { Err(PluginRunError::Checks { failed, all: results.len() }.into()) } else { Ok(()) }
}

/// Prints an answer; an ending that is none becomes the command's error.
fn show<T>(
    kind: Kind,
    asked: Asked<T>,
    shown: impl FnOnce(&T) -> ShownAnswer,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let ending = asked.ending();
    let Asked { plugin, answer, denied, missing_grants, took_ms } = asked;
    let (answer, error) = match &answer {
        Ok(answer) => (Some(shown(answer)), None),
        Err(error) => (None, Some(error.clone())),
    };
    if reporter.format() == crate::output::Format::Text {
        if let Some(answer) = &answer {
            answer.lines().iter().for_each(|line| println!("{line}"));
        }
        missing_grants.iter().for_each(|line| println!("missing grant: {line}"));
    } else {
        reporter.tell(&Event::PluginAnswer { plugin, kind, ending, answer, denied, missing_grants, took_ms });
    }
    error.map_or(Ok(()), |error: AskError| Err(error.into()))
}

fn read_settings(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>, PluginRunError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| PluginRunError::ReadSettings { path: path.to_owned(), source })?;
    serde_saphyr::from_str(&text).map_err(|error| PluginRunError::Settings {
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })
}

/// The kernel's host name; empty where it is no UTF-8.
fn hostname() -> String {
    rustix::system::uname().nodename().to_str().unwrap_or_default().to_lowercase()
}
