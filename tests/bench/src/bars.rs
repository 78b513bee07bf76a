//! What Bazaar is to reach, and whether it did. A bar that is missed is reported, never a failure.

use serde::{Deserialize, Serialize};

use crate::rounds::{Round, Series};
use crate::scenario::{
    BAZAAR, Kind, LOOKUP_CONNECTIONS, NATIVE, ON_POSTGRES, ONE_STANDBY, Scenario, TRACED,
};
use crate::statistics::{Interval, Spread};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// What is to be reached.
    pub claim: String,
    /// Bazaar's figure divided by the other's, round by round.
    pub ratio: Spread,
    /// Where the median of its sittings lies, where there were enough of them.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// Whether the median reaches it.
    pub met: bool,
    /// Whether that may be by chance.
    #[serde(default)]
    pub is_open: bool,
}

impl Bar {
    /// Whether it is reached, in a word; where the interval is on both sides of the bar nobody knows.
    pub fn verdict(&self) -> &'static str {
        match (self.met, self.is_open) {
            (_, true) => "open: more sittings would tell",
            (true, false) => "met",
            (false, false) => "**not met**",
        }
    }
}

/// How a ratio must compare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

/// One comparison that a bar makes.
struct Comparison {
    claim: &'static str,
    ours: &'static str,
    kind: Kind,
    connections: u32,
    figure: fn(&Round) -> f64,
    /// Of several, in each round the one that did best.
    rivals: &'static [&'static str],
    bound: Bound,
}

const ETCD: &[&str] = &["etcd (JSON)", "etcd (gRPC)"];
/// The one that the bar was first set by.
const ETCD_JSON: &[&str] = &["etcd (JSON)"];

const PER_SECOND: fn(&Round) -> f64 = |round| round.per_second;
const P50: fn(&Round) -> f64 = |round| round.p50_us;
const P99: fn(&Round) -> f64 = |round| round.p99_us;

/// What tracing one request in a hundred may cost.
const TRACED_LOOKUPS: f64 = 0.98;
const TRACED_TRADES: f64 = 0.97;

const COMPARISONS: [Comparison; 12] = [
    Comparison {
        claim: "cached lookups/s, 64 connections: at least 1.0 × the faster of nginx and HAProxy",
        ours: BAZAAR,
        kind: Kind::Lookups,
        connections: LOOKUP_CONNECTIONS,
        figure: PER_SECOND,
        rivals: &["nginx", "haproxy"],
        bound: Bound::AtLeast(1.0),
    },
    Comparison {
        claim: "cached lookups/s, 64 connections: at least 0.95 × the native policy",
        ours: BAZAAR,
        kind: Kind::Lookups,
        connections: LOOKUP_CONNECTIONS,
        figure: PER_SECOND,
        rivals: &[NATIVE],
        bound: Bound::AtLeast(0.95),
    },
    Comparison {
        claim: "cached lookups, 64 connections: p99 at most 1.0 × HAProxy's",
        ours: BAZAAR,
        kind: Kind::Lookups,
        connections: LOOKUP_CONNECTIONS,
        figure: P99,
        rivals: &["haproxy"],
        bound: Bound::AtMost(1.0),
    },
    Comparison {
        claim: "trades/s, 64 connections: at least 2.0 × etcd's puts by its faster protocol",
        ours: BAZAAR,
        kind: Kind::Trades,
        connections: 64,
        figure: PER_SECOND,
        rivals: ETCD,
        bound: Bound::AtLeast(2.0),
    },
    Comparison {
        claim: "trades, 1 connection: p50 at most 1.0 × etcd's by JSON",
        ours: BAZAAR,
        kind: Kind::Trades,
        connections: 1,
        figure: P50,
        rivals: ETCD_JSON,
        bound: Bound::AtMost(1.0),
    },
    Comparison {
        claim: "trades, 1 connection: p50 at most 1.0 × etcd's by its faster protocol",
        ours: BAZAAR,
        kind: Kind::Trades,
        connections: 1,
        figure: P50,
        rivals: ETCD,
        bound: Bound::AtMost(1.0),
    },
    Comparison {
        claim: "trades/s on PostgreSQL with a synchronous standby, 64 connections: at least 3.0 × its own transactions",
        ours: ON_POSTGRES,
        kind: Kind::Trades,
        connections: 64,
        figure: PER_SECOND,
        rivals: &[ONE_STANDBY],
        bound: Bound::AtLeast(3.0),
    },
    Comparison {
        claim: "trades on PostgreSQL with a synchronous standby, 1 connection: p50 at most 1.6 × its own transactions'",
        ours: ON_POSTGRES,
        kind: Kind::Trades,
        connections: 1,
        figure: P50,
        rivals: &[ONE_STANDBY],
        bound: Bound::AtMost(1.6),
    },
    traced(
        "cached lookups/s, traced, 64 connections: at least 0.98 × those that are not",
        Kind::Lookups,
        LOOKUP_CONNECTIONS,
        TRACED_LOOKUPS,
    ),
    traced(
        "trades/s, traced, 1 connection: at least 0.97 × those that are not",
        Kind::Trades,
        1,
        TRACED_TRADES,
    ),
    traced(
        "trades/s, traced, 5 connections: at least 0.97 × those that are not",
        Kind::Trades,
        5,
        TRACED_TRADES,
    ),
    traced(
        "trades/s, traced, 64 connections: at least 0.97 × those that are not",
        Kind::Trades,
        64,
        TRACED_TRADES,
    ),
];

/// Bazaar that traces beside Bazaar that does not.
const fn traced(claim: &'static str, kind: Kind, connections: u32, bound: f64) -> Comparison {
    Comparison {
        claim,
        ours: TRACED,
        kind,
        connections,
        figure: PER_SECOND,
        rivals: &[BAZAAR],
        bound: Bound::AtLeast(bound),
    }
}

/// Few percent are within what one start of a contender differs from another by: one sitting proves nothing.
fn wants_interval(comparison: &Comparison) -> bool {
    comparison.ours == TRACED
}

/// The bars of what was measured in sittings of so many rounds; none for what was not.
pub fn bars(scenarios: &[Scenario], rounds: usize) -> Vec<Bar> {
    let judge = |comparison: &Comparison| {
        let scenario = scenarios.iter().find(|scenario| {
            (scenario.kind, scenario.connections) == (comparison.kind, comparison.connections)
        })?;
        let ours = scenario.series(comparison.ours)?;
        let rivals: Option<Vec<_>> = comparison
            .rivals
            .iter()
            .map(|rival| scenario.series(rival))
            .collect();
        let theirs = best(&rivals?, comparison);
        let ours: Vec<f64> = ours.figures(comparison.figure).collect();
        let ratio = Spread::of_ratios(ours.iter().copied(), theirs.iter().copied())?;
        let interval = interval(&ours, &theirs, rounds);
        let holds = |ratio| comparison.bound.holds(ratio);
        let is_open = match interval {
            Some(Interval { low, high }) => holds(low) != holds(high),
            None => true,
        };
        Some(Bar {
            claim: comparison.claim.to_owned(),
            ratio,
            interval,
            met: holds(ratio.median),
            is_open: is_open && wants_interval(comparison),
        })
    };
    COMPARISONS.iter().filter_map(judge).collect()
}

/// Of the medians of the sittings' ratios.
pub fn interval(ours: &[f64], theirs: &[f64], rounds: usize) -> Option<Interval> {
    let sittings = ours.chunks(rounds.max(1)).zip(theirs.chunks(rounds.max(1)));
    let medians = sittings.filter_map(|(ours, theirs)| {
        let ratio = Spread::of_ratios(ours.iter().copied(), theirs.iter().copied())?;
        Some(ratio.median)
    });
    Interval::of_median(medians)
}

/// In each round the figure of the rival that did best.
fn best(rivals: &[&Series], comparison: &Comparison) -> Vec<f64> {
    let rounds = rivals.iter().map(|rival| rival.rounds.len()).min();
    let best_of = |round: usize| {
        let figures = rivals
            .iter()
            .map(|rival| (comparison.figure)(&rival.rounds[round]));
        match comparison.bound {
            Bound::AtLeast(_) => figures.fold(f64::MIN, f64::max),
            Bound::AtMost(_) => figures.fold(f64::MAX, f64::min),
        }
    };
    (0..rounds.unwrap_or(0)).map(best_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(contender: &str, figures: &[f64]) -> Series {
        let round = |figure: &f64| Round {
            per_second: *figure,
            p50_us: *figure,
            p99_us: *figure,
        };
        Series {
            contender: contender.to_owned(),
            lacks: String::new(),
            rounds: figures.iter().map(round).collect(),
        }
    }

    fn scenario(kind: Kind, connections: u32, series: Vec<Series>) -> Scenario {
        Scenario {
            kind,
            connections,
            series,
            absent: Vec::new(),
        }
    }

    #[test]
    fn bazaar_is_held_against_the_best_rival_of_each_round() {
        let lookups = scenario(
            Kind::Lookups,
            64,
            vec![
                series(BAZAAR, &[100.0, 100.0, 100.0]),
                series("nginx", &[50.0, 200.0, 50.0]),
                series("haproxy", &[80.0, 80.0, 125.0]),
            ],
        );
        let bars = bars(&[lookups], 3);
        assert_eq!(bars.len(), 2, "there was no native policy: {bars:?}");
        assert_eq!((bars[0].ratio.median, bars[0].met), (0.8, false));
        assert_eq!(bars[0].ratio.max, 1.25);
        assert_eq!((bars[1].ratio.median, bars[1].met), (1.25, false));
    }

    #[test]
    fn trades_are_held_against_the_faster_of_etcds_protocols() {
        let trades = |connections, ours: f64| {
            scenario(
                Kind::Trades,
                connections,
                vec![
                    series(BAZAAR, &[ours]),
                    series("etcd (JSON)", &[10.0]),
                    series("etcd (gRPC)", &[20.0]),
                ],
            )
        };
        let figures = |many, alone| {
            let found = bars(&[trades(64, many), trades(1, alone)], 1);
            let figures = found.iter().map(|bar| (bar.ratio.median, bar.met));
            figures.collect::<Vec<_>>()
        };
        // For latencies the faster one is that with the lower figure, JSON here.
        assert_eq!(figures(40.0, 10.0), [(2.0, true), (1.0, true), (1.0, true)]);
        let missed = figures(39.0, 11.0);
        assert!(missed.iter().all(|(_, met)| !met), "{missed:?}");
    }

    /// Of two rounds in each sitting: the machine may be as busy as it likes, as long as it is for both.
    #[test]
    fn a_difference_of_few_percent_is_open_until_there_are_sittings_enough() {
        let judge = |ratios: &[f64]| {
            let untraced: Vec<f64> = (0..2 * ratios.len()).map(|at| 50.0 + at as f64).collect();
            let traced = untraced.iter().enumerate();
            let traced: Vec<f64> = traced.map(|(at, of)| of * ratios[at / 2]).collect();
            let series = vec![series(BAZAAR, &untraced), series(TRACED, &traced)];
            let lookups = scenario(Kind::Lookups, LOOKUP_CONNECTIONS, series);
            match &bars(&[lookups], 2)[..] {
                [bar] => bar.verdict(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(judge(&[1.0; 5]), "open: more sittings would tell");
        assert_eq!(judge(&[1.01, 0.99, 1.0, 0.985, 1.0, 1.02]), "met");
        assert_eq!(judge(&[0.97, 0.96, 0.9, 0.975, 0.95, 0.97]), "**not met**");
        let open = judge(&[1.0, 0.97, 1.0, 0.99, 1.0, 1.0]);
        assert_eq!(open, "open: more sittings would tell");
    }
}
