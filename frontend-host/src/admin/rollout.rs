//! How a version is rolled out by a plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Json;
use frontend_policy::rollout::{At, Terms};
use frontend_policy::{Reason, SwapError, Versions};
use serde_json::{Value, json};

use super::Admin;
use super::answers::Upload;
use super::policy::Changed;
use super::refusal::Refusal;
use super::sent::{Sent, plan};

/// How far it is; and the last change of the policy, which says what became of one that is over.
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let gateway = Arc::clone(&admin.gateway);
    let shown = tokio::task::spawn_blocking(move || {
        let rollout = gateway.policy.rollout().map(|(version, progress)| {
            let mut json = json!(progress);
            json["digest"] = version.digest.to_string().into();
            json["name"] = version.manifest.name.clone().into();
            json["version"] = version.manifest.version.clone().into();
            json
        });
        let changes = gateway.policy.changes();
        let last = changes.iter().rfind(|change| change.is_of_policy());
        json!({ "rollout": rollout, "last": last })
    });
    Json(shown.await.unwrap_or_default())
}

/// Begins one. Of the body the plan goes first, `?plan=` bytes, then the configuration, then the
/// component; without a plan it is the default one.
pub(super) async fn begin(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    Extension(reason): Extension<Reason>,
    headers: HeaderMap,
    Upload(body): Upload,
) -> Changed {
    let (plan, rest) = plan(query.get("plan").map(String::as_str), body)?;
    let config = query.get("config").map(String::as_str);
    let sent = Sent::new(rest, config, &headers)?;
    let replaced = query.get("replace").cloned();
    admin
        .change(move |policy| {
            let terms = Terms::rollout(plan);
            match &replaced {
                Some(of) => policy.try_out_instead(sent.upload(), terms, of, &reason)?,
                None => policy.try_out(sent.upload(), terms, &reason)?,
            };
            Ok(())
        })
        .await
}

/// Pauses, resumes or skips.
pub(super) async fn steer(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<BTreeMap<String, String>>,
    Extension(reason): Extension<Reason>,
    how: fn(&Versions, &At, &Reason) -> Result<(), SwapError>,
) -> Changed {
    let at = at(query)?;
    admin.change(move |policy| how(policy, &at, &reason)).await
}

/// Which rollout is meant, and at which step, where that is said.
fn at(mut query: BTreeMap<String, String>) -> Result<At, Refusal> {
    let step = query.remove("step").map(|step| step.parse());
    Ok(At {
        digest: query.remove("digest"),
        step: step.transpose().map_err(|_| Refusal::NoStep)?,
    })
}
