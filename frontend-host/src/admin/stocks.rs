//! What is traded, and changes of that. A change goes the way of a trade: it is in the journal and at every in-sync
//! replica, and no cache serves what was before, when it is answered.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Json;
use domain::{
    IdempotencyKey, Invalid, Note, Price, Quantity, StockChange, StockChangeKind, StockName,
};
use frontend_policy::Reason;
use frontend_policy::decision::{Stock, Unavailability};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::Admin;
use super::answers::Upload;
use super::refusal::Refusal;
use crate::handler::{new_key, unix_ms};

/// Stocks of a page where nobody says how many.
const PAGE_DEFAULT: u32 = 1_000;

/// Most stocks of a page.
const PAGE_MAX: u32 = 10_000;

/// What a change is answered with.
type Answer = Result<Json<Value>, Refusal>;

/// A page of stocks.
#[derive(Serialize)]
pub(super) struct Listed {
    data: Vec<Shown>,
    /// There are stocks after these.
    more: bool,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    /// As it is written: not every price is a number that floats have.
    price: Option<Box<RawValue>>,
    quantity: u64,
}

impl From<&Stock> for Shown {
    fn from(stock: &Stock) -> Self {
        Self {
            name: stock.name.as_str().to_owned(),
            price: RawValue::from_string(stock.price.to_string()).ok(),
            quantity: stock.quantity,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<u32>,
}

/// A page of the stocks, in name order.
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(page): Query<Page>,
) -> Result<Json<Listed>, Refusal> {
    let after = page.after.as_deref().map(StockName::new).transpose()?;
    let limit = page.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        let problem = format!("limit must be from 1 to {PAGE_MAX}");
        return Err(Refusal::NoStockChange(problem));
    }
    let gateway = &admin.gateway;
    let deadline = Instant::now() + gateway.read_time_max;
    let listed = gateway
        .backend
        .list_stocks(after.as_ref(), limit, deadline.into());
    let page = listed
        .await
        .map_err(|why| Refusal::NotReady(which(why).into()))?;
    Ok(Json(Listed {
        data: page.stocks.iter().map(Shown::from).collect(),
        more: page.more,
    }))
}

/// A body that lists a stock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    name: String,
    price: Box<RawValue>,
    quantity: Option<Value>,
}

pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Extension(reason): Extension<Reason>,
    headers: HeaderMap,
    Upload(body): Upload,
) -> Answer {
    let added: Added = parse(&body)?;
    StockName::new(&added.name)?.check_new()?;
    let kind = StockChangeKind::Add {
        price: price(&added.price)?,
        quantity: added.quantity.map_or(Ok(0), |it| shares(&it, "quantity"))?,
    };
    admin
        .change_stock(&added.name, kind, &reason, &headers)
        .await
}

/// A body that changes a stock: one of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    price: Option<Box<RawValue>>,
    restock: Option<Value>,
}

pub(super) async fn change(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Extension(reason): Extension<Reason>,
    headers: HeaderMap,
    Upload(body): Upload,
) -> Answer {
    let kind = match parse(&body)? {
        Changed {
            price: Some(cost),
            restock: None,
        } => StockChangeKind::Price {
            price: price(&cost)?,
        },
        Changed {
            price: None,
            restock: Some(more),
        } => StockChangeKind::Restock {
            quantity: Quantity::new(shares(&more, "restock")?)?,
        },
        Changed { .. } => {
            let problem = "say one thing to change: {\"price\":240.63} or {\"restock\":100}";
            return Err(Refusal::NoStockChange(problem.to_owned()));
        }
    };
    admin.change_stock(&name, kind, &reason, &headers).await
}

pub(super) async fn delist(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Extension(reason): Extension<Reason>,
    headers: HeaderMap,
) -> Answer {
    let kind = StockChangeKind::Delist;
    admin.change_stock(&name, kind, &reason, &headers).await
}

impl Admin {
    async fn change_stock(
        &self,
        name: &str,
        kind: StockChangeKind,
        reason: &Reason,
        headers: &HeaderMap,
    ) -> Answer {
        let change = StockChange {
            key: key(headers)?,
            name: StockName::new(name)?,
            kind: kind.check()?,
            note: Note::new(&who(reason), &reason.why),
        };
        let deadline = Instant::now() + self.gateway.trade_time_max;
        let changed = self.gateway.backend.change_stock(&change, deadline).await;
        let changed = changed.map_err(|why| Refusal::StockUnavailable(which(why)))?;
        let row = changed.map_err(refused)?;
        let name = &change.name;
        tracing::info!(
            stock = %name,
            change = %kind,
            %row,
            who = reason.who,
            known_by = reason.known_by,
            address = reason.address.map(tracing::field::display),
            why = reason.why,
            "a stock was changed"
        );
        Ok(Json(json!({
            "data": { "name": name.as_str(), "change": kind.name(), "row": row },
        })))
    }
}

/// Longest text of what says that somebody may, in bytes: what is longer ends in a part of its hash.
const KNOWN_BY_BYTES_MAX: usize = 40;

/// So much of what somebody calls themselves stays in any case, in bytes.
const NAME_BYTES_MIN: usize = 8;

/// What says that they may, where they did it from, and what they call themselves: of all three there is something, though
/// a note has no room for the longest. The address is whole; what is left is first for what is known.
fn who(reason: &Reason) -> String {
    let address = reason.address.map(|address| address.to_string());
    let name = reason.who.len().min(NAME_BYTES_MIN);
    let taken = address.as_deref().map_or(0, str::len) + name + " at ".len() + ": ".len();
    let room = Note::WHO_BYTES_MAX.saturating_sub(taken);
    let known_by = reason.known_by.as_deref().filter(|by| *by != "nothing");
    let known_by = known_by.map(|by| {
        let by = by.replace("certificate spiffe://bazaar/", "");
        shortened(by, room.min(KNOWN_BY_BYTES_MAX))
    });
    let known: Vec<String> = [known_by, address].into_iter().flatten().collect();
    format!("{}: {}", known.join(" at "), reason.who)
}

/// Bytes of a hash that stand for the rest of a text, and those where there is little room: each is two characters.
const HASH_BYTES: usize = 8;
const SHORT_HASH_BYTES: usize = 4;

/// Another one for each text, which is ASCII: its beginning and a part of its hash, where it has more bytes than that.
fn shortened(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    let has_room = bytes_max > 4 * HASH_BYTES;
    let hash_bytes = if has_room {
        HASH_BYTES
    } else {
        SHORT_HASH_BYTES
    };
    let hash = Sha256::digest(&text);
    // Nobody else changes anything.
    let name = text.strip_prefix("operator/").unwrap_or(&text);
    let begins = name.chars().filter(char::is_ascii);
    let begins: String = begins
        .take(bytes_max.saturating_sub(1 + 2 * hash_bytes))
        .collect();
    format!("{begins}~{}", domain::Hex(&hash[..hash_bytes]))
}

fn which(why: Unavailability) -> &'static str {
    match why {
        Unavailability::NoCatalog => "the catalog does not answer",
        Unavailability::NoReplica => "no order replica answers",
    }
}

fn refused(refusal: domain::Refusal) -> Refusal {
    match refusal {
        // No change takes shares.
        domain::Refusal::StockNotFound | domain::Refusal::NotEnough => Refusal::StockNotFound,
        domain::Refusal::StockExists => Refusal::StockExists,
        domain::Refusal::TooMany => Refusal::TooManyShares,
        domain::Refusal::TooManyStocks => Refusal::TooManyStocks,
        domain::Refusal::KeyConflict => Refusal::KeyConflict,
    }
}

/// The caller's, or one that nobody else has.
fn key(headers: &HeaderMap) -> Result<IdempotencyKey, Refusal> {
    let Some(given) = headers.get("idempotency-key") else {
        return Ok(new_key(unix_ms()));
    };
    let text = given.to_str().unwrap_or_default();
    // As the draft wants it, or bare.
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    Ok(IdempotencyKey::new(text)?)
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::NoStockChange(error.to_string()))
}

fn shares(value: &Value, field: &'static str) -> Result<u64, Refusal> {
    let wrong = || Invalid::new(field, format!("{value} is no number of shares"));
    Ok(value.as_u64().ok_or_else(wrong)?)
}

/// A number as it is written, or the same as a text.
fn price(value: &RawValue) -> Result<Price, Refusal> {
    let text = value.get();
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    Ok(quoted.unwrap_or(text).parse::<Price>()?)
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::NoStockChange(invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_taken_as_it_is_written() {
        for (body, minor) in [
            (
                "{\"name\":\"a\",\"price\":90071992547409.91}",
                Price::MAX_MINOR,
            ),
            (
                "{\"name\":\"a\",\"price\":\"90071992547409.91\"}",
                Price::MAX_MINOR,
            ),
            ("{\"name\":\"a\",\"price\": 0.1 }", 10),
            ("{\"name\":\"a\",\"price\":7}", 700),
        ] {
            let added: Added = parse(body.as_bytes()).unwrap();
            assert_eq!(price(&added.price).unwrap().minor(), minor, "{body}");
        }
        for body in ["1e3", "-1", "null", "[1]", "\"\"", "0.001"] {
            let body = format!("{{\"name\":\"a\",\"price\":{body}}}");
            let added: Added = parse(body.as_bytes()).unwrap();
            assert!(price(&added.price).is_err(), "{body}");
        }
    }

    #[test]
    fn who_may_is_told_before_what_they_call_themselves() {
        let who = |known_by: &str| {
            let reason = Reason {
                who: "mallory".repeat(20),
                why: String::new(),
                known_by: Some(known_by.to_owned()),
                address: Some([10, 0, 0, 1].into()),
            };
            let note = Note::new(&who(&reason), "");
            note.who().to_owned()
        };
        let alice = who("certificate spiffe://bazaar/operator/alice");
        assert!(
            alice.starts_with("operator/alice at 10.0.0.1: mallory"),
            "{alice}"
        );
        let long = |end: &str| {
            let name = "a".repeat(100);
            who(&format!("certificate spiffe://bazaar/operator/{name}{end}"))
        };
        assert!(long("b").contains(" at 10.0.0.1: "), "{}", long("b"));
        assert_ne!(long("b"), long("c"));
        assert!(who("nothing").starts_with("10.0.0.1: mallory"));
    }

    #[test]
    fn the_longest_of_all_leaves_the_address_whole_and_something_of_everything() {
        let address = "2001:db8:1234:5678:9abc:def0:1234:5678";
        let note = |operator: &str, calls_itself: &str| {
            let reason = Reason {
                who: calls_itself.to_owned(),
                why: String::new(),
                known_by: Some(format!("certificate spiffe://bazaar/operator/{operator}")),
                address: Some(address.parse().unwrap()),
            };
            Note::new(&who(&reason), "").who().to_owned()
        };
        // As long as a certificate's may be.
        let (one, other) = ("a".repeat(127) + "b", "a".repeat(127) + "c");
        let told = note(&one, "mallory-the-third");
        assert!(told.starts_with("aa"), "{told}");
        let (known_by, name) = told.split_once(&format!(" at {address}: ")).unwrap();
        assert!(known_by.len() >= 11, "{told}");
        assert!(
            "mallory-the-third".starts_with(name) && name.len() >= 8,
            "{told}"
        );
        assert_ne!(told, note(&other, "mallory-the-third"));
        // What there is room for is not cut.
        assert_eq!(note("al", "ada"), format!("operator/al at {address}: ada"));
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let reason = Reason {
            who: "ada".to_owned(),
            why: String::new(),
            known_by: Some("token".to_owned()),
            address: Some(longest.parse().unwrap()),
        };
        assert_eq!(who(&reason), format!("token at {longest}: ada"));
    }
}
