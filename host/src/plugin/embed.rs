//! Puts a manifest into a component, for languages whose tools cannot.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::error::{PluginError, Unfit};
use super::{manifest, stage};
use crate::error::{Diagnose, ExitCode};
use crate::registry::Digest;

/// A component that stays as it is.
#[derive(Debug, Error)]
pub enum EmbedError {
    /// The component, or what it would become.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The manifest's file.
    #[error("cannot read the manifest `{}`", path.display())]
    Read {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The output.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl Diagnose for EmbedError {
    fn code(&self) -> &'static str {
        match self {
            Self::Plugin(error) => error.code(),
            Self::Read { .. } => "plugin-embed-read",
            Self::Write { .. } => "plugin-embed-write",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Plugin(PluginError::Unfit { reason: Unfit::Manifest(reason), .. }) if reason == manifest::SEVERAL => {
                Some("it has a manifest already; build the component anew to change it".into())
            }
            Self::Plugin(error) => error.hint(),
            Self::Read { .. } | Self::Write { .. } => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Plugin(_) | Self::Read { .. } => ExitCode::Usage,
            Self::Write { .. } => ExitCode::Failed,
        }
    }
}

/// Writes the component with its manifest, which is checked first, as a whole file. Returns its digest.
///
/// # Errors
///
/// [`EmbedError`]; nothing is written then.
pub fn embed(component: &Path, manifest: &Path, output: &Path) -> Result<String, EmbedError> {
    let name = component.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut whole = stage::read(&name, component)?;
    let text = std::fs::read(manifest).map_err(|source| EmbedError::Read { path: manifest.to_owned(), source })?;
    append(&mut whole, &text);
    manifest::inspect(&whole).map_err(|reason| PluginError::Unfit { plugin: name, reason })?;
    write(output, &whole).map_err(|source| EmbedError::Write { path: output.to_owned(), source })?;
    Ok(Digest::of(&whole).into())
}

/// A custom section: id 0, then name and content, each with its length in LEB128.
fn append(component: &mut Vec<u8>, manifest: &[u8]) {
    let mut body = leb128(manifest::SECTION.len());
    body.extend_from_slice(manifest::SECTION.as_bytes());
    body.extend_from_slice(manifest);
    component.push(0);
    component.extend(leb128(body.len()));
    component.extend(body);
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The output may be the input, so it is replaced at once or not at all.
fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".mortise-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(directory)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}
