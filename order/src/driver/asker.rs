//! Asks the catalog who leads and how long the journal is.

use std::sync::atomic::{AtomicU64, Ordering};

use domain::{Epoch, Identity, ReplicaId};
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tonic::Status as GrpcStatus;

use super::Input;
use crate::error::stopping;
use crate::peers::Catalog;
use order_core::timing::{HEAD_INTERVAL, HEAD_RETRY, HEAD_TIMEOUT};
use order_core::{Event, Status};

/// Asks one question at a time, so that the core is told in the order in which was asked: an epoch or
/// a journal's end below the last one heard is then evidence of what was lost, not of a delay.
#[derive(Debug)]
pub(super) struct Asker {
    catalog: Catalog,
    identity: Identity,
    /// The longest lease that the store was given, in milliseconds.
    lease_ms: AtomicU64,
    inputs: mpsc::Sender<Input>,
    status: watch::Receiver<Status>,
    /// How many questions have begun.
    begun: AtomicU64,
    turn: Mutex<Asked>,
    hurry: Notify,
}

/// The last question that is over.
#[derive(Debug, Default)]
struct Asked {
    number: u64,
    answered: bool,
}

impl Asker {
    pub(super) fn new(
        identity: Identity,
        catalog: Catalog,
        inputs: mpsc::Sender<Input>,
        status: watch::Receiver<Status>,
    ) -> Self {
        Self {
            catalog,
            lease_ms: AtomicU64::new(lease_ms(&identity)),
            identity,
            inputs,
            status,
            begun: AtomicU64::new(0),
            turn: Mutex::default(),
            hurry: Notify::new(),
        }
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.status.borrow().id
    }

    /// Asks again and again, until the core is gone.
    pub(super) async fn watch(&self) {
        loop {
            let asked = self.ask(&mut *self.turn.lock().await).await;
            let pause = match asked {
                Ok(true) => HEAD_INTERVAL,
                Ok(false) => HEAD_RETRY,
                Err(_) => return,
            };
            // However many have a suspicion, there is one question at a time.
            let _ = tokio::time::timeout(pause, self.hurry.notified()).await;
        }
    }

    /// Has [`watch`](Self::watch) ask at once.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Somebody says that an epoch has begun. Before the core hears it, it hears what the catalog
    /// says of that: whoever can reach this port could claim it.
    ///
    /// # Errors
    /// Where the catalog does not answer.
    pub(super) async fn confirm(&self, epoch: Epoch) -> Result<(), GrpcStatus> {
        let is_known = || self.status.borrow().term.epoch >= epoch;
        if is_known() {
            return Ok(());
        }
        let begun = self.begun.load(Ordering::Relaxed);
        let mut last = self.turn.lock().await;
        // One answer does for all who came before its question.
        let answered = match last.number > begun {
            true => last.answered,
            false => is_known() || self.ask(&mut last).await?,
        };
        if answered {
            return Ok(());
        }
        Err(GrpcStatus::unavailable(
            "the catalog cannot be asked who leads",
        ))
    }

    /// Asks, and tells the core. Whether there was an answer.
    async fn ask(&self, last: &mut Asked) -> Result<bool, GrpcStatus> {
        last.number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        last.answered = false;
        let Status { id, end, tail, .. } = *self.status.borrow();
        let held = end;
        let looked = self.catalog.look(HEAD_TIMEOUT, Some((id, tail))).await;
        let head = match looked {
            Ok(looked) => {
                self.keep(looked.identity).await?;
                Some(looked.head)
            }
            Err(status) => {
                tracing::debug!(%status, "the catalog does not say who leads");
                None
            }
        };
        let answered = head.is_some();
        last.answered = answered;
        self.tell(Input::Happened(Event::JournalHead { head, held }))
            .await?;
        Ok(answered)
    }

    /// Has the longest lease that was heard of made durable: whoever takes the catalog's place
    /// after its loss is to wait for so long.
    async fn keep(&self, heard: Identity) -> Result<(), GrpcStatus> {
        let lease_ms = lease_ms(&heard);
        if self.lease_ms.fetch_max(lease_ms, Ordering::Relaxed) >= lease_ms {
            return Ok(());
        }
        self.tell(Input::Keep(Identity {
            lease_horizon: heard.lease_horizon,
            ..self.identity
        }))
        .await
    }

    async fn tell(&self, input: Input) -> Result<(), GrpcStatus> {
        let told = self.inputs.send(input).await;
        told.map_err(|_| stopping())
    }
}

fn lease_ms(identity: &Identity) -> u64 {
    u64::try_from(identity.lease_horizon.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
