use super::super::INTERVAL;
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
        let quotas = shifts.quotas(&[0, 64]);
        assert_eq!(
            (quotas[0].seats, quotas[1].giving),
            (2, 2),
            "a few are given to it"
        );
        let quotas = shifts.quotas(&[2, 62]);
        assert_eq!((quotas[0].giving, quotas[1].giving), (0, 0), "and no more");
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
        .quotas(&[4, 60])
        .iter()
        .map(|quota| quota.giving)
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
    let quotas = shifts.quotas(&[7, 3]);
    let resting = Quota {
        seats: 0,
        giving: 7,
    };
    let serving = Quota {
        seats: usize::MAX,
        giving: 0,
    };
    assert_eq!(quotas, [resting, serving]);
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
