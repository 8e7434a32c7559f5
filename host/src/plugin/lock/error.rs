//! What is wrong with a lock file, or with a plugin by what it says.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::error::{Diagnose, ExitCode};
use crate::plugin::store::StoreError;
use crate::registry::Digest;

/// A lock file, or what it says of a plugin.
#[derive(Debug, Error)]
pub enum LockError {
    /// The file.
    #[error("cannot {what} `{path}`")]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Its content.
    #[error("`{path}` is no lock file: {reason}")]
    Malformed {
        /// The lock file.
        path: PathBuf,
        /// With line and column.
        reason: String,
    },
    /// No key was given.
    #[error("`{subject}` would be taken without a signature")]
    Unsigned {
        /// As given.
        subject: String,
    },
    /// A plugin of this name is there.
    #[error("a plugin `{name}` is in the lock file, with other content")]
    Taken {
        /// The name.
        name: String,
    },
    /// No plugin of this name or origin.
    #[error("no plugin `{name}` is in the lock file")]
    NotLocked {
        /// As given.
        name: String,
    },
    /// Agreed to, but not here.
    #[error("plugin `{name}` is in the lock file, but its component `{digest}` is not in the store")]
    NotStored {
        /// The name.
        name: String,
        /// Of the component.
        digest: Digest,
        /// Where it came from.
        from: String,
    },
    /// Another digest is configured than was agreed to.
    #[error("plugin `{name}` is configured with the digest `{configured}`; the lock file has `{locked}`")]
    OtherDigest {
        /// The name.
        name: String,
        /// As configured.
        configured: String,
        /// As agreed to.
        locked: Digest,
    },
    /// An update that is more than an update.
    #[error("plugin `{name}` is not updated: {}", differences.join("; "))]
    Changed {
        /// The name.
        name: String,
        /// What is different, a few words each.
        differences: Vec<String>,
        /// Where the new one is.
        from: String,
    },
    /// Revoked.
    #[error("plugin `{name}` is refused: {what} `{digest}` was revoked")]
    Revoked {
        /// The name.
        name: String,
        /// `its digest` or `its signer`.
        what: &'static str,
        /// What was revoked.
        digest: Digest,
    },
    /// It does not compile.
    #[error("plugin `{name}`: {reason}")]
    Compile {
        /// The name.
        name: String,
        /// What the compiler says.
        reason: String,
    },
    /// The key that a plugin was agreed to by.
    #[error("the key of plugin `{name}` in the lock file cannot be used: {reason}")]
    Key {
        /// The name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Diagnose for LockError {
    fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "lock-file",
            Self::Malformed { .. } => "lock-malformed",
            Self::Unsigned { .. } => "plugin-unsigned",
            Self::Taken { .. } => "lock-taken",
            Self::NotLocked { .. } => "lock-not-locked",
            Self::NotStored { .. } => "lock-not-stored",
            Self::OtherDigest { .. } => "lock-other-digest",
            Self::Changed { .. } => "lock-changed",
            Self::Revoked { .. } => "plugin-revoked",
            Self::Compile { .. } => "plugin-compile",
            Self::Key { .. } => "lock-key",
            Self::Store(_) => "plugin-store",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unsigned { .. } => Some(
                "name its vendor's key with `--key cosign.pub`; `--allow-unsigned` takes whatever is there and records \
                 that"
                .into(),
            ),
            Self::Taken { name } => Some(format!(
                "`mortise plugin update {name}` takes a new version; `--replace` agrees to this one anew, `--name` keeps \
                 both"
            )),
            Self::NotLocked { .. } => Some("`mortise plugin list` shows what is; `mortise plugin add` adds one".into()),
            Self::NotStored { name, from, .. } => {
                Some(format!("fetch it again with `mortise plugin update {name}`; it came from `{from}`"))
            }
            Self::Changed { name, from, .. } => Some(format!(
                "agree to it with `mortise plugin add {from} --name {name} --replace --key PUB` and the grants it is to \
                 have"
            )),
            Self::Revoked { name, .. } => Some(format!("take it out with `mortise plugin remove {name}`")),
            Self::Store(_) | Self::File { what: "write", .. } => Some("run it with sudo".into()),
            Self::File { .. } | Self::Malformed { .. } | Self::Key { .. } | Self::OtherDigest { .. } | Self::Compile { .. } => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::File { .. } | Self::Changed { .. } | Self::Compile { .. } | Self::Store(_) => ExitCode::Failed,
            _ => ExitCode::Usage,
        }
    }
}
