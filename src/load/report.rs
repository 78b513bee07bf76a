//! The table and the JSON of one run.

use std::fmt;

use serde_json::{Value, json};

use super::figures::{RequestKind, Seen};
use super::{Measured, Run};
use crate::output::Table;

/// How many mismatches are listed; the rest is counted.
const MISMATCHES_LISTED_MAX: usize = 50;

/// The figures of a run.
#[derive(Debug)]
pub struct Report<'a>(&'a Measured);

/// One kind of request. Latencies in microseconds.
#[derive(Debug)]
pub struct Line {
    pub kind: RequestKind,
    /// How many were answered.
    pub answered: u64,
    pub failed: u64,
    /// How many were answered in a second.
    pub per_second: f64,
    /// The mean latency of those that were answered.
    pub mean_us: f64,
    /// Half of them were answered by then.
    pub p50_us: u64,
    pub p90_us: u64,
    /// 99 of a hundred.
    pub p99_us: u64,
    pub max_us: u64,
}

impl<'a> Report<'a> {
    pub fn of(measured: &'a Measured) -> Self {
        Self(measured)
    }

    /// Every kind of request, also where there was none of it.
    pub fn lines(&self) -> impl Iterator<Item = Line> + use<'a> {
        let measured = self.0;
        RequestKind::ALL.into_iter().map(move |kind| {
            let latencies = measured.figures.latencies(kind);
            let elapsed = match kind {
                RequestKind::Lookup | RequestKind::Trade => measured.trading,
                RequestKind::Query => measured.checking,
            };
            let per_second = if elapsed.is_zero() {
                0.0
            } else {
                latencies.len() as f64 / elapsed.as_secs_f64()
            };
            Line {
                kind,
                answered: latencies.len(),
                failed: measured.figures.failed_of(kind),
                per_second,
                mean_us: latencies.mean(),
                p50_us: latencies.value_at_quantile(0.50),
                p90_us: latencies.value_at_quantile(0.90),
                p99_us: latencies.value_at_quantile(0.99),
                max_us: latencies.max(),
            }
        })
    }

    /// Failures and mismatches, a line each; nothing where there were none.
    pub fn what_went_wrong(&self) -> String {
        let figures = &self.0.figures;
        let failures = figures.failures.iter().map(|((kind, failure), seen)| {
            let Seen { count, example } = seen;
            format!("failed: {count} × {kind}: {failure}, for example: {example}\n")
        });
        let listed = figures.mismatches.iter().take(MISMATCHES_LISTED_MAX);
        let mismatches = listed.map(|mismatch| format!("mismatch: {mismatch}\n"));
        let more = figures.mismatches.len().checked_sub(MISMATCHES_LISTED_MAX);
        let more = more.filter(|more| *more > 0);
        let more = more.map(|more| format!("mismatch: and {more} more\n"));
        failures.chain(mismatches).chain(more).collect()
    }

    pub fn to_json(&self) -> Value {
        let requests = self.lines().map(|line| {
            let figures = json!({
                "count": line.answered,
                "failed": line.failed,
                "per_second": line.per_second,
                "mean_us": line.mean_us,
                "p50_us": line.p50_us,
                "p90_us": line.p90_us,
                "p99_us": line.p99_us,
                "max_us": line.max_us,
            });
            (line.kind.to_string().replace(' ', "_"), figures)
        });
        let failures = self
            .0
            .figures
            .failures
            .iter()
            .map(|((kind, failure), seen)| {
                json!({
                    "request": kind.to_string(),
                    "failure": failure.to_string(),
                    "count": seen.count,
                    "example": seen.example,
                })
            });
        json!({
            "clients": self.0.run.clients,
            "iterations": self.0.run.iterations,
            "trade_probability": self.0.run.trade_probability,
            "rate": self.0.run.rate,
            "seed": self.0.run.seed,
            "trading_s": self.0.trading.as_secs_f64(),
            "checking_s": self.0.checking.as_secs_f64(),
            "requests": requests.collect::<serde_json::Map<String, Value>>(),
            "refused": self.0.figures.refused,
            "failures": failures.collect::<Vec<_>>(),
            "mismatches": self.0.figures.mismatches,
        })
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
        let Run {
            clients,
            iterations,
            rate,
            seed,
            ..
        } = &*self.0.run;
        write!(
            f,
            "\n{clients} clients, {iterations} iterations each, seed {seed}, {:.1} s",
            self.0.trading.as_secs_f64()
        )?;
        if let Some(rate) = rate {
            let reached = (clients * iterations) as f64 / self.0.trading.as_secs_f64();
            write!(f, ", {reached:.1} iterations a second of {rate} asked for")?;
        }
        writeln!(
            f,
            "; {} orders refused: not enough stocks",
            self.0.figures.refused
        )?;
        f.write_str(&self.what_went_wrong())
    }
}
