//! What lending stocks costs the catalog: `cargo bench -p catalog-core`.
//!
//! Time by criterion: of a trade of a stock that so many sessions hold, without the network between. Memory by the
//! allocator: of each stock that a session holds.

use std::hint::black_box;
use std::time::Duration;

use catalog_core::{Floor, Leases};
use criterion::{BatchSize, Criterion};
use domain::time::BootTime;
use domain::{SessionId, StockName, Version};

/// How many sessions hold the stock that is traded.
const SESSIONS: [u64; 4] = [1, 16, 64, 256];

/// What memory is measured with.
const HOLDERS: u64 = 64;
const STOCKS: u64 = 100_000;

const LEASE: Duration = Duration::from_secs(3600);

fn id(number: u64) -> SessionId {
    SessionId::new(number + 1).expect("not 0")
}

fn stock(number: u64) -> StockName {
    StockName::new(&format!("stock-{number}")).expect("a short name")
}

fn with_sessions(sessions: u64) -> Leases {
    let mut leases = Leases::new(LEASE, LEASE / 10);
    for session in 0..sessions {
        let opened = leases.open(id(session), BootTime::default());
        opened.expect("there may be so many");
    }
    leases
}

/// All hold it again, are told to let go, and acknowledge.
fn trade(leases: &mut Leases, floor: &Floor, sessions: u64) {
    let now = BootTime::default();
    for session in 0..sessions {
        leases.register(id(session), &floor.name, now);
    }
    for told in leases.invalidate(std::slice::from_ref(floor)) {
        let acknowledged = leases.acknowledge(told.session, told.round, now);
        black_box(acknowledged).expect("its lease is not over");
    }
}

fn time(criterion: &mut Criterion) {
    for sessions in SESSIONS {
        let mut leases = with_sessions(sessions);
        let floor = Floor {
            name: stock(0),
            version: Version(2),
        };
        criterion.bench_function(
            &format!("a trade of a stock that {sessions} sessions hold"),
            |bencher| {
                bencher.iter(|| trade(&mut leases, &floor, sessions));
            },
        );
    }
    // Among as many as that: all of them are held by all.
    let mut leases = with_sessions(HOLDERS);
    for number in 0..STOCKS {
        for session in 0..HOLDERS {
            leases.register(id(session), &stock(number), BootTime::default());
        }
    }
    let mut number = 0;
    criterion.bench_function(
        "the same by 64 sessions that hold 100,000 stocks each",
        |bencher| {
            bencher.iter_batched(
                || {
                    number = (number + 7919) % STOCKS;
                    Floor {
                        name: stock(number),
                        version: Version(2),
                    }
                },
                |floor| {
                    trade(&mut leases, &floor, HOLDERS);
                    floor
                },
                BatchSize::PerIteration,
            );
        },
    );
}

fn memory() {
    let names: Vec<StockName> = (0..STOCKS).map(stock).collect();
    let mut leases = with_sessions(HOLDERS);
    let allocated = allocation_counter::measure(|| {
        for session in 0..HOLDERS {
            for name in &names {
                leases.register(id(session), name, BootTime::default());
            }
        }
    });
    let held = HOLDERS * STOCKS;
    println!(
        "{HOLDERS} sessions that hold {STOCKS} stocks each: {} MiB, {:.0} bytes for each stock that a session holds",
        allocated.bytes_current >> 20,
        allocated.bytes_current as f64 / held as f64
    );
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    time(&mut criterion);
    criterion.final_summary();
    memory();
}
