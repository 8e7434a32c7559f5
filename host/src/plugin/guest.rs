//! One call of an export: a fresh store with its limits, the call under its deadlines, and what came of it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, StoreLimits, StoreLimitsBuilder, Trap};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::csr::CertificateRequest;
use super::exports::Exports;
use super::limits::{
    HANDLES, HOST_TIME, HOSTCALL_FUEL, INSTANCES, LOG_BYTES, LOG_LINE_BYTES, LOG_LINES, MEMORIES, RANDOM_BYTES,
    REQUESTS, TABLE_ELEMENTS, TABLES, wall_time,
};
use super::report;
use super::runner::Link;
use super::stdio::Stderr;
use super::wire::{Ask, Export, HostAnswer, LogLevel, Outcome, Start};
use crate::facts::HostError;

/// What a store holds: whose call it is, and all it may still use.
pub(super) struct Guest {
    call: u64,
    link: Arc<Link>,
    pub(super) start: Arc<Start>,
    /// What a hook judges.
    pub(super) request: Option<Box<CertificateRequest>>,
    limits: Limits,
    wasi: WasiCtx,
    resources: ResourceTable,
    host_clock: Arc<HostClock>,
    requests: u32,
    log_lines: u32,
    log_bytes: usize,
}

/// The engine's limits, and whether one was met: a guest turns a refused page into a trap without a reason.
struct Limits {
    limits: StoreLimits,
    refused_bytes: Option<usize>,
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let granted = self.limits.memory_growing(current, desired, maximum)?;
        if !granted {
            self.refused_bytes = Some(desired);
        }
        Ok(granted)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

/// Time the host took for the requests of one call.
#[derive(Default)]
struct HostClock(Mutex<(Duration, Option<Instant>)>);

impl HostClock {
    fn total(&self) -> Duration {
        let (ended, running) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended + running.map(|since| since.elapsed()).unwrap_or_default()
    }

    fn start(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(Instant::now());
    }

    fn stop(&self) {
        let total = self.total();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (total, None);
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

impl Guest {
    fn new(link: Arc<Link>, start: Arc<Start>, call: u64, stderr: &Stderr) -> Self {
        let memory = usize::try_from(start.memory_bytes).unwrap_or(usize::MAX);
        let limits = StoreLimitsBuilder::new()
            .memory_size(memory)
            .memories(MEMORIES)
            .instances(INSTANCES)
            .tables(TABLES)
            .table_elements(TABLE_ELEMENTS)
            .build();
        let wasi = WasiCtx::builder()
            .stdout(Stderr::default())
            .stderr(stderr.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(RANDOM_BYTES)
            .build();
        Self {
            call,
            link,
            start,
            request: None,
            limits: Limits { limits, refused_bytes: None },
            wasi,
            resources: ResourceTable::with_capacity(0),
            host_clock: Arc::default(),
            requests: 0,
            log_lines: 0,
            log_bytes: 0,
        }
    }

    /// Of this call.
    pub(super) fn host_time_left(&self) -> Duration {
        HOST_TIME.saturating_sub(self.host_clock.total())
    }

    /// Asks the host, within what is left of the call's host time and number of requests.
    pub(super) async fn ask(&mut self, ask: Ask) -> Result<HostAnswer, HostError> {
        self.requests += 1;
        if self.requests > REQUESTS {
            return Err(error("unavailable", format!("more than {REQUESTS} requests in one call")));
        }
        let used_up = || error("timeout", format!("the host took more than {} s in one call", HOST_TIME.as_secs()));
        let left = self.host_time_left();
        // The host may still be at the request before: two at once would break the protocol.
        if left.is_zero() {
            return Err(used_up());
        }
        self.host_clock.start();
        let answer = tokio::time::timeout(left, self.link.ask(self.call, ask)).await;
        self.host_clock.stop();
        match answer {
            Ok(Ok(answer)) => answer,
            // The sender lives as long as the socket.
            Ok(Err(_)) => Err(error("unavailable", "the host is gone".into())),
            Err(_) => Err(used_up()),
        }
    }

    /// Passes a line on, within the call's lines and bytes.
    pub(super) fn log(&mut self, level: LogLevel, message: &str) {
        let line = &message[..message.floor_char_boundary(LOG_LINE_BYTES)];
        self.log_lines += 1;
        self.log_bytes += line.len();
        if self.log_lines <= LOG_LINES && self.log_bytes <= LOG_BYTES {
            self.link.log(self.call, level, line.to_owned());
        }
    }

    /// Says once what was dropped.
    fn finish_log(&self) {
        if self.log_lines > LOG_LINES || self.log_bytes > LOG_BYTES {
            let message = format!("log cut: {} lines, {} bytes in one call", self.log_lines, self.log_bytes);
            self.link.log(self.call, LogLevel::Warn, message);
        }
    }
}

fn error(code: &str, message: String) -> HostError {
    HostError { code: code.into(), message, retryable: false }
}

/// Calls an export. Every ending is an outcome.
pub(super) async fn call(plugin: &Exports, link: &Arc<Link>, start: Arc<Start>, call: u64, export: Export) -> Outcome {
    let stderr = Stderr::default();
    let guest_time = start.guest_time;
    // Before instantiation: a component's start code runs there.
    let mut store = Store::new(plugin.engine(), Guest::new(Arc::clone(link), start, call, &stderr));
    if let Export::Review(request) = &export {
        store.data_mut().request.clone_from(request);
    }
    store.limiter(|guest| &mut guest.limits);
    store.data_mut().resources.set_max_capacity(HANDLES);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_max_component_handles(HANDLES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    // The deadline of the epoch only makes the guest give way; it does not fire while the guest sleeps.
    let host_clock = Arc::clone(&store.data().host_clock);
    let wall = wall_time(guest_time);
    let ended = tokio::select! {
        ended = metered(guest_time, plugin.call(&mut store, &export)) => Ok(ended),
        () = outlive(wall, &host_clock) => Err(()),
    };
    let outcome = match ended {
        Ok(Some(Ok(outcome))) => bounded(outcome),
        Ok(Some(Err(error))) => broke(&error, store.data(), &stderr),
        Ok(None) => Outcome::Broke {
            reason: "deadline".into(),
            message: format!("stopped after {} ms of computing", guest_time.as_millis()),
        },
        Err(_) => Outcome::Broke {
            reason: "deadline".into(),
            message: format!("stopped after {} ms of sleeping and computing", wall.as_millis()),
        },
    };
    store.data().finish_log();
    outcome
}

/// Returns when a call is older than `wall`, time of the host not counted.
async fn outlive(wall: Duration, host_clock: &HostClock) {
    let began = Instant::now();
    loop {
        let own = began.elapsed().saturating_sub(host_clock.total());
        let left = wall.saturating_sub(own);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// Lets a future compute for at most `budget`; what it waits for is not counted. None: the budget was used up.
async fn metered<F: Future>(budget: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut used = Duration::ZERO;
    poll_fn(|context| {
        let began = Instant::now();
        let polled = future.as_mut().poll(context);
        used += began.elapsed();
        match polled {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if used > budget => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// An answer beyond the bounds of the WIT is no answer. The host looks again.
fn bounded(outcome: Outcome) -> Outcome {
    let verified = match &outcome {
        Outcome::Checks(checks) => report::verify_checks(checks),
        Outcome::Report(report) => report.verify(),
        Outcome::Cluster(cluster) => cluster.verify(),
        Outcome::Judgement(judgement) => judgement.verify(),
        Outcome::Unable(_) | Outcome::Broke { .. } => Ok(()),
    };
    match verified {
        Ok(()) => outcome,
        Err(message) => Outcome::Broke { reason: "oversized".into(), message },
    }
}

fn broke(error: &wasmtime::Error, guest: &Guest, stderr: &Stderr) -> Outcome {
    let trap = error.downcast_ref::<Trap>();
    let mut message = match trap {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    let mut reason = if trap.is_some() { "trap" } else { "malformed" };
    if let Some(bytes) = guest.limits.refused_bytes {
        reason = "memory";
        message =
            format!("{message}, after it asked for {bytes} bytes of memory; {} are allowed", guest.start.memory_bytes);
    }
    let said = stderr.text();
    if !said.is_empty() {
        message = format!("{message}; it wrote: {said}");
    }
    Outcome::Broke { reason: reason.into(), message }
}
