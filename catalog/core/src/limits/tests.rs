use domain::Rate;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rate(tokens: u32, period: Duration, burst: u32) -> Rate {
    Rate::new(tokens, period, burst).unwrap()
}

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

const CROWD: u128 = 1 << 64;

/// All of one part, which has so much room.
fn with_room(room: usize) -> Limits {
    Limits::new().within(1, room)
}

fn take(key: u128, rate: Rate, cost: u32) -> Take {
    Take {
        key,
        crowd: CROWD,
        rate,
        cost,
    }
}

#[test]
fn only_full_buckets_are_forgotten() {
    let mut limits = with_room(2);
    let rate = rate(1, SECOND, 2);
    let mut all = |key, millis| limits.take(&take(key, rate, 2), at(millis)).is_ok();
    assert!(all(1, 0) && all(2, 500));
    assert!(all(3, 1_000), "there is no room, and a crowd's bucket");
    assert!(!all(4, 1_000), "which is one for all");
    assert!(!all(1, 1_999) && !all(2, 1_999));
    // Both are full again, and forgotten. Who takes their place begins as the crowd was left.
    assert!(!all(4, 2_600), "the crowd's has one token");
    assert!(all(4, 3_000));
    assert!(!all(4, 3_000));
    assert_eq!(limits.kept(), 2);
}

#[test]
fn each_key_has_a_bucket_of_its_own_and_no_more_are_kept_than_there_is_room_for() {
    let mut limits = Limits::new();
    let rate = rate(1, Duration::from_secs(3600), 2);
    for key in 0..2 * (SHARDS * ROOM) as u128 {
        let granted = limits.take(&take(key, rate, 2), at(0)).is_ok();
        // In the crowd of a part the first gets what is there.
        assert_eq!(granted, key < ((ROOM + 1) * SHARDS) as u128, "{key}");
    }
    assert_eq!(limits.kept(), SHARDS * (ROOM + 1));
}

#[test]
fn what_was_taken_before_a_start_is_taken_to_be_all() {
    let mut limits = Limits::empty_at(at(10_000)).within(1, 1);
    let rate = rate(1, SECOND, 3);
    let mut one = |key, millis| limits.take(&take(key, rate, 1), at(millis));
    for key in [1, 2] {
        assert_eq!(one(key, 10_000), Err(SECOND), "{key}");
        assert_eq!(one(key, 10_400), Err(Duration::from_millis(600)), "{key}");
    }
    assert_eq!(one(1, 11_000), Ok(()));
    assert_eq!(one(1, 11_000), Err(SECOND));
    // Who comes later has what has come back since; in the crowd as well.
    assert_eq!([12_500; 2].map(|millis| one(2, millis)), [Ok(()); 2]);
    assert_eq!(one(2, 12_500), Err(Duration::from_millis(500)));
    // And in the end the burst.
    assert_eq!([99_000; 3].map(|millis| one(3, millis)), [Ok(()); 3]);
    assert_eq!(one(3, 99_000), Err(SECOND));
}

#[test]
fn what_is_left_is_resumed_on_any_clock_and_nothing_has_come_back_meanwhile() {
    let rate = rate(1, SECOND, 3);
    let one = |limits: &mut Limits, key, millis| limits.take(&take(key, rate, 1), at(millis));
    let mut limits = Limits::empty_at(at(50_000));
    assert_eq!(one(&mut limits, 1, 51_500), Ok(()));
    assert_eq!(one(&mut limits, 1, 51_500), Err(SECOND / 2));
    let left = limits.snapshot(at(51_700));
    for now in [0, 200, 90_000] {
        let mut limits = Limits::resumed(&left, at(now)).unwrap();
        assert_eq!(one(&mut limits, 1, now), Err(SECOND * 3 / 10), "{now}");
        // 1.7 s had passed since all were empty, however young this clock is.
        assert_eq!(one(&mut limits, 2, now), Ok(()), "{now}");
        assert_eq!(one(&mut limits, 2, now), Err(SECOND * 3 / 10), "{now}");
        let again = limits.snapshot(at(now + 100));
        assert_eq!(again.since_empty, Some(SECOND * 18 / 10));
    }
    // Where nobody had taken anything, others are full.
    let left = Limits::new().snapshot(at(7));
    let mut limits = Limits::resumed(&left, at(0)).unwrap();
    assert_eq!([0; 3].map(|now| one(&mut limits, 1, now)), [Ok(()); 3]);
    let of_fewer_parts = Limits::new().within(1, 9).snapshot(at(7));
    assert_eq!(Limits::resumed(&of_fewer_parts, at(0)), None);
}

/// Takes, one after the other: after how many milliseconds, whose, and how much.
fn takes() -> impl Strategy<Value = Vec<(u64, u128, u32)>> {
    proptest::collection::vec((0_u64..400, 0_u128..6, 1_u32..=4), 1..200)
}

proptest! {
    /// In no time, from any take to any other, is more granted to anybody than comes back in it and
    /// the burst; with room for all, and for fewer than come, and past restarts.
    #[test]
    fn nobody_takes_more_than_the_rate_and_a_burst(
        takes in takes(),
        tokens in 1_u32..20,
        burst in 4_u32..10,
        room in 0_usize..8,
        restarts in proptest::collection::vec(0_usize..200, 0..3),
    ) {
        let mut limits = with_room(room);
        let rate = rate(tokens, SECOND, burst);
        let mut granted: Vec<(u64, u128, u32)> = Vec::new();
        let mut now = 0;
        for (number, (after, key, cost)) in takes.into_iter().enumerate() {
            now += after;
            if restarts.contains(&number) {
                limits = Limits::empty_at(at(now)).within(1, room);
            }
            if limits.take(&take(key, rate, cost), at(now)).is_ok() {
                granted.push((now, key, cost));
            }
            prop_assert!(limits.kept() <= room + 1);
        }
        for (first, &(begun, key, _)) in granted.iter().enumerate() {
            let mut sum = 0;
            for &(ended, other, cost) in &granted[first..] {
                if other != key {
                    continue;
                }
                sum += u64::from(cost) * 1000;
                let comes_back = u64::from(tokens) * (ended - begun);
                prop_assert!(sum <= comes_back + u64::from(burst) * 1000);
            }
        }
    }

    /// Who waits as long as it is told gets it, where nobody else takes any.
    #[test]
    fn who_waits_as_long_as_told_gets_it(takes in takes(), tokens in 1_u32..20) {
        let mut limits = with_room(3);
        let rate = rate(tokens, SECOND, 4);
        let mut now = at(0);
        for (after, key, cost) in takes {
            now = now + Duration::from_millis(after);
            if let Err(wait) = limits.take(&take(key, rate, cost), now) {
                now = now + wait;
                prop_assert_eq!(limits.take(&take(key, rate, cost), now), Ok(()));
            }
        }
    }
}
