//! Orders whose requests are traced, while they are under way.
//!
//! The core knows nothing of traces. What it asks for names orders and rows, and these their keys, by which it is found here
//! under which spans they are. As a rule nothing is here, and nothing is looked for.

use std::collections::HashMap;

use domain::{Entry, IdempotencyKey, Row};
use order_core::Save;
use traces::{Kind, Parent, Span, Traces};
use wire::order::v1::TracedRow;

/// Most orders or rows of one call that are traced: what is said of them is to be a small part of a message.
const TRACED_MAX: usize = 64;

/// An order's span at the leader, from its arrival to its answer.
#[derive(Debug)]
pub(crate) struct TracedOrder {
    key: IdempotencyKey,
    pub(crate) span: Span,
}

impl TracedOrder {
    /// Of an order that came with this `traceparent`.
    pub(crate) fn begin(traces: &Traces, traceparent: &str, key: &IdempotencyKey) -> Option<Self> {
        let parent = traces.join(traceparent)?;
        Some(Self {
            key: key.clone(),
            span: parent.begin_call(Kind::Server, "order.v1.Orders/PlaceMany"),
        })
    }
}

/// The orders under way that are traced: as many at most as are under way.
#[derive(Debug, Default)]
pub(crate) struct TracedOrders(HashMap<IdempotencyKey, UnderWay>);

#[derive(Debug)]
struct UnderWay {
    parent: Parent,
    /// Its row was given to the disk: it is a second time, from beside the ledger to the ledger, for which nobody waits.
    is_saved: bool,
}

impl TracedOrders {
    /// It is under way.
    pub(crate) fn add(&mut self, order: &TracedOrder) {
        let under_way = UnderWay {
            parent: order.span.parent(),
            is_saved: false,
        };
        self.0.insert(order.key.clone(), under_way);
    }

    /// It is answered. Where it is under way twice, the other one has no more spans.
    pub(crate) fn remove(&mut self, order: &TracedOrder) {
        self.0.remove(&order.key);
    }

    /// Begins what is done for all of these: a span for each that is traced.
    pub(crate) fn begin<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry>,
        begin: impl Fn(&Parent) -> Span,
    ) -> Spans {
        if self.0.is_empty() {
            return Spans::default();
        }
        let entries = entries.into_iter().enumerate();
        let traced = entries.filter_map(|(at, entry)| {
            let order = self.0.get(entry.key())?;
            Some((at, begin(&order.parent)))
        });
        Spans(traced.take(TRACED_MAX).collect())
    }

    /// The same of what is saved.
    pub(crate) fn begin_saving(&mut self, save: &Save) -> Spans {
        if self.0.is_empty() {
            return Spans::default();
        }
        let rows = save.proposed.iter().chain(&save.rows);
        let traced = rows.enumerate().filter_map(|(at, row)| {
            let order = self.0.get_mut(row.entry.key())?;
            if std::mem::replace(&mut order.is_saved, true) {
                return None;
            }
            let span = order.parent.begin(Kind::Client, "COMMIT");
            let span = span
                .with("db.system.name", "sqlite")
                .with("db.operation.name", "COMMIT")
                .with(
                    "db.operation.batch.size",
                    save.proposed.len() + save.rows.len(),
                );
            Some((at, span))
        });
        Spans(traced.collect())
    }
}

/// Spans of something that is done for several orders or rows, each with the place of its own among them.
#[derive(Debug, Default)]
pub(crate) struct Spans(Vec<(usize, Span)>);

impl Spans {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(usize, Span)> {
        self.0.iter()
    }

    /// It went wrong.
    pub(crate) fn fail(&mut self, why: &str) {
        self.0.iter_mut().for_each(|(_, span)| span.fail(why));
    }

    /// What is done together with it.
    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// What a follower is told with the rows that they are of.
    pub(crate) fn to_wire(&self, rows: &[Row]) -> Vec<TracedRow> {
        let traced = self.0.iter().map(|(at, span)| TracedRow {
            number: rows[*at].number.0,
            traceparent: span.traceparent(),
        });
        traced.collect()
    }
}

/// The spans of a follower that is told that.
pub(crate) fn appending(traces: &Traces, traced: &[TracedRow], replica: u32) -> Spans {
    let spans = traced.iter().take(TRACED_MAX).filter_map(|row| {
        let parent = traces.join(&row.traceparent)?;
        let span = parent.begin_call(Kind::Server, "order.v1.Replication/AppendMany");
        let span = span.with("bazaar.replica", replica);
        Some((0, span.with("bazaar.row", row.number)))
    });
    Spans(spans.collect())
}
