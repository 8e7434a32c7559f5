//! Signatures beside a component's file, for machines that see no registry: `FILE.sigstore.json` or `FILE.sig`.
//!
//! `cosign sign-blob --bundle FILE.sigstore.json FILE` writes the first, `--output-signature FILE.sig` the second.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::SignatureError;
use super::key::{PublicKey, SigningKey};
use super::{Form, SIGNATURE_BYTES, Seen, bundle};

/// The files, in the order they are looked at.
const BUNDLE: &str = "sigstore.json";
const BARE: &str = "sig";

/// Checks that the key signed the content of a file, by what lies beside it.
///
/// # Errors
///
/// [`SignatureError::Missing`], [`SignatureError::OtherKey`]; [`SignatureError::File`] for one that cannot be read.
pub fn verify_file(path: &Path, content: &[u8], key: &PublicKey) -> Result<Form, SignatureError> {
    let mut seen = Seen::default();
    if let Some(found) = read(&beside(path, BUNDLE))?
        && seen.note(bundle::verify_message(&found, content, key))
    {
        return Ok(Form::Bundle);
    }
    if let Some(found) = read(&beside(path, BARE))?
        && seen.note(verify_bare(&found, content, key))
    {
        return Ok(Form::File);
    }
    Err(seen.refusal(path.display().to_string(), key))
}

/// Writes `FILE.sigstore.json`. The result is its path.
///
/// # Errors
///
/// [`SignatureError::File`].
pub fn sign_file(path: &Path, content: &[u8], key: &SigningKey) -> Result<PathBuf, SignatureError> {
    let target = beside(path, BUNDLE);
    let cannot = |source| SignatureError::File { what: "write", path: target.clone(), source };
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".mortise-").tempfile_in(directory).map_err(cannot)?;
    file.write_all(bundle::of_message(content, key).as_bytes()).map_err(cannot)?;
    file.as_file().sync_all().map_err(cannot)?;
    file.persist(&target).map_err(|error| cannot(error.error))?;
    Ok(target)
}

fn verify_bare(found: &[u8], content: &[u8], key: &PublicKey) -> Result<(), &'static str> {
    let signature = STANDARD.decode(found.trim_ascii()).map_err(|_| "is not base64")?;
    if key.verify(content, &signature) { Ok(()) } else { Err("is by another key, or of changed content") }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, SignatureError> {
    let cannot = |source| SignatureError::File { what: "read", path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    let mut content = Vec::new();
    file.take(SIGNATURE_BYTES).read_to_end(&mut content).map_err(cannot)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::pair;
    use super::*;

    #[test]
    fn a_file_is_signed_by_what_lies_beside_it() {
        let (key, public) = pair();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.wasm");
        let missing = verify_file(&path, b"component", &public).unwrap_err();
        assert!(matches!(missing, SignatureError::Missing { .. }), "{missing}");
        assert!(sign_file(&path, b"component", &key).unwrap().ends_with("gpu.wasm.sigstore.json"));
        assert_eq!(verify_file(&path, b"component", &public).unwrap(), Form::Bundle);
        let changed = verify_file(&path, b"cumponent", &public).unwrap_err();
        assert!(matches!(changed, SignatureError::OtherKey { .. }), "{changed}");
        let bare = format!("{}\n", STANDARD.encode(key.sign(b"cumponent")));
        std::fs::write(beside(&path, BARE), bare).unwrap();
        assert_eq!(verify_file(&path, b"cumponent", &public).unwrap(), Form::File);
    }
}
