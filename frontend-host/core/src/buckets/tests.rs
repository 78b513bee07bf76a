use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn rate(tokens: u32, period: Duration, burst: u32) -> Rate {
    Rate::new(tokens, period, burst).unwrap()
}

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

const CROWD: u128 = 1 << 64;

fn take(key: u128, rate: Rate, cost: u32) -> Take {
    Take {
        key,
        crowd: CROWD,
        rate,
        cost,
    }
}

#[test]
fn a_burst_is_there_at_once_and_comes_back_evenly() {
    let mut buckets = Buckets::new(10);
    let rate = rate(10, SECOND, 3);
    let mut one = |millis| buckets.take(&take(1, rate, 1), at(millis));
    assert_eq!([0; 3].map(&mut one), [Ok(()); 3]);
    assert_eq!(one(0), Err(Duration::from_millis(100)));
    assert_eq!(one(40), Err(Duration::from_millis(60)));
    assert_eq!(one(100), Ok(()));
    assert_eq!(one(100), Err(Duration::from_millis(100)));
    // No more than the burst, however long nobody takes any.
    assert_eq!([9_000; 3].map(&mut one), [Ok(()); 3]);
    assert_eq!(one(9_000), Err(Duration::from_millis(100)));
}

#[test]
fn a_rate_is_one_or_none() {
    for (tokens, period, burst) in [
        (0, SECOND, 1),
        (1, SECOND, 0),
        (1, SECOND, BURST_MAX + 1),
        (TOKENS_PER_SECOND_MAX + 1, SECOND, 1),
        (1, PERIOD_MAX + SECOND, 1),
        (1, Duration::ZERO, 1),
    ] {
        assert_eq!(Rate::new(tokens, period, burst), None);
    }
    let slowest = rate(1, PERIOD_MAX, BURST_MAX);
    assert_eq!(slowest.time_of(BURST_MAX), PERIOD_MAX * BURST_MAX);
    // Rounded so that never more come back than should.
    assert!(rate(3, SECOND, 1).time_of(3) >= SECOND);
}

#[test]
fn only_full_buckets_are_forgotten() {
    let mut buckets = Buckets::new(2);
    let rate = rate(1, SECOND, 2);
    let mut all = |key, millis| buckets.take(&take(key, rate, 2), at(millis)).is_ok();
    assert!(all(1, 0) && all(2, 500));
    assert!(all(3, 1_000), "there is no room, and a crowd's bucket");
    assert!(!all(4, 1_000), "which is one for all");
    assert!(!all(1, 1_999) && !all(2, 1_999));
    // Both are full again, and forgotten. Who takes their place begins as the crowd was left.
    assert!(!all(4, 2_600), "the crowd's has one token");
    assert!(all(4, 3_000));
    assert!(!all(4, 3_000));
    assert_eq!(buckets.kept(), 2);
}

/// Takes, one after the other: after how many milliseconds, whose, and how much.
fn takes() -> impl Strategy<Value = Vec<(u64, u128, u32)>> {
    proptest::collection::vec((0_u64..400, 0_u128..6, 1_u32..=4), 1..200)
}

proptest! {
    /// In no time, from any take to any other, is more granted to anybody than comes back in it and
    /// the burst; with room for all, and for fewer than come.
    #[test]
    fn nobody_takes_more_than_the_rate_and_a_burst(
        takes in takes(),
        tokens in 1_u32..20,
        burst in 4_u32..10,
        room in 0_usize..8,
    ) {
        let mut buckets = Buckets::new(room);
        let rate = rate(tokens, SECOND, burst);
        let mut granted: Vec<(u64, u128, u32)> = Vec::new();
        let mut now = 0;
        for (after, key, cost) in takes {
            now += after;
            if buckets.take(&take(key, rate, cost), at(now)).is_ok() {
                granted.push((now, key, cost));
            }
            prop_assert!(buckets.kept() <= room + 1);
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
        let mut buckets = Buckets::new(3);
        let rate = rate(tokens, SECOND, 4);
        let mut now = at(0);
        for (after, key, cost) in takes {
            now = now + Duration::from_millis(after);
            if let Err(wait) = buckets.take(&take(key, rate, cost), now) {
                now = now + wait;
                prop_assert_eq!(buckets.take(&take(key, rate, cost), now), Ok(()));
            }
        }
    }
}
