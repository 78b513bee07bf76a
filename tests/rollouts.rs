//! Rollouts as operators make them: by the command, with a plan, while clients are served.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::harness::{Bazaar, KeepAlive, Options, Raise, guest, run, wait_until};

/// Each client sends so many requests: then it is compared with others.
const REQUESTS: u32 = 16;

const SHADOW: &str = "[[step]]\nshadow = 1\nsamples = 500\nseconds = 0\n";

fn bazaar() -> Bazaar {
    Bazaar::start(Options {
        gateway_flags: vec!["--client-header=x-client".to_owned()],
        ..Options::default()
    })
}

fn plan(dir: &TempDir, text: &str) -> PathBuf {
    let file = dir.path().join("plan.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Runs `bazaar policy rollout` while ever new clients look a stock up, each of which must be answered.
/// Whether it ended well, and what it printed.
fn rolled_out(bazaar: &Bazaar, arguments: &[&str]) -> (bool, String, String) {
    let (done, next) = (AtomicBool::new(false), AtomicU64::new(0));
    let look_up = || {
        let mut connection = KeepAlive::connect(bazaar.address()).unwrap();
        while !done.load(Ordering::Relaxed) {
            let client = next.fetch_add(1, Ordering::Relaxed);
            let request = format!(
                "GET /stocks/nvidia HTTP/1.1\r\nhost: bazaar\r\nx-client: {client}\r\n\r\n"
            );
            for _ in 0..REQUESTS {
                let answer = connection.exchange(request.as_bytes()).unwrap();
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
    };
    thread::scope(|scope| {
        let _done = Raise(&done);
        for _ in 0..2 {
            scope.spawn(look_up);
        }
        let admin = format!("http://{}", bazaar.admin_address());
        let command = ["policy", "rollout", "--admin", &admin, "--watch"];
        let output = run(command.iter().chain(arguments));
        let [out, err] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        (output.status.success(), out, err)
    })
}

fn active(bazaar: &Bazaar) -> String {
    let policy = bazaar.admin("GET", "/policy", b"").json();
    policy["active"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_version_goes_through_its_plan_and_its_gate_while_clients_are_served() {
    let bazaar = bazaar();
    let dir = tempfile::tempdir().unwrap();
    let gate = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = gate.local_addr().unwrap();
    let text = format!(
        "{SHADOW}limits = {{ differences = 0, ignore = [\"headers.x-policy\"] }}
         [[step]]\ncanary = 0.5\nsamples = 600\nseconds = 1\ngate = \"http://{address}/gate\"\n"
    );
    let plan = plan(&dir, &text);
    let (file, asked) = (guest("marked"), Mutex::new(String::new()));
    let (has_passed, out, err) = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut connection, _) = gate.accept().unwrap();
            let mut request = [0; 16 << 10];
            let mut read = 0;
            while !request[..read].ends_with(b"}") {
                read += connection.read(&mut request[read..]).unwrap();
            }
            *asked.lock().unwrap() = String::from_utf8_lossy(&request[..read]).into_owned();
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            connection.write_all(answer).unwrap();
        });
        let [file, plan] = [&file, &plan].map(|path| path.to_str().unwrap());
        rolled_out(&bazaar, &[file, "--plan", plan, "--operator", "alice"])
    });
    assert!(has_passed, "{out}\n{err}");
    for said in [
        "step 1 of 2, shadow 1: running",
        "step 2 of 2, canary 0.5: running",
        "promote by rollout",
        "the last step passed: something failed for 0 of ",
    ] {
        assert!(out.contains(said), "`{said}` is missing in {out}");
    }
    // It is looked at once a second, and a step ends as soon as the last limit is within.
    let failures = ["open", "within"].map(|state| format!("failures {state}: 0 of "));
    assert!(failures.iter().any(|said| out.contains(said)), "{out}");
    let asked = asked.into_inner().unwrap();
    assert!(asked.starts_with("POST /gate HTTP/1.1"), "{asked}");
    assert!(asked.contains("\"doing\":\"canary 0.5\""), "{asked}");
    assert_eq!(active(&bazaar), "marked");
    assert_eq!(
        bazaar.get("/stocks/nvidia").header("x-policy"),
        Some("marked")
    );
}

#[test]
fn a_version_that_decides_otherwise_is_dropped_and_the_command_fails() {
    let bazaar = bazaar();
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(&dir, &format!("{SHADOW}limits = {{ differences = 0 }}"));
    let (file, plan) = (guest("marked"), plan);
    let [file, plan] = [&file, &plan].map(|path| path.to_str().unwrap());
    let (has_passed, out, err) = rolled_out(&bazaar, &[file, "--plan", plan]);
    assert!(!has_passed, "{out}");
    assert!(out.contains("drop by rollout"), "{out}");
    assert!(out.contains("shadow 1: differences beyond: "), "{out}");
    assert!(err.contains("the version is not the active one"), "{err}");
    assert_eq!(active(&bazaar), "default");
}

#[test]
fn a_rollout_that_cannot_be_decided_pauses_and_is_steered_by_the_command() {
    let bazaar = bazaar();
    let dir = tempfile::tempdir().unwrap();
    let text = "[[step]]\ncanary = 0.01\nseconds = 0\nwithin-seconds = 1\nsamples = 50000";
    let plan = plan(&dir, text);
    let file = guest("marked");
    let [file, plan] = [&file, &plan].map(|path| path.to_str().unwrap());
    let (has_passed, out, err) = rolled_out(&bazaar, &[file, "--plan", plan]);
    assert!(!has_passed, "{out}");
    assert!(out.contains("inconclusive: "), "{out}");
    assert!(err.contains("paused: resume it, skip its step"), "{err}");

    let admin = format!("http://{}", bazaar.admin_address());
    let steer = |how: &str| {
        let output = run(["policy", "rollout", "--admin", &admin, how]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let resumed = steer("--resume");
    assert!(resumed.contains("running"), "{resumed}");
    wait_until("the pause", || {
        bazaar.admin("GET", "/policy/rollout", b"").json()["rollout"]["state"] == "paused"
    });
    let skipped = steer("--skip");
    assert!(skipped.contains("skip by "), "{skipped}");
    assert_eq!(active(&bazaar), "marked");
    let again = run(["policy", "rollout", "--admin", &admin, "--pause"]);
    assert!(!again.status.success());
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("nothing is rolled out"), "{said}");
}

#[test]
fn a_plan_that_is_none_and_an_audience_that_is_none_are_refused_by_name() {
    let bazaar = bazaar();
    let component = std::fs::read(guest("marked")).unwrap();
    for (plan, said) in [
        (
            "[[step]]\nshadow = 2",
            "step 1 of the plan: say either shadow",
        ),
        ("[[steps]]\nshadow = 1", "unknown field `steps`"),
        ("\u{0}", "the plan is not what a plan is like"),
    ] {
        let target = format!("/policy/rollout?plan={}", plan.len());
        let answer = bazaar.admin("PUT", &target, &[plan.as_bytes(), &component].concat());
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains(said), "{answer:?}");
    }
    for (target, status) in [
        ("/policy/rollout?plan=1000000000", 400),
        ("/policy/rollout?plan=-1", 400),
        ("/policy/candidate?canary=0.5&only=colour:red", 400),
        ("/policy/candidate?shadow=0.5&only=path:/stocks", 400),
        (
            "/policy/candidate?canary=0.5&only=path:/stocks&only=header:x-beta=1",
            200,
        ),
    ] {
        let answer = bazaar.admin("PUT", target, &component);
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
    let policy = bazaar.admin("GET", "/policy", b"").json();
    let only = &policy["candidate"]["only"];
    assert_eq!(
        *only,
        serde_json::json!(["path:/stocks", "header:x-beta=1"])
    );
}
