//! What a version on trial is held to, and what the evidence says of that.
//!
//! Of each limit it may be shown that the version is within it, or that it is beyond it, or neither yet. A
//! version passes once it is shown to be within all of them, and fails as soon as it is shown to be
//! beyond one.

use super::bets::{that_greater, that_less};
use super::cohorts::Outcome;
use super::paired::Paired;
use super::quantile::{Interval, interval};
use super::shown::Shown;

/// What a version is held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// By how much the share of clients for whom something failed may be greater, and, as a shadow, the
    /// share of decisions that it may fail: more than 0, less than 1.
    pub errors_max: f64,
    /// By how much the share of clients may be greater to whom something was refused (400 to 499), and, as a
    /// shadow, the share of decisions that it alone answers so: more than 0, at most 1, where 1 does not ask.
    pub refusals_max: f64,
    /// By how much the share of clients may be less to whom something was refused, and, as a shadow, the share of
    /// decisions that may let in what the active version refuses: 0 to 1, where 1 does not ask.
    pub admissions_max: f64,
    /// The share of decisions that may be different, as a shadow: 0 to 1, where 1 does not ask.
    pub differences_max: f64,
    /// How much longer it may take, where that is asked.
    pub latency: Option<LatencyLimit>,
}

/// How much longer a version may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyLimit {
    /// Which quantile is compared, between 0 and 1.
    pub quantile: f64,
    /// How many times as long as the active version it may take, at least 1.
    pub ratio_max: f64,
}

/// How often a verdict may be wrong, however often one looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorRates {
    /// A version that is within a limit is shown to be beyond it.
    pub false_alarm: f64,
    /// A version that is beyond a limit is shown to be within it.
    pub miss: f64,
}

impl ErrorRates {
    fn both(self) -> [f64; 2] {
        [self.false_alarm, self.miss]
    }
}

/// The measure of what a version lets in that the active one refuses.
const ADMISSIONS: &str = "admissions";

/// What the evidence says of one limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// `failures`, `errors`, `refusals`, `admissions`, `differences`, `decision time` or `latency`.
    pub name: &'static str,
    pub judged: Judged,
    /// What was seen, in words.
    pub seen: String,
    evidence: Evidence,
}

/// What intervals are made of, once somebody wants to see them: that costs fifty times what the verdict does.
#[derive(Debug, Clone, PartialEq)]
enum Evidence {
    /// What is bet on, that a mean is more than its limit and that it is less, between which values it can be.
    Mean {
        of: &'static str,
        bets: [[(f64, u64); 3]; 2],
        range: [f64; 2],
        limit: f64,
        rates: ErrorRates,
    },
    Known(Vec<Shown>),
}

impl Measure {
    /// Whether it is of what the version lets in: beyond that limit it may be what somebody wants, which nobody
    /// but a person knows.
    pub fn is_of_admissions(&self) -> bool {
        self.name == ADMISSIONS
    }

    /// What was seen as intervals: of shares of 1, or of microseconds where it is `latency`.
    pub fn shown(&self) -> Vec<Shown> {
        match &self.evidence {
            Evidence::Mean {
                of,
                bets: [more, less],
                range,
                limit,
                rates,
            } => {
                let limits = (*limit, rates.both());
                let [more, less] = [more, less].map(|bet| Shown::mean(of, bet, *range, limits));
                vec![Shown {
                    high: less.high,
                    ..more
                }]
            }
            Evidence::Known(shown) => shown.clone(),
        }
    }
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    Within,
    Beyond,
    /// Neither yet.
    Open,
}

/// What the evidence says of all limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    Open,
}

/// It fails by one, and passes by all.
pub fn verdict(measures: &[Measure]) -> Verdict {
    let is = |judged| move |measure: &Measure| measure.judged == judged;
    if measures.iter().any(is(Judged::Beyond)) {
        Verdict::Fail
    } else if measures.iter().all(is(Judged::Within)) {
        Verdict::Pass
    } else {
        Verdict::Open
    }
}

impl Limits {
    /// What decisions of both versions about the same input show.
    pub fn judge_paired(&self, paired: &Paired, rates: ErrorRates) -> Vec<Measure> {
        let Paired {
            decisions,
            different,
            failed,
            refused,
            admitted,
            timed,
            slower,
        } = *paired;
        let mut measures = vec![Measure {
            name: "failures",
            judged: judge_share(failed, decisions, self.errors_max, rates),
            evidence: share_shown(failed, decisions, self.errors_max, rates),
            seen: format!("{failed} of {decisions} decisions failed"),
        }];
        if self.refusals_max < 1.0 {
            measures.push(Measure {
                name: "refusals",
                judged: judge_share(refused, decisions, self.refusals_max, rates),
                evidence: share_shown(refused, decisions, self.refusals_max, rates),
                seen: format!(
                    "{refused} of {decisions} decisions refuse what the active version does not"
                ),
            });
        }
        if self.admissions_max < 1.0 {
            measures.push(Measure {
                name: ADMISSIONS,
                judged: self.judge_few(admitted, decisions, self.admissions_max, rates),
                evidence: share_shown(admitted, decisions, self.admissions_max, rates),
                seen: format!(
                    "{admitted} of {decisions} decisions let in what the active version refuses"
                ),
            });
        }
        if self.differences_max < 1.0 {
            measures.push(Measure {
                name: "differences",
                judged: self.judge_few(different, decisions, self.differences_max, rates),
                evidence: share_shown(different, decisions, self.differences_max, rates),
                seen: format!("{different} of {decisions} decisions differ"),
            });
        }
        if let Some(LatencyLimit {
            quantile,
            ratio_max,
        }) = self.latency
        {
            measures.push(Measure {
                name: "decision time",
                judged: judge_share(slower, timed, 1.0 - quantile, rates),
                evidence: share_shown(slower, timed, 1.0 - quantile, rates),
                seen: format!(
                    "{slower} of {timed} decisions took more than {ratio_max} times as long"
                ),
            });
        }
        measures
    }

    /// Of what may have a limit of 0.
    fn judge_few(&self, of: u64, all: u64, limit: f64, rates: ErrorRates) -> Judged {
        if limit > 0.0 {
            return judge_share(of, all, limit, rates);
        }
        // Where there may be none, one is shown. That there is none can only be shown of so many.
        match of {
            0 => judge_share(0, all, self.errors_max, rates),
            _ => Judged::Beyond,
        }
    }

    /// Whether fewer are refused something by the canary. That as many are can only be shown up to a share: that
    /// of its limit or, where this is 0, by which more may be.
    fn judge_admissions(&self, refused: [(u64, u64); 2], rates: ErrorRates) -> Measure {
        let [canary, baseline] = refused;
        let limit = self.admissions_max;
        let as_many = if limit > 0.0 {
            limit
        } else if self.refusals_max < 1.0 {
            self.refusals_max
        } else {
            self.errors_max
        };
        Measure {
            name: ADMISSIONS,
            judged: judge_shares([baseline, canary], [limit, as_many], rates),
            evidence: shares_shown("active − canary", [baseline, canary], limit, rates),
            seen: format!(
                "something was refused to {} of {} clients of the active version, and {} of {} of this one",
                baseline.0, baseline.1, canary.0, canary.1
            ),
        }
    }

    /// What clients of both versions show: the canary's, and those of the active version.
    pub fn judge_cohorts(&self, cohorts: [Outcome; 2], rates: ErrorRates) -> Vec<Measure> {
        let failed = |outcome: &Outcome| (outcome.failed, outcome.clients);
        let refused = |outcome: &Outcome| (outcome.refused, outcome.clients);
        let shares = [
            (
                "errors",
                "failed for",
                self.errors_max,
                cohorts.each_ref().map(failed),
            ),
            (
                "refusals",
                "was refused to",
                self.refusals_max,
                cohorts.each_ref().map(refused),
            ),
        ];
        let refused = cohorts.each_ref().map(refused);
        let mut measures = Vec::new();
        for (name, what, limit, [canary, baseline]) in shares {
            if limit >= 1.0 {
                continue;
            }
            measures.push(Measure {
                name,
                judged: judge_shares([canary, baseline], [limit; 2], rates),
                evidence: shares_shown("canary − active", [canary, baseline], limit, rates),
                seen: format!(
                    "something {what} {} of {} clients, and {} of {} of the active version",
                    canary.0, canary.1, baseline.0, baseline.1
                ),
            });
        }
        if self.admissions_max < 1.0 {
            measures.push(self.judge_admissions(refused, rates));
        }
        if let Some(limit) = self.latency {
            let times = cohorts.map(|outcome| {
                let mut times = outcome.took_us;
                times.sort_unstable();
                times
            });
            measures.push(judge_times(&times, limit, rates));
        }
        measures
    }
}

/// Whether a share is above or below a limit, by how many of all are.
fn judge_share(of: u64, all: u64, limit: f64, rates: ErrorRates) -> Judged {
    let observed = [(1.0, of), (0.0, all - of)];
    judge(
        that_greater(&observed, limit, 0.0) >= 1.0 / rates.false_alarm,
        that_less(&observed, limit, 1.0) >= 1.0 / rates.miss,
    )
}

/// Where that share lies.
fn share_shown(of: u64, all: u64, limit: f64, rates: ErrorRates) -> Evidence {
    Evidence::Mean {
        of: "candidate",
        bets: [[(1.0, of), (0.0, all - of), (0.0, 0)]; 2],
        range: [0.0, 1.0],
        limit,
        rates,
    }
}

/// Whether the share of the clients of one cohort of whom something holds is greater than of the other's, by more
/// than a limit, or by less than another; each by how many of how many.
///
/// It is chance which cohort a client is in. So each of whom it holds is as probably in one as in the other,
/// where the versions are alike; and the bet is on each of them, and on as many others as there are pairs.
/// Where the cohorts are not as large, the larger is taken in part. Where it holds of so many that there are
/// more of them than pairs, nothing is shown.
fn judge_shares(
    cohorts: [(u64, u64); 2],
    [beyond, within]: [f64; 2],
    rates: ErrorRates,
) -> Judged {
    let [more, less] = pairs_of(cohorts);
    judge(
        more.is_some_and(|more| that_greater(&more, beyond, -1.0) >= 1.0 / rates.false_alarm),
        less.is_some_and(|less| that_less(&less, within, 1.0) >= 1.0 / rates.miss),
    )
}

/// By how much more clients of the first it holds of.
fn shares_shown(
    of: &'static str,
    cohorts: [(u64, u64); 2],
    limit: f64,
    rates: ErrorRates,
) -> Evidence {
    match pairs_of(cohorts) {
        [Some(more), Some(less)] => Evidence::Mean {
            of,
            bets: [more, less],
            range: [-1.0, 1.0],
            limit,
            rates,
        },
        _ => Evidence::Known(Vec::new()),
    }
}

/// What is bet on: that the first one's share is greater, and that it is not. Either way rounded against what is to
/// be shown.
fn pairs_of([first, second]: [(u64, u64); 2]) -> [Option<[(f64, u64); 3]>; 2] {
    let pairs = first.1.min(second.1);
    let part = |(of, all): (u64, u64)| of as f64 * pairs as f64 / all.max(1) as f64;
    let observed = |of_first: f64, of_second: f64| {
        let (of_first, of_second) = (of_first as u64, of_second as u64);
        let alike = pairs.checked_sub(of_first + of_second)?;
        Some([(1.0, of_first), (-1.0, of_second), (0.0, alike)])
    };
    [
        observed(part(first).floor(), part(second).ceil()),
        observed(part(first).ceil(), part(second).floor()),
    ]
}

/// Whether a quantile of the canary's times is above so many times the baseline's.
fn judge_times(
    [canary, baseline]: &[Vec<u64>; 2],
    limit: LatencyLimit,
    rates: ErrorRates,
) -> Measure {
    let LatencyLimit {
        quantile,
        ratio_max,
    } = limit;
    // Either of two intervals may be wrong.
    let both = |rate: f64| [canary, baseline].map(|times| interval(times, quantile, rate / 2.0));
    let times = |us: u64| match us {
        u64::MAX => f64::INFINITY,
        us => us as f64,
    };
    let interval = |of, Interval { low, high }: Interval, limit| Shown {
        of,
        low: low as f64,
        high: (high < u64::MAX).then_some(high as f64),
        limit,
    };
    let [canary, baseline] = both(rates.false_alarm);
    let is_beyond = times(canary.low) > times(baseline.high) * ratio_max;
    let [canary, baseline] = both(rates.miss);
    let is_within = times(canary.high) <= times(baseline.low) * ratio_max && canary.high < u64::MAX;
    let shown = |Interval { low, high }: Interval| match high {
        u64::MAX => format!("{low} us or more"),
        high => format!("{low} to {high} us"),
    };
    let limit = (baseline.low > 0).then_some(baseline.low as f64 * ratio_max);
    Measure {
        name: "latency",
        evidence: Evidence::Known(vec![
            interval("canary", canary, limit),
            interval("active", baseline, None),
        ]),
        judged: judge(is_beyond, is_within),
        seen: format!(
            "quantile {quantile}: {}, of the others {}",
            shown(canary),
            shown(baseline)
        ),
    }
}

fn judge(is_beyond: bool, is_within: bool) -> Judged {
    match (is_beyond, is_within) {
        (true, _) => Judged::Beyond,
        (false, true) => Judged::Within,
        (false, false) => Judged::Open,
    }
}

#[cfg(test)]
mod tests;
