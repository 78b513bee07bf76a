//! wasmtime's engine with Bazaar's bounds: compiles components, and ticks for their deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use daemon::tasks;
use wasmtime::component::Component;

use super::code_cache::{self, CodeCache};
use super::compiler::{CompileError, Compiler, causes, wasmtime_config};
use super::deadline::ticks;
use super::digest::Digest;
use crate::limits;
use crate::measured::Measured;

/// Counts the ticks of an engine, each [`limits::EPOCH_TICK`] long: a clock that costs next to nothing
/// to read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Ticks since the engine was made.
    pub(crate) fn ticks(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Compiles components and bounds the time of their decisions.
pub struct Engine {
    wasmtime: wasmtime::Engine,
    decision_ticks: u64,
    clock: Clock,
    code_cache: Option<CodeCache>,
    compiler: Option<Compiler>,
    measured: Arc<Measured>,
}

impl Engine {
    /// An engine whose decisions may take `decision_time_max` of processor time, rounded up to
    /// [`limits::EPOCH_TICK`]. Starts the thread that the deadlines go by, which ends with
    /// the engine and all that was compiled by it.
    ///
    /// # Errors
    /// Where wasmtime does not support this machine.
    pub fn new(decision_time_max: Duration) -> wasmtime::Result<Self> {
        let wasmtime = wasmtime::Engine::new(&wasmtime_config())?;
        let ticked = wasmtime.weak();
        let clock = Clock::default();
        let shown = clock.clone();
        // A thread, not a task: a decision that loops for ever blocks its worker's tasks.
        tasks::thread("policy-clock", move || {
            while let Some(engine) = ticked.upgrade() {
                engine.increment_epoch();
                shown.0.fetch_add(1, Ordering::Relaxed);
                drop(engine);
                thread::sleep(limits::EPOCH_TICK);
            }
        })?;
        Ok(Self {
            wasmtime,
            decision_ticks: ticks(decision_time_max),
            clock,
            code_cache: None,
            compiler: None,
            measured: Arc::default(),
        })
    }

    /// What was compiled and admitted by it so far.
    pub(crate) fn measured(&self) -> Arc<Measured> {
        Arc::clone(&self.measured)
    }

    /// Keeps compiled code for the next time.
    pub fn with_code_cache(self, code_cache: CodeCache) -> Self {
        Self {
            code_cache: Some(code_cache),
            ..self
        }
    }

    /// Has components compiled in a process of its own, within bounds.
    pub fn with_compiler(self, compiler: Option<Compiler>) -> Self {
        Self { compiler, ..self }
    }

    /// Machine code of a component: from the cache where it is there. Otherwise it takes a second
    /// of processor time for each few megabytes: not for a thread that serves.
    pub(crate) fn compile(
        &self,
        digest: Digest,
        component: &[u8],
    ) -> Result<Component, CompileError> {
        let cached = self.code_cache.as_ref();
        if let Some(compiled) = cached.and_then(|cache| cache.load(&self.wasmtime, digest)) {
            return Ok(compiled);
        }
        let began = Instant::now();
        let compiled = self.compile_anew(component);
        self.measured.compiled(began.elapsed());
        let compiled = compiled?;
        if let Some(cache) = cached {
            cache.store(&self.wasmtime, digest, &compiled);
        }
        Ok(compiled)
    }

    fn compile_anew(&self, component: &[u8]) -> Result<Component, CompileError> {
        let invalid = |error| CompileError::Invalid(causes(&error));
        match &self.compiler {
            None => Component::from_binary(&self.wasmtime, component).map_err(invalid),
            Some(compiler) => {
                let code = compiler.compile(component)?;
                code_cache::of_own_child(&self.wasmtime, &code).map_err(invalid)
            }
        }
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }

    /// The clock that ticks.
    pub(super) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// How many ticks one decision may take.
    pub(super) fn decision_ticks(&self) -> u64 {
        self.decision_ticks
    }
}
