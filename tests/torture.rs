//! Nothing is lost, sold twice or stale, though processes are killed and stand still, and links
//! are cut, slow and reset.
//!
//! In every round clients trade at two gateways while a [`nemesis`] inflicts faults that are
//! drawn from a seed. Then all is healed, every client must finish, and what the clients saw
//! ([`history`]) is judged against the journal that the round left ([`audit`]): whether it is
//! linearizable ([`judge`]), and whether what is left is in order.
//!
//! `BAZAAR_TORTURE_SECONDS` makes it more than one short round, `BAZAAR_TORTURE_SEED` others.

pub mod history;
pub mod judge;
pub mod audit;
pub mod client;
mod nemesis;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use domain::Row;

use crate::harness::{Bazaar, Options, Raise, Server, SmallDisk, guest};

use audit::{FinalState, audit};
use client::{Door, Scene};
use history::{Clock, History};

/// How long faults are inflicted in one round.
const ROUND: Duration = Duration::from_secs(12);

/// Seed of the round that is part of every test run: one that draws every kind of fault, and has a
/// gateway that serves what is old.
const SEED_DEFAULT: u64 = 220;

const CLIENTS: usize = 6;
const GATEWAYS: usize = 2;
const REPLICAS: [u32; 3] = [1, 2, 3];

/// Some rounds have so many trades several times over.
const ARCHIVE_AFTER: u64 = 100;

/// Shorter than most faults.
const LEASE_MS: u64 = 300;

/// How old a stock may be at a gateway whose policy is `tests/guests/examples/brief.rs`.
const STALE_MAX: Duration = Duration::from_millis(4_000);

/// One has so few shares that it is soon sold out.
const STOCKS: &str = "name,price,quantity\namc,4.5,60\nmeta,194.02,2000\nnvidia,240.63,1000\n";
const NAMES: [&str; 3] = ["amc", "meta", "nvidia"];

#[test]
fn nothing_is_lost_sold_twice_or_stale_whatever_breaks() {
    let seconds = variable("BAZAAR_TORTURE_SECONDS").unwrap_or(ROUND.as_secs());
    let first = variable("BAZAAR_TORTURE_SEED").unwrap_or(SEED_DEFAULT);
    let start = Instant::now();
    let mut figures = Figures::default();
    for seed in first.. {
        let round = Round::run(seed);
        figures.add(&round);
        println!("{}", round.summary());
        if !round.wrong.is_empty() {
            panic!("seed {seed}: {}", round.wrong.join("\n"));
        }
        if start.elapsed() + ROUND > Duration::from_secs(seconds) {
            break;
        }
    }
    println!("{}", figures.summary());
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {value}")),
    )
}

/// One history and what is wrong with it.
struct Round {
    seed: u64,
    history: History,
    rows: usize,
    faults: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Round {
    fn run(seed: u64) -> Self {
        // In every other round one gateway serves what is old, within a bound.
        let stale_max = seed.is_multiple_of(2).then_some(STALE_MAX);
        let policies = [stale_max.map(|_| guest("brief")), None];
        let replicas = REPLICAS.map(Server::Order);
        let disks: Vec<Server> = [Server::Catalog].into_iter().chain(replicas).collect();
        let small_disks = if SmallDisk::is_possible() {
            disks
        } else {
            Vec::new()
        };
        let mut bazaar = Bazaar::start(Options {
            policies: policies.into(),
            small_disks,
            stocks: Some(STOCKS),
            lease_ms: LEASE_MS,
            gateways: GATEWAYS,
            proxied: true,
            // In these rounds old rows leave the databases meanwhile.
            archive_after: stale_max.map(|_| ARCHIVE_AFTER),
            ..Options::default()
        });
        let scene = Scene {
            gateways: (0..GATEWAYS)
                .map(|gateway| Door {
                    address: bazaar.gateway_address(gateway),
                    stale_max: stale_max.filter(|_| gateway == 0).unwrap_or_default(),
                })
                .collect(),
            stocks: &NAMES,
            clock: Clock::start(),
            finish: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            seed,
        };
        let plan = nemesis::plan(seed, ROUND, GATEWAYS, &REPLICAS);
        let (mut history, faults) = thread::scope(|scope| {
            let scene = &scene;
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| scope.spawn(move || client::act(scene, client)))
                .collect();
            let finish = Raise(&scene.finish);
            let faults = nemesis::inflict(&mut bazaar, &plan);
            drop(finish);
            let mut history = History::default();
            for client in clients {
                history.append(client.join().expect("clients do not panic"));
            }
            (history, faults)
        });
        bazaar.wait_until_ready();
        let (last, rows) = look_when_settled(&bazaar, &scene);
        let state = FinalState {
            initial: [("amc", 60), ("meta", 2000), ("nvidia", 1000)]
                .map(|(name, quantity)| (name.to_owned(), quantity))
                .into(),
            quantities: client::quantities(&last),
            rows,
        };
        history.append(last);
        let mut wrong = audit(&history, &state);
        wrong.extend(bazaar.panics());
        if !wrong.is_empty() {
            keep(&bazaar, seed, &history, &state, &plan, &wrong);
        }
        let rows = state.rows.len();
        Self {
            seed,
            history,
            rows,
            faults,
            wrong,
        }
    }

    fn summary(&self) -> String {
        format!(
            "seed {}: {} operations, {} from caches, {} trades, {} unanswered, {} faults, {} violations",
            self.seed,
            self.history.operations(),
            self.history.hits,
            self.rows,
            self.history.unanswered,
            self.faults.values().sum::<usize>(),
            self.wrong.len()
        )
    }
}

/// What is to be seen when all is over, and the journal. Orders that their clients forgot about
/// may still be placed: looks again until none was meanwhile. There are few of them.
pub fn look_when_settled(bazaar: &Bazaar, scene: &Scene) -> (History, Vec<Row>) {
    loop {
        let before = bazaar.settled_journal();
        let last = client::look_at_the_end(scene);
        let rows = bazaar.settled_journal();
        if rows == before {
            return (last, rows);
        }
    }
}

/// Writes down everything about a round that went wrong.
fn keep(
    bazaar: &Bazaar,
    seed: u64,
    history: &History,
    state: &FinalState,
    plan: &[nemesis::Planned],
    wrong: &[String],
) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{seed}"));
    let text = record(history, state, plan, wrong);
    let kept = fs::create_dir_all(&dir)
        .and_then(|()| fs::write(dir.join("history.txt"), text))
        .and_then(|()| copy_logs(bazaar.dir(), &dir));
    kept.expect("the build's directory is writable");
    println!("seed {seed}: what happened is in {}", dir.display());
}

/// A round, a line for each thing that was done, seen, or wrong.
pub fn record(
    history: &History,
    state: &FinalState,
    plan: &[impl Debug],
    wrong: &[String],
) -> String {
    let wrong = wrong.iter().map(|wrong| format!("wrong {wrong}"));
    let plan = plan.iter().map(|planned| format!("fault {planned:?}"));
    let rows = state.rows.iter().map(|row| format!("row {row:?}"));
    let trades = history.trades.iter();
    let trades = trades.map(|(key, trade)| format!("trade {key} {trade:?}"));
    let seen = history.seen.iter();
    let seen = seen.map(|(span, seen)| format!("saw {span:?} {seen:?}"));
    let lines = wrong.chain(plan).chain(rows).chain(trades).chain(seen);
    lines.map(|line| line + "\n").collect()
}

fn copy_logs(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            fs::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Figures {
    histories: usize,
    operations: usize,
    hits: u64,
    trades: usize,
    unanswered: u64,
    faults: BTreeMap<String, usize>,
}

impl Figures {
    fn add(&mut self, round: &Round) {
        self.histories += 1;
        self.operations += round.history.operations();
        self.hits += round.history.hits;
        self.trades += round.rows;
        self.unanswered += round.history.unanswered;
        for (kind, count) in &round.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
    }

    fn summary(&self) -> String {
        format!(
            "{} histories, {} operations, {} from caches, {} trades, {} requests unanswered, faults: {:?}",
            self.histories, self.operations, self.hits, self.trades, self.unanswered, self.faults
        )
    }
}
