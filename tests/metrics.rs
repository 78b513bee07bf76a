//! What services export to Prometheus, what `docs/METRICS.md` says of it, and the alarms and the dashboard of `deploy/`,
//! which are made of it.
//!
//! - [`counted`]: what is only seen while something is the matter;
//! - [`scraped`]: a Prometheus that asks a running bazaar.

mod counted;
mod scraped;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::metrics::{self as metrics, Kind, Metric};
use serde_json::Value;

use crate::harness::{Bazaar, Options, Order, Server, request, skip, try_request, wait_until};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const DOCUMENT: &str = "docs/METRICS.md";
const ALERTS: &str = "deploy/prometheus/alerts.yml";
const ALERTMANAGER: &str = "deploy/prometheus/alertmanager.yml";
const DASHBOARD: &str = "deploy/grafana/bazaar.json";

/// Set, it has the document written anew.
const WRITE: &str = "BAZAAR_WRITE_DOCS";

const PATIENCE: Duration = Duration::from_secs(10);

/// What a policy counts of its own accord, which nobody knows beforehand.
const CUSTOM: &str = "bazaar_policy_custom_";

/// Sections of the document, each with its families.
fn sections() -> Vec<(&'static str, Vec<&'static Metric>)> {
    vec![
        ("Every service", metrics::metric::COMMON.to_vec()),
        ("A gateway", frontend_host::METRICS.concat()),
        ("A catalog", catalog::METRICS.to_vec()),
        ("A replica", order::METRICS.to_vec()),
        ("Every process", metrics::process::METRICS.to_vec()),
    ]
}

fn all() -> BTreeMap<String, &'static Metric> {
    let metrics = sections().into_iter().flat_map(|(_, metrics)| metrics);
    let named = metrics.map(|metric| (metric.exported_name(), metric));
    named.collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const INTRODUCTION: &str = "# Metrics

Made from the code: `BAZAAR_WRITE_DOCS=1 cargo test --test integration metrics::` writes it anew, and a test fails where it is not
what the code says. Where they are asked for, and how to watch them: [operating](OPERATING.md#metrics). Alarms and a dashboard
made of them are in [`deploy/`](../deploy/README.md).

**Stability.** What is *stable* keeps its name, its labels and its meaning; there may be more values of a label, and more families.
What begins with `bazaar_debug_` is for *debugging*: any release may change it.

**Histograms** have the bounds 1, 2 and 5 of each power of ten: of seconds from 10 µs to 10 s, of rows from 1 to a million; only
`bazaar_policy_decision_seconds` has others, from 1 µs to 20 ms. Who asks for Prometheus' protobuf form, as Prometheus does where it takes
native histograms, gets them as native ones as well: of schema 3, each bucket 9 % wider than the one before, at most 216 for each series.
What is up to 1 µs (60 ns of `bazaar_policy_decision_seconds`), and of rows 0, is in the bucket of zero; what is above 128 s (8 s; 67
million rows) is in the last. A counter and a histogram begin at 0 with their process; a series with a label `policy` is there for as long
as the version is the active one, the one before it or on trial: one that is rolled back since it failed, or dropped, takes it along at once, but for
`bazaar_requests_total`, which stays for 5 minutes, and for as long as that version is back: whoever asks now and then sees what clients got from it.

**What it costs.** What is counted for each request is in atomics that each worker has for itself: no lock, no lookup of labels, and
memory for the first answer of its kind alone. They are added up when somebody asks. A request takes some 65 ns of processor time for it, 48 of which are two looks at the
clock; as many with two threads that count at full speed. Native buckets are gathered from the same counters, so they cost nothing beside.

A policy's own counters are exported as `bazaar_policy_custom_NAME_total`, with the version's digest as `policy`
([counters](POLICIES.md#counters-and-log-lines)).
";

fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    for (section, metrics) in sections() {
        write!(text, "\n## {section}\n\n| name | type | labels | unit | meaning | stability |\n|---|---|---|---|---|---|\n").unwrap();
        for metric in metrics {
            writeln!(text, "{}", metric.row()).unwrap();
        }
    }
    text
}

#[test]
fn the_document_is_what_the_code_says() {
    let path = Path::new(ROOT).join(DOCUMENT);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, document()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == document(),
        "{DOCUMENT} is not what the code says: {WRITE}=1 cargo test --test integration metrics:: writes it anew"
    );
    let count: usize = sections().iter().map(|(_, metrics)| metrics.len()).sum();
    assert_eq!(all().len(), count, "each name is one family's");
}

/// The families of an answer, by their names, with their types.
fn families(text: &str) -> BTreeMap<&str, &str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split_once(' ').unwrap()).collect()
}

fn ask(at: SocketAddr) -> String {
    let answer = try_request(at, "GET", "/metrics", &[], b"", PATIENCE).unwrap();
    assert_eq!(answer.status, 200);
    answer.body
}

/// A bazaar whose services all say what they export.
fn monitored(options: Options) -> Bazaar {
    let bazaar = Bazaar::start(Options {
        monitored: true,
        ..options
    });
    let catalog = bazaar.metrics_address(Server::Catalog);
    let in_sync = || value(&ask(catalog), "bazaar_catalog_in_sync_replicas ") == Some(3.0);
    wait_until("all to be in sync", in_sync);
    bazaar
}

/// `promtool`, with something to read; none where it is not installed.
fn promtool(args: &[&str], input: &str) -> Option<(bool, String)> {
    reader(("promtool", "prometheus"), args, input)
}

/// What one of Prometheus' programs says of something; none where that is not installed. With each the package that has it.
fn reader((program, package): (&str, &str), args: &[&str], input: &str) -> Option<(bool, String)> {
    let started = Command::new(program)
        .args(args)
        .current_dir(ROOT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut reader) = started else {
        skip(
            &format!("what {program} says"),
            format!("it is not installed: Debian: {package}"),
        );
        return None;
    };
    let mut stdin = reader.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = reader.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Some((output.status.success(), said))
}

/// The value of a sample, by all of its name and labels.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(sample))?;
    line[sample.len()..].trim().parse().ok()
}

#[test]
fn what_services_export_is_what_the_document_says_and_counts_what_happens() {
    let bazaar = monitored(Options::default());
    let catalog = bazaar.metrics_address(Server::Catalog);
    let replicas = [1, 2, 3].map(|id| bazaar.metrics_address(Server::Order(id)));
    for _ in 0..5 {
        bazaar.trade(&Order::sell(1, "meta"));
    }
    let (clients, operators) = (bazaar.address(), bazaar.admin_address());
    for target in ["/stocks/meta", "/stocks/meta", "/stocks/meta", "/nothing"] {
        let _ = request(clients, "GET", target, &[], b"");
    }

    // Rows that are committed wait a little for others before they are saved in a ledger.
    let has_all = |at: &SocketAddr| {
        let text = ask(*at);
        let is = |sample, expected| value(&text, sample) == Some(expected);
        is("bazaar_order_ledger_rows ", 5.0) && is("bazaar_order_lag_seconds ", 0.0)
    };
    wait_until("all ledgers to have all rows", || {
        replicas.iter().all(has_all)
    });

    let gateway = ask(operators);
    let catalog = ask(catalog);
    let replicas = replicas.map(ask);
    let common = || {
        metrics::metric::COMMON
            .iter()
            .chain(metrics::process::METRICS)
    };
    let services: [(&str, &String, Vec<&Metric>); 3] = [
        ("gateway", &gateway, frontend_host::METRICS.concat()),
        ("catalog", &catalog, catalog::METRICS.to_vec()),
        ("replica", &replicas[0], order::METRICS.to_vec()),
    ];
    for (service, text, own) in services {
        let mut found = families(text);
        for metric in own.iter().chain(common()) {
            let name = metric.exported_name();
            let is_without = metric.name == "bazaar_certificate_expiry_timestamp_seconds";
            let kind = found.remove(name.as_str());
            let expected = Some(metric.kind.name());
            assert!(
                kind == expected || is_without,
                "{name} of a {service}: {kind:?}"
            );
            assert!(
                is_without || has_sample(text, metric, &name) || is_rare(&name),
                "{name} of a {service} has no sample"
            );
        }
        found.retain(|name, _| !name.starts_with(CUSTOM));
        assert!(found.is_empty(), "a {service} also exports {found:?}");
        if let Some((is_good, said)) = promtool(&["check", "metrics"], text) {
            assert!(is_good, "of a {service}: {said}");
        }
    }

    for (text, sample, least) in [
        (&gateway, "bazaar_trades_total{result=\"traded\"} ", 5.0),
        (&gateway, "bazaar_responses_total{status=\"404\"} ", 1.0),
        (
            &gateway,
            "bazaar_request_duration_seconds_count{route=\"stock\",cache=\"hit\",status=\"2xx\"} ",
            1.0,
        ),
        (
            &gateway,
            "bazaar_request_duration_seconds_count{route=\"trade\",cache=\"none\",status=\"2xx\"} ",
            5.0,
        ),
        (
            &gateway,
            "bazaar_trade_stage_seconds_count{stage=\"place\"} ",
            5.0,
        ),
        (
            &gateway,
            "bazaar_policy_admissions_total{result=\"admitted\"} ",
            1.0,
        ),
        (
            &gateway,
            "bazaar_session_events_total{event=\"opened\"} ",
            1.0,
        ),
        (&catalog, "bazaar_catalog_commit_rows_sum ", 5.0),
        (
            &catalog,
            "bazaar_trade_stage_seconds_count{stage=\"queue\"} ",
            5.0,
        ),
        (
            &catalog,
            "bazaar_trade_stage_seconds_count{stage=\"show\"} ",
            5.0,
        ),
        (&catalog, "bazaar_catalog_elections_total ", 1.0),
        (&catalog, "bazaar_connections ", 1.0),
    ] {
        let found = value(text, sample);
        assert!(
            found.is_some_and(|found| found >= least),
            "{sample}: {found:?}\n{text}"
        );
    }
    // One of them leads.
    for (sample, least) in [
        ("bazaar_trade_stage_seconds_count{stage=\"lead\"} ", 5.0),
        ("bazaar_trade_stage_seconds_count{stage=\"commit\"} ", 1.0),
        ("bazaar_trade_stage_seconds_count{stage=\"append\"} ", 2.0),
        ("bazaar_order_events_total{event=\"leading\"} ", 1.0),
    ] {
        let found: Vec<_> = replicas.iter().map(|text| value(text, sample)).collect();
        let most = found.iter().flatten().copied().fold(0.0, f64::max);
        assert!(most >= least, "{sample}: {found:?}");
    }
    let mut taken = 0.0;
    for text in &replicas {
        let saved = value(text, "bazaar_order_save_rows_sum ");
        assert!(saved.is_some_and(|rows| rows >= 5.0), "{saved:?}");
        // Signs of life, which come all the time, are none: each append has a row at least.
        for follower in 1..=3 {
            let of = |name: &str| {
                let sample = format!("bazaar_order_append_{name}{{follower=\"{follower}\"}} ");
                value(text, &sample).unwrap_or_default()
            };
            let (appends, rows) = (of("seconds_count"), of("rows_total"));
            assert!(appends <= rows, "{appends} of {rows} rows:\n{text}");
            taken += rows;
        }
    }
    assert!(taken >= 2.0, "{taken} rows were taken by followers");
}

#[test]
fn services_say_when_their_certificates_expire() {
    let bazaar = monitored(Options {
        secured: true,
        ..Options::default()
    });
    let catalog = bazaar.metrics_address(Server::Catalog);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for at in [catalog, bazaar.admin_address()] {
        let text = ask(at);
        for certificate in ["service", "authority"] {
            let sample = format!(
                "bazaar_certificate_expiry_timestamp_seconds{{certificate=\"{certificate}\"}} "
            );
            let expiry = value(&text, &sample);
            assert!(expiry.is_some_and(|at| at > now.as_secs_f64()), "{text}");
        }
        if let Some((is_good, said)) = promtool(&["check", "metrics"], &text) {
            assert!(is_good, "{said}");
        }
    }
}

fn has_sample(text: &str, metric: &Metric, name: &str) -> bool {
    let sample = match metric.kind {
        Kind::Histogram => format!("{name}_count"),
        Kind::Counter | Kind::Gauge => name.to_owned(),
    };
    text.lines().any(|line| {
        line.strip_prefix(&sample)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    })
}

/// Of one decision in 64.
fn is_rare(name: &str) -> bool {
    name == "bazaar_policy_decision_seconds"
}

#[test]
fn alarms_go_off_when_they_should_and_not_otherwise() {
    for args in [
        &["check", "rules", ALERTS][..],
        // Its certificates are where it runs.
        &[
            "check",
            "config",
            "--syntax-only",
            "deploy/prometheus/prometheus.yml",
        ],
        &["test", "rules", "deploy/prometheus/alerts_test.yml"],
    ] {
        if let Some((is_good, said)) = promtool(args, "") {
            assert!(is_good, "promtool {args:?}: {said}");
        }
    }
}

/// One cause is one message: a rule that names an alarm which there is not would silence nothing.
#[test]
fn what_follows_from_an_alarm_is_silent_while_it_goes_off() {
    let args = ["check-config", ALERTMANAGER];
    if let Some((is_good, said)) = reader(("amtool", "prometheus-alertmanager"), &args, "") {
        assert!(is_good, "amtool: {said}");
    }
    let read = |file: &str| fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
    let (rules, alerts) = (read(ALERTMANAGER), read(ALERTS));
    let alarms = values(&alerts, "alert");
    let matchers = rules.lines().filter(|line| line.contains("_matchers:"));
    let named: Vec<_> = matchers
        .flat_map(|line| line.split(|letter: char| !letter.is_ascii_alphanumeric()))
        .filter(|word| word.starts_with("Bazaar"))
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        assert!(alarms.contains(&name), "there is no alarm {name}");
    }
}

#[test]
fn an_alarm_silences_what_follows_from_it_and_nothing_else() {
    let rules = read(ALERTMANAGER);
    let (sources, targets) = (
        values(&rules, "source_matchers"),
        values(&rules, "target_matchers"),
    );
    let jobs = read("deploy/prometheus/prometheus.yml");
    let jobs = values(&jobs, "job_name");
    let [gateway, catalog, order] = jobs[..] else {
        panic!("{jobs:?}");
    };
    let none = ("", "");
    let job = |name| ("job", name);
    let shown = |which| ("certificate", which);
    for (alarm, label, other, is_silent) in [
        ("NoActiveCatalog", none, "NotReady", true),
        ("Down", job(order), "FollowerFails", true),
        ("Down", job(gateway), "FollowerFails", false),
        ("Down", job(catalog), "OneInSyncReplica", false),
        ("CertificateExpired", shown("service"), "NotReady", true),
        ("CertificateExpired", shown("clients"), "NotReady", false),
        ("PolicyClosed", none, "PolicyFails", true),
        ("PolicyTakenOut", none, "PolicyFails", false),
    ] {
        let [alarm, other] = [alarm, other].map(|name| format!("Bazaar{name}"));
        let source = [("alertname", alarm.as_str()), label];
        let target = [("alertname", other.as_str())];
        let mut rules = sources.iter().zip(&targets);
        let found = rules.any(|(of_source, of_target)| {
            are_met(of_source, &source) && are_met(of_target, &target)
        });
        assert_eq!(found, is_silent, "{alarm} {label:?}, {other}");
    }
}

/// Whether labels are as Alertmanager's matchers want them, of those forms of regular expressions that there are here.
fn are_met(matchers: &str, labels: &[(&str, &str)]) -> bool {
    let mut matchers = matchers.trim_matches(['[', ']']).split(", ");
    matchers.all(|matcher| {
        let (label, rest) = matcher.split_at(matcher.find(['=', '!']).unwrap());
        let (operator, wanted) = rest.split_once('"').unwrap();
        let wanted = wanted.trim_end_matches('"');
        let found = labels.iter().find(|(name, _)| *name == label);
        let found = found.map_or("", |(_, value)| value);
        let is_like = |form: &str| {
            let part = form.strip_prefix(".*").and_then(|it| it.strip_suffix(".*"));
            part.map_or(found == form, |part| found.contains(part))
        };
        match operator {
            "=" => found == wanted,
            "!=" => found != wanted,
            "=~" => wanted.split('|').any(is_like),
            other => panic!("what is {other}?"),
        }
    })
}

/// Values of a key, however deep, in lines of YAML.
fn values<'t>(yaml: &'t str, key: &str) -> Vec<&'t str> {
    let key = format!("{key}: ");
    let lines = yaml.lines().map(|line| line.trim_start_matches([' ', '-']));
    lines.filter_map(|line| line.strip_prefix(&key)).collect()
}

#[test]
fn each_alarm_is_tested_and_says_where_the_operator_reads_what_to_do() {
    let (alerts, guide) = (read(ALERTS), read("docs/OPERATING.md"));
    let tests = read("deploy/prometheus/alerts_test.yml");
    let names = values(&alerts, "alert");
    assert!(names.len() > 20, "{names:?}");
    let tested: BTreeSet<_> = values(&tests, "alertname").into_iter().collect();
    let rows = guide
        .lines()
        .filter(|line| line.starts_with("| <a id=\"bazaar"));
    let rows: BTreeMap<_, _> = rows
        .filter_map(|row| {
            let (id, rest) = row.split_once("<a id=\"")?.1.split_once("\"></a>`")?;
            Some((rest.split('`').next()?, id))
        })
        .collect();
    let runbooks = values(&alerts, "runbook");
    for (name, runbook) in names.iter().zip(&runbooks) {
        let id = rows
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no row in OPERATING.md"));
        assert_eq!(*id, name.to_lowercase());
        assert_eq!(*runbook, format!("docs/OPERATING.md#{id}"), "of {name}");
        assert!(tested.contains(name), "nobody tests {name}");
    }
    for key in ["summary", "runbook", "severity", "expr"] {
        assert_eq!(
            values(&alerts, key).len(),
            names.len(),
            "each has its {key}"
        );
    }
    let strangers: Vec<_> = rows.keys().filter(|name| !names.contains(name)).collect();
    assert!(
        strangers.is_empty(),
        "OPERATING.md has no alarms {strangers:?}"
    );
}

/// The names of families that an expression asks for.
fn asked_for(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !is_name(c));
    let ours = words.filter(|word| word.starts_with("bazaar_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// All expressions of a dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" => found.push(text.clone()),
                    other => expressions(other, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn alarms_and_the_dashboard_ask_for_what_is_exported() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    assert!(asked.len() > 20, "{asked:?}");
    // Grafana's own, as it would put them in.
    let rules: Vec<_> = asked
        .iter()
        .map(|expression| expression.replace("$__rate_interval", "1m"))
        .collect();
    let mut yaml = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (place, rule) in rules.iter().enumerate() {
        writeln!(
            yaml,
            "  - record: panel:{place}:x\n    expr: {}",
            Value::from(rule.as_str())
        )
        .unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &yaml).unwrap();
    if let Some((is_good, said)) = promtool(&["check", "rules", file.path().to_str().unwrap()], "")
    {
        assert!(is_good, "{said}\n{yaml}");
    }
    let known = all();
    let mut names = asked_for(&read(ALERTS));
    names.extend(asked.iter().flat_map(|expression| asked_for(expression)));
    for name in names {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            let metric = known.get(name.strip_suffix(suffix)?)?;
            (metric.kind == Kind::Histogram).then_some(metric)
        });
        let is_sample = known
            .get(&name)
            .is_some_and(|metric| metric.kind != Kind::Histogram);
        assert!(is_sample || family.is_some(), "nobody exports {name}");
    }
}
