//! The TCP balancer behind the control plane's name: round robin over the nodes whose API server is ready.
//!
//! A connection ends when its API server is found dead, so that a client need not wait for its own time-out. The settings
//! are one file, looked at before every decision, so a change counts at once, also for connections that are open. The delay stands in for distance: bytes leave that much later than they
//! came, each way, and a new connection costs one round trip more, as its handshake would.

mod health;

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::health::{Backends, Health};
use crate::state::{self, API_PORT, ClusterName, ENDPOINT_ADDRESS};

/// A node that does not even refuse within this is left alone for [`REST`].
const CONNECT_LIMIT: Duration = Duration::from_millis(300);
const REST: Duration = Duration::from_secs(2);
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks on the way in one direction; beyond it the sender waits.
const CHUNKS_IN_FLIGHT: usize = 256;

/// What the balancer does, as kept in the cluster's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Nodes that may be control planes; one that is not refuses, and is passed over.
    pub(crate) backends: Vec<Ipv4Addr>,
    /// Delay each way.
    pub(crate) delay_milliseconds: u64,
}

impl Settings {
    fn path(cluster: &ClusterName) -> PathBuf {
        cluster.directory().join("balancer.json")
    }

    /// Reads, changes and writes the settings; one writer at a time.
    pub(crate) fn change(cluster: &ClusterName, change: impl FnOnce(&mut Self)) -> Result<()> {
        let path = Self::path(cluster);
        let lock = fs::File::create(path.with_extension("lock"))
            .with_context(|| format!("locking `{}`: is cluster `{}` up?", path.display(), cluster.as_str()))?;
        lock.lock().context("locking the balancer's settings")?;
        let mut settings: Self = state::read_json(&path)?.unwrap_or_default();
        change(&mut settings);
        state::write_json(&path, &settings)
    }
}

/// The settings file with what was last read from it.
struct Watched {
    path: PathBuf,
    last: Mutex<(u64, i64, Settings)>,
}

impl Watched {
    /// The settings now; an unreadable file leaves the last ones in force.
    fn current(&self) -> Settings {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(found) = fs::metadata(&self.path)
            && (found.ino(), found.mtime_nsec()) != (last.0, last.1)
            && let Ok(Some(settings)) = state::read_json(&self.path)
        {
            *last = (found.ino(), found.mtime_nsec(), settings);
        }
        last.2.clone()
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.current().delay_milliseconds)
    }
}

/// Serves the cluster's endpoint until killed.
pub(crate) fn serve(cluster: &ClusterName) -> Result<ExitCode> {
    let settings = Arc::new(Watched { path: Settings::path(cluster), last: Mutex::default() });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let address = SocketAddrV4::new(ENDPOINT_ADDRESS, API_PORT);
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        let backends = Arc::new(Backends::default());
        tokio::spawn(Arc::clone(&backends).look_after(Arc::clone(&settings)));
        let mut turn = Turn::default();
        loop {
            let (client, _) = listener.accept().await.context("accepting a connection")?;
            let Some((backend, server)) = turn.connect(&backends.eligible(&settings.current().backends)).await else {
                continue;
            };
            let (settings, backends) = (Arc::clone(&settings), Arc::clone(&backends));
            tokio::spawn(async move {
                tokio::select! {
                    () = forward(client, server, settings) => {}
                    () = death_of(backend, &backends) => {}
                }
            });
        }
    })
}

/// Ends when a backend that was ready is found dead; never, where it was not.
async fn death_of(backend: Ipv4Addr, backends: &Backends) {
    let Some(mut health) = backends.follow(backend) else { return std::future::pending().await };
    // Before the first API server is ready, connections are tried with those that are not.
    if health.wait_for(|health| *health == Health::Ready).await.is_ok() {
        // One that is not looked after any more is gone from the settings.
        let _ = health.wait_for(|health| *health == Health::Dead).await;
    }
}

/// Whose turn it is, and who is better left alone for now.
#[derive(Default)]
struct Turn {
    next: usize,
    resting: HashMap<Ipv4Addr, Instant>,
}

impl Turn {
    async fn connect(&mut self, backends: &[Ipv4Addr]) -> Option<(Ipv4Addr, TcpStream)> {
        for offset in 0..backends.len() {
            let index = (self.next + offset) % backends.len();
            let backend = backends[index];
            if self.resting.get(&backend).is_some_and(|until| *until > Instant::now()) {
                continue;
            }
            match timeout(CONNECT_LIMIT, TcpStream::connect(SocketAddr::from((backend, API_PORT)))).await {
                Ok(Ok(stream)) => {
                    self.next = index + 1;
                    self.resting.remove(&backend);
                    return Some((backend, stream));
                }
                // A refusal is quick, and the next moment may bring the API server up.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                _ => {
                    self.resting.insert(backend, Instant::now() + REST);
                }
            }
        }
        None
    }
}

async fn forward(client: TcpStream, server: TcpStream, settings: Arc<Watched>) {
    // Without this, small writes wait for acknowledgements; a socket that refuses the option is merely slower.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    sleep(settings.delay() * 2).await;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(pump(from_client, to_server, &settings), pump(from_server, to_client, &settings));
}

/// Moves bytes one way, each chunk as late as the delay said when it came.
async fn pump(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, settings: &Watched) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_IN_FLIGHT);
    let read = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        // An end and an error mean the same here: nothing more comes, and the other side is told by closing.
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            if sender.send((Instant::now() + settings.delay(), chunk[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
