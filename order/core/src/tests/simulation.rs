//! Three replicas, a catalog and clients in a random world: messages are delayed, reordered and
//! lost, calls arrive long after they were given up, disks fill up, replicas crash at any point. Every seed is a history of its own, and the
//! same one every time.

mod world;

use std::collections::BTreeSet;

use domain::{Epoch, ReplicaId};

use super::bench::id;
use domain::Term;
use world::{Packet, World};

const REPLICAS: u32 = 3;
const SEEDS: u64 = 300;
const ACTIONS: usize = 1500;
/// Few, so that keys are used again.
const KEYS: u64 = 60;

/// SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn replica(&mut self) -> ReplicaId {
        id(1 + self.below(u64::from(REPLICAS)) as u32)
    }
}

impl World {
    fn act(&mut self) {
        let replica = self.random.replica();
        match self.random.below(1000) {
            0..500 if !self.network.is_empty() => {
                let index = self.random.below(self.network.len() as u64) as usize;
                self.deliver(index);
            }
            500..530 if !self.network.is_empty() => {
                let index = self.random.below(self.network.len() as u64) as usize;
                self.lose(index);
            }
            530..540 if !self.late.is_empty() => {
                let index = self.random.below(self.late.len() as u64) as usize;
                self.arrive_late(index);
            }
            540..560 => self.commit(),
            560..562 => self.fail_to_commit(),
            562..720 => self.save(replica, false),
            720..723 => self.save(replica, true),
            723..830 => {
                let millis = self.random.below(60);
                self.pass(millis);
            }
            830..950 => {
                let leader = self.term.leader.filter(|_| self.random.below(10) > 0);
                self.place(leader.unwrap_or(replica));
            }
            950..970 => {
                if self.random.below(4) > 0 {
                    self.hear(replica);
                } else {
                    self.hear_nothing(replica);
                }
            }
            970..978 => self.elect(replica),
            978..984 => self.crash(replica),
            // Also by somebody who makes it up: of an epoch that the catalog has not begun.
            984..992 if self.term.leader.is_some() => {
                let forged = self.random.below(8) == 0;
                let epoch = Epoch(self.term.epoch.0 + if forged { 1 << 20 } else { 0 });
                let term = Term { epoch, ..self.term };
                self.network.push(Packet::Announce { to: replica, term });
            }
            _ if self.machines[&replica].replica.is_none() => self.start(replica),
            _ => {}
        }
    }

    /// All is well from now on: everybody must come to agree and to serve.
    fn heal(&mut self) {
        for number in 1..=REPLICAS {
            if self.machines[&id(number)].replica.is_none() {
                self.start(id(number));
            }
            // What queues behind a save that failed fails, too, and would end a new leadership.
            self.save_all(id(number));
        }
        self.elect(id(3));
        for _ in 0..400 {
            while !self.network.is_empty() {
                self.commit();
                self.deliver(0);
            }
            if !self.late.is_empty() {
                self.arrive_late(0);
            }
            for number in 1..=REPLICAS {
                self.save(id(number), false);
                self.hear(id(number));
            }
            self.pass(20);
        }
        let all: BTreeSet<ReplicaId> = self.machines.keys().copied().collect();
        assert_eq!(self.in_sync, all);
        for machine in self.machines.values() {
            assert_eq!(
                machine.disk.rows, self.journal,
                "replica {}",
                machine.run.id
            );
        }
    }
}

#[test]
fn in_a_random_world_nothing_acknowledged_is_lost_and_all_agree_in_the_end() {
    let (mut answers, mut rows, mut overtaken, mut failures) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..ACTIONS {
                world.act();
            }
            world.heal();
            let World {
                answers,
                overtaken,
                failures,
                ..
            } = world;
            (answers, world.journal.len(), overtaken, failures)
        });
        let (answered, journal, late, failed) = run.unwrap_or_else(|_| panic!("seed {seed}"));
        answers += answered;
        rows += journal;
        overtaken += late;
        failures += failed;
    }
    // The world is not so bad that nothing gets done.
    assert!(
        answers as u64 > 5 * SEEDS && rows as u64 > 10 * SEEDS,
        "{answers} answers, {rows} rows"
    );
    // Rows are proposed in vain.
    assert!(failures as u64 > SEEDS / 2, "{failures} failures");
    // And not so good that no change of the in-sync set is ever overtaken.
    assert!(overtaken as u64 > SEEDS / 10, "{overtaken} overtaken");
}
