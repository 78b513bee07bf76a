//! What a version's decisions cost, by route.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Buckets, Count, SHORT_SECONDS, Scale};

/// Routes that are told apart; the rest are counted together.
const ROUTES_MAX: usize = 32;
const OTHER_ROUTES: &str = "others";

/// On which costs are noted.
pub static COSTS: &Scale = &SHORT_SECONDS;

/// Processor time of a sample of the decisions on each route.
#[derive(Debug, Default)]
pub struct Costs(Mutex<BTreeMap<String, Buckets>>);

impl Costs {
    /// Notes what one decision took, if nobody else is about to: it is a sample. Clients choose what routes there
    /// are, so one is told apart once something on it `is_served`, and not for being asked for.
    pub(crate) fn note(&self, route: String, is_served: bool, took: Duration) {
        let Ok(mut routes) = self.0.try_lock() else {
            return;
        };
        let is_told_apart = routes.contains_key(&route) || is_served && routes.len() < ROUTES_MAX;
        let route = match is_told_apart {
            true => route,
            false => OTHER_ROUTES.to_owned(),
        };
        let cost = routes.entry(route).or_default();
        cost.add(COSTS, took.as_nanos() as u64);
    }

    /// What was noted so far, by route.
    pub fn snapshot(&self) -> BTreeMap<String, Count> {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = routes
            .iter()
            .map(|(route, cost)| (route.clone(), cost.count()));
        counts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_in_the_first_bucket_that_has_room_for_it_and_routes_are_bounded() {
        let costs = Costs::default();
        for nanos in [0, 1_000, 1_001, 20_000_000, 20_000_001] {
            costs.note("GET /stocks/*".into(), true, Duration::from_nanos(nanos));
        }
        let cost = &costs.snapshot()["GET /stocks/*"];
        let buckets = cost.buckets(COSTS);
        assert_eq!((buckets[0], buckets[1]), (2, 1));
        assert_eq!((buckets[13], buckets[14]), (1, 1));
        assert!((cost.sum(COSTS) - 0.040_002_002).abs() < 1e-9);
        for route in 0..100 {
            costs.note(format!("GET /{route}"), true, Duration::ZERO);
        }
        let routes = costs.snapshot();
        assert_eq!(routes.len(), ROUTES_MAX + 1);
        assert_eq!(routes[OTHER_ROUTES].total(), 69);
    }

    #[test]
    fn what_clients_invent_takes_no_room_from_what_they_are_served() {
        let costs = Costs::default();
        for route in 0..1_000 {
            costs.note(format!("GET /{route}"), false, Duration::ZERO);
        }
        let served = "GET /stocks/*";
        for is_served in [true, false] {
            costs.note(served.into(), is_served, Duration::ZERO);
        }
        let routes = costs.snapshot();
        let counted = routes.iter().map(|(name, it)| (name.as_str(), it.total()));
        let counted: Vec<_> = counted.collect();
        assert_eq!(counted, [(served, 2), (OTHER_ROUTES, 1_000)]);
    }
}
