//! Leaders that die are replaced at once, however often; gateways that disagree slow down, and
//! agree once they see the same.

use frontend_core::election::ProbeFailure;

use super::world::{Health, STEP, World};

/// Random runs of each test.
const SEEDS: u64 = 100;

/// Milliseconds from a leader's death to the next one's first trade: a probe interval, two snapshots
/// at most, and the new leader's catching up.
const FAILOVER_MAX: u64 = 150;

/// Elections in a minute of gateways that disagree.
const ELECTIONS_MAX: u64 = 250;

/// Milliseconds after which gateways that see the same agree, whatever was before: the longest
/// pause of a slow-down, and what is passed over.
const AGREED_AFTER: u64 = 15_000;

#[test]
fn leaders_that_are_killed_twenty_times_in_a_minute_are_replaced_at_once() {
    let mut worst = 0;
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(3, 1 + (seed % 2) as usize, seed);
        world.run(2000);
        for _ in 0..20 {
            let leader = world.led_by().expect("a leader leads");
            world.kill(leader);
            let killed = world.now;
            while world.led_by().is_none() {
                world.run(STEP);
                assert!(
                    world.now < killed + FAILOVER_MAX,
                    "no new leader, seed {seed}"
                );
            }
            worst = worst.max(world.now - killed);
            world.run(random.u64(100..2000));
            world.bring_back(leader);
            world.run(random.u64(0..1000));
        }
    }
    println!("longest failover: {worst} ms");
}

/// It takes 1.7 s to fetch what it lacks.
#[test]
fn a_replica_with_far_to_catch_up_does_not_lead_where_one_in_sync_stands_by() {
    for seed in 0..SEEDS {
        let mut world = World::new(3, 1 + (seed % 2) as usize, seed);
        world.run(2000);
        assert_eq!(world.led_by(), Some(2), "the highest leads, seed {seed}");
        world.kill(2);
        world.run(1000);
        assert_eq!(world.led_by(), Some(1), "seed {seed}");
        world.trade(600_000);
        world.bring_back(2);
        world.run(200); // it is seen
        world.kill(1);
        let killed = world.now;
        while world.led_by().is_none() {
            world.run(STEP);
            assert!(
                world.now < killed + FAILOVER_MAX,
                "no new leader, seed {seed}"
            );
        }
        assert_eq!(world.led_by(), Some(0), "seed {seed}");
        // Once it has caught up it leads again.
        world.run(2000);
        world.kill(0);
        world.run(1000);
        assert_eq!(world.led_by(), Some(2), "seed {seed}");
    }
}

#[test]
fn gateways_that_see_different_replicas_slow_down_and_agree_once_they_see_the_same() {
    let mut most = 0;
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(3, 2 + (seed % 2) as usize, seed);
        world.run(2000);
        // Nobody's replica is seen by all, so there is no choice that all are content with.
        let places = [0, 1, 2];
        for (gateway, place) in world.gateways.iter_mut().zip(places) {
            gateway.cut_off = places.into_iter().filter(|it| *it != place).collect();
            gateway.cut = [ProbeFailure::Silent, ProbeFailure::Refused][random.usize(0..2)];
        }
        let before = world.term().epoch.0;
        world.run(60_000);
        let elections = world.term().epoch.0 - before;
        assert!(
            (2..ELECTIONS_MAX).contains(&elections),
            "{elections} elections, seed {seed}"
        );
        most = most.max(elections);
        check_agreement(&mut world, seed);
    }
    println!("most elections in a minute: {most}");
}

#[test]
fn whatever_happened_gateways_agree_once_all_is_well() {
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(3, 1 + (seed % 3) as usize, seed);
        for _ in 0..100 {
            let (place, gateway) = (random.usize(0..3), random.usize(0..world.gateways.len()));
            match random.u8(0..6) {
                0 => world.kill(place),
                1 if world.replicas[place].health == Health::Up => {
                    world.replicas[place].health = Health::Suspended;
                }
                2 | 3 => world.bring_back(place),
                4 => world.gateways[gateway].cut_off = vec![place],
                _ => world.gateways[gateway].cut_off.clear(),
            }
            world.run(random.u64(0..1000));
        }
        check_agreement(&mut world, seed);
    }
}

/// All is well: before long one leads, all gateways know, and nobody elects any more.
fn check_agreement(world: &mut World, seed: u64) {
    for place in 0..world.replicas.len() {
        world.bring_back(place);
    }
    for gateway in &mut world.gateways {
        gateway.cut_off.clear();
    }
    world.run(AGREED_AFTER);
    assert!(world.led_by().is_some(), "nobody leads, seed {seed}");
    assert!(world.is_agreed(), "gateways do not agree, seed {seed}");
    let epoch = world.term().epoch;
    world.run(AGREED_AFTER);
    assert_eq!(
        world.term().epoch,
        epoch,
        "somebody still elects, seed {seed}"
    );
}
