//! `--patches`: a directory of files that change what a join writes.
//!
//! `target[suffix][+type].(yaml|json)`, kubeadm's names and order: the directory is walked in lexical order, only base
//! names count, a file may hold several documents. How a strategic merge patch is applied is in `strategic`; a patched Pod
//! is read into its type again (`typed`), as kubeadm does before it writes it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use crate::error::{Diagnose, ExitCode};

mod lists;
mod quantity;
mod schema;
mod strategic;
mod typed;

pub(crate) use strategic::{Schema, merge as merge_strategically};
pub(crate) use typed::env_var;

/// Largest patch file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most files below the directory.
const MAX_FILES: usize = 1000;

/// What a patch may change. A join writes the first five; the others are known so that their files are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Static Pod manifest.
    Etcd,
    /// Static Pod manifest.
    KubeApiserver,
    /// Static Pod manifest.
    KubeControllerManager,
    /// Static Pod manifest.
    KubeScheduler,
    /// `/var/lib/kubelet/config.yaml`.
    KubeletConfiguration,
    /// Of `init` and `upgrade` only.
    CorednsDeployment,
    /// Of `init` and `upgrade` only.
    KubeProxyDaemonSet,
}

impl Target {
    const ALL: [Self; 7] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::KubeletConfiguration,
        Self::CorednsDeployment,
        Self::KubeProxyDaemonSet,
    ];

    fn is_pod(self) -> bool {
        matches!(self, Self::Etcd | Self::KubeApiserver | Self::KubeControllerManager | Self::KubeScheduler)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::KubeletConfiguration => "kubeletconfiguration",
            Self::CorednsDeployment => "corednsdeployment",
            Self::KubeProxyDaemonSet => "kubeproxydaemonset",
        }
    }
}

/// How a patch is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Strategic,
    Merge,
    Json,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strategic => "strategic",
            Self::Merge => "merge",
            Self::Json => "json",
        })
    }
}

/// The patches of one directory, in the order they are applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patches {
    patches: Vec<Patch>,
    /// Base names passed over, each with a reason.
    pub ignored: Vec<(String, &'static str)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Patch {
    file: PathBuf,
    target: Target,
    kind: Kind,
    document: Value,
}

impl Patches {
    /// Reads a directory. The path itself must not be a link.
    ///
    /// # Errors
    ///
    /// [`PatchError::Directory`], [`PatchError::File`], [`PatchError::Name`], [`PatchError::Malformed`].
    pub fn load(directory: &Path) -> Result<Self, PatchError> {
        let metadata = std::fs::symlink_metadata(directory)
            .and_then(|metadata| if metadata.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) });
        metadata.map_err(|source| PatchError::Directory { path: directory.to_owned(), source })?;
        let mut files = Vec::new();
        walk(directory, &mut files)?;
        let mut patches = Self::default();
        for file in files {
            patches.add(file)?;
        }
        Ok(patches)
    }

    fn add(&mut self, file: PathBuf) -> Result<(), PatchError> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (target, kind) = match parse_name(&name) {
            Ok(parsed) => parsed,
            Err(NameProblem::Ignored(why)) => {
                self.ignored.push((name, why));
                return Ok(());
            }
            Err(NameProblem::Type) => return Err(PatchError::Name { path: file }),
        };
        let text = read(&file)?;
        if text.is_empty() {
            self.ignored.push((name, "it is empty"));
            return Ok(());
        }
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| PatchError::Malformed {
            path: file.clone(),
            line: error.location().map(|place| place.line()),
        })?;
        self.patches.extend(documents.into_iter().filter(|document| !document.is_null()).map(|document| Patch {
            file: file.clone(),
            target,
            kind,
            document,
        }));
        Ok(())
    }

    /// Applies the patches of a target, in order; how many there were.
    ///
    /// # Errors
    ///
    /// [`PatchError::Apply`], [`PatchError::Result`]; the value is then in between.
    pub fn apply(&self, target: Target, value: &mut Value) -> Result<usize, PatchError> {
        let mut count = 0;
        for patch in self.patches.iter().filter(|patch| patch.target == target) {
            patch.apply(value).map_err(|problem| PatchError::Apply {
                path: patch.file.clone(),
                kind: patch.kind.to_string(),
                target: target.name(),
                problem,
            })?;
            count += 1;
        }
        if count > 0 && target.is_pod() {
            let result = typed::pod(value);
            *value = result
                .map_err(|mismatch| PatchError::Result { target: target.name(), problem: mismatch.to_string() })?;
        }
        Ok(count)
    }
}

impl Patch {
    fn apply(&self, value: &mut Value) -> Result<(), String> {
        match self.kind {
            Kind::Strategic => {
                let schema = if self.target.is_pod() { Schema::pod() } else { Schema::Atomic };
                merge_strategically(value, &self.document, schema).map_err(|error| error.to_string())
            }
            Kind::Merge if self.document.is_object() => {
                json_patch::merge(value, &self.document);
                Ok(())
            }
            Kind::Merge => Err("a merge patch must be a mapping".into()),
            Kind::Json => {
                let operations: json_patch::Patch =
                    serde_json::from_value(self.document.clone()).map_err(|error| error.to_string())?;
                json_patch::patch(value, &operations).map_err(|error| error.to_string())
            }
        }
    }
}

fn read(path: &Path) -> Result<String, PatchError> {
    let fail = |source| PatchError::File { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        return Err(fail(io::Error::other("not a regular file")));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_FILE_BYTES} bytes"))));
    }
    std::fs::read_to_string(path).map_err(fail)
}

/// All files below a directory, entries of each directory in lexical order.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), PatchError> {
    let fail = |source| PatchError::Directory { path: directory.to_owned(), source };
    let entries = std::fs::read_dir(directory).map_err(fail)?;
    let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(fail)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type().map_err(fail)?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
        if files.len() > MAX_FILES {
            return Err(fail(io::Error::other(format!("it holds more than {MAX_FILES} files"))));
        }
    }
    Ok(())
}

enum NameProblem {
    Ignored(&'static str),
    Type,
}

/// kubeadm's rule: `^(target)([^.+\n]*)?(\+)?(type)?`, open at the end, in a name with a known extension.
fn parse_name(name: &str) -> Result<(Target, Kind), NameProblem> {
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".json")).filter(|stem| !stem.is_empty());
    if stem.is_none() {
        return Err(NameProblem::Ignored("its extension is neither json nor yaml"));
    }
    let target = Target::ALL.into_iter().find(|target| name.starts_with(target.name()));
    let target = target.ok_or(NameProblem::Ignored("it names no known target"))?;
    let rest = name[target.name().len()..].trim_start_matches(|c| !matches!(c, '.' | '+' | '\n'));
    let Some(kind) = rest.strip_prefix('+') else { return Ok((target, Kind::Strategic)) };
    match () {
        () if kind.starts_with("json") => Ok((target, Kind::Json)),
        () if kind.starts_with("merge") => Ok((target, Kind::Merge)),
        () if kind.starts_with("strategic") => Ok((target, Kind::Strategic)),
        () => Err(NameProblem::Type),
    }
}

/// Why patches cannot be used.
#[derive(Debug, Error)]
pub enum PatchError {
    /// The directory, or one below it.
    #[error("cannot list the patches in `{path}`")]
    Directory {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file.
    #[error("cannot read the patch `{path}`")]
    File {
        /// Path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A plus sign without a type.
    #[error("the patch `{path}` has no known type after `+`")]
    Name {
        /// Path.
        path: PathBuf,
    },
    /// Not YAML.
    #[error("the patch `{path}` is not YAML{}", .line.map(|line| format!(" at line {line}")).unwrap_or_default())]
    Malformed {
        /// Path.
        path: PathBuf,
        /// From 1, where known.
        line: Option<u64>,
    },
    /// It does not fit.
    #[error("the {kind} patch `{path}` does not apply to {target}: {problem}")]
    Apply {
        /// Path.
        path: PathBuf,
        /// `strategic`, `merge` or `json`.
        kind: String,
        /// As in the file name.
        target: &'static str,
        /// What does not fit.
        problem: String,
    },
    /// All applied, to something that cannot be used.
    #[error("what the patches make of {target} is no Pod: {problem}")]
    Result {
        /// As in the file name.
        target: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Diagnose for PatchError {
    fn code(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "patches-directory",
            Self::File { .. } => "patches-file",
            Self::Name { .. } => "patches-name",
            Self::Malformed { .. } => "patches-malformed",
            Self::Apply { .. } => "patches-apply",
            Self::Result { .. } => "patches-result",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Name { .. } => Some("name it `target[suffix][+json|+merge|+strategic].yaml`".into()),
            Self::Directory { .. } => Some("`--patches` takes a directory, not a link to one".into()),
            _ => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn load(files: &[(&str, &str)]) -> Result<Patches, PatchError> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Patches::load(directory.path())
    }

    fn patched(value: Value, files: &[(&str, &str)]) -> Result<Value, PatchError> {
        let mut value = value;
        load(files)?.apply(Target::KubeletConfiguration, &mut value)?;
        Ok(value)
    }

    #[test]
    fn reads_names_as_kubeadm_does() {
        use Kind::{Json, Merge, Strategic};
        let good = [
            ("etcd.yaml", Target::Etcd, Strategic),
            ("kube-apiserver0.yaml", Target::KubeApiserver, Strategic),
            ("kubeletconfiguration.json", Target::KubeletConfiguration, Strategic),
            ("kubeletconfiguration-10_a+merge.yaml", Target::KubeletConfiguration, Merge),
            ("kubeletconfiguration+json.yaml", Target::KubeletConfiguration, Json),
            ("kubeletconfiguration+strategic.json", Target::KubeletConfiguration, Strategic),
            ("kubeletconfiguration+mergeanything.yaml", Target::KubeletConfiguration, Merge),
            ("kubeletconfiguration.x+json.yaml", Target::KubeletConfiguration, Strategic),
            ("etcdfoo.bar.yaml", Target::Etcd, Strategic),
        ];
        for (name, target, kind) in good {
            assert!(parse_name(name).is_ok_and(|parsed| parsed == (target, kind)), "{name}");
        }
        for ignored in ["", ".yaml", "etcd.yml", "etcd", "README.md", "kubelet.yaml", "Etcd.yaml", "etcd.yaml.bak"] {
            assert!(matches!(parse_name(ignored), Err(NameProblem::Ignored(_))), "{ignored}");
        }
        for bad in ["etcd+.yaml", "etcd+x.yaml", "etcd1+Merge.json"] {
            assert!(matches!(parse_name(bad), Err(NameProblem::Type)), "{bad}");
        }
    }

    #[test]
    fn applies_files_in_lexical_order_and_documents_in_theirs() {
        let files = [
            ("kubeletconfiguration1.yaml", "a: 1\n---\nb: 1\n"),
            ("kubeletconfiguration0+merge.yaml", "a: 0\nc: null\n"),
            ("sub/kubeletconfiguration+json.json", r#"[{"op": "replace", "path": "/b", "value": [2]}]"#),
            ("kubeletconfiguration2.yaml", ""),
            ("etcd.yaml", "a: 9"),
            ("notes.txt", "x"),
        ];
        assert_eq!(patched(json!({"c": 3, "d": 4}), &files).unwrap(), json!({"d": 4, "a": 1, "b": [2]}));
        let ignored = load(&files).unwrap().ignored;
        assert_eq!(
            ignored,
            [
                ("kubeletconfiguration2.yaml".to_owned(), "it is empty"),
                ("notes.txt".to_owned(), "its extension is neither json nor yaml"),
            ]
        );
    }

    #[test]
    fn names_the_file_of_a_patch_that_cannot_be_used() {
        for (name, text, code) in [
            ("kubeletconfiguration+json.yaml", "- {op: remove, path: /none}", "patches-apply"),
            ("kubeletconfiguration+json.yaml", "a: 1", "patches-apply"),
            ("kubeletconfiguration+merge.yaml", "[1]", "patches-apply"),
            ("kubeletconfiguration.yaml", "[1]", "patches-apply"),
            ("kubeletconfiguration.yaml", "a: 1\na: 2", "patches-malformed"),
            ("kubeletconfiguration.yaml", "a: [", "patches-malformed"),
            ("kubeletconfiguration+x.yaml", "a: 1", "patches-name"),
        ] {
            let error = patched(json!({}), &[(name, text)]).unwrap_err();
            assert_eq!(error.code(), code, "{name} {text}: {error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn takes_directories_only() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::fs::create_dir(directory.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        for path in [link.clone(), directory.path().join("absent")] {
            assert!(matches!(Patches::load(&path), Err(PatchError::Directory { .. })), "{}", path.display());
        }
        assert_eq!(Patches::load(&directory.path().join("real")).unwrap(), Patches::default());
    }
}
