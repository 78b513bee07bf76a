//! Orders, the rows that record them, and the hash chain over the rows.
//!
//! The catalog's journal is the one sequence of rows; every replica's ledger is a copy of a
//! prefix of it. A row's chain hash covers the row before it, so two ledgers that end in the
//! same hash are equal from the first row on.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::hex::Hex;
use crate::ids::{Epoch, OrderNumber};
use crate::invalid::Invalid;
use crate::values::{IdempotencyKey, Price, Quantity, Side, StockName};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The same key with another order is a conflict.
    pub key: IdempotencyKey,
    /// The stock traded.
    pub name: StockName,
    /// Whether shares are bought or sold.
    pub side: Side,
    /// How many shares.
    pub quantity: Quantity,
}

/// One committed trade. Rows never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its place in the journal.
    pub number: OrderNumber,
    /// The epoch in which it was committed.
    pub epoch: Epoch,
    /// What was asked for.
    pub order: Order,
    /// The price of one share at the time.
    pub price: Price,
    /// Covers this row and all rows before it.
    pub chain: ChainHash,
}

impl Row {
    /// The row that follows a journal whose last row has the hash `previous`.
    pub fn following(
        previous: &ChainHash,
        number: OrderNumber,
        epoch: Epoch,
        order: Order,
        price: Price,
    ) -> Self {
        let chain = previous.extended(number, epoch, &order, price);
        Self {
            number,
            epoch,
            order,
            price,
            chain,
        }
    }

    /// Whether the row continues a ledger whose last row has the hash `previous`.
    pub fn follows(&self, previous: &ChainHash) -> bool {
        self.chain == previous.extended(self.number, self.epoch, &self.order, self.price)
    }
}

/// SHA-256 over a row and the chain hash before it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// The hash of an empty ledger: 32 zero bytes.
    pub const EMPTY: Self = Self([0; 32]);

    /// The hash as databases and messages have it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash after one more row: over the hash before, then the row's fields in a fixed
    /// order, integers big-endian, texts behind their length.
    fn extended(&self, number: OrderNumber, epoch: Epoch, order: &Order, price: Price) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(number.0.to_be_bytes());
        hasher.update(epoch.0.to_be_bytes());
        for text in [order.key.as_str(), order.name.as_str()] {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        }
        hasher.update([match order.side {
            Side::Buy => 1,
            Side::Sell => 2,
        }]);
        hasher.update(order.quantity.get().to_be_bytes());
        hasher.update(price.minor().to_be_bytes());
        Self(hasher.finalize().into())
    }
}

impl TryFrom<&[u8]> for ChainHash {
    type Error = Invalid;

    fn try_from(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = bytes.try_into().map_err(|_| {
            Invalid::new("chain hash", format!("has {} bytes, not 32", bytes.len()))
        })?;
        Ok(Self(bytes))
    }
}

/// In lower-case hexadecimal.
impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainHash({self})")
    }
}

/// How far a ledger reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerEnd {
    /// How many rows it holds; the number of the next one.
    pub rows: OrderNumber,
    /// Chain hash of its last row.
    pub chain: ChainHash,
}

impl LedgerEnd {
    /// Of a ledger that ends with this row.
    pub fn of(last: &Row) -> Self {
        Self {
            rows: last.number.next(),
            chain: last.chain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(key: &str, name: &str) -> Order {
        Order {
            key: IdempotencyKey::new(key).unwrap(),
            name: StockName::new(name).unwrap(),
            side: Side::Buy,
            quantity: Quantity::new(1).unwrap(),
        }
    }

    #[test]
    fn every_field_of_a_row_changes_its_hash() {
        let price = Price::from_minor(100).unwrap();
        let row = Row::following(
            &ChainHash::EMPTY,
            OrderNumber(0),
            Epoch(1),
            order("ab", "c"),
            price,
        );
        assert!(row.follows(&ChainHash::EMPTY));
        assert!(!row.follows(&row.chain), "another row before it");
        let changed = [
            Row {
                number: OrderNumber(1),
                ..row.clone()
            },
            Row {
                epoch: Epoch(2),
                ..row.clone()
            },
            Row {
                price: Price::from_minor(101).unwrap(),
                ..row.clone()
            },
            Row {
                order: order("a", "bc"),
                ..row.clone()
            },
            Row {
                order: Order {
                    side: Side::Sell,
                    ..order("ab", "c")
                },
                ..row.clone()
            },
            Row {
                order: Order {
                    quantity: Quantity::new(2).unwrap(),
                    ..order("ab", "c")
                },
                ..row.clone()
            },
        ];
        for other in changed {
            assert!(!other.follows(&ChainHash::EMPTY), "{other:?}");
        }
    }
}
