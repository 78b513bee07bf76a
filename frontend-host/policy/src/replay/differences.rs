//! Where two policies decide differently, field by field.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::fields::{Difference, Fields};
use super::headers::HeaderChoice;

/// Examples kept of each kind of difference: the newest.
const EXAMPLES_PER_KIND_MAX: usize = 4;

/// What an example shows of a text, in bytes.
const EXAMPLE_BYTES_MAX: usize = 512;

/// Where a candidate decided differently.
#[derive(Debug, Default)]
pub struct Differences {
    found: Mutex<Found>,
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
    /// The newest of each kind.
    pub examples: VecDeque<Example>,
}

/// A decision that differed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Example {
    /// The field that differed, such as `status`.
    pub kind: String,
    /// What was asked: method and target of a request, or that it was an election.
    pub request: String,
    /// What the active version decided.
    pub active: String,
    /// What the candidate decided.
    pub candidate: String,
}

impl Differences {
    /// A copy of what was found so far.
    pub fn snapshot(&self) -> Found {
        self.found().clone()
    }

    /// Counts a decision that the candidate was not asked for.
    pub(crate) fn count_dropped(&self) {
        self.found().dropped += 1;
    }

    /// Compares a decision that both made. Examples show neither cookies nor these values, which are
    /// asked for where there is an example.
    pub(crate) fn compare<'a>(
        &self,
        request: &str,
        active: &Fields,
        candidate: &Fields,
        secrets: impl FnOnce() -> Vec<&'a str>,
    ) {
        let differences = active.differences(candidate);
        let secrets = match differences.is_empty() {
            true => Vec::new(),
            false => secrets(),
        };
        let without_secrets = |fields: &Fields, kind: &str| {
            let mut fields = fields.clone();
            fields.redact(&secrets, &HeaderChoice::default());
            shown(fields.get(kind).unwrap_or_default())
        };
        let mut found = self.found();
        found.compared += 1;
        found.different += u64::from(!differences.is_empty());
        for Difference { kind, .. } in differences {
            *found.kinds.entry(kind.to_owned()).or_default() += 1;
            found.make_room(kind);
            found.examples.push_back(Example {
                kind: kind.to_owned(),
                request: shown(request),
                active: without_secrets(active, kind),
                candidate: without_secrets(candidate, kind),
            });
        }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
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
    use super::*;
    use crate::decision::{Action, Decision, Reply};
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

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
        let [before, now] = ["one", "two"].map(|id| {
            let headers = format!("etag: \"{id}\"\nset-cookie: \"id={id}\"");
            let body = format!("for s3cret, {id}");
            Fields::of([
                ("action", "respond"),
                ("headers", &headers),
                ("body", &body),
            ])
        });
        differences.compare("GET /", &before, &now, || vec!["s3cret"]);
        let found = differences.snapshot();
        let headers = &found.examples[0];
        assert_eq!(headers.active, "etag: \"one\"\nset-cookie: (left out)");
        assert_eq!(found.examples[1].candidate, "for (left out), two");
    }

    #[test]
    fn examples_are_bounded_and_the_newest() {
        let differences = Differences::default();
        let (active, candidate) = (
            respond(StatusCode::OK, "a"),
            respond(StatusCode::NOT_FOUND, "a"),
        );
        for round in 0..20 {
            differences.compare(
                &format!("GET /stocks/{round}"),
                &(&active).into(),
                &(&candidate).into(),
                Vec::new,
            );
        }
        let found = differences.snapshot();
        assert_eq!(
            (found.compared, found.different, found.kinds["status"]),
            (20, 20, 20)
        );
        assert_eq!(found.examples.len(), EXAMPLES_PER_KIND_MAX);
        assert_eq!(found.examples.back().unwrap().request, "GET /stocks/19");
    }
}
