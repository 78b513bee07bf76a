//! Live decisions taken down, for as long as somebody records.
//!
//! Decisions that come faster than they are read are left out: what waits for them is bounded.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use domain::JournalId;
use domain::time::BootTime;
use http::HeaderName;
use tokio::sync::mpsc;
use tokio_stream::Stream;

use super::format::{Line, header};
use super::headers::HeaderChoice;
use crate::evaluate::input::{DecisionInput, DecisionResult};
use crate::guest::version::Version;

/// Decisions that wait to be written, and their bytes; what comes while they are as many is left
/// out.
const QUEUE_MAX: usize = 4096;
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// Longest line that is recorded, in bytes. A larger decision is left out.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Takes decisions down while somebody listens.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    listening: AtomicBool,
    listener: Mutex<Option<Listener>>,
}

/// Who records, until when.
#[derive(Debug)]
struct Listener {
    lines: mpsc::Sender<String>,
    /// Bytes of the lines that wait.
    waiting: Arc<AtomicUsize>,
    headers: HeaderChoice,
    until: BootTime,
}

impl Listener {
    fn has_ended(&self) -> bool {
        self.lines.is_closed() || BootTime::now() >= self.until
    }

    /// A recording is a sample: what it has no room for, it leaves out.
    fn send(&self, line: String) {
        let bytes = line.len();
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if waiting > QUEUE_BYTES_MAX || self.lines.try_send(line).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The lines of a recording under way, until its time is over. Ends when it is dropped.
#[derive(Debug)]
pub struct Recording {
    lines: mpsc::Receiver<String>,
    waiting: Arc<AtomicUsize>,
}

impl Recording {
    /// Bytes of the lines that wait to be taken.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl Stream for Recording {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<String>> {
        let line = ready!(self.lines.poll_recv(context));
        if let Some(line) = &line {
            self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
        }
        Poll::Ready(line)
    }
}

/// Why no recording is made.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Somebody else is recording.
    #[error("a recording is being made already; one at a time")]
    Busy,
    /// A header is wanted that the active policy does not see.
    #[error("the active policy does not ask to see `{0}`, so no recording has it")]
    NotAskedFor(HeaderName),
}

impl Recorder {
    /// Starts a recording, which ends after `time` even where nobody takes its lines.
    pub(crate) fn start(
        &self,
        active: &Version,
        journal: Option<JournalId>,
        headers: HeaderChoice,
        time: Duration,
    ) -> Result<Recording, RecordError> {
        if let Some(name) = headers.not_asked_for(&active.manifest) {
            return Err(RecordError::NotAskedFor(name.clone()));
        }
        let mut current = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|listener| !listener.has_ended())
        {
            return Err(RecordError::Busy);
        }
        let (lines, received) = mpsc::channel(QUEUE_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let listener = Listener {
            lines,
            waiting: Arc::clone(&waiting),
            headers,
            until: BootTime::now() + time,
        };
        listener.send(header(active.to_string(), journal));
        *current = Some(listener);
        self.listening.store(true, Ordering::Relaxed);
        Ok(Recording {
            lines: received,
            waiting,
        })
    }

    /// Whether anybody listens. Cheap, for every decision asks.
    pub(crate) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    /// Takes down what a version decided.
    pub(crate) fn record(&self, version: &Version, input: &DecisionInput, result: &DecisionResult) {
        let Some(headers) = self.headers() else {
            return;
        };
        let line = Line::write(input, result, version, &headers);
        if line.len() > LINE_BYTES_MAX {
            return;
        }
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one may listen by now, who wants other headers.
        if let Some(listener) = listener.as_ref().filter(|it| it.headers == headers) {
            listener.send(line);
        }
    }

    /// The headers that are wanted. None where nobody listens any more.
    fn headers(&self) -> Option<HeaderChoice> {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(_ended) = listener.take_if(|listener| listener.has_ended()) {
            self.listening.store(false, Ordering::Relaxed);
        }
        listener.as_ref().map(|listener| listener.headers.clone())
    }
}
