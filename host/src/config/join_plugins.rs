//! `JoinPlugins` of `mortise.dev/v1alpha1`: which plugins a join uses, with their settings and grants.
//!
//! Also what `--plugin` and `--grant` mean: they say the same on the command line.

use std::path::{Path, PathBuf};

use super::error::{At, ConfigError, Fault, shown};
use super::reader::{Fields, Notes};
use super::yaml::Node;
use super::{PluginSettings, TlsBootstrapBy};
use crate::plugin::grants::Grants;

/// The document, every rule checked.
#[derive(Default)]
pub(super) struct JoinPlugins {
    pub(super) tls_bootstrap_by: Option<TlsBootstrapBy>,
    pub(super) plugins: Vec<PluginSettings>,
}

/// A `--plugin` with the `--grant`s that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFlag {
    /// Component file.
    pub path: PathBuf,
    /// Each `KIND=VALUE`, or a file that holds grants.
    pub grants: Vec<String>,
}

/// Reads the document; what does not fit is in the notes.
pub(super) fn read(document: &Node, notes: &mut Notes) -> JoinPlugins {
    let mut all = Fields::of(document, "", notes);
    all.text("apiVersion", notes);
    all.text("kind", notes);
    let mut read = JoinPlugins::default();
    if let Some(node) = all.node("tlsBootstrapBy", notes) {
        match node.to_json().as_str() {
            Some("host") => read.tls_bootstrap_by = Some(TlsBootstrapBy::Host),
            Some("kubelet") => read.tls_bootstrap_by = Some(TlsBootstrapBy::Kubelet),
            other => {
                let value = shown(other.unwrap_or(node.value.kind()));
                let reason = "is neither `host` nor `kubelet`".to_owned();
                notes.fault(node.place, "tlsBootstrapBy", Fault::Value { value, reason });
            }
        }
    }
    for (path, item) in all.list("plugins", notes).unwrap_or_default() {
        let plugin = Fields::of(item, &path, notes);
        read.plugins.extend(read_plugin(plugin, notes));
    }
    all.finish(notes);
    read
}

fn read_plugin(mut plugin: Fields<'_>, notes: &mut Notes) -> Option<PluginSettings> {
    let place = plugin.place();
    let name = checked(&mut plugin, "name", check_name, notes);
    let path = checked(&mut plugin, "path", check_path, notes);
    let digest = checked(&mut plugin, "digest", check_digest, notes);
    let image = plugin.node("image", notes);
    if let Some(image) = image {
        notes.fault(image.place, &plugin.path_of("image"), Fault::PluginImage);
    }
    for (key, needed) in [("name", true), ("path", image.is_none())] {
        let field = plugin.path_of(key);
        if needed && !notes.places.contains_key(&field) {
            notes.fault(place, &field, Fault::Missing);
        }
    }
    let mut settings = serde_json::Map::new();
    if let Some(node) = plugin.node("settings", notes) {
        match node.to_json() {
            serde_json::Value::Object(object) => settings = object,
            _ => {
                let fault = Fault::WrongType { expected: "a mapping", found: node.value.kind() };
                notes.fault(node.place, &plugin.path_of("settings"), fault);
            }
        }
    }
    let mut grants = Grants::default();
    if let Some(node) = plugin.node("grants", notes) {
        match serde_json::from_value(node.to_json()) {
            Ok(parsed) => grants = parsed,
            Err(error) => {
                notes.fault(node.place, &plugin.path_of("grants"), Fault::Grant(shown(&error.to_string())));
            }
        }
    }
    plugin.finish(notes);
    Some(PluginSettings { name: name?, path: path?.into(), digest, settings, grants })
}

type Check = fn(&str) -> Result<(), &'static str>;

/// A string that passes the check; none if it is absent, and none, with a note, if it does not.
fn checked(fields: &mut Fields<'_>, key: &str, check: Check, notes: &mut Notes) -> Option<String> {
    let text = fields.text(key, notes)?;
    let field = fields.path_of(key);
    match check(&text) {
        Ok(()) => Some(text),
        Err(reason) => {
            let place = notes.places.get(&field).copied().unwrap_or_default();
            notes.fault(place, &field, Fault::Value { value: shown(&text), reason: reason.to_owned() });
            None
        }
    }
}

/// What `--plugin` and `--grant` mean for a join in the sandbox, where no file configures plugins.
///
/// # Errors
///
/// A file name that is no plugin name, and grants that do not parse.
pub fn sandbox_plugins(flags: &[PluginFlag]) -> Result<Vec<PluginSettings>, ConfigError> {
    of_flags(flags)
}

pub(super) fn of_flags(flags: &[PluginFlag]) -> Result<Vec<PluginSettings>, ConfigError> {
    flags.iter().map(of_flag).collect()
}

/// Named after its file, with the grants that follow it.
fn of_flag(flag: &PluginFlag) -> Result<PluginSettings, ConfigError> {
    let name = flag.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    check_name(&name).map_err(|reason| ConfigError::Field {
        at: At::Nowhere,
        field: "--plugin".to_owned(),
        fault: Fault::Value { value: shown(&flag.path.to_string_lossy()), reason: reason.to_owned() },
    })?;
    let grants = grants_of_flags(&flag.grants)?;
    Ok(PluginSettings { name, path: flag.path.clone(), digest: None, settings: serde_json::Map::new(), grants })
}

/// The plugins that `/etc/mortise/conf.d` below `root` configures.
///
/// # Errors
///
/// Everything that is wrong with the files there.
pub fn configured_plugins(root: &Path) -> Result<Vec<PluginSettings>, ConfigError> {
    let loaded = super::file::load_conf_d(root, super::reader::UnknownFields::Refuse)?;
    Ok(loaded.into_iter().flat_map(|it| it.plugins.plugins).collect())
}

/// What all the `--grant`s allow together.
///
/// # Errors
///
/// The first one that does not parse.
pub fn grants_of_flags(flags: &[String]) -> Result<Grants, ConfigError> {
    let mut grants = Grants::default();
    for flag in flags {
        let more = Grants::parse_flag(flag).map_err(|error| ConfigError::Field {
            at: At::Nowhere,
            field: "--grant".to_owned(),
            fault: Fault::Grant(shown(&chain(&error))),
        })?;
        grants.merge(more);
    }
    Ok(grants)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) if !error.to_string().ends_with(&cause.to_string()) => format!("{error}: {}", chain(cause)),
        _ => error.to_string(),
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let good = (1..=64).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['-', '.']);
    if good { Ok(()) } else { Err("is no plugin name: 1 to 64 of letters, digits, `-`, `_` and `.`") }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if Path::new(path).is_absolute() { Ok(()) } else { Err("is no absolute path") }
}

fn check_digest(digest: &str) -> Result<(), &'static str> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if good { Ok(()) } else { Err("is not `sha256:` and 64 lower-case hex digits") }
}
