//! A real Prometheus that asks a running bazaar, with the configuration, the alarms and the dashboard of `deploy/`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ::metrics::Kind;
use serde_json::Value;
use tempfile::TempDir;
use test_postgres::free_port;

use super::{ALERTS, DASHBOARD, ROOT, all, expressions, monitored, read};
use crate::harness::{
    Bazaar, Options, Order, Server, data_dir, request, send_raw, skip, wait_for, wait_for_said,
};

const CONFIG: &str = "deploy/prometheus/prometheus.yml";

/// For what Prometheus is to see: it looks each second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Panels that show nothing of a bazaar that is well, and why.
const EMPTY: [(&str, &str); 2] = [
    ("Errors by route", "nothing is answered with 5xx"),
    (
        "Compilation of policies: mean",
        "the one that serves was compiled before anybody looked",
    ),
];

/// A Prometheus that asks all services of a bazaar; killed when it is dropped, or the test ends.
struct Prometheus {
    process: Child,
    at: SocketAddr,
    dir: TempDir,
}

/// An alarm that waits, or has gone off.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alarm {
    name: String,
    instance: String,
    state: String,
}

impl Prometheus {
    /// With the configuration that users begin with, but for whom it asks, and how often. None where it is not installed.
    fn start(bazaar: &Bazaar, flags: &[&str]) -> Option<Self> {
        let version = Command::new("prometheus").arg("--version").output();
        if version.is_err() {
            skip(
                "what Prometheus sees",
                "it is not installed: Debian: prometheus",
            );
            return None;
        }
        let (dir, at) = (data_dir(), (Ipv4Addr::LOCALHOST, free_port()).into());
        let [config, data] = ["prometheus.yml", "data"].map(|name| dir.path().join(name));
        fs::write(&config, configuration(bazaar)).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let process = Command::new("setpriv")
            .args(["--pdeathsig=KILL", "prometheus"])
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={at}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Some(Self {
            process: process.unwrap(),
            at,
            dir,
        })
    }

    /// What its API says; nothing while it does not answer.
    fn asked(&self, what: impl Display) -> Option<Value> {
        // By HTTP/1.0 it answers in one piece.
        let head = format!("GET /api/v1/{what} HTTP/1.0\r\nhost: {}\r\n\r\n", self.at);
        let answer = send_raw(self.at, head.as_bytes()).ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    fn data(&self, what: &str) -> Value {
        self.asked(what)
            .map_or(Value::Null, |mut it| it["data"].take())
    }

    /// The values of an expression that are numbers.
    fn values(&self, expression: &str) -> Vec<f64> {
        let encoded = expression.bytes().map(|byte| format!("%{byte:02x}"));
        let encoded: String = encoded.collect();
        let answer = self.asked(format_args!("query?query={encoded}"));
        let answer = answer.unwrap_or_else(|| panic!("no answer to {expression}"));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let samples = answer["data"]["result"].as_array();
        let samples = samples.unwrap_or_else(|| panic!("{expression}: {answer}"));
        let values = samples
            .iter()
            .map(|sample| sample["value"][1].as_str().unwrap().parse::<f64>().unwrap());
        values.filter(|value| !value.is_nan()).collect()
    }

    /// Whom it asks with success.
    fn up(&self) -> BTreeSet<String> {
        let targets = self.data("targets");
        let targets = targets["activeTargets"].as_array();
        let targets = targets.into_iter().flatten();
        let up = targets.filter(|target| target["health"] == "up");
        up.map(|target| text(&target["labels"]["instance"]))
            .collect()
    }

    /// The rules that could not be evaluated, or not yet, and why.
    fn failing(&self) -> Vec<String> {
        let rules = self.data("rules");
        let Some(groups) = rules["groups"].as_array().filter(|it| !it.is_empty()) else {
            return vec!["it has no rules".into()];
        };
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let failing = rules.filter(|rule| rule["health"] != "ok");
        failing
            .map(|rule| {
                let [name, health] = ["name", "health"].map(|field| text(&rule[field]));
                format!("{name} is {health}: {}", rule["lastError"])
            })
            .collect()
    }

    fn alarms(&self) -> Vec<Alarm> {
        let alarms = self.data("alerts");
        let alarms = alarms["alerts"].as_array().into_iter().flatten();
        let alarms = alarms.map(|alarm| Alarm {
            name: text(&alarm["labels"]["alertname"]),
            instance: text(&alarm["labels"]["instance"]),
            state: text(&alarm["state"]),
        });
        alarms.collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log"));
            eprintln!("---- log of Prometheus ----\n{}", log.unwrap_or_default());
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Every service: gateways, catalogs, replicas.
const SERVERS: [&[Server]; 3] = [
    &[Server::Gateway(0), Server::Gateway(1)],
    &[Server::Catalog],
    &[Server::Order(1), Server::Order(2), Server::Order(3)],
];

fn configuration(bazaar: &Bazaar) -> String {
    let mut jobs = SERVERS.iter();
    let shipped = read(CONFIG);
    // On loopback services are asked in the clear; by whom else, `secured` tries.
    let of_tls = [
        "scheme:",
        "tls_config:",
        "ca_file:",
        "cert_file:",
        "key_file:",
    ];
    let is_of_tls = |line: &&str| of_tls.iter().any(|key| line.trim_start().starts_with(key));
    let lines = shipped.lines().filter(|line| !is_of_tls(line));
    let lines = lines.map(|line| {
        let Some((indent, _)) = line.split_once("- targets:") else {
            let alerts = Path::new(ROOT).join(ALERTS).display().to_string();
            return line.replace("15s", "1s").replace("alerts.yml", &alerts);
        };
        let servers = jobs.next().expect("as many jobs as kinds of services");
        let targets = servers
            .iter()
            .map(|server| bazaar.metrics_address(*server).to_string());
        format!("{indent}- targets: {:?}", targets.collect::<Vec<_>>())
    });
    let lines: Vec<_> = lines.collect();
    assert_eq!(jobs.next(), None, "as many jobs as kinds of services");
    lines.join("\n")
}

/// The panels of a dashboard that ask for something, by their titles.
fn panels(value: &Value, found: &mut Vec<(String, Vec<String>)>) {
    for panel in value["panels"].as_array().into_iter().flatten() {
        let mut asked = Vec::new();
        expressions(&panel["targets"], &mut asked);
        if !asked.is_empty() {
            // Grafana's own, as it would put it in.
            let asked = asked
                .iter()
                .map(|expression| expression.replace("$__rate_interval", "1m"));
            found.push((text(&panel["title"]), asked.collect()));
        }
        panels(panel, found);
    }
}

/// What clients do, of whom one asks for something that is not there.
fn serve(bazaar: &Bazaar) {
    bazaar.trade(&Order::sell(1, "meta"));
    for gateway in [0, 1] {
        let to = bazaar.gateway_address(gateway);
        let lookups = ["/stocks/meta"; 50].into_iter();
        for target in lookups.chain(["/stocks", "/orders/0", "/orders/0", "/nothing"]) {
            request(to, "GET", target, &[], b"");
        }
    }
}

#[test]
fn prometheus_sees_a_bazaar_that_is_well_and_then_which_replica_is_down() {
    let mut bazaar = monitored(Options {
        gateways: 2,
        secured: true,
        ..Options::default()
    });
    let Some(prometheus) = Prometheus::start(&bazaar, &[]) else {
        return;
    };
    let native = Prometheus::start(&bazaar, &["--enable-feature=native-histograms"]);
    let native = native.expect("the other one is there");

    let servers = SERVERS.into_iter().flatten();
    let everybody: BTreeSet<_> = servers
        .map(|server| bazaar.metrics_address(*server).to_string())
        .collect();
    wait_for("every service to be asked", PATIENCE, || {
        [&prometheus, &native].iter().all(|it| it.up() == everybody)
    });
    shows_something_in_each_panel(&bazaar, &prometheus);
    has_native_histograms(&bazaar, &native);
    wait_for_said(
        || format!("rules that can be evaluated: {:?}", prometheus.failing()),
        PATIENCE,
        || prometheus.failing().is_empty(),
    );
    wait_for_said(
        || format!("no alarm: {:?}", prometheus.alarms()),
        PATIENCE,
        || prometheus.alarms().is_empty(),
    );

    let follower = bazaar.follower();
    let instance = bazaar.metrics_address(Server::Order(follower)).to_string();
    bazaar.kill(follower);
    let down = Alarm {
        name: "BazaarDown".to_owned(),
        instance,
        state: "pending".to_owned(),
    };
    wait_for("the alarm about it", PATIENCE, || {
        prometheus.alarms().contains(&down)
    });
    bazaar.restart(follower);
    wait_for("the alarm to be over", PATIENCE, || {
        prometheus.alarms().iter().all(|it| it.name != down.name) && prometheus.up() == everybody
    });
    let in_sync = "max(bazaar_catalog_in_sync_replicas and bazaar_catalog_active == 1)";
    wait_for("all to be in sync", PATIENCE, || {
        prometheus.values(in_sync) == [3.0]
    });
}

fn shows_something_in_each_panel(bazaar: &Bazaar, prometheus: &Prometheus) {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut all = Vec::new();
    panels(&dashboard, &mut all);
    assert!(all.len() > 30, "{all:?}");
    for (title, why) in EMPTY {
        let is_there = all.iter().any(|(panel, _)| panel == title);
        assert!(is_there, "there is no panel {title}: {why}");
    }
    let empty = RefCell::new(Vec::new());
    wait_for_said(
        || format!("what is to be shown in {:?}", empty.borrow()),
        PATIENCE,
        || {
            serve(bazaar);
            let mut empty = empty.borrow_mut();
            empty.clear();
            for (title, asked) in &all {
                let asked = asked.iter();
                let nothing = asked.filter(|expression| prometheus.values(expression).is_empty());
                let nothing: Vec<_> = nothing.collect();
                if !nothing.is_empty() && EMPTY.iter().all(|(known, _)| known != title) {
                    empty.push(format!("{title}: {nothing:?}"));
                }
            }
            empty.is_empty()
        },
    );
}

/// Each histogram is native as well, with all that was noted, and between the right bounds.
fn has_native_histograms(bazaar: &Bazaar, prometheus: &Prometheus) {
    for (name, metric) in all() {
        if metric.kind == Kind::Histogram {
            let count = format!("histogram_count({name})");
            wait_for(&count, PATIENCE, || !prometheus.values(&count).is_empty());
        }
    }
    let trades = "sum(histogram_count(bazaar_trade_stage_seconds{stage=\"place\"}))";
    wait_for("all trades to be counted", PATIENCE, || {
        prometheus.values(trades) == [bazaar.acknowledged() as f64]
    });
    let place = "bazaar_trade_stage_seconds{stage=\"place\"}";
    let of = |what: &str| prometheus.values(&format!("{what}sum({place}))"))[0];
    let mean = of("histogram_sum(") / of("histogram_count(");
    let [least, most] = ["0", "1"].map(|share| of(&format!("histogram_quantile({share}, ")));
    assert!(
        0.0 < least && least <= mean && mean <= most && most < 10.0,
        "{least} {mean} {most}"
    );
}
