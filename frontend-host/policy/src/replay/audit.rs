//! Live decisions made again in a fresh instance, to see whether they come out the same.
//!
//! A policy must keep nothing from one call to the next. An instance is reused, so one that does all the
//! same decides by what it was asked before: by other clients' requests. A thread of its own makes a
//! sample of the decisions again, one at a time, and rests after each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use daemon::tasks;

use super::fields::Fields;
use crate::decision::Decision;
use crate::evaluate::input::{DecisionInput, DecisionResult};
use crate::guest::failure::Failure;
use crate::guest::thread::yield_to_others;
use crate::guest::version::SharedVersion;

/// How long the thread rests after a decision, at least; and how many times as long as that took, so
/// that it takes no more than a fifth of a core from those who serve.
const REST_MIN: Duration = Duration::from_millis(250);
const REST_TIMES: u32 = 4;

/// Hands decisions to the thread that makes them again.
pub(crate) struct Auditor {
    jobs: SyncSender<Job>,
    /// Whether the thread waits for one.
    is_idle: Arc<AtomicBool>,
}

/// A decision to be made again.
pub(crate) struct Job {
    /// Who made it.
    pub(crate) version: SharedVersion,
    pub(crate) input: DecisionInput,
    /// What came with the outcome, where it is about one.
    pub(crate) memo: Vec<u8>,
    pub(crate) decided: Decision,
}

impl Auditor {
    /// Starts the thread, which ends when this is dropped.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(1);
        let is_idle = Arc::new(AtomicBool::new(true));
        let idle = Arc::clone(&is_idle);
        tasks::thread("policy-audit", move || work(&queue, &idle))?;
        Ok(Self { jobs, is_idle })
    }

    /// Whether it would make a decision again now.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle.load(Ordering::Relaxed)
    }

    /// Where it is busy, the decision is left out: it is a sample.
    pub(crate) fn submit(&self, job: Job) {
        if self.is_idle.swap(false, Ordering::Relaxed) {
            // There is room, for it was idle.
            let _ = self.jobs.try_send(job);
        }
    }
}

fn work(queue: &Receiver<Job>, is_idle: &AtomicBool) {
    yield_to_others();
    while let Ok(job) = queue.recv() {
        let begun = Instant::now();
        audit(&job);
        thread::sleep(REST_MIN.max(begun.elapsed() * REST_TIMES));
        is_idle.store(true, Ordering::Relaxed);
    }
}

fn audit(job: &Job) {
    // The input is the job's alone, and the instance is thrown away.
    let again = AssertUnwindSafe(|| job.input.decide_afresh(&job.version, &job.memo));
    let again =
        catch_unwind(again).unwrap_or_else(|_| Err(Failure::Trap("the host panicked".into())));
    let is_same = match &again {
        Ok(again) => *again == job.decided,
        // That may be the machine's doing.
        Err(Failure::Overrun(_)) => true,
        Err(_) => false,
    };
    if !is_same {
        let decided = Fields::from(&job.decided);
        let again = Fields::from(&again.map(DecisionResult::Action));
        // Redacted before it is escaped or cut off, either of which secrets could hide behind.
        let shown = |text: &str| job.input.redact(&job.version.config.scrub(text));
        let example = match decided.differences(&again).first() {
            Some(difference) => format!(
                "{} {:.200} and, in a fresh instance, {:.200}",
                difference.kind,
                shown(difference.active).escape_debug().to_string(),
                shown(difference.candidate).escape_debug().to_string()
            ),
            None => "in what it hands itself on".to_owned(),
        };
        job.version
            .note_impure(format!("{}: {example}", job.input.redacted()));
    }
}
