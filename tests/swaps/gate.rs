//! Who is let in at a moment: whether a version decides that asks for a key.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whom a key is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody.
    Open,
    /// A change of it is under way: of nobody, or of some or all.
    Changing,
    /// Always the same clients.
    Partly,
    /// Everybody.
    Closed,
}

const STATES: [State; 4] = [State::Open, State::Changing, State::Partly, State::Closed];

/// What an operator has made of it, for clients to see.
#[derive(Debug, Default)]
pub struct Gate(AtomicU64);

/// How it was at a moment. Two that are equal were made with no change between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading(u64);

impl Gate {
    /// How it is now.
    pub fn read(&self) -> Reading {
        Reading(self.0.load(Ordering::SeqCst))
    }

    /// Before a change begins, and once it is acknowledged.
    pub fn set(&self, state: State) {
        let of = STATES.len() as u64;
        let turn = self.0.load(Ordering::SeqCst) / of + 1;
        self.0.store(turn * of + state as u64, Ordering::SeqCst);
    }
}

impl Reading {
    pub fn state(self) -> State {
        STATES[self.0 as usize % STATES.len()]
    }
}
