//! Who should lead.

use crate::types::{Replica, ReplicaId, View};

/// A leader that works stays; else the highest id that works takes over. `None` for as it is:
/// also where no replica works.
pub fn keep_working_leader(view: &View) -> Option<ReplicaId> {
    let leader_works = working(view).any(|id| Some(id) == view.leader);
    if leader_works {
        None
    } else {
        prefer_highest(view)
    }
}

/// The highest id that works leads, even where that takes leadership from one that works, too.
/// `None` for as it is.
pub fn prefer_highest(view: &View) -> Option<ReplicaId> {
    working(view)
        .max()
        .filter(|&highest| Some(highest) != view.leader)
}

/// A leader must answer, and without the catalog it can serve no trade.
fn working(view: &View) -> impl Iterator<Item = ReplicaId> {
    let works = |replica: &&Replica| replica.healthy && replica.reaches_catalog;
    view.replicas.iter().filter(works).map(|replica| replica.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A view from a text such as `1 2! 3?`: `!` marks one that does not answer, `?` one that does
    /// not reach the catalog.
    fn view(replicas: &str, leader: Option<ReplicaId>) -> View {
        let replica = |word: &str| Replica {
            id: word.trim_end_matches(['!', '?']).parse().expect("an id"),
            healthy: !word.ends_with('!'),
            reaches_catalog: !word.ends_with('?'),
            orders: 0,
            round_trip_us: 100,
        };
        View {
            replicas: replicas.split_whitespace().map(replica).collect(),
            leader,
            epoch: 1,
        }
    }

    fn check(
        replicas: &str,
        leader: Option<ReplicaId>,
        kept: Option<ReplicaId>,
        highest: Option<ReplicaId>,
    ) {
        let view = view(replicas, leader);
        assert_eq!(
            keep_working_leader(&view),
            kept,
            "keep: {replicas}, led by {leader:?}"
        );
        assert_eq!(
            prefer_highest(&view),
            highest,
            "highest: {replicas}, led by {leader:?}"
        );
    }

    #[test]
    fn elections() {
        check("", None, None, None);
        check("1 2 3", None, Some(3), Some(3));
        check("1 2 3", Some(3), None, None);
        check("1 2 3!", Some(3), Some(2), Some(2));
        check("1 2 3?", Some(3), Some(2), Some(2));
        check("1 2! 3!", Some(3), Some(1), Some(1));
        check("1! 2! 3!", Some(3), None, None);
        check("1? 2? 3?", None, None, None);
        check("1 2 3", Some(1), None, Some(3)); // 3 is back
        check("1 2", Some(9), Some(2), Some(2)); // the leader is no replica that we know
    }
}
