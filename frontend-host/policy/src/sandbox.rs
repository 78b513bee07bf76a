//! One engine, the versions loaded into it, and instances of them.
//!
//! A [`Version`] is compiled once and shared; an [`Instance`] belongs to one thread and is
//! reused for many decisions, because instantiating costs thirty times what a decision does.
//! An instance that fails is thrown away: nothing is known of what it left in its memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use daemon::tasks;
use domain::ReplicaId;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, ResourceLimiter, Store, Trap, UpdateDeadline};

use super::bindings::{Answer, FrontEnd, FrontEndPre, World};
use super::compiled::Compiled;
use super::deadline::Deadline;
use super::decision::{Decision, InvalidDecision, Manifest, Outcome, PolicyRequest, View};
use super::digest::Digest;
use super::limits;
use super::refused::{Problem, Refused};
use super::thread::processor_time;
use super::wasi::{self, HasWasi, Wasi};
use super::world;

/// Compiles components and bounds the time of their decisions.
pub struct Sandbox {
    engine: Engine,
    decision_ticks: u64,
    compiled: Option<Compiled>,
}

/// Of the process, not of a sandbox: a thread's instances are found by their versions' ids.
static VERSIONS_LOADED: AtomicU64 = AtomicU64::new(0);

/// What a core module begins with: the magic number, and the version of the binary format.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The component trapped. The message has its backtrace.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It took longer than it may.
    #[error("it took longer than it may: {0}")]
    Overrun(String),
    /// It decided something that no host could act on.
    #[error("its decision is invalid: {0}")]
    Invalid(#[from] InvalidDecision),
}

impl Failure {
    /// What it comes down to, on one line.
    pub fn cause(&self) -> &str {
        let (Self::Trap(message)
        | Self::Overrun(message)
        | Self::Invalid(InvalidDecision(message))) = self;
        let cause = message.lines().next().unwrap_or_default();
        cause.strip_prefix("wasm trap: ").unwrap_or(cause)
    }
}

impl Sandbox {
    /// A sandbox whose decisions may take `decision_time_max` of processor time, rounded up to
    /// [`limits::EPOCH_TICK`]. Starts the thread that the deadlines go by, which ends with
    /// the sandbox and all that was loaded into it.
    ///
    /// # Errors
    /// Where wasmtime does not support this machine.
    pub fn new(decision_time_max: Duration) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(limits::STACK_BYTES_MAX);
        let engine = Engine::new(&config)?;
        let ticked = engine.weak();
        // A thread, not a task: a decision that loops for ever blocks its worker's tasks.
        tasks::thread("policy-clock", move || {
            while let Some(engine) = ticked.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(limits::EPOCH_TICK);
            }
        })?;
        Ok(Self {
            engine,
            decision_ticks: ticks(decision_time_max),
            compiled: None,
        })
    }

    /// Keeps compiled code for the next time.
    pub fn keeping(self, compiled: Compiled) -> Self {
        Self {
            compiled: Some(compiled),
            ..self
        }
    }

    /// Compiles a component, checks what it imports and exports, and asks it what it is.
    /// Takes a second of processor time for each few megabytes: not for a thread that serves.
    pub fn load(&self, component: &[u8]) -> Result<Version, Refused> {
        if component.len() > limits::COMPONENT_BYTES_MAX {
            return Err(Problem::TooLarge(component.len()).into());
        }
        if component.starts_with(CORE_MODULE) {
            return Err(Problem::CoreModule.into());
        }
        let digest = Digest::of(component);
        let component = self.compile(digest, component)?;
        let world = world::fitted(&component)?;
        let unfit = |error: wasmtime::Error| Problem::World {
            interface: world.interface(),
            problem: causes(&error),
        };
        let mut linker = Linker::<Guest>::new(&self.engine);
        wasi::link(&mut linker, &component).map_err(unfit)?;
        let pre = linker
            .instantiate_pre(&component)
            .and_then(|pre| FrontEndPre::new(world, pre))
            .map_err(unfit)?;
        let loaded = Loaded {
            pre,
            decision_ticks: self.decision_ticks,
        };
        let manifest = Instance::start(&loaded, Deadline::unhurried())
            .and_then(|mut instance| instance.describe())
            .map_err(|failure| Problem::Describe(failure.cause().to_owned()))?;
        let id = VERSIONS_LOADED.fetch_add(1, Ordering::Relaxed);
        Ok(Version {
            id,
            digest,
            world,
            manifest,
            counts: Counts::default(),
            loaded,
        })
    }
}

impl Sandbox {
    /// From what is kept where possible.
    fn compile(&self, digest: Digest, component: &[u8]) -> Result<Component, Refused> {
        let kept = self
            .compiled
            .as_ref()
            .and_then(|compiled| compiled.load(&self.engine, digest));
        if let Some(component) = kept {
            return Ok(component);
        }
        let component = Component::from_binary(&self.engine, component)
            .map_err(|error| Problem::NotAComponent(causes(&error)))?;
        if let Some(compiled) = &self.compiled {
            compiled.keep(&self.engine, digest, &component);
        }
        Ok(component)
    }
}

fn ticks(time: Duration) -> u64 {
    // One more, because the first tick may come at once.
    time.as_nanos().div_ceil(limits::EPOCH_TICK.as_nanos()) as u64 + 1
}

/// An error and what caused it, on one line.
fn causes(error: &wasmtime::Error) -> String {
    let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
    let words = chain.join(": ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A component that was compiled and checked.
pub struct Version {
    /// Tells the versions loaded by this process apart, also two of the same component.
    pub id: u64,
    /// Of the component.
    pub digest: Digest,
    /// What it is made for.
    pub(super) world: World,
    /// What it says of itself.
    pub manifest: Manifest,
    /// What it has done so far.
    pub counts: Counts,
    loaded: Loaded,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.to_string();
        write!(
            f,
            "{} {} ({})",
            self.manifest.name,
            self.manifest.version,
            &digest[..12]
        )
    }
}

/// How often a version decided, and how often it failed to, for clients and as a shadow.
#[derive(Debug, Default)]
pub struct Counts {
    /// Decisions made.
    pub decisions: AtomicU64,
    /// Calls that trapped.
    pub traps: AtomicU64,
    /// Calls stopped at the deadline.
    pub overruns: AtomicU64,
    /// Decisions that no host could act on.
    pub invalid: AtomicU64,
    /// Answers of 500 and above that no backend is to blame for.
    pub errors: AtomicU64,
}

impl Counts {
    /// Counts a failure; returns how many there were with it.
    pub fn count_failure(&self, failure: &Failure) -> u64 {
        let counter = match failure {
            Failure::Trap(_) => &self.traps,
            Failure::Overrun(_) => &self.overruns,
            Failure::Invalid(_) => &self.invalid,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.failures()
    }

    /// How many failures there were.
    pub fn failures(&self) -> u64 {
        [&self.traps, &self.overruns, &self.invalid]
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }
}

struct Loaded {
    pre: FrontEndPre<Guest>,
    decision_ticks: u64,
}

/// A running copy of a version, for one thread.
pub(super) struct Instance {
    store: Store<Guest>,
    front_end: FrontEnd,
    decision_ticks: u64,
}

/// The data of an instance's store.
struct Guest {
    room: Room,
    wasi: Wasi,
    deadline: Deadline,
}

/// What an instance may still take. Counts all its memories and tables together: wasmtime's own
/// `StoreLimits` are for each, and a component can have a hundred.
struct Room {
    memory_bytes: usize,
    table_elements: usize,
}

impl Room {
    fn new() -> Self {
        Self {
            memory_bytes: limits::MEMORY_BYTES_MAX,
            table_elements: limits::TABLE_ELEMENTS_MAX,
        }
    }
}

/// Whether something may grow; if so, takes that out of what is left.
fn grow(left: &mut usize, current: usize, desired: usize, maximum: Option<usize>) -> bool {
    let wanted = desired.saturating_sub(current);
    let allowed = maximum.is_none_or(|maximum| desired <= maximum) && wanted <= *left;
    if allowed {
        *left -= wanted;
    }
    allowed
}

impl ResourceLimiter for Room {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(grow(&mut self.memory_bytes, current, desired, maximum))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(grow(&mut self.table_elements, current, desired, maximum))
    }

    fn instances(&self) -> usize {
        limits::CORE_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        limits::CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        limits::CORE_INSTANCES_MAX
    }
}

impl HasWasi for Guest {
    fn wasi(&mut self) -> &mut Wasi {
        &mut self.wasi
    }
}

/// The clock and the randomness of one decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs {
    /// Wall clock in milliseconds since 1970.
    pub(super) now_ms: u64,
    /// Of the randomness.
    pub(super) seed: u64,
}

impl Instance {
    /// An instance of a version.
    pub(super) fn of(version: &Version) -> Result<Self, Failure> {
        Self::start(&version.loaded, Deadline::default())
    }

    /// For a check, which nobody waits for: see [`Deadline::unhurried`].
    pub(super) fn to_check(version: &Version) -> Result<Self, Failure> {
        Self::start(&version.loaded, Deadline::unhurried())
    }

    fn start(loaded: &Loaded, deadline: Deadline) -> Result<Self, Failure> {
        let engine = loaded.pre.engine().clone();
        let mut store = Store::new(
            &engine,
            Guest {
                room: Room::new(),
                wasi: Wasi::new(),
                deadline,
            },
        );
        store.limiter(|guest| &mut guest.room);
        store.epoch_deadline_callback(|mut store| {
            Ok(match store.data_mut().deadline.look(processor_time()) {
                Some(ticks) => UpdateDeadline::Continue(ticks),
                None => UpdateDeadline::Interrupt,
            })
        });
        let start_ticks = ticks(limits::START_TIME_MAX);
        let first_look = store.data_mut().deadline.begin(start_ticks);
        store.set_epoch_deadline(first_look);
        let front_end = loaded.pre.instantiate(&mut store).map_err(failure)?;
        let mut instance = Self {
            store,
            front_end,
            decision_ticks: start_ticks,
        };
        // A language's runtime starts in the first call. That is one about nothing that a client
        // sent, so no client can find a request that makes use of the longer time.
        instance.describe()?;
        instance.decision_ticks = loaded.decision_ticks;
        Ok(instance)
    }

    /// Whether it should make room for a fresh one.
    pub(super) fn is_worn(&self) -> bool {
        self.store.data().wasi.is_worn()
    }

    /// What was written to its stdout and stderr since the last call, and how many bytes
    /// were dropped.
    pub(super) fn take_output(&mut self) -> Option<(Vec<u8>, usize)> {
        self.store.data_mut().wasi.take_output()
    }

    fn describe(&mut self) -> Result<Manifest, Failure> {
        self.call(Inputs { now_ms: 0, seed: 0 }, |front_end, store| {
            front_end.describe(store)
        })
    }

    /// What to do about a request.
    pub(super) fn on_request(
        &mut self,
        inputs: Inputs,
        request: &PolicyRequest<'_>,
    ) -> Result<Decision, Failure> {
        self.call(inputs, |front_end, store| {
            front_end.on_request(store, request)
        })
    }

    /// What to do about an outcome.
    pub(super) fn on_outcome(
        &mut self,
        inputs: Inputs,
        request: &PolicyRequest<'_>,
        memo: &[u8],
        outcome: &Outcome,
    ) -> Result<Decision, Failure> {
        self.call(inputs, |front_end, store| {
            front_end.on_outcome(store, request, memo, outcome)
        })
    }

    /// Who should lead.
    pub(super) fn elect(
        &mut self,
        inputs: Inputs,
        view: &View,
    ) -> Result<Option<ReplicaId>, Failure> {
        self.call(inputs, |front_end, store| front_end.elect(store, view))
    }

    /// One call, with its clock, randomness and deadline. After a failure the instance must
    /// not be called again.
    fn call<T>(
        &mut self,
        inputs: Inputs,
        call: impl FnOnce(&FrontEnd, &mut Store<Guest>) -> Answer<T>,
    ) -> Result<T, Failure> {
        let guest = self.store.data_mut();
        guest.wasi.begin(inputs.now_ms, inputs.seed);
        let first_look = guest.deadline.begin(self.decision_ticks);
        self.store.set_epoch_deadline(first_look);
        Ok(call(&self.front_end, &mut self.store).map_err(failure)??)
    }
}

fn failure(error: wasmtime::Error) -> Failure {
    // The cause first, and then the guest's backtrace.
    let message = format!("{}\n{error:?}", error.root_cause());
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::Overrun(message),
        _ => Failure::Trap(message),
    }
}

/// A version as the threads share it.
pub type SharedVersion = Arc<Version>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_and_all_tables_of_an_instance_count_together() {
        let mut room = Room::new();
        let half = limits::MEMORY_BYTES_MAX / 2;
        assert!(room.memory_growing(0, half, None).unwrap(), "one memory");
        assert!(room.memory_growing(0, half, None).unwrap(), "another");
        assert!(!room.memory_growing(0, 1, None).unwrap(), "a third");
        assert!(!room.memory_growing(half, half + 1, None).unwrap());
        let all = limits::TABLE_ELEMENTS_MAX;
        assert!(!room.table_growing(0, all, Some(all - 1)).unwrap());
        assert!(room.table_growing(0, all, None).unwrap());
        assert!(!room.table_growing(0, 1, None).unwrap());
    }
}
