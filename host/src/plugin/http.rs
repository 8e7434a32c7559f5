//! The HTTP client that plugins use through the broker: one request, one answer, each bounded.
//!
//! The URL must match a grant, its name is resolved once and each address is looked at ([`dial`]), with a proxy or without. Redirects are not
//! followed: a plugin that follows one asks again, and the broker looks again. What frames a message is never the
//! guest's to say.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::broker::{Refusal, failed};
use super::dial;
use super::grants::{Effective, HttpAllowance, HttpUrl, METHODS, NetHost, Scheme, SecretUse, is_framing};
use super::limits::{
    HTTP_ANSWER_HEADER_BYTES, HTTP_ANSWER_HEADERS, HTTP_HEADER_BYTES, HTTP_HEADER_VALUE, HTTP_HEADERS, HTTP_TIME,
    HTTP_TIME_MAX,
};
use super::probe::server_name;
use super::secret::{self, SecretBytes, Vault};
use super::wire::Bytes;
use crate::api::{Stream, tls};
use crate::facts::HostError;
use crate::network::Network;
use crate::output::printable;

/// Longest text before a secret in a header.
const PREFIX_BYTES: usize = 64;
/// Longest text of an error that comes from elsewhere.
const REASON_CHARS: usize = 300;

/// `request` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpRequest {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Vec<(String, HeaderText)>,
    pub(super) body: Bytes,
    pub(super) timeout_ms: Option<u32>,
}

/// `header-value` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum HeaderText {
    Text(String),
    Secret { name: String, prefix: String },
}

/// `response` of the WIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Bytes)>,
    pub(super) body: Bytes,
}

/// Sends a request that is granted and reads the whole answer.
///
/// # Errors
///
/// As the WIT says.
pub(super) async fn fetch(
    network: &dyn Network,
    grants: &Effective,
    vault: &Vault,
    request: &HttpRequest,
) -> Result<HttpAnswer, Refusal> {
    let asked = request.timeout_ms.map_or(HTTP_TIME, |it| Duration::from_millis(it.max(1).into()));
    let most = asked.min(HTTP_TIME_MAX);
    match tokio::time::timeout(most, exchange(network, grants, vault, request)).await {
        Ok(result) => result,
        Err(_) => Err(HostError::timeout(format!("no whole answer within {} ms", most.as_millis())).into()),
    }
}

async fn exchange(
    network: &dyn Network,
    grants: &Effective,
    vault: &Vault,
    request: &HttpRequest,
) -> Result<HttpAnswer, Refusal> {
    let HttpRequest { method, url, .. } = request;
    if !METHODS.contains(&method.as_str()) {
        return Err(HostError::invalid(format!("`{}` is no method that can be sent", shown(method))).into());
    }
    let url: HttpUrl = url.parse().map_err(|error| HostError::invalid(format!("the URL {error}")))?;
    let allowance = grants.http(method, &url)?;
    if request.body.0.len() as u64 > allowance.max_body_bytes {
        let message =
            format!("a body of {} bytes; the grant allows {}", request.body.0.len(), allowance.max_body_bytes);
        return Err(failed("too-large", message).into());
    }
    verify_headers(&request.headers)?;
    let (headers, secrets) = headers(grants, vault, &url, &request.headers).await?;
    let mut message = Request::new(Full::new(bytes::Bytes::copy_from_slice(&request.body.0)));
    *message.method_mut() = method.parse().expect("the methods of a grant are methods");
    *message.uri_mut() =
        url.path_and_query().parse().map_err(|_| HostError::invalid("the URL has a malformed path or query"))?;
    *message.headers_mut() = headers;

    let stream = connect(network, &url, &allowance).await?;
    let stream: Box<dyn Stream> = match url.scheme {
        Scheme::Http => Box::new(stream),
        Scheme::Https => {
            let connector = TlsConnector::from(Arc::new(config(network)));
            let connected = connector.connect(server_name(&url.host)?, stream).await;
            Box::new(connected.map_err(|error| {
                let problem = tls::problem(&error).to_string();
                HostError::unavailable(format!("no trust in `{}`: {}", url.authority(), shown(&problem)))
            })?)
        }
    };
    let answer = send(stream, message, &allowance).await?;
    without(answer, &secrets, &allowance)
}

/// Directly, or through the environment's proxy. That is for https alone: plain http would show it everything.
async fn connect(network: &dyn Network, url: &HttpUrl, allowance: &HttpAllowance) -> Result<TcpStream, Refusal> {
    let proxy = match url.scheme {
        Scheme::Https => network.proxy_for(&url.host.to_string(), url.port),
        Scheme::Http => None,
    };
    if let (Some(proxy), NetHost::Name(name)) = (&proxy, &url.host)
        && allowance.leaves_names_to_proxy()
    {
        let tunnel = dial::through(network, proxy, &format!("{name}:{}", url.port)).await;
        return tunnel.map_err(|error| {
            HostError { retryable: true, ..HostError::unavailable(format!("cannot connect: {error}")) }.into()
        });
    }
    let allows = |address| allowance.allows_address(address);
    match dial::dial(network, &url.host, url.port, proxy.as_ref(), allows).await {
        Ok(dialled) => Ok(dialled.stream),
        Err(Refusal::Failed(error)) if error.code == "not-found" && proxy.is_some() => {
            let line = allowance.line_for_proxy();
            let message = format!("{}; the proxy looks it up where the operator allows {line}", error.message);
            Err(HostError { message, ..error }.into())
        }
        Err(refusal) => Err(refusal),
    }
}

fn config(network: &dyn Network) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(network.roots()).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn shown(text: &str) -> String {
    printable(&text.chars().take(REASON_CHARS).collect::<String>())
}

/// Looks at names and lengths before any secret is read.
fn verify_headers(headers: &[(String, HeaderText)]) -> Result<(), HostError> {
    if headers.len() > HTTP_HEADERS {
        return Err(HostError::invalid(format!("{} headers; {HTTP_HEADERS} are allowed", headers.len())));
    }
    let mut total = 0;
    for (name, value) in headers {
        let plain = HeaderName::from_bytes(name.as_bytes()).is_ok_and(|it| !is_framing(it.as_str()));
        if !plain {
            let message = format!("`{}` is no header that a plugin may set", shown(name));
            return Err(HostError::invalid(message));
        }
        let (text, most) = match value {
            HeaderText::Text(text) => (text, HTTP_HEADER_VALUE),
            HeaderText::Secret { name, prefix } => {
                secret::verify_name(name)?;
                (prefix, PREFIX_BYTES)
            }
        };
        if text.len() > most || HeaderValue::from_str(text).is_err() {
            let message = format!("the header `{}` is longer than {most} bytes or not visible ASCII", shown(name));
            return Err(HostError::invalid(message));
        }
        total += name.len() + text.len();
    }
    if total > HTTP_HEADER_BYTES {
        return Err(HostError::invalid(format!("{total} bytes of headers; {HTTP_HEADER_BYTES} are allowed")));
    }
    Ok(())
}

/// What is sent, and the secrets in it. All are granted before the first is read.
async fn headers(
    grants: &Effective,
    vault: &Vault,
    url: &HttpUrl,
    asked: &[(String, HeaderText)],
) -> Result<(HeaderMap, Vec<SecretBytes>), Refusal> {
    for (header, value) in asked {
        if let HeaderText::Secret { name, .. } = value {
            grants.secret(name, SecretUse::Header { url, header })?;
        }
    }
    let mut headers = HeaderMap::new();
    let mut secrets = Vec::new();
    let host = HeaderValue::from_str(&url.authority()).expect("a checked host and a port are visible ASCII");
    headers.insert(HOST, host);
    for (header, value) in asked {
        let name = HeaderName::from_bytes(header.as_bytes()).expect("verified above");
        let value = match value {
            HeaderText::Text(text) => HeaderValue::from_str(text).expect("verified above"),
            HeaderText::Secret { name, prefix } => {
                let secret = vault.read(name).await?;
                let text = zeroize::Zeroizing::new([prefix.as_bytes(), secret.expose()].concat());
                let value = HeaderValue::from_bytes(&text)
                    .map_err(|_| HostError::unavailable(format!("the secret `{name}` does not fit into a header")));
                secrets.push(secret);
                let mut value = value?;
                value.set_sensitive(true);
                value
            }
        };
        headers.append(name, value);
    }
    if !headers.contains_key(USER_AGENT) {
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mortise/", env!("CARGO_PKG_VERSION"))));
    }
    Ok((headers, secrets))
}

/// Drives connection and exchange together; dropped, it closes the connection.
async fn send(
    stream: Box<dyn Stream>,
    message: Request<Full<bytes::Bytes>>,
    allowance: &HttpAllowance,
) -> Result<HttpAnswer, HostError> {
    let mut builder = http1::Builder::new();
    builder.max_headers(HTTP_ANSWER_HEADERS).max_buf_size(HTTP_ANSWER_HEADER_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let exchange = async {
        let answer = sender.send_request(message).await.map_err(|error| broken(&error))?;
        read(answer, allowance.max_response_bytes).await
    };
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What has arrived before the end is still to be read; what is missing is an error of the exchange.
        _ = &mut connection => exchange.await,
    }
}

async fn read(answer: Response<Incoming>, most: u64) -> Result<HttpAnswer, HostError> {
    let too_large =
        || failed("too-large", format!("the answer's body has more than {most} bytes; the grant allows no more"));
    let (head, mut incoming) = answer.into_parts();
    let status = head.status.as_u16();
    if !(200..=599).contains(&status) {
        return Err(HostError::unavailable(format!("an answer with status {status}")));
    }
    // The client's buffer may take more in one read than it is told.
    let head_bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if head_bytes > HTTP_ANSWER_HEADER_BYTES {
        return Err(failed("too-large", format!("the answer has {head_bytes} bytes of headers")));
    }
    // A server that says how much it will send need not send it.
    if incoming.size_hint().lower() > most {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Ok(data) = frame.into_data() {
            if (body.len() + data.len()) as u64 > most {
                return Err(too_large());
            }
            body.extend_from_slice(&data);
        }
    }
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), Bytes(value.as_bytes().to_vec())));
    Ok(HttpAnswer { status, headers: headers.collect(), body: Bytes(body) })
}

fn broken(error: &hyper::Error) -> HostError {
    if error.is_parse_too_large() {
        let message = format!("the answer's headers exceed {HTTP_ANSWER_HEADERS} or {HTTP_ANSWER_HEADER_BYTES} bytes");
        return failed("too-large", message);
    }
    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        text = format!("{text}: {cause}");
    }
    let message = format!("no whole answer: {}", shown(&text));
    HostError { retryable: !error.is_parse(), ..HostError::unavailable(message) }
}

/// The answer without the secrets that went out. The mark may be longer than what it stands for.
fn without(answer: HttpAnswer, secrets: &[SecretBytes], allowance: &HttpAllowance) -> Result<HttpAnswer, Refusal> {
    if secrets.is_empty() {
        return Ok(answer);
    }
    let clean = |bytes: Bytes| Bytes(secret::cut(bytes.0, secrets));
    let headers: Vec<_> = answer.headers.into_iter().map(|(name, value)| (name, clean(value))).collect();
    let body = clean(answer.body);
    let head: usize = headers.iter().map(|(_, value)| value.0.len()).sum();
    if body.0.len() as u64 > allowance.max_response_bytes || head > HTTP_ANSWER_HEADER_BYTES {
        return Err(failed("too-large", "the answer repeats a secret too often".into()).into());
    }
    Ok(HttpAnswer { status: answer.status, headers, body })
}
