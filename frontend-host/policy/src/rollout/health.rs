//! How a version has done since it began to decide for clients.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use domain::time::BootTime;
use serde::{Deserialize, Serialize};

use super::breaker::{Breaker, BrokenOff};
use super::probation::{Evidence, Probation};
use super::slowness::Slowness;

/// Incidents that are shown: the newest.
const INCIDENTS_MAX: usize = 4;

/// A decision that a version failed, as operators are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Wall clock in milliseconds since 1970.
    pub at_ms: u64,
    /// `trap`, `overrun`, `invalid`, `slow`, or `error` for a response of 500.
    pub kind: String,
    /// What was to be decided, without the values of query and headers and without the body.
    pub request: String,
    /// The request's `x-request-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What went wrong, on one line.
    pub cause: String,
    /// What the guest wrote: the message of a panic, mostly.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// The guest's functions that it was in, a line each.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backtrace: String,
}

/// Since when a version decides for clients, and how it has done since.
#[derive(Debug)]
pub struct HealthWindow {
    /// When it began to.
    pub since: BootTime,
    /// How long it is on probation.
    probation: Duration,
    /// Failures that are held against it, as of the last one.
    held: AtomicU64,
    /// They were too many.
    condemned: AtomicBool,
    /// Whether there is anything in `broken_off`: every decision asks.
    breaks_off: AtomicBool,
    broken_off: ArcSwapOption<BrokenOff>,
    incidents: Mutex<VecDeque<Incident>>,
    incidents_shown: AtomicU64,
    judgement: Mutex<Judgement>,
}

/// What the monitor knows of a version.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) evidence: Evidence,
    pub(super) breaker: Breaker,
    pub(super) slowness: Slowness,
}

impl HealthWindow {
    /// Begins now, with nothing held against it.
    pub(super) fn begin(probation: Probation) -> Arc<Self> {
        let processors = available_parallelism().map_or(1, |processors| processors.get() as u32);
        Arc::new(Self {
            since: BootTime::now(),
            probation: probation.window,
            held: AtomicU64::new(0),
            condemned: AtomicBool::new(false),
            breaks_off: AtomicBool::new(false),
            broken_off: ArcSwapOption::empty(),
            incidents: Mutex::default(),
            incidents_shown: AtomicU64::new(0),
            judgement: Mutex::new(Judgement {
                evidence: Evidence::default(),
                breaker: Breaker::new(processors),
                slowness: Slowness::default(),
            }),
        })
    }

    /// Whether it is new in service.
    pub fn is_on_probation(&self) -> bool {
        BootTime::now().since(self.since) <= self.probation
    }

    /// Whether it is one to go back to: it passed its probation, or nothing was held against it so far.
    pub(super) fn is_good(&self) -> bool {
        let passed = !self.is_on_probation() || self.held.load(Ordering::Relaxed) == 0;
        passed && !self.is_condemned()
    }

    /// Whether too many failures were held against it.
    pub fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Relaxed)
    }

    /// Condemns it; whether it was not before.
    pub(super) fn condemn(&self) -> bool {
        !self.condemned.swap(true, Ordering::Relaxed)
    }

    /// How many failures are held against it.
    pub fn held(&self) -> u64 {
        let mut judgement = self.judgement();
        judgement.evidence.forget(BootTime::now(), self.probation);
        judgement.evidence.failures()
    }

    pub(super) fn set_held(&self, held: u64) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// The requests that it is not asked about, where there are any. Cheap, for every decision asks.
    pub(crate) fn broken_off(&self) -> Option<Arc<BrokenOff>> {
        if !self.breaks_off.load(Ordering::Relaxed) {
            return None;
        }
        self.broken_off.load_full()
    }

    pub(super) fn break_off(&self, broken_off: BrokenOff) {
        self.broken_off.store(Some(Arc::new(broken_off)));
        self.breaks_off.store(true, Ordering::Relaxed);
    }

    /// How many paths, and how many clients, it is not asked about.
    pub fn broken_off_count(&self) -> (usize, usize) {
        let broken_off = self.broken_off();
        broken_off.map_or((0, 0), |broken_off| broken_off.count(BootTime::now()))
    }

    /// The newest incidents, oldest first.
    pub fn incidents(&self) -> Vec<Incident> {
        let incidents = self
            .incidents
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        incidents.iter().cloned().collect()
    }

    /// Shows one more; returns how many there were with it.
    pub(super) fn show(&self, incident: Incident) -> u64 {
        let mut incidents = self
            .incidents
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if incidents.len() == INCIDENTS_MAX {
            incidents.pop_front();
        }
        incidents.push_back(incident);
        self.incidents_shown.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn judgement(&self) -> MutexGuard<'_, Judgement> {
        self.judgement
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wall clock in milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
