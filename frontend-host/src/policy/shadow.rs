//! Puts live decisions to a candidate as well, and notes where it decides differently.
//!
//! A thread of its own asks the candidate, so that one that hangs or traps costs no client
//! anything. It works through a bounded queue; what does not fit is dropped, and counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use http::{HeaderMap, Method};
use serde::Serialize;

use super::decider::{RequestParts, on_outcome_afresh, on_request};
use super::decision::{Action, Decision, Outcome, Reply, Stock};
use super::instances::with_instance;
use super::sandbox::{Failure, Inputs, SharedVersion};

/// Decisions that wait for the candidate.
const JOBS_MAX: usize = 1024;

/// Memory that one of them may take, in bytes, about. A larger one is dropped.
const JOB_BYTES_MAX: usize = 256 << 10;

/// Examples kept of each kind of difference: the newest.
const EXAMPLES_PER_KIND_MAX: usize = 4;

/// What an example shows of a text, in bytes.
const EXAMPLE_BYTES_MAX: usize = 512;

/// How much longer than it was kept by a candidate that overran the thread then rests, so that
/// such a candidate takes no more than a fifth of a core from those who serve.
const REST_AFTER_OVERRUN: u32 = 4;

/// Hands decisions to the thread that asks candidates.
pub(super) struct Shadow {
    jobs: SyncSender<Job>,
    /// The version on trial; questions for another are passed over.
    on_trial: Arc<AtomicU64>,
}

/// No version has this id.
const NONE: u64 = u64::MAX;

/// A decision to be made by a candidate as well.
pub(super) struct Job {
    pub(super) version: SharedVersion,
    pub(super) differences: Arc<Differences>,
    pub(super) inputs: Inputs,
    pub(super) question: Question,
    pub(super) decided: Decision,
}

impl Job {
    /// How much memory it takes beyond what is bounded for every request.
    fn bytes(&self) -> usize {
        let stocks = match &self.question {
            Question::Outcome(_, Outcome::Stocks(stocks)) => stocks.len(),
            _ => 0,
        };
        let reply = match &self.decided.action {
            Action::Respond(reply) => reply.bytes(),
            _ => 0,
        };
        stocks * size_of::<Stock>() + reply
    }
}

/// What was to be decided.
pub(super) enum Question {
    /// What to do about a request.
    Request(Asked),
    /// What to do about an outcome.
    Outcome(Asked, Outcome),
}

/// A request that is kept.
pub(super) struct Asked {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    now_ms: u64,
}

impl From<RequestParts<'_>> for Asked {
    fn from(request: RequestParts<'_>) -> Self {
        Self {
            method: request.method.clone(),
            target: request.target.to_owned(),
            headers: request.headers.clone(),
            body: request.body.map(<[u8]>::to_vec),
            now_ms: request.now_ms,
        }
    }
}

impl Asked {
    fn parts(&self) -> RequestParts<'_> {
        RequestParts {
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            body: self.body.as_deref(),
            now_ms: self.now_ms,
        }
    }
}

impl Shadow {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn start() -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let on_trial = Arc::new(AtomicU64::new(NONE));
        let current = Arc::clone(&on_trial);
        thread::Builder::new()
            .name("policy-shadow".into())
            .spawn(move || work(&queue, &current))?;
        Ok(Self { jobs, on_trial })
    }

    /// Another version is on trial, or none.
    pub(super) fn follow(&self, version: Option<u64>) {
        self.on_trial
            .store(version.unwrap_or(NONE), Ordering::Relaxed);
    }

    pub(super) fn put(&self, job: Job) {
        if job.bytes() > JOB_BYTES_MAX {
            job.differences.found().dropped += 1;
            return;
        }
        if let Err(TrySendError::Full(job)) = self.jobs.try_send(job) {
            job.differences.found().dropped += 1;
        }
    }
}

fn work(queue: &Receiver<Job>, on_trial: &AtomicU64) {
    while let Ok(job) = queue.recv() {
        if job.version.id != on_trial.load(Ordering::Relaxed) {
            continue;
        }
        let begun = Instant::now();
        let decided = decide(&job);
        let (Question::Request(asked) | Question::Outcome(asked, _)) = &job.question;
        job.differences.note(asked, &job.decided, &decided);
        if let Err(failure) = &decided {
            job.version.counts.count_failure(failure);
            if matches!(failure, Failure::Overrun(_)) {
                thread::sleep(begun.elapsed() * REST_AFTER_OVERRUN);
            }
        }
    }
}

fn decide(job: &Job) -> Result<Decision, Failure> {
    // Each candidate is a generation of its own to this thread's instances.
    let generation = job.version.id + 1;
    with_instance(generation, &job.version, |instance| match &job.question {
        Question::Request(asked) => on_request(&job.version, instance, job.inputs, asked.parts()),
        Question::Outcome(asked, outcome) => {
            on_outcome_afresh(&job.version, instance, job.inputs, asked.parts(), outcome)
        }
    })
}

/// Where a candidate decided differently.
#[derive(Debug, Default)]
pub struct Differences {
    found: Mutex<Found>,
}

/// What was found so far.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Found {
    /// Decisions that both made.
    pub compared: u64,
    /// Decisions that differed.
    pub different: u64,
    /// Decisions that the candidate was too slow to be asked for.
    pub dropped: u64,
    /// How many differed in what. A decision may differ in several things.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Some of them.
    pub examples: VecDeque<Example>,
}

/// A decision that differed.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// In what.
    pub kind: &'static str,
    /// What was asked: method and target.
    pub request: String,
    /// What the active version decided.
    pub active: String,
    /// What the candidate decided.
    pub candidate: String,
}

impl Differences {
    /// What was found so far.
    pub fn so_far(&self) -> Found {
        self.found().clone()
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, asked: &Asked, active: &Decision, candidate: &Result<Decision, Failure>) {
        let differences = compare(active, candidate);
        let mut found = self.found();
        found.compared += 1;
        found.different += u64::from(!differences.is_empty());
        for Difference {
            kind,
            active,
            candidate,
        } in differences
        {
            *found.kinds.entry(kind).or_default() += 1;
            let mut same_kind =
                (0..found.examples.len()).filter(|at| found.examples[*at].kind == kind);
            let oldest = same_kind.next();
            if same_kind.count() + 1 >= EXAMPLES_PER_KIND_MAX
                && let Some(oldest) = oldest
            {
                found.examples.remove(oldest);
            }
            let request = shown(&format!("{} {}", asked.method, asked.target));
            found.examples.push_back(Example {
                kind,
                request,
                active: shown(&active),
                candidate: shown(&candidate),
            });
        }
    }
}

fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(EXAMPLE_BYTES_MAX);
    if end == text.len() {
        text.to_owned()
    } else {
        format!("{}…", &text[..end])
    }
}

/// One thing in which two decisions differ.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    kind: &'static str,
    active: String,
    candidate: String,
}

/// Compares two decisions, field by field. Memos are each policy's own business.
fn compare(active: &Decision, candidate: &Result<Decision, Failure>) -> Vec<Difference> {
    let candidate = match candidate {
        Ok(decision) => fields(&decision.action),
        Err(Failure::Trap(_)) => vec![("action", "trapped".into())],
        Err(Failure::Overrun(_)) => vec![("action", "took too long".into())],
        Err(Failure::Invalid(problem)) => vec![("action", format!("invalid: {problem}"))],
    };
    let active = fields(&active.action);
    // Other actions have other fields: the action itself says it all.
    let same_action = active[0] == candidate[0];
    let fields = active.into_iter().zip(candidate);
    fields
        .take(if same_action { usize::MAX } else { 1 })
        .filter(|(active, candidate)| active.1 != candidate.1)
        .map(|(active, candidate)| Difference {
            kind: active.0,
            active: active.1,
            candidate: candidate.1,
        })
        .collect()
}

/// The fields of an action, by name: the action itself is the first.
fn fields(action: &Action) -> Vec<(&'static str, String)> {
    match action {
        Action::Respond(Reply {
            status,
            headers,
            body,
            keep,
        }) => {
            let mut headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {value:?}"))
                .collect();
            headers.sort();
            vec![
                ("action", "respond".into()),
                ("status", status.as_u16().to_string()),
                ("headers", headers.join("\n")),
                ("body", String::from_utf8_lossy(body).into_owned()),
                ("keep", format!("{keep:?}")),
            ]
        }
        Action::ReadStock { name, caching } => {
            vec![
                ("action", "read-stock".into()),
                ("name", name.to_string()),
                ("caching", format!("{caching:?}")),
            ]
        }
        Action::ReadOrder { number, caching } => {
            vec![
                ("action", "read-order".into()),
                ("number", number.to_string()),
                ("caching", format!("{caching:?}")),
            ]
        }
        Action::ListStocks => vec![("action", "list-stocks".into())],
        Action::Trade(trade) => vec![
            ("action", "trade".into()),
            ("name", trade.name.to_string()),
            ("side", trade.side.to_string()),
            ("quantity", trade.quantity.to_string()),
            ("idempotency-key", format!("{:?}", trade.key)),
        ],
        Action::Retry(after) => vec![("action", "retry".into()), ("after", format!("{after:?}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::StatusCode;
    use std::time::Duration;

    fn respond(status: StatusCode, body: &'static str) -> Decision {
        let reply = Reply {
            status,
            headers: HeaderMap::new(),
            body: Bytes::from(body),
            keep: None,
        };
        Decision {
            action: Action::Respond(reply),
            memo: Vec::new(),
        }
    }

    fn kinds(active: &Decision, candidate: Result<Decision, Failure>) -> Vec<&'static str> {
        compare(active, &candidate)
            .into_iter()
            .map(|difference| difference.kind)
            .collect()
    }

    #[test]
    fn decisions_are_compared_field_by_field() {
        let ok = respond(StatusCode::OK, "a");
        assert_eq!(kinds(&ok, Ok(respond(StatusCode::OK, "a"))), [""; 0]);
        assert_eq!(kinds(&ok, Ok(respond(StatusCode::OK, "b"))), ["body"]);
        assert_eq!(
            kinds(&ok, Ok(respond(StatusCode::NOT_FOUND, "b"))),
            ["status", "body"]
        );
        let retry = Decision {
            action: Action::Retry(Duration::ZERO),
            memo: Vec::new(),
        };
        assert_eq!(kinds(&ok, Ok(retry)), ["action"]);
        assert_eq!(kinds(&ok, Err(Failure::Trap("x".into()))), ["action"]);
        let memo = Decision {
            memo: vec![1],
            ..respond(StatusCode::OK, "a")
        };
        assert_eq!(kinds(&ok, Ok(memo)), [""; 0], "memos are each policy's own");
    }

    #[test]
    fn examples_are_bounded_and_the_newest() {
        let differences = Differences::default();
        for round in 0..20 {
            let asked = Asked {
                method: Method::GET,
                target: format!("/stocks/{round}"),
                headers: HeaderMap::new(),
                body: None,
                now_ms: 0,
            };
            let candidate = Ok(respond(StatusCode::NOT_FOUND, "a"));
            differences.note(&asked, &respond(StatusCode::OK, "a"), &candidate);
        }
        let found = differences.so_far();
        assert_eq!(
            (found.compared, found.different, found.kinds["status"]),
            (20, 20, 20)
        );
        assert_eq!(found.examples.len(), EXAMPLES_PER_KIND_MAX);
        assert_eq!(found.examples.back().unwrap().request, "GET /stocks/19");
    }
}
