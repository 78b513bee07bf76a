//! What a version's decisions cost, by route.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Routes that are told apart; the rest are counted together.
const ROUTES_MAX: usize = 32;
const OTHER_ROUTES: &str = "others";

/// Upper bounds of the buckets, in microseconds; what is above is in one more.
pub const COST_BOUNDS_US: [u32; 14] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000,
];

/// Processor time of a sample of the decisions on a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cost {
    /// How many took up to each of the bounds, and more than the one before; the last is of those above
    /// all.
    pub buckets: [u64; COST_BOUNDS_US.len() + 1],
    pub sum: Duration,
}

/// The same of all routes.
#[derive(Debug, Default)]
pub struct Costs(Mutex<BTreeMap<String, Cost>>);

impl Costs {
    /// Notes what one decision took, if nobody else is about to: it is a sample.
    pub(crate) fn note(&self, route: String, took: Duration) {
        let Ok(mut routes) = self.0.try_lock() else {
            return;
        };
        let has_room = routes.len() < ROUTES_MAX || routes.contains_key(&route);
        let route = match has_room {
            true => route,
            false => OTHER_ROUTES.to_owned(),
        };
        let cost = routes.entry(route).or_default();
        let micros = took.as_nanos().div_ceil(1_000);
        let bucket = COST_BOUNDS_US.partition_point(|bound| u128::from(*bound) < micros);
        cost.buckets[bucket] += 1;
        cost.sum += took;
    }

    /// A copy of what was noted so far, by route.
    pub fn snapshot(&self) -> BTreeMap<String, Cost> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_in_the_first_bucket_that_has_room_for_it_and_routes_are_bounded() {
        let costs = Costs::default();
        for nanos in [0, 1_000, 1_001, 20_000_000, 20_000_001] {
            costs.note("GET /stocks/*".into(), Duration::from_nanos(nanos));
        }
        let cost = &costs.snapshot()["GET /stocks/*"];
        assert_eq!((cost.buckets[0], cost.buckets[1]), (2, 1));
        assert_eq!((cost.buckets[13], cost.buckets[14]), (1, 1));
        assert_eq!(cost.sum, Duration::from_nanos(40_002_002));
        for route in 0..100 {
            costs.note(format!("GET /{route}"), Duration::ZERO);
        }
        let routes = costs.snapshot();
        assert_eq!(routes.len(), ROUTES_MAX + 1);
        assert_eq!(routes[OTHER_ROUTES].buckets[0], 69);
    }
}
