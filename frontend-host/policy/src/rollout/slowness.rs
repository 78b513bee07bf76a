//! By how much a version was lately found to be slower than the one behind it, and over whose requests.
//!
//! To look costs as much as the decisions, so what is found holds for a second. Where the version is slower that
//! is for the client and the path, and where it is not for that input of the client alone, so that no request
//! hides another. What was found of one client's requests is charged to no other: of others a path alone is known.

use std::collections::HashMap;
use std::time::Duration;

use domain::time::BootTime;

/// The least time by which a decision is slower, in a version that is slower.
pub(crate) const SLOWER_BY_MIN: Duration = Duration::from_millis(1);

/// How long what was found holds.
const FOUND_FOR: Duration = Duration::from_secs(1);

/// What is known at a time.
const KNOWN_MAX: usize = 4096;

/// A request, by what tells it from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) path: u64,
    pub(super) client: u64,
    pub(super) input: u64,
}

/// What is known before one looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// By how much it is slower for this client: for the path, or not at all for this input.
    OfClient(Duration),
    /// By how much it is for somebody else on this path.
    OfOthers(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Over {
    Path(u64),
    Client { client: u64, path: u64 },
    Input { client: u64, input: u64 },
}

/// What was found lately.
#[derive(Debug, Default)]
pub(super) struct Slowness(HashMap<Over, (BootTime, Duration)>);

impl Slowness {
    /// What is known of a request.
    pub(super) fn known(&self, asked: Asked, now: BootTime) -> Option<Known> {
        let Asked {
            path,
            client,
            input,
        } = asked;
        let found = |over| {
            let (at, slower_by) = self.0.get(&over)?;
            (now.since(*at) <= FOUND_FOR).then_some(*slower_by)
        };
        let of_client = found(Over::Client { client, path });
        let of_client = of_client.or_else(|| found(Over::Input { client, input }));
        let of_others = || found(Over::Path(path)).map(Known::OfOthers);
        of_client.map(Known::OfClient).or_else(of_others)
    }

    /// By how much the version was found to be slower.
    pub(super) fn note(&mut self, asked: Asked, slower_by: Duration, now: BootTime) {
        let Asked {
            path,
            client,
            input,
        } = asked;
        if self.0.len() >= KNOWN_MAX {
            self.0.retain(|_, (at, _)| now.since(*at) <= FOUND_FOR);
            if self.0.len() >= KNOWN_MAX {
                self.0.clear();
            }
        }
        if slower_by < SLOWER_BY_MIN {
            let over = Over::Input { client, input };
            self.0.insert(over, (now, Duration::ZERO));
        } else {
            for over in [Over::Client { client, path }, Over::Path(path)] {
                self.0.insert(over, (now, slower_by));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn asked(path: u64, client: u64, input: u64) -> Asked {
        Asked {
            path,
            client,
            input,
        }
    }

    #[test]
    fn what_is_found_of_one_client_is_known_of_no_other() {
        let (mut slowness, now) = (Slowness::default(), BootTime::now());
        slowness.note(asked(7, 1, 100), 20 * MS, now);
        let known = |asked, now| slowness.known(asked, now);
        // Whatever it asks for on that path.
        assert_eq!(known(asked(7, 1, 101), now), Some(Known::OfClient(20 * MS)));
        assert_eq!(known(asked(7, 2, 100), now), Some(Known::OfOthers(20 * MS)));
        assert_eq!(known(asked(8, 1, 100), now), None);
        assert_eq!(known(asked(7, 1, 100), now + FOUND_FOR + MS), None);
    }

    #[test]
    fn a_request_that_is_not_slow_hides_no_other() {
        let (mut slowness, now) = (Slowness::default(), BootTime::now());
        slowness.note(asked(7, 1, 100), Duration::ZERO, now);
        let fine = Some(Known::OfClient(Duration::ZERO));
        assert_eq!(slowness.known(asked(7, 1, 100), now), fine);
        assert_eq!(slowness.known(asked(7, 1, 101), now), None);
        assert_eq!(slowness.known(asked(7, 2, 100), now), None);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let (mut slowness, now) = (Slowness::default(), BootTime::now());
        for number in 0..100_000 {
            slowness.note(asked(number, number, number), 20 * MS, now);
        }
        assert!(slowness.0.len() <= KNOWN_MAX + 1, "{}", slowness.0.len());
    }
}
