//! The runner: an unprivileged process that runs the guests of one plugin and knows nothing but its socket.
//!
//! One thread runs all guests, each call in a store of its own; a second thread reads the socket, a third advances the
//! epoch. The process ends when the socket closes, whatever a guest is doing.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::code::Receiver;
use super::confine::{self, HelperUid};
use super::exports::Exports;
use super::guest;
use super::limits::FRAME_TO_RUNNER;
use super::wire::{Ask, Export, FromRunner, HostAnswer, LogLevel, Outcome, Start, ToRunner};
use super::{engine, native, wire};
use crate::facts::HostError;

/// The runner's side of the socket. One writer at a time; answers are handed to the call that asked.
pub(super) struct Link {
    stream: UnixStream,
    open: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
}

type Answer = Result<HostAnswer, HostError>;

impl Link {
    /// Sends a message. A host that went away ends the process.
    fn send(&self, message: &FromRunner) {
        if wire::write(&self.stream, message).is_err() {
            std::process::exit(0);
        }
    }

    /// Asks the host on behalf of a call.
    pub(super) fn ask(&self, call: u64, ask: Ask) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(call, sender);
        self.send(&FromRunner::Ask { call, ask });
        receiver
    }

    /// Passes on a log line.
    pub(super) fn log(&self, call: u64, level: LogLevel, message: String) {
        self.send(&FromRunner::Log { call, level, message });
    }

    /// The socket itself, for what is past the protocol.
    #[cfg(feature = "faults")]
    pub(super) fn raw(&self) -> &UnixStream {
        &self.stream
    }

    /// Tells how a call ended.
    pub(super) fn done(&self, call: u64, outcome: Outcome) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&call);
        self.send(&FromRunner::Done { call, outcome: Box::new(outcome) });
    }

    /// Reads until the socket closes; then ends the process.
    fn read_on(&self, calls: &mpsc::UnboundedSender<(u64, Export)>) {
        while let Ok(message) = wire::read(&self.stream, FRAME_TO_RUNNER) {
            match message {
                ToRunner::Call { call, export } => {
                    if calls.send((call, export)).is_err() {
                        break;
                    }
                }
                ToRunner::Answer { call, answer } => {
                    let asker = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&call);
                    if let Some(asker) = asker {
                        // A call that gave up meanwhile does not want it any more.
                        let _ = asker.send(answer);
                    }
                }
                ToRunner::Start(_) => break,
            }
        }
        std::process::exit(0);
    }
}

/// The life of a runner process; `main` calls it before anything else.
pub(super) fn main(uid: HelperUid) -> ExitCode {
    let stream = match confine::begin(uid) {
        Ok(stream) => stream,
        Err(code) => return code,
    };
    match prepare(&stream) {
        Ok((start, engine, component)) => serve(stream, start, &engine, &component),
        Err(refused) => {
            // The host may be gone already.
            let _ = wire::write(&stream, &refused);
            ExitCode::FAILURE
        }
    }
}

/// A refusal with the causes of its error.
pub(super) fn refused(load: bool, error: &dyn std::error::Error) -> FromRunner {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    FromRunner::Refused { load, message }
}

fn prepare(stream: &UnixStream) -> Result<(Start, Engine, Component), FromRunner> {
    let load_failed = |error: wasmtime::Error| FromRunner::Refused { load: true, message: format!("{error:#}") };
    // Reads what it needs of the CPU and installs signal handlers, so before the list.
    let engine = engine::new(engine::Cpu::Native).map_err(load_failed)?;
    confine::before_load().map_err(|error| refused(false, &error))?;
    let mut receiver = Receiver::new(stream);
    let start = match wire::read(&mut receiver, FRAME_TO_RUNNER) {
        Ok(ToRunner::Start(start)) => *start,
        Ok(_) => {
            return Err(FromRunner::Refused { load: false, message: "the host did not begin with a start".into() });
        }
        Err(error) => return Err(refused(false, &error)),
    };
    let component = match (start.native_bytes, receiver.descriptor) {
        (Some(bytes), Some(code)) => native::load(&engine, code, bytes),
        (Some(_), None) => {
            return Err(FromRunner::Refused { load: false, message: "no code came with the start".into() });
        }
        (None, _) => native::load_own(&engine, engine::builtin::NATIVE.unwrap_or_default()),
    };
    Ok((start, engine, component.map_err(load_failed)?))
}

fn serve(stream: UnixStream, start: Start, engine: &Engine, component: &Component) -> ExitCode {
    let link = Arc::new(Link { stream, open: Mutex::default() });
    let refuse = |refused: FromRunner| {
        link.send(&refused);
        ExitCode::FAILURE
    };
    let plugin = match link_guest(engine, component) {
        Ok(plugin) => plugin,
        Err(error) => return refuse(FromRunner::Refused { load: true, message: format!("{error:#}") }),
    };
    let (calls, mut called) = mpsc::unbounded_channel();
    let reader = Arc::clone(&link);
    let threads = engine::start_clock(engine)
        .and_then(|()| thread::Builder::new().name("socket".into()).spawn(move || reader.read_on(&calls)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let (Ok(_), Ok(runtime)) = (threads, runtime) else {
        return refuse(FromRunner::Refused { load: false, message: "cannot start a thread".into() });
    };
    if let Err(error) = confine::before_guest() {
        return refuse(refused(false, &error));
    }
    link.send(&FromRunner::Ready { native_bytes: 0 });
    #[cfg(feature = "faults")]
    if let Some(intruder) = super::intruder::Intruder::wanted(&start) {
        return intruder.take_over(&link, &mut called);
    }
    let start = Arc::new(start);
    runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
        while let Some((call, export)) = called.recv().await {
            let (link, start, plugin) = (Arc::clone(&link), Arc::clone(&start), plugin.clone());
            tokio::task::spawn_local(async move {
                let outcome = guest::call(&plugin, &link, start, call, export).await;
                link.done(call, outcome);
            });
        }
    }));
    ExitCode::SUCCESS
}

/// Everything a plugin may import. WASI answers from an empty context.
fn link_guest(engine: &Engine, component: &Component) -> wasmtime::Result<Exports> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    super::bindings::EveryKind::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |guest| guest)?;
    Exports::of(component, linker.instantiate_pre(component)?)
}
