//! Orders, the rows that record them and changes of stocks, and the hash chain over the rows.
//!
//! The catalog's journal is the one sequence of rows; every replica's ledger is a copy of a
//! prefix of it. A row's chain hash covers the row before it, so two ledgers that end in the
//! same hash are equal from the first row on.
//!
//! Most rows are orders. Those that change stocks are in the same sequence, which says whether a trade came before or
//! after; clients number orders alone, so each row says how many changes are before it.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::hex::Hex;
use crate::ids::{Epoch, OrderNumber, RowNumber};
use crate::invalid::Invalid;
use crate::stock_change::{StockChange, StockChangeKind};
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

/// What a row records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A client's.
    Order(Order),
    /// An operator's.
    StockChange(StockChange),
}

impl Entry {
    /// What makes it one however often it is sent.
    pub fn key(&self) -> &IdempotencyKey {
        match self {
            Self::Order(order) => &order.key,
            Self::StockChange(change) => &change.key,
        }
    }

    /// The stock that it is about.
    pub fn name(&self) -> &StockName {
        match self {
            Self::Order(order) => &order.name,
            Self::StockChange(change) => &change.name,
        }
    }

    /// Whether it asks for the same under the same key. Why a change is made, and by whom, is not what is asked for:
    /// somebody else may be the one who asks again.
    pub fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Order(one), Self::Order(other)) => one == other,
            (Self::StockChange(one), Self::StockChange(other)) => {
                (&one.key, &one.name, one.kind) == (&other.key, &other.name, other.kind)
            }
            _ => false,
        }
    }

    /// The order, where it is one.
    pub fn order(&self) -> Option<&Order> {
        match self {
            Self::Order(order) => Some(order),
            Self::StockChange(_) => None,
        }
    }
}

impl From<Order> for Entry {
    fn from(order: Order) -> Self {
        Self::Order(order)
    }
}

impl From<StockChange> for Entry {
    fn from(change: StockChange) -> Self {
        Self::StockChange(change)
    }
}

/// What was committed at one place of the journal. Rows never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its place in the journal.
    pub number: RowNumber,
    /// How many of the rows before it change stocks.
    pub stock_changes: u64,
    /// The epoch in which it was committed.
    pub epoch: Epoch,
    /// What was asked for.
    pub entry: Entry,
    /// The price of one share at the time: after this row, where it changes that.
    pub price: Price,
    /// Covers this row and all rows before it.
    pub chain: ChainHash,
}

impl Row {
    /// The row that follows a journal that ends there.
    pub fn following(end: &LedgerEnd, epoch: Epoch, entry: impl Into<Entry>, price: Price) -> Self {
        let mut row = Self {
            number: end.rows,
            stock_changes: end.stock_changes,
            epoch,
            entry: entry.into(),
            price,
            chain: ChainHash::EMPTY,
        };
        row.chain = end.chain.extended(&row);
        row
    }

    /// Whether the row continues a ledger whose last row has the hash `previous`.
    pub fn follows(&self, previous: &ChainHash) -> bool {
        self.chain == previous.extended(self)
    }

    /// What clients know it by, where it is an order.
    pub fn order_number(&self) -> Option<OrderNumber> {
        self.entry.order()?;
        self.number
            .0
            .checked_sub(self.stock_changes)
            .map(OrderNumber)
    }

    /// The order that it records, if it is one.
    pub fn order(&self) -> Option<&Order> {
        self.entry.order()
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
    /// order, integers big-endian, texts behind their length. A row without changes of stocks before it
    /// has the hash that it had before there were any.
    fn extended(&self, row: &Row) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(row.number.0.to_be_bytes());
        hasher.update(row.epoch.0.to_be_bytes());
        update_text(&mut hasher, row.entry.key().as_str());
        update_text(&mut hasher, row.entry.name().as_str());
        // The first byte of what follows says what it is, and so how much of it there is.
        match &row.entry {
            Entry::Order(order) => {
                let kind = match order.side {
                    Side::Buy => 1,
                    Side::Sell => 2,
                };
                hasher.update([kind]);
                hasher.update(order.quantity.get().to_be_bytes());
            }
            Entry::StockChange(change) => {
                let (kind, quantity, price) = match change.kind {
                    StockChangeKind::Add { price, quantity } => (3, quantity, price),
                    StockChangeKind::Price { price } => (4, 0, price),
                    StockChangeKind::Restock { quantity } => (5, quantity.get(), row.price),
                    StockChangeKind::Delist => (6, 0, row.price),
                };
                hasher.update([kind]);
                hasher.update(quantity.to_be_bytes());
                hasher.update(price.minor().to_be_bytes());
                update_text(&mut hasher, change.note.who());
                update_text(&mut hasher, change.note.why());
            }
        }
        hasher.update(row.price.minor().to_be_bytes());
        if row.stock_changes > 0 {
            hasher.update(row.stock_changes.to_be_bytes());
        }
        Self(hasher.finalize().into())
    }
}

fn update_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_be_bytes());
    hasher.update(text);
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
    pub rows: RowNumber,
    /// How many of these change stocks.
    pub stock_changes: u64,
    /// Chain hash of its last row.
    pub chain: ChainHash,
}

impl LedgerEnd {
    /// Of a ledger that ends with this row.
    pub fn of(last: &Row) -> Self {
        Self {
            rows: last.number.next(),
            stock_changes: last.stock_changes + u64::from(last.order().is_none()),
            chain: last.chain,
        }
    }

    /// Whether a row is the next one of it.
    pub fn is_continued_by(&self, row: &Row) -> bool {
        (row.number, row.stock_changes) == (self.rows, self.stock_changes)
            && row.follows(&self.chain)
    }

    /// How many orders it holds; the number of the next one.
    pub fn orders(&self) -> OrderNumber {
        OrderNumber(self.rows.0.saturating_sub(self.stock_changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock_change::Note;

    fn order(key: &str, name: &str) -> Order {
        Order {
            key: IdempotencyKey::new(key).unwrap(),
            name: StockName::new(name).unwrap(),
            side: Side::Buy,
            quantity: Quantity::new(1).unwrap(),
        }
    }

    fn change(kind: StockChangeKind, why: &str) -> Entry {
        Entry::StockChange(StockChange {
            key: IdempotencyKey::new("ab").unwrap(),
            name: StockName::new("c").unwrap(),
            kind,
            note: Note::new("a", why),
        })
    }

    #[test]
    fn every_field_of_a_row_changes_its_hash() {
        let cents = |minor| Price::from_minor(minor).unwrap();
        let empty = LedgerEnd::default();
        let row = Row::following(&empty, Epoch(1), order("ab", "c"), cents(100));
        assert!(row.follows(&ChainHash::EMPTY));
        assert!(!row.follows(&row.chain), "another row before it");
        let with = |entry: Entry| Row {
            entry,
            ..row.clone()
        };
        let sold = Order {
            side: Side::Sell,
            ..order("ab", "c")
        };
        let more = Order {
            quantity: Quantity::new(2).unwrap(),
            ..order("ab", "c")
        };
        let price = cents(100);
        let mut rows = vec![
            row.clone(),
            Row {
                number: RowNumber(1),
                ..row.clone()
            },
            Row {
                stock_changes: 1,
                ..row.clone()
            },
            Row {
                epoch: Epoch(2),
                ..row.clone()
            },
            Row {
                price: cents(101),
                ..row.clone()
            },
        ];
        let entries = [
            order("a", "bc").into(),
            sold.into(),
            more.into(),
            change(StockChangeKind::Add { price, quantity: 1 }, ""),
            change(StockChangeKind::Add { price, quantity: 2 }, ""),
            change(
                StockChangeKind::Add {
                    price: cents(99),
                    quantity: 1,
                },
                "",
            ),
            change(StockChangeKind::Price { price }, ""),
            change(StockChangeKind::Price { price: cents(99) }, ""),
            change(
                StockChangeKind::Restock {
                    quantity: Quantity::new(1).unwrap(),
                },
                "",
            ),
            change(
                StockChangeKind::Restock {
                    quantity: Quantity::new(2).unwrap(),
                },
                "",
            ),
            change(StockChangeKind::Delist, ""),
            change(StockChangeKind::Delist, "b"),
        ];
        rows.extend(entries.map(with));
        for (number, row) in rows.iter().enumerate() {
            for (other_number, other) in rows.iter().enumerate() {
                let with_chain_of_other = Row {
                    chain: ChainHash::EMPTY.extended(other),
                    ..row.clone()
                };
                let follows = with_chain_of_other.follows(&ChainHash::EMPTY);
                assert_eq!(follows, number == other_number, "{row:?} and {other:?}");
            }
        }
    }

    #[test]
    fn clients_number_orders_alone() {
        let price = Price::from_minor(100).unwrap();
        let entries = [
            order("a", "b").into(),
            change(StockChangeKind::Delist, ""),
            change(StockChangeKind::Delist, ""),
            order("b", "b").into(),
        ];
        let mut end = LedgerEnd::default();
        let numbers = entries.map(|entry: Entry| {
            let row = Row::following(&end, Epoch(1), entry, price);
            end = LedgerEnd::of(&row);
            row.order_number()
        });
        let order = |number| Some(OrderNumber(number));
        assert_eq!(numbers, [order(0), None, None, order(1)]);
        assert_eq!((end.rows, end.orders()), (RowNumber(4), OrderNumber(2)));
    }

    /// What it was before there were changes of stocks.
    #[test]
    fn rows_of_before_have_the_hashes_of_before() {
        let price = Price::from_minor(100).unwrap();
        let row = Row::following(&LedgerEnd::default(), Epoch(1), order("ab", "c"), price);
        assert_eq!(
            row.chain.to_string(),
            "aadfb2b3144372927979475ff43c2857069a566d05047aba624292e425a8450c"
        );
    }
}
