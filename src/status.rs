//! `bazaar status`: how a running bazaar is.

use jiff::Timestamp;

use crate::admin::{
    Admin, AdminError, BrokenOff, Cache, Change, Incident, KnownCatalog, Policies, Policy, Replica,
    Status, short,
};
use crate::cli;
use crate::error::Error;
use crate::output::{self, Table};

/// Asks the gateway and prints what it says.
pub async fn run(args: cli::Status) -> Result<(), Error> {
    let answer = Admin::new(args.admin)?.get("/status").await?;
    let text = if args.json {
        String::from_utf8_lossy(&answer).trim_end().to_owned() + "\n"
    } else {
        describe(&serde_json::from_slice(&answer).map_err(AdminError::Nonsense)?)
    };
    Ok(output::print(&text)?)
}

fn describe(status: &Status) -> String {
    let Status { epoch, leader, .. } = status;
    let heading = match leader {
        Some(leader) => format!(
            "{}; replica {leader} leads epoch {epoch}\n",
            readiness(status)
        ),
        None => format!("{}; no replica leads (epoch {epoch})\n", readiness(status)),
    };
    let journal = match &status.journal {
        Some(journal) => format!("journal {journal}\n"),
        None => "the journal's id is not known yet\n".to_owned(),
    };
    let release = status.release.as_ref();
    let release = release.map_or_else(String::new, |it| {
        format!("this gateway is of release {it}\n")
    });
    [
        heading + &journal + &release,
        replicas(status),
        catalog(status) + &catalogs(status),
        caches(status),
        policies(&status.policy),
    ]
    .join("\n")
}

fn readiness(status: &Status) -> String {
    match (&status.unready, status.ready) {
        (_, true) => "ready".to_owned(),
        (None, false) => "not ready: no trade can be served".to_owned(),
        (Some(why), false) => format!("not ready: {why}"),
    }
}

fn replicas(status: &Status) -> String {
    let mut table = Table::new([
        "replica",
        "health",
        "role",
        "orders",
        "chain hash",
        "catalog",
        "round trip",
        "release",
        "url",
    ]);
    for replica in &status.replicas {
        // Of one that is down these are not known: older gateways say what was so before.
        let reaches_catalog = replica.reaches_catalog.filter(|_| replica.healthy);
        let round_trip_us = replica.round_trip_us.filter(|_| replica.healthy);
        table.row([
            replica.id.to_string(),
            match replica {
                Replica { healthy: true, .. } => "healthy",
                Replica { foreign: true, .. } => "another journal's",
                Replica { .. } => "down",
            }
            .to_owned(),
            or_dash(replica.role.as_deref()),
            or_dash(replica.orders),
            or_dash(replica.chain_hash.as_deref().map(short)),
            or_dash(reaches_catalog.map(|it| if it { "reached" } else { "out of reach" })),
            or_dash(round_trip_us.map(|us| format!("{us} µs"))),
            or_dash(replica.release.as_deref()),
            replica.url.clone(),
        ]);
    }
    table.render()
}

fn catalog(status: &Status) -> String {
    let catalog = &status.catalog;
    let mut table = Table::new([
        "catalog",
        "orders",
        "chain hash",
        "in sync",
        "session",
        "lease",
        "url",
    ]);
    let in_sync: Vec<String> = catalog.in_sync.iter().map(u32::to_string).collect();
    table.row([
        if catalog.reachable {
            "reached"
        } else {
            "out of reach"
        }
        .to_owned(),
        or_dash(
            catalog
                .journal_rows
                .map(|rows| rows.saturating_sub(catalog.stock_changes.unwrap_or(0))),
        ),
        or_dash(catalog.chain_hash.as_deref().map(short)),
        match in_sync.is_empty() {
            true => "-".to_owned(),
            false => in_sync.join(","),
        },
        or_dash(catalog.session.as_deref()),
        or_dash(catalog.lease_ms.map(|ms| format!("{ms} ms"))),
        or_dash(catalog.url.as_deref()),
    ]);
    table.render()
}

/// All that are known, a line each.
fn catalogs(status: &Status) -> String {
    if status.catalogs.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["catalogs", "release", "url"]);
    for KnownCatalog { url, role, release } in &status.catalogs {
        table.row([role.clone(), or_dash(release.as_deref()), url.clone()]);
    }
    table.render()
}

fn caches(status: &Status) -> String {
    let mut table = Table::new([
        "cache",
        "entries",
        "hits",
        "misses",
        "stale",
        "evicted",
        "invalidated",
    ]);
    for (
        name,
        Cache {
            entries,
            hits,
            misses,
            stale,
            evicted,
            invalidated,
            ..
        },
    ) in [
        ("stocks", &status.cache.stocks),
        ("orders", &status.cache.orders),
    ] {
        let [entries, hits, misses, stale, evicted, invalidated] =
            [entries, hits, misses, stale, evicted, invalidated].map(u64::to_string);
        table.row([
            name.to_owned(),
            entries,
            hits,
            misses,
            stale,
            evicted,
            invalidated,
        ]);
    }
    table.render()
}

/// The versions of the policy, one a line.
pub fn policies(policies: &Policies) -> String {
    let mut table = Table::new([
        "policy",
        "name",
        "version",
        "digest",
        "decisions",
        "traps",
        "overruns",
        "invalid",
        "held",
        "active for",
    ]);
    for policy in policies.iter() {
        // A shadow decides for no client.
        let decisions = match policy.stage.as_str() {
            "shadow" => policy.compared,
            _ => policy.decisions,
        };
        let counts = [decisions, policy.traps, policy.overruns, policy.invalid]
            .map(|count| count.to_string());
        let [decisions, traps, overruns, invalid] = counts;
        table.row([
            match &policy.who {
                Some(who) => format!("{} of {who}", policy.stage),
                None => policy.stage.clone(),
            },
            policy.name.clone(),
            policy.version.clone(),
            short(&policy.digest),
            decisions,
            traps,
            overruns,
            invalid,
            policy.held.to_string(),
            or_dash(policy.active_ms.map(|ms| format!("{} s", ms / 1000))),
        ]);
    }
    let mut text = table.render();
    for policy in policies.iter().filter(|policy| policy.impure > 0) {
        let example = policy.impure_example.as_deref().unwrap_or_default();
        text += &format!(
            "{} ({}) keeps state: {} decisions came out differently when they were made again: {}\n",
            policy.name,
            short(&policy.digest),
            policy.impure,
            example.escape_debug()
        );
    }
    if let (Some(active), Some(candidate)) = (&policies.active, &policies.candidate) {
        text += &other_reply_headers(active, candidate);
    }
    let kept = policies
        .kept
        .iter()
        .rev()
        .map(|kept| match kept.has_failed() {
            false => short(&kept.digest),
            true => format!("{} (failed)", short(&kept.digest)),
        });
    let kept = kept.collect::<Vec<_>>().join(" ");
    if !kept.is_empty() {
        text += &format!("kept, the latest first: {kept}\n");
    }
    if let Some(why) = &policies.closed {
        text += &format!("\n{why}\n");
    }
    policies.iter().for_each(|policy| text += &troubles(policy));
    let by_itself = policies.changes.iter().rev();
    if let Some(change) = by_itself.clone().find(|change| change.incident.is_some()) {
        text += &format!("\nthe gateway's own last change:\n{}", described(change));
    }
    text
}

/// What a candidate adds to every reply and the active version does not, and what it does not add: no
/// decision shows that.
fn other_reply_headers(active: &Policy, candidate: &Policy) -> String {
    let added = |what: &str, these: &Policy, others: &Policy| -> String {
        let others = &others.reply_headers;
        let lines = these.reply_headers.iter();
        let lines = lines.filter(|header| !others.contains(header));
        let name = format!("{} ({})", candidate.name, short(&candidate.digest));
        lines
            .map(|header| format!("{name} {what} to every reply {}\n", header.escape_debug()))
            .collect()
    };
    added("adds", candidate, active) + &added("does not add", active, candidate)
}

/// What operators should know of a version that is in service.
fn troubles(policy: &Policy) -> String {
    let mut text = String::new();
    let name = format!("{} ({})", policy.name, short(&policy.digest));
    if !policy.only.is_empty() {
        text += &format!("\n{name} is tried only on {}\n", policy.only.join(", "));
    }
    if let Some(rollout) = &policy.rollout {
        text += &format!("\n{name} is rolled out: {rollout}");
    }
    if policy.condemned {
        text += &format!("\n{name} fails too often: activate another one\n");
    }
    let BrokenOff { paths, clients } = policy.broken_off;
    if paths + clients > 0 {
        text += &format!(
            "\n{name} wastes time, and is not asked about {paths} paths and {clients} clients for a while\n"
        );
    }
    if let Some(incident) = policy.incidents.last() {
        text += &format!("\n{name} failed last:\n{}", indented(incident));
    }
    text
}

/// Changes of the policy, oldest first.
pub fn changes(changes: &[Change]) -> String {
    changes.iter().map(described).collect()
}

/// What is in the log of changes, and changes no version.
const OF_NO_VERSION: [&str; 4] = ["record", "recorded", "raise", "not-raised"];

fn described(change: &Change) -> String {
    let Change { what, who, why, .. } = change;
    let at = Timestamp::from_millisecond(change.at_ms.try_into().unwrap_or(i64::MAX));
    let at = at.map_or_else(|_| "?".to_owned(), |at| format!("{at:.0}"));
    let (from, to) = (short(&change.from), short(&change.to));
    let versions = match &change.candidate {
        _ if OF_NO_VERSION.contains(&what.as_str()) => String::new(),
        Some(candidate) => format!("{from} to {to}, candidate {}; ", short(candidate)),
        None => format!("{from} to {to}; "),
    };
    let incident = change.incident.as_ref().map(indented).unwrap_or_default();
    let (who, why) = (who.escape_debug(), why.escape_debug());
    let known = [&change.known_by, &change.address].into_iter().flatten();
    let known: Vec<_> = known
        .map(|known| known.escape_debug().to_string())
        .collect();
    let known = match known.is_empty() {
        true => String::new(),
        false => format!(" ({})", known.join(", ")),
    };
    format!("{at} {what} by {who}{known}: {versions}{why}\n{incident}")
}

fn indented(incident: &Incident) -> String {
    let Incident {
        kind,
        request,
        request_id,
        cause,
        output,
        backtrace,
        at_ms: _,
    } = incident;
    let id = request_id.as_ref();
    let id = id.map_or_else(String::new, |id| format!(" ({})", id.escape_debug()));
    let mut text = format!("  {kind} at {request}{id}\n  {cause}\n");
    for line in output.lines().chain(backtrace.lines()) {
        text += &format!("    {}\n", line.escape_debug());
    }
    text
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_with_everything_down_is_told_too() {
        let status = r#"{"ready":false,"journal":"30313233343536373839616263646566","epoch":0,"leader":null,
            "replicas":[{"id":3,"url":"http://r","healthy":false,"foreign":true,"role":null,"orders":null,"chain_hash":null,
                         "reaches_catalog":null,"round_trip_us":null}],
            "catalog":{"url":"http://c","reachable":false,"journal_rows":null,"chain_hash":null,"in_sync":[],
                       "session":"00c0ffee00c0ffee","lease_ms":null},
            "cache":{"stocks":{"entries":0,"hits":0,"misses":0,"stale":0},
                     "orders":{"entries":0,"hits":0,"misses":0,"stale":0}},
            "policy":{"active":{"digest":"0123456789abcdef","name":"default","version":"0.1.0","stage":"active",
                                "decisions":1,"traps":0,"overruns":0,"invalid":0,"active_ms":61999},
                      "previous":null,"candidate":null}}"#;
        let text = describe(&serde_json::from_str(status).unwrap());
        for part in [
            "not ready",
            "no replica leads",
            "30313233343536373839616263646566",
            "another journal's",
            "out of reach",
            "0123456789ab ",
            " 61 s",
            "00c0ffee00c0ffee",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn each_catalog_and_each_release_is_told_and_nothing_of_who_is_down() {
        let status = r#"{"ready":false,"unready":"no session with the catalog","release":"0.2.0","epoch":1,"leader":2,
            "replicas":[{"id":2,"url":"http://r2","healthy":true,"role":"leader","orders":7,"chain_hash":"ab",
                         "reaches_catalog":false,"round_trip_us":81,"release":"0.2.1"},
                        {"id":3,"url":"http://r3","healthy":false,"role":null,"orders":null,"chain_hash":null,
                         "reaches_catalog":false,"round_trip_us":4711,"release":null}],
            "catalog":{"url":null,"reachable":false,"journal_rows":null,"chain_hash":null,"session":null,"lease_ms":null},
            "catalogs":[{"url":"http://a","role":"silent","release":null},{"url":"http://b","role":"active","release":"0.2.0"}],
            "cache":{"stocks":{"entries":0,"hits":0,"misses":0,"stale":0},
                     "orders":{"entries":0,"hits":0,"misses":0,"stale":0}},
            "policy":{"active":null,"previous":null,"candidate":null}}"#;
        let text = describe(&serde_json::from_str(status).unwrap());
        let line = |of: &str| {
            let found = text.lines().find(|line| line.ends_with(of));
            let words: Vec<_> = found.expect(of).split_ascii_whitespace().collect();
            words.join(" ")
        };
        assert_eq!(
            line("http://r2"),
            "2 healthy leader 7 ab out of reach 81 µs 0.2.1 http://r2"
        );
        assert_eq!(line("http://r3"), "3 down - - - - - - http://r3");
        assert_eq!(line("http://a"), "silent - http://a");
        assert_eq!(line("http://b"), "active 0.2.0 http://b");
        for part in ["not ready: no session", "of release 0.2.0"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_shadow_has_the_count_of_what_it_decided_beside_the_active_version() {
        let candidate = |stage: &str| {
            let candidate = format!(
                r#"{{"digest":"0123456789abcdef","name":"new","version":"1","stage":"{stage}","decisions":5,"compared":32,
                    "traps":0,"overruns":0,"invalid":0,"active_ms":null}}"#
            );
            let listed = format!(r#"{{"active":null,"previous":null,"candidate":{candidate}}}"#);
            let text = policies(&serde_json::from_str(&listed).unwrap());
            let row = text.lines().nth(1).unwrap().split_ascii_whitespace();
            row.collect::<Vec<_>>()[4].to_owned()
        };
        assert_eq!(candidate("shadow"), "32");
        assert_eq!(candidate("canary"), "5");
    }

    #[test]
    fn what_a_candidate_adds_to_replies_and_does_not_is_told() {
        let version = |name: &str, added: &str| {
            format!(
                r#"{{"digest":"0123456789abcdef","name":"{name}","version":"1","stage":"active","decisions":1,
                    "traps":0,"overruns":0,"invalid":0,"active_ms":1,"reply_headers":[{added}]}}"#
            )
        };
        let active = version("old", r#""x-both: 1","x-old: 1""#);
        let candidate = version("new", r#""x-both: 1","x-new: 1""#);
        let listed = format!(r#"{{"active":{active},"previous":null,"candidate":{candidate}}}"#);
        let text = policies(&serde_json::from_str(&listed).unwrap());
        let new = "new (0123456789ab)";
        for line in [
            format!("{new} adds to every reply x-new: 1\n"),
            format!("{new} does not add to every reply x-old: 1\n"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("x-both"), "{text}");
    }
}
