//! Who serves, by what each worker's thread did.

use std::collections::VecDeque;
use std::time::Duration;

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
    pub(super) fn quotas(&self, connections: &[usize]) -> Vec<Quota> {
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
        let mut quotas: Vec<_> = duties()
            .map(|(duty, &connections)| match duty {
                Duty::Serving | Duty::Needed => Quota {
                    seats: usize::MAX,
                    giving: excess(connections, all, serving),
                },
                Duty::Probing => Quota {
                    seats: probe,
                    giving: connections.saturating_sub(probe),
                },
                Duty::OnTrial { .. } | Duty::Spare | Duty::Hindered => Quota {
                    seats: 0,
                    giving: connections,
                },
            })
            .collect();
        // What a probe takes comes from whoever has most.
        if let Some(worker) = self.serving().max_by_key(|&worker| connections[worker]) {
            quotas[worker].giving += wanted;
        }
        quotas
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

/// How many connections a worker may have, and is to give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Quota {
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

#[cfg(test)]
mod tests;
