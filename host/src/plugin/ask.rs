//! One question with one answer, for the kinds of plugins that have a single function, and its three endings.

use serde::Serialize;
use thiserror::Error;

use super::error::PluginError;
use super::judge::NotStarted;
use super::kind::Kind;
use super::session::Ended;
use super::stage::{Plugin, Plugins};
use super::wire::{Export, LogLevel, Outcome};
use crate::error::{Diagnose, ExitCode};
use crate::output::{Event, Reporter, printable};

/// Why a plugin gave no answer that counts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AskError {
    /// The plugin said no.
    #[error("plugin `{plugin}` said: {code}: {message}")]
    Refused {
        /// `name@version`.
        plugin: String,
        /// Free; printable.
        code: String,
        /// Printable.
        message: String,
        /// Whether asking again later may help.
        retryable: bool,
    },
    /// The plugin was refused something that its manifest calls necessary, so what it then said does not count.
    #[error("plugin `{plugin}` was denied what it asked for: {message}")]
    Denied {
        /// `name@version`.
        plugin: String,
        /// What, with the grant line.
        message: String,
        /// For the command line, where it fits there.
        flag: Option<String>,
    },
    /// The plugin broke.
    #[error("plugin `{plugin}` broke in `{export}`: {message}")]
    Broke {
        /// `name@version`.
        plugin: String,
        /// Interface and function.
        export: &'static str,
        /// `trap`, `deadline`, `memory`, `oversized`, `malformed`, `load`, `crash`, `protocol`.
        reason: String,
        /// What was seen.
        message: String,
    },
    /// The host failed.
    #[error("plugin `{plugin}` could not be asked: {message}")]
    Host {
        /// `name@version`.
        plugin: String,
        /// What was seen.
        message: String,
    },
}

impl Diagnose for AskError {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "plugin-refused",
            Self::Denied { .. } => "plugin-denied",
            Self::Broke { .. } => "plugin-broke",
            Self::Host { .. } => "plugin-host-failed",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { retryable: true, .. } => Some("the plugin says that trying again may help".into()),
            Self::Denied { flag: Some(flag), .. } => Some(format!("allow it with {flag}")),
            Self::Denied { flag: None, .. } => {
                Some("write the line into a file and allow it with `--grant FILE`".into())
            }
            Self::Broke { .. } => Some("report it to the plugin's author".into()),
            Self::Refused { .. } | Self::Host { .. } => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// What a question came to.
#[derive(Debug)]
pub struct Asked<T> {
    /// `name@version`.
    pub plugin: String,
    /// The answer, or one of the endings that is none.
    pub answer: Result<T, AskError>,
    /// Requests to the host that no grant covered.
    pub denied: u32,
    /// The grant lines that would have covered them, each once, optional ones too.
    pub missing_grants: Vec<String>,
    /// Milliseconds it took, host calls included.
    pub took_ms: u64,
}

/// How a question ended, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndingKind {
    /// The plugin answered.
    Answered,
    /// The plugin said no.
    Refused,
    /// The plugin was denied what it needs.
    Denied,
    /// The plugin broke.
    Broke,
    /// The host failed.
    HostFailed,
}

impl<T> Asked<T> {
    /// Which of the endings.
    pub fn ending(&self) -> EndingKind {
        match &self.answer {
            Ok(_) => EndingKind::Answered,
            Err(AskError::Refused { .. }) => EndingKind::Refused,
            Err(AskError::Denied { .. }) => EndingKind::Denied,
            Err(AskError::Broke { .. }) => EndingKind::Broke,
            Err(AskError::Host { .. }) => EndingKind::HostFailed,
        }
    }
}

impl Plugins {
    /// The plugin of this name, if it is of this kind.
    pub(super) fn of_kind(&self, name: &str, kind: Kind) -> Result<&Plugin, PluginError> {
        let plugin = self.plugins.iter().find(|plugin| plugin.name == name);
        let plugin = plugin.ok_or_else(|| PluginError::Unknown { plugin: name.to_owned() })?;
        plugin.verify_kind(kind)?;
        Ok(plugin)
    }

    /// Asks once, in a runner of its own. `read` takes the outcome that fits and says what is wrong with it, else.
    /// `counts`: the answer rests on what the plugin asked the host, so a denial makes it void.
    pub(super) async fn ask<T>(
        &self,
        plugin: &Plugin,
        export: Export,
        reporter: &Reporter,
        read: impl FnOnce(Outcome) -> Result<T, (String, String)>,
        counts: impl FnOnce(&T) -> bool,
    ) -> Asked<T> {
        let log = |level: LogLevel, message: &str| {
            let (plugin, message) = (plugin.name.clone(), printable(message));
            reporter.tell(&Event::PluginLog { plugin, level: level.as_str(), message });
        };
        let (full, name) = (plugin.full_name(), export.name());
        let none =
            |error| Asked { plugin: full.clone(), answer: Err(error), denied: 0, missing_grants: vec![], took_ms: 0 };
        let mut session = match plugin.start(&self.launcher, &self.context, &log).await {
            Ok(session) => session,
            Err(NotStarted::Host(message)) => {
                return none(AskError::Host { plugin: full.clone(), message: printable(&message) });
            }
            Err(NotStarted::Plugin(message)) => {
                let (reason, message) = ("load".into(), printable(&message));
                return none(AskError::Broke { plugin: full.clone(), export: name, reason, message });
            }
        };
        self.note_walls(session.walls());
        let mut ended = None;
        session.call(&[export], |_, it| ended = Some(it)).await;
        session.finish().await;
        let Ended { outcome, denied, denials, took } = ended.expect("a session ends every call");
        let answer = match outcome {
            Outcome::Unable(it) => Err(AskError::Refused {
                plugin: full.clone(),
                code: printable(&it.code.chars().take(64).collect::<String>()),
                message: printable(super::judge::truncated(&it.message)),
                retryable: it.retryable,
            }),
            Outcome::Broke { reason, message } => Err(broke(&full, name, (reason, message))),
            outcome => read(outcome).map_err(|it| broke(&full, name, it)),
        };
        let necessary = denials.iter().find(|denial| !denial.optional);
        let answer = match (answer, necessary) {
            (Ok(answer), Some(denial)) if counts(&answer) => Err(AskError::Denied {
                plugin: full.clone(),
                message: printable(&denial.message()),
                flag: denial.flag.as_deref().map(printable),
            }),
            (answer, _) => answer,
        };
        Asked {
            plugin: full,
            answer,
            denied,
            missing_grants: denials.iter().filter_map(|denial| denial.line.as_deref()).map(printable).collect(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn broke(plugin: &str, export: &'static str, (reason, message): (String, String)) -> AskError {
    let message = printable(super::judge::truncated(&message));
    AskError::Broke { plugin: plugin.to_owned(), export, reason: printable(&reason), message }
}
