//! What clients did and were told.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::harness::Order;

use super::judge::Span;

/// The clock of one history.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since its start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).expect("a test ends within centuries")
    }
}

/// What an order query found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundOrder {
    pub name: String,
    pub side: String,
    pub quantity: i64,
}

/// What a client saw without changing anything.
#[derive(Debug, Clone)]
pub enum Seen {
    Quantity {
        name: String,
        quantity: i64,
    },
    /// An order, or that there is none of that number.
    Order {
        number: u64,
        found: Option<FoundOrder>,
    },
}

/// What came of one attempt to place an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Acknowledged, with its number.
    Number(u64),
    /// Refused: there are not enough shares.
    NotEnough,
    /// 503, or no answer at all: it may have been placed, or be placed yet.
    Unknown,
}

/// One order under one idempotency key, and every attempt to place it.
#[derive(Debug, Clone)]
pub struct Trade {
    pub order: Order,
    pub attempts: Vec<(Span, Attempt)>,
}

impl Trade {
    /// From the first attempt to the first acknowledgement.
    pub fn span(&self) -> Span {
        let acknowledged = self
            .attempts
            .iter()
            .filter(|(_, attempt)| matches!(attempt, Attempt::Number(_)));
        Span {
            began: self
                .attempts
                .iter()
                .map(|(span, _)| span.began)
                .min()
                .expect("a trade has an attempt"),
            over: acknowledged
                .map(|(span, _)| span.over)
                .min()
                .unwrap_or(super::judge::NEVER),
        }
    }
}

/// All that the clients of one run did.
#[derive(Debug, Default)]
pub struct History {
    pub trades: BTreeMap<String, Trade>,
    /// Reads that were answered.
    pub seen: Vec<(Span, Seen)>,
    /// Answers that no client should ever get.
    pub wrong_answers: Vec<String>,
    /// Requests that got 503 or no answer.
    pub unanswered: u64,
    /// Reads that were answered from a gateway's cache.
    pub hits: u64,
}

impl History {
    /// Adds what another client did.
    pub fn append(&mut self, other: Self) {
        self.trades.extend(other.trades);
        self.seen.extend(other.seen);
        self.wrong_answers.extend(other.wrong_answers);
        self.unanswered += other.unanswered;
        self.hits += other.hits;
    }

    /// Operations that are judged.
    pub fn operations(&self) -> usize {
        let attempts = self.trades.values().map(|trade| trade.attempts.len());
        self.seen.len() + attempts.sum::<usize>()
    }
}
