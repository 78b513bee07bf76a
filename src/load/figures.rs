//! Latencies and failures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::client::ClientError;

/// The longest latency that is told from longer ones, and how many digits of each are kept.
const LATENCY_US_MAX: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// What is measured apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestKind {
    Lookup,
    Trade,
    Query,
}

impl RequestKind {
    /// In the order in which a client gets to them.
    pub const ALL: [Self; 3] = [Self::Lookup, Self::Trade, Self::Query];
}

impl fmt::Display for RequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "lookup",
            Self::Trade => "trade",
            Self::Query => "order query",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection could be made.
    Unreachable,
    /// The connection broke, or what came over it was not an HTTP answer.
    Broken,
    /// No answer in time.
    TimedOut,
    /// An answer of a status that it should not have.
    Status(u16),
    /// 200, but not the data that was asked for.
    Nonsense,
}

impl Failure {
    /// The kind that an error of the HTTP client is of.
    pub fn of(error: &ClientError) -> Self {
        match error {
            ClientError::Connect { .. } => Self::Unreachable,
            ClientError::TimedOut { .. } => Self::TimedOut,
            ClientError::Exchange(_)
            | ClientError::Body(_)
            | ClientError::Output(_)
            | ClientError::Tls(_)
            | ClientError::InTheClear(_)
            | ClientError::Untrusted { .. }
            | ClientError::Request(_) => Self::Broken,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("no connection"),
            Self::Broken => f.write_str("connection broken"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Nonsense => f.write_str("answer not understood"),
        }
    }
}

/// How often a failure was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    pub count: u64,
    /// What exactly it was, the first time.
    pub example: String,
}

/// What one client, or all of them, measured.
#[derive(Debug)]
pub struct Figures {
    latencies: BTreeMap<RequestKind, Histogram<u64>>,
    /// Failed requests, by what was asked for and what went wrong.
    pub failures: BTreeMap<(RequestKind, Failure), Seen>,
    /// Orders refused because too few shares were left; they count as answered.
    pub refused: u64,
    /// What is not as it was placed or asked for, in words.
    pub mismatches: Vec<String>,
}

impl Default for Figures {
    fn default() -> Self {
        let empty = || {
            Histogram::new_with_max(LATENCY_US_MAX, DIGITS)
                .expect("the bounds are within the histogram's")
        };
        Self {
            latencies: RequestKind::ALL
                .into_iter()
                .map(|kind| (kind, empty()))
                .collect(),
            failures: BTreeMap::new(),
            refused: 0,
            mismatches: Vec::new(),
        }
    }
}

impl Figures {
    pub fn answered(&mut self, kind: RequestKind, latency: Duration) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        if let Some(histogram) = self.latencies.get_mut(&kind) {
            histogram.saturating_record(latency_us);
        }
    }

    /// Counts a request that failed.
    pub fn failed_with(&mut self, kind: RequestKind, failure: Failure, example: String) {
        self.failures
            .entry((kind, failure))
            .or_insert(Seen { count: 0, example })
            .count += 1;
    }

    /// Adds what another client measured.
    pub fn merge(&mut self, other: Self) {
        for (kind, theirs) in &other.latencies {
            if let Some(ours) = self.latencies.get_mut(kind) {
                ours.add(theirs).expect("both have the same bounds");
            }
        }
        for (what, seen) in other.failures {
            self.failures
                .entry(what)
                .or_insert(Seen {
                    count: 0,
                    example: seen.example,
                })
                .count += seen.count;
        }
        self.refused += other.refused;
        self.mismatches.extend(other.mismatches);
    }

    /// The latencies of one kind of request, in microseconds.
    pub fn latencies(&self, kind: RequestKind) -> &Histogram<u64> {
        &self.latencies[&kind]
    }

    /// How many requests failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|seen| seen.count).sum()
    }

    /// How many requests of one kind failed.
    pub fn failed_of(&self, kind: RequestKind) -> u64 {
        self.failures
            .iter()
            .filter(|((of, _), _)| *of == kind)
            .map(|(_, seen)| seen.count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_clients_add_up() {
        let mut one = Figures::default();
        let mut two = Figures::default();
        one.answered(RequestKind::Lookup, Duration::from_micros(100));
        one.failed_with(RequestKind::Trade, Failure::Status(503), "first".to_owned());
        two.answered(RequestKind::Lookup, Duration::from_micros(300));
        two.failed_with(
            RequestKind::Trade,
            Failure::Status(503),
            "second".to_owned(),
        );
        two.failed_with(RequestKind::Lookup, Failure::TimedOut, String::new());
        one.merge(two);
        assert_eq!(one.latencies(RequestKind::Lookup).len(), 2);
        assert_eq!((one.failed(), one.failed_of(RequestKind::Trade)), (3, 2));
        assert_eq!(
            one.failures[&(RequestKind::Trade, Failure::Status(503))].example,
            "first"
        );
    }
}
