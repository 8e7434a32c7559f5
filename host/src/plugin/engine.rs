//! The engine: one configuration for whoever compiles and whoever runs, so that one's output fits the other.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Engine};

use super::native::MappedCode;

/// A guest that computes gives way this often, so that deadlines fire and checks share the thread.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// For which machine code is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cpu {
    /// This one, with all it can do.
    Native,
    /// Any of this architecture: for code that is shipped.
    Baseline,
}

/// An engine with nothing a check could want switched on.
///
/// # Errors
///
/// The engine's, when this CPU or architecture is not supported.
pub(super) fn new(cpu: Cpu) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    if cpu == Cpu::Baseline {
        config.target(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH))?;
    }
    config
        .with_custom_code_memory(Some(Arc::new(MappedCode)))
        .epoch_interruption(true)
        // A copy-on-write image needs a memory file, which a runner cannot make; for one call a store, copying is as fast.
        .memory_init_cow(false)
        // Threads, GC with function references and exceptions, stack switching and component async are not even built in.
        .wasm_tail_call(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_component_model_error_context(false);
    Engine::new(&config)
}

/// Advances the epoch every [`TICK`] for as long as the engine lives. One thread.
///
/// # Errors
///
/// The kernel's, when no thread can be started.
pub(super) fn start_clock(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    };
    thread::Builder::new().name("clock".into()).stack_size(64 << 10).spawn(tick)?;
    Ok(())
}

/// The built-in plugin.
pub(super) mod builtin {
    // `COMPONENT: &[u8]` and `NATIVE: Option<&[u8]>`, written by the build script.
    include!(concat!(env!("OUT_DIR"), "/builtin.rs"));
}
