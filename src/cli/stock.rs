//! Flags of `bazaar stock`.

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use domain::{Price, Quantity, StockName};

use super::Admin;

/// The commands of `bazaar stock`.
#[derive(Debug, Subcommand)]
pub enum Stock {
    /// List the stocks, with their prices and how many shares there are to buy
    List {
        /// Print them as JSON
        #[arg(long, env = "BAZAAR_STOCK_JSON", value_parser = BoolishValueParser::new())]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// List a stock from now on
    Add {
        /// What it is called
        #[arg(value_parser = name)]
        name: StockName,
        /// What a share costs, as in 240.63
        #[arg(long, env = "BAZAAR_PRICE", value_name = "P", value_parser = price)]
        price: Price,
        /// How many shares there are to buy
        #[arg(long, env = "BAZAAR_QUANTITY", value_name = "Q", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=Quantity::MAX))]
        quantity: u64,
        #[command(flatten)]
        change: Change,
    },
    /// Change what a share costs
    Price {
        /// Which stock
        #[arg(value_parser = name)]
        name: StockName,
        /// What a share costs from now on, as in 240.63
        #[arg(value_name = "P", value_parser = price)]
        price: Price,
        #[command(flatten)]
        change: Change,
    },
    /// Give more shares to buy
    Restock {
        /// Which stock
        #[arg(value_parser = name)]
        name: StockName,
        /// How many more
        #[arg(value_name = "Q", value_parser = clap::value_parser!(u64).range(1..=Quantity::MAX))]
        quantity: u64,
        #[command(flatten)]
        change: Change,
    },
    /// Trade a stock no more: its shares are gone, and what was traded stays in the journal
    Delist {
        /// Which stock
        #[arg(value_parser = name)]
        name: StockName,
        #[command(flatten)]
        change: Change,
    },
}

/// Flags of every change.
#[derive(Debug, Args)]
pub struct Change {
    /// Makes this the same change as one of before, which is then made once [default: a new one]
    #[arg(long, env = "BAZAAR_IDEMPOTENCY_KEY", value_name = "KEY")]
    pub idempotency_key: Option<String>,
    #[command(flatten)]
    pub admin: Admin,
}

fn name(text: &str) -> Result<StockName, String> {
    StockName::new(text).map_err(|invalid| invalid.to_string())
}

fn price(text: &str) -> Result<Price, String> {
    let price: Price = text
        .parse()
        .map_err(|invalid: domain::Invalid| invalid.to_string())?;
    match price.minor() {
        0 => Err("it is not above 0".to_owned()),
        _ => Ok(price),
    }
}
