//! Whether the stocks are what the journal made of their listings.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Entry, LedgerEnd, Order, Price, Quantity, Row, RowNumber, Side, StockChange, StockChangeKind,
    StockName, Version,
};
use storage::StorageError;

use crate::stocks::Listing;
use catalog_core::Stock;

/// The stocks as they are, and what the journal says of them as far as it has been read.
#[derive(Debug, Clone)]
pub(super) struct Audit {
    stocks: BTreeMap<StockName, Stock>,
    accounts: BTreeMap<StockName, Account>,
    /// Stocks that were delisted.
    delisted: BTreeSet<StockName>,
}

/// A stock since it was listed.
#[derive(Debug, Clone)]
struct Account {
    price: Price,
    /// Shares that came with its listing, and with its restocks.
    listed: u128,
    bought: u128,
    sold: u128,
    /// Its first one.
    version: Version,
    rows: u64,
}

impl Account {
    fn new(price: Price, quantity: u64, version: Version) -> Self {
        Self {
            price,
            listed: quantity.into(),
            bought: 0,
            sold: 0,
            version,
            rows: 0,
        }
    }

    fn is(&self, stock: &Stock) -> bool {
        let volume = (self.bought + self.sold).min(u128::from(Quantity::MAX));
        self.listed + self.sold == u128::from(stock.quantity) + self.bought
            && volume == u128::from(stock.volume)
            && stock.version == Version(self.version.0 + self.rows)
            && stock.price == self.price
    }
}

impl Audit {
    /// Of a journal that ends there. Refuses stocks that are not those listed, at their prices, where nobody has
    /// changed that since.
    pub(super) fn new(
        listings: Vec<Listing>,
        stocks: Vec<Stock>,
        end: LedgerEnd,
    ) -> Result<Self, StorageError> {
        let account = |listing: Listing| {
            let account = Account::new(listing.price, listing.quantity, Version(1));
            (listing.name, account)
        };
        let accounts: BTreeMap<_, _> = listings.into_iter().map(account).collect();
        let named = stocks.into_iter().map(|stock| (stock.name.clone(), stock));
        let audit = Self {
            stocks: named.collect(),
            accounts,
            delisted: BTreeSet::new(),
        };
        if end.stock_changes == 0 {
            audit.compare(|account, stock| account.price == stock.price)?;
        }
        Ok(audit)
    }

    /// Takes the next rows of the journal. Each is to have the price that its stock was listed at then.
    pub(super) fn take(&mut self, rows: &[Row]) -> Result<(), StorageError> {
        for row in rows {
            let price = match &row.entry {
                Entry::Order(order) => {
                    let Order { side, quantity, .. } = *order;
                    self.take_sum(&order.name, side, quantity.get().into(), 1)?
                }
                Entry::StockChange(change) => self.take_change(change, row.number)?,
            };
            if price != row.price {
                return Err(StorageError::Damaged(format!(
                    "row {} has another price than {} was listed at then",
                    row.number,
                    row.entry.name()
                )));
            }
        }
        Ok(())
    }

    /// Takes the next change of a stock. Returns its price then.
    pub(super) fn take_change(
        &mut self,
        change: &StockChange,
        number: RowNumber,
    ) -> Result<Price, StorageError> {
        let StockChange { name, kind, .. } = change;
        if let StockChangeKind::Add { price, quantity } = *kind {
            self.delisted.remove(name);
            let account = Account::new(price, quantity, Version(number.0 + 2));
            return match self.accounts.insert(name.clone(), account) {
                None => Ok(price),
                Some(_) => Err(differs(name)),
            };
        }
        let account = self.accounts.get_mut(name).ok_or_else(|| differs(name))?;
        account.rows += 1;
        if let StockChangeKind::Price { price } = *kind {
            account.price = price;
        }
        let price = account.price;
        match *kind {
            StockChangeKind::Add { .. } | StockChangeKind::Price { .. } => {}
            StockChangeKind::Restock { quantity } => account.listed += u128::from(quantity.get()),
            StockChangeKind::Delist => {
                self.accounts.remove(name);
                self.delisted.insert(name.clone());
            }
        }
        Ok(price)
    }

    /// Takes so many trades of a stock on one side, since it was listed last, of so many shares together. Returns its
    /// price then.
    pub(super) fn take_sum(
        &mut self,
        name: &StockName,
        side: Side,
        shares: u128,
        trades: u64,
    ) -> Result<Price, StorageError> {
        let account = self.accounts.get_mut(name).ok_or_else(|| differs(name))?;
        match side {
            Side::Buy => account.bought += shares,
            Side::Sell => account.sold += shares,
        }
        account.rows += trades;
        Ok(account.price)
    }

    /// Whether the last that was taken of that stock delisted it.
    pub(super) fn is_delisted(&self, name: &StockName) -> bool {
        self.delisted.contains(name)
    }

    /// Compares, once the journal has been read to its end.
    pub(super) fn finish(self) -> Result<(), StorageError> {
        self.compare(Account::is)
    }

    fn compare(&self, is: impl Fn(&Account, &Stock) -> bool) -> Result<(), StorageError> {
        for (name, account) in &self.accounts {
            if !self
                .stocks
                .get(name)
                .is_some_and(|stock| is(account, stock))
            {
                return Err(differs(name));
            }
        }
        let is_unlisted = |name: &&StockName| !self.accounts.contains_key(*name);
        match self.stocks.keys().find(is_unlisted) {
            Some(name) => Err(differs(name)),
            None => Ok(()),
        }
    }
}

fn differs(name: &StockName) -> StorageError {
    StorageError::Damaged(format!(
        "stock {name} is not what its listing and the journal make it"
    ))
}
