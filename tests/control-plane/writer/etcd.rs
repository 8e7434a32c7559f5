//! As much of an etcd client as the writer needs: JSON over HTTP/1.1, one connection a member.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use mortise_cluster::Cluster;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::history::{self, Contents, Member, Read};

const PKI: &str = "/etc/kubernetes/pki/etcd";
/// Keys in one answer to a request for all.
const PAGE: usize = 2000;

/// What a member's certificate is checked with, and the writer's own.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// With the files of a control plane; read now, for the node may be gone later.
    pub(super) fn of(cluster: &Cluster, node: &str) -> Result<Self> {
        let read = |name: &str| cluster.read(node, &format!("{PKI}/{name}"));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&read("ca.crt")?)?)?;
        let chain = vec![CertificateDer::from_pem_slice(&read("healthcheck-client.crt")?)?];
        let key = PrivateKeyDer::from_pem_slice(&read("healthcheck-client.key")?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// A member's address for clients.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(super) url: String,
    address: SocketAddr,
    rests_until: Option<Instant>,
}

impl Endpoint {
    /// From `https://ADDRESS:PORT`.
    pub(super) fn new(url: &str) -> Result<Self> {
        let address = url.strip_prefix("https://").and_then(|text| text.parse().ok());
        Ok(Self { url: url.to_owned(), address: address.with_context(|| format!("`{url}`"))?, rests_until: None })
    }

    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| until > Instant::now())
    }

    pub(super) fn rest_until(&mut self, until: Instant) {
        self.rests_until = Some(until);
    }
}

/// What the header of an answer says.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) cluster_id: u64,
    pub(super) revision: u64,
    /// Whether the transaction's condition held.
    pub(super) succeeded: bool,
}

/// Connections of one lane.
pub(super) struct Client {
    tls: Tls,
    connections: HashMap<String, SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(super) fn new(tls: &Tls) -> Self {
        Self { tls: tls.clone(), connections: HashMap::new() }
    }

    /// One request, connection included, within `limit`. A connection that failed or was slow is not used again.
    async fn post(&mut self, endpoint: &Endpoint, path: &str, body: &Value, limit: Duration) -> Result<Value> {
        let kept = self.connections.remove(&endpoint.url).filter(|connection| !connection.is_closed());
        let asked = async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => connect(&self.tls, endpoint).await?,
            };
            let request = hyper::Request::post(path)
                .header(hyper::header::HOST, endpoint.address.to_string())
                .body(Full::new(Bytes::from(body.to_string())))?;
            connection.ready().await?;
            let response = connection.send_request(request).await?;
            let status = response.status();
            let text = response.into_body().collect().await?.to_bytes();
            if !status.is_success() {
                bail!("{status}: {}", String::from_utf8_lossy(&text));
            }
            Ok((connection, serde_json::from_slice(&text)?))
        };
        let (connection, answer) =
            tokio::time::timeout(limit, asked).await.with_context(|| format!("no answer within {limit:?}"))??;
        self.connections.insert(endpoint.url.clone(), connection);
        Ok(answer)
    }

    pub(super) async fn put(&mut self, at: &Endpoint, key: &str, value: &str, limit: Duration) -> Result<Answer> {
        header(&self.post(at, "/v3/kv/put", &put(key, value), limit).await?)
    }

    /// The write of a lane: creates its key and raises the register, if that is lower.
    pub(super) async fn raise(
        &mut self,
        at: &Endpoint,
        lane: usize,
        sequence: usize,
        limit: Duration,
    ) -> Result<Answer> {
        let (register, value) = (history::register(lane), history::value(sequence));
        let transaction = json!({
            "compare": [{"key": encode(&register), "target": "VALUE", "result": "LESS", "value": encode(&value)}],
            "success": [{"request_put": put(&register, &value)},
                {"request_put": put(&history::key(lane, sequence), &value)}],
        });
        header(&self.post(at, "/v3/kv/txn", &transaction, limit).await?)
    }

    /// A register, as of now: linearizable.
    pub(super) async fn read(&mut self, at: &Endpoint, key: &str, limit: Duration) -> Result<Read> {
        let answer = self.post(at, "/v3/kv/range", &json!({"key": encode(key)}), limit).await?;
        let Answer { cluster_id, revision, .. } = header(&answer)?;
        let value = answer["kvs"][0]["value"].as_str().map(decode).transpose()?;
        Ok(Read { cluster_id, revision, value })
    }

    /// Every key below `prefix`, read through this member.
    pub(super) async fn all(&mut self, at: &Endpoint, prefix: &str, limit: Duration) -> Result<Contents> {
        let (mut from, mut revision) = (prefix.to_owned(), 0);
        let mut contents = Contents::default();
        loop {
            // All pages of one revision. The end of a prefix is the prefix with its last byte raised.
            let request = json!({"key": encode(&from), "range_end": encode(&format!("{}0", prefix.trim_end_matches('/'))),
                "limit": PAGE, "revision": revision});
            let answer = self.post(at, "/v3/kv/range", &request, limit).await?;
            revision = if revision == 0 { header(&answer)?.revision } else { revision };
            for pair in answer["kvs"].as_array().into_iter().flatten() {
                let key = decode(pair["key"].as_str().context("a pair has a key")?)?;
                from = format!("{key}\0");
                contents.insert(key, decode(pair["value"].as_str().unwrap_or_default())?);
            }
            if answer["more"] != true {
                return Ok(contents);
            }
        }
    }

    /// Cluster id and members, as this member knows them.
    pub(super) async fn members(&mut self, at: &Endpoint, limit: Duration) -> Result<(u64, Vec<Member>)> {
        let answer = self.post(at, "/v3/cluster/member/list", &json!({"linearizable": false}), limit).await?;
        let members = answer["members"].as_array().context("there are members")?.iter().map(|member| {
            let first = |list: &str| member[list][0].as_str().map(str::to_owned);
            Ok(Member {
                id: number(&member["ID"])?,
                peer_url: first("peerURLs").context("a member has a peer URL")?,
                client_url: first("clientURLs"),
                is_learner: member["isLearner"] == true,
            })
        });
        Ok((header(&answer)?.cluster_id, members.collect::<Result<_>>()?))
    }
}

async fn connect(tls: &Tls, endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>> {
    let stream = tokio::net::TcpStream::connect(endpoint.address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(endpoint.address.ip().into());
    let stream = tls.0.connect(name, stream).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection; whoever sends is told.
    tokio::spawn(connection);
    Ok(sender)
}

fn put(key: &str, value: &str) -> Value {
    json!({"key": encode(key), "value": encode(value)})
}

fn header(answer: &Value) -> Result<Answer> {
    let header = &answer["header"];
    Ok(Answer {
        cluster_id: number(&header["cluster_id"])?,
        // A list of members has none.
        revision: number(&header["revision"]).unwrap_or(0),
        succeeded: answer["succeeded"] == true,
    })
}

/// 64 bits are strings in JSON.
fn number(value: &Value) -> Result<u64> {
    value.as_str().and_then(|text| text.parse().ok()).with_context(|| format!("no number: {value}"))
}

fn encode(text: &str) -> String {
    BASE64.encode(text)
}

fn decode(text: &str) -> Result<String> {
    Ok(String::from_utf8(BASE64.decode(text)?)?)
}
