//! A long ledger: how soon everything starts with it, what asking for its orders costs, and what a
//! replica that comes back with an empty disk costs those who trade meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use catalog::RebuildSource;
use catalog::config::LEASE_DEFAULT;
use catalog::stocks::Listing;
use domain::Term;
use domain::{
    ChainHash, Epoch, IdempotencyKey, LedgerEnd, Order, Quantity, ReplicaId, Row, RowNumber, Side,
};
use order::inspect::Ledger;
use order::store::{SqliteStore, Store as _};
use order_core::durable::Save;
use rustix::process::Signal;
use serde_json::Value;

use super::{CONNECTIONS, Curve, Plan};
use crate::contender::bazaar::{Bazaar, catalog_dir, replica_dir};
use crate::error::Error;
use crate::generator::wrk::Requests;
use crate::process::{Process, resident_bytes, signal};
use crate::statistics::Spread;

/// Connections that trade while a replica catches up.
const TRADERS: u32 = 8;

/// Windows of trading without a fault.
const STEADY_WINDOWS: usize = 3;

/// Rows that are made durable at a time.
const CHUNK_ROWS: usize = 4096;

/// When the first order was placed, in milliseconds since 1970: the beginning of 2026.
const FIRST_KEY_MS: u64 = 1_767_225_600_000;

/// Who led when the ledger was made.
pub const LEADER: u32 = 3;

/// Replicas that have it.
pub const REPLICAS: [u32; 3] = [1, 2, LEADER];

/// How much slower trades may be while a replica catches up.
const P99_RATIO_MAX: f64 = 1.5;

/// Between two looks at how far a replica has come.
const POLL: Duration = Duration::from_millis(100);

/// Longest wait for a replica that catches up.
const CATCH_UP_WAIT_MAX: Duration = Duration::from_secs(3600);

/// A hundredth of the ledger, a tenth, and all of it.
pub fn measure(plan: &Plan) -> Result<Curve, Error> {
    let mut curve = Curve::of("orders");
    for orders in [plan.orders / 100, plan.orders / 10, plan.orders] {
        curve.step(orders);
        step(plan, orders, &mut curve)?;
    }
    Ok(curve)
}

fn step(plan: &Plan, orders: u64, curve: &mut Curve) -> Result<(), Error> {
    let name = format!("growth-{orders}-orders");
    let dir = plan.site.make_dir(&name)?;
    let built_in = catalog::stocks::built_in();
    let made = make_ledger(&replica_dir(&dir, LEADER), orders, built_in)?;
    let disk_pace = orders as f64 / made.as_secs_f64();
    curve.add("rows written by one store", "rows per second", disk_pace);
    for replica in REPLICAS.into_iter().filter(|replica| *replica != LEADER) {
        copy(&replica_dir(&dir, LEADER), &replica_dir(&dir, replica))?;
    }
    make_catalog(&dir, None)?;

    let start = Instant::now();
    let bazaar = plan.start(&name, None)?;
    curve.add("start", "s", start.elapsed().as_secs_f64());
    let queries = Requests {
        script: include_str!("../../contenders/query.lua"),
        arguments: [orders, 0],
        ..Requests::get(bazaar.address(), "/orders/0")
    };
    let queries = queries.send(&plan.load(CONNECTIONS), bazaar.dir())?;
    curve.add_figures("order queries", &queries.without_errors("bazaar")?);

    let load = plan.load(TRADERS);
    bazaar.trade(&load)?;
    let steady = (0..STEADY_WINDOWS).map(|_| Ok(bazaar.trade(&load)?.p99_us));
    let steady = median(steady.collect::<Result<_, Error>>()?);
    curve.add("trades, p99 steady", "µs", steady);

    let rejoin = rejoin(plan, &bazaar, orders)?;
    let pace = orders as f64 / rejoin.took.as_secs_f64();
    curve.add("rejoin from empty", "s", rejoin.took.as_secs_f64());
    curve.add("rejoin from empty", "rows per second", pace);
    let during = median(rejoin.p99_us);
    curve.add("trades, p99 during the rejoin", "µs", during);
    curve.add_memory(&bazaar.memory());
    curve.add(
        "replica that rejoined",
        "MiB",
        rejoin.memory_bytes as f64 / f64::from(1 << 20),
    );

    let verdict = if during <= P99_RATIO_MAX * steady {
        "met"
    } else {
        "**not met**"
    };
    curve.notes.push(format!(
        "{orders} orders: p99 of trades during the rejoin {:.2} × steady (at most {P99_RATIO_MAX}): \
         {verdict}. The rejoin came at {:.2} × the pace at which one store is written without a \
         network.",
        during / steady,
        pace / disk_pace
    ));
    drop(bazaar);
    fs::remove_dir_all(&dir).map_err(Error::file(&dir))
}

fn median(figures: Vec<f64>) -> f64 {
    Spread::of(figures).map_or(f64::NAN, |spread| spread.median)
}

/// Writes a replica's ledger in the store that replicas have. Keys rise with time, an order each
/// millisecond, as those that gateways make: the index over them costs what it costs in service.
pub fn make_ledger(dir: &Path, orders: u64, listed: Vec<Listing>) -> Result<Duration, Error> {
    let failed = |error: &dyn ToString| Error::Ledger(error.to_string());
    fs::create_dir_all(dir).map_err(Error::file(dir))?;
    let start = Instant::now();
    let mut store = SqliteStore::open(dir).map_err(|error| failed(&error))?;
    let term = Term {
        epoch: Epoch(1),
        leader: ReplicaId::new(LEADER),
    };
    store
        .save(&Save {
            term: Some(term),
            ..Save::default()
        })
        .map_err(|error| failed(&error))?;
    let mut rows = Rows::of(listed);
    let mut left = orders;
    while left > 0 {
        let count = left.min(CHUNK_ROWS as u64);
        let chunk: Vec<Row> = rows.by_ref().take(count as usize).collect();
        let save = Save {
            rows: chunk,
            ..Save::default()
        };
        store.save(&save).map_err(|error| failed(&error))?;
        left -= count;
    }
    Ok(start.elapsed())
}

/// Rows of single shares, sold and bought in turn: there are always enough.
struct Rows {
    random: fastrand::Rng,
    listed: Vec<Listing>,
    next: RowNumber,
    chain: ChainHash,
}

impl Rows {
    fn of(listed: Vec<Listing>) -> Self {
        Self {
            random: fastrand::Rng::with_seed(1),
            listed,
            next: RowNumber(0),
            chain: ChainHash::EMPTY,
        }
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let pair = (self.next.0 / 2) as usize;
        let random = self.random.u128(..) >> 48;
        let key = format!("gateway-{:012x}{random:020x}", FIRST_KEY_MS + self.next.0);
        let listing = &self.listed[pair % self.listed.len()];
        let order = Order {
            key: IdempotencyKey::new(&key).expect("40 printable bytes"),
            name: listing.name.clone(),
            side: if self.next.0.is_multiple_of(2) {
                Side::Sell
            } else {
                Side::Buy
            },
            quantity: Quantity::new(1).expect("one is a quantity"),
        };
        let end = LedgerEnd {
            rows: self.next,
            stock_changes: 0,
            chain: self.chain,
        };
        let row = Row::following(&end, Epoch(1), order, listing.price);
        (self.next, self.chain) = (self.next.next(), row.chain);
        Some(row)
    }
}

/// The catalog of the ledger, as it would be made after a loss; of the stocks in a file, where there is one.
pub fn make_catalog(dir: &Path, stocks: Option<&Path>) -> Result<(), Error> {
    let failed = |error: &dyn ToString| Error::Ledger(error.to_string());
    let ledger = Ledger::open(&replica_dir(dir, LEADER)).map_err(|error| failed(&error))?;
    let config = catalog::Config {
        data_dir: catalog_dir(dir),
        new: false,
        stocks: stocks.map(Path::to_owned),
        lease: LEASE_DEFAULT,
        accept_loss_of: BTreeSet::new(),
        is_rebuilt: false,
        archive_after: None,
        monitor: Default::default(),
        traces: Default::default(),
    };
    fs::create_dir_all(&config.data_dir).map_err(Error::file(&config.data_dir))?;
    let remains = RebuildSource {
        rows: ledger.rows(),
        journal: None,
        listing: None,
        // Nobody holds anything of a ledger that was made.
        lease_horizon: Some(Duration::ZERO),
        epoch: Epoch(1),
        leader: ReplicaId::new(LEADER),
        protocol: domain::Protocol::NEWEST,
    };
    catalog::rebuild(&config, remains).map_err(|error| failed(&error))?;
    Ok(())
}

pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::file(to))?;
    for entry in fs::read_dir(from).map_err(Error::file(from))? {
        let entry = entry.map_err(Error::file(from))?;
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target).map_err(Error::file(&target))?;
    }
    Ok(())
}

/// What a replica's return was like.
struct Rejoin {
    /// From its start until it held as many orders as there were.
    took: Duration,
    /// Of trades, window by window.
    p99_us: Vec<f64>,
    /// What it held in memory when it had caught up.
    memory_bytes: u64,
}

/// Kills a follower, loses its disk, and starts it again while others trade.
fn rejoin(plan: &Plan, bazaar: &Bazaar, orders: u64) -> Result<Rejoin, Error> {
    let leader = bazaar.status()?["leader"].as_u64();
    let victim = REPLICAS
        .into_iter()
        .find(|id| Some(u64::from(*id)) != leader);
    let victim = victim.expect("there is more than one replica");
    signal(
        bazaar.services()[&format!("order-{victim}")].pid,
        Signal::KILL,
    );
    let lost = bazaar.replica_dir(victim);
    // Whoever trades finds out that it is gone before anything is measured.
    bazaar.trade(&plan.load(TRADERS))?;
    fs::remove_dir_all(&lost).map_err(Error::file(&lost))?;

    let caught_up = AtomicBool::new(false);
    let start = Instant::now();
    let replica = bazaar.start_replica(victim)?;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let outcome = wait_for(bazaar, victim, orders, &replica);
            caught_up.store(true, Ordering::Release);
            outcome.map(|memory_bytes| (start.elapsed(), memory_bytes))
        });
        let mut p99_us = Vec::new();
        // The window in which it catches up is the last.
        while p99_us.is_empty() || !caught_up.load(Ordering::Acquire) {
            p99_us.push(bazaar.trade(&plan.load(TRADERS))?.p99_us);
        }
        let waited = waiting
            .join()
            .expect("the thread that waits does not panic");
        let (took, memory_bytes) = waited?;
        Ok(Rejoin {
            took,
            p99_us,
            memory_bytes,
        })
    })
}

/// Waits until a replica holds so many orders; then what it holds in memory.
fn wait_for(bazaar: &Bazaar, id: u32, orders: u64, replica: &Process) -> Result<u64, Error> {
    let start = Instant::now();
    while start.elapsed() < CATCH_UP_WAIT_MAX {
        if held(&bazaar.status()?, id) >= orders {
            return Ok(resident_bytes(replica.pid()));
        }
        sleep(POLL);
    }
    Err(Error::NotReady {
        name: format!("order-{id}"),
        waited_s: start.elapsed().as_secs(),
        log: replica.log(),
    })
}

/// How many orders a replica holds, by the gateway's `/status`.
pub fn held(status: &Value, id: u32) -> u64 {
    let replicas = status["replicas"].as_array().into_iter().flatten();
    let mut of_id = replicas.filter(|replica| replica["id"] == id);
    let replica = of_id.next().filter(|replica| replica["healthy"] == true);
    replica
        .and_then(|replica| replica["orders"].as_u64())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_was_made_is_one_that_a_catalog_is_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let orders = CHUNK_ROWS as u64 + 3;
        let built_in = catalog::stocks::built_in();
        make_ledger(&replica_dir(dir.path(), LEADER), orders, built_in).unwrap();
        let ledger = Ledger::open(&replica_dir(dir.path(), LEADER)).unwrap();
        assert_eq!(ledger.end().unwrap().rows, RowNumber(orders));
        make_catalog(dir.path(), None).unwrap();
        copy(
            &replica_dir(dir.path(), LEADER),
            &replica_dir(dir.path(), 1),
        )
        .unwrap();
        let copied = Ledger::open(&replica_dir(dir.path(), 1)).unwrap();
        assert_eq!(copied.end().unwrap(), ledger.end().unwrap());
    }

    #[test]
    fn what_a_replica_holds_is_read_off_the_status() {
        let status = serde_json::json!({ "replicas": [
            { "id": 1, "healthy": true, "orders": 7 },
            { "id": 2, "healthy": false, "orders": 9 },
        ] });
        assert_eq!([1, 2, 3].map(|id| held(&status, id)), [7, 0, 0]);
    }
}
