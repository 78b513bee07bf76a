//! What backups cost trades: the longest hundredth while they are taken, beside times without, by turns.
//!
//! `BAZAAR_BACKUPS_PAIRS` and `BAZAAR_BACKUPS_MS` say how often and for how long. p99 is at most `BAZAAR_BACKUPS_P99_PERCENT`
//! per cent of what it is without, in the median of the pairs, where that is given. Of several pairs, one before them does not
//! count: the database has just been made.

use std::env;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use test_postgres::Cluster;

use super::{take, text};
use crate::harness::{Bazaar, Options, Spread, Trades, alone, number, run_ok};

/// Enough for a backup to take a while.
fn options() -> Options {
    let mut stocks = "name,price,quantity\nmeta,1.00,1000\n".to_owned();
    for number in 0..400_000 {
        stocks += &format!("a-stock-of-a-long-name-{number},1.00,1\n");
    }
    Options {
        stocks: Some(Box::leak(stocks.into_boxed_str())),
        ..Options::default()
    }
}

fn measure(kind: &str, bazaar: &Bazaar, take: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let pairs = number("BAZAAR_BACKUPS_PAIRS", 1);
    let time = Duration::from_millis(number("BAZAAR_BACKUPS_MS", 1000));
    let p99_ms = |trades: &Trades| {
        assert!(trades.failed.is_empty(), "{:?}", trades.failed);
        trades.times[trades.times.len() * 99 / 100].as_secs_f64() * 1000.0
    };
    let (mut percents, mut taken) = (Vec::new(), 0);
    let warm_up = u64::from(pairs > 1);
    for pair in 0..warm_up + pairs {
        let steady = Trades::of(&[bazaar.address()], 4, || thread::sleep(time));
        let busy = Trades::of(&[bazaar.address()], 4, || {
            let began = Instant::now();
            while began.elapsed() < time {
                take(&dir.path().join(format!("{taken}.backup")));
                taken += 1;
            }
        });
        let (steady, busy) = (p99_ms(&steady), p99_ms(&busy));
        let counts = pair >= warm_up;
        if counts {
            percents.push(busy / steady * 100.0);
        }
        let note = if counts { "" } else { ", to warm up" };
        println!(
            "{kind}: p99 of trades {steady:.1} ms, {busy:.1} ms while backups are taken{note}"
        );
    }
    if percents.len() > 1 {
        let (first, second) = percents.split_at(percents.len() / 2);
        let half = |percents: &[f64]| Spread::of(percents.iter().copied());
        let (first, second) = (half(first), half(second));
        println!("{kind}: p99 in the first half of the pairs {first} %, in the second {second} %");
    }
    let percent = Spread::of(percents);
    println!("{kind}: {taken} backups, p99 of trades {percent} % of that without");
    if let Ok(most) = env::var("BAZAAR_BACKUPS_P99_PERCENT") {
        let most: f64 = most.parse().expect("a number of per cent");
        assert!(
            percent.median <= most,
            "{kind}: p99 while backups are taken is {percent} % of what it is without"
        );
    }
}

#[test]
fn what_backups_cost_trades() {
    let bazaar = Bazaar::start(options());
    measure("SQLite", &bazaar, |file| {
        take(&bazaar, file);
    });
}

#[test]
#[ignore = "measures: make backups"]
fn what_backups_of_postgresql_cost_trades() {
    let _alone = alone();
    let Some(cluster) = Cluster::replicated() else {
        return;
    };
    let url = cluster.database("bazaar");
    let bazaar = Bazaar::start(Options {
        store: Some(url.clone()),
        lease_ms: 300,
        ..options()
    });
    measure("PostgreSQL", &bazaar, |file| {
        run_ok(["backup", "take", text(file), "--store", &url]);
    });
}
