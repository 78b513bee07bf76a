//! What must hold: it knows everything, and panics where something does not.

use std::collections::{BTreeMap, BTreeSet};

use catalog_core::{Books, Leadership, Stock, Term};
use domain::LedgerEnd;
use domain::{
    ChainHash, Epoch, IdempotencyKey, Order, OrderNumber, ReplicaId, Row, Side, StockName, Version,
};
use order_core::Durable;

/// All that was promised to somebody.
#[derive(Debug, Default)]
pub struct Oracle {
    /// What the catalog committed.
    journal: Vec<Row>,
    keys: BTreeSet<IdempotencyKey>,
    /// Keys of orders whose clients know that they were refused.
    refused: BTreeSet<IdempotencyKey>,
    term: Term,
    stocks: BTreeMap<StockName, History>,
    /// What is on each replica's disk: its ledger, and the rows beside it.
    held: BTreeMap<ReplicaId, (LedgerEnd, Vec<Row>)>,
    /// Replicas whose disks were lost, and that do not hold again what was acknowledged.
    lost: BTreeSet<ReplicaId>,
    /// Replicas whose disks were ever lost.
    ever_lost: BTreeSet<ReplicaId>,
    /// One more than the highest number that a leader acknowledged.
    acknowledged: OrderNumber,
    /// Of each stock, the highest version that a client knows of.
    known: BTreeMap<StockName, Version>,
    /// Numbers that clients know of.
    numbers: BTreeSet<OrderNumber>,
    pub checks: u64,
}

/// A stock's quantities, from version 1 on.
#[derive(Debug)]
struct History {
    first: Stock,
    quantities: Vec<u64>,
    rows: Vec<OrderNumber>,
}

/// What was so when an operation began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Before {
    version: Version,
}

impl Oracle {
    pub fn new(stocks: impl IntoIterator<Item = Stock>) -> Self {
        let history = |first: Stock| {
            let name = first.name.clone();
            let history = History {
                quantities: vec![first.quantity],
                rows: Vec::new(),
                first,
            };
            (name, history)
        };
        Self {
            stocks: stocks.into_iter().map(history).collect(),
            ..Self::default()
        }
    }

    pub fn journal(&self) -> &[Row] {
        &self.journal
    }

    pub fn acknowledged(&self) -> OrderNumber {
        self.acknowledged
    }

    /// A replica's disk is gone, and with it what was promised of it.
    pub fn disk_lost(&mut self, id: ReplicaId) {
        self.held.remove(&id);
        self.lost.insert(id);
        self.ever_lost.insert(id);
    }

    /// Whether a replica's disk was ever lost.
    pub fn has_lost(&self, id: ReplicaId) -> bool {
        self.ever_lost.contains(&id)
    }

    /// Whether a replica's disk was lost, and does not hold again what was acknowledged.
    pub fn lacks_disk(&self, id: ReplicaId) -> bool {
        self.lost.contains(&id)
    }

    pub fn epoch(&self) -> Epoch {
        self.term.epoch
    }

    pub fn in_sync(&self) -> &BTreeSet<ReplicaId> {
        &self.term.in_sync
    }

    pub fn end(&self) -> LedgerEnd {
        end(&self.journal)
    }

    /// The catalog has started: `journal` gives what its disk holds from a number on.
    pub fn catalog_opened(&mut self, books: &Books, journal: impl Fn(OrderNumber) -> Vec<Row>) {
        let leadership = books.leadership();
        let held = leadership.end.rows;
        let known = self.end().rows;
        assert!(
            held >= known,
            "the catalog committed {known} orders, and finds {held} after a restart"
        );
        let rows = journal(OrderNumber(0));
        assert_eq!(
            rows.len() as u64,
            held.0,
            "the journal is as long as it says"
        );
        assert!(
            rows.starts_with(&self.journal),
            "the journal changed over a restart"
        );
        self.catalog_committed(&rows[known.0 as usize..], &leadership);
        self.check_books(books);
    }

    /// The catalog has made rows durable, and says who leads.
    pub fn catalog_committed(&mut self, rows: &[Row], leadership: &Leadership) {
        for row in rows {
            let epochs = self.term.epoch..=leadership.term.epoch;
            assert!(
                epochs.contains(&row.epoch),
                "row {} is of epoch {}, in {epochs:?}",
                row.number,
                row.epoch
            );
            self.append(row);
        }
        assert_eq!(leadership.end, self.end(), "the journal's end");
        assert!(
            leadership.term.epoch >= self.term.epoch,
            "epochs only rise: {:?} after {:?}",
            leadership.term,
            self.term
        );
        self.term = leadership.term.clone();
        self.check_in_sync();
    }

    fn append(&mut self, row: &Row) {
        assert_eq!(row.number, self.end().rows, "numbers are dense");
        assert!(row.follows(&self.end().chain), "the chain is whole");
        assert!(
            !self.refused.contains(&row.order.key),
            "{:?} is made after its client was told that it was refused",
            row.order
        );
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
        history.rows.push(row.number);
        self.journal.push(row.clone());
    }

    /// Every stock is what it was at first and what became of it since.
    pub fn check_books(&mut self, books: &Books) {
        self.checks += 1;
        for stock in books.stocks() {
            let history = &self.stocks[&stock.name];
            assert_eq!(
                Some(&stock.quantity),
                history.quantities.last(),
                "{}",
                stock.name
            );
            assert_eq!(stock.version.0, history.quantities.len() as u64);
        }
        assert_eq!(books.stocks().count(), self.stocks.len());
    }

    /// A replica has made so much durable, or found it on its disk.
    pub fn replica_holds(&mut self, id: ReplicaId, durable: &Durable, beside: Vec<Row>) {
        self.checks += 1;
        let held = durable.end.rows.0 as usize;
        assert!(
            held <= self.journal.len(),
            "replica {id} holds {held} of {} orders",
            self.journal.len()
        );
        let chain = end(&self.journal[..held]).chain;
        assert_eq!(durable.end.chain, chain, "replica {id} holds other orders");
        self.held.insert(id, (durable.end, beside));
        if self.held(id) >= self.acknowledged {
            self.lost.remove(&id);
        }
        self.check_in_sync();
    }

    /// A leader acknowledges an order.
    pub fn acknowledge(&mut self, leader: ReplicaId, order: &Order, number: OrderNumber) {
        self.checks += 1;
        let row = self.journal.get(number.0 as usize);
        let row = row.expect("what is acknowledged is in the journal");
        assert_eq!(row.order, *order, "it is the order's own number");
        assert!(
            self.held(leader) > number,
            "leader {leader} holds what it acknowledges"
        );
        self.acknowledged = self.acknowledged.max(number.next());
        self.check_in_sync();
    }

    /// How many rows of the journal a replica's disk has, in its ledger or beside it.
    fn held(&self, id: ReplicaId) -> OrderNumber {
        let held = self.held.get(&id);
        held.map_or(OrderNumber(0), |(end, beside)| self.held_with(*end, beside))
    }

    /// How many rows of the journal a ledger is with the rows beside it.
    pub fn held_with(&self, end: LedgerEnd, beside: &[Row]) -> OrderNumber {
        let committed = &self.journal[end.rows.0 as usize..];
        let both = beside.iter().zip(committed);
        let kept = both.take_while(|(row, committed)| row == committed).count();
        OrderNumber(end.rows.0 + kept as u64)
    }

    /// Whoever the catalog believes in sync holds all that was acknowledged.
    fn check_in_sync(&self) {
        for member in self.term.in_sync.difference(&self.lost) {
            let held = self.held(*member);
            assert!(
                held >= self.acknowledged,
                "{member} is in sync and holds {held} orders; {} are acknowledged",
                self.acknowledged
            );
        }
    }

    /// An operation on a stock begins.
    pub fn before(&self, name: &StockName) -> Before {
        Before {
            version: self.known.get(name).copied().unwrap_or(Version(1)),
        }
    }

    /// A client has learned a stock's quantity.
    pub fn looked(&mut self, before: Before, name: &StockName, version: Version, quantity: u64) {
        self.checks += 1;
        assert!(
            version >= before.version,
            "a read of {name} gave version {}, while version {} was known before it began",
            version.0,
            before.version.0
        );
        let history = &self.stocks[name];
        let committed = history.quantities.get(version.0 as usize - 1);
        assert_eq!(
            committed,
            Some(&quantity),
            "{name} at version {}",
            version.0
        );
        self.learn(name, version);
    }

    /// A client has learned its order's number. `before` is of its first attempt.
    pub fn traded(&mut self, before: Before, order: &Order, number: OrderNumber) {
        self.checks += 1;
        let row = &self.journal[number.0 as usize];
        assert_eq!(row.order, *order, "the client gets its own order's number");
        let history = &self.stocks[&order.name];
        let place = history.rows.binary_search(&number).expect("it is a row");
        let version = Version(place as u64 + 2);
        assert!(
            version > before.version,
            "an order for {} made version {}, while version {} was known before it was placed",
            order.name,
            version.0,
            before.version.0
        );
        self.numbers.insert(number);
        self.learn(&order.name, version);
    }

    /// A client has learned that too few shares are left.
    pub fn refused(&mut self, before: Before, order: &Order) {
        self.checks += 1;
        assert_eq!(order.side, Side::Buy, "there is always room to sell");
        let history = &self.stocks[&order.name];
        let since = &history.quantities[before.version.0 as usize - 1..];
        assert!(
            since
                .iter()
                .any(|&quantity| quantity < order.quantity.get()),
            "{} had enough shares all the time",
            order.name
        );
        self.refused.insert(order.key.clone());
    }

    /// A client was told what an order is, or that there is none. `promised` is whether its
    /// number was known before.
    pub fn found(&mut self, number: OrderNumber, row: Option<&Row>, promised: bool) {
        self.checks += 1;
        match row {
            Some(row) => assert_eq!(Some(row), self.journal.get(number.0 as usize)),
            None => assert!(
                !promised,
                "order {number} was acknowledged, and denied later"
            ),
        }
    }

    /// Whether a client knows that the order exists.
    pub fn is_promised(&self, number: OrderNumber) -> bool {
        self.numbers.contains(&number)
    }

    /// Some number that a client knows of.
    pub fn some_number(&self, random: &mut fastrand::Rng) -> Option<OrderNumber> {
        random.choice(self.numbers.iter()).copied()
    }

    /// All that clients know of.
    pub fn numbers(&self) -> usize {
        self.numbers.len()
    }

    fn learn(&mut self, name: &StockName, version: Version) {
        let known = self.known.entry(name.clone()).or_default();
        *known = version.max(*known);
    }
}

/// Where a ledger of these rows ends.
pub fn end(rows: &[Row]) -> LedgerEnd {
    rows.last().map_or(
        LedgerEnd {
            rows: OrderNumber(0),
            chain: ChainHash::EMPTY,
        },
        |last| LedgerEnd {
            rows: last.number.next(),
            chain: last.chain,
        },
    )
}
