//! One gateway's elections as they go on: when to ask the catalog who leads, what to do about what it
//! says, and when to look again.
//!
//! One thing is under way at a time: the caller does the [task](ElectionTask) and tells how it ended,
//! which may be followed by another.

use domain::time::BootTime;
use domain::{Epoch, ReplicaId, RetryClass, Term};

use super::elector::{Elector, Snapshot};
use super::{CurrentLeader, Probed, Step, View};
use crate::backoff::{Backoff, CATALOG_PAUSE_MAX};
use crate::recurring::Recurring;
use crate::timing::{ELECTION_INTERVAL, STEP_PAUSE};

/// Sees to it that somebody leads.
#[derive(Debug)]
pub struct ElectionCycle {
    elector: Elector,
    next: Recurring,
    /// Where the catalog does not answer.
    pause: Backoff,
    current: CurrentLeader,
    /// What the policy is asked about.
    snapshot: Option<Snapshot>,
    candidate: Option<ReplicaId>,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElectionTask {
    /// Ask the catalog who leads; then [`ElectionCycle::catalog_said`].
    AskCatalog,
    /// Ask the policy whom it wants; then [`ElectionCycle::policy_wants`].
    AskPolicy(View),
    /// Have the catalog elect a replica; then [`ElectionCycle::elected`].
    Elect {
        /// The epoch that is to end.
        expected: Epoch,
        /// Who is to lead the next one.
        candidate: ReplicaId,
    },
    /// Tell replicas who leads; [`ElectionCycle::announcement_failed`] for each that does not
    /// acknowledge it, and then [`ElectionCycle::announced`].
    Announce {
        /// What they are told.
        epoch: Epoch,
        /// Of that epoch.
        leader: ReplicaId,
        /// Who is told.
        replicas: Vec<ReplicaId>,
    },
}

/// What the catalog says of who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadershipAnswer {
    /// Who leads.
    pub term: Term,
    /// Who holds every acknowledged order.
    pub in_sync: Vec<ReplicaId>,
}

impl ElectionCycle {
    /// Nothing is known yet.
    pub fn new(now: BootTime) -> Self {
        Self {
            elector: Elector::new(now),
            next: Recurring::due(now),
            pause: Backoff::new(STEP_PAUSE, CATALOG_PAUSE_MAX),
            current: CurrentLeader::default(),
            snapshot: None,
            candidate: None,
        }
    }

    /// Who leads, as trades go by it.
    pub fn current(&self) -> CurrentLeader {
        self.current
    }

    /// When there is something to do; `None` while a task is under way.
    pub fn wake(&self) -> Option<BootTime> {
        self.next.wake()
    }

    /// Whether there is a reason to look soon.
    pub fn is_hurried(&self) -> bool {
        self.next.is_hurried()
    }

    /// Something changed, or somebody has a suspicion: look soon.
    pub fn hurry(&mut self) {
        self.next.hurry();
    }

    /// What is to be done now, where it is time.
    pub fn next(&mut self, now: BootTime) -> Option<ElectionTask> {
        let is_due = self.next.begin_if_due(now);
        is_due.then_some(ElectionTask::AskCatalog)
    }

    /// The catalog said who leads, or did not. For `random`, from 0 to 1, see [`Backoff::pause`].
    pub fn catalog_said(
        &mut self,
        said: Result<LeadershipAnswer, RetryClass>,
        probed: Vec<Probed>,
        now: BootTime,
        random: f64,
    ) -> Option<ElectionTask> {
        let LeadershipAnswer { term, in_sync } = match said {
            Ok(said) => said,
            Err(class) => {
                let pause = match class {
                    RetryClass::Later => self.pause.pause(random),
                    // It may be another one by then.
                    RetryClass::Elsewhere | RetryClass::Never => ELECTION_INTERVAL,
                };
                self.next.pause(now, pause, pause);
                return None;
            }
        };
        self.pause.reset();
        self.current = CurrentLeader::by(term, &probed);
        self.snapshot = self.elector.look(term, in_sync, probed, now);
        match &self.snapshot {
            Some(snapshot) => Some(ElectionTask::AskPolicy(snapshot.view())),
            None => self.over(now),
        }
    }

    /// The policy wants a replica to lead, or nobody, or could not say. For `jitter`, from 0 to 1, see
    /// [`Elector::step`].
    pub fn policy_wants(
        &mut self,
        wanted: Option<ReplicaId>,
        now: BootTime,
        jitter: f64,
    ) -> Option<ElectionTask> {
        let step = self
            .snapshot
            .take()
            .map(|snapshot| self.elector.step(&snapshot, wanted, now, jitter));
        match step {
            None | Some(Step::Nothing) => self.over(now),
            Some(Step::Announce(uninformed)) => self.announce(uninformed, now),
            Some(Step::Elect(candidate)) => {
                self.candidate = Some(candidate);
                Some(ElectionTask::Elect {
                    expected: self.current.term.epoch,
                    candidate,
                })
            }
        }
    }

    /// The catalog answered an election with who leads then, or did not answer it.
    pub fn elected(
        &mut self,
        elected: Option<Term>,
        probed: &[Probed],
        now: BootTime,
    ) -> Option<ElectionTask> {
        let (Some(candidate), Some(elected)) = (self.candidate.take(), elected) else {
            return self.over(now);
        };
        self.elector.elected(candidate, elected, now);
        self.current = CurrentLeader::by(elected, probed);
        self.announce(probed.iter().map(|probed| probed.id).collect(), now)
    }

    /// A replica did not acknowledge the announcement. A leader that said no, rather than nothing or
    /// that it cannot answer now, will not lead this epoch: whether that is so.
    pub fn announcement_failed(&mut self, replica: ReplicaId, class: RetryClass) -> bool {
        let term = self.current.term;
        let refused = term.leader == Some(replica) && class != RetryClass::Later;
        if refused {
            self.elector.refused(term.epoch);
            self.next.hurry();
        }
        refused
    }

    /// All replicas that were told have answered, or will not.
    pub fn announced(&mut self, probed: &[Probed], now: BootTime) {
        self.current = CurrentLeader::by(self.current.term, probed);
        self.over(now);
    }

    fn announce(&mut self, replicas: Vec<ReplicaId>, now: BootTime) -> Option<ElectionTask> {
        let Term { epoch, leader } = self.current.term;
        match leader.filter(|_| !replicas.is_empty()) {
            None => self.over(now),
            Some(leader) => Some(ElectionTask::Announce {
                epoch,
                leader,
                replicas,
            }),
        }
    }

    /// Nothing is to be done until later.
    fn over(&mut self, now: BootTime) -> Option<ElectionTask> {
        let most = STEP_PAUSE + ELECTION_INTERVAL;
        self.next.pause(now, STEP_PAUSE, most);
        None
    }
}

#[cfg(test)]
mod tests;
