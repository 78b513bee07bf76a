//! What the gateway's cache held and let go of while clients traded, as its status says it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::LoadError;
use super::caching::Caching;
use crate::admin::{Admin, AdminError, Cache, Caches, Status};

/// How often the gateway is asked, at first.
const INTERVAL: Duration = Duration::from_millis(100);

/// Samples of a run. Past it every other one is left out, and the gateway is asked half as often.
const SAMPLES_MAX: usize = 64;

/// The cache at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the sweep began.
    pub at: Duration,
    pub caching: Caching,
    pub trade_probability: f64,
    pub stocks: Cache,
    pub orders: Cache,
}

/// The samples of a sweep, in the order of time.
#[derive(Debug)]
pub struct Watched {
    began: Instant,
    samples: Vec<Sample>,
    /// As counters were when the sweep began.
    first: Option<Caches>,
}

impl Watched {
    /// A sweep begins.
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            samples: Vec::new(),
            first: None,
        }
    }

    /// In the order of time; what is counted, since the sweep began.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// How many stocks and how many orders the gateway kept at most when the sweep began, where it says so.
    pub fn entries_max(&self) -> Option<(u64, u64)> {
        let first = self.first.as_ref()?;
        Some((first.stocks.entries_max?, first.orders.entries_max?))
    }

    /// Waits for a run, and asks the gateway meanwhile.
    ///
    /// # Errors
    /// The run's, or where the gateway does not say how it is doing.
    pub async fn during<T>(
        &mut self,
        admin: &mut Admin,
        (caching, trade_probability): (Caching, f64),
        run: impl Future<Output = Result<T, LoadError>>,
    ) -> Result<T, LoadError> {
        let of_run = self.samples.len();
        let mut interval = INTERVAL;
        let mut run = std::pin::pin!(run);
        loop {
            let measured = tokio::select! {
                measured = &mut run => Some(measured?),
                () = sleep(interval) => None,
            };
            let Caches { stocks, orders } = look(admin).await?;
            let first = self.first.get_or_insert(Caches {
                stocks: stocks.clone(),
                orders: orders.clone(),
            });
            let sample = Sample {
                at: self.began.elapsed(),
                caching,
                trade_probability,
                stocks: stocks.since(&first.stocks),
                orders: orders.since(&first.orders),
            };
            self.samples.push(sample);
            if let Some(measured) = measured {
                return Ok(measured);
            }
            if self.samples.len() - of_run > SAMPLES_MAX {
                thin(&mut self.samples, of_run);
                interval *= 2;
            }
        }
    }

    pub fn to_json(&self) -> Value {
        let samples = self.samples.iter().map(|sample| {
            json!({
                "seconds": sample.at.as_secs_f64(),
                "cache": sample.caching.to_string(),
                "trade_probability": sample.trade_probability,
                "stocks": figures(&sample.stocks),
                "orders": figures(&sample.orders),
            })
        });
        samples.collect()
    }
}

async fn look(admin: &mut Admin) -> Result<Caches, LoadError> {
    let status = admin.get("/status").await?;
    let status: Status = serde_json::from_slice(&status).map_err(AdminError::from)?;
    Ok(status.cache)
}

/// Leaves every other one out, from that one on, and keeps the last.
fn thin(samples: &mut Vec<Sample>, from: usize) {
    let mut place = samples.len() - from;
    let mut seen = 0;
    samples.retain(|_| {
        seen += 1;
        if seen <= from {
            return true;
        }
        place -= 1;
        place.is_multiple_of(2)
    });
}

fn figures(cache: &Cache) -> Value {
    json!({
        "entries": cache.entries,
        "hits": cache.hits,
        "misses": cache.misses,
        "stale": cache.stale,
        "evicted": cache.evicted,
        "invalidated": cache.invalidated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64) -> Sample {
        Sample {
            at: Duration::from_secs(seconds),
            caching: Caching::On,
            trade_probability: 0.0,
            stocks: Cache::default(),
            orders: Cache::default(),
        }
    }

    #[test]
    fn samples_of_a_long_run_are_thinned_and_those_of_others_kept() {
        for (count, from, left) in [
            (6, 0, [1, 3, 5].as_slice()),
            (5, 0, &[0, 2, 4]),
            (7, 2, &[0, 1, 2, 4, 6]),
            (1, 0, &[0]),
        ] {
            let mut samples: Vec<_> = (0..count).map(sample).collect();
            thin(&mut samples, from);
            let seconds: Vec<_> = samples.iter().map(|sample| sample.at.as_secs()).collect();
            assert_eq!(seconds, left);
        }
    }

    #[test]
    fn what_is_counted_is_so_since_the_sweep_began() {
        let cache = |entries, hits| Cache {
            entries,
            hits,
            ..Cache::default()
        };
        let since = cache(3, 17).since(&cache(5, 7));
        assert_eq!((since.entries, since.hits), (3, 10));
        // A gateway that was started anew counts from 0.
        assert_eq!(cache(3, 1).since(&cache(5, 7)).hits, 0);
    }
}
