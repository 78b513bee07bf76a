//! Recordings as tests: each decision is made again, and must be as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::time::{Duration, Instant};

use http::HeaderMap;
use serde::Serialize;

use super::fields::Fields;
use super::format::{RecordingError, read};
use super::masks::Mask;
use super::minimize::{Minimized, Reducible, minimize};
use crate::evaluate::input::{DecisionInput, RequestInput, Subject};
use crate::guest::version::Version;

/// Failures that are shown, and those of them that are alike.
const FAILURES_MAX: usize = 20;
const ALIKE_MAX: usize = 3;

/// Routes that are told apart; the rest are counted together.
const ROUTES_MAX: usize = 100;
const OTHER_ROUTES: &str = "others";

/// What is shown of a value, in bytes, and how much of it before the first byte that differs.
const SHOWN_BYTES_MAX: usize = 512;
const SHOWN_BEFORE: usize = 60;

/// Failures that are minimised, each of another kind, and how long each may take: a policy that hangs
/// takes its time for every request that is tried.
const MINIMIZED_MAX: usize = 8;
const MINIMIZE_TIME_MAX: Duration = Duration::from_secs(20);

/// What came of decisions that were made again.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Decisions that were made again.
    pub decisions: u64,
    /// Those that came out differently.
    pub failed: u64,
    /// How many did on a route, by the fields in which they did.
    pub routes: BTreeMap<String, BTreeMap<String, u64>>,
    /// The first of them.
    pub failures: Vec<FailedDecision>,
}

/// A decision that came out differently.
#[derive(Debug, Serialize)]
pub struct FailedDecision {
    /// Where it is recorded.
    pub recording: String,
    /// The line, counted from 1.
    pub line: usize,
    pub route: String,
    /// What was asked.
    pub request: String,
    pub differences: Vec<FieldDifference>,
    /// The smallest requests that still show it, where they were looked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub smallest: Vec<Smallest>,
    #[serde(skip)]
    input: DecisionInput,
}

/// A field that is not as it was.
#[derive(Debug, Serialize)]
pub struct FieldDifference {
    pub field: String,
    pub recorded: String,
    pub now: String,
}

/// The smallest request found by which two policies differ in a field.
#[derive(Debug, Serialize)]
pub struct Smallest {
    pub field: String,
    /// A line that sends it; none where the two policies do not differ by the request that was recorded.
    pub curl: Option<String>,
    /// Whether they differ only about its outcome, which a gateway must have.
    pub about_outcome: bool,
    /// Requests that were tried.
    pub steps: usize,
}

impl Report {
    /// Has a version make a recording's decisions again.
    ///
    /// # Errors
    /// Where the recording cannot be read. Decisions that differ, or fail, are not errors.
    pub fn add(
        &mut self,
        name: &str,
        recording: impl BufRead,
        version: &Version,
        masks: &[Mask],
    ) -> Result<(), RecordingError> {
        read(recording, |line, input, recorded| {
            let now = Fields::from(&input.evaluate(version));
            let differences = differences(&recorded, &now, masks);
            self.count(name, line, input, differences);
        })
    }

    fn count(
        &mut self,
        recording: &str,
        line: usize,
        input: DecisionInput,
        differences: Vec<FieldDifference>,
    ) {
        self.decisions += 1;
        if differences.is_empty() {
            return;
        }
        self.failed += 1;
        let route = match input.route() {
            route if self.routes.contains_key(&route) || self.routes.len() < ROUTES_MAX => route,
            _ => OTHER_ROUTES.to_owned(),
        };
        let fields = self.routes.entry(route.clone()).or_default();
        for difference in &differences {
            *fields.entry(difference.field.clone()).or_default() += 1;
        }
        let kind = |differences: &[FieldDifference]| -> Vec<String> {
            differences.iter().map(|it| it.field.clone()).collect()
        };
        let is_alike = |failure: &&FailedDecision| {
            failure.route == route && kind(&failure.differences) == kind(&differences)
        };
        let alike = self.failures.iter().filter(is_alike).count();
        if self.failures.len() < FAILURES_MAX && alike < ALIKE_MAX {
            self.failures.push(FailedDecision {
                recording: recording.to_owned(),
                line,
                route,
                request: excerpt(&input.describe(), 0),
                differences,
                smallest: Vec::new(),
                input,
            });
        }
    }

    /// Looks for the smallest requests by which `version` still differs from `baseline`, which made the
    /// recordings: one for each kind of failure.
    pub fn minimize(&mut self, baseline: &Version, version: &Version, masks: &[Mask]) {
        let mut done = BTreeSet::new();
        for failure in &mut self.failures {
            for difference in &failure.differences {
                let kind = (failure.route.clone(), difference.field.clone());
                if done.len() < MINIMIZED_MAX && done.insert(kind) {
                    let field = &difference.field;
                    let smallest = smallest(&failure.input, field, [baseline, version], masks);
                    failure.smallest.extend(smallest);
                }
            }
        }
    }
}

/// None of an election, which no request shows.
fn smallest(
    input: &DecisionInput,
    field: &str,
    [baseline, version]: [&Version; 2],
    masks: &[Mask],
) -> Option<Smallest> {
    let Subject::Request(request) = &input.subject else {
        return None;
    };
    let begun = Instant::now();
    let shows = |changed: &Reducible| {
        if begun.elapsed() > MINIMIZE_TIME_MAX {
            return false;
        }
        let input = with_request(input, request, changed);
        let [before, now] = [baseline, version].map(|it| Fields::from(&input.evaluate(it)));
        differences(&before, &now, masks)
            .iter()
            .any(|difference| difference.field == field)
    };
    let recorded = Reducible {
        method: request.method.clone(),
        target: request.target.clone(),
        headers: request
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        body: request.body.clone(),
        about_outcome: request.outcome.is_some(),
    };
    let mut smallest = Smallest {
        field: field.to_owned(),
        curl: None,
        about_outcome: recorded.about_outcome,
        steps: 0,
    };
    if shows(&recorded) {
        let Minimized { request, steps } = minimize(recorded, shows);
        smallest.curl = Some(request.curl());
        smallest.about_outcome = request.about_outcome;
        smallest.steps = steps;
    }
    Some(smallest)
}

/// The same decision about a changed request.
fn with_request(
    input: &DecisionInput,
    request: &RequestInput,
    changed: &Reducible,
) -> DecisionInput {
    let mut headers = HeaderMap::new();
    for (name, value) in &changed.headers {
        headers.append(name.clone(), value.clone());
    }
    let outcome = request.outcome.as_ref();
    let request = RequestInput {
        id: None,
        method: changed.method.clone(),
        target: changed.target.clone(),
        headers,
        connection: request.connection,
        body: changed.body.clone(),
        takes: request.takes.clone(),
        outcome: outcome.filter(|_| changed.about_outcome).cloned(),
    };
    DecisionInput {
        subject: Subject::Request(Box::new(request)),
        ambient: input.ambient,
    }
}

/// Where two decisions differ that were recorded, or made with the same input.
pub(super) fn differences(recorded: &Fields, now: &Fields, masks: &[Mask]) -> Vec<FieldDifference> {
    let [mut recorded, mut now] = [recorded, now].map(Clone::clone);
    let left_out = Mask::of_left_out(&recorded);
    for mask in left_out.iter().chain(masks) {
        mask.apply(&mut recorded);
        mask.apply(&mut now);
    }
    let differences = recorded.differences(&now).into_iter().map(|difference| {
        let [recorded, now] = [difference.active, difference.candidate];
        let same = recorded.bytes().zip(now.bytes());
        let same = same.take_while(|(one, other)| one == other).count();
        FieldDifference {
            field: difference.kind.to_owned(),
            recorded: excerpt(recorded, same),
            now: excerpt(now, same),
        }
    });
    differences.collect()
}

/// What is shown of a text whose byte at `place` matters.
fn excerpt(text: &str, place: usize) -> String {
    let begin = match place.checked_sub(SHOWN_BEFORE) {
        Some(begin) if text.len() > SHOWN_BYTES_MAX => text.floor_char_boundary(begin),
        _ => 0,
    };
    let end = text.floor_char_boundary(begin.saturating_add(SHOWN_BYTES_MAX));
    let [before, after] = [begin > 0, end < text.len()].map(|cut| if cut { "…" } else { "" });
    format!("{before}{}{after}", &text[begin..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Outcome;
    use crate::guest::instance::Ambient;
    use http::Method;

    fn asked(target: &str, outcome: Option<Outcome>) -> DecisionInput {
        let request = RequestInput {
            id: None,
            method: Method::GET,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            connection: None,
            body: None,
            takes: Vec::new(),
            outcome,
        };
        DecisionInput {
            subject: Subject::Request(Box::new(request)),
            ambient: Ambient { now_ms: 0, seed: 0 },
        }
    }

    #[test]
    fn routes_are_what_a_policy_tells_apart() {
        for (target, expected) in [
            ("/", "GET /"),
            ("/stocks", "GET /stocks"),
            ("/stocks?limit=1", "GET /stocks"),
            ("/stocks/nvidia?x=/a/b", "GET /stocks/*"),
            ("/a/b/c/d/e/f/g/h", "GET /a/*/*/*/*"),
        ] {
            assert_eq!(asked(target, None).route(), expected);
        }
        let traded = Outcome::Traded(domain::OrderNumber::default());
        assert_eq!(
            asked("/orders", Some(traded)).route(),
            "GET /orders → traded"
        );
    }

    #[test]
    fn failures_are_counted_by_route_and_field_and_shown_within_bounds() {
        let mut report = Report::default();
        let before = Fields::of([("action", "respond"), ("status", "200"), ("body", "a")]);
        let now = Fields::of([("action", "respond"), ("status", "404"), ("body", "b")]);
        for number in 0..1_000 {
            let input = asked(&format!("/{}/{number}", number % 200), None);
            let found = differences(&before, &now, &[]);
            report.count("recording", number, input, found);
            let same = differences(&before, &before, &[]);
            report.count("recording", number, asked("/", None), same);
        }
        assert_eq!((report.decisions, report.failed), (2_000, 1_000));
        assert_eq!(report.routes.len(), ROUTES_MAX + 1);
        assert_eq!(report.routes["GET /7/*"]["status"], 5);
        assert_eq!(report.routes[OTHER_ROUTES]["body"], 500);
        assert_eq!(report.failures.len(), FAILURES_MAX);
        let masks = ["status".parse().unwrap(), "body".parse().unwrap()];
        assert!(differences(&before, &now, &masks).is_empty());
    }

    #[test]
    fn what_was_left_out_of_a_recording_is_not_compared() {
        let recorded = Fields::of([
            ("action", "respond"),
            ("headers", "etag: \"1\"\nset-cookie: (left out)"),
            ("body", "for (left out)"),
        ]);
        let with = |headers: &str| {
            let now = Fields::of([
                ("action", "respond"),
                ("headers", headers),
                ("body", "for me"),
            ]);
            differences(&recorded, &now, &[]).len()
        };
        assert_eq!(with("etag: \"1\"\nset-cookie: \"a=1\""), 0);
        assert_eq!(with("etag: \"2\"\nset-cookie: \"a=1\""), 1);
    }

    #[test]
    fn a_long_value_is_shown_where_it_differs() {
        let [before, now] =
            ["a", "b"].map(|end| format!("{}{end}{}", "é".repeat(900), "x".repeat(900)));
        let [before, now] =
            [before, now].map(|it| Fields::of([("action", "respond"), ("body", &it)]));
        let found = differences(&before, &now, &[]);
        assert!(
            found[0].recorded.contains("éax") && found[0].now.contains("ébx"),
            "{found:?}"
        );
        assert!(found[0].recorded.len() < SHOWN_BYTES_MAX + 10);
    }
}
