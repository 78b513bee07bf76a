//! wasmtime's engine with Bazaar's bounds: compiles components, and ticks for their deadlines.

use std::thread;
use std::time::Duration;

use daemon::tasks;
use wasmtime::Config;
use wasmtime::component::Component;

use super::code_cache::CodeCache;
use super::deadline::ticks;
use super::digest::Digest;
use crate::limits;

/// Compiles components and bounds the time of their decisions.
pub struct Engine {
    wasmtime: wasmtime::Engine,
    decision_ticks: u64,
    code_cache: Option<CodeCache>,
}

impl Engine {
    /// An engine whose decisions may take `decision_time_max` of processor time, rounded up to
    /// [`limits::EPOCH_TICK`]. Starts the thread that the deadlines go by, which ends with
    /// the engine and all that was compiled by it.
    ///
    /// # Errors
    /// Where wasmtime does not support this machine.
    pub fn new(decision_time_max: Duration) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(limits::STACK_BYTES_MAX);
        let wasmtime = wasmtime::Engine::new(&config)?;
        let ticked = wasmtime.weak();
        // A thread, not a task: a decision that loops for ever blocks its worker's tasks.
        tasks::thread("policy-clock", move || {
            while let Some(engine) = ticked.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(limits::EPOCH_TICK);
            }
        })?;
        Ok(Self {
            wasmtime,
            decision_ticks: ticks(decision_time_max),
            code_cache: None,
        })
    }

    /// Keeps compiled code for the next time.
    pub fn with_code_cache(self, code_cache: CodeCache) -> Self {
        Self {
            code_cache: Some(code_cache),
            ..self
        }
    }

    /// Machine code of a component: from the cache where it is there. Otherwise it takes a second
    /// of processor time for each few megabytes: not for a thread that serves.
    pub(crate) fn compile(&self, digest: Digest, component: &[u8]) -> wasmtime::Result<Component> {
        let Some(code_cache) = &self.code_cache else {
            return Component::from_binary(&self.wasmtime, component);
        };
        if let Some(compiled) = code_cache.load(&self.wasmtime, digest) {
            return Ok(compiled);
        }
        let compiled = Component::from_binary(&self.wasmtime, component)?;
        code_cache.store(&self.wasmtime, digest, &compiled);
        Ok(compiled)
    }
    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }

    /// How many ticks one decision may take.
    pub(super) fn decision_ticks(&self) -> u64 {
        self.decision_ticks
    }
}
