//! An order replica's process: its shipped core and store.
//!
//! - [`join`]: its start;
//! - here: what it is asked, told and wakes for, and what its core wants done;
//! - [`calls`]: the calls that its core wants made, and what it makes of answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use domain::{Identity, JournalId, LedgerEnd, Order, OrderNumber, ReplicaId, Row};
use order::store::saves::write;
use order::store::{ReadRows, SqliteStore, Store};
use order_core::catch_up::CHUNK_ROWS;
use order_core::durable::{Save, gather};
use order_core::message::{CallId, Placed, Refused, Report, Ticket, Unavailable};
use order_core::timing::{
    APPEND_TIMEOUT, CONFIRM_TIMEOUT, FETCH_TIMEOUT, HEAD_INTERVAL, HEAD_RETRY, HEAD_TIMEOUT,
    JOIN_RETRY, JOIN_TIMEOUT, JOURNAL_TIMEOUT, SET_IN_SYNC_TIMEOUT, TRADE_TIMEOUT,
};
use order_core::{
    Command, Event, Failure as Refuted, JournalEnd, Missing, Replica as Core, Status,
};
use simulated_disk::Disk;
use storage::database::Vfs;
use storage::{DataDir, StorageError};

use crate::catalog::{Ended, JOURNAL};
use crate::effects::Effect;
use crate::messages::{
    Caller, FORGED, Failure, Ledger, Node, Purpose, Request, Response, Run, Said, Told,
};
use crate::oracle::Oracle;
use crate::plan::{Plan, REPLICAS};
use crate::stranger;
use crate::timeline::{Happening, Time, Timeline};

mod join;
mod calls;

use calls::{failure, head, head_of, held, outcomes, rows, said};

/// More rows than one answer to a fetch has.
pub const FAR_BEHIND_ROWS: u64 = CHUNK_ROWS as u64;

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
    /// Whose journal's copy its ledger is. `None` while it is yet to be compared with the journal:
    /// nothing of it is served.
    identity: Option<Identity>,
    /// It is to be copied anew; and how many rows are to be here before anything is served.
    rebuilds: bool,
    copies: Option<OrderNumber>,
    /// How many rows the journal had that it lacked, where that was more than one answer has.
    far_behind: Option<OrderNumber>,
    /// The disk did not take what it was to begin with.
    failed: bool,
    /// Its disk is not as it was written.
    damaged: bool,
    /// Why it must not be believed.
    refuted: Option<Refuted>,
    /// What the ledger is being compared with.
    said: Option<Said>,
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
        rebuilds: bool,
    ) -> Result<Self, StorageError> {
        let store = open(disk, plan.vfs())?;
        holds(oracle, id, &store)?;
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
            identity: None,
            rebuilds,
            copies: None,
            far_behind: None,
            failed: false,
            damaged: false,
            refuted: None,
            said: None,
            unconfirmed: Vec::new(),
            asking: None,
            head_at: line.now(),
        };
        replica.join(line);
        Ok(replica)
    }

    fn read(&mut self, from: OrderNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let read = self.reader.rows(from, rows_max);
        self.note_damage(&read);
        read
    }

    fn note_damage<T>(&mut self, result: &Result<T, StorageError>) {
        self.damaged |= matches!(result, Err(error) if error.is_damage());
    }

    fn is_joining(&self) -> bool {
        self.identity.is_none()
    }

    /// Whether it is there for others.
    pub fn serves(&self) -> bool {
        !self.is_joining() && self.copies.is_none()
    }

    /// Which journal it keeps a copy of, where it knows.
    pub fn journal(&self) -> Option<JournalId> {
        self.identity.map(|identity| identity.journal)
    }

    /// Whether its process is to end.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether it found that its disk is not as it was written.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Why it must not be believed, where that was found.
    pub fn refuted(&self) -> Option<Refuted> {
        self.refuted
    }

    /// When it has something to do by itself.
    pub fn wake(&self, line: &Timeline) -> Option<Time> {
        let core = self.core.wake().filter(|_| !self.is_joining());
        let core = core.map(|at| line.when(self.run.node, at));
        core.into_iter().chain([self.head_at]).min()
    }

    pub fn woken(&mut self, line: &mut Timeline, oracle: &mut Oracle) {
        if self.is_joining() {
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
        let Status { end, tail, .. } = self.core.status();
        self.asking = Some(end);
        self.head_at = Time::MAX;
        for claim in &mut self.unconfirmed {
            claim.asked = true;
        }
        let ledger = Some(Ledger {
            replica: self.id,
            end: tail,
            asked: line.run(Node::Catalog).number,
        });
        let request = Request::GetLeadership { ledger };
        line.call(
            self.run,
            Node::Catalog,
            request,
            HEAD_TIMEOUT,
            Purpose::JournalHead,
        );
    }

    /// The catalog said who leads, or nothing.
    fn heard(&mut self, line: &mut Timeline, oracle: &mut Oracle, told: Told) {
        let held = self.asking.take().expect("it was asked");
        // An answer about another journal is none.
        let own = self.identity.expect("it has joined");
        let said = said(told).ok();
        let said = said.filter(|said| said.identity.journal == own.journal);
        if let Some(said) = said.as_ref().filter(|said| self.is_news(said.identity)) {
            self.saves.push_back(Save {
                identity: Some(said.identity),
                ..Save::default()
            });
        }
        let head = said.as_ref().map(head_of);
        let answered = head.is_some();
        let pause = if answered { HEAD_INTERVAL } else { HEAD_RETRY };
        self.head_at = line.now() + pause;
        self.step(line, oracle, Some(Event::JournalHead { head, held }));
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
        if !self.serves() {
            return line.break_call(caller.call, Duration::from_micros(200)); // nobody listens
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
                let journal = self.journal().expect("it has joined");
                let told = Ok(Response::Status(self.core.status(), journal));
                return line.reply(self.run.node, caller, told);
            }
            Request::ReadRows { from, rows_max, .. } => {
                let rows = self.read(from, rows_max);
                let told = rows.map(Response::Rows).map_err(|_| Failure::Unavailable);
                return line.reply(self.run.node, caller, told);
            }
            Request::Get(number) => return self.get(line, caller, number),
            other => unreachable!("a replica is not asked for {other:?}"),
        };
        self.step(line, oracle, Some(event));
    }

    fn get(&mut self, line: &mut Timeline, caller: Caller, number: OrderNumber) {
        let told = match self.read(number, 1) {
            Ok(rows) => match rows.into_iter().next() {
                Some(row) => Ok(Response::Row(row)),
                None if let Some(row) = self.core.find(number) => Ok(Response::Row(row.clone())),
                None => {
                    self.missing.insert(self.last, (caller, number));
                    let purpose = Purpose::Confirm(self.last);
                    let request = Request::GetLeadership { ledger: None };
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
            Purpose::Join => return self.compare(line, oracle, told),
            Purpose::Compare => return self.compared(line, oracle, told),
            Purpose::JournalHead => return self.heard(line, oracle, told),
            Purpose::ReportMissing(number) => {
                // The row does not follow the journal's last: it went on without those that it lost.
                if told.is_err_and(|failure| failure == Failure::NotMissing) {
                    self.refuted = Some(Refuted::Differs { rows: number });
                }
                return;
            }
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
                let journal = said(told).ok().map(|said| JournalEnd {
                    end: said.leadership.end,
                    ledgers_checked: said.ledgers_checked,
                });
                let held = self.core.status().end.rows;
                match Missing::of(number, held, journal, self.plan.order_rules()) {
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
        self.note_damage(&written);
        let event = written.map_err(|_| Ended)?;
        if let Event::Stored(_) = &event {
            let held = holds(oracle, self.id, &self.store);
            self.note_damage(&held);
        }
        let rows = self.store.durable().end.rows;
        self.copies.take_if(|copies| *copies <= rows);
        if self.far_behind.take_if(|end| *end <= rows).is_some() {
            line.came(Effect::FarBehindCaughtUp);
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
            Command::ReportMissing(number) if oracle.was_apart() => {
                self.report_missing(line, number);
            }
            Command::Fail(failure) if oracle.was_apart() => self.refuted = Some(failure),
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
                let journal = self.journal().expect("it has joined");
                let told = answer.map(|status| Response::Status(status, journal));
                note_forgery(line, caller, told.as_ref().err());
                let told = told.map_err(failure);
                line.reply(node, caller, told);
            }
            Command::AnswerAppend { ticket, answer } => {
                let caller = self.appends.remove(&ticket).expect("answered once");
                note_forgery(line, caller, answer.as_ref().err());
                let told = answer.map(Response::Held).map_err(failure);
                line.reply(node, caller, told);
            }
            Command::Report(
                damage @ (Report::Broken { .. }
                | Report::CatalogLostRows { .. }
                | Report::FollowerDiverged { .. }
                | Report::FollowerLostRows { .. }),
            ) if !oracle.was_apart() => {
                panic!("replica {} believes in damage: {damage:?}", self.id)
            }
            Command::Report(report) => {
                line.note(20, Some(node), || format!("{node:?}: {report:?}"));
            }
            call => self.call(line, call),
        }
    }
}

fn holds(oracle: &mut Oracle, id: ReplicaId, store: &SqliteStore) -> Result<(), StorageError> {
    let identity = store.identity();
    if identity.is_some_and(|identity| identity.journal != JOURNAL) {
        return Ok(());
    }
    let beside = store.continuing()?;
    oracle.replica_holds(id, &store.durable(), beside);
    Ok(())
}

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
    let save = Save {
        identity: Some(stranger::IDENTITY),
        rows: stranger::rows(),
        ..Save::default()
    };
    store.save(&save).expect("the disk is well");
}

fn note_forgery(line: &mut Timeline, caller: Caller, refused: Option<&Refused>) {
    if caller.call == FORGED && matches!(refused, Some(Refused::Unconfirmed { .. })) {
        line.came(Effect::ForgeryRefused);
    }
}
