//! A decision as people compare it, field by field.

use std::borrow::Cow;

use domain::StockName;
use serde::{Deserialize, Serialize};

use super::headers::{HeaderChoice, LEFT_OUT};
use crate::decision::{Action, Caching, Decision, Listing, Operation, Reply};
use crate::evaluate::input::DecisionResult;
use crate::guest::failure::Failure;

/// The names of all fields that decisions have.
pub(super) const FIELDS: [&str; 14] = [
    "action",
    "after",
    "body",
    "caching",
    "headers",
    "idempotency-key",
    "keep",
    "leader",
    "limit",
    "name",
    "number",
    "quantity",
    "side",
    "status",
];

/// A decision as people compare it: its fields by name, the action itself first. Memos are each
/// policy's own business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Fields(Vec<(Cow<'static, str>, String)>);

/// One thing in which two decisions differ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference<'a> {
    pub(super) kind: &'a str,
    pub(super) active: &'a str,
    pub(super) candidate: &'a str,
}

impl Fields {
    pub(super) fn differences<'a>(&'a self, candidate: &'a Self) -> Vec<Difference<'a>> {
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

impl Fields {
    /// Changes values, where there is another one for a field of that name with that value.
    pub(super) fn change(&mut self, change: impl Fn(&str, &str) -> Option<String>) {
        for (name, value) in &mut self.0 {
            if let Some(changed) = change(name, value) {
                *value = changed;
            }
        }
    }

    /// A decision as a recording has it: without these values, wherever the policy has put them, and
    /// without credentials of its own that nobody named.
    pub(super) fn redact(&mut self, values: &[&str], headers: &HeaderChoice) {
        self.change(|field, text| {
            let mut text = text.to_owned();
            if field == "headers" {
                let lines = text.split('\n').map(|line| match line.split_once(": ") {
                    Some((name, _)) if !headers.covers_in_reply(name) => {
                        format!("{name}: {LEFT_OUT}")
                    }
                    _ => line.to_owned(),
                });
                text = lines.collect::<Vec<_>>().join("\n");
            }
            for value in values {
                text = text.replace(value, LEFT_OUT);
            }
            Some(text)
        });
    }

    /// The value of a field.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.iter().filter(|(field, _)| *field == name);
        found.next().map(|(_, value)| value)
    }

    /// Each field's name and value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }
}

impl From<&Result<DecisionResult, Failure>> for Fields {
    fn from(result: &Result<DecisionResult, Failure>) -> Self {
        let failed = |how: String| Self(vec![("action".into(), how)]);
        match result {
            Ok(result) => result.into(),
            Err(Failure::Trap(_)) => failed("trapped".into()),
            Err(Failure::Overrun(_)) => failed("took too long".into()),
            Err(Failure::Invalid(problem)) => failed(format!("invalid: {problem}")),
        }
    }
}

impl From<&DecisionResult> for Fields {
    fn from(result: &DecisionResult) -> Self {
        match result {
            DecisionResult::Action(decision) => decision.into(),
            DecisionResult::Leader(leader) => {
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

/// As recordings have it, since before it had a key.
fn shown(caching: &Caching) -> String {
    let Caching {
        freshness,
        stale_on_error,
        vary_key: _,
    } = caching;
    format!("Caching {{ freshness: {freshness:?}, stale_on_error: {stale_on_error:?} }}")
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
                ("caching", shown(caching)),
                ("vary-key", caching.vary_key.escape_ascii().to_string()),
            ]
        }
        Action::Perform(Operation::ReadOrder { number, caching }) => {
            vec![
                ("action", "read-order".into()),
                ("number", number.to_string()),
                ("caching", shown(caching)),
                ("vary-key", caching.vary_key.escape_ascii().to_string()),
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
        Action::Perform(Operation::ListOrders(listing)) => {
            let stock = listing.stock.as_ref().map(StockName::as_str);
            vec![
                ("action", "list-orders".into()),
                ("after", format!("{:?}", listing.after.map(|after| after.0))),
                ("limit", listing.limit.to_string()),
                ("name", format!("{stock:?}")),
            ]
        }
        Action::Perform(Operation::FollowOrders { after }) => vec![
            ("action", "follow-orders".into()),
            ("after", format!("{:?}", after.map(|after| after.0))),
        ],
        Action::Perform(Operation::Trade(trade)) => vec![
            ("action", "trade".into()),
            ("name", trade.name.to_string()),
            ("side", trade.side.to_string()),
            ("quantity", trade.quantity.to_string()),
            ("idempotency-key", format!("{:?}", trade.key)),
        ],
        Action::Perform(Operation::Take(take)) => vec![
            ("action", "take".into()),
            ("bucket", take.bucket.clone()),
            ("key", take.key.escape_ascii().to_string()),
            ("cost", take.cost.to_string()),
        ],
        Action::Retry(after) => vec![("action", "retry".into()), ("after", format!("{after:?}"))],
    }
}

#[cfg(test)]
impl Fields {
    /// A decision with these fields.
    pub(super) fn of<const N: usize>(fields: [(&str, &str); N]) -> Self {
        let fields = fields.map(|(name, value)| (name.to_owned().into(), value.to_owned()));
        Self(fields.into())
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
            remarks: None,
        }
    }

    fn kinds(active: &Decision, candidate: Result<Decision, Failure>) -> Vec<String> {
        let candidate = candidate.map(DecisionResult::Action);
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
            remarks: None,
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
    fn what_is_left_out_of_a_request_is_left_out_of_the_decision_about_it() {
        let mut fields = Fields::of([
            ("action", "trade"),
            ("idempotency-key", "Some(\"alice s3cret 17\")"),
            ("headers", "etag: \"1\"\nset-cookie: \"id=7\""),
        ]);
        fields.redact(&["alice s3cret", "s3cret"], &HeaderChoice::default());
        assert_eq!(
            fields.get("idempotency-key"),
            Some("Some(\"(left out) 17\")")
        );
        let headers = "etag: \"1\"\nset-cookie: (left out)";
        assert_eq!(fields.get("headers"), Some(headers));
    }

    /// The names by which people mask.
    #[test]
    fn every_field_of_an_action_has_its_name_in_the_list() {
        let page = Listing::Page {
            after: None,
            limit: 1,
        };
        let actions = [
            respond(StatusCode::OK, "").action,
            Action::Perform(Operation::ListStocks(page)),
            Action::Retry(Duration::ZERO),
        ];
        for action in actions {
            for (name, _) in action_fields(&action) {
                assert!(FIELDS.contains(&name), "{name}");
            }
        }
        assert!(FIELDS.is_sorted());
    }

    #[test]
    fn elections_are_compared_by_who_should_lead() {
        let elected = |id: u32| Fields::from(&DecisionResult::Leader(ReplicaId::new(id)));
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
}
