//! Recordings of live decisions, and their replay.
//!
//! A recording is text, one JSON object a line. The first is the header:
//!
//! ```json
//! {"format":"bazaar-policy-recording","version":1,"policy":"default 0.1.0 (10d675813c77)"}
//! ```
//!
//! Each line after it is a decision: what it depended on, and the fields of what was decided.
//! `body` is base64; `outcome` is absent where the decision was about the request itself.
//!
//! ```json
//! {"now_ms":1795370000000,"seed":42,"method":"GET","target":"/stocks/nvidia","headers":[],
//!  "body":null,"outcome":null,"decided":[["action","read-stock"],["name","nvidia"],…]}
//! ```
//!
//! Headers that carry credentials are left out.

use std::io::{self, BufRead};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::decision::{Decision, Outcome};
use super::differences::{Differences, Fields};
use super::question::Question;
use super::sandbox::{Inputs, Version};

/// What the first line of a recording says that it is.
const FORMAT: &str = "bazaar-policy-recording";

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Decisions that wait to be written; what comes while they are as many is left out.
const QUEUE_MAX: usize = 4096;

/// Longest line that is recorded or read, in bytes. A larger decision is left out.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Headers that carry credentials.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// The first line of a recording.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    policy: String,
}

/// A decision, as a recording has it.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    now_ms: u64,
    seed: u64,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    outcome: Option<Outcome>,
    decided: Fields,
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is something else, or was made by another version.
    #[error("it is no recording of version {VERSION}; make one with `bazaar policy record`")]
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
    listener: Mutex<Option<mpsc::Sender<String>>>,
}

/// Somebody else is recording.
#[derive(Debug, thiserror::Error)]
#[error("a recording is being made already; one at a time")]
pub struct Busy;

impl Recorder {
    /// Starts a recording: its lines, until the receiver is dropped.
    pub(super) fn start(&self, active: &Version) -> Result<mpsc::Receiver<String>, Busy> {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if listener
            .as_ref()
            .is_some_and(|listener| !listener.is_closed())
        {
            return Err(Busy);
        }
        let (lines, recording) = mpsc::channel(QUEUE_MAX);
        let header = Header {
            format: FORMAT.into(),
            version: VERSION,
            policy: active.to_string(),
        };
        // The queue is empty: there is room for the first line.
        let _ = lines.try_send(line(&header));
        *listener = Some(lines);
        self.listening.store(true, Ordering::Relaxed);
        Ok(recording)
    }

    /// Whether anybody listens. Cheap, for every decision asks.
    pub(super) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    pub(super) fn take_down(&self, question: &Question, decided: &Decision) {
        let line = line(&Line::new(question, decided));
        if line.len() > LINE_BYTES_MAX {
            return;
        }
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = listener.as_ref().is_none_or(mpsc::Sender::is_closed);
        if gone {
            *listener = None;
            self.listening.store(false, Ordering::Relaxed);
        } else if let Some(listener) = listener.as_ref() {
            // A recording is a sample: what it has no room for, it leaves out.
            let _ = listener.try_send(line);
        }
    }
}

fn line(contents: &impl Serialize) -> String {
    let mut line = serde_json::to_string(contents).expect("strings and numbers are JSON");
    line.push('\n');
    line
}

impl Line {
    fn new(question: &Question, decided: &Decision) -> Self {
        let headers = question
            .headers
            .iter()
            .filter(|(name, _)| !CREDENTIALS.contains(name));
        let headers = headers
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Self {
            now_ms: question.inputs.now_ms,
            seed: question.inputs.seed,
            method: question.method.to_string(),
            target: question.target.clone(),
            headers: headers.collect(),
            body: question.body.as_ref().map(|body| BASE64.encode(body)),
            outcome: question.outcome.clone(),
            decided: Fields::from(decided),
        }
    }

    fn question(self) -> Result<(Question, Fields), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            headers.append(
                name,
                HeaderValue::try_from(value).map_err(|error| error.to_string())?,
            );
        }
        let body = self
            .body
            .map(|body| BASE64.decode(body))
            .transpose()
            .map_err(|error| error.to_string())?;
        let question = Question {
            method: Method::try_from(self.method.as_str()).map_err(|error| error.to_string())?,
            target: self.target,
            headers,
            body,
            outcome: self.outcome,
            inputs: Inputs {
                now_ms: self.now_ms,
                seed: self.seed,
            },
        };
        Ok((question, self.decided))
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
            if header.format != FORMAT || header.version != VERSION {
                return Err(RecordingError::Format);
            }
            continue;
        }
        let line: Line = serde_json::from_str(&line).map_err(|error| problem(error.to_string()))?;
        let (question, before) = line.question().map_err(problem)?;
        let now = Fields::from(&question.decide(version));
        differences.note(&question.request(), &before, &now);
    }
    Ok(differences)
}
