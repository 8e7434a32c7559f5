//! The files that all control planes share, fetched from Secret `kube-system/kubeadm-certs`.
//!
//! A control plane uploaded them, encrypted with the certificate key, and the Secret is gone after two hours. As in
//! kubeadm, every entry is decrypted before anything is written. Beyond kubeadm, every entry is also looked at before, so
//! that the machine has the whole set or nothing of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo};
use zeroize::Zeroizing;

use super::certs::file;
use super::certs::key::PrivateKey;
use super::configuration::{ControlPlaneConfiguration, Etcd};
use crate::api::retry::{Finding, Patience};
use crate::api::{ApiError, get};
use crate::error::Diagnose;
use crate::join::cluster_paths::{self, PathRefused, Use};
use crate::join::{Access, JoinContext};
use crate::node::{Change, NewFile, NodeError};
use crate::output::printable;
use crate::pki::{Certificate, CertificateKey};

/// Phase id of what is told.
const PHASE: &str = "control-plane-prepare/download-certs";
/// Namespace and name of the Secret.
const NAMESPACE: &str = "kube-system";
const SECRET: &str = "kubeadm-certs";

/// Fetches the shared certificates and keys and writes them to where the cluster's configuration has them.
///
/// # Errors
///
/// [`DownloadCertsError`]. Unless it is of the machine, nothing was written.
pub async fn run(
    access: &Access,
    configuration: &ControlPlaneConfiguration,
    key: &CertificateKey,
    cx: &JoinContext,
) -> Result<(), DownloadCertsError> {
    let step = cx.reporter.step(PHASE, format!("fetch Secret `{NAMESPACE}/{SECRET}`"));
    let secret = fetch(access, cx).await?;
    let shared = shared_files(configuration);
    let files = decrypt(secret.data.unwrap_or_default(), key, &shared)?;
    for SharedFile { field, path, .. } in &files {
        if let Some(field) = field {
            cluster_paths::check(field, path.to_str().unwrap_or_default(), Use::Written, &cx.node)?;
        }
    }
    step.done(format!("{} files", files.len()));
    let step = cx.reporter.step(PHASE, "write the shared certificates and keys");
    for SharedFile { path, content, .. } in &files {
        warn_of_replaced(path, content, cx)?;
    }
    let new = files.iter().map(|SharedFile { path, content, mode, .. }| NewFile { path, content, mode: *mode });
    let changes = cx.node.ensure_files(&new.collect::<Vec<_>>())?;
    let made = changes.iter().filter(|change| **change == Change::Made).count();
    let directory = configuration.certificates_dir.trim_end_matches('/');
    match made {
        0 => step.unchanged(format!("they are in `{directory}`")),
        made => step.done(format!("{made} files, in `{directory}`")),
    }
    Ok(())
}

async fn fetch(access: &Access, cx: &JoinContext) -> Result<Secret, DownloadCertsError> {
    let what = format!("Secret `{NAMESPACE}/{SECRET}`");
    let patience = Patience {
        reporter: &cx.reporter,
        phase: PHASE,
        what: &what,
        timeout: cx.settings.timeouts.kubernetes_api_call,
        fail_fast: cx.settings.fail_fast,
    };
    patience
        .until_ok(async || {
            get::<Secret>(access.client(), Some(NAMESPACE), SECRET).await.map_err(|source| {
                let passes = source.may_pass() && !matches!(source.status(), Some(401 | 403 | 404));
                let error = DownloadCertsError::Unread(source);
                if passes { Finding::MayPass(error) } else { Finding::Final(error) }
            })
        })
        .await
}

/// Name of an entry, and the file it is for; `field` of the configuration names the file, unless it is in the
/// certificates' directory, which was checked when the configuration was read.
struct SharedEntry {
    name: &'static str,
    field: Option<&'static str>,
    path: PathBuf,
}

/// What an entry holds, ready to be written.
struct SharedFile {
    field: Option<&'static str>,
    path: PathBuf,
    content: Zeroizing<Vec<u8>>,
    mode: u32,
}

/// kubeadm's list; `/` of a file's name is `-` in that of its entry.
fn shared_files(configuration: &ControlPlaneConfiguration) -> Vec<SharedEntry> {
    let inside = |name, path| SharedEntry { name, field: None, path: file(configuration, path) };
    let mut all: Vec<_> = ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key"]
        .map(|name| inside(name, name))
        .into();
    match &configuration.etcd {
        Etcd::Local(_) => all.extend([inside("etcd-ca.crt", "etcd/ca.crt"), inside("etcd-ca.key", "etcd/ca.key")]),
        Etcd::External(etcd) => {
            let outside = |name, field, path: &str| SharedEntry { name, field: Some(field), path: path.into() };
            all.extend([
                outside("external-etcd-ca.crt", "etcd.external.caFile", &etcd.ca_file),
                outside("external-etcd.crt", "etcd.external.certFile", &etcd.cert_file),
                outside("external-etcd.key", "etcd.external.keyFile", &etcd.key_file),
            ]);
        }
    }
    all
}

/// Opens every entry that is not empty, expected or not, and sorts out what is to be written. An entry is empty where its
/// file was missing at the upload: the key of an external CA.
fn decrypt(
    data: BTreeMap<String, ByteString>,
    key: &CertificateKey,
    shared: &[SharedEntry],
) -> Result<Vec<SharedFile>, DownloadCertsError> {
    let mut opened = BTreeMap::new();
    for (name, ByteString(sealed)) in data {
        let content = match &*sealed {
            [] => Zeroizing::default(),
            sealed => key.open(sealed).ok_or_else(|| DownloadCertsError::Sealed { entry: printable(&name) })?,
        };
        opened.insert(name, content);
    }
    let absent = shared.iter().map(|entry| entry.name).filter(|name| !opened.contains_key(*name));
    let absent = absent.map(str::to_owned).collect::<Vec<_>>();
    if !absent.is_empty() {
        return Err(DownloadCertsError::Absent { entries: absent });
    }
    let mut files = Vec::new();
    for SharedEntry { name, field, path } in shared {
        let content = opened.remove(*name).expect("absent entries were told before");
        if content.is_empty() {
            continue;
        }
        let mode = mode_of(&content).ok_or(DownloadCertsError::Unknown { entry: name })?;
        files.push(SharedFile { field: *field, path: path.clone(), content, mode });
    }
    Ok(files)
}

/// 0600 where there is a private key in it, 0644 where there are certificates or public keys only; none: neither.
fn mode_of(content: &[u8]) -> Option<u32> {
    let labels: Vec<_> = <(SectionKind, Vec<u8>)>::pem_slice_iter(content).filter_map(Result::ok).collect();
    let private =
        |kind| matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey);
    let labels: Vec<_> = labels.into_iter().map(|(kind, der)| (kind, Zeroizing::new(der))).collect();
    if labels.iter().any(|(kind, _)| private(*kind)) {
        return PrivateKey::parse_pem(content).map(|_| 0o600);
    }
    let public = |der: &[u8]| SubjectPublicKeyInfo::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
    let usable = labels.iter().any(|(kind, der)| *kind == SectionKind::PublicKey && public(der))
        || Certificate::parse_pem(content).is_ok();
    usable.then_some(0o644)
}

/// kubeadm replaces without a word; whoever has an own file there should learn of it.
fn warn_of_replaced(path: &Path, content: &[u8], cx: &JoinContext) -> Result<(), NodeError> {
    let old = super::certs::found::read(path, &cx.node)?;
    if old.is_some_and(|old| *old != content) && !cx.node.journal().owns(path) {
        let message = format!("`{}` was there with other content and is replaced by the cluster's", path.display());
        cx.reporter.warn(Some(PHASE), message);
    }
    Ok(())
}

/// Why the shared certificates are not here.
#[derive(Debug, Error)]
pub enum DownloadCertsError {
    /// No answer, or a refusal.
    #[error("cannot read Secret `kube-system/kubeadm-certs`")]
    Unread(#[source] ApiError),
    /// Wrong key, or damaged.
    #[error("entry `{entry}` of Secret `kube-system/kubeadm-certs` does not open with this certificate key")]
    Sealed {
        /// Printable.
        entry: String,
    },
    /// The cluster needs what is not in it.
    #[error("Secret `kube-system/kubeadm-certs` has no entry {}", .entries.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))]
    Absent {
        /// Names.
        entries: Vec<String>,
    },
    /// Neither a key nor a certificate.
    #[error(
        "entry `{entry}` of Secret `kube-system/kubeadm-certs` holds neither a certificate nor a key that can be used"
    )]
    Unknown {
        /// Name.
        entry: &'static str,
    },
    /// A file of the configuration is refused.
    #[error(transparent)]
    Path(#[from] PathRefused),
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl Diagnose for DownloadCertsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unread(source) => match source.status() {
                Some(401) => "download-certs-unauthorized",
                Some(403) => "download-certs-forbidden",
                Some(404) => "download-certs-expired",
                _ => source.code(),
            },
            Self::Sealed { .. } => "download-certs-wrong-key",
            Self::Absent { .. } => "download-certs-absent",
            Self::Unknown { .. } => "download-certs-unknown-content",
            Self::Path(error) => error.code(),
            Self::Node(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        const UPLOAD: &str = "`kubeadm init phase upload-certs --upload-certs` on a control-plane node";
        Some(match self {
            Self::Unread(source) => match source.status() {
                Some(404) => format!("it expires two hours after it was made; {UPLOAD} makes it again, with a new key"),
                Some(401) => {
                    "the token may have expired just now, or lack the usage `authentication`: `kubeadm token list` shows \
                     it"
                        .into()
                }
                Some(403) => {
                    "the token's group must be `system:bootstrappers:kubeadm:default-node-token`; create one with `kubeadm \
                     token create`"
                        .into()
                }
                _ => return source.hint(),
            },
            Self::Sealed { .. } => {
                format!("each upload has a key of its own; give the one that was printed last, or have {UPLOAD} print a new one")
            }
            Self::Absent { .. } => format!("{UPLOAD} uploads it again; the cluster's etcd must be the same as here"),
            Self::Unknown { .. } => format!("look at the file there, then let {UPLOAD} upload it again"),
            Self::Path(error) => return error.hint(),
            Self::Node(error) => return error.hint(),
        })
    }
}

#[cfg(test)]
mod tests;
