//! Tokens that gateways take for their policies: see [`Limits`].
//!
//! The database knows nothing of them, and the writer does not wait for them: they have a lock of their
//! own, which is held for as long as it takes to go through one message. A catalog that stops cleanly
//! leaves them to the next one: see [`handover`].

pub mod handover;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::time::BootTime;
use domain::{Epoch, Invalid, Take};
use wire::Malformed;
use wire::catalog::v1::{TakeRequest, TakeResponse};
use wire::takes;

use crate::error::RequestError;
use crate::shared::Shared;
use catalog_core::Limits;
use catalog_core::limits::Snapshot;

/// Most takes in one message.
pub const TAKES_MAX: usize = 1024;

/// The buckets of all gateways.
#[derive(Debug)]
pub struct Takes {
    /// `None` once the catalog stops.
    limits: Mutex<Option<Limits>>,
    shared: Arc<Shared>,
    was_elected: AtomicBool,
    /// What the start found is known to be what was left.
    is_current: AtomicBool,
}

impl Takes {
    /// Of a catalog that starts, with what the one before left it. Nothing is taken before a journal's
    /// first election, which is durable: so before that all buckets are full, and after it they begin
    /// empty where nothing was left.
    pub fn new(shared: Arc<Shared>, left: Option<&Snapshot>, now: BootTime) -> Self {
        let resumed = left.and_then(|left| Limits::resumed(left, now));
        let limits = match (shared.leadership().term.epoch, resumed) {
            (Epoch(0), _) => Limits::new(),
            (_, Some(resumed)) => resumed,
            (_, None) => Limits::empty_at(now),
        };
        Self {
            limits: Mutex::new(Some(limits)),
            shared,
            was_elected: AtomicBool::new(false),
            is_current: AtomicBool::new(false),
        }
    }

    /// Grants nothing more; returns what the next one is to know. `None` where this was called before.
    pub fn close(&self) -> Option<Snapshot> {
        let mut limits = self.limits();
        let closed = limits.take()?;
        Some(closed.snapshot(BootTime::now()))
    }

    /// Takes tokens, for one message.
    ///
    /// # Errors
    /// Before the first election, at a stop, and where a take cannot be: then nothing is taken.
    pub fn answer(&self, request: &TakeRequest) -> Result<TakeResponse, RequestError> {
        let wanted = from_wire(request)?;
        if !self.was_elected() {
            return Err(RequestError::Unelected);
        }
        let mut limits = self.limits();
        let limits = limits.as_mut().ok_or(RequestError::Stopping)?;
        // The clock is read under the lock, so that it goes forward for the buckets.
        let now = BootTime::now();
        if !self.is_current.swap(true, Ordering::Relaxed) && self.shared.had_lost() {
            // A database of before, and what went with it: nobody knows what was taken since.
            *limits = Limits::empty_at(now);
        }
        let answers = wanted
            .iter()
            .map(|(tag, take)| takes::answer(*tag, limits.take(take, now)));
        let answers = answers.collect();
        Ok(TakeResponse { answers })
    }

    fn limits(&self) -> MutexGuard<'_, Option<Limits>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn was_elected(&self) -> bool {
        let known = self.was_elected.load(Ordering::Relaxed);
        if known || self.shared.leadership().term.epoch == Epoch(0) {
            return known;
        }
        self.was_elected.store(true, Ordering::Relaxed);
        true
    }
}

/// Reads takes off a message, with their tags.
///
/// # Errors
/// Where there are more than [`TAKES_MAX`], or one cannot be.
pub fn from_wire(request: &TakeRequest) -> Result<Vec<(u64, Take)>, Malformed> {
    let count = request.takes.len();
    if count > TAKES_MAX {
        let problem = format!("has {count} entries; {TAKES_MAX} are the most");
        return Err(Malformed(Invalid::new("takes", problem)));
    }
    let takes = request.takes.iter();
    takes
        .map(|take| Ok((take.tag, Take::try_from(take)?)))
        .collect()
}
