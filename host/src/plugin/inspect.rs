//! What a plugin says of itself, for people and programs. Nothing of it runs.

use std::path::Path;

use serde::Serialize;

use super::error::{PluginError, Unfit};
use super::grants::{Grant, Grants};
use super::kind::Kind;
use super::leaks::{Leak, leaks};
use super::manifest::Inspected;
use super::{manifest, stage};
use crate::output::printable;
use crate::registry::Digest;

/// A component as its file shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Of the manifest; none without one.
    pub id: Option<String>,
    /// Of the manifest; `0` without one.
    pub version: String,
    /// What it answers.
    pub kinds: Vec<Kind>,
    /// Of the manifest.
    pub title: Option<String>,
    /// Of the manifest.
    pub licence: Option<String>,
    /// The oldest host it runs on.
    pub min_host: Option<String>,
    /// What it wants, in the syntax of a manifest.
    pub wants: Vec<String>,
    /// Each want with its reason.
    pub requests: Vec<Request>,
    /// What it could send away, were all granted.
    pub leaks: Vec<Leak>,
    /// What it asks for, or the host's own figures.
    pub limits: AskedLimits,
    /// JSON Schema of its settings.
    pub settings: Option<serde_json::Value>,
    /// The same for the host.
    #[serde(skip)]
    pub grants: Grants,
}

/// A grant that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// In the syntax of a manifest.
    pub grant: String,
    /// As `--grant` takes it, where it can be said there.
    pub flag: Option<String>,
    /// Why, in the plugin's own words; printable.
    pub reason: String,
    /// The plugin can do without.
    pub optional: bool,
    /// A fact that only newer hosts have is never granted.
    pub known: bool,
}

/// Limits of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedLimits {
    /// Of each linear memory.
    pub memory_bytes: u64,
    /// Computing.
    pub time_ms: u64,
}

impl Inspection {
    fn of(digest: String, inspected: Inspected) -> Self {
        let limits = AskedLimits {
            memory_bytes: inspected.memory_bytes,
            time_ms: u64::try_from(inspected.guest_time.as_millis()).unwrap_or(u64::MAX),
        };
        let mut seen = Self {
            digest,
            id: None,
            version: "0".into(),
            kinds: inspected.kinds,
            title: None,
            licence: None,
            min_host: None,
            wants: Vec::new(),
            requests: Vec::new(),
            leaks: Vec::new(),
            limits,
            settings: None,
            grants: Grants::default(),
        };
        let Some(manifest) = inspected.manifest else { return seen };
        let request = |grant: Grant<'_>| Request {
            grant: printable(&grant.line()),
            flag: grant.flag().as_deref().map(printable),
            reason: printable(&grant.reason().unwrap_or_default()),
            optional: grant.is_optional(),
            known: !matches!(grant, Grant::Fact(fact) if !fact.is_known()),
        };
        seen.id = Some(manifest.id);
        seen.version = manifest.version;
        seen.title = manifest.title.as_deref().map(printable);
        seen.licence = manifest.licence.as_deref().map(printable);
        seen.min_host = manifest.min_host;
        seen.wants = manifest.grants.lines();
        seen.requests = manifest.grants.iter().map(request).collect();
        seen.leaks = leaks(&manifest.grants);
        seen.settings = manifest.settings;
        seen.grants = manifest.grants;
        seen
    }

    /// Refuses grants without which the plugin cannot do.
    ///
    /// # Errors
    ///
    /// [`PluginError::MissingGrants`].
    pub fn verify_granted(&self, name: &str, allowed: &Grants) -> Result<(), PluginError> {
        let effective = Grants::intersect(self.grants.clone(), allowed.clone());
        stage::verify_complete(&format!("{name}@{}", self.version), &effective)
    }
}

/// Reads a component's file.
///
/// # Errors
///
/// [`PluginError`] for a file that is no plugin this host can use.
pub fn inspect(name: &str, path: &Path) -> Result<Inspection, PluginError> {
    inspect_component(name, &stage::read(name, path)?)
}

/// Reads a component's bytes from its file, at most [`super::COMPONENT_BYTES`].
///
/// # Errors
///
/// [`PluginError`] for a file that cannot be read or is too large.
pub fn read_component(name: &str, path: &Path) -> Result<Vec<u8>, PluginError> {
    stage::read(name, path)
}

/// Inspects a component that was read.
///
/// # Errors
///
/// [`PluginError`] for what is no plugin this host can use.
pub fn inspect_component(name: &str, component: &[u8]) -> Result<Inspection, PluginError> {
    let unfit = |reason: Unfit| PluginError::Unfit { plugin: name.to_owned(), reason };
    let inspected = manifest::inspect(component).map_err(unfit)?;
    Ok(Inspection::of(Digest::of(component).into(), inspected))
}
