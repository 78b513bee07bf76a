//! How many clients were served lately, about, in a bounded memory and without a lock.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How long a client is remembered: for one to two times this.
pub(super) const TURN: Duration = Duration::from_secs(60);

/// One decision in so many is looked at.
const SEEN_EVERY: u64 = 8;

const WORDS: usize = 16;
const BITS: u64 = WORDS as u64 * 64;

/// Who was served lately, as one bit for each of many clients: linear counting (Whang, Vander-Zanden and
/// Taylor, 1990). Says 7,098 of as many and of more.
#[derive(Debug, Default)]
pub(crate) struct ClientsSeen {
    turns: [[AtomicU64; WORDS]; 2],
    /// The turn that is going on.
    current: AtomicUsize,
}

impl ClientsSeen {
    /// A client was served; looks at a sample of those, by the seed of its decision.
    pub(crate) fn note(&self, client: u64, seed: u64) {
        if !seed.is_multiple_of(SEEN_EVERY) {
            return;
        }
        let bit = spread(client) % BITS;
        let word = &self.turns[self.current.load(Ordering::Relaxed)][(bit / 64) as usize];
        let mask = 1 << (bit % 64);
        // Mostly it is set: then nothing is written that other threads read.
        if word.load(Ordering::Relaxed) & mask == 0 {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// A turn is over: forgets the one before it.
    pub(super) fn turn(&self) {
        let next = 1 - self.current.load(Ordering::Relaxed);
        for word in &self.turns[next] {
            word.store(0, Ordering::Relaxed);
        }
        self.current.store(next, Ordering::Relaxed);
    }

    /// How many clients there were in this turn and the one before it, about.
    pub(super) fn estimate(&self) -> u64 {
        let [one, other] = &self.turns;
        let ones = one.iter().zip(other).map(|(one, other)| {
            let seen = one.load(Ordering::Relaxed) | other.load(Ordering::Relaxed);
            u64::from(seen.count_ones())
        });
        let zeros = (BITS - ones.sum::<u64>()).max(1);
        let bits = BITS as f64;
        (bits * (bits / zeros as f64).ln()).round() as u64
    }
}

/// Addresses of a network are alike, and are to differ in all bits (the finalizer of SplitMix64).
fn spread(client: u64) -> u64 {
    let mut mixed = client.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_about_and_forgotten_after_two_turns() {
        for clients in [0, 1, 10, 100, 1000] {
            let seen = ClientsSeen::default();
            for client in 0..clients {
                for seed in 0..16 {
                    seen.note(client, seed);
                }
            }
            let (estimate, expected) = (seen.estimate() as f64, clients as f64);
            assert!(
                (estimate - expected).abs() <= 2.0 + expected * 0.1,
                "{clients}: {estimate}"
            );
            seen.turn();
            assert_eq!(seen.estimate() as f64, estimate);
            seen.turn();
            assert_eq!(seen.estimate(), 0);
        }
    }

    #[test]
    fn a_great_many_are_many() {
        let seen = ClientsSeen::default();
        (0..1_000_000).for_each(|client| seen.note(client, 0));
        assert_eq!(seen.estimate(), 7098);
    }
}
