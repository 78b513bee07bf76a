//! Hundreds of swaps under full load, and what they cost.
//!
//! Clients ask at full speed through stretches of time in which nothing changes and such in which an
//! operator does nothing but change the policy, by turns: so what a busy machine does to the one, it
//! does to the other. `make swaps` runs them at full size, in a release build:
//! `BAZAAR_SWAPS_STRETCHES` pairs of stretches of `BAZAAR_SWAPS_MS` each, with `BAZAAR_SWAPS_CHANGES`
//! changes in each second one; at least `BAZAAR_SWAPS_REPLIES` replies; p99 during swaps at most
//! `BAZAAR_SWAPS_P99_PERCENT` per cent of what it is without, where that is given.

mod load;
mod operator;

use std::env;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Bazaar, Latencies, Options, Server, alone, guest, no_latencies, number};

use load::{CLIENT_HEADER, Load};
use operator::{EDITIONS, Operator};

/// Clients that look up, each over a connection of its own.
const CLIENTS: usize = 64;

/// How large a run is.
struct Size {
    /// Stretches of each kind.
    pairs: usize,
    stretch: Duration,
    /// Changes in each stretch that has some.
    changes: u32,
}

impl Size {
    fn from_env() -> Self {
        Self {
            pairs: number("BAZAAR_SWAPS_STRETCHES", 3) as usize,
            stretch: Duration::from_millis(number("BAZAAR_SWAPS_MS", 1_000)),
            changes: number("BAZAAR_SWAPS_CHANGES", 18) as u32,
        }
    }

    /// One to begin with, which does not count, and then pairs.
    fn stretches(&self) -> usize {
        1 + 2 * self.pairs
    }
}

fn bazaar() -> Bazaar {
    Bazaar::start(Options {
        gateway_flags: vec![format!("--client-header={CLIENT_HEADER}")],
        ..Options::default()
    })
}

#[test]
fn swaps_under_full_load_fail_no_request_and_mix_no_versions() {
    let _alone = alone();
    let size = Size::from_env();
    let bazaar = bazaar();
    let load = Load::on(bazaar.address(), size.stretches());
    let mut operator = Operator::of(&bazaar);
    operator.settle();
    load.run(CLIENTS, || {
        thread::sleep(size.stretch);
        for pair in 0..size.pairs {
            operator.settle();
            load.enter(1 + 2 * pair);
            thread::sleep(size.stretch);
            load.enter(2 + 2 * pair);
            change_for_a_while(&mut operator, &size);
        }
        load.enter(0);
        operator.settle();
    });
    let replies = load.replies.load(Ordering::Relaxed);
    let hits = load.hits.load(Ordering::Relaxed);
    let wrong = load.wrong_count.load(Ordering::Relaxed);
    println!(
        "{replies} replies, {hits} of them kept ones, through {} changes, {} of them to versions \
         that were rolled back at once, and {} refusals: {wrong} failed or mixed",
        operator.changes, operator.rolled_back, operator.refused
    );
    assert_eq!(wrong, 0, "{:#?}", load.wrong());
    assert!(
        replies >= number("BAZAAR_SWAPS_REPLIES", 1_000),
        "{replies}"
    );
    assert!(operator.rolled_back + operator.refused > 0);
    assert!(
        operator.seen_kept * 10 >= operator.seen * 9,
        "{} of {} stocks that were looked up after a change were kept ones",
        operator.seen_kept,
        operator.seen
    );
    // A policy's own panic is quoted where it is refused, and where it fails.
    let mut panics = bazaar.panics();
    let quotes = ["policy refused", "what the policy failed at"];
    panics.retain(|line| !quotes.iter().any(|quote| line.contains(quote)));
    assert_eq!(panics, [""; 0]);
    let percent = compare(&load.into_latencies(), "swaps");
    if let Ok(most) = env::var("BAZAAR_SWAPS_P99_PERCENT") {
        let most: f64 = most.parse().expect("a number of per cent");
        assert!(
            percent <= most,
            "p99 during swaps is {percent:.0} % of what it is without"
        );
    }
}

/// Makes changes at even intervals. A stretch takes longer where they do.
fn change_for_a_while(operator: &mut Operator<'_>, size: &Size) {
    let begun = Instant::now();
    for change in 0..size.changes {
        let due = begun + size.stretch * change / size.changes;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        operator.change();
    }
    thread::sleep((begun + size.stretch).saturating_duration_since(Instant::now()));
}

#[test]
fn a_shadow_of_every_request_fails_none_and_its_cost_is_measured() {
    let _alone = alone();
    let size = Size::from_env();
    let bazaar = bazaar();
    let load = Load::on(bazaar.address(), size.stretches());
    let mut operator = Operator::of(&bazaar);
    operator.settle();
    let mut ratios = load.run(CLIENTS, || {
        thread::sleep(size.stretch);
        (0..size.pairs)
            .map(|pair| {
                operator.settle();
                let alone = replies_a_second(&load, 1 + 2 * pair, size.stretch);
                operator.shadow(EDITIONS[1]);
                let shadowed = replies_a_second(&load, 2 + 2 * pair, size.stretch);
                let found = bazaar.admin("GET", "/policy/differences", b"").json()["found"].take();
                assert!(found["compared"].as_u64() > Some(0), "{found}");
                println!(
                    "{alone:.0} replies/s alone, {shadowed:.0} shadowed; {} compared, {} dropped",
                    found["compared"], found["dropped"]
                );
                shadowed / alone
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(load.wrong(), [""; 0]);
    ratios.sort_by(f64::total_cmp);
    println!(
        "throughput shadowed at 1.0 as a ratio of that alone: median {:.2}, from {:.2} to {:.2}",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
    compare(&load.into_latencies(), "shadowed");
}

/// Swaps that each figure of memory is taken after.
const SWAPS_BETWEEN: u64 = 50;

/// What memory may grow by in 10,000 swaps, in MiB: less than a sixth of what a gateway has.
const GROWTH_MIB_MAX: f64 = 8.0;

/// Two versions take each other's place, with a lookup by each: `BAZAAR_SWAPS_MEMORY` times.
#[test]
fn memory_is_flat_over_swaps() {
    let _alone = alone();
    let swaps = number("BAZAAR_SWAPS_MEMORY", 1_000);
    let mut bazaar = bazaar();
    for edition in [EDITIONS[0], EDITIONS[1]] {
        let component = std::fs::read(guest(edition)).unwrap();
        let answer = bazaar.admin("PUT", "/policy", &component);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut figures = Vec::new();
    for swap in 0..swaps {
        let answer = bazaar.admin("POST", "/policy/rollback", b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(bazaar.get("/stocks/nvidia").status, 200);
        // At first it fills what it keeps.
        if swap % SWAPS_BETWEEN == 0 && swap >= swaps / 5 {
            let mib = bazaar.server(Server::Gateway(0)).resident_kib() as f64 / 1024.0;
            figures.push((swap as f64, mib));
        }
    }
    let growth = slope(&figures) * 10_000.0;
    let mib = figures.iter().map(|(_, mib)| *mib);
    println!(
        "{swaps} swaps: {:.1} MiB at first, {:.1} at last, at most {:.1}; {growth:.2} MiB more in 10,000",
        figures[0].1,
        figures[figures.len() - 1].1,
        mib.fold(0.0, f64::max)
    );
    assert!(growth <= GROWTH_MIB_MAX, "{figures:?}");
}

/// Of the line through points that has the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let all = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / all;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let both: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    let squares: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    both / squares
}

fn replies_a_second(load: &Load, stretch: usize, time: Duration) -> f64 {
    load.enter(stretch);
    let (before, begun) = (load.replies.load(Ordering::Relaxed), Instant::now());
    thread::sleep(time);
    let replies = load.replies.load(Ordering::Relaxed) - before;
    replies as f64 / begun.elapsed().as_secs_f64()
}

/// Prints both kinds of stretches side by side; returns the p99 of the second kind in per cent of
/// that of the first.
fn compare(stretches: &[Latencies], name: &str) -> f64 {
    let sum = |kind: usize| {
        let mut sum = no_latencies();
        for stretch in stretches.iter().skip(1 + kind).step_by(2) {
            sum.add(stretch).expect("all have the same bounds");
        }
        sum
    };
    let both = [("steady", sum(0)), (name, sum(1))];
    for (name, latencies) in &both {
        let at = |quantile| latencies.value_at_quantile(quantile);
        println!(
            "{name}: {} lookups, p50 {} us, p99 {} us, p99.9 {} us, longest {} us",
            latencies.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            latencies.max()
        );
    }
    let p99 = both.map(|(_, latencies)| latencies.value_at_quantile(0.99) as f64);
    let percent = 100.0 * p99[1] / p99[0];
    println!("p99 {name} is {percent:.0} % of p99 steady");
    percent
}
