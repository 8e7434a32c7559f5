//! Joins by identity: the metadata of the machine, which its cloud answers, names the cluster, and the identity token of
//! its service account is the credential. Written for Google's form of the metadata; others differ in paths and headers.
//!
//! How to build and run it is in ../../README.md.

mod identity;

#[cfg_attr(target_family = "wasm", expect(unsafe_code, reason = "generated code"))]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit/discovery", world: "plugin", generate_all });
    // A native linker, which unit tests need, does not take the names of exports.
    #[cfg(target_family = "wasm")]
    export!(Plugin with_types_in self);
    #[cfg(target_family = "wasm")]
    use super::Plugin;
}

use bindings::exports::mortise::discovery::source::{Cluster, Credential, Error, Guest, Secret, Trust};
use bindings::mortise::host::http::{self, HeaderValue, Request};
use bindings::mortise::host::settings;

/// What the host reads before it runs anything.
#[cfg_attr(target_family = "wasm", expect(unsafe_code, reason = "a link section becomes a custom section"))]
#[cfg_attr(target_family = "wasm", unsafe(link_section = "mortise:manifest"))]
#[used]
static MANIFEST: [u8; include_bytes!("../plugin.yaml").len()] = *include_bytes!("../plugin.yaml");

/// Unless the settings say otherwise.
const METADATA: &str = "http://169.254.169.254/computeMetadata/v1";
/// As above.
const AUDIENCE: &str = "kubernetes";

struct Plugin;

impl Guest for Plugin {
    fn discover() -> Result<Cluster, Error> {
        let audience = settings::text("audience").unwrap_or_else(|| AUDIENCE.into());
        let endpoints = get("instance/attributes/kubernetes-endpoints")?;
        let authority = get("instance/attributes/kubernetes-ca")?;
        let token = get(&format!("instance/service-accounts/default/identity?audience={audience}"))?;
        let expires_at = identity::expires_at(&token);
        Ok(Cluster {
            endpoints: endpoints.split(',').map(|it| it.trim().to_owned()).collect(),
            trust: Trust::CertificateAuthority(authority),
            credential: Some(Credential { secret: Secret::BearerToken(token.trim().to_owned()), expires_at }),
            evidence: vec![("instance".into(), get("instance/id")?)],
            extra: Vec::new(),
        })
    }
}

/// One value of the metadata. Without it this machine has no cluster, and asking again does not help.
fn get(path: &str) -> Result<String, Error> {
    let url = format!("{}/{path}", settings::text("metadata").unwrap_or_else(|| METADATA.into()));
    let response = http::fetch(&Request {
        method: "GET".into(),
        url,
        headers: vec![("metadata-flavor".into(), HeaderValue::Text("Google".into()))],
        body: Vec::new(),
        timeout_ms: Some(2_000),
    })?;
    let error = |code: &str, message: String, retryable| Error { code: code.into(), message, retryable };
    match response.status {
        200 => String::from_utf8(response.body)
            .map_err(|_| error("invalid", format!("the metadata's `{path}` is no text"), false)),
        404 => Err(error("no-cluster", format!("the metadata has no `{path}`"), false)),
        status => Err(error("unavailable", format!("the metadata service answered {status}"), status >= 500)),
    }
}
