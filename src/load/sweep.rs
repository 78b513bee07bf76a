//! Runs of several trade probabilities, with the cache and without.
//!
//! Without means: under a policy that differs from the default one in that it caches nothing. It is
//! pushed for the second half of the sweep, and rolled back when that ends, also by a signal.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::report::{Line, Report};
use super::{LoadError, Measured, Run, judge, measure, page};
use crate::admin::{Admin, Policies};
use crate::cli::Load;
use crate::output::{self, Table};
use crate::stop::StopSignals;

/// How probably a client orders what it has looked up, in tenths, run by run.
const TRADE_TENTHS: [u32; 5] = [0, 2, 4, 6, 8];

/// The policy that caches nothing: `frontend-guest/examples/no-cache.rs`.
const NO_CACHE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/no-cache.wasm"));

/// Whether answers may come from the gateway's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Under the policy that the gateway had.
    On,
    /// Under the one that caches nothing.
    Off,
}

impl Caching {
    /// In the order in which they are measured.
    pub const ALL: [Self; 2] = [Self::On, Self::Off];
}

impl fmt::Display for Caching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// One run of a sweep.
#[derive(Debug)]
pub struct Point {
    /// With the cache or without.
    pub caching: Caching,
    /// What it measured.
    pub measured: Measured,
}

/// All runs of a sweep.
#[derive(Debug)]
pub struct Sweep {
    /// The policy that the gateway had.
    pub policy: String,
    /// Of every probability, with the cache, then without.
    pub points: Vec<Point>,
}

/// Runs a sweep, prints its figures, and fails as a single run does.
pub async fn run(args: &Load, stocks: Arc<[String]>) -> Result<(), LoadError> {
    let sweep = measure_all(args, stocks).await?;
    output::print(&sweep.to_string())?;
    if let Some(file) = &args.json {
        let points = sweep.points.iter().map(|point| {
            let mut figures = Report::of(&point.measured).to_json();
            figures["cache"] = json!(point.caching.to_string());
            figures
        });
        let report = json!({ "policy": sweep.policy, "runs": points.collect::<Vec<_>>() });
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    if let Some(dir) = &args.report {
        page::write_sweep(dir, &sweep)?;
    }
    judge(sweep.points.iter().map(|point| &point.measured))
}

async fn measure_all(args: &Load, stocks: Arc<[String]>) -> Result<Sweep, LoadError> {
    let mut admin = Admin::new(args.admin.clone())?;
    let policy = active(&mut admin).await?.unwrap_or_default();
    let mut points = measure_half(args, &stocks, Caching::On).await?;

    let mut signals = StopSignals::catch().map_err(|error| match error {
        crate::error::Error::Signals(source) => LoadError::Output(source),
        _ => LoadError::Interrupted,
    })?;
    admin
        .put("/policy", Bytes::from_static(NO_CACHE), None)
        .await?;
    let uncached = active(&mut admin).await?;
    let half = tokio::select! {
        half = measure_half(args, &stocks, Caching::Off) => half,
        () = signals.next() => Err(LoadError::Interrupted),
    };
    // Whoever changed the policy meanwhile knows better.
    if active(&mut admin).await? == uncached {
        admin.post("/policy/rollback").await?;
    }
    points.extend(half?);
    Ok(Sweep { policy, points })
}

/// The active policy's name, version and digest.
async fn active(admin: &mut Admin) -> Result<Option<String>, LoadError> {
    let policies = admin.get("/policy").await?;
    let policies: Policies =
        serde_json::from_slice(&policies).map_err(crate::admin::AdminError::from)?;
    let active = policies.active;
    Ok(active.map(|policy| format!("{} {} ({})", policy.name, policy.version, policy.digest)))
}

async fn measure_half(
    args: &Load,
    stocks: &Arc<[String]>,
    caching: Caching,
) -> Result<Vec<Point>, LoadError> {
    let mut points = Vec::new();
    for tenths in TRADE_TENTHS {
        let run = Run {
            trade_probability: f64::from(tenths) / 10.0,
            ..Run::new(args, Arc::clone(stocks))
        };
        let measured = measure(run).await?;
        points.push(Point { caching, measured });
    }
    Ok(points)
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
