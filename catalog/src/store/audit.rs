//! Whether the stocks are what the journal made of their listings.

use std::collections::BTreeMap;

use domain::{Price, Quantity, Row, Side, StockName, Version};
use storage::StorageError;

use crate::stocks::Listing;
use catalog_core::Stock;

/// The stocks as they are, and what the journal says of them as far as it has been read.
#[derive(Debug, Clone)]
pub(super) struct Audit {
    accounts: BTreeMap<StockName, Account>,
}

#[derive(Debug, Clone)]
struct Account {
    stock: Stock,
    listed: u64,
    bought: u128,
    sold: u128,
    trades: u64,
}

impl Audit {
    /// Refuses stocks that are not those listed, at their prices.
    pub(super) fn new(listings: Vec<Listing>, stocks: Vec<Stock>) -> Result<Self, StorageError> {
        let mut listed: BTreeMap<StockName, (Price, u64)> = listings
            .into_iter()
            .map(|listing| (listing.name, (listing.price, listing.quantity)))
            .collect();
        let mut accounts = BTreeMap::new();
        for stock in stocks {
            let (price, quantity) = listed
                .remove(&stock.name)
                .ok_or_else(|| differs(&stock.name))?;
            if price != stock.price {
                return Err(differs(&stock.name));
            }
            let account = Account {
                listed: quantity,
                bought: 0,
                sold: 0,
                trades: 0,
                stock,
            };
            accounts.insert(account.stock.name.clone(), account);
        }
        match listed.into_keys().next() {
            Some(name) => Err(differs(&name)),
            None => Ok(Self { accounts }),
        }
    }

    /// Takes the next rows of the journal.
    pub(super) fn take(&mut self, rows: &[Row]) -> Result<(), StorageError> {
        for row in rows {
            let shares = u128::from(row.order.quantity.get());
            self.take_sum(&row.order.name, row.order.side, shares, 1)?;
        }
        Ok(())
    }

    /// Takes so many trades of a stock on one side, of so many shares together.
    pub(super) fn take_sum(
        &mut self,
        name: &StockName,
        side: Side,
        shares: u128,
        trades: u64,
    ) -> Result<(), StorageError> {
        let account = self.accounts.get_mut(name).ok_or_else(|| differs(name))?;
        match side {
            Side::Buy => account.bought += shares,
            Side::Sell => account.sold += shares,
        }
        account.trades += trades;
        Ok(())
    }

    /// Compares, once the journal has been read to its end.
    pub(super) fn finish(self) -> Result<(), StorageError> {
        for (name, account) in self.accounts {
            let Account {
                stock,
                listed,
                bought,
                sold,
                trades,
            } = account;
            let volume = (bought + sold).min(u128::from(Quantity::MAX));
            let same = u128::from(listed) + sold == u128::from(stock.quantity) + bought
                && volume == u128::from(stock.volume)
                && stock.version == Version(1 + trades);
            if !same {
                return Err(differs(&name));
            }
        }
        Ok(())
    }
}

fn differs(name: &StockName) -> StorageError {
    StorageError::Damaged(format!(
        "stock {name} is not what its listing and the journal make it"
    ))
}
