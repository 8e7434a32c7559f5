//! Why a signature is none, or cannot be made. No text carries a key or a password.

use std::path::PathBuf;

use thiserror::Error;

use super::super::{Digest, RegistryError};
use crate::error::{Diagnose, ExitCode};

/// A signature that is not there, or not good, or a key that cannot be used.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// None at all.
    #[error("`{subject}` has no signature")]
    Missing {
        /// As given.
        subject: String,
    },
    /// None by the key.
    #[error("`{subject}` has no signature by the key `{fingerprint}`: of {count} looked at the last {reason}")]
    OtherKey {
        /// As given.
        subject: String,
        /// Of the key asked for.
        fingerprint: Digest,
        /// Signatures.
        count: usize,
        /// What is wrong with the last.
        reason: &'static str,
    },
    /// A key's file.
    #[error("cannot use the key `{path}`: {reason}")]
    Key {
        /// As given.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A private key's password.
    #[error("the password in COSIGN_PASSWORD does not open the key `{path}`")]
    Password {
        /// As given.
        path: PathBuf,
    },
    /// A file beside the component.
    #[error("cannot {what} `{path}`")]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Diagnose for SignatureError {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "signature-missing",
            Self::OtherKey { .. } => "signature-other-key",
            Self::Key { .. } => "signature-key",
            Self::Password { .. } => "signature-password",
            Self::File { .. } => "signature-file",
            Self::Registry(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { subject } => {
                Some(format!("its vendor signs it with `mortise plugin sign --key cosign.key {subject}`"))
            }
            Self::OtherKey { .. } => Some("ask its vendor for the public key, by another way than the registry".into()),
            Self::Key { .. } => Some("make a pair of keys with `cosign generate-key-pair`".into()),
            Self::Password { .. } => Some("set it with `read -rs COSIGN_PASSWORD; export COSIGN_PASSWORD`".into()),
            Self::File { .. } => None,
            Self::Registry(error) => error.hint(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Key { .. } | Self::Password { .. } => ExitCode::Usage,
            Self::Registry(error) => error.exit_code(),
            _ => ExitCode::Failed,
        }
    }
}
