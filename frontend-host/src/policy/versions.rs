//! Which version decides: the active one, the last good one behind it, and the swap.
//!
//! A swap publishes a new [`Published`] by one atomic pointer store. A request takes the
//! pointer once, at its beginning, and keeps the version that it found for all its steps.
//!
//! A decision has no side effect, so one that fails is simply made again by the last good
//! version; no client sees it.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::{HeaderMap, Method};
use protocol::ReplicaId;
use protocol::time::BootTime;

use super::check::{check, first};
use super::decision::{Decision, Manifest, Outcome, PolicyRequest, View};
use super::sandbox::{Failure, Inputs, Instance, Refused, Sandbox, SharedVersion, Version};

/// Instances that a thread keeps: of the active version, the previous one, and one to spare.
const INSTANCES_PER_THREAD_MAX: usize = 3;

/// The versions of the policy that this gateway has loaded.
pub struct Versions {
    sandbox: Sandbox,
    published: ArcSwap<Published>,
    /// Held while a new publication is made from the current one.
    publishing: Mutex<()>,
}

/// What decides at a moment. Never changes: a swap publishes another.
pub struct Published {
    /// Counts publications, from 1.
    pub generation: u64,
    /// Decides.
    pub active: SharedVersion,
    /// When the active version became so.
    pub activated: BootTime,
    /// The last good version: decides again what the active one fails at, and is what a
    /// rollback goes back to.
    pub previous: Option<SharedVersion>,
}

/// Why a rollback did not happen.
#[derive(Debug, thiserror::Error)]
#[error("there is no earlier good version to go back to")]
pub struct NothingToRollBackTo;

/// No version could decide. Each failure has been counted and logged.
#[derive(Debug, thiserror::Error)]
#[error("no version of the policy could decide")]
pub struct Undecided;

impl Versions {
    /// Starts with a first version, which must pass its check.
    pub fn new(sandbox: Sandbox, component: &[u8]) -> Result<Self, Refused> {
        let active = Arc::new(check(&sandbox, component)?);
        let published = Published {
            generation: 1,
            active,
            activated: BootTime::now(),
            previous: None,
        };
        Ok(Self {
            sandbox,
            published: ArcSwap::from_pointee(published),
            publishing: Mutex::new(()),
        })
    }

    /// What decides now.
    pub fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Checks a component and makes it the active version. Compiles: call it off the threads
    /// that serve. The version that was active stays loaded; if it never failed, it is the
    /// last good one from now on.
    pub fn activate(&self, component: &[u8]) -> Result<SharedVersion, Refused> {
        let version = Arc::new(check(&self.sandbox, component)?);
        let _publishing = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.published.load();
        let previous = if is_good(&now.active) {
            Some(Arc::clone(&now.active))
        } else {
            now.previous.clone()
        };
        self.publish(&now, Arc::clone(&version), previous);
        Ok(version)
    }

    /// Makes the last good version the active one again.
    pub fn roll_back(&self) -> Result<SharedVersion, NothingToRollBackTo> {
        let _publishing = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.published.load();
        let target = now.previous.clone().ok_or(NothingToRollBackTo)?;
        let previous = is_good(&now.active).then(|| Arc::clone(&now.active));
        self.publish(&now, Arc::clone(&target), previous);
        Ok(target)
    }

    fn publish(&self, now: &Published, active: SharedVersion, previous: Option<SharedVersion>) {
        tracing::info!(from = %now.active, to = %active, "policy swapped");
        let generation = now.generation + 1;
        self.published.store(Arc::new(Published {
            generation,
            active,
            activated: BootTime::now(),
            previous,
        }));
    }

    /// The decider of one request: the versions stay the same for all its steps.
    pub fn decider(&self) -> Decider {
        Decider::new(self.published.load_full())
    }

    /// The replica that the policy wants to lead.
    pub fn elect(&self, now_ms: u64, view: &View) -> Result<Option<ReplicaId>, Undecided> {
        let mut decider = self.decider();
        let inputs = Inputs {
            now_ms,
            seed: decider.seed,
        };
        decider.decide(|instance, _| instance.elect(inputs, view))
    }
}

fn is_good(version: &Version) -> bool {
    version.counts.failures() == 0
}

/// Makes the decisions about one request.
pub struct Decider {
    published: Arc<Published>,
    fallen_back: bool,
    seed: u64,
}

/// A request as the gateway has it.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub target: &'a str,
    /// All headers; the policy sees those that its manifest asks for.
    pub headers: &'a HeaderMap,
    /// The body, where there is one.
    pub body: Option<&'a [u8]>,
    /// Wall clock in milliseconds since 1970.
    pub now_ms: u64,
}

impl Decider {
    fn new(published: Arc<Published>) -> Self {
        Self {
            published,
            fallen_back: false,
            seed: fastrand::u64(..),
        }
    }

    /// The version that decides.
    pub fn version(&self) -> &SharedVersion {
        match &self.published.previous {
            Some(previous) if self.fallen_back => previous,
            _ => &self.published.active,
        }
    }

    /// What to do about a request.
    pub fn on_request(&mut self, request: RequestParts<'_>) -> Result<Decision, Undecided> {
        let inputs = Inputs {
            now_ms: request.now_ms,
            seed: self.seed,
        };
        self.decide(|instance, manifest| {
            with_headers(request, manifest, |request| {
                Ok(first(instance.on_request(inputs, request)?)?)
            })
        })
    }

    /// What to do about an outcome. `memo` comes from the decision before, which the version
    /// that is asked now made, unless that version failed: then the last good one decides
    /// about the request from the start, and its own memo goes with the outcome.
    pub fn on_outcome(
        &mut self,
        request: RequestParts<'_>,
        memo: &[u8],
        outcome: &Outcome,
    ) -> Result<Decision, Undecided> {
        let inputs = Inputs {
            now_ms: request.now_ms,
            seed: self.seed,
        };
        let asked_first = self.version().id;
        let mut asked = asked_first;
        self.decide_by(|version, instance| {
            asked = version.id;
            with_headers(request, &version.manifest, |request| {
                if asked == asked_first {
                    return instance.on_outcome(inputs, request, memo, outcome);
                }
                let own = instance.on_request(inputs, request)?;
                instance.on_outcome(inputs, request, &own.memo, outcome)
            })
        })
    }

    fn decide<T>(
        &mut self,
        call: impl Fn(&mut Instance, &Manifest) -> Result<T, Failure>,
    ) -> Result<T, Undecided> {
        self.decide_by(|version, instance| call(instance, &version.manifest))
    }

    /// Asks the version; where it fails, the last good one; where there is none and time ran
    /// out, the same version once more, because a busy machine can do that to an honest one.
    fn decide_by<T>(
        &mut self,
        mut call: impl FnMut(&Version, &mut Instance) -> Result<T, Failure>,
    ) -> Result<T, Undecided> {
        let mut overran = false;
        loop {
            let version = Arc::clone(self.version());
            let failure = match with_instance(self.published.generation, &version, &mut call) {
                Ok(decision) => {
                    version.counts.decisions.fetch_add(1, Ordering::Relaxed);
                    return Ok(decision);
                }
                Err(failure) => failure,
            };
            report(&version, &failure);
            let can_fall_back = !self.fallen_back && self.published.previous.is_some();
            if can_fall_back {
                self.fallen_back = true;
            } else if matches!(failure, Failure::Overrun(_)) && !overran {
                overran = true;
            } else {
                return Err(Undecided);
            }
        }
    }
}

/// Counts a failure, and logs it while failures are few: a policy that fails every request
/// must not fill the disk.
fn report(version: &Version, failure: &Failure) {
    let failures = version.counts.count_failure(failure);
    if failures.is_power_of_two() {
        tracing::error!(policy = %version, failures, %failure, "the policy failed a decision");
    }
}

fn with_headers<T>(
    request: RequestParts<'_>,
    manifest: &Manifest,
    call: impl FnOnce(&PolicyRequest<'_>) -> T,
) -> T {
    let mut headers = Vec::new();
    for name in &manifest.headers {
        for value in request.headers.get_all(name) {
            // Values that are not text were refused before.
            headers.extend(value.to_str().ok().map(|value| (name.as_str(), value)));
        }
    }
    call(&PolicyRequest {
        method: request.method,
        target: request.target,
        headers: &headers,
        body: request.body,
        now_ms: request.now_ms,
    })
}

/// The instances of a thread.
struct Pool {
    /// The publication that it was last trimmed for.
    generation: u64,
    /// Most recently used last.
    instances: Vec<(u64, Instance)>,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { generation: 0, instances: Vec::new() }) };
}

/// Calls this thread's instance of a version, making one where there is none. An instance
/// goes back to the pool only after a success.
fn with_instance<T>(
    generation: u64,
    version: &Version,
    call: &mut impl FnMut(&Version, &mut Instance) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let pooled = POOL.with_borrow_mut(|pool| pool.take(generation, version.id));
    let mut instance = match pooled {
        Some(instance) => instance,
        None => Instance::of(version)?,
    };
    let result = call(version, &mut instance);
    if let Some((output, dropped)) = instance.take_output() {
        log_output(version, &output, dropped);
    }
    if result.is_ok() && !instance.is_worn() {
        POOL.with_borrow_mut(|pool| pool.put(version.id, instance));
    }
    result
}

impl Pool {
    fn take(&mut self, generation: u64, version: u64) -> Option<Instance> {
        if generation > self.generation {
            // Versions came and went: let go of all but the one asked for.
            self.generation = generation;
            self.instances.retain(|(id, _)| *id == version);
        }
        let place = self.instances.iter().position(|(id, _)| *id == version)?;
        Some(self.instances.swap_remove(place).1)
    }

    fn put(&mut self, version: u64, instance: Instance) {
        if self.instances.len() == INSTANCES_PER_THREAD_MAX {
            self.instances.remove(0);
        }
        self.instances.push((version, instance));
    }
}

/// Output is for the author of a policy who looks at the log, so it is at debug level.
fn log_output(version: &Version, output: &[u8], dropped: usize) {
    let text = String::from_utf8_lossy(output);
    tracing::debug!(policy = %version, dropped, output = %text.trim_end().escape_debug(), "the policy wrote");
}
