//! What can go wrong with a registry. No text carries a token, a password or a key.

use std::path::PathBuf;

use thiserror::Error;

use super::digest::Digest;
use crate::error::{Diagnose, ExitCode};

/// A request to a registry that did not do what was asked.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The reference.
    #[error("`{text}` is no reference to a plugin in a registry: {reason}", text = text.escape_debug())]
    Reference {
        /// As given, cut.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// No connection.
    #[error("cannot reach the registry `{endpoint}`: {reason}")]
    Unreachable {
        /// `host:port`.
        endpoint: String,
        /// What was seen.
        reason: String,
    },
    /// No TLS.
    #[error("no secure connection to `{endpoint}`: {reason}")]
    Tls {
        /// `host:port`.
        endpoint: String,
        /// What was seen.
        reason: String,
    },
    /// The proxy.
    #[error("the proxy `{proxy}` makes no connection to `{endpoint}`: {reason}")]
    Proxy {
        /// Without user and password.
        proxy: String,
        /// `host:port`.
        endpoint: String,
        /// What was seen.
        reason: String,
    },
    /// Certificates to trust.
    #[error("cannot use the certificates in `{path}`: {reason}")]
    CaFile {
        /// As given.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No answer in time, or a broken one.
    #[error("`{endpoint}` did not answer {what}: {reason}")]
    Broken {
        /// `host:port`.
        endpoint: String,
        /// A few words.
        what: String,
        /// What was seen.
        reason: String,
    },
    /// Neither found nor visible.
    #[error("`{endpoint}` has no {what}")]
    NotFound {
        /// `host:port`.
        endpoint: String,
        /// A few words.
        what: String,
    },
    /// Who asks is not known, or may not.
    #[error("`{endpoint}` refuses {what}: {reason}")]
    Unauthorized {
        /// `host[:port]`.
        endpoint: String,
        /// A few words.
        what: String,
        /// What was seen.
        reason: String,
    },
    /// Another status.
    #[error("`{endpoint}` answered {status} to {what}: {message}")]
    Status {
        /// `host:port`.
        endpoint: String,
        /// A few words.
        what: String,
        /// HTTP status.
        status: u16,
        /// What the registry says, cut, printable.
        message: String,
    },
    /// More than is ever needed.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// A few words.
        what: String,
        /// Bytes.
        limit: u64,
    },
    /// Other content than was asked for.
    #[error("{what} has the digest `{found}`, not `{expected}`: it was changed on the way or in the registry")]
    Digest {
        /// A few words.
        what: String,
        /// As asked.
        expected: Digest,
        /// Of what came.
        found: Digest,
    },
    /// Unreadable.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// A few words.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// Something else than a plugin.
    #[error("`{reference}` is no plugin: {reason}")]
    NotPlugin {
        /// As given.
        reference: String,
        /// What it is.
        reason: String,
    },
    /// Docker's configuration or a helper of it.
    #[error("cannot log in to `{registry}`: {reason}")]
    Credentials {
        /// `host[:port]`.
        registry: String,
        /// What is wrong.
        reason: String,
    },
    /// A file of this machine.
    #[error("cannot {what} `{path}`")]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// As given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl RegistryError {
    /// Whether it says that the thing asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

impl Diagnose for RegistryError {
    fn code(&self) -> &'static str {
        match self {
            Self::Reference { .. } => "registry-reference",
            Self::Unreachable { .. } => "registry-unreachable",
            Self::Tls { .. } => "registry-tls",
            Self::Proxy { .. } => "registry-proxy",
            Self::CaFile { .. } => "registry-ca-file",
            Self::Broken { .. } => "registry-broken",
            Self::NotFound { .. } => "registry-not-found",
            Self::Unauthorized { .. } => "registry-unauthorized",
            Self::Status { .. } => "registry-status",
            Self::TooLarge { .. } => "registry-too-large",
            Self::Digest { .. } => "registry-digest",
            Self::Malformed { .. } => "registry-malformed",
            Self::NotPlugin { .. } => "registry-not-a-plugin",
            Self::Credentials { .. } => "registry-credentials",
            Self::File { .. } => "registry-file",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Reference { .. } => Some("write it as `registry.example/vendor/plugin:1.0.0`".into()),
            Self::Tls { endpoint, .. } => Some(format!(
                "give the registry's authority with `--ca-file FILE`; see what it presents with \
                 `openssl s_client -connect {endpoint} -showcerts`"
            )),
            Self::Unauthorized { endpoint, .. } => {
                Some(format!("log in with `docker login {endpoint}` or `oras login {endpoint}`"))
            }
            Self::Unreachable { endpoint, .. } => Some(format!("try `curl -v https://{endpoint}/v2/`")),
            _ => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Reference { .. } | Self::CaFile { .. } | Self::NotPlugin { .. } => ExitCode::Usage,
            _ => ExitCode::Failed,
        }
    }
}
