//! A decision as people compare it, field by field.

use std::borrow::Cow;

use domain::{IdempotencyKey, StockName};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::headers::HeaderChoice;
use super::left_out::{LEFT_OUT, LeftOut};
use crate::decision::{Action, Caching, Decision, Listing, Operation, Reply};
use crate::evaluate::input::DecisionResult;
use crate::guest::failure::Failure;

/// The names of all fields that decisions have.
pub(super) const FIELDS: [&str; 18] = [
    "action",
    "after",
    "body",
    "bucket",
    "caching",
    "cost",
    "headers",
    "idempotency-key",
    "keep",
    "key",
    "leader",
    "limit",
    "name",
    "number",
    "quantity",
    "side",
    "status",
    "vary-key",
];

/// Fields of actions that recordings of before do not have.
const ADDED_LATER: [(&str, &str); 4] = [
    ("list-stocks", "after"),
    ("list-stocks", "limit"),
    ("read-stock", "vary-key"),
    ("read-order", "vary-key"),
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
        let is_same_action = self.0.first() == candidate.0.first();
        let most = if is_same_action { usize::MAX } else { 1 };
        let own = self.iter().map(|(name, _)| name);
        let others = candidate.iter().map(|(name, _)| name);
        let others = others.filter(|name| self.get(name).is_none());
        let differ = |kind: &&str| self.get(kind) != candidate.get(kind);
        let kinds = own.chain(others).take(most).filter(differ);
        kinds
            .map(|kind| Difference {
                kind,
                active: self.get(kind).unwrap_or_default(),
                candidate: candidate.get(kind).unwrap_or_default(),
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

    /// Leaves out what recordings have since, of one of before.
    pub(super) fn complete(&mut self) {
        for (action, field) in ADDED_LATER {
            if self.get("action") == Some(action) && self.get(field).is_none() {
                self.0.push((field.into(), LEFT_OUT.to_owned()));
            }
        }
    }

    /// Leaves credentials of the response's own out that nobody named.
    pub(super) fn leave_out_headers(&mut self, headers: &HeaderChoice) {
        self.change(|field, text| {
            let line = |line: &str| match line.split_once(": ") {
                Some((name, _)) if !headers.covers_in_reply(name) => format!("{name}: {LEFT_OUT}"),
                _ => line.to_owned(),
            };
            let lines = (field == "headers").then(|| text.split('\n').map(line));
            lines.map(|lines| lines.collect::<Vec<_>>().join("\n"))
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

impl Fields {
    /// What came of a decision, as people are shown it who may not see everything.
    pub(super) fn of_attempt(
        result: &Result<DecisionResult, Failure>,
        left_out: &LeftOut<'_>,
    ) -> Self {
        let failed = |how: &str| Self(vec![("action".into(), left_out.text(how))]);
        match result {
            Ok(result) => Self::of_result(result, left_out),
            Err(Failure::Trap(_)) => failed("trapped"),
            Err(Failure::Overrun(_)) => failed("took too long"),
            Err(Failure::Invalid(problem)) => failed(&format!("invalid: {problem}")),
        }
    }

    /// The same of one that was made.
    pub(super) fn of_result(result: &DecisionResult, left_out: &LeftOut<'_>) -> Self {
        match result {
            DecisionResult::Action(decision) => Self::of_action(&decision.action, left_out),
            DecisionResult::Leader(leader) => {
                let leader = leader.map_or("as it is".to_owned(), |leader| leader.to_string());
                Self(vec![
                    ("action".into(), "elect".into()),
                    ("leader".into(), leader),
                ])
            }
        }
    }

    fn of_action(action: &Action, left_out: &LeftOut<'_>) -> Self {
        let fields = action_fields(action, left_out).into_iter();
        Self(
            fields
                .map(|(name, value)| (Cow::Borrowed(name), value))
                .collect(),
        )
    }
}

impl From<&Result<DecisionResult, Failure>> for Fields {
    fn from(result: &Result<DecisionResult, Failure>) -> Self {
        Self::of_attempt(result, &LeftOut::default())
    }
}

impl From<&DecisionResult> for Fields {
    fn from(result: &DecisionResult) -> Self {
        Self::of_result(result, &LeftOut::default())
    }
}

impl From<&Decision> for Fields {
    fn from(decision: &Decision) -> Self {
        Self::of_action(&decision.action, &LeftOut::default())
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
fn action_fields(action: &Action, left_out: &LeftOut<'_>) -> Vec<(&'static str, String)> {
    let escaped = |bytes: &[u8]| left_out.bytes(bytes).escape_ascii().to_string();
    match action {
        Action::Respond(reply) => {
            let Reply {
                status,
                headers,
                body,
                keep,
            } = &**reply;
            let lines = headers.iter();
            let lines = lines.map(|(name, value)| header_line(name, value, left_out));
            let mut headers: Vec<_> = lines.collect();
            headers.sort();
            vec![
                ("action", "respond".into()),
                ("status", status.as_u16().to_string()),
                ("headers", headers.join("\n")),
                ("body", left_out.text(&String::from_utf8_lossy(body))),
                ("keep", format!("{keep:?}")),
            ]
        }
        Action::Perform(Operation::ReadStock { name, caching }) => {
            vec![
                ("action", "read-stock".into()),
                ("name", left_out.text(name.as_str())),
                ("caching", shown(caching)),
                ("vary-key", escaped(&caching.vary_key)),
            ]
        }
        Action::Perform(Operation::ReadOrder { number, caching }) => {
            vec![
                ("action", "read-order".into()),
                ("number", left_out.text(&number.to_string())),
                ("caching", shown(caching)),
                ("vary-key", escaped(&caching.vary_key)),
            ]
        }
        Action::Perform(Operation::ListStocks(listing)) => {
            let (after, limit) = match listing {
                Listing::Page { after, limit } => (after.as_ref(), limit.to_string()),
                Listing::All => (None, "none".to_owned()),
            };
            let after = after.map(|after| left_out.text(after.as_str()));
            vec![
                ("action", "list-stocks".into()),
                ("after", format!("{after:?}")),
                ("limit", limit),
            ]
        }
        Action::Perform(Operation::ListOrders(listing)) => {
            let stock = listing.stock.as_ref().map(StockName::as_str);
            let stock = stock.map(|stock| left_out.text(stock));
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
            ("name", left_out.text(trade.name.as_str())),
            ("side", trade.side.to_string()),
            ("quantity", trade.quantity.to_string()),
            ("idempotency-key", key_shown(trade.key.as_ref(), left_out)),
        ],
        Action::Perform(Operation::Take(take)) => vec![
            ("action", "take".into()),
            ("bucket", take.bucket.clone()),
            ("key", escaped(&take.key)),
            ("cost", take.cost.to_string()),
        ],
        Action::Retry(after) => vec![("action", "retry".into()), ("after", format!("{after:?}"))],
    }
}

/// A header of a response.
fn header_line(name: &HeaderName, value: &HeaderValue, left_out: &LeftOut<'_>) -> String {
    match left_out.bytes(value.as_bytes()) {
        Cow::Borrowed(_) => format!("{name}: {value:?}"),
        Cow::Owned(value) => format!("{name}: {:?}", String::from_utf8_lossy(&value)),
    }
}

fn key_shown(key: Option<&IdempotencyKey>, left_out: &LeftOut<'_>) -> String {
    match key.map(|key| left_out.bytes(key.as_str().as_bytes())) {
        Some(Cow::Owned(key)) => format!("Some({:?})", String::from_utf8_lossy(&key)),
        _ => format!("{key:?}"),
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
    use super::super::left_out::Shown;
    use super::*;
    use crate::decision::{Freshness, OrderListing, TakeAction, TradeAction};
    use bytes::Bytes;
    use domain::{OrderNumber, Quantity, ReplicaId, Side};
    use http::{HeaderMap, StatusCode};
    use std::collections::BTreeSet;
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
        let values = [&b"alice s3cret"[..], b"s3cret", b"a\"b\\c", b"na\xefve"];
        let values = values.map(<[u8]>::to_vec).into();
        let left_out = LeftOut::new(values, Shown::default(), std::iter::empty());
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("etag", &b"\"1\""[..]),
            ("set-cookie", b"id=7"),
            ("x-quoted", b"of a\"b\\c"),
            ("x-latin-1", b"of na\xefve"),
        ] {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.insert(HeaderName::from_static(name), value);
        }
        let reply = Reply {
            status: StatusCode::OK,
            headers,
            body: Bytes::from_static(b"{\"for\":\"na\xefve\"}"),
            keep: None,
        };
        let respond = Action::Respond(Box::new(reply));
        let mut fields = Fields::of_action(&respond, &left_out);
        fields.leave_out_headers(&HeaderChoice::default());
        let headers = [
            "etag: \"\\\"1\\\"\"",
            "set-cookie: (left out)",
            "x-latin-1: \"of (left out)\"",
            "x-quoted: \"of (left out)\"",
        ];
        assert_eq!(fields.get("headers"), Some(headers.join("\n").as_str()));
        assert_eq!(fields.get("body"), Some("{\"for\":\"(left out)\"}"));

        let trade = Action::Perform(Operation::Trade(TradeAction {
            name: StockName::new("nvidia").unwrap(),
            side: Side::Buy,
            quantity: Quantity::new(1).unwrap(),
            key: Some(IdempotencyKey::new("alice s3cret 17").unwrap()),
        }));
        let fields = Fields::of_action(&trade, &left_out);
        assert_eq!(
            fields.get("idempotency-key"),
            Some("Some(\"(left out) 17\")")
        );
        let take = Action::Perform(Operation::Take(TakeAction {
            bucket: "lookups".to_owned(),
            key: b"of \xff a\"b\\c".to_vec(),
            cost: 1,
        }));
        let fields = Fields::of_action(&take, &left_out);
        let key = fields.get("key").unwrap();
        assert!(key.ends_with(" (left out)"), "{key}");
    }

    /// One of each kind.
    fn all_decisions() -> Vec<DecisionResult> {
        let name = StockName::new("nvidia").unwrap();
        let number = OrderNumber::default();
        let caching = Caching {
            freshness: Freshness::Bypass,
            stale_on_error: Duration::ZERO,
            vary_key: Box::default(),
        };
        let trade = TradeAction {
            name: name.clone(),
            side: Side::Buy,
            quantity: Quantity::new(1).unwrap(),
            key: None,
        };
        let take = TakeAction {
            bucket: "lookups".to_owned(),
            key: Vec::new(),
            cost: 1,
        };
        let orders = OrderListing {
            after: None,
            limit: 1,
            stock: None,
        };
        let performed = [
            Operation::ReadStock {
                name,
                caching: caching.clone(),
            },
            Operation::ReadOrder { number, caching },
            Operation::ListStocks(Listing::All),
            Operation::ListOrders(orders),
            Operation::FollowOrders { after: None },
            Operation::Trade(trade),
            Operation::Take(take),
        ];
        let mut actions = vec![
            respond(StatusCode::OK, "").action,
            Action::Retry(Duration::ZERO),
        ];
        actions.extend(performed.map(Action::Perform));
        let decided = actions.into_iter().map(|action| {
            DecisionResult::Action(Decision {
                action,
                memo: Vec::new(),
                remarks: None,
            })
        });
        decided.chain([DecisionResult::Leader(None)]).collect()
    }

    /// The names by which people mask.
    #[test]
    fn every_field_of_a_decision_has_its_name_in_the_list_and_none_is_there_besides() {
        let decisions = all_decisions();
        let decisions: Vec<_> = decisions.iter().map(Fields::from).collect();
        let actions: BTreeSet<_> = decisions.iter().map(|it| it.get("action")).collect();
        assert_eq!((actions.len(), decisions.len()), (10, 10), "one of each");
        let fields = decisions.iter().flat_map(Fields::iter);
        let fields: BTreeSet<_> = fields.map(|(name, _)| name).collect();
        let named: BTreeSet<_> = FIELDS.into_iter().collect();
        assert_eq!(fields, named);
        assert!(FIELDS.is_sorted(), "as people are told of them");
    }

    #[test]
    fn a_field_that_one_of_two_has_is_a_difference_and_one_of_a_recording_of_before_is_left_out() {
        let before = Fields::of([("action", "list-stocks"), ("limit", "5")]);
        let now = Fields::of([("action", "list-stocks"), ("after", ""), ("limit", "5")]);
        for (one, other) in [(&before, &now), (&now, &before)] {
            let differences = one.differences(other);
            let kinds: Vec<_> = differences.iter().map(|it| it.kind).collect();
            assert_eq!(kinds, ["after"]);
        }
        let mut before = before;
        before.complete();
        let named: Vec<_> = before.iter().collect();
        let after = ("after", "(left out)");
        assert_eq!(named, [("action", "list-stocks"), ("limit", "5"), after]);
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
