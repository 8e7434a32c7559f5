//! What a plugin could reach on this machine now: patterns looked up, names resolved, each answer asked of the same
//! decisions that a running plugin meets. Nothing of the plugin runs, and nobody is connected to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::files;
use super::grants::{
    Access, DeniedBy, Effective, FileGrant, Grant, HttpAllowance, HttpUrl, NetHost, ProbeAllowance, Scheme,
    address_class,
};
use crate::config::SecretSource;
use crate::facts::{FactRequest, FileRequest};
use crate::network::{Network as _, SystemNetwork};

/// Names that are told of one pattern.
const SHOWN: usize = 100;
/// How long a name may take to resolve.
const RESOLVE_TIME: Duration = Duration::from_secs(5);
/// Where kernel parameters are.
const SYSCTL: &str = "/proc/sys";

/// One grant of which the plugin gets something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// The manifest's grant, in its own syntax.
    pub grant: String,
    /// What it stands for here; empty where the grant says it all.
    pub targets: Vec<Target>,
    /// How many more there are than were listed.
    pub more: usize,
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Path, name or address.
    pub name: String,
    /// Whether a request for it would be granted and answered now.
    pub reachable: bool,
    /// A few words: what is there, or why not.
    pub note: String,
}

/// A grant of which the plugin gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Withheld {
    /// The manifest's grant, in its own syntax.
    pub grant: String,
    /// Who would have to allow it.
    pub by: String,
    /// As `--grant` takes it, where the operator could allow it so.
    pub flag: Option<String>,
    /// The plugin can do without.
    pub optional: bool,
}

/// What is reached, grant by grant.
pub async fn explain(effective: &Effective, secrets: &BTreeMap<String, SecretSource>) -> Vec<Reach> {
    let mut reached = Vec::new();
    for grant in effective.possible().iter() {
        let mut targets = match grant {
            Grant::Fact(fact) => match fact.name.strip_prefix("sysctl:").and_then(|name| name.strip_suffix('*')) {
                Some(stem) => sysctls(effective, stem),
                None if fact.is_known() => Vec::new(),
                None => vec![Target::no(&fact.name, "this host has no such fact")],
            },
            Grant::File(file) => files_of(effective, file),
            Grant::Command(command) => vec![program(&command.program, command.user())],
            Grant::Http(http) => {
                let mut allowances =
                    http.methods.iter().filter_map(|method| effective.http(method, http.url.url()).ok());
                match allowances.next_back() {
                    Some(allowance) => requests(http.url.url(), &allowance).await,
                    None => vec![Target::no(&http.url.to_string(), "only parts of it are granted")],
                }
            }
            Grant::Probe(probe) => match (probe.probe.host(), effective.probe(&probe.probe)) {
                (Some(host), Ok(allowance)) => {
                    addresses(host, 0, |address| ProbeAllowance::allows_address(&allowance, address)).await
                }
                (None, Ok(allowance)) => match probe.probe.target().parse() {
                    Ok(host) => addresses(&host, 0, |address| allowance.allows_address(address)).await,
                    Err(_) => Vec::new(),
                },
                (_, Err(denial)) => vec![Target::no(&probe.probe.target(), &denial.message())],
            },
            Grant::Secret(secret) => vec![match secrets.get(&secret.name) {
                Some(SecretSource::File(path)) => Target::yes(&secret.name, format!("from `{}`", path.display())),
                Some(SecretSource::Variable(name)) => Target::yes(&secret.name, format!("from the variable `{name}`")),
                None => Target::no(&secret.name, "no value is configured"),
            }],
            Grant::TrustRoot(_) => vec![Target::yes("any cluster", "can make this machine obey any cluster".into())],
        };
        let more = targets.len().saturating_sub(SHOWN);
        targets.truncate(SHOWN);
        reached.push(Reach { grant: grant.line(), targets, more });
    }
    reached
}

/// What the manifest asks for and does not get at all.
pub fn withheld(effective: &Effective) -> Vec<Withheld> {
    let refused = effective.refused().into_iter().map(|(grant, by)| {
        let (by, flag) = match by {
            DeniedBy::Policy(place) => (format!("the site's policy, {place}"), None),
            _ => ("the operator".to_owned(), grant.flag()),
        };
        Withheld { grant: grant.line(), by, flag, optional: grant.is_optional() }
    });
    refused.collect()
}

impl Target {
    fn yes(name: &str, note: String) -> Self {
        Self { name: name.to_owned(), reachable: true, note }
    }

    fn no(name: &str, note: &str) -> Self {
        Self { name: name.to_owned(), reachable: false, note: note.to_owned() }
    }
}

/// Kernel parameters whose dotted name begins so.
fn sysctls(effective: &Effective, stem: &str) -> Vec<Target> {
    let stem = stem.replace('/', ".");
    let complete = stem.rsplit_once('.').map(|(complete, _)| complete.replace('.', "/")).unwrap_or_default();
    let mut left = vec![Path::new(SYSCTL).join(complete)];
    let mut names = Vec::new();
    while let Some(path) = left.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => left.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => names.extend(path.strip_prefix(SYSCTL).ok().map(|it| it.to_string_lossy().replace('/', "."))),
        }
    }
    names.sort();
    names.retain(|name| name.starts_with(&stem) && effective.fact(&FactRequest::Sysctl { name: name.clone() }).is_ok());
    names.iter().map(|name| Target::yes(name, "a kernel parameter".into())).collect()
}

fn files_of(effective: &Effective, grant: &FileGrant) -> Vec<Target> {
    let pattern = grant.path.to_string();
    let paths = if grant.path.is_literal() { vec![PathBuf::from(&pattern)] } else { matching(grant, &pattern) };
    let look = |path: &PathBuf| {
        let name = path.display().to_string();
        let allowance = match effective.file(path, grant.access) {
            Ok(allowance) => allowance,
            Err(denial) => return Target::no(&name, &denial.message()),
        };
        let permits = |path: &Path| effective.file(path, grant.access).is_ok();
        let request = FileRequest { path, permits: &permits, max_bytes: allowance.max_bytes };
        let seen = match grant.access {
            Access::Stat => files::stat(request).map(|it| it.map(|it| it.size_bytes)),
            Access::Read => files::read(request).map(|content| Some(content.len() as u64)),
        };
        match seen {
            Ok(Some(bytes)) => Target::yes(&name, format!("{bytes} bytes")),
            Ok(None) => Target::no(&name, "not there"),
            Err(error) if error.code == "not-found" => Target::no(&name, "not there"),
            Err(error) => Target::no(&name, &error.message),
        }
    };
    paths.iter().map(look).collect()
}

/// Paths on this machine that a pattern stands for. A directory is read only where the pattern has a `*`.
fn matching(grant: &FileGrant, pattern: &str) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/")];
    for segment in pattern.split('/').skip(1) {
        paths = if segment.contains('*') {
            let entries = paths.iter().filter_map(|path| std::fs::read_dir(path).ok()).flatten().flatten();
            let names = entries.map(|entry| entry.path());
            names
                .filter(|path| path.file_name().and_then(|it| it.to_str()).is_some_and(|it| fits(segment, it)))
                .collect()
        } else {
            paths.into_iter().map(|path| path.join(segment)).filter(|path| path.symlink_metadata().is_ok()).collect()
        };
    }
    paths.retain(|path| grant.path.matches(path));
    paths.sort();
    paths
}

/// Whether a name fits one segment of a pattern.
fn fits(segment: &str, name: &str) -> bool {
    let pattern = format!("/{segment}").parse::<super::grants::PathPattern>();
    pattern.is_ok_and(|pattern| pattern.matches(&Path::new("/").join(name)))
}

fn program(path: &Path, user: &str) -> Target {
    let name = path.display().to_string();
    match files::open_program(path) {
        Ok(_) => Target::yes(&name, format!("runs as `{user}` where the host is root")),
        Err(error) => Target::no(&name, &error.message),
    }
}

/// Where requests to a URL lead, and whether the environment's proxy is between.
async fn requests(url: &HttpUrl, allowance: &HttpAllowance) -> Vec<Target> {
    let host = url.host.to_string();
    let proxy = (url.scheme == Scheme::Https).then(|| SystemNetwork.proxy_for(&host, url.port)).flatten();
    let Some(proxy) = proxy else {
        return addresses(&url.host, url.port, |address| allowance.allows_address(address)).await;
    };
    if matches!(url.host, NetHost::Name(_)) && allowance.leaves_names_to_proxy() {
        return vec![Target::yes(&host, format!("wherever the proxy `{proxy}` lets it lead"))];
    }
    let mut targets = addresses(&url.host, url.port, |address| allowance.allows_address(address)).await;
    for target in targets.iter_mut().filter(|it| it.reachable) {
        target.note = format!("{}, through the proxy `{proxy}`", target.note);
    }
    targets
}

async fn addresses(
    host: &NetHost,
    port: u16,
    allows: impl Fn(std::net::IpAddr) -> Result<(), Box<super::grants::Denial>>,
) -> Vec<Target> {
    let found = match host {
        NetHost::Address(address) => vec![*address],
        NetHost::Name(name) => {
            let looked_up = tokio::time::timeout(RESOLVE_TIME, tokio::net::lookup_host((name.as_str(), port))).await;
            match looked_up {
                Ok(Ok(found)) => found.map(|it| it.ip()).collect(),
                Ok(Err(_)) => return vec![Target::no(name, "has no address here")],
                Err(_) => return vec![Target::no(name, "was not resolved in time")],
            }
        }
    };
    let mut targets: Vec<Target> = Vec::new();
    for address in found {
        let name = address.to_string();
        if targets.iter().any(|it| it.name == name) {
            continue;
        }
        targets.push(match allows(address) {
            Ok(()) => Target::yes(&name, address_class(address).describe().into()),
            Err(denial) => Target::no(&name, &denial.message()),
        });
    }
    targets
}
