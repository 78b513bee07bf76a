//! What a journal makes of stocks and keys: a history, of which there may have been others.

use std::collections::{BTreeMap, BTreeSet};

use catalog_core::{CatalogState, Stock};
use domain::{
    Entry, IdempotencyKey, LedgerEnd, OrderNumber, Row, RowNumber, Side, StockChangeKind,
    StockName, Version,
};

/// A journal, and what follows from it.
#[derive(Debug, Clone, Default)]
pub struct Branch {
    rows: Vec<Row>,
    /// The rows that are orders, in their order.
    orders: Vec<RowNumber>,
    keys: BTreeSet<IdempotencyKey>,
    stocks: BTreeMap<StockName, History>,
}

/// What became of a stock.
#[derive(Debug, Clone)]
pub struct History {
    first: Stock,
    /// What it was from a row on; none at first.
    states: Vec<(Option<RowNumber>, Stock)>,
}

impl History {
    fn new(first: Stock) -> Self {
        Self {
            states: vec![(None, first.clone())],
            first,
        }
    }

    /// What it was in a version.
    pub fn at(&self, version: Version) -> Option<&Stock> {
        let place = self.place_of(version);
        let (_, stock) = self.states.get(place)?;
        (stock.version == version).then_some(stock)
    }

    /// What it was from a version on.
    pub fn since(&self, version: Version) -> impl Iterator<Item = &Stock> {
        self.states[self.place_of(version)..]
            .iter()
            .map(|(_, stock)| stock)
    }

    fn place_of(&self, version: Version) -> usize {
        self.states
            .partition_point(|(_, stock)| stock.version < version)
    }

    /// The version that a row made.
    pub fn made(&self, number: RowNumber) -> Version {
        let made = self.states.iter().find(|(row, _)| *row == Some(number));
        made.expect("it is a row of that stock's").1.version
    }

    /// The version that it had when the journal had so many rows.
    fn version_at(&self, rows: RowNumber) -> Version {
        let made = self
            .states
            .partition_point(|(row, _)| row.is_none_or(|row| row < rows));
        self.states[made - 1].1.version
    }

    fn last(&self) -> &Stock {
        &self.states.last().expect("a first state").1
    }
}

impl Branch {
    /// The stocks that are listed.
    pub fn listed(&self) -> impl Iterator<Item = &Stock> {
        let last = |history: &'_ History| history.states.len() - 1;
        let stocks = self.stocks.values();
        let now = stocks.map(move |history| &history.states[last(history)].1);
        now.filter(|stock| stock.is_listed)
    }

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
    pub fn stocks(&self) -> impl Iterator<Item = &Stock> {
        let stocks = self.stocks.values().map(History::last);
        stocks.filter(|stock| stock.is_listed)
    }

    /// The row of an order.
    pub fn order(&self, number: OrderNumber) -> Option<&Row> {
        let row = self.orders.get(usize::try_from(number.0).ok()?)?;
        Some(&self.rows[row.0 as usize])
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
    pub fn common_with(&self, other: &Self) -> RowNumber {
        let both = self.rows.iter().zip(&other.rows);
        RowNumber(both.take_while(|(one, other)| one == other).count() as u64)
    }

    /// The version of every stock when there were so many rows.
    pub fn versions_at(&self, rows: RowNumber) -> BTreeMap<StockName, Version> {
        let version =
            |(name, history): (&StockName, &History)| (name.clone(), history.version_at(rows));
        self.stocks.iter().map(version).collect()
    }

    pub fn append(&mut self, row: &Row) {
        assert!(
            self.end().is_continued_by(row),
            "{row:?} is not the next row"
        );
        assert!(
            self.keys.insert(row.entry.key().clone()),
            "key {} has two rows",
            row.entry.key()
        );
        let history = self.stocks.get_mut(row.entry.name());
        let history = history.expect("there are no others");
        let before = history.last();
        let after = became(before, row);
        assert_eq!(row.price, after.price, "a row has the price of then");
        assert!(after.version > before.version, "versions rise");
        history.states.push((Some(row.number), after));
        if row.order().is_some() {
            self.orders.push(row.number);
            let number = OrderNumber(self.orders.len() as u64 - 1);
            assert_eq!(row.order_number(), Some(number), "orders are dense");
        }
        self.rows.push(row.clone());
    }

    /// Every stock is what it was at first and what became of it since.
    pub fn check(&self, state: &CatalogState) {
        assert!(
            state.stocks().eq(self.stocks()),
            "{:?}",
            state.stocks().collect::<Vec<_>>()
        );
    }
}

/// What a row makes of a stock. Said here once more, since it is what is tested.
fn became(before: &Stock, row: &Row) -> Stock {
    let mut stock = before.clone();
    stock.version = Version(before.version.0 + 1);
    let is_added = |kind| matches!(kind, StockChangeKind::Add { .. });
    match &row.entry {
        Entry::Order(order) => {
            assert!(before.is_listed, "only listed stocks are traded");
            let shares = order.quantity.get();
            stock.volume += shares;
            stock.quantity = match order.side {
                Side::Buy => before
                    .quantity
                    .checked_sub(shares)
                    .expect("nothing is sold twice"),
                Side::Sell => before.quantity + shares,
            };
        }
        Entry::StockChange(change) => {
            assert_ne!(before.is_listed, is_added(change.kind), "{row:?}");
            match change.kind {
                StockChangeKind::Add { price, quantity } => {
                    stock = Stock::first(change.name.clone(), price, quantity);
                    stock.version = Version(row.number.0 + 2);
                }
                StockChangeKind::Price { price } => stock.price = price,
                StockChangeKind::Restock { quantity } => stock.quantity += quantity.get(),
                StockChangeKind::Delist => stock.is_listed = false,
            }
        }
    }
    stock
}

/// Where a ledger of these rows ends.
pub fn end(rows: &[Row]) -> LedgerEnd {
    rows.last().map(LedgerEnd::of).unwrap_or_default()
}
