//! The worst moments, each beside what is steady: a second in which nothing happens, and one in which something does, by turns. What
//! takes longer than its second has as many as it needs, and their median counts.
//!
//! - [`policies`]: a swap, and a compilation;
//! - [`disks`]: a backup, and checkpoints;
//! - [`replicas`]: a failover, the election of another than a replica that lags, and a replica that comes back with nothing.

pub mod policies;
pub mod disks;
pub mod replicas;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use super::sizes::{fill, write_stocks};
use super::{Bench, Claim, Figure, Side, Topic, Trial, alternate, median};
use crate::bars::Bound;
use crate::contender::bazaar::Bazaar;
use crate::error::Error;
use crate::generator::mix::{Mix, Mixed};

use disks::{Backup, Checkpoint};
use policies::Policies;
use replicas::{Failover, Laggard, Rejoin, Replicas};

/// How long a window of requests is.
const WINDOW_MS: u64 = 1_000;

/// How long a window has lasted when something happens in it.
const LEAD: Duration = Duration::from_millis(200);

/// How many stocks are asked for, and traded.
const STOCKS: u64 = 100;

/// How many connections look up, where that is what is measured, and how many trade else.
const LOOKING_UP: u32 = 64;
const TRADING: u32 = 8;

/// What p99.9 may be of what is steady; and where the leader is lost, which nobody can but wait for.
const RATIO: f64 = 2.0;
const FAILOVER_RATIO: f64 = 10.0;

const STEADY: &str = "bazaar, steady";
const DURING: &str = "bazaar, meanwhile";

const P999: &str = "p99.9";

/// Something that happens while clients go on.
pub trait Moment {
    /// What has to be before, while nobody measures.
    fn prepare(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Returns once it is over.
    fn happen(&mut self) -> Result<(), Error>;

    /// Makes everything as it was, while nobody measures.
    fn mend(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A moment of one step.
pub struct Step<F>(F);

impl<F: FnMut() -> Result<(), Error>> Moment for Step<F> {
    fn happen(&mut self) -> Result<(), Error> {
        (self.0)()
    }
}

/// What is measured of a moment.
struct Question {
    /// What happens, in words.
    what: String,
    mix: Mix,
    /// How many times as long as usual a request in a thousand may take.
    ratio_max: f64,
}

pub fn measure(bench: Bench<'_>) -> Result<Vec<Trial>, Error> {
    let file = write_stocks(&bench.plan.site.dir, STOCKS)?;
    let mut trials = of_policies(bench, bench.start("policies", Some(&file))?)?;
    trials.extend(of_trades(bench, bench.start("trades", Some(&file))?)?);
    for rows in bench.sizes.rows.iter().copied() {
        let name = format!("rejoin-{rows}");
        fill(&bench.plan.site.make_dir(&name)?, &file, rows)?;
        let bazaar = bench.start(&name, None)?;
        let question = trades(&bazaar, &format!("a rejoin of {rows} rows"), RATIO);
        let mut replicas = Replicas::of(bazaar, question.mix.clone(), bench.plan.cpu);
        trials.push(compare(
            bench,
            &question,
            &mut Rejoin::of(&mut replicas, rows),
        )?);
    }
    Ok(trials)
}

/// What happens to policies, beside lookups.
fn of_policies(bench: Bench<'_>, bazaar: Bazaar) -> Result<Vec<Trial>, Error> {
    let policies = Policies::of(bazaar.admin())?;
    let question = |what: &str| Question {
        what: what.to_owned(),
        mix: mix(&bazaar, LOOKING_UP, 100),
        ratio_max: RATIO,
    };
    let mut swap = Step(|| policies.swap());
    let mut push = Step(|| policies.push_new());
    Ok(vec![
        compare(bench, &question("a swap of policies"), &mut swap)?,
        compare(bench, &question("the compilation of a policy"), &mut push)?,
    ])
}

/// What happens to data, and to those who have it, beside trades.
fn of_trades(bench: Bench<'_>, bazaar: Bazaar) -> Result<Vec<Trial>, Error> {
    let question = |bazaar: &Bazaar, what: &str| trades(bazaar, what, RATIO);
    let backup = question(&bazaar, "a backup");
    let checkpoint = question(&bazaar, "checkpoints of all databases");
    let failover = trades(&bazaar, "a failover", FAILOVER_RATIO);
    let laggard = trades(
        &bazaar,
        "a failover beside a replica that lags",
        FAILOVER_RATIO,
    );
    let mut of_data = vec![
        compare(bench, &backup, &mut Backup::of(bench, bazaar.dir()))?,
        compare(bench, &checkpoint, &mut Checkpoint::of(bazaar.dir()))?,
    ];
    let mut replicas = Replicas::of(bazaar, failover.mix.clone(), bench.plan.cpu);
    of_data.push(compare(bench, &failover, &mut Failover::of(&mut replicas))?);
    of_data.push(compare(bench, &laggard, &mut Laggard::of(&mut replicas))?);
    Ok(of_data)
}

fn trades(bazaar: &Bazaar, what: &str, ratio_max: f64) -> Question {
    Question {
        what: what.to_owned(),
        mix: mix(bazaar, TRADING, 0),
        ratio_max,
    }
}

fn mix(bazaar: &Bazaar, connections: u32, lookups_percent: u8) -> Mix {
    Mix {
        addresses: vec![bazaar.address()],
        connections,
        duration_ms: WINDOW_MS,
        lookups_percent,
        stocks: STOCKS as u32,
        seed: 1,
    }
}

/// Windows with a moment in them beside windows without, by turns.
fn compare(bench: Bench<'_>, question: &Question, moment: &mut dyn Moment) -> Result<Trial, Error> {
    let Question {
        what,
        mix,
        ratio_max,
    } = question;
    let cpu = bench.plan.cpu;
    mix.run(cpu)?; // it is warm from here on
    let steady = || -> Result<Vec<Figure>, Error> { Ok(figures(&[mix.run(cpu)?]).into()) };
    let during = || -> Result<Vec<Figure>, Error> {
        moment.prepare()?;
        let (windows, took) = while_it_happens(mix, cpu, moment)?;
        moment.mend()?;
        let mut figures = Vec::from(figures(&windows));
        let took_ms = took.as_secs_f64() * 1e3;
        figures.push(Figure::of("it took", "ms", took_ms));
        Ok(figures)
    };
    let requests = match mix.lookups_percent {
        0 => "trades",
        _ => "lookups",
    };
    let title = format!("{requests} during {what}");
    let mut sides = [Side::new(STEADY, "", steady), Side::new(DURING, "", during)];
    Ok(Trial {
        topic: Topic::Moments,
        parties: alternate(&title, &mut sides, bench.plan.rounds)?,
        claims: vec![Claim {
            text: format!("{title}: p99.9 at most {ratio_max} × steady"),
            ours: DURING,
            theirs: vec![STEADY],
            quantity: P999,
            bound: Bound::AtMost(*ratio_max),
        }],
        title,
        absent: Vec::new(),
    })
}

/// Windows of requests from before something happens until it is over, and how long that took.
fn while_it_happens(
    mix: &Mix,
    cpu: Option<usize>,
    moment: &mut dyn Moment,
) -> Result<(Vec<Mixed>, Duration), Error> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let driving = scope.spawn(|| -> Result<Vec<Mixed>, Error> {
            let mut windows = Vec::new();
            // The one in which it is over is the last.
            while windows.is_empty() || !is_over.load(Ordering::Acquire) {
                windows.push(mix.run(cpu)?);
            }
            Ok(windows)
        });
        sleep(LEAD);
        let start = Instant::now();
        let happened = moment.happen();
        let took = start.elapsed();
        is_over.store(true, Ordering::Release);
        let windows = driving.join();
        let windows = windows.expect("a generator's thread does not panic")?;
        happened?;
        Ok((windows, took))
    })
}

/// The medians of windows; of what was refused all.
fn figures(windows: &[Mixed]) -> [Figure; 5] {
    let of = |figure: fn(&Mixed) -> f64| median(windows.iter().map(figure));
    let refused: u64 = windows.iter().map(|window| window.refused).sum();
    [
        Figure::of("requests", "per second", of(Mixed::per_second)),
        Figure::of("p99", "µs", of(|window| window.all.p99_us)),
        Figure::of(P999, "µs", of(|window| window.all.p999_us)),
        Figure::of("the longest", "µs", of(|window| window.all.max_us)),
        Figure::of("refused", "requests", refused as f64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::mix::Latencies;

    #[test]
    fn the_median_of_windows_counts_and_all_that_is_refused() {
        let window = |p999_us: f64| {
            let latencies = Latencies {
                count: 1000,
                p50_us: 1.0,
                p99_us: 2.0,
                p999_us,
                max_us: 4.0,
            };
            Mixed {
                duration_us: 1_000_000,
                all: latencies,
                lookups: latencies,
                trades: latencies,
                refused: 2,
            }
        };
        let figures = figures(&[window(9.0), window(1.0), window(3.0)]);
        let values = figures.map(|figure| figure.value);
        assert_eq!(values, [1000.0, 2.0, 3.0, 4.0, 6.0]);
    }
}
