//! Compiling a component, in a process of its own that never runs guest code.
//!
//! A hostile component may make the compiler slow, large or wrong; what it could reach there is one socket and the
//! native code of that same component.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::code::NativeCode;
use super::confine::{self, HelperUid};
use super::limits::{COMPILE_TIME, COMPONENT_BYTES, FRAME_FROM_RUNNER, NATIVE_BYTES};
use super::lock::LockError;
use super::process::{Launcher, Role};
use super::store::Stored;
use super::wire::{self, FromRunner, LogLevel};
use super::{engine, runner};
use crate::registry::Digest;

/// The work: a component of this many bytes follows.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    component_bytes: u64,
}

/// Why there is no native code.
#[derive(Debug, Clone, Error)]
pub(super) enum CompileError {
    /// The component is at fault.
    #[error("it cannot be compiled: {0}")]
    Refused(String),
    /// The process is at fault, or was brought down.
    #[error("the compiler failed: {0}")]
    Failed(String),
}

/// Native code for this CPU: that of the launcher's store, else made now and, where the store has the component, kept there.
pub(super) async fn obtain<'a>(
    launcher: &Launcher,
    index: usize,
    digest: &Digest,
    component: impl FnOnce() -> Result<Cow<'a, [u8]>, CompileError>,
    log: &(dyn Fn(LogLevel, &str) + Sync),
) -> Result<NativeCode, CompileError> {
    let in_memory = |code: Vec<u8>| {
        NativeCode::in_memory(code.as_slice())
            .map_err(|error| CompileError::Failed(format!("its output cannot be kept in memory: {error}")))
    };
    let Some(store) = launcher.store.as_ref().filter(|store| store.holds(digest)) else {
        return in_memory(compile(launcher, index, &component()?).await?);
    };
    match store.native(digest) {
        Stored::Code(code) => return Ok(code),
        Stored::Tampered => log(LogLevel::Warn, "its stored native code was changed; compiling afresh"),
        Stored::Absent => {}
    }
    let code = compile(launcher, index, &component()?).await?;
    if let Err(error) = store.put_native(digest, &code) {
        // The next run compiles again, that is all.
        log(LogLevel::Debug, &crate::error::Failure::from(LockError::from(error)).message());
    }
    in_memory(code)
}

/// Compiles a component into the launcher's store, where it is not there yet.
///
/// # Errors
///
/// [`LockError::Compile`].
pub async fn compile_into(launcher: &Launcher, name: &str, component: &[u8]) -> Result<(), LockError> {
    let made = obtain(launcher, 0, &Digest::of(component), || Ok(component.into()), &|_, _| {}).await;
    made.map(|_| ()).map_err(|error| LockError::Compile { name: name.to_owned(), reason: error.to_string() })
}

/// Compiles a component for this CPU.
async fn compile(launcher: &Launcher, index: usize, component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let confined = launcher.start_confined(Role::Compiler, index).await;
    let mut helper = confined.map_err(|error| CompileError::Failed(error.to_string()))?.helper;
    let exchange = async {
        let socket = &mut helper.socket;
        socket.write_all(&wire::frame(&Work { component_bytes: component.len() as u64 })).await?;
        // A compiler that refuses early does not read all of it; its answer says why.
        let _ = socket.write_all(component).await;
        let answer = wire::read_async(socket, FRAME_FROM_RUNNER).await?;
        let mut code = Vec::new();
        if let FromRunner::Ready { native_bytes } = answer {
            if native_bytes > NATIVE_BYTES {
                return Err(std::io::Error::other(format!("{native_bytes} bytes of code; {NATIVE_BYTES} are allowed")));
            }
            code = vec![0; usize::try_from(native_bytes).map_err(std::io::Error::other)?];
            socket.read_exact(&mut code).await?;
        }
        Ok((answer, code))
    };
    match tokio::time::timeout(COMPILE_TIME, exchange).await {
        Ok(Ok((FromRunner::Ready { .. }, code))) => Ok(code),
        Ok(Ok((FromRunner::Refused { load: true, message }, _))) => Err(CompileError::Refused(message)),
        Ok(Ok((FromRunner::Refused { load: false, message }, _))) => Err(CompileError::Failed(message)),
        Ok(Ok(_)) => Err(CompileError::Failed("it answered something else".into())),
        Ok(Err(error)) => Err(CompileError::Failed(format!("{error}; {}", helper.child.ending().await))),
        Err(_) => Err(CompileError::Failed(format!("not done after {} s", COMPILE_TIME.as_secs()))),
    }
}

/// The life of a compiler process.
pub(super) fn main(uid: HelperUid) -> ExitCode {
    let socket = match confine::begin(uid) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    let answered = match work(&socket) {
        Ok(code) => wire::write(&socket, &FromRunner::Ready { native_bytes: code.len() as u64 })
            .and_then(|()| (&socket).write_all(&code)),
        Err(refused) => wire::write(&socket, &refused),
    };
    if answered.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(mut socket: &UnixStream) -> Result<Vec<u8>, FromRunner> {
    let engine = engine::new(engine::Cpu::Native)
        .map_err(|error| FromRunner::Refused { load: false, message: format!("{error:#}") })?;
    let seconds = COMPILE_TIME.as_secs();
    rustix::process::setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds) })
        .map_err(|error| runner::refused(false, &error))?;
    confine::before_load().and_then(|()| confine::before_guest()).map_err(|error| runner::refused(false, &error))?;
    let read = wire::read::<Work>(socket, FRAME_FROM_RUNNER).and_then(|work| {
        if work.component_bytes > COMPONENT_BYTES {
            return Err(std::io::Error::other("the component is too large"));
        }
        let mut component = vec![0; usize::try_from(work.component_bytes).map_err(std::io::Error::other)?];
        socket.read_exact(&mut component)?;
        Ok(component)
    });
    let component = read.map_err(|error| runner::refused(false, &error))?;
    engine
        .precompile_component(&component)
        .map_err(|error| FromRunner::Refused { load: true, message: format!("{error:#}") })
}

/// Writes code for any CPU of this architecture, to be embedded in a build of this very engine.
pub(super) fn precompile(component: &Path, code: &Path) -> wasmtime::Result<()> {
    let engine = engine::new(engine::Cpu::Baseline)?;
    std::fs::write(code, engine.precompile_component(&std::fs::read(component)?)?)?;
    Ok(())
}
