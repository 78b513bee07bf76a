//! Which workers serve, and how many connections each has.
//!
//! Processors are not all the same: one that also has a client, a database or the network's
//! interrupts to serve leaves its worker waiting, and with it a share of the clients, while
//! another worker answers at once. Then the one that is hindered rests, and the others have its
//! connections: on two processors, with a client beside the gateway, a quarter more lookups and
//! less than half of their 99th percentile (`tests/bench/README.md`). Whether it helps is seen,
//! not assumed: where fewer requests are answered than before, and those who serve have as much
//! to do as they can, the worker comes back. One that rests comes back when it is needed; where
//! resting was seen to help, it is given a few connections first, to see whether that has changed.

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
const PATIENCE_MIN: Duration = Duration::from_secs(20);
const PATIENCE_MAX: Duration = Duration::from_secs(160);

/// A worker that may still be hindered gets one in so many connections.
const PROBE_SHARE: usize = 32;

/// How long it is where those who serve are hindered as well: something has changed.
const PATIENCE_CHANGED: Duration = Duration::from_secs(1);

/// Trials that are further apart than so many times the patience do not follow each other.
const SOON: u32 = 6;

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
}

#[derive(Debug, Clone)]
struct Shift {
    duty: Duty,
    /// Since it was last found out whether resting helps; never, where there is none.
    judged: Option<Duration>,
    /// How long what was found out stands.
    patience: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Duty {
    /// It serves.
    Serving,
    /// It serves, since resting was seen not to help.
    Needed,
    /// It serves a few, to see whether it is still hindered.
    Probing,
    /// It rests, to see what that does.
    OnTrial {
        /// Answers per second before, in the best interval.
        answers: f64,
    },
    /// It rests, since the others can do without it.
    Spare,
    /// It rests, since that was seen to help.
    Hindered,
}

impl Shifts {
    /// All serve.
    pub(super) fn of(workers: usize) -> Self {
        let shift = Shift {
            duty: Duty::Serving,
            judged: None,
            patience: PATIENCE_MIN,
        };
        Self {
            shifts: vec![shift; workers],
            window: VecDeque::new(),
            settling: 0,
        }
    }

    /// Workers that serve as many as they can.
    fn serving(&self) -> impl Iterator<Item = usize> {
        let duties = self.shifts.iter().map(|shift| shift.duty).enumerate();
        duties.filter_map(|(worker, duty)| {
            matches!(duty, Duty::Serving | Duty::Needed).then_some(worker)
        })
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
        self.end_trial(full) || self.end_probe() || self.begin_trial() || full && self.call_back()
    }

    /// What a trial of resting has shown. Where those who served had time to spare, nothing.
    fn end_trial(&mut self, full: bool) -> bool {
        let after = self.answers().sum::<f64>() / self.answers().len() as f64;
        for (worker, shift) in self.shifts.iter_mut().enumerate() {
            if let Duty::OnTrial { answers: before } = shift.duty {
                tracing::debug!(worker, full, before, after, "a worker rests");
                if !full {
                    shift.duty = Duty::Spare;
                } else if after >= RATE_MIN * before {
                    shift.judge(Duty::Hindered);
                } else {
                    shift.judge(Duty::Needed);
                }
                return true;
            }
        }
        false
    }

    /// What those have shown that serve a few: who is not clearly free is still hindered.
    fn end_probe(&mut self) -> bool {
        let hindrances: Vec<_> = (0..self.shifts.len())
            .map(|worker| self.hindrance(worker))
            .collect();
        let mut ended = false;
        for (worker, shift) in self.shifts.iter_mut().enumerate() {
            if shift.duty == Duty::Probing {
                let hindrance = hindrances[worker];
                tracing::debug!(worker, hindrance, "a worker was tried again");
                if hindrance < FREE_MAX {
                    shift.duty = Duty::Serving;
                } else {
                    shift.judge(Duty::Hindered);
                }
                ended = true;
            }
        }
        ended
    }

    /// The most hindered worker is to rest, to see whether that helps.
    fn begin_trial(&mut self) -> bool {
        let hindrance = |worker: &usize| self.hindrance(*worker);
        let most = self
            .serving()
            .filter(|&worker| self.is_hindered(worker) && self.shifts[worker].may_rest())
            .max_by(|a, b| hindrance(a).total_cmp(&hindrance(b)));
        // Clients may just have come: what came before them says nothing.
        let answers = self.answers().fold(0.0, f64::max);
        most.is_some_and(|worker| {
            self.shifts[worker].duty = Duty::OnTrial { answers };
            true
        })
    }

    /// Those who rest are needed: those first who are not known to be better off.
    fn call_back(&mut self) -> bool {
        let mut called = false;
        for shift in &mut self.shifts {
            if shift.duty == Duty::Spare {
                shift.duty = Duty::Serving;
                called = true;
            }
        }
        let has_changed = self
            .serving()
            .all(|worker| self.hindrance(worker) > HINDERED_MIN);
        let is_to_probe = |shift: &&mut Shift| {
            let patience = if has_changed {
                PATIENCE_CHANGED
            } else {
                shift.patience
            };
            shift.duty == Duty::Hindered && shift.judged.is_none_or(|judged| judged >= patience)
        };
        if !called && let Some(shift) = self.shifts.iter_mut().find(is_to_probe) {
            shift.duty = Duty::Probing;
            called = true;
        }
        called
    }

    /// Whether a worker does without a processor while another one that serves has one.
    fn is_hindered(&self, worker: usize) -> bool {
        self.hindrance(worker) > HINDERED_MIN
            && self.serving().any(|other| self.hindrance(other) < FREE_MAX)
    }

    /// Connections that each worker may have, and is to give away, of those that it has.
    fn orders(&self, connections: &[usize]) -> Vec<Order> {
        let duties = || self.shifts.iter().map(|shift| shift.duty).zip(connections);
        let serves = |duty| matches!(duty, Duty::Serving | Duty::Needed | Duty::Probing);
        let served = duties().filter(|&(duty, _)| serves(duty));
        let all: usize = served.map(|(_, connections)| connections).sum();
        let serving = self.serving().count();
        let probe = all.div_ceil(PROBE_SHARE);
        let wanted = duties().filter(|&(duty, _)| duty == Duty::Probing);
        let wanted: usize = wanted
            .map(|(_, connections)| probe.saturating_sub(*connections))
            .sum();
        let mut orders: Vec<_> = duties()
            .map(|(duty, &connections)| match duty {
                Duty::Serving | Duty::Needed => Order {
                    seats: usize::MAX,
                    giving: excess(connections, all, serving),
                },
                Duty::Probing => Order {
                    seats: probe,
                    giving: connections.saturating_sub(probe),
                },
                Duty::OnTrial { .. } | Duty::Spare | Duty::Hindered => Order {
                    seats: 0,
                    giving: connections,
                },
            })
            .collect();
        // What a probe takes comes from whoever has most.
        if let Some(worker) = self.serving().max_by_key(|&worker| connections[worker]) {
            orders[worker].giving += wanted;
        }
        orders
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
}

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// No connection goes to it while it has so many.
    pub seats: usize,
    /// So many go to others.
    pub giving: usize,
}

impl Shift {
    fn may_rest(&self) -> bool {
        self.duty != Duty::Needed || self.is_patience_over()
    }

    fn is_patience_over(&self) -> bool {
        self.judged.is_none_or(|judged| judged >= self.patience)
    }

    /// It has been found out whether resting helps.
    fn judge(&mut self, duty: Duty) {
        let soon = self
            .judged
            .is_some_and(|judged| judged < SOON * self.patience);
        self.patience = if soon {
            (2 * self.patience).min(PATIENCE_MAX)
        } else {
            PATIENCE_MIN
        };
        self.judged = Some(Duration::ZERO);
        self.duty = duty;
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

        let connections: Vec<_> = desks.iter().map(Desk::connections).collect();
        for (desk, order) in desks.iter().zip(shifts.orders(&connections)) {
            desk.follow(order);
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
        assert_eq!(waits, [20, 40, 80, 160, 160, 160, 160]);
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
            let mut passed = 0;
            while shifts.shifts[0].duty == Duty::Hindered {
                observe(&mut shifts, &[IDLE, FULL], 1300);
                passed += 1;
            }
            waits.push((INTERVAL * passed).as_secs());
            let orders = shifts.orders(&[0, 64]);
            assert_eq!(
                (orders[0].seats, orders[1].giving),
                (2, 2),
                "a few are given to it"
            );
            let orders = shifts.orders(&[2, 62]);
            assert_eq!((orders[0].giving, orders[1].giving), (0, 0), "and no more");
            // The other one may suffer as well: what counts is whether this one is free.
            watch(&mut shifts, TRIAL, &[HINDERED, HINDERED], 1300);
            assert_eq!(serving(&shifts), [1]);
        }
        assert_eq!(waits, [20, 40, 80, 160, 160, 160]);
    }

    #[test]
    fn who_is_hindered_no_more_serves_again() {
        let mut shifts = after_trial(1000, 1300, FULL);
        watch(&mut shifts, 10_000, &[FREE, FULL], 1300);
        assert_eq!(serving(&shifts), [0, 1]);
        let giving: Vec<_> = shifts
            .orders(&[4, 60])
            .iter()
            .map(|order| order.giving)
            .collect();
        assert_eq!(giving, [0, 28], "its share is given to it");
    }

    #[test]
    fn who_rests_is_tried_soon_where_who_serves_is_hindered_in_turn() {
        let mut shifts = after_trial(1000, 1300, FULL);
        let hindered = Load {
            running: 0.5,
            waiting: 0.5,
        };
        let soon = PATIENCE_CHANGED.div_duration_f64(INTERVAL) as u32 + 2 * TRIAL;
        watch(&mut shifts, soon, &[FREE, hindered], 700);
        assert_eq!(serving(&shifts), [0, 1]);
        watch(&mut shifts, 2 * TRIAL, &[FREE, hindered], 700);
        assert_eq!(serving(&shifts), [0], "and the other rests");
    }

    #[test]
    fn who_rests_gives_all_that_it_has_and_is_given_nothing() {
        let shifts = after_trial(1000, 1300, FULL);
        let orders = shifts.orders(&[7, 3]);
        let resting = Order {
            seats: 0,
            giving: 7,
        };
        let serving = Order {
            seats: usize::MAX,
            giving: 0,
        };
        assert_eq!(orders, [resting, serving]);
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
