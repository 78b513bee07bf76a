//! What a sweep measured, run by run.

use std::fmt;

use super::Measured;
use super::cached::Watched;
use super::caching::Caching;
use super::report::{Line, Report};
use crate::output::Table;

/// One run of a sweep.
#[derive(Debug)]
pub struct Point {
    /// With the cache or without.
    pub caching: Caching,
    pub measured: Measured,
}

/// All runs of a sweep.
#[derive(Debug)]
pub struct Sweep {
    /// The policy that the gateway had.
    pub policy: String,
    /// Of every probability, with the cache, then without.
    pub points: Vec<Point>,
    /// What the cache held meanwhile.
    pub watched: Watched,
}

impl Sweep {
    /// Every kind of request of every run that had any.
    pub fn lines(&self) -> impl Iterator<Item = (&Point, Line)> {
        self.points.iter().flat_map(|point| {
            let lines = Report::of(&point.measured).lines();
            lines
                .filter(|line| line.answered + line.failed > 0)
                .map(move |line| (point, line))
                .collect::<Vec<_>>()
        })
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "cache",
            "trade probability",
            "request",
            "count",
            "failed",
            "per second",
            "mean µs",
            "p50 µs",
            "p99 µs",
        ]);
        for (point, line) in self.lines() {
            table.row([
                point.caching.to_string(),
                point.measured.run.trade_probability.to_string(),
                line.kind.to_string(),
                line.answered.to_string(),
                line.failed.to_string(),
                format!("{:.0}", line.per_second),
                format!("{:.0}", line.mean_us),
                line.p50_us.to_string(),
                line.p99_us.to_string(),
            ]);
        }
        f.write_str(&table.render())?;
        for point in &self.points {
            f.write_str(&Report::of(&point.measured).what_went_wrong())?;
        }
        Ok(())
    }
}
