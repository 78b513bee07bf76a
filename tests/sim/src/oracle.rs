//! What must hold: it knows everything, and panics where something does not.

use std::collections::{BTreeMap, BTreeSet};

use catalog_core::{Batch, CatalogState, Leadership, Stock, Term};
use domain::{
    Entry, Epoch, IdempotencyKey, LedgerEnd, OrderNumber, Refusal, ReplicaId, Row, RowNumber, Side,
    StockName, Version,
};
use order_core::Durable;
use order_core::message::Placed;

use crate::branch::Branch;
use crate::replica::ids;

/// All that was promised to somebody.
#[derive(Debug, Default)]
pub struct Oracle {
    /// What the catalog committed.
    branch: Branch,
    /// What others committed whose disks were lost: nobody was promised any of it that is not in
    /// what came after.
    former: Vec<Former>,
    /// What a catalog holds that was rebuilt, or restored from a copy, and has not served yet.
    apart: Option<Apart>,
    /// Whether there ever was one.
    was_apart: bool,
    /// Keys of orders whose clients know that they were refused.
    refused: BTreeSet<IdempotencyKey>,
    term: Term,
    /// The in-sync set is the word of a leader that the catalog has now.
    vouched: bool,
    /// What is on each replica's disk: its ledger, and the rows beside it.
    held: BTreeMap<ReplicaId, (LedgerEnd, Vec<Row>)>,
    /// Replicas whose disks were lost, and that do not hold again what was acknowledged; and how many
    /// rows they may have said that they hold, some of which were yet to be committed.
    lost: BTreeMap<ReplicaId, RowNumber>,
    /// Replicas whose disks damaged something by themselves, and may damage what they hold.
    damaged: BTreeSet<ReplicaId>,
    /// Replicas whose disks were ever lost.
    ever_lost: BTreeSet<ReplicaId>,
    /// One more than the highest number that a leader acknowledged.
    acknowledged: RowNumber,
    /// Of each stock, the highest version that a client knows of.
    known: BTreeMap<StockName, Version>,
    /// Numbers that clients know of.
    numbers: BTreeSet<OrderNumber>,
    pub checks: u64,
    /// How often a lost disk was found to hold again what was acknowledged.
    pub refilled: u64,
}

#[derive(Debug)]
struct Former {
    branch: Branch,
    /// The versions of the stocks after the rows that it has in common with what came next.
    versions: BTreeMap<StockName, Version>,
}

#[derive(Debug)]
struct Apart {
    branch: Branch,
    term: Term,
}

/// What was so when an operation began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Before {
    version: Version,
    /// How many branches were given up by then.
    former: usize,
}

impl Oracle {
    pub fn new(stocks: impl IntoIterator<Item = Stock>) -> Self {
        Self {
            branch: Branch::of(stocks, &[]),
            vouched: true,
            ..Self::default()
        }
    }

    /// One of a bazaar that has traded before.
    pub fn prefilled(
        stocks: impl IntoIterator<Item = Stock>,
        rows: &[Row],
        term: Term,
        ledgers: BTreeMap<ReplicaId, LedgerEnd>,
    ) -> Self {
        let held = ledgers.into_iter();
        Self {
            branch: Branch::of(stocks, rows),
            acknowledged: RowNumber(rows.len() as u64),
            vouched: true,
            term,
            held: held.map(|(id, end)| (id, (end, Vec::new()))).collect(),
            ..Self::default()
        }
    }

    pub fn journal(&self) -> &[Row] {
        self.branch.rows()
    }

    pub fn acknowledged(&self) -> RowNumber {
        self.acknowledged
    }

    /// How many branches were given up.
    pub fn former(&self) -> usize {
        self.former.len()
    }

    /// Whether the catalog was ever rebuilt, or restored from a copy.
    pub fn was_apart(&self) -> bool {
        self.was_apart
    }

    /// Whether the catalog may lack rows, and has not served yet.
    pub fn is_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Whether a catalog that is apart lacks what was acknowledged.
    pub fn lacks_acknowledged(&self) -> bool {
        let kept = |apart: &Apart| apart.branch.common_with(&self.branch);
        self.apart
            .as_ref()
            .is_some_and(|apart| kept(apart) < self.acknowledged)
    }

    /// A replica's disk is gone, and with it what was promised of it.
    pub fn disk_lost(&mut self, id: ReplicaId) {
        let held = self.held.remove(&id);
        let said = held.map_or(0, |(end, beside)| end.rows.0 + beside.len() as u64);
        let before = self.lost.get(&id).copied().unwrap_or_default();
        self.lost.insert(id, before.max(RowNumber(said)));
        self.ever_lost.insert(id);
        self.damaged.remove(&id);
    }

    /// Nothing is promised of a replica's disk until it is replaced.
    pub fn disk_damaged(&mut self, id: ReplicaId) {
        self.disk_lost(id);
        self.damaged.insert(id);
    }

    pub fn is_damaged(&self, id: ReplicaId) -> bool {
        self.damaged.contains(&id)
    }

    /// Whether a replica's disk was ever lost.
    pub fn has_lost(&self, id: ReplicaId) -> bool {
        self.ever_lost.contains(&id)
    }

    pub fn epoch(&self) -> Epoch {
        self.term.epoch
    }

    pub fn in_sync(&self) -> &BTreeSet<ReplicaId> {
        &self.term.in_sync
    }

    /// Replicas of which an operator knows that they have nothing to tell: their disks were lost, and may lack
    /// something yet, or are empty.
    pub fn silent(&self) -> BTreeSet<ReplicaId> {
        let has_something = |id: &ReplicaId| {
            let held = self.held.get(id);
            held.is_some_and(|(end, beside)| end.rows > RowNumber(0) || !beside.is_empty())
        };
        ids()
            .filter(|id| self.lost.contains_key(id) || !has_something(id))
            .collect()
    }

    /// Replicas whose disks have all that was acknowledged, as is known of the in-sync set.
    pub fn whole(&self) -> Vec<ReplicaId> {
        match self.vouched {
            true => {
                let in_sync = self.term.in_sync.iter().copied();
                in_sync.filter(|id| !self.lost.contains_key(id)).collect()
            }
            false => Vec::new(),
        }
    }

    pub fn end(&self) -> LedgerEnd {
        self.branch.end()
    }

    /// How many rows a replica's ledger on its disk has.
    pub fn ledger(&self, id: ReplicaId) -> RowNumber {
        let held = self.held.get(&id);
        held.map_or(RowNumber(0), |(end, _)| end.rows)
    }

    /// A catalog was rebuilt with these rows.
    pub fn rebuilt(&mut self, rows: &[Row]) {
        self.checks += 1;
        let kept = self.branch.anew(rows).common_with(&self.branch);
        assert!(
            kept >= self.acknowledged,
            "a catalog was rebuilt with the first {kept} orders, and {} are acknowledged",
            self.acknowledged
        );
    }

    /// The catalog has started: `journal` gives what its disk holds. `restored` where that may be
    /// less than was committed.
    pub fn catalog_opened(
        &mut self,
        state: &CatalogState,
        restored: bool,
        journal: impl Fn() -> Vec<Row>,
    ) {
        self.apart = None;
        let leadership = state.leadership();
        let held = leadership.end.rows;
        if restored {
            let branch = self.branch.anew(&journal());
            assert_eq!(
                branch.end(),
                leadership.end,
                "the journal is as long as it says"
            );
            branch.check(state);
            let term = leadership.term;
            self.apart = Some(Apart { branch, term });
            self.was_apart = true;
            return;
        }
        let known = self.end().rows;
        assert!(
            held >= known,
            "the catalog committed {known} orders, and finds {held} after a restart"
        );
        if leadership.end != self.end() {
            let rows = journal();
            let length = rows.len() as u64;
            assert_eq!(length, held.0, "the journal is as long as it says");
            let is_longer = rows.starts_with(self.branch.rows());
            assert!(is_longer, "the journal changed over a restart");
            self.catalog_committed(&rows[known.0 as usize..], &leadership);
        } else {
            self.catalog_committed(&[], &leadership);
        }
        self.check_state(state);
    }

    /// The catalog has made rows durable, and says who leads.
    pub fn catalog_committed(&mut self, rows: &[Row], leadership: &Leadership) {
        if let Some(apart) = &mut self.apart {
            // It puts back what it had lost.
            rows.iter().for_each(|row| apart.branch.append(row));
            assert_eq!(leadership.end, apart.branch.end(), "the journal's end");
            apart.term = leadership.term.clone();
            return;
        }
        for row in rows {
            let epochs = self.term.epoch..=leadership.term.epoch;
            assert!(
                epochs.contains(&row.epoch),
                "row {} is of epoch {}, in {epochs:?}",
                row.number,
                row.epoch
            );
            assert!(
                !self.refused.contains(row.entry.key()),
                "{:?} is made after its client was told that it was refused",
                row.entry
            );
            self.branch.append(row);
        }
        assert_eq!(leadership.end, self.end(), "the journal's end");
        assert!(
            leadership.term.epoch >= self.term.epoch,
            "epochs only rise: {:?} after {:?}",
            leadership.term,
            self.term
        );
        self.take_term(leadership.term.clone());
        self.check_in_sync();
    }

    /// A catalog over a database heard that a commit is durable. Only the one that loaded last can have made one that
    /// is new.
    pub fn committed(&mut self, batch: &Batch, is_newest: bool) {
        if !is_newest {
            let is_known = |row: &Row| {
                let mut branches = std::iter::once(&self.branch).chain(self.others());
                branches.any(|branch| branch.rows().get(row.number.0 as usize) == Some(row))
            };
            assert!(
                batch.rows.iter().all(is_known),
                "a catalog whose term is over commits {:?}",
                batch.rows
            );
            return;
        }
        let (before, term) = match &self.apart {
            Some(apart) => (apart.branch.end(), &apart.term),
            None => (self.branch.end(), &self.term),
        };
        let leadership = Leadership {
            term: batch.term.as_ref().unwrap_or(term).clone(),
            end: batch.rows.iter().fold(before, |_, row| LedgerEnd::of(row)),
        };
        self.catalog_committed(&batch.rows, &leadership);
    }

    /// The stocks that a database has: price, quantity, volume and version of each.
    pub fn check_stocks(&self, stocks: &BTreeMap<String, [i64; 4]>) {
        let listed = self.branch.listed();
        let numbers = |stock: &Stock| {
            let Stock {
                quantity, volume, ..
            } = *stock;
            [stock.price.minor(), quantity, volume, stock.version.0].map(u64::cast_signed)
        };
        let listed = listed.map(|stock| (stock.name.as_str().to_owned(), numbers(stock)));
        assert_eq!(*stocks, listed.collect(), "the database's stocks");
    }

    fn take_term(&mut self, term: Term) {
        self.vouched |= term.change.get() > 0;
        self.term = term;
    }

    /// A catalog that was rebuilt, or restored from a copy, serves from now on.
    pub fn opened(&mut self) {
        let Some(Apart { branch, term }) = self.apart.take() else {
            return;
        };
        let kept = branch.common_with(&self.branch);
        assert!(
            kept >= self.acknowledged,
            "a catalog serves that has the first {kept} orders, and {} are acknowledged",
            self.acknowledged
        );
        let versions = self.branch.versions_at(kept);
        for (name, known) in &mut self.known {
            *known = versions[name].min(*known);
        }
        let branch = std::mem::replace(&mut self.branch, branch);
        self.former.push(Former { branch, versions });
        // Only the catalog that is gone remembered them.
        self.refused.clear();
        self.vouched = false;
        self.take_term(term);
        self.check_in_sync();
    }

    /// Every stock is what it was at first and what became of it since.
    pub fn check_state(&mut self, state: &CatalogState) {
        self.checks += 1;
        let apart = self.apart.as_ref().map(|apart| &apart.branch);
        apart.unwrap_or(&self.branch).check(state);
    }

    /// A replica has made so much durable, or found it on its disk.
    pub fn replica_holds(&mut self, id: ReplicaId, durable: &Durable, beside: Vec<Row>) {
        self.checks += 1;
        let held = durable.end;
        let is_known = |branch: &Branch| branch.begins_with(held);
        assert!(
            is_known(&self.branch) || self.others().any(is_known),
            "replica {id} holds {} orders that are not the first of {}",
            held.rows,
            self.end().rows
        );
        self.held.insert(id, (held, beside));
        if let Some(&said) = self.lost.get(&id)
            && !self.is_damaged(id)
            && self.held(id) >= self.acknowledged.max(said)
        {
            self.lost.remove(&id);
            self.refilled += 1;
        }
        self.check_in_sync();
    }

    /// The branches that ledgers may be copies of besides.
    fn others(&self) -> impl Iterator<Item = &Branch> {
        let apart = self.apart.iter().map(|apart| &apart.branch);
        apart.chain(self.former.iter().rev().map(|former| &former.branch))
    }

    /// The row that somebody is told of.
    fn row_of(&self, placed: Placed) -> Option<&Row> {
        match placed {
            Placed::Number(number) => self.branch.order(number),
            Placed::StockChanged(number) => self.journal().get(number.0 as usize),
            Placed::Refused(_) => None,
        }
    }

    /// A leader acknowledges an order, or a change of a stock.
    pub fn acknowledge(&mut self, leader: ReplicaId, entry: &Entry, placed: Placed) {
        if let Placed::Refused(_) = placed {
            return;
        }
        self.checks += 1;
        let row = self.row_of(placed);
        let row = row.expect("what is acknowledged is in the journal");
        assert_eq!(row.entry, *entry, "it is the order's own number");
        let number = row.number;
        assert!(
            self.held(leader) > number,
            "leader {leader} holds what it acknowledges"
        );
        self.acknowledged = self.acknowledged.max(number.next());
        self.check_in_sync();
    }

    /// How many rows of the journal a replica's disk has, in its ledger or beside it.
    fn held(&self, id: ReplicaId) -> RowNumber {
        let held = self.held.get(&id);
        held.map_or(RowNumber(0), |(end, beside)| self.held_with(*end, beside))
    }

    /// How many rows of the journal a ledger is with the rows beside it.
    pub fn held_with(&self, end: LedgerEnd, beside: &[Row]) -> RowNumber {
        if !self.branch.begins_with(end) {
            let mut others = self.others().filter(|it| it.begins_with(end));
            let kept = others.next().map(|it| it.common_with(&self.branch));
            return kept.unwrap_or_default().min(end.rows);
        }
        let committed = &self.journal()[end.rows.0 as usize..];
        let both = beside.iter().zip(committed);
        let kept = both.take_while(|(row, committed)| row == committed).count();
        RowNumber(end.rows.0 + kept as u64)
    }

    /// Whoever the catalog believes in sync holds all that was acknowledged.
    fn check_in_sync(&self) {
        for member in self.whole() {
            let held = self.held(member);
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
            former: self.former.len(),
        }
    }

    /// The branches that were given up since.
    fn given_up_since(&self, before: Before) -> &[Former] {
        &self.former[before.former..]
    }

    /// The version that was known before, as far as that is not given up.
    fn least(&self, before: Before, name: &StockName) -> Version {
        let given_up = self.given_up_since(before).iter();
        given_up.fold(before.version, |least, former| {
            least.min(former.versions[name])
        })
    }

    /// A client has learned a stock's quantity.
    pub fn looked(&mut self, before: Before, name: &StockName, seen: &Stock) {
        self.checks += 1;
        let version = seen.version;
        let least = self.least(before, name);
        assert!(
            version >= least,
            "a read of {name} gave version {}, while version {} was known before it began",
            version.0,
            least.0
        );
        if self.branch.stock(name).at(version) == Some(seen) {
            return self.learn(name, version);
        }
        // As it was with a trade that was given up meanwhile, which was never acknowledged.
        let given_up = self.given_up_since(before).iter();
        let mut given_up = given_up.map(|former| former.branch.stock(name).at(version));
        let was_so = given_up.any(|committed| committed == Some(seen));
        assert!(was_so, "there was no such {seen:?}");
    }

    /// A client has learned that there is no such stock.
    pub fn looked_in_vain(&mut self, before: Before, name: &StockName) {
        self.checks += 1;
        let is_unlisted = |stock: &&Stock| !stock.is_listed;
        let since = self.least(before, name);
        let unlisted = self.branch.stock(name).since(since).find(is_unlisted);
        if let Some(version) = unlisted.map(|stock| stock.version) {
            return self.learn(name, version);
        }
        let given_up = self.given_up_since(before).iter();
        let mut given_up = given_up.flat_map(|former| former.branch.stock(name).since(since));
        let was_so = given_up.any(|stock| is_unlisted(&stock));
        assert!(was_so, "{name} was listed all the time");
    }

    /// A client has learned its order's number, or that its change was made. `before` is of its first attempt.
    pub fn traded(&mut self, before: Before, entry: &Entry, placed: Placed) {
        self.checks += 1;
        let row = self.row_of(placed).expect("it is in the journal");
        assert_eq!(row.entry, *entry, "the client gets its own order's number");
        let name = entry.name();
        let version = self.branch.stock(name).made(row.number);
        let least = self.least(before, name);
        assert!(
            version > least,
            "an order for {} made version {}, while version {} was known before it was placed",
            name,
            version.0,
            least.0
        );
        if let Placed::Number(number) = placed {
            self.numbers.insert(number);
        }
        self.learn(name, version);
    }

    /// A client has learned that what it asked for was impossible.
    pub fn refused(&mut self, before: Before, entry: &Entry, refusal: Refusal) {
        self.checks += 1;
        if !self.given_up_since(before).is_empty() {
            return; // by a catalog that is gone, perhaps
        }
        let is_so = |stock: &Stock| match (refusal, entry) {
            (Refusal::NotEnough, Entry::Order(order)) => {
                assert_eq!(order.side, Side::Buy, "there is always room to sell");
                stock.is_listed && stock.quantity < order.quantity.get()
            }
            (Refusal::StockExists, _) => stock.is_listed,
            _ => !stock.is_listed,
        };
        let history = self.branch.stock(entry.name());
        let reason = history.since(before.version).find(|stock| is_so(stock));
        let reason = reason.map(|stock| stock.version);
        let version =
            reason.unwrap_or_else(|| panic!("{entry:?} was refused for no reason: {refusal:?}"));
        self.refused.insert(entry.key().clone());
        // Whoever heard that is shown nothing from before.
        self.learn(entry.name(), version);
    }

    /// A client was told what an order is, or that there is none. `promised` is whether its
    /// number was known before.
    pub fn found(
        &mut self,
        before: Before,
        number: OrderNumber,
        row: Option<&Row>,
        promised: bool,
    ) {
        self.checks += 1;
        match row {
            Some(row) if self.branch.order(number) == Some(row) => {}
            Some(row) => {
                let given_up = self.given_up_since(before).iter().map(|it| &it.branch);
                let apart = self.apart.iter().map(|apart| &apart.branch);
                let mut others = given_up.chain(apart);
                let is_known = others.any(|branch| branch.order(number) == Some(row));
                assert!(is_known && !promised, "order {number} is {row:?}");
            }
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
