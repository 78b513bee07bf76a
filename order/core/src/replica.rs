//! A replica: follower, leader-elect or leader.

mod catch_up;
mod activation;
mod leadership;

use std::hash::{Hash, Hasher};
use std::time::Duration;

use domain::time::BootTime;
use domain::{
    CatalogRun, ChangeNumber, Entry, Epoch, OrderNumber, ReplicaId, Role, Row, RowNumber, Term,
};

use super::ablation::{Rule, Rules};
use super::catch_up::{CHUNK_ROWS, CatchUp};
use super::followers::Followers;
use super::in_flight::InFlightOrders;
use super::message::{
    CallId, Calls, Command, Event, Refused, Report, Sender, Status, StepDown, Ticket, Unavailable,
};
use super::recent_rows::Recent;
use super::replica_log::{AppendRejected, ReplicaLog};
use crate::durable::{Durable, Save};

pub use catch_up::{FOLLOWER_PATIENCE, LEADER_PATIENCE};

/// Rows on their way to the disk; with more, no further ones are asked for.
pub const UNSAVED_ROWS_MAX: u64 = 2 * CHUNK_ROWS as u64;

/// How long committed rows that are on the disk as proposed ones wait to be saved in the ledger.
pub const FLUSH_DELAY: Duration = Duration::from_millis(10);

/// With so many of them, they are saved as soon as anything else is.
const SETTLE_ROWS: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    id: ReplicaId,
    peers: Vec<ReplicaId>,
    log: ReplicaLog,
    role: RoleState,
    catch_up: CatchUp,
    /// The journal holds at least so many rows.
    known: RowNumber,
    /// When rows that wait to be saved in the ledger have waited long enough.
    flush_at: Option<BootTime>,
    /// Since when the ledger lacks known rows and has ended where it does.
    behind: Option<Behind>,
    appends: Vec<AppendCaller>,
    announces: Vec<AnnounceCaller>,
    reaches_catalog: bool,
    /// The journal was last seen to end before the ledger does.
    catalog_lost_rows: bool,
    feeding: Feeding,
    calls: Calls,
    commands: Vec<Command>,
    rules: Rules,
}

/// How its calls are numbered is left out, see [`Replica::awaited`].
impl Hash for Replica {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            id,
            peers,
            log,
            role,
            catch_up,
            known,
            flush_at,
            behind,
            appends,
            announces,
            reaches_catalog,
            catalog_lost_rows,
            feeding,
            calls: _,
            commands,
            rules,
        } = self;
        assert!(commands.is_empty(), "every step hands out its commands");
        (id, peers, log, role, catch_up, known).hash(state);
        (
            flush_at,
            behind,
            appends,
            announces,
            reaches_catalog,
            catalog_lost_rows,
            feeding,
            rules,
        )
            .hash(state);
    }
}

/// Whether rows of the term that is known are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Feeding {
    /// The catalog was not heard since the start: what a leader sends may be what a replica reported not to have.
    Unasked,
    /// What is here was reported to that run of the catalog, which may rely on it that nothing of before comes.
    LetGo(CatalogRun),
    /// They are.
    Open,
}

/// What the replica is in the term that it knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum RoleState {
    Follower,
    Activating(Activation),
    Leader(Box<Leadership>),
}

/// A leader-elect catches up, makes what it got durable, and has the catalog confirm it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Activation {
    confirm: Option<CallId>,
    /// The number of the last change of the in-sync set asked for.
    last_change: ChangeNumber,
    try_at: BootTime,
    failures: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Leadership {
    trades: InFlightOrders,
    recent: Recent,
    followers: Followers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Behind {
    tail: RowNumber,
    since: BootTime,
}

/// Waits until so many rows, and the term, are durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct AppendCaller {
    ticket: Ticket,
    rows: RowNumber,
    epoch: Epoch,
}

/// Waits until the term is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct AnnounceCaller {
    ticket: Ticket,
    epoch: Epoch,
}

impl Replica {
    /// A replica that starts with this on its disk. It catches up by itself, and follows, even
    /// where it led before: rows that it had committed then may be missing here.
    /// `proposed` are the rows there that continue the ledger.
    pub fn new(
        id: ReplicaId,
        peers: Vec<ReplicaId>,
        (durable, proposed): (Durable, Vec<Row>),
        now: BootTime,
    ) -> Self {
        assert!(!peers.contains(&id), "replica {id} is not its own peer");
        let mut catch_up = CatchUp::new(peers.clone());
        catch_up.restart(now);
        Self {
            id,
            peers,
            log: ReplicaLog::new(durable, proposed),
            role: RoleState::Follower,
            catch_up,
            known: durable.end.rows,
            flush_at: None,
            behind: None,
            appends: Vec::new(),
            announces: Vec::new(),
            reaches_catalog: false,
            catalog_lost_rows: false,
            feeding: Feeding::Unasked,
            calls: Calls::default(),
            commands: Vec::new(),
            rules: Rules::default(),
        }
    }

    /// The same replica without a protective rule.
    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Takes in what happened until `now` and returns what is to be done. Several events at once
    /// make for larger batches than one by one. Without events: time has passed.
    pub fn step(&mut self, now: BootTime, events: impl IntoIterator<Item = Event>) -> Vec<Command> {
        for event in events {
            self.handle(now, event);
        }
        self.notice_succession();
        self.answer_durable();
        match self.role {
            RoleState::Follower => {}
            RoleState::Activating(_) => self.confirm(now),
            RoleState::Leader(_) => self.lead(now),
        }
        self.flush_promoted(now);
        self.detect_gap(now);
        self.fetch(now);
        std::mem::take(&mut self.commands)
    }

    /// When to call [`Replica::step`] even if nothing happens.
    pub fn wake(&self) -> Option<BootTime> {
        let fetch = self.catch_up.wake().filter(|_| self.may_fetch());
        let gap = self.behind.map(|behind| behind.since + self.patience());
        let role = match &self.role {
            RoleState::Follower => None,
            RoleState::Activating(activation) => {
                Some(activation.try_at).filter(|_| self.is_ready())
            }
            RoleState::Leader(leadership) => leadership.followers.wake(),
        };
        [fetch, gap, role, self.flush_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The replica from outside.
    pub fn status(&self) -> Status {
        let role = match self.role {
            RoleState::Follower => Role::Follower,
            RoleState::Activating(_) => Role::Activating,
            RoleState::Leader(_) => Role::Leader,
        };
        let end = self.log.durable().end;
        Status {
            id: self.id,
            role,
            term: self.log.term(),
            end,
            reaches_catalog: self.reaches_catalog,
            takes_rows: self.takes_rows(),
        }
    }

    /// The journal holds at least so many rows.
    pub fn known(&self) -> RowNumber {
        self.known
    }

    /// The row of an order that is committed, and durable though not yet in the ledger on the disk.
    pub fn find(&self, number: OrderNumber) -> Option<&Row> {
        self.log.find(number)
    }

    /// Whether it leads, and one order waits for its answer.
    pub fn has_one_order(&self) -> bool {
        matches!(&self.role, RoleState::Leader(leadership) if leadership.trades.waiting() == 1)
    }

    /// The calls whose results it waits for, in an order that does not depend on how they are
    /// numbered, but for that of several trades.
    pub fn awaited(&self) -> Vec<CallId> {
        let mut calls = Vec::from_iter(self.catch_up.awaited());
        match &self.role {
            RoleState::Follower => {}
            RoleState::Activating(activation) => calls.extend(activation.confirm),
            RoleState::Leader(leadership) => {
                calls.extend(leadership.followers.awaited());
                calls.extend(leadership.trades.awaited());
            }
        }
        calls
    }

    fn handle(&mut self, now: BootTime, event: Event) {
        match event {
            Event::Place { ticket, order } => self.place(ticket, order),
            Event::Announce {
                ticket,
                epoch,
                leader,
            } => self.announce(now, ticket, epoch, leader),
            Event::Append {
                ticket,
                epoch,
                leader,
                rows,
                committed,
            } => self.append(now, ticket, (epoch, leader), (rows, committed)),
            Event::Stored(durable) => self.log.stored(durable),
            Event::StoreFailed(durable) => self.store_failed(now, durable),
            Event::JournalHead { head, held } => self.head(now, head, held),
            Event::CatalogHeals(run) => self.report_to(run),
            Event::Heard(rows) => self.known = self.known.max(rows),
            Event::Proposed { call, rows } => self.proposed(call, rows),
            Event::Traded { call, result } => self.traded(now, call, result),
            Event::InSyncSet { call, result } => self.in_sync_set(now, call, result),
            Event::Fetched { call, result } => self.fetched(now, call, result),
            Event::Appended { call, peer, result } => self.appended(now, (call, peer), result),
        }
    }
}

/// What callers ask for.
impl Replica {
    fn place(&mut self, ticket: Ticket, order: Entry) {
        let unavailable = match &mut self.role {
            RoleState::Leader(leadership) => {
                return leadership.trades.place(ticket, order, &mut self.commands);
            }
            RoleState::Activating(_) => Unavailable::Activating,
            RoleState::Follower => Unavailable::NotLeading,
        };
        self.commands.push(Command::AnswerPlace {
            ticket,
            answer: Err(unavailable),
        });
    }

    fn announce(&mut self, now: BootTime, ticket: Ticket, epoch: Epoch, leader: ReplicaId) {
        let met = self
            .meet(now, epoch, leader)
            .and_then(|()| match self.role {
                RoleState::Follower if leader == self.id => Err(Refused::LeadsNoMore { epoch }),
                _ => Ok(()),
            });
        match met {
            Ok(()) => self.announces.push(AnnounceCaller { ticket, epoch }),
            Err(refused) => self.commands.push(Command::AnswerAnnounce {
                ticket,
                answer: Err(refused),
            }),
        }
    }

    fn append(
        &mut self,
        now: BootTime,
        ticket: Ticket,
        (epoch, leader): (Epoch, ReplicaId),
        (rows, committed): (Vec<Row>, RowNumber),
    ) {
        let end = rows.last().map_or(RowNumber(0), |last| last.number.next());
        let met = if leader == self.id {
            Err(Refused::OtherLeader { epoch })
        } else {
            self.meet(now, epoch, leader).and_then(|()| {
                let takes = self.takes_rows();
                takes.then_some(()).ok_or(Refused::LetGo { epoch })
            })
        };
        // A leader has no rows of an epoch after its own.
        let later = rows.iter().find(|row| row.epoch > epoch);
        let later = later.map(|row| AppendRejected::Broken(row.number));
        let taken =
            met.and_then(
                |()| match later.map_or_else(|| self.follow(rows, committed), Err) {
                    Ok(()) => Ok(end),
                    Err(AppendRejected::Gap) => Ok(RowNumber(0)),
                    Err(AppendRejected::Broken(number)) => {
                        self.report_broken(Sender::Replica(leader), number);
                        Err(Refused::Broken { number })
                    }
                },
            );
        match taken {
            Ok(rows) => self.appends.push(AppendCaller {
                ticket,
                rows,
                epoch,
            }),
            Err(refused) => self.commands.push(Command::AnswerAppend {
                ticket,
                answer: Err(refused),
            }),
        }
    }

    /// Takes what the leader says is committed into the ledger, and what it proposes beside it.
    fn follow(&mut self, mut rows: Vec<Row>, committed: RowNumber) -> Result<(), AppendRejected> {
        self.known = self.known.max(committed);
        self.log.promote(committed);
        let proposed = rows.partition_point(|row| row.number < committed);
        let proposed = rows.split_off(proposed);
        self.log.take(rows)?;
        self.propose(proposed).map(drop)
    }

    /// Somebody says who leads, which is to be what the catalog said.
    fn meet(&mut self, now: BootTime, epoch: Epoch, leader: ReplicaId) -> Result<(), Refused> {
        if epoch > self.log.term().epoch && !self.rules.keep(Rule::ConfirmedEpoch) {
            let leader = Some(leader);
            self.enter(now, Term { epoch, leader });
        }
        let known = self.log.term();
        if epoch < known.epoch {
            return Err(Refused::Stale { known: known.epoch });
        }
        if epoch > known.epoch {
            return Err(Refused::Unconfirmed {
                epoch,
                known: known.epoch,
            });
        }
        if known.leader != Some(leader) {
            return Err(Refused::OtherLeader { epoch });
        }
        if let Some(known) = self.log.over_by() {
            return Err(Refused::Stale { known });
        }
        if self.log.term_is_lost() {
            self.save_term();
        }
        Ok(())
    }

    /// A higher epoch has begun.
    fn enter(&mut self, now: BootTime, term: Term) {
        self.step_down(StepDown::Superseded);
        self.log.adopt(term);
        self.save_term();
        // Their rows may have been proposed in vain.
        self.refuse_appends(Refused::Stale { known: term.epoch });
        if term.leader == Some(self.id) {
            self.commands
                .push(Command::Report(Report::Activating { epoch: term.epoch }));
            self.role = RoleState::Activating(Activation {
                confirm: None,
                last_change: ChangeNumber::default(),
                try_at: now,
                failures: 0,
            });
            // What was asked before may have been answered before the last trade of the epoch before.
            self.catch_up.restart(now);
        }
    }

    fn step_down(&mut self, why: StepDown) {
        let epoch = self.log.term().epoch;
        match std::mem::replace(&mut self.role, RoleState::Follower) {
            RoleState::Follower => return,
            RoleState::Activating(_) => {}
            RoleState::Leader(leadership) => leadership.trades.abandon(&mut self.commands),
        }
        self.commands
            .push(Command::Report(Report::SteppedDown { epoch, why }));
    }

    /// Answers callers whose term and rows have become durable.
    fn answer_durable(&mut self) {
        let (durable, held) = (self.log.durable(), self.log.durable_end());
        let status = self.status();
        for caller in self
            .announces
            .extract_if(.., |caller| caller.epoch <= durable.term.epoch)
        {
            self.commands.push(Command::AnswerAnnounce {
                ticket: caller.ticket,
                answer: Ok(status),
            });
        }
        let is_durable = |caller: &mut AppendCaller| {
            caller.epoch <= durable.term.epoch && caller.rows <= held.rows
        };
        for caller in self.appends.extract_if(.., is_durable) {
            self.commands.push(Command::AnswerAppend {
                ticket: caller.ticket,
                answer: Ok(held),
            });
        }
    }
}

impl Replica {
    fn save_term(&mut self) {
        let term = self.log.save_term();
        self.commands.push(Command::Save(Save {
            term: Some(term),
            ..Save::default()
        }));
    }

    /// Takes rows that are proposed, and saves them; returns those that are new.
    fn propose(&mut self, rows: Vec<Row>) -> Result<Vec<Row>, AppendRejected> {
        let Some(last) = rows.last() else {
            return Ok(rows);
        };
        if !self.log.may_wait() || !self.log.has_room(last.number) {
            self.save_waiting();
        }
        let proposed = self.log.propose(rows)?;
        if !proposed.is_empty() {
            self.commands.push(Command::Save(Save {
                proposed: proposed.clone(),
                ..Save::default()
            }));
        }
        Ok(proposed)
    }

    /// Saves rows that the ledger has taken: at once, unless they are on the disk as proposed rows.
    /// Those are saved a few at a time together with others, or once they have waited.
    fn flush_promoted(&mut self, now: BootTime) {
        if self.log.waiting() == 0 {
            self.flush_at = None;
            return;
        }
        let at = *self.flush_at.get_or_insert(now + FLUSH_DELAY);
        let saves = |command: &Command| matches!(command, Command::Save(_));
        let enough = self.log.waiting() >= SETTLE_ROWS && self.commands.iter().any(saves);
        if at <= now || enough || !self.log.may_wait() {
            self.save_waiting();
        }
    }

    fn save_waiting(&mut self) {
        self.flush_at = None;
        let rows = self.log.take_waiting();
        if !rows.is_empty() {
            self.commands.push(Command::Save(Save {
                rows,
                ..Save::default()
            }));
        }
    }

    /// A row may have told that another epoch has begun: what was proposed in this one is void.
    fn notice_succession(&mut self) {
        if let Some(known) = self.log.over_by() {
            self.step_down(StepDown::Superseded);
            self.refuse_appends(Refused::Stale { known });
        }
    }

    /// Everybody who waits for rows waits in vain.
    fn refuse_appends(&mut self, why: Refused) {
        for AppendCaller { ticket, .. } in self.appends.drain(..) {
            self.commands.push(Command::AnswerAppend {
                ticket,
                answer: Err(why),
            });
        }
    }

    fn store_failed(&mut self, now: BootTime, durable: Durable) {
        self.log.store_failed(durable);
        self.step_down(StepDown::StoreFailed);
        self.catch_up.pause(now);
        self.answer_durable();
        for AnnounceCaller { ticket, .. } in self.announces.drain(..) {
            self.commands.push(Command::AnswerAnnounce {
                ticket,
                answer: Err(Refused::StoreFailed),
            });
        }
        for AppendCaller { ticket, .. } in self.appends.drain(..) {
            self.commands.push(Command::AnswerAppend {
                ticket,
                answer: Err(Refused::StoreFailed),
            });
        }
    }

    fn report_broken(&mut self, from: Sender, number: RowNumber) {
        let chain = self.log.accepted_end().chain;
        self.commands.push(Command::Report(Report::Broken {
            from,
            number,
            chain,
        }));
    }
}
