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

/// How often workers are looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Who rests is decided by so many intervals in which the same workers served. Linux lets a
/// thread run for some 3 ms before it lets another one, and counts a wait when it is over: less
/// than this says little.
const WINDOW_INTERVALS: usize = 4;

/// Intervals in which connections go to others, and which are not looked at.
const SETTLING_INTERVALS: usize = 1;

/// A worker that wants a processor and has none for more than this share of the time is
/// hindered, while there is another for which it is less than [`FREE_MAX`].
const HINDERED_MIN: f64 = 0.25;

/// See [`HINDERED_MIN`].
const FREE_MAX: f64 = 0.1;

/// Who wants a processor for less than this share of the time is too idle to be hindered.
const DEMAND_MIN: f64 = 0.05;

/// Workers that want a processor for this share of the time have as much to do as they can.
const DEMAND_FULL: f64 = 0.8;

/// Answers after a worker began to rest, as a share of those before, that are enough.
const RATE_MIN: f64 = 0.9;

/// How long it is, at least, before it is tried again whether a worker is better off serving, or
/// resting. It doubles with every trial that soon follows another, from the one to the other.
const PATIENCE_MIN: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_secs(80);

/// Trials that are further apart than so many times the patience do not follow each other.
const SOON: u32 = 3;

/// What a worker's thread did over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Load {
    /// The share of the time on a processor.
    pub running: f64,
    /// The share of the time it was ready to run, and others had the processor.
    pub waiting: f64,
}

impl Load {
    fn over(interval: Duration, times: Times) -> Self {
        Self {
            running: times.running.div_duration_f64(interval),
            waiting: times.waiting.div_duration_f64(interval),
        }
    }

    /// The share of the time in which it wanted a processor.
    fn demand(&self) -> f64 {
        self.running + self.waiting
    }
}

/// What all did in an interval.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observation {
    /// Each worker, by its number.
    pub loads: Vec<Load>,
    /// Requests answered, per second.
    pub answers: f64,
}

/// Who serves and who rests. One serves always.
#[derive(Debug)]
pub(super) struct Shifts {
    shifts: Vec<Shift>,
    /// The last intervals in which the same workers served.
    window: VecDeque<Observation>,
    /// Intervals that are still to be passed over.
    settling: usize,
    trial: Option<Trial>,
}

#[derive(Debug, Clone)]
struct Shift {
    duty: Duty,
    /// Since it was last found out whether resting helps; never, where there is none.
    judged: Option<Duration>,
    /// How long what was found out stands.
    patience: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    Serving {
        /// Resting was found not to help.
        for_good_reason: bool,
    },
    Resting {
        /// Resting was found to help.
        for_good_reason: bool,
    },
}

/// A worker rests, and it is not known yet what that does.
#[derive(Debug)]
struct Trial {
    worker: usize,
    /// Answers per second before, in the best interval.
    answers: f64,
}

impl Shifts {
    /// All serve.
    pub(super) fn of(workers: usize) -> Self {
        let shift = Shift {
            duty: Duty::Serving {
                for_good_reason: false,
            },
            judged: None,
            patience: PATIENCE_MIN,
        };
        Self {
            shifts: vec![shift; workers],
            window: VecDeque::new(),
            settling: 0,
            trial: None,
        }
    }

    /// Whether a worker serves.
    pub(super) fn serves(&self, worker: usize) -> bool {
        matches!(self.shifts[worker].duty, Duty::Serving { .. })
    }

    /// Workers that serve.
    fn serving(&self) -> impl Iterator<Item = usize> {
        (0..self.shifts.len()).filter(|&worker| self.serves(worker))
    }

    /// Decides who serves from now on, by what happened in an interval.
    pub(super) fn observe(&mut self, interval: Duration, observation: Observation) {
        for judged in self
            .shifts
            .iter_mut()
            .filter_map(|shift| shift.judged.as_mut())
        {
            *judged += interval;
        }
        if self.settling > 0 {
            self.settling -= 1;
            return;
        }
        if self.window.len() == WINDOW_INTERVALS {
            self.window.pop_front();
        }
        self.window.push_back(observation);
        if self.window.len() == WINDOW_INTERVALS && self.decide() {
            self.window.clear();
            self.settling = SETTLING_INTERVALS;
        }
    }

    /// Decides by a full window; whether another one is needed for the next decision.
    fn decide(&mut self) -> bool {
        let demand: f64 = self
            .serving()
            .map(|worker| self.load(worker).demand())
            .sum();
        let full = demand >= DEMAND_FULL * self.serving().count() as f64;
        if let Some(trial) = self.trial.take() {
            self.judge(&trial, full);
            return true;
        }
        let hindrance = |worker: &usize| self.hindrance(*worker);
        let is_one_free = self.serving().any(|worker| hindrance(&worker) < FREE_MAX);
        let most = self
            .serving()
            .filter(|worker| is_one_free && hindrance(worker) > HINDERED_MIN)
            .filter(|&worker| self.shifts[worker].may_rest())
            .max_by(|a, b| hindrance(a).total_cmp(&hindrance(b)));
        if let Some(worker) = most {
            self.trial = Some(Trial {
                worker,
                // Clients may just have come: what came before them says nothing.
                answers: self.answers().fold(0.0, f64::max),
            });
            self.shifts[worker].duty = Duty::Resting {
                for_good_reason: false,
            };
            return true;
        }
        full && self.call_back()
    }

    /// What a worker did in each interval of the window.
    fn loads(&self, worker: usize) -> impl Iterator<Item = Load> {
        self.window
            .iter()
            .map(move |observation| observation.loads[worker])
    }

    /// What it did over the window.
    fn load(&self, worker: usize) -> Load {
        let intervals = self.window.len() as f64;
        Load {
            running: self.loads(worker).map(|load| load.running).sum::<f64>() / intervals,
            waiting: self.loads(worker).map(|load| load.waiting).sum::<f64>() / intervals,
        }
    }

    /// The share of the time in which it had no processor, of that in which it wanted one; zero
    /// where it hardly did.
    fn hindrance(&self, worker: usize) -> f64 {
        let wanting = self
            .loads(worker)
            .filter(|load| load.demand() >= DEMAND_MIN);
        if wanting.count() * 2 < self.window.len() {
            return 0.0;
        }
        let load = self.load(worker);
        load.waiting / load.demand()
    }

    /// Answers per second, interval by interval.
    fn answers(&self) -> impl ExactSizeIterator<Item = f64> {
        self.window.iter().map(|observation| observation.answers)
    }

    /// What resting did. Where those who served had time to spare, it remains unknown.
    fn judge(&mut self, trial: &Trial, full: bool) {
        let after = self.answers().sum::<f64>() / self.answers().len() as f64;
        let helped = after >= RATE_MIN * trial.answers;
        tracing::debug!(
            worker = trial.worker,
            full,
            before = trial.answers,
            after,
            "a worker rests"
        );
        if full {
            self.shifts[trial.worker].judge(helped);
        }
    }

    /// Those who rest and are needed, where there are any. Who rests for no good reason is the
    /// first to serve.
    fn call_back(&mut self) -> bool {
        let rests_for = |reason| Duty::Resting {
            for_good_reason: reason,
        };
        let mut called = false;
        for shift in self.shifts.iter_mut() {
            if shift.duty == rests_for(false) {
                shift.call_back();
                called = true;
            }
        }
        let mut others = self.shifts.iter_mut();
        if !called
            && let Some(shift) =
                others.find(|shift| shift.duty == rests_for(true) && shift.is_patience_over())
        {
            shift.call_back();
            called = true;
        }
        called
    }
}

impl Shift {
    fn may_rest(&self) -> bool {
        let is_known_not_to_help = self.duty
            == Duty::Serving {
                for_good_reason: true,
            };
        !is_known_not_to_help || self.is_patience_over()
    }

    fn is_patience_over(&self) -> bool {
        self.judged.is_none_or(|judged| judged >= self.patience)
    }

    /// It has been found out whether resting helps.
    fn judge(&mut self, helped: bool) {
        let soon = self
            .judged
            .is_some_and(|judged| judged < SOON * self.patience);
        self.patience = if soon {
            (2 * self.patience).min(PATIENCE_MAX)
        } else {
            PATIENCE_MIN
        };
        self.judged = Some(Duration::ZERO);
        let for_good_reason = true;
        self.duty = if helped {
            Duty::Resting { for_good_reason }
        } else {
            Duty::Serving { for_good_reason }
        };
    }

    fn call_back(&mut self) {
        self.duty = Duty::Serving {
            for_good_reason: false,
        };
    }
}

/// Connections that a worker has too many, where so many workers share them all.
fn excess(connections: usize, all: usize, serving: usize) -> usize {
    let fair = all.div_ceil(serving);
    // They come and go: a little more than fair is fair.
    if connections > fair + fair / 4 {
        connections - fair
    } else {
        0
    }
}

/// Watches workers, and asks those that rest or have too many to give connections away.
/// Connections over HTTP/2 stay where they are.
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
            shifts.observe(interval, account.since(&earlier));
        }
        earlier = account;

        let serving = || shifts.serving().map(|worker| desks[worker].connections());
        let (all, count) = (serving().sum(), serving().count());
        for (worker, desk) in desks.iter().enumerate() {
            if shifts.serves(worker) {
                desk.serve(excess(desk.connections(), all, count));
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

    fn since(&self, earlier: &Self) -> Observation {
        let interval = self.at.duration_since(earlier.at);
        let times = self.times.iter().zip(&earlier.times);
        let answers = self.answers - earlier.answers;
        Observation {
            loads: times
                .map(|(times, earlier)| Load::over(interval, times.since(*earlier)))
                .collect(),
            answers: answers as f64 / interval.as_secs_f64(),
        }
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

    fn observe(shifts: &mut Shifts, loads: &[Load], answers: u32) {
        let loads = loads.to_vec();
        let answers = answers.into();
        shifts.observe(INTERVAL, Observation { loads, answers });
    }

    /// Until who serves changes, but so many intervals at most; how many it took.
    fn watch(shifts: &mut Shifts, intervals: u32, loads: &[Load], answers: u32) -> u32 {
        let serving = serving(shifts);
        for passed in 1..=intervals {
            observe(shifts, loads, answers);
            if !shifts.serving().eq(serving.iter().copied()) {
                return passed;
            }
        }
        intervals
    }

    fn serving(shifts: &Shifts) -> Vec<usize> {
        shifts.serving().collect()
    }

    /// Intervals until a trial is over.
    const TRIAL: u32 = (SETTLING_INTERVALS + WINDOW_INTERVALS) as u32;

    /// After worker 0 of two was hindered, and answers were so many before and after.
    fn after_trial(before: u32, after: u32, other: Load) -> Shifts {
        let mut shifts = Shifts::of(2);
        watch(&mut shifts, 10, &[FREE, FREE], before);
        watch(&mut shifts, 10, &[HINDERED, FREE], before);
        assert_eq!(serving(&shifts), [1]);
        watch(&mut shifts, TRIAL, &[IDLE, other], after);
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
            observe(&mut shifts, &[HINDERED, FREE], 100);
            for _ in 1..WINDOW_INTERVALS {
                observe(&mut shifts, &[FREE, FREE], 100);
            }
        }
        assert_eq!(serving(&shifts), [0, 1]);
    }

    #[test]
    fn who_waits_for_longer_than_an_interval_is_hindered() {
        // The kernel counts the wait when it is over.
        let waited = Load {
            running: 0.9,
            waiting: 1.1,
        };
        let mut shifts = Shifts::of(2);
        for load in [IDLE, waited, IDLE, waited] {
            observe(&mut shifts, &[load, FREE], 100);
        }
        assert_eq!(serving(&shifts), [1]);
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
        for _ in 0..7 {
            let passed = watch(&mut shifts, 10_000, &[HINDERED, FREE], 1000);
            assert_eq!(serving(&shifts), [1], "it is tried again");
            waits.push((INTERVAL * passed).as_secs());
            watch(&mut shifts, TRIAL, &[IDLE, FULL], 700);
            assert_eq!(serving(&shifts), [0, 1]);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 80, 80]);
    }

    #[test]
    fn clients_that_have_just_come_do_not_make_rest_look_good() {
        let mut shifts = Shifts::of(2);
        watch(&mut shifts, 10, &[IDLE, IDLE], 0);
        let passed = watch(&mut shifts, 10, &[HINDERED, FREE], 1000);
        assert!(passed < WINDOW_INTERVALS as u32, "the window saw none, too");
        watch(&mut shifts, TRIAL, &[IDLE, FULL], 700);
        assert_eq!(serving(&shifts), [0, 1]);
    }

    #[test]
    fn who_rests_where_nobody_needs_it_comes_back_as_soon_as_it_is_needed() {
        let mut shifts = after_trial(1000, 100, FREE);
        assert_eq!(serving(&shifts), [1]);
        watch(&mut shifts, 10_000, &[IDLE, FREE], 100);
        assert_eq!(serving(&shifts), [1], "nobody needs it");
        let passed = watch(&mut shifts, 10_000, &[IDLE, FULL], 1000);
        assert_eq!(serving(&shifts), [0, 1]);
        assert!(passed <= WINDOW_INTERVALS as u32, "{passed} intervals");
    }

    #[test]
    fn who_rests_with_good_reason_comes_back_ever_later() {
        let mut shifts = after_trial(1000, 1300, FULL);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let passed = watch(&mut shifts, 10_000, &[IDLE, FULL], 1300);
            assert_eq!(serving(&shifts), [0, 1], "it is needed");
            waits.push((INTERVAL * passed).as_secs());
            let passed = watch(&mut shifts, 10, &[HINDERED, FREE], 1000);
            assert_eq!((passed, serving(&shifts)), (TRIAL, vec![1]));
            watch(&mut shifts, TRIAL, &[IDLE, FULL], 1300);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 80]);
    }

    #[test]
    fn patience_is_forgotten() {
        let mut shifts = after_trial(1000, 700, FULL);
        let long = (PATIENCE_MAX * SOON).div_duration_f64(INTERVAL) as u32;
        watch(&mut shifts, long, &[FREE, FREE], 1000);
        watch(&mut shifts, 10, &[HINDERED, FREE], 1000);
        watch(&mut shifts, TRIAL, &[IDLE, FULL], 700);
        assert_eq!(shifts.shifts[0].patience, PATIENCE_MIN);
    }

    #[test]
    fn one_serves_always() {
        let mut random = fastrand::Rng::with_seed(1);
        for workers in 1..5 {
            let mut shifts = Shifts::of(workers);
            let mut rests = 0;
            for _ in 0..2_000 {
                let loads = [FREE, FULL, HINDERED, IDLE];
                let loads: Vec<_> = (0..workers).map(|_| loads[random.usize(..4)]).collect();
                for _ in 0..random.usize(..10) {
                    observe(&mut shifts, &loads, random.u32(..1000));
                    let serving = shifts.serving().count();
                    assert!(serving > 0);
                    rests += usize::from(serving < workers);
                }
            }
            assert!(workers == 1 || rests > 0);
        }
    }

    #[test]
    fn who_has_far_more_than_others_gives_what_is_more_than_fair() {
        assert_eq!(excess(64, 64, 2), 32);
        assert_eq!(excess(33, 64, 2), 0);
        assert_eq!(excess(1, 1, 2), 0);
        assert_eq!(excess(3, 3, 2), 1);
        assert_eq!(excess(5, 10, 3), 0);
        assert_eq!(excess(7, 10, 3), 3);
    }
}
