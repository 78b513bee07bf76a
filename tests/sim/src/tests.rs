//! Many seeds hold, each the same way every time; and what is taken out is missed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use catalog_core::Rule as Catalog;
use domain::{Epoch, IdempotencyKey, LedgerEnd, Price, Quantity, Row, Side, StockName};
use frontend_core::Rule as Gateway;
use order::store::Store as _;
use order_core::Rule as Order;
use order_core::durable::Save;
use simulated_disk::file::Loss;
use simulated_disk::{Death, Disk, Faults};

use crate::effects::{EFFECTS, Effect, OF_SEVERAL};
use crate::nemesis::Kind;
use crate::plan::{Plan, VFS, Without};
use crate::world::{Report, World};
use crate::{branch, replica};

/// Seeds in each test run.
const SEEDS: u64 = 16;

/// Within so many seeds something is missed that is taken out.
const MISSED_WITHIN: u64 = 200;

/// Within so many seeds faults alone bring about what they are to.
const COMES_WITHIN: u64 = 96;

/// What comes with copies that take the place of the catalog's disk.
const OLDER: [Kind; 6] = [
    Kind::Rollback,
    Kind::Kill,
    Kind::PowerLoss,
    Kind::Weather,
    Kind::Pause,
    Kind::LostDisk,
];

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
    if from == 0 && seeds >= SEEDS {
        check_effects(&total, &[EFFECTS.as_slice(), &OF_SEVERAL].concat());
    }
}

/// Copies take the place of the catalog's disk again and again, while processes die and the network fails.
#[test]
fn a_catalog_with_an_older_database_gets_back_what_it_lost() {
    let seeds = setting("BAZAAR_SIM_SEEDS").unwrap_or(3 * SEEDS);
    let mut total = Report::default();
    for seed in 0..seeds {
        let report = run(Plan::alone(seed).with(&OLDER));
        total.add(&report.unwrap_or_else(|what| panic!("seed {seed}: {what}")));
    }
    let came = |effect| total.effects.get(&effect).copied().unwrap_or_default();
    println!(
        "{seeds} seeds: {} copies, {} healed, {} not noticed",
        total
            .injected
            .get(&Kind::Rollback)
            .copied()
            .unwrap_or_default(),
        came(Effect::RollbackHealed),
        came(Effect::RollbackUnnoticed)
    );
    assert!(came(Effect::RollbackHealed) > 0);
}

/// A replica that could not be reached reports while the first epoch is being made durable, which is too late: nothing that
/// it says then counts as heard.
#[test]
fn a_report_while_the_first_epoch_begins_is_not_one_that_was_heard() {
    let (alone, several) = (Plan::alone(26), Plan::alone(26).several());
    let plan = Plan {
        lease: several.lease,
        trouble: several.trouble,
        calm: several.calm,
        ..alone
    };
    run(plan.with(&OLDER)).unwrap();
}

/// Everything comes of faults that is to come of them: in these simulations, or, where it is rare,
/// soon in some with the faults alone that bring it about.
fn check_effects(total: &Report, effects: &[Effect]) {
    let has = |report: &Report, effect| report.effects.get(&effect).is_some_and(|&n| n > 0);
    for &effect in effects {
        if has(total, effect) {
            continue;
        }
        let found = (0..COMES_WITHIN).find(|&seed| {
            let report = run(effect.plan(seed));
            let report = report.unwrap_or_else(|what| panic!("{effect:?}, seed {seed}: {what}"));
            has(&report, effect)
        });
        let seed = found.unwrap_or_else(|| panic!("{effect:?} never came"));
        println!("{effect:?} came with seed {seed} of the faults that it comes of");
    }
}

#[test]
fn a_seed_is_the_same_history_every_time() {
    for seed in [3, 4, 5] {
        assert_eq!(run(Plan::new(seed)), run(Plan::new(seed)), "seed {seed}");
    }
    assert_ne!(run(Plan::new(3)), run(Plan::new(4)));
}

/// Two or three catalogs over one database, which fails over, restarts, loses rows that it acknowledged, and leaves them
/// without an answer, while they are killed, paused, stopped and cut off.
#[test]
fn several_catalogs_over_one_database_break_nothing() {
    let from = setting("BAZAAR_SIM_FROM").unwrap_or(0);
    let seeds = setting("BAZAAR_SIM_SEEDS").unwrap_or(SEEDS);
    let kinds = [
        Kind::Kill,
        Kind::Stop,
        Kind::Pause,
        Kind::Cut,
        Kind::FailOver,
        Kind::DatabaseRestart,
        Kind::DatabaseLoss,
        Kind::CommitFate,
        Kind::SlowStandby,
    ];
    if let Some(seed) = setting("BAZAAR_SIM_SEED") {
        let plan = Plan::new(seed).several().with(&kinds);
        println!("{:#?}", World::run(plan, true));
        return;
    }
    let started = Instant::now();
    let mut total = Report::default();
    let mut seen = BTreeMap::<Effect, u64>::new();
    for seed in from..from + seeds {
        let report = run(Plan::new(seed).several().with(&kinds));
        let report = report.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        for (effect, _) in report.effects.iter().filter(|(_, count)| **count > 0) {
            *seen.entry(*effect).or_default() += 1;
        }
        total.add(&report);
    }
    println!(
        "{seeds} seeds from {from} on, {:.1} a second; {} operations, {} trades; so many of them in which it came to: {seen:#?}",
        seeds as f64 / started.elapsed().as_secs_f64(),
        total.operations,
        total.trades,
    );
    if from == 0 && seeds >= SEEDS {
        check_effects(&total, &OF_SEVERAL);
    }
}

/// The faults that show soon that something is missing; all where there are none.
fn showing(without: Without) -> &'static [Kind] {
    match without {
        Without::Catalog(Catalog::EpochCheck) => &[Kind::Pause, Kind::Isolation],
        Without::Catalog(Catalog::DelayedVisibility | Catalog::ShownAbsence)
        | Without::Gateway(Gateway::LeaseCheck) => &[Kind::Isolation, Kind::Cut, Kind::Weather],
        Without::Catalog(Catalog::RestartWait) => &[Kind::LostCatalog, Kind::Isolation, Kind::Cut],
        Without::Catalog(Catalog::SelfHealing) => &[Kind::Rollback, Kind::DatabaseLoss],
        Without::Order(Order::ActivationCatchUp) => &[Kind::Weather, Kind::Isolation, Kind::Kill],
        Without::Order(Order::ConfirmedEpoch) => &[Kind::Forgery],
        Without::Order(Order::ConfirmedAbsence) => &[Kind::Isolation, Kind::Cut, Kind::Kill],
        Without::NamedJournal => &[Kind::Miswiring],
        Without::NearestLeads => &[Kind::LostDisk, Kind::Kill],
        Without::RowsBeside => &[Kind::LostCatalog],
        Without::AmbiguousEnds => &[Kind::CommitFate, Kind::Cut],
        Without::Catalog(Catalog::WriterFence) => &[Kind::Cut, Kind::Isolation, Kind::CommitFate],
        Without::Catalog(Catalog::OwnLease) => &[Kind::Pause, Kind::Isolation, Kind::Cut],
        Without::Catalog(Catalog::NestedLease) => &[Kind::Isolation, Kind::Cut, Kind::Kill],
        Without::Catalog(Catalog::TakeOverWait) => &[Kind::Kill],
        _ => &[],
    }
}

/// The first of so many seeds with which a simulation without something breaks, and how.
fn first_broken(without: Without, seeds: u64, several: bool) -> Option<(u64, String)> {
    let plan = |seed| {
        let plan = match several {
            true => Plan::new(seed).several(),
            false => Plan::alone(seed),
        };
        let plan = match showing(without) {
            [] => plan,
            kinds => plan.with(kinds),
        };
        let plan = match without {
            Without::NearestLeads | Without::Order(Order::ActivationCatchUp) => plan.prefilled(),
            Without::Catalog(Catalog::ShownAbsence) => plan.changing(),
            // As long as with one catalog.
            Without::Catalog(Catalog::NestedLease) => Plan {
                lease: Duration::from_secs(1),
                calm: plan.calm / 3,
                ..plan
            },
            _ => plan,
        };
        Plan {
            without: Some(without),
            ..plan
        }
    };
    (0..seeds).find_map(|seed| Some((seed, run(plan(seed)).err()?)))
}

/// All of which something breaks without, within so many seeds.
fn check_missed(seeds: u64, all: &[Without], several: bool) {
    let seeds = setting("BAZAAR_SIM_SEEDS").unwrap_or(seeds);
    let next = AtomicUsize::new(0);
    let unnoticed = Mutex::new(Vec::new());
    let check = || {
        while let Some(&without) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            match first_broken(without, seeds, several) {
                Some((seed, what)) => println!("without {without:?}, seed {seed}: {what}"),
                None => unnoticed.lock().unwrap().push(without),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(check);
        }
    });
    let unnoticed = unnoticed.into_inner().unwrap();
    assert_eq!(unnoticed, [], "in {seeds} seeds");
}

#[test]
fn what_is_taken_out_is_missed() {
    let all = [
        Without::Syncs,
        Without::DurableLog,
        Without::Catalog(Catalog::EpochCheck),
        Without::Catalog(Catalog::KeyCheck),
        Without::Catalog(Catalog::Succession),
        Without::Catalog(Catalog::Registration),
        Without::Catalog(Catalog::DelayedVisibility),
        Without::Catalog(Catalog::ShownAbsence),
        Without::Catalog(Catalog::RestartWait),
        Without::Catalog(Catalog::SelfHealing),
        Without::NamedJournal,
        Without::NearestLeads,
        Without::RowsBeside,
        Without::Order(Order::ActivationCatchUp),
        Without::Order(Order::ConfirmedAbsence),
        Without::Order(Order::ConfirmedEpoch),
        Without::Order(Order::ConfirmedRemoval),
        Without::Gateway(Gateway::LeaseCheck),
        Without::Gateway(Gateway::Floor),
        Without::Gateway(Gateway::SessionCheck),
        Without::Gateway(Gateway::Registered),
    ];
    check_missed(MISSED_WITHIN, &all, false);
}

#[test]
fn what_is_taken_out_is_missed_with_several_catalogs() {
    let all = [
        Without::Catalog(Catalog::WriterFence),
        Without::Catalog(Catalog::OwnLease),
        Without::Catalog(Catalog::TakeOverWait),
        Without::AmbiguousEnds,
        Without::Catalog(Catalog::SelfHealing),
        Without::Catalog(Catalog::NestedLease),
    ];
    check_missed(MISSED_WITHIN, &all, true);
}

fn rows(count: u64) -> Vec<Row> {
    let mut end = LedgerEnd::default();
    let mut next = |number| {
        let order = domain::Order {
            key: IdempotencyKey::new(&format!("key-{number}")).unwrap(),
            name: StockName::new("meta").unwrap(),
            side: Side::Sell,
            quantity: Quantity::new(1).unwrap(),
        };
        let price = Price::from_minor(100).unwrap();
        let row = Row::following(&end, Epoch(1), order, price);
        end = branch::end(std::slice::from_ref(&row));
        row
    };
    (0..count).map(&mut next).collect()
}

fn save(rows: &[Row]) -> Save {
    Save {
        rows: rows.to_vec(),
        ..Save::default()
    }
}

/// How many rows a replica finds on its disk.
fn found(disk: &Disk) -> u64 {
    replica::open(disk, &VFS).unwrap().durable().end.rows.0
}

#[test]
fn a_new_ledger_survives_a_loss_of_power() {
    let disk = Disk::new(1);
    let mut store = replica::open(&disk, &VFS).unwrap();
    store.save(&save(&rows(1))).unwrap();
    disk.die(Death::PowerLost(Loss::Everything));
    drop(store);
    assert_eq!(found(&disk), 1);
}

/// Whatever became of a save, what is found after the process ended is what is found after the
/// power was lost, too, and so is what is saved behind it.
#[test]
fn what_a_replica_finds_on_its_disk_is_durable() {
    let rows = rows(3);
    let dies = |after| Faults {
        dies_after: Some((after, Death::Killed)),
        ..Faults::default()
    };
    let fails = Faults {
        next_sync_fails: true,
        ..Faults::default()
    };
    let mut outcomes = [0, 0];
    for (seed, faults) in (0..12).map(dies).chain([fails; 12]).enumerate() {
        let disk = Disk::new(seed as u64);
        let mut store = replica::open(&disk, &VFS).unwrap();
        store.save(&save(&rows[..1])).unwrap();
        disk.set_faults(faults);
        let saved = store.save(&save(&rows[1..2]));
        disk.set_faults(Faults::default());
        disk.die(Death::Killed);
        drop(store);
        let held = found(&disk);
        assert!(held == 2 || saved.is_err() && held == 1, "{held} rows");
        outcomes[held as usize - 1] += 1;
        disk.die(Death::PowerLost(Loss::Everything));
        assert_eq!(found(&disk), held, "after {faults:?}");
        disk.die(Death::Killed);
        let mut store = replica::open(&disk, &VFS).unwrap();
        store.save(&save(&rows[held as usize..])).unwrap();
        disk.die(Death::PowerLost(Loss::Everything));
        drop(store);
        assert_eq!(found(&disk), 3, "after {faults:?}");
    }
    assert!(outcomes.iter().all(|&count| count > 0), "{outcomes:?}");
}
