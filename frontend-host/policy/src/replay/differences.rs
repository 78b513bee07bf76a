//! Where two policies decide differently, field by field.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::fields::{Difference, Fields};
use super::headers::HeaderChoice;
use crate::evaluate::input::DecisionInput;

/// Examples kept of each kind of difference: the newest.
const EXAMPLES_PER_KIND_MAX: usize = 4;

/// Groups of like differences, and as many again that are of more kinds.
const GROUPS_MAX: usize = 100;

/// Longest value that groups are told apart by, in bytes.
const GROUP_VALUE_BYTES_MAX: usize = 40;

/// What an example shows of a text, in bytes.
const EXAMPLE_BYTES_MAX: usize = 512;

/// Where a candidate decided differently.
#[derive(Debug, Default)]
pub struct Differences {
    found: Mutex<Found>,
    /// Those who serve count here, and wait for nobody.
    dropped: AtomicU64,
}

/// What was found so far.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Found {
    /// Decisions that both made.
    pub compared: u64,
    /// Those of them that differed in something.
    pub different: u64,
    /// Decisions that the candidate was too slow to be asked for.
    pub dropped: u64,
    /// How many differed in what. A decision may differ in several things.
    pub kinds: BTreeMap<String, u64>,
    /// How many differed alike.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// The newest of each kind.
    pub examples: VecDeque<Example>,
}

/// Decisions that differed alike: on the same route, in the same field, from the same to the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Method and the first part of the path, and what came of the action before.
    pub route: String,
    /// A field; of headers one that differs, as `headers.etag`.
    pub field: String,
    /// What the active version decided: nothing where it is long, or the group is of all kinds.
    pub from: String,
    /// What the candidate decided.
    pub to: String,
    pub count: u64,
}

/// A decision that differed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Example {
    /// The field that differed, such as `status`.
    pub kind: String,
    /// What was asked: method and target of a request, without the values in its query, or that it was an
    /// election.
    pub request: String,
    /// The request's `x-request-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What the active version decided.
    pub active: String,
    /// What the candidate decided.
    pub candidate: String,
}

impl Differences {
    /// A copy of what was found so far.
    pub fn snapshot(&self) -> Found {
        Found {
            dropped: self.dropped.load(Ordering::Relaxed),
            ..self.found().clone()
        }
    }

    /// How many decisions both made.
    pub fn compared(&self) -> u64 {
        self.found().compared
    }

    /// Counts a decision that the candidate was not asked for.
    pub(crate) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Compares a decision that both made. Where they differ, `redacted` are both without secrets, which is
    /// what examples show of them; cookies are left out here.
    pub(crate) fn compare(
        &self,
        input: &DecisionInput,
        active: &Fields,
        candidate: &Fields,
        redacted: impl FnOnce() -> [Fields; 2],
    ) {
        let differences = active.differences(candidate);
        if differences.is_empty() {
            self.found().compared += 1;
            return;
        }
        let mut redacted = redacted();
        for fields in &mut redacted {
            fields.leave_out_headers(&HeaderChoice::default());
        }
        let (route, request) = (input.route(), input.shown());
        let mut found = self.found();
        found.compared += 1;
        found.different += 1;
        for Difference { kind, .. } in differences {
            *found.kinds.entry(kind.to_owned()).or_default() += 1;
            let value = |fields: &Fields| fields.get(kind).unwrap_or_default().to_owned();
            let both = redacted.each_ref().map(value);
            found.group(&route, kind, &both);
            found.make_room(kind);
            found.examples.push_back(Example {
                kind: kind.to_owned(),
                request: shown(&request),
                request_id: input.request_id().map(str::to_owned),
                active: shown(&both[0]),
                candidate: shown(&both[1]),
            });
        }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    /// Counts a difference among those that are like it.
    fn group(&mut self, route: &str, kind: &str, [from, to]: &[String; 2]) {
        if kind != "headers" {
            return self.count_group(route, kind, short(from), short(to));
        }
        let [before, now] = [from, to].map(|text| {
            let lines = text.split('\n').filter_map(|line| line.split_once(": "));
            lines.collect::<BTreeMap<_, _>>()
        });
        let names: BTreeSet<_> = before.keys().chain(now.keys()).copied().collect();
        for name in names {
            let [from, to] = [&before, &now].map(|lines| lines.get(name).copied().unwrap_or("-"));
            if from != to {
                self.count_group(route, &format!("headers.{name}"), short(from), short(to));
            }
        }
    }

    /// Where there is no room for another group, in one that is of more kinds.
    fn count_group(&mut self, route: &str, field: &str, from: &str, to: &str) {
        for [route, field, from, to] in [
            [route, field, from, to],
            [route, field, "", ""],
            ["others", "others", "", ""],
        ] {
            let is_it = |group: &&mut Group| {
                group.route == route && group.field == field && group.from == from && group.to == to
            };
            if let Some(group) = self.groups.iter_mut().find(is_it) {
                group.count += 1;
                return;
            }
            let room = match (from, route) {
                (_, "others") => usize::MAX,
                ("", _) => GROUPS_MAX * 2,
                _ => GROUPS_MAX,
            };
            if self.groups.len() < room {
                self.groups.push(Group {
                    route: route.to_owned(),
                    field: field.to_owned(),
                    from: from.to_owned(),
                    to: to.to_owned(),
                    count: 1,
                });
                return;
            }
        }
    }

    /// Forgets the oldest example of a kind that has as many as are kept.
    fn make_room(&mut self, kind: &str) {
        let of_kind = || {
            self.examples
                .iter()
                .enumerate()
                .filter(|(_, example)| example.kind == kind)
        };
        if of_kind().count() >= EXAMPLES_PER_KIND_MAX
            && let Some((oldest, _)) = of_kind().next()
        {
            self.examples.remove(oldest);
        }
    }
}

/// What a group tells values apart by: short ones.
fn short(value: &str) -> &str {
    match value.len() <= GROUP_VALUE_BYTES_MAX {
        true => value,
        false => "",
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

#[cfg(test)]
mod tests {
    use super::super::left_out::{LeftOut, Shown};
    use super::*;
    use crate::decision::{Action, Decision, Reply};
    use crate::evaluate::RequestParts;
    use crate::guest::instance::Ambient;
    use bytes::Bytes;
    use http::{HeaderMap, Method, StatusCode};

    fn asked(target: &str) -> DecisionInput {
        let request = RequestParts {
            method: &Method::GET,
            target,
            headers: &HeaderMap::new(),
            connection: None,
            body: None,
            now_ms: 0,
            id: None,
        };
        DecisionInput::of_request(request, Ambient { now_ms: 0, seed: 0 }, &[], None)
    }

    fn respond(status: StatusCode, body: &'static str) -> Decision {
        let reply = Reply {
            status,
            headers: HeaderMap::new(),
            body: Bytes::from(body),
            keep: None,
        };
        Decision {
            action: Action::Respond(Box::new(reply)),
            memo: Vec::new(),
            remarks: None,
        }
    }

    #[test]
    fn examples_show_no_credentials() {
        let differences = Differences::default();
        let values = [b"s3cret".to_vec()];
        let left_out = LeftOut::new(values.into(), Shown::default(), std::iter::empty());
        let [before, now] = ["one", "two"].map(|id| {
            let headers = format!("etag: \"{id}\"\nset-cookie: \"id={id}\"");
            let fields = |body: &str| {
                Fields::of([("action", "respond"), ("headers", &headers), ("body", body)])
            };
            let body = format!("for s3cret, {id}");
            [fields(&body), fields(&left_out.text(&body))]
        });
        let input = asked("/stocks?token=s3cret&limit=10");
        differences.compare(&input, &before[0], &now[0], || {
            [before[1].clone(), now[1].clone()]
        });
        let found = differences.snapshot();
        let headers = &found.examples[0];
        assert_eq!(headers.request, "GET /stocks?token=*&limit=*");
        assert_eq!(headers.active, "etag: \"one\"\nset-cookie: (left out)");
        assert_eq!(found.examples[1].candidate, "for (left out), two");
    }

    #[test]
    fn groups_are_bounded_and_count_all() {
        let differences = Differences::default();
        for round in 0..1_000 {
            let [before, now] = ["one", "two"].map(|id| {
                let headers = format!("etag: {id}-{round}\nvary: origin");
                Fields::of([("action", "respond"), ("headers", &headers)])
            });
            let input = asked(&format!("/{}", round % 300));
            differences.compare(&input, &before, &now, || [before.clone(), now.clone()]);
        }
        let found = differences.snapshot();
        assert_eq!(found.groups.len(), 2 * GROUPS_MAX + 1);
        let counted: u64 = found.groups.iter().map(|group| group.count).sum();
        assert_eq!((found.different, counted), (1_000, 1_000));
        assert!(found.groups.iter().all(|it| it.field != "headers.vary"));
    }

    #[test]
    fn examples_are_bounded_and_the_newest() {
        let differences = Differences::default();
        let (active, candidate) = (
            respond(StatusCode::OK, "a"),
            respond(StatusCode::NOT_FOUND, "a"),
        );
        let [active, candidate] = [Fields::from(&active), Fields::from(&candidate)];
        for round in 0..20 {
            let input = asked(&format!("/stocks/{round}"));
            differences.compare(&input, &active, &candidate, || {
                [active.clone(), candidate.clone()]
            });
        }
        let found = differences.snapshot();
        assert_eq!(
            (found.compared, found.different, found.kinds["status"]),
            (20, 20, 20)
        );
        let group = Group {
            route: "GET /stocks/*".into(),
            field: "status".into(),
            from: "200".into(),
            to: "404".into(),
            count: 20,
        };
        assert_eq!(found.groups, [group]);
        assert_eq!(found.examples.len(), EXAMPLES_PER_KIND_MAX);
        assert_eq!(found.examples.back().unwrap().request, "GET /stocks/19");
    }
}
