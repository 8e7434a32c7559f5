//! The requests of the distribution specification 1.1 that plugins need.

use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;

use super::credentials::{self, Credential};
use super::digest::Digest;
use super::error::RegistryError;
use super::http::{Call, Http, Origin};
use super::manifest::{DOCKER_MANIFEST, Descriptor, INDEX, Index, MANIFEST, parse};
use super::reference::Reference;

mod exchange;

use exchange::location;

/// Largest manifest or index; the specification asks registries to take 4 MiB.
pub(super) const MANIFEST_BYTES: u64 = 4 << 20;
/// Largest answer that is not content.
const ANSWER_BYTES: u64 = 1 << 20;

/// How a registry is spoken to.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Without TLS; loopback is spoken to so unless `ca_file` is there.
    pub plain_http: bool,
    /// Authorities to trust beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// Docker's configuration; unset: where docker has it.
    pub docker_config: Option<PathBuf>,
}

/// A client of one registry.
pub struct Client {
    http: Http,
    registry: String,
    origin: Origin,
    credential: Credential,
    /// Value of `Authorization` that the last challenge was met with.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest as it came.
pub struct Fetched {
    /// Of the content.
    pub digest: Digest,
    /// As the registry, or the manifest itself, says.
    pub media_type: String,
    /// The bytes the digest is of.
    pub content: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

impl Client {
    /// A client of the registry that a reference names. Connects to nothing yet; may ask a helper of docker's
    /// configuration for a password.
    ///
    /// # Errors
    ///
    /// [`RegistryError::CaFile`], [`RegistryError::Credentials`].
    pub fn new(reference: &Reference, options: &Options) -> Result<Self, RegistryError> {
        let registry = reference.registry();
        // Docker's own registry has another host than its name.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let bad = || RegistryError::Reference { text: reference.to_string(), reason: "its registry is no host" };
        let loopback = Origin::of_registry(host, false).ok_or_else(bad)?.is_loopback();
        let plain = options.plain_http || (loopback && options.ca_file.is_none());
        let origin = Origin::of_registry(host, !plain).ok_or_else(bad)?;
        let config = options.docker_config.clone().or_else(credentials::default_config);
        Ok(Self {
            http: Http::new(options.ca_file.as_deref())?,
            registry: registry.to_owned(),
            origin,
            credential: credentials::of_registry(config.as_deref(), registry)?,
            authorization: Mutex::default(),
        })
    }

    /// Reads a manifest. One that is asked for by digest has it.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let what = format!("manifest `{reference}`");
        let url = self.url(reference, &format!("manifests/{}", reference.identifier()))?;
        let accept = HeaderValue::from_str(&[MANIFEST, INDEX, DOCKER_MANIFEST].join(", ")).expect("types are ASCII");
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept)]);
        let call =
            Call { method: Method::GET, url: &url, headers, body: Bytes::new(), what: &what, limit: MANIFEST_BYTES };
        let answer = self.expect(call, &[StatusCode::OK]).await?;
        let digest = Digest::of(&answer.body);
        if let Some(expected) = reference.digest()
            && *expected != digest
        {
            return Err(RegistryError::Digest { what, expected: expected.clone(), found: digest });
        }
        let said = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let typed: Typed = parse(&what, &answer.body)?;
        let media_type = typed.media_type.or(said.map(str::to_owned)).unwrap_or_default();
        Ok(Fetched { digest, media_type, content: answer.body })
    }

    /// Reads a blob and checks its size and digest.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooLarge`] before anything is asked when the descriptor says more than `limit`.
    pub async fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        let what = format!("blob `{}`", descriptor.digest);
        if descriptor.size > limit {
            return Err(RegistryError::TooLarge { what, limit });
        }
        let url = self.url(reference, &format!("blobs/{}", descriptor.digest))?;
        let call = Call {
            method: Method::GET,
            url: &url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            what: &what,
            limit: descriptor.size,
        };
        let answer = self.expect(call, &[StatusCode::OK]).await?;
        verify(what, &descriptor.digest, answer.body)
    }

    /// Stores a blob unless the registry has it.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn push_blob(&self, reference: &Reference, content: Bytes) -> Result<(), RegistryError> {
        let digest = Digest::of(&content);
        let what = format!("blob `{digest}`");
        let url = self.url(reference, &format!("blobs/{digest}"))?;
        let head = Call {
            method: Method::HEAD,
            url: &url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            what: &what,
            limit: ANSWER_BYTES,
        };
        match self.expect(head, &[StatusCode::OK]).await {
            Ok(_) => return Ok(()),
            Err(RegistryError::NotFound { .. } | RegistryError::Unauthorized { .. }) => {}
            Err(error) => return Err(error),
        }
        let url = self.url(reference, "blobs/uploads/")?;
        let begin = Call {
            method: Method::POST,
            url: &url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            what: "an upload",
            limit: ANSWER_BYTES,
        };
        let answer = self.expect(begin, &[StatusCode::ACCEPTED]).await?;
        let target =
            location(&url, &answer.headers).filter(|to| self.may_go(to)).ok_or_else(|| RegistryError::Malformed {
                what: format!("the answer of `{}` to an upload", self.origin),
                reason: "it names no place that is `https`".into(),
            })?;
        let sign = if target.query().is_some() { '&' } else { '?' };
        let target = format!("{target}{sign}digest={digest}");
        let target: Uri = target.parse().map_err(|_| RegistryError::Malformed {
            what: format!("the answer of `{}` to an upload", self.origin),
            reason: "where to is no URL".into(),
        })?;
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))]);
        let put = Call { method: Method::PUT, url: &target, headers, body: content, what: &what, limit: ANSWER_BYTES };
        self.expect(put, &[StatusCode::CREATED]).await.map(|_| ())
    }

    /// Stores a manifest under the tag or digest of the reference. True: the registry keeps account of its subject.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        content: Bytes,
    ) -> Result<bool, RegistryError> {
        let what = format!("manifest `{reference}`");
        let url = self.url(reference, &format!("manifests/{}", reference.identifier()))?;
        let kind = HeaderValue::from_str(media_type).expect("types are ASCII");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
        let put = Call { method: Method::PUT, url: &url, headers, body: content, what: &what, limit: ANSWER_BYTES };
        let answer = self.expect(put, &[StatusCode::CREATED]).await?;
        Ok(answer.headers.contains_key("oci-subject"))
    }

    /// What refers to a manifest: by the registry's own account, and by the tag `sha256-<hex>` of registries that keep
    /// none.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; no referrers is no error.
    pub async fn referrers(&self, reference: &Reference, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let what = format!("list of what refers to `{digest}`");
        let url = self.url(reference, &format!("referrers/{digest}"))?;
        let call = Call {
            method: Method::GET,
            url: &url,
            headers: HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(INDEX))]),
            body: Bytes::new(),
            what: &what,
            limit: MANIFEST_BYTES,
        };
        match self.expect(call, &[StatusCode::OK]).await {
            // Some answer another page, or an empty list of another kind.
            Ok(answer) => {
                if let Ok(index) = serde_json::from_slice::<Index>(&answer.body) {
                    return Ok(index.manifests);
                }
            }
            Err(RegistryError::NotFound { .. } | RegistryError::Status { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(self.fallback_index(reference, digest).await?.manifests)
    }

    /// The index under the tag that stands in for the registry's own account; empty when there is none.
    async fn fallback_index(&self, reference: &Reference, digest: &Digest) -> Result<Index, RegistryError> {
        match self.manifest(&reference.at_tag(&fallback_tag(digest))).await {
            Ok(fetched) => parse("the list of referrers", &fetched.content),
            Err(error) if error.is_not_found() => Ok(Index::new(Vec::new())),
            Err(error) => Err(error),
        }
    }

    /// Stores a manifest that has a subject, and lists it by tag where the registry does not.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub(super) async fn push_referrer(
        &self,
        reference: &Reference,
        subject: &Digest,
        descriptor: Descriptor,
        content: Bytes,
    ) -> Result<(), RegistryError> {
        let listed = self.push_manifest(&reference.at_digest(&descriptor.digest), MANIFEST, content).await?;
        if listed {
            return Ok(());
        }
        let mut index = self.fallback_index(reference, subject).await?;
        if index.manifests.iter().all(|other| other.digest != descriptor.digest) {
            index.manifests.push(descriptor);
            let content = serde_json::to_vec(&index).expect("an index is written as JSON");
            self.push_manifest(&reference.at_tag(&fallback_tag(subject)), INDEX, content.into()).await?;
        }
        Ok(())
    }

    fn url(&self, reference: &Reference, rest: &str) -> Result<Uri, RegistryError> {
        let scheme = if self.origin.tls { "https" } else { "http" };
        let url = format!("{scheme}://{}/v2/{}/{rest}", self.origin, reference.repository());
        url.parse().map_err(|_| RegistryError::Reference { text: reference.to_string(), reason: "it makes no URL" })
    }
}

/// The tag that lists what refers to a digest, where the registry does not.
pub(super) fn fallback_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// The content, if it has the digest.
pub(super) fn verify(what: String, expected: &Digest, content: Bytes) -> Result<Bytes, RegistryError> {
    let found = Digest::of(&content);
    if found == *expected {
        Ok(content)
    } else {
        Err(RegistryError::Digest { what, expected: expected.clone(), found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one scripted exchange after the other on loopback: what each request begins with, whether it carries the
    /// token, and the answer. `{here}` in an answer is the server's address.
    async fn scripted(script: Vec<(&'static str, bool, String)>) -> (String, tokio::task::JoinHandle<()>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let address = here.clone();
        let served = tokio::spawn(async move {
            for (wanted, token, answer) in script {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                assert!(head.starts_with(wanted), "{wanted} was to come, not\n{head}");
                assert_eq!(head.contains("authorization: Bearer t0ken"), token, "{head}");
                let answer = answer.replace("{here}", &here).replacen("\r\n", "\r\nConnection: close\r\n", 1);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, served)
    }

    fn client(address: &str) -> (Client, Reference) {
        let reference: Reference = format!("{address}/vendor/gpu:1").parse().unwrap();
        let options = Options { docker_config: Some("/nowhere/config.json".into()), ..Options::default() };
        (Client::new(&reference, &options).unwrap(), reference)
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn challenge() -> String {
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer \
         realm=\"http://{here}/token\",service=\"r\",scope=\"repository:vendor/gpu:pull\"\r\nContent-Length: 0\r\n\r\n"
            .to_owned()
    }

    #[tokio::test]
    async fn a_token_is_bought_once_and_no_redirect_carries_it_elsewhere() {
        let blob = Descriptor::of("application/wasm", b"component");
        let (elsewhere, other) = scripted(vec![("GET /cdn/blob HTTP", false, ok("component"))]).await;
        let moved = format!("HTTP/1.1 307 Moved\r\nLocation: http://{elsewhere}/cdn/blob\r\nContent-Length: 0\r\n\r\n");
        let (address, served) = scripted(vec![
            ("GET /v2/vendor/gpu/manifests/1 HTTP", false, challenge()),
            ("GET /token?service=r&scope=repository%3Avendor%2Fgpu%3Apull HTTP", false, ok(r#"{"token":"t0ken"}"#)),
            ("GET /v2/vendor/gpu/manifests/1 HTTP", true, ok("{}")),
            ("GET /v2/vendor/gpu/blobs/sha256:", true, moved),
        ])
        .await;
        let (client, reference) = client(&address);
        assert_eq!(client.manifest(&reference).await.unwrap().digest, Digest::of(b"{}"));
        assert_eq!(client.blob(&reference, &blob, 100).await.unwrap(), "component");
        served.await.unwrap();
        other.await.unwrap();
    }

    #[tokio::test]
    async fn a_token_that_is_not_accepted_is_asked_for_once_more_and_not_forever() {
        let token = || ("GET /token?", false, ok(r#"{"access_token":"t0ken"}"#));
        let (address, served) =
            scripted(vec![("GET /v2/", false, challenge()), token(), ("GET /v2/", true, challenge())]).await;
        let (client, reference) = client(&address);
        let error = client.manifest(&reference).await.err().unwrap();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("t0ken"));
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_registry_that_keeps_account_of_referrers_is_believed() {
        let digest = Digest::of(b"plugin");
        let referrer = Descriptor::of(MANIFEST, b"signature");
        let index = serde_json::to_string(&Index::new(vec![referrer.clone()])).unwrap();
        let put = "HTTP/1.1 201 Created\r\nOCI-Subject: x\r\nContent-Length: 0\r\n\r\n".to_owned();
        let (address, served) = scripted(vec![
            ("GET /v2/vendor/gpu/referrers/sha256:", false, ok(&index)),
            ("PUT /v2/vendor/gpu/manifests/sha256:", false, put),
        ])
        .await;
        let (client, reference) = client(&address);
        assert_eq!(client.referrers(&reference, &digest).await.unwrap(), std::slice::from_ref(&referrer));
        // Not listed by tag as well: the script has no more requests.
        client.push_referrer(&reference, &digest, referrer, Bytes::new()).await.unwrap();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_is_read_only_as_far_as_it_was_announced() {
        let blob = Descriptor::of("application/wasm", b"component");
        let long = ok(&"x".repeat(1000));
        let (address, served) = scripted(vec![
            ("GET /v2/vendor/gpu/blobs/", false, long),
            ("GET /v2/vendor/gpu/blobs/", false, ok("cumponent")),
        ])
        .await;
        let (client, reference) = client(&address);
        let too_large = client.blob(&reference, &blob, 100).await.err().unwrap();
        assert!(matches!(too_large, RegistryError::TooLarge { .. }), "{too_large}");
        let changed = client.blob(&reference, &blob, 100).await.err().unwrap();
        assert!(matches!(changed, RegistryError::Digest { .. }), "{changed}");
        let announced = client.blob(&reference, &Descriptor { size: 101, ..blob }, 100).await.err().unwrap();
        assert!(matches!(announced, RegistryError::TooLarge { .. }), "{announced}");
        served.await.unwrap();
    }
}
