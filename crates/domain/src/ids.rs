//! Numbers that name: epochs, sessions, rows, orders, versions, replicas.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

/// A leader's term of office. 0 stands for the time before the first election.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The term after this one.
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("an epoch a nanosecond lasts 584 years"),
        )
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of a catalog, from when it takes its database over to its end: a random number, which no other run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CatalogRun(NonZeroU64);

impl CatalogRun {
    /// `None` for 0, which stands for "not said" on the wire.
    pub fn new(run: u64) -> Option<Self> {
        NonZeroU64::new(run).map(Self)
    }

    /// The bare number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// A gateway's session with the catalog. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// `None` for 0, which stands for "no session" on the wire.
    pub fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// The bare number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The place of a row in the journal, from 0 without gaps. Also serves as a count of rows: a ledger
/// that holds `n` rows ends before number `n`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RowNumber(pub u64);

impl RowNumber {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("numbers are dense: memory ends long before they do"),
        )
    }
}

impl fmt::Display for RowNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an order among the journal's orders, from 0 without gaps: what clients know it by. It is the number of its
/// row, less the rows before it that [change stocks](crate::StockChange). Also serves as a count of orders.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct OrderNumber(pub u64);

impl fmt::Display for OrderNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the changes of one stock, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// An order replica, 1 to 2³²-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(u32);

impl ReplicaId {
    /// `None` for 0, which stands for "no replica" on the wire.
    pub fn new(id: u32) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    /// The bare number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ReplicaId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let id = text.parse().ok().and_then(Self::new);
        id.ok_or_else(|| {
            Invalid::new(
                "replica id",
                format!("`{text}` is not a number from 1 to {}", u32::MAX),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_number_0() {
        assert!("0".parse::<ReplicaId>().is_err());
        assert_eq!(SessionId::new(0), None);
    }
}
