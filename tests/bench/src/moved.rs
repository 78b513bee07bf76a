//! What moved between two runs of a history, or two commits, and is not noise.
//!
//! Absolute figures of two runs tell machines and hours apart, not commits. So what is compared is Bazaar's figure divided by
//! that of the peers measured beside it, round by round, by the geometric mean of all peers that both sides have. The
//! logarithms of these ratios have a mean on each side, and the difference of the means an interval ([`welch`]). Of all
//! figures together the chance that any is said to have moved that has not is 5 % at most (Dunn, "Multiple comparisons among
//! means", 1961: each gets its share).
//!
//! Rounds of one start are alike in what that start happened to get. Where both sides were started
//! [often enough](SITTINGS_MIN), a start counts as one figure; else rounds do, and the text says what that leaves out.

use std::fmt::Write as _;

use crate::history::Run;
use crate::report::title;
use crate::rounds::{Round, Series};
use crate::scenario::{BAZAAR, Kind, Scenario};
use crate::statistics::Interval;
use crate::welch;

/// How sure it is that nothing is said to have moved that has not.
const CONFIDENCE: f64 = 0.95;

/// From as many starts on each side on, these count rather than their rounds.
const SITTINGS_MIN: usize = 3;

/// A figure of every round.
struct Measure {
    name: &'static str,
    of: fn(&Round) -> f64,
    is_better_high: bool,
}

const MEASURES: [Measure; 3] = [
    Measure {
        name: "per second",
        of: |round| round.per_second,
        is_better_high: true,
    },
    Measure {
        name: "p50",
        of: |round| round.p50_us,
        is_better_high: false,
    },
    Measure {
        name: "p99",
        of: |round| round.p99_us,
        is_better_high: false,
    },
];

/// One figure on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Of what, and of which Bazaar.
    pub name: String,
    /// Whom it is divided by, in alphabetical order.
    pub peers: String,
    /// The geometric mean of the ratios to the peers, earlier.
    pub earlier: f64,
    /// The same, later.
    pub later: f64,
    /// Where the later one divided by the earlier one lies.
    pub change: Interval,
    is_better_high: bool,
}

impl Figure {
    /// Whether noise alone hardly does that: 1 is not in the interval.
    pub fn is_beyond_noise(&self) -> bool {
        self.change.low > 1.0 || self.change.high < 1.0
    }

    fn verdict(&self) -> &'static str {
        let is_higher = self.change.low > 1.0;
        match (self.is_beyond_noise(), is_higher == self.is_better_high) {
            (false, _) => "not beyond noise: the interval includes 1",
            (true, true) => "**better**",
            (true, false) => "**worse**",
        }
    }
}

/// Two sides, and what they have in common.
#[derive(Debug)]
pub struct Moved {
    pub figures: Vec<Figure>,
    /// What cannot be compared, and why.
    pub left_out: Vec<String>,
    /// The runs of each side, in words, and their machines.
    sides: [String; 2],
    machines: [Vec<String>; 2],
    /// Whether a start counts as one figure.
    counts_sittings: bool,
}

impl Moved {
    /// Compares the runs of one side, of which there is at least one, with those of another.
    pub fn between(earlier: &[&Run], later: &[&Run]) -> Self {
        let sides = Sides { earlier, later };
        let mut left_out = Vec::new();
        let samples: Vec<_> = sides
            .subjects()
            .into_iter()
            .filter_map(|subject| match sides.samples(&subject) {
                Ok(samples) => Some(samples),
                Err(why) => {
                    left_out.push(why);
                    None
                }
            })
            .flatten()
            .collect();
        let share = (1.0 - CONFIDENCE) / samples.len().max(1) as f64;
        let figures = samples
            .iter()
            .filter_map(|sample| sample.figure(1.0 - share));
        Self {
            figures: figures.collect(),
            left_out,
            sides: [describe(earlier), describe(later)],
            machines: [machines(earlier), machines(later)],
            counts_sittings: sides.count_sittings(),
        }
    }

    /// Both sides, their machines, and every figure with its verdict.
    pub fn to_markdown(&self) -> String {
        let [earlier, later] = &self.sides;
        let mut text = format!("A: {earlier}\nB: {later}\n\n");
        text += &self.machines_in_words();
        text += match self.counts_sittings {
            true => "Each start of the contenders counts as one figure.\n\n",
            false => {
                "Each round counts as one figure: what a single start of the contenders happens to get is in all of its rounds, \
                 and not in these intervals. SITTINGS=3 or more on both sides has it.\n\n"
            }
        };
        if !self.figures.is_empty() {
            text += "| Bazaar's, divided by its peers' | peers | A | B | B ÷ A, all by 95 % together | |\n\
                     |---|---|---|---|---|---|\n";
        }
        for figure in &self.figures {
            let Interval { low, high } = figure.change;
            writeln!(
                text,
                "| {} | {} | {:.3} | {:.3} | {:.3} [{low:.3}–{high:.3}] | {} |",
                figure.name,
                figure.peers,
                figure.earlier,
                figure.later,
                figure.later / figure.earlier,
                figure.verdict(),
            )
            .expect("a string takes it all");
        }
        for why in &self.left_out {
            writeln!(text, "\nNot compared: {why}.").expect("a string takes it all");
        }
        let moved = self
            .figures
            .iter()
            .filter(|figure| figure.is_beyond_noise());
        let (moved, all) = (moved.count(), self.figures.len());
        text + &format!("\n{moved} of {all} figures moved beyond noise.\n")
    }

    fn machines_in_words(&self) -> String {
        let [earlier, later] = &self.machines;
        if earlier.len() == 1 && earlier == later {
            return format!(
                "Both were measured on one kind of machine: {}.\n\n",
                earlier[0]
            );
        }
        format!(
            "**The machines differ**: ratios to peers may differ for that alone.\nA: {}\nB: {}\n\n",
            earlier.join("; "),
            later.join("; ")
        )
    }
}

fn describe(runs: &[&Run]) -> String {
    let runs: Vec<String> = runs.iter().map(|run| run.describe()).collect();
    runs.join("; ")
}

/// Every kind of machine once.
fn machines(runs: &[&Run]) -> Vec<String> {
    let mut machines: Vec<String> = runs.iter().map(|run| run.machine.describe()).collect();
    machines.sort_unstable();
    machines.dedup();
    machines
}

/// Something that Bazaar did beside peers.
#[derive(Debug, Clone, PartialEq)]
struct Subject {
    kind: Kind,
    connections: u32,
    /// Which Bazaar.
    ours: String,
}

impl Subject {
    fn name(&self) -> String {
        format!("{}, {}", title(self.kind, self.connections), self.ours)
    }

    fn scenario<'a>(&self, run: &'a Run) -> Option<&'a Scenario> {
        let mut scenarios = run.scenarios.iter();
        scenarios
            .find(|scenario| (scenario.kind, scenario.connections) == (self.kind, self.connections))
    }
}

/// Every Bazaar is called so, with more words or without.
fn is_ours(contender: &str) -> bool {
    contender.starts_with(BAZAAR)
}

/// The runs of both sides.
struct Sides<'a> {
    earlier: &'a [&'a Run],
    later: &'a [&'a Run],
}

impl Sides<'_> {
    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.earlier.iter().chain(self.later).copied()
    }

    fn count_sittings(&self) -> bool {
        [self.earlier, self.later].iter().all(|runs| {
            let sittings: usize = runs.iter().map(|run| run.sittings).sum();
            sittings >= SITTINGS_MIN
        })
    }

    /// What any run measured, each once.
    fn subjects(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for scenario in self.runs().flat_map(|run| &run.scenarios) {
            for series in &scenario.series {
                let subject = Subject {
                    kind: scenario.kind,
                    connections: scenario.connections,
                    ours: series.contender.clone(),
                };
                if is_ours(&subject.ours) && !subjects.contains(&subject) {
                    subjects.push(subject);
                }
            }
        }
        subjects
    }

    /// Its figures on both sides; why there are none where there are none.
    fn samples(&self, subject: &Subject) -> Result<Vec<Sample>, String> {
        let name = subject.name();
        let in_all = |contender: &str| {
            self.runs().all(|run| {
                let scenario = subject.scenario(run);
                scenario.is_some_and(|scenario| scenario.series(contender).is_some())
            })
        };
        if !in_all(&subject.ours) {
            return Err(format!("{name}, which was not measured in every run"));
        }
        let first = self.runs().find_map(|run| subject.scenario(run));
        let series = first
            .map(|scenario| &scenario.series[..])
            .unwrap_or_default();
        let names = series.iter().map(|series| series.contender.as_str());
        let mut peers: Vec<&str> = names
            .filter(|contender| !is_ours(contender) && in_all(contender))
            .collect();
        peers.sort_unstable();
        if peers.is_empty() {
            return Err(format!(
                "{name}, which no peer was measured beside in every run"
            ));
        }
        let sample = |measure: &Measure| Sample {
            name: format!("{name}: {}", measure.name),
            peers: peers.join(", "),
            is_better_high: measure.is_better_high,
            earlier: self.ratios(self.earlier, subject, &peers, measure),
            later: self.ratios(self.later, subject, &peers, measure),
        };
        Ok(MEASURES.iter().map(sample).collect())
    }

    /// Logarithms of the ratios to the peers: one of each start, or of each round.
    fn ratios(
        &self,
        runs: &[&Run],
        subject: &Subject,
        peers: &[&str],
        measure: &Measure,
    ) -> Vec<f64> {
        let mut all = Vec::new();
        for run in runs {
            let Some(scenario) = subject.scenario(run) else {
                continue;
            };
            let logarithms = logarithms(scenario, &subject.ours, peers, measure);
            if self.count_sittings() {
                let sittings = logarithms.chunks(run.rounds.max(1));
                all.extend(sittings.map(|rounds| rounds.iter().sum::<f64>() / rounds.len() as f64));
            } else {
                all.extend(logarithms);
            }
        }
        all
    }
}

/// Of each round, as far as all took part in it.
fn logarithms(scenario: &Scenario, ours: &str, peers: &[&str], measure: &Measure) -> Vec<f64> {
    let figures = |contender: &str| -> Vec<f64> {
        let series: Option<&Series> = scenario.series(contender);
        series.map_or_else(Vec::new, |series| {
            series.figures(measure.of).map(f64::ln).collect()
        })
    };
    let peers: Vec<Vec<f64>> = peers.iter().map(|peer| figures(peer)).collect();
    let ratio = |(round, ours): (usize, f64)| {
        let theirs: Option<Vec<f64>> = peers.iter().map(|peer| peer.get(round).copied()).collect();
        let theirs = theirs?;
        let mean = theirs.iter().sum::<f64>() / theirs.len() as f64;
        // A figure of 0 has no logarithm; no generator prints one.
        Some(ours - mean).filter(|ratio| ratio.is_finite())
    };
    let ours = figures(ours);
    ours.into_iter().enumerate().filter_map(ratio).collect()
}

/// Logarithms of one figure's ratios on both sides.
struct Sample {
    name: String,
    peers: String,
    is_better_high: bool,
    earlier: Vec<f64>,
    later: Vec<f64>,
}

impl Sample {
    /// None of fewer than two ratios on a side.
    fn figure(&self, confidence: f64) -> Option<Figure> {
        let (_, change) = welch::difference(&self.earlier, &self.later, confidence)?;
        let mean = |ratios: &[f64]| (ratios.iter().sum::<f64>() / ratios.len() as f64).exp();
        Some(Figure {
            name: self.name.clone(),
            peers: self.peers.clone(),
            earlier: mean(&self.earlier),
            later: mean(&self.later),
            change: Interval {
                low: change.low.exp(),
                high: change.high.exp(),
            },
            is_better_high: self.is_better_high,
        })
    }
}

#[cfg(test)]
mod tests;
