//! The highest replica leads whenever it works: one that rejoins gets leadership back, once it has
//! caught up.

use frontend_guest::types::{ReplicaId, View};
use frontend_guest::{Policy, election, export};

struct AlwaysHighest;

impl Policy for AlwaysHighest {
    fn name(&self) -> &'static str {
        "always-highest"
    }

    fn elect(&self, view: &View) -> Option<ReplicaId> {
        election::prefer_highest(view)
    }
}

export!(AlwaysHighest);

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::Replica;

    #[test]
    fn a_higher_replica_that_rejoins_leads_again() {
        let replica = |id| Replica {
            id,
            healthy: true,
            reaches_catalog: true,
            orders: 0,
            round_trip_us: 100,
            in_sync: false,
        };
        let mut view = View {
            replicas: vec![replica(1), replica(2)],
            leader: Some(2),
            epoch: 1,
        };
        assert_eq!(AlwaysHighest.elect(&view), None);
        view.replicas.push(replica(3));
        assert_eq!(AlwaysHighest.elect(&view), Some(3));
    }
}
