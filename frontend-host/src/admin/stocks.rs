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
use serde::Deserialize;
use serde_json::{Number, Value, json};
use tokio::time::Instant;

use super::Admin;
use super::answers::Upload;
use super::refusal::Refusal;
use crate::handler::{new_key, unix_ms};

/// Stocks of a page where nobody says how many.
const PAGE_DEFAULT: u32 = 1_000;

/// Most stocks of a page.
const PAGE_MAX: u32 = 10_000;

/// What a change or a page is answered with.
type Answer = Result<Json<Value>, Refusal>;

#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<u32>,
}

/// A page of the stocks, in name order.
pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(page): Query<Page>) -> Answer {
    let after = page.after.as_deref().map(StockName::new).transpose()?;
    let limit = page.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        let problem = format!("limit must be from 1 to {PAGE_MAX}");
        return Err(Refusal::NoStockChange(problem));
    }
    let gateway = &admin.gateway;
    let deadline = Instant::now() + gateway.read_time_max;
    let listed = gateway.backend.list_stocks(after.as_ref(), limit, deadline);
    let page = listed.await.map_err(|why| Refusal::NotReady(which(why)))?;
    let stocks: Vec<Value> = page.stocks.iter().map(stock_json).collect();
    Ok(Json(json!({ "data": stocks, "more": page.more })))
}

fn stock_json(stock: &Stock) -> Value {
    json!({
        "name": stock.name.as_str(),
        "price": price_json(stock.price),
        "quantity": stock.quantity,
    })
}

/// As clients see it: a number with two decimals at most.
fn price_json(price: Price) -> Value {
    let number: Option<Number> = price.to_string().parse().ok();
    number.map_or(Value::Null, Value::Number)
}

/// A body that lists a stock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    name: String,
    price: Value,
    quantity: Option<Value>,
}

pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Extension(reason): Extension<Reason>,
    headers: HeaderMap,
    Upload(body): Upload,
) -> Answer {
    let added: Added = parse(&body)?;
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
    price: Option<Value>,
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
        let StockChange { name, note, .. } = &change;
        tracing::info!(stock = %name, change = %kind, %row, who = note.who(), why = note.why(), "a stock was changed");
        Ok(Json(json!({
            "data": { "name": name.as_str(), "change": kind.name(), "row": row },
        })))
    }
}

/// What says that they may, and what they call themselves, which is cut first.
fn who(reason: &Reason) -> String {
    let known_by = reason.known_by.as_deref().filter(|by| *by != "nothing");
    let address = reason.address.map(|address| address.to_string());
    let known = [known_by.map(str::to_owned), address];
    let known: Vec<String> = known.into_iter().flatten().collect();
    format!("{}: {}", known.join(" at "), reason.who)
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

/// A number, or a text for those whose numbers are not exact.
fn price(value: &Value) -> Result<Price, Refusal> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => String::new(),
    };
    Ok(text.parse::<Price>()?)
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::NoStockChange(invalid.to_string())
    }
}
