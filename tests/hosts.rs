//! Nothing is lost, sold twice or stale, though hosts lose their power, stand still, and are cut off, one way or both:
//! of the databases, the catalogs, the replicas and the gateways, each with an address of its own. Their files outlast
//! that as they are: what a loss of power leaves of a disk, the simulation knows.
//!
//! - [`switch`]: the network between them;
//! - [`host`]: one host, and its power;
//! - [`site`]: what they run, and how they are doing;
//! - [`nemesis`]: what happens to them.
//!
//! What clients saw is judged as in [`torture`](crate::torture). `BAZAAR_HOSTS_SECONDS` makes it more than one short
//! round, `BAZAAR_HOSTS_SEED` others.

mod switch;
mod host;
mod site;
mod nemesis;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Order, Raise, Spread, Turn, alone, in_own_network, number, skip, try_request, wait_until,
};
use crate::torture::audit::{FinalState, audit};
use crate::torture::client::{self, Door, Scene, UNANSWERED};
use crate::torture::history::{Clock, History};
use crate::torture::record;

use host::ENDED;
use nemesis::Inflicted;
use site::{DATABASES, GATEWAYS, Site, clients_address};

/// How long hosts are at the nemesis's mercy in one round.
const ROUND: Duration = Duration::from_secs(60);

/// In a test run among others.
const SHORT_ROUND: Duration = Duration::from_secs(30);

/// Of the round that is part of every test run.
const SEED_DEFAULT: u64 = 1;

const CLIENTS: usize = 6;

/// How often is looked at what is left, where something is not answered though all is healed.
const LOOKS_MAX: usize = 5;

/// Longest wait for an answer: more than a gateway gives itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// One has so few shares that it is soon sold out.
const STOCKS: &str = "name,price,quantity\namc,4.5,60\nmeta,194.02,2000\nnvidia,240.63,1000\n";
const INITIAL: [(&str, i64); 3] = [("amc", 60), ("meta", 2000), ("nvidia", 1000)];
const NAMES: [&str; 3] = ["amc", "meta", "nvidia"];

#[test]
fn nothing_is_lost_sold_twice_or_stale_whichever_host_dies_or_is_cut_off() {
    let _turns = (alone(), Turn::take());
    if !are_possible() || !in_own_network() {
        return;
    }
    let seconds = number("BAZAAR_HOSTS_SECONDS", 0);
    let first = number("BAZAAR_HOSTS_SEED", SEED_DEFAULT);
    let length = if seconds == 0 { SHORT_ROUND } else { ROUND };
    let start = Instant::now();
    let mut totals = Totals::default();
    for seed in first.. {
        totals.add(run(seed, length));
        if start.elapsed() + ROUND > Duration::from_secs(seconds) {
            break;
        }
    }
    println!("{}", totals.summary());
}

/// How long trading stands still after the machine of the database's primary is lost, for people to read:
/// `BAZAAR_HOSTS_RUNS` times. Patroni waits for 5 s before it promotes another one.
#[test]
#[ignore = "takes minutes: `make hosts`"]
fn what_a_primary_that_dies_costs_is_measured() {
    let _turns = (alone(), Turn::take());
    if !are_possible() || !in_own_network() {
        return;
    }
    let mut site = Site::start(STOCKS);
    let primary = site.some_primary();
    let made = site.sql(primary, "postgres", "CREATE TABLE probe (number int)");
    assert!(made.is_some(), "no table was made");
    let mut waits = Vec::new();
    for _ in 0..number("BAZAAR_HOSTS_RUNS", 5) {
        site.wait_until_whole();
        let primary = site.some_primary();
        let (over, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let raise = Raise(&over);
            for gateway in GATEWAYS {
                let (over, acknowledged) = (&over, &acknowledged);
                scope.spawn(move || trade(clients_address(gateway), over, acknowledged));
            }
            let last = || acknowledged.lock().unwrap().last().copied();
            wait_until("a trade", || last().is_some());
            site.power_off(primary);
            let lost = Instant::now();
            let others = || DATABASES.into_iter().filter(|other| *other != primary);
            let insert = "INSERT INTO probe VALUES (1)";
            let writes = |server| site.sql(server, "postgres", insert).is_some();
            wait_until("a write on the new primary", || others().any(writes));
            let written = Instant::now();
            // Far less than Patroni waits, and far more than what was under way needs.
            let after = lost + Duration::from_secs(2);
            wait_until("a trade after it", || last().is_some_and(|at| at > after));
            drop(raise);
            let first = acknowledged
                .lock()
                .unwrap()
                .iter()
                .copied()
                .find(|at| *at > after);
            let first = first.expect("it was waited for");
            let [write, trade] = [written, first].map(|at| (at - lost).as_secs_f64());
            println!(
                "the first write after {write:.1} s, the first trade {:.1} s later",
                trade - write
            );
            waits.push(trade - write);
        });
        site.power_on(primary);
    }
    println!(
        "from the new primary's first write to the first trade: {:.1} s",
        Spread::of(waits)
    );
}

/// Trades until it is over; notes when each was acknowledged.
fn trade(gateway: SocketAddr, over: &AtomicBool, acknowledged: &Mutex<Vec<Instant>>) {
    let body = Order::sell(1, "meta").json().to_string();
    while !over.load(Ordering::Relaxed) {
        let answer = try_request(gateway, "POST", "/orders", &[], body.as_bytes(), PATIENCE);
        if answer.is_ok_and(|answer| answer.status == 200) {
            acknowledged.lock().unwrap().push(Instant::now());
        }
    }
}

fn are_possible() -> bool {
    let runs = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    let all = runs("patroni", &["--version"])
        && runs("etcd", &["--version"])
        && runs(
            "unshare",
            &["--net", "--pid", "--mount-proc", "--fork", "true"],
        )
        && Path::new("/dev/net/tun").exists()
        && test_postgres::programs().is_some();
    if !all {
        skip(
            "no hosts are made",
            "Patroni, etcd and PostgreSQL are needed, which scripts/test-setup installs, and root, for namespaces and \
             devices (/dev/net/tun)",
        );
    }
    all
}

/// One history, which is right.
struct Round {
    history: History,
    trades: usize,
    faults: BTreeMap<String, usize>,
}

/// # Panics
/// Where anything that was promised is broken.
fn run(seed: u64, length: Duration) -> Round {
    let begun = Instant::now();
    let mut site = Site::start(STOCKS);
    let made_in = begun.elapsed();
    let scene = Scene {
        gateways: GATEWAYS
            .map(|role| Door {
                address: clients_address(role),
                stale_max: Duration::ZERO,
            })
            .into(),
        stocks: &NAMES,
        clock: Clock::start(),
        finish: AtomicBool::new(false),
        numbers: AtomicU64::new(0),
        seed,
    };
    let plan = nemesis::plan(seed, length, site.patience_with_primary());
    let promotions = site.promotions();
    let (mut history, inflicted, healed_in) = thread::scope(|scope| {
        let scene = &scene;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || client::act(scene, client)))
            .collect();
        let finish = Raise(&scene.finish);
        let inflicted = nemesis::inflict(&mut site, &plan);
        let healing = Instant::now();
        site.wait_until_whole();
        let healed_in = healing.elapsed();
        drop(finish);
        let mut history = History::default();
        for client in clients {
            history.append(client.join().expect("clients do not panic"));
        }
        (history, inflicted, healed_in)
    });
    let (last, rows) = look_when_settled(&site, &scene, &mut history);
    let promotions = site.promotions() - promotions;
    let state = FinalState {
        initial: INITIAL
            .map(|(name, quantity)| (name.to_owned(), quantity))
            .into(),
        quantities: client::quantities(&last),
        rows,
    };
    history.append(last);
    let mut wrong = audit(&history, &state);
    wrong.extend(unexpected(&site));
    let Inflicted { kinds, skipped } = inflicted;
    println!(
        "seed {seed}: made in {made_in:.0?}, whole again after {healed_in:.1?}; {} operations, {} from caches, {} trades, \
         {} unanswered, {} faults and {skipped} skipped, {promotions} promotions, {} violations",
        history.operations(),
        history.hits,
        state.rows.len(),
        history.unanswered,
        kinds.values().sum::<usize>(),
        wrong.len()
    );
    if !wrong.is_empty() {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("hosts-{seed}.txt"));
        let written = fs::write(&file, record(&history, &state, &plan, &wrong));
        written.expect("the build's directory is writable");
        println!("seed {seed}: what happened is in {}", file.display());
        panic!("seed {seed}: {}", wrong.join("\n"));
    }
    // Else it was no test.
    assert!(
        promotions > 0,
        "seed {seed}: the primary was never another one"
    );
    assert!(!state.rows.is_empty() && history.hits > 0, "seed {seed}");
    Round {
        history,
        trades: state.rows.len(),
        faults: kinds,
    }
}

/// What is to be seen when all is over, and the journal: looks again until nothing that clients forgot about was
/// placed meanwhile, and everything was answered. A database may fail over once more, on a busy machine, and a read
/// that meets that is not answered. What earlier looks saw is to be judged as well.
fn look_when_settled(
    site: &Site,
    scene: &Scene,
    history: &mut History,
) -> (History, Vec<domain::Row>) {
    let mut looks = 0;
    loop {
        let before = site.settled_journal();
        let mut last = client::look_at_the_end(scene);
        let rows = site.settled_journal();
        looks += 1;
        let is_answered = last.unanswered == 0 || looks >= LOOKS_MAX;
        if rows == before && is_answered {
            return (last, rows);
        }
        last.wrong_answers
            .retain(|wrong| !wrong.ends_with(UNANSWERED));
        history.append(last);
        site.wait_until_whole();
    }
}

/// What the logs have that nobody did to them. A catalog ends where it cannot know what became of a commit.
fn unexpected(site: &Site) -> Vec<String> {
    let mut found = Vec::new();
    for log in site.logs() {
        let ends_by_itself = log.to_string_lossy().contains("catalog");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().filter(|line| {
            let ended = line.strip_prefix(ENDED);
            let is_end = ended.is_some_and(|code| !(ends_by_itself && code == "1"));
            line.contains("panicked at") || line.contains("is damaged") || is_end
        });
        let is_ours = log.ends_with("bazaar.log");
        found.extend(
            lines
                .filter(|_| is_ours)
                .map(|line| format!("{}: {line}", log.display())),
        );
    }
    found
}

#[derive(Default)]
struct Totals {
    histories: usize,
    operations: usize,
    trades: usize,
    unanswered: u64,
    faults: BTreeMap<String, usize>,
}

impl Totals {
    fn add(&mut self, round: Round) {
        self.histories += 1;
        self.operations += round.history.operations();
        self.trades += round.trades;
        self.unanswered += round.history.unanswered;
        for (kind, count) in round.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    fn summary(&self) -> String {
        format!(
            "{} histories, {} operations, {} trades, {} requests unanswered, faults: {:?}",
            self.histories, self.operations, self.trades, self.unanswered, self.faults
        )
    }
}
