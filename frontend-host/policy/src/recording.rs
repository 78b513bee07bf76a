//! Recordings of live decisions, and their replay.
//!
//! A recording is text, one JSON object a line. The first is the header:
//!
//! ```json
//! {"format":"bazaar-policy-recording","version":3,"policy":"default 0.1.0 (10d675813c77)",
//!  "journal":"30313233343536373839616263646566"}
//! ```
//!
//! `journal` is the id of the journal whose stocks and orders the outcomes are about; it is left out
//! where the gateway did not know it yet.
//!
//! Each line after it is a decision: what it depended on, and the fields of what was decided. One
//! about a request has `request`; `body` is base64, and `outcome` is null where the decision was
//! about the request itself. An election has `election`, as the policy saw it.
//!
//! ```json
//! {"now_ms":1795370000000,"seed":42,
//!  "request":{"method":"GET","target":"/stocks/nvidia","headers":[],"body":null,"outcome":null},
//!  "decided":[["action","read-stock"],["name","nvidia"],…]}
//! {"now_ms":1795370000100,"seed":43,
//!  "election":{"replicas":[{"id":3,"healthy":true,"reaches_catalog":true,"orders":7,
//!                           "round_trip_us":210,"in_sync":true}],"leader":null,"epoch":0},
//!  "decided":[["action","elect"],["leader","3"]]}
//! ```
//!
//! Of version 2 there are recordings in which nobody is said to be in sync, and an outcome `stocks` is a
//! list of all; they are read as well.
//!
//! Headers that carry credentials are left out. So are decisions for which whoever records is too
//! slow: what waits for them is bounded.

use std::io::{self, BufRead};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::time::BootTime;
use domain::{Epoch, JournalId, OrderNumber, ReplicaId};
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::Stream;

use super::decision::{Outcome, ReplicaView, View};
use super::differences::{Differences, Fields};
use super::question::{Decided, Question, RequestSubject, Subject};
use super::sandbox::{Inputs, Version};

/// What the first line of a recording says that it is.
const FORMAT: &str = "bazaar-policy-recording";

/// The version that is written.
const VERSION: u32 = 3;

/// The oldest that is read.
const VERSION_MIN: u32 = 2;

/// Decisions that wait to be written, and their bytes; what comes while they are as many is left
/// out.
const QUEUE_MAX: usize = 4096;
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// Longest line that is recorded, in bytes. A larger decision is left out.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Headers that carry credentials.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// The first line of a recording.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    journal: Option<JournalId>,
}

/// A decision, as a recording has it: about a request, or an election.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    now_ms: u64,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    election: Option<ElectionLine>,
    decided: Fields,
}

#[derive(Debug, Serialize, Deserialize)]
struct RequestLine {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    outcome: Option<Outcome>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ElectionLine {
    replicas: Vec<ReplicaLine>,
    leader: Option<ReplicaId>,
    epoch: Epoch,
}

#[derive(Debug, Serialize, Deserialize)]
struct ReplicaLine {
    id: ReplicaId,
    healthy: bool,
    reaches_catalog: bool,
    orders: OrderNumber,
    round_trip_us: u64,
    #[serde(default)]
    in_sync: bool,
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is something else, or was made by another version.
    #[error(
        "it is no recording of version {VERSION_MIN} to {VERSION}; make one with `bazaar policy record`"
    )]
    Format,
    /// A line makes no sense.
    #[error("line {number}: {problem}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Takes decisions down while somebody listens.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    listening: AtomicBool,
    listener: Mutex<Option<Listener>>,
}

/// Who records, until when.
#[derive(Debug)]
struct Listener {
    lines: mpsc::Sender<String>,
    /// Bytes of the lines that wait.
    waiting: Arc<AtomicUsize>,
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

/// Somebody else is recording.
#[derive(Debug, thiserror::Error)]
#[error("a recording is being made already; one at a time")]
pub struct Busy;

impl Recorder {
    /// Starts a recording, which ends after `time` even where nobody takes its lines.
    pub(super) fn start(
        &self,
        active: &Version,
        journal: Option<JournalId>,
        time: Duration,
    ) -> Result<Recording, Busy> {
        let mut current = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|listener| !listener.has_ended())
        {
            return Err(Busy);
        }
        let (lines, received) = mpsc::channel(QUEUE_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let listener = Listener {
            lines,
            waiting: Arc::clone(&waiting),
            until: BootTime::now() + time,
        };
        listener.send(line(&Header {
            format: FORMAT.into(),
            version: VERSION,
            policy: active.to_string(),
            journal,
        }));
        *current = Some(listener);
        self.listening.store(true, Ordering::Relaxed);
        Ok(Recording {
            lines: received,
            waiting,
        })
    }

    /// Whether anybody listens. Cheap, for every decision asks.
    pub(super) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    pub(super) fn take_down(&self, question: &Question, decided: &Decided) {
        let line = line(&Line::new(question, decided));
        if line.len() > LINE_BYTES_MAX {
            return;
        }
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        match listener.take_if(|listener| listener.has_ended()) {
            Some(_ended) => self.listening.store(false, Ordering::Relaxed),
            None => {
                if let Some(listener) = listener.as_ref() {
                    listener.send(line);
                }
            }
        }
    }
}

fn line(contents: &impl Serialize) -> String {
    let mut line = serde_json::to_string(contents).expect("strings and numbers are JSON");
    line.push('\n');
    line
}

impl Line {
    fn new(question: &Question, decided: &Decided) -> Self {
        let (request, election) = match &question.subject {
            Subject::Request(subject) => (Some(subject.into()), None),
            Subject::Election(view) => (None, Some(view.into())),
        };
        Self {
            now_ms: question.inputs.now_ms,
            seed: question.inputs.seed,
            request,
            election,
            decided: Fields::from(decided),
        }
    }

    fn question(self) -> Result<(Question, Fields), String> {
        let subject = match (self.request, self.election) {
            (Some(request), None) => Subject::Request(request.try_into()?),
            (None, Some(election)) => Subject::Election(election.into()),
            _ => return Err("it must have either `request` or `election`".into()),
        };
        let inputs = Inputs {
            now_ms: self.now_ms,
            seed: self.seed,
        };
        Ok((Question { subject, inputs }, self.decided))
    }
}

impl From<&RequestSubject> for RequestLine {
    fn from(subject: &RequestSubject) -> Self {
        let headers = subject
            .headers
            .iter()
            .filter(|(name, _)| !CREDENTIALS.contains(name));
        let headers = headers
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Self {
            method: subject.method.to_string(),
            target: subject.target.clone(),
            headers: headers.collect(),
            body: subject.body.as_ref().map(|body| BASE64.encode(body)),
            outcome: subject.outcome.clone(),
        }
    }
}

impl TryFrom<RequestLine> for RequestSubject {
    type Error = String;

    fn try_from(line: RequestLine) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &line.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            headers.append(
                name,
                HeaderValue::try_from(value).map_err(|error| error.to_string())?,
            );
        }
        let body = line
            .body
            .map(|body| BASE64.decode(body))
            .transpose()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            method: Method::try_from(line.method.as_str()).map_err(|error| error.to_string())?,
            target: line.target,
            headers,
            body,
            outcome: line.outcome,
        })
    }
}

impl From<&View> for ElectionLine {
    fn from(view: &View) -> Self {
        let replicas = view.replicas.iter().map(|replica| ReplicaLine {
            id: replica.id,
            healthy: replica.healthy,
            reaches_catalog: replica.reaches_catalog,
            orders: replica.orders,
            round_trip_us: replica.round_trip.as_micros() as u64,
            in_sync: replica.in_sync,
        });
        Self {
            replicas: replicas.collect(),
            leader: view.leader,
            epoch: view.epoch,
        }
    }
}

impl From<ElectionLine> for View {
    fn from(line: ElectionLine) -> Self {
        let replicas = line.replicas.into_iter().map(|replica| ReplicaView {
            id: replica.id,
            healthy: replica.healthy,
            reaches_catalog: replica.reaches_catalog,
            orders: replica.orders,
            round_trip: Duration::from_micros(replica.round_trip_us),
            in_sync: replica.in_sync,
        });
        Self {
            replicas: replicas.collect(),
            leader: line.leader,
            epoch: line.epoch,
        }
    }
}

/// Has a version make every decision of a recording, and compares.
///
/// # Errors
/// Where the recording makes no sense. Decisions that differ, or fail, are no errors.
pub fn replay(recording: impl BufRead, version: &Version) -> Result<Differences, RecordingError> {
    let differences = Differences::default();
    for (index, line) in recording.lines().enumerate() {
        let line = line?;
        let problem = |problem: String| RecordingError::Line {
            number: index + 1,
            problem,
        };
        if index == 0 {
            let header: Header = serde_json::from_str(&line).map_err(|_| RecordingError::Format)?;
            if header.format != FORMAT || !(VERSION_MIN..=VERSION).contains(&header.version) {
                return Err(RecordingError::Format);
            }
            continue;
        }
        let line: Line = serde_json::from_str(&line).map_err(|error| problem(error.to_string()))?;
        let (question, before) = line.question().map_err(problem)?;
        let now = Fields::from(&question.decide(version));
        differences.note(&question.asked(), &before, &now);
    }
    Ok(differences)
}
