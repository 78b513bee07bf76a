//! Puts live decisions to a candidate as well, and notes where it decides differently.
//!
//! A thread of its own asks the candidate, so that one that hangs or traps costs no client
//! anything. It works through a bounded queue; what does not fit is dropped, and counted. Not even
//! a candidate that has the host panic ends the thread.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use daemon::tasks;

use super::comparison::Compared;
use super::differences::Differences;
use super::fields::Fields;
use super::headers::credentials;
use super::left_out::{LeftOut, Shown};
use crate::evaluate::input::{DecisionInput, DecisionResult};
use crate::evaluate::sent::path_and_query;
use crate::guest::failure::Failure;
use crate::guest::thread::{processor_time, yield_to_others};
use crate::guest::version::SharedVersion;

/// Decisions that wait for the candidate: some more than it makes between two rests. Of many more the memory is no longer
/// in any cache when it gets round to them.
const JOBS_MAX: usize = 128;

/// Of those, places that are left to elections.
const ELECTIONS_MAX: usize = 16;

/// Memory that one of them may take, and all together, in bytes, about. What is more is dropped.
const JOB_BYTES_MAX: usize = 256 << 10;
const BYTES_MAX: usize = 16 << 20;

/// How many times as long as it worked the thread then rests, so that it takes no more than a tenth of a
/// core from those who serve; and how long it works without a rest, about.
const REST_TIMES: u32 = 9;
const WORK_MIN: Duration = Duration::from_millis(1);

/// Hands decisions to the thread that asks candidates.
pub(crate) struct Shadow {
    jobs: SyncSender<(Job, usize)>,
    waiting: Arc<Waiting>,
    /// The version on trial; decisions for another are passed over.
    on_trial: Arc<AtomicU64>,
}

/// No version has this id.
const NONE: u64 = u64::MAX;

/// A decision to be made by a candidate as well.
pub(crate) struct Job {
    pub(crate) version: SharedVersion,
    /// The version that made it.
    pub(crate) active: SharedVersion,
    pub(crate) differences: Arc<Differences>,
    /// Where the candidate is rolled out, and it is a client's request.
    pub(crate) compared: Option<Compared>,
    pub(crate) input: DecisionInput,
    pub(crate) result: DecisionResult,
}

impl Shadow {
    /// Starts the thread, which ends when this is dropped.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let on_trial = Arc::new(AtomicU64::new(NONE));
        let waiting = Arc::new(Waiting::default());
        let (current, left) = (Arc::clone(&on_trial), Arc::clone(&waiting));
        tasks::thread("policy-shadow", move || work(&queue, &current, &left))?;
        Ok(Self {
            jobs,
            waiting,
            on_trial,
        })
    }

    /// From now on this version is on trial, or none.
    pub(crate) fn set_candidate(&self, version: Option<u64>) {
        self.on_trial
            .store(version.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// Whether another decision would be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.has_room(JOBS_MAX - ELECTIONS_MAX)
    }

    /// The same of one about an election: those are few, and a candidate is to be asked about each.
    pub(crate) fn has_room_for_election(&self) -> bool {
        self.waiting.has_room(JOBS_MAX)
    }

    pub(crate) fn submit(&self, job: Job) {
        let bytes = job.input.bytes(&job.result) + job.input.bytes_of_request();
        if bytes > JOB_BYTES_MAX {
            return job.differences.count_dropped();
        }
        // Before it can be taken out again.
        self.waiting.add(bytes);
        if let Err(TrySendError::Full((job, _)) | TrySendError::Disconnected((job, _))) =
            self.jobs.try_send((job, bytes))
        {
            self.waiting.remove(bytes);
            job.differences.count_dropped();
        }
    }
}

/// What waits: how many decisions, and how much memory they take.
#[derive(Debug, Default)]
struct Waiting {
    jobs: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    /// Whether there is room for another one where there is for so many. Threads that ask at the same time may each
    /// be told so.
    fn has_room(&self, jobs_max: usize) -> bool {
        self.jobs.load(Ordering::Relaxed) < jobs_max
            && self.bytes.load(Ordering::Relaxed) < BYTES_MAX
    }

    fn add(&self, bytes: usize) {
        self.jobs.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.jobs.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn work(queue: &Receiver<(Job, usize)>, on_trial: &AtomicU64, waiting: &Waiting) {
    // What it has no time for is dropped; what clients have to wait for is not.
    yield_to_others();
    let mut worked = Duration::ZERO;
    while let Ok((job, bytes)) = queue.recv() {
        waiting.remove(bytes);
        if job.version.id != on_trial.load(Ordering::Relaxed) {
            continue;
        }
        // Where others keep the processor busy, it rests no longer for having waited for it.
        let begun = processor_time();
        compare(&job);
        worked += processor_time().saturating_sub(begun);
        if worked >= WORK_MIN {
            thread::sleep(worked * REST_TIMES);
            worked = Duration::ZERO;
        }
    }
}

/// Has the candidate decide, and notes what came of it.
fn compare(job: &Job) {
    // The input is the job's alone, and the thread gets another instance.
    let evaluate = AssertUnwindSafe(|| job.input.evaluate(&job.version));
    let decided =
        catch_unwind(evaluate).unwrap_or_else(|_| Err(Failure::Trap("the host panicked".into())));
    let [active, candidate] = [Fields::from(&job.result), Fields::from(&decided)];
    let redacted = || {
        let left_out = left_out(job);
        [
            Fields::of_result(&job.result, &left_out),
            Fields::of_attempt(&decided, &left_out),
        ]
    };
    job.differences
        .compare(&job.input, &active, &candidate, redacted);
    if let Some(compared) = &job.compared
        && compared.note(
            &job.input,
            &job.result,
            &decided,
            [&job.active, &job.version],
        )
    {
        let time = AssertUnwindSafe(|| compared.time(&job.input, &job.active, &job.version));
        let _ = catch_unwind(time);
    }
    if let Err(failure) = &decided {
        job.version.counts.count_failure(failure);
    }
}

/// What examples do not show: what clients sent in confidence, and secrets of configurations.
fn left_out(job: &Job) -> LeftOut<'_> {
    let configs = [&job.active.config, &job.version.config];
    let secrets = configs.into_iter().flat_map(|config| config.secrets());
    match job.input.request() {
        Some(request) => {
            let shown = Shown {
                parts: vec![path_and_query(&request.target).0.as_bytes()],
                outcome: request.outcome.as_ref(),
            };
            LeftOut::new(credentials(request), shown, secrets)
        }
        None => LeftOut::new(BTreeSet::new(), Shown::default(), secrets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_number_and_in_memory_and_elections_have_places_of_their_own() {
        let waiting = Waiting::default();
        for _ in 0..JOBS_MAX - ELECTIONS_MAX {
            assert!(waiting.has_room(JOBS_MAX - ELECTIONS_MAX));
            waiting.add(1);
        }
        assert!(!waiting.has_room(JOBS_MAX - ELECTIONS_MAX));
        assert!(waiting.has_room(JOBS_MAX), "there is one for an election");
        let waiting = Waiting::default();
        for _ in 0..BYTES_MAX / JOB_BYTES_MAX {
            assert!(waiting.has_room(JOBS_MAX));
            waiting.add(JOB_BYTES_MAX);
        }
        assert!(!waiting.has_room(JOBS_MAX), "there is no memory left");
        waiting.remove(JOB_BYTES_MAX);
        assert!(waiting.has_room(JOBS_MAX));
    }
}
