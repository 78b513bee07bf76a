//! How often verdicts are wrong, by simulation: many rollouts, each looked at after every few clients.

use std::time::Duration;

use domain::time::BootTime;
use fastrand::Rng;

use super::*;
use crate::rollout::cohorts::{Cohort, Cohorts, Served};
use crate::rollout::paired::Seen;

const RATES: ErrorRates = ErrorRates {
    false_alarm: 0.01,
    miss: 0.05,
};

const LIMITS: Limits = Limits {
    errors_max: 0.01,
    refusals_max: 1.0,
    admissions_max: 1.0,
    differences_max: 1.0,
    latency: None,
};

/// With a limit of half as long again, for half of the answers.
const TIMED: Limits = Limits {
    latency: Some(LatencyLimit {
        quantile: 0.5,
        ratio_max: 1.5,
    }),
    ..LIMITS
};

/// Simulated rollouts of each kind.
const RUNS: u64 = 200;

/// Clients of each cohort in one.
const CLIENTS: u64 = 2_000;

/// What two versions are like.
#[derive(Debug, Clone, Copy)]
struct World {
    /// For how many clients something fails with the active version: these send what fails, many times.
    fails: f64,
    /// For how many more it does with the version on trial.
    fails_more: f64,
    /// How many times as long that one takes.
    slower: f64,
}

const ALIKE: World = World {
    fails: 0.02,
    fails_more: 0.0,
    slower: 1.0,
};

/// What becomes of one trial of up to so many clients in each cohort, looked at after every 25 of them.
fn trial(world: World, limits: Limits, clients: u64, chance: &mut Rng) -> (Verdict, u64) {
    let mut cohorts = Cohorts::default();
    let now = BootTime::from_millis(0);
    let later = now + Duration::from_secs(10);
    for client in 0..clients {
        for cohort in [Cohort::Canary, Cohort::Baseline] {
            let (fails, slower) = match cohort {
                Cohort::Canary => (world.fails + world.fails_more, world.slower),
                Cohort::Baseline => (world.fails, 1.0),
            };
            // A few clients always fail, and send twenty times as much; times have a long tail.
            let failed = chance.f64() < fails;
            let took_us = (100.0 * slower / (1.0 - chance.f64()).sqrt()) as u64;
            let served = Served {
                failed,
                refused: false,
                took_us,
            };
            for _ in 0..if failed { 20 } else { 1 } {
                cohorts.observe(cohort, client, served, now);
            }
        }
        if client % 25 == 24 {
            let verdict = verdict(&limits.judge_cohorts(cohorts.settle(later), RATES));
            if verdict != Verdict::Open {
                return (verdict, client + 1);
            }
        }
    }
    (Verdict::Open, clients)
}

/// How many of so many trials passed, failed and were left open, and how many clients of each cohort those
/// that were decided took, in the middle.
fn trials(world: World, limits: Limits, clients: u64) -> ([u64; 3], u64) {
    let (mut counts, mut took) = ([0; 3], Vec::new());
    for seed in 0..RUNS {
        let (verdict, after) = trial(world, limits, clients, &mut Rng::with_seed(seed));
        match verdict {
            Verdict::Pass => counts[0] += 1,
            Verdict::Fail => counts[1] += 1,
            Verdict::Open => counts[2] += 1,
        }
        if verdict != Verdict::Open {
            took.push(after);
        }
    }
    took.sort_unstable();
    (counts, took.get(took.len() / 2).copied().unwrap_or(clients))
}

#[test]
fn a_version_that_is_like_the_active_one_is_hardly_ever_dropped() {
    // Also where something fails for a fifth of the clients anyway, and at each limit.
    let fails_more = LIMITS.errors_max;
    for (limits, world) in [
        (LIMITS, ALIKE),
        (
            LIMITS,
            World {
                fails: 0.2,
                ..ALIKE
            },
        ),
        (
            LIMITS,
            World {
                fails_more,
                ..ALIKE
            },
        ),
        (
            TIMED,
            World {
                slower: 1.5,
                ..ALIKE
            },
        ),
    ] {
        let ([passed, failed, open], clients) = trials(world, limits, CLIENTS);
        println!("{world:?}: {passed} passed, {failed} failed, {open} open; {clients} clients");
        assert!(at_most(failed, RATES.false_alarm), "{world:?}: {failed}");
    }
}

#[test]
fn a_version_that_is_beyond_a_limit_hardly_ever_passes() {
    let more = |fails_more| World {
        fails_more,
        ..ALIKE
    };
    let slower = |slower| World { slower, ..ALIKE };
    for (limits, world) in [
        (LIMITS, more(0.012)),
        (LIMITS, more(0.03)),
        (LIMITS, more(0.1)),
        (TIMED, slower(1.6)),
        (TIMED, slower(2.0)),
    ] {
        let ([passed, failed, open], clients) = trials(world, limits, CLIENTS);
        println!("{world:?}: {passed} passed, {failed} failed, {open} open; {clients} clients");
        assert!(at_most(passed, RATES.miss), "{world:?}: {passed}");
    }
    for (limits, world) in [(LIMITS, more(0.1)), (TIMED, slower(2.0))] {
        let ([_, failed, _], clients) = trials(world, limits, CLIENTS);
        assert_eq!(failed, RUNS, "{world:?} after {clients}");
    }
}

/// Whether so many are no more than chance makes of a rate in four standard deviations.
fn at_most(count: u64, rate: f64) -> bool {
    let expected = RUNS as f64 * rate;
    count as f64 <= expected + 4.0 * (expected * (1.0 - rate)).sqrt()
}

#[test]
fn one_decision_that_differs_is_enough_where_none_may() {
    let limits = Limits {
        differences_max: 0.0,
        latency: None,
        ..LIMITS
    };
    let mut paired = Paired::default();
    let judged = |paired: &Paired| verdict(&limits.judge_paired(paired, RATES));
    assert_eq!(judged(&paired), Verdict::Open);
    for _ in 0..1_000 {
        paired.note(Seen::default());
    }
    assert_eq!(judged(&paired), Verdict::Pass);
    paired.note(Seen {
        is_different: true,
        ..Seen::default()
    });
    assert_eq!(judged(&paired), Verdict::Fail);
}

#[test]
fn a_version_that_refuses_everybody_fails_as_a_shadow_and_as_a_canary() {
    let limits = Limits {
        refusals_max: 0.05,
        ..LIMITS
    };
    let mut paired = Paired::default();
    let mut cohorts = Cohorts::default();
    let now = BootTime::from_millis(0);
    for client in 0..100 {
        paired.note(Seen {
            has_refused: true,
            ..Seen::default()
        });
        for cohort in [Cohort::Canary, Cohort::Baseline] {
            let served = Served {
                failed: false,
                refused: cohort == Cohort::Canary,
                took_us: 100,
            };
            cohorts.observe(cohort, client, served, now);
        }
    }
    let shadow = limits.judge_paired(&paired, RATES);
    assert_eq!(verdict(&shadow), Verdict::Fail);
    let outcomes = cohorts.settle(now + Duration::from_secs(10));
    let canary = limits.judge_cohorts(outcomes, RATES);
    assert_eq!(verdict(&canary), Verdict::Fail);
}

/// Where no version may let in more.
const CLOSED: Limits = Limits {
    refusals_max: 0.05,
    admissions_max: 0.0,
    ..LIMITS
};

/// What is shown of admissions in so many trials, where such shares of the canary's and of the active version's
/// clients are refused something: how many pass, and how many are beyond the limit.
fn admissions(shares: [f64; 2]) -> [u64; 2] {
    let mut counts = [0; 2];
    for seed in 0..RUNS {
        let mut chance = Rng::with_seed(seed);
        let mut refused = [0; 2];
        for clients in 1..=CLIENTS {
            for (refused, share) in refused.iter_mut().zip(shares) {
                *refused += u64::from(chance.f64() < share);
            }
            if clients % 25 > 0 {
                continue;
            }
            let outcomes = refused.map(|refused| Outcome {
                clients,
                refused,
                ..Outcome::default()
            });
            let measures = CLOSED.judge_cohorts(outcomes, RATES);
            let found = measures.iter().find(|measure| measure.is_of_admissions());
            match found.unwrap().judged {
                Judged::Open => continue,
                Judged::Within => counts[0] += 1,
                Judged::Beyond => counts[1] += 1,
            }
            break;
        }
    }
    counts
}

#[test]
fn a_canary_that_lets_in_what_the_active_version_refuses_is_found_and_others_hardly_ever() {
    let [passed, beyond] = admissions([0.1, 0.1]);
    println!("alike: {passed} passed, {beyond} beyond");
    assert!(at_most(beyond, RATES.false_alarm), "{beyond}");
    assert!(passed > RUNS / 2, "{passed}");
    // It lets all in, or only some.
    assert_eq!(admissions([0.0, 0.1]), [0, RUNS]);
    assert_eq!(admissions([0.3, 0.6]), [0, RUNS]);
    // More are refused something: that is of another limit.
    let [_, beyond] = admissions([0.3, 0.1]);
    assert!(at_most(beyond, RATES.false_alarm), "{beyond}");
}

#[test]
fn one_decision_that_lets_in_what_the_active_version_refuses_is_enough_where_none_may() {
    let mut paired = Paired::default();
    for _ in 0..1_000 {
        paired.note(Seen::default());
    }
    assert_eq!(verdict(&CLOSED.judge_paired(&paired, RATES)), Verdict::Pass);
    paired.note(Seen {
        has_admitted: true,
        ..Seen::default()
    });
    let measures = CLOSED.judge_paired(&paired, RATES);
    assert_eq!(verdict(&measures), Verdict::Fail);
    let beyond = measures.iter().filter(|it| it.judged == Judged::Beyond);
    let said: Vec<_> = beyond.map(|it| (it.name, it.seen.as_str())).collect();
    let seen = "1 of 1001 decisions let in what the active version refuses";
    assert_eq!(said, [("admissions", seen)]);
    assert_eq!(verdict(&LIMITS.judge_paired(&paired, RATES)), Verdict::Pass);
}

#[test]
fn where_more_fail_than_there_are_pairs_nothing_passes() {
    let outcome = |failed| Outcome {
        clients: 1_000,
        failed,
        ..Outcome::default()
    };
    let judged = |canary, baseline| {
        let measures = LIMITS.judge_cohorts([outcome(canary), outcome(baseline)], RATES);
        verdict(&measures)
    };
    assert_eq!(judged(900, 900), Verdict::Open);
    assert_eq!(judged(1_000, 0), Verdict::Fail);
}

#[test]
fn decisions_that_fail_or_take_longer_fail_a_version() {
    let mut fails = Paired::default();
    let mut slow = Paired::default();
    for decision in 0..200 {
        fails.note(Seen {
            has_failed: decision % 10 == 0,
            ..Seen::default()
        });
        slow.note(Seen::default());
        let ms = Duration::from_millis;
        slow.note_times(ms(1), ms(1 + decision % 3), 1.5);
    }
    assert_eq!(verdict(&LIMITS.judge_paired(&fails, RATES)), Verdict::Fail);
    assert_eq!(verdict(&TIMED.judge_paired(&slow, RATES)), Verdict::Fail);
}

/// Steps of rollouts by which a rate is shown, where [`RUNS`] only do not speak against it.
const MANY: u64 = 10_000;

/// Whether so few of [`MANY`] are wrong as would be one time in twenty at most, were they wrong at that rate.
fn is_shown_below(count: u64, rate: f64) -> bool {
    let expected = MANY as f64 * rate;
    count as f64 <= expected - 1.65 * (expected * (1.0 - rate)).sqrt()
}

/// How many of [`MANY`] steps are shown to be within a limit, and how many beyond it. Of what is compared, such shares are
/// what is looked for, and so many come between two looks; it is looked as often as of [`CLIENTS`] in cohorts of 25.
fn judged(
    shares: [f64; 2],
    between_looks: [u64; 2],
    judge: impl Fn([(u64, u64); 2]) -> Judged,
) -> [u64; 2] {
    let mut counts = [0; 2];
    for seed in 0..MANY {
        let mut chance = Rng::with_seed(seed);
        let mut seen = [(0, 0); 2];
        for _ in 0..CLIENTS / 25 {
            for (index, (of, all)) in seen.iter_mut().enumerate() {
                let more = between_looks[index];
                *of += (0..more).filter(|_| chance.f64() < shares[index]).count() as u64;
                *all += more;
            }
            match judge(seen) {
                Judged::Open => continue,
                Judged::Within => counts[0] += 1,
                Judged::Beyond => counts[1] += 1,
            }
            break;
        }
    }
    counts
}

/// Of versions that are at a limit, where they are the hardest to tell from those on either side of it.
fn check_rates(
    name: &str,
    shares: [f64; 2],
    between_looks: [u64; 2],
    judge: impl Fn([(u64, u64); 2]) -> Judged,
) {
    let [within, beyond] = judged(shares, between_looks, judge);
    println!("{name}, {between_looks:?}: {within} within the limit, {beyond} beyond it");
    assert!(
        is_shown_below(beyond, RATES.false_alarm),
        "{name}: {beyond}"
    );
    assert!(is_shown_below(within, RATES.miss), "{name}: {within}");
}

#[test]
fn false_alarms_and_misses_of_canaries_are_shown_to_be_as_rare_as_is_said() {
    for (name, limit, active) in [("errors", 0.01, 0.02), ("refusals", 0.05, 0.1)] {
        let judge = |cohorts| judge_shares(cohorts, [limit; 2], RATES);
        // Also where either version has three times as many clients.
        for between_looks in [[25, 25], [25, 75], [75, 25]] {
            check_rates(name, [active + limit, active], between_looks, judge);
        }
    }
}

#[test]
fn false_alarms_and_misses_of_shadows_are_shown_to_be_as_rare_as_is_said() {
    for (name, limit) in [("failures", 0.01), ("refusals", 0.05)] {
        let judge = |[(of, all), _]: [(u64, u64); 2]| judge_share(of, all, limit, RATES);
        check_rates(name, [limit, 0.0], [25, 0], judge);
    }
}
