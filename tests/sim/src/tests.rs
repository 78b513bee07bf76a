//! Many seeds hold, each the same way every time; and what is taken out is missed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::time::Instant;

use crate::plan::{Plan, Without};
use crate::world::{Report, World};

/// Seeds in each test run.
const SEEDS: u64 = 24;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What a simulation came to, or what broke.
fn run(plan: Plan) -> Result<Report, String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                told(panic);
            }
        }));
    });
    QUIET.set(true);
    let run = catch_unwind(AssertUnwindSafe(|| World::run(plan, false)));
    QUIET.set(false);
    run.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.into()));
        text.unwrap_or_default()
    })
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// `BAZAAR_SIM_SEED=n` runs one and prints all that happens; `BAZAAR_SIM_SEEDS=n` runs so many,
/// from `BAZAAR_SIM_FROM` on.
#[test]
fn nothing_promised_is_broken() {
    if let Some(seed) = setting("BAZAAR_SIM_SEED") {
        println!("{:#?}", World::run(Plan::new(seed), true));
        return;
    }
    let from = setting("BAZAAR_SIM_FROM").unwrap_or(0);
    let seeds = setting("BAZAAR_SIM_SEEDS").unwrap_or(SEEDS);
    let started = Instant::now();
    let mut total = Report::default();
    let mut failed = BTreeMap::new();
    for seed in from..from + seeds {
        match run(Plan::new(seed)) {
            Ok(report) => total.add(&report),
            Err(what) => {
                println!("seed {seed}: {what}");
                failed.insert(seed, what);
            }
        }
    }
    println!(
        "{seeds} seeds from {from} on, {:.1} a second; {total:#?}",
        seeds as f64 / started.elapsed().as_secs_f64()
    );
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed; `make sim SEED=n` shows one: {failed:#?}",
        failed.len()
    );
}

#[test]
fn a_seed_is_the_same_history_every_time() {
    for seed in [3, 4] {
        assert_eq!(run(Plan::new(seed)), run(Plan::new(seed)), "seed {seed}");
    }
    assert_ne!(run(Plan::new(3)), run(Plan::new(4)));
}

/// The first of so many seeds with which a simulation without something breaks, and how.
fn first_broken(without: Without, seeds: u64) -> Option<(u64, String)> {
    let plan = |seed| Plan {
        without: Some(without),
        ..Plan::new(seed)
    };
    (0..seeds).find_map(|seed| Some((seed, run(plan(seed)).err()?)))
}

#[test]
fn what_is_taken_out_is_missed() {
    use catalog::core::Rule as Catalog;
    use frontend_core::Rule as Gateway;
    use order::core::Rule as Order;
    let seeds = setting("BAZAAR_SIM_SEEDS").unwrap_or(100);
    let mut unnoticed = Vec::new();
    for without in [
        Without::Syncs,
        Without::Catalog(Catalog::EpochCheck),
        Without::Catalog(Catalog::KeyCheck),
        Without::Catalog(Catalog::ChangeOrder),
        Without::Catalog(Catalog::DelayedVisibility),
        Without::Catalog(Catalog::RestartWait),
        Without::Catalog(Catalog::Registration),
        Without::Catalog(Catalog::OwedFirst),
        Without::Order(Order::ActivationCatchUp),
        Without::Order(Order::ConfirmedAbsence),
        Without::Order(Order::ConfirmedRemoval),
        Without::Gateway(Gateway::Floor),
        Without::Gateway(Gateway::LeaseCheck),
        Without::Gateway(Gateway::SessionCheck),
        Without::Gateway(Gateway::Registered),
    ] {
        match first_broken(without, seeds) {
            Some((seed, what)) => println!("without {without:?}, seed {seed}: {what}"),
            None => unnoticed.push(without),
        }
    }
    assert_eq!(unnoticed, [], "in {seeds} seeds");
}
