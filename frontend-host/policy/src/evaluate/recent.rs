//! A sample of what was to be decided lately, which the next version must be able to decide as well.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::input::{DecisionInput, DecisionResult};

/// One decision in so many is kept for the self-test of the next version.
pub(crate) const RECENT_EVERY: u64 = 64;

/// Decisions that are kept: the newest.
const RECENT_MAX: usize = 128;

/// What a decision may take beyond what is bounded for every request, in bytes.
const RECENT_BYTES_MAX: usize = 4 << 10;

/// A sample of what was to be decided lately.
#[derive(Debug, Default)]
pub(crate) struct RecentInputs {
    inputs: Mutex<VecDeque<DecisionInput>>,
}

impl RecentInputs {
    /// Whether a decision with that seed belongs to the sample.
    pub(crate) fn is_sampled(&self, seed: u64) -> bool {
        seed.is_multiple_of(RECENT_EVERY)
    }

    pub(crate) fn store(&self, input: &DecisionInput, result: &DecisionResult) {
        if input.bytes(result) > RECENT_BYTES_MAX {
            return;
        }
        // A thread that would have to wait stores nothing: it is a sample.
        if let Ok(mut inputs) = self.inputs.try_lock() {
            if inputs.len() == RECENT_MAX {
                inputs.pop_front();
            }
            inputs.push_back(input.clone());
        }
    }

    /// The sample, oldest first.
    pub(crate) fn to_vec(&self) -> Vec<DecisionInput> {
        let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.iter().cloned().collect()
    }
}
