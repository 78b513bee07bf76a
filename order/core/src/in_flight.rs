//! A leader's orders, from the caller to the acknowledgement.
//!
//! An order waits in the queue, then in a batch at the catalog, then, as a row, for its place in
//! the ledger and for every in-sync follower.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

use domain::{Entry, Row, RowNumber};

use super::message::{CallId, Calls, Command, Outcome, Placed, Ticket, Unavailable};

/// Orders that one call to the catalog carries.
pub const BATCH_ORDERS_MAX: usize = 1024;

/// Calls to the catalog under way at a time.
pub const BATCHES_MAX: usize = 8;

/// Orders without an answer; more are refused.
pub const ORDERS_WAITING_MAX: usize = 16_384;

/// Committed rows that wait for rows before them; with more than these no batch is sent.
const OUT_OF_ORDER_ROWS_MAX: usize = 2 * BATCHES_MAX * BATCH_ORDERS_MAX;

/// The orders of one leadership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InFlightOrders {
    queue: VecDeque<(Ticket, Entry)>,
    batches: BTreeMap<CallId, Vec<Ticket>>,
    /// Committed rows that the ledger does not hold yet.
    out_of_order: BTreeMap<RowNumber, Row>,
    /// Who waits for the acknowledgement of a row, and what they are told then.
    committed: BTreeMap<RowNumber, (Placed, Vec<Ticket>)>,
    /// Orders without an answer, wherever they are.
    waiting: usize,
}

impl Hash for InFlightOrders {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            queue,
            batches,
            out_of_order,
            committed,
            waiting,
        } = self;
        for (ticket, order) in queue {
            (ticket, order.key()).hash(state);
        }
        for (number, row) in out_of_order {
            (number, row.chain).hash(state);
        }
        (queue.len(), out_of_order.len(), batches, committed, waiting).hash(state);
    }
}

impl InFlightOrders {
    pub(super) fn place(&mut self, ticket: Ticket, order: Entry, commands: &mut Vec<Command>) {
        if self.waiting >= ORDERS_WAITING_MAX {
            commands.push(answer(ticket, Err(Unavailable::Overloaded)));
            return;
        }
        self.waiting += 1;
        self.queue.push_back((ticket, order));
    }

    /// How many orders wait for their answers.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The batches under way, the oldest first.
    pub(super) fn awaited(&self) -> impl Iterator<Item = CallId> {
        self.batches.keys().copied()
    }

    /// Whether the batch is under way.
    pub(super) fn awaits(&self, call: CallId) -> bool {
        self.batches.contains_key(&call)
    }

    /// The orders of the next call to the catalog, if there are any and there is room for one.
    pub(super) fn next_batch(&mut self, calls: &mut Calls) -> Option<(CallId, Vec<Entry>)> {
        if self.queue.is_empty()
            || self.batches.len() >= BATCHES_MAX
            || self.out_of_order.len() > OUT_OF_ORDER_ROWS_MAX
        {
            return None;
        }
        let count = self.queue.len().min(BATCH_ORDERS_MAX);
        let (tickets, orders) = self.queue.drain(..count).unzip();
        let call = calls.next();
        self.batches.insert(call, tickets);
        Some((call, orders))
    }

    /// The catalog's answer to a batch. `held` is how many rows the ledger has.
    pub(super) fn traded(
        &mut self,
        call: CallId,
        outcomes: Vec<Outcome>,
        held: RowNumber,
        commands: &mut Vec<Command>,
    ) {
        let Some(tickets) = self.batches.remove(&call) else {
            return;
        };
        assert_eq!(tickets.len(), outcomes.len(), "one outcome for each order");
        for (ticket, outcome) in tickets.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Refused(refusal) => {
                    self.waiting -= 1;
                    commands.push(answer(ticket, Ok(Placed::Refused(refusal))));
                }
                Outcome::Row(row) => {
                    let placed = || (Placed::of(&row), Vec::new());
                    let (_, tickets) = self.committed.entry(row.number).or_insert_with(placed);
                    tickets.push(ticket);
                    if row.number >= held {
                        self.out_of_order.insert(row.number, row);
                    }
                }
            }
        }
    }

    /// A batch got no answer: its orders may or may not be committed.
    pub(super) fn batch_failed(&mut self, call: CallId, commands: &mut Vec<Command>) {
        let Some(tickets) = self.batches.remove(&call) else {
            return;
        };
        self.waiting -= tickets.len();
        commands.extend(
            tickets
                .into_iter()
                .map(|ticket| answer(ticket, Err(Unavailable::CatalogUnreachable))),
        );
    }

    /// Takes out the rows that continue a ledger of `held` rows.
    pub(super) fn in_order(&mut self, held: RowNumber) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut next = held;
        while let Some(entry) = self.out_of_order.first_entry() {
            if *entry.key() > next {
                break;
            }
            if *entry.key() == next {
                next = next.next();
                rows.push(entry.remove());
            } else {
                entry.remove();
            }
        }
        rows
    }

    /// One more than the highest number known to be committed here.
    pub(super) fn known(&self) -> RowNumber {
        self.out_of_order
            .last_key_value()
            .map_or(RowNumber(0), |(number, _)| number.next())
    }

    /// Answers the orders below `acknowledged`.
    pub(super) fn acknowledge(&mut self, acknowledged: RowNumber, commands: &mut Vec<Command>) {
        while let Some(entry) = self
            .committed
            .first_entry()
            .filter(|entry| *entry.key() < acknowledged)
        {
            let (placed, tickets) = entry.remove();
            self.waiting -= tickets.len();
            let answers = tickets.into_iter().map(|ticket| answer(ticket, Ok(placed)));
            commands.extend(answers);
        }
    }

    /// Leadership is over: nobody waits any longer.
    pub(super) fn abandon(self, commands: &mut Vec<Command>) {
        let queued = self.queue.into_iter().map(|(ticket, _)| ticket);
        let at_catalog = self.batches.into_values().flatten();
        let committed = self
            .committed
            .into_values()
            .flat_map(|(_, tickets)| tickets);
        let tickets = queued.chain(at_catalog).chain(committed);
        commands.extend(tickets.map(|ticket| answer(ticket, Err(Unavailable::SteppedDown))));
    }
}

fn answer(ticket: Ticket, answer: Result<Placed, Unavailable>) -> Command {
    Command::AnswerPlace { ticket, answer }
}
