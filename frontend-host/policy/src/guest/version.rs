//! A component in use: what it says of itself, and what it has done so far.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use metrics::Counter;

use super::bindings::World;
use super::config::Config;
use super::costs::Costs;
use super::deadline::Deadline;
use super::digest::Digest;
use super::engine::Clock;
use super::failure::Failure;
use super::instance::{Instance, StartFailure, Template};
use super::observed::Observed;
use super::thread::processor_time;
use crate::answered::Answered;
use crate::decision::{Manifest, OnFailure, Remarks, header_text};

/// Of the process, not of an engine: a thread's instances are found by their versions' ids.
static VERSIONS_MADE: AtomicU64 = AtomicU64::new(0);

/// A component that can decide, with its configuration.
pub struct Version {
    /// Tells the versions made by this process apart, also two of the same component.
    pub id: u64,
    /// Names the component with its configuration, see [`Digest::of_version`].
    pub digest: Digest,
    /// The component's SHA-256.
    pub component: Digest,
    /// The world that it is made for.
    pub(crate) world: World,
    /// What each instance is given first.
    pub(crate) config: Config,
    /// What it says of itself.
    pub manifest: Manifest,
    /// What it has done so far.
    pub counts: Counts,
    /// The requests about which it decided for clients: kept for a while when it is gone.
    pub answered: Arc<Answered>,
    /// How much processor time an instance takes to start.
    pub(crate) start_cost: Duration,
    /// What it has counted of its own accord.
    pub observed: Observed,
    /// What its decisions cost.
    pub costs: Costs,
    /// Whether a response that it had kept depended on more than its key.
    misses_keys: AtomicBool,
    /// Whether it passed its probation, in this process or before.
    proven: AtomicBool,
    /// The last decision that came out differently when it was made again.
    impure_example: Mutex<Option<String>>,
    template: Arc<Template>,
}

/// A version as the threads share it.
pub type SharedVersion = Arc<Version>;

impl Version {
    /// Has a component say what it is, with its configuration.
    pub(crate) fn from_template(
        component: Digest,
        world: World,
        template: Arc<Template>,
        config: Config,
    ) -> Result<Self, StartFailure> {
        let begun = processor_time();
        let (_, manifest) = Instance::start(&template, config.bytes(), Deadline::unhurried())?;
        let start_cost = processor_time().saturating_sub(begun);
        Ok(Self {
            id: VERSIONS_MADE.fetch_add(1, Ordering::Relaxed),
            digest: Digest::of_version(component, config.raw()),
            component,
            world,
            config,
            manifest,
            counts: Counts::default(),
            answered: Arc::default(),
            start_cost,
            observed: Observed::new(),
            costs: Costs::default(),
            misses_keys: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            impure_example: Mutex::default(),
            template,
        })
    }

    /// The clock that its decisions' deadlines go by.
    pub(crate) fn clock(&self) -> &Clock {
        self.template.clock()
    }

    /// What names its configuration; `None` without one.
    pub fn config_digest(&self) -> Option<Digest> {
        let raw = self.config.raw();
        (!raw.is_empty()).then(|| Digest::of(raw))
    }

    /// Its component with all imports, and the world that this is for.
    pub(crate) fn template(&self) -> (World, Arc<Template>) {
        (self.world, Arc::clone(&self.template))
    }

    fn start(&self, deadline: Deadline) -> Result<(Instance, Manifest), StartFailure> {
        Instance::start(&self.template, self.config.bytes(), deadline)
    }

    /// An instance for decisions that clients wait for.
    pub(super) fn start_instance(&self) -> Result<Instance, Failure> {
        let (instance, _) = self.start(Deadline::default())?;
        Ok(instance)
    }

    /// An instance for decisions that nobody waits for: see [`Deadline::unhurried`].
    pub(crate) fn start_unhurried_instance(&self) -> Result<Instance, Failure> {
        let (instance, _) = self.start(Deadline::unhurried())?;
        Ok(instance)
    }

    /// A decision came out differently when it was made again in a fresh instance.
    pub(crate) fn note_impure(&self, example: String) {
        let impure = self.counts.impure.fetch_add(1, Ordering::Relaxed) + 1;
        if impure.is_power_of_two() {
            tracing::warn!(policy = %self, impure, example, "the policy decides by more than it is told");
        }
        *self
            .impure_example
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(example);
    }

    /// The last of the decisions that [`Counts::impure`] counts, in words.
    pub fn impure_example(&self) -> Option<String> {
        let example = self.impure_example.lock();
        example.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts what it counts with a decision for a client, and writes what it says to the log.
    pub(crate) fn take_down(&self, remarks: Remarks) {
        for mut observation in remarks.observations {
            for label in &mut observation.labels {
                *label = self.config.scrub(label);
            }
            self.observed.count(observation);
        }
        for line in remarks.log {
            if let Some(dropped) = self.observed.may_say() {
                tracing::info!(policy = %self, dropped, line = %self.config.scrub(&line).escape_debug(), "the policy says");
            }
        }
    }

    /// The headers that it adds to every reply, for operators: without secrets of its configuration.
    pub fn reply_headers(&self) -> Vec<String> {
        let headers = self.manifest.reply_headers.iter();
        headers
            .map(|header| self.config.scrub(&header.to_string()))
            .collect()
    }

    /// Whether its responses may be kept: none of them is any more once one was found to depend on
    /// more than its key.
    pub fn may_keep(&self) -> bool {
        !self.misses_keys.load(Ordering::Relaxed)
    }

    /// From now on its responses are not kept.
    pub(crate) fn keep_no_more(&self) {
        self.misses_keys.store(true, Ordering::Relaxed);
    }

    /// It passed its probation.
    pub(crate) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Whether it passed its probation, in this process or before.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Whether it keeps clients out where it fails.
    pub(crate) fn keeps_out(&self) -> bool {
        self.manifest.on_failure == OnFailure::Refuse
    }

    /// Whether it is one to go back to: it passed its probation, or keeps clients out. Whatever that one failed it
    /// refused, and who made it fail must not choose one that lets them in.
    pub(crate) fn is_good(&self) -> bool {
        self.is_proven() || self.keeps_out()
    }

    /// The first header that it wants to see and cannot be shown: one of world 1.0 sees text alone.
    pub fn unreadable<'a>(&'a self, headers: &HeaderMap) -> Option<&'a HeaderName> {
        if self.world != World::V1_0 {
            return None;
        }
        self.manifest.headers.iter().find(|name| {
            let mut values = headers.get_all(*name).iter();
            values.any(|value| header_text(value.as_bytes()).is_none())
        })
    }
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
    /// Calls that ended in a decision.
    pub decisions: Counter,
    pub traps: AtomicU64,
    /// Calls stopped at the deadline.
    pub overruns: AtomicU64,
    /// Decisions that no host could act on.
    pub invalid: AtomicU64,
    /// Answers of 500 and above that no backend is to blame for.
    pub errors: AtomicU64,
    /// Decisions that came out differently when they were made again in a fresh instance.
    pub impure: AtomicU64,
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

    /// Traps, overruns and invalid decisions together.
    pub fn failures(&self) -> u64 {
        [&self.traps, &self.overruns, &self.invalid]
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }
}
