//! Everything that one decision depends on, kept so that it can be made again: by a candidate
//! beside the active version, or offline from a recording.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use domain::ReplicaId;
use http::{HeaderMap, HeaderName, Method};
use smol_str::SmolStr;

use crate::decision::{Action, Decision, InvalidDecision, Outcome, Stock, View};
use crate::evaluate::sent::{json_names, path_and_query, values_of, without_values};
use crate::evaluate::{Connection, RequestParts, on_outcome, on_outcome_afresh, on_request};
use crate::guest::failure::Failure;
use crate::guest::instance::{Ambient, Instance};
use crate::guest::instance_pool::with_instance;
use crate::guest::version::Version;
use crate::guest::written::Written;

/// Parts of a path that tell routes apart, and how much of the first one does, in characters.
const ROUTE_PARTS_MAX: usize = 4;
const ROUTE_PART_MAX: usize = 60;

/// All that one decision depends on.
#[derive(Debug, Clone)]
pub struct DecisionInput {
    pub(crate) subject: Subject,
    pub(crate) ambient: Ambient,
}

/// What a decision was about.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// A request, or an outcome of what was done about it.
    Request(Box<RequestInput>),
    /// Who should lead the order replicas.
    Election(View),
}

/// A request, as long as it is needed.
#[derive(Debug, Clone)]
pub(crate) struct RequestInput {
    /// What it is called, where that is known. No decision depends on it.
    pub(crate) id: Option<SmolStr>,
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    /// None where a recording is without it.
    pub(crate) connection: Option<Connection>,
    pub(crate) body: Option<Vec<u8>>,
    /// What came of the takes before the decision.
    pub(crate) takes: Vec<Outcome>,
    /// None where the decision was about the request itself.
    pub(crate) outcome: Option<Outcome>,
}

impl RequestInput {
    /// As it came at that time.
    pub(crate) fn parts(&self, now_ms: u64) -> RequestParts<'_> {
        RequestParts {
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            connection: self.connection,
            body: self.body.as_deref(),
            now_ms,
            id: None,
        }
    }
}

/// What came of a decision.
#[derive(Debug, Clone)]
pub enum DecisionResult {
    /// What to do about a request.
    Action(Decision),
    /// Who should lead; none for as it is.
    Leader(Option<ReplicaId>),
}

impl DecisionInput {
    pub(crate) fn of_request(
        request: RequestParts<'_>,
        ambient: Ambient,
        takes: &[Outcome],
        outcome: Option<&Outcome>,
    ) -> Self {
        let subject = Subject::Request(Box::new(RequestInput {
            id: request.id.map(|id| id.text().clone()),
            method: request.method.clone(),
            target: request.target.to_owned(),
            headers: request.headers.clone(),
            connection: request.connection,
            body: request.body.map(<[u8]>::to_vec),
            takes: takes.to_vec(),
            outcome: outcome.cloned(),
        }));
        Self { subject, ambient }
    }

    pub(crate) fn of_election(view: &View, ambient: Ambient) -> Self {
        Self {
            subject: Subject::Election(view.clone()),
            ambient,
        }
    }

    /// For operators: what was asked, without the values of query and headers and without the body, in
    /// which there may be secrets.
    pub(crate) fn redacted(&self) -> String {
        let request = match &self.subject {
            Subject::Request(request) => request,
            Subject::Election(_) => return self.describe(),
        };
        let (path, query) = path_and_query(&request.target);
        let path = &path[..path.floor_char_boundary(PATH_SHOWN_MAX)];
        let mut shown = format!("{} {}", request.method, path.escape_debug());
        if let Some(query) = query {
            let _ = write!(shown, "?… of {} bytes", query.len());
        }
        let names: BTreeSet<&str> = request.headers.keys().map(HeaderName::as_str).collect();
        if !names.is_empty() {
            let names = names.into_iter().take(HEADERS_SHOWN_MAX);
            let _ = write!(shown, ", headers: {}", names.collect::<Vec<_>>().join(" "));
        }
        if let Some(body) = &request.body {
            let _ = write!(shown, ", body of {} bytes", body.len());
        }
        if let Some(outcome) = &request.outcome {
            let _ = write!(shown, ", outcome: {}", outcome.name());
        }
        shown
    }

    /// A text that a policy made, without what it may have of the request's query, headers and body.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.redact_written(Written::whole(text)).text
    }

    /// The same of what a guest wrote.
    pub(crate) fn redact_written(&self, written: Written) -> Written {
        let written = Written {
            text: without_numbers(&written.text),
            ..written
        };
        let Subject::Request(request) = &self.subject else {
            return written;
        };
        let query = path_and_query(&request.target).1.unwrap_or_default();
        let headers = request.headers.values().map(|value| value.as_bytes());
        let parts = [query.as_bytes()].into_iter().chain(headers);
        let parts = parts.chain(request.body.as_deref());
        let parts: Vec<_> = parts
            .flat_map(|part| values_of(part).into_iter().chain(json_names(part)))
            .map(|part| String::from_utf8_lossy(&part).into_owned())
            .collect();
        let is_word = |c: char| c.is_alphanumeric() || "-_+/=.~".contains(c);
        let words = parts.iter().flat_map(|part| {
            let words = part.split(move |c| !is_word(c));
            let letters = part.split(|c: char| !c.is_alphanumeric());
            [part.as_str()].into_iter().chain(words).chain(letters)
        });
        let words: BTreeSet<&str> = words.collect();
        let mut secrets: Vec<_> = words
            .into_iter()
            .filter(|secret| secret.len() >= SECRET_BYTES_MIN)
            .collect();
        // What others are part of goes first.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        written.without(secrets)
    }

    /// Tells inputs apart, for a policy that sees these headers, but for the time and the randomness that
    /// a decision finds.
    pub(crate) fn key(&self, headers: &[HeaderName]) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.subject {
            Subject::Request(request) => {
                request.method.hash(&mut hasher);
                request.target.hash(&mut hasher);
                for name in headers {
                    for value in request.headers.get_all(name) {
                        (name, value).hash(&mut hasher);
                    }
                }
                request.body.hash(&mut hasher);
                request
                    .outcome
                    .as_ref()
                    .map(Outcome::name)
                    .hash(&mut hasher);
            }
            Subject::Election(view) => {
                view.leader.hash(&mut hasher);
                view.epoch.hash(&mut hasher);
                for replica in &view.replicas {
                    (replica.id, replica.healthy, replica.in_sync).hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }

    /// Tells paths apart. Elections have one of their own.
    pub(crate) fn path_key(&self) -> u64 {
        match &self.subject {
            Subject::Request(request) => path_key(&request.target),
            Subject::Election(_) => path_key(""),
        }
    }

    /// What tells it from decisions of other kinds: method and the first part of the path, how many parts
    /// follow, and what came of the action before.
    pub(crate) fn route(&self) -> String {
        let Subject::Request(request) = &self.subject else {
            return "election".to_owned();
        };
        let path = path_and_query(&request.target).0;
        let mut parts = path.trim_start_matches('/').split('/');
        let first = parts.next().unwrap_or_default();
        let rest = "/*".repeat(parts.take(ROUTE_PARTS_MAX).count());
        let outcome = request.outcome.as_ref();
        let outcome = outcome.map_or_else(String::new, |outcome| format!(" → {}", outcome.name()));
        let first: String = first.chars().take(ROUTE_PART_MAX).collect();
        format!("{} /{first}{rest}{outcome}", request.method)
    }

    /// What the request that it is about is called.
    pub(crate) fn request_id(&self) -> Option<&str> {
        self.request()?.id.as_deref()
    }

    /// The request that it is about, where it is about one.
    pub(crate) fn request(&self) -> Option<&RequestInput> {
        match &self.subject {
            Subject::Request(request) => Some(request),
            Subject::Election(_) => None,
        }
    }

    /// Whether a version can be shown the headers that it wants to see.
    pub(crate) fn is_readable_to(&self, version: &Version) -> bool {
        match &self.subject {
            Subject::Request(request) => version.unreadable(&request.headers).is_none(),
            Subject::Election(_) => true,
        }
    }

    /// For people who may not see what clients sent: method and target of a request, without the values in its
    /// query.
    pub(crate) fn shown(&self) -> String {
        match self.request() {
            Some(request) => format!("{} {}", request.method, without_values(&request.target)),
            None => self.describe(),
        }
    }

    /// For people: method and target of a request.
    pub(crate) fn describe(&self) -> String {
        match &self.subject {
            Subject::Request(request) => format!("{} {}", request.method, request.target),
            Subject::Election(view) => format!("an election of {}", view.replicas.len()),
        }
    }

    /// Has a version decide, on this thread.
    ///
    /// # Errors
    /// Where it does not.
    pub fn evaluate(&self, version: &Version) -> Result<DecisionResult, Failure> {
        // Each version is a generation of its own: those asked before are not asked again here.
        with_instance(version.id + 1, version, |instance| {
            self.evaluate_on(version, instance)
        })
    }

    /// Has an instance of a version decide.
    pub(crate) fn evaluate_on(
        &self,
        version: &Version,
        instance: &mut Instance,
    ) -> Result<DecisionResult, Failure> {
        let subject = match &self.subject {
            Subject::Request(subject) => subject,
            Subject::Election(view) => {
                return instance
                    .elect(self.ambient, view)
                    .map(DecisionResult::Leader);
            }
        };
        let request = subject.parts(self.ambient.now_ms);
        let decision = match &subject.outcome {
            None => on_request(version, instance, self.ambient, request),
            Some(outcome) => {
                let takes = &subject.takes;
                on_outcome_afresh(version, instance, self.ambient, request, takes, outcome)
            }
        };
        decision.map(DecisionResult::Action)
    }

    /// Has a fresh instance of a version make the decision, with the memo that came with the outcome.
    /// Nobody waits for it. An election is none.
    pub(crate) fn decide_afresh(
        &self,
        version: &Version,
        memo: &[u8],
    ) -> Result<Decision, Failure> {
        let Subject::Request(subject) = &self.subject else {
            return Err(Failure::Invalid(InvalidDecision(
                "an election is no decision".into(),
            )));
        };
        let mut instance = version.start_unhurried_instance()?;
        let request = subject.parts(self.ambient.now_ms);
        let mut decision = match &subject.outcome {
            None => on_request(version, &mut instance, self.ambient, request)?,
            Some(outcome) => {
                on_outcome(version, &mut instance, self.ambient, request, memo, outcome)?
            }
        };
        decision.remarks = None;
        Ok(decision)
    }

    /// How much memory it takes beyond what is bounded for every request, in bytes, about.
    pub(crate) fn bytes_beyond(&self) -> usize {
        let outcome = self.request().and_then(|request| request.outcome.as_ref());
        let stocks = match outcome {
            Some(Outcome::Stocks(page)) => page.stocks.len(),
            _ => 0,
        };
        stocks * size_of::<Stock>()
    }

    /// How much memory the client's part of it takes, in bytes, about.
    pub(crate) fn bytes_of_request(&self) -> usize {
        let Some(request) = self.request() else {
            return 0;
        };
        let headers = request.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
        let body = request.body.as_ref().map_or(0, Vec::len);
        request.target.len() + headers.sum::<usize>() + body
    }

    /// The same as [`bytes_beyond`](Self::bytes_beyond) of it and its decision.
    pub(crate) fn bytes(&self, result: &DecisionResult) -> usize {
        let reply = match result {
            DecisionResult::Action(Decision {
                action: Action::Respond(reply),
                ..
            }) => reply.bytes(),
            _ => 0,
        };
        self.bytes_beyond() + reply
    }
}

/// Shorter texts are no secrets, and occur everywhere.
const SECRET_BYTES_MIN: usize = 5;

/// Shorter lists of numbers are no texts.
const NUMBERS_MIN: usize = 4;

/// What is shown of a path, in bytes, and how many names of headers.
const PATH_SHOWN_MAX: usize = 200;
const HEADERS_SHOWN_MAX: usize = 32;

/// A text without lists of numbers, in which people write down bytes.
fn without_numbers(text: &str) -> String {
    let is_list = |c: char| c.is_ascii_digit() || c == ',' || c == ' ';
    let mut rest = text;
    let mut kept = String::new();
    while let Some(begin) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, list) = rest.split_at(begin);
        let end = list.find(|c| !is_list(c)).unwrap_or(list.len());
        let (list, after) = list.split_at(end);
        kept.push_str(before);
        match list.matches(',').count() >= NUMBERS_MIN {
            true => kept.push('…'),
            false => kept.push_str(list),
        }
        rest = after;
    }
    kept + rest
}

/// Tells the paths of targets apart.
pub(crate) fn path_key(target: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path_and_query(target).0.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_a_client_sent_is_in_no_text_whichever_way_it_was_written() {
        let mut headers = HeaderMap::new();
        let cookie = HeaderValue::from_static("session=abcdef; theme=dark");
        headers.insert("cookie", cookie);
        // As in RFC 7617: Aladdin, with that password.
        let basic = HeaderValue::from_static("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        headers.insert("proxy-authorization", basic);
        headers.insert(
            "authorization",
            HeaderValue::from_bytes(b"Bearer hunter2\xff").unwrap(),
        );
        let request = RequestInput {
            id: None,
            method: Method::POST,
            target: "/orders?token&for=sesame%20seed&key=s%3Dame%2f1&pw=p%40s%26w0rd".to_owned(),
            headers,
            connection: None,
            body: Some(br#"{"pin":"123456","pass":"say \"fri\u0065nd\""}"#.to_vec()),
            takes: Vec::new(),
            outcome: None,
        };
        let input = DecisionInput {
            subject: Subject::Request(Box::new(request)),
            ambient: Ambient { now_ms: 0, seed: 0 },
        };
        for (text, shown) in [
            ("at abcdef", "at …"),
            ("hunter2 is not it", "… is not it"),
            ("pin 123456", "pin …"),
            ("bytes: [104, 117, 110, 116, 101, 114, 50]", "bytes: […]"),
            ("line 15, column 9, of 3", "line 15, column 9, of 3"),
            ("no token", "no …"),
            ("for sesame seed", "for …"),
            ("for sesame%20seed", "for …"),
            ("its key: s=ame/1", "its key: …"),
            ("pw p@s&w0rd", "pw …"),
            ("user Aladdin, open sesame", "user …, …"),
            ("say \"friend\" and enter", "… and enter"),
        ] {
            assert_eq!(input.redact(text), shown);
        }
        let shown = input.redacted();
        assert_eq!(
            shown,
            "POST /orders?… of 55 bytes, headers: authorization cookie proxy-authorization, body of 45 bytes"
        );
    }
}
