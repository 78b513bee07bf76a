//! Ledgers for tests.

use domain::Term;
use domain::{
    Epoch, IdempotencyKey, LedgerEnd, Order, Price, Quantity, ReplicaId, Row, Side, StockName,
};

pub(crate) fn term(epoch: u64, leader: u32) -> Term {
    Term {
        epoch: Epoch(epoch),
        leader: ReplicaId::new(leader),
    }
}

/// A journal of so many rows of epoch 1.
pub(crate) fn journal(rows: usize) -> Vec<Row> {
    let mut journal: Vec<Row> = Vec::new();
    for number in 0..rows {
        let order = Order {
            key: IdempotencyKey::new(&format!("key-{number}")).unwrap(),
            name: StockName::new("nvidia").unwrap(),
            side: Side::Sell,
            quantity: Quantity::new(1).unwrap(),
        };
        let price = Price::from_minor(100).unwrap();
        journal.push(Row::following(&end(&journal), Epoch(1), order, price));
    }
    journal
}

pub(crate) fn end(rows: &[Row]) -> LedgerEnd {
    rows.last().map(LedgerEnd::of).unwrap_or_default()
}
