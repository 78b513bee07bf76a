//! One gateway's elections, from its first look on.
//!
//! The caller asks the catalog who leads, takes a [look](Elector::look), asks the policy whom it
//! wants, and takes the [step](Elector::step) that follows. The catalog answers an election with
//! who leads then: where another gateway was faster, that is its choice, and is adopted.

use std::time::Duration;

use domain::time::BootTime;
use domain::{Epoch, ReplicaId, Term};

use super::backoff::ElectionBackoff;
use super::{Probed, ReplicaView, Step, Unanswered, View, leads, next_step};

/// How long the very first election waits for replicas that have not answered yet: services that
/// start together should not be led by whoever was first.
const FIRST_ELECTION_PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub struct Elector {
    started: BootTime,
    history: ElectionBackoff,
    /// The epoch whose own leader refused to lead it.
    refused: Option<Epoch>,
}

/// What is known of the catalog and the replicas at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    term: Term,
    /// According to the catalog.
    in_sync: Vec<ReplicaId>,
    /// As the probes say.
    probed: Vec<Probed>,
    /// As the policy is to see them.
    seen: Vec<Probed>,
}

impl Snapshot {
    /// What the policy's election goes by.
    pub fn view(&self) -> View {
        let mut replicas: Vec<_> = self
            .seen
            .iter()
            .map(|probed| ReplicaView::of(probed, &self.in_sync))
            .collect();
        replicas.sort_by_key(|replica| replica.id);
        View {
            replicas,
            leader: self.term.leader,
            epoch: self.term.epoch,
        }
    }
}

impl Elector {
    /// Nothing is known yet.
    pub fn new(now: BootTime) -> Self {
        Self {
            started: now,
            history: ElectionBackoff::default(),
            refused: None,
        }
    }

    /// Takes in what the catalog and the replicas say. `None` while it is too early to act.
    pub fn look(
        &mut self,
        term: Term,
        in_sync: Vec<ReplicaId>,
        probed: Vec<Probed>,
        now: BootTime,
    ) -> Option<Snapshot> {
        self.history.observed(term, &probed, now);
        let patient = now.since(self.started) < FIRST_ELECTION_PATIENCE;
        let is_awaited = |probed: &Probed| match term.leader {
            None => patient && probed.status.is_err(),
            // A leader that was not asked yet is no dead one, nor one that a gateway which hears nobody does not hear.
            Some(leader) => probed.id == leader && probed.status == Err(Unanswered::Unheard),
        };
        if probed.iter().any(is_awaited) {
            return None;
        }
        Some(Snapshot {
            term,
            in_sync,
            seen: self.history.seen(&probed, now),
            probed,
        })
    }

    /// The next step, given whom the policy wants. For `jitter`, from 0 to 1, see
    /// [`ElectionBackoff::may_elect`].
    pub fn step(
        &self,
        look: &Snapshot,
        wanted: Option<ReplicaId>,
        now: BootTime,
        jitter: f64,
    ) -> Step {
        let Snapshot {
            term, probed, seen, ..
        } = look;
        let same = wanted.is_none_or(|wanted| term.leader == Some(wanted));
        let refused = self.refused == Some(term.epoch) && !leads(*term, probed);
        let step = match term.leader {
            // It takes another epoch until it leads again.
            Some(leader) if same && refused => Step::Elect(leader),
            _ => next_step(*term, seen, wanted),
        };
        match step {
            Step::Elect(_) if !self.history.may_elect(now, jitter) => Step::Nothing,
            step => step,
        }
    }

    /// The catalog answered the election of `candidate` with who leads then.
    pub fn elected(&mut self, candidate: ReplicaId, term: Term, now: BootTime) {
        // Noted at once: the next look may find that others have deposed it already.
        self.history.observed(term, &[], now);
        if term.leader == Some(candidate) {
            self.history.elected(candidate, now);
        }
    }

    /// The leader of that epoch said that it will not lead it.
    pub fn refused(&mut self, epoch: Epoch) {
        self.refused = Some(epoch);
    }
}
