//! Spans that wait to be exported. What there is no room for is dropped, and counted: no request waits for a collector.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::span::Record;

/// Spans that wait, of some 2 KiB each at most.
pub const QUEUE_SPANS_MAX: usize = 8_192;

/// Spans of one export.
pub const EXPORT_SPANS_MAX: usize = 512;

/// What became of spans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector took them.
    pub exported: u64,
    /// There was no room for them, or no time.
    pub dropped: u64,
    /// The collector does not want them.
    pub refused: u64,
}

/// The spans of a service that have ended.
#[derive(Debug)]
pub struct Queue {
    spans: Mutex<VecDeque<Record>>,
    /// There is a first one, or enough for an export.
    filled: Notify,
    /// Whether the service stops.
    closing: watch::Sender<bool>,
    /// Whether all is exported by then, or given up.
    closed: watch::Sender<bool>,
    exported: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            spans: Mutex::default(),
            filled: Notify::new(),
            closing: watch::Sender::new(false),
            closed: watch::Sender::new(false),
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

impl Queue {
    /// Puts a span there, where there is room.
    pub fn push(&self, span: Record) {
        let waiting = {
            let mut spans = self.spans();
            if spans.len() >= QUEUE_SPANS_MAX {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            spans.push_back(span);
            spans.len()
        };
        if waiting == 1 || waiting == EXPORT_SPANS_MAX {
            self.filled.notify_one();
        }
    }

    /// What waits, for one export.
    pub fn take(&self) -> Vec<Record> {
        let mut spans = self.spans();
        let count = spans.len().min(EXPORT_SPANS_MAX);
        spans.drain(..count).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.spans().is_empty()
    }

    /// Whether there is enough for an export.
    pub(crate) fn is_enough(&self) -> bool {
        self.spans().len() >= EXPORT_SPANS_MAX
    }

    /// Waits until there is a first span, or enough.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Waits until the service stops.
    pub(crate) async fn closing(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await; // its sender is here
    }

    /// Whether it does.
    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Nothing more is exported.
    pub(crate) fn note_closed(&self) {
        self.closed.send_replace(true);
    }

    /// The service stops. Waits until all is exported, or given up.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await; // its sender is here
    }

    pub(crate) fn note_exported(&self, count: usize) {
        self.exported.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn note_dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn note_refused(&self, count: usize) {
        self.refused.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// What became of them so far.
    pub fn counts(&self) -> Counts {
        Counts {
            exported: self.exported.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn spans(&self) -> MutexGuard<'_, VecDeque<Record>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
