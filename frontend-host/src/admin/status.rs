//! What the gateway and the services behind it are doing.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::response::Json;
use domain::ReplicaId;
use domain::time::BootTime;
use frontend_core::election::Unanswered;
use rpc::failover::Heard;
use rpc::release::{RELEASE, Release};
use serde_json::{Value, json};

use super::Admin;
use super::refusal::Refusal;
use crate::cache::Counts;
use crate::readiness;

pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> Result<&'static str, Refusal> {
    match admin.unready() {
        None => Ok("ready\n"),
        Some(reason) => Err(Refusal::NotReady(reason)),
    }
}

pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Json<Value> {
    // The journal's end as it is now, not as of the last election round.
    let _ = admin.gateway.backend.replicas.ask_catalog().await; // the status says so
    let policy = admin.versions().await;
    let catalogs = admin.catalogs.heard().await;
    let mut status = admin.status_json(&catalogs);
    status["policy"] = policy;
    Json(status)
}

impl Admin {
    /// Why no trade could be served now.
    pub(super) fn unready(&self) -> Option<Cow<'static, str>> {
        readiness::unready(&self.gateway)
    }

    /// All but the policy.
    pub(super) fn status_json(&self, catalogs: &[(String, Heard)]) -> Value {
        let unready = self.unready();
        let replicas = &self.gateway.backend.replicas;
        let current = *replicas.leader().borrow();
        let lease = self.gateway.cache.lease();
        let session = lease.current(BootTime::now());
        let journal = replicas.journal();
        let (stocks, orders) = self.gateway.cache.entries();
        let (stocks_max, orders_max) = self.gateway.cache.entries_max();
        json!({
            "ready": unready.is_none(),
            "unready": unready,
            "release": RELEASE,
            "journal": replicas.own_journal().known(),
            "protocol": replicas.protocol().map(domain::Protocol::get),
            "epoch": current.term.epoch,
            "leader": current.term.leader.map(ReplicaId::get),
            "replicas": self.replicas_json(),
            "catalog": {
                "url": self.catalogs.active_url(),
                "reachable": journal.is_some(),
                "journal_rows": journal.as_ref().map(|journal| journal.rows),
                "stock_changes": journal.as_ref().map(|journal| journal.stock_changes),
                "chain_hash": journal.as_ref().map(|journal| journal.chain.to_string()),
                "in_sync": journal.map(|journal| journal.in_sync).unwrap_or_default(),
                "session": session.map(|session| session.to_string()),
                "lease_ms": session.map(|_| lease.length().as_millis() as u64),
            },
            "catalogs": catalogs.iter().map(catalog_json).collect::<Vec<_>>(),
            "cache": {
                "stocks": counts_json(&self.gateway.cache.stock_counts, stocks, stocks_max),
                "orders": counts_json(&self.gateway.cache.order_counts, orders, orders_max),
            },
        })
    }

    pub(super) fn replicas_json(&self) -> Vec<Value> {
        let (all, probed) = self.gateway.backend.replicas.all();
        let releases = self.gateway.backend.replicas.releases();
        let all = all.iter().zip(probed).zip(releases);
        let one = all.map(|((replica, probed), release)| {
            let status = probed.status.ok();
            // What was so before it fell silent nobody knows now.
            let release = release.filter(|_| status.is_some());
            let orders = status.map(|status| status.rows.0.saturating_sub(status.stock_changes));
            json!({
                "id": replica.id,
                "url": replica.url,
                "healthy": status.is_some(),
                "foreign": probed.status == Err(Unanswered::Foreign),
                "role": status.map(|status| status.role.name()),
                "epoch": status.map(|status| status.epoch),
                "orders": orders,
                "last_number": orders.and_then(|orders| orders.checked_sub(1)),
                "rows": status.map(|status| status.rows),
                "chain_hash": status.map(|status| status.chain.to_string()),
                "reaches_catalog": status.map(|status| status.reaches_catalog),
                "round_trip_us": status.map(|_| probed.round_trip.as_micros() as u64),
                "release": release.as_ref().and_then(Release::number),
            })
        });
        one.collect()
    }
}

fn catalog_json((url, heard): &(String, Heard)) -> Value {
    let release = heard.release.as_ref();
    json!({
        "url": url,
        "role": heard.role.name(),
        "release": release.and_then(Release::number),
    })
}

fn counts_json(counts: &Counts, entries: u64, entries_max: u32) -> Value {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "entries": entries,
        "entries_max": entries_max,
        "hits": counts.hits.total(),
        "misses": counts.misses.total(),
        "stale": counts.stale.total(),
        "bypasses": counts.bypasses.total(),
        "evicted": load(&counts.evicted),
        "invalidated": load(&counts.invalidated),
    })
}
