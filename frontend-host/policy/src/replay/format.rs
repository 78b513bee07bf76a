//! The format of a recording: text, one JSON object a line. The first is the header:
//!
//! ```json
//! {"format":"bazaar-policy-recording","version":4,"policy":"default 0.1.0 (10d675813c77)",
//!  "journal":"30313233343536373839616263646566"}
//! ```
//!
//! `journal` is the id of the journal whose stocks and orders the outcomes are about; it is left out
//! where the gateway did not know it yet.
//!
//! Each line after it is a decision: what it depended on, and the fields of what was decided. One
//! about a request has `request`; `body` is base64, and `outcome` is null where the decision was
//! about the request itself. `id` is the request's `x-request-id`, for whoever looks for it elsewhere, and left out where it is not known: nothing
//! depends on it, so that it is of no version. A header is a name and a value: a string where that is printable ASCII,
//! blanks and tabs, else `{"base64":"/w=="}`. `connection` is there where the policy saw it. `takes` is
//! what came of the takes out of buckets before, `"granted"` or `{"denied":250}` each, and left out where
//! there were none. An election has `election`, as the policy saw it.
//!
//! ```json
//! {"now_ms":1795370000000,"seed":42,
//!  "request":{"id":"5f0c2e9a41-0-7","method":"GET","target":"/stocks/nvidia","headers":[["host","localhost:8080"]],
//!             "connection":{"client":"127.0.0.1","scheme":"http","version":"1.1"},
//!             "body":null,"outcome":null},
//!  "decided":[["action","read-stock"],["name","nvidia"],…]}
//! {"now_ms":1795370000100,"seed":43,
//!  "election":{"replicas":[{"id":3,"healthy":true,"reaches_catalog":true,"orders":7,
//!                           "round_trip_us":210,"in_sync":true}],"leader":null,"epoch":0},
//!  "decided":[["action","elect"],["leader","3"]]}
//! ```
//!
//! Those of before are read as well. Versions 2 and 3 have no headers but text, and no `connection`. Of
//! version 2 there are recordings in which nobody is said to be in sync, and an outcome `stocks` is a
//! list of all.
//!
//! A request has those of its headers that the policy asked to see, but for credentials that nobody named
//! (`headers`); where a value that is not there, or a cookie, was in the decision, that has `(left out)` in
//! its place (`left_out`).

use std::io::{self, BufRead};
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::{Epoch, JournalId, ReplicaId, RowNumber};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::fields::Fields;
use super::headers::HeaderChoice;
use super::left_out::{LeftOut, Shown};
use crate::decision::{Outcome, ReplicaView, Scheme, View, header_text};
use crate::evaluate::Connection;
use crate::evaluate::input::{DecisionInput, DecisionResult, RequestInput, Subject};
use crate::guest::instance::Ambient;
use crate::guest::version::Version;
use crate::request_id;

/// What the first line of a recording says that it is.
const FORMAT: &str = "bazaar-policy-recording";

/// The version that is written.
const VERSION: u32 = 4;

/// The oldest that is read.
const VERSION_MIN: u32 = 2;

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
pub(super) struct Line {
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<SmolStr>,
    method: String,
    target: String,
    headers: Vec<(String, HeaderLine)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connection: Option<ConnectionLine>,
    body: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    takes: Vec<Outcome>,
    outcome: Option<Outcome>,
}

/// A header's value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum HeaderLine {
    Text(String),
    Bytes { base64: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct ConnectionLine {
    client: IpAddr,
    scheme: Scheme,
    version: HttpVersion,
}

/// As HTTP/1 writes them, but for the name.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum HttpVersion {
    #[serde(rename = "1.0")]
    Http10,
    #[serde(rename = "1.1")]
    Http11,
    #[serde(rename = "2")]
    Http2,
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
    orders: RowNumber,
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
        "not a recording of version {VERSION_MIN} to {VERSION}; make one with `bazaar policy record`"
    )]
    Format,
    /// A line makes no sense.
    #[error("line {number}: {problem}")]
    Line {
        /// The line, counted from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Calls `each` with the line, counted from 1, the input and the fields of each decision of a recording.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn read(
    recording: impl BufRead,
    mut each: impl FnMut(usize, DecisionInput, Fields),
) -> Result<(), RecordingError> {
    let mut lines = (1..).zip(recording.lines());
    let Some((_, first)) = lines.next() else {
        return Err(RecordingError::Format);
    };
    check_header(&first?)?;
    for (number, line) in lines {
        let (input, decided) =
            Line::parse(&line?).map_err(|problem| RecordingError::Line { number, problem })?;
        each(number, input, decided);
    }
    Ok(())
}

/// The first line of a recording of that policy's decisions.
pub(super) fn header(policy: String, journal: Option<JournalId>) -> String {
    json_line(&Header {
        format: FORMAT.into(),
        version: VERSION,
        policy,
        journal,
    })
}

/// Makes sure that a first line is that of a recording which can be read.
fn check_header(line: &str) -> Result<(), RecordingError> {
    match serde_json::from_str::<Header>(line) {
        Ok(header)
            if header.format == FORMAT && (VERSION_MIN..=VERSION).contains(&header.version) =>
        {
            Ok(())
        }
        _ => Err(RecordingError::Format),
    }
}

fn json_line(contents: &impl Serialize) -> String {
    let mut line = serde_json::to_string(contents).expect("strings and numbers are JSON");
    line.push('\n');
    line
}

impl Line {
    /// A decision's line of a recording.
    ///
    /// `version` is the one that decided, and `headers` says which ones are wanted.
    pub(super) fn write(
        input: &DecisionInput,
        result: &DecisionResult,
        version: &Version,
        headers: &HeaderChoice,
    ) -> String {
        let mut line = Self::new(input, result, version, headers);
        if let Some(request) = &mut line.request {
            request.connection.take_if(|_| !version.manifest.connection);
        }
        json_line(&line)
    }

    /// What a line says was to be decided, and what was.
    fn parse(line: &str) -> Result<(DecisionInput, Fields), String> {
        let line: Self = serde_json::from_str(line).map_err(|error| error.to_string())?;
        line.into_input()
    }

    fn new(
        input: &DecisionInput,
        result: &DecisionResult,
        version: &Version,
        headers: &HeaderChoice,
    ) -> Self {
        let manifest = &version.manifest;
        let (request, election, decided) = match &input.subject {
            Subject::Request(subject) => {
                let recorded = headers.of_request(&subject.headers, manifest);
                let values = headers.left_out(&subject.headers, manifest);
                // The line has these itself.
                let mut parts = vec![subject.target.as_bytes()];
                parts.extend(subject.body.as_deref());
                parts.extend(recorded.iter().map(|&(_, value)| value.as_bytes()));
                let outcome = subject.outcome.as_ref();
                let shown = Shown { parts, outcome };
                let left_out = LeftOut::new(values, shown, version.config.secrets());
                let mut decided = Fields::of_result(result, &left_out);
                decided.leave_out_headers(headers);
                (Some(RequestLine::new(subject, recorded)), None, decided)
            }
            Subject::Election(view) => (None, Some(view.into()), Fields::from(result)),
        };
        Self {
            now_ms: input.ambient.now_ms,
            seed: input.ambient.seed,
            request,
            election,
            decided,
        }
    }

    fn into_input(self) -> Result<(DecisionInput, Fields), String> {
        let subject = match (self.request, self.election) {
            (Some(request), None) => Subject::Request(Box::new(request.try_into()?)),
            (None, Some(election)) => Subject::Election(election.into()),
            _ => return Err("it must have either `request` or `election`".into()),
        };
        let ambient = Ambient {
            now_ms: self.now_ms,
            seed: self.seed,
        };
        let mut decided = self.decided;
        decided.complete();
        Ok((DecisionInput { subject, ambient }, decided))
    }
}

impl RequestLine {
    /// A request with these of its headers.
    fn new(subject: &RequestInput, headers: Vec<(&HeaderName, &HeaderValue)>) -> Self {
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name.to_string(), value.into()));
        Self {
            id: subject.id.clone(),
            method: subject.method.to_string(),
            target: subject.target.clone(),
            headers: headers.collect(),
            connection: subject.connection.map(ConnectionLine::from),
            body: subject.body.as_ref().map(|body| BASE64.encode(body)),
            takes: subject.takes.clone(),
            outcome: subject.outcome.clone(),
        }
    }
}

impl TryFrom<RequestLine> for RequestInput {
    type Error = String;

    fn try_from(line: RequestLine) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in line.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            headers.append(name, value.try_into()?);
        }
        let body = line
            .body
            .map(|body| BASE64.decode(body))
            .transpose()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            id: line.id.and_then(|id| request_id::parse(id.as_bytes())),
            method: Method::try_from(line.method.as_str()).map_err(|error| error.to_string())?,
            target: line.target,
            headers,
            connection: line.connection.map(Connection::from),
            body,
            takes: line.takes,
            outcome: line.outcome,
        })
    }
}

impl From<&HeaderValue> for HeaderLine {
    fn from(value: &HeaderValue) -> Self {
        match header_text(value.as_bytes()) {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes {
                base64: BASE64.encode(value.as_bytes()),
            },
        }
    }
}

impl TryFrom<HeaderLine> for HeaderValue {
    type Error = String;

    fn try_from(line: HeaderLine) -> Result<Self, String> {
        let bytes = match line {
            HeaderLine::Text(text) => text.into_bytes(),
            HeaderLine::Bytes { base64 } => {
                BASE64.decode(base64).map_err(|error| error.to_string())?
            }
        };
        Self::try_from(bytes).map_err(|error| error.to_string())
    }
}

impl From<Connection> for ConnectionLine {
    fn from(connection: Connection) -> Self {
        Self {
            client: connection.client,
            scheme: connection.scheme,
            version: match connection.version {
                http::Version::HTTP_09 | http::Version::HTTP_10 => HttpVersion::Http10,
                http::Version::HTTP_11 => HttpVersion::Http11,
                _ => HttpVersion::Http2,
            },
        }
    }
}

impl From<ConnectionLine> for Connection {
    fn from(line: ConnectionLine) -> Self {
        Self {
            client: line.client,
            scheme: line.scheme,
            version: match line.version {
                HttpVersion::Http10 => http::Version::HTTP_10,
                HttpVersion::Http11 => http::Version::HTTP_11,
                HttpVersion::Http2 => http::Version::HTTP_2,
            },
        }
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
