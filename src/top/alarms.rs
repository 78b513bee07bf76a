//! What is wrong, in words: by the names and the bounds of `deploy/prometheus/alerts.yml`. What each means and what to do is in
//! `docs/OPERATING.md`, "Alarms".
//!
//! The console has the same in `page/alarms.js`, and both the same order: `tests/console/alarms.json` is what both have to say.

use super::figures::{self, Figures, SECONDS, Span, routes, trades};
use super::moment::{AllPolicies, Catalog, Gone, Moment, Replica, Told, is_by_itself};
use super::text::{ago, lately, share, span as long, time};
use crate::admin::Policies;

const DAY: f64 = 86_400.0;

/// Alarms of one process: what one says of itself hides nobody else's.
const EACH_MAX: usize = 6;

/// The part of what there may be from which on it is said.
const PART_MAX: f64 = 0.8;

/// Fewest of which a share or a quantile says something.
const COUNT_MIN: f64 = 20.0;
const TIMED_MIN: u64 = 20;

/// Share of failures from which on it is said.
const FAILED_SHARE_MAX: f64 = 0.01;

/// Seconds that figures have to be over, for shares and quantiles.
const TRAFFIC_SECONDS_MIN: f64 = 5.0;

/// For how long a change that a gateway made by itself is said, in seconds.
const TAKEN_OUT_SECONDS: f64 = 900.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Critical,
    Warning,
}

impl Severity {
    /// As the rules for Prometheus call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    pub severity: Severity,
    /// What a runbook is looked up by.
    pub name: &'static str,
    pub words: String,
    /// What it means, or what to do.
    pub what: String,
}

/// What alarms are made of.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub now: &'a Moment,
    /// What was counted lately.
    pub minute: Option<&'a Span<'a>>,
    pub policies: &'a AllPolicies,
    /// Gateways that were there before.
    pub gone: &'a [Gone],
}

/// All of them, the worst first.
pub fn alarms(seen: &Seen<'_>) -> Vec<Alarm> {
    let mut found = Alarms(Vec::new());
    let Seen {
        now,
        minute,
        policies,
        gone,
    } = seen;
    found.of_services(now);
    for gateway in *gone {
        let (key, seconds) = (&gateway.key, long(gateway.seconds));
        let away = match now.gateways_left_out {
            0 => "has had no session with the catalog for",
            _ => "is not among those that the catalog lists, of more than it lists, for",
        };
        found.warning(
            "BazaarDown",
            format!("Gateway {key} {away} {seconds}"),
            "It was stopped, or it is cut off.",
        );
    }
    found.of_processes(now);
    if let Some(minute) = minute {
        if minute.seconds() > Some(TRAFFIC_SECONDS_MIN) {
            found.of_traffic(minute);
        }
        found.of_events(minute);
    }
    for gateway in &now.gateways {
        let key = &gateway.key;
        match policies.get(key).map(|told| &told.policy) {
            None | Some(Told::Nothing) => {}
            Some(Told::Policies(policies)) => found.of_policy(key, policies, now),
            Some(Told::Unclear) => found.warning(
                "BazaarPolicyFails",
                format!("What gateway {key} says of its policy is not in its form"),
                "See it at that gateway's own console.",
            ),
        }
    }
    let Alarms(mut all) = found;
    all.sort_by_key(|alarm| alarm.severity);
    all
}

#[derive(Debug)]
struct Alarms(Vec<Alarm>);

impl Alarms {
    fn critical(&mut self, name: &'static str, words: impl Into<String>, what: impl Into<String>) {
        self.add(Severity::Critical, name, words.into(), what.into());
    }

    fn warning(&mut self, name: &'static str, words: impl Into<String>, what: impl Into<String>) {
        self.add(Severity::Warning, name, words.into(), what.into());
    }

    fn add(&mut self, severity: Severity, name: &'static str, words: String, what: String) {
        self.0.push(Alarm {
            severity,
            name,
            words,
            what,
        });
    }

    fn of_services(&mut self, now: &Moment) {
        let journal = &now.catalog;
        self.of_catalogs(now);
        let leads = now.replicas.iter().any(|replica| {
            Some(replica.id) == now.leader && replica.role.as_deref() == Some("leader")
        });
        if journal.reachable && !leads {
            self.critical(
                "BazaarNotReady",
                "No replica leads: no trade can be served",
                "An election is on its way, or no replica answers.",
            );
        }
        for replica in &now.replicas {
            self.of_replica(replica, now);
        }
        if journal.reachable && now.replicas.len() > 1 && journal.in_sync.len() == 1 {
            self.warning(
                "BazaarOneInSyncReplica",
                "One replica alone is in sync: its disk and the catalog's are all that keeps the next order",
                "Start the others.",
            );
        }
        for gateway in &now.gateways {
            let report = gateway.report.as_ref();
            if let Some(why) = report.and_then(|report| report.why_not_ready.as_ref()) {
                self.critical(
                    "BazaarNotReady",
                    format!("Gateway {} is not ready: {why}", gateway.key),
                    "Clients get 503 for trades.",
                );
            }
        }
    }

    fn of_catalogs(&mut self, now: &Moment) {
        let catalogs = &now.catalogs;
        let has = |role: &str| catalogs.iter().any(|catalog| catalog.role == role);
        if !has("active") || !now.catalog.reachable {
            self.critical(
                "BazaarNoActiveCatalog",
                "No catalog is active: nothing is traded, and only what is cached can be looked up",
                all_say(catalogs.iter()),
            );
        } else if catalogs.len() > 1 && !has("standby") {
            let others = catalogs.iter().filter(|catalog| catalog.role != "active");
            self.warning(
                "BazaarDown",
                "No catalog stands by: if the active one is lost, nobody takes over",
                all_say(others),
            );
        }
        for catalog in catalogs {
            if catalog.role == "silent" && catalogs.len() > 1 {
                self.warning(
                    "BazaarDown",
                    format!("The catalog at {} does not answer", catalog.url),
                    "See whether it runs, and start it.",
                );
            }
        }
    }

    fn of_replica(&mut self, replica: &Replica, now: &Moment) {
        let id = replica.id;
        if replica.foreign {
            self.critical(
                "BazaarNotReady",
                format!("Replica {id} is of another journal"),
                "It is refused. See which data directory it was started on.",
            );
        } else if !replica.healthy {
            self.warning(
                "BazaarDown",
                format!("Replica {id} does not answer"),
                "See whether it runs, and start it.",
            );
        } else if replica.reaches_catalog != Some(true) {
            self.warning(
                "BazaarCatalogUnreachable",
                format!("Replica {id} does not reach the catalog"),
                "See to the network between the two.",
            );
        } else if now.catalog.reachable && !now.is_in_sync(id) {
            self.warning(
                "BazaarFollowerFails",
                format!("Replica {id} is not in sync"),
                "Orders are acknowledged without it. It copies what it lacks, or was too slow, and comes back by itself.",
            );
        }
        if let Some(lag) = replica
            .gauge("bazaar_order_lag_seconds")
            .filter(|lag| *lag > 5.0)
        {
            self.warning(
                "BazaarReplicaLags",
                format!("Replica {id} lacks rows for {}", long(lag)),
                "It copies a ledger, or its disk or its link to the leader is too slow.",
            );
        }
    }

    fn of_processes(&mut self, now: &Moment) {
        for gateway in &now.gateways {
            if let Some(report) = &gateway.report {
                self.of_process(&format!("Gateway {}", gateway.key), &report.figures, now);
            }
        }
        for replica in &now.replicas {
            if let Some(said) = &replica.said {
                self.of_process(&format!("Replica {}", replica.id), &said.figures, now);
            }
        }
        for catalog in &now.catalogs {
            if let Some(said) = &catalog.said {
                self.of_process(
                    &format!("The catalog at {}", catalog.url),
                    &said.figures,
                    now,
                );
            }
        }
    }

    fn of_process(&mut self, who: &str, figures: &Figures, now: &Moment) {
        let before = self.0.len();
        self.of_certificates(who, figures, now);
        self.of_limits(who, figures);
        self.0.truncate(before + EACH_MAX);
    }

    fn of_certificates(&mut self, who: &str, figures: &Figures, now: &Moment) {
        for (which, at) in figures.by_label("bazaar_certificate_expiry_timestamp_seconds") {
            let left = at - now.at();
            if left < 0.0 {
                self.critical(
                    "BazaarCertificateExpired",
                    format!(
                        "A certificate ({which}) of {who} has expired: nobody believes it any more"
                    ),
                    "Put a new one in its place now.",
                );
            } else if left < 7.0 * DAY {
                self.warning(
                    "BazaarCertificateExpires",
                    format!("A certificate ({which}) of {who} expires in {}", long(left)),
                    "Put a new one in its place: it is taken up at once.",
                );
            }
        }
    }

    fn of_limits(&mut self, who: &str, figures: &Figures) {
        for (what, held) in figures.by_label("bazaar_held_bytes") {
            let mut most = figures.by_label("bazaar_held_bytes_max");
            let most = most.find(|(of, _)| *of == what).map(|(_, most)| most);
            if let Some(part) = most.map(|most| held / most).filter(|part| *part > PART_MAX) {
                self.warning(
                    "BazaarHeldBytesNearBudget",
                    format!(
                        "{who} holds {} of what it may for clients ({what})",
                        share(part)
                    ),
                    "Past that, requests are refused.",
                );
            }
        }
        for (name, used, most, what) in [
            (
                "BazaarConnectionsNearLimit",
                "bazaar_connections",
                "bazaar_connections_max",
                "the connections",
            ),
            (
                "BazaarFilesNearLimit",
                "process_open_fds",
                "process_max_fds",
                "the open files",
            ),
        ] {
            let [used, most] = [used, most].map(|name| figures.gauge(name));
            let part = used.zip(most).map(|(used, most)| used / most);
            if let Some(part) = part.filter(|part| *part > PART_MAX) {
                self.warning(
                    name,
                    format!("{who} has {} of {what} that it may have", share(part)),
                    "See the limits.",
                );
            }
        }
    }

    fn of_traffic(&mut self, minute: &Span<'_>) {
        for route in routes(minute) {
            let failed = route.failed / route.count;
            if route.count >= COUNT_MIN && failed > FAILED_SHARE_MAX {
                let (share, route) = (share(failed), route_words(&route.name));
                self.critical(
                    "BazaarRequestsFail",
                    format!("{share} of requests ({route}) are answered with 500 and above"),
                    "See who leads, the alarms above, and the policy.",
                );
            }
            let p99 = route.p99.filter(|p99| *p99 > 0.5);
            let p99 = p99.filter(|_| route.name == "trade" && route.timed >= TIMED_MIN);
            if let Some(p99) = p99 {
                self.warning(
                    "BazaarTradesSlow",
                    format!("One trade in a hundred takes longer than {}", time(p99)),
                    "The stages of a trade say where the time goes.",
                );
            }
        }
        let trades = trades(minute);
        let all = trades.traded + trades.refused + trades.unavailable;
        let failed = trades.unavailable / all;
        if all >= COUNT_MIN && failed > FAILED_SHARE_MAX {
            self.critical(
                "BazaarTradesUnavailable",
                format!("{} of trades are not answered in time", share(failed)),
                "With the same key they can be asked for again.",
            );
        }
        self.of_stages(minute);
    }

    fn of_stages(&mut self, minute: &Span<'_>) {
        let all = figures::stages_took(minute);
        let slow = |stage: &str, bound: f64| {
            let took = figures::took_of(&all, stage);
            let p99 = took.quantile(0.99, &SECONDS);
            p99.filter(|p99| took.count() >= TIMED_MIN && *p99 > bound)
        };
        if let Some(p99) = slow("store", 0.1) {
            self.warning(
                "BazaarCommitsSlow",
                format!("One commit in a hundred takes longer than {}", time(p99)),
                "Look at the disk of the catalog, or its database.",
            );
        }
        if let Some(p99) = slow("show", 0.2) {
            self.warning(
                "BazaarCachesHoldTradesUp",
                format!("One trade in a hundred waits longer than {} for a gateway to let go of what it has cached", time(p99)),
                "Find the gateway that hangs.",
            );
        }
        let saves = minute.histograms("bazaar_order_save_seconds", |added| {
            let is_replica = added.who.starts_with("replica ");
            is_replica.then(|| added.who.to_owned())
        });
        for (who, save) in saves {
            let p99 = save.quantile(0.99, &SECONDS).filter(|p99| *p99 > 0.1);
            if let Some(p99) = p99.filter(|_| save.count() >= TIMED_MIN) {
                self.warning(
                    "BazaarReplicaDiskSlow",
                    format!(
                        "The disk of {who} takes longer than {} for one group of rows in a hundred",
                        time(p99)
                    ),
                    "Look at that disk's latency.",
                );
            }
        }
    }

    /// Of what is rare.
    fn of_events(&mut self, minute: &Span<'_>) {
        let lately = lately(minute.seconds());
        let failed = minute.sum("bazaar_catalog_commits_total", |added| {
            added.label(0) == "failed"
        });
        if failed > 0.0 {
            self.critical(
                "BazaarCommitsFail",
                format!("The catalog's database refused {failed} commits in {lately}"),
                "Its disk is full or fails; the catalog's log has its words.",
            );
        }
        let dropped = minute.sum("bazaar_log_records_dropped_total", |_| true);
        if dropped > 0.0 {
            self.warning(
                "BazaarLogDropped",
                format!("{dropped} records of logs could not be written in {lately}"),
                "Look at who reads standard error, and its disk.",
            );
        }
        for added in minute.added("bazaar_session_events_total") {
            if added.label(0) == "lost" && added.value > 3.0 && added.is_there {
                self.warning(
                    "BazaarSessionLost",
                    format!(
                        "The {} keeps losing its session with the catalog",
                        added.who
                    ),
                    "Its log says why.",
                );
            }
        }
    }

    fn of_policy(&mut self, key: &str, policies: &Policies, now: &Moment) {
        if let Some(closed) = &policies.closed {
            self.critical(
                "BazaarPolicyClosed",
                format!("Gateway {key} serves nobody: {closed}"),
                "Push a policy that starts.",
            );
        }
        let versions = [&policies.active, &policies.candidate]
            .into_iter()
            .flatten();
        for version in versions.filter(|version| version.condemned) {
            self.warning(
                "BazaarPolicyFails",
                format!(
                    "The policy {} fails too often at {key}, and no other stands in for it",
                    version.name
                ),
                "Activate another one.",
            );
        }
        let Some(last) = policies.changes.iter().find(|change| is_by_itself(change)) else {
            return;
        };
        let seconds = now.seconds_since(last.at_ms);
        if seconds < TAKEN_OUT_SECONDS {
            let what = match last.what.as_str() {
                "rollback" => "rolled its policy back",
                _ => "dropped a candidate policy",
            };
            self.warning(
                "BazaarPolicyTakenOut",
                format!("Gateway {key} {what} by itself, {}", ago(seconds)),
                &*last.why,
            );
        }
    }
}

fn all_say<'a>(catalogs: impl Iterator<Item = &'a Catalog>) -> String {
    let all = catalogs.map(
        |Catalog {
             url, role, said, ..
         }| match said {
            Some(said) => format!("{url}: {}", said.says),
            None if role == "silent" => format!("{url}: does not answer"),
            None => format!("{url}: {role}"),
        },
    );
    all.collect::<Vec<_>>().join("; ")
}

/// What a route is for.
pub fn route_words(name: &str) -> &str {
    match name {
        "stock" => "looking up a stock",
        "stocks" => "listing stocks",
        "order" => "looking up an order",
        "orders" => "listing orders",
        "events" => "following orders",
        "trade" => "trading",
        "other" => "other requests",
        "policy" => "what the policy answers itself",
        "refused" => "refused requests",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::super::figures::History;
    use super::*;

    /// What the console says is held to the same, see `tests/top.rs`.
    const CASES: &str = include_str!("../../tests/console/alarms.json");

    /// A gateway that was there, as the table has it.
    fn gone_of(said: &Value) -> Gone {
        Gone {
            key: said["key"].as_str().unwrap().to_owned(),
            release: String::new(),
            seconds: said["seconds"].as_f64().unwrap(),
        }
    }

    #[test]
    fn alarms_are_those_of_the_table_that_the_console_is_held_to() {
        let table: Value = serde_json::from_str(CASES).unwrap();
        let base: &Map<_, _> = table["base"].as_object().unwrap();
        let cases = table["cases"].as_array().unwrap();
        for case in cases {
            let mut history = History::default();
            let mut now = Moment::default();
            for more in case["moments"].as_array().unwrap() {
                let mut moment = base.clone();
                moment.extend(more.as_object().unwrap().clone());
                now = serde_json::from_value(Value::Object(moment)).unwrap();
                history.add(now.at(), now.sources());
            }
            let policies = case.get("policies").cloned();
            let policies = policies.map_or_else(AllPolicies::new, |policies| {
                serde_json::from_value(policies).unwrap()
            });
            let gone = case.get("gone").and_then(Value::as_array).into_iter();
            let gone: Vec<_> = gone.flatten().map(gone_of).collect();
            let minute = history.over(60.0);
            let found = alarms(&Seen {
                now: &now,
                minute: minute.as_ref(),
                policies: &policies,
                gone: &gone,
            });
            let found = found.iter();
            let found = found.map(|it| [it.severity.name(), it.name, &it.words, &it.what]);
            let found: Vec<_> = found.map(|it| it.map(str::to_owned)).collect();
            let expected: Vec<[String; 4]> =
                serde_json::from_value(case["alarms"].clone()).unwrap();
            assert_eq!(found, expected, "{}", case["name"]);
        }
    }
}
