//! Who should lead.

use crate::types::{Replica, ReplicaId, View};

/// How many orders a replica may lack and still lead at once. It fetches them in some 10 ms, before it
/// takes trades; and of replicas that lack nothing, one may seem as far behind, since their probes
/// were answered at different times.
pub const ORDERS_BEHIND_MAX: u64 = 4_096;

/// A leader that works stays; else the highest id that works and can lead at once takes over. `None`
/// for as it is: also where no replica works.
pub fn keep_working_leader(view: &View) -> Option<ReplicaId> {
    let leader_works = working(view).any(|replica| Some(replica.id) == view.leader);
    if leader_works {
        None
    } else {
        prefer_highest(view)
    }
}

/// The highest id that works and can lead at once leads, even where that takes leadership from one
/// that works, too. `None` for as it is.
pub fn prefer_highest(view: &View) -> Option<ReplicaId> {
    let furthest = working(view).map(|replica| replica.orders).max()?;
    let can_lead_at_once = |replica: &&Replica| {
        replica.in_sync || replica.orders.saturating_add(ORDERS_BEHIND_MAX) >= furthest
    };
    let highest = working(view).filter(can_lead_at_once);
    let highest = highest.map(|replica| replica.id).max();
    highest.filter(|&highest| Some(highest) != view.leader)
}

/// A leader must answer, and without the catalog it can serve no trade.
fn working(view: &View) -> impl Iterator<Item = &Replica> {
    let works = |replica: &&Replica| replica.healthy && replica.reaches_catalog;
    view.replicas.iter().filter(works)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A view from a text such as `1 2! 3?`: `!` marks one that does not answer, `?` one that does
    /// not reach the catalog, `=` one that is in sync, and `:7` one that holds so many orders.
    fn view(replicas: &str, leader: Option<ReplicaId>) -> View {
        let replica = |word: &str| {
            let (word, orders) = word.split_once(':').unwrap_or((word, "0"));
            Replica {
                id: word
                    .trim_end_matches(['!', '?', '='])
                    .parse()
                    .expect("an id"),
                healthy: !word.contains('!'),
                reaches_catalog: !word.contains('?'),
                orders: orders.parse().expect("a number of orders"),
                round_trip_us: 100,
                in_sync: word.contains('='),
            }
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
        check("1 2", Some(9), Some(2), Some(2)); // the leader is not a replica that we know
    }

    #[test]
    fn who_has_far_to_catch_up_does_not_lead() {
        check("1=:600000 2 3", None, Some(1), Some(1));
        check("1=:600000 2 3", Some(1), None, None);
        check("1=:600000 2!=:600000 3", Some(2), Some(1), Some(1));
        check("1=:600000 2=:600000 3:595903", None, Some(2), Some(2));
        check("1=:600000 2=:600000 3:595904", None, Some(3), Some(3));
        check("1=:600000 2=:600000 3:595904", Some(1), None, Some(3));
        // In sync by the catalog's word: its probe is old.
        check("1=:600000 2=:500000 3", None, Some(2), Some(2));
        // No replica that works is in sync: the furthest leads, or one that is near it.
        check("1:9000 2:4000 3!=:9000", Some(3), Some(1), Some(1));
        check("1:9000 2:5000 3!=:9000", Some(3), Some(2), Some(2));
        // What the dead and the cut off hold does not count.
        check("1:7 2!=:600000 3?=:600000", Some(3), Some(1), Some(1));
        check(
            "1:18446744073709551615 2:18446744073709551614",
            None,
            Some(2),
            Some(2),
        );
    }
}
