//! Which entries the cache keeps, and which had to make room for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Json;
use domain::time::BootTime;
use serde::Serialize;
use serde_json::{Value, json};

use super::Admin;
use super::refusal::Refusal;
use crate::cache::Contents;

/// Entries of each kind that are shown where nobody says how many.
const SHOWN_DEFAULT: usize = 1_000;

/// Most entries of each kind that are shown.
const SHOWN_MAX: usize = 10_000;

/// What is kept of stocks and of orders; with `?limit=`, so many of each.
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<Value>, Refusal> {
    let limit = query.get("limit").map(|text| text.parse::<usize>());
    let limit = limit.unwrap_or(Ok(SHOWN_DEFAULT)).unwrap_or(0);
    if !(1..=SHOWN_MAX).contains(&limit) {
        return Err(Refusal::NoLimit { max: SHOWN_MAX });
    }
    let gateway = Arc::clone(&admin.gateway);
    // All entries are looked at, and there can be millions.
    let shown = tokio::task::spawn_blocking(move || {
        let (stocks, orders) = gateway.cache.contents(limit);
        json!({ "stocks": contents_json(&stocks), "orders": contents_json(&orders) })
    });
    Ok(Json(shown.await.unwrap_or_default()))
}

fn contents_json<K: Serialize>(contents: &Contents<K>) -> Value {
    let now = BootTime::now();
    let kept = contents.kept.iter().map(|key| json!(&**key));
    let evicted = contents.evicted.iter().rev();
    let evicted = evicted.map(|(at, key)| {
        let age = now.since(*at);
        json!({ "entry": &**key, "age_ms": age.as_millis() as u64 })
    });
    json!({
        "entries": contents.entries,
        "entries_max": contents.entries_max,
        "kept": kept.collect::<Vec<_>>(),
        "more": contents.more,
        "evicted": evicted.collect::<Vec<_>>(),
    })
}
