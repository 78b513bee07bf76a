//! How Bazaar grows: figures over the steps of one quantity, everything else being equal.
//!
//! - [`load`]: connections, stocks, gateways, and the share of lookups that hit the cache;
//! - [`readers`]: what clients that read at other gateways cost those who trade;
//! - [`sessions`]: sessions that hold what is traded;
//! - [`ledger`]: a long ledger: start, queries, and a replica that comes back with nothing;
//! - [`curve`]: what was measured, as tables and plots.

pub mod curve;
mod ledger;
mod load;
mod readers;
mod sessions;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::contender::Site;
use crate::contender::bazaar::{Bazaar, Setup};
use crate::error::Error;
use crate::generator::Load;

pub use curve::Curve;
pub use ledger::{LEADER, REPLICAS, copy, held, make_catalog, make_ledger};
pub use load::{HOT, LOOKUP, STOCKS_BEYOND_CACHE, write_stocks};

/// Connections wherever another quantity grows.
const CONNECTIONS: u32 = 64;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Connections that look up and trade.
    Connections,
    /// Stocks in the catalog.
    Stocks,
    /// Gateways in front of one catalog.
    Gateways,
    /// Sessions with the catalog that hold what is traded.
    Sessions,
    /// The share of lookups that the cache answers.
    Hits,
    /// Orders in the ledger.
    Ledger,
}

impl Subject {
    /// Quick ones first.
    pub const ALL: [Self; 6] = [
        Self::Connections,
        Self::Gateways,
        Self::Sessions,
        Self::Hits,
        Self::Stocks,
        Self::Ledger,
    ];
}

/// How the curves are measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where everything is started.
    pub site: Site,
    /// The `bazaar` command.
    pub bazaar: PathBuf,
    /// How long each step is measured.
    pub seconds: u64,
    /// The processor that generators are kept on.
    pub cpu: usize,
    /// Steps of [`Subject::Connections`] end here.
    pub connections_max: u32,
    /// Steps of [`Subject::Stocks`] end here.
    pub stocks_max: u64,
    /// Steps of [`Subject::Gateways`] end here.
    pub gateways_max: usize,
    /// How long the ledger is.
    pub orders: u64,
}

impl Plan {
    fn load(&self, connections: u32) -> Load {
        Load {
            connections,
            seconds: self.seconds,
            cpu: Some(self.cpu),
        }
    }

    fn setup(&self, name: &str, stocks: Option<&Path>) -> Setup {
        Setup {
            name: name.to_owned(),
            binary: self.bazaar.clone(),
            store: None,
            stocks: stocks.map(Path::to_owned),
            flags: Vec::new(),
        }
    }

    fn start(&self, name: &str, stocks: Option<&Path>) -> Result<Bazaar, Error> {
        Bazaar::start(&self.site, &self.setup(name, stocks))
    }
}

/// Measures one curve.
pub fn measure(plan: &Plan, subject: Subject) -> Result<Curve, Error> {
    match subject {
        Subject::Connections => load::connections(plan),
        Subject::Stocks => load::stocks(plan),
        Subject::Gateways => load::gateways(plan),
        Subject::Sessions => sessions::measure(plan),
        Subject::Hits => load::hits(plan),
        Subject::Ledger => ledger::measure(plan),
    }
}
