//! Requests that were answered, by what was done for them: a bounded set, whatever clients ask for.

use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use metrics::PerThread;

use crate::decision::Operation;

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// A stock was read.
    Stock,
    /// Stocks were listed.
    Stocks,
    /// An order was read.
    Order,
    /// Orders were listed.
    Orders,
    /// Orders are followed: what is counted is that it began.
    Events,
    /// An order was placed.
    Trade,
    /// Something else was done, such as taking tokens, and then nothing more.
    Other,
    /// The policy answered by itself.
    Policy,
    /// No policy was asked: HTTP does not allow it, or there is no room for it.
    Refused,
}

impl Route {
    /// All, in their order.
    pub const ALL: [Self; 9] = [
        Self::Stock,
        Self::Stocks,
        Self::Order,
        Self::Orders,
        Self::Events,
        Self::Trade,
        Self::Other,
        Self::Policy,
        Self::Refused,
    ];

    /// That of what is done for a request last.
    pub fn of(operation: &Operation) -> Self {
        match operation {
            Operation::ReadStock { .. } => Self::Stock,
            Operation::ListStocks(_) => Self::Stocks,
            Operation::ReadOrder { .. } => Self::Order,
            Operation::ListOrders(_) => Self::Orders,
            Operation::FollowOrders { .. } => Self::Events,
            Operation::Trade(_) => Self::Trade,
            _ => Self::Other,
        }
    }

    /// As it is exported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Stocks => "stocks",
            Self::Order => "order",
            Self::Orders => "orders",
            Self::Events => "events",
            Self::Trade => "trade",
            Self::Other => "other",
            Self::Policy => "policy",
            Self::Refused => "refused",
        }
    }
}

/// What the cache had for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cached {
    Hit,
    Miss,
    Stale,
    Bypass,
    /// Nothing was looked up.
    None,
}

impl Cached {
    /// All, in their order.
    pub const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Stale, Self::Bypass, Self::None];

    /// As it is exported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
            Self::None => "none",
        }
    }
}

/// The classes of statuses.
pub const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub route: Route,
    pub cached: Cached,
    pub status: StatusCode,
}

/// How many answers are told apart.
pub const ANSWERS: usize = Route::ALL.len() * Cached::ALL.len() * STATUSES.len();

impl Answer {
    /// Its place among all.
    pub fn place(self) -> usize {
        let class = usize::from(self.status.as_u16() / 100).clamp(1, STATUSES.len()) - 1;
        let route = self.route as usize * Cached::ALL.len() + self.cached as usize;
        route * STATUSES.len() + class
    }

    /// The labels of a place: the route, the cache's result, and the status' class.
    pub fn labels(place: usize) -> [&'static str; 3] {
        let (route, class) = (place / STATUSES.len(), place % STATUSES.len());
        [
            Route::ALL[route / Cached::ALL.len()].name(),
            Cached::ALL[route % Cached::ALL.len()].name(),
            STATUSES[class],
        ]
    }
}

/// The requests about which a version decided.
#[derive(Debug, Default)]
pub struct Answered(PerThread<Counters>);

#[derive(Debug)]
struct Counters([AtomicU64; ANSWERS]);

impl Default for Counters {
    fn default() -> Self {
        Self(from_fn(|_| AtomicU64::default()))
    }
}

impl Answered {
    /// Counts one more.
    pub fn count(&self, answer: Answer) {
        self.0.mine().0[answer.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were, by their places.
    pub fn counts(&self) -> [u64; ANSWERS] {
        let of = |place: usize| {
            let counters = self.0.all().map(|Counters(mine)| &mine[place]);
            counters
                .map(|counter| counter.load(Ordering::Relaxed))
                .sum()
        };
        from_fn(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_a_place_of_its_own_and_its_labels_back() {
        let answered = Answered::default();
        for route in Route::ALL {
            for cached in Cached::ALL {
                for (class, name) in STATUSES.iter().enumerate() {
                    let status = StatusCode::from_u16(100 * (class as u16 + 1) + 4).unwrap();
                    let answer = Answer {
                        route,
                        cached,
                        status,
                    };
                    assert_eq!(
                        Answer::labels(answer.place()),
                        [route.name(), cached.name(), name]
                    );
                    answered.count(answer);
                }
            }
        }
        assert_eq!(answered.counts(), [1; ANSWERS]);
        let unheard_of = Answer {
            route: Route::Refused,
            cached: Cached::None,
            status: StatusCode::from_u16(999).unwrap(),
        };
        assert_eq!(Answer::labels(unheard_of.place())[2], "5xx");
    }
}
