//! What a recording has of requests, and recordings as tests.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Bazaar, Options, Order, Server, example, guest, run, run_ok, wait_until};

struct Recordings(TempDir);

impl Recordings {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Records for a second what is asked meanwhile; returns where the recording is.
    fn record(&self, name: &str, bazaar: &Bazaar, flags: &[&str], ask: impl Fn()) -> String {
        let admin = format!("--admin=http://{}", bazaar.admin_address());
        let recording = self.at(name);
        let mut arguments = vec!["policy", "record", "--seconds=1", "-o", &recording, &admin];
        arguments.extend(flags);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let recorded = run(arguments);
                done.store(true, Ordering::Relaxed);
                assert!(recorded.status.success(), "{recorded:?}");
            });
            while !done.load(Ordering::Relaxed) {
                ask();
            }
        });
        recording
    }
}

/// Runs `policy test`; the exit code, and what was printed.
fn test(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(["policy", "test"].iter().chain(arguments));
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

#[test]
fn a_recording_has_no_header_that_the_policy_did_not_ask_for_and_no_credentials() {
    let recordings = Recordings::new();
    let mut bazaar = Bazaar::start(Options {
        policy: Some(guest("echoes")),
        ..Options::default()
    });
    let ask = || {
        let headers = [
            ("cookie", "theme=dark; session=s3cret"),
            ("user-agent", "nobody-asked"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-request-id", "asked-here"),
        ];
        let echoed = bazaar.send("GET", "/echo", &headers, b"");
        assert!(echoed.body.contains("session=s3cret"), "{echoed:?}");
    };
    let read = |path: String| fs::read_to_string(path).unwrap();
    let recorded = read(recordings.record("default", &bazaar, &[], ask));
    assert!(
        recorded.contains("/echo") && recorded.contains("[\"host\""),
        "{recorded}"
    );
    // By which it is found in the access log.
    assert!(recorded.contains("\"id\":\"asked-here\""), "{recorded}");
    for hidden in ["s3cret", "nobody-asked", "192.0.2.7"] {
        assert!(!recorded.contains(hidden), "{hidden}: {recorded}");
    }
    // The policy has put it into its answer: it is left out there as well.
    assert!(recorded.contains("cookie: (left out)"), "{recorded}");

    let named = ["--header=cookie", "--operator=ada", "--reason=to see"];
    let named = read(recordings.record("named", &bazaar, &named, ask));
    assert!(named.contains("session=s3cret"), "{named}");
    assert!(!named.contains("[\"host\""), "only what is named: {named}");

    // Who has seen clients' requests is written down.
    let mut last = Vec::new();
    wait_until("the end of it to be written down", || {
        let log = bazaar.admin("GET", "/policy/changes", b"").json();
        let changes = log["changes"].as_array().unwrap().iter();
        let of_ada = changes.filter(|change| change["who"] == "ada");
        last = of_ada.cloned().collect();
        last.len() == 2
    });
    for (change, (what, why)) in last.iter().zip([
        ("record", "for 1 s, with cookie: to see"),
        ("recorded", " lines were given out: to see"),
    ]) {
        assert_eq!(change["what"], what, "{last:#?}");
        assert!(change["why"].as_str().unwrap().ends_with(why), "{change}");
        let said = (&change["who"], &change["known_by"], &change["address"]);
        assert_eq!(
            said,
            (&json!("ada"), &json!("nothing"), &json!("127.0.0.1"))
        );
        assert_eq!(change["from"], change["to"], "no version is another one");
    }
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let told = run_ok(["policy", "log", &admin]);
    let line = "record by ada (nothing, 127.0.0.1): for 1 s, with cookie: to see\n";
    assert!(told.contains(line), "{told}");
    let last = run_ok(["policy", "log", "--limit=1", &admin]);
    assert!(last.contains(" recorded by ada "), "{last}");
    assert_eq!(last.lines().count(), 1, "{last}");

    let output = recordings.at("refused");
    let refused = run([
        "policy",
        "record",
        "-o",
        &output,
        "--header=user-agent",
        &admin,
    ]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("does not ask to see `user-agent`"), "{said}");
    let wrong = bazaar.admin("POST", "/policy/recording?headers=a%20b", b"");
    assert_eq!(wrong.status, 400, "{wrong:?}");

    // A gateway without a data directory has no other record of it.
    let log = bazaar.server(Server::Gateway(0)).log();
    let noted = log.lines().find(|line| {
        line.contains("an operator did what changes no version") && line.contains("ada")
    });
    let noted = noted.expect("it is in the gateway's log");
    for part in [
        "record",
        "nothing",
        "127.0.0.1",
        "for 1 s, with cookie: to see",
    ] {
        assert!(noted.contains(part), "{part}: {noted}");
    }
}

#[test]
fn recordings_are_tests_of_a_policy() {
    let recordings = Recordings::new();
    let bazaar = Bazaar::start_default();
    let ask = || {
        let key = [("idempotency-key", "one")];
        bazaar.quantity("nvidia");
        bazaar.get("/stocks/enron?why=not&x=1");
        let order = Order::sell(1, "meta").json().to_string();
        bazaar.send("POST", "/orders", &key, order.as_bytes());
    };
    let recording = recordings.record("recording", &bazaar, &[], ask);
    let (code, said) = test(&[&recording, &recording]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.ends_with(" decisions came out as recorded\n"),
        "{said}"
    );

    let marked = guest("marked");
    let marked = format!("--policy={}", marked.display());
    let (code, said) = test(&[&recording, &marked]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("+ ") && said.contains("x-policy: \"marked\""),
        "{said}"
    );
    assert!(said.contains("GET /stocks/* → refused  headers"), "{said}");
    assert!(said.len() < 100_000, "{} bytes", said.len());
    let (code, said) = test(&[&recording, &marked, "--mask=headers.x-policy"]);
    assert_eq!(code, Some(0), "{said}");

    // The least that shows it: any answer does.
    let (_, said) = test(&[&recording, &marked, "--minimize"]);
    let line = "\n      curl --path-as-is --globoff http://localhost:8080/\n";
    assert!(said.contains(line), "{said}");

    // What is cached how is another field, and needs a stock.
    let ttl = format!("--policy={}", example("ttl").display());
    let report = run(["policy", "test", &recording, &ttl, "--minimize", "--json"]);
    assert_eq!(report.status.code(), Some(1), "{report:?}");
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let caching = &report["routes"]["GET /stocks/*"]["caching"];
    assert!(caching.as_u64() > Some(1), "{report:#}");
    let failure = &report["failures"][0];
    assert_eq!(failure["differences"][0]["field"], "caching");
    let curl = failure["smallest"][0]["curl"].as_str().unwrap();
    let stock = curl.strip_prefix("curl --path-as-is --globoff http://localhost:8080/stocks/");
    assert_eq!(stock.map(str::len), Some(1), "{curl}");

    // The same by `replay`, and with what did not make the recording as the baseline.
    let replayed = run(["policy", "replay", &recording, &ttl, "--minimize"]);
    let replayed: Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!(replayed["smallest"][0]["curl"], json!(curl));
    let baseline = format!("--baseline={}", example("ttl").display());
    let (_, said) = test(&[&recording, &ttl, "--minimize", &baseline]);
    assert!(
        said.contains("it is not what made this recording"),
        "{said}"
    );

    let empty = recordings.at("empty");
    let recorded = fs::read_to_string(&recording).unwrap();
    fs::write(&empty, recorded.lines().next().unwrap()).unwrap();
    let (code, said) = test(&[&empty]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no decision is recorded there"), "{said}");
    assert_eq!(test(&[&recording, "--mask=no-field"]).0, Some(2));
    assert!(run_ok(["policy", "test", "--help"]).contains("--mask"));
}
