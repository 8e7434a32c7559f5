//! File discovery: a kubeconfig on this machine is trusted, because whoever put it there could do anything here.
//!
//! The cluster is asked for cluster-info only to see early that the file leads to it: a refusal (403) is told and passed
//! over, as in kubeadm. Paths inside the file are relative to the working directory, as in kubeadm.

use std::io::Read as _;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use super::cluster_info::ClusterInfo;
use super::{DiscoveryError, Found, PHASE, identity_of_secret, trusted_cluster};
use crate::api::retry::{Finding, Patience};
use crate::api::{Identity, Server};
use crate::join::tls_bootstrap::existing_identity;
use crate::join::{FileCredential, FileSecret, JoinContext};
use crate::kubeconfig::{Kubeconfig, KubeconfigError, User};
use crate::output::printable;

/// Largest file that is read, in bytes.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

pub(super) async fn discover(path: &Path, cx: &JoinContext) -> Result<(Found, Option<FileCredential>), DiscoveryError> {
    let step = cx.reporter.step(PHASE, "read the discovery file");
    let unusable = |source| DiscoveryError::File { path: path.to_owned(), source };
    let text = read(path)?;
    let kubeconfig = Kubeconfig::parse(text.expose_secret()).map_err(unusable)?;
    let entry = kubeconfig.cluster().map_err(unusable)?;
    if entry.insecure_skip_tls_verify {
        return Err(DiscoveryError::FileInsecure { path: path.to_owned() });
    }
    if !entry.proxy_url.is_empty() {
        cx.reporter.warn(Some(PHASE), "`proxy-url` of the discovery file is not used; set HTTPS_PROXY");
    }
    let ca_pem = match entry.ca_pem().map_err(unusable)? {
        Some(pem) => pem,
        None if entry.certificate_authority.is_empty() => {
            return Err(DiscoveryError::FileWithoutCa { path: path.to_owned() });
        }
        None => read(Path::new(&entry.certificate_authority))?.expose_secret().to_owned(),
    };
    let cluster = trusted_cluster(entry, ca_pem, format!("file {}", path.display()))?;
    let credential = match kubeconfig.user() {
        Some((context, name, user)) => secret(user, path)?.map(|secret| FileCredential {
            context_name: context.to_owned(),
            user_name: name.to_owned(),
            secret,
        }),
        None => None,
    };
    if credential.is_none()
        && cx.settings.tls_bootstrap_token.is_none()
        && let Some(kind) = kubeconfig.user().and_then(|(_, _, user)| user.needs_program())
    {
        return Err(DiscoveryError::NeedsPlugin { path: path.to_owned(), kind });
    }
    let server = Server::new(cx.dialer.clone(), &cluster.server, cluster.trust())
        .map_err(|source| DiscoveryError::Server { source })?;
    let identity = credential.as_ref().map_or(Identity::Anonymous, |credential| identity_of_secret(&credential.secret));
    let resumed = match look(&server, &identity, &cluster.server, cx).await {
        Ok(()) => false,
        // The credential did its work in an earlier run.
        Err(DiscoveryError::CredentialRefused { .. }) if matches!(existing_identity(cx), Ok(Some(_))) => true,
        Err(error) => return Err(error),
    };
    step.done(format!("`{}`, trusted by {}", cluster.server, cluster.established_by));
    Ok((Found { cluster, server, resumed }, credential))
}

/// Reads cluster-info to see that the file leads to its cluster.
async fn look(server: &Server, identity: &Identity, url: &str, cx: &JoinContext) -> Result<(), DiscoveryError> {
    let client = server.client(identity).map_err(|source| DiscoveryError::Credential { source })?;
    let what = format!("`{url}`");
    let endpoint = url.strip_prefix("https://").unwrap_or(url);
    let presents = !matches!(identity, Identity::Anonymous);
    let patience = Patience {
        reporter: &cx.reporter,
        phase: PHASE,
        what: &what,
        timeout: cx.settings.timeouts.discovery,
        fail_fast: cx.settings.fail_fast,
    };
    let info = patience
        .until_ok(async || match ClusterInfo::get(&client, endpoint).await {
            Ok(info) => Ok(Some(info)),
            Err(DiscoveryError::PublicAccessClosed { code: 403, .. }) => Ok(None),
            Err(DiscoveryError::PublicAccessClosed { code: 401, endpoint }) if presents => {
                Err(Finding::Final(DiscoveryError::CredentialRefused { endpoint }))
            }
            Err(error) if error.may_pass() => Err(Finding::MayPass(error)),
            Err(error) => Err(Finding::Final(error)),
        })
        .await?;
    let Some(info) = info else {
        let message =
            "ConfigMap `kube-public/cluster-info` may not be read; the server's certificate is right, so on it goes";
        cx.reporter.warn(Some(PHASE), message);
        return Ok(());
    };
    // One that does not parse is passed over: the file is what is trusted.
    let Some(Ok(public)) = info.kubeconfig().map(Kubeconfig::parse) else { return Ok(()) };
    let public = public.cluster().map_err(|source| DiscoveryError::Kubeconfig { source })?;
    if public.server != url {
        let message = format!(
            "ConfigMap `kube-public/cluster-info` names the server `{}`, the discovery file `{url}`; the file counts",
            printable(&public.server)
        );
        cx.reporter.warn(Some(PHASE), message);
    }
    Ok(())
}

/// What the user presents: certificate before token before password, the order in which an API server looks.
fn secret(user: &User, path: &Path) -> Result<Option<FileSecret>, DiscoveryError> {
    let unusable = |source: KubeconfigError| DiscoveryError::File { path: path.to_owned(), source };
    let certificate_pem = match user.certificate_pem().map_err(unusable)? {
        None if !user.client_certificate.is_empty() => {
            Some(read(Path::new(&user.client_certificate))?.expose_secret().to_owned())
        }
        embedded => embedded,
    };
    let key_pem = match user.key_pem().map_err(unusable)? {
        None if !user.client_key.is_empty() => Some(read(Path::new(&user.client_key))?),
        embedded => embedded,
    };
    if let (Some(certificate_pem), Some(key_pem)) = (certificate_pem, key_pem) {
        return Ok(Some(FileSecret::Certificate { certificate_pem, key_pem }));
    }
    if !user.token.expose_secret().is_empty() {
        return Ok(Some(FileSecret::Bearer(user.token.clone())));
    }
    if !user.token_file.is_empty() {
        let token = read(Path::new(&user.token_file))?;
        return Ok(Some(FileSecret::Bearer(token.expose_secret().trim().to_owned().into())));
    }
    if !user.username.is_empty() && !user.password.expose_secret().is_empty() {
        return Ok(Some(FileSecret::Basic { username: user.username.clone(), password: user.password.clone() }));
    }
    Ok(None)
}

fn read(path: &Path) -> Result<SecretString, DiscoveryError> {
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(FILE_LIMIT_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILE_LIMIT_BYTES {
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
        }
        Ok(text.into())
    };
    read().map_err(|source| DiscoveryError::FileRead { path: path.to_owned(), source })
}
