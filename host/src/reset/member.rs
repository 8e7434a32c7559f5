//! The etcd member of a control plane, which leaves its cluster before its data goes.
//!
//! It is found by what its own manifest says, so that an API server that is down is no obstacle. kubeadm removes the
//! member whatever that means for the others, and empties the directory even where the removal failed; here a removal
//! after which etcd could agree on nothing is refused unless `--force` asks for it, and data goes after its member.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{ETCD_MANIFEST, ResetError};
use crate::api::{Dialer, Server};
use crate::config::ResetSettings;
use crate::etcd::health::{self, Health};
use crate::etcd::{Client, Credentials, EtcdError, MemberId};
use crate::join::etcd_join::{self, Removal, Removed};
use crate::join::tls_bootstrap::ExistingIdentity;
use crate::journal::Record;
use crate::node::{Journalless, Node};
use crate::output::Reporter;

/// kubeadm's default for `etcd.local.dataDir`.
pub(super) const DEFAULT_DATA_DIRECTORY: &str = "/var/lib/etcd";
const DEFAULT_CERTIFICATES: &str = "/etc/kubernetes/pki";
/// A manifest has 3 KB.
const LIMIT_BYTES: u64 = 1 << 20;
/// etcd refuses a removal for five seconds after it lost sight of a member.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);
/// A cluster that is gone must not hold up a reset.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The member that this machine runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Local {
    /// By the record of the join.
    id: Option<MemberId>,
    /// `https://host:2380`, as the others know it.
    peer_urls: Vec<String>,
    /// Client URLs: its own, then those of the members it began with.
    endpoints: Vec<String>,
    /// Directory of the certificates.
    pki: PathBuf,
    /// On the machine.
    pub(super) data_directory: PathBuf,
}

/// What becomes of the member.
#[derive(Debug)]
pub(super) enum Departure {
    /// Nothing is to be done: it is no member any more.
    Gone,
    /// It is removed.
    Leaves(Leaving),
    /// It cannot be removed, and the reset goes on without.
    Impossible {
        /// One line.
        why: String,
    },
}

/// A removal that will be asked for.
#[derive(Debug)]
pub(super) struct Leaving {
    client: Client,
    /// Who goes.
    pub(super) id: MemberId,
    /// What it means to the others, one line.
    pub(super) meaning: String,
}

/// The member by its manifest and the record; none: no member runs here.
pub(super) fn local(record: Option<&Record>, settings: &ResetSettings, files: &Journalless) -> Option<Local> {
    let text = files.read(Path::new(ETCD_MANIFEST), LIMIT_BYTES).ok().flatten();
    let recorded = record.and_then(Record::etcd_member);
    if text.is_none() && recorded.is_none() {
        return None;
    }
    let manifest = text.and_then(|text| serde_saphyr::from_slice(&text).ok()).unwrap_or_default();
    let mut local = read_manifest(&manifest, settings);
    if let Some((_, peer_url, id)) = recorded {
        // Where the answer was lost, the peer URL that was asked for finds it.
        local.id = id.and_then(|id| id.parse().ok());
        local.peer_urls = vec![peer_url.to_owned()];
    }
    Some(local)
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
    // It is `etcd/ca.crt` in the directory of the certificates.
    let pki = ca_file.as_deref().and_then(Path::parent).and_then(Path::parent).map(Path::to_owned);
    let pki = pki.or_else(|| settings.certificates_dir.clone()).unwrap_or_else(|| DEFAULT_CERTIFICATES.into());
    let volumes = manifest["spec"]["volumes"].as_array();
    let volume = volumes.into_iter().flatten().find(|volume| volume["name"] == "etcd-data");
    let mounted = volume.and_then(|volume| volume["hostPath"]["path"].as_str()).map(str::to_owned);
    let data_directory = mounted.or_else(|| argument("data-dir")).unwrap_or_else(|| DEFAULT_DATA_DIRECTORY.into());
    Local {
        id: None,
        peer_urls: list("initial-advertise-peer-urls"),
        endpoints,
        pki,
        data_directory: data_directory.into(),
    }
}

/// Looks at the cluster; changes nothing.
///
/// # Errors
///
/// [`ResetError::Quorum`], [`ResetError::EtcdUnreachable`] without `force`.
pub(super) async fn foresee(
    local: &Local,
    settings: &ResetSettings,
    node: &Node,
    dialer: &Dialer,
    reporter: &Reporter,
) -> Result<Departure, ResetError> {
    let credentials = match Credentials::read(&local.pki, node) {
        Ok(credentials) => credentials,
        // They go after the member and its data: an earlier reset came so far. With data here, the member may be one still.
        Err(EtcdError::Missing { path }) => {
            let may_be_member = node.locate(&local.data_directory).join("member").exists();
            return impossible(format!("`{path}` is missing"), settings.force || !may_be_member);
        }
        Err(error) => return impossible(error.to_string(), settings.force),
    };
    let looked = async {
        let endpoints = match local.endpoints.is_empty() {
            true => endpoints_by_api(settings, node, dialer, reporter).await?,
            false => local.endpoints.clone(),
        };
        let client = Client::new(credentials, endpoints).map_err(|error| error.to_string())?;
        let health = health::look(&client).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((client, health))
    };
    let (client, health) = match looked.await {
        Ok(looked) => looked,
        Err(why) => return impossible(why, settings.force),
    };
    // The member itself is asked last: it stops when it is removed.
    let others = health.members.iter().map(|health| &health.member).filter(|member| !member.is_learner);
    let id = own(&health, local);
    let (ours, others): (Vec<_>, Vec<_>) = others.partition(|member| Some(member.id) == id);
    client.use_endpoints(others.into_iter().chain(ours).flat_map(|member| member.client_urls.clone()).collect());
    let Some(id) = id else { return Ok(Departure::Gone) };
    Ok(match judge(etcd_join::foresee(&health, id), settings.force)? {
        None => Departure::Gone,
        Some(Meaning { text, possible: true }) => Departure::Leaves(Leaving { client, id, meaning: text }),
        Some(Meaning { text, possible: false }) => Departure::Impossible { why: text },
    })
}

/// Where the manifest of a learner was not written yet, the Pods of the others tell.
async fn endpoints_by_api(
    settings: &ResetSettings,
    node: &Node,
    dialer: &Dialer,
    reporter: &Reporter,
) -> Result<Vec<String>, String> {
    let path = settings.kubeconfig.to_string_lossy();
    let found = ExistingIdentity::in_file(&path, node).map_err(|error| error.to_string())?;
    let found = found.ok_or_else(|| format!("`{path}` is no kubeconfig that can be used"))?;
    let cluster = found.cluster.ok_or_else(|| format!("`{path}` names no cluster"))?;
    let client = Server::new(dialer.clone(), &cluster.server, cluster.trust())
        .and_then(|server| server.client(&found.client))
        .map_err(|error| error.to_string())?;
    let endpoints = etcd_join::endpoints::find(&client, reporter, LOOKUP_TIMEOUT, true).await;
    endpoints.map_err(|error| error.to_string())
}

fn impossible(why: String, force: bool) -> Result<Departure, ResetError> {
    if force { Ok(Departure::Impossible { why }) } else { Err(ResetError::EtcdUnreachable { reason: why }) }
}

/// Who of them is ours: by the id in the record of the join, else by the peer URL in the manifest.
fn own(health: &Health, local: &Local) -> Option<MemberId> {
    let ours = health.members.iter().map(|health| &health.member).find(|member| match local.id {
        Some(id) => member.id == id,
        None => member.peer_urls.iter().any(|url| local.peer_urls.contains(url)),
    });
    ours.map(|member| member.id)
}

/// What removing it comes to, and whether `force` has to ask for it.
fn judge(removal: Removal, force: bool) -> Result<Option<Meaning>, ResetError> {
    let meaning = removal.describe();
    match removal {
        Removal::Gone => Ok(None),
        Removal::Harmless(_) | Removal::KeepsQuorum { .. } => Ok(Some(Meaning { text: meaning, possible: true })),
        Removal::BreaksQuorum { .. } | Removal::LastVoter(_) if !force => Err(ResetError::Quorum { meaning }),
        Removal::BreaksQuorum { .. } => Ok(Some(Meaning { text: meaning, possible: true })),
        Removal::LastVoter(_) => Ok(Some(Meaning { text: meaning, possible: false })),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    text: String,
    possible: bool,
}

impl Leaving {
    /// Removes the member. `Ok(Some(…))`: it is still there, and `--force` goes on all the same.
    ///
    /// # Errors
    ///
    /// One line: nothing else may be undone yet.
    pub(super) async fn run(&self, force: bool, reporter: &Reporter) -> Result<Option<String>, String> {
        let removed = etcd_join::remove_own_member(&self.client, self.id, force, REMOVAL_TIMEOUT, reporter).await;
        match removed.map_err(|error| error.to_string())? {
            Removed::WasGone | Removed::Now(_) => Ok(None),
            Removed::LeftBehind(why) => Ok(Some(why)),
        }
    }
}

#[cfg(test)]
mod tests;
