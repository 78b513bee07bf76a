//! How long it takes to start with many stocks and orders, beside a start with none, and to activate a policy that was never
//! compiled here, beside one that was.

use std::fs;
use std::time::Instant;

use super::sizes::{fill, write_stocks};
use super::{Bench, Claim, Figure, Side, Topic, Trial, alternate};
use crate::bars::Bound;
use crate::error::Error;
use crate::scenario::BAZAAR;
use crate::trial::moments::policies::Policies;

/// How many stocks there are by default.
const STOCKS: u64 = 1_000_000;

/// What a full one may take of an empty one's time.
const FULL_RATIO: f64 = 3.0;

/// What activating a policy may take where its compiled code is kept, of the time where it is not.
const WARM_RATIO: f64 = 0.1;

const FULL: &str = "bazaar, full";
const COLD: &str = "bazaar, cold";
const WARM: &str = "bazaar, warm";

const START: &str = "until it serves a trade";
const ACTIVATION: &str = "until it is active";

pub fn measure(bench: Bench<'_>) -> Result<Vec<Trial>, Error> {
    Ok(vec![starts(bench)?, activations(bench)?])
}

fn starts(bench: Bench<'_>) -> Result<Trial, Error> {
    let stocks = bench.sizes.stocks.unwrap_or(STOCKS);
    let orders = bench.sizes.orders;
    let file = write_stocks(&bench.plan.site.dir, stocks)?;
    fill(&bench.plan.site.make_dir("full")?, &file, orders)?;
    // What is done only the first time is done here.
    drop(bench.start("full", None)?);
    drop(bench.start("empty", None)?);
    let turn = |name: &'static str| {
        move || -> Result<Vec<Figure>, Error> {
            let start = Instant::now();
            let bazaar = bench.start(name, None)?;
            let took = start.elapsed().as_secs_f64();
            let memory: u64 = bazaar.memory().values().sum();
            let mebibytes = memory as f64 / f64::from(1 << 20);
            Ok(vec![
                Figure::of(START, "s", took),
                Figure::of("memory of all services", "MiB", mebibytes),
            ])
        }
    };
    let mut sides = [
        Side::new(BAZAAR, "", turn("empty")),
        Side::new(FULL, "", turn("full")),
    ];
    let title = format!("Start, empty and with {stocks} stocks and {orders} orders");
    let trial = Trial {
        topic: Topic::Start,
        parties: alternate(&title, &mut sides, bench.plan.rounds)?,
        title,
        absent: Vec::new(),
        claims: vec![Claim {
            text: format!(
                "start with {stocks} stocks and {orders} orders: at most {FULL_RATIO} × an empty one's"
            ),
            ours: FULL,
            theirs: vec![BAZAAR],
            quantity: START,
            bound: Bound::AtMost(FULL_RATIO),
        }],
    };
    let full = bench.plan.site.dir.join("full");
    fs::remove_dir_all(&full).map_err(Error::file(&full))?;
    Ok(trial)
}

fn activations(bench: Bench<'_>) -> Result<Trial, Error> {
    let bazaar = bench.start("activations", None)?;
    let policies = Policies::of(bazaar.admin())?;
    let timed = |activate: &dyn Fn() -> Result<(), Error>| -> Result<Vec<Figure>, Error> {
        let start = Instant::now();
        activate()?;
        let took_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(vec![Figure::of(ACTIVATION, "ms", took_ms)])
    };
    let mut sides = [
        Side::new(COLD, "", || timed(&|| policies.push_new())),
        Side::new(WARM, "", || timed(&|| policies.swap())),
    ];
    let title = "Activating a policy".to_owned();
    let parties = alternate(&title, &mut sides, bench.plan.rounds)?;
    Ok(Trial {
        topic: Topic::Start,
        parties,
        title,
        absent: Vec::new(),
        claims: vec![Claim {
            text: format!(
                "activating a policy whose compiled code is kept: at most {WARM_RATIO} × the time of one that is compiled"
            ),
            ours: WARM,
            theirs: vec![COLD],
            quantity: ACTIVATION,
            bound: Bound::AtMost(WARM_RATIO),
        }],
    })
}
