//! The writer lease: which of several catalogs over one database serves.
//!
//! A lease after Gray and Cheriton ("Leases", SOSP 1989), kept in a row of the database itself
//! ([`WriterRow`]), with the term as a fencing token. A catalog stands by, takes the term over once its holder has
//! shown no sign of life for a lease, loads what is committed, and serves:
//!
//! ```text
//! standing by ──take over──▶ taking over ──acknowledged──▶ loading ──loaded──▶ active ──told to stop──▶ stopping
//!      ▲                         │ lost, unknown              │                  │                       │
//!      └─────────────────────────┴──── fenced, unknown, connection lost ─────────┘                    stopped
//! ```
//!
//! 1. Every commit begins with the fence, in its own statement: where the term is over, nothing is done.
//! 2. The active catalog answers until its own lease is over: counted from before it *sent* its last acknowledged
//!    beat, and shorter by a margin than what others wait. Every commit is a beat. Once its lease is over it answers
//!    nothing, though its term may go on with the next beat.
//! 3. No gateway's lease ends after the writer's own, so whoever takes over need not wait for any.
//! 4. A term is taken over by compare-and-set on the term *and* the beat that were seen for a lease.
//! 5. That is a commit like every other; only once it is acknowledged is anything loaded.
//! 6. Whatever became of a commit that nobody knows of ends the term. The next one's take-over is behind it.
//! 7. What was seen of another incarnation of the database does not count, and nothing is taken over of one that
//!    was not seen for a lease. A term ends with its connection.
//!
//! The caller asks for the next [step](WriterLease::next) whenever it is [time](WriterLease::wake) and after all that
//! it tells, takes one step after the other, and has one statement on its way at a time. With
//! [`StepDown`](WriterStep::StepDown) it drops the connection, and whatever may still be answered on it.

mod row;

use std::time::Duration;

use domain::time::BootTime;

pub use row::{Claim, Fence, Incarnation, WriterId, WriterRow, WriterTable, WriterTerm};

use super::ablation::{Rule, Rules};
use row::{EndedTerm, Sighting};

/// How long a writer lease is by default.
pub const WRITER_LEASE: Duration = Duration::from_secs(1);

/// How much shorter its holder counts the lease than others do: 1 part in this many. Far above the drift of any
/// clock that works.
const MARGIN_DIVISOR: u32 = 10;

/// Beats of a holder that has nothing to commit, in a lease.
pub const BEATS: u32 = 3;

/// How often in a lease a catalog that stands by looks at the row.
const LOOKS: u32 = 20;

/// Leases until a statement without an answer is given up.
const STATEMENT_LEASES_MAX: u32 = 3;

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterStep {
    /// Read the row, on a connection that may write, and say what it is: [`WriterLease::seen`].
    Look,
    /// Take the term over: a statement, whose outcome is told.
    TakeOver(Claim),
    /// The term is this catalog's: load what is committed, put back what is missing, and say so:
    /// [`WriterLease::loaded`].
    Load,
    /// Commit nothing but the beat: a statement, whose outcome is told.
    Beat(Fence),
    /// Mark the term as free: a statement, whose outcome is told.
    Release(Fence),
    /// The term is over. Drop the connection, and all that was loaded; answer nothing more; tell those who wait
    /// that they may try again elsewhere.
    StepDown(StepDown),
}

/// Why a term is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StepDown {
    #[error("another catalog has taken over")]
    Fenced,
    #[error("nobody knows whether a commit was made")]
    Unknown,
    #[error("the connection to the database is lost")]
    ConnectionLost,
}

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementOutcome {
    /// It is committed, and replicated.
    Durable,
    /// The row was not as the statement wants it: nothing is done.
    Fenced,
    /// The database refused it, so nothing of it is done, nor will be.
    Failed,
    /// It may have been done, or will be: the connection was lost, or the wait for its replication was cancelled,
    /// which PostgreSQL reports as a success with a warning.
    Unknown,
}

/// What a catalog is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterRole {
    Standby,
    TakingOver,
    Loading,
    /// Whether it may answer is another question: [`WriterLease::serves`].
    Active,
    /// It was told to stop, and serves nothing more.
    Stopping,
    Stopped,
}

impl WriterRole {
    /// For people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::TakingOver => "taking over",
            Self::Loading => "loading",
            Self::Active => "active",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// This catalog holds no term, so there is nothing that it may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this catalog is not the active one")]
pub struct NotActive;

/// One catalog's part in the writer lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WriterLease {
    me: WriterId,
    lease: Duration,
    sighting: Option<Sighting>,
    /// The last term that it held, or tried to.
    ended: Option<EndedTerm>,
    state: State,
    rules: Rules,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Standby {
        look_at: BootTime,
        /// Nothing is claimed before the row was looked at.
        has_looked: bool,
    },
    TakingOver {
        claim: Claim,
        sent: BootTime,
        /// To be given back as soon as it is taken.
        stop: bool,
    },
    Holding {
        term: HeldTerm,
        stage: Stage,
    },
    Releasing {
        sent: BootTime,
    },
    /// The caller is yet to be told.
    SteppedDown(StepDown),
    Stopped,
}

impl State {
    fn standby(look_at: BootTime) -> Self {
        Self::Standby {
            look_at,
            has_looked: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Loading {
        is_told: bool,
    },
    Active,
    /// Nothing is lent any more. Who was lent something believes it until then at most, by a slow clock too.
    Stopping {
        unheld_at: BootTime,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct HeldTerm {
    fence: Fence,
    /// When the own lease is over.
    until: BootTime,
    beat_at: BootTime,
    /// When the statement was sent that is on its way.
    sent: Option<BootTime>,
}

impl WriterLease {
    /// A catalog that stands by from now on.
    pub fn new(me: WriterId, lease: Duration, now: BootTime) -> Self {
        Self {
            me,
            lease,
            sighting: None,
            ended: None,
            state: State::standby(now),
            rules: Rules::default(),
        }
    }

    /// A catalog whose take-over, sent then, was acknowledged, and that has loaded what is committed.
    pub fn active(fence: Fence, lease: Duration, sent: BootTime) -> Self {
        let mut active = Self::new(fence.holder, lease, sent);
        active.state = State::Holding {
            term: HeldTerm {
                fence,
                until: sent + active.own_lease(),
                beat_at: sent + lease / BEATS,
                sent: None,
            },
            stage: Stage::Active,
        };
        active
    }

    /// The same under rules of which one may be missing, for tests.
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    pub fn role(&self) -> WriterRole {
        match &self.state {
            State::Standby { .. } | State::SteppedDown(_) => WriterRole::Standby,
            State::TakingOver { .. } => WriterRole::TakingOver,
            State::Holding { stage, .. } => match stage {
                Stage::Loading { .. } => WriterRole::Loading,
                Stage::Active => WriterRole::Active,
                Stage::Stopping { .. } => WriterRole::Stopping,
            },
            State::Releasing { .. } => WriterRole::Stopping,
            State::Stopped => WriterRole::Stopped,
        }
    }

    /// The row as it was last seen, which says who is active.
    pub fn last_seen(&self) -> Option<WriterRow> {
        self.sighting.map(|sighting| sighting.row)
    }

    /// Whether anything may be answered out of what is loaded: stocks, the head, the leadership, takes. Ask
    /// *after* reading it, with a clock read after it as well.
    pub fn serves(&self, now: BootTime) -> bool {
        match &self.state {
            State::Holding {
                term,
                stage: Stage::Active,
            } => now < term.until || !self.rules.keep(Rule::OwnLease),
            _ => false,
        }
    }

    /// Until when it [serves](Self::serves), if no further beat is acknowledged.
    pub fn serves_until(&self) -> BootTime {
        match &self.state {
            State::Holding {
                term,
                stage: Stage::Active,
            } => term.until,
            _ => BootTime::default(),
        }
    }

    /// The longest lease that a gateway may be granted now, counted from when its request was received; zero where
    /// none may. So it is over, for the gateway, before this catalog's own.
    pub fn grantable(&self, received: BootTime, now: BootTime) -> Duration {
        match &self.state {
            State::Holding { term, .. } if self.serves(now) => {
                if self.rules.keep(Rule::NestedLease) {
                    term.until.since(received)
                } else {
                    self.lease
                }
            }
            _ => Duration::ZERO,
        }
    }

    /// The term that it holds, by which replicas tell what it says from what another catalog did.
    pub fn held(&self) -> Option<Fence> {
        match &self.state {
            State::Holding { term, .. } => Some(term.fence),
            _ => None,
        }
    }

    /// Whether a statement is on its way.
    pub fn is_writing(&self) -> bool {
        match &self.state {
            State::TakingOver { .. } | State::Releasing { .. } => true,
            State::Holding { term, .. } => term.sent.is_some(),
            _ => false,
        }
    }

    /// When there is something to do.
    pub fn wake(&self) -> Option<BootTime> {
        match &self.state {
            State::Standby {
                look_at,
                has_looked,
            } => {
                let free_at = self.free_at().filter(|_| *has_looked);
                Some(free_at.map_or(*look_at, |free_at| free_at.min(*look_at)))
            }
            State::TakingOver { sent, .. } | State::Releasing { sent } => {
                Some(self.given_up(*sent))
            }
            State::Holding { term, stage } => Some(match (term.sent, stage) {
                (_, Stage::Loading { is_told: false }) => BootTime::default(),
                (Some(sent), _) => self.given_up(sent),
                (None, Stage::Stopping { unheld_at }) => *unheld_at,
                (None, _) => term.beat_at,
            }),
            State::SteppedDown(_) => Some(BootTime::default()),
            State::Stopped => None,
        }
    }

    /// What is to be done now.
    pub fn next(&mut self, now: BootTime) -> Option<WriterStep> {
        if self.wake().is_none_or(|at| now < at) {
            return None;
        }
        let look_again_at = now + self.lease / LOOKS;
        match &mut self.state {
            State::Standby { look_at, .. } => {
                if *look_at <= now {
                    *look_at = look_again_at;
                    return Some(WriterStep::Look);
                }
                let claim = self.claim()?;
                self.state = State::TakingOver {
                    claim,
                    sent: now,
                    stop: false,
                };
                Some(WriterStep::TakeOver(claim))
            }
            State::Holding { term, stage } => {
                match stage {
                    Stage::Loading { is_told } if !*is_told => {
                        *is_told = true;
                        return Some(WriterStep::Load);
                    }
                    _ if term.sent.is_some() => {}
                    Stage::Stopping { .. } => {
                        let fence = term.fence;
                        self.state = State::Releasing { sent: now };
                        return Some(WriterStep::Release(fence));
                    }
                    _ => {
                        term.sent = Some(now);
                        return Some(WriterStep::Beat(term.fence));
                    }
                }
                self.told(StatementOutcome::Unknown, now);
                self.next(now)
            }
            State::TakingOver { .. } | State::Releasing { .. } => {
                self.told(StatementOutcome::Unknown, now);
                self.next(now)
            }
            State::SteppedDown(why) => {
                let why = *why;
                self.state = State::standby(now);
                Some(WriterStep::StepDown(why))
            }
            State::Stopped => None,
        }
    }

    /// The row was read. `received` is when the answer came.
    pub fn seen(&mut self, row: WriterRow, incarnation: Incarnation, received: BootTime) {
        self.sighting = Some(Sighting::after(
            self.sighting,
            row,
            incarnation,
            received,
            self.rules,
        ));
        if let State::Standby { has_looked, .. } = &mut self.state {
            *has_looked = true;
        }
        if !self.rules.keep(Rule::Barrier)
            && let State::TakingOver { claim, .. } = self.state
            && row.term == claim.next.term
            && row.holder == Some(self.me)
        {
            self.told(StatementOutcome::Durable, received);
        }
    }

    /// A commit is about to be sent at `now`: what it begins with. Its outcome is [told](Self::told).
    ///
    /// # Errors
    /// Where this catalog has no term, or is about to end it.
    ///
    /// # Panics
    /// Where another statement is on its way.
    pub fn begin(&mut self, now: BootTime) -> Result<Fence, NotActive> {
        match &mut self.state {
            State::Holding {
                term,
                stage: Stage::Loading { .. } | Stage::Active,
            } => {
                assert!(
                    term.sent.is_none(),
                    "one statement at a time is on its way to the database"
                );
                term.sent = Some(now);
                Ok(term.fence)
            }
            _ => Err(NotActive),
        }
    }

    /// What became of the statement that was on its way.
    pub fn told(&mut self, outcome: StatementOutcome, now: BootTime) {
        use StatementOutcome::{Durable, Failed, Fenced, Unknown};
        let look_again_at = now + self.lease / LOOKS;
        let lease = self.own_lease();
        match &mut self.state {
            State::TakingOver { claim, sent, stop } => {
                let fence = claim.next;
                self.state = match (outcome, *stop) {
                    (Durable, stop) => State::Holding {
                        term: HeldTerm {
                            fence,
                            until: *sent + lease,
                            beat_at: *sent + self.lease / BEATS,
                            sent: None,
                        },
                        stage: if stop {
                            Stage::Stopping {
                                unheld_at: BootTime::default(),
                            }
                        } else {
                            Stage::Loading { is_told: false }
                        },
                    },
                    (_, true) => State::Stopped,
                    (Fenced, false) => State::standby(now),
                    (Failed, false) => State::standby(look_again_at),
                    (Unknown, false) => State::SteppedDown(StepDown::Unknown),
                };
                if outcome == Unknown {
                    // Nothing was ever served in it.
                    self.ended = Some(EndedTerm {
                        fence,
                        over_at: BootTime::default(),
                    });
                }
            }
            State::Holding { term, .. } => {
                let Some(sent) = term.sent.take() else {
                    return;
                };
                match outcome {
                    Durable => {
                        term.until = term.until.max(sent + lease);
                        term.beat_at = sent + self.lease / BEATS;
                    }
                    Failed => term.beat_at = look_again_at,
                    Fenced => self.end(StepDown::Fenced),
                    Unknown if self.rules.keep(Rule::UnknownEndsTerm) => {
                        self.end(StepDown::Unknown);
                    }
                    Unknown => term.beat_at = look_again_at,
                }
            }
            State::Releasing { .. } => self.state = State::Stopped,
            State::Standby { .. } | State::SteppedDown(_) | State::Stopped => {}
        }
    }

    /// The connection is lost, or was dropped because what it answers cannot be used. What was on its way on it may
    /// have been done, or will be.
    pub fn lost(&mut self, now: BootTime) {
        if self.is_writing() {
            self.told(StatementOutcome::Unknown, now);
        } else if matches!(self.state, State::Holding { .. })
            && self.rules.keep(Rule::UnknownEndsTerm)
        {
            self.end(StepDown::ConnectionLost);
        }
    }

    /// All that is committed is loaded, and nothing is missing: it serves from now on.
    pub fn loaded(&mut self) {
        if let State::Holding { stage, .. } = &mut self.state
            && matches!(stage, Stage::Loading { .. })
        {
            *stage = Stage::Active;
        }
    }

    /// It was told to stop. From now on it answers nothing, lends nothing and begins no commit; gateways are to be
    /// told to let go, and [`unheld`](Self::unheld) is to be said once none holds anything.
    pub fn stop(&mut self) {
        let margin = self.margin();
        match &mut self.state {
            State::Standby { .. } | State::SteppedDown(_) => self.state = State::Stopped,
            State::TakingOver { stop, .. } => *stop = true,
            State::Holding { term, stage } => {
                let unheld_at = match stage {
                    Stage::Active if self.rules.keep(Rule::ReleaseUnheld) => term.until + margin,
                    Stage::Active | Stage::Loading { .. } => BootTime::default(),
                    Stage::Stopping { unheld_at } => *unheld_at,
                };
                *stage = Stage::Stopping { unheld_at };
            }
            State::Releasing { .. } | State::Stopped => {}
        }
    }

    /// No gateway serves anything that this catalog lent it.
    pub fn unheld(&mut self) {
        if let State::Holding {
            stage: Stage::Stopping { unheld_at },
            ..
        } = &mut self.state
        {
            *unheld_at = BootTime::default();
        }
    }

    fn end(&mut self, why: StepDown) {
        let State::Holding { term, stage } = &self.state else {
            return;
        };
        let over_at = match stage {
            Stage::Loading { .. } => BootTime::default(),
            Stage::Active => term.until + self.margin(),
            Stage::Stopping { .. } => {
                self.state = State::Stopped;
                return;
            }
        };
        self.ended = Some(EndedTerm {
            fence: term.fence,
            over_at,
        });
        self.state = State::SteppedDown(why);
    }

    /// For how long the own lease runs from a beat.
    fn own_lease(&self) -> Duration {
        self.lease - self.margin()
    }

    /// Of a lease by one clock, by how much it may be longer by another.
    fn margin(&self) -> Duration {
        if self.rules.keep(Rule::WriterMargin) {
            self.lease / MARGIN_DIVISOR
        } else {
            Duration::ZERO
        }
    }

    fn free_at(&self) -> Option<BootTime> {
        let sighting = self.sighting.as_ref()?;
        Some(sighting.free_at(self.lease, self.ended, self.rules))
    }

    fn claim(&self) -> Option<Claim> {
        let row = self.sighting.as_ref()?.row;
        Some(Claim {
            term: row.term,
            beat: row.beat,
            next: Fence {
                term: WriterTerm(row.term.0 + 1),
                holder: self.me,
            },
        })
    }

    fn given_up(&self, sent: BootTime) -> BootTime {
        sent + self.lease * STATEMENT_LEASES_MAX
    }
}

#[cfg(test)]
mod tests;
