//! What is compared beside the rate of one kind of request: other quantities, each side with as many as it has. Sides take turns
//! as [contenders](crate::rounds) do, and what is claimed of them is judged as [bars](crate::bars) are.
//!
//! - [`mixed`]: lookups and trades in one stream;
//! - [`memory`]: what a connection, a stock and an order take;
//! - [`start`]: how long it takes to start, and to activate a policy;
//! - [`moments`]: the worst ones, each beside what is steady;
//! - [`variants`]: lookups by few connections and many, over new ones, and with misses;
//! - [`https`]: lookups by TLS;
//! - [`costs`]: instructions and system calls of a lookup;
//! - [`sizes`]: how large all of it is.

pub mod mixed;
pub mod memory;
pub mod start;
pub mod moments;
pub mod variants;
pub mod https;
pub mod costs;
pub mod sizes;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bars::{Bar, Bound, interval};
use crate::contender::Site;
use crate::contender::bazaar::{Bazaar, Setup};
use crate::error::Error;
use crate::scenario::Plan;
use crate::statistics::Spread;

pub use sizes::Sizes;

/// What is measured. Each is asked for by name: together they take hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Lookups and trades in one stream.
    Mixed,
    /// Of a connection, a stock and an order.
    Memory,
    /// Of everything, and of a policy.
    Start,
    /// A swap, a failover, a backup and so on, beside what is steady.
    Moments,
    /// Lookups by few connections and many, over new ones, and with misses.
    Variants,
    /// Lookups by TLS.
    Https,
    /// Instructions and system calls of a cached lookup.
    Costs,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub topic: Topic,
    pub title: String,
    pub parties: Vec<Party>,
    /// Who did not take part, and why.
    pub absent: Vec<String>,
    /// What it is to show.
    #[serde(skip)]
    pub claims: Vec<Claim>,
}

/// What was measured of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Party {
    pub name: String,
    /// What of Bazaar's it does not offer, in words.
    pub lacks: String,
    pub quantities: Vec<Quantity>,
}

/// One quantity, of all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quantity {
    pub name: String,
    pub unit: String,
    /// One of each round.
    pub figures: Vec<f64>,
}

/// That one side's quantity is so much of the other's.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// In words.
    pub text: String,
    pub ours: &'static str,
    /// Whose it is compared with: of several, in each round the one that did best.
    pub theirs: Vec<&'static str>,
    pub quantity: &'static str,
    pub bound: Bound,
}

/// What one side gave in one turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
}

impl Figure {
    pub fn of(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self { name, unit, value }
    }
}

/// Measures once.
pub type Turn<'a> = Box<dyn FnMut() -> Result<Vec<Figure>, Error> + 'a>;

/// Who takes turns.
pub struct Side<'a> {
    pub name: String,
    pub lacks: &'static str,
    pub turn: Turn<'a>,
}

impl<'a> Side<'a> {
    pub fn new(
        name: &str,
        lacks: &'static str,
        turn: impl FnMut() -> Result<Vec<Figure>, Error> + 'a,
    ) -> Self {
        Self {
            name: name.to_owned(),
            lacks,
            turn: Box::new(turn),
        }
    }
}

/// What is measured, and how.
#[derive(Debug, Clone, Copy)]
pub struct Bench<'a> {
    pub plan: &'a Plan,
    pub sizes: &'a Sizes,
}

impl Bench<'_> {
    /// Starts a bazaar with three replicas.
    pub fn start(&self, name: &str, stocks: Option<&Path>) -> Result<Bazaar, Error> {
        self.start_at(&self.plan.site, name, stocks)
    }

    /// The same in a directory of its own.
    pub fn start_at(
        &self,
        site: &Site,
        name: &str,
        stocks: Option<&Path>,
    ) -> Result<Bazaar, Error> {
        let setup = Setup {
            name: name.to_owned(),
            binary: self.plan.bazaar.clone(),
            stocks: stocks.map(Path::to_owned),
            store: None,
            flags: Vec::new(),
        };
        Bazaar::start(site, &setup)
    }

    /// How long a turn lasts.
    pub fn turn_ms(&self) -> u64 {
        self.plan.seconds * 1000
    }
}

/// Measures all of a topic, in all sittings.
pub fn measure(plan: &Plan, sizes: &Sizes, topic: Topic) -> Result<Vec<Trial>, Error> {
    let mut trials: Vec<Trial> = Vec::new();
    for number in 1..=plan.sittings {
        let dir = plan.site.make_dir(&number.to_string())?;
        let plan = Plan {
            site: Site {
                dir: dir.clone(),
                ..plan.site.clone()
            },
            ..plan.clone()
        };
        let bench = Bench { plan: &plan, sizes };
        let measured = match topic {
            Topic::Mixed => mixed::measure(bench)?,
            Topic::Memory => memory::measure(bench)?,
            Topic::Start => start::measure(bench)?,
            Topic::Moments => moments::measure(bench)?,
            Topic::Variants => variants::measure(bench)?,
            Topic::Https => https::measure(bench)?,
            Topic::Costs => costs::measure(bench)?,
        };
        // Where that cannot be, it goes with the run's directory.
        let _ = fs::remove_dir_all(dir);
        match number {
            1 => trials = measured,
            _ => {
                let all = trials.iter_mut().zip(measured);
                all.for_each(|(trial, sitting)| trial.add(sitting));
            }
        }
    }
    Ok(trials)
}

/// Has each side measure once in every round: A B C, C B A, A B C, …
pub fn alternate(title: &str, sides: &mut [Side<'_>], rounds: usize) -> Result<Vec<Party>, Error> {
    let party = |side: &Side<'_>| Party {
        name: side.name.clone(),
        lacks: side.lacks.to_owned(),
        quantities: Vec::new(),
    };
    let mut parties: Vec<Party> = sides.iter().map(party).collect();
    for round in 1..=rounds {
        let mut turns: Vec<_> = sides.iter_mut().zip(&mut parties).collect();
        if round % 2 == 0 {
            turns.reverse();
        }
        for (side, party) in turns {
            for figure in (side.turn)()? {
                let Figure { name, unit, value } = figure;
                eprintln!(
                    "{title}, round {round} of {rounds}: {:>28} {value:>12.2} {unit}: {name}",
                    party.name
                );
                party.add(figure);
            }
        }
    }
    Ok(parties)
}

impl Party {
    fn add(&mut self, figure: Figure) {
        let Figure { name, unit, value } = figure;
        let mut known = self.quantities.iter_mut();
        match known.find(|quantity| quantity.name == name) {
            Some(quantity) => quantity.figures.push(value),
            None => self.quantities.push(Quantity {
                name: name.to_owned(),
                unit: unit.to_owned(),
                figures: vec![value],
            }),
        }
    }

    fn quantity(&self, name: &str) -> Option<&Quantity> {
        self.quantities
            .iter()
            .find(|quantity| quantity.name == name)
    }
}

impl Trial {
    fn figures(&self, party: &str, quantity: &str) -> Option<&[f64]> {
        let party = self.parties.iter().find(|known| known.name == party)?;
        Some(&party.quantity(quantity)?.figures)
    }

    /// Adds what another sitting gave: the same trial with the same sides.
    fn add(&mut self, sitting: Self) {
        for party in sitting.parties {
            let Some(own) = self.parties.iter_mut().find(|own| own.name == party.name) else {
                self.parties.push(party);
                continue;
            };
            for quantity in party.quantities {
                let mut known = own.quantities.iter_mut();
                match known.find(|own| own.name == quantity.name) {
                    Some(own) => own.figures.extend(quantity.figures),
                    None => own.quantities.push(quantity),
                }
            }
        }
    }

    /// In each round the figure of the rival that did best, of those who took part.
    fn best(&self, claim: &Claim) -> Vec<f64> {
        let rivals = claim.theirs.iter();
        let rivals = rivals.filter_map(|rival| self.figures(rival, claim.quantity));
        let better = match claim.bound {
            Bound::AtLeast(_) => f64::max,
            Bound::AtMost(_) => f64::min,
        };
        let best = rivals.map(<[f64]>::to_vec).reduce(|best, rival| {
            let rounds = best.into_iter().zip(rival);
            rounds.map(|(best, figure)| better(best, figure)).collect()
        });
        best.unwrap_or_default()
    }

    /// What was claimed, judged; nothing of whom did not take part. `rounds` is how many a sitting has.
    pub fn bars(&self, rounds: usize) -> Vec<Bar> {
        let judge = |claim: &Claim| {
            let ours = self.figures(claim.ours, claim.quantity)?;
            let theirs = self.best(claim);
            let ratio = Spread::of_ratios(ours.iter().copied(), theirs.iter().copied())?;
            Some(Bar {
                claim: claim.text.clone(),
                ratio,
                interval: interval(ours, &theirs, rounds),
                met: claim.bound.holds(ratio.median),
                is_open: false,
            })
        };
        self.claims.iter().filter_map(judge).collect()
    }

    /// A table: a row for each side, a column for each quantity.
    pub fn to_markdown(&self) -> String {
        let mut columns: Vec<(&str, &str)> = Vec::new();
        for quantity in self.parties.iter().flat_map(|party| &party.quantities) {
            let column = (quantity.name.as_str(), quantity.unit.as_str());
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        let mut text = format!("**{}**\n\n| |", self.title);
        for (name, unit) in &columns {
            write!(text, " {name}, {unit} |").expect("a string takes it all");
        }
        let rules = "---|".repeat(columns.len());
        text += &format!(" what it does not offer |\n|---|{rules}---|\n");
        for party in &self.parties {
            write!(text, "| {} |", party.name).expect("a string takes it all");
            for (name, _) in &columns {
                let quantity = party.quantity(name);
                let spread = quantity.and_then(|it| Spread::of(it.figures.iter().copied()));
                write!(text, " {} |", spread.map_or_else(String::new, show))
                    .expect("a string takes it all");
            }
            writeln!(text, " {} |", party.lacks).expect("a string takes it all");
        }
        for absent in &self.absent {
            writeln!(text, "\nNot measured: {absent}.").expect("a string takes it all");
        }
        text + "\n"
    }
}

/// With as many digits as are worth something.
fn show(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    match median.abs() {
        0.0..10.0 => format!("{median:.3} ({min:.3}–{max:.3})"),
        10.0..1000.0 => format!("{median:.1} ({min:.1}–{max:.1})"),
        _ => format!("{median:.0} ({min:.0}–{max:.0})"),
    }
}

/// The median of at least one figure.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    Spread::of(figures).map_or(f64::NAN, |spread| spread.median)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn trial(rounds: usize) -> Trial {
        let count = &Cell::new(0.0);
        let turn = |factor: f64| {
            move || {
                count.set(count.get() + 1.0);
                let rate = Figure::of("rate", "per second", factor * 100.0);
                Ok(vec![rate, Figure::of("turn", "", count.get())])
            }
        };
        let mut sides = [
            Side::new("bazaar", "", turn(3.0)),
            Side::new("nginx", "fresh answers", turn(2.0)),
        ];
        let claim = |text: &str, theirs: &[&'static str], bound| Claim {
            text: text.to_owned(),
            ours: "bazaar",
            theirs: theirs.to_vec(),
            quantity: "rate",
            bound,
        };
        Trial {
            topic: Topic::Mixed,
            title: "Mixed life".to_owned(),
            parties: alternate("mixed", &mut sides, rounds).unwrap(),
            absent: vec!["varnish: there is none".to_owned()],
            claims: vec![
                claim(
                    "1.5 times as fast",
                    &["nginx", "varnish"],
                    Bound::AtLeast(1.5),
                ),
                claim("as slow", &["nginx"], Bound::AtMost(1.0)),
                claim(
                    "as fast as the best",
                    &["nginx", "bazaar"],
                    Bound::AtLeast(1.0),
                ),
                claim("faster than nobody", &["varnish"], Bound::AtLeast(1.0)),
            ],
        }
    }

    #[test]
    fn sides_take_turns_and_claims_are_judged() {
        let mut trial = trial(2);
        assert_eq!(trial.figures("bazaar", "turn").unwrap(), [1.0, 4.0]);
        assert_eq!(trial.figures("nginx", "turn").unwrap(), [2.0, 3.0]);
        let bars = trial.bars(2);
        let judged: Vec<_> = bars.iter().map(|bar| (bar.ratio.median, bar.met)).collect();
        assert_eq!(judged, [(1.5, true), (1.5, false), (1.0, true)]);
        trial.add(super::tests::trial(2));
        assert_eq!(trial.figures("bazaar", "rate").unwrap(), [300.0; 4]);
    }

    #[test]
    fn a_table_has_every_quantity_and_who_is_absent() {
        let text = trial(1).to_markdown();
        for part in [
            "| | rate, per second | turn,  | what it does not offer |",
            "| bazaar | 300.0 (300.0–300.0) | 1.000 (1.000–1.000) |  |",
            "| nginx | 200.0 (200.0–200.0) | 2.000 (2.000–2.000) | fresh answers |",
            "Not measured: varnish: there is none.",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
