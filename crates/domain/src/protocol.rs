//! By which version of their protocol services talk to each other.
//!
//! Every release speaks a range of versions, and says so in every call; a release that says nothing is 0.1.0. A bazaar is
//! at one version, which its catalog keeps: whoever does not speak it is refused, and whatever a version brought is sent
//! and written only once the bazaar is at it. So releases whose ranges have the bazaar's version in common work
//! together, and while it is not raised the older one can come back.
//!
//! | version | release | brought |
//! |---|---|---|
//! | 1 | 0.1.0 | all of `catalog.v1` and `order.v1` as of then |
//! | 2 | 0.2.0 | every call says the caller's release, and every answer the callee's; `order.v1.Orders/List`; policies of world 1.2 |

use std::fmt;
use std::str::FromStr;

use crate::invalid::Invalid;

/// A version of the protocol: from 1, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(u32);

impl Protocol {
    /// That of release 0.1.0, which does not say it.
    pub const FIRST: Self = Self(1);

    /// The newest that this release speaks. A journal that it begins is at it.
    pub const NEWEST: Self = Self(2);

    /// From which on every replica gives pages of orders.
    pub const ORDER_PAGES: Self = Self(2);

    /// From which on every gateway can start policies of world 1.2.
    pub const WORLD_1_2: Self = Self(2);

    /// From its number, where it has one: 0 says nothing.
    pub fn new(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// Its number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a release speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocols {
    oldest: Protocol,
    newest: Protocol,
}

impl Protocols {
    /// Those of this release.
    pub const OWN: Self = Self {
        oldest: Protocol::FIRST,
        newest: Protocol::NEWEST,
    };

    /// Those of a release that does not say which.
    pub const UNSAID: Self = Self {
        oldest: Protocol::FIRST,
        newest: Protocol::FIRST,
    };

    /// The oldest of them.
    pub fn oldest(self) -> Protocol {
        self.oldest
    }

    /// The newest of them.
    pub fn newest(self) -> Protocol {
        self.newest
    }

    /// Whether it is one of them.
    pub fn contains(self, protocol: Protocol) -> bool {
        (self.oldest..=self.newest).contains(&protocol)
    }

    /// Whether some are of both.
    pub fn overlaps(self, other: Self) -> bool {
        self.oldest <= other.newest && other.oldest <= self.newest
    }
}

/// As releases say it: `1-2`.
impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.oldest, self.newest)
    }
}

/// Reads what [`Display`](fmt::Display) writes.
impl FromStr for Protocols {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number = |text: &str| {
            let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_decimal.then(|| text.parse().ok()).flatten();
            number.and_then(Protocol::new)
        };
        let ends = text.split_once('-');
        let ends = ends.and_then(|(oldest, newest)| Some((number(oldest)?, number(newest)?)));
        match ends {
            Some((oldest, newest)) if oldest <= newest => Ok(Self { oldest, newest }),
            _ => {
                let problem = format!("{text:?} is not a range of versions as in 1-2");
                Err(Invalid::new("protocol", problem))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Protocols {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_read_as_it_is_written_and_nothing_else_is() {
        for text in ["1-1", "1-2", "7-4294967295"] {
            assert_eq!(range(text).to_string(), text);
        }
        for text in [
            "",
            "-",
            "1",
            "2-1",
            "0-1",
            "1-",
            "-1",
            "+1-2",
            "1-2-3",
            "1-4294967296",
            "1 - 2",
        ] {
            assert!(text.parse::<Protocols>().is_err(), "{text}");
        }
    }

    #[test]
    fn releases_work_together_that_have_a_version_in_common() {
        assert!(range("1-2").overlaps(range("2-3")) && range("2-3").overlaps(range("1-2")));
        assert!(!range("1-2").overlaps(range("3-4")) && !range("3-4").overlaps(range("1-2")));
        assert!(range("2-3").contains(Protocol(3)) && !range("2-3").contains(Protocol::FIRST));
    }

    #[test]
    fn this_release_works_with_the_one_before_and_with_a_journal_that_it_begins() {
        assert!(Protocols::OWN.contains(Protocol::NEWEST));
        let before = Protocol(Protocol::NEWEST.get() - 1);
        assert!(Protocols::OWN.contains(before));
    }
}
