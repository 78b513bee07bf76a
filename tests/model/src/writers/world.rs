//! The database, the catalogs and the gateway, and all that happens to them.

use std::collections::BTreeSet;
use std::time::Duration;

use catalog_core::self_healing::{Found, LedgerReport};
use catalog_core::writer_lease::{
    Fence, Incarnation, StatementOutcome, WriterRole, WriterRow, WriterStep, WriterTable,
};
use catalog_core::{HealingStep, SelfHealing, Term};
use domain::time::BootTime;
use domain::{ChainHash, Epoch, LedgerEnd, ReplicaId, RowNumber, SessionId, Version};

use super::bounds::{Action, Bounds, LEASE, STEP, STEP_FAST};
use super::catalog::{Catalog, Loaded, name, version};
use super::gateway::{Answer, Asking, Gateway};
use super::store::{Connection, Key, Statement, Store};

#[derive(Debug, Clone, PartialEq, Hash)]
pub struct World {
    pub store: Store,
    pub catalogs: Vec<Catalog>,
    /// What each catalog has last seen of the row, and in which incarnation.
    pub sights: Vec<(WriterRow, Incarnation)>,
    pub gateway: Gateway,
    /// Which session is whose: sessions of the first catalog are odd.
    pub sessions: u64,
    /// What the replica in sync holds.
    pub ledger: Vec<Key>,
    /// Whom it last reported to.
    pub reported_to: Option<Fence>,
    /// What clients were told: which trade has which number.
    pub acknowledged: Vec<(Key, usize)>,
    /// The newest version that any client has seen.
    pub seen: Version,
    pub spent: Spent,
    /// What should not have happened.
    pub broken: Option<&'static str>,
}

/// What has happened as often as it may, or less.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub trades: u8,
    pub retries: u8,
    pub asks: u8,
    pub reads: u8,
    pub ticks: u8,
    pub losses: u8,
    pub fail_overs: u8,
    pub stops: u8,
    /// Terms that another catalog than before began.
    pub take_overs: u8,
    /// Rows that were put back.
    pub healed: u8,
}

/// When all begins, by everybody's clock.
const START: BootTime = BootTime::from_millis(1_000_000);

impl World {
    /// The first catalog has just begun to serve; the second one stands by, and has seen so. Nothing is kept.
    pub fn new(bounds: &Bounds) -> Self {
        let before = START - LEASE;
        let catalog = |place| Catalog::new(bounds, place, before);
        let store = Store::new(2, WriterTable::default().under(bounds.rules()));
        let sight = (store.row(), store.incarnation);
        let mut world = Self {
            catalogs: vec![catalog(0), catalog(1)],
            sights: vec![sight; 2],
            store,
            gateway: Gateway::default(),
            sessions: 0,
            ledger: Vec::new(),
            reported_to: None,
            acknowledged: Vec::new(),
            seen: version(0),
            spent: Spent::default(),
            broken: None,
        };
        for at in 0..2 {
            world.catalogs[at].lease.next(before);
            world.look(at, before);
        }
        world.do_next(bounds, 0, START);
        world.store.execute(0);
        world.store.replicate();
        world.hear(bounds, 0, START);
        world.do_next(bounds, 0, START);
        world.do_next(bounds, 1, START);
        world.store.older = world.store.primary.clone();
        world.spent.take_overs = 0;
        assert!(world.serves(0) && !world.serves(1), "one serves");
        world
    }

    /// A catalog's clock.
    fn now(&self, catalog: usize) -> BootTime {
        let step = [STEP, STEP_FAST][catalog];
        START + step * u32::from(self.spent.ticks)
    }

    /// The gateway's clock.
    fn gateway_now(&self) -> BootTime {
        START + STEP * u32::from(self.spent.ticks)
    }

    pub fn serves(&self, catalog: usize) -> bool {
        self.answers(catalog).is_some()
    }

    /// What a catalog would answer a reader, and the journal that it knows.
    pub fn answers(&self, catalog: usize) -> Option<(Version, &[Key])> {
        self.catalogs[catalog].answers(self.now(catalog))
    }

    /// What a client would be served from the cache.
    pub fn hit(&self) -> Option<Version> {
        self.gateway.hit(self.gateway_now())
    }

    /// Whether there is anything that a catalog's part in the lease asks for now, but for looking at what is known.
    pub fn has_to_act(&self, at: usize) -> bool {
        let mut lease = self.catalogs[at].lease.clone();
        match lease.next(self.now(at)) {
            None => false,
            Some(WriterStep::Look) => {
                lease.seen(self.store.row(), self.store.incarnation, self.now(at));
                !self.store.connections[at].is_broken && lease.next(self.now(at)).is_some()
            }
            Some(_) => true,
        }
    }

    /// Whether a catalog that does not hold the term would see something new.
    pub fn sees_news(&self, at: usize) -> bool {
        let role = self.catalogs[at].lease.role();
        let looks = matches!(role, WriterRole::Standby | WriterRole::TakingOver);
        let sight = (self.store.row(), self.store.incarnation);
        looks && !self.store.connections[at].is_broken && self.sights[at] != sight
    }

    /// How many sessions a catalog has to tell something, as the gateway may know.
    pub fn told_by(&self, at: usize) -> usize {
        let loaded = self.catalogs[at].loaded.as_ref();
        let telling = loaded.map_or(&[][..], |loaded| &loaded.telling);
        let asking = self.gateway.asking.and_then(|asking| asking.answer);
        let coming = asking.and_then(|answer| answer.session);
        let knows = |(session, _): &&(SessionId, _)| coming.is_none_or(|(id, _)| id != *session);
        telling.iter().take_while(knows).count()
    }

    /// Whether the gateway has a session with a catalog, or is about to.
    pub fn is_lent_to_by(&self, at: usize) -> bool {
        let asking = self.gateway.asking;
        let session = self.gateway.session.as_ref();
        let session = session.and_then(|session| session.lease().session());
        asking.is_none_or(|asking| asking.catalog != at)
            && session.is_some_and(|id| owner(id) == at)
    }

    pub fn act(&mut self, bounds: &Bounds, action: Action) {
        let spent = &mut self.spent;
        match action {
            Action::Place { key, .. } if key == spent.trades => spent.trades += 1,
            Action::Place { .. } => spent.retries += 1,
            Action::Ask(_) => spent.asks += 1,
            Action::Read(_) => spent.reads += 1,
            Action::Tick => spent.ticks += 1,
            Action::Lose(_) => spent.losses += 1,
            Action::FailOver { .. } => spent.fail_overs += 1,
            Action::Stop(_) => spent.stops += 1,
            _ => {}
        }
        match action {
            Action::Act(at) => self.do_next(bounds, at, self.now(at)),
            Action::Look(at) => self.look(at, self.now(at)),
            Action::Execute(at) => {
                self.store.execute(at);
                if bounds.fail_overs == 0 {
                    self.store.replicate();
                }
            }
            Action::Replicate => self.store.replicate(),
            Action::Hear(at) => self.hear(bounds, at, self.now(at)),
            Action::Lose(at) | Action::Notice(at) => {
                self.store.reconnect(at);
                self.lose(at);
            }
            Action::ExecuteStray(stray) => {
                self.store.execute_stray(stray);
                if bounds.fail_overs == 0 {
                    self.store.replicate();
                }
            }
            Action::FailOver { loses } => self.store.fail_over(loses),
            Action::Place { catalog, key } => self.place(catalog, key),
            Action::Read(at) => {
                let (version, _) = self.answers(at).expect("it serves");
                self.seen = self.seen.max(version);
            }
            Action::Ask(at) => {
                self.gateway.asking = Some(Asking {
                    catalog: at,
                    sent: self.gateway_now(),
                    seen: self.seen,
                    answer: None,
                });
            }
            Action::Answer => self.answer(),
            Action::Take => self.take(),
            Action::LetGo { catalog, told } => self.let_go(catalog, told),
            Action::Surrender(at) => self.surrender(at),
            Action::Stop(at) => self.catalogs[at].lease.stop(),
            Action::Tick => {}
        }
        self.settle(bounds);
    }

    /// All that needs no time: sessions expire, answers go out, what is over is dropped.
    fn settle(&mut self, bounds: &Bounds) {
        let mut answered = Vec::new();
        for at in 0..self.catalogs.len() {
            let now = self.now(at);
            let mut ahead = self.catalogs[at].lease.clone();
            if let Some(WriterStep::StepDown(_)) = ahead.next(now) {
                self.catalogs[at].lease = ahead;
                self.store.reconnect(at);
            }
            let catalog = &mut self.catalogs[at];
            match catalog.lease.role() {
                WriterRole::Standby | WriterRole::TakingOver | WriterRole::Stopped => {
                    catalog.drop_loaded();
                }
                WriterRole::Loading | WriterRole::Active | WriterRole::Stopping => {}
            }
            let Some(loaded) = &mut catalog.loaded else {
                continue;
            };
            for over in loaded.visibility.expire(now) {
                loaded.telling.retain(|(session, _)| *session != over);
            }
            if catalog.lease.role() == WriterRole::Stopping && loaded.visibility.is_unheld(now) {
                catalog.lease.unheld();
            }
            let is_heard = catalog.lease.held() == self.reported_to || !bounds.promises;
            for row in loaded.take_answers() {
                if is_heard {
                    let key = loaded.journal[row];
                    answered.push((key, row, loaded.journal.clone()));
                }
            }
        }
        for (key, row, journal) in answered {
            self.acknowledge(key, row, &journal);
        }
        if bounds.without.is_none() {
            self.gateway.forget(self.gateway_now());
            self.store.forget();
        }
    }

    /// A client is told the number of its trade, which the replica in sync holds by then.
    fn acknowledge(&mut self, key: Key, row: usize, journal: &[Key]) {
        if row >= self.ledger.len() {
            self.ledger = journal[..=row].to_vec();
        }
        self.seen = self.seen.max(version(row + 1));
        if !self.acknowledged.contains(&(key, row)) {
            self.acknowledged.push((key, row));
        }
    }

    fn look(&mut self, at: usize, now: BootTime) {
        self.sights[at] = (self.store.row(), self.store.incarnation);
        let (row, incarnation) = self.sights[at];
        let lease = &mut self.catalogs[at].lease;
        let was_writing = lease.is_writing();
        lease.seen(row, incarnation, now);
        if was_writing && !lease.is_writing() {
            self.store.connections[at] = Connection::default();
        }
    }

    /// Does what is to be done, up to what takes time.
    fn do_next(&mut self, bounds: &Bounds, at: usize, now: BootTime) {
        while let Some(step) = self.catalogs[at].lease.next(now) {
            match step {
                WriterStep::Look => {
                    if self.store.connections[at].is_broken {
                        return;
                    }
                    self.look(at, now);
                }
                WriterStep::TakeOver(claim) => {
                    return self.store.send(at, Statement::TakeOver(claim));
                }
                WriterStep::Load => return self.load(bounds, at, now),
                WriterStep::Beat(fence) => return self.send_rows(at, fence, 0, Vec::new()),
                WriterStep::Release(fence) => {
                    return self.store.send(at, Statement::Release(fence));
                }
                WriterStep::StepDown(_) => self.store.reconnect(at),
            }
        }
    }

    fn send_rows(&mut self, at: usize, fence: Fence, after: usize, rows: Vec<Key>) {
        let commit = Statement::Commit { fence, after, rows };
        self.store.send(at, commit);
    }

    /// Loads what is committed, and puts back what the replica has beyond it.
    fn load(&mut self, bounds: &Bounds, at: usize, now: BootTime) {
        let journal = self.store.primary.journal.clone();
        let missing = self.missing(bounds, &journal, now);
        self.reported_to = self.catalogs[at].lease.held();
        let after = journal.len();
        let mut loaded = Loaded::new(bounds, journal, now);
        loaded.writing.clone_from(&missing);
        let catalog = &mut self.catalogs[at];
        catalog.loaded = Some(loaded);
        self.spent.take_overs += 1;
        if missing.is_empty() {
            catalog.lease.loaded();
            return;
        }
        let fence = catalog.lease.begin(now);
        let fence = fence.expect("it holds the term, and has nothing on its way");
        self.spent.healed += 1;
        self.send_rows(at, fence, after, missing);
    }

    /// What the replica has, and the database lost.
    fn missing(&mut self, bounds: &Bounds, journal: &[Key], now: BootTime) -> Vec<Key> {
        let replica = ReplicaId::new(1).expect("it is an id");
        let term = Term {
            in_sync: [replica].into(),
            ..Term::default()
        };
        let found = Found {
            journal: end(journal),
            term: term.clone(),
            may_lack_rows: true,
            is_unbroken: false,
        };
        let mut healing = SelfHealing::new(found, now).under(bounds.rules());
        let report = LedgerReport {
            replica,
            end: end(&self.ledger),
            last_epoch: Epoch(0),
            beside: Vec::new(),
            is_empty: false,
            term: domain::Term::default(),
            peers: BTreeSet::new(),
            lease_horizon: Duration::ZERO,
        };
        let there = journal.get(..self.ledger.len());
        if healing
            .heard(report, there.map(|rows| end(rows).chain))
            .is_err()
        {
            self.broken = Some("a ledger is no copy of the journal");
        }
        if healing.wanted_of(replica, now).is_some() {
            healing.believe(replica); // it shows what it has
        }
        match healing.next(now) {
            HealingStep::Serve { .. } => Vec::new(),
            step => {
                assert_eq!(step, HealingStep::PutBack { from: replica });
                self.ledger[journal.len()..].to_vec()
            }
        }
    }

    fn hear(&mut self, bounds: &Bounds, at: usize, now: BootTime) {
        let outcome = self.store.deliver(at);
        let catalog = &mut self.catalogs[at];
        let role = catalog.lease.role();
        catalog.lease.told(outcome, now);
        let Some(loaded) = &mut catalog.loaded else {
            return;
        };
        match (outcome, role) {
            (StatementOutcome::Durable, WriterRole::Loading) if !loaded.writing.is_empty() => {
                let mut journal = std::mem::take(&mut loaded.journal);
                journal.append(&mut loaded.writing);
                *loaded = Loaded::new(bounds, journal, now);
                catalog.lease.loaded();
            }
            (StatementOutcome::Durable, _) => loaded.commit(),
            _ => loaded.abandon(),
        }
    }

    fn lose(&mut self, at: usize) {
        let now = self.now(at);
        let catalog = &mut self.catalogs[at];
        catalog.lease.lost(now);
        if let Some(loaded) = &mut catalog.loaded {
            loaded.abandon();
        }
    }

    fn place(&mut self, at: usize, key: Key) {
        let now = self.now(at);
        let committed = self.store.primary.journal.clone();
        let known = committed.iter().position(|it| *it == key);
        let catalog = &mut self.catalogs[at];
        let loaded = catalog.loaded.as_mut().expect("it is active");
        match known {
            // What is found in the database is a read like any other.
            Some(_) if !catalog.lease.serves(now) => {}
            Some(row) if row < loaded.journal.len() => loaded.unanswered.push(row),
            Some(row) => self.acknowledge(key, row, &committed),
            None => {
                let after = loaded.journal.len();
                loaded.prepare(key);
                let fence = catalog.lease.begin(now).expect("it is active");
                self.send_rows(at, fence, after, vec![key]);
            }
        }
    }

    fn answer(&mut self) {
        let asking = self.gateway.asking.as_mut().expect("it asks");
        let at = asking.catalog;
        let step = [STEP, STEP_FAST][at];
        let now = START + step * u32::from(self.spent.ticks);
        let catalog = &mut self.catalogs[at];
        let loaded = catalog.loaded.as_mut().expect("it serves");
        let length = catalog.lease.grantable(now, now);
        self.sessions += 1;
        let id = session(at, self.sessions);
        let opened = loaded.visibility.open(id, now);
        opened.expect("there are few sessions, with ids of their own");
        let read = loaded.visibility.read(&name(), Some(id), now);
        let read = read.expect("the stock is listed");
        asking.answer = Some(Answer {
            version: read.stock.version,
            session: read.cacheable.then_some((id, length)),
        });
    }

    fn take(&mut self) {
        let asking = self.gateway.asking.take().expect("it asks");
        let answer = asking.answer.expect("it was answered");
        if answer.version < asking.seen {
            self.broken = Some("a read is older than what was seen before it began");
        }
        self.gateway.take(&asking, answer);
        self.seen = self.seen.max(answer.version);
    }

    fn let_go(&mut self, at: usize, told: usize) {
        let now = self.now(at);
        let loaded = self.catalogs[at].loaded.as_mut();
        let loaded = loaded.expect("it has sessions");
        let (session, round) = loaded.telling.remove(told);
        self.gateway.let_go(session);
        // A session that is over need not be told.
        let _ = loaded.visibility.acknowledge(session, round, now);
    }

    fn surrender(&mut self, at: usize) {
        let session = self.gateway.session.take().expect("it has a session");
        self.gateway.entry = None;
        let id = session.lease().session().expect("it was opened");
        if let Some(loaded) = &mut self.catalogs[at].loaded {
            loaded.telling.retain(|(session, _)| *session != id);
            loaded.visibility.release(id);
        }
    }
}

/// Where a copy of the journal ends.
fn end(rows: &[Key]) -> LedgerEnd {
    let mut chain = [0; 32];
    chain[..rows.len()].copy_from_slice(rows);
    LedgerEnd {
        rows: RowNumber(rows.len() as u64),
        stock_changes: 0,
        chain: ChainHash::try_from(&chain[..]).expect("32 bytes"),
    }
}

/// Whose session it is.
fn owner(id: SessionId) -> usize {
    usize::from(id.get().is_multiple_of(2))
}

fn session(catalog: usize, number: u64) -> SessionId {
    SessionId::new(2 * number + 1 - catalog as u64).expect("numbers from 1 on")
}
