//! What a catalog that starts still waits for, in the words that it and whoever waits with it have for that.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::ids::ReplicaId;

/// What a catalog waits for before it serves. Both waits run at the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartWaits {
    /// How long leases that gateways may have from the run before still last.
    pub leases: Duration,
    /// Until ledgers are compared with the journal; `None` once they are.
    pub ledgers: Option<LedgerWait>,
}

/// What a catalog waits to hear of replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerWait {
    /// Whose ledgers it did not hear.
    pub unheard: BTreeSet<ReplicaId>,
    /// How long it still waits for them; `None` for as long as it takes, since its database lost what was acknowledged, or may have.
    pub at_most: Option<Duration>,
}

impl StartWaits {
    /// What is left of them so much later.
    pub fn after(mut self, passed: Duration) -> Self {
        self.leases = self.leases.saturating_sub(passed);
        if let Some(LedgerWait { at_most, .. }) = &mut self.ledgers {
            *at_most = at_most.map(|at_most| at_most.saturating_sub(passed));
        }
        self
    }

    /// Whether there is nothing to wait for.
    pub fn are_over(&self) -> bool {
        self.leases.is_zero() && self.ledgers.is_none()
    }
}

/// `waits 41 s more for leases of before its start, and at most 1 s more for the ledger of replica 2`
impl fmt::Display for StartWaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leases = (!self.leases.is_zero()).then(|| {
            format!(
                "{} s more for leases of before its start",
                seconds(self.leases)
            )
        });
        let ledgers = self.ledgers.as_ref().map(ToString::to_string);
        let parts: Vec<String> = leases.into_iter().chain(ledgers).collect();
        write!(f, "waits {}", parts.join(", and "))
    }
}

impl fmt::Display for LedgerWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unheard, at_most } = self;
        let names: Vec<String> = unheard.iter().map(ReplicaId::to_string).collect();
        let names = names.join(", ");
        let whose = match unheard.len() {
            0 => "any replica's ledger".to_owned(),
            1 => format!("the ledger of replica {names}"),
            _ => format!("the ledgers of replicas {names}"),
        };
        match at_most {
            Some(at_most) => write!(f, "at most {} s more for {whose}", seconds(*at_most)),
            None if unheard.is_empty() => f.write_str("for the replicas' ledgers"),
            None => write!(f, "for {whose}, since its database may lack what is there"),
        }
    }
}

/// A second that has begun counts.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_waits_are_named_with_whom_and_how_long() {
        let waits = |leases_ms, ledgers: Option<(&[u32], Option<u64>)>| StartWaits {
            leases: Duration::from_millis(leases_ms),
            ledgers: ledgers.map(|(unheard, at_most)| LedgerWait {
                unheard: unheard
                    .iter()
                    .filter_map(|id| ReplicaId::new(*id))
                    .collect(),
                at_most: at_most.map(Duration::from_millis),
            }),
        };
        for (waits, expected) in [
            (
                waits(40_001, None),
                "waits 41 s more for leases of before its start",
            ),
            (
                waits(66_000, Some((&[2], Some(999)))),
                "waits 66 s more for leases of before its start, and at most 1 s more for the ledger of replica 2",
            ),
            (
                waits(0, Some((&[2, 3], None))),
                "waits for the ledgers of replicas 2, 3, since its database may lack what is there",
            ),
            (
                waits(0, Some((&[], Some(1000)))),
                "waits at most 1 s more for any replica's ledger",
            ),
            (
                waits(0, Some((&[], None))),
                "waits for the replicas' ledgers",
            ),
        ] {
            assert_eq!(waits.to_string(), expected);
        }
        let later = waits(66_000, Some((&[2], Some(1000)))).after(Duration::from_secs(5));
        assert_eq!(later, waits(61_000, Some((&[2], Some(0)))));
        assert!(waits(0, None).are_over() && !later.are_over());
    }
}
