//! Instances of a component. One belongs to one thread and is reused for many decisions, because
//! instantiating costs thirty times what a decision does. One that fails is thrown away: nothing is
//! known of what it left in its memory.

use domain::ReplicaId;
use wasmtime::component::{Component, Linker};
use wasmtime::{Store, UpdateDeadline};

use super::bindings::{Answer, FrontEnd, FrontEndPre, World};
use super::budget::GuestBudget;
use super::deadline::{Deadline, ticks};
use super::engine::{Clock, Engine};
use super::failure::Failure;
use super::thread::processor_time;
use super::wasi::{self, HasWasi, Wasi};
use super::written::Written;
use crate::decision::{Decision, InvalidDecision, Manifest, Outcome, PolicyRequest, View};
use crate::limits;

/// A component with all its imports, of which instances are made.
pub(crate) struct Template {
    pre: FrontEndPre<Guest>,
    decision_ticks: u64,
    clock: Clock,
}

impl Template {
    /// Gives a component its imports.
    ///
    /// # Errors
    /// Where its imports or exports have other types than those of its world.
    pub(crate) fn link(
        engine: &Engine,
        world: World,
        component: &Component,
    ) -> wasmtime::Result<Self> {
        let mut linker = Linker::<Guest>::new(engine.wasmtime());
        wasi::link(&mut linker, component)?;
        Ok(Self {
            pre: FrontEndPre::new(world, linker.instantiate_pre(component)?)?,
            decision_ticks: engine.decision_ticks(),
            clock: engine.clock(),
        })
    }

    /// The clock of the engine that it is for.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// A running copy of a component, for one thread.
pub(crate) struct Instance {
    store: Store<Guest>,
    front_end: FrontEnd,
    decision_ticks: u64,
}

/// The data of an instance's store.
struct Guest {
    budget: GuestBudget,
    wasi: Wasi,
    deadline: Deadline,
}

impl HasWasi for Guest {
    fn wasi(&mut self) -> &mut Wasi {
        &mut self.wasi
    }
}

/// What a call finds beside its arguments: a clock and randomness, the same all the while.
#[derive(Debug, Clone, Copy)]
pub struct Ambient {
    /// Wall clock in milliseconds since 1970.
    pub now_ms: u64,
    /// What the randomness of the call begins with.
    pub seed: u64,
}

/// Why there is no instance.
#[derive(Debug)]
pub(crate) enum StartFailure {
    /// It failed.
    Failed(Failure),
    /// It refuses its configuration, and says why.
    ConfigRefused(String),
}

impl From<wasmtime::Error> for StartFailure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Failure> for StartFailure {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Of an instance in service: at the check the policy took the same configuration.
impl From<StartFailure> for Failure {
    fn from(failure: StartFailure) -> Self {
        match failure {
            StartFailure::Failed(failure) => failure,
            StartFailure::ConfigRefused(_) => InvalidDecision(
                "it refuses a configuration that it took before: it keeps nothing, and must take it each time".into(),
            )
            .into(),
        }
    }
}

impl Instance {
    /// Makes one and has it start its language's runtime and take its configuration. Returns what
    /// the policy says of itself as well.
    pub(super) fn start(
        template: &Template,
        config: &[u8],
        deadline: Deadline,
    ) -> Result<(Self, Manifest), StartFailure> {
        let engine = template.pre.engine().clone();
        let mut store = Store::new(
            &engine,
            Guest {
                budget: GuestBudget::new(),
                wasi: Wasi::new(),
                deadline,
            },
        );
        store.limiter(|guest| &mut guest.budget);
        store.epoch_deadline_callback(|mut store| {
            Ok(match store.data_mut().deadline.check(processor_time()) {
                Some(ticks) => UpdateDeadline::Continue(ticks),
                None => UpdateDeadline::Interrupt,
            })
        });
        let start_ticks = ticks(limits::START_TIME_MAX);
        let first_look = store.data_mut().deadline.begin(start_ticks, processor_time);
        store.set_epoch_deadline(first_look);
        let front_end = template.pre.instantiate(&mut store)?;
        let mut instance = Self {
            store,
            front_end,
            decision_ticks: start_ticks,
        };
        // A language's runtime starts in the first call. That is one about nothing that a client
        // sent, so no client can find a request that makes use of the longer time.
        let ambient = Ambient { now_ms: 0, seed: 0 };
        let configured = instance.call(ambient, |front_end, store| {
            front_end.configure(store, config)
        })?;
        let manifest = configured.map_err(StartFailure::ConfigRefused)?;
        instance.decision_ticks = template.decision_ticks;
        Ok((instance, manifest))
    }

    /// Whether it should make room for a fresh one.
    pub(super) fn is_worn(&self) -> bool {
        self.store.data().wasi.is_worn()
    }

    /// What was written to its stdout and stderr since the last call.
    pub(crate) fn take_output(&mut self) -> Option<Written> {
        self.store.data_mut().wasi.take_output()
    }

    /// What to do about a request.
    pub(crate) fn on_request(
        &mut self,
        ambient: Ambient,
        request: &PolicyRequest<'_>,
    ) -> Result<Decision, Failure> {
        self.call(ambient, |front_end, store| {
            front_end.on_request(store, request)
        })
    }

    /// What to do about an outcome.
    pub(crate) fn on_outcome(
        &mut self,
        ambient: Ambient,
        request: &PolicyRequest<'_>,
        memo: &[u8],
        outcome: &Outcome,
    ) -> Result<Decision, Failure> {
        self.call(ambient, |front_end, store| {
            front_end.on_outcome(store, request, memo, outcome)
        })
    }

    pub(crate) fn elect(
        &mut self,
        ambient: Ambient,
        view: &View,
    ) -> Result<Option<ReplicaId>, Failure> {
        self.call(ambient, |front_end, store| front_end.elect(store, view))
    }

    /// One call, with its clock, randomness and deadline. After a failure the instance must
    /// not be called again.
    fn call<T>(
        &mut self,
        ambient: Ambient,
        call: impl FnOnce(&FrontEnd, &mut Store<Guest>) -> Answer<T>,
    ) -> Result<T, Failure> {
        let guest = self.store.data_mut();
        guest.wasi.begin(ambient.now_ms, ambient.seed);
        let first_look = guest.deadline.begin(self.decision_ticks, processor_time);
        self.store.set_epoch_deadline(first_look);
        Ok(call(&self.front_end, &mut self.store)??)
    }
}
