//! What a plugin says of itself, for people and programs. Nothing of it runs.

use std::path::Path;

use serde::Serialize;

use super::error::{PluginError, Unfit};
use super::grants::Grants;
use super::{manifest, stage};

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
    /// What it wants, in the syntax of a manifest.
    pub wants: Vec<String>,
    /// The same for the host.
    #[serde(skip)]
    pub grants: Grants,
}

impl Inspection {
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
pub fn read_component(name: &str, path: &Path) -> Result<std::sync::Arc<[u8]>, PluginError> {
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
    let (id, version, grants) = match inspected.manifest {
        Some(manifest) => (Some(manifest.id), manifest.version, manifest.grants),
        None => (None, "0".into(), Grants::default()),
    };
    Ok(Inspection { digest: stage::digest(component), id, version, wants: grants.lines(), grants })
}
