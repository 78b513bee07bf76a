//! A request's attempts at the backends: whom it calls when, and when it gives up.
//!
//! Each machine says what is [next](Next): the caller makes the call and tells what failed. It asks
//! again when the call is over, when what it goes by changes (who leads, what probes and the catalog
//! say), and when a wait is over. Deadlines are the caller's.
//!
//! Whoever waits for a backend that does not answer does not call it: probes do, for all, and
//! attempts follow when it answers. What no attempt can mend is not tried again, and nobody is
//! suspected for it: [`RetryClass`] says which failures those are.
//!
//! An attempt on a connection that is silent is made once more on another one: see [`Repeats`].

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use domain::time::BootTime;
use domain::{ReplicaId, RetryClass, Term};

use crate::backoff::Backoff;
use crate::election::{CurrentLeader, Probed, Unanswered, reading_order};

/// What a request does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<T> {
    /// Call that one.
    Call(T),
    /// Have those that it needs looked at at once, and ask what is next again.
    Suspect,
    /// Wait until something changes, and until then at the latest.
    Wait(Option<BootTime>),
    /// No attempt can mend it.
    GiveUp,
}

impl<T> Next<T> {
    /// The same with what the caller makes of the one to call.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Next<U> {
        match self {
            Self::Call(callee) => Next::Call(make(callee)),
            Self::Suspect => Next::Suspect,
            Self::Wait(until) => Next::Wait(until),
            Self::GiveUp => Next::GiveUp,
        }
    }
}

/// Of one attempt, which is made once more beside itself, on another connection, where nothing comes back on the one that
/// it was made on: a connection can be dead whose peer is there.
///
/// The first answer counts, so whoever is slow is no slower for it. Pauses double, so that they get little more to do: of a
/// deadline of eight times the first pause, at most three attempts more.
#[derive(Debug, Clone)]
pub struct Repeats {
    looked_at: BootTime,
    pause: Duration,
}

impl Repeats {
    /// Of an attempt that is made `now`, on a connection that may be silent for `pause`.
    pub fn begin(now: BootTime, pause: Duration) -> Self {
        Self {
            looked_at: now,
            pause,
        }
    }

    /// When to [look](Self::look) next, where there is no answer by then.
    pub fn look_at(&self) -> BootTime {
        self.looked_at + self.pause
    }

    /// Whether to make it once more. `heard` is when something last came back on the connection that it was made on last,
    /// where that is known.
    pub fn look(&mut self, now: BootTime, heard: Option<BootTime>) -> bool {
        let is_silent = heard.is_none_or(|heard| heard <= self.looked_at);
        self.looked_at = now;
        self.pause *= 2;
        is_silent
    }
}

/// Of a read at the catalog, which is asked until it answers.
#[derive(Debug)]
pub struct CatalogRead {
    pause: Backoff,
    /// When the last attempt failed, and when the next one may follow.
    failed: Option<(BootTime, BootTime)>,
    suspects: bool,
    gives_up: bool,
}

impl Default for CatalogRead {
    fn default() -> Self {
        Self {
            pause: Backoff::of_request(),
            failed: None,
            suspects: false,
            gives_up: false,
        }
    }
}

impl CatalogRead {
    /// What is next. `answered` is when the catalog was last asked who leads, where it answered that.
    pub fn next(&mut self, now: BootTime, answered: Option<BootTime>) -> Next<()> {
        if self.gives_up {
            return Next::GiveUp;
        }
        if mem::take(&mut self.suspects) {
            return Next::Suspect;
        }
        match (self.failed, answered) {
            (Some((_, retry_at)), _) if now < retry_at => Next::Wait(Some(retry_at)),
            (Some((failed, _)), Some(asked)) if asked > failed => Next::Call(()),
            (None, Some(_)) => Next::Call(()),
            _ => Next::Wait(None),
        }
    }

    /// The call failed. For `random`, from 0 to 1, see [`Backoff::pause`].
    pub fn failed(&mut self, class: RetryClass, now: BootTime, random: f64) {
        match class {
            RetryClass::Later => {
                self.failed = Some((now, now + self.pause.pause(random)));
                self.suspects = true;
            }
            // There is no other one to ask.
            RetryClass::Elsewhere | RetryClass::Never => self.gives_up = true,
        }
    }
}

/// Of a trade, which is placed with whoever leads, until one answers.
#[derive(Debug)]
pub struct Placement {
    pause: Backoff,
    /// Who led when the order was last placed.
    placed: CurrentLeader,
    failed: Option<FailedPlacement>,
    suspects: bool,
}

#[derive(Debug, Clone, Copy)]
struct FailedPlacement {
    class: RetryClass,
    at: BootTime,
    retry_at: BootTime,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            pause: Backoff::of_request(),
            placed: CurrentLeader::default(),
            failed: None,
            suspects: false,
        }
    }
}

impl Placement {
    /// What is next, given who leads and what probes say.
    pub fn next(
        &mut self,
        now: BootTime,
        current: CurrentLeader,
        probed: &[Probed],
    ) -> Next<ReplicaId> {
        if mem::take(&mut self.suspects) {
            return Next::Suspect;
        }
        if let Some(failed) = self.failed {
            match failed.class {
                RetryClass::Never => return Next::GiveUp,
                RetryClass::Elsewhere if current.term == self.placed.term => {
                    return Next::Wait(None);
                }
                RetryClass::Later if current == self.placed => {
                    if now < failed.retry_at {
                        return Next::Wait(Some(failed.retry_at));
                    }
                }
                // What is known of who leads has changed since.
                RetryClass::Elsewhere | RetryClass::Later => self.failed = None,
            }
        }
        let leader = current
            .term
            .leader
            .and_then(|id| probed.iter().find(|probed| probed.id == id));
        let failed = self.failed.map(|failed| failed.at);
        match leader {
            Some(leader) if may_take_orders(leader, failed) => {
                self.placed = current;
                Next::Call(leader.id)
            }
            _ => Next::Wait(None),
        }
    }

    /// Whether the call under way is to be given up: somebody else leads than whom it was made to.
    pub fn is_overtaken(&self, current: &CurrentLeader) -> bool {
        current.term.leader != self.placed.term.leader
    }

    /// The call failed. For `random`, from 0 to 1, see [`Backoff::pause`].
    pub fn failed(&mut self, class: RetryClass, now: BootTime, random: f64) {
        self.suspects = class != RetryClass::Never;
        self.failed = Some(FailedPlacement {
            class,
            at: now,
            retry_at: now + self.pause.pause(random),
        });
    }
}

/// Whether a replica may be given orders; where it failed to take one, only once it has answered a
/// probe that was sent after that.
fn may_take_orders(probed: &Probed, failed: Option<BootTime>) -> bool {
    let may = match probed.status {
        Ok(status) => status.reaches_catalog,
        // It may be busy.
        Err(Unanswered::Silent | Unanswered::Unheard) => failed.is_none(),
        Err(Unanswered::Gone | Unanswered::Foreign) => false,
    };
    may && failed.is_none_or(|failed| probed.asked > failed)
}

/// Of an order that is read at any replica that answers, round by round; the leader is asked first.
#[derive(Debug)]
pub struct OrderRead {
    pause: Backoff,
    /// Who would not answer this, whenever asked.
    out: BTreeSet<ReplicaId>,
    round: Round,
    gives_up: bool,
}

#[derive(Debug)]
enum Round {
    /// Begins with the next question.
    Next,
    /// Who is being asked, and who after that.
    UnderWay(Option<ReplicaId>, VecDeque<ReplicaId>),
    /// Nobody answered in the last one: when that was so, and when the next one may begin.
    Over(BootTime, BootTime),
}

impl Default for OrderRead {
    fn default() -> Self {
        Self {
            pause: Backoff::of_request(),
            out: BTreeSet::new(),
            round: Round::Next,
            gives_up: false,
        }
    }
}

impl OrderRead {
    /// What is next, given who leads and what probes say. For `random`, from 0 to 1, see
    /// [`Backoff::pause`].
    pub fn next(
        &mut self,
        now: BootTime,
        term: Term,
        probed: &[Probed],
        random: f64,
    ) -> Next<ReplicaId> {
        if self.gives_up || probed.iter().all(|probed| self.out.contains(&probed.id)) {
            return Next::GiveUp;
        }
        if let Round::Over(at, retry_at) = self.round {
            if now < retry_at {
                return Next::Wait(Some(retry_at));
            }
            let answers = |probed: &Probed| probed.status.is_ok() && probed.asked > at;
            if !probed.iter().any(answers) {
                return Next::Wait(None);
            }
            self.round = Round::Next;
        }
        if let Round::Next = self.round {
            let mut readers = reading_order(term, probed);
            readers.retain(|id| !self.out.contains(id));
            self.round = Round::UnderWay(None, readers.into());
        }
        if let Round::UnderWay(asked, left) = &mut self.round
            && let Some(reader) = left.pop_front()
        {
            *asked = Some(reader);
            return Next::Call(reader);
        }
        self.round = Round::Over(now, now + self.pause.pause(random));
        Next::Suspect
    }

    /// The call failed, or took too long.
    pub fn failed(&mut self, class: RetryClass) {
        match (class, &self.round) {
            (RetryClass::Later, _) => {}
            (RetryClass::Elsewhere, Round::UnderWay(asked, _)) => self.out.extend(*asked),
            (RetryClass::Elsewhere, _) => {}
            (RetryClass::Never, _) => self.gives_up = true,
        }
    }
}

#[cfg(test)]
mod tests;
