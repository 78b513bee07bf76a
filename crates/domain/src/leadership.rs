//! Who leads, in which epoch.

use std::fmt;

use crate::ids::{Epoch, ReplicaId};
use crate::invalid::Invalid;
use crate::journal::LedgerEnd;

/// A leader's term of office.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Term {
    /// Its number, which no other term of this journal has.
    pub epoch: Epoch,
    /// Who leads in it; nobody in epoch 0.
    pub leader: Option<ReplicaId>,
}

/// What a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It copies what the leader sends.
    Follower,
    /// It was elected, and fetches what it lacks.
    Activating,
    /// It takes orders.
    Leader,
}

impl Role {
    /// For people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::Activating => "activating",
            Self::Leader => "leader",
        }
    }
}

/// What the catalog says of the leadership and its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalHead {
    /// The current term, without its in-sync set.
    pub term: Term,
    /// Where the journal ends.
    pub end: LedgerEnd,
}

/// Numbers the changes of the in-sync set that a leader asks for within an epoch, in the order
/// in which it asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeNumber(u64);

impl ChangeNumber {
    /// Before the first change of an epoch.
    pub const NONE: Self = Self(0);

    /// The highest change number, which databases can hold as they hold integers.
    pub const MAX: u64 = i64::MAX as u64;

    /// A change's number: 1 to [`ChangeNumber::MAX`].
    pub fn new(number: u64) -> Result<Self, Invalid> {
        if (1..=Self::MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(Invalid::new(
                "change",
                format!("{number} is not from 1 to {}", Self::MAX),
            ))
        }
    }

    /// The change after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As a number; 0 for none.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ChangeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
