//! Whether a trade could be served.

use std::borrow::Cow;
use std::time::Duration;

use domain::time::BootTime;
use frontend_core::election::{CurrentLeader, Probed};
use tokio::time::sleep;

use crate::handler::Gateway;

/// How often it is looked.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Why none could be served now.
pub fn unready(gateway: &Gateway) -> Option<Cow<'static, str>> {
    let session = gateway.cache.lease().current(BootTime::now());
    let replicas = &gateway.backend.replicas;
    if gateway.stage.is_stopping() {
        Some("the gateway is stopping".into())
    } else if gateway.policy.current().closed.is_some() {
        let why = "the policy that was active last cannot be started, and none may stand in for it";
        Some(why.into())
    } else if let Some(waits) = replicas.start_waits() {
        Some(format!("the catalog {waits}").into())
    } else if session.is_none() {
        Some("no session with the catalog".into())
    } else if replicas.journal().is_some_and(|it| it.commits_fail) {
        Some("the catalog's commits fail: its log says why".into())
    } else {
        let current = *replicas.leader().borrow();
        replicas.with_probed(|probed| leaderless(&current, probed))
    }
}

/// Why no leader takes trades.
fn leaderless(current: &CurrentLeader, probed: &[Probed]) -> Option<Cow<'static, str>> {
    let is_silent = |id| {
        let mut probed = probed.iter();
        probed.any(|probed| probed.id == id && probed.status.is_err())
    };
    match current.term.leader {
        _ if probed.iter().all(|probed| probed.status.is_err()) => {
            Some("no leader: no order replica answers".into())
        }
        None => Some("no leader: no order replica was elected yet".into()),
        Some(leader) if !current.active && is_silent(leader) => {
            Some(format!("no leader: replica {leader}, which was elected, does not answer").into())
        }
        Some(leader) if !current.active => {
            Some(format!("replica {leader}, which was elected, does not take trades yet").into())
        }
        Some(_) => None,
    }
}

/// Waits until one could.
pub async fn wait_until_ready(gateway: &Gateway) {
    while unready(gateway).is_some() {
        sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ChainHash, Epoch, ReplicaId, RowNumber, Term};
    use frontend_core::election::{Role, Status, Unanswered};

    #[test]
    fn who_does_not_answer_is_told_from_who_does_not_take_trades() {
        let id = |id| ReplicaId::new(id).unwrap();
        let one = |number, role: Option<Role>| {
            let mut probed = Probed::unknown(id(number));
            probed.status = role.ok_or(Unanswered::Silent).map(|role| Status {
                role,
                epoch: Epoch(7),
                leader: ReplicaId::new(3),
                rows: RowNumber(1),
                stock_changes: 0,
                chain: ChainHash::EMPTY,
                reaches_catalog: true,
            });
            probed
        };
        let follower = Some(Role::Follower);
        let why = |leader: Option<u32>, probed: &[Probed]| {
            let term = Term {
                epoch: Epoch(7),
                leader: leader.map(id),
            };
            leaderless(&CurrentLeader::by(term, probed), probed)
        };
        assert_eq!(
            why(Some(3), &[one(2, follower), one(3, Some(Role::Leader))]),
            None
        );
        for (leader, probed, expected) in [
            (
                Some(3),
                [one(2, None), one(3, None)],
                "no order replica answers",
            ),
            (
                Some(3),
                [one(2, follower), one(3, None)],
                "replica 3, which was elected, does not answer",
            ),
            (
                None,
                [one(2, follower), one(3, follower)],
                "was elected yet",
            ),
            (
                Some(3),
                [one(2, follower), one(3, Some(Role::Activating))],
                "does not take trades yet",
            ),
        ] {
            let why = why(leader, &probed).unwrap();
            assert!(why.contains(expected), "{why}");
        }
    }
}
