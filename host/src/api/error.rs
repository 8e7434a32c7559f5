//! What can go wrong between a request and its answer, told apart as far as it can be.

use std::io;

use thiserror::Error;

use crate::error::Diagnose;
use crate::output::printable;

/// Longest text of a server that is repeated.
const TEXT_LIMIT_CHARS: usize = 400;

/// Why a request has no useful answer.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The server's URL is not usable.
    #[error("`{url}` is no usable API server URL: {reason}")]
    Url {
        /// As found.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The CA certificates are not usable.
    #[error("the CA certificates are not usable: {0}")]
    Ca(String),
    /// Client certificate and key are not usable together.
    #[error("the client certificate and its key are not usable: {0}")]
    ClientCertificate(String),
    /// A token or password that no HTTP header can carry.
    #[error("the token or password has characters that no HTTP header can carry")]
    Credential,
    /// The name has no address.
    #[error("cannot resolve `{host}`")]
    Dns {
        /// The name.
        host: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// Nobody listens there.
    #[error("`{endpoint}` refuses connections")]
    Refused {
        /// `host:port`.
        endpoint: String,
    },
    /// No connection, or no answer, in time.
    #[error("`{endpoint}` did not {what} within {seconds} s")]
    Timeout {
        /// `host:port`.
        endpoint: String,
        /// `accept a connection` or `answer`.
        what: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// Any other reason for no connection.
    #[error("cannot connect to `{endpoint}`")]
    Connect {
        /// `host:port`.
        endpoint: String,
        /// The cause.
        source: io::Error,
    },
    /// The proxy of the environment does not help.
    #[error("proxy `{proxy}` does not connect to `{endpoint}`: {reason}")]
    Proxy {
        /// Without user and password.
        proxy: String,
        /// `host:port`.
        endpoint: String,
        /// Its status line, or what is wrong with it.
        reason: String,
    },
    /// No TLS connection.
    #[error("TLS with `{endpoint}` failed: {problem}")]
    Tls {
        /// `host:port`.
        endpoint: String,
        /// Why.
        problem: TlsProblem,
    },
    /// The connection broke.
    #[error("the connection to `{endpoint}` broke: {reason}")]
    Broken {
        /// `host:port`.
        endpoint: String,
        /// The cause.
        reason: String,
    },
    /// The server refused, or failed itself.
    #[error("the API server answered {code}{}: {message}", reason_in_brackets(.reason))]
    Status {
        /// HTTP status.
        code: u16,
        /// `reason` of the Status, possibly empty.
        reason: String,
        /// Printable, shortened.
        message: String,
    },
    /// The answer is larger than any honest one.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The answer is not what was asked for.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
}

/// Why there is no TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsProblem {
    /// Issued by none of the CAs that are trusted.
    #[error("its certificate is not issued by the cluster's CA")]
    UnknownIssuer,
    /// Issued for other names.
    #[error("its certificate is not for `{expected}`{}", names_found(.found))]
    WrongHost {
        /// The name asked for.
        expected: String,
        /// Names in the certificate.
        found: Vec<String>,
    },
    /// Outside its validity.
    #[error("its certificate {0}")]
    Validity(&'static str),
    /// The peer does not speak TLS.
    #[error("it does not speak TLS")]
    NotTls,
    /// The peer went away.
    #[error("it closed the connection during the handshake")]
    Closed,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

fn reason_in_brackets(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn names_found(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(" but for {}", found.join(", ")) }
}

/// Text of a server, printable and short.
pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(TEXT_LIMIT_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    printable(&short)
}

impl ApiError {
    pub(crate) fn malformed(what: &str) -> Self {
        Self::Malformed(quoted(what))
    }

    /// HTTP status, when the server answered with one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing what was asked.
    pub fn may_pass(&self) -> bool {
        !matches!(
            self,
            Self::Url { .. }
                | Self::Ca(_)
                | Self::ClientCertificate(_)
                | Self::Credential
                | Self::TooLarge { .. }
                | Self::Malformed(_)
        )
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                Self::Status { code: status.code, reason: quoted(&status.reason), message: quoted(&status.message) }
            }
            kube::Error::Service(cause) => match cause.downcast::<Self>() {
                Ok(error) => *error,
                Err(other) => Self::malformed(&other.to_string()),
            },
            other => Self::malformed(&chain(&other)),
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl Diagnose for ApiError {
    fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } => "api-url",
            Self::Ca(_) => "api-ca",
            Self::ClientCertificate(_) => "api-client-certificate",
            Self::Credential => "api-credential",
            Self::Dns { .. } => "api-dns",
            Self::Refused { .. } => "api-refused",
            Self::Timeout { .. } => "api-timeout",
            Self::Connect { .. } => "api-connect",
            Self::Proxy { .. } => "api-proxy",
            Self::Tls { problem, .. } => match problem {
                TlsProblem::UnknownIssuer => "api-tls-unknown-issuer",
                TlsProblem::WrongHost { .. } => "api-tls-wrong-host",
                TlsProblem::Validity(_) => "api-tls-validity",
                TlsProblem::NotTls => "api-tls-not-tls",
                TlsProblem::Closed | TlsProblem::Other(_) => "api-tls",
            },
            Self::Broken { .. } => "api-broken",
            Self::Status { code, .. } => match code {
                401 => "api-unauthorized",
                403 => "api-forbidden",
                404 => "api-not-found",
                429 => "api-too-many-requests",
                500.. => "api-server-error",
                _ => "api-status",
            },
            Self::TooLarge { .. } => "api-too-large",
            Self::Malformed(_) => "api-malformed",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Dns { host, .. } => format!("`getent hosts {host}` shows what this machine resolves"),
            Self::Refused { endpoint } | Self::Timeout { endpoint, .. } | Self::Connect { endpoint, .. } => format!(
                "`curl -k https://{endpoint}/version` tries the same; look at the address, firewalls and whether the API \
                 server runs"
            ),
            Self::Proxy { endpoint, .. } => {
                format!("add the host of `{endpoint}` to NO_PROXY, or correct HTTPS_PROXY")
            }
            Self::Tls { endpoint, problem } => match problem {
                TlsProblem::WrongHost { .. } => {
                    "use a name or address that the certificate has, or add this one to `apiServer.certSANs` of the \
                     cluster"
                        .into()
                }
                TlsProblem::Validity(_) => {
                    "compare the clocks of this machine and of the cluster: `timedatectl`".into()
                }
                TlsProblem::NotTls => format!("`{endpoint}` is another service; look at the port"),
                TlsProblem::UnknownIssuer => {
                    "something between this machine and the API server may answer in its place; look at load balancers \
                     and proxies"
                        .into()
                }
                TlsProblem::Closed | TlsProblem::Other(_) => return None,
            },
            _ => return None,
        })
    }
}
