//! The etcd member of a control plane, which leaves its cluster before its data goes.
//!
//! It is found by what its own manifest says, so that an API server that is down is no obstacle. kubeadm removes the
//! member whatever that means for the others, and empties the directory even where the removal failed; here a removal
//! after which etcd could agree on nothing is refused unless `--force` asks for it, and data goes after its member.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use tokio::time::Instant;

use super::{ETCD_MANIFEST, ResetError};
use crate::config::ResetSettings;
use crate::etcd::health::{self, Health, quorum};
use crate::etcd::{Client, Credentials, EtcdError, MemberId, Refusal};
use crate::node::Journalless;

/// kubeadm's default for `etcd.local.dataDir`.
pub(super) const DEFAULT_DATA_DIRECTORY: &str = "/var/lib/etcd";
const DEFAULT_CERTIFICATES: &str = "/etc/kubernetes/pki";
/// A manifest has 3 KB; a certificate, a key less.
const LIMIT_BYTES: u64 = 1 << 20;
/// etcd refuses a removal for five seconds after it lost sight of a member.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(200);

/// The member that this machine runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Local {
    /// `https://host:2380`, as the others know it.
    peer_urls: Vec<String>,
    /// Client URLs: its own, then those of the members it began with.
    endpoints: Vec<String>,
    /// Directory of `ca.crt` and `healthcheck-client.crt`.
    certificates: PathBuf,
    /// On the machine.
    pub(super) data_directory: PathBuf,
}

/// What becomes of the member.
#[derive(Debug)]
pub(super) enum Departure {
    /// Nothing is to be done: it is no member any more.
    Gone,
    /// It is removed.
    Removal(Removal),
    /// It cannot be removed, and `--force` goes on without.
    Impossible {
        /// One line.
        why: String,
    },
}

/// A removal that will be asked for.
#[derive(Debug)]
pub(super) struct Removal {
    client: Client,
    /// Who goes.
    pub(super) id: MemberId,
    /// What it means to the others, one line.
    pub(super) meaning: String,
    /// Whether a refusal is no reason to stop.
    force: bool,
}

/// The manifest's word; none: no member runs here.
pub(super) fn local(settings: &ResetSettings, files: &Journalless) -> Option<Local> {
    let text = files.read(Path::new(ETCD_MANIFEST), LIMIT_BYTES).ok().flatten()?;
    let manifest: Value = serde_saphyr::from_slice(&text).unwrap_or_default();
    Some(read_manifest(&manifest, settings))
}

fn read_manifest(manifest: &Value, settings: &ResetSettings) -> Local {
    let command = manifest["spec"]["containers"][0]["command"].as_array();
    let words = || command.into_iter().flatten().filter_map(Value::as_str);
    let argument = |name: &str| {
        let prefix = format!("--{name}=");
        words().rfind(|word| word.starts_with(&prefix)).map(|word| word[prefix.len()..].to_owned())
    };
    let list = |name: &str| {
        let all = argument(name).unwrap_or_default();
        all.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut endpoints = list("advertise-client-urls");
    for member in list("initial-cluster") {
        // kubeadm's members all have the same two ports.
        let other = member.split_once('=').and_then(|(_, url)| Some(format!("{}:2379", url.strip_suffix(":2380")?)));
        endpoints.extend(other.filter(|url| !endpoints.contains(url)));
    }
    let ca_file = argument("trusted-ca-file").map(PathBuf::from);
    let certificates = ca_file.as_deref().and_then(Path::parent).map_or_else(
        || settings.certificates_dir.clone().unwrap_or_else(|| DEFAULT_CERTIFICATES.into()).join("etcd"),
        Path::to_owned,
    );
    let volumes = manifest["spec"]["volumes"].as_array();
    let volume = volumes.into_iter().flatten().find(|volume| volume["name"] == "etcd-data");
    let mounted = volume.and_then(|volume| volume["hostPath"]["path"].as_str()).map(str::to_owned);
    let data_directory = mounted.or_else(|| argument("data-dir")).unwrap_or_else(|| DEFAULT_DATA_DIRECTORY.into());
    Local {
        peer_urls: list("initial-advertise-peer-urls"),
        endpoints,
        certificates,
        data_directory: data_directory.into(),
    }
}

/// Looks at the cluster; changes nothing. `recorded`: the id that the record of the join has.
///
/// # Errors
///
/// [`ResetError::Quorum`], [`ResetError::EtcdUnreachable`] without `force`.
pub(super) async fn foresee(
    local: &Local,
    recorded: Option<MemberId>,
    settings: &ResetSettings,
    files: &Journalless,
) -> Result<Departure, ResetError> {
    let credentials = match credentials(&local.certificates, files) {
        Ok(Some(credentials)) => credentials,
        // They go after the member: an earlier reset came so far, or nobody here can take the member out.
        Ok(None) => {
            let why = format!("`{}` has no client certificate for etcd any more", local.certificates.display());
            return Ok(Departure::Impossible { why });
        }
        Err(why) => return impossible(why, settings.force),
    };
    let looked = async {
        let client = Client::new(credentials, local.endpoints.clone())?;
        let health = health::look(&client).await?;
        Ok::<_, EtcdError>((client, health))
    };
    let (client, health) = match looked.await {
        Ok(looked) => looked,
        Err(error) => return impossible(error.to_string(), settings.force),
    };
    let all = health.members.iter().map(|health| health.member.clone());
    client.use_endpoints(all.filter(|member| !member.is_learner).flat_map(|member| member.client_urls).collect());
    match outlook(&health, local, recorded) {
        Outlook::Gone => Ok(Departure::Gone),
        Outlook::Fine { id, meaning } => Ok(Departure::Removal(Removal { client, id, meaning, force: settings.force })),
        Outlook::Breaks { meaning, .. } if !settings.force => Err(ResetError::Quorum { meaning }),
        Outlook::Breaks { id, meaning, last: false } => {
            Ok(Departure::Removal(Removal { client, id, meaning, force: true }))
        }
        Outlook::Breaks { meaning, .. } => Ok(Departure::Impossible { why: meaning }),
    }
}

fn impossible(why: String, force: bool) -> Result<Departure, ResetError> {
    if force { Ok(Departure::Impossible { why }) } else { Err(ResetError::EtcdUnreachable { reason: why }) }
}

/// None: a file is missing.
fn credentials(directory: &Path, files: &Journalless) -> Result<Option<Credentials>, String> {
    let read = |name: &str| {
        let path = directory.join(name);
        let content = files.read(&path, LIMIT_BYTES).map_err(|error| format!("`{}`: {error}", path.display()))?;
        Ok::<_, String>(content.map(|content| String::from_utf8_lossy(&content).into_owned()))
    };
    let (Some(ca), Some(certificate), Some(key)) =
        (read("ca.crt")?, read("healthcheck-client.crt")?, read("healthcheck-client.key")?)
    else {
        return Ok(None);
    };
    Credentials::from_pem(&ca, &certificate, &SecretString::from(key)).map(Some).map_err(|error| error.to_string())
}

/// What removing our member would mean.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outlook {
    Gone,
    Fine { id: MemberId, meaning: String },
    Breaks { id: MemberId, meaning: String, last: bool },
}

fn outlook(health: &Health, local: &Local, recorded: Option<MemberId>) -> Outlook {
    let ours = health.members.iter().map(|health| &health.member).find(|member| match recorded {
        Some(id) => member.id == id,
        None => member.peer_urls.iter().any(|url| local.peer_urls.contains(url)),
    });
    let Some(member) = ours else { return Outlook::Gone };
    let id = member.id;
    if member.is_learner {
        return Outlook::Fine { id, meaning: format!("{member} leaves; it has no vote") };
    }
    let others = || health.members.iter().filter(|other| !other.member.is_learner && other.member.id != id);
    let (voters, up) = (others().count(), others().filter(|other| other.is_up()).count());
    if voters == 0 {
        let meaning = format!("{member} is the only voter: all data of the cluster would be gone");
        return Outlook::Breaks { id, meaning, last: true };
    }
    if !(health.has_quorum() && health.has_quorum_without(id)) {
        let meaning = format!(
            "without {member}, {up} of {voters} voters are up and {} are needed: the cluster could not write any more",
            quorum(voters)
        );
        return Outlook::Breaks { id, meaning, last: false };
    }
    let meaning = match up - quorum(voters) {
        _ if voters == 1 => format!("{member} leaves; one voter is left, and with it all data would be lost"),
        spare => format!("{member} leaves; {voters} voters are left, {up} of them up, of which {spare} may fail"),
    };
    Outlook::Fine { id, meaning }
}

impl Removal {
    /// Removes the member. `Ok(Some(…))`: it is still there, and `--force` goes on all the same.
    ///
    /// # Errors
    ///
    /// One line: nothing else may be undone yet.
    pub(super) async fn run(&self) -> Result<Option<String>, String> {
        let deadline = Instant::now() + REMOVAL_TIMEOUT;
        let last = loop {
            let error = match self.client.remove(self.id).await {
                Ok(_) => return Ok(None),
                Err(EtcdError::Refused { refusal: Refusal::MemberNotFound, .. }) => return Ok(None),
                Err(error) => error,
            };
            // The answer may have been lost.
            let members = self.client.members().await;
            if members.is_ok_and(|members| members.by_id(self.id).is_none()) {
                return Ok(None);
            }
            if !error.may_pass() && !matches!(error, EtcdError::Unclear { .. }) || Instant::now() >= deadline {
                break error;
            }
            tokio::time::sleep(RETRY).await;
        };
        if self.force { Ok(Some(last.to_string())) } else { Err(last.to_string()) }
    }
}

#[cfg(test)]
mod tests;
