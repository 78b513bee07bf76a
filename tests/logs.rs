//! Logs and results that cannot be written.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    ALL_BROKEN, Bazaar, Broken, Options, Order, Outputs, Ports, Process, Response, Turn,
    kill_by_pid, try_request, wait_until,
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn services_trade_lose_their_leader_and_stop_as_always_whatever_becomes_of_their_logs() {
    for broken in ALL_BROKEN {
        let mut bazaar = Bazaar::start(Options {
            log: Some(broken),
            gateway_flags: vec!["--access-log=text".to_owned()],
            ..Options::default()
        });
        bazaar.trade(&Order::sell(1, "meta"));
        let leader = bazaar.leader();
        bazaar.kill(leader);
        bazaar.trade(&Order::sell(2, "meta"));
        bazaar.restart(leader);
        bazaar.kill_catalog();
        bazaar.restart_catalog();
        bazaar.trade(&Order::buy(3, "nvidia"));
        bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
        bazaar.check_acknowledged();
        bazaar.stop();
    }
}

#[test]
fn up_tells_starts_again_and_stops_as_always_whatever_becomes_of_its_log_and_its_results() {
    let of_log = ALL_BROKEN.map(|log| Outputs {
        log: Some(log),
        out: None,
    });
    let of_results = ALL_BROKEN.map(|out| Outputs {
        log: None,
        out: Some(out),
    });
    for outputs in of_log.into_iter().chain(of_results) {
        let (_turn, ports, dir) = (Turn::take(), Ports::claim(), tempfile::tempdir().unwrap());
        let (clients, admin) = (ports.address(12), ports.address(13));
        let flags = [
            "--replicas=1".to_owned(),
            "--restart".to_owned(),
            format!("--port-base={}", ports.address(0).port()),
            format!("--listen={clients}"),
            format!("--admin={admin}"),
            format!("--data-dir={}", dir.path().join("data").display()),
        ];
        let mut up = Process::start_with("up", dir.path(), flags, outputs);
        let answer = |up: &mut Process, address, method, target, body: &[u8]| {
            assert!(up.is_running(), "{outputs:?}: {}", up.log());
            try_request(address, method, target, &[], body, PATIENCE).map(|answer| answer.status)
        };
        let wait_until_ready = |up: &mut Process| {
            wait_until(&format!("up to be ready, {outputs:?}"), || {
                answer(up, admin, "GET", "/readyz", b"").is_ok_and(|status| status == 200)
            });
        };
        wait_until_ready(&mut up);

        // It tells that a service has died, and that it was started again.
        let replica = child_with(up.pid(), "order").expect("it runs a replica");
        kill_by_pid(replica);
        wait_until(&format!("another replica, {outputs:?}"), || {
            child_with(up.pid(), "order").is_some_and(|child| child != replica)
        });
        wait_until_ready(&mut up);
        let order = br#"{"name":"meta","type":"sell","quantity":10}"#;
        let traded = answer(&mut up, clients, "POST", "/orders", order);
        assert_eq!(traded.ok(), Some(200), "{outputs:?}");
        assert!(up.terminate().success(), "{outputs:?}: {}", up.log());
        if outputs.out == Some(Broken::Full) {
            let told = "cannot say on standard output where everything is";
            assert!(up.log().contains(told), "{}", up.log());
        }
    }
}

/// A process that another one has started, by a word of its command line.
fn child_with(pid: u32, word: &str) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let children = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|children| {
            children
                .split_whitespace()
                .map(str::parse)
                .collect::<Vec<_>>()
        })
        .collect::<Result<_, _>>()
        .expect("process ids are numbers");
    children.into_iter().find(|child| {
        let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        line.split('\0').any(|part| part == word)
    })
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let bazaar = Bazaar::start_default();
    bazaar.trade(&Order::sell(1, "meta"));
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let ledger = bazaar.data_dir(1).display().to_string();
    let dir = tempfile::tempdir().unwrap();
    for (arguments, out, exits_with) in [
        (vec!["--help"], Broken::Full, 1),
        (vec!["--version"], Broken::Full, 1),
        (vec!["status", &admin], Broken::Full, 1),
        (vec!["policy", "list", &admin], Broken::Full, 1),
        (vec!["ledger", "show", &ledger], Broken::Full, 1),
        // `bazaar … | head` has seen enough.
        (vec!["--help"], Broken::ReaderGone, 0),
        (vec!["status", &admin], Broken::ReaderGone, 0),
        (vec!["ledger", "show", &ledger], Broken::ReaderGone, 0),
    ] {
        let outputs = Outputs {
            out: Some(out),
            log: None,
        };
        let mut command = Process::start_with("command", dir.path(), &arguments, outputs);
        let ended = command.wait();
        assert_eq!(ended.code(), Some(exits_with), "{arguments:?} {out:?}");
    }
}

/// The records of a log that is written as JSON.
fn records(log: &str) -> Vec<Value> {
    let record =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(record).collect()
}

#[test]
fn every_line_that_up_and_its_services_log_is_json_where_that_is_wanted() {
    let (_turn, ports, dir) = (Turn::take(), Ports::claim(), tempfile::tempdir().unwrap());
    let admin = ports.address(13);
    fs::write(dir.path().join("bazaar.toml"), "log-format = 'json'").unwrap();
    let flags = [
        "--replicas=1".to_owned(),
        "--restart".to_owned(),
        format!("--config={}", dir.path().join("bazaar.toml").display()),
        format!("--port-base={}", ports.address(0).port()),
        format!("--listen={}", ports.address(12)),
        format!("--admin={admin}"),
        format!("--data-dir={}", dir.path().join("data").display()),
    ];
    let mut up = Process::start("up", dir.path(), flags);
    let is_ready = |up: &mut Process| {
        assert!(up.is_running(), "{}", up.log());
        let answer = try_request(admin, "GET", "/readyz", &[], b"", PATIENCE);
        answer.is_ok_and(|answer| answer.status == 200)
    };
    wait_until("up to be ready", || is_ready(&mut up));
    kill_by_pid(child_with(up.pid(), "order").expect("it runs a replica"));
    let has_said = |up: &Process, what: &str| up.log().contains(what);
    wait_until("it to be started again", || {
        has_said(&up, "was started again")
    });
    wait_until("up to be ready again", || is_ready(&mut up));
    assert!(up.terminate().success(), "{}", up.log());

    let records = records(&up.log());
    for record in &records {
        for member in ["timestamp", "level", "service", "target", "message"] {
            assert!(record[member].is_string(), "{member} of {record}");
        }
    }
    for service in ["up", "catalog", "order-1", "gateway"] {
        let has_said = |record: &Value| record["service"] == service;
        assert!(records.iter().any(has_said), "nothing of {service}");
    }
    let died = records.iter().find(|record| {
        let message = record["message"].as_str().unwrap_or_default();
        record["service"] == "up" && message.contains("was killed by signal 9")
    });
    assert_eq!(died.expect("it tells who dies")["level"], "WARN");
}

/// A gateway's access log, in a file.
struct AccessLog {
    dir: TempDir,
}

impl AccessLog {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    fn options(&self) -> Options {
        let flags = vec![
            "--access-log=json".to_owned(),
            format!("--access-log-file={}", self.path().display()),
        ];
        Options {
            replicas: vec![1],
            gateway_flags: flags,
            ..Options::default()
        }
    }

    /// What it says of a request, which it says a little later.
    fn record(&self, id: &str) -> Value {
        let mut found = None;
        wait_until(&format!("{id} to be logged"), || {
            let log = fs::read_to_string(self.path()).unwrap_or_default();
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            found = records(whole)
                .into_iter()
                .find(|record| record["request_id"] == id);
            found.is_some()
        });
        found.expect("it was found")
    }
}

fn id_of(response: &Response) -> String {
    let id = response.header("x-request-id");
    let id = id.unwrap_or_else(|| panic!("no id in {response:?}"));
    id.to_owned()
}

#[test]
fn each_request_of_a_client_is_logged_once_under_the_id_that_its_reply_has() {
    let log = AccessLog::new();
    let mut bazaar = Bazaar::start(log.options());
    let ask = |target: &str, id: &str| bazaar.send("GET", target, &[("x-request-id", id)], b"");
    let target = "/stocks/nvidia?token=s3cret";
    let (miss, hit) = (ask(target, "first.1"), ask(target, "second_2"));
    assert_eq!(
        (id_of(&miss), id_of(&hit)),
        ("first.1".into(), "second_2".into())
    );
    let policy = bazaar.admin("GET", "/policy", b"").json();
    for (id, response, cache) in [("first.1", &miss, "miss"), ("second_2", &hit, "hit")] {
        let record = log.record(id);
        for (member, value) in [
            ("client", Value::from("127.0.0.1")),
            ("method", "GET".into()),
            ("target", "/stocks/nvidia?token=*".into()),
            ("protocol", "HTTP/1.1".into()),
            ("status", 200.into()),
            ("bytes", response.body.len().into()),
            ("cache", cache.into()),
            ("policy", policy["active"]["digest"].clone()),
            ("user_agent", Value::Null),
        ] {
            assert_eq!(record[member], value, "{member} of {record}");
        }
        assert!(
            record["duration_us"].as_u64().is_some_and(|us| us > 0),
            "{record}"
        );
    }
    // What a client sends may end no line, and make none.
    let forged = bazaar.send(
        "GET",
        "/nowhere",
        &[("x-request-id", "7\" status=\"200")],
        b"",
    );
    let made = id_of(&forged);
    assert!(!made.contains('"'), "{made}");
    assert_eq!(log.record(&made)["status"], 404);
    let order = Order::sell(1, "meta").json().to_string();
    let traded = id_of(&bazaar.send("POST", "/orders", &[], order.as_bytes()));
    assert_ne!(traded, made);
    let traded = log.record(&traded);
    assert_eq!(
        (&traded["method"], &traded["cache"]),
        (&"POST".into(), &Value::Null)
    );
    // No policy has seen it.
    let refused = bazaar.send("POST", "/orders", &[("origin", "http://x.example")], b"{}");
    assert_eq!(log.record(&id_of(&refused))["status"], 415);

    // Rotated, it goes on in a file of that name, and nothing is lost.
    fs::rename(log.path(), log.dir.path().join("access.log.1")).unwrap();
    let mut asked = 0;
    wait_until("another file to be there", || {
        ask("/stocks/meta", "later");
        asked += 1;
        log.path().exists()
    });
    bazaar.stop();
    let all = ["access.log.1", "access.log"]
        .map(|name| fs::read_to_string(log.dir.path().join(name)).unwrap());
    let later = records(&all.concat())
        .into_iter()
        .filter(|record| record["request_id"] == "later");
    assert_eq!(later.count(), asked);
}

#[test]
fn what_cannot_be_written_of_requests_holds_none_of_them_up_and_is_counted() {
    let log = AccessLog::new();
    let made = Command::new("mkfifo").arg(log.path()).status();
    assert!(made.is_ok_and(|made| made.success()));
    // Somebody has opened it, and does not read.
    let reader = File::options().read(true).write(true).open(log.path());
    let bazaar = Bazaar::start(log.options());
    let dropped = || {
        let metrics = bazaar.admin("GET", "/metrics", b"").body;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("bazaar_access_log_dropped_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .expect("it is counted")
    };
    wait_until("lines to be dropped", || {
        for _ in 0..100 {
            assert_eq!(bazaar.get("/stocks/nvidia").status, 200);
        }
        dropped() > 0
    });
    drop(reader);
    bazaar.trade(&Order::sell(1, "meta"));
}

#[test]
fn every_reply_says_what_its_request_is_called() {
    let bazaar = Bazaar::start(Options {
        replicas: vec![1],
        ..Options::default()
    });
    let [miss, hit, another] = [(); 3].map(|()| bazaar.get("/stocks/nvidia"));
    for hit in [&hit, &another] {
        let status = hit.header("cache-status");
        assert!(status.is_some_and(|it| it.contains("hit")), "{status:?}");
    }
    let wanted = bazaar.send("GET", "/stocks/nvidia", &[("x-request-id", "a-1")], b"");
    assert!(
        wanted
            .header("cache-status")
            .is_some_and(|it| it.contains("hit"))
    );
    assert_eq!(id_of(&wanted), "a-1");
    let replaced = bazaar.send(
        "GET",
        "/stocks/nvidia",
        &[("x-request-id", &"x".repeat(65))],
        b"",
    );
    let others = [bazaar.get("/nowhere"), bazaar.get("/orders/7"), replaced];
    let asked_for = others.iter().chain([&miss, &hit, &another]);
    let ids: BTreeSet<String> = asked_for.map(id_of).collect();
    assert_eq!(ids.len(), 6, "{ids:?}");
    assert!(ids.iter().all(|id| id.len() <= 64), "{ids:?}");
}
