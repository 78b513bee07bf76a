//! What this gateway says of itself: to its own consoles, and by way of the catalog to those of the others.

use std::sync::Arc;
use std::time::Duration;

use domain::ReplicaId;
use domain::time::BootTime;
use frontend_policy::Versions;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::Admin;
use super::super::policy::policy_json;
use super::services::own_figures;

/// How often it is said while it is wanted.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long may be waited for what is said of the policy: whoever changes it may be waiting for a disk.
const POLICY_TIME_MAX: Duration = Duration::from_millis(500);

/// Longest report that the catalog takes.
const REPORT_BYTES_MAX: usize = 64 << 10;

/// Groups of differences that are in it.
const GROUPS_MAX: usize = 24;

/// What of a version is in its figures, and changes all the time.
const COUNTS: [&str; 7] = [
    "active_ms",
    "decisions",
    "traps",
    "overruns",
    "invalid",
    "errors",
    "impure",
];

/// Says it to the catalog for as long as that is wanted.
pub(in super::super) async fn keep_reporting(admin: Arc<Admin>) {
    let reporting = Arc::clone(&admin.console.reporting);
    loop {
        reporting.wait_until_wanted().await;
        let report = bounded(report(&admin).await);
        reporting.publish(report.into());
        sleep(INTERVAL).await;
    }
}

/// What is said of the policy: which versions there are and how they came about, and where two decide differently.
pub struct PolicySaid {
    policy: Value,
    differences: Option<Value>,
}

impl PolicySaid {
    /// For a thread that may wait.
    fn of(versions: &Versions) -> Self {
        let published = versions.published();
        let differences = published.candidate.as_ref().map(|candidate| {
            let mut found = candidate.differences.snapshot();
            found.examples.clear();
            found
                .groups
                .sort_by_key(|group| std::cmp::Reverse(group.count));
            found.groups.truncate(GROUPS_MAX);
            json!(found)
        });
        Self {
            policy: shortened(policy_json(versions)),
            differences,
        }
    }
}

/// All of it. How the policy came about is in `policy` and `differences`, which are as old as `policy_age_ms` says.
pub(super) async fn report(admin: &Arc<Admin>) -> Value {
    let gateway = &admin.gateway;
    let versions = Arc::clone(&gateway.policy);
    let asked = admin.console.policy.ask(POLICY_TIME_MAX, move || {
        // Whoever changes them may be waiting for a disk.
        PolicySaid::of(&versions)
    });
    let (said, age) = asked.await.unzip();
    let active_since = gateway.policy.published().health.since;
    let current = *gateway.backend.replicas.leader().borrow();
    let lease = gateway.cache.lease();
    let figures = admin.collected();
    json!({
        "name": admin.console.name,
        "host": admin.console.host,
        "admin": admin.console.admin,
        "why_not_ready": admin.unready(),
        "epoch": current.term.epoch,
        "leader": current.term.leader.map(ReplicaId::get),
        "lease": lease.current(BootTime::now()).map(|session| json!({
            "session": session.to_string(),
            "length_ms": lease.length().as_millis() as u64,
        })),
        "active_ms": BootTime::now().since(active_since).as_millis() as u64,
        "figures": own_figures(figures),
        "policy": said.as_ref().map(|said| &said.policy),
        "differences": said.as_ref().and_then(|said| said.differences.as_ref()),
        "policy_age_ms": age.map(|age| age.as_millis() as u64),
    })
}

/// Without what changes from one second to the next, and without what is asked for when somebody opens it.
fn shortened(mut policy: Value) -> Value {
    for place in ["active", "previous", "candidate"] {
        let Some(version) = policy[place].as_object_mut() else {
            continue;
        };
        version.retain(|name, _| !COUNTS.contains(&name.as_str()));
        let incidents = version.get_mut("incidents").and_then(Value::as_array_mut);
        incidents.into_iter().flatten().for_each(shorten);
    }
    if let Some(changes) = policy["changes"].as_array_mut() {
        changes.reverse(); // the latest is what people look for
        let incidents = changes
            .iter_mut()
            .filter_map(|change| change.get_mut("incident"));
        incidents.for_each(shorten);
    }
    policy
}

/// An incident without its trace.
fn shorten(incident: &mut Value) {
    let Some(incident) = incident.as_object_mut() else {
        return;
    };
    let has_trace = ["output", "backtrace"].map(|part| incident.remove(part).is_some());
    incident.insert("has_trace".into(), has_trace.contains(&true).into());
}

/// As it is sent. Where it is too long it says less.
fn bounded(mut report: Value) -> Vec<u8> {
    for part in ["differences", "policy", "figures"] {
        let text = report.to_string();
        if text.len() <= REPORT_BYTES_MAX {
            return text.into();
        }
        report[part] = Value::Null;
        report["is_cut"] = true.into();
    }
    report.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_less_where_it_would_be_too_long() {
        let long = "x".repeat(REPORT_BYTES_MAX);
        let said = |report: Value| -> Value {
            let bytes = bounded(report);
            assert!(bytes.len() <= REPORT_BYTES_MAX);
            serde_json::from_slice(&bytes).unwrap()
        };
        let short = json!({ "name": "a", "policy": {}, "figures": {} });
        assert_eq!(said(short.clone()), short);
        let cut = said(json!({ "name": "a", "policy": long, "figures": { "f": 1 } }));
        assert_eq!(
            (&cut["policy"], &cut["is_cut"]),
            (&Value::Null, &json!(true))
        );
        assert_eq!(
            (&cut["name"], &cut["figures"]["f"]),
            (&json!("a"), &json!(1))
        );
    }

    #[test]
    fn traces_and_counts_are_left_to_whoever_asks_for_them() {
        let incident = json!({ "cause": "c", "backtrace": "b", "at_ms": 1 });
        let policy = json!({
            "active": { "name": "n", "decisions": 7, "incidents": [incident] },
            "candidate": null,
            "changes": [{ "what": "activate" }, { "what": "rollback", "incident": incident }],
        });
        let shown = shortened(policy);
        assert_eq!(shown["active"]["decisions"], Value::Null);
        assert_eq!(shown["changes"][0]["what"], "rollback");
        for incident in [
            &shown["active"]["incidents"][0],
            &shown["changes"][0]["incident"],
        ] {
            let expected = json!({ "cause": "c", "has_trace": true, "at_ms": 1 });
            assert_eq!(*incident, expected);
        }
    }
}
