//! Choices that a seed can repeat.

/// SplitMix64 (Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators",
/// OOPSLA 2014, figure 17).
#[derive(Debug, Clone)]
pub struct Random(u64);

/// The odd number nearest to 2⁶⁴ divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// One of many sequences that a seed stands for.
    pub fn new(seed: u64, sequence: u64) -> Self {
        let mut seeds = Self(seed);
        let start = seeds.next();
        let mut starts = Self(start ^ sequence.wrapping_mul(GAMMA));
        Self(starts.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound, which is above 0. Of bounds far below 2⁶⁴ every number is as
    /// probable as any other, to all intents.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// `true` with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: a number from 0, below 1, that a float holds exactly.
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, sequence: u64) -> Vec<u64> {
        let mut random = Random::new(seed, sequence);
        (0..100).map(|_| random.below(1000)).collect()
    }

    #[test]
    fn a_seed_repeats_its_choices_and_clients_differ() {
        assert_eq!(draws(7, 1), draws(7, 1));
        assert_ne!(draws(7, 1), draws(7, 2));
        assert_ne!(draws(7, 1), draws(8, 1));
    }

    #[test]
    fn choices_keep_to_their_bounds_and_probabilities() {
        let mut random = Random::new(1, 1);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert!((0..1000).all(|_| random.chance(1.0) && !random.chance(0.0)));
        let half = (0..10_000).filter(|_| random.chance(0.5)).count();
        assert!((4_700..5_300).contains(&half), "{half}");
    }
}
