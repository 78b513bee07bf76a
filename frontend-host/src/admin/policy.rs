//! The policy's way into service, what a candidate would do, and recordings.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse as _, Json, Response};
use domain::time::BootTime;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};

use super::Admin;
use super::access::Credential;
use super::answers::Upload;
use super::refusal::Refusal;
use super::sent::{Sent, audience, plan, terms, trial};
use frontend_policy::replay::HeaderChoice;
use frontend_policy::rollout::{Audience, Expected, HealthWindow, Terms};
use frontend_policy::{Reason, SwapError, Version, Versions};

/// The versions after a change, or why there was none.
pub(super) type Changed = Result<Json<Value>, Refusal>;

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(admin.versions().await)
}

pub(super) async fn push(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    Extension(reason): Extension<Reason>,
    headers: HeaderMap,
    Upload(body): Upload,
) -> Changed {
    let config = query.get("config").map(String::as_str);
    let sent = Sent::new(body, config, &headers)?;
    admin
        .change(move |policy| {
            policy.activate(sent.upload(), &reason)?;
            Ok(())
        })
        .await
}

pub(super) async fn try_out(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<Vec<(String, String)>>,
    Extension(reason): Extension<Reason>,
    headers: HeaderMap,
    Upload(body): Upload,
) -> Changed {
    let (audience, mut query) = audience(query)?;
    let (replaced, config) = (query.remove("replace"), query.remove("config"));
    let trial = trial(&query).ok_or(Refusal::NoTrial)?;
    let terms = terms(trial, audience)?;
    let sent = Sent::new(body, config.as_deref(), &headers)?;
    admin
        .change(move |policy| {
            match &replaced {
                Some(of) => policy.try_out_instead(sent.upload(), terms, of, &reason)?,
                None => policy.try_out(sent.upload(), terms, &reason)?,
            };
            Ok(())
        })
        .await
}

/// Another configuration for the active version's component: to be active, or on trial.
pub(super) async fn configure(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<Vec<(String, String)>>,
    Extension(reason): Extension<Reason>,
    Upload(config): Upload,
) -> Changed {
    let (audience, mut query) = audience(query)?;
    let replaced = query.remove("replace");
    let planned = query.remove("plan");
    let (plan, config) = match &planned {
        Some(bytes) => {
            let (plan, config) = plan(Some(bytes), config)?;
            (Some(plan), config)
        }
        None => (None, config),
    };
    let is_all = audience == Audience::default() && query.is_empty();
    let terms = match (plan, is_all) {
        (Some(plan), true) => Some(Terms::rollout(plan)),
        (Some(_), false) => return Err(Refusal::NoTrial),
        (None, true) => None,
        (None, false) => {
            let trial = trial(&query).ok_or(Refusal::NoTrial)?;
            Some(terms(trial, audience)?)
        }
    };
    admin
        .change(move |policy| {
            match terms {
                None => policy.configure(&config, &reason)?,
                Some(terms) => {
                    policy.try_configuration(&config, terms, replaced.as_deref(), &reason)?
                }
            };
            Ok(())
        })
        .await
}

pub(super) async fn drop_candidate(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    Extension(reason): Extension<Reason>,
) -> Changed {
    let named = query.get("digest").cloned();
    admin
        .change(move |policy| policy.drop_candidate(named.as_deref(), &reason))
        .await
}

pub(super) async fn promote(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    Extension(reason): Extension<Reason>,
) -> Changed {
    admin
        .change(move |policy| {
            let promoted = policy.promote_expecting(expected(&query), &reason);
            promoted.map(drop)
        })
        .await
}

/// Most changes that are asked for at once: more than a log keeps.
const CHANGES_MAX: usize = 10_000;

/// The last changes; with `?limit=`, so many.
pub(super) async fn changes(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<Value>, Refusal> {
    let limit = query.get("limit").map(|text| text.parse::<usize>());
    let limit = limit.transpose().unwrap_or(Some(0));
    if limit.is_some_and(|limit| !(1..=CHANGES_MAX).contains(&limit)) {
        return Err(Refusal::NoLimit { max: CHANGES_MAX });
    }
    let gateway = Arc::clone(&admin.gateway);
    let changes = tokio::task::spawn_blocking(move || match limit {
        None => gateway.policy.changes(),
        Some(limit) => gateway.policy.last_changes(limit),
    });
    let changes = changes.await.unwrap_or_default();
    Ok(Json(json!({ "changes": changes })))
}

pub(super) async fn roll_back(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    Extension(reason): Extension<Reason>,
) -> Changed {
    admin
        .change(move |policy| {
            let rolled_back = policy.roll_back_expecting(expected(&query), &reason);
            rolled_back.map(drop)
        })
        .await
}

pub(super) async fn activate_kept(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    Extension(reason): Extension<Reason>,
) -> Changed {
    admin
        .change(move |policy| {
            let activated = policy.activate_kept_expecting(expected(&query), &reason);
            activated.map(drop)
        })
        .await
}

/// What whoever asks has seen, as far as that is said: `?active=` and `?digest=`.
fn expected(query: &BTreeMap<String, String>) -> Expected<'_> {
    let named = |name: &str| query.get(name).map(String::as_str);
    Expected {
        active: named("active"),
        digest: named("digest"),
    }
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

/// What the log of changes has of the names of headers that are recorded, in characters.
const NAMES_LOGGED_MAX: usize = 200;

/// The headers to record: their names, with commas between them.
fn recorded_headers(query: &BTreeMap<String, String>) -> Result<HeaderChoice, Refusal> {
    let Some(names) = query.get("headers") else {
        return Ok(HeaderChoice::default());
    };
    let parsed = names.split(',').map(|name| {
        let no_header = |_| Refusal::NoHeader(name.to_owned());
        HeaderName::try_from(name).map_err(no_header)
    });
    Ok(HeaderChoice::named(parsed.collect::<Result<_, _>>()?))
}

/// Streams the decisions that are made from now on. Clients' requests are in them, so the log of changes says who has it
/// done before any is given out, and no more are once who has it done may no more.
pub(super) async fn record(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    Extension(reason): Extension<Reason>,
    Extension(credential): Extension<Credential>,
) -> Result<Response, Refusal> {
    let headers = recorded_headers(&query)?;
    let seconds = query.get("seconds").map_or(Ok(10), |text| text.parse());
    let max = RECORDING_SECONDS_MAX;
    let seconds = seconds.unwrap_or_default();
    if !(1..=max).contains(&seconds) {
        return Err(Refusal::NoSeconds { max });
    }
    let time = Duration::from_secs(seconds);
    let journal = admin.gateway.backend.replicas.own_journal().known();
    let recording = admin.gateway.policy.record(journal, headers, time)?;
    let named = query.get("headers").map(String::as_str);
    let named = named.map_or_else(String::new, |names| {
        let names: String = names.chars().take(NAMES_LOGGED_MAX).collect();
        format!(", with {names}")
    });
    let begun = Reason {
        why: format!("for {seconds} s{named}: {}", reason.why),
        ..reason.clone()
    };
    admin.note("record", begun).await?;
    let mut stopped = admin.stopped.clone();
    let asked = Arc::clone(&admin);
    let end = async move {
        tokio::select! {
            _ = timeout(time, stopped.wait_for(|stopped| *stopped)) => {}
            () = credential.ends(&asked) => {}
        }
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
        given: Given {
            admin: Arc::clone(&admin),
            reason,
            lines: 0,
        },
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
    given: Given,
}

/// What was given out of a recording: the log of changes says so when it ends.
struct Given {
    admin: Arc<Admin>,
    reason: Reason,
    lines: u64,
}

impl Drop for Given {
    fn drop(&mut self) {
        let Self { reason, lines, .. } = self;
        let reason = Reason {
            why: format!("{lines} lines were given out: {}", reason.why),
            ..reason.clone()
        };
        let gateway = Arc::clone(&self.admin.gateway);
        // Of a gateway that ends meanwhile the log says that one was begun.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn_blocking(move || {
            if let Err(error) = gateway.policy.note("recorded", &reason) {
                tracing::warn!(%error, "the end of a recording is not in the log of changes");
            }
        });
    }
}

impl<S: Stream<Item = String> + Unpin> Stream for UntilStream<S> {
    type Item = Result<String, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let line = ready!(Pin::new(&mut self.lines).poll_next(context));
        self.given.lines += u64::from(line.is_some());
        Poll::Ready(line.map(Ok))
    }
}

impl Admin {
    /// Changes the policy, on a thread that may compile and wait for a disk.
    pub(super) async fn change(
        &self,
        change: impl FnOnce(&Versions) -> Result<(), SwapError> + Send + 'static,
    ) -> Changed {
        let gateway = Arc::clone(&self.gateway);
        let replicas = &gateway.backend.replicas;
        if replicas.protocol().is_none() && gateway.policy.is_saved() {
            let _ = replicas.ask_catalog().await; // what it says is noted
        }
        match replicas.protocol() {
            Some(protocol) => gateway.policy.note_protocol(protocol),
            None => gateway.policy.note_protocol_unheard(),
        }
        let changing = tokio::task::spawn_blocking(move || {
            // Nobody waits for a check whose end is known.
            match gateway.policy.is_held() {
                true => Err(SwapError::HandingOver),
                false => change(&gateway.policy),
            }
        });
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
        Ok(Json(self.versions().await))
    }

    /// Writes into the log of changes what an operator does that changes no version.
    pub(super) async fn note(&self, what: &'static str, reason: Reason) -> Result<(), Refusal> {
        let gateway = Arc::clone(&self.gateway);
        let noting = tokio::task::spawn_blocking(move || gateway.policy.note(what, &reason));
        let noted = noting.await.map_err(|_| Refusal::Stopping)?;
        Ok(noted?)
    }

    /// The versions of the policy. Whoever changes them may be waiting for a disk, so this is for a
    /// thread that may wait.
    pub(super) async fn versions(&self) -> Value {
        let gateway = Arc::clone(&self.gateway);
        let shown = tokio::task::spawn_blocking(move || policy_json(&gateway.policy));
        shown.await.unwrap_or(Value::Null)
    }
}

/// The versions and the last changes. For a thread that may wait.
pub(super) fn policy_json(versions: &Versions) -> Value {
    let published = versions.published();
    let mut active = version_json(&published.active, "active");
    active["active_ms"] = (BootTime::now().since(published.health.since).as_millis() as u64).into();
    add_health(&mut active, &published.health);
    let wanted = published.active.manifest.on_failure;
    let candidate = published.candidate.as_ref().map(|candidate| {
        let mut json = version_json(&candidate.version, candidate.trial.name());
        json["share"] = candidate.trial.share().get().into();
        json["compared"] = candidate.differences.compared().into();
        json["who"] = candidate.who.clone().into();
        json["only"] = candidate.audience.texts().into();
        let rollout = candidate.rollout.as_ref();
        json["rollout"] = json!(rollout.map(|rollout| rollout.progress(wanted)));
        add_health(&mut json, &candidate.health);
        json
    });
    json!({
        "active": active,
        "previous": published.previous.as_deref().map(|version| version_json(version, "previous")),
        "candidate": candidate,
        "closed": published.closed.as_deref(),
        "kept": versions.kept(),
        "changes": versions.changes(),
    })
}

/// How a version does in service.
fn add_health(json: &mut Value, health: &HealthWindow) {
    let (paths, clients) = health.broken_off_count();
    json["on_probation"] = health.is_on_probation().into();
    json["held"] = health.held().into();
    json["condemned"] = health.is_condemned().into();
    json["broken_off"] = json!({ "paths": paths, "clients": clients });
    json["incidents"] = json!(health.incidents());
}

fn version_json(version: &Version, stage: &str) -> Value {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "digest": version.digest.to_string(),
        "component": version.component.to_string(),
        "config": version.config_digest().map(|digest| digest.to_string()),
        "name": version.manifest.name,
        "version": version.manifest.version,
        "stage": stage,
        "decisions": version.counts.decisions.total(),
        "traps": load(&version.counts.traps),
        "overruns": load(&version.counts.overruns),
        "invalid": load(&version.counts.invalid),
        "errors": load(&version.counts.errors),
        "impure": load(&version.counts.impure),
        "impure_example": version.impure_example(),
        "reply_headers": version.reply_headers(),
    })
}
