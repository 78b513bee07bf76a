//! The buckets that policies take out of, for all worker threads.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, PoisonError};

use domain::time::BootTime;
use frontend_core::{Buckets as Shard, Take};
use frontend_policy::decision::{Bucket, Outcome};

/// Locks that the buckets are spread over. A power of two.
const SHARDS: usize = 64;

/// Buckets that are not full, of one lock: 262,144 in all, which take some 16 MiB. Who is beyond them
/// shares one with the others of its lock.
const ROOM: usize = 4096;

/// The buckets of one gateway. A bucket is one by its name, its rate and its key, whichever version of
/// the policy takes out of it.
pub struct Buckets {
    shards: Vec<Mutex<Shard>>,
    /// Two, so that keys are told apart by 128 bits, which nobody outside can guess.
    hashers: [RandomState; 2],
}

impl Buckets {
    /// All of them full.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(ROOM))).collect(),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// Takes so many tokens out of the bucket of that key, or says after how long they are there.
    pub fn take(&self, bucket: &Bucket, key: &[u8], cost: u32) -> Outcome {
        let take = Take {
            key: self.hash(&(bucket, Some(key))),
            crowd: self.hash(&(bucket, None::<&[u8]>)),
            rate: bucket.rate,
            cost,
        };
        let shard = &self.shards[take.key as usize % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        // The clock is read under the lock, so that it goes forward for the bucket.
        match shard.take(&take, BootTime::now()) {
            Ok(()) => Outcome::Granted,
            Err(wait) => {
                let wait_ms = wait.as_nanos().div_ceil(1_000_000).max(1);
                Outcome::Denied(wait_ms.try_into().unwrap_or(u32::MAX))
            }
        }
    }

    /// How many are not full, or were not when that was looked at last.
    pub fn kept(&self) -> usize {
        let kept = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.kept()
        };
        self.shards.iter().map(kept).sum()
    }

    fn hash(&self, of: &impl Hash) -> u128 {
        let [low, high] = self.hashers.each_ref().map(|hasher| hasher.hash_one(of));
        u128::from(high) << 64 | u128::from(low)
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use frontend_policy::decision::Rate;

    fn bucket(name: &str, burst: u32) -> Bucket {
        let rate = Rate::new(1, Duration::from_secs(3600), burst).unwrap();
        let name = name.to_owned();
        Bucket { name, rate }
    }

    #[test]
    fn all_threads_take_out_of_the_same_buckets() {
        const BURST: u32 = 1000;
        let buckets = Buckets::new();
        let bucket = bucket("requests", BURST);
        let begun = Instant::now();
        let takes = || (0..BURST).filter(|_| buckets.take(&bucket, b"key", 1) == Outcome::Granted);
        let granted: usize = thread::scope(|scope| {
            let takers: Vec<_> = (0..4).map(|_| scope.spawn(|| takes().count())).collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert!(
            begun.elapsed() < Duration::from_secs(3600),
            "none came back"
        );
        assert_eq!(granted, BURST as usize);
    }

    #[test]
    fn each_name_rate_and_key_has_a_bucket_of_its_own() {
        let buckets = Buckets::new();
        for bucket in [bucket("a", 1), bucket("b", 1), bucket("a", 2)] {
            for key in [&b""[..], b"x", b"y"] {
                assert_eq!(buckets.take(&bucket, key, 1), Outcome::Granted);
            }
        }
        assert_eq!(buckets.kept(), 9);
        let denied = buckets.take(&bucket("a", 1), b"x", 1);
        let Outcome::Denied(wait_ms) = denied else {
            panic!("{denied:?}")
        };
        assert!((3_590_000..=3_600_000).contains(&wait_ms), "{wait_ms}");
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let buckets = Buckets::new();
        let bucket = bucket("requests", 1_000_000);
        for key in 0..2 * (SHARDS * ROOM) as u64 {
            buckets.take(&bucket, &key.to_be_bytes(), 1);
        }
        assert_eq!(buckets.kept(), SHARDS * (ROOM + 1));
    }
}
