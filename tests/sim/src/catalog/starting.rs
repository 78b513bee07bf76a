//! A catalog's start: what it does before it serves.

use std::collections::BTreeSet;

use catalog::writer::healing::{Healing, Step};
use catalog_core::Batch;
use catalog_core::self_healing::LedgerReport;
use domain::time::BootTime;
use domain::{Epoch, ReplicaId, Row};

use super::{Catalog, ready};
use crate::messages::{Caller, Failure, Node, Response, Told};
use crate::timeline::Timeline;

/// What it does before it serves.
pub(super) struct Starting {
    healing: Healing,
    /// All is put back: it begins its first epoch.
    is_beginning: bool,
    /// By then these were not heard.
    unheard: BTreeSet<ReplicaId>,
    /// The latest epoch that anybody reported.
    reported: Epoch,
    /// Who waits until the rows that it showed are durable.
    restoring: Option<(Caller, ReplicaId)>,
}

impl Starting {
    pub(super) fn new(healing: Healing) -> Self {
        Self {
            healing,
            is_beginning: false,
            unheard: BTreeSet::new(),
            reported: Epoch(0),
            restoring: None,
        }
    }
}

impl Catalog {
    /// Does what is to be done before it serves, as far as it can now.
    pub(super) fn heal(&mut self, line: &mut Timeline) {
        let now = line.clock(Node::Catalog);
        let Some(starting) = self.starting.as_mut().filter(|_| self.committing.is_none()) else {
            return;
        };
        let group = if starting.is_beginning {
            ready(self.committer.begin(Vec::new()))
        } else {
            if let Some(horizon) = starting.healing.lease_horizon()
                && ready(self.committer.wait_for_leases(horizon, now)).is_err()
            {
                return; // it is woken again
            }
            match starting.healing.step(now) {
                Step::Wait(_) => return,
                Step::PutBackProposed(rows) => {
                    let Ok(rows) = ready(self.committer.unused(rows, 0)) else {
                        return;
                    };
                    match starting.healing.batch(self.committer.state(), rows) {
                        Ok(batch) if !batch.rows.is_empty() => self.committer.begin_alone(batch),
                        Ok(_) | Err(_) => {
                            starting.healing.give_up_proposed();
                            return self.heal(line);
                        }
                    }
                }
                Step::Serve(batch, unheard) => {
                    starting.unheard = unheard;
                    starting.is_beginning = batch.is_empty();
                    match starting.is_beginning {
                        true => ready(self.committer.begin(Vec::new())),
                        false => self.committer.begin_alone(batch),
                    }
                }
            }
        };
        if group.batch().is_empty() {
            return self.serve(); // nobody ever led
        }
        self.commit(line, group);
    }

    fn serve(&mut self) {
        if let Some(starting) = self.starting.take() {
            let given_up = starting.healing.accepted().clone();
            let has_changed = starting.healing.has_changed();
            self.shared
                .set_healed(starting.unheard, given_up, has_changed);
        }
    }

    /// What it does before it serves is durable, or is not.
    pub(super) fn healed(&mut self, line: &mut Timeline, batch: &Batch, durable: bool) {
        let now = line.clock(Node::Catalog);
        let Some(starting) = &mut self.starting else {
            return;
        };
        if starting.is_beginning {
            let epoch = self.shared.leadership().term.epoch;
            assert!(
                epoch > starting.reported || !durable,
                "a catalog goes on in epoch {epoch}, and a replica knew of epoch {}",
                starting.reported
            );
            return self.serve(); // where it is not, the first group begins it
        }
        if durable {
            starting.healing.committed(batch);
            self.has_put_back |= !batch.rows.is_empty();
            starting.is_beginning = batch.rows.is_empty();
        }
        if let Some((caller, replica)) = starting.restoring.take() {
            let missing = starting.healing.wanted_of(replica, now);
            let told = match durable {
                true => Ok(Response::Missing(missing)),
                false => Err(Failure::Unavailable),
            };
            line.reply(Node::Catalog, caller, told);
        }
        self.heal(line);
    }

    /// A replica says what it has.
    pub(super) fn reported(&mut self, report: LedgerReport, now: BootTime) -> Told {
        let there = self.chain_before(report.end.rows)?;
        let starting = self.starting.as_mut().ok_or(Failure::Fenced)?;
        self.heard.insert(report.replica);
        starting.reported = starting.reported.max(report.term.epoch);
        let missing = starting.healing.report(report, there, now);
        Ok(Response::Missing(missing))
    }

    /// A replica shows rows that the journal lacks.
    pub(super) fn put_back(
        &mut self,
        of: (Caller, ReplicaId),
        rows: Vec<Row>,
        now: BootTime,
    ) -> Result<Batch, Failure> {
        let starting = self.starting.as_mut().ok_or(Failure::Fenced)?;
        let Some(rows) = starting.healing.shown(of.1, rows, now) else {
            return Err(Failure::Unavailable); // it is asked again
        };
        let shown = rows.len();
        let rows = self
            .committer
            .unused(starting.healing.completed(rows), shown);
        let rows = ready(rows).map_err(|_| Failure::Unavailable)?;
        let state = self.committer.state();
        let batch = starting.healing.batch(state, rows);
        let batch = batch.map_err(|_| Failure::Fenced)?;
        starting.restoring = Some(of);
        Ok(batch)
    }
}
