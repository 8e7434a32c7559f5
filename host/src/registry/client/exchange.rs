//! One request of a client: who we are, where it is sent on to, and what a refusal says.

use std::sync::PoisonError;

use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde::Deserialize;

use super::Client;
use crate::output::printable;
use crate::registry::auth::{self, Challenge};
use crate::registry::credentials::Credential;
use crate::registry::error::RegistryError;
use crate::registry::http::{Answer, Call, Origin};

/// Redirects of one request: registries send for blobs elsewhere.
const HOPS: usize = 5;

/// The registry's own errors.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Client {
    /// Sends a request, meets a challenge once, follows redirects of reads, and takes only the statuses named.
    pub(super) async fn expect(&self, call: Call<'_>, good: &[StatusCode]) -> Result<Answer, RegistryError> {
        let (what, may_follow) = (call.what, call.method == Method::GET || call.method == Method::HEAD);
        let mut url = call.url.clone();
        let mut asked = false;
        let mut hops = 0;
        loop {
            // Only the registry itself learns who we are.
            let own = Origin::of(&url).is_some_and(|origin| origin == self.origin);
            let mut headers = call.headers.clone();
            let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(value) = known.filter(|_| own) {
                headers.insert(header::AUTHORIZATION, value);
            }
            let (method, body) = (call.method.clone(), call.body.clone());
            let answer = self.http.exchange(Call { method, url: &url, headers, body, ..call }).await?;
            if good.contains(&answer.status) {
                return Ok(answer);
            }
            if answer.status == StatusCode::UNAUTHORIZED && own && !asked {
                asked = true;
                let challenge = Challenge::of(&answer.headers).ok_or_else(|| self.refused(what, &answer))?;
                let plain = !self.origin.tls;
                let met = auth::meet(&self.http, &challenge, &self.credential, &self.registry, plain).await?;
                let Some(value) = met else { return Err(self.refused(what, &answer)) };
                *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                continue;
            }
            if answer.status.is_redirection() && may_follow && hops < HOPS {
                hops += 1;
                let next = location(&url, &answer.headers).filter(|next| self.may_go(next));
                url = next.ok_or_else(|| RegistryError::Malformed {
                    what: format!("the answer of `{}` to {what}", self.origin),
                    reason: "it sends for it to a place that is not `https`".into(),
                })?;
                continue;
            }
            return Err(match answer.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.refused(what, &answer),
                StatusCode::NOT_FOUND => {
                    RegistryError::NotFound { endpoint: self.origin.to_string(), what: what.to_owned() }
                }
                status => RegistryError::Status {
                    endpoint: self.origin.to_string(),
                    what: what.to_owned(),
                    status: status.as_u16(),
                    message: message(&answer.body),
                },
            });
        }
    }

    /// A redirect never leaves TLS, unless there is none to begin with.
    pub(super) fn may_go(&self, url: &Uri) -> bool {
        Origin::of(url).is_some_and(|origin| origin.tls || (!self.origin.tls && origin.host_equals(&self.origin)))
    }

    fn refused(&self, what: &str, answer: &Answer) -> RegistryError {
        let said = message(&answer.body);
        let reason = match self.credential {
            Credential::Anonymous => "docker's configuration has no login for it".to_owned(),
            _ if said.is_empty() => "the login of docker's configuration may not do this".to_owned(),
            _ => said,
        };
        RegistryError::Unauthorized { endpoint: self.registry.clone(), what: what.to_owned(), reason }
    }
}

/// `Location`, absolute or relative to the host.
pub(super) fn location(base: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let text = headers.get(header::LOCATION)?.to_str().ok()?;
    if text.starts_with('/') && !text.starts_with("//") {
        return format!("{}://{}{text}", base.scheme_str()?, base.authority()?).parse().ok();
    }
    text.parse().ok().filter(|uri: &Uri| uri.scheme().is_some() && uri.authority().is_some())
}

/// What the registry says of its error; short, printable.
fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => {
            let texts = errors.into_iter().map(|error| format!("{} {}", error.code, error.message).trim().to_owned());
            texts.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    printable(&text.chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_location_is_absolute_or_below_the_same_host() {
        let base: Uri = "https://r.example/v2/a/blobs/uploads/".parse().unwrap();
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_str(text).unwrap())]);
            location(&base, &headers).map(|uri| uri.to_string())
        };
        assert_eq!(of("/v2/x?y=1").as_deref(), Some("https://r.example/v2/x?y=1"));
        assert_eq!(of("https://s3.example/x").as_deref(), Some("https://s3.example/x"));
        assert_eq!(of("//evil.example/x"), None);
        assert_eq!(of("x"), None);
    }

    #[test]
    fn a_registrys_message_is_short_and_printable() {
        assert_eq!(message(br#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X"}]}"#), "DENIED no; X");
        let long = message("a\x1b[2J".repeat(400).as_bytes());
        assert!(!long.contains('\x1b'), "{long}");
    }
}
