//! `bazaar top`: what the console shows, in a terminal.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Bazaar, Conduct, Link, Options, Order, Server, Terminal, guest, request, run, run_ok, skip,
    wait_until,
};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

/// How much later what a gateway says to the leader arrives: looking up a cached stock does not wait for that.
const DELAY: Duration = Duration::from_millis(50);

/// Why a policy is pushed, with a command to terminals in it that HTTP lets through.
const HOSTILE_REASON: &str = "for a test \u{9b}2J\u{202e}";

fn admin(bazaar: &Bazaar) -> String {
    format!("--admin=http://{}", bazaar.admin_address())
}

/// One look, as lines.
fn look(bazaar: &Bazaar) -> String {
    run_ok([
        "top",
        "--once",
        "--seconds=1",
        "--width=160",
        &admin(bazaar),
    ])
}

/// The line that a service has.
fn line<'a>(look: &'a str, service: &str) -> &'a str {
    let mut lines = look.lines();
    // Behind its mark.
    let found = lines.find(|line| {
        line.chars()
            .skip(3)
            .collect::<String>()
            .starts_with(service)
    });
    found.unwrap_or_else(|| panic!("no {service} in\n{look}"))
}

#[test]
fn one_look_tells_who_leads_which_replica_is_down_which_route_is_slow_and_why_a_policy_is_gone() {
    let mut bazaar = Bazaar::start(Options {
        proxied: true,
        ..Options::default()
    });
    let leader = bazaar.leader();
    for id in 1..=3 {
        let link = Link {
            from: Server::Gateway(0),
            to: Server::Order(id),
        };
        bazaar.link(link).set(Conduct {
            delay: DELAY,
            ..Conduct::default()
        });
    }
    for _ in 0..3 {
        bazaar.trade(&Order::sell(1, "nvidia"));
        for _ in 0..9 {
            bazaar.get("/stocks/meta");
        }
    }
    let hostile = fs::read(guest("hostile")).unwrap();
    let said = [("x-operator", "alice"), ("x-reason", HOSTILE_REASON)];
    let pushed = request(bazaar.admin_address(), "PUT", "/policy", &said, &hostile);
    assert_eq!(pushed.status, 200, "{}", pushed.body);
    let mut asked = 0;
    wait_until("the policy before to be back", || {
        asked += 1;
        bazaar.get(&format!("/stocks/trap{asked}"));
        bazaar.admin("GET", "/policy", b"").json()["active"]["name"] == "default"
    });

    let metrics = bazaar.admin("GET", "/metrics", b"").body;
    for sample in [
        "bazaar_policy_taken_out_total{change=\"rollback\"} 1",
        "bazaar_policy_changes_total{change=\"rollback\"} 1",
    ] {
        let is_there = metrics.lines().any(|line| line == sample);
        assert!(is_there, "no {sample} in {metrics}");
    }
    let count = |line: &&str| line.starts_with("bazaar_policy_compile_seconds_count ");
    let compiled = metrics.lines().find(count);
    assert!(
        compiled.is_some_and(|line| !line.ends_with(" 0")),
        "{compiled:?}"
    );

    let shown = look(&bazaar);
    let replica = |shown: &str, id: u32| line(shown, &format!("replica {id} ")).to_owned();
    for id in 1..=3 {
        let role = if id == leader { "leader" } else { "follower" };
        assert!(replica(&shown, id).contains(role), "{id} {role}\n{shown}");
        assert!(replica(&shown, id).contains("in sync"), "{id}\n{shown}");
    }
    for part in [
        format!("replica {leader} leads epoch "),
        "trade (slowest)".to_owned(),
        "3 traded · 0 refused · 0 not answered in time".to_owned(),
        "rolled back by the gateway itself".to_owned(),
        "activated by alice".to_owned(),
        "for a test \\u{9b}2J\\u{202e}".to_owned(),
        "trapped at GET /stocks/trap".to_owned(),
        "! warning: Gateway".to_owned(),
        "[BazaarPolicyTakenOut]".to_owned(),
    ] {
        assert!(shown.contains(&part), "no `{part}` in\n{shown}");
    }
    let hostile = shown
        .chars()
        .find(|char| *char != '\n' && char.is_control());
    assert_eq!(hostile, None, "{shown}");

    let follower = (1..=3).find(|id| *id != leader).unwrap();
    bazaar.kill(follower);
    let mut shown = String::new();
    wait_until("the killed follower to be down, and all to be said", || {
        shown = look(&bazaar);
        let is_down = replica(&shown, follower).contains("does not answer");
        is_down
            && shown.contains(&format!(
                "! warning: Replica {follower} does not answer [BazaarDown]"
            ))
    });
    assert!(replica(&shown, follower).starts_with('X'), "{shown}");
    assert!(replica(&shown, leader).contains("leader"), "{shown}");
    bazaar.check_acknowledged();
}

#[test]
fn what_it_cannot_do_it_says_and_what_to_do() {
    let bazaar = Bazaar::start(Options {
        gateway_flags: vec!["--admin-token=0perat0r".to_owned()],
        ..Options::default()
    });
    let admin = admin(&bazaar);
    let said = |arguments: &[&str]| {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    // Its output is a pipe.
    let (code, words) = said(&["top", &admin, "--admin-token=0perat0r"]);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("`bazaar top --once`"), "{words}");
    let (code, words) = said(&["top", "--once", &admin, "--admin-token=guessed"]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("refused (401)"), "{words}");
    let clients = format!("--admin=http://{}", bazaar.address());
    let (code, words) = said(&["top", "--once", &clients]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("names where clients are served"), "{words}");

    let mut terminal = Terminal::start((80, 24), ["top", &admin, "--admin-token=guessed"]);
    assert_eq!(terminal.wait().code(), Some(1));
    assert!(terminal.written().contains("refused (401)"));
    assert!(!terminal.was_taken(), "{}", terminal.written());
    let text = run_ok([
        "top",
        "--once",
        "--seconds=1",
        &admin,
        "--admin-token=0perat0r",
    ]);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[test]
fn a_terminal_shows_what_happens_and_is_given_back() {
    let mut bazaar = Bazaar::start_default();
    let mut terminal = Terminal::start((120, 40), ["top", &admin(&bazaar)]);
    let leader = bazaar.leader();
    terminal.wait_for(&format!("replica {leader} leads epoch "));
    terminal.wait_for("live");
    terminal.wait_for("Policy");
    terminal.wait_for("default ");
    assert!(!terminal.is_line_wise());

    let follower = (1..=3).find(|id| *id != leader).unwrap();
    bazaar.kill(follower);
    terminal.wait_for(&format!("lag replica {follower} is down"));

    terminal.resize((40, 20));
    terminal.wait_for("> Services");
    terminal.wait_for("does not answer");
    terminal.send("?");
    terminal.wait_for("another panel");
    terminal.send("?\t");
    terminal.wait_for("> Requests");

    bazaar.server(Server::Gateway(0)).kill();
    terminal.wait_for("NOT LIVE");
    terminal.wait_for("What is shown is");
    bazaar.start_server(Server::Gateway(0));
    wait_until("it to be live again", || {
        let screen = terminal.screen();
        !screen.contains("NOT LIVE") && screen.contains("live")
    });

    terminal.send("q");
    assert_eq!(terminal.wait().code(), Some(0));
    assert!(terminal.is_given_back(), "{:?}", terminal.written());
}

#[test]
fn a_terminal_is_given_back_whatever_ends_it() {
    let bazaar = Bazaar::start_default();
    let start = || {
        let terminal = Terminal::start((80, 24), ["top", &admin(&bazaar)]);
        terminal.wait_for("Services");
        terminal
    };
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut terminal = start();
        terminal.signal(signal);
        assert_eq!(terminal.wait().code(), Some(0), "{signal:?}");
        assert!(terminal.is_given_back(), "{:?}", terminal.written());
    }
    let mut terminal = start();
    terminal.send("\x03");
    assert_eq!(terminal.wait().code(), Some(0));
    assert!(terminal.is_given_back(), "{:?}", terminal.written());

    // One that takes nothing any more keeps nobody.
    let mut terminal = start();
    terminal.stand_still();
    for _ in 0..64 {
        terminal.send("\x0c"); // drawn anew: more than such a terminal holds
    }
    terminal.signal(Signal::TERM);
    terminal.wait();
    assert!(terminal.is_line_wise());
}

// ---- one table for both ----

/// What both say is in `tests/console/alarms.json`, to which a test in `src/top/alarms.rs` holds `bazaar top`.
#[test]
fn the_console_says_the_same_alarms() {
    let node = Command::new("node")
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    if !node.is_ok_and(|output| output.status.success()) {
        skip(
            "the console's alarms",
            "there is no Node to run its script with",
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(format!("{PROJECT}/frontend-host/src/admin/page")).unwrap() {
        let file = file.unwrap();
        if file.path().extension().is_some_and(|kind| kind == "js") {
            fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
    }
    fs::write(dir.path().join("package.json"), r#"{"type":"module"}"#).unwrap();
    let table = format!("{PROJECT}/tests/console/alarms.json");
    let output = Command::new("node")
        .arg(format!("{PROJECT}/tests/console/alarms.mjs"))
        .args([dir.path(), Path::new(&table)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let table: Value = serde_json::from_str(&fs::read_to_string(table).unwrap()).unwrap();
    let (found, cases) = (
        found.as_array().unwrap(),
        table["cases"].as_array().unwrap(),
    );
    assert_eq!(found.len(), cases.len());
    for (found, case) in found.iter().zip(cases) {
        assert_eq!(found["alarms"], case["alarms"], "{}", case["name"]);
    }
}

/// What an operator did is called by words in both.
#[test]
fn both_have_words_for_each_change_of_a_policy() {
    let read = |path: &str| fs::read_to_string(format!("{PROJECT}/{path}")).unwrap();
    let page = read("frontend-host/src/admin/page/policy.js");
    let (_, words) = page.split_once("const WORDS = {").unwrap();
    let (words, _) = words.split_once("};").unwrap();
    let changes = words.split(", ").flat_map(|part| part.split(",\n"));
    let changes = changes.filter_map(|entry| entry.split_once(": \""));
    let changes: Vec<_> = changes.map(|(name, _)| name.trim()).collect();
    assert!(changes.len() > 15, "{changes:?}");
    let panels = read("src/top/panels.rs");
    for change in changes {
        let name = change.trim_matches('"');
        assert!(panels.contains(&format!("\"{name}\" =>")), "{name}");
    }
}

#[test]
fn both_know_the_same_alarms_and_each_is_in_the_table() {
    let named = |path: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(format!("{PROJECT}/{path}")).unwrap();
        let words = text.split('"').filter(|word| {
            let rest = word.strip_prefix("Bazaar");
            rest.is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphabetic())
            })
        });
        words.map(str::to_owned).collect()
    };
    let of_console = named("frontend-host/src/admin/page/alarms.js");
    assert_eq!(named("src/top/alarms.rs"), of_console);
    assert_eq!(named("tests/console/alarms.json"), of_console);
}
