//! A writer that goes on meanwhile, and remembers what was acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use mortise::etcd::Credentials;
use prost::Message;
use tonic::Request;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// A hundred writes a second.
const PAUSE: Duration = Duration::from_millis(10);
/// A write that is not acknowledged within this time is given up, and may have been made.
const PATIENCE: Duration = Duration::from_secs(10);

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.RangeRequest`, linearizable as it stands.
#[derive(Clone, PartialEq, Message)]
struct Range {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    end: Vec<u8>,
    #[prost(bool, tag = "8")]
    keys_only: bool,
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(message, repeated, tag = "2")]
    pairs: Vec<Pair>,
}

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// `etcdserverpb.PutResponse`, of which nothing is read.
#[derive(Clone, PartialEq, Message)]
struct Done {}

async fn call<Q: Message + 'static, A: Message + Default + 'static>(
    channel: &Channel,
    call: &'static str,
    request: Q,
) -> Result<A, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(1 << 30);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(call);
    Ok(client.unary(Request::new(request), path, ProstCodec::default()).await?.into_inner())
}

async fn put(channel: &Channel, key: String, value: Vec<u8>) -> Result<(), tonic::Status> {
    call::<_, Done>(channel, "/etcdserverpb.KV/Put", Put { key: key.into_bytes(), value }).await.map(drop)
}

/// What was written.
pub(crate) struct Written {
    acknowledged: BTreeSet<String>,
    /// Longest time between two acknowledgements.
    pub(crate) longest_stall: Duration,
    pub(crate) failed: usize,
}

pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Written>,
}

impl Writer {
    pub(crate) fn start(credentials: Credentials, endpoint: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut channel = credentials.connect(&endpoint).await.expect("a connection");
            let mut written = Written { acknowledged: BTreeSet::new(), longest_stall: Duration::ZERO, failed: 0 };
            let mut last = Instant::now();
            for number in 0_u32.. {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let key = format!("w/{number:08}");
                match tokio::time::timeout(PATIENCE, put(&channel, key.clone(), vec![b'x'; 100])).await {
                    Ok(Ok(())) => {
                        written.acknowledged.insert(key);
                        written.longest_stall = written.longest_stall.max(last.elapsed());
                        last = Instant::now();
                    }
                    _ => {
                        written.failed += 1;
                        if let Ok(fresh) = credentials.connect(&endpoint).await {
                            channel = fresh;
                        }
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
            written
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Written {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("the writer ends")
    }
}

impl Written {
    /// Reads everything from a member and finds every acknowledged write.
    pub(crate) async fn assert_all_in(&self, credentials: &Credentials, endpoint: &str) {
        let channel = credentials.connect(endpoint).await.expect("a connection");
        let range = Range { key: b"w/".to_vec(), end: b"w0".to_vec(), keys_only: true };
        let found: Found = call(&channel, "/etcdserverpb.KV/Range", range).await.expect("an answer");
        let found: BTreeSet<_> = found.pairs.into_iter().map(|pair| String::from_utf8(pair.key).unwrap()).collect();
        let lost: Vec<_> = self.acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost at {endpoint}: {lost:?}");
        assert!(!self.acknowledged.is_empty());
    }
}

/// Fills the database with so many values of 100 KiB.
pub(crate) async fn fill(credentials: &Credentials, endpoint: &str, values: u32) {
    let channel = credentials.connect(endpoint).await.expect("a connection");
    for number in 0..values {
        put(&channel, format!("fill/{number}"), vec![b'x'; 100 << 10]).await.expect("it is written");
    }
}

/// Writes many small entries side by side: a long log.
pub(crate) async fn lengthen(credentials: &Credentials, endpoint: &str, entries: u32) {
    let channel = credentials.connect(endpoint).await.expect("a connection");
    let writes =
        futures::stream::iter((0..entries).map(|number| put(&channel, format!("log/{}", number % 100), vec![1])));
    let mut writes = futures::StreamExt::buffer_unordered(writes, 200);
    while let Some(written) = futures::StreamExt::next(&mut writes).await {
        written.expect("it is written");
    }
}
