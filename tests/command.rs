//! `up`, `load`, `status` and `ledger`, as a user runs them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;
use test_postgres::{Cluster, Options as Servers};

use crate::harness::{
    Bazaar, Options, Order, Ports, Process, Server, Turn, kill_by_pid, request, run, run_ok,
    run_with, signal_by_pid, wait_until,
};

/// The admin API's port in the block.
const ADMIN_PORT: u16 = 13;

/// A `bazaar up`, and what it said of itself.
struct Up {
    process: Process,
    /// Addresses and process ids by service.
    services: Services,
    dir: TempDir,
    ports: Ports,
    _turn: Turn,
}

/// The flags of an `up` on these ports.
fn flags_of(dir: &TempDir, ports: &Ports, further: &[&str]) -> Vec<String> {
    // Replicas and catalog take the ports behind the base; the gateway's are past them.
    let base = [
        "up".to_owned(),
        format!("--port-base={}", ports.address(0).port()),
        format!("--listen={}", ports.address(12)),
        format!("--admin={}", ports.address(ADMIN_PORT)),
        format!("--data-dir={}", dir.path().join("data").display()),
    ];
    let further = further.iter().map(|flag| flag.to_string());
    base.into_iter().chain(further).collect()
}

type Services = BTreeMap<String, (SocketAddr, u32)>;

fn launch(dir: &TempDir, ports: &Ports, flags: &[&str]) -> (Process, Services) {
    let mut process = Process::start("up", dir.path(), flags_of(dir, ports, flags));
    wait_until("up to say that it is ready", || {
        assert!(process.is_running(), "up has ended: {}", process.log());
        process.out().contains("Ctrl-C")
    });
    let services = process.out().lines().filter_map(service).collect();
    (process, services)
}

impl Up {
    fn start(flags: &[&str]) -> Self {
        let (turn, ports, dir) = (Turn::take(), Ports::claim(), tempfile::tempdir().unwrap());
        let (process, services) = launch(&dir, &ports, flags);
        Self {
            process,
            services,
            dir,
            ports,
            _turn: turn,
        }
    }

    /// Starts it again, on the data that it left.
    fn start_again(&mut self) {
        let out = self.dir.path().join("up.out");
        fs::remove_file(out).unwrap();
        (self.process, self.services) = launch(&self.dir, &self.ports, &[]);
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn address(&self, service: &str) -> SocketAddr {
        self.services[service].0
    }

    /// Where the admin API listens.
    fn admin(&self) -> SocketAddr {
        self.ports.address(ADMIN_PORT)
    }

    fn pid(&self, service: &str) -> u32 {
        self.services[service].1
    }

    fn pids(&self) -> Vec<u32> {
        self.services.values().map(|(_, pid)| *pid).collect()
    }
}

/// A line of the table: name, URL, process id.
fn service(line: &str) -> Option<(String, (SocketAddr, u32))> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let address = words.next()?.strip_prefix("http://")?.parse().ok()?;
    Some((name, (address, words.next()?.parse().ok()?)))
}

fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    // A process that nobody has waited for yet is as good as gone.
    test_kill_process(pid).is_ok() && !status.contains("State:\tZ")
}

#[test]
fn up_says_where_everything_is_serves_and_stops_it_all_on_sigterm() {
    let mut up = Up::start(&["--cache-stocks-max=0"]);
    let names: Vec<&str> = up.services.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["catalog", "gateway", "order-1", "order-2", "order-3"]
    );
    let gateway = up.address("gateway");
    assert!(
        up.process
            .out()
            .contains(&format!("curl http://{gateway}/stocks/nvidia")),
        "{}",
        up.process.out()
    );
    let order = br#"{"name":"meta","type":"sell","quantity":10}"#;
    assert_eq!(
        request(gateway, "POST", "/orders", &[], order).data()["transaction_number"],
        0
    );
    assert_eq!(
        request(gateway, "GET", "/stocks/meta", &[], b"").data()["quantity"],
        1010
    );
    // No stock is kept, as it was told, and orders are.
    let lookups = |target: &str| {
        let lookup = || request(gateway, "GET", target, &[], b"");
        [lookup(), lookup()].map(|answer| answer.header("cache-status").unwrap().to_owned())
    };
    assert_eq!(lookups("/stocks/meta"), ["bazaar; fwd=bypass"; 2]);
    let [_, second] = lookups("/orders/0");
    assert!(second.starts_with("bazaar; hit"), "{second}");
    let cache = request(up.admin(), "GET", "/status", &[], b"").json()["cache"].take();
    let of_stocks = ["entries", "entries_max", "hits"].map(|figure| &cache["stocks"][figure]);
    assert_eq!(of_stocks, [0, 0, 0], "{cache}");
    assert_eq!(cache["orders"]["entries"], 1, "{cache}");

    let pids = up.pids();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert!(up.process.terminate().success(), "{}", up.process.log());
    assert!(
        !pids.iter().any(|pid| is_alive(*pid)),
        "something was left behind"
    );

    let ledgers = ["order-1", "order-2", "order-3"].map(|name| up.data_dir().join(name));
    let shown = run_ok(["ledger".into(), "show".into(), ledgers[0].clone()]);
    assert_eq!(
        shown,
        "{\"0\":{\"name\":\"meta\",\"type\":\"sell\",\"quantity\":10}}\n"
    );
    run_ok(["ledger".into(), "diff".into()].into_iter().chain(ledgers));
    // What has none is known by what it is.
    for (name, said) in [
        (
            "catalog",
            "it is a catalog's. Name the data directory of an order replica",
        ),
        ("gateway", "name the --data-dir of an order replica"),
        ("", "Name a replica's, such as"),
        ("nowhere", "there is no such directory"),
    ] {
        let dir = up.data_dir().join(name);
        let refused = run([OsStr::new("ledger"), OsStr::new("show"), dir.as_os_str()]);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(
            refused.status.code() == Some(1) && told.contains(said),
            "{told}"
        );
    }
    // Nobody else on the machine has anything of it.
    let dirs = ["", "catalog", "gateway", "order-1"].map(|name| up.data_dir().join(name));
    for dir in dirs {
        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", dir.display());
    }
}

#[test]
fn up_does_not_begin_another_journal_where_the_catalog_s_disk_is_lost() {
    let mut up = Up::start(&[]);
    let gateway = up.address("gateway");
    for quantity in 1..=5 {
        let order = format!(r#"{{"name":"meta","type":"sell","quantity":{quantity}}}"#);
        let placed = request(gateway, "POST", "/orders", &[], order.as_bytes());
        assert_eq!(placed.data()["transaction_number"], quantity - 1);
    }
    assert!(up.process.terminate().success(), "{}", up.process.log());
    let data = up.data_dir();
    for lost in ["catalog", "order-1"] {
        fs::remove_dir_all(data.join(lost)).unwrap();
    }

    let refused = run(flags_of(&up.dir, &up.ports, &[]));
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix("  bazaar "));
    let line = line.unwrap_or_else(|| panic!("no command line in {said}"));
    let told: Vec<&str> = line.split(' ').collect();
    let [catalog, second, third] = ["catalog", "order-2", "order-3"].map(|name| data.join(name));
    let expected = [
        "catalog".as_ref(),
        "--data-dir".as_ref(),
        catalog.as_os_str(),
        "--rebuild-from".as_ref(),
        second.as_os_str(),
        "--rebuild-from".as_ref(),
        third.as_os_str(),
    ];
    assert_eq!(told, expected.map(|word| word.to_str().unwrap()), "{said}");
    assert!(!catalog.join("catalog.db").exists());

    let listen = format!("--listen={}", up.ports.address(14));
    let further = ["--stop-at-eof", listen.as_str()];
    let mut rebuilding = Process::start("rebuilding", up.dir.path(), told.iter().chain(&further));
    wait_until("the catalog to be rebuilt", || {
        assert!(rebuilding.is_running(), "{}", rebuilding.log());
        rebuilding.log().contains("opened the database")
    });
    rebuilding.terminate();
    up.start_again();
    let gateway = up.address("gateway");
    assert_eq!(
        request(gateway, "GET", "/orders/2", &[], b"").data()["quantity"],
        3
    );
    assert_eq!(
        request(gateway, "GET", "/stocks/meta", &[], b"").data()["quantity"],
        1015
    );
}

#[test]
fn up_drains_its_gateway_and_ends_at_once_where_it_is_signalled_twice() {
    let mut up = Up::start(&["--drain-delay-ms=3000000"]);
    let pids = up.pids();
    let ready = |up: &Up| request(up.admin(), "GET", "/readyz", &[], b"").status;
    assert_eq!(ready(&up), 200);
    up.process.signal(Signal::TERM);
    wait_until("the gateway not to be ready", || ready(&up) == 503);
    let lookup = request(up.address("gateway"), "GET", "/stocks/meta", &[], b"");
    assert_eq!(lookup.status, 200, "clients are served meanwhile");
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    up.process.signal(Signal::TERM);
    up.process.wait();
    assert!(
        !pids.iter().any(|pid| is_alive(*pid)),
        "something was left behind"
    );
}

#[test]
fn a_supervisor_may_signal_every_process_of_up_and_gets_a_clean_stop() {
    let mut up = Up::start(&[]);
    for pid in up.pids() {
        signal_by_pid(pid, Signal::TERM);
    }
    assert!(up.process.terminate().success(), "{}", up.process.log());
    let log = up.process.log();
    for service in ["catalog", "order-1", "order-2", "order-3", "gateway"] {
        let stopped = |line: &&str| line.starts_with(service) && line.ends_with("stopped");
        assert!(
            log.lines().any(|line| stopped(&line)),
            "{service} was cut off: {log}"
        );
    }
}

#[test]
fn a_hangup_does_not_end_up() {
    let mut up = Up::start(&["--replicas=1"]);
    up.process.signal(Signal::HUP);
    wait_until("it to be noted", || {
        assert!(up.process.is_running(), "up has ended");
        up.process.log().contains("SIGHUP is ignored")
    });
    let lookup = request(up.address("gateway"), "GET", "/stocks/meta", &[], b"");
    assert_eq!(lookup.status, 200);
    assert!(up.process.terminate().success());
}

#[test]
fn a_service_of_up_that_dies_is_told_and_not_restarted() {
    let up = Up::start(&["--replicas=2"]);
    let pid = up.pid("order-2");
    kill_by_pid(pid);
    let told = format!("order-2 (pid {pid}) was killed by signal 9");
    wait_until("up to tell", || up.process.log().contains(&told));
    let order = br#"{"name":"meta","type":"sell","quantity":10}"#;
    assert_eq!(
        request(up.address("gateway"), "POST", "/orders", &[], order).status,
        200,
        "trading goes on"
    );
}

#[test]
fn with_restart_a_service_of_up_that_dies_is_started_again() {
    let up = Up::start(&["--replicas=1", "--restart"]);
    kill_by_pid(up.pid("order-1"));
    wait_until("up to start it again", || {
        up.process.log().contains("order-1 was started again")
    });
    let order = br#"{"name":"meta","type":"sell","quantity":10}"#;
    assert_eq!(
        request(up.address("gateway"), "POST", "/orders", &[], order).status,
        200
    );
}

#[test]
fn nothing_is_left_behind_when_up_itself_is_killed() {
    let mut up = Up::start(&[]);
    let pids = up.pids();
    up.process.kill();
    wait_until("the services to be gone", || {
        !pids.iter().any(|pid| is_alive(*pid))
    });
}

#[test]
fn a_taken_port_is_named_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let flags = [
        "--port-base=0".to_owned(),
        format!("--listen={address}"),
        "--admin=127.0.0.1:0".to_owned(),
        format!("--data-dir={}", data_dir.display()),
    ];
    let refused = run(flags);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        message.contains(&format!("port {} is taken", address.port())),
        "{message}"
    );
    assert!(!data_dir.exists());
}

/// What a service would refuse is refused before there is anything of a bazaar.
#[test]
fn wrong_usage_of_up_exits_with_2_and_begins_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "a-token-that-is-long-enough-0123456789\n").unwrap();
    let file = |flag: &str| format!("--admin{flag}-file={}", token.display());
    for (number, (flags, said)) in [
        (vec!["--admin=0.0.0.0:0".to_owned()], "--admin-token-file"),
        (vec![file("-read-token")], "who may read"),
        (
            vec![file("-read-token"), file("-token")],
            "make another one",
        ),
        (vec!["--lease-ms=5".to_owned()], "lease"),
        (vec!["--store=mysql://u@localhost/b".to_owned()], "postgres"),
    ]
    .into_iter()
    .enumerate()
    {
        let data_dir = dir.path().join(number.to_string());
        let mut line = vec![
            "up".to_owned(),
            "--port-base=0".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--data-dir={}", data_dir.display()),
        ];
        if !flags[0].starts_with("--admin=") {
            line.push("--admin=127.0.0.1:0".to_owned());
        }
        line.extend(flags);
        let refused = run(&line);
        let message = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{line:?}: {message}");
        assert!(message.contains(said), "{line:?}: {message}");
        assert!(!data_dir.join("catalog/catalog.db").exists(), "{line:?}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["nonsense"][..],
        &["up", "--replicas=0"],
        &["order", "--id=0"],
        &["ledger", "diff", "one"],
        &["backup", "take", "file", "--store=nonsense"],
        &[
            "gateway",
            "--listen=127.0.0.1:0",
            "--admin=127.0.0.1:0",
            "--order=1=http://127.0.0.1:1",
            "--catalog=http://127.0.0.1:1",
            "--catalog=http://127.0.0.1:1",
        ],
    ] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let same_peer = [
        "order",
        "--id=1",
        "--listen=127.0.0.1:0",
        "--catalog=http://127.0.0.1:1",
        "--peer=2=http://127.0.0.1:2",
        "--peer=2=http://127.0.0.1:3",
        "--data-dir=none",
    ];
    assert_eq!(run(same_peer).status.code(), Some(2));
}

/// Also where a gateway keeps fewer stocks than there are.
#[test]
fn load_trades_checks_and_measures() {
    const STOCKS_MAX: u64 = 3;
    let bazaar = Bazaar::start(Options {
        gateway_flags: vec![format!("--cache-stocks-max={STOCKS_MAX}")],
        ..Options::default()
    });
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("load.json");
    let url = format!("--url=http://{}", bazaar.address());
    let flags = [
        "load",
        &url,
        "--clients=4",
        "--iterations=50",
        "--trade-probability=0.5",
        "--seed=7",
    ];
    let table = run_ok(
        flags
            .map(str::to_owned)
            .into_iter()
            .chain([format!("--json={}", json.display())]),
    );
    for part in ["lookup", "trade", "order query", "p99", "seed 7"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["requests"]["lookup"]["count"], 200);
    let trades = report["requests"]["trade"]["count"].as_u64().unwrap();
    assert!((50..150).contains(&trades), "{trades}");
    assert_eq!(
        report["requests"]["order_query"]["count"].as_u64().unwrap()
            + report["refused"].as_u64().unwrap(),
        trades
    );
    assert_eq!(report["mismatches"], Value::Array(Vec::new()));
    assert!(report["requests"]["trade"]["p99_us"].as_u64().unwrap() > 0);

    let cached = || bazaar.status()["cache"]["stocks"].take();
    let before = cached();
    assert_eq!(before["entries_max"], STOCKS_MAX);
    let stocks = bazaar.get("/stocks").data();
    let names = stocks.as_array().unwrap().iter();
    for name in names.map(|stock| stock["name"].as_str().unwrap()) {
        assert_eq!(bazaar.get(&format!("/stocks/{name}")).status, 200);
        let kept = cached();
        assert!(kept["entries"].as_u64().unwrap() <= STOCKS_MAX, "{kept}");
    }
    let evicted = [before, cached()].map(|cached| cached["evicted"].as_u64().unwrap());
    assert!(evicted[0] < evicted[1], "{evicted:?}");
    let metrics = bazaar.admin("GET", "/metrics", b"").body;
    let exported = format!(
        "bazaar_cache_evicted_total{{kind=\"stock\"}} {}",
        evicted[1]
    );
    assert!(metrics.lines().any(|line| line == exported), "{metrics}");
    // Which: all that were looked up are kept, or had to make room.
    let shown = bazaar.admin("GET", "/cache", b"").json()["stocks"].take();
    let kept = shown["kept"].as_array().unwrap();
    assert_eq!(kept.len() as u64, STOCKS_MAX, "{shown}");
    let evicted = shown["evicted"].as_array().unwrap();
    for stock in stocks.as_array().unwrap() {
        let name = &stock["name"];
        let is_known = kept.contains(name) || evicted.iter().any(|it| it["entry"] == *name);
        assert!(is_known, "{name} is not in {shown}");
    }
    let first = bazaar.admin("GET", "/cache?limit=1", b"").json()["stocks"].take();
    let first = (&first["kept"][0], &first["kept"][1], &first["more"]);
    assert_eq!(first, (&kept[0], &Value::Null, &Value::Bool(true)));

    let dirs = [1, 2, 3].map(|id| bazaar.data_dir(id));
    run_ok(["ledger".into(), "diff".into()].into_iter().chain(dirs));
}

/// The rows of a CSV file, by its header.
fn rows(csv: &str) -> Vec<BTreeMap<&str, &str>> {
    let mut lines = csv.lines().map(|line| line.split(','));
    let header: Vec<&str> = lines.next().expect("there is a header").collect();
    let rows = lines.map(|cells| header.iter().copied().zip(cells).collect());
    rows.collect()
}

#[test]
fn load_reports_a_run_as_a_page_and_as_csv() {
    let bazaar = Bazaar::start_default();
    let dir = tempfile::tempdir().unwrap();
    run_ok([
        "load".to_owned(),
        format!("--url=http://{}", bazaar.address()),
        "--clients=2".to_owned(),
        "--iterations=5".to_owned(),
        "--trade-probability=1".to_owned(),
        format!("--report={}", dir.path().display()),
    ]);
    let csv = fs::read_to_string(dir.path().join("load.csv")).unwrap();
    let counts = rows(&csv)
        .into_iter()
        .map(|row| (row["request"].to_owned(), row["count"].to_owned()));
    let expected =
        ["lookup", "trade", "order query"].map(|kind| (kind.to_owned(), "10".to_owned()));
    assert_eq!(counts.collect::<Vec<_>>(), expected);
    let page = fs::read_to_string(dir.path().join("load.html")).unwrap();
    assert!(
        page.contains("<svg") && page.contains("<td>trade</td>"),
        "{page}"
    );
}

#[test]
fn load_goes_no_faster_than_it_is_told() {
    let bazaar = Bazaar::start_default();
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("load.json");
    let load = |rate: &str| {
        run([
            "load".to_owned(),
            format!("--url=http://{}", bazaar.address()),
            "--clients=2".to_owned(),
            "--iterations=5".to_owned(),
            format!("--rate={rate}"),
            format!("--json={}", json.display()),
        ])
    };
    let told = String::from_utf8(load("20").stdout).unwrap();
    assert!(
        told.contains("iterations a second of 20 asked for"),
        "{told}"
    );
    let figures: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(figures["requests"]["lookup"]["count"], 10);
    // The last of ten begins nine twentieths of a second after the first.
    assert!(figures["trading_s"].as_f64() >= Some(0.45), "{figures}");
    for rate in ["0", "-1", "NaN", "inf", "1e9", "fast"] {
        let refused = load(rate);
        assert_eq!(refused.status.code(), Some(2), "{rate}");
    }
}

#[test]
fn load_sweeps_with_the_cache_and_without_and_leaves_the_policy_as_it_was() {
    let bazaar = Bazaar::start_default();
    let dir = tempfile::tempdir().unwrap();
    let policy = || bazaar.admin("GET", "/policy", b"").json()["active"]["digest"].clone();
    let hits = || bazaar.status()["cache"]["stocks"]["hits"].as_u64().unwrap();
    let before = policy();
    let table = run_ok([
        "load".to_owned(),
        "--sweep".to_owned(),
        format!("--url=http://{}", bazaar.address()),
        format!("--admin=http://{}", bazaar.admin_address()),
        "--clients=2".to_owned(),
        "--iterations=20".to_owned(),
        format!("--report={}", dir.path().display()),
    ]);
    assert_eq!(policy(), before, "the policy is not what it was");

    let csv = fs::read_to_string(dir.path().join("sweep.csv")).unwrap();
    let rows = rows(&csv);
    for caching in ["on", "off"] {
        for probability in ["0", "0.2", "0.4", "0.6", "0.8"] {
            let of_run = |row: &&BTreeMap<&str, &str>| {
                (row["cache"], row["trade_probability"]) == (caching, probability)
            };
            let kinds = rows.iter().filter(of_run).map(|row| row["request"]);
            let expected: &[&str] = match probability {
                "0" => &["lookup"],
                _ => &["lookup", "trade", "order query"],
            };
            assert!(
                kinds.eq(expected.iter().copied()),
                "{caching} {probability}:\n{csv}"
            );
        }
    }
    let lookups = rows.iter().filter(|row| row["request"] == "lookup");
    assert!(
        lookups
            .into_iter()
            .all(|row| row["count"] == "40" && row["failed"] == "0"),
        "{csv}"
    );
    // With the cache off nothing of 200 lookups is a hit; with it on most of the first 40 are.
    let found = hits();
    assert!((1..=200).contains(&found), "{found} hits");
    assert!(table.contains("trade probability"), "{table}");
    let page = fs::read_to_string(dir.path().join("sweep.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 6, "{page}");
    assert!(page.contains("orders kept at most. Cache off"), "{page}");
    // The table is for people to read, and the CSV beside it for programs.
    let heads = page.split("<th>").skip(1);
    let heads: Vec<&str> = heads
        .filter_map(|rest| rest.split("</th>").next())
        .collect();
    assert_eq!(heads.len(), csv.lines().next().unwrap().split(',').count());
    assert_eq!(heads[..3], ["Cache", "Trade probability", "Request"]);
    assert!(heads.iter().all(|head| !head.contains('_')), "{heads:?}");
    let cached = fs::read_to_string(dir.path().join("cache.csv")).unwrap();
    let of_cache = self::rows(&cached);
    let stocks = |caching: &str| {
        let of_half =
            |row: &&BTreeMap<&str, &str>| row["cache"] == caching && row["kind"] == "stock";
        let figure = |row: &BTreeMap<&str, &str>, name| row[name].parse::<u64>().unwrap();
        let all = of_cache.iter().filter(of_half);
        all.map(|row| (figure(row, "entries"), figure(row, "invalidated")))
            .collect::<Vec<_>>()
    };
    // What is traded is let go of.
    assert!(
        stocks("on").iter().any(|(entries, _)| *entries > 0),
        "{cached}"
    );
    assert!(stocks("on").last().unwrap().1 > 0, "{cached}");
    // The other policy's cache begins empty, and stays so.
    assert_eq!(stocks("off").last().unwrap().0, 0, "{cached}");
    assert!(
        page.contains("cache off, p99") && !page.contains("http://127"),
        "{page}"
    );
}

#[test]
fn a_sweep_needs_the_admin_api() {
    let bazaar = Bazaar::start_default();
    let nobody = Ports::claim();
    let failed = run([
        "load".to_owned(),
        "--sweep".to_owned(),
        format!("--url=http://{}", bazaar.address()),
        format!("--admin=http://{}", nobody.address(0)),
    ]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("--admin"));
}

#[test]
fn load_fails_where_nobody_answers() {
    let nobody = Ports::claim();
    let failed = run([
        "load".to_owned(),
        format!("--url=http://{}", nobody.address(0)),
    ]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("cannot connect"));
}

#[test]
fn status_tells_who_leads_and_what_everyone_holds() {
    let mut bazaar = Bazaar::start_default();
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let mut status = Value::Null;
    wait_until("everyone to be seen with the order", || {
        status = serde_json::from_str(&run_ok(["status", "--json", &admin])).unwrap();
        let replicas = status["replicas"].as_array().unwrap().iter();
        status["catalog"]["journal_rows"] == 1
            && replicas
                .into_iter()
                .all(|replica| replica["orders"] == 1 && replica["last_number"] == 0)
    });
    let hashes = status["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|replica| &replica["chain_hash"]);
    assert!(
        hashes.into_iter().all(|hash| hash
            .as_str()
            .is_some_and(|hash| hash.len() == 64 && *hash == status["catalog"]["chain_hash"])),
        "{status}"
    );
    // The session is called the same by everybody.
    let session = status["catalog"]["session"].as_str().unwrap();
    assert!(session.len() == 16 && u64::from_str_radix(session, 16).is_ok_and(|id| id > 0));
    for server in [Server::Catalog, Server::Gateway(0)] {
        let log = bazaar.server(server).log();
        assert!(
            log.contains(&format!("session={session}")),
            "{session} is not in\n{log}"
        );
    }
    assert!(status["policy"]["active"]["active_ms"].is_u64(), "{status}");
    let text = run_ok(["status", &admin]);
    for part in [
        "ready",
        "leads epoch",
        "default",
        "healthy",
        "in sync",
        session,
        "active for",
        " s\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn ledger_diff_says_where_ledgers_differ() {
    let mut bazaar = Bazaar::start_default();
    let follower = bazaar.follower();
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.kill(follower);
    bazaar.trade(&Order::sell(2, "meta"));
    let dirs = [bazaar.data_dir(bazaar.leader()), bazaar.data_dir(follower)];
    let compared = run(["ledger".into(), "diff".into()].into_iter().chain(dirs));
    assert_eq!(compared.status.code(), Some(1));
    let text = String::from_utf8_lossy(&compared.stdout);
    assert!(text.contains("ends before row 1"), "{text}");
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(
        run([
            "ledger".as_ref(),
            "show".as_ref(),
            nothing.path().as_os_str()
        ])
        .status
        .code(),
        Some(1)
    );
}

#[test]
fn up_starts_several_catalogs_over_one_database_and_one_serves_where_the_other_dies() {
    let Some(cluster) = Cluster::start(&Servers::default()) else {
        return;
    };
    let store = format!("--store={}", cluster.database("bazaar"));
    let (turn, ports, dir) = (Turn::take(), Ports::claim(), tempfile::tempdir().unwrap());
    // What cannot be used is refused before anything is begun, so that it can be tried again.
    let mut refused = Process::start("up", dir.path(), flags_of(&dir, &ports, &[&store]));
    assert!(!refused.wait().success());
    assert!(
        refused.log().contains("--allow-unreplicated"),
        "{}",
        refused.log()
    );
    drop(refused);
    let flags = [store.as_str(), "--allow-unreplicated", "--catalogs=2"];
    let (mut process, services) = launch(&dir, &ports, &flags);
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "catalog-1",
            "catalog-2",
            "gateway",
            "order-1",
            "order-2",
            "order-3"
        ]
    );
    let gateway = services["gateway"].0;
    let order = br#"{"name":"meta","type":"sell","quantity":10}"#;
    // While another one takes over, or a busy machine makes it seem so, an order may come too late: 503.
    let trade = |key: &str| {
        let key = [("idempotency-key", key)];
        let mut number = Value::Null;
        wait_until("an order to be taken", || {
            let answer = request(gateway, "POST", "/orders", &key, order);
            assert!([200, 503].contains(&answer.status), "{answer:?}");
            if answer.status == 200 {
                number = answer.data()["transaction_number"].clone();
            }
            answer.status == 200
        });
        number
    };
    assert_eq!(trade("\"first\""), 0);
    let mut url = String::new();
    wait_until("one to be active and the other to stand by", || {
        let status = request(ports.address(ADMIN_PORT), "GET", "/status", &[], b"").json();
        let of = |role: &str| {
            let catalogs = status["catalogs"].as_array().expect("they are listed");
            let found = catalogs.iter().find(|catalog| catalog["role"] == role)?;
            found["url"].as_str().map(str::to_owned)
        };
        url = of("active").unwrap_or_default();
        !url.is_empty() && of("standby").is_some()
    });
    let (active, (_, pid)) = services
        .iter()
        .find(|(_, (address, _))| url == format!("http://{address}"))
        .expect("it is one of up's");
    // One that a busy machine kept from its database for a lease has ended before, and is another process now.
    let again = format!("{active} was started again, pid ");
    let starts = |log: &str| log.matches(&again).count();
    let log = process.log();
    let last = log.lines().rev().find_map(|line| line.split_once(&again));
    kill_by_pid(last.map_or(*pid, |(_, pid)| pid.parse().expect("a number")));
    assert_eq!(trade("\"second\""), 1);
    // It stands by from its next start on, without --restart.
    wait_until("the catalog to be started again", || {
        starts(&process.log()) > starts(&log)
    });
    assert!(process.terminate().success());
    drop(turn);
}

#[test]
fn the_version_says_what_decides_whether_another_one_understands_this_one() {
    let short = run_ok(["-V"]);
    assert_eq!(short, format!("bazaar {}\n", env!("CARGO_PKG_VERSION")));
    let long = run_ok(["--version"]);
    let schema = catalog::schema_versions();
    for line in [
        format!(
            "services    catalog.v1, order.v1, versions {} of their protocol\n",
            domain::Protocols::OWN
        ),
        format!(
            "databases   catalog {}, order replica {}, PostgreSQL {}\n",
            schema.sqlite,
            order::SCHEMA_VERSION,
            schema.postgres
        ),
        "policies    bazaar:policy/policy@1.2.0, bazaar:policy/policy@1.1.0, bazaar:policy/policy@1.0.0\n".to_owned(),
        "wasmtime    48.".to_owned(),
    ] {
        assert!(long.contains(&line), "{line}: {long}");
    }
}

/// A variable that is a URL for one command and an address for `up` is in nobody's way.
#[test]
fn what_an_environment_says_for_other_commands_stops_none() {
    let nothing = tempfile::tempdir().unwrap();
    let dir = nothing.path().to_str().unwrap();
    let elsewhere = [
        ("BAZAAR_ADMIN", "https://nowhere.invalid:8081"),
        ("BAZAAR_LISTEN", "nonsense"),
    ];
    let shown = run_with(&elsewhere, ["ledger", "show", dir]);
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(
        shown.status.code() == Some(1) && said.contains("holds no replica's ledger"),
        "{said}"
    );
    let asked = run_with(&elsewhere, ["status", "--admin", "http://127.0.0.1:1"]);
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(
        said.contains("cannot connect to http://127.0.0.1:1"),
        "{said}"
    );
}
