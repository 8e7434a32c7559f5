//! Decisions about requests and probes: first the target, then each address it leads to.

use std::net::IpAddr;

use super::super::network::names_address;
use super::super::{
    AddressClass, AddressScope, Grant, Grants, HttpGrant, HttpUrl, METHODS, Probe, ProbeGrant, UrlPrefix, address_class,
};
use super::{Denial, DeniedBy, Effective};
use crate::plugin::limits::{HTTP_BODY, HTTP_RESPONSE};

/// A request that may be sent, once its address is allowed, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAllowance {
    /// Largest body to send.
    pub max_body_bytes: u64,
    /// Largest body to receive.
    pub max_response_bytes: u64,
    reach: Reach<HttpGrant>,
}

/// A probe that may be made, once its address is allowed, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAllowance {
    reach: Reach<ProbeGrant>,
}

/// Which addresses a name may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reach<G> {
    /// The grant it rests on, as the manifest has it.
    grant: G,
    /// What each side says of addresses.
    scopes: Vec<(DeniedBy, AddressScope)>,
    /// Never, wherever it leads from.
    forbidden: Vec<(String, AddressClass)>,
}

/// Bounds of one grant of one side.
#[derive(Debug, Clone)]
struct Bounds {
    scope: AddressScope,
    body: u64,
    response: u64,
}

impl Effective {
    /// Decides about a request, or about the next one after a redirect.
    ///
    /// The addresses that the host leads to must then be asked for one by one: [`HttpAllowance::allows_address`].
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn http(&self, method: &str, url: &HttpUrl) -> Result<HttpAllowance, Box<Denial>> {
        let what = format!("`{}` of `{}`", method.escape_debug(), shown(url));
        if !METHODS.contains(&method) {
            let (line, flag, by) = (None, None, DeniedBy::Always);
            return Err(Box::new(Denial { what, line, flag, by, optional: false }));
        }
        let asked = HttpGrant {
            url: UrlPrefix::of(url),
            methods: vec![method.into()],
            max_body: None,
            max_response: None,
            scope: AddressScope::default(),
            reason: None,
            optional: false,
        };
        let fits = |it: &&HttpGrant| it.covers(&asked);
        // The widest of several that fit; what is taken is one grant of each side, never parts of two.
        let best = |grants: &Grants| {
            let key = |it: &&HttpGrant| (rank(it.scope), it.max_response, it.max_body);
            grants.http.iter().filter(fits).max_by_key(key).cloned()
        };
        let wanted = best(&self.wanted);
        if let Some(by) = self.refusal(Grant::Http(&asked)) {
            return Err(Denial::of(what, Grant::Http(wanted.as_ref().unwrap_or(&asked)), by));
        }
        let bounds = |it: &HttpGrant, most: (u64, u64)| Bounds {
            scope: it.scope,
            body: it.max_body.unwrap_or(most.0),
            response: it.max_response.unwrap_or(most.1),
        };
        let grant = wanted.unwrap_or(asked.clone());
        let own = bounds(&grant, (HTTP_BODY, HTTP_RESPONSE));
        let upper: Vec<Bounds> =
            self.upper().filter_map(|it| best(it).map(|it| bounds(&it, (u64::MAX, u64::MAX)))).collect();
        Ok(HttpAllowance {
            max_body_bytes: upper.iter().map(|it| it.body).fold(own.body, u64::min),
            max_response_bytes: upper.iter().map(|it| it.response).fold(own.response, u64::min),
            reach: self.reach(grant, std::iter::once(own.scope).chain(upper.into_iter().map(|it| it.scope))),
        })
    }

    /// Decides about a probe. The addresses must then be asked for one by one: [`ProbeAllowance::allows_address`].
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn probe(&self, probe: &Probe) -> Result<ProbeAllowance, Box<Denial>> {
        let asked = ProbeGrant { probe: probe.clone(), scope: AddressScope::default(), reason: None, optional: false };
        let best = |grants: &Grants| {
            grants.probe.iter().filter(|it| it.covers(&asked)).max_by_key(|it| rank(it.scope)).cloned()
        };
        let wanted = best(&self.wanted);
        if let Some(by) = self.refusal(Grant::Probe(&asked)) {
            let what = format!("probing {} `{}`", probe.kind(), probe.target());
            return Err(Denial::of(what, Grant::Probe(wanted.as_ref().unwrap_or(&asked)), by));
        }
        let grant = wanted.unwrap_or(asked.clone());
        let upper = self.upper().filter_map(best).map(|it| it.scope);
        let scopes: Vec<_> = std::iter::once(grant.scope).chain(upper).collect();
        Ok(ProbeAllowance { reach: self.reach(grant, scopes.into_iter()) })
    }

    fn reach<G>(&self, grant: G, scopes: impl Iterator<Item = AddressScope>) -> Reach<G> {
        let place = self.ceiling.list.as_ref().map(|(place, _)| place.clone()).unwrap_or_default();
        let sides = [DeniedBy::Manifest, DeniedBy::Operator, DeniedBy::Policy(place)];
        let forbidden = self.ceiling.addresses.clone();
        Reach { grant, scopes: sides.into_iter().zip(scopes).collect(), forbidden }
    }
}

impl HttpAllowance {
    /// Whether the environment's proxy may look the name up and judge where it leads: the operator says so, and the site's
    /// policy, where it has a list. Classes of addresses that a policy forbids are then out of sight here, so that such a
    /// policy has to say it itself.
    pub fn leaves_names_to_proxy(&self) -> bool {
        let scopes = &self.reach.scopes;
        let above = |by: &DeniedBy| *by != DeniedBy::Manifest;
        let by_policy = scopes.iter().any(|(by, scope)| matches!(by, DeniedBy::Policy(_)) && scope.proxy);
        scopes.iter().all(|(by, scope)| scope.proxy || !above(by)) && (self.reach.forbidden.is_empty() || by_policy)
    }

    /// The line that would let it.
    pub fn line_for_proxy(&self) -> String {
        let mut needed = self.reach.grant.clone();
        needed.scope.proxy = true;
        needed.line()
    }

    /// Decides about an address that is about to be dialled.
    ///
    /// # Errors
    ///
    /// [`Denial`], with the grant that would allow it.
    pub fn allows_address(&self, address: IpAddr) -> Result<(), Box<Denial>> {
        let grant = &self.reach.grant;
        let Err((by, change)) = self.reach.decide(address, &grant.url.url().host) else { return Ok(()) };
        let what = leading(&grant.url.url().host.to_string(), address);
        let mut needed = grant.clone();
        match change {
            Change::Scope(scope) => needed.scope = scope,
            Change::Host => needed.url = grant.url.at(address),
            Change::None => {
                return Err(Box::new(Denial { what, line: None, flag: None, by, optional: grant.optional }));
            }
        }
        Err(Denial::of(what, Grant::Http(&needed), by))
    }
}

impl ProbeAllowance {
    /// Decides about an address that is about to be dialled.
    ///
    /// # Errors
    ///
    /// [`Denial`], with the grant that would allow it.
    pub fn allows_address(&self, address: IpAddr) -> Result<(), Box<Denial>> {
        let grant = &self.reach.grant;
        // What a look-up shows is nowhere dialled.
        let Some(host) = grant.probe.host() else { return Ok(()) };
        let Err((by, change)) = self.reach.decide(address, host) else { return Ok(()) };
        let what = leading(&host.to_string(), address);
        let mut needed = grant.clone();
        match change {
            Change::Scope(scope) => needed.scope = scope,
            Change::Host => needed.probe = grant.probe.at(address),
            Change::None => {
                return Err(Box::new(Denial { what, line: None, flag: None, by, optional: grant.optional }));
            }
        }
        Err(Denial::of(what, Grant::Probe(&needed), by))
    }
}

/// What a grant would need to allow an address.
enum Change {
    /// These flags.
    Scope(AddressScope),
    /// The address itself in the place of the name.
    Host,
    /// Nothing helps.
    None,
}

impl<G> Reach<G> {
    fn decide(&self, address: IpAddr, host: &super::super::NetHost) -> Result<(), (DeniedBy, Change)> {
        let class = address_class(address);
        if let Some((place, _)) = self.forbidden.iter().find(|(_, it)| *it == class) {
            return Err((DeniedBy::Policy(place.clone()), Change::None));
        }
        if class == AddressClass::Nowhere {
            return Err((DeniedBy::Always, Change::None));
        }
        if names_address(host, address) {
            return Ok(());
        }
        let Some((by, _)) = self.scopes.iter().find(|(_, scope)| !scope.allows(class)) else { return Ok(()) };
        let own = self.scopes.first().map(|(_, scope)| *scope).unwrap_or_default();
        Err((
            by.clone(),
            match class {
                AddressClass::Private => Change::Scope(AddressScope { private: true, ..own }),
                AddressClass::LinkLocal | AddressClass::Metadata => {
                    Change::Scope(AddressScope { link_local: true, ..own })
                }
                _ => Change::Host,
            },
        ))
    }
}

/// How much a scope opens.
fn rank(scope: AddressScope) -> u8 {
    u8::from(scope.private) + 2 * u8::from(scope.link_local) + 4 * u8::from(scope.proxy)
}

/// A URL without its query, which may hold what the plugin knows.
fn shown(url: &HttpUrl) -> String {
    UrlPrefix::of(url).to_string().escape_debug().to_string()
}

fn leading(host: &str, address: IpAddr) -> String {
    format!("dialling `{address}` ({}), where `{host}` leads,", address_class(address).describe())
}
