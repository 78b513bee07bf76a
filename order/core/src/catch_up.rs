//! Fetching the rows that a replica lacks.
//!
//! The journal is asked first: where little is lacking, as when a leader that was in sync takes
//! over, its first answer is all there is to fetch. Where more is lacking the peers give what
//! they have, and the journal the rest. A run ends when the journal has no more.

use std::time::Duration;

use domain::time::BootTime;
use domain::{ReplicaId, Row};

use super::message::{CallFailure, CallId, Calls, Source};

/// Rows asked for at a time.
pub const CHUNK_ROWS: usize = 4096;

/// Wait before all sources are asked again, after the first failure and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(800);

/// At most one run at a time, with at most one call under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CatchUp {
    peers: Vec<ReplicaId>,
    run: Option<Run>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Run {
    source: Source,
    /// Peers to ask before the journal is asked again.
    peers_left: Vec<ReplicaId>,
    call: Option<CallId>,
    try_at: BootTime,
    /// Since the journal answered last.
    failures: u32,
}

/// What a fetch came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FetchResult {
    pub(super) source: Source,
    pub(super) rows: Vec<Row>,
    /// The journal has no more: the run is over once these rows are taken.
    pub(super) last: bool,
}

impl CatchUp {
    pub(super) fn new(peers: Vec<ReplicaId>) -> Self {
        Self { peers, run: None }
    }

    pub(super) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// The call under way.
    pub(super) fn awaited(&self) -> Option<CallId> {
        self.run.as_ref().and_then(|run| run.call)
    }

    /// Whether the call is the one under way, to the journal.
    pub(super) fn asks_journal(&self, call: CallId) -> bool {
        let run = self.run.as_ref();
        run.is_some_and(|run| run.call == Some(call) && run.source == Source::Journal)
    }

    /// Starts a run, from the beginning where one is under way: what was asked before may be
    /// answered with less than is there now.
    pub(super) fn restart(&mut self, now: BootTime) {
        self.run = Some(Run {
            source: Source::Journal,
            peers_left: self.peers.clone(),
            call: None,
            try_at: now,
            failures: 0,
        });
    }

    pub(super) fn wake(&self) -> Option<BootTime> {
        self.run
            .as_ref()
            .filter(|run| run.call.is_none())
            .map(|run| run.try_at)
    }

    /// Whom to ask now, if anybody. The caller makes the call under the given id.
    pub(super) fn next(&mut self, now: BootTime, calls: &mut Calls) -> Option<(CallId, Source)> {
        let run = self
            .run
            .as_mut()
            .filter(|run| run.call.is_none() && run.try_at <= now)?;
        let call = calls.next();
        run.call = Some(call);
        Some((call, run.source))
    }

    /// The result of a call; `None` where it is not of this run, or there is nothing to take.
    pub(super) fn answered(
        &mut self,
        now: BootTime,
        call: CallId,
        result: Result<Vec<Row>, CallFailure>,
    ) -> Option<FetchResult> {
        let run = self.run.as_mut().filter(|run| run.call == Some(call))?;
        run.call = None;
        let source = run.source;
        match result {
            Ok(rows) => {
                let full = rows.len() >= CHUNK_ROWS;
                match source {
                    Source::Journal => {
                        run.failures = 0;
                        run.source = run.peers_left.pop().map_or(Source::Journal, Source::Peer);
                        Some(FetchResult {
                            source,
                            rows,
                            last: !full,
                        })
                    }
                    Source::Peer(_) => {
                        if !full {
                            run.leave_peer();
                        }
                        Some(FetchResult {
                            source,
                            rows,
                            last: false,
                        })
                    }
                }
            }
            Err(_) => {
                run.failed(now, &self.peers);
                None
            }
        }
    }

    /// The rows that were got last cannot be used.
    pub(super) fn unusable(&mut self, now: BootTime, source: Source) {
        if let Some(run) = &mut self.run {
            run.source = source;
            run.failed(now, &self.peers);
        }
    }

    /// The rows that were got last could not be stored.
    pub(super) fn pause(&mut self, now: BootTime) {
        if let Some(run) = &mut self.run {
            run.try_at = now + BACKOFF_MAX;
        }
    }

    /// The run is over.
    pub(super) fn finish(&mut self) {
        self.run = None;
    }
}

impl Run {
    fn leave_peer(&mut self) {
        self.source = self.peers_left.pop().map_or(Source::Journal, Source::Peer);
    }

    /// Goes on to the next source; after the journal as the last one, waits.
    fn failed(&mut self, now: BootTime, peers: &[ReplicaId]) {
        if self.source == Source::Journal {
            self.failures = self.failures.saturating_add(1);
        }
        if self.source == Source::Journal && self.peers_left.is_empty() {
            self.peers_left = peers.to_vec();
            self.try_at = now + backoff(self.failures, BACKOFF_MIN, BACKOFF_MAX);
        } else {
            self.leave_peer();
        }
    }
}

/// `min` after the first failure, twice as long after each further one, at most `max`.
pub(super) fn backoff(failures: u32, min: Duration, max: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    min.saturating_mul(1 << doublings).min(max)
}
