//! What to do about the leader: pure, from what the replicas and the catalog said last.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::time::BootTime;
use protocol::{ChainHash, Epoch, OrderNumber, ReplicaId};

use crate::policy::decision::{ReplicaView, View};

/// What a replica's health probes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Which replica.
    pub id: ReplicaId,
    /// What it said last; `None` where it does not answer.
    pub status: Option<Status>,
    /// Of the last probe that it answered.
    pub round_trip: Duration,
}

/// What a replica says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// The highest epoch that it has seen.
    pub epoch: Epoch,
    /// The leader of that epoch, where it knows.
    pub leader: Option<ReplicaId>,
    /// How many orders it holds.
    pub orders: OrderNumber,
    /// Chain hash of its last row.
    pub chain: ChainHash,
    /// It says that it reaches the catalog.
    pub reaches_catalog: bool,
}

/// What a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes what the leader sends.
    Follower,
    /// It was elected and fetches what it lacks.
    Activating,
    /// It takes trades.
    Leader,
}

impl Role {
    /// For `GET /status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::Activating => "activating",
            Self::Leader => "leader",
        }
    }
}

/// Who leads, according to the catalog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// 0 before the first election.
    pub epoch: Epoch,
    /// `None` before the first election.
    pub leader: Option<ReplicaId>,
}

/// What the policy's election goes by.
pub fn view(leadership: Leadership, probed: &[Probed]) -> View {
    let mut replicas: Vec<_> = probed
        .iter()
        .map(|probed| ReplicaView {
            id: probed.id,
            healthy: probed.status.is_some(),
            reaches_catalog: probed.status.is_some_and(|status| status.reaches_catalog),
            orders: probed.status.map_or(OrderNumber(0), |status| status.orders),
            round_trip: probed.round_trip,
        })
        .collect();
    replicas.sort_by_key(|replica| replica.id);
    View {
        replicas,
        leader: leadership.leader,
        epoch: leadership.epoch,
    }
}

/// The next step towards a leader that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Elect this replica for the next epoch.
    Elect(ReplicaId),
    /// Tell these replicas who leads.
    Announce(Vec<ReplicaId>),
    /// All is as it should be, or nothing can be done.
    Nothing,
}

/// What to do, given whom the policy wants. A replica that does not answer is not elected,
/// whoever wants it.
pub fn next_step(leadership: Leadership, probed: &[Probed], wanted: Option<ReplicaId>) -> Step {
    let answers = |id: &ReplicaId| {
        probed
            .iter()
            .any(|probed| probed.id == *id && probed.status.is_some())
    };
    if let Some(wanted) = wanted.filter(answers)
        && leadership.leader != Some(wanted)
    {
        return Step::Elect(wanted);
    }
    let Some(leader) = leadership.leader else {
        return Step::Nothing;
    };
    let uninformed = |probed: &&Probed| {
        let Some(status) = probed.status else {
            return false;
        };
        let behind = status.epoch < leadership.epoch;
        let unaware = status.epoch == leadership.epoch && status.leader != Some(leader);
        let idle = status.epoch == leadership.epoch
            && probed.id == leader
            && status.role == Role::Follower;
        behind || unaware || idle
    };
    let uninformed: Vec<_> = probed
        .iter()
        .filter(uninformed)
        .map(|probed| probed.id)
        .collect();
    if uninformed.is_empty() {
        Step::Nothing
    } else {
        Step::Announce(uninformed)
    }
}

/// Elections of one replica in a row, each soon after the one before, after which it is passed
/// over: it is there, and cannot lead (its disk is full, say).
const ELECTIONS_IN_VAIN_MAX: u32 = 3;

/// Within that time of its last election a replica is elected again in vain.
const IN_VAIN: Duration = Duration::from_secs(2);

/// How long a replica is passed over.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// How far back elections are counted, by whichever gateway.
const COUNTED: Duration = Duration::from_secs(10);

/// Elections within that time that are not slowed down.
const ELECTIONS_AT_ONCE: usize = 8;

/// Pause before the first election that is slowed down; it doubles with each further one.
const SLOWED_DOWN_MIN: Duration = Duration::from_millis(200);
const SLOWED_DOWN_MAX: Duration = Duration::from_secs(5);

/// Remembers elections, so that no replica that cannot lead is elected for ever, and gateways
/// that see different replicas do not depose each other's choice without end.
#[derive(Debug, Default)]
pub struct History {
    last: Option<(ReplicaId, BootTime)>,
    in_vain: u32,
    passed_over: Option<(ReplicaId, BootTime)>,
    epoch: Epoch,
    /// When the latest epochs began, oldest first.
    begun: VecDeque<BootTime>,
}

impl History {
    /// This gateway had a replica elected.
    pub fn elected(&mut self, candidate: ReplicaId, now: BootTime) {
        let again = self
            .last
            .is_some_and(|(id, at)| id == candidate && now.since(at) < IN_VAIN);
        self.in_vain = if again { self.in_vain + 1 } else { 0 };
        self.last = Some((candidate, now));
        if self.in_vain >= ELECTIONS_IN_VAIN_MAX {
            self.in_vain = 0;
            self.passed_over = Some((candidate, now + PASSED_OVER));
        }
    }

    /// The catalog says which epoch it is; any gateway may have begun it.
    pub fn observed(&mut self, epoch: Epoch, now: BootTime) {
        if epoch > self.epoch && self.epoch > Epoch(0) {
            self.begun.push_back(now);
        }
        self.epoch = self.epoch.max(epoch);
        while self
            .begun
            .front()
            .is_some_and(|at| now.since(*at) > COUNTED)
        {
            self.begun.pop_front();
        }
    }

    /// Whether there may be another election now. `jitter`, from 0 to 1, keeps gateways that
    /// slow down from doing so in step.
    pub fn may_elect(&self, now: BootTime, jitter: f64) -> bool {
        let Some(latest) = self.begun.back() else {
            return true;
        };
        let Some(slowed) = self.begun.len().checked_sub(ELECTIONS_AT_ONCE) else {
            return true;
        };
        let doubled = SLOWED_DOWN_MIN.saturating_mul(1 << slowed.min(10));
        now.since(*latest) >= doubled.min(SLOWED_DOWN_MAX).mul_f64(1.0 + jitter)
    }

    /// The replicas as the policy is to see them: one that is passed over does not seem
    /// healthy, where another does.
    pub fn seen(&self, probed: &[Probed], now: BootTime) -> Vec<Probed> {
        let passed_over = self
            .passed_over
            .filter(|(_, until)| now < *until)
            .map(|(id, _)| id);
        let others = probed
            .iter()
            .any(|other| other.status.is_some() && Some(other.id) != passed_over);
        let mut seen = probed.to_vec();
        if others {
            seen.iter_mut()
                .filter(|one| Some(one.id) == passed_over)
                .for_each(|one| one.status = None);
        }
        seen
    }
}

/// Whether the leader can take trades.
pub fn leads(leadership: Leadership, probed: &[Probed]) -> bool {
    probed.iter().any(|probed| {
        leadership.leader == Some(probed.id)
            && probed.status.is_some_and(|status| {
                status.role == Role::Leader && status.epoch == leadership.epoch
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u32) -> ReplicaId {
        ReplicaId::new(id).unwrap()
    }

    fn replica(number: u32, role: Role, epoch: u64) -> Probed {
        let status = Status {
            role,
            epoch: Epoch(epoch),
            leader: (epoch > 0).then(|| id(3)),
            orders: OrderNumber(0),
            chain: ChainHash::EMPTY,
            reaches_catalog: true,
        };
        Probed {
            id: id(number),
            status: Some(status),
            round_trip: Duration::ZERO,
        }
    }

    fn led_by_3() -> Leadership {
        Leadership {
            epoch: Epoch(2),
            leader: Some(id(3)),
        }
    }

    #[test]
    fn the_first_leader_is_elected_and_every_replica_is_told() {
        let all: Vec<_> = (1..=3)
            .map(|number| replica(number, Role::Follower, 0))
            .collect();
        assert_eq!(
            next_step(Leadership::default(), &all, Some(id(3))),
            Step::Elect(id(3))
        );
        assert_eq!(
            next_step(led_by_3(), &all, Some(id(3))),
            Step::Announce(vec![id(1), id(2), id(3)])
        );
    }

    #[test]
    fn nothing_is_done_while_the_leader_leads() {
        let all = [replica(1, Role::Follower, 2), replica(3, Role::Leader, 2)];
        assert_eq!(next_step(led_by_3(), &all, Some(id(3))), Step::Nothing);
        assert_eq!(next_step(led_by_3(), &all, None), Step::Nothing);
        assert!(leads(led_by_3(), &all));
    }

    #[test]
    fn a_replica_that_came_back_is_told() {
        let all = [replica(1, Role::Follower, 1), replica(3, Role::Leader, 2)];
        assert_eq!(
            next_step(led_by_3(), &all, Some(id(3))),
            Step::Announce(vec![id(1)])
        );
    }

    #[test]
    fn a_leader_that_restarted_is_told_and_may_refuse() {
        let all = [replica(1, Role::Follower, 2), replica(3, Role::Follower, 2)];
        assert_eq!(
            next_step(led_by_3(), &all, Some(id(3))),
            Step::Announce(vec![id(3)])
        );
        assert!(!leads(led_by_3(), &all));
    }

    #[test]
    fn another_choice_of_the_policy_is_an_election() {
        let all = [replica(2, Role::Follower, 2), replica(3, Role::Leader, 2)];
        assert_eq!(next_step(led_by_3(), &all, Some(id(2))), Step::Elect(id(2)));
    }

    #[test]
    fn a_replica_that_is_elected_in_vain_is_passed_over_for_a_while() {
        let at = BootTime::from_millis;
        let all = [replica(2, Role::Follower, 2), replica(3, Role::Follower, 2)];
        let mut history = History::default();
        for election in 0..4 {
            assert_eq!(history.seen(&all, at(election * 100)), all);
            history.elected(id(3), at(election * 100));
        }
        let seen = history.seen(&all, at(400));
        assert!(seen[0].status.is_some() && seen[1].status.is_none());
        assert_eq!(
            history.seen(&all[1..], at(400)),
            all[1..],
            "unless there is no other"
        );
        assert_eq!(history.seen(&all, at(5400)), all);
    }

    #[test]
    fn gateways_that_see_different_replicas_slow_down() {
        let mut history = History::default();
        let (mut now, mut elections) = (0, 0);
        for epoch in 1.. {
            history.observed(Epoch(epoch), BootTime::from_millis(now));
            while now < 60_000 && !history.may_elect(BootTime::from_millis(now), 0.0) {
                now += 10;
                history.observed(Epoch(epoch), BootTime::from_millis(now));
            }
            now += 10;
            if now >= 60_000 {
                break;
            }
            elections += 1;
        }
        assert!(
            (8..100).contains(&elections),
            "{elections} in a minute, where it could be 6,000"
        );
    }

    #[test]
    fn a_replica_that_does_not_answer_is_not_elected() {
        let dead = Probed {
            status: None,
            ..replica(2, Role::Follower, 0)
        };
        let all = [dead, replica(3, Role::Leader, 2)];
        assert_eq!(next_step(led_by_3(), &all, Some(id(2))), Step::Nothing);
    }

    #[test]
    fn elections_far_apart_are_not_in_vain() {
        let all = [replica(2, Role::Follower, 2), replica(3, Role::Follower, 2)];
        let mut history = History::default();
        for election in 0..10 {
            history.elected(id(3), BootTime::from_millis(election * 3000));
        }
        assert_eq!(history.seen(&all, BootTime::from_millis(30_000)), all);
    }

    #[test]
    fn without_a_healthy_replica_nothing_can_be_done() {
        let dead = Probed {
            status: None,
            ..replica(3, Role::Follower, 0)
        };
        assert_eq!(
            next_step(Leadership::default(), std::slice::from_ref(&dead), None),
            Step::Nothing
        );
        assert_eq!(next_step(led_by_3(), &[dead], None), Step::Nothing);
    }
}
