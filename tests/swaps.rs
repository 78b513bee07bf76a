//! Hundreds of swaps under full load, and what they cost.
//!
//! Clients ask at full speed through stretches of time in which nothing changes and such in which an
//! operator does nothing but change the policy, by turns: so what a busy machine does to the one, it
//! does to the other. `make swaps` runs them at full size, in a release build:
//! `BAZAAR_SWAPS_STRETCHES` pairs of stretches of `BAZAAR_SWAPS_MS` each, with `BAZAAR_SWAPS_CHANGES`
//! changes in each second one; at least `BAZAAR_SWAPS_REPLIES` replies; p99 during swaps at most
//! `BAZAAR_SWAPS_P99_PERCENT` per cent of what it is without, where that is given. What the second of one
//! swap costs is compared `BAZAAR_SWAPS_SECONDS` times, and p99.9 in it is at most
//! `BAZAAR_SWAPS_P999_TIMES` times what it is in others (the median), where that is given. With a shadow of every request the
//! throughput is at least `BAZAAR_SWAPS_SHADOWED_PERCENT` per cent of that without (the median). `BAZAAR_SWAPS_BUSY` loops, of a
//! higher priority than all of it, run beside the first of the tests.
//!
//! - [`load`]: clients that look up and trade;
//! - [`keyless`]: clients without the key of a version that asks for one;
//! - [`gate`]: whether that one decides;
//! - [`operator`]: who changes the policy;
//! - [`traps`]: what a version that traps costs.

mod load;
mod keyless;
mod gate;
mod operator;
mod traps;

use std::env;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Bazaar, Busy, Latencies, Options, Server, Spread, alone, guest, nicely, no_latencies, number,
    slow_target,
};

use load::{CLIENT_HEADER, Load};
use operator::{Company, EDITIONS, Operator};

/// Clients that look up, each over a connection of its own.
const CLIENTS: usize = 64;

/// How much nicer all of it is than the loops beside it, where there are any, and how many elections there may be then.
const NICE: i32 = 5;
const ELECTIONS_MAX: u64 = 3;

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

    /// Behind them two that are apart from those with changes.
    fn stretch_in(&self, company: Company, pair: usize) -> usize {
        match company {
            Company::Usual => 2 + 2 * pair,
            Company::Hostile => self.stretches(),
            Company::Bombs => self.stretches() + 1,
        }
    }
}

/// It starts with an edition: one that passes its probation is gone back to, and it is an edition then.
fn bazaar() -> Bazaar {
    Bazaar::start(Options {
        policy: Some(guest(EDITIONS[2])),
        gateway_flags: vec![format!("--client-header={CLIENT_HEADER}")],
        ..Options::default()
    })
}

#[test]
fn swaps_under_full_load_fail_no_request_and_mix_no_versions() {
    let _alone = alone();
    let loops = number("BAZAAR_SWAPS_BUSY", 0) as usize;
    if loops == 0 {
        return swap_under_full_load(None);
    }
    let busy = Busy::later(loops);
    nicely(NICE, || swap_under_full_load(Some(&busy)));
}

fn swap_under_full_load(busy: Option<&Busy>) {
    let size = Size::from_env();
    let bazaar = bazaar();
    let slow = slow_target(&bazaar);
    let load = Load::on(bazaar.address(), size.stretches() + 2).asking_for(&slow);
    let mut operator = Operator::of(&bazaar, &load);
    operator.settle();
    let epoch = || bazaar.status()["epoch"].as_u64().expect("it is a number");
    let before = epoch();
    if let Some(busy) = busy {
        busy.begin();
    }
    load.run(CLIENTS, || {
        thread::sleep(size.stretch);
        for pair in 0..size.pairs {
            operator.settle();
            load.enter(1 + 2 * pair);
            thread::sleep(size.stretch);
            change_for_a_while(&mut operator, &load, &size, pair);
        }
        load.enter(0);
        operator.settle();
    });
    let replies = load.replies.load(Ordering::Relaxed);
    let hits = load.hits.load(Ordering::Relaxed);
    let wrong = load.wrong_count.load(Ordering::Relaxed);
    let [kept_out, let_through, let_in] =
        [&load.kept_out, &load.let_through, &load.let_in].map(|it| it.load(Ordering::Relaxed));
    let tally = operator.tally();
    let elections = epoch() - before;
    println!("{elections} elections");
    assert!(
        busy.is_none() || elections <= ELECTIONS_MAX,
        "{elections} elections"
    );
    println!(
        "{replies} replies, {hits} of them kept ones, through {} changes; of {} versions that misbehave {} \
         were rolled back, {} broken off for slowness and {} refused; {} others were refused, and {} that \
         cannot be compiled, {} put off meanwhile; {let_in} let in with a key, {kept_out} kept out without, \
         {let_through} let through: {wrong} failed or mixed",
        tally.changes,
        tally.misbehaving,
        tally.rolled_back,
        tally.broken_off,
        tally.refused,
        tally.refused_others,
        tally.bombs,
        tally.put_off
    );
    assert_eq!(let_through, 0, "{:#?}", load.wrong());
    assert_eq!(wrong, 0, "{:#?}", load.wrong());
    assert!(
        replies >= number("BAZAAR_SWAPS_REPLIES", 1_000),
        "{replies}"
    );
    assert_eq!(
        tally.rolled_back + tally.broken_off + tally.refused,
        tally.misbehaving
    );
    assert!(
        tally.seen_kept * 10 >= tally.seen * 9,
        "{} of {} stocks that were looked up after a change were kept ones",
        tally.seen_kept,
        tally.seen
    );
    // A policy's own panic is quoted where it is refused, and where it fails.
    let mut panics = bazaar.panics();
    let quotes = ["policy refused", "what the policy failed at"];
    panics.retain(|line| !quotes.iter().any(|quote| line.contains(quote)));
    assert_eq!(panics, [""; 0]);
    let mut latencies = load.into_latencies();
    let apart = latencies.split_off(size.stretches());
    let percent = compare(&latencies, "swaps");
    for (name, latencies) in ["beside a slow version or a key", "beside compilers"]
        .iter()
        .zip(&apart)
    {
        print_latencies(name, latencies);
    }
    if let Ok(most) = env::var("BAZAAR_SWAPS_P99_PERCENT") {
        let most: f64 = most.parse().expect("a number of per cent");
        assert!(
            percent <= most,
            "p99 during swaps is {percent:.0} % of what it is without"
        );
    }
}

/// Makes changes at even intervals. A stretch takes longer where they do.
fn change_for_a_while(operator: &mut Operator<'_>, load: &Load, size: &Size, pair: usize) {
    let begun = Instant::now();
    for change in 0..size.changes {
        load.enter(size.stretch_in(operator.company(), pair));
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
    let mut operator = Operator::of(&bazaar, &load);
    operator.settle();
    let ratios = load.run(CLIENTS, || {
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
    let name = "throughput shadowed at 1.0 as a ratio of that alone";
    let ratios = Spread::of(ratios);
    println!("{name}: {ratios:.2}");
    compare(&load.into_latencies(), "shadowed");
    let least = number("BAZAAR_SWAPS_SHADOWED_PERCENT", 0) as f64 / 100.0;
    assert!(ratios.median >= least, "{name}: {ratios:.2}");
}

/// Between the second of a swap and the next one that is steady.
const CALM: Duration = Duration::from_millis(300);

#[test]
fn the_second_of_a_swap_fails_no_request_and_is_compared_with_steady_ones() {
    let _alone = alone();
    let pairs = number("BAZAAR_SWAPS_SECONDS", 3) as usize;
    let second = Duration::from_secs(1);
    let bazaar = bazaar();
    let load = Load::on(bazaar.address(), 1 + 2 * pairs);
    let mut operator = Operator::of(&bazaar, &load);
    operator.settle();
    load.run(CLIENTS, || {
        thread::sleep(second);
        for pair in 0..pairs {
            load.enter(1 + 2 * pair);
            thread::sleep(second);
            load.enter(2 + 2 * pair);
            let begun = Instant::now();
            operator.push(EDITIONS[(pair + 1) % EDITIONS.len()]);
            println!("a swap after {} ms", begun.elapsed().as_millis());
            thread::sleep(second.saturating_sub(begun.elapsed()));
            load.enter(0);
            thread::sleep(CALM);
        }
    });
    assert_eq!(load.wrong(), [""; 0]);
    let latencies = load.into_latencies();
    let ratios = latencies[1..].chunks(2).map(|pair| {
        let [steady, swap] = [0, 1].map(|kind| pair[kind].value_at_quantile(0.999));
        let ratio = swap as f64 / steady as f64;
        println!(
            "p99.9 in a steady second {steady} us of {}, in that of a swap {swap} us of {}: {ratio:.2}",
            pair[0].len(),
            pair[1].len()
        );
        ratio
    });
    let name = "p99.9 in the second of a swap as a ratio of that in a steady one";
    let ratios = Spread::of(ratios);
    println!("{name}: {ratios:.2}");
    compare(&latencies, "swaps");
    if let Ok(most) = env::var("BAZAAR_SWAPS_P999_TIMES") {
        let most: f64 = most.parse().expect("a number");
        assert!(ratios.median <= most, "{name}: {ratios:.2}");
    }
}

/// Swaps that each figure of memory is taken after.
const SWAPS_BETWEEN: u64 = 50;

/// What memory may grow by in 10,000 swaps, and over all versions that are different, in MiB: less than a sixth of what a
/// gateway has.
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

/// Each version is pushed, compiled and asked once, and never comes back: `BAZAAR_SWAPS_VERSIONS` of them.
#[test]
fn memory_is_flat_over_versions_that_are_all_different() {
    let _alone = alone();
    let versions = number("BAZAAR_SWAPS_VERSIONS", 20);
    let mut bazaar = bazaar();
    let component = std::fs::read(guest(EDITIONS[0])).unwrap();
    let mut figures = Vec::new();
    for version in 0..versions {
        let answer = bazaar.admin("PUT", "/policy", &another(&component, version));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(bazaar.get("/stocks/nvidia").status, 200);
        // At first it fills what it keeps.
        if version >= versions / 3 {
            let mib = bazaar.server(Server::Gateway(0)).resident_kib() as f64 / 1024.0;
            figures.push((version as f64, mib));
        }
    }
    let growth = slope(&figures) * versions as f64;
    println!(
        "{versions} versions: {:.1} MiB at first, {:.1} at last; {growth:.2} MiB more in as many",
        figures[0].1,
        figures[figures.len() - 1].1
    );
    assert!(growth <= GROWTH_MIB_MAX, "{figures:?}");
}

/// The same component as another version: with a custom section, which says nothing.
fn another(component: &[u8], number: u64) -> Vec<u8> {
    let mut section = vec![1, b'n'];
    section.extend(number.to_le_bytes());
    let mut another = component.to_vec();
    another.extend([0, section.len() as u8]);
    another.extend(section);
    another
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
        print_latencies(name, latencies);
    }
    let p99 = both.map(|(_, latencies)| latencies.value_at_quantile(0.99) as f64);
    let percent = 100.0 * p99[1] / p99[0];
    println!("p99 {name} is {percent:.0} % of p99 steady");
    percent
}

fn print_latencies(name: &str, latencies: &Latencies) {
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
