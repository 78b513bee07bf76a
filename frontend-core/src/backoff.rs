//! When what failed is tried again.

use std::time::Duration;

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

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(1.0 - fastrand::f64() / 2.0);
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
            let pause = backoff.pause();
            assert!(ms(full) / 2 <= pause && pause <= ms(full), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= ms(5));
    }
}
