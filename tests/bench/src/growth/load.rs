//! Connections, stocks, gateways, and the share of lookups that hit the cache.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use super::{CONNECTIONS, Curve, Plan, readers};
use crate::contender::bazaar::Bazaar;
use crate::contender::caches::PATH;
use crate::error::Error;
use crate::generator::wrk::Requests;
use crate::generator::{Figures, Load};

/// Looks up stocks of a catalog that [`write_stocks`] has written.
pub const LOOKUP: &str = include_str!("../../contenders/lookup.lua");

/// Those that scripts look up often, and trade.
pub const HOT: [&str; 8] = [
    "amazon", "apple", "google", "intel", "meta", "nike", "nvidia", "tesla",
];

/// More than a gateway caches (10,000 by the default policy): so the others are never hits.
pub const STOCKS_BEYOND_CACHE: u64 = 100_000;

/// Hits in a thousand lookups.
const HITS_PERMILLE: [u64; 7] = [0, 250, 500, 750, 900, 990, 1000];

/// The same stock, and trades, by ever more connections.
pub fn connections(plan: &Plan) -> Result<Curve, Error> {
    let mut curve = Curve::of("connections");
    let bazaar = plan.start("growth-connections", None)?;
    for connections in [1, 4, 16, 64, 256, 1024] {
        if connections > plan.connections_max {
            break;
        }
        curve.step(connections);
        let load = plan.load(connections);
        let lookups = Requests::get(bazaar.address(), PATH).send(&load, bazaar.dir())?;
        curve.add_figures("lookups", &lookups.without_errors("bazaar")?);
        curve.add_figures("trades", &bazaar.trade(&load)?);
        curve.add_memory(&bazaar.memory());
    }
    Ok(curve)
}

/// Every stock in its turn, of ever more stocks.
pub fn stocks(plan: &Plan) -> Result<Curve, Error> {
    let mut curve = Curve::of("stocks");
    for stocks in [10, 1000, 10_000, 100_000, 1_000_000] {
        if stocks > plan.stocks_max {
            break;
        }
        let file = write_stocks(&plan.site.dir, stocks)?;
        curve.step(stocks);
        let start = Instant::now();
        let bazaar = plan.start(&format!("growth-{stocks}-stocks"), Some(&file))?;
        curve.add("first start", "s", start.elapsed().as_secs_f64());
        let load = plan.load(CONNECTIONS);
        curve.add_figures("lookups", &look_up(&bazaar, &load, 0, stocks)?);
        curve.add_figures("trades", &bazaar.trade(&load)?);
        curve.add_memory(&bazaar.memory());
    }
    curve.notes.push(
        "Each stock is looked up in its turn: with more of them than a gateway caches, nothing hits."
            .to_owned(),
    );
    Ok(curve)
}

/// One catalog behind ever more gateways, each with its share of the connections.
pub fn gateways(plan: &Plan) -> Result<Curve, Error> {
    let mut curve = Curve::of("gateways");
    let bazaar = plan.start("growth-gateways", None)?;
    let mut further = Vec::new();
    for gateways in [1, 2, 4, 8] {
        if gateways > plan.gateways_max {
            break;
        }
        while further.len() + 1 < gateways {
            further.push(bazaar.another_gateway(further.len() + 2)?);
        }
        curve.step(gateways);
        let addresses: Vec<SocketAddr> = [bazaar.address()]
            .into_iter()
            .chain(further.iter().map(|(address, _)| *address))
            .collect();
        let each = plan.load(CONNECTIONS / gateways as u32);
        let figures = look_up_everywhere(&addresses, &each, bazaar.dir())?;
        let per_second = figures.iter().map(Figures::per_second).sum();
        curve.add("lookups at all", "per second", per_second);
        let slowest = figures
            .iter()
            .map(|figures| figures.p99_us)
            .fold(0.0, f64::max);
        curve.add("lookups at the slowest, p99", "µs", slowest);
        // Every gateway caches what is traded, and has to let go of it.
        let trades = thread::scope(|scope| {
            let others = &addresses[1..];
            let reading = (!others.is_empty())
                .then(|| scope.spawn(|| look_up_everywhere(others, &plan.load(1), bazaar.dir())));
            let trades = bazaar.trade(&plan.load(8));
            if let Some(reading) = reading {
                reading
                    .join()
                    .expect("a generator's thread does not panic")?;
            }
            trades
        })?;
        curve.add_figures("trades by 8 connections", &trades);
        curve.add_memory(&bazaar.memory());
    }
    let others: Vec<SocketAddr> = further.iter().map(|(address, _)| *address).collect();
    if !others.is_empty() {
        readers::measure(plan, &bazaar, &others, &mut curve)?;
    }
    curve.notes.push(
        "All on one machine: throughput is what its processors give, whoever serves. While trades \
         are measured, every other gateway keeps a traded stock in its cache."
            .to_owned(),
    );
    Ok(curve)
}

/// One generator for each gateway, all at once.
fn look_up_everywhere(
    addresses: &[SocketAddr],
    load: &Load,
    dir: &Path,
) -> Result<Vec<Figures>, Error> {
    let requests = addresses.iter().map(|it| Requests::get(*it, PATH));
    readers::send_everywhere(requests, load, dir)
}

/// Ever more lookups of stocks that are in the cache.
pub fn hits(plan: &Plan) -> Result<Curve, Error> {
    let mut curve = Curve::of("hits in 1000 lookups");
    let file = write_stocks(&plan.site.dir, STOCKS_BEYOND_CACHE)?;
    let bazaar = plan.start("growth-hits", Some(&file))?;
    for permille in HITS_PERMILLE {
        curve.step(permille);
        let before = hits_and_misses(&bazaar)?;
        let load = plan.load(CONNECTIONS);
        let figures = look_up(&bazaar, &load, permille, STOCKS_BEYOND_CACHE)?;
        curve.add_figures("lookups", &figures);
        let after = hits_and_misses(&bazaar)?;
        let (hits, misses) = (after.0 - before.0, after.1 - before.1);
        curve.add(
            "hits seen",
            "in 1000",
            hits * 1000.0 / (hits + misses).max(1.0),
        );
    }
    Ok(curve)
}

fn hits_and_misses(bazaar: &Bazaar) -> Result<(f64, f64), Error> {
    let cache = bazaar.status()?["cache"]["stocks"].take();
    let count = |name: &str| cache[name].as_f64().unwrap_or_default();
    Ok((count("hits"), count("misses")))
}

fn look_up(bazaar: &Bazaar, load: &Load, permille: u64, stocks: u64) -> Result<Figures, Error> {
    let requests = Requests {
        script: LOOKUP,
        arguments: [permille, stocks - HOT.len() as u64],
        ..Requests::get(bazaar.address(), PATH)
    };
    requests.send(load, bazaar.dir())?.without_errors("bazaar")
}

/// The hot stocks, and as many others as it takes.
pub fn write_stocks(dir: &Path, stocks: u64) -> Result<PathBuf, Error> {
    let mut csv = "name,price,quantity\n".to_owned();
    let others = (1..=stocks - HOT.len() as u64).map(|number| format!("stock-{number}"));
    for name in HOT.map(str::to_owned).into_iter().chain(others) {
        writeln!(csv, "{name},240.63,1000000").expect("a string takes it all");
    }
    let path = dir.join(format!("{stocks}-stocks.csv"));
    fs::write(&path, csv).map_err(Error::file(&path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_has_as_many_stocks_as_it_should() {
        let dir = tempfile::tempdir().unwrap();
        let file = write_stocks(dir.path(), 1000).unwrap();
        let listed = catalog::stocks::load(&file, catalog::stocks::Listings::New).unwrap();
        assert_eq!(listed.len(), 1000);
        let has = |name: &str| listed.iter().any(|listing| listing.name.as_str() == name);
        assert!(HOT.iter().all(|name| has(name)) && has("stock-1") && has("stock-992"));
    }
}
