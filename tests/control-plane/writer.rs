//! A writer that etcd must not lose anything of, and must not keep waiting, while members come and go.
//!
//! Ten lanes, each with ten writes a second, one after the other: 100 Hz. A write is one transaction, sent to the members
//! that vote in turn. It creates a key that is never written again and raises the lane's register, on the condition
//! that the register is lower: an attempt given up that arrives late changes nothing. Beside the lanes a reader asks
//! for registers, knows what was acknowledged before it began, and accepts nothing older. What is acknowledged is kept
//! here, with the answer's cluster id and revision; [`History::violations`] compares it with what each member holds.
//!
//! etcd itself and not an API server: each answer names cluster, member and revision, and nothing in between retries.

mod etcd;
mod history;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mortise_cluster::Cluster;

use self::etcd::{Client, Endpoint, Tls};
pub(crate) use self::history::{Ack, History};

const LANES: usize = 10;
/// Between two writes of one lane.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often the list of members is asked for, and registers are read.
const LOOK: Duration = Duration::from_millis(100);
/// How long one member may take before the next one is tried. What became of the attempt is then unknown.
const ATTEMPT: Duration = Duration::from_millis(400);
/// How long a member that failed is left alone.
const REST: Duration = Duration::from_secs(1);
/// How long all members may take to hold the same.
const CONVERGE: Duration = Duration::from_secs(60);

/// A writer under way.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

/// What lanes, reader and test have in common.
pub(crate) struct Shared {
    started: Instant,
    stop: AtomicBool,
    history: Mutex<History>,
    endpoints: Mutex<BTreeMap<String, Endpoint>>,
    tls: Tls,
}

impl Writer {
    /// Begins to write, with the certificates of a running control plane.
    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        let first = cluster.control_plane()?;
        let address =
            cluster.nodes()?.into_iter().find(|node| node.name == first).context("it was just found")?.address;
        let url = format!("https://{address}:2379");
        let shared = Arc::new(Shared {
            started: Instant::now(),
            stop: AtomicBool::new(false),
            history: Mutex::new(History::new(LANES)),
            endpoints: Mutex::new(BTreeMap::from([(url.clone(), Endpoint::new(&url)?)])),
            tls: Tls::of(cluster, &first)?,
        });
        let (entered, result) = std::sync::mpsc::channel();
        let (inner, name) = (Arc::clone(&shared), cluster.name().as_str().to_owned());
        let thread = std::thread::spawn(move || {
            // Sockets belong to the network that their thread is in; the test's own thread stays where it is.
            let ready = Cluster::open(&name).and_then(|cluster| cluster.enter_network());
            let ready = ready.and_then(|()| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(set_registers(&inner))?;
                Ok(runtime)
            });
            match ready {
                Ok(runtime) => {
                    // Nobody listens only if the test has failed meanwhile.
                    let _ = entered.send(Ok(()));
                    runtime.block_on(write_until_stopped(inner))
                }
                Err(error) => {
                    let _ = entered.send(Err(error));
                    Ok(())
                }
            }
        });
        result.recv().context("the writer's thread died")??;
        Ok(Self { shared, thread })
    }

    /// What happened so far.
    pub(crate) fn so_far(&self) -> History {
        self.shared.history().clone()
    }

    /// Stops, reads what every member holds, and returns all there is to judge by.
    pub(crate) fn stop(self) -> Result<History> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the writer's thread panicked"))??;
        Ok(self.shared.history().clone())
    }
}

impl Shared {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<String, Endpoint>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The member for the `turn`th request: in turn among those that did not just fail, or among all.
    fn choose(&self, turn: usize) -> Option<Endpoint> {
        let endpoints = self.endpoints();
        let well: Vec<&Endpoint> = endpoints.values().filter(|endpoint| !endpoint.rests()).collect();
        let from = if well.is_empty() { endpoints.values().collect() } else { well };
        from.get(turn % from.len().max(1)).map(|&endpoint| endpoint.clone())
    }

    fn let_rest(&self, url: &str) {
        if let Some(endpoint) = self.endpoints().get_mut(url) {
            endpoint.rest_until(Instant::now() + REST);
        }
    }
}

/// Registers begin at zero: a condition on a key that is not there never holds.
async fn set_registers(shared: &Shared) -> Result<()> {
    let mut client = Client::new(&shared.tls);
    let endpoint = shared.choose(0).context("there is a first member")?;
    for lane in 0..LANES {
        let answer = client.put(&endpoint, &history::register(lane), &history::value(0), ATTEMPT * 10).await?;
        shared.history().tells_cluster(answer.cluster_id);
    }
    Ok(())
}

async fn write_until_stopped(shared: Arc<Shared>) -> Result<()> {
    let mut tasks = Vec::new();
    for lane in 0..LANES {
        tasks.push(tokio::spawn(write(Arc::clone(&shared), lane)));
    }
    tasks.push(tokio::spawn(read(Arc::clone(&shared))));
    tasks.push(tokio::spawn(look_for_members(Arc::clone(&shared))));
    for task in tasks {
        task.await.context("a task of the writer panicked")?;
    }
    let end = shared.now();
    shared.history().ended = end;
    collect(&shared).await
}

/// One lane.
async fn write(shared: Arc<Shared>, lane: usize) {
    let mut client = Client::new(&shared.tls);
    let offset = INTERVAL * u32::try_from(lane).unwrap_or(0) / u32::try_from(LANES).unwrap_or(1);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sequence = 0;
    while !shared.is_stopped() {
        ticks.tick().await;
        let waits_since = shared.now();
        // Until one is acknowledged: what came of those before is unknown, so each attempt is a write of its own.
        loop {
            sequence += 1;
            let revision_before = shared.history().begins(lane, sequence, waits_since);
            let Some(endpoint) = shared.choose(sequence + lane) else { return };
            match client.raise(&endpoint, lane, sequence, ATTEMPT).await {
                Ok(answer) => {
                    let now = shared.now();
                    let ack = Ack { lane, sequence, revision: answer.revision, waited_since: waits_since, at: now };
                    shared.history().acknowledged(ack, &answer, revision_before);
                    break;
                }
                Err(_) if shared.is_stopped() => return,
                Err(error) => {
                    let now = shared.now();
                    shared.history().failed(now, &format!("{}: {error:#}", endpoint.url));
                    shared.let_rest(&endpoint.url);
                }
            }
        }
    }
}

/// Reads registers in turn, at members in turn.
async fn read(shared: Arc<Shared>) {
    let mut client = Client::new(&shared.tls);
    for turn in 0.. {
        if shared.is_stopped() {
            return;
        }
        tokio::time::sleep(LOOK).await;
        let lane = turn % LANES;
        let (acknowledged, Some(endpoint)) = (shared.history().acknowledged_in(lane), shared.choose(turn)) else {
            return;
        };
        match client.read(&endpoint, &history::register(lane), ATTEMPT).await {
            Ok(found) => shared.history().was_read(lane, &found, acknowledged),
            // The lanes tell how often this happens.
            Err(_) => shared.let_rest(&endpoint.url),
        }
    }
}

/// Keeps the members that take writes, and every list that was seen.
async fn look_for_members(shared: Arc<Shared>) {
    let mut client = Client::new(&shared.tls);
    for turn in 0.. {
        if shared.is_stopped() {
            return;
        }
        let Some(endpoint) = shared.choose(turn) else { return };
        if let Ok((cluster_id, members)) = client.members(&endpoint, ATTEMPT).await {
            let voters =
                members.iter().filter(|member| !member.is_learner).filter_map(|member| member.client_url.clone());
            let voters: Vec<String> = voters.collect();
            let mut endpoints = shared.endpoints();
            endpoints.retain(|url, _| voters.contains(url));
            for url in voters {
                if let Ok(endpoint) = Endpoint::new(&url) {
                    endpoints.entry(url).or_insert(endpoint);
                }
            }
            drop(endpoints);
            let now = shared.now();
            shared.history().saw_members(now, cluster_id, members);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What every member that votes holds of the writer's keys, each asked itself; one that does not answer is left out.
async fn collect(shared: &Shared) -> Result<()> {
    let endpoints: Vec<Endpoint> = shared.endpoints().values().cloned().collect();
    for endpoint in endpoints {
        let mut client = Client::new(&shared.tls);
        let deadline = Instant::now() + CONVERGE;
        // Members that are gone for good are the test's business: at least one must answer.
        if client.members(&endpoint, ATTEMPT * 10).await.is_err() {
            continue;
        }
        let contents = loop {
            match client.all(&endpoint, history::PREFIX, ATTEMPT * 25).await {
                Ok(contents) => break contents,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("reading all keys at {}", endpoint.url));
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        shared.history().contents.insert(endpoint.url, contents);
    }
    anyhow::ensure!(!shared.history().contents.is_empty(), "no member answers");
    Ok(())
}
