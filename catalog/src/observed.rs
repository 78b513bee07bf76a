//! What a catalog says of itself to whoever monitors it.

use std::sync::Arc;

use domain::ReplicaId;
use domain::time::BootTime;
use metrics::Metric;
use monitor::{Figure, Monitor, Observation, Readiness};
use tokio::sync::watch;

use crate::shared::Shared;

/// The role of the one that serves.
pub const ACTIVE: &str = "active";

pub(crate) const ACTIVE_ONE: Metric = Metric::gauge(
    "bazaar_catalog_active",
    "0 or 1",
    &[],
    "1 where this catalog is the active one, and serves: in sum over the catalogs 1, and 0 during a take-over",
);
pub(crate) const JOURNAL_ROWS: Metric = Metric::gauge(
    "bazaar_catalog_journal_rows",
    "rows",
    &[],
    "Rows of the journal: orders, and changes of stocks",
);
pub(crate) const EPOCH: Metric = Metric::gauge(
    "bazaar_catalog_epoch",
    "epochs",
    &[],
    "The epoch, which rises with each election and each start of a catalog. Rising without a pause: gateways depose a leader that \
     is alive but slow",
);
pub(crate) const LEADER: Metric = Metric::gauge(
    "bazaar_catalog_leader",
    "number of a replica",
    &[],
    "The replica that leads, by its number; 0 before the first election",
);
pub(crate) const IN_SYNC_REPLICAS: Metric = Metric::gauge(
    "bazaar_catalog_in_sync_replicas",
    "replicas",
    &[],
    "Replicas that have every order that is acknowledged: with 1, its disk and the catalog's are all that keeps the next one",
);
pub(crate) const SESSIONS: Metric = Metric::gauge(
    "bazaar_catalog_sessions",
    "sessions",
    &[],
    "Gateways whose session's stream is open, of 256",
);

/// Whether it is this one that serves, for whoever asks whether any does.
fn is_active(value: bool) -> Figure {
    Figure {
        metric: &ACTIVE_ONE,
        value: value.into(),
    }
}

/// Where it knows another one that is active, it takes over when that one is gone. Else it starts, takes over itself,
/// or has lost the database from sight.
pub fn standby(monitor: &Monitor, elsewhere: watch::Receiver<Option<String>>) {
    monitor.set(move || Observation {
        readiness: match *elsewhere.borrow() {
            Some(_) => Readiness::Ready("standby"),
            None => Readiness::NotReady("knows no active catalog, and is not it yet"),
        },
        figures: vec![is_active(false)],
    });
}

/// It is the active one.
pub fn active(monitor: &Monitor, shared: Arc<Shared>) {
    monitor.export(Arc::clone(&shared.measured) as _);
    monitor.set(move || {
        let readiness = readiness(&shared, BootTime::now());
        let mut figures = figures(&shared);
        figures.push(is_active(matches!(readiness, Readiness::Ready(_))));
        Observation { readiness, figures }
    });
}

fn readiness(shared: &Shared, now: BootTime) -> Readiness {
    if !shared.is_healed() {
        Readiness::NotReady("waits for the replicas")
    } else if now < shared.serving_from() {
        Readiness::NotReady("waits for leases of before")
    } else if shared.check_answer(now).is_err() {
        Readiness::NotReady("waits for its database")
    } else {
        Readiness::Ready(ACTIVE)
    }
}

fn figures(shared: &Shared) -> Vec<Figure> {
    let leadership = shared.leadership();
    let term = &leadership.term;
    let figure = |metric, value| Figure { metric, value };
    vec![
        figure(&JOURNAL_ROWS, leadership.end.rows.0),
        figure(&EPOCH, term.epoch.0),
        figure(&LEADER, term.leader.map_or(0, ReplicaId::get).into()),
        figure(&IN_SYNC_REPLICAS, term.in_sync.len() as u64),
        figure(&SESSIONS, shared.sessions() as u64),
    ]
}
