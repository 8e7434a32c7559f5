//! Token discovery: cluster-info, proved by the token's signature and the CA's pins.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::future::{Either, select};

use super::cluster_info::ClusterInfo;
use super::{DiscoveryError, Found, PHASE, jws, recall, trusted_cluster};
use crate::api::retry::{Finding, Patience};
use crate::api::{Identity, Server, Trust};
use crate::config::{Endpoint, TokenDiscovery};
use crate::join::{JoinContext, TrustedCluster, tls_bootstrap};
use crate::kubeconfig::Kubeconfig;
use crate::pki::{Certificate, Pin};

pub(super) async fn discover(settings: &TokenDiscovery, cx: &JoinContext) -> Result<Found, DiscoveryError> {
    let step = cx.reporter.step(PHASE, "find the cluster");
    let earlier = earlier(settings, cx)?;
    let what = settings.endpoints.iter().map(|endpoint| format!("`{endpoint}`")).collect::<Vec<_>>().join(", ");
    let patience = Patience {
        reporter: &cx.reporter,
        phase: PHASE,
        what: &what,
        timeout: cx.settings.timeouts.discovery,
        fail_fast: cx.settings.fail_fast,
    };
    let mut attempt = Attempt { settings, cx, asked: BTreeMap::new() };
    let found = patience.until_ok(async || attempt.all_endpoints(earlier.as_ref()).await).await?;
    step.done(format!("`{}`, trusted by {}", found.cluster.server, found.cluster.established_by));
    Ok(found)
}

/// The cluster of an earlier run of this join, when the node has its certificate already and no pin speaks against it.
fn earlier(settings: &TokenDiscovery, cx: &JoinContext) -> Result<Option<TrustedCluster>, DiscoveryError> {
    let Some(cluster) = recall(&cx.node)? else { return Ok(None) };
    let pins = Certificate::parse_pem(cluster.ca_pem.as_bytes())
        .map(|certificates| certificates.iter().map(Certificate::pin).collect::<Vec<_>>())
        .unwrap_or_default();
    let pinned = settings.pins.is_empty() || pins.iter().any(|pin| settings.pins.contains(pin));
    let has_identity = matches!(tls_bootstrap::existing_identity(cx), Ok(Some(_)));
    Ok(Some(cluster).filter(|_| pinned && has_identity))
}

struct Attempt<'a> {
    settings: &'a TokenDiscovery,
    cx: &'a JoinContext,
    /// Unverified servers by endpoint, kept so that asking again needs no new handshake.
    asked: BTreeMap<String, (Server, kube::Client)>,
}

impl Attempt<'_> {
    /// Asks the endpoints in order. What proves that something is wrong ends it; of what may pass, the last is told.
    async fn all_endpoints(&mut self, earlier: Option<&TrustedCluster>) -> Result<Found, Finding<DiscoveryError>> {
        let mut seen = None;
        for endpoint in &self.settings.endpoints {
            match self.one_endpoint(endpoint).await {
                Ok(found) => return Ok(found),
                Err(DiscoveryError::NoSignature { .. }) if let Some(cluster) = earlier => {
                    return self.resume(cluster).map_err(Finding::Final);
                }
                Err(error) if error.may_pass() => seen = Some(error),
                Err(error) => return Err(Finding::Final(error)),
            }
        }
        Err(Finding::MayPass(seen.expect("there is at least one endpoint")))
    }

    fn resume(&self, cluster: &TrustedCluster) -> Result<Found, DiscoveryError> {
        let server = self.server(&cluster.server, cluster.trust())?;
        self.cx.reporter.warn(Some(PHASE), "the token is gone; the cluster is the one that the earlier run trusted");
        Ok(Found { cluster: cluster.clone(), server, resumed: true })
    }

    async fn one_endpoint(&mut self, endpoint: &Endpoint) -> Result<Found, DiscoveryError> {
        let token = &self.settings.token;
        let name = endpoint.to_string();
        let (unverified, client) = match self.asked.get(&name) {
            Some(asked) => asked.clone(),
            None => {
                let server = self.server(&format!("https://{name}"), Trust::Unverified)?;
                let client = server.client(&Identity::Anonymous).map_err(|source| DiscoveryError::Server { source })?;
                self.asked.insert(name.clone(), (server.clone(), client.clone()));
                (server, client)
            }
        };
        let asking = pin!(ClusterInfo::get(&client, &name));
        let info = match select(asking, pin!(unverified.open_ahead())).await {
            Either::Left((info, _)) => info?,
            Either::Right(((), asking)) => asking.await?,
        };
        let signature =
            info.signature(token.id()).ok_or_else(|| DiscoveryError::NoSignature { id: token.id().to_owned() })?;
        let kubeconfig = info.kubeconfig().ok_or_else(|| DiscoveryError::NotClusterInfo {
            endpoint: name.clone(),
            reason: "key `kubeconfig` is missing or empty".into(),
        })?;
        let pins = &self.settings.pins;
        let looks_pinned = !pins.is_empty()
            && unverified_cas(kubeconfig).is_some_and(|cas| cas.iter().any(|ca| pins.contains(&ca.pin())));
        jws::verify(kubeconfig, signature, token, looks_pinned)?;

        let parsed = Kubeconfig::parse(kubeconfig).map_err(|source| DiscoveryError::Kubeconfig { source })?;
        let entry = parsed.cluster().map_err(|source| DiscoveryError::Kubeconfig { source })?;
        let ca_pem = entry.ca_pem().map_err(|source| DiscoveryError::Kubeconfig { source })?.unwrap_or_default();
        let pin = self.pin(&ca_pem)?;
        let established_by = match pin {
            Some(pin) => format!("token {}, pin {pin}", token.id()),
            None => format!("token {}, unpinned", token.id()),
        };
        let cluster = trusted_cluster(entry, ca_pem, established_by)?;
        // kubeadm reads cluster-info once more over a connection that the pinned CA verifies; here the connection that it
        // was read over is verified. Without a pin the signature is the proof, and only the server that cluster-info
        // names has to be the cluster's.
        let named = unverified.is_at(&cluster.server);
        let server = if named || pin.is_some() {
            let verified = unverified.verified(cluster.trust());
            Some(verified.map_err(|source| DiscoveryError::Unanswered { endpoint: name.clone(), source })?)
        } else {
            None
        };
        let server = match server {
            Some(server) if named => server,
            _ => self.server(&cluster.server, cluster.trust())?,
        };
        Ok(Found { cluster, server, resumed: false })
    }

    /// The pin that one of the CAs has; none: the user gave none and said so.
    fn pin(&self, ca_pem: &str) -> Result<Option<Pin>, DiscoveryError> {
        let certificates = Certificate::parse_pem(ca_pem.as_bytes())
            .map_err(|error| DiscoveryError::Ca { reason: error.to_string() })?;
        if self.settings.pins.is_empty() {
            return Ok(None);
        }
        let found: Vec<Pin> = certificates.iter().map(Certificate::pin).collect();
        match found.iter().find(|pin| self.settings.pins.contains(pin)) {
            Some(pin) => Ok(Some(*pin)),
            None => Err(DiscoveryError::PinMismatch { found }),
        }
    }

    fn server(&self, url: &str, trust: Trust) -> Result<Server, DiscoveryError> {
        Server::new(self.cx.dialer.clone(), url, trust).map_err(|source| DiscoveryError::Server { source })
    }
}

/// The CAs in a kubeconfig whose signature does not hold, for the error's sake.
fn unverified_cas(kubeconfig: &str) -> Option<Vec<Certificate>> {
    let pem = Kubeconfig::parse(kubeconfig).ok()?.cluster().ok()?.ca_pem().ok()??;
    Certificate::parse_pem(pem.as_bytes()).ok()
}
