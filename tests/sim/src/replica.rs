//! An order replica's process: its shipped core and store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use catalog_core::TradeResult;
use domain::LedgerEnd;
use domain::{
    ChainHash, Epoch, IdempotencyKey, Identity, JournalId, ListingDigest, Order, OrderNumber,
    Price, Quantity, ReplicaId, Row, Side, StockName,
};
use domain::{Head, Term};
use order::store::saves::write;
use order::store::{ReadRows, SqliteStore, Store};
use order_core::durable::{Save, gather};
use order_core::message::{
    CallFailure, CallId, Outcome, Placed, Refused, Report, Shipment, Source, Ticket, Unavailable,
};
use order_core::{
    Claim, Command, Event, Failure as Refuted, Missing, Replica as Core, Status, claim,
};
use simulated_disk::Disk;
use storage::database::Vfs;
use storage::{DataDir, StorageError};

use crate::catalog::{Ended, JOURNAL};
use crate::messages::{Caller, Failure, Node, Purpose, Request, Response, Run, Told};
use crate::oracle::Oracle;
use crate::plan::{Plan, REPLICAS};
use crate::timeline::{Happening, Time, Timeline};

// As long as the shipped driver waits.
const TRADE_TIMEOUT: Duration = Duration::from_secs(5);
const SET_IN_SYNC_TIMEOUT: Duration = Duration::from_secs(2);
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(2);
const FETCH_TIMEOUT: Duration = Duration::from_millis(500);
const APPEND_TIMEOUT: Duration = Duration::from_millis(300);
const HEAD_INTERVAL: Duration = Duration::from_millis(250);
const HEAD_TIMEOUT: Duration = Duration::from_millis(500);
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);
const JOIN_RETRY: Duration = Duration::from_millis(100);

/// What the catalog says of its journal.
const IDENTITY: Identity = Identity {
    journal: JOURNAL,
    listing: ListingDigest::new([1; ListingDigest::BYTES]),
    lease_horizon: Duration::from_secs(1),
};

/// A replica, while it runs.
pub struct Replica {
    id: ReplicaId,
    run: Run,
    disk: Disk,
    core: Core,
    store: SqliteStore,
    reader: Arc<dyn ReadRows>,
    plan: Plan,
    saves: VecDeque<Save>,
    saving: Option<Save>,
    last: u64,
    places: BTreeMap<Ticket, (Caller, Order)>,
    announces: BTreeMap<Ticket, Caller>,
    appends: BTreeMap<Ticket, Caller>,
    /// Orders that are looked for and are not here.
    missing: BTreeMap<u64, (Caller, OrderNumber)>,
    /// Its ledger is yet to be compared with the journal: nothing of it is served.
    joining: bool,
    /// The disk did not take what it was to begin with.
    failed: bool,
    /// Why it must not be believed.
    refuted: Option<Refuted>,
    /// Who speaks of an epoch that is not known here: told the core once the catalog has been asked.
    unconfirmed: Vec<Claimant>,
    /// Where the ledger ended when the catalog was asked, while it is.
    asking: Option<LedgerEnd>,
    head_at: Time,
}

struct Claimant {
    caller: Caller,
    request: Request,
    /// The question under way came after it.
    asked: bool,
}

impl Replica {
    /// Starts on what the disk holds.
    pub fn start(
        line: &mut Timeline,
        oracle: &mut Oracle,
        plan: &Plan,
        id: ReplicaId,
        disk: &Disk,
    ) -> Result<Self, StorageError> {
        let store = open(disk, plan.vfs())?;
        let is_foreign = store
            .identity()
            .is_some_and(|it| it.journal != IDENTITY.journal);
        if !is_foreign {
            holds(oracle, id, &store);
        }
        let node = Node::Replica(id);
        let peers = ids().filter(|&peer| peer != id).collect();
        let core = Core::new(
            id,
            peers,
            (store.durable(), store.proposed()),
            line.clock(node),
        );
        let mut replica = Self {
            id,
            run: line.run(node),
            disk: disk.clone(),
            core: core.under(plan.order_rules()),
            reader: store.reader(),
            store,
            plan: *plan,
            saves: VecDeque::new(),
            saving: None,
            last: 0,
            places: BTreeMap::new(),
            announces: BTreeMap::new(),
            appends: BTreeMap::new(),
            missing: BTreeMap::new(),
            joining: true,
            failed: false,
            refuted: None,
            unconfirmed: Vec::new(),
            asking: None,
            head_at: line.now(),
        };
        replica.join(line);
        Ok(replica)
    }

    /// Asks the catalog for what its ledger is to be compared with.
    fn join(&mut self, line: &mut Timeline) {
        self.head_at = Time::MAX;
        let request = Request::GetLeadership;
        line.call(
            self.run,
            Node::Catalog,
            request,
            JOIN_TIMEOUT,
            Purpose::Join,
        );
    }

    /// The catalog answered, or did not.
    fn compare(&mut self, line: &mut Timeline, oracle: &mut Oracle, head: Option<Head>) {
        let Some(head) = head else {
            self.head_at = line.now() + JOIN_RETRY;
            return;
        };
        match claim(
            self.store.identity(),
            &self.store.durable(),
            &IDENTITY,
            &head,
        ) {
            Ok(Claim::Holds) => self.joined(line, oracle),
            Ok(Claim::Compare(held)) => {
                let request = Request::ReadRows {
                    from: held.rows,
                    previous: Some(held.chain),
                    rows_max: 1,
                };
                line.call(
                    self.run,
                    Node::Catalog,
                    request,
                    JOIN_TIMEOUT,
                    Purpose::Compare,
                );
            }
            Ok(lost @ Claim::CatalogLostRows(_)) => panic!("replica {}: {lost:?}", self.id),
            Err(failure) => self.refuted = Some(failure),
        }
    }

    fn compared(&mut self, line: &mut Timeline, oracle: &mut Oracle, told: Told) {
        match rows(told) {
            Ok(_) => self.joined(line, oracle),
            Err(CallFailure::Differs) => {
                let rows = self.store.durable().end.rows;
                self.refuted = Some(Refuted::Differs { rows });
            }
            Err(_) => self.head_at = line.now() + JOIN_RETRY,
        }
    }

    fn joined(&mut self, line: &mut Timeline, oracle: &mut Oracle) {
        let save = Save {
            identity: Some(IDENTITY),
            ..Save::default()
        };
        if self.store.identity().is_none() && self.store.save(&save).is_err() {
            self.failed = true; // ends, and is started again
            return;
        }
        self.joining = false;
        self.head_at = line.now();
        self.step(line, oracle, None);
    }

    /// Whether its process is to end.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Why it must not be believed, where that was found.
    pub fn refuted(&self) -> Option<Refuted> {
        self.refuted
    }

    /// When it has something to do by itself.
    pub fn wake(&self, line: &Timeline) -> Option<Time> {
        let core = self.core.wake().filter(|_| !self.joining);
        let core = core.map(|at| line.when(self.run.node, at));
        core.into_iter().chain([self.head_at]).min()
    }

    /// Time has passed.
    pub fn woken(&mut self, line: &mut Timeline, oracle: &mut Oracle) {
        if self.joining {
            if self.head_at <= line.now() {
                self.join(line);
            }
            return;
        }
        if self.head_at <= line.now() {
            self.ask(line);
        }
        self.step(line, oracle, None);
    }

    /// Asks the catalog who leads, where it is not being asked.
    fn ask(&mut self, line: &mut Timeline) {
        if self.asking.is_some() {
            return;
        }
        self.asking = Some(self.core.status().end);
        self.head_at = Time::MAX;
        for claim in &mut self.unconfirmed {
            claim.asked = true;
        }
        let request = Request::GetLeadership;
        line.call(
            self.run,
            Node::Catalog,
            request,
            HEAD_TIMEOUT,
            Purpose::Head,
        );
    }

    /// The catalog said who leads, or nothing.
    fn heard(&mut self, line: &mut Timeline, oracle: &mut Oracle, told: Told) {
        self.head_at = line.now() + HEAD_INTERVAL;
        let held = self.asking.take().expect("it was asked");
        let head = head(told).ok();
        let answered = head.is_some();
        self.step(line, oracle, Some(Event::Head { head, held }));
        for claim in self
            .unconfirmed
            .extract_if(.., |claim| claim.asked)
            .collect::<Vec<_>>()
        {
            if answered {
                self.told(line, oracle, claim.caller, claim.request);
            } else {
                line.reply(self.run.node, claim.caller, Err(Failure::Unavailable));
            }
        }
        if !self.unconfirmed.is_empty() {
            self.ask(line);
        }
    }

    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// A call reaches it.
    pub fn request(
        &mut self,
        line: &mut Timeline,
        oracle: &mut Oracle,
        caller: Caller,
        request: Request,
    ) {
        if self.joining {
            return line.reply(self.run.node, caller, Err(Failure::Unavailable));
        }
        let epoch = match &request {
            Request::Announce { epoch, .. } | Request::Append { epoch, .. } => Some(*epoch),
            _ => None,
        };
        if epoch > Some(self.core.status().term.epoch) {
            let asked = false;
            self.unconfirmed.push(Claimant {
                caller,
                request,
                asked,
            });
            return self.ask(line);
        }
        self.told(line, oracle, caller, request);
    }

    fn told(&mut self, line: &mut Timeline, oracle: &mut Oracle, caller: Caller, request: Request) {
        self.last += 1;
        let ticket = Ticket(self.last);
        let event = match request {
            Request::Place(order) => {
                self.places.insert(ticket, (caller, order.clone()));
                Event::Place { ticket, order }
            }
            Request::Announce { epoch, leader } => {
                self.announces.insert(ticket, caller);
                Event::Announce {
                    ticket,
                    epoch,
                    leader,
                }
            }
            Request::Append {
                epoch,
                leader,
                rows,
                committed,
            } => {
                self.appends.insert(ticket, caller);
                Event::Append {
                    ticket,
                    epoch,
                    leader,
                    rows,
                    committed,
                }
            }
            Request::Status => {
                let told = Ok(Response::Status(self.core.status()));
                return line.reply(self.run.node, caller, told);
            }
            Request::ReadRows { from, rows_max, .. } => {
                let rows = self.reader.rows(from, rows_max);
                let told = rows.map(Response::Rows).map_err(|_| Failure::Unavailable);
                return line.reply(self.run.node, caller, told);
            }
            Request::Get(number) => return self.get(line, caller, number),
            other => unreachable!("a replica is not asked for {other:?}"),
        };
        self.step(line, oracle, Some(event));
    }

    fn get(&mut self, line: &mut Timeline, caller: Caller, number: OrderNumber) {
        let told = match self.reader.rows(number, 1) {
            Ok(rows) => match rows.into_iter().next() {
                Some(row) => Ok(Response::Row(row)),
                None if let Some(row) = self.core.find(number) => Ok(Response::Row(row.clone())),
                None => {
                    self.missing.insert(self.last, (caller, number));
                    let purpose = Purpose::Confirm(self.last);
                    let request = Request::GetLeadership;
                    line.call(self.run, Node::Catalog, request, CONFIRM_TIMEOUT, purpose);
                    return;
                }
            },
            Err(_) => Err(Failure::Unavailable),
        };
        line.reply(self.run.node, caller, told);
    }

    /// A call that it made is over.
    pub fn answered(
        &mut self,
        line: &mut Timeline,
        oracle: &mut Oracle,
        purpose: Purpose,
        told: Told,
    ) {
        let event = match purpose {
            Purpose::Join => return self.compare(line, oracle, head(told).ok()),
            Purpose::Compare => return self.compared(line, oracle, told),
            Purpose::Head => return self.heard(line, oracle, told),
            Purpose::Trade(call) => Event::Traded {
                call,
                result: outcomes(told),
            },
            Purpose::SetInSync(call) => Event::InSyncSet {
                call,
                result: head(told),
            },
            Purpose::Fetch(call) => Event::Fetched {
                call,
                result: rows(told),
            },
            Purpose::Append(call, peer) => Event::Appended {
                call,
                peer,
                result: held(told),
            },
            Purpose::Confirm(lookup) => {
                let Some((caller, number)) = self.missing.remove(&lookup) else {
                    return;
                };
                let journal = head(told).ok().map(|head| head.end);
                match Missing::of(number, journal, self.plan.order_rules()) {
                    Missing::DoesNotExist => {
                        return line.reply(self.run.node, caller, Ok(Response::NoSuchOrder));
                    }
                    Missing::Unknown => {
                        return line.reply(self.run.node, caller, Err(Failure::Unavailable));
                    }
                    Missing::InJournal { rows } => {
                        self.missing.insert(lookup, (caller, number));
                        let request = Request::ReadRows {
                            from: number,
                            previous: None,
                            rows_max: 1,
                        };
                        let purpose = Purpose::FetchOne(lookup);
                        line.call(self.run, Node::Catalog, request, JOURNAL_TIMEOUT, purpose);
                        Event::Heard(rows)
                    }
                }
            }
            Purpose::FetchOne(lookup) => {
                let Some((caller, number)) = self.missing.remove(&lookup) else {
                    return;
                };
                let row = rows(told).ok().and_then(|rows| rows.into_iter().next());
                let row = row.filter(|row| row.number == number);
                let told = row.map(Response::Row).ok_or(Failure::Unavailable);
                return line.reply(self.run.node, caller, told);
            }
            other => unreachable!("a replica does not call for {other:?}"),
        };
        self.step(line, oracle, Some(event));
    }

    /// The catalog is about to commit rows of a call's.
    pub fn proposed(
        &mut self,
        line: &mut Timeline,
        oracle: &mut Oracle,
        call: CallId,
        rows: Vec<Row>,
    ) {
        self.step(line, oracle, Some(Event::Proposed { call, rows }));
    }

    /// The disk gets round to what was to be saved.
    pub fn disk_done(&mut self, line: &mut Timeline, oracle: &mut Oracle) -> Result<(), Ended> {
        let Some(group) = self.saving.take() else {
            return Ok(());
        };
        let written = write(&mut self.store, &group);
        if self.disk.is_dead() {
            return Err(Ended);
        }
        let event = written.map_err(|_| Ended)?;
        if let Event::Stored(_) = &event {
            holds(oracle, self.id, &self.store);
        }
        self.step(line, oracle, Some(event));
        Ok(())
    }

    /// Tells the core something, and does what it wants done.
    fn step(&mut self, line: &mut Timeline, oracle: &mut Oracle, event: Option<Event>) {
        let now = line.clock(self.run.node);
        for command in self.core.step(now, event) {
            self.execute(line, oracle, command);
        }
        if self.saving.is_none()
            && let Some(first) = self.saves.pop_front()
        {
            self.saving = Some(gather(first, || self.saves.pop_front()));
            let latency = line.disk_latency(self.run.node);
            line.after(latency, Happening::DiskDone(self.run));
        }
    }

    fn execute(&mut self, line: &mut Timeline, oracle: &mut Oracle, command: Command) {
        let node = self.run.node;
        match command {
            Command::Save(save) => self.saves.push_back(save),
            Command::AskCatalog => self.ask(line),
            Command::Report(Report::FollowerLostRows { peer, .. }) if oracle.has_lost(peer) => {}
            wrong @ (Command::Fail(_) | Command::ReportMissing(_)) => {
                panic!("replica {} disbelieves: {wrong:?}", self.id)
            }
            Command::AnswerPlace { ticket, answer } => {
                let (caller, order) = self.places.remove(&ticket).expect("answered once");
                if let Ok(Placed::Number(number)) = answer {
                    oracle.acknowledge(self.id, &order, number);
                }
                let told = answer
                    .map(Response::Placed)
                    .map_err(|_: Unavailable| Failure::Unavailable);
                line.reply(node, caller, told);
            }
            Command::AnswerAnnounce { ticket, answer } => {
                let caller = self.announces.remove(&ticket).expect("answered once");
                let told = answer.map(Response::Status).map_err(failure);
                line.reply(node, caller, told);
            }
            Command::AnswerAppend { ticket, answer } => {
                let caller = self.appends.remove(&ticket).expect("answered once");
                let told = answer.map(Response::Held).map_err(failure);
                line.reply(node, caller, told);
            }
            Command::Report(
                damage @ (Report::Broken { .. }
                | Report::CatalogLostRows { .. }
                | Report::FollowerDiverged { .. }
                | Report::FollowerLostRows { .. }),
            ) => panic!("replica {} believes in damage: {damage:?}", self.id),
            Command::Report(report) => {
                line.note(20, Some(node), || format!("{node:?}: {report:?}"));
            }
            call => self.call(line, call),
        }
    }

    fn call(&mut self, line: &mut Timeline, command: Command) {
        let (to, request, timeout, purpose) = match command {
            Command::Trade {
                call,
                epoch,
                orders,
            } => (
                Node::Catalog,
                Request::Trade { epoch, orders },
                TRADE_TIMEOUT,
                Purpose::Trade(call),
            ),
            Command::SetInSync {
                call,
                epoch,
                change,
                in_sync,
            } => (
                Node::Catalog,
                Request::SetInSync {
                    epoch,
                    change,
                    in_sync,
                },
                SET_IN_SYNC_TIMEOUT,
                Purpose::SetInSync(call),
            ),
            Command::Fetch {
                call,
                source,
                from,
                previous,
                rows_max,
            } => {
                let (to, timeout) = match source {
                    Source::Journal => (Node::Catalog, JOURNAL_TIMEOUT),
                    Source::Peer(peer) => (Node::Replica(peer), FETCH_TIMEOUT),
                };
                let request = Request::ReadRows {
                    from,
                    previous: Some(previous),
                    rows_max,
                };
                (to, request, timeout, Purpose::Fetch(call))
            }
            Command::Append {
                call,
                peer,
                epoch,
                shipment,
                committed,
            } => {
                let rows = match shipment {
                    Shipment::Rows(rows) => Ok(rows),
                    Shipment::Stored { from, rows_max } => {
                        let rows = self.reader.rows(from, rows_max);
                        rows.map(|mut rows| {
                            rows.retain(|row| row.number < committed);
                            rows
                        })
                    }
                };
                let purpose = Purpose::Append(call, peer);
                let request = Request::Append {
                    epoch,
                    leader: self.id,
                    rows: rows.expect("what is durable can be read"),
                    committed,
                };
                (Node::Replica(peer), request, APPEND_TIMEOUT, purpose)
            }
            other => unreachable!("not a call: {other:?}"),
        };
        line.call(self.run, to, request, timeout, purpose);
    }
}

fn holds(oracle: &mut Oracle, id: ReplicaId, store: &SqliteStore) {
    let beside = store.continuing().expect("the disk is well");
    oracle.replica_holds(id, &store.durable(), beside);
}

/// All replicas.
pub fn ids() -> impl Iterator<Item = ReplicaId> {
    (1..=REPLICAS).filter_map(ReplicaId::new)
}

/// Opens a replica's database on a disk.
pub fn open(disk: &Disk, vfs: &'static Vfs) -> Result<SqliteStore, StorageError> {
    SqliteStore::open_in(DataDir::simulated(&disk.path(), vfs))
}

/// Puts another bazaar's ledger on a disk.
pub fn make_foreign(disk: &Disk, vfs: &'static Vfs) {
    let mut store = open(disk, vfs).expect("the disk is well");
    let order = Order {
        key: IdempotencyKey::new("another's").expect("a key"),
        name: StockName::new("amc").expect("a name"),
        side: Side::Sell,
        quantity: Quantity::new(1).expect("a quantity"),
    };
    let price = Price::from_minor(1).expect("a price");
    let row = Row::following(&ChainHash::EMPTY, OrderNumber(0), Epoch(1), order, price);
    let identity = Identity {
        journal: JournalId::new([2; JournalId::BYTES]),
        ..IDENTITY
    };
    let save = Save {
        identity: Some(identity),
        rows: vec![row],
        ..Save::default()
    };
    store.save(&save).expect("the disk is well");
}

fn failure(refused: Refused) -> Failure {
    match refused {
        Refused::Stale { .. } | Refused::LeadsNoMore { .. } => Failure::Fenced,
        Refused::Unconfirmed { .. }
        | Refused::OtherLeader { .. }
        | Refused::StoreFailed
        | Refused::Broken { .. } => Failure::Refused,
    }
}

fn call_failure(failure: Failure) -> CallFailure {
    match failure {
        Failure::Fenced => CallFailure::Fenced,
        Failure::Beyond => CallFailure::Beyond,
        Failure::Differs => CallFailure::Differs,
        Failure::Refused | Failure::Unavailable | Failure::TimedOut => CallFailure::Failed,
    }
}

fn outcomes(told: Told) -> Result<Vec<Outcome>, CallFailure> {
    let Response::Traded(results) = told.map_err(call_failure)? else {
        unreachable!("a trade is answered with results")
    };
    let outcome = |result| match result {
        TradeResult::Row(row) => Outcome::Row(row),
        TradeResult::Refused(refusal) => Outcome::Refused(refusal),
    };
    Ok(results.into_iter().map(outcome).collect())
}

fn head(told: Told) -> Result<Head, CallFailure> {
    let Response::Leadership(leadership) = told.map_err(call_failure)? else {
        unreachable!("who leads is answered with who leads")
    };
    let term = Term {
        epoch: leadership.term.epoch,
        leader: leadership.term.leader,
    };
    Ok(Head {
        term,
        end: leadership.end,
    })
}

fn rows(told: Told) -> Result<Vec<Row>, CallFailure> {
    let Response::Rows(rows) = told.map_err(call_failure)? else {
        unreachable!("rows are answered with rows")
    };
    Ok(rows)
}

fn held(told: Told) -> Result<LedgerEnd, CallFailure> {
    let Response::Held(end) = told.map_err(call_failure)? else {
        unreachable!("an append is answered with what is held")
    };
    Ok(end)
}
