//! How long trading stands still when the leader is killed or stands still itself: measured,
//! not judged.
//!
//! Under a load of clients, a client that trades without pause begins right at the signal; its
//! first acknowledgement ends the measurement. `BAZAAR_FAILOVER_RUNS` says how often.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Bazaar, Order, Raise, Response, Server, try_request, wait_until};

/// Clients that trade and look up meanwhile.
const CLIENTS: usize = 4;

/// Of each series, unless there shall be more.
const RUNS_DEFAULT: u64 = 2;

/// For how long a leader stands still: well beyond the time in which it is replaced.
const SUSPENDED: Duration = Duration::from_secs(2);

/// Between two runs where leaders stand still: gateways slow elections down that replace leaders
/// which are there too often. Leaders that are killed are replaced at once, however often.
const CALM: Duration = Duration::from_secs(3);

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn trading_goes_on_after_the_leader_is_killed() {
    measure("SIGKILL", Duration::ZERO, |bazaar, leader| {
        bazaar.kill(leader);
        Box::new(move |bazaar| bazaar.restart(leader))
    });
}

#[test]
fn trading_goes_on_after_the_leader_stands_still() {
    measure("SIGSTOP", CALM, |bazaar, leader| {
        bazaar.server(Server::Order(leader)).suspend();
        Box::new(move |bazaar| {
            thread::sleep(SUSPENDED);
            bazaar.server(Server::Order(leader)).resume();
        })
    });
}

/// Brings a replica back.
type Heal = Box<dyn FnOnce(&mut Bazaar)>;

fn measure(signal: &str, calm: Duration, fail: impl Fn(&mut Bazaar, u32) -> Heal) {
    let runs = std::env::var("BAZAAR_FAILOVER_RUNS").ok();
    let runs = runs
        .filter(|runs| !runs.is_empty())
        .map_or(RUNS_DEFAULT, |runs| {
            runs.parse().expect("runs are a number")
        });
    let mut bazaar = Bazaar::start_default();
    let gateway = bazaar.address();
    let over = AtomicBool::new(false);
    let trades = AtomicU64::new(0);
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let _raise = Raise(&over);
        for client in 0..CLIENTS {
            let (over, trades) = (&over, &trades);
            scope.spawn(move || load(gateway, client, over, trades));
        }
        let times = (0..runs).map(|_| {
            thread::sleep(calm);
            // Everything is as it should be: all are in sync, and the load runs.
            let acknowledged = trades.load(Ordering::Relaxed);
            wait_until("all replicas to be level under load", || {
                trades.load(Ordering::Relaxed) > acknowledged + 20 && all_in_sync(&bazaar)
            });
            let leader = bazaar.leader();
            let start = Instant::now();
            let heal = fail(&mut bazaar, leader);
            let answer = place(gateway, &Order::sell(1, "intel"));
            let time = start.elapsed();
            assert_eq!(answer.status, 200, "{answer:?}");
            heal(&mut bazaar);
            time
        });
        times.collect()
    });
    times.sort_unstable();
    let ms = |time: Duration| time.as_millis();
    println!(
        "{signal} of the leader, {runs} runs under {CLIENTS} clients ({} trades): median {} ms, worst {} ms; all {:?}",
        trades.load(Ordering::Relaxed),
        ms(times[times.len() / 2]),
        ms(times[times.len() - 1]),
        times.iter().copied().map(ms).collect::<Vec<_>>(),
    );
    let rows = bazaar.settled_journal().len() as u64;
    assert_eq!(
        rows,
        trades.load(Ordering::Relaxed) + runs,
        "one row per order"
    );
}

/// Looks up and trades, alternately, without pause.
fn load(gateway: SocketAddr, client: usize, over: &AtomicBool, trades: &AtomicU64) {
    let stocks = ["meta", "nvidia", "tesla", "nike"];
    let stock = stocks[client % stocks.len()];
    while !over.load(Ordering::Relaxed) {
        let target = format!("/stocks/{stock}");
        let answer = try_request(gateway, "GET", &target, &[], b"", PATIENCE);
        assert_eq!(answer.expect("the gateway lives").status, 200);
        assert_eq!(place(gateway, &Order::sell(1, stock)).status, 200);
        trades.fetch_add(1, Ordering::Relaxed);
    }
}

fn place(gateway: SocketAddr, order: &Order) -> Response {
    let body = order.json().to_string();
    try_request(gateway, "POST", "/orders", &[], body.as_bytes(), PATIENCE)
        .expect("the gateway lives")
}

fn all_in_sync(bazaar: &Bazaar) -> bool {
    bazaar.status()["catalog"]["in_sync"]
        .as_array()
        .map_or(0, Vec::len)
        == 3
}
