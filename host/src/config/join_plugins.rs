//! `JoinPlugins` of `mortise.dev/v1alpha1`: which plugins a join uses, with their settings and grants.
//!
//! Also what `--plugin` and `--grant` mean: they say the same on the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{At, ConfigError, Fault, shown};
use super::reader::{Fields, Notes};
use super::yaml::{Node, Value};
use super::{PluginSettings, SecretSource, TlsBootstrapBy, grants};
use crate::plugin::grants::{Grants, is_secret_name};

/// The document, every rule checked.
#[derive(Default)]
pub(super) struct JoinPlugins {
    pub(super) tls_bootstrap_by: Option<TlsBootstrapBy>,
    /// Each with the place where it is configured.
    pub(super) plugins: Vec<(At, PluginSettings)>,
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
        let at = notes.at(item.place);
        read.plugins.extend(read_plugin(plugin, notes).map(|plugin| (at, plugin)));
    }
    all.finish(notes);
    read
}

fn read_plugin(mut plugin: Fields<'_>, notes: &mut Notes) -> Option<PluginSettings> {
    let place = plugin.place();
    let name = checked(&mut plugin, "name", check_name, notes);
    let path = checked(&mut plugin, "path", check_path, notes);
    let digest = checked(&mut plugin, "digest", check_digest, notes);
    let image = checked(&mut plugin, "image", check_image, notes);
    let has_path = notes.places.contains_key(&plugin.path_of("path"));
    if image.is_some() && has_path {
        let reason = "cannot stand beside `path`".to_owned();
        let value = shown(image.as_deref().unwrap_or_default());
        notes.fault(place, &plugin.path_of("image"), Fault::Value { value, reason });
    }
    let has_image = notes.places.contains_key(&plugin.path_of("image"));
    for (key, needed) in [("name", true), ("path", !has_image)] {
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
    let field = plugin.path_of("grants");
    let grants = plugin.node("grants", notes).map(|node| grants::read(node, &field, notes)).unwrap_or_default();
    let field = plugin.path_of("secrets");
    let secrets = plugin.node("secrets", notes).map(|node| read_secrets(node, &field, notes)).unwrap_or_default();
    plugin.finish(notes);
    let path = if image.is_some() { PathBuf::new() } else { path?.into() };
    Some(PluginSettings { name: name?, path, image, digest, settings, grants, secrets, signer: None })
}

/// `NAME: {file: PATH}` or `NAME: {env: VARIABLE}`.
fn read_secrets(node: &Node, field: &str, notes: &mut Notes) -> BTreeMap<String, SecretSource> {
    let Value::Map(entries) = &node.value else {
        notes.fault(node.place, field, Fault::WrongType { expected: "a mapping", found: node.value.kind() });
        return BTreeMap::new();
    };
    let mut secrets = BTreeMap::new();
    for entry in entries {
        let field = format!("{field}.{}", shown(&entry.key));
        if !is_secret_name(&entry.key) {
            let reason = "is no name of a secret".to_owned();
            notes.fault(entry.place, &field, Fault::Value { value: shown(&entry.key), reason });
        }
        let mut source = Fields::of(&entry.node, &field, notes);
        let file = checked(&mut source, "file", check_path, notes).map(|path| SecretSource::File(path.into()));
        let variable = checked(&mut source, "env", check_variable, notes).map(SecretSource::Variable);
        source.finish(notes);
        match (file, variable) {
            (Some(source), None) | (None, Some(source)) => {
                if secrets.insert(entry.key.clone(), source).is_some() {
                    notes.fault(entry.place, &field, Fault::DuplicateField);
                }
            }
            (Some(_), Some(_)) => notes.fault(entry.place, &field, Fault::SecretSource),
            (None, None) if notes.errors.is_empty() => notes.fault(entry.place, &field, Fault::SecretSource),
            (None, None) => {}
        }
    }
    secrets
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
    let image = locked_name(&flag.path);
    let path = if image.is_some() { PathBuf::new() } else { flag.path.clone() };
    Ok(PluginSettings { name, path, image, grants, ..PluginSettings::default() })
}

/// The name, where an argument is one of the lock file's: bare, without a file's ending, and no file.
pub fn locked_name(argument: &Path) -> Option<String> {
    let text = argument.to_string_lossy();
    (!text.contains('/') && !text.ends_with(".wasm") && !argument.exists()).then(|| text.into_owned())
}

/// The plugins that `/etc/mortise/conf.d` below `root` configures.
///
/// # Errors
///
/// Everything that is wrong with the files there.
pub fn configured_plugins(root: &Path) -> Result<Vec<PluginSettings>, ConfigError> {
    let loaded = super::file::load_conf_d(root, super::reader::UnknownFields::Refuse)?;
    let plugins: Vec<_> = loaded.into_iter().flat_map(|it| it.plugins.plugins).collect();
    match name_twice(&plugins) {
        Some(error) => Err(error),
        None => Ok(plugins.into_iter().map(|(_, plugin)| plugin).collect()),
    }
}

/// The error for the first name that two plugins have: at the second, naming the place of the first.
pub(super) fn name_twice(plugins: &[(At, PluginSettings)]) -> Option<ConfigError> {
    plugins.iter().enumerate().find_map(|(index, (at, plugin))| {
        let (first, _) = plugins[..index].iter().find(|(_, earlier)| earlier.name == plugin.name)?;
        let first = first.to_string().trim_end_matches(": ").to_owned();
        let fault = Fault::PluginName { name: plugin.name.clone(), first };
        Some(ConfigError::Field { at: at.clone(), field: "plugins".to_owned(), fault })
    })
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

/// Checks what `mortise plugin add` is to call a plugin.
///
/// # Errors
///
/// [`ConfigError::Field`].
pub fn check_plugin_name(name: &str) -> Result<(), ConfigError> {
    check_name(name).map_err(|reason| ConfigError::Field {
        at: At::Nowhere,
        field: "--name".to_owned(),
        fault: Fault::Value { value: shown(name), reason: reason.to_owned() },
    })
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let good = (1..=64).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['-', '.']);
    if good { Ok(()) } else { Err("is no plugin name: 1 to 64 of letters, digits, `-`, `_` and `.`") }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if Path::new(path).is_absolute() { Ok(()) } else { Err("is no absolute path") }
}

/// A reference in a registry; the registry is not asked, so that only its form matters.
fn check_image(image: &str) -> Result<(), &'static str> {
    match image.parse::<crate::registry::Reference>() {
        Ok(_) => Ok(()),
        Err(_) => Err("is no reference such as `registry.example/vendor/plugin:1.0.0`"),
    }
}

fn check_variable(name: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = !name.is_empty() && name.bytes().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit());
    if good { Ok(()) } else { Err("is no name of a variable") }
}

pub(super) fn check_digest(digest: &str) -> Result<(), &'static str> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if good { Ok(()) } else { Err("is not `sha256:` and 64 lower-case hex digits") }
}
