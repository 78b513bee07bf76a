//! The listener for operators: status, health, metrics, and the swap of the policy.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{get, post, put};
use protocol::time::BootTime;
use protocol::{ReplicaId, SessionId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::{Stream, StreamExt as _};

use crate::cache::Counts;
use crate::gateway::Gateway;
use crate::policy::{Problem, Reason, Share, SwapError, Trial, Upload, Version, Versions, limits};

/// What the admin API works on.
pub struct Admin {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The catalog's URL, for `GET /status`.
    pub catalog_url: String,
    /// Asked for on every request but `GET /healthz`, where set.
    pub token: Option<String>,
}

/// Serves the admin API until `shutdown`.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let admin = Arc::new(admin);
    let guarded = Router::new()
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/policy", get(policy).put(push))
        .route("/policy/candidate", put(try_out).delete(drop_candidate))
        .route("/policy/promote", post(promote))
        .route("/policy/rollback", post(roll_back))
        .route("/policy/differences", get(differences))
        .route("/policy/recording", get(record))
        .layer(DefaultBodyLimit::max(limits::COMPONENT_BYTES_MAX))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&admin),
            authorize,
        ));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .merge(guarded)
        .fallback(|uri: Uri| async move {
            failed(
                StatusCode::NOT_FOUND,
                &format!("no such path: {}", uri.path()),
            )
        })
        .method_not_allowed_fallback(|| async {
            failed(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        })
        .with_state(admin);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

fn failed(status: StatusCode, message: &str) -> Response {
    let body = json!({ "error": { "code": status.as_u16(), "message": message } });
    (status, Json(body)).into_response()
}

/// A refusal that also lists each of the problems.
fn refusal(status: StatusCode, error: &SwapError, problems: &[Problem]) -> Response {
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let body = json!({ "error": {
        "code": status.as_u16(),
        "message": error.to_string(),
        "problems": problems,
    }});
    (status, Json(body)).into_response()
}

/// Lets only those in who may: with the token where there is one, else whoever is on this
/// machine, but not a web page that a browser on it shows.
async fn authorize(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    if request.headers().contains_key(ORIGIN) {
        return failed(StatusCode::FORBIDDEN, "web pages may not use the admin API");
    }
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    if admin.token.is_none() && !host.is_none_or(names_this_machine) {
        return failed(
            StatusCode::FORBIDDEN,
            "call the admin API by a loopback address or `localhost`",
        );
    }
    if let Some(token) = &admin.token {
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let given = given
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        // Hashes are compared, so that the time it takes tells nothing of the token.
        if Sha256::digest(given) != Sha256::digest(token) {
            return failed(
                StatusCode::UNAUTHORIZED,
                "send the admin token: `Authorization: Bearer …`",
            );
        }
    }
    next.run(request).await
}

/// Whether a `Host` header names a loopback address. A name that was made to resolve to one
/// (DNS rebinding) does not.
fn names_this_machine(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.unready() {
        None => "ready\n".into_response(),
        Some(reason) => failed(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<Value> {
    // The journal's end as it is now, not as of the last election round.
    admin.gateway.backend.replicas.ask_catalog().await;
    Json(admin.status())
}

async fn policy(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(policy_json(&admin.gateway.policy))
}

async fn push(State(admin): State<Arc<Admin>>, headers: HeaderMap, component: Bytes) -> Response {
    let (reason, signature) = (reason(&headers), signature(&headers));
    admin
        .change(move |policy| {
            policy.activate(upload(&component, &signature), &reason)?;
            Ok(())
        })
        .await
}

async fn try_out(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    component: Bytes,
) -> Response {
    let Some(trial) = trial(&query) else {
        return failed(
            StatusCode::BAD_REQUEST,
            "say how to try it, and on how much: ?shadow=0.1 or ?canary=0.05, more than 0 and at most 1",
        );
    };
    let (reason, signature) = (reason(&headers), signature(&headers));
    admin
        .change(move |policy| {
            policy.try_out(upload(&component, &signature), trial, &reason)?;
            Ok(())
        })
        .await
}

/// The detached signature that came with a component.
fn signature(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("x-policy-signature")?.to_str().ok()?.to_owned())
}

fn upload<'a>(component: &'a Bytes, signature: &'a Option<String>) -> Upload<'a> {
    Upload {
        component,
        signature: signature.as_deref(),
    }
}

fn trial(query: &BTreeMap<String, String>) -> Option<Trial> {
    let mut query = query.iter();
    let (kind, share) = query.next().filter(|_| query.next().is_none())?;
    let share = Share::new(share.parse().ok()?)?;
    match kind.as_str() {
        "shadow" => Some(Trial::Shadow(share)),
        "canary" => Some(Trial::Canary(share)),
        _ => None,
    }
}

async fn drop_candidate(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let reason = reason(&headers);
    admin
        .change(move |policy| policy.drop_candidate(&reason))
        .await
}

async fn promote(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let reason = reason(&headers);
    admin
        .change(move |policy| policy.promote(&reason).map(drop))
        .await
}

async fn roll_back(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let reason = reason(&headers);
    admin
        .change(move |policy| policy.roll_back(&reason).map(drop))
        .await
}

async fn differences(State(admin): State<Arc<Admin>>) -> Response {
    let published = admin.gateway.policy.published();
    match &published.candidate {
        None => failed(StatusCode::NOT_FOUND, &SwapError::NoCandidate.to_string()),
        Some(candidate) => Json(json!({
            "active": published.active.digest.to_string(),
            "candidate": candidate.version.digest.to_string(),
            "stage": candidate.trial.name(),
            "share": candidate.trial.share().get(),
            "found": candidate.differences.so_far(),
        }))
        .into_response(),
    }
}

/// Longest recording, in seconds, in lines and in bytes.
const RECORDING_SECONDS_MAX: u64 = 3600;
const RECORDING_LINES_MAX: usize = 1_000_000;
const RECORDING_BYTES_MAX: usize = 256 << 20;

/// Streams the decisions that are made from now on.
async fn record(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, u64>>,
) -> Response {
    let seconds = query.get("seconds").copied().unwrap_or(10);
    if !(1..=RECORDING_SECONDS_MAX).contains(&seconds) {
        return failed(
            StatusCode::BAD_REQUEST,
            &format!("seconds must be from 1 to {RECORDING_SECONDS_MAX}"),
        );
    }
    let time = Duration::from_secs(seconds);
    let recording = match admin.gateway.policy.record(time) {
        Ok(recording) => recording,
        Err(busy) => return failed(StatusCode::CONFLICT, &busy.to_string()),
    };
    let end = Instant::now() + time;
    let mut bytes = 0;
    let lines = recording
        .take_while(move |line| {
            bytes += line.len();
            bytes <= RECORDING_BYTES_MAX
        })
        .take(RECORDING_LINES_MAX);
    let lines = UntilStream {
        lines,
        end: Box::pin(sleep_until(end)),
    };
    (
        [(CONTENT_TYPE, "application/jsonl")],
        Body::from_stream(lines),
    )
        .into_response()
}

/// Lines until a time.
struct UntilStream<S> {
    lines: S,
    end: Pin<Box<Sleep>>,
}

impl<S: Stream<Item = String> + Unpin> Stream for UntilStream<S> {
    type Item = Result<String, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.lines)
            .poll_next(context)
            .map(|line| line.map(Ok))
    }
}

/// Longest text that is taken from a header for the log of changes, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// Who changes the policy, and why: as the caller says, for the log of changes.
fn reason(headers: &HeaderMap) -> Reason {
    let text = |name: &str, default: &str| {
        let given = headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or(default);
        given.chars().take(REASON_BYTES_MAX).collect()
    };
    Reason {
        who: text("x-operator", "admin API"),
        why: text("x-reason", "not said"),
    }
}

impl Admin {
    /// Changes the policy, on a thread that may compile and wait for a disk.
    async fn change(
        &self,
        change: impl FnOnce(&Versions) -> Result<(), SwapError> + Send + 'static,
    ) -> Response {
        let gateway = Arc::clone(&self.gateway);
        match tokio::task::spawn_blocking(move || change(&gateway.policy)).await {
            Ok(Ok(())) => Json(policy_json(&self.gateway.policy)).into_response(),
            Ok(Err(error)) => {
                let reason = error.to_string();
                tracing::warn!(reason = %reason.escape_debug(), "policy not changed");
                let status = match error {
                    SwapError::Refused(_) | SwapError::Untrusted(_) => {
                        StatusCode::UNPROCESSABLE_ENTITY
                    }
                    SwapError::NothingToRollBackTo | SwapError::NoCandidate => StatusCode::CONFLICT,
                    SwapError::NotSaved(_) => StatusCode::INSUFFICIENT_STORAGE,
                    SwapError::NoThread(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                match &error {
                    SwapError::Refused(refused) => refusal(status, &error, refused.problems()),
                    _ => failed(status, &error.to_string()),
                }
            }
            Err(error) => {
                tracing::error!(%error, "the check of a policy failed");
                failed(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the check of the policy failed; see the gateway's log",
                )
            }
        }
    }

    /// Why no trade could be served now.
    fn unready(&self) -> Option<&'static str> {
        let session = self.gateway.cache.lease().current(BootTime::now());
        let led = *self.gateway.backend.replicas.leader().borrow();
        if session.is_none() {
            Some("no session with the catalog")
        } else if led.leadership.leader.is_none() {
            Some("no order replica was elected to lead")
        } else if !led.active {
            Some("the leader does not take trades yet")
        } else {
            None
        }
    }

    fn status(&self) -> Value {
        let replicas = &self.gateway.backend.replicas;
        let led = *replicas.leader().borrow();
        let lease = self.gateway.cache.lease();
        let session = lease.current(BootTime::now());
        let journal = replicas.journal();
        let (stocks, orders) = self.gateway.cache.entries();
        json!({
            "ready": self.unready().is_none(),
            "epoch": led.leadership.epoch,
            "leader": led.leadership.leader.map(ReplicaId::get),
            "replicas": self.replicas_json(),
            "catalog": {
                "url": self.catalog_url,
                "reachable": journal.is_some(),
                "journal_rows": journal.as_ref().map(|journal| journal.rows),
                "chain_hash": journal.as_ref().map(|journal| journal.chain.to_string()),
                "in_sync": journal.map(|journal| journal.in_sync).unwrap_or_default(),
                "session": session.map(SessionId::get),
                "lease_ms": session.map(|_| lease.length().as_millis() as u64),
            },
            "cache": {
                "stocks": counts_json(&self.gateway.cache.stock_counts, stocks),
                "orders": counts_json(&self.gateway.cache.order_counts, orders),
            },
            "policy": policy_json(&self.gateway.policy),
        })
    }

    fn replicas_json(&self) -> Vec<Value> {
        let (all, probed) = self.gateway.backend.replicas.all();
        let one = all.iter().zip(probed).map(|(replica, probed)| {
            let status = probed.status.ok();
            json!({
                "id": replica.id,
                "url": replica.url,
                "healthy": status.is_some(),
                "role": status.map(|status| status.role.name()),
                "epoch": status.map(|status| status.epoch),
                "orders": status.map(|status| status.orders),
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
    })
}

fn policy_json(versions: &Versions) -> Value {
    let published = versions.published();
    let mut active = version_json(&published.active, "active");
    active["active_ms"] = (BootTime::now().since(published.watch.since).as_millis() as u64).into();
    let candidate = published.candidate.as_ref().map(|candidate| {
        let mut json = version_json(&candidate.version, candidate.trial.name());
        json["share"] = candidate.trial.share().get().into();
        json
    });
    json!({
        "active": active,
        "previous": published.previous.as_deref().map(|version| version_json(version, "previous")),
        "candidate": candidate,
        "changes": versions.changes(),
    })
}

fn version_json(version: &Version, stage: &str) -> Value {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "digest": version.digest.to_string(),
        "name": version.manifest.name,
        "version": version.manifest.version,
        "stage": stage,
        "decisions": load(&version.counts.decisions),
        "traps": load(&version.counts.traps),
        "overruns": load(&version.counts.overruns),
        "invalid": load(&version.counts.invalid),
        "errors": load(&version.counts.errors),
    })
}

/// Prometheus' text format, version 0.0.4.
async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let cache = &admin.gateway.cache;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut lookups = Vec::new();
    for (kind, counts) in [
        ("stock", &cache.stock_counts),
        ("order", &cache.order_counts),
    ] {
        for (result, counter) in [
            ("hit", &counts.hits),
            ("miss", &counts.misses),
            ("stale", &counts.stale),
        ] {
            lookups.push((
                format!("{{kind=\"{kind}\",result=\"{result}\"}}"),
                load(counter),
            ));
        }
    }
    family(
        "bazaar_cache_lookups_total",
        "counter",
        "Lookups in the cache, by what they came to.",
        &lookups,
    );
    let (stocks, orders) = cache.entries();
    let entries = [
        ("{kind=\"stock\"}".into(), stocks),
        ("{kind=\"order\"}".into(), orders),
    ];
    family(
        "bazaar_cache_entries",
        "gauge",
        "Entries in the cache.",
        &entries,
    );

    let published = admin.gateway.policy.published();
    let mut decisions = Vec::new();
    let candidate = published
        .candidate
        .as_ref()
        .map(|candidate| &candidate.version);
    for version in std::iter::once(&published.active)
        .chain(&published.previous)
        .chain(candidate)
    {
        let counts = &version.counts;
        let results = [
            ("decided", &counts.decisions),
            ("trapped", &counts.traps),
            ("overran", &counts.overruns),
            ("invalid", &counts.invalid),
            ("error", &counts.errors),
        ];
        for (result, counter) in results {
            decisions.push((
                format!("{{policy=\"{}\",result=\"{result}\"}}", version.digest),
                load(counter),
            ));
        }
    }
    family(
        "bazaar_policy_decisions_total",
        "counter",
        "Decisions asked of a version of the policy.",
        &decisions,
    );

    let led = *admin.gateway.backend.replicas.leader().borrow();
    let epoch = [(String::new(), led.leadership.epoch.0)];
    family(
        "bazaar_leader_epoch",
        "gauge",
        "Epoch of the leader, as the catalog has it.",
        &epoch,
    );
    let ready = [(String::new(), u64::from(admin.unready().is_none()))];
    family(
        "bazaar_ready",
        "gauge",
        "1 while a trade could be served.",
        &ready,
    );
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_name_this_machine() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "localhost:8081",
            "LOCALHOST",
            "[::1]:8081",
            "[::1]",
        ] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "10.0.0.1:8081",
            "",
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
    }
}
