//! What clients of a generator of this crate measured, one by one and all together.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::Figures;

/// The longest latency that is told from longer ones, and how many digits of each are kept.
const LATENCY_US_MAX: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// Latencies of what was answered, and how much was refused.
#[derive(Debug)]
pub struct Tally {
    latencies: Histogram<u64>,
    refused: u64,
}

impl Tally {
    pub fn new() -> Self {
        let latencies = Histogram::new_with_max(LATENCY_US_MAX, DIGITS);
        Self {
            latencies: latencies.expect("the bounds are within the histogram's"),
            refused: 0,
        }
    }

    /// A request was answered with success, after so long.
    pub fn count(&mut self, latency: Duration) {
        self.latencies.saturating_record(latency.as_micros() as u64);
    }

    /// A request was answered with something else.
    pub fn refuse(&mut self) {
        self.refused += 1;
    }

    /// Adds what another client measured.
    pub fn add(&mut self, other: &Self) {
        let added = self.latencies.add(&other.latencies);
        added.expect("both have the same bounds");
        self.refused += other.refused;
    }

    /// How many were answered with success.
    pub fn answered(&self) -> u64 {
        self.latencies.len()
    }

    /// How many were answered with something else.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What this share of the requests took at most, in microseconds; 0 where there were none.
    pub fn quantile_us(&self, share: f64) -> f64 {
        match self.latencies.is_empty() {
            true => 0.0,
            false => self.latencies.value_at_quantile(share) as f64,
        }
    }

    /// What all of it comes to, in so long.
    pub fn figures(&self, duration: Duration) -> Figures {
        Figures {
            requests: self.latencies.len() + self.refused,
            duration_us: duration.as_micros() as u64,
            p50_us: self.latencies.value_at_quantile(0.50) as f64,
            p99_us: self.latencies.value_at_quantile(0.99) as f64,
            max_us: self.latencies.max() as f64,
            refused: self.refused,
            broken: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_measured_adds_up() {
        let mut all = Tally::new();
        for client in 0..10 {
            let mut tally = Tally::new();
            for number in 1..=10 {
                tally.count(Duration::from_micros(client * 10 + number));
            }
            all.add(&tally);
        }
        let answered = all.figures(Duration::from_secs(1));
        assert_eq!((answered.requests, answered.refused), (100, 0));
        assert_eq!(
            (answered.p50_us, answered.p99_us, answered.max_us),
            (50.0, 99.0, 100.0)
        );
        all.refuse();
        let figures = all.figures(Duration::from_secs(1));
        assert_eq!((figures.requests, figures.refused), (101, 1));
        assert!(figures.without_errors("nats").is_err());
    }
}
