//! What the gateway and the services behind it are doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::response::Json;
use domain::ReplicaId;
use domain::time::BootTime;
use frontend_core::election::Unanswered;
use rpc::failover::Heard;
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
    pub(super) fn unready(&self) -> Option<&'static str> {
        readiness::unready(&self.gateway)
    }

    /// All but the policy.
    pub(super) fn status_json(&self, catalogs: &[(String, Heard)]) -> Value {
        let replicas = &self.gateway.backend.replicas;
        let current = *replicas.leader().borrow();
        let lease = self.gateway.cache.lease();
        let session = lease.current(BootTime::now());
        let journal = replicas.journal();
        let (stocks, orders) = self.gateway.cache.entries();
        json!({
            "ready": self.unready().is_none(),
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
            "catalogs": catalogs.iter().map(|(url, heard)| json!({ "url": url, "role": heard.role.name() })).collect::<Vec<_>>(),
            "cache": {
                "stocks": counts_json(&self.gateway.cache.stock_counts, stocks),
                "orders": counts_json(&self.gateway.cache.order_counts, orders),
            },
        })
    }

    pub(super) fn replicas_json(&self) -> Vec<Value> {
        let (all, probed) = self.gateway.backend.replicas.all();
        let one = all.iter().zip(probed).map(|(replica, probed)| {
            let status = probed.status.ok();
            json!({
                "id": replica.id,
                "url": replica.url,
                "healthy": status.is_some(),
                "foreign": probed.status == Err(Unanswered::Foreign),
                "role": status.map(|status| status.role.name()),
                "epoch": status.map(|status| status.epoch),
                "orders": status.map(|status| status.rows.0.saturating_sub(status.stock_changes)),
                "rows": status.map(|status| status.rows),
                "chain_hash": status.map(|status| status.chain.to_string()),
                "reaches_catalog": status.is_some_and(|status| status.reaches_catalog),
                "round_trip_us": probed.round_trip.as_micros() as u64,
            })
        });
        one.collect()
    }
}

fn counts_json(counts: &Counts, entries: u64) -> Value {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "entries": entries,
        "hits": load(&counts.hits),
        "misses": load(&counts.misses),
        "stale": load(&counts.stale),
        "bypasses": load(&counts.bypasses),
    })
}
