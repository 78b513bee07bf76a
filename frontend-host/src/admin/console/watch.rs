//! Looks at everybody once a second while anybody follows: one look for all who do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::ReplicaId;
use domain::time::BootTime;
use rpc::release::Release;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::Channel;
use wire::catalog::v1::ListGatewaysRequest;
use wire::catalog::v1::catalog_client::CatalogClient;

use super::super::Admin;
use super::services::Asked;
use super::{Console, event, key, report};
use crate::handler::unix_ms;

/// Streams at a time. Less than the listener's connections, of which the rest is for everything else.
const STREAMS_MAX: usize = 16;

const INTERVAL: Duration = Duration::from_secs(1);

/// How long the catalog may take to say which gateways there are.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(700);

/// Gateways that are shown.
const GATEWAYS_MAX: usize = 64;

/// What is shown to all who follow.
pub struct Watched {
    /// How everybody is. Empty while nobody follows.
    now: watch::Sender<Bytes>,
    /// What gateways say of their policies.
    policy: watch::Sender<Bytes>,
    followers: watch::Sender<usize>,
    places: Arc<Semaphore>,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            now: watch::Sender::default(),
            policy: watch::Sender::default(),
            followers: watch::Sender::default(),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

impl Watched {
    /// A place among those who follow, where there is one.
    pub(super) fn follow(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let place = Place {
            now: subscribed(&self.now),
            policy: subscribed(&self.policy),
            followers: self.followers.clone(),
            _permit: permit,
        };
        self.followers.send_modify(|followers| *followers += 1);
        Some(place)
    }
}

/// What there is already is new as well.
fn subscribed(sender: &watch::Sender<Bytes>) -> watch::Receiver<Bytes> {
    let mut receiver = sender.subscribe();
    if !receiver.borrow().is_empty() {
        receiver.mark_changed();
    }
    receiver
}

/// Of one who follows.
pub(super) struct Place {
    now: watch::Receiver<Bytes>,
    policy: watch::Receiver<Bytes>,
    followers: watch::Sender<usize>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.followers.send_modify(|followers| *followers -= 1);
    }
}

impl Place {
    /// What is new, once anything is.
    pub(super) async fn next(&mut self) -> Bytes {
        loop {
            // Their senders outlive who follows.
            let latest = tokio::select! {
                biased; // how a policy came about, before what is seen of it now
                _ = self.policy.changed() => self.policy.borrow_and_update().clone(),
                _ = self.now.changed() => self.now.borrow_and_update().clone(),
            };
            if !latest.is_empty() {
                return latest;
            }
        }
    }
}

/// Looks for as long as the gateway runs.
pub(in super::super) async fn keep_watching(admin: Arc<Admin>) {
    let watched = &admin.console.watched;
    let mut followers = watched.followers.subscribe();
    loop {
        let _ = followers.wait_for(|followers| *followers > 0).await; // its sender is there
        // Anew each time: connections that nobody uses are probed for ever.
        let services = admin.console.services.iter();
        let everybody = Everybody {
            services: services.filter_map(|service| service.connect()).collect(),
            catalog: CatalogClient::new(admin.catalogs.channel()),
        };
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while *followers.borrow_and_update() > 0 {
            ticks.tick().await;
            let (now, policy) = look(&admin, &everybody).await;
            let policy = event("policy", policy.to_string().as_bytes());
            watched.policy.send_if_modified(|before| {
                let changes = *before != policy;
                *before = policy;
                changes
            });
            let now = event("now", now.to_string().as_bytes());
            watched.now.send_replace(now);
        }
        for sender in [&watched.now, &watched.policy] {
            sender.send_replace(Bytes::new());
        }
    }
}

/// Who is asked, over connections of the console's own: what clients wait for does not come behind what many say.
struct Everybody {
    services: Vec<Asked>,
    /// The active one.
    catalog: CatalogClient<Channel>,
}

/// How everybody is, and what gateways say of their policies.
async fn look(admin: &Arc<Admin>, everybody: &Everybody) -> (Value, Value) {
    // Also how far the journal is now, and not as of the last election round.
    let asked = admin.gateway.backend.replicas.ask_catalog();
    let (says, heard, gateways, own, _) = tokio::join!(
        all_say(&everybody.services),
        admin.catalogs.heard(),
        other_gateways(admin, everybody.catalog.clone()),
        report::report(admin),
        asked,
    );
    let (catalogs_say, replicas_say): (Vec<_>, Vec<_>) =
        says.into_iter().partition(|(replica, _)| replica.is_none());
    let heard = heard.into_iter().zip(catalogs_say);
    let catalogs = heard.map(|((url, heard), (_, said))| {
        let release = heard.release.as_ref().and_then(|release| release.number());
        json!({ "url": url, "role": heard.role.name(), "release": release, "said": said })
    });
    let catalogs: Vec<_> = catalogs.collect();
    let replicas = admin.replicas_json().into_iter().zip(replicas_say);
    let replicas = replicas.map(|(mut replica, (_, said))| {
        replica["said"] = said;
        replica
    });
    let replicas: Vec<_> = replicas.collect();
    let mut policies = Map::new();
    let own = Gateway {
        report: own,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        name: admin.console.name.clone(),
        age_ms: 0,
        session: 0,
    };
    let are_known = gateways.is_some();
    let (gateways, left_out) = gateways.unwrap_or_default();
    let gateways = std::iter::once(own).chain(gateways).map(|gateway| {
        let (gateway, key, policy) = gateway.shown();
        // Its own comes first, and nobody takes its place.
        policies.entry(key).or_insert(policy);
        gateway
    });
    let gateways: Vec<_> = gateways.collect();
    let mut now = admin.status_json(&[]);
    now["at_ms"] = unix_ms().into();
    now["catalogs"] = catalogs.into();
    now["replicas"] = replicas.into();
    now["gateways"] = gateways.into();
    now["gateways_known"] = are_known.into();
    now["gateways_left_out"] = left_out.into();
    (now, Value::Object(policies))
}

/// In the order of the services: catalogs, then replicas, each as they were named.
async fn all_say(services: &[Asked]) -> Vec<(Option<ReplicaId>, Value)> {
    let mut asked = JoinSet::new();
    for (place, service) in services.iter().cloned().enumerate() {
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the set, in bounded time"
        )]
        asked.spawn(async move { (place, service.says().await) });
    }
    let mut said = vec![Value::Null; services.len()];
    while let Some(answer) = asked.join_next().await {
        if let Ok((place, says)) = answer {
            said[place] = says;
        }
    }
    let replicas = services.iter().map(|service| service.replica);
    replicas.zip(said).collect()
}

/// A gateway that has said how it is.
#[derive(Debug)]
struct Gateway {
    session: u64,
    name: String,
    release: String,
    report: Value,
    age_ms: u64,
}

impl Gateway {
    /// Where it says that it is, once it has said anything.
    fn host(&self) -> Option<&str> {
        self.report["host"].as_str()
    }

    /// As it is shown, what it is known by, and its policy.
    fn shown(self) -> (Value, String, Value) {
        let Self {
            session,
            name,
            release,
            mut report,
            age_ms,
        } = self;
        let key = match report["host"].as_str() {
            None | Some("") => name.clone(),
            Some(host) => key(&name, host),
        };
        let mut take = |part: &str| {
            let report = report.as_object_mut();
            report
                .and_then(|report| report.remove(part))
                .unwrap_or_default()
        };
        let policy = json!({ "policy": take("policy"), "differences": take("differences") });
        let shown = json!({
            "key": key,
            "name": name,
            "own": session == 0,
            "release": release,
            "age_ms": age_ms,
            "report": report,
        });
        (shown, key, policy)
    }
}

/// The others that have a session with the catalog, and how many there are besides; `None` where it does not say, as one of before
/// does not.
async fn other_gateways(
    admin: &Admin,
    mut catalog: CatalogClient<Channel>,
) -> Option<(Vec<Gateway>, usize)> {
    let journal = admin.gateway.backend.replicas.own_journal().to_wire();
    let asked = catalog.list_gateways(ListGatewaysRequest {
        names_alone: false,
        journal,
    });
    let answer = timeout(ANSWER_TIME_MAX, asked).await.ok()?.ok()?;
    let answer = answer.into_inner();
    // The catalog's order is the one in which they have places.
    let left_out = answer.gateways.len().saturating_sub(GATEWAYS_MAX);
    let left_out = left_out + answer.left_out as usize;
    let others = answer.gateways.into_iter();
    let others = others.take(GATEWAYS_MAX).map(|gateway| Gateway {
        session: gateway.session,
        name: gateway.name,
        release: number_of(&gateway.release),
        // What is no object says nothing.
        report: serde_json::from_slice(&gateway.report)
            .ok()
            .filter(Value::is_object)
            .unwrap_or_default(),
        age_ms: gateway.age_ms,
    });
    let session = admin.gateway.cache.lease().current(BootTime::now());
    let session = session.map(domain::SessionId::get);
    let others = one_of_each(others.collect(), &admin.console, session);
    Some((others, left_out))
}

/// Of a release that says it.
fn number_of(tokens: &str) -> String {
    let release = Release::of_tokens(tokens);
    release.number().unwrap_or_default().to_owned()
}

/// A gateway whose session was lost may have another one, before that is over: whoever said last how it is stands for it. One that
/// has said nothing yet is nobody that is known.
///
/// The catalog adds to what a gateway calls itself who that is: so this one is known by its session, and where an earlier one is
/// not over yet, by what it says.
fn one_of_each(mut gateways: Vec<Gateway>, own: &Console, session: Option<u64>) -> Vec<Gateway> {
    let bare = |gateway: &Gateway| gateway.name.split(" (").next() == Some(&*own.name);
    let is_own = |gateway: &Gateway| {
        Some(gateway.session) == session
            || bare(gateway) && gateway.host().is_none_or(|host| host == own.host)
    };
    gateways.retain(|gateway| !is_own(gateway));
    gateways.sort_by_key(|gateway| (gateway.host().is_none(), gateway.age_ms));
    let (mut names, mut known) = (BTreeSet::new(), BTreeSet::new());
    gateways.retain(|gateway| {
        let host = gateway.host().map(str::to_owned);
        let is_new_name = names.insert(gateway.name.clone());
        match host {
            None => is_new_name,
            Some(host) => known.insert((gateway.name.clone(), host)),
        }
    });
    gateways.sort_by(|one, other| (&one.name, one.host()).cmp(&(&other.name, other.host())));
    gateways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_with_two_sessions_is_one_and_those_of_one_name_on_two_hosts_are_two() {
        let gateway = |session, name: &str, host: Option<&str>, age_ms| Gateway {
            session,
            name: name.to_owned(),
            release: String::new(),
            report: host.map_or(Value::Null, |host| json!({ "host": host })),
            age_ms,
        };
        let own = Console {
            reporting: Default::default(),
            name: "0.0.0.0:8080".into(),
            host: "a".into(),
            admin: String::new(),
            services: Vec::new(),
            policy: Default::default(),
            watched: Watched::default(),
        };
        let found = one_of_each(
            vec![
                gateway(1, "0.0.0.0:8080", Some("a"), 10),
                gateway(2, "0.0.0.0:8080", Some("b"), 900),
                gateway(3, "0.0.0.0:8080", Some("b"), 20),
                gateway(4, "0.0.0.0:8080", Some("c"), 30),
                gateway(5, "0.0.0.0:8080", None, 0),
                gateway(6, "10.0.0.7:80", None, 0),
                // With who it is.
                gateway(7, "0.0.0.0:8080 (10.0.0.1)", Some("another name of a"), 5),
                gateway(8, "0.0.0.0:8080 (10.0.0.1)", Some("a"), 5),
                gateway(9, "0.0.0.0:8080 (10.0.0.2)", Some("d"), 5),
            ],
            &own,
            Some(7),
        );
        let found: Vec<_> = found.iter().map(|gateway| gateway.session).collect();
        assert_eq!(found, [3, 4, 9, 6]);
    }
}
