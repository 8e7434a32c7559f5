//! The broker: serves what a runner asks on behalf of its plugin, after looking at the grants.
//!
//! Whatever the runner says is hostile: names, paths and arguments are bounded and checked before anything else sees
//! them. One broker belongs to one plugin, so a runner cannot speak for another.

use std::path::{Component, Path};
use std::sync::Arc;

use super::grants::{Access, Denial, Effective, PLACEHOLDER, SecretUse, is_sysctl_byte};
use super::limits::{FRAME_TO_RUNNER, HOST_TIME};
use super::secret::{self, Vault};
use super::wire::{Ask, Bytes, HostAnswer};
use super::{http, probe};
use crate::facts::{FactRequest, FactSource, FileRequest, HostError};

/// Longest path, URL, name or argument a guest may pass.
const LONGEST_TEXT: usize = 4096;
/// Most names in one question about kernel options.
const MOST_NAMES: usize = 256;
/// Most arguments of a command.
const MOST_ARGUMENTS: usize = 256;
/// All arguments of a command together.
const ARGUMENT_BYTES: usize = 64 << 10;

/// Serves one plugin.
pub(super) struct Broker {
    pub(super) grants: Effective,
    pub(super) facts: Arc<dyn FactSource>,
    pub(super) vault: Vault,
}

/// Why there is no answer.
pub(super) enum Refusal {
    /// No grant covers the request.
    Denied(Box<Denial>),
    /// Everything else.
    Failed(HostError),
}

impl From<Box<Denial>> for Refusal {
    fn from(denial: Box<Denial>) -> Self {
        Self::Denied(denial)
    }
}

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Self {
        Self::Failed(error)
    }
}

impl Broker {
    /// Answers within [`HOST_TIME`].
    pub(super) async fn serve(&self, ask: Ask) -> Result<HostAnswer, Refusal> {
        match tokio::time::timeout(HOST_TIME, self.answer(&ask)).await {
            Ok(Ok(answer)) => bounded(answer),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => {
                Err(failed("timeout", format!("the machine did not answer for {} s", HOST_TIME.as_secs())).into())
            }
        }
    }

    async fn answer(&self, ask: &Ask) -> Result<HostAnswer, Refusal> {
        Ok(match ask {
            Ask::Fact(request) => {
                verify_fact(request)?;
                self.grants.fact(request)?;
                HostAnswer::Fact(self.facts.ask(request).await?)
            }
            Ask::Stat(path) => {
                let path = verify_path(path)?;
                let allowance = self.grants.file(path, Access::Stat)?;
                let permits = |path: &Path| self.grants.file(path, Access::Stat).is_ok();
                let request = FileRequest { path, permits: &permits, max_bytes: allowance.max_bytes };
                HostAnswer::Stat(self.facts.stat(request).await?)
            }
            Ask::Read(path) => {
                let path = verify_path(path)?;
                let max_bytes = self.grants.file(path, Access::Read)?.max_bytes;
                let permits = |path: &Path| self.grants.file(path, Access::Read).is_ok();
                let content = self.facts.read(FileRequest { path, permits: &permits, max_bytes }).await?;
                if content.len() as u64 > max_bytes {
                    return Err(failed("too-large", format!("larger than {max_bytes} bytes")).into());
                }
                HostAnswer::Content(Bytes(content))
            }
            Ask::Entries(path) => {
                let path = verify_path(path)?;
                let max_bytes = self.grants.file(path, Access::Read)?.max_bytes;
                let permits = |path: &Path| self.grants.file(path, Access::Read).is_ok();
                HostAnswer::Entries(self.facts.entries(FileRequest { path, permits: &permits, max_bytes }).await?)
            }
            Ask::Run { program, arguments, secret } => self.run(program, arguments, secret.as_deref()).await?,
            Ask::Fetch(request) => {
                let network = self.facts.network();
                HostAnswer::Fetched(Box::new(http::fetch(network, &self.grants, &self.vault, request).await?))
            }
            Ask::Probe(request) => HostAnswer::Probed(probe::probe(self.facts.network(), &self.grants, request).await?),
            Ask::Reveal(name) => {
                secret::verify_name(name)?;
                self.grants.secret(name, SecretUse::Reveal)?;
                HostAnswer::Revealed(self.vault.read(name).await?)
            }
        })
    }

    async fn run(&self, program: &str, arguments: &[String], secret: Option<&str>) -> Result<HostAnswer, Refusal> {
        verify_path(program)?;
        let total: usize = arguments.iter().map(String::len).sum();
        if arguments.len() > MOST_ARGUMENTS || total > ARGUMENT_BYTES || arguments.iter().any(|it| it.contains('\0')) {
            return Err(HostError::invalid("too many or malformed arguments").into());
        }
        if let Some(name) = secret {
            secret::verify_name(name)?;
            if arguments.iter().filter(|it| *it == PLACEHOLDER).count() != 1 {
                return Err(HostError::invalid(format!("one argument, and only one, has to be `{PLACEHOLDER}`")).into());
            }
        }
        let mut request = self.grants.command(program, arguments)?;
        let mut used = Vec::new();
        if let Some(name) = secret {
            self.grants.secret(name, SecretUse::Argv { program, arguments })?;
            let value = self.vault.read(name).await?;
            let text = str::from_utf8(value.expose()).ok().filter(|it| !it.contains('\0'));
            let Some(text) = text else {
                return Err(HostError::unavailable(format!("the secret `{name}` is no text")).into());
            };
            for argument in request.arguments.iter_mut().filter(|it| *it == PLACEHOLDER) {
                text.clone_into(argument);
            }
            used.push(value);
        }
        let output = self.facts.run(&request).await?;
        let most = usize::try_from(request.max_output_bytes).unwrap_or(usize::MAX);
        let (stdout, stderr) = (secret::cut(output.stdout, &used), secret::cut(output.stderr, &used));
        if stdout.len() > most || stderr.len() > most {
            return Err(failed("too-large", format!("more than {most} bytes of output")).into());
        }
        Ok(HostAnswer::Output { status: output.status, stdout: Bytes(stdout), stderr: Bytes(stderr) })
    }
}

/// An error of the host's own.
pub(super) fn failed(code: &str, message: String) -> HostError {
    HostError { code: code.into(), message, retryable: code == "timeout" }
}

/// A fact of any size becomes `too-large` before it could break the framing.
fn bounded(answer: HostAnswer) -> Result<HostAnswer, Refusal> {
    if let HostAnswer::Fact(fact) = &answer {
        let size = serde_json::to_vec(fact).map_or(usize::MAX, |text| text.len());
        if size > FRAME_TO_RUNNER / 2 {
            return Err(failed("too-large", format!("the answer has {size} bytes")).into());
        }
    }
    Ok(answer)
}

fn verify_fact(request: &FactRequest) -> Result<(), HostError> {
    let name = |text: &str, also: &[u8]| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || also.contains(&byte);
        !text.is_empty() && text.len() <= 256 && text.bytes().all(plain) && !text.starts_with('-')
    };
    let valid = match request {
        FactRequest::KernelOptions { names } => {
            names.len() <= MOST_NAMES && names.iter().all(|option| name(option, b"_"))
        }
        FactRequest::Sysctl { name: parameter } => {
            !parameter.is_empty()
                && parameter.len() <= 256
                && parameter.bytes().all(is_sysctl_byte)
                && !parameter.starts_with(['.', '/'])
                && parameter.split(['.', '/']).all(|part| !part.is_empty())
        }
        FactRequest::TcpPort { port, .. } => *port != 0,
        FactRequest::Unit { name: unit } => name(unit, b"_.@:-"),
        FactRequest::Executable { name: program } => name(program, b"_.+-") && !program.starts_with('.'),
        FactRequest::ProxyFor { url } => {
            url.len() <= LONGEST_TEXT
                && !url.chars().any(char::is_control)
                && (url.starts_with("https://") || url.starts_with("http://"))
        }
        FactRequest::Kernel
        | FactRequest::Modules
        | FactRequest::Cgroup
        | FactRequest::Swap
        | FactRequest::UsableCpus
        | FactRequest::MemoryTotal
        | FactRequest::Mounts
        | FactRequest::Interfaces
        | FactRequest::ContainerRuntime
        | FactRequest::Os
        | FactRequest::NodeNameAddresses
        | FactRequest::CurrentUid => true,
    };
    if valid { Ok(()) } else { Err(failed("invalid", "a malformed name".into())) }
}

/// An absolute path without `.`, `..` and empty segments, at most 4 KiB.
fn verify_path(text: &str) -> Result<&Path, HostError> {
    let path = Path::new(text);
    let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    let whole = text.strip_prefix('/').is_some_and(|rest| !rest.split('/').any(|part| part.is_empty() || part == "."));
    if text.len() > LONGEST_TEXT || text.chars().any(char::is_control) || !plain || !whole {
        return Err(failed(
            "invalid",
            "a path must be absolute, without `.`, `..`, empty parts and control characters".into(),
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
