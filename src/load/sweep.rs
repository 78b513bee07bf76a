//! Runs of several trade probabilities, with the cache and without.
//!
//! Without means: under a policy that differs from the default one in that it caches nothing. It is
//! pushed for the second half of the sweep, and rolled back when that ends, also by a signal.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::cached::Watched;
use super::caching::Caching;
use super::points::{Point, Sweep};
use super::report::Report;
use super::{LoadError, Run, judge, measure, page};
use crate::admin::{Admin, Policies};
use crate::cli::Load;
use crate::client::Server;
use crate::output;
use crate::policy::package::Package;
use crate::stop::StopSignals;

/// How probably a client orders what it has looked up, in tenths, run by run.
const TRADE_TENTHS: [u32; 5] = [0, 2, 4, 6, 8];

/// The policy that caches nothing: `frontend-guest/examples/no-cache.rs`.
const NO_CACHE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/no-cache.wasm"));

/// Runs a sweep, prints its figures, and fails as a single run does.
pub async fn run(args: &Load, server: Server, stocks: Arc<[String]>) -> Result<(), LoadError> {
    let sweep = measure_all(args, &server, &stocks).await?;
    output::print(&sweep.to_string())?;
    if let Some(file) = &args.json {
        let points = sweep.points.iter().map(|point| {
            let mut figures = Report::of(&point.measured).to_json();
            figures["cache"] = json!(point.caching.to_string());
            figures
        });
        let report = json!({ "policy": sweep.policy, "runs": points.collect::<Vec<_>>(), "cache": sweep.watched.to_json() });
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    if let Some(dir) = &args.report {
        page::write_sweep(dir, &sweep)?;
    }
    judge(sweep.points.iter().map(|point| &point.measured))
}

async fn measure_all(
    args: &Load,
    server: &Server,
    stocks: &Arc<[String]>,
) -> Result<Sweep, LoadError> {
    let mut admin = Admin::new(args.admin.clone())?;
    let policy = active(&mut admin).await?.unwrap_or_default();
    let mut watched = Watched::new();
    let on = (Caching::On, &mut watched);
    let mut points = measure_half(args, server, stocks, &mut admin, on).await?;

    let mut signals = StopSignals::catch().map_err(|error| match error {
        crate::error::Error::Signals(source) => LoadError::Output(source),
        _ => LoadError::Interrupted,
    })?;
    admin
        .put("/policy", Package::of(Bytes::from_static(NO_CACHE)))
        .await?;
    let uncached = active(&mut admin).await?;
    let off = (Caching::Off, &mut watched);
    let half = tokio::select! {
        half = measure_half(args, server, stocks, &mut admin, off) => half,
        () = signals.next() => Err(LoadError::Interrupted),
    };
    // If the policy was changed meanwhile, that change stays.
    if active(&mut admin).await? == uncached {
        admin.post("/policy/rollback").await?;
    }
    points.extend(half?);
    Ok(Sweep {
        policy,
        points,
        watched,
    })
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
    server: &Server,
    stocks: &Arc<[String]>,
    admin: &mut Admin,
    (caching, watched): (Caching, &mut Watched),
) -> Result<Vec<Point>, LoadError> {
    let mut points = Vec::new();
    for tenths in TRADE_TENTHS {
        let run = Run {
            trade_probability: f64::from(tenths) / 10.0,
            ..Run::new(args, server.clone(), Arc::clone(stocks))
        };
        let what = (caching, run.trade_probability);
        let measured = watched.during(admin, what, measure(run)).await?;
        points.push(Point { caching, measured });
    }
    Ok(points)
}
