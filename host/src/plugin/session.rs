//! The host's side of one runner: it starts it, hands out calls, serves requests, and believes nothing.
//!
//! A frame that the protocol does not allow, a request beyond its count, silence beyond the deadline: the runner is killed
//! and every call it still had is broken.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::broker::{Broker, Refusal};
use super::child::Child;
use super::code::NativeCode;
use super::grants::Denial;
use super::limits::{
    FRAME_FROM_RUNNER, GRACE, HOST_TIME, LOG_BYTES, LOG_LINE_BYTES, LOG_LINES, REQUESTS, START_TIME, wall_time,
};
use super::process::{Confined, Launcher, Role};
use super::walls::Walls;
use super::wire::{self, Ask, Export, FromRunner, HostAnswer, LogLevel, Outcome, Start, ToRunner};
use crate::facts::HostError;

/// Frames that wait for the host; a runner that sends more waits.
const BACKLOG: usize = 16;
/// Denials of one call that are remembered; all are counted.
const DENIALS: usize = 16;

/// Why there is no runner to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StartError {
    /// The native code does not fit; compiling afresh may help.
    Load(String),
    /// The host could not start a runner.
    Host(String),
}

/// How a call ended.
pub(super) struct Ended {
    /// Of the runner's word, or why there is none.
    pub(super) outcome: Outcome,
    /// Requests without a grant.
    pub(super) denied: u32,
    /// The first of them, each grant line once.
    pub(super) denials: Vec<Denial>,
    /// From call to answer.
    pub(super) took: Duration,
}

/// A runner that is ready. Dropped, it is killed.
pub(super) struct Session<'a> {
    broker: &'a Broker,
    log: &'a (dyn Fn(LogLevel, &str) + Sync),
    guest_time: Duration,
    child: Child,
    writer: OwnedWriteHalf,
    frames: mpsc::Receiver<io::Result<FromRunner>>,
    next_call: u64,
    open: HashMap<u64, Open>,
    /// Why the runner is not to be called any more: reason and message.
    dead: Option<(&'static str, String)>,
    walls: Walls,
}

/// A call on its way.
struct Open {
    index: usize,
    began: Instant,
    asking: bool,
    requests: u32,
    denied: u32,
    denials: Vec<Denial>,
    log_lines: u32,
    log_bytes: usize,
}

type Served = (u64, Result<HostAnswer, Refusal>);

impl<'a> Session<'a> {
    /// Starts a runner and waits until it is ready. `code`: none for the built-in plugin's own.
    pub(super) async fn start(
        launcher: &Launcher,
        index: usize,
        start: Start,
        code: Option<&NativeCode>,
        broker: &'a Broker,
        log: &'a (dyn Fn(LogLevel, &str) + Sync),
    ) -> Result<Self, StartError> {
        let confined = launcher.start_confined(Role::Runner, index).await;
        let Confined { helper, walls } = confined.map_err(|error| StartError::Host(error.to_string()))?;
        let (mut child, guest_time) = (helper.child, start.guest_time);
        let (mut reader, mut writer) = helper.socket.into_split();
        let instruct = async {
            let frame = wire::frame(&ToRunner::Start(Box::new(start)));
            // A runner that refuses early reads nothing; its answer says why.
            let sent = match code {
                Some(code) => code.send_with(&frame, writer.as_ref()).await.unwrap_or(frame.len()),
                None => 0,
            };
            let _ = writer.write_all(&frame[sent..]).await;
            std::future::pending::<io::Result<FromRunner>>().await
        };
        let greet = async {
            tokio::select! {
                greeting = wire::read_async::<FromRunner>(&mut reader, FRAME_FROM_RUNNER) => greeting,
                never = instruct => never,
            }
        };
        match tokio::time::timeout(START_TIME, greet).await {
            Ok(Ok(FromRunner::Ready { .. })) => {}
            Ok(Ok(FromRunner::Refused { load: true, message })) => return Err(StartError::Load(message)),
            Ok(Ok(FromRunner::Refused { load: false, message })) => {
                return Err(StartError::Host(format!("the runner refused to start: {message}")));
            }
            Ok(Ok(_)) => return Err(StartError::Host("the runner did not say that it is ready".into())),
            Ok(Err(error)) => {
                let ended = child.ending().await;
                return Err(StartError::Host(format!("the runner did not start: {error}; {ended}")));
            }
            Err(_) => {
                return Err(StartError::Host(format!("the runner was not ready after {} s", START_TIME.as_secs())));
            }
        }
        let (sender, frames) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            loop {
                let frame = wire::read_async(&mut reader, FRAME_FROM_RUNNER).await;
                let last = frame.is_err();
                if sender.send(frame).await.is_err() || last {
                    break;
                }
            }
        });
        let (next_call, open) = (0, HashMap::new());
        Ok(Self { broker, log, guest_time, child, writer, frames, next_call, open, dead: None, walls })
    }

    /// What stands around it.
    pub(super) fn walls(&self) -> &Walls {
        &self.walls
    }

    /// Makes calls side by side and tells each ending as it comes, with the call's place in `exports`.
    pub(super) async fn call(&mut self, exports: &[Export], mut on_end: impl FnMut(usize, Ended)) {
        let (broker, log) = (self.broker, self.log);
        let mut served: FuturesUnordered<BoxFuture<'_, Served>> = FuturesUnordered::new();
        // The runner ends a call by itself at the first; beyond the second it cannot be trusted to.
        let patience = wall_time(self.guest_time) + GRACE;
        let began = Instant::now();
        let mut served_time = Duration::ZERO;
        for (index, export) in exports.iter().enumerate() {
            self.next_call += 1;
            let open = Open {
                index,
                began: Instant::now(),
                asking: false,
                requests: 0,
                denied: 0,
                denials: Vec::new(),
                log_lines: 0,
                log_bytes: 0,
            };
            self.open.insert(self.next_call, open);
            self.send(&ToRunner::Call { call: self.next_call, export: export.clone() }).await;
        }
        while self.dead.is_none() && !self.open.is_empty() {
            let turn = Instant::now();
            let serving = !served.is_empty();
            // A request that is being served ends by itself.
            let left =
                if serving { HOST_TIME + GRACE } else { (patience + served_time).saturating_sub(began.elapsed()) };
            tokio::select! {
                frame = self.frames.recv() => match frame {
                    Some(Ok(FromRunner::Done { call, outcome })) => match self.open.remove(&call) {
                        Some(open) => on_end(open.index, open.end(*outcome)),
                        None => self.violated("it ended a call that is not open"),
                    },
                    Some(Ok(FromRunner::Ask { call, ask })) => {
                        if let Some(ask) = self.admit(call, ask) {
                            served.push(Box::pin(async move { (call, broker.serve(ask).await) }));
                        }
                    }
                    Some(Ok(FromRunner::Log { call, level, message })) => {
                        if self.admit_log(call, &message) {
                            log(level, &message);
                        }
                    }
                    Some(Ok(
                        FromRunner::Confined { .. } | FromRunner::Ready { .. } | FromRunner::Refused { .. },
                    )) => self.violated("it started twice"),
                    Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => self.violated(&error.to_string()),
                    Some(Err(_)) | None => {
                        let ended = self.child.ending().await;
                        self.dead = Some(("crash", format!("the runner is gone: {ended}")));
                    }
                },
                Some((call, answer)) = served.next() => self.answer(call, answer).await,
                () = tokio::time::sleep(left) => {
                    let message = format!("the runner was killed after {} ms of silence", began.elapsed().as_millis());
                    self.dead = Some(("deadline", message));
                }
            }
            if serving {
                served_time += turn.elapsed();
            }
        }
        if let Some((reason, message)) = &self.dead {
            self.child.kill();
            for (_, open) in self.open.drain() {
                on_end(open.index, open.end(Outcome::Broke { reason: (*reason).into(), message: message.clone() }));
            }
        }
    }

    /// Ends the runner and waits for its end.
    pub(super) async fn finish(mut self) {
        self.child.kill();
        // Its end was asked for and cannot be refused.
        let _ = self.child.wait().await;
    }

    fn violated(&mut self, what: &str) {
        self.dead = Some(("protocol", format!("the runner broke the protocol and was killed: {what}")));
    }

    /// Whether a request may be served. Anything else is the end of the runner.
    fn admit(&mut self, call: u64, ask: Ask) -> Option<Ask> {
        let Some(open) = self.open.get_mut(&call) else {
            self.violated("it asked for a call that is not open");
            return None;
        };
        open.requests += 1;
        if open.asking || open.requests > REQUESTS {
            self.violated("it asked too much");
            return None;
        }
        open.asking = true;
        Some(ask)
    }

    /// Whether a log line is within its bounds. The runner keeps to them, plus one line that says what was cut.
    fn admit_log(&mut self, call: u64, message: &str) -> bool {
        let Some(open) = self.open.get_mut(&call) else {
            self.violated("it logged for a call that is not open");
            return false;
        };
        open.log_lines += 1;
        open.log_bytes += message.len();
        let within = open.log_lines <= LOG_LINES + 1 && open.log_bytes <= LOG_BYTES + LOG_LINE_BYTES;
        if !within {
            self.violated("it logged too much");
        }
        within
    }

    async fn answer(&mut self, call: u64, answer: Result<HostAnswer, Refusal>) {
        // The guest may have run into its deadline meanwhile.
        let Some(open) = self.open.get_mut(&call) else { return };
        open.asking = false;
        let answer = answer.map_err(|refusal| match refusal {
            Refusal::Failed(error) => error,
            Refusal::Denied(denial) => {
                open.denied += 1;
                let message = denial.message();
                if open.denials.len() < DENIALS && open.denials.iter().all(|it| it.differs(&denial)) {
                    open.denials.push(*denial);
                }
                HostError { code: "denied".into(), message, retryable: false }
            }
        });
        self.send(&ToRunner::Answer { call, answer }).await;
    }

    /// A runner reads whatever it is sent; one that does not is broken.
    async fn send(&mut self, message: &ToRunner) {
        match tokio::time::timeout(GRACE, self.writer.write_all(&wire::frame(message))).await {
            // The reader sees the end of a runner, and how it ended.
            Ok(_) => {}
            Err(_) => self.violated("it does not read"),
        }
    }
}

impl Open {
    fn end(self, outcome: Outcome) -> Ended {
        Ended { outcome, denied: self.denied, denials: self.denials, took: self.began.elapsed() }
    }
}
