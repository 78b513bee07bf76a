//! Decides whether a history is linearizable: exactly, in time `n log n`.
//!
//! Deciding linearizability is NP-complete in general (Gibbons & Korach 1997), because the order
//! of the writes has to be guessed. Here it is known: every trade that took effect has a row,
//! and rows have numbers. So an object's *chain* of changes is given, and what is left is to
//! find for each observation a *place*: after how many changes it happened. A history is
//! linearizable (Herlihy & Wing 1990) if some total order of its operations explains every
//! result and keeps the order of any two operations of which one was over before the other
//! began. Ordered by their places (changes by their place in the chain, observations of one
//! place by when they began), operations keep that order if and only if
//!
//! 1. no change was over before a change ahead of it in the chain began;
//! 2. an observation's place is not below any change that was over before it began;
//! 3. nor does it reach a change that began after the observation was over;
//! 4. nor is it below the place of an observation that was over before it began.
//!
//! Only rule 4 ties observations to each other, and only from below. So taking observations as
//! they began, each at the lowest place that rules 2 and 4 and its own result allow, is best for
//! all that follow: if that place breaks rule 3, every choice does. What the sweep accepts is
//! linearizable, and what it refuses is not.
//!
//! It is applied to each stock (changes: the trades of that stock; observations: lookups, and
//! refusals, which observe that there was too little) and to the journal (changes: all trades;
//! observations: order queries, found or not found).

use std::fmt;

/// When an operation began and was over, in nanoseconds of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Before the request was sent.
    pub began: u64,
    /// After the answer was read; [`NEVER`] where none came.
    pub over: u64,
}

/// When an operation without an answer is over: it may take effect at any time.
pub const NEVER: u64 = u64::MAX;

/// An operation that changed nothing.
pub struct Observation<'a> {
    /// When it was under way.
    pub span: Span,
    /// Whether its result is right after so many changes.
    pub fits: Box<dyn Fn(usize) -> bool + 'a>,
    pub what: String,
}

/// Why a history is not linearizable.
#[derive(Debug, PartialEq, Eq)]
pub enum Violation {
    /// A change was over before one ahead of it in the chain began.
    Reordered { earlier: usize, later: usize },
    /// No place is left for an observation.
    NoPlace {
        what: String,
        /// Its lowest place, by what was over before it began.
        lowest: usize,
        /// Its highest place, by what began after it was over.
        highest: usize,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reordered { earlier, later } => write!(
                f,
                "change {later} was over before change {earlier}, which is ahead of it, began"
            ),
            Self::NoPlace {
                what,
                lowest,
                highest,
            } => write!(
                f,
                "{what}: fits after none of {lowest} to {highest} changes"
            ),
        }
    }
}

/// Every violation that the sweep meets in a history of one object: its changes in the order in
/// which they took effect, and its observations. After a violation it goes on as though the
/// operation had not been.
pub fn judge(changes: &[Span], observations: &[Observation]) -> Vec<Violation> {
    let latest_begin = running_latest_begin(changes);
    let mut violations = reordered(changes, &latest_begin);
    let mut by_begin: Vec<&Observation> = observations.iter().collect();
    by_begin.sort_by_key(|observation| observation.span.began);
    // Lower bounds, each with the time from which it holds, in time order.
    let mut floors: Vec<(u64, usize)> = changes
        .iter()
        .enumerate()
        .map(|(index, change)| (change.over, index + 1))
        .collect();
    floors.sort_unstable();
    let mut of_changes = floors.into_iter().peekable();
    let mut of_observations = std::collections::BinaryHeap::new();
    let mut lowest = 0;
    for observation in by_begin {
        let Span { began, over } = observation.span;
        while let Some((_, floor)) = of_changes.next_if(|(from, _)| *from < began) {
            lowest = lowest.max(floor);
        }
        while let Some(&std::cmp::Reverse((from, floor))) = of_observations.peek()
            && from < began
        {
            of_observations.pop();
            lowest = lowest.max(floor);
        }
        let highest = latest_begin.partition_point(|begin| *begin <= over);
        match (lowest..=highest).find(|place| (observation.fits)(*place)) {
            Some(place) => of_observations.push(std::cmp::Reverse((over, place))),
            None => violations.push(Violation::NoPlace {
                what: observation.what.clone(),
                lowest,
                highest,
            }),
        }
    }
    violations
}

/// For each change the latest begin up to it. The changes that an observation can have seen end
/// before the first that began after it was over.
fn running_latest_begin(changes: &[Span]) -> Vec<u64> {
    changes
        .iter()
        .scan(0, |latest: &mut u64, change| {
            *latest = change.began.max(*latest);
            Some(*latest)
        })
        .collect()
}

fn reordered(changes: &[Span], latest_begin: &[u64]) -> Vec<Violation> {
    changes
        .iter()
        .enumerate()
        .filter_map(|(later, change)| {
            let earlier = latest_begin[..later].partition_point(|begin| *begin <= change.over);
            (earlier < later).then_some(Violation::Reordered { earlier, later })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(began: u64, over: u64) -> Span {
        Span { began, over }
    }

    /// The places at which no lookup of a stock could be put; quantities after each prefix of
    /// the changes.
    fn check(
        changes: &[(u64, u64)],
        quantities: &[i64],
        lookups: &[(u64, u64, i64)],
    ) -> Vec<usize> {
        let changes: Vec<Span> = changes.iter().map(|(b, o)| span(*b, *o)).collect();
        assert_eq!(quantities.len(), changes.len() + 1);
        let lookup = |(index, (b, o, seen)): (usize, &(u64, u64, i64))| {
            let seen = *seen;
            Observation {
                span: span(*b, *o),
                fits: Box::new(move |place| quantities[place] == seen),
                what: index.to_string(),
            }
        };
        let observations: Vec<_> = lookups.iter().enumerate().map(lookup).collect();
        let index = |violation| match violation {
            Violation::NoPlace { what, .. } => what.parse().unwrap(),
            reordered => panic!("{reordered}"),
        };
        let violations = judge(&changes, &observations);
        violations.into_iter().map(index).collect()
    }

    #[test]
    fn a_lookup_during_a_trade_may_see_either_quantity() {
        assert!(check(&[(10, 20)], &[5, 4], &[(12, 14, 4), (15, 16, 4)]).is_empty());
        assert!(check(&[(10, 20)], &[5, 4], &[(12, 14, 5), (15, 16, 4)]).is_empty());
        assert!(check(&[(10, 20)], &[5, 4], &[(1, 15, 4), (12, 30, 5)]).is_empty());
        assert!(check(&[], &[5], &[(1, 2, 5)]).is_empty());
    }

    #[test]
    fn a_stale_lookup_is_seen() {
        // After the trade was acknowledged.
        assert_eq!(check(&[(10, 20)], &[5, 4], &[(21, 22, 5)]), [0]);
        // After another lookup had seen the trade, which was under way.
        let lookups = [(12, 14, 4), (15, 16, 5)];
        assert_eq!(check(&[(10, 20)], &[5, 4], &lookups), [1]);
        // After another had seen a trade that nobody was ever told of.
        assert_eq!(check(&[(10, NEVER)], &[5, 4], &lookups), [1]);
    }

    #[test]
    fn a_lookup_from_the_future_is_seen() {
        assert_eq!(check(&[(10, 20)], &[5, 4], &[(1, 9, 4)]), [0]);
        // The second trade had not begun, though the third had.
        let changes = [(1, 50), (30, 50), (2, 50)];
        assert_eq!(check(&changes, &[5, 4, 3, 2], &[(10, 20, 2)]), [0]);
        assert!(check(&changes, &[5, 4, 3, 2], &[(10, 30, 2)]).is_empty());
    }

    #[test]
    fn a_quantity_that_never_was_is_seen() {
        // Also that of a trade that was acknowledged and has no row.
        assert_eq!(check(&[(10, 20)], &[5, 4], &[(11, 30, 3)]), [0]);
    }

    #[test]
    fn a_quantity_that_comes_back_is_not_mistaken() {
        // 5, 4, 5, 4: each lookup takes the lowest place that is left.
        let changes = [(10, 20), (30, 40), (50, 60)];
        let quantities = [5, 4, 5, 4];
        let right = [
            (1, 2, 5),
            (11, 12, 4),
            (31, 32, 5),
            (51, 52, 4),
            (70, 71, 4),
        ];
        assert!(check(&changes, &quantities, &right).is_empty());
        let wrong = [(11, 12, 4), (13, 14, 5), (31, 32, 5), (61, 62, 5)];
        assert_eq!(check(&changes, &quantities, &wrong), [1, 3]);
    }

    #[test]
    fn the_lowest_place_is_the_one_that_leaves_room() {
        // The first could be before or after both trades, and only before leaves the second one.
        let changes = [(10, 100), (10, 100)];
        assert!(check(&changes, &[5, 4, 5], &[(11, 20, 5), (21, 30, 4)]).is_empty());
        assert!(
            check(
                &changes,
                &[5, 4, 5],
                &[(11, 20, 5), (21, 30, 4), (31, 40, 5)]
            )
            .is_empty()
        );
        assert_eq!(
            check(
                &changes,
                &[5, 4, 5],
                &[(11, 20, 4), (21, 30, 5), (31, 40, 4)]
            ),
            [2]
        );
    }

    #[test]
    fn trades_numbered_against_their_order_are_seen() {
        let changes = [span(30, 40), span(10, 20)];
        let expected = Violation::Reordered {
            earlier: 0,
            later: 1,
        };
        assert_eq!(judge(&changes, &[]), [expected]);
        assert!(judge(&[span(30, 40), span(10, 30)], &[]).is_empty());
        assert!(judge(&[span(30, 40), span(10, NEVER)], &[]).is_empty());
    }

    /// Tries every assignment of places.
    fn by_brute_force(changes: &[Span], lookups: &[(Span, i64)], quantities: &[i64]) -> bool {
        let before = |a: Span, b: Span| a.over < b.began;
        let in_order = (0..changes.len())
            .all(|later| (0..later).all(|earlier| !before(changes[later], changes[earlier])));
        let places = changes.len() + 1;
        let assignments = places.pow(lookups.len() as u32);
        in_order
            && (0..assignments).any(|assignment| {
                let place = |index: usize| assignment / places.pow(index as u32) % places;
                (0..lookups.len()).all(|a| {
                    let (span, seen) = lookups[a];
                    let with_changes = changes.iter().enumerate().all(|(index, change)| {
                        (!before(*change, span) || index < place(a))
                            && (!before(span, *change) || index >= place(a))
                    });
                    let with_lookups = (0..lookups.len())
                        .all(|b| !before(lookups[b].0, span) || place(b) <= place(a));
                    quantities[place(a)] == seen && with_changes && with_lookups
                })
            })
    }

    #[test]
    fn the_sweep_agrees_with_brute_force() {
        const HISTORIES: usize = 20_000;
        const TIMES: u64 = 12;
        let mut random = fastrand::Rng::with_seed(7);
        let mut refused = 0;
        for _ in 0..HISTORIES {
            let mut some_span = || {
                let (a, b) = (random.u64(0..TIMES), random.u64(0..TIMES));
                span(a.min(b), a.max(b))
            };
            let changes: Vec<Span> = (0..3).map(|_| some_span()).collect();
            let spans: Vec<Span> = (0..4).map(|_| some_span()).collect();
            let quantities: Vec<i64> = (0..4).map(|_| random.i64(0..3)).collect();
            let lookups: Vec<(Span, i64)> = spans
                .into_iter()
                .map(|span| (span, quantities[random.usize(0..4)]))
                .collect();
            let observations: Vec<Observation> = lookups
                .iter()
                .map(|&(span, seen)| {
                    let quantities = &quantities;
                    Observation {
                        span,
                        fits: Box::new(move |place| quantities[place] == seen),
                        what: String::new(),
                    }
                })
                .collect();
            let accepted = judge(&changes, &observations).is_empty();
            let expected = by_brute_force(&changes, &lookups, &quantities);
            assert_eq!(accepted, expected, "{changes:?} {lookups:?} {quantities:?}");
            refused += usize::from(!accepted);
        }
        let share = refused as f64 / HISTORIES as f64;
        assert!((0.2..0.9).contains(&share), "{share} of them are wrong");
    }
}
