//! Configuration files: which documents they hold and which of them count.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Warning;
use super::error::{At, ConfigError, DocumentProblem, shown};
use super::join_configuration::{self, JoinConfiguration};
use super::join_plugins::{self, JoinPlugins};
use super::reader::{Notes, UnknownFields};
use super::reset::{self, ResetConfiguration};
use super::yaml::{self, Node, Place, Value};

/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Directory of the site's own documents, below `--root`. Files `*.yaml`, in the order of their names.
pub(super) const CONF_D: &str = "etc/mortise/conf.d";

/// kubeadm's group.
const KUBEADM: &str = "kubeadm.k8s.io";
/// Our group.
const MORTISE: &str = "mortise.dev";

/// Versions that kubeadm reads no more, with the last release that migrates each.
const OLD_VERSIONS: [(&str, &str); 6] = [
    ("v1alpha1", "v1.11"),
    ("v1alpha2", "v1.12"),
    ("v1alpha3", "v1.14"),
    ("v1beta1", "v1.15"),
    ("v1beta2", "v1.22"),
    ("v1beta3", "v1.36"),
];

/// The documents of one file that mean something to us.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) join: Option<JoinConfiguration>,
    pub(super) reset: Option<ResetConfiguration>,
    pub(super) plugins: JoinPlugins,
    pub(super) warnings: Vec<Warning>,
}

/// The kinds a file may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Whatever kubeadm's own files hold, and ours.
    Anything,
    /// Ours only.
    Ours,
}

/// Reads a file given with `--config`.
///
/// # Errors
///
/// Unreadable, no YAML, documents that cannot be used, and all fields of the others that do not fit.
pub(super) fn load(path: &Path, unknown_fields: UnknownFields) -> Result<Loaded, ConfigError> {
    load_as(path, unknown_fields, Holds::Anything)
}

/// Reads `JoinPlugins` from every `*.yaml` of the directory; none where it does not exist.
///
/// # Errors
///
/// As [`load`], and for documents of kubeadm: they belong into the file given with `--config`.
pub(super) fn load_conf_d(root: &Path, unknown_fields: UnknownFields) -> Result<Vec<Loaded>, ConfigError> {
    let directory = root.join(CONF_D);
    let unreadable =
        |source| ConfigError::Read { what: "the configuration directory", path: directory.clone(), source };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(unreadable)?;
    // Dot-files are what editors and unfinished writes leave.
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml") && !hidden(path));
    paths.sort();
    paths.iter().map(|path| load_as(path, unknown_fields, Holds::Ours)).collect()
}

/// The whole of a small text file.
///
/// # Errors
///
/// [`ConfigError::Read`], also for more than 4 MiB and for bytes that are no UTF-8.
pub(super) fn read_text(path: &Path, what: &'static str) -> Result<String, ConfigError> {
    let read = || read_all(std::fs::File::open(path)?);
    read().map_err(|source| ConfigError::Read { what, path: path.to_owned(), source })
}

/// As [`read_text`], from standard input.
///
/// # Errors
///
/// As [`read_text`].
pub(super) fn read_stdin(what: &'static str) -> Result<String, ConfigError> {
    read_all(std::io::stdin().lock()).map_err(|source| ConfigError::Read { what, path: "-".into(), source })
}

fn read_all(source: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 4 MiB"));
    }
    Ok(text)
}

fn load_as(path: &Path, unknown_fields: UnknownFields, holds: Holds) -> Result<Loaded, ConfigError> {
    let text = read_text(path, "the configuration")?;
    let at = |place| At::File { path: path.to_owned(), place };
    let documents = yaml::parse_documents(&text)
        .map_err(|error| ConfigError::Syntax { at: at(error.place), reason: error.reason })?;
    let mut loaded = Loaded::default();
    let mut errors = Vec::new();
    let mut kinds: Vec<String> = Vec::new();
    for document in &documents {
        let refuse = |problem| ConfigError::Document { at: at(document.place), problem };
        let Some((group, version, kind)) = group_version_kind(document) else {
            errors.push(refuse(DocumentProblem::Untyped));
            continue;
        };
        if kinds.contains(&kind) {
            errors.push(refuse(DocumentProblem::Twice(kind)));
            continue;
        }
        let api = format!("{group}/{version}");
        let mut notes = Notes::new(path, unknown_fields);
        match (group.as_str(), kind.as_str()) {
            (MORTISE, "JoinPlugins") if version == "v1alpha1" => {
                loaded.plugins = join_plugins::read(document, &mut notes);
            }
            (MORTISE, _) => errors.push(refuse(DocumentProblem::Unknown { version: api, kind: kind.clone() })),
            _ if holds == Holds::Ours => errors.push(refuse(DocumentProblem::Misplaced(kind.clone()))),
            (_, "JoinConfiguration" | "ResetConfiguration") => match unreadable_version(&group, &version, &kind) {
                Some(problem) => errors.push(refuse(problem)),
                None if kind == "JoinConfiguration" => {
                    loaded.join = Some(join_configuration::read(document, &mut notes));
                }
                None => loaded.reset = Some(reset::read(document, &mut notes)),
            },
            _ => loaded
                .warnings
                .push(Warning(format!("`{}`: ignored the document of kind `{kind}`, `{api}`", path.display()))),
        }
        errors.append(&mut notes.errors);
        loaded.warnings.append(&mut notes.warnings);
        kinds.push(kind);
    }
    errors.sort_by_key(place);
    match ConfigError::of(errors) {
        Some(error) => Err(error),
        None => Ok(loaded),
    }
}

fn place(error: &ConfigError) -> Place {
    match error {
        ConfigError::Field { at: At::File { place, .. }, .. }
        | ConfigError::Document { at: At::File { place, .. }, .. } => *place,
        _ => Place::default(),
    }
}

/// The error for a file that lacks the kind it was given for.
pub(super) fn missing(path: &Path, kind: &'static str) -> ConfigError {
    let at = At::File { path: path.to_owned(), place: Place::default() };
    ConfigError::Document { at, problem: DocumentProblem::None(kind) }
}

pub(super) fn group_version_kind(document: &Node) -> Option<(String, String, String)> {
    let Value::Map(entries) = &document.value else { return None };
    let text = |key: &str| {
        entries.iter().find(|entry| entry.key == key).and_then(|entry| match &entry.node.value {
            Value::Text(text) if !text.is_empty() => Some(shown(text)),
            _ => None,
        })
    };
    let (api, kind) = (text("apiVersion")?, text("kind")?);
    let (group, version) = api.split_once('/').filter(|(group, version)| !group.is_empty() && !version.is_empty())?;
    Some((group.to_owned(), version.to_owned(), kind))
}

fn unreadable_version(group: &str, version: &str, kind: &str) -> Option<DocumentProblem> {
    let (api, kind) = (format!("{group}/{version}"), kind.to_owned());
    if group != KUBEADM {
        return Some(DocumentProblem::Unknown { version: api, kind });
    }
    if let Some((_, kubeadm)) = OLD_VERSIONS.iter().find(|(old, _)| *old == version) {
        return Some(DocumentProblem::Old { version: api, kind, kubeadm });
    }
    match version {
        "v1beta4" => None,
        "v1" => Some(DocumentProblem::Experimental { version: api, kind }),
        _ => Some(DocumentProblem::Unknown { version: api, kind }),
    }
}
