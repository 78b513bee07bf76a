//! What clients that read at all other gateways cost those who trade at one: its trades while they read, to its trades
//! while nobody does, in turns.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use super::{Curve, Plan};
use crate::contender::bazaar::Bazaar;
use crate::contender::caches::PATH;
use crate::error::Error;
use crate::generator::wrk::Requests;
use crate::generator::{Figures, Load};
use crate::statistics::{Interval, Spread};

/// How often each takes its turn: enough for an interval that leaves out the lowest and the highest.
const ROUNDS: usize = 9;

/// Connections that trade.
const TRADERS: u32 = 8;

/// Looks up what is traded, with pauses.
const READ_TRADED: &str = include_str!("../../contenders/read-traded.lua");

/// Between two look-ups of a client, each of the next of eight stocks: it reads none as often as it is traded.
const PAUSE_MS: u64 = 1;

/// A stock that nobody trades.
const UNTRADED: &str = "/stocks/microsoft";

/// Who reads at the other gateways, by one connection each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readers {
    Nobody,
    /// All that is traded, each stock less often than that.
    Seldom,
    /// One stock that is traded, as fast as they can: many times for each trade.
    Often,
    /// The same of one that is not: what is lost then is what readers take of the processors.
    Untraded,
}

impl Readers {
    const ALL: [Self; 4] = [Self::Nobody, Self::Seldom, Self::Often, Self::Untraded];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody reads",
            Self::Seldom => "each reads what is traded less often than that",
            Self::Often => "each reads a traded stock as fast as it can",
            Self::Untraded => "each reads an untraded stock as fast as it can",
        }
    }

    fn requests(self, address: SocketAddr) -> Option<Requests<'static>> {
        match self {
            Self::Nobody => None,
            Self::Seldom => Some(Requests {
                script: READ_TRADED,
                arguments: [PAUSE_MS, 0],
                ..Requests::get(address, PATH)
            }),
            Self::Often => Some(Requests::get(address, PATH)),
            Self::Untraded => Some(Requests::get(address, UNTRADED)),
        }
    }

    /// How often they read in a second, all together.
    fn read(self, addresses: &[SocketAddr], load: &Load, dir: &Path) -> Result<f64, Error> {
        let requests = addresses.iter().filter_map(|it| self.requests(*it));
        let figures = send_everywhere(requests, load, dir)?;
        Ok(figures.iter().map(Figures::per_second).sum())
    }
}

/// Adds the ratios of trades at the first gateway, while clients of the others read, to those while nobody does.
pub fn measure(
    plan: &Plan,
    bazaar: &Bazaar,
    others: &[SocketAddr],
    curve: &mut Curve,
) -> Result<(), Error> {
    let mut traded: [Vec<f64>; Readers::ALL.len()] = Default::default();
    let mut read: [Vec<f64>; Readers::ALL.len()] = Default::default();
    for round in 0..ROUNDS {
        let mut turns = Readers::ALL;
        if round % 2 == 1 {
            turns.reverse();
        }
        for readers in turns {
            let (trades, reads) = thread::scope(|scope| {
                let reading = scope.spawn(|| readers.read(others, &plan.load(1), bazaar.dir()));
                let trades = bazaar.trade(&plan.load(TRADERS));
                let reads = reading.join();
                (trades, reads.expect("a generator's thread does not panic"))
            });
            traded[readers as usize].push(trades?.per_second());
            read[readers as usize].push(reads?);
        }
    }
    let alone = &traded[Readers::Nobody as usize];
    for readers in &Readers::ALL[1..] {
        let (traded, read) = (&traded[*readers as usize], &read[*readers as usize]);
        let ratios = ratios(traded, alone);
        let spread = Spread::of(ratios.iter().copied());
        let (Some(spread), Some(interval)) = (spread, Interval::of_median(ratios)) else {
            continue; // there are rounds enough
        };
        let reads = Spread::of(read.iter().copied()).map_or(0.0, |spread| spread.median);
        curve.add(
            &format!("trades ÷ those while nobody reads: {}", readers.name()),
            "times",
            spread.median,
        );
        curve.notes.push(format!(
            "{} gateways to one, {}: {:.2} of the trades ({:.2} to {:.2} by 95 %, {ROUNDS} rounds), {reads:.0} reads/s.",
            others.len() + 1,
            readers.name(),
            spread.median,
            interval.low,
            interval.high,
        ));
    }
    Ok(())
}

/// One generator for each, each to another gateway, all at once.
pub fn send_everywhere(
    requests: impl Iterator<Item = Requests<'static>>,
    load: &Load,
    dir: &Path,
) -> Result<Vec<Figures>, Error> {
    thread::scope(|scope| {
        let running: Vec<_> = requests
            .map(|requests| {
                scope.spawn(move || {
                    let dir = dir.join(format!("wrk-{}", requests.address.port()));
                    fs::create_dir_all(&dir).map_err(Error::file(&dir))?;
                    let figures = requests.send(load, &dir)?;
                    figures.without_errors("a gateway")
                })
            })
            .collect();
        let ended = running.into_iter().map(|thread| {
            let ended = thread.join();
            ended.expect("a generator's thread does not panic")
        });
        ended.collect()
    })
}

/// Round by round.
fn ratios(with: &[f64], alone: &[f64]) -> Vec<f64> {
    let rounds = with.iter().zip(alone);
    rounds.map(|(with, alone)| with / alone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRADE: &str = include_str!("../../contenders/trade.lua");

    /// The list of stocks in a script.
    fn stocks(script: &str) -> &str {
        let mut lines = script.lines();
        let found = lines.find(|line| line.starts_with("local stocks"));
        found.expect("it has such a list")
    }

    #[test]
    fn readers_read_what_is_traded_or_what_is_not() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let path = |readers: Readers| readers.requests(address).map(|it| it.path);
        let traded = stocks(TRADE);
        let is_traded = |path: &str| traded.contains(path.trim_start_matches("/stocks/"));
        assert_eq!(path(Readers::Nobody), None);
        assert!(path(Readers::Often).is_some_and(is_traded));
        assert!(path(Readers::Untraded).is_some_and(|path| !is_traded(path)));
        assert_eq!(stocks(READ_TRADED), traded);
        for (place, readers) in Readers::ALL.into_iter().enumerate() {
            assert_eq!(place, readers as usize);
        }
    }

    #[test]
    fn an_interval_leaves_out_the_lowest_and_the_highest_round() {
        let with: Vec<f64> = (1_u8..).take(ROUNDS).map(f64::from).collect();
        let interval = Interval::of_median(ratios(&with, &[2.0; ROUNDS])).unwrap();
        assert_eq!((interval.low, interval.high), (1.0, 4.0));
    }
}
