//! An order replica's process: its shipped core and store.
//!
//! - [`join`]: its start;
//! - [`asker`]: its question to the catalog;
//! - [`lookup`]: orders that are looked for;
//! - here: what it is asked, told and wakes for, and what its core wants done;
//! - [`calls`]: the calls that its core wants made, and what it makes of answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use domain::{Entry, JournalId, OrderNumber, ReplicaId, Row, RowNumber};
use order::store::saves::write;
use order::store::{ReadRows, SqliteStore, Store};
use order_core::catch_up::CHUNK_ROWS;
use order_core::durable::{Save, gather};
use order_core::message::{CallId, Refused, Report, Ticket, Unavailable};
use order_core::{
    Asker, Command, Event, Failure as Refuted, Join, Replica as Core, Status, asker as question,
    join as start, lookup as search,
};
use simulated_disk::Disk;
use storage::location::Vfs;
use storage::{DataDir, StorageError};

use crate::catalog::{Ended, JOURNAL};
use crate::effects::Effect;
use crate::messages::{Caller, FORGED, Failure, Node, Purpose, Request, Response, Run, Told};
use crate::oracle::Oracle;
use crate::plan::{Plan, REPLICAS};
use crate::stranger;
use crate::timeline::{Happening, Time, Timeline};

mod join;
mod asker;
mod lookup;
mod calls;

use calls::{failure, heard, held, outcomes, reported, rows};
use lookup::LookedFor;

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
    places: BTreeMap<Ticket, (Caller, Entry)>,
    announces: BTreeMap<Ticket, Caller>,
    appends: BTreeMap<Ticket, Caller>,
    lookups: BTreeMap<u64, LookedFor>,
    join: Join,
    /// Until when its start waits, while it does.
    waits_until: Option<Time>,
    /// Whose journal's copy its ledger is. `None` while it is yet to be compared with the journal:
    /// nothing of it is served.
    journal: Option<JournalId>,
    /// Once it has joined.
    asker: Option<Asker>,
    /// Who speaks of an epoch that is not known here: told the core once the catalog has been asked.
    claimants: BTreeMap<Ticket, (Caller, Request)>,
    /// How many rows are to be here before anything is served.
    copies: Option<RowNumber>,
    /// How many rows the journal had that it lacked, where that was more than one answer has.
    far_behind: Option<RowNumber>,
    /// A catalog that has started is being told what is here.
    is_reporting: bool,
    /// The disk did not take what it was to begin with.
    failed: bool,
    /// Its disk is not as it was written.
    damaged: bool,
    /// Why it must not be believed.
    refuted: Option<Refuted>,
}

impl Replica {
    /// Starts on what the disk holds. `is_copy` where its ledger was set aside, and is to be copied
    /// anew.
    pub fn start(
        line: &mut Timeline,
        oracle: &mut Oracle,
        plan: &Plan,
        id: ReplicaId,
        disk: &Disk,
        is_copy: bool,
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
            lookups: BTreeMap::new(),
            join: Join::new(false, is_copy),
            waits_until: None,
            journal: None,
            asker: None,
            claimants: BTreeMap::new(),
            copies: None,
            far_behind: None,
            is_reporting: false,
            failed: false,
            damaged: false,
            refuted: None,
        };
        replica.join(line, oracle, start::Input::Ready);
        Ok(replica)
    }

    fn read(&mut self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let read = self.reader.rows(from, rows_max);
        self.note_damage(&read);
        read
    }

    fn read_order(&mut self, number: OrderNumber) -> Result<Option<Row>, StorageError> {
        let read = self.reader.order(number);
        self.note_damage(&read);
        read
    }

    fn note_damage<T>(&mut self, result: &Result<T, StorageError>) {
        self.damaged |= matches!(result, Err(error) if error.is_damage());
    }

    fn is_joining(&self) -> bool {
        self.asker.is_none()
    }

    /// Whether it is there for others.
    pub fn serves(&self) -> bool {
        !self.is_joining() && self.copies.is_none()
    }

    /// Which journal it keeps a copy of, where it knows.
    pub fn journal(&self) -> Option<JournalId> {
        self.journal
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
        let asker = self.asker.as_ref().and_then(Asker::wake);
        let clocked = [core, asker].into_iter().flatten();
        let clocked = clocked.map(|at| line.when(self.run.node, at));
        let waits = [self.waits_until, self.lookups_wait_until()];
        clocked.chain(waits.into_iter().flatten()).min()
    }

    pub fn woken(&mut self, line: &mut Timeline, oracle: &mut Oracle) {
        if self.waits_until.take_if(|at| *at <= line.now()).is_some() {
            self.join(line, oracle, start::Input::Ready);
        }
        if !self.is_joining() {
            self.ask(line, oracle, None);
            self.look_up_waiting(line, oracle);
            self.step(line, oracle, None);
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
        if let Some(epoch) = epoch
            && !question::is_known(epoch, &self.core.status())
        {
            self.last += 1;
            let ticket = Ticket(self.last);
            self.claimants.insert(ticket, (caller, request));
            let claim = question::Input::Claim { ticket, epoch };
            return self.ask(line, oracle, Some(claim));
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
            Request::Get(number) => return self.get(line, oracle, caller, number),
            other => unreachable!("a replica is not asked for {other:?}"),
        };
        self.step(line, oracle, Some(event));
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
            Purpose::Compare => {
                let compared = start::Input::Compared(rows(told).map(drop));
                return self.join(line, oracle, compared);
            }
            Purpose::JournalHead => {
                let answered = question::Input::Answered(heard(told));
                return self.ask(line, oracle, Some(answered));
            }
            Purpose::Report(run) => return self.wanted(line, oracle, run, told),
            Purpose::ReportMissing(number) => {
                return self.reported(line, oracle, number, reported(told));
            }
            Purpose::Trade(call) => Event::Traded {
                call,
                result: outcomes(told),
            },
            Purpose::SetInSync(call) => Event::InSyncSet {
                call,
                result: heard(told).map(|heard| heard.head),
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
                let looked = search::Input::CatalogSaid {
                    answer: heard(told),
                    held: self.core.status().end.rows,
                };
                return self.look_up(line, oracle, lookup, looked);
            }
            Purpose::FetchOne(lookup) => {
                let fetched = search::Input::Fetched(rows(told));
                return self.look_up(line, oracle, lookup, fetched);
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
        if self.core.status().reaches_catalog {
            self.look_up_waiting(line, oracle);
        }
    }

    fn execute(&mut self, line: &mut Timeline, oracle: &mut Oracle, command: Command) {
        let node = self.run.node;
        match command {
            Command::Save(save) => self.saves.push_back(save),
            Command::AskCatalog => self.ask(line, oracle, Some(question::Input::Hurry)),
            Command::ReportLedger { run, end, term, .. } => {
                self.report(line, oracle, run, (end, term));
            }
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
                if let Ok(placed) = answer {
                    oracle.acknowledge(self.id, &order, placed);
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
