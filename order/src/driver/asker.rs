//! Asks the catalog who leads and how long the journal is: runs the core's [`order_core::Asker`].

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use domain::time::BootTime;
use domain::{Epoch, Identity, ReplicaId};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tonic::Status as GrpcStatus;

use super::Input;
use crate::error::{RequestError, stopping};
use crate::failed_call::{CallError, Complaint};
use crate::peers::Catalog;
use order_core::asker::{self, Action, is_known};
use order_core::message::{Heard, Ticket};
use order_core::timing::HEAD_TIMEOUT;
use order_core::{Asker as Core, Status};

/// Claims of epochs that wait to be taken in; whoever has another one waits.
const CLAIMS_MAX: usize = 256;

/// A way to whoever asks.
#[derive(Debug)]
pub(super) struct Asker {
    status: watch::Receiver<Status>,
    claims: mpsc::Sender<Claim>,
    hurry: Notify,
}

/// Somebody says that an epoch has begun.
#[derive(Debug)]
struct Claim {
    epoch: Epoch,
    reply: oneshot::Sender<Result<(), RequestError>>,
}

impl Asker {
    /// Also what is to be run.
    pub(super) fn new(
        identity: Identity,
        catalog: Catalog,
        inputs: mpsc::Sender<Input>,
        status: watch::Receiver<Status>,
    ) -> (Arc<Self>, Watch) {
        let (sender, claims) = mpsc::channel(CLAIMS_MAX);
        let asker = Arc::new(Self {
            status,
            claims: sender,
            hurry: Notify::new(),
        });
        let watch = Watch {
            asker: Arc::clone(&asker),
            core: Core::new(identity, BootTime::now()),
            catalog,
            inputs,
            claims,
            tickets: 0,
            claimants: HashMap::new(),
            complaint: Complaint::default(),
        };
        (asker, watch)
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.status.borrow().id
    }

    /// Has the catalog asked at once. However many have a suspicion, there is one question at a time.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Somebody says that an epoch has begun. Before the core hears it, it hears what the catalog
    /// says of that: whoever can reach this port could claim it.
    ///
    /// # Errors
    /// Where the catalog does not answer.
    pub(super) async fn confirm(&self, epoch: Epoch) -> Result<(), GrpcStatus> {
        if is_known(epoch, &self.status.borrow()) {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let sent = self.claims.send(Claim { epoch, reply }).await;
        sent.map_err(|_| stopping())?;
        Ok(answer.await.map_err(|_| stopping())??)
    }
}

type Question = Pin<Box<dyn Future<Output = Result<Heard, CallError>> + Send>>;

/// Whoever asks.
pub(super) struct Watch {
    asker: Arc<Asker>,
    core: Core,
    catalog: Catalog,
    inputs: mpsc::Sender<Input>,
    claims: mpsc::Receiver<Claim>,
    tickets: u64,
    claimants: HashMap<Ticket, oneshot::Sender<Result<(), RequestError>>>,
    complaint: Complaint,
}

impl Watch {
    /// Asks again and again, until the driver is gone.
    pub(super) async fn run(mut self) {
        let mut question = None;
        let mut input = None;
        loop {
            let status = *self.asker.status.borrow();
            for action in self.core.step(BootTime::now(), &status, input.take()) {
                if let Action::Ask = action {
                    question = Some(self.ask());
                } else if self.execute(action).await.is_err() {
                    return;
                }
            }
            input = self.next(&mut question).await;
        }
    }

    fn ask(&self) -> Question {
        let catalog = self.catalog.clone();
        Box::pin(async move { catalog.get_leadership(HEAD_TIMEOUT).await })
    }

    /// # Errors
    /// Where the driver has stopped.
    async fn execute(&mut self, action: Action) -> Result<(), mpsc::error::SendError<Input>> {
        match action {
            Action::Ask => unreachable!("it is asked apart"),
            Action::Keep(identity) => self.inputs.send(Input::Keep(identity)).await?,
            Action::Tell(event) => self.inputs.send(Input::Happened(event)).await?,
            Action::LetThrough(ticket) => self.answer(ticket, Ok(())),
            Action::Refuse(ticket) => self.answer(ticket, Err(RequestError::Unasked)),
        }
        Ok(())
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<(), RequestError>) {
        let claimant = self.claimants.remove(&ticket);
        // It may have left.
        let _ = claimant.expect("each is answered once").send(answer);
    }

    /// Waits for what happens next; `None` where it is time to ask.
    async fn next(&mut self, question: &mut Option<Question>) -> Option<asker::Input> {
        let wake = self.core.wake().map(|wake| wake.since(BootTime::now()));
        tokio::select! {
            answer = answer(question) => {
                self.complaint.note(&answer, "the catalog does not say who leads");
                Some(asker::Input::Answered(answer.map_err(|error| error.failure)))
            }
            Some(Claim { epoch, reply }) = self.claims.recv() => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.claimants.insert(ticket, reply);
                Some(asker::Input::Claim { ticket, epoch })
            }
            () = self.asker.hurry.notified() => Some(asker::Input::Hurry),
            () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => None,
        }
    }
}

/// The answer to the question under way, which is over then.
async fn answer(question: &mut Option<Question>) -> Result<Heard, CallError> {
    let Some(asked) = question else {
        return std::future::pending().await;
    };
    let answer = asked.await;
    *question = None;
    answer
}

#[cfg(test)]
mod tests;
