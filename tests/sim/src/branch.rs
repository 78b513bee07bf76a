//! What a journal makes of stocks and keys: a history, of which there may have been others.

use std::collections::{BTreeMap, BTreeSet};

use catalog_core::{CatalogState, Stock};
use domain::{IdempotencyKey, LedgerEnd, OrderNumber, Row, Side, StockName, Version};

/// A journal, and what follows from it.
#[derive(Debug, Clone, Default)]
pub struct Branch {
    rows: Vec<Row>,
    keys: BTreeSet<IdempotencyKey>,
    stocks: BTreeMap<StockName, History>,
}

/// A stock's quantities, from version 1 on.
#[derive(Debug, Clone)]
pub struct History {
    first: Stock,
    quantities: Vec<u64>,
    rows: Vec<OrderNumber>,
    volume: u64,
}

impl History {
    fn new(first: Stock) -> Self {
        Self {
            quantities: vec![first.quantity],
            rows: Vec::new(),
            volume: 0,
            first,
        }
    }

    /// The quantity at a version.
    pub fn at(&self, version: Version) -> Option<u64> {
        let place = (version.0 as usize).checked_sub(1)?;
        self.quantities.get(place).copied()
    }

    /// The quantities from a version on.
    pub fn since(&self, version: Version) -> &[u64] {
        &self.quantities[version.0 as usize - 1..]
    }

    /// The version that a row made.
    pub fn made(&self, number: OrderNumber) -> Version {
        let place = self.rows.binary_search(&number).expect("it is a row");
        Version(place as u64 + 2)
    }

    /// The version that it had when the journal had so many rows.
    fn version_at(&self, rows: OrderNumber) -> Version {
        Version(self.rows.partition_point(|&row| row < rows) as u64 + 1)
    }
}

impl Branch {
    /// A journal of these stocks with these rows.
    pub fn of(stocks: impl IntoIterator<Item = Stock>, rows: &[Row]) -> Self {
        let stocks = stocks.into_iter();
        let mut branch = Self {
            stocks: stocks
                .map(|first| (first.name.clone(), History::new(first)))
                .collect(),
            ..Self::default()
        };
        rows.iter().for_each(|row| branch.append(row));
        branch
    }

    /// A journal of the same stocks with other rows.
    pub fn anew(&self, rows: &[Row]) -> Self {
        Self::of(self.stocks.values().map(|it| it.first.clone()), rows)
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The stocks as they are now.
    pub fn stocks(&self) -> impl Iterator<Item = Stock> {
        self.stocks.values().map(|history| Stock {
            quantity: *history.quantities.last().expect("a first quantity"),
            volume: history.volume,
            version: Version(history.quantities.len() as u64),
            ..history.first.clone()
        })
    }

    pub fn stock(&self, name: &StockName) -> &History {
        &self.stocks[name]
    }

    pub fn end(&self) -> LedgerEnd {
        end(&self.rows)
    }

    /// Whether a ledger that ends there is its beginning.
    pub fn begins_with(&self, ledger: LedgerEnd) -> bool {
        let rows = self.rows.get(..ledger.rows.0 as usize);
        rows.is_some_and(|rows| end(rows).chain == ledger.chain)
    }

    /// How many rows it has in common with another one.
    pub fn common_with(&self, other: &Self) -> OrderNumber {
        let both = self.rows.iter().zip(&other.rows);
        OrderNumber(both.take_while(|(one, other)| one == other).count() as u64)
    }

    /// The version of every stock when there were so many rows.
    pub fn versions_at(&self, rows: OrderNumber) -> BTreeMap<StockName, Version> {
        let version =
            |(name, history): (&StockName, &History)| (name.clone(), history.version_at(rows));
        self.stocks.iter().map(version).collect()
    }

    pub fn append(&mut self, row: &Row) {
        assert_eq!(row.number, self.end().rows, "numbers are dense");
        assert!(row.follows(&self.end().chain), "the chain is whole");
        assert!(
            self.keys.insert(row.order.key.clone()),
            "key {} has two rows",
            row.order.key
        );
        let history = self.stocks.get_mut(&row.order.name);
        let history = history.expect("only listed stocks are traded");
        let before = *history.quantities.last().expect("a first quantity");
        let shares = row.order.quantity.get();
        let after = match row.order.side {
            Side::Buy => before.checked_sub(shares).expect("nothing is sold twice"),
            Side::Sell => before + shares,
        };
        assert_eq!(row.price, history.first.price, "prices stay");
        history.quantities.push(after);
        history.volume += shares;
        history.rows.push(row.number);
        self.rows.push(row.clone());
    }

    /// Every stock is what it was at first and what became of it since.
    pub fn check(&self, state: &CatalogState) {
        for stock in state.stocks() {
            let history = &self.stocks[&stock.name];
            let last = history.quantities.last();
            assert_eq!(Some(&stock.quantity), last, "{}", stock.name);
            assert_eq!(stock.version.0, history.quantities.len() as u64);
        }
        assert_eq!(state.stocks().count(), self.stocks.len());
    }
}

/// Where a ledger of these rows ends.
pub fn end(rows: &[Row]) -> LedgerEnd {
    rows.last().map(LedgerEnd::of).unwrap_or_default()
}
