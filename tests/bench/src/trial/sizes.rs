//! How large what is measured is: small sizes make a run short, and say less.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::contender::bazaar::replica_dir;
use crate::error::Error;
use crate::growth::{LEADER, REPLICAS, copy, make_catalog, make_ledger};

/// How large it is.
#[derive(Debug, Clone, clap::Args)]
pub struct Sizes {
    /// How many stocks there are [default: 10,000 for `mixed`, 8,000 for `memory`, 1,000,000 for `start`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=10_000_000))]
    pub stocks: Option<u64>,
    /// How many orders the ledger has that `start` starts with; each ten million take some 12 GB of disk
    #[arg(long, value_name = "N", default_value_t = 10_000_000,
          value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    pub orders: u64,
    /// How many connections `memory` keeps idle
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=4_000))]
    pub idle: u32,
    /// How many gateways `mixed` has at most: 1, 2, 4, 8
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub gateways: u32,
    /// How many connections `mixed` has
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub connections: u32,
    /// Of how many rows a replica of `moments` comes back with none
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [100_000_u64, 1_000_000],
          value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    pub rows: Vec<u64>,
}

/// Writes a catalog of so many stocks: stock-1, stock-2, …
pub fn write_stocks(dir: &Path, stocks: u64) -> Result<PathBuf, Error> {
    let mut csv = "name,price,quantity\n".to_owned();
    for number in 1..=stocks {
        writeln!(csv, "stock-{number},240.63,1000000").expect("a string takes it all");
    }
    let path = dir.join(format!("{stocks}-numbered-stocks.csv"));
    fs::write(&path, csv).map_err(Error::file(&path))?;
    Ok(path)
}

/// Makes what a bazaar in a directory of its own has after so many orders of these stocks.
pub fn fill(dir: &Path, stocks: &Path, orders: u64) -> Result<(), Error> {
    let listed = catalog::stocks::load(stocks, catalog::stocks::Listings::New);
    let listed = listed.map_err(|error| Error::Ledger(error.to_string()))?;
    eprintln!("making a ledger of {orders} orders");
    make_ledger(&replica_dir(dir, LEADER), orders, listed)?;
    for replica in REPLICAS.into_iter().filter(|replica| *replica != LEADER) {
        copy(&replica_dir(dir, LEADER), &replica_dir(dir, replica))?;
    }
    make_catalog(dir, Some(stocks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_has_the_stocks_that_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = write_stocks(dir.path(), 12).unwrap();
        let listed = catalog::stocks::load(&file, catalog::stocks::Listings::New).unwrap();
        let names: Vec<&str> = listed.iter().map(|listing| listing.name.as_str()).collect();
        assert_eq!(names.len(), 12);
        assert!(names.contains(&"stock-1") && names.contains(&"stock-12"));
    }
}
