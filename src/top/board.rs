//! What is shown, made of what was said: as the console's page makes it (`page/services.js`, `page/requests.js`).

use super::alarms::{Alarm, Seen, Severity, alarms};
use super::figures::{self, Added, DECISIONS, History, Route, SECONDS, Span, Stage, Trades};
use super::moment::{
    AllPolicies, Catalog, Gateway, Gone, Moment, PolicyOf, Replica, Told, source_of_gateway,
};
use super::text::{UNKNOWN, ago, count, counted, known, rate, share, short, span as long, time};
use crate::admin::Policy;

/// From which age on a gateway's word is said to be old: it says every second how it is.
const LATE_MS: u64 = 3000;

/// The same of its policy, in seconds.
const STALE_SECONDS: f64 = 3.0;

/// How a thing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Well,
    Warning,
    Bad,
    Off,
}

/// All that is shown of one moment.
#[derive(Debug, Clone)]
pub struct Board {
    pub now: Moment,
    pub alarms: Vec<Alarm>,
    pub tiles: Vec<Tile>,
    pub services: Vec<Service>,
    /// Gateways that are not among these, in words.
    pub others: Vec<String>,
    /// Of the last minute; none before there are two moments.
    pub minute: Option<Traffic>,
    pub since_start: Traffic,
    /// In the order of the gateways.
    pub policies: Vec<PolicyShown>,
}

/// A key figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    pub name: &'static str,
    pub value: String,
    pub state: State,
}

/// A gateway, a replica or a catalog.
#[derive(Debug, Clone)]
pub struct Service {
    pub state: State,
    pub name: String,
    pub role: String,
    /// How it does, in words.
    pub says: String,
    pub epoch: Option<u64>,
    pub lag: Option<String>,
    pub lease: Option<String>,
    pub orders: Option<u64>,
    /// Of the last row.
    pub hash: Option<String>,
    /// How long it has been up, in seconds.
    pub up: Option<f64>,
    pub release: Option<String>,
}

/// Requests and trades over a time.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// How long; `None` where it is since each process began.
    pub seconds: Option<f64>,
    pub routes: Vec<Route>,
    pub stages: Vec<Stage>,
    pub trades: Trades,
}

/// What one gateway says of its policy.
#[derive(Debug, Clone)]
pub struct PolicyShown {
    pub key: String,
    pub told: PolicyOf,
    pub is_cut: bool,
    /// How old that is, in seconds, where it is not of just now.
    pub age: Option<f64>,
    /// For how long the active version has been that, in seconds.
    pub active: Option<f64>,
    /// Of the active version and the candidate, in the last minute.
    pub decided: [Option<Decided>; 2],
}

/// Decisions of a version in the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Decided {
    pub per_second: f64,
    pub failed: f64,
    /// Those that came out differently when they were made again.
    pub impure: f64,
    pub p99: Option<f64>,
}

impl Board {
    /// Of a moment and what was before it; `passed` more gateways than these are gone.
    pub fn new(
        now: Moment,
        history: &History,
        policies: &AllPolicies,
        (gone, passed): (&[Gone], u64),
    ) -> Self {
        let minute = history.over(60.0);
        let last = history.over(5.0).or_else(|| minute.clone());
        let alarms = alarms(&Seen {
            now: &now,
            minute: minute.as_ref(),
            policies,
            gone,
        });
        let gateways = now.gateways.iter();
        let shown = gateways.map(|gateway| {
            let told = policies.get(&gateway.key).cloned();
            policy(gateway, told.unwrap_or_default(), minute.as_ref())
        });
        Self {
            alarms,
            tiles: tiles(&now, minute.as_ref(), last.as_ref()),
            services: services(&now, minute.as_ref(), gone),
            others: others(&now, passed),
            minute: minute.as_ref().map(traffic),
            since_start: history
                .since_start()
                .as_ref()
                .map(traffic)
                .unwrap_or_default(),
            policies: shown.collect(),
            now,
        }
    }

    /// The worst that is wrong.
    pub fn state(&self) -> State {
        match self.alarms.first() {
            None => State::Well,
            Some(alarm) => alarm.severity.into(),
        }
    }
}

impl From<Severity> for State {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Critical => Self::Bad,
            Severity::Warning => Self::Warning,
        }
    }
}

fn traffic(span: &Span<'_>) -> Traffic {
    Traffic {
        seconds: span.seconds(),
        routes: figures::routes(span),
        stages: figures::stages(span),
        trades: figures::trades(span),
    }
}

// ---- key figures ----

fn tiles(now: &Moment, minute: Option<&Span<'_>>, last: Option<&Span<'_>>) -> Vec<Tile> {
    let per_second = |value: f64| {
        known(seconds(last), |seconds| {
            format!("{}/s", rate(value / seconds))
        })
    };
    let asked = last.map(figures::routes).unwrap_or_default();
    let lately = minute.map(figures::routes).unwrap_or_default();
    let sum = |routes: &[Route], of: fn(&Route) -> f64| routes.iter().map(of).sum::<f64>();
    let requests = sum(&lately, |route| route.count);
    let failed = sum(&lately, |route| route.failed);
    let failed_share = (requests > 0.0).then(|| failed / requests);
    let traded = last.map_or(0.0, |last| figures::trades(last).traded);
    let trade = lately.iter().find(|route| route.name == "trade");
    let p99 = trade.and_then(|trade| trade.p99);
    let bad_where = |is_so: bool, state: State| if is_so { state } else { State::Well };
    let (lag, lag_state) = worst_lag(now);
    let tile = |name, value, state| Tile { name, value, state };
    vec![
        tile(
            "requests",
            per_second(sum(&asked, |route| route.count)),
            State::Well,
        ),
        tile(
            "failed",
            known(failed_share, share),
            bad_where(failed > 0.0, State::Bad),
        ),
        tile(
            "hit ratio",
            known(minute.and_then(figures::hit_ratio), share),
            State::Well,
        ),
        tile("trades", per_second(traded), State::Well),
        tile(
            "trade p99",
            known(p99, time),
            bad_where(p99 > Some(0.5), State::Warning),
        ),
        tile("lag", lag, lag_state),
    ]
}

fn seconds(span: Option<&Span<'_>>) -> Option<f64> {
    span.and_then(Span::seconds)
}

/// Of the replica that is furthest behind, and whether one is missing.
fn worst_lag(now: &Moment) -> (String, State) {
    let replicas = now.replicas.iter();
    let mut missing = replicas.clone().filter(|replica| !replica.healthy);
    let lags = replicas.filter_map(|replica| lag(replica, now));
    let worst = lags.max_by(|one, other| {
        let seconds = one.seconds.total_cmp(&other.seconds);
        seconds.then(one.rows.cmp(&other.rows))
    });
    if let Some(missing) = missing.next() {
        return (format!("replica {} is down", missing.id), State::Warning);
    }
    match worst {
        None => (UNKNOWN.to_owned(), State::Off),
        Some(lag) if lag.seconds > 1.0 => (long(lag.seconds), State::Warning),
        Some(Lag { rows: 0, .. }) => ("none".to_owned(), State::Well),
        Some(lag) => (counted(lag.rows, "row"), State::Well),
    }
}

// ---- services ----

/// How far a replica is behind the journal.
#[derive(Debug, Clone, Copy)]
struct Lag {
    rows: u64,
    seconds: f64,
}

/// What it says itself, else what was last heard of it; nothing of one that is down.
fn lag(replica: &Replica, now: &Moment) -> Option<Lag> {
    if !replica.healthy {
        return None;
    }
    let own = replica
        .gauge("bazaar_order_lag_rows")
        .map(|rows| rows as u64);
    let journal = now.catalog.journal_rows.filter(|_| now.catalog.reachable);
    let behind = journal.zip(replica.rows);
    let behind = behind.map(|(journal, rows)| journal.saturating_sub(rows));
    Some(Lag {
        rows: own.or(behind).unwrap_or(0),
        seconds: replica.gauge("bazaar_order_lag_seconds").unwrap_or(0.0),
    })
}

fn services(now: &Moment, minute: Option<&Span<'_>>, gone: &[Gone]) -> Vec<Service> {
    let gateways = now.gateways.iter().map(|it| gateway(it, now, minute));
    let away = match now.gateways_left_out {
        0 => "no session any more",
        _ => "not among those that the catalog lists",
    };
    let gone = gone.iter().map(|gone| Service {
        role: "gone".to_owned(),
        says: format!("{away}, for {}", long(gone.seconds)),
        release: Some(gone.release.clone()),
        ..unknown(State::Off, format!("gateway {}", gone.key))
    });
    let replicas = now.replicas.iter().map(|it| replica(it, now));
    let catalogs = now.catalogs.iter().map(|it| catalog(it, now, minute));
    gateways
        .chain(gone)
        .chain(replicas)
        .chain(catalogs)
        .collect()
}

fn others(now: &Moment, passed: u64) -> Vec<String> {
    let left_out = now.gateways_left_out;
    let mut words = Vec::new();
    if left_out > 0 {
        words.push(format!(
            "{} more have a session, and no place here",
            count(left_out)
        ));
    }
    if passed > 0 {
        words.push(format!("{} more came and went", count(passed)));
    }
    words
}

/// One of which nothing is known.
fn unknown(state: State, name: String) -> Service {
    Service {
        state,
        name,
        role: String::new(),
        says: String::new(),
        epoch: None,
        lag: None,
        lease: None,
        orders: None,
        hash: None,
        up: None,
        release: None,
    }
}

fn gateway(gateway: &Gateway, now: &Moment, minute: Option<&Span<'_>>) -> Service {
    let name = gateway.source();
    let Some(report) = &gateway.report else {
        return Service {
            role: "gateway".to_owned(),
            says: "has not said yet how it is".to_owned(),
            release: Some(gateway.release.clone()),
            ..unknown(State::Warning, name)
        };
    };
    let asked = minute.map(|minute| {
        let answered = figures::answered(minute);
        let own = answered.iter().filter(|added| added.who == name);
        let per_second: f64 = own.clone().map(Added::per_second).sum();
        let failed: f64 = own
            .filter(|added| added.label(2) == "5xx")
            .map(|added| added.value)
            .sum();
        let took = minute.histogram("bazaar_request_duration_seconds", |added| added.who == name);
        let p99 = known(took.quantile(0.99, &SECONDS), time);
        (
            failed,
            format!("{} requests/s, p99 {p99}", rate(per_second)),
        )
    });
    let late = gateway.age_ms > LATE_MS;
    let late = late.then(|| format!("last heard {}", ago(gateway.age_ms as f64 / 1000.0)));
    let state = match (&report.why_not_ready, &asked) {
        (Some(_), _) => State::Bad,
        (None, Some((failed, _))) if *failed > 0.0 => State::Warning,
        (None, _) if late.is_some() => State::Warning,
        (None, _) => State::Well,
    };
    let says = match (&report.why_not_ready, asked, late) {
        (Some(why), _, None) => why.clone(),
        (Some(why), _, Some(late)) => format!("{why}, {late}"),
        (None, _, Some(late)) => late,
        (None, Some((_, asked)), None) => format!("ready, {asked}"),
        (None, None, None) => "ready".to_owned(),
    };
    let lease = report.lease.as_ref();
    let lease = lease.map(|lease| format!("of {}", time(lease.length_ms as f64 / 1000.0)));
    Service {
        role: if gateway.own { "this one" } else { "gateway" }.to_owned(),
        says,
        epoch: report.epoch,
        lease: Some(lease.unwrap_or_else(|| "none".to_owned())),
        up: up(report.figures.gauge("process_start_time_seconds"), now),
        release: Some(gateway.release.clone()),
        ..unknown(state, name)
    }
}

fn replica(replica: &Replica, now: &Moment) -> Service {
    let name = format!("replica {}", replica.id);
    let (is_in, journal) = (now.is_in_sync(replica.id), now.catalog.reachable);
    let Some(lag) = lag(replica, now) else {
        let says = match replica.foreign {
            true => "is of another journal: refused",
            false => "does not answer",
        };
        return Service {
            role: "down".to_owned(),
            says: says.to_owned(),
            ..unknown(State::Bad, name)
        };
    };
    let reaches = replica.reaches_catalog == Some(true);
    let is_behind = lag.seconds > 1.0 || !is_in && journal && lag.rows > 0;
    let rows = counted(lag.rows, "row");
    let for_long = match lag.seconds > 0.0 {
        true => format!(", for {}", long(lag.seconds)),
        false => String::new(),
    };
    let says = match (reaches, is_behind) {
        (false, _) => "does not reach the catalog".to_owned(),
        (true, true) => format!("lags: {rows} behind{for_long}"),
        (true, false) if !is_in && journal => "answers, not in sync".to_owned(),
        (true, false) => "in sync".to_owned(),
    };
    let state = match is_behind || !is_in || !reaches {
        true => State::Warning,
        false => State::Well,
    };
    let hash = replica.chain_hash.as_deref();
    let is_same = hash.is_some() && hash == now.catalog.chain_hash.as_deref();
    let seconds = (lag.seconds > 0.0).then(|| format!(", {}", time(lag.seconds)));
    Service {
        role: replica.role.clone().unwrap_or_default(),
        says,
        epoch: replica.epoch,
        lag: Some(rows + &seconds.unwrap_or_default()),
        orders: replica.orders,
        hash: hash.map(|hash| short(hash) + if is_same { " =" } else { "" }),
        up: up(replica.gauge("process_start_time_seconds"), now),
        ..unknown(state, name)
    }
}

fn catalog(catalog: &Catalog, now: &Moment, minute: Option<&Span<'_>>) -> Service {
    let journal = &now.catalog;
    let is_active = catalog.role == "active" && journal.reachable;
    let role = match catalog.role.as_str() {
        "active" if !journal.reachable => "silent",
        role => role,
    };
    let said = catalog.said.as_ref();
    let is_ready = said.is_none_or(|said| said.ready);
    let state = match role {
        "active" if is_ready => State::Well,
        "standby" => State::Well,
        _ => State::Bad,
    };
    let commits = minute.filter(|_| is_active).map(|minute| {
        let source = catalog.source();
        rate(minute.rate("bazaar_catalog_commits_total", |added| {
            added.who == source && added.label(0) == "committed"
        }))
    });
    let says = match (role, said) {
        ("silent", _) => "does not answer".to_owned(),
        (_, Some(said)) if !said.ready => said.says.clone(),
        _ if is_active => {
            let in_sync: Vec<_> = journal.in_sync.iter().map(u32::to_string).collect();
            let in_sync = match in_sync.is_empty() {
                true => "none".to_owned(),
                false => in_sync.join(", "),
            };
            let commits = commits.map(|commits| format!(", {commits} commits/s"));
            format!("in sync: {in_sync}{}", commits.unwrap_or_default())
        }
        _ => "stands by, to take over".to_owned(),
    };
    let sessions = catalog
        .gauge("bazaar_catalog_sessions")
        .filter(|_| is_active);
    let orders = journal.journal_rows.zip(journal.stock_changes);
    let orders = orders.map(|(rows, changes)| rows.saturating_sub(changes));
    let address = catalog.url.split("://").last().unwrap_or(&catalog.url);
    Service {
        role: role.to_owned(),
        says,
        epoch: is_active.then_some(now.epoch),
        lease: sessions.map(|sessions| counted(sessions as u64, "session")),
        orders: orders.filter(|_| is_active),
        hash: journal
            .chain_hash
            .as_deref()
            .map(short)
            .filter(|_| is_active),
        up: up(catalog.gauge("process_start_time_seconds"), now),
        release: catalog.release.clone(),
        ..unknown(state, format!("catalog {address}"))
    }
}

/// For how long a process has run.
fn up(started: Option<f64>, now: &Moment) -> Option<f64> {
    started.map(|started| (now.at() - started).max(0.0))
}

// ---- policies ----

fn policy(gateway: &Gateway, told: PolicyOf, minute: Option<&Span<'_>>) -> PolicyShown {
    let report = gateway.report.as_ref();
    let (active, candidate) = match &told.policy {
        Told::Policies(policies) => (policies.active.as_ref(), policies.candidate.as_ref()),
        _ => (None, None),
    };
    let decided = [active, candidate].map(|version| Some(decided(&gateway.key, version?, minute?)));
    PolicyShown {
        key: gateway.key.clone(),
        is_cut: report.is_some_and(|report| report.is_cut),
        age: report
            .and_then(|report| report.policy_age_ms)
            .map(|ms| ms / 1000.0)
            .filter(|age| *age > STALE_SECONDS),
        active: report
            .and_then(|report| report.active_ms)
            .map(|ms| ms / 1000.0),
        decided,
        told,
    }
}

fn decided(key: &str, version: &Policy, minute: &Span<'_>) -> Decided {
    let source = source_of_gateway(key);
    let is_of = |added: &Added<'_>, results: &[&str]| {
        added.who == source && added.label(0) == version.digest && results.contains(&added.label(1))
    };
    let of = |results: &[&str]| {
        minute.sum("bazaar_policy_decisions_total", |added| {
            is_of(added, results)
        })
    };
    let decided = ["decided", "trapped", "overran", "invalid"];
    let took = minute.histogram("bazaar_policy_decision_seconds", |added| {
        added.who == source && added.label(0) == version.digest
    });
    Decided {
        per_second: minute.rate("bazaar_policy_decisions_total", |added| {
            is_of(added, &decided)
        }),
        failed: of(&["trapped", "overran", "invalid", "error"]),
        impure: of(&["impure"]),
        p99: took.quantile(0.99, &DECISIONS),
    }
}

/// Who leads, at the head of all.
pub fn leading(now: &Moment) -> String {
    match now.leader {
        Some(leader) => format!("replica {leader} leads epoch {}", count(now.epoch)),
        None => "nobody leads".to_owned(),
    }
}
