//! What a registry asks for before it answers: a password, or a token bought from its token server.
//!
//! Source: the distribution project's token authentication, and OAuth2 refresh tokens as docker's registries take them.

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::credentials::{Credential, secret};
use super::error::RegistryError;
use super::http::{Call, Http, Origin};

/// Largest answer of a token server.
const TOKEN_BYTES: u64 = 256 << 10;

/// `WWW-Authenticate`, as far as it is understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct Bought {
    #[serde(default, deserialize_with = "secret")]
    token: Option<SecretString>,
    #[serde(default, deserialize_with = "secret")]
    access_token: Option<SecretString>,
}

impl Challenge {
    /// The first challenge of an answer that we can meet.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).find_map(parse)
    }
}

fn parse(text: &str) -> Option<Challenge> {
    let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    while let Some((name, after)) = rest.split_once('=') {
        // A scope has commas in its quotes.
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        match name.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            "scope" => scope = Some(value.to_owned()),
            _ => {}
        }
        rest = after;
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// The value of `Authorization` that meets a challenge; none: there is nothing to meet it with.
///
/// `plain`: whether a token server may be asked without TLS, as its registry is.
pub(super) async fn meet(
    http: &Http,
    challenge: &Challenge,
    credential: &Credential,
    registry: &str,
    plain: bool,
) -> Result<Option<HeaderValue>, RegistryError> {
    match challenge {
        Challenge::Basic => Ok(basic(credential)),
        Challenge::Bearer { realm, service, scope } => {
            let token = buy(http, realm, service.as_deref(), scope.as_deref(), credential, registry, plain).await?;
            secret_header(&format!("Bearer {}", token.expose_secret()))
                .map(Some)
                .ok_or_else(|| malformed(registry, "its token is no header's value"))
        }
    }
}

fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Password { user, password } = credential else { return None };
    let pair = format!("{user}:{}", password.expose_secret());
    secret_header(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
}

fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn malformed(registry: &str, reason: &str) -> RegistryError {
    RegistryError::Malformed { what: format!("the token server of `{registry}`"), reason: reason.to_owned() }
}

async fn buy(
    http: &Http,
    realm: &str,
    service: Option<&str>,
    scope: Option<&str>,
    credential: &Credential,
    registry: &str,
    plain: bool,
) -> Result<SecretString, RegistryError> {
    let uri: Uri = realm.parse().map_err(|_| malformed(registry, "its address is no URL"))?;
    let origin = Origin::of(&uri).ok_or_else(|| malformed(registry, "its address is no `https` URL"))?;
    if !(origin.tls || plain || origin.is_loopback()) {
        return Err(malformed(registry, "its address is not `https`: the password would be sent in clear"));
    }
    let mut pairs = Vec::new();
    pairs.extend(service.map(|service| ("service", service)));
    pairs.extend(scope.map(|scope| ("scope", scope)));
    let mut headers = HeaderMap::new();
    let (method, url, body) = match credential {
        Credential::Identity(token) => {
            pairs.extend([("grant_type", "refresh_token"), ("client_id", "mortise")]);
            pairs.push(("refresh_token", token.expose_secret()));
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form);
            (Method::POST, uri, Bytes::from(form_of(&pairs)))
        }
        Credential::Anonymous | Credential::Password { .. } => {
            if let Some(value) = basic(credential) {
                headers.insert(header::AUTHORIZATION, value);
            }
            let sign = if uri.query().is_some() { '&' } else { '?' };
            let url = format!("{realm}{sign}{}", form_of(&pairs)).parse();
            (Method::GET, url.map_err(|_| malformed(registry, "its address is no URL"))?, Bytes::new())
        }
    };
    let answer = http
        .exchange(Call { method, url: &url, headers, body, what: "a request for a token", limit: TOKEN_BYTES })
        .await?;
    match answer.status.as_u16() {
        200 => {}
        401 | 403 => {
            return Err(RegistryError::Unauthorized {
                endpoint: registry.to_owned(),
                what: "a token".into(),
                reason: match credential {
                    Credential::Anonymous => "docker's configuration has no login for it".into(),
                    _ => "the login of docker's configuration is not accepted".into(),
                },
            });
        }
        status => {
            let (endpoint, what) = (origin.to_string(), "a request for a token".into());
            return Err(RegistryError::Status { endpoint, what, status, message: "no token".into() });
        }
    }
    let bought: Bought =
        serde_json::from_slice(&answer.body).map_err(|_| malformed(registry, "its answer has no token"))?;
    bought.token.or(bought.access_token).ok_or_else(|| malformed(registry, "its answer has no token"))
}

fn form_of(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            Some(Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) })
        };
        for (text, challenge) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            ("Digest realm=x", None),
            ("Bearer service=\"x\"", None),
            ("Bearer realm=\"https://a/t\"", bearer("https://a/t", None, None)),
            (
                "Bearer realm=\"https://a/t?x=1\",service=\"r.example\",scope=\"repository:a/b:pull,push\",error=\"x\"",
                bearer("https://a/t?x=1", Some("r.example"), Some("repository:a/b:pull,push")),
            ),
            ("bearer realm=https://a/t, service=s", bearer("https://a/t", Some("s"), None)),
            ("Bearer realm=\"https://a", None),
        ] {
            assert_eq!(parse(text), challenge, "{text}");
        }
    }
}
