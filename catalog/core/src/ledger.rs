//! What is committed, and what a trade or an election makes of it.
//!
//! Orders of one group commit are first [staged](CatalogState::stage) on an overlay that already
//! counts those before them. The store makes the overlay's [`Batch`] durable, and only then
//! is it [applied](CatalogState::apply): a batch that the disk had no room for leaves no trace.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::LedgerEnd;
use domain::refusal::STOCKS_MAX;
use domain::{
    ChangeNumber, Entry, Epoch, IdempotencyKey, Order, Price, Quantity, Refusal, ReplicaId, Row,
    RowNumber, Side, StockChange, StockChangeKind, StockName, Version,
};

use super::ablation::{Rule, Rules};

/// A stock in the catalog's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stock {
    /// What it is called.
    pub name: StockName,
    pub price: Price,
    /// How many shares there are to buy: 0 to [`Quantity::MAX`].
    pub quantity: u64,
    /// How many shares were traded, bought and sold; stays at [`Quantity::MAX`] once there.
    pub volume: u64,
    /// Counts the stock's changes. One that is listed by row `n` of the journal begins with `n + 2`, which no stock of that name
    /// that was delisted before can have come to.
    pub version: Version,
    /// It is traded and shown: not so in the state that a stock is left in by the row that delists it, after which there
    /// is none of that name.
    pub is_listed: bool,
}

impl Stock {
    /// A stock as a journal begins with it.
    pub fn first(name: StockName, price: Price, quantity: u64) -> Self {
        Self {
            name,
            price,
            quantity,
            volume: 0,
            version: Version(1),
            is_listed: true,
        }
    }

    /// What row `number` of the journal makes of a stock, if there was one of that name: every row leads to a new
    /// version. The row has the price that the stock has then.
    ///
    /// # Errors
    /// Why the catalog makes no such row.
    pub fn after(before: Option<&Self>, entry: &Entry, number: RowNumber) -> Result<Self, Refusal> {
        let before = before.filter(|stock| stock.is_listed);
        match entry {
            Entry::Order(order) => before.ok_or(Refusal::StockNotFound)?.traded(order),
            Entry::StockChange(change) => Self::changed(before, change, number),
        }
    }

    fn changed(
        before: Option<&Self>,
        change: &StockChange,
        number: RowNumber,
    ) -> Result<Self, Refusal> {
        if let StockChangeKind::Add { price, quantity } = change.kind {
            return match before {
                Some(_) => Err(Refusal::StockExists),
                None => Ok(Self {
                    version: Version(number.0 + 2),
                    ..Self::first(change.name.clone(), price, quantity)
                }),
            };
        }
        let mut stock = before.ok_or(Refusal::StockNotFound)?.clone();
        stock.version = Version(stock.version.0 + 1);
        match change.kind {
            StockChangeKind::Add { .. } => {}
            StockChangeKind::Price { price } => stock.price = price,
            StockChangeKind::Restock { quantity } => {
                stock.quantity = stock.more(quantity).ok_or(Refusal::TooMany)?;
            }
            StockChangeKind::Delist => stock.is_listed = false,
        }
        Ok(stock)
    }

    /// Its shares with so many more; `None` past what there can be.
    fn more(&self, shares: Quantity) -> Option<u64> {
        let more = self.quantity.checked_add(shares.get());
        more.filter(|&quantity| quantity <= Quantity::MAX)
    }

    /// The stock after an order for it.
    pub fn traded(&self, order: &Order) -> Result<Self, Refusal> {
        let shares = order.quantity.get();
        let quantity = match order.side {
            Side::Buy => self
                .quantity
                .checked_sub(shares)
                .ok_or(Refusal::NotEnough)?,
            Side::Sell => self.more(order.quantity).ok_or(Refusal::TooMany)?,
        };
        let volume = self.volume.saturating_add(shares).min(Quantity::MAX);
        let version = Version(self.version.0 + 1);
        Ok(Self {
            quantity,
            volume,
            version,
            ..self.clone()
        })
    }
}

/// A replica asks for what only the leader may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("replica {replica} does not lead epoch {epoch}")]
pub struct NotLeader {
    pub replica: ReplicaId,
    /// The current one.
    pub epoch: Epoch,
}

/// Who leads, and who holds every acknowledged order.
///
/// [`domain::Term`] is what replicas and gateways need of it. The in-sync set and its last change
/// are the catalog's to keep, and only its commits change them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Term {
    /// 0 before the first election.
    pub epoch: Epoch,
    /// None before the first election.
    pub leader: Option<ReplicaId>,
    /// The replicas that hold every acknowledged order. An election leaves them as they
    /// were: nothing is acknowledged until the new leader has set its own.
    pub in_sync: BTreeSet<ReplicaId>,
    /// The last change of `in_sync` in this epoch.
    pub change: ChangeNumber,
}

/// Who leads, with the in-sync set, and where the journal ends.
///
/// Replicas take [`domain::JournalHead`] from it, which has no in-sync set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: Term,
    /// Where the journal ends.
    pub end: LedgerEnd,
}

/// What became of an order or a change of a stock: for the first time, or as its key remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TradeResult {
    Row(Row),
    /// There is no row, and under this key there will be none.
    Refused(Refusal),
}

/// An order, or a change of a stock, that was refused. Remembered, since another attempt at it may be on its way: once a
/// client was told no, none of them may make it after all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedOrder {
    /// What was asked for.
    pub entry: Entry,
    /// Why there is no row for it.
    pub refusal: Refusal,
}

/// What a key was used for before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriorOutcome {
    /// An order with a row.
    Row(Row),
    /// One that was refused.
    Refused(RefusedOrder),
}

impl PriorOutcome {
    fn entry(&self) -> &Entry {
        match self {
            Self::Row(row) => &row.entry,
            Self::Refused(refused) => &refused.entry,
        }
    }
}

impl From<PriorOutcome> for TradeResult {
    fn from(known: PriorOutcome) -> Self {
        match known {
            PriorOutcome::Row(row) => Self::Row(row),
            PriorOutcome::Refused(refused) => Self::Refused(refused.refusal),
        }
    }
}

/// The sender acts for an epoch that is over, or has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {given} is not the current one, {current}")]
pub struct StaleEpoch {
    pub given: Epoch,
    /// The one that holds.
    pub current: Epoch,
}

/// Why an in-sync set was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InSyncRefused {
    #[error(transparent)]
    Stale(#[from] StaleEpoch),
    /// It was under way for so long that it would undo a later one.
    #[error("change {given} of the in-sync set is overtaken: change {made} was made before")]
    Overtaken {
        given: ChangeNumber,
        /// The last one made.
        made: ChangeNumber,
    },
    /// The leader always holds what is acknowledged.
    #[error("the in-sync set leaves out its leader, replica {0}")]
    WithoutLeader(ReplicaId),
}

/// What one group commit makes durable, all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// New rows, in number order, the first right after the journal's end.
    pub rows: Vec<Row>,
    /// Orders that were refused, in the order in which they were.
    pub refused: Vec<RefusedOrder>,
    /// The changed stocks as they are after it, in name order, with those that are not listed any more.
    pub stocks: Vec<Stock>,
    /// The new term, where it changed.
    pub term: Option<Term>,
}

impl Batch {
    /// Whether there is nothing to make durable.
    pub fn is_empty(&self) -> bool {
        let Self {
            rows,
            refused,
            stocks,
            term,
        } = self;
        rows.is_empty() && refused.is_empty() && stocks.is_empty() && term.is_none()
    }
}

/// Everything that is committed, but for the rows themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogState {
    stocks: BTreeMap<StockName, Stock>,
    end: LedgerEnd,
    term: Term,
    rules: Rules,
}

impl CatalogState {
    /// The state as a store holds it.
    pub fn new(stocks: impl IntoIterator<Item = Stock>, end: LedgerEnd, term: Term) -> Self {
        let stocks: BTreeMap<_, _> = stocks
            .into_iter()
            .map(|stock| (stock.name.clone(), stock))
            .collect();
        for stock in stocks.values() {
            assert!(
                stock.quantity <= Quantity::MAX,
                "quantity of {} out of bounds",
                stock.name
            );
        }
        assert_eq!(
            term.epoch == Epoch(0),
            term.leader.is_none(),
            "every epoch has a leader"
        );
        Self {
            stocks,
            end,
            term,
            rules: Rules::default(),
        }
    }

    /// The same state without a protective rule.
    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// All stocks, in name order.
    pub fn stocks(&self) -> impl Iterator<Item = &Stock> {
        self.stocks.values()
    }

    /// Who leads, and how long the journal is.
    pub fn leadership(&self) -> Leadership {
        Leadership {
            term: self.term.clone(),
            end: self.end,
        }
    }

    /// An empty overlay. Dropping it changes nothing.
    pub fn stage(&self) -> Staged<'_> {
        Staged {
            state: self,
            stocks: BTreeMap::new(),
            rows: Vec::new(),
            refused: Vec::new(),
            keys: HashMap::new(),
            end: self.end,
            term: None,
        }
    }

    /// Takes over a batch that is durable.
    ///
    /// # Panics
    /// Where the batch was not staged on this state as it is.
    pub fn apply(&mut self, batch: Batch) {
        for row in &batch.rows {
            assert!(
                self.end.is_continued_by(row),
                "row {} does not continue the journal",
                row.number
            );
            self.end = LedgerEnd::of(row);
        }
        for stock in batch.stocks {
            assert!(
                stock.quantity <= Quantity::MAX,
                "quantity of {} out of bounds",
                stock.name
            );
            let before = self.stocks.get(&stock.name).map(|stock| stock.version);
            assert!(
                Some(stock.version) > before,
                "a version of {} came twice",
                stock.name
            );
            match stock.is_listed {
                true => self.stocks.insert(stock.name.clone(), stock),
                false => self.stocks.remove(&stock.name),
            };
        }
        if let Some(term) = batch.term {
            assert!(
                (term.epoch, term.change) > (self.term.epoch, self.term.change)
                    || !self.rules.keep(Rule::ChangeOrder),
                "epochs rise, and changes within them"
            );
            self.term = term;
        }
    }
}

/// The state with a group of requests on top, none of which is durable yet.
#[derive(Debug)]
pub struct Staged<'a> {
    state: &'a CatalogState,
    stocks: BTreeMap<StockName, Stock>,
    rows: Vec<Row>,
    refused: Vec<RefusedOrder>,
    /// What the keys of this group were used for.
    keys: HashMap<IdempotencyKey, PriorOutcome>,
    end: LedgerEnd,
    term: Option<Term>,
}

impl Staged<'_> {
    /// The term as this group leaves it.
    pub fn term(&self) -> &Term {
        self.term.as_ref().unwrap_or(&self.state.term)
    }

    /// A stock as this group leaves it, if it does.
    pub fn stock(&self, name: &StockName) -> Option<&Stock> {
        let changed = self.stocks.get(name);
        let stock = changed.or_else(|| self.state.stocks.get(name));
        stock.filter(|stock| stock.is_listed)
    }

    /// The version of a stock that an answer about it may give away; where there is none of that name, one that none
    /// has come to so far.
    pub fn newest(&self, name: &StockName) -> Version {
        let unlisted = match self.state.rules.keep(Rule::ShownAbsence) {
            true => Version(self.end.rows.0 + 2),
            false => Version::default(),
        };
        self.stock(name).map_or(unlisted, |stock| stock.version)
    }

    /// How many stocks are listed.
    fn listed(&self) -> usize {
        let changed = self.stocks.values();
        changed.fold(self.state.stocks.len(), |listed, stock| {
            let was = self.state.stocks.contains_key(&stock.name);
            listed + usize::from(stock.is_listed) - usize::from(was)
        })
    }

    /// Refuses senders of any epoch but the current one, and everybody before the first
    /// election.
    pub fn check_epoch(&self, given: Epoch) -> Result<(), StaleEpoch> {
        let current = self.term().epoch;
        let elected = current > Epoch(0);
        if (given == current || !self.state.rules.keep(Rule::EpochCheck)) && elected {
            Ok(())
        } else {
            Err(StaleEpoch { given, current })
        }
    }

    /// Refuses a replica that does not lead the current epoch.
    pub fn check_leads(&self, replica: ReplicaId) -> Result<(), NotLeader> {
        let term = self.term();
        match term.leader == Some(replica) {
            true => Ok(()),
            false => Err(NotLeader {
                replica,
                epoch: term.epoch,
            }),
        }
    }

    /// Trades, or changes a stock, exactly once for each key. `known` is what the key was used for before.
    ///
    /// # Errors
    /// Where the epoch is not the current one; nothing is staged then.
    pub fn trade(
        &mut self,
        epoch: Epoch,
        entry: impl Into<Entry>,
        known: Option<PriorOutcome>,
    ) -> Result<TradeResult, StaleEpoch> {
        let entry = entry.into();
        self.check_epoch(epoch)?;
        let staged = self.keys.get(entry.key()).cloned();
        let found = staged
            .or(known)
            .filter(|_| self.state.rules.keep(Rule::KeyCheck));
        if let Some(found) = found {
            assert_eq!(
                found.entry().key(),
                entry.key(),
                "what is found is the key's"
            );
            return Ok(if found.entry().is_same_as(&entry) {
                found.into()
            } else {
                TradeResult::Refused(Refusal::KeyConflict)
            });
        }
        let key = entry.key().clone();
        let made = match self.after(&entry) {
            Ok(after) => {
                let price = after.price;
                self.stocks.insert(after.name.clone(), after);
                PriorOutcome::Row(self.append(epoch, entry, price))
            }
            Err(refusal) => {
                let refused = RefusedOrder { entry, refusal };
                self.refused.push(refused.clone());
                PriorOutcome::Refused(refused)
            }
        };
        self.keys.insert(key, made.clone());
        Ok(made.into())
    }

    /// The stock after that.
    fn after(&self, entry: &Entry) -> Result<Stock, Refusal> {
        let after = Stock::after(self.stock(entry.name()), entry, self.end.rows)?;
        let is_added = matches!(entry, Entry::StockChange(change) if matches!(change.kind, StockChangeKind::Add { .. }));
        match is_added && self.listed() >= STOCKS_MAX {
            true => Err(Refusal::TooManyStocks),
            false => Ok(after),
        }
    }

    fn append(&mut self, epoch: Epoch, entry: Entry, price: Price) -> Row {
        let row = Row::following(&self.end, epoch, entry, price);
        self.end = LedgerEnd::of(&row);
        self.rows.push(row.clone());
        row
    }

    /// Makes the candidate the leader of the next epoch if the current one is the expected
    /// one; answers with the term that holds after, so that the loser of a race learns who won.
    pub fn elect(&mut self, expected: Epoch, candidate: ReplicaId) -> Term {
        let current = self.term();
        if current.epoch == expected {
            let in_sync = current.in_sync.clone();
            self.term = Some(Term {
                epoch: expected.next(),
                leader: Some(candidate),
                in_sync,
                change: ChangeNumber::NONE,
            });
        }
        self.term().clone()
    }

    /// Begins the next epoch with the same leader, which has to catch up and to activate as if it
    /// were elected. Does nothing before the first election.
    pub fn begin_next_epoch(&mut self) {
        if self.state.rules.keep(Rule::Succession)
            && let Some(leader) = self.term().leader
        {
            let epoch = self.term().epoch;
            self.elect(epoch, leader);
        }
    }

    /// Replaces the in-sync set.
    ///
    /// # Errors
    /// Where the epoch is not the current one, this change or a later one of the epoch was made
    /// before, or the set leaves out its leader.
    pub fn set_in_sync(
        &mut self,
        epoch: Epoch,
        change: ChangeNumber,
        in_sync: BTreeSet<ReplicaId>,
    ) -> Result<Term, InSyncRefused> {
        self.check_epoch(epoch)?;
        let current = self.term();
        if change <= current.change && self.state.rules.keep(Rule::ChangeOrder) {
            return Err(InSyncRefused::Overtaken {
                given: change,
                made: current.change,
            });
        }
        let leader = current.leader.expect("every epoch has a leader");
        if !in_sync.contains(&leader) {
            return Err(InSyncRefused::WithoutLeader(leader));
        }
        // Durable also where the set is as it was: an earlier change may still be under way.
        let term = Term {
            in_sync,
            change,
            ..current.clone()
        };
        self.term = Some(term.clone());
        Ok(term)
    }

    /// What is to be made durable.
    pub fn into_batch(self) -> Batch {
        let stocks = self.stocks.into_values().collect();
        Batch {
            rows: self.rows,
            refused: self.refused,
            stocks,
            term: self.term,
        }
    }
}

#[cfg(test)]
mod tests;
