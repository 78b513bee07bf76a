//! What to do about the leader: pure, from what the replicas and the catalog said last.

use std::time::Duration;

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

/// What to do, given whom the policy wants.
pub fn next_step(leadership: Leadership, probed: &[Probed], wanted: Option<ReplicaId>) -> Step {
    if let Some(wanted) = wanted
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
