//! Before it serves, a catalog that starts hears what replicas have, and puts back what its database lost: the
//! shell of [`SelfHealing`], on whatever thread or clock.
//!
//! While there is [something to do](Healing::step), the owner of the store does it, and says so. In between it takes
//! what replicas [report](Healing::report) and the rows that they show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catalog_core::self_healing::{CannotPutBack, Found, LedgerReport};
use catalog_core::{Batch, CatalogState, HealingStep, SelfHealing};
use domain::time::BootTime;
use domain::{ChainHash, ReplicaId, Row, RowNumber};
use tokio::sync::oneshot;

use crate::error::RequestError;

/// Told from where on the journal lacks rows of the sender's ledger.
pub type MissingReply = oneshot::Sender<Result<Option<RowNumber>, RequestError>>;

/// What a catalog that starts is told.
#[derive(Debug)]
pub enum Told {
    Report(LedgerReport),
    PutBack { replica: ReplicaId, rows: Vec<Row> },
}

/// What is to be done before it serves.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Hear replicas, until then at most.
    Wait(Option<BootTime>),
    /// Put these rows back, which replicas hold beside their ledgers, up to the first whose key is known: what came to
    /// nothing was tried again since. Where none is left, [give them up](Healing::give_up_proposed).
    PutBackProposed(Vec<Row>),
    /// Make this durable where it is not empty, and begin the next epoch. These were not heard.
    Serve(Batch, BTreeSet<ReplicaId>),
}

/// Why replicas are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// As at any start: not for long.
    Compares,
    /// The database is another incarnation, and may lack what was acknowledged.
    Suspects,
    /// It is known to.
    HasLost,
}

/// The healing of one start.
#[derive(Debug)]
pub struct Healing {
    core: SelfHealing,
    accepted: BTreeSet<ReplicaId>,
    /// The database was made from ledgers a moment ago.
    is_rebuilt: bool,
    /// How many rows were put back.
    restored: u64,
    /// What was logged last of whom it waits for.
    waits_for: Option<(BTreeSet<ReplicaId>, Why)>,
    /// What was logged last of what a replica shows.
    refused: BTreeMap<ReplicaId, String>,
    /// What was logged last of rows that are not put back.
    unusable: Option<String>,
    /// From whom rows are put back, as was logged.
    puts_back_from: Option<ReplicaId>,
}

impl Healing {
    /// Of a database that was found so. Whatever only `accepted` have is given up.
    pub fn new(found: Found, accepted: BTreeSet<ReplicaId>, gives_up_at: BootTime) -> Self {
        if !accepted.is_empty() {
            let replicas = names(&accepted);
            tracing::warn!(
                replicas,
                "not hearing these replicas: what only they have is lost. Start without --accept-loss-of from now on"
            );
        }
        Self::of(SelfHealing::new(found, gives_up_at), accepted)
    }

    /// The same over a core.
    pub fn of(mut core: SelfHealing, accepted: BTreeSet<ReplicaId>) -> Self {
        for replica in &accepted {
            core.accept_loss_of(*replica);
        }
        Self {
            core,
            accepted,
            is_rebuilt: false,
            restored: 0,
            waits_for: None,
            refused: BTreeMap::new(),
            unusable: None,
            puts_back_from: None,
        }
    }

    /// The same of a database that was made from ledgers a moment ago, or was not.
    pub fn of_rebuilt(self, is_rebuilt: bool) -> Self {
        Self { is_rebuilt, ..self }
    }

    /// Replicas whose loss is accepted.
    pub fn accepted(&self) -> &BTreeSet<ReplicaId> {
        &self.accepted
    }

    /// Whether the database lacked anything.
    pub fn has_changed(&self) -> bool {
        self.core.term().is_some()
    }

    /// What is to be done at `now`.
    pub fn step(&mut self, now: BootTime) -> Step {
        match self.core.next(now) {
            HealingStep::Wait { pending, until } => {
                let why = match until {
                    Some(_) => Why::Compares,
                    None if self.core.has_lost() => Why::HasLost,
                    None => Why::Suspects,
                };
                self.log_waiting(pending, why);
                Step::Wait(until)
            }
            HealingStep::PutBack { from } => {
                self.log_putting_back(from);
                Step::Wait(None)
            }
            HealingStep::PutBackProposed(rows) => Step::PutBackProposed(rows),
            HealingStep::Serve { unheard } => {
                let batch = Batch {
                    term: self.core.term(),
                    ..Batch::default()
                };
                Step::Serve(batch, unheard)
            }
        }
    }

    /// Whose ledgers are waited for at `now`, and until when; without a time for as long as it takes.
    pub fn unheard(&self, now: BootTime) -> (BTreeSet<ReplicaId>, Option<BootTime>) {
        match self.core.next(now) {
            HealingStep::Wait { pending, until } => (pending, until),
            _ => Default::default(),
        }
    }

    /// See [`SelfHealing::give_up_proposed`].
    pub fn give_up_proposed(&mut self) {
        self.core.give_up_proposed();
    }

    /// See [`SelfHealing::completed`].
    pub fn completed(&self, rows: Vec<Row>) -> Vec<Row> {
        self.core.completed(rows)
    }

    /// For how long nothing is served before rows are put back, or served at all: see [`SelfHealing::lease_horizon`].
    pub fn lease_horizon(&self) -> Option<Duration> {
        self.core.lease_horizon()
    }

    /// A replica reports. `there` is the chain hash that the journal has before the number with which its ledger ends.
    /// Returns from where on the journal lacks rows of it, once they are wanted.
    pub fn report(
        &mut self,
        report: LedgerReport,
        there: Option<ChainHash>,
        now: BootTime,
    ) -> Option<RowNumber> {
        let replica = report.replica;
        if self.accepted.contains(&replica) && there.is_none() {
            self.refuse(replica, &"it has orders that are given up");
        }
        match self.core.heard(report, there) {
            Ok(()) => self.core.wanted_of(replica, now),
            Err(error) => {
                self.refuse(replica, &error);
                None
            }
        }
    }

    /// A replica shows rows behind the journal's end. Returns them where they are to be put back now.
    pub fn shown(&mut self, replica: ReplicaId, rows: Vec<Row>, now: BootTime) -> Option<Vec<Row>> {
        let wanted = self.core.wanted_of(replica, now)?;
        let first = rows.first().filter(|first| first.number == wanted)?;
        match self.core.shown(replica, first) {
            Ok(()) => self.core.puts_back(replica, now).then_some(rows),
            Err(forked) => {
                self.refuse(replica, &forked);
                None
            }
        }
    }

    /// What puts rows back that continue the journal.
    ///
    /// # Errors
    /// Where they do not continue it, or cannot have been committed.
    pub fn batch(&mut self, state: &CatalogState, rows: Vec<Row>) -> Result<Batch, RequestError> {
        loop {
            match self.core.batch(state, rows.clone()) {
                Ok(batch) => return Ok(batch),
                Err(CannotPutBack::Forked(forked)) if self.core.give_up_older(forked.replica) => {
                    self.refuse(forked.replica, &forked);
                }
                Err(error) => {
                    let said = error.to_string();
                    if self.unusable.as_ref() != Some(&said) {
                        tracing::error!(%error, "rows that replicas have are not put back, and nothing is served: look at their ledgers with `bazaar ledger`");
                        self.unusable = Some(said);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// A batch that puts rows back is durable.
    pub fn committed(&mut self, batch: &Batch) {
        self.restored += batch.rows.len() as u64;
        self.core.committed(batch);
    }

    /// See [`SelfHealing::wanted_of`].
    pub fn wanted_of(&self, replica: ReplicaId, now: BootTime) -> Option<RowNumber> {
        self.core.wanted_of(replica, now)
    }

    fn log_putting_back(&mut self, from: ReplicaId) {
        if self.puts_back_from.replace(from) != Some(from) {
            tracing::warn!(replica = %from, "putting back rows of this replica's ledger that the database lost");
        }
    }

    fn refuse(&mut self, replica: ReplicaId, error: &impl ToString) {
        let error = error.to_string();
        if self.refused.get(&replica) != Some(&error) {
            tracing::error!(%replica, %error, "a replica is not heard");
            self.refused.insert(replica, error);
        }
    }

    fn log_waiting(&mut self, pending: BTreeSet<ReplicaId>, why: Why) {
        let waits_for = Some((pending, why));
        if self.waits_for == waits_for {
            return;
        }
        let mut replicas = names(waits_for.iter().flat_map(|(pending, _)| pending));
        if replicas.is_empty() {
            replicas.push_str("any");
        }
        match why {
            Why::Compares => tracing::info!(
                replicas,
                "waiting for replicas to report their ledgers, to compare the journal with them"
            ),
            Why::Suspects => tracing::warn!(
                replicas,
                "the database came back as another one, by a fail-over or from a copy, and may lack what was acknowledged: \
                 waiting for these replicas to report. Start them; to go on without what only they have, start every \
                 catalog with --accept-loss-of, once for each of them"
            ),
            Why::HasLost => tracing::error!(
                replicas,
                "the database lost what was acknowledged: waiting for these replicas, which have it or may have more of \
                 it. Start them; to go on without what only they have, name each with --accept-loss-of"
            ),
        }
        self.waits_for = waits_for;
    }

    /// All that can be had is here.
    pub fn log_end(&self, unheard: &BTreeSet<ReplicaId>) {
        if self.restored > 0 {
            tracing::warn!(
                rows = self.restored,
                "put back rows that the database had lost"
            );
        }
        let replicas = names(unheard);
        if !unheard.is_empty() && self.is_rebuilt {
            tracing::info!(
                replicas,
                "serving before these replicas report: the journal is what the ledgers had that it was rebuilt from"
            );
        } else if !unheard.is_empty() {
            tracing::warn!(
                replicas,
                "the ledgers of these replicas were not checked before serving: stop this catalog if its database was \
                 restored from an older copy"
            );
        }
    }
}

fn names<'a>(replicas: impl IntoIterator<Item = &'a ReplicaId>) -> String {
    let names: Vec<String> = replicas.into_iter().map(ReplicaId::to_string).collect();
    names.join(", ")
}
