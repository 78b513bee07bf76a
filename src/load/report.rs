//! The table and the JSON file.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::Run;
use super::figures::{Figures, RequestKind};
use crate::output::Table;

/// How many mismatches are listed; the rest is counted.
const MISMATCHES_LISTED_MAX: usize = 50;

/// The figures of a run.
#[derive(Debug)]
pub struct Report<'a> {
    run: &'a Run,
    figures: &'a Figures,
    trading: Duration,
    checking: Duration,
}

/// One kind of request.
struct Line {
    kind: RequestKind,
    answered: u64,
    failed: u64,
    per_second: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    max_us: u64,
}

impl<'a> Report<'a> {
    /// The figures, and how long the clients traded and checked.
    pub fn new(run: &'a Run, figures: &'a Figures, trading: Duration, checking: Duration) -> Self {
        Self {
            run,
            figures,
            trading,
            checking,
        }
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        RequestKind::ALL.into_iter().map(|kind| {
            let latencies = self.figures.latencies(kind);
            let elapsed = match kind {
                RequestKind::Lookup | RequestKind::Trade => self.trading,
                RequestKind::Query => self.checking,
            };
            let per_second = if elapsed.is_zero() {
                0.0
            } else {
                latencies.len() as f64 / elapsed.as_secs_f64()
            };
            Line {
                kind,
                answered: latencies.len(),
                failed: self.figures.failed_of(kind),
                per_second,
                p50_us: latencies.value_at_quantile(0.50),
                p90_us: latencies.value_at_quantile(0.90),
                p99_us: latencies.value_at_quantile(0.99),
                max_us: latencies.max(),
            }
        })
    }

    /// Everything, for programs.
    pub fn to_json(&self) -> String {
        let requests = self.lines().map(|line| {
            let figures = json!({
                "count": line.answered,
                "failed": line.failed,
                "per_second": line.per_second,
                "p50_us": line.p50_us,
                "p90_us": line.p90_us,
                "p99_us": line.p99_us,
                "max_us": line.max_us,
            });
            (line.kind.to_string().replace(' ', "_"), figures)
        });
        let failures = self.figures.failures.iter().map(|((kind, failure), seen)| {
            json!({
                "request": kind.to_string(),
                "failure": failure.to_string(),
                "count": seen.count,
                "example": seen.example,
            })
        });
        let report = json!({
            "clients": self.run.args.clients,
            "iterations": self.run.args.iterations,
            "trade_probability": self.run.args.trade_probability,
            "seed": self.run.seed,
            "trading_s": self.trading.as_secs_f64(),
            "checking_s": self.checking.as_secs_f64(),
            "requests": requests.collect::<serde_json::Map<String, Value>>(),
            "refused": self.figures.refused,
            "failures": failures.collect::<Vec<_>>(),
            "mismatches": self.figures.mismatches,
        });
        format!("{report:#}\n")
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "request",
            "count",
            "failed",
            "per second",
            "p50 µs",
            "p90 µs",
            "p99 µs",
            "max µs",
        ]);
        for line in self.lines() {
            let numbers = [line.p50_us, line.p90_us, line.p99_us, line.max_us]
                .map(|number| number.to_string());
            let [p50, p90, p99, max] = numbers;
            let per_second = format!("{:.0}", line.per_second);
            table.row([
                line.kind.to_string(),
                line.answered.to_string(),
                line.failed.to_string(),
                per_second,
                p50,
                p90,
                p99,
                max,
            ]);
        }
        f.write_str(&table.render())?;
        let Run { args, seed, .. } = self.run;
        write!(
            f,
            "\n{} clients, {} iterations each, seed {seed}, {:.1} s",
            args.clients,
            args.iterations,
            self.trading.as_secs_f64()
        )?;
        writeln!(
            f,
            "; {} orders refused: not enough stocks",
            self.figures.refused
        )?;
        for ((kind, failure), seen) in &self.figures.failures {
            writeln!(
                f,
                "failed: {} × {kind}: {failure}, for example: {}",
                seen.count, seen.example
            )?;
        }
        for mismatch in self.figures.mismatches.iter().take(MISMATCHES_LISTED_MAX) {
            writeln!(f, "mismatch: {mismatch}")?;
        }
        match self
            .figures
            .mismatches
            .len()
            .checked_sub(MISMATCHES_LISTED_MAX)
        {
            Some(more @ 1..) => writeln!(f, "mismatch: and {more} more"),
            _ => Ok(()),
        }
    }
}
