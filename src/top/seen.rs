//! Gateways that were there and are gone. As `page/seen.js` has it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::moment::{Gone, Moment};

/// For how long a gateway that is gone is shown, in seconds; and how many are: whoever comes anew each second, under a new name,
/// takes the place of none that was there for long.
const GONE_SECONDS_MAX: f64 = 600.0;
const GONE_MAX: usize = 8;

/// Gateways that were there.
#[derive(Debug, Default)]
pub struct Seen {
    /// By their keys.
    all: BTreeMap<String, Known>,
    /// How many that are gone have no place.
    pub passed: u64,
}

#[derive(Debug)]
struct Known {
    release: String,
    /// When it was there first and last, in seconds since 1970.
    first: f64,
    last: f64,
}

impl Seen {
    /// Takes in who is there; returns who is gone, the one that was there longest first. None where it is not known who is there.
    pub fn look(&mut self, now: &Moment) -> Vec<Gone> {
        let at = now.at();
        for gateway in now.gateways.iter().filter(|it| it.report.is_some()) {
            let before = self.all.get(&gateway.key);
            let known = Known {
                release: gateway.release.clone(),
                first: before.map_or(at, |before| before.first),
                last: at,
            };
            self.all.insert(gateway.key.clone(), known);
        }
        if !now.gateways_known {
            return Vec::new();
        }
        let there = now.gateways.iter().map(|gateway| gateway.key.as_str());
        let there: BTreeSet<&str> = there.collect();
        let all = mem::take(&mut self.all).into_iter();
        let (present, mut gone): (Vec<_>, Vec<_>) =
            all.partition(|(key, _)| there.contains(key.as_str()));
        gone.retain(|(_, known)| at - known.last <= GONE_SECONDS_MAX);
        let stayed = |known: &Known| known.last - known.first;
        gone.sort_by(|(_, one), (_, other)| stayed(other).total_cmp(&stayed(one)));
        self.passed += gone.len().saturating_sub(GONE_MAX) as u64;
        gone.truncate(GONE_MAX);
        let shown = gone.iter().map(|(key, known)| Gone {
            key: key.clone(),
            release: known.release.clone(),
            seconds: at - known.last,
        });
        let shown = shown.collect();
        self.all = present.into_iter().chain(gone).collect();
        shown
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn moment(second: u64, keys: &[&str], are_known: bool) -> Moment {
        let gateways = keys.iter();
        let gateways =
            gateways.map(|key| json!({ "key": key, "release": "1", "report": { "figures": {} } }));
        let gateways: Vec<_> = gateways.collect();
        serde_json::from_value(json!({
            "at_ms": second * 1000, "catalog": {}, "gateways_known": are_known, "gateways": gateways,
        }))
        .unwrap()
    }

    #[test]
    fn who_comes_anew_each_second_takes_the_place_of_none_that_was_there_for_long() {
        let mut seen = Seen::default();
        for second in 0..100 {
            let passing = format!("host-{second}");
            seen.look(&moment(second, &["own", "honest", &passing], true));
        }
        let mut gone = Vec::new();
        for second in 100..200 {
            let passing = format!("host-{second}");
            gone = seen.look(&moment(second, &["own", &passing], true));
        }
        assert_eq!(gone.len(), 8);
        assert_eq!((&*gone[0].key, gone[0].seconds), ("honest", 100.0));
        assert_eq!(seen.passed, 199 - 7);
        assert_eq!(seen.all.len(), 10);
        let gone = seen.look(&moment(200, &["own"], false));
        assert!(gone.is_empty(), "{gone:?}");
        let gone = seen.look(&moment(900, &["own"], true));
        assert!(gone.is_empty(), "{gone:?}");
    }
}
