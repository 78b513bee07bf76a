//! What a catalog says of itself to whoever monitors it.

use std::sync::Arc;

use domain::ReplicaId;
use domain::time::BootTime;
use monitor::{Figure, Monitor, Observation, Readiness};
use tokio::sync::watch;

use crate::measured::{
    ACTIVE as IS_ACTIVE, EPOCH, IN_SYNC_REPLICAS, JOURNAL_ROWS, LEADER, OPEN_SESSIONS,
    WITHHELD_STOCKS,
};
use crate::shared::Shared;

/// The role of the one that serves.
pub const ACTIVE: &str = "active";

/// Whether it is this one that serves, for whoever asks whether any does.
fn is_active(value: bool) -> Figure {
    Figure {
        metric: &IS_ACTIVE,
        value: value.into(),
    }
}

/// Where it knows another one that is active, it takes over when that one is gone. Else it starts, takes over itself,
/// or has lost the database from sight.
pub fn standby(monitor: &Monitor, elsewhere: watch::Receiver<Option<String>>) {
    monitor.set(move || Observation {
        readiness: match *elsewhere.borrow() {
            Some(_) => Readiness::Ready("standby"),
            None => Readiness::NotReady("knows no active catalog, and is not it yet".into()),
        },
        figures: vec![is_active(false)],
    });
}

/// It is the active one.
pub fn active(monitor: &Monitor, shared: Arc<Shared>) {
    monitor.export(Arc::clone(&shared.measured) as _);
    monitor.set(move || {
        let readiness = readiness(&shared, BootTime::now());
        let mut figures = figures(&shared, BootTime::now());
        figures.push(is_active(matches!(readiness, Readiness::Ready(_))));
        Observation { readiness, figures }
    });
}

fn readiness(shared: &Shared, now: BootTime) -> Readiness {
    let waits = shared.start_waits(now);
    if !waits.are_over() {
        Readiness::NotReady(waits.to_string().into())
    } else if shared.check_answer(now).is_err() {
        Readiness::NotReady("waits for its database".into())
    } else {
        Readiness::Ready(ACTIVE)
    }
}

fn figures(shared: &Shared, now: BootTime) -> Vec<Figure> {
    let leadership = shared.leadership();
    let term = &leadership.term;
    let figure = |metric, value| Figure { metric, value };
    vec![
        figure(&JOURNAL_ROWS, leadership.end.rows.0),
        figure(&EPOCH, term.epoch.0),
        figure(&LEADER, term.leader.map_or(0, ReplicaId::get).into()),
        figure(&IN_SYNC_REPLICAS, term.in_sync.len() as u64),
        figure(&OPEN_SESSIONS, shared.sessions() as u64),
        figure(&WITHHELD_STOCKS, shared.withheld(now) as u64),
    ]
}
