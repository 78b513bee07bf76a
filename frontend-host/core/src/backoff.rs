//! When what failed is tried again.

use std::time::Duration;

/// Pause before a request's next attempt at a backend, after the first failure and at most.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(5);
/// See [`RETRY_PAUSE_MIN`].
pub const RETRY_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Longest pause before a catalog that does not say who leads is asked again. All requests that wait
/// for it go by this one question.
pub const CATALOG_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Pauses between attempts: each is twice the one before, less up to half of it, so that those
/// who failed together do not try again together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// From the first pause to the longest.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// Of a request's attempts.
    pub fn of_request() -> Self {
        Self::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX)
    }

    /// The next pause; `random` is from 0 to 1.
    pub fn pause(&mut self, random: f64) -> Duration {
        let pause = self.next.mul_f64(1.0 - random / 2.0);
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// It worked: begins anew.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_begin_anew() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(5), ms(30));
        for full in [5, 10, 20, 30, 30] {
            assert_eq!(backoff.clone().pause(1.0), ms(full) / 2);
            assert_eq!(backoff.pause(0.0), ms(full));
        }
        backoff.reset();
        assert_eq!(backoff.pause(0.0), ms(5));
    }
}
