//! Callers that wait for the core's answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use domain::LedgerEnd;
use tokio::sync::oneshot;

use super::Input;
use super::reply::Reply;
use crate::measured::Measured;
use crate::traced::TracedOrders;
use order_core::message::{Placed, Refused, Ticket, Unavailable};
use order_core::{Event, Status};

type Waiting<A, R> = HashMap<Ticket, oneshot::Sender<Result<A, R>>>;

/// Gives each caller a ticket, and the answer to the holder of the ticket. An answer to a caller
/// that has gone away is dropped.
#[derive(Debug)]
pub(super) struct Callers {
    tickets: u64,
    /// Each since when.
    places: HashMap<Ticket, (Instant, Reply)>,
    announces: Waiting<Status, Refused>,
    appends: Waiting<LedgerEnd, Refused>,
    measured: Arc<Measured>,
    traced: TracedOrders,
}

impl Callers {
    pub(super) fn new(measured: Arc<Measured>) -> Self {
        Self {
            tickets: 0,
            places: HashMap::new(),
            announces: HashMap::new(),
            appends: HashMap::new(),
            measured,
            traced: TracedOrders::default(),
        }
    }

    /// The orders among those they wait for that are traced.
    pub(super) fn traced(&self) -> &TracedOrders {
        &self.traced
    }

    /// To note more of them.
    pub(super) fn traced_mut(&mut self) -> &mut TracedOrders {
        &mut self.traced
    }

    /// The event that an input is for the core, where it is one.
    pub(super) fn admit(&mut self, input: Input) -> Option<Event> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        Some(match input {
            Input::Place { order, reply } => {
                if let Some(traced) = reply.traced_order() {
                    self.traced.add(traced);
                }
                self.places.insert(ticket, (Instant::now(), reply));
                Event::Place { ticket, order }
            }
            Input::Announce {
                epoch,
                leader,
                reply,
            } => {
                self.announces.insert(ticket, reply);
                Event::Announce {
                    ticket,
                    epoch,
                    leader,
                }
            }
            Input::Append {
                epoch,
                leader,
                rows,
                committed,
                reply,
            } => {
                self.appends.insert(ticket, reply);
                Event::Append {
                    ticket,
                    epoch,
                    leader,
                    rows,
                    committed,
                }
            }
            Input::Find { .. } | Input::Keep(_) => return None,
            Input::Saved { event, .. } | Input::Happened(event) => event,
        })
    }

    pub(super) fn answer_place(&mut self, ticket: Ticket, answer: Result<Placed, Unavailable>) {
        let caller = self.places.remove(&ticket);
        let (since, caller) = caller.expect("each ticket is answered once");
        if let Some(traced) = caller.traced_order() {
            self.traced.remove(traced);
        }
        match &answer {
            Ok(_) => self.measured.answered(since.elapsed()),
            Err(_) => self.measured.unavailable(),
        }
        caller.send(answer);
    }

    pub(super) fn answer_announce(&mut self, ticket: Ticket, answer: Result<Status, Refused>) {
        reply(&mut self.announces, ticket, answer);
    }

    pub(super) fn answer_append(&mut self, ticket: Ticket, answer: Result<LedgerEnd, Refused>) {
        reply(&mut self.appends, ticket, answer);
    }
}

fn reply<A, R>(waiting: &mut Waiting<A, R>, ticket: Ticket, answer: Result<A, R>) {
    let caller = waiting
        .remove(&ticket)
        .expect("each ticket is answered once");
    let _ = caller.send(answer);
}
