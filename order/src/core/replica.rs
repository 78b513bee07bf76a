//! A replica: follower, leader-elect or leader.

mod catching_up;
mod activating;
mod leading;

use std::hash::{Hash, Hasher};

use protocol::time::BootTime;
use protocol::{Epoch, Order, OrderNumber, ReplicaId, Row};

use super::catch_up::{CHUNK_ROWS, CatchUp};
use super::followers::Followers;
use super::message::{
    CallId, Calls, ChangeNumber, Command, Durable, Event, Refused, Report, RoleName, Sender,
    Status, StepDown, Term, Ticket, Unavailable,
};
use super::own::{NotTaken, Own};
use super::recent::Recent;
use super::rules::Rules;
use super::trades::Trades;

pub use catching_up::{FOLLOWER_PATIENCE, LEADER_PATIENCE};

/// Rows on their way to the disk; with more, no further ones are asked for.
pub const UNSAVED_ROWS_MAX: u64 = 2 * CHUNK_ROWS as u64;

/// One order replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    id: ReplicaId,
    peers: Vec<ReplicaId>,
    own: Own,
    role: Role,
    catch_up: CatchUp,
    /// The journal holds at least so many rows.
    known: OrderNumber,
    /// Since when the ledger lacks known rows and has ended where it does.
    behind: Option<Behind>,
    appends: Vec<AppendCaller>,
    announces: Vec<AnnounceCaller>,
    reaches_catalog: bool,
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
            own,
            role,
            catch_up,
            known,
            behind,
            appends,
            announces,
            reaches_catalog,
            calls: _,
            commands,
            rules,
        } = self;
        assert!(commands.is_empty(), "every step hands out its commands");
        (id, peers, own, role, catch_up, known).hash(state);
        (behind, appends, announces, reaches_catalog, rules).hash(state);
    }
}

/// What the replica is in the term that it knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Role {
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
    trades: Trades,
    recent: Recent,
    followers: Followers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Behind {
    tail: OrderNumber,
    since: BootTime,
}

/// Waits until so many rows, and the term, are durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct AppendCaller {
    ticket: Ticket,
    rows: OrderNumber,
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
    pub fn new(id: ReplicaId, peers: Vec<ReplicaId>, durable: Durable, now: BootTime) -> Self {
        assert!(!peers.contains(&id), "replica {id} is not its own peer");
        let mut catch_up = CatchUp::new(peers.clone());
        catch_up.restart(now);
        Self {
            id,
            peers,
            own: Own::new(durable),
            role: Role::Follower,
            catch_up,
            known: durable.end.rows,
            behind: None,
            appends: Vec::new(),
            announces: Vec::new(),
            reaches_catalog: false,
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
        self.answer_durable();
        match self.role {
            Role::Follower => {}
            Role::Activating(_) => self.confirm(now),
            Role::Leader(_) => self.lead(now),
        }
        self.mind_the_gap(now);
        self.fetch(now);
        std::mem::take(&mut self.commands)
    }

    /// When to call [`Replica::step`] even if nothing happens.
    pub fn wake(&self) -> Option<BootTime> {
        let fetch = self.catch_up.wake().filter(|_| self.may_fetch());
        let gap = self.behind.map(|behind| behind.since + self.patience());
        let role = match &self.role {
            Role::Follower => None,
            Role::Activating(activation) => Some(activation.try_at).filter(|_| self.is_ready()),
            Role::Leader(leadership) => leadership.followers.wake(),
        };
        [fetch, gap, role].into_iter().flatten().min()
    }

    /// The replica from outside.
    pub fn status(&self) -> Status {
        let role = match self.role {
            Role::Follower => RoleName::Follower,
            Role::Activating(_) => RoleName::Activating,
            Role::Leader(_) => RoleName::Leader,
        };
        let end = self.own.durable().end;
        Status {
            id: self.id,
            role,
            term: self.own.term(),
            end,
            reaches_catalog: self.reaches_catalog,
        }
    }

    /// The calls whose results it waits for, in an order that does not depend on how they are
    /// numbered, but for that of several trades.
    pub fn awaited(&self) -> Vec<CallId> {
        let mut calls = Vec::from_iter(self.catch_up.awaited());
        match &self.role {
            Role::Follower => {}
            Role::Activating(activation) => calls.extend(activation.confirm),
            Role::Leader(leadership) => {
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
            } => self.append(now, ticket, (epoch, leader), rows),
            Event::Stored(durable) => self.own.stored(durable),
            Event::StoreFailed(durable) => self.store_failed(now, durable),
            Event::Head(head) => self.head(now, head),
            Event::Heard(rows) => self.known = self.known.max(rows),
            Event::Traded { call, result } => self.traded(now, call, result),
            Event::InSyncSet { call, result } => self.in_sync_set(now, call, result),
            Event::Fetched { call, result } => self.fetched(now, call, result),
            Event::Appended { call, peer, result } => self.appended(now, (call, peer), result),
        }
    }
}

/// What callers ask for.
impl Replica {
    fn place(&mut self, ticket: Ticket, order: Order) {
        let unavailable = match &mut self.role {
            Role::Leader(leadership) => {
                return leadership.trades.place(ticket, order, &mut self.commands);
            }
            Role::Activating(_) => Unavailable::Activating,
            Role::Follower => Unavailable::NotLeading,
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
                Role::Follower if leader == self.id => Err(Refused::LeadsNoMore { epoch }),
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
        rows: Vec<Row>,
    ) {
        let end = rows
            .last()
            .map_or(OrderNumber(0), |last| last.number.next());
        let taken = if leader == self.id {
            Err(Refused::OtherLeader { epoch })
        } else {
            self.meet(now, epoch, leader)
        }
        .and_then(|()| match self.own.take(rows) {
            Ok(rows) => {
                self.save(rows);
                Ok(end)
            }
            Err(NotTaken::Gap) => Ok(OrderNumber(0)),
            Err(NotTaken::Broken(number)) => {
                self.report_broken(Sender::Replica(leader), number);
                Err(Refused::Broken { number })
            }
        });
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

    /// Somebody says who leads: a higher epoch is entered, a lower one refused.
    fn meet(&mut self, now: BootTime, epoch: Epoch, leader: ReplicaId) -> Result<(), Refused> {
        let known = self.own.term();
        if epoch < known.epoch {
            return Err(Refused::Stale { known: known.epoch });
        }
        if epoch > known.epoch {
            self.enter(
                now,
                Term {
                    epoch,
                    leader: Some(leader),
                },
            );
            return Ok(());
        }
        if known.leader != Some(leader) {
            return Err(Refused::OtherLeader { epoch });
        }
        if self.own.term_is_lost() {
            self.save_term();
        }
        Ok(())
    }

    /// A higher epoch has begun.
    fn enter(&mut self, now: BootTime, term: Term) {
        self.step_down(StepDown::Superseded);
        self.own.adopt(term);
        self.save_term();
        if term.leader == Some(self.id) {
            self.commands
                .push(Command::Report(Report::Activating { epoch: term.epoch }));
            self.role = Role::Activating(Activation {
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
        let epoch = self.own.term().epoch;
        match std::mem::replace(&mut self.role, Role::Follower) {
            Role::Follower => return,
            Role::Activating(_) => {}
            Role::Leader(leadership) => leadership.trades.abandon(&mut self.commands),
        }
        self.commands
            .push(Command::Report(Report::SteppedDown { epoch, why }));
    }

    /// Answers callers whose term and rows have become durable.
    fn answer_durable(&mut self) {
        let durable = self.own.durable();
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
            caller.epoch <= durable.term.epoch && caller.rows <= durable.end.rows
        };
        for caller in self.appends.extract_if(.., is_durable) {
            self.commands.push(Command::AnswerAppend {
                ticket: caller.ticket,
                answer: Ok(durable.end),
            });
        }
    }
}

/// The own store.
impl Replica {
    fn save_term(&mut self) {
        let term = self.own.save_term();
        self.commands.push(Command::Save {
            term: Some(term),
            rows: Vec::new(),
        });
    }

    /// Saves rows that the ledger has just taken.
    fn save(&mut self, rows: Vec<Row>) {
        if rows.is_empty() {
            return;
        }
        if let Role::Leader(leadership) = &mut self.role {
            leadership.recent.extend(&rows, self.own.durable().end.rows);
        }
        self.commands.push(Command::Save { term: None, rows });
    }

    fn store_failed(&mut self, now: BootTime, durable: Durable) {
        self.own.store_failed(durable);
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

    fn report_broken(&mut self, from: Sender, number: OrderNumber) {
        let chain = self.own.tail().chain;
        self.commands.push(Command::Report(Report::Broken {
            from,
            number,
            chain,
        }));
    }
}
