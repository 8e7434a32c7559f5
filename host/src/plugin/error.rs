//! What can be wrong with a plugin before it runs.

use std::path::PathBuf;

use thiserror::Error;

use super::grants::PatternError;
use super::kind::Kind;
use super::leaks::LeakKind;
use super::limits::COMPONENT_BYTES;
use crate::error::{Diagnose, ExitCode};

/// A plugin that cannot be used. Nothing was run and nothing changed.
#[derive(Debug, Error)]
pub enum PluginError {
    /// Its file.
    #[error("plugin `{plugin}`: cannot read `{path}`")]
    Read {
        /// As the operator named it.
        plugin: String,
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Its size.
    #[error("plugin `{plugin}`: `{path}` is larger than {} MiB", COMPONENT_BYTES >> 20)]
    TooLarge {
        /// As the operator named it.
        plugin: String,
        /// As given.
        path: PathBuf,
    },
    /// Not the file the operator means.
    #[error("plugin `{plugin}`: its digest is `{found}`, not `{expected}`")]
    Digest {
        /// As the operator named it.
        plugin: String,
        /// As configured.
        expected: String,
        /// `sha256:` and 64 hex digits.
        found: String,
    },
    /// The file is no plugin for this host.
    #[error("plugin `{plugin}`: {reason}")]
    Unfit {
        /// `name` or `name@version`.
        plugin: String,
        /// What was found.
        reason: Unfit,
    },
    /// Required grants that the operator does not allow.
    #[error("plugin `{plugin}` needs grants that were not given: {}", lines.join("; "))]
    MissingGrants {
        /// `name@version`.
        plugin: String,
        /// In the syntax of a manifest.
        lines: Vec<String>,
        /// For the command line, those that fit there.
        flags: Vec<String>,
    },
    /// The site's policy does not let it run.
    #[error("plugin `{plugin}` is forbidden by the site's policy: {reason} ({place})")]
    Policy {
        /// `name@version`.
        plugin: String,
        /// File and line.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Required grants that the site's policy forbids.
    #[error("plugin `{plugin}` needs what the site's policy forbids: {}", forbidden.iter()
        .map(|(line, place)| format!("{line} ({place})")).collect::<Vec<_>>().join("; "))]
    PolicyGrants {
        /// `name@version`.
        plugin: String,
        /// Each in the syntax of a manifest, with file and line.
        forbidden: Vec<(String, String)>,
    },
    /// Grants that together leak what the site's policy keeps in.
    #[error("plugin `{plugin}` {leak}, which the site's policy forbids as `{kind}` ({place})")]
    PolicyLeak {
        /// `name@version`.
        plugin: String,
        /// File and line.
        place: String,
        /// As the policy names it.
        kind: LeakKind,
        /// What it could do.
        leak: String,
    },
    /// Settings that its manifest does not allow.
    #[error("plugin `{plugin}`: its settings do not fit: {}", misfits.join("; "))]
    SettingsMisfit {
        /// `name@version`.
        plugin: String,
        /// Each with its place; no value is among them.
        misfits: Vec<String>,
    },
    /// Two plugins with one name.
    #[error("there are two plugins named `{plugin}`")]
    Twice {
        /// The name.
        plugin: String,
    },
    /// No plugin of this name.
    #[error("there is no plugin named `{plugin}`")]
    Unknown {
        /// The name.
        plugin: String,
    },
    /// Too long.
    #[error("plugin `{plugin}`: its settings are larger than 256 KiB")]
    Settings {
        /// As the operator named it.
        plugin: String,
    },
}

/// Why a file is no plugin for this host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unfit {
    /// Not WebAssembly at all.
    #[error("not a WebAssembly component but {0}")]
    NotWasm(&'static str),
    /// A module of an older toolchain or another target.
    #[error("a core WebAssembly module, not a component")]
    CoreModule,
    /// The beginning is right, the rest is not.
    #[error("a malformed component: {0}")]
    Malformed(String),
    /// The manifest.
    #[error("its manifest is not valid: {0}")]
    Manifest(String),
    /// A placeholder in the manifest.
    #[error("its manifest is not valid")]
    Pattern(#[from] PatternError),
    /// For a newer host.
    #[error("its manifest asks for mortise {wanted} or newer; this is {own}")]
    MinHost {
        /// `minHost`.
        wanted: String,
        /// Of this host.
        own: &'static str,
    },
    /// Another kind of component.
    #[error("of another world: it exports {found}; {}", worlds())]
    World {
        /// Names, quoted.
        found: String,
    },
    /// A plugin of a kind that is not asked here.
    #[error("a plugin of kind {found}; here one of kind `{wanted}` is needed")]
    Kind {
        /// Kinds, quoted.
        found: String,
        /// The kind.
        wanted: Kind,
    },
    /// Of another version.
    #[error("it exports `{found}`; this host asks `{expected}`")]
    ExportVersion {
        /// Name and version.
        found: String,
        /// The interface.
        expected: &'static str,
    },
    /// An interface nobody here knows.
    #[error("it imports `{found}`, which this host does not provide")]
    Import {
        /// Name and version.
        found: String,
    },
    /// Of another version.
    #[error("it imports `{found}`; this host provides `{expected}`")]
    ImportVersion {
        /// Name and version.
        found: String,
        /// Package and version.
        expected: String,
    },
}

/// What plugins export.
fn worlds() -> String {
    let each = Kind::ALL.map(|kind| format!("a {kind} plugin exports `{}`", kind.interface()));
    each.join(", ")
}

impl Diagnose for PluginError {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "plugin-read",
            Self::TooLarge { .. } => "plugin-too-large",
            Self::Digest { .. } => "plugin-digest",
            Self::MissingGrants { .. } => "plugin-missing-grants",
            Self::Policy { .. } => "plugin-policy",
            Self::PolicyGrants { .. } => "plugin-policy-grants",
            Self::PolicyLeak { .. } => "plugin-policy-leak",
            Self::SettingsMisfit { .. } => "plugin-settings-misfit",
            Self::Twice { .. } => "plugin-twice",
            Self::Unknown { .. } => "plugin-unknown",
            Self::Settings { .. } => "plugin-settings",
            Self::Unfit { reason, .. } => match reason {
                Unfit::NotWasm(_) => "plugin-not-wasm",
                Unfit::CoreModule => "plugin-core-module",
                Unfit::Malformed(_) => "plugin-malformed",
                Unfit::Manifest(_) | Unfit::Pattern(_) => "plugin-manifest",
                Unfit::MinHost { .. } => "plugin-min-host",
                Unfit::World { .. } => "plugin-world",
                Unfit::Kind { .. } => "plugin-kind",
                Unfit::ExportVersion { .. } => "plugin-export-version",
                Unfit::Import { .. } => "plugin-import",
                Unfit::ImportVersion { .. } => "plugin-import-version",
            },
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::MissingGrants { flags, lines, .. } => Some(if flags.len() == lines.len() {
                format!("allow them with {}", flags.join(" "))
            } else {
                "write the lines into a file and allow them with `--grant FILE`".into()
            }),
            Self::Unfit { reason: Unfit::CoreModule | Unfit::NotWasm(_), .. } => {
                Some("build the plugin for a component target, for example `cargo build --target wasm32-wasip2`".into())
            }
            Self::PolicyGrants { .. } | Self::PolicyLeak { .. } | Self::Policy { .. } => {
                Some("only who keeps the policy can allow it; `mortise plugin grants explain` shows the rest".into())
            }
            Self::SettingsMisfit { .. } => {
                Some("`mortise plugin inspect FILE.wasm -o json` shows the schema of its settings".into())
            }
            Self::Unfit { reason: Unfit::MinHost { .. }, .. } => Some("install a newer mortise".into()),
            Self::Unfit { .. }
            | Self::Digest { .. }
            | Self::Read { .. }
            | Self::TooLarge { .. }
            | Self::Twice { .. }
            | Self::Unknown { .. }
            | Self::Settings { .. } => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Usage
    }
}
