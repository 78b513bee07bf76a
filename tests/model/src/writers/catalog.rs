//! A catalog: its part in the writer lease, and what it has loaded.

use std::time::Duration;

use catalog::config::lease_margin;
use catalog_core::writer_lease::WriterId;
use catalog_core::{Batch, Invalidation, Leases, Round, Stock, Visibility, WriterLease};
use domain::time::BootTime;
use domain::{Price, SessionId, StockName, Version};

use super::bounds::{Bounds, LEASE};
use super::store::Key;

#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Catalog {
    pub lease: WriterLease,
    /// Nothing unless it holds the term.
    pub loaded: Option<Loaded>,
}

/// What a catalog knows of what is committed, and to whom it lent it.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Loaded {
    pub visibility: Visibility,
    pub journal: Vec<Key>,
    /// What is on its way to the database.
    pub writing: Vec<Key>,
    /// Rows whose clients wait until they are shown.
    pub unanswered: Vec<usize>,
    /// Sessions that are to let go, and are yet to be told.
    pub telling: Vec<(SessionId, Round)>,
}

impl Catalog {
    pub fn new(bounds: &Bounds, place: usize, now: BootTime) -> Self {
        let me = WriterId(place as u64 + 1);
        Self {
            lease: WriterLease::new(me, LEASE, now).under(bounds.rules()),
            loaded: None,
        }
    }

    /// Nothing is kept of what cannot be answered any more.
    pub fn drop_loaded(&mut self) {
        self.loaded = None;
    }

    /// Where it answers reads, what it answers.
    pub fn answers(&self, now: BootTime) -> Option<(Version, &[Key])> {
        let loaded = self.loaded.as_ref().filter(|_| self.lease.serves(now))?;
        Some((loaded.shown(), &loaded.journal))
    }
}

impl Loaded {
    /// What a catalog makes of a journal.
    pub fn new(bounds: &Bounds, journal: Vec<Key>, now: BootTime) -> Self {
        let leases = Leases::new(LEASE, lease_margin(LEASE)).under(bounds.rules());
        let stock = stock(version(journal.len()));
        Self {
            visibility: Visibility::new([stock], leases, Duration::ZERO, now),
            journal,
            writing: Vec::new(),
            unanswered: Vec::new(),
            telling: Vec::new(),
        }
    }

    /// The version that readers see.
    pub fn shown(&self) -> Version {
        let mut stocks = self.visibility.stocks_after(None);
        stocks.next().expect("it is listed").version
    }

    /// A trade is on its way to the database.
    pub fn prepare(&mut self, key: Key) {
        self.writing = vec![key];
        let batch = Batch {
            stocks: vec![stock(version(self.journal.len() + 1))],
            ..Batch::default()
        };
        let invalidations = self.visibility.prepare(&batch).into_iter();
        let told = invalidations.map(|Invalidation { session, round, .. }| (session, round));
        self.telling.extend(told);
    }

    /// What was on its way is durable.
    pub fn commit(&mut self) {
        for key in std::mem::take(&mut self.writing) {
            self.unanswered.push(self.journal.len());
            self.journal.push(key);
            let stock = stock(version(self.journal.len()));
            self.visibility.mark_durable(&[stock]);
        }
    }

    /// It is not, and never will be.
    pub fn abandon(&mut self) {
        self.writing.clear();
        self.visibility.abandon();
    }

    /// Rows whose clients may be answered now.
    pub fn take_answers(&mut self) -> Vec<usize> {
        let (visibility, name) = (&self.visibility, name());
        let shown = |row: &mut usize| visibility.is_shown(&name, version(*row + 1));
        self.unanswered.extract_if(.., shown).collect()
    }
}

/// Of the stock once so many trades of it are made.
pub fn version(trades: usize) -> Version {
    Version(1 + trades as u64)
}

pub fn name() -> StockName {
    StockName::new("nvidia").expect("it is a name")
}

fn stock(version: Version) -> Stock {
    Stock {
        name: name(),
        price: Price::from_minor(100).expect("it is a price"),
        quantity: 0,
        volume: 0,
        version,
        is_listed: true,
    }
}
