//! What a catalog says of itself to whoever monitors it.

use std::sync::Arc;

use domain::ReplicaId;
use domain::time::BootTime;
use monitor::{Figure, Monitor, Observation, Readiness};
use tokio::sync::watch;

use crate::shared::Shared;

/// The role of the one that serves.
pub const ACTIVE: &str = "active";

/// Whether it is this one that serves, for whoever asks whether any does.
fn is_active(value: bool) -> Figure {
    Figure {
        name: "bazaar_catalog_active",
        help: "1 where this catalog is the active one, and serves",
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
    let figure = |name, help, value| Figure { name, help, value };
    vec![
        figure(
            "bazaar_catalog_journal_rows",
            "Rows of the journal: orders, and changes of stocks",
            leadership.end.rows.0,
        ),
        figure(
            "bazaar_catalog_epoch",
            "The epoch, which rises with each election and each start of a catalog",
            term.epoch.0,
        ),
        figure(
            "bazaar_catalog_leader",
            "The replica that leads, by its number; 0 before the first election",
            term.leader.map_or(0, ReplicaId::get).into(),
        ),
        figure(
            "bazaar_catalog_in_sync_replicas",
            "Replicas that have every order that is acknowledged",
            term.in_sync.len() as u64,
        ),
        figure(
            "bazaar_catalog_sessions",
            "Gateways whose session's stream is open",
            shared.sessions() as u64,
        ),
    ]
}
