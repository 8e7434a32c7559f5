//! Secrets of the operator's that a plugin may use: read when they are used, by the host, and kept out of every text.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::grants::is_secret_name;
use super::limits::SECRET_BYTES;
use super::wire::Bytes;
use crate::config::SecretSource;
use crate::facts::HostError;

/// What stands where a secret was.
const CUT: &[u8] = b"[secret]";

/// Where the secrets of one plugin are.
#[derive(Debug, Clone, Default)]
pub(super) struct Vault(pub(super) BTreeMap<String, SecretSource>);

/// A secret's value; never empty.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct SecretBytes(Bytes);

impl SecretBytes {
    pub(super) fn expose(&self) -> &[u8] {
        &self.0.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.0.zeroize();
    }
}

/// A name that a grant could have.
///
/// # Errors
///
/// `invalid`.
pub(super) fn verify_name(name: &str) -> Result<(), HostError> {
    if is_secret_name(name) { Ok(()) } else { Err(HostError::invalid("no name of a secret")) }
}

impl Vault {
    /// Reads a secret. The file is the operator's choice, so links are followed.
    ///
    /// # Errors
    ///
    /// `not-found`: the operator has set none. `unavailable`: it cannot be read, is empty or too long.
    pub(super) async fn read(&self, name: &str) -> Result<SecretBytes, HostError> {
        let Some(source) = self.0.get(name).cloned() else {
            return Err(HostError::not_found(format!("the operator has set no secret `{name}`")));
        };
        let work = tokio::task::spawn_blocking(move || value(&source));
        let value = work.await.unwrap_or_else(|_| Err("it cannot be read".into()));
        value.map_err(|reason| HostError::unavailable(format!("the secret `{name}`: {reason}")))
    }
}

fn value(source: &SecretSource) -> Result<SecretBytes, String> {
    let mut value = Zeroizing::new(Vec::new());
    match source {
        SecretSource::File(path) => {
            // A FIFO must not hold the host up.
            let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
            let file = open.map_err(|error| format!("its file cannot be read: {error}"))?;
            let regular = file.metadata().is_ok_and(|it| it.is_file());
            if !regular {
                return Err("its file is no regular file".into());
            }
            let most = SECRET_BYTES as u64 + 2;
            file.take(most).read_to_end(&mut value).map_err(|error| format!("its file cannot be read: {error}"))?;
            if value.ends_with(b"\n") {
                value.pop();
            }
            if value.ends_with(b"\r") {
                value.pop();
            }
        }
        SecretSource::Variable(name) => {
            use std::os::unix::ffi::OsStringExt as _;
            let found = std::env::var_os(name).ok_or("its variable is not set")?;
            *value = found.into_vec();
        }
    }
    match value.len() {
        0 => Err("it is empty".into()),
        length if length > SECRET_BYTES => Err(format!("it is longer than {SECRET_BYTES} bytes")),
        _ => Ok(SecretBytes(Bytes(std::mem::take(&mut *value)))),
    }
}

/// Bytes without the secrets in them, as far as they stand there as they are.
pub(super) fn cut(mut bytes: Vec<u8>, secrets: &[SecretBytes]) -> Vec<u8> {
    for secret in secrets {
        let secret = secret.expose();
        let mut rest = bytes.as_slice();
        let mut whole = Vec::new();
        while let Some(at) = rest.windows(secret.len()).position(|window| window == secret) {
            whole.extend_from_slice(&rest[..at]);
            whole.extend_from_slice(CUT);
            rest = &rest[at + secret.len()..];
        }
        if !whole.is_empty() {
            whole.extend_from_slice(rest);
            bytes.zeroize();
            bytes = whole;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(value: &str) -> SecretBytes {
        SecretBytes(Bytes(value.into()))
    }

    #[test]
    fn a_secret_is_cut_out_wherever_it_stands() {
        let secrets = [secret("hunter2"), secret("xyz")];
        for (text, left) in [
            ("", ""),
            ("nothing", "nothing"),
            ("hunter2", "[secret]"),
            ("a hunter2hunter2 b xyz", "a [secret][secret] b [secret]"),
            ("hunterhunter2", "hunter[secret]"),
        ] {
            assert_eq!(cut(text.into(), &secrets), left.as_bytes(), "{text}");
        }
    }

    #[test]
    fn no_text_shows_a_secret() {
        let vault = Vault([("a".into(), SecretSource::File("/nonexistent/a".into()))].into());
        assert!(!format!("{:?} {vault:?}", secret("hunter2")).contains("hunter2"));
    }

    #[tokio::test]
    async fn a_secret_is_read_from_its_place_and_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("line"), "hunter2\n").unwrap();
        std::fs::write(at("windows"), "hunter2\r\n").unwrap();
        std::fs::write(at("empty"), "\n").unwrap();
        std::fs::write(at("most"), "x".repeat(SECRET_BYTES) + "\n").unwrap();
        std::fs::write(at("more"), "x".repeat(SECRET_BYTES + 1)).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        let names = ["line", "windows", "empty", "most", "more", "fifo", "absent"];
        let file = |name: &str| (name.to_owned(), SecretSource::File(at(name)));
        let mut vault = Vault(names.map(file).into());
        vault.0.insert("path".into(), SecretSource::Variable("PATH".into()));
        vault.0.insert("unset".into(), SecretSource::Variable("MORTISE_TEST_NOT_SET".into()));
        assert_eq!(vault.read("line").await.unwrap().expose(), b"hunter2");
        assert_eq!(vault.read("windows").await.unwrap().expose(), b"hunter2");
        assert_eq!(vault.read("most").await.unwrap().expose().len(), SECRET_BYTES);
        assert_eq!(vault.read("path").await.unwrap().expose(), std::env::var("PATH").unwrap().as_bytes());
        for (name, code, words) in [
            ("empty", "unavailable", "empty"),
            ("more", "unavailable", "longer than"),
            ("fifo", "unavailable", "no regular file"),
            ("absent", "unavailable", "cannot be read"),
            ("unset", "unavailable", "not set"),
            ("nobody", "not-found", "no secret `nobody`"),
        ] {
            let error = vault.read(name).await.unwrap_err();
            assert!(error.code == code && error.message.contains(words), "{name}: {error:?}");
        }
    }
}
