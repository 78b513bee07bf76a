//! What the policy's way into service takes, and what became of it, in atomics that nobody waits for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Buckets, Export, Families, Metric, SECONDS};

/// What is done to the policy, see [`Change::what`](crate::rollout::change::Change).
const CHANGES: [&str; 13] = [
    "activate",
    "canary",
    "configure",
    "drop",
    "fallback",
    "pause",
    "promote",
    "resume",
    "rollback",
    "rollout",
    "shadow",
    "skip",
    "step",
];

/// What becomes of a component that is to serve.
const ADMISSIONS: [&str; 5] = ["admitted", "untrusted", "unfit", "busy", "not_checked"];

const COMPILE: Metric = Metric::histogram(
    "bazaar_policy_compile_seconds",
    "seconds",
    &[],
    "How long components took to compile whose machine code was not there from before, also where that failed",
);
const ADMITTED: Metric = Metric::counter(
    "bazaar_policy_admissions",
    "components",
    &[(
        "result",
        "`admitted`; `untrusted`: nobody who is trusted has signed it; `unfit`: it has problems, which whoever sent it was told; \
         `busy`: another one was being checked; `not_checked`: it is not to blame",
    )],
    "Components, and configurations, that were to serve, also at the start",
);
const CHANGED: Metric = Metric::counter(
    "bazaar_policy_changes",
    "changes",
    &[("change", "as `bazaar policy log` names it")],
    "Changes of which version decides for whom",
);
const TAKEN_OUT: Metric = Metric::counter(
    "bazaar_policy_taken_out",
    "versions",
    &[(
        "change",
        "`rollback`: the active one; `drop`: the candidate",
    )],
    "Versions that the gateway took out of service by itself, since they failed too often or their rollout did; they are among \
     the changes as well",
);

/// All that the policy runtime exports.
pub const METRICS: &[&Metric] = &[&COMPILE, &ADMITTED, &CHANGED, &TAKEN_OUT];

/// What was done so far.
#[derive(Debug, Default)]
pub struct Measured {
    compile: Buckets,
    admissions: [AtomicU64; ADMISSIONS.len()],
    changes: [AtomicU64; CHANGES.len()],
    rollbacks: AtomicU64,
    drops: AtomicU64,
}

impl Measured {
    pub(crate) fn compiled(&self, took: Duration) {
        self.compile.note(took);
    }

    /// Counts what became of a component, by its name.
    pub(crate) fn checked(&self, result: &'static str) {
        count(&ADMISSIONS, &self.admissions, result);
    }

    /// Counts a change, by its name.
    pub(crate) fn changed(&self, what: &str) {
        count(&CHANGES, &self.changes, what);
    }

    /// Counts a change that the gateway made by itself.
    pub(crate) fn took_out(&self, what: &str) {
        let counter = match what {
            "rollback" => &self.rollbacks,
            _ => &self.drops,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn count(names: &[&str], counters: &[AtomicU64], name: &str) {
    let place = names.iter().position(|known| *known == name);
    debug_assert!(place.is_some(), "{name} is not among {names:?}");
    if let Some(place) = place {
        counters[place].fetch_add(1, Ordering::Relaxed);
    }
}

impl Export for Measured {
    fn export(&self, families: &mut Families<'_>) -> fmt::Result {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        families.add_histogram(&COMPILE, &SECONDS, [([], self.compile.count())])?;
        let admissions = ADMISSIONS.iter().zip(&self.admissions);
        families.add(
            &ADMITTED,
            admissions.map(|(name, count)| ([*name], load(count))),
        )?;
        let changes = CHANGES.iter().zip(&self.changes);
        families.add(
            &CHANGED,
            changes.map(|(name, count)| ([*name], load(count))),
        )?;
        let taken_out = [
            (["rollback"], load(&self.rollbacks)),
            (["drop"], load(&self.drops)),
        ];
        families.add(&TAKEN_OUT, taken_out)
    }
}
