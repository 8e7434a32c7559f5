//! The certificates of a control plane, one a purpose, signed on this machine by the CAs that all control planes share.
//!
//! Files, names, keys and times are kubeadm's. One thing differs: where a CA or the key of service accounts is not on the
//! machine, kubeadm silently makes its own, with which nothing in the cluster works. A join never has a reason to do so;
//! here it is an error. Everything is looked at before anything is written; keys may be on their way already (see
//! `keys_ahead`), since RSA takes long.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret as _, SecretString};

use super::LocalNode;
use super::configuration::ControlPlaneConfiguration;
use super::keys_ahead::Keys;
use crate::join::JoinContext;
use crate::node::NewFile;
use crate::output::Step;
use crate::pki::pem_block;

pub(super) mod authority;
mod der;
mod error;
pub(super) mod found;
pub(super) mod key;
pub(super) mod list;
pub(super) mod names;

use authority::{Authority, CaCertificate, Validity};
pub use authority::{CaProblem, IssueError};
pub use error::CertsError;
pub(super) use error::SHARED_HINT;
pub use found::LeafProblem;
use found::{Ca, Found, paths};
pub use key::KeyError;
use key::PrivateKey;
use list::{Family, Leaf};
use names::Names;
pub use names::NamesError;

/// Phase id of what is told.
const PHASE: &str = "control-plane-prepare/certs";
/// Certificates are valid from this long ago, for clocks that are behind.
const BACKDATE_SECONDS: i64 = 5 * 60;
/// Largest file of certificates or of a key that is read.
pub(super) const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Makes every certificate of kubeadm's list that is not there, each with one of `keys`; checks those that are.
///
/// # Errors
///
/// [`CertsError`]. Unless it is of the machine, nothing was written.
pub async fn write(
    configuration: &ControlPlaneConfiguration,
    local: &LocalNode,
    keys: &mut Keys,
    cx: &JoinContext,
) -> Result<(), CertsError> {
    let mut ignored = Vec::new();
    let families = list::families(configuration, local, &mut ignored)?;
    for line in ignored {
        cx.reporter.warn(Some(PHASE), line);
    }
    let work = look(families, configuration, cx)?;
    let public_key = found::service_account(configuration, &cx.node)?;
    let wanted = work.iter().flat_map(|work| &work.leaves).filter(|(_, state)| matches!(state, State::Wanted(None)));
    let mut keys = take_keys(wanted.count(), keys, configuration, cx).await?.into_iter();
    let now = now_seconds();
    let validity = Validity {
        not_before: now - BACKDATE_SECONDS,
        not_after: now.saturating_add(seconds(configuration.certificate_validity_period)),
    };
    let mut issued = Vec::new();
    for work in &work {
        issued.extend(issue(work, validity, &mut keys, configuration)?);
    }
    let step = cx.reporter.step(PHASE, "write certificates and keys");
    // A key before its certificate: one without certificate is what the next run goes on with.
    let files = issued.iter().flat_map(|Issued { paths: (certificate, key), certificate_pem, key_pem }| {
        [
            NewFile { path: key, content: key_pem.expose_secret().as_bytes(), mode: 0o600 },
            NewFile { path: certificate, content: certificate_pem.as_bytes(), mode: 0o644 },
        ]
    });
    cx.node.ensure_files(&files.collect::<Vec<_>>())?;
    end(step, &work);
    let step = cx.reporter.step(PHASE, "check the service account key");
    match public_key {
        None => step.unchanged("key and public key are there"),
        Some((path, pem)) => {
            cx.node.ensure_file(&path, pem.as_bytes(), 0o600)?;
            step.done(format!("wrote its public half to `{}`", path.display()));
        }
    }
    Ok(())
}

/// A CA with what it has to sign.
struct Work {
    /// None: its key is elsewhere.
    authority: Option<Box<Authority>>,
    leaves: Vec<(Leaf, State)>,
}

enum State {
    There,
    /// With a key that an earlier run made.
    Wanted(Option<PrivateKey>),
}

fn look(
    families: Vec<Family>,
    configuration: &ControlPlaneConfiguration,
    cx: &JoinContext,
) -> Result<Vec<Work>, CertsError> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for family in families {
        match found::ca(configuration, family.ca, &cx.node)? {
            Ca::Missing => missing.push(file(configuration, &format!("{}.crt", family.ca))),
            ca => found.push((family, ca)),
        }
    }
    if !missing.is_empty() {
        return Err(CertsError::CaMissing { files: missing });
    }
    found.into_iter().map(|(family, ca)| look_at(family, ca, configuration, cx)).collect()
}

fn look_at(
    family: Family,
    ca: Ca,
    configuration: &ControlPlaneConfiguration,
    cx: &JoinContext,
) -> Result<Work, CertsError> {
    let (certificate, authority) = match ca {
        Ca::Here(authority) => (authority.ca.clone(), Some(authority)),
        Ca::Elsewhere(certificate) => (certificate, None),
        Ca::Locked(certificate) => {
            let key = paths(configuration, family.ca).1;
            let message = format!("`{}` holds no key that can be used; its CA counts as external", key.display());
            cx.reporter.warn(Some(PHASE), message);
            (certificate, None)
        }
        Ca::Missing => unreachable!("missing CAs were told before"),
    };
    warn_of_times(family.ca, &certificate, cx);
    // The owner of an external CA decides which names its certificates have.
    let no_names = Names::default();
    let mut absent = Vec::new();
    let mut leaves = Vec::new();
    for leaf in family.leaves {
        let names = if authority.is_some() { &leaf.subject.names } else { &no_names };
        let state = match found::leaf(configuration, &leaf, (family.ca, &certificate), names, &cx.node)? {
            Found::Whole => State::There,
            Found::KeyOfOurs(key) => State::Wanted(Some(key)),
            Found::Nothing => State::Wanted(None),
        };
        if matches!(state, State::Wanted(_)) {
            absent.push(paths(configuration, leaf.file).0);
        }
        leaves.push((leaf, state));
    }
    if authority.is_none() && !absent.is_empty() {
        return Err(CertsError::External { ca: paths(configuration, family.ca).0, files: absent });
    }
    Ok(Work { authority, leaves })
}

/// As kubeadm: what a CA that is not valid signs is not either, but the machine's clock may be what is wrong.
fn warn_of_times(name: &str, ca: &CaCertificate, cx: &JoinContext) {
    if !(ca.certificate.not_before..=ca.certificate.not_after).contains(&now_seconds()) {
        cx.reporter.warn(Some(PHASE), format!("by this machine's clock, CA `{name}` is not valid now"));
    }
}

async fn take_keys(
    count: usize,
    keys: &mut Keys,
    configuration: &ControlPlaneConfiguration,
    cx: &JoinContext,
) -> Result<Vec<PrivateKey>, KeyError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let step = cx.reporter.step(PHASE, "make keys");
    let keys = keys.take(configuration.encryption_algorithm, count).await?;
    step.done(format!("{count} of {}", configuration.encryption_algorithm.name()));
    Ok(keys)
}

/// A certificate with its key, ready to be written.
struct Issued {
    /// Certificate and key.
    paths: (PathBuf, PathBuf),
    certificate_pem: String,
    key_pem: SecretString,
}

fn issue(
    work: &Work,
    validity: Validity,
    keys: &mut impl Iterator<Item = PrivateKey>,
    configuration: &ControlPlaneConfiguration,
) -> Result<Vec<Issued>, CertsError> {
    let Some(authority) = &work.authority else { return Ok(Vec::new()) };
    let mut issued = Vec::new();
    for (leaf, state) in &work.leaves {
        let key = match state {
            State::There => continue,
            State::Wanted(Some(key)) => key,
            State::Wanted(None) => &keys.next().expect("as many keys were made as are wanted"),
        };
        let certificate = authority.issue(&leaf.subject, validity, key);
        let certificate = certificate.map_err(|source| CertsError::Issue { name: leaf.file.to_owned(), source })?;
        issued.push(Issued {
            paths: paths(configuration, leaf.file),
            certificate_pem: pem_block("CERTIFICATE", &certificate),
            key_pem: key.to_pem()?,
        });
    }
    Ok(issued)
}

fn described(leaf: &Leaf) -> String {
    let names = &leaf.subject.names;
    if *names == Names::default() { leaf.file.to_owned() } else { format!("{} for {}", leaf.file, names.shown()) }
}

fn end(step: Step, work: &[Work]) {
    let leaves = || work.iter().flat_map(|work| &work.leaves);
    let is_there = |state: &State| matches!(state, State::There);
    let made = leaves().filter(|(_, state)| !is_there(state)).map(|(leaf, _)| described(leaf)).collect::<Vec<_>>();
    let kept = leaves().filter(|(_, state)| is_there(state)).map(|(leaf, _)| leaf.file).collect::<Vec<_>>().join(", ");
    match (&*made, &*kept) {
        ([], _) => step.unchanged(format!("{kept} are there and in order")),
        (_, "") => step.done(made.join("; ")),
        _ => step.done(format!("{}; {kept} were there and are in order", made.join("; "))),
    }
}

/// A file of the certificates' directory, by its name there.
pub(super) fn file(configuration: &ControlPlaneConfiguration, name: &str) -> PathBuf {
    Path::new(configuration.certificates_dir.trim_end_matches('/')).join(name)
}

/// Seconds since 1970.
pub(super) fn now_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn seconds(period: std::time::Duration) -> i64 {
    i64::try_from(period.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
