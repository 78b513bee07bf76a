//! Contenders take turns, so that what the machine does besides falls on all of them; every other round the other way round, so
//! that who is behind whom, and before whom, falls on all of them too.

use serde::{Deserialize, Serialize};

use crate::contender::Contender;
use crate::error::Error;
use crate::generator::Load;
use crate::statistics::Spread;

/// Seconds for which each is driven before anything counts.
const WARM_UP_S: u64 = 1;

/// What one contender did in one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Requests answered in a second.
    pub per_second: f64,
    pub p50_us: f64,
    /// What one request in a hundred took at least.
    pub p99_us: f64,
}

/// What one contender did in all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub contender: String,
    /// What of Bazaar's it does not offer, in words.
    #[serde(default)]
    pub lacks: String,
    pub rounds: Vec<Round>,
}

impl Series {
    /// A figure of every round.
    pub fn figures(&self, figure: fn(&Round) -> f64) -> impl Iterator<Item = f64> {
        self.rounds.iter().map(figure)
    }

    /// A figure's median and range.
    pub fn spread(&self, figure: fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.figures(figure))
    }
}

/// Drives each contender once in every round: A B C, C B A, A B C, …
pub fn alternate(
    contenders: &mut [Box<dyn Contender>],
    rounds: usize,
    load: &Load,
) -> Result<Vec<Series>, Error> {
    let warm_up = Load {
        seconds: WARM_UP_S,
        ..*load
    };
    let mut series = Vec::new();
    for contender in contenders.iter_mut() {
        contender.measure(&warm_up)?;
        series.push(Series {
            contender: contender.name().to_owned(),
            lacks: contender.lacks().to_owned(),
            rounds: Vec::new(),
        });
    }
    for round in 1..=rounds {
        let mut turns: Vec<_> = contenders.iter_mut().zip(&mut series).collect();
        if round % 2 == 0 {
            turns.reverse();
        }
        for (contender, series) in turns {
            let figures = contender.measure(load)?;
            eprintln!(
                "{} connections, round {round} of {rounds}: {:>20} {:>9.0}/s  p50 {:>7.0} µs  p99 {:>7.0} µs",
                load.connections,
                series.contender,
                figures.per_second(),
                figures.p50_us,
                figures.p99_us,
            );
            series.rounds.push(Round {
                per_second: figures.per_second(),
                p50_us: figures.p50_us,
                p99_us: figures.p99_us,
            });
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::generator::Figures;

    struct Fake {
        name: &'static str,
        turns: Rc<RefCell<Vec<(&'static str, u64)>>>,
    }

    impl Contender for Fake {
        fn name(&self) -> &str {
            self.name
        }

        fn lacks(&self) -> &'static str {
            "everything"
        }

        fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
            self.turns.borrow_mut().push((self.name, load.seconds));
            Ok(Figures {
                requests: 10 * self.turns.borrow().len() as u64,
                duration_us: 1_000_000,
                p50_us: 1.0,
                p99_us: 2.0,
                max_us: 3.0,
                refused: 0,
                broken: 0,
            })
        }
    }

    #[test]
    fn contenders_take_turns_and_warming_up_does_not_count() {
        let turns = Rc::new(RefCell::new(Vec::new()));
        let mut contenders: Vec<Box<dyn Contender>> = ["a", "b"]
            .map(|name| -> Box<dyn Contender> {
                let turns = Rc::clone(&turns);
                Box::new(Fake { name, turns })
            })
            .into();
        let load = Load {
            connections: 1,
            seconds: 3,
            cpu: None,
        };
        let series = alternate(&mut contenders, 2, &load).unwrap();
        let expected = [("a", 1), ("b", 1), ("a", 3), ("b", 3), ("b", 3), ("a", 3)];
        assert_eq!(*turns.borrow(), expected);
        let figures = |of: &Series| Vec::from_iter(of.figures(|round| round.per_second));
        assert_eq!(figures(&series[0]), [30.0, 60.0]);
        assert_eq!(figures(&series[1]), [40.0, 50.0]);
    }
}
