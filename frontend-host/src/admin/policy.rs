//! The policy's way into service, what a candidate would do, and recordings.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Json, Response};
use domain::time::BootTime;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};

use super::Admin;
use super::answers::Upload;
use super::refusal::Refusal;
use frontend_policy::{Reason, Share, SwapError, Trial, Version, Versions};

/// The versions after a change, or why there was none.
type Changed = Result<Json<Value>, Refusal>;

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(policy_json(&admin.gateway.policy))
}

pub(super) async fn push(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Upload(component): Upload,
) -> Changed {
    let (reason, signature) = (reason(&headers), signature(&headers));
    admin
        .change(move |policy| {
            policy.activate(signed(&component, &signature), &reason)?;
            Ok(())
        })
        .await
}

pub(super) async fn try_out(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    Upload(component): Upload,
) -> Changed {
    let trial = trial(&query).ok_or(Refusal::NoTrial)?;
    let (reason, signature) = (reason(&headers), signature(&headers));
    admin
        .change(move |policy| {
            policy.try_out(signed(&component, &signature), trial, &reason)?;
            Ok(())
        })
        .await
}

/// The detached signature that came with a component.
fn signature(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("x-policy-signature")?.to_str().ok()?.to_owned())
}

fn signed<'a>(component: &'a Bytes, signature: &'a Option<String>) -> frontend_policy::Upload<'a> {
    frontend_policy::Upload {
        component,
        signature: signature.as_deref(),
        config: &[],
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

pub(super) async fn drop_candidate(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Changed {
    let reason = reason(&headers);
    admin
        .change(move |policy| policy.drop_candidate(&reason))
        .await
}

pub(super) async fn promote(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Changed {
    let reason = reason(&headers);
    admin
        .change(move |policy| policy.promote(&reason).map(drop))
        .await
}

pub(super) async fn roll_back(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Changed {
    let reason = reason(&headers);
    admin
        .change(move |policy| policy.roll_back(&reason).map(drop))
        .await
}

pub(super) async fn activate_kept(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Changed {
    let reason = reason(&headers);
    let digest = query.get("digest").cloned().unwrap_or_default();
    admin
        .change(move |policy| policy.activate_kept(&digest, &reason).map(drop))
        .await
}

pub(super) async fn differences(State(admin): State<Arc<Admin>>) -> Result<Json<Value>, Refusal> {
    let published = admin.gateway.policy.published();
    let candidate = published.candidate.as_ref();
    let candidate = candidate.ok_or(Refusal::NoDifferences)?;
    Ok(Json(json!({
        "active": published.active.digest.to_string(),
        "candidate": candidate.version.digest.to_string(),
        "stage": candidate.trial.name(),
        "share": candidate.trial.share().get(),
        "found": candidate.differences.snapshot(),
    })))
}

/// Longest recording, in seconds, in lines and in bytes.
const RECORDING_SECONDS_MAX: u64 = 3600;
const RECORDING_LINES_MAX: usize = 1_000_000;
const RECORDING_BYTES_MAX: usize = 256 << 20;

/// Streams the decisions that are made from now on.
pub(super) async fn record(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, u64>>,
) -> Result<Response, Refusal> {
    let seconds = query.get("seconds").copied().unwrap_or(10);
    if !(1..=RECORDING_SECONDS_MAX).contains(&seconds) {
        let max = RECORDING_SECONDS_MAX;
        return Err(Refusal::NoSeconds { max });
    }
    let time = Duration::from_secs(seconds);
    let journal = admin.gateway.backend.replicas.own_journal().known();
    let recording = admin.gateway.policy.record(journal, time)?;
    let mut stopped = admin.stopped.clone();
    let end = async move {
        let _ = timeout(time, stopped.wait_for(|stopped| *stopped)).await;
    };
    let mut bytes = 0;
    let lines = recording
        .take_while(move |line| {
            bytes += line.len();
            bytes <= RECORDING_BYTES_MAX
        })
        .take(RECORDING_LINES_MAX);
    let lines = UntilStream {
        lines,
        end: Box::pin(end),
    };
    let answer = (
        [(CONTENT_TYPE, "application/jsonl")],
        Body::from_stream(lines),
    );
    Ok(answer.into_response())
}

/// Lines until something happens.
struct UntilStream<S> {
    lines: S,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
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
    ) -> Changed {
        let gateway = Arc::clone(&self.gateway);
        let changing = tokio::task::spawn_blocking(move || change(&gateway.policy));
        let mut stopped = self.stopped.clone();
        let changed = tokio::select! {
            changed = changing => changed,
            _ = stopped.wait_for(|stopped| *stopped) => return Err(Refusal::Stopping),
        };
        let changed = changed.map_err(|error| {
            tracing::error!(%error, "the check of a policy failed");
            Refusal::CheckFailed
        })?;
        changed.inspect_err(|error| {
            let reason = error.to_string();
            tracing::warn!(reason = %reason.escape_debug(), "policy not changed");
        })?;
        Ok(Json(policy_json(&self.gateway.policy)))
    }
}

pub(super) fn policy_json(versions: &Versions) -> Value {
    let published = versions.published();
    let mut active = version_json(&published.active, "active");
    active["active_ms"] = (BootTime::now().since(published.health.since).as_millis() as u64).into();
    let candidate = published.candidate.as_ref().map(|candidate| {
        let mut json = version_json(&candidate.version, candidate.trial.name());
        json["share"] = candidate.trial.share().get().into();
        json
    });
    json!({
        "active": active,
        "previous": published.previous.as_deref().map(|version| version_json(version, "previous")),
        "candidate": candidate,
        "kept": versions.kept(),
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
        "impure": load(&version.counts.impure),
        "impure_example": version.impure_example(),
    })
}
