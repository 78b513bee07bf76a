//! Which workers serve, and how many connections each has.
//!
//! Processors are not all the same: one that also has a client, a database or the network's
//! interrupts to serve leaves its worker waiting, and with it a share of the clients, while
//! another worker answers at once. Then the one that is hindered rests, and the others have its
//! connections: on two processors, with a client beside the gateway, a fifth more lookups and a
//! third of their 99th percentile. Whether it helps is seen, not assumed: where fewer requests
//! are answered than before, and all who serve have as much to do as they can, the worker comes
//! back; and a worker that rests comes back when it is needed.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::schedule::Times;
use super::worker::Desk;

/// How long workers are watched at a time. Linux lets a thread run for some 3 ms before it lets
/// another one: shorter than many of those says little.
const INTERVAL: Duration = Duration::from_millis(50);

/// A worker that wants a processor and has none for more than this share of the time is
/// hindered, while there is another for which it is less than [`FREE_MAX`].
const HINDERED_MIN: f64 = 0.25;

/// See [`HINDERED_MIN`].
const FREE_MAX: f64 = 0.1;

/// A worker rests after it was hindered for so many intervals in a row.
const HINDERED_INTERVALS: usize = 2;

/// Who wants a processor for less than this share of the time is too idle to be judged.
const DEMAND_MIN: f64 = 0.05;

/// Workers that want a processor for this share of the time have as much to do as they can.
const DEMAND_FULL: f64 = 0.8;

/// Intervals over which answers are counted, before a worker rests and after.
const RATE_INTERVALS: usize = 4;

/// Intervals in which connections go to others, before answers are counted again.
const SETTLING_INTERVALS: usize = 1;

/// Answers after a worker began to rest, as a share of those before, that are enough.
const RATE_MIN: f64 = 0.9;

/// How long it is, at least, before it is tried again whether a worker is better off serving, or
/// resting. It doubles with every try that soon follows another, from the one to the other.
const PATIENCE_MIN: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_secs(80);

/// Tries that are further apart than so many times the patience do not follow each other.
const SOON: u32 = 3;

/// What a worker's thread did over an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// The share of the interval on a processor.
    pub running: f64,
    /// The share of the interval it was ready to run, and others had the processor.
    pub waiting: f64,
}

impl Load {
    fn over(interval: Duration, times: Times) -> Self {
        Self {
            running: times.running.div_duration_f64(interval),
            waiting: times.waiting.div_duration_f64(interval),
        }
    }

    /// The share of the interval in which it wanted a processor.
    fn demand(&self) -> f64 {
        self.running + self.waiting
    }

    /// The share of that in which it had none; unknown where it hardly wanted one.
    fn hindrance(&self) -> Option<f64> {
        (self.demand() >= DEMAND_MIN).then(|| self.waiting / self.demand())
    }
}

/// Who serves and who rests. One serves always.
#[derive(Debug)]
pub(super) struct Shifts {
    shifts: Vec<Shift>,
    /// Answers per second in the last intervals, the latest at the end.
    rates: VecDeque<f64>,
    trial: Option<Trial>,
}

#[derive(Debug, Clone)]
struct Shift {
    serves: bool,
    /// Intervals in a row, up to now, in which it was hindered.
    hindered_intervals: usize,
    /// Since it last began to rest, if it ever did.
    rested: Option<Duration>,
    /// How long what was found out when it last rested stands.
    patience: Duration,
    /// Whether resting helped.
    helped: bool,
}

/// A worker rests, and it is not known yet what that does.
#[derive(Debug)]
struct Trial {
    worker: usize,
    /// Answers per second before.
    rate: f64,
    /// Intervals since, and those of them in which all others were full.
    intervals: usize,
    full_intervals: usize,
}

impl Shifts {
    /// All serve.
    pub(super) fn of(workers: usize) -> Self {
        let shift = Shift {
            serves: true,
            hindered_intervals: 0,
            rested: None,
            patience: PATIENCE_MIN,
            helped: true,
        };
        Self {
            shifts: vec![shift; workers],
            rates: VecDeque::new(),
            trial: None,
        }
    }

    /// Whether a worker serves.
    pub(super) fn serves(&self, worker: usize) -> bool {
        self.shifts[worker].serves
    }

    /// Workers that serve.
    fn serving(&self) -> impl Iterator<Item = usize> {
        (0..self.shifts.len()).filter(|&worker| self.serves(worker))
    }

    /// Decides who serves from now on, by what each worker did over an interval and how many
    /// requests all of them answered.
    pub(super) fn observe(&mut self, interval: Duration, loads: &[Load], answers: u64) {
        for rested in self
            .shifts
            .iter_mut()
            .filter_map(|shift| shift.rested.as_mut())
        {
            *rested += interval;
        }
        if self.rates.len() == RATE_INTERVALS {
            self.rates.pop_front();
        }
        self.rates
            .push_back(answers as f64 / interval.as_secs_f64());
        let demand: f64 = self.serving().map(|worker| loads[worker].demand()).sum();
        let full = demand >= DEMAND_FULL * self.serving().count() as f64;
        self.note_hindrances(loads);
        match self.trial.take() {
            Some(trial) => self.trial = self.go_on(trial, full),
            None => self.change(loads, full),
        }
    }

    fn note_hindrances(&mut self, loads: &[Load]) {
        let is_free = |worker: usize| {
            let hindrance = loads[worker].hindrance();
            hindrance.is_some_and(|share| share < FREE_MAX)
        };
        let is_one_free = self.serving().any(is_free);
        for (shift, load) in self.shifts.iter_mut().zip(loads) {
            let hindered = load.hindrance().is_some_and(|share| share > HINDERED_MIN);
            shift.hindered_intervals = if shift.serves && hindered && is_one_free {
                shift.hindered_intervals + 1
            } else {
                0
            };
        }
    }

    /// The trial, unless it is over.
    fn go_on(&mut self, mut trial: Trial, full: bool) -> Option<Trial> {
        trial.intervals += 1;
        trial.full_intervals += usize::from(full);
        if trial.intervals < SETTLING_INTERVALS + RATE_INTERVALS {
            return Some(trial);
        }
        let was_full = trial.full_intervals * 2 > trial.intervals;
        let helped = !was_full || self.rate() >= RATE_MIN * trial.rate;
        tracing::debug!(
            worker = trial.worker,
            helped,
            before = trial.rate,
            after = self.rate(),
            "a worker rests"
        );
        let shift = &mut self.shifts[trial.worker];
        shift.helped = helped;
        shift.serves = !helped;
        None
    }

    fn change(&mut self, loads: &[Load], full: bool) {
        let hindrance = |worker: &usize| loads[*worker].hindrance().unwrap_or(0.0);
        let may_rest = self
            .serving()
            .filter(|&worker| self.shifts[worker].may_rest());
        let most = may_rest.max_by(|a, b| hindrance(a).total_cmp(&hindrance(b)));
        if let Some(worker) = most {
            self.trial = Some(Trial {
                worker,
                rate: self.rate(),
                intervals: 0,
                full_intervals: 0,
            });
            self.shifts[worker].begin_rest();
        } else if full && let Some(shift) = self.shifts.iter_mut().find(|shift| shift.may_return())
        {
            shift.serves = true;
        }
    }

    /// Answers per second in the last intervals.
    fn rate(&self) -> f64 {
        self.rates.iter().sum::<f64>() / self.rates.len() as f64
    }
}

impl Shift {
    fn may_rest(&self) -> bool {
        // Where it helped the last time, there is no need to wait until it is tried again.
        self.hindered_intervals >= HINDERED_INTERVALS && (self.helped || self.is_patience_over())
    }

    fn may_return(&self) -> bool {
        !self.serves && self.is_patience_over()
    }

    fn is_patience_over(&self) -> bool {
        self.rested.is_none_or(|rested| rested >= self.patience)
    }

    fn begin_rest(&mut self) {
        let soon = self
            .rested
            .is_some_and(|rested| rested < SOON * self.patience);
        self.patience = if soon {
            (2 * self.patience).min(PATIENCE_MAX)
        } else {
            PATIENCE_MIN
        };
        self.serves = false;
        self.rested = Some(Duration::ZERO);
        self.hindered_intervals = 0;
    }
}

/// Connections that a worker has too many, where so many workers share them all.
fn excess(connections: usize, all: usize, serving: usize) -> usize {
    let fair = all.div_ceil(serving);
    // They come and go: a little more than fair is fair.
    if connections > fair + fair / 4 + 1 {
        connections - fair
    } else {
        0
    }
}

/// Watches workers, and asks those that rest or have too many to give connections away.
pub(super) async fn run(desks: &[Desk]) {
    if desks.len() < 2 {
        return pending().await;
    }
    let mut shifts = Shifts::of(desks.len());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut earlier: Option<Account> = None;
    loop {
        ticks.tick().await;
        let account = Account::of(desks);
        if let (Some(earlier), Some(account)) = (earlier, &account) {
            let interval = account.at.duration_since(earlier.at);
            let times = account.times.iter().zip(earlier.times);
            let loads: Vec<_> = times
                .map(|(times, earlier)| Load::over(interval, times.since(earlier)))
                .collect();
            shifts.observe(interval, &loads, account.answers - earlier.answers);
        }
        earlier = account;

        let all = desks.iter().map(Desk::connections).sum();
        let serving = shifts.serving().count();
        for (worker, desk) in desks.iter().enumerate() {
            if shifts.serves(worker) {
                desk.serve(excess(desk.connections(), all, serving));
            } else {
                desk.rest();
            }
        }
    }
}

/// What all workers have done so far.
struct Account {
    at: Instant,
    times: Vec<Times>,
    answers: u64,
}

impl Account {
    /// None while a worker has not begun, or where the kernel does not say.
    fn of(desks: &[Desk]) -> Option<Self> {
        Some(Self {
            times: desks.iter().map(Desk::times).collect::<Option<_>>()?,
            answers: desks.iter().map(|desk| desk.tally.answers()).sum(),
            at: Instant::now(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Load = Load {
        running: 0.6,
        waiting: 0.02,
    };
    const FULL: Load = Load {
        running: 0.97,
        waiting: 0.02,
    };
    const HINDERED: Load = Load {
        running: 0.35,
        waiting: 0.33,
    };
    const IDLE: Load = Load {
        running: 0.0,
        waiting: 0.0,
    };

    /// For so many intervals, or until something changes; how many it took.
    fn watch(shifts: &mut Shifts, intervals: u32, loads: &[Load], answers: u64) -> u32 {
        let serving: Vec<_> = shifts.serving().collect();
        for passed in 1..=intervals {
            shifts.observe(INTERVAL, loads, answers);
            if !shifts.serving().eq(serving.iter().copied()) {
                return passed;
            }
        }
        intervals
    }

    fn serving(shifts: &Shifts) -> Vec<usize> {
        shifts.serving().collect()
    }

    /// After worker 0 of two was hindered, and answers were so many before and after.
    fn after_trial(before: u64, after: u64, other: Load) -> Shifts {
        let mut shifts = Shifts::of(2);
        watch(&mut shifts, 10, &[FREE, FREE], before);
        let passed = watch(&mut shifts, 10, &[HINDERED, FREE], before);
        assert_eq!((passed, serving(&shifts)), (2, vec![1]));
        watch(&mut shifts, 10, &[IDLE, other], after);
        shifts
    }

    #[test]
    fn all_serve_where_none_is_worse_off_than_others() {
        for load in [FREE, FULL, HINDERED, IDLE] {
            let mut shifts = Shifts::of(3);
            watch(&mut shifts, 100, &[load; 3], 100);
            assert_eq!(serving(&shifts), [0, 1, 2], "{load:?}");
        }
    }

    #[test]
    fn who_is_hindered_for_a_moment_serves_on() {
        let mut shifts = Shifts::of(2);
        for _ in 0..100 {
            shifts.observe(INTERVAL, &[HINDERED, FREE], 100);
            shifts.observe(INTERVAL, &[FREE, FREE], 100);
        }
        assert_eq!(serving(&shifts), [0, 1]);
    }

    #[test]
    fn the_most_hindered_rests_first() {
        let worse = Load {
            running: 0.2,
            waiting: 0.6,
        };
        let mut shifts = Shifts::of(3);
        watch(&mut shifts, 10, &[HINDERED, worse, FREE], 100);
        assert_eq!(serving(&shifts), [0, 2]);
    }

    #[test]
    fn rest_that_costs_answers_ends_and_is_not_tried_again_soon() {
        let mut shifts = after_trial(1000, 700, FULL);
        assert_eq!(serving(&shifts), [0, 1]);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let passed = watch(&mut shifts, 10_000, &[HINDERED, FULL], 1000);
            assert_eq!(serving(&shifts), [1], "it is tried again");
            waits.push((INTERVAL * passed).as_secs());
            watch(&mut shifts, 10, &[IDLE, FULL], 700);
            assert_eq!(serving(&shifts), [0, 1]);
        }
        assert_eq!(waits, [4, 9, 19, 39, 79, 79, 79, 79]);
    }

    #[test]
    fn rest_goes_on_where_there_was_less_to_answer() {
        let mut shifts = after_trial(1000, 100, FREE);
        assert_eq!(serving(&shifts), [1]);
        watch(&mut shifts, 10_000, &[IDLE, FREE], 100);
        assert_eq!(serving(&shifts), [1], "nobody needs it");
    }

    #[test]
    fn who_rests_comes_back_when_needed_and_rests_longer_where_that_did_not_help() {
        let mut shifts = after_trial(1000, 1300, FULL);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let passed = watch(&mut shifts, 10_000, &[IDLE, FULL], 1300);
            assert_eq!(serving(&shifts), [0, 1], "it is needed");
            waits.push((INTERVAL * passed).as_secs());
            let passed = watch(&mut shifts, 10, &[HINDERED, FREE], 1000);
            assert_eq!((passed, serving(&shifts)), (2, vec![1]));
            watch(&mut shifts, 10, &[IDLE, FULL], 1300);
        }
        assert_eq!(waits, [4, 9, 19, 39, 79, 79]);
    }

    #[test]
    fn patience_is_forgotten() {
        let mut shifts = after_trial(1000, 700, FULL);
        let long = (PATIENCE_MAX * SOON).div_duration_f64(INTERVAL) as u32;
        watch(&mut shifts, long, &[FREE, FREE], 1000);
        watch(&mut shifts, 10, &[HINDERED, FREE], 1000);
        watch(&mut shifts, 10, &[IDLE, FULL], 700);
        assert_eq!(shifts.shifts[0].patience, PATIENCE_MIN);
    }

    #[test]
    fn one_serves_always() {
        let mut random = fastrand::Rng::with_seed(1);
        for workers in 1..5 {
            let mut shifts = Shifts::of(workers);
            let mut rests = 0;
            for _ in 0..10_000 {
                let loads = [FREE, FULL, HINDERED, IDLE];
                let loads: Vec<_> = (0..workers).map(|_| loads[random.usize(..4)]).collect();
                shifts.observe(INTERVAL, &loads, random.u64(..1000));
                let serving = shifts.serving().count();
                assert!(serving > 0);
                rests += usize::from(serving < workers);
            }
            assert!(workers == 1 || rests > 0);
        }
    }

    #[test]
    fn who_has_far_more_than_others_gives_what_is_more_than_fair() {
        assert_eq!(excess(64, 64, 2), 32);
        assert_eq!(excess(33, 64, 2), 0);
        assert_eq!(excess(1, 1, 2), 0);
        assert_eq!(excess(5, 10, 3), 0);
        assert_eq!(excess(7, 10, 3), 3);
    }
}
