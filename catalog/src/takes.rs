//! Tokens that gateways take for their policies: see [`Limits`].
//!
//! The database knows nothing of them, and the writer does not wait for them: they have a lock of their
//! own, which is held for as long as it takes to go through one message.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use domain::time::BootTime;
use domain::{Epoch, Invalid, Take};
use wire::Malformed;
use wire::catalog::v1::{TakeRequest, TakeResponse};
use wire::takes;

use crate::error::RequestError;
use crate::shared::Shared;
use catalog_core::Limits;

/// Most takes in one message.
pub const TAKES_MAX: usize = 1024;

/// The buckets of all gateways.
#[derive(Debug)]
pub struct Takes {
    limits: Mutex<Limits>,
    shared: Arc<Shared>,
    was_elected: AtomicBool,
}

impl Takes {
    /// Of a catalog that starts. Nothing is taken before a journal's first election, which is durable:
    /// so before that all buckets are full, and after it they begin empty.
    pub fn new(shared: Arc<Shared>, now: BootTime) -> Self {
        let limits = match shared.leadership().term.epoch {
            Epoch(0) => Limits::new(),
            _ => Limits::empty_at(now),
        };
        Self {
            limits: Mutex::new(limits),
            shared,
            was_elected: AtomicBool::new(false),
        }
    }

    /// Takes tokens, for one message.
    ///
    /// # Errors
    /// Before the first election, and where a take cannot be: then nothing is taken.
    pub fn answer(&self, request: &TakeRequest) -> Result<TakeResponse, RequestError> {
        let wanted = from_wire(request)?;
        if !self.was_elected() {
            return Err(RequestError::Unelected);
        }
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        // The clock is read under the lock, so that it goes forward for the buckets.
        let now = BootTime::now();
        let answers = wanted
            .iter()
            .map(|(tag, take)| takes::answer(*tag, limits.take(take, now)));
        let answers = answers.collect();
        Ok(TakeResponse { answers })
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
