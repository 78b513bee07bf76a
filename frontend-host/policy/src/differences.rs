//! Where two policies decide differently, field by field.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::StockName;
use serde::{Deserialize, Serialize};

use super::decision::{Action, Decision, Listing, Operation, Reply};
use super::question::Decided;
use super::sandbox::Failure;

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
    /// Decisions that differed.
    pub different: u64,
    /// Decisions that the candidate was too slow to be asked for.
    pub dropped: u64,
    /// How many differed in what. A decision may differ in several things.
    pub kinds: BTreeMap<String, u64>,
    /// Some of them.
    pub examples: VecDeque<Example>,
}

/// A decision that differed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Example {
    /// In what.
    pub kind: String,
    /// What was asked: method and target of a request, or that it was an election.
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

    /// A decision that the candidate was not asked for.
    pub(super) fn drop_one(&self) {
        self.found().dropped += 1;
    }

    /// A decision that both made.
    pub fn note(&self, request: &str, active: &Fields, candidate: &Fields) {
        let differences = active.differences(candidate);
        let mut found = self.found();
        found.compared += 1;
        found.different += u64::from(!differences.is_empty());
        for Difference {
            kind,
            active,
            candidate,
        } in differences
        {
            *found.kinds.entry(kind.to_owned()).or_default() += 1;
            found.make_room(kind);
            found.examples.push_back(Example {
                kind: kind.to_owned(),
                request: shown(request),
                active: shown(active),
                candidate: shown(candidate),
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

/// A decision as people compare it: its fields by name, the action itself first. Memos are each
/// policy's own business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fields(Vec<(Cow<'static, str>, String)>);

/// One thing in which two decisions differ.
#[derive(Debug, PartialEq, Eq)]
struct Difference<'a> {
    kind: &'a str,
    active: &'a str,
    candidate: &'a str,
}

impl Fields {
    fn differences<'a>(&'a self, candidate: &'a Self) -> Vec<Difference<'a>> {
        // Other actions have other fields: the action itself says it all.
        let same_action = self.0.first() == candidate.0.first();
        let fields = self
            .0
            .iter()
            .zip(&candidate.0)
            .take(if same_action { usize::MAX } else { 1 });
        fields
            .filter(|(active, candidate)| active.1 != candidate.1)
            .map(|(active, candidate)| Difference {
                kind: &active.0,
                active: &active.1,
                candidate: &candidate.1,
            })
            .collect()
    }
}

impl From<&Result<Decided, Failure>> for Fields {
    fn from(decided: &Result<Decided, Failure>) -> Self {
        let failed = |how: String| Self(vec![("action".into(), how)]);
        match decided {
            Ok(decided) => decided.into(),
            Err(Failure::Trap(_)) => failed("trapped".into()),
            Err(Failure::Overrun(_)) => failed("took too long".into()),
            Err(Failure::Invalid(problem)) => failed(format!("invalid: {problem}")),
        }
    }
}

impl From<&Decided> for Fields {
    fn from(decided: &Decided) -> Self {
        match decided {
            Decided::Action(decision) => decision.into(),
            Decided::Leader(leader) => {
                let leader = leader.map_or("as it is".to_owned(), |leader| leader.to_string());
                Self(vec![
                    ("action".into(), "elect".into()),
                    ("leader".into(), leader),
                ])
            }
        }
    }
}

impl From<&Decision> for Fields {
    fn from(decision: &Decision) -> Self {
        let fields = action_fields(&decision.action);
        Self(
            fields
                .into_iter()
                .map(|(name, value)| (Cow::Borrowed(name), value))
                .collect(),
        )
    }
}

/// The fields of an action, by name: the action itself is the first.
fn action_fields(action: &Action) -> Vec<(&'static str, String)> {
    match action {
        Action::Respond(reply) => {
            let Reply {
                status,
                headers,
                body,
                keep,
            } = &**reply;
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
        Action::Perform(Operation::ReadStock { name, caching }) => {
            vec![
                ("action", "read-stock".into()),
                ("name", name.to_string()),
                ("caching", format!("{caching:?}")),
            ]
        }
        Action::Perform(Operation::ReadOrder { number, caching }) => {
            vec![
                ("action", "read-order".into()),
                ("number", number.to_string()),
                ("caching", format!("{caching:?}")),
            ]
        }
        Action::Perform(Operation::ListStocks(listing)) => {
            let (after, limit) = match listing {
                Listing::Page { after, limit } => (after.as_ref(), limit.to_string()),
                Listing::All => (None, "none".to_owned()),
            };
            vec![
                ("action", "list-stocks".into()),
                ("after", format!("{:?}", after.map(StockName::as_str))),
                ("limit", limit),
            ]
        }
        Action::Perform(Operation::Trade(trade)) => vec![
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
    use domain::ReplicaId;
    use http::{HeaderMap, StatusCode};
    use std::time::Duration;

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
        }
    }

    fn kinds(active: &Decision, candidate: Result<Decision, Failure>) -> Vec<String> {
        let candidate = candidate.map(Decided::Action);
        let (active, candidate) = (Fields::from(active), Fields::from(&candidate));
        active
            .differences(&candidate)
            .into_iter()
            .map(|difference| difference.kind.to_owned())
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
    fn elections_are_compared_by_who_should_lead() {
        let elected = |id: u32| Fields::from(&Decided::Leader(ReplicaId::new(id)));
        let kinds = |active: u32, candidate: u32| {
            let (active, candidate) = (elected(active), elected(candidate));
            let differences = active.differences(&candidate);
            differences
                .iter()
                .map(|found| found.kind.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(3, 3), [""; 0]);
        assert_eq!(kinds(0, 0), [""; 0], "both leave it as it is");
        assert_eq!(kinds(3, 2), ["leader"]);
        assert_eq!(kinds(3, 0), ["leader"]);
    }

    #[test]
    fn examples_are_bounded_and_the_newest() {
        let differences = Differences::default();
        let (active, candidate) = (
            respond(StatusCode::OK, "a"),
            respond(StatusCode::NOT_FOUND, "a"),
        );
        for round in 0..20 {
            differences.note(
                &format!("GET /stocks/{round}"),
                &(&active).into(),
                &(&candidate).into(),
            );
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
