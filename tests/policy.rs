//! Swaps under load, and components that misbehave.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use frontend_policy::Trust;
use serde_json::Value;

use crate::harness::{
    Bazaar, KeepAlive, Options, Order, Server, example, guest, run, run_ok, wait_until,
};

fn push(bazaar: &Bazaar, component: &Path) -> Value {
    let answer = bazaar.admin("PUT", "/policy", &fs::read(component).unwrap());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn active(bazaar: &Bazaar) -> Value {
    bazaar.admin("GET", "/policy", b"").json()["active"].take()
}

fn is_marked(bazaar: &Bazaar) -> bool {
    bazaar.get("/stocks/enron").header("x-policy") == Some("marked")
}

#[test]
fn the_default_policy_is_built_in() {
    let bazaar = Bazaar::start_default();
    assert_eq!(active(&bazaar)["name"], "default");
}

#[test]
fn another_policy_can_be_the_first() {
    let bazaar = Bazaar::start(Options {
        policy: Some(guest("marked")),
        ..Options::default()
    });
    assert_eq!(active(&bazaar)["name"], "marked");
    assert!(is_marked(&bazaar));
}

#[test]
fn a_swap_under_load_fails_no_request_and_changes_what_is_answered() {
    const CLIENTS: usize = 4;
    let bazaar = Bazaar::start_default();
    let marked = guest("marked");
    let done = AtomicBool::new(false);
    let trade_on = || {
        let mut requests = 0_u64;
        while !done.load(Ordering::Relaxed) {
            assert_eq!(bazaar.get("/stocks/nvidia").status, 200);
            bazaar.trade(&Order::sell(1, "meta"));
            assert_eq!(bazaar.get("/stocks/enron").status, 404);
            requests += 1;
        }
        requests
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(trade_on)).collect();
        for _ in 0..3 {
            assert!(!is_marked(&bazaar));
            assert_eq!(push(&bazaar, &marked)["active"]["name"], "marked");
            assert!(is_marked(&bazaar));
            assert_eq!(bazaar.admin("POST", "/policy/rollback", b"").status, 200);
        }
        done.store(true, Ordering::Relaxed);
        assert!(clients.into_iter().all(|client| client.join().unwrap() > 0));
    });
    assert_eq!(active(&bazaar)["name"], "default");
    bazaar.check_acknowledged();
}

#[test]
fn what_is_cached_is_rendered_anew_by_the_policy_that_is_active_now() {
    let bazaar = Bazaar::start_default();
    assert_eq!(bazaar.get("/stocks/nvidia").header("x-policy"), None);
    push(&bazaar, &guest("marked"));
    let answer = bazaar.get("/stocks/nvidia");
    assert_eq!(answer.header("x-policy"), Some("marked"), "{answer:?}");
    assert_eq!(answer.data()["quantity"], 1000);
}

#[test]
fn variants_of_the_default_policy_serve_as_they_say() {
    let bazaar = Bazaar::start_default();
    push(&bazaar, &example("no-cache"));
    for _ in 0..2 {
        let answer = bazaar.get("/stocks/nvidia");
        assert!(
            !answer
                .header("cache-status")
                .unwrap_or_default()
                .contains("hit"),
            "{answer:?}"
        );
    }
    push(&bazaar, &example("ttl"));
    bazaar.get("/stocks/nvidia");
    assert!(
        bazaar
            .get("/stocks/nvidia")
            .header("cache-status")
            .unwrap_or_default()
            .contains("hit")
    );
    bazaar.trade(&Order::sell(1, "nvidia"));
    bazaar.check_acknowledged();
}

#[test]
fn always_highest_hands_leadership_back_to_the_highest_id_that_rejoins() {
    let mut bazaar = Bazaar::start(Options {
        policy: Some(example("always-highest")),
        ..Options::default()
    });
    wait_until("replica 3 to lead", || bazaar.leader() == 3);
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.kill(3);
    bazaar.trade(&Order::sell(1, "meta"));
    assert_ne!(bazaar.leader(), 3);
    bazaar.restart(3);
    wait_until("replica 3 to lead again", || bazaar.leader() == 3);
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

#[test]
fn tokens_are_taken_by_the_version_that_decides_and_no_swap_brings_them_back() {
    const CLIENTS: usize = 4;
    let bazaar = Bazaar::start_default();
    let statuses = |name: &str, requests: usize| {
        let headers = [("x-client", name)];
        let get = |_| bazaar.send("GET", "/stocks/nvidia", &headers, b"").status;
        (0..requests).map(get).collect::<Vec<_>>()
    };
    let shadow = fs::read(guest("limited")).unwrap();
    let tried = bazaar.admin("PUT", "/policy/candidate?shadow=1", &shadow);
    assert_eq!(tried.status, 200, "{tried:?}");
    assert_eq!(statuses("one", 10), [200; 10], "a shadow takes nothing");
    wait_until("what it decided to be counted", || {
        let candidate = bazaar.admin("GET", "/policy", b"").json()["candidate"].take();
        candidate["decisions"] == 0 && candidate["compared"].as_u64() >= Some(10)
    });
    push(&bazaar, &guest("limited"));
    let granted: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| statuses("one", 5)))
            .collect();
        let statuses = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        statuses.filter(|status| *status == 200).count()
    });
    assert_eq!(granted, 3);
    push(&bazaar, &guest("marked"));
    assert_eq!(statuses("one", 2), [200; 2], "another has no limit");
    push(&bazaar, &guest("limited"));
    let headers = [("x-client", "one")];
    let denied = bazaar.send("GET", "/stocks/nvidia", &headers, b"");
    assert_eq!(
        denied.error(),
        (429, "too many requests, try again later".into())
    );
    let seconds: u32 = denied.header("retry-after").unwrap().parse().unwrap();
    assert!((3_000..=3_600).contains(&seconds), "{seconds}");
    assert_eq!(statuses("two", 4), [200, 200, 200, 429], "each has its own");
}

#[test]
fn what_decisions_cost_is_in_the_metrics_by_route() {
    let bazaar = Bazaar::start_default();
    let mut connection = KeepAlive::connect(bazaar.address()).unwrap();
    let request = b"GET /stocks/nvidia HTTP/1.1\r\nhost: bazaar\r\n\r\n";
    let shown = || bazaar.admin("GET", "/metrics", b"").body;
    // One decision in 64 is measured.
    wait_until("a decision to be measured", || {
        for _ in 0..64 {
            assert_eq!(connection.exchange(request).unwrap().status, 200);
        }
        shown().contains("bazaar_policy_decision_seconds_bucket{")
    });
    let text = shown();
    let of_route =
        |line: &&str| line.contains("route=\"GET /stocks/*\"") && line.contains("le=\"+Inf\"");
    let all = text.lines().find(of_route).expect(&text);
    let count: u64 = all.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(count > 0, "{all}");
}

#[test]
fn what_a_version_answered_is_in_the_metrics_for_a_while_when_it_is_gone() {
    let bazaar = Bazaar::start_default();
    let component = fs::read(example("no-cache")).unwrap();
    let put = bazaar.admin("PUT", "/policy/candidate?canary=1", &component);
    assert_eq!(put.status, 200, "{put:?}");
    let candidate = bazaar.admin("GET", "/policy", b"").json()["candidate"].take();
    let of_it = format!(
        "bazaar_requests_total{{policy=\"{}\"",
        candidate["digest"].as_str().unwrap()
    );
    assert_eq!(bazaar.get("/stocks/nvidia").status, 200);
    let counted = || {
        let text = bazaar.admin("GET", "/metrics", b"").body;
        let lines = text.lines().filter(|line| line.starts_with(&of_it));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = counted();
    assert_eq!(before.len(), 1, "{before:?}");
    let dropped = bazaar.admin("DELETE", "/policy/candidate", b"");
    assert_eq!(dropped.status, 200, "{dropped:?}");
    assert_eq!(counted(), before);
}

#[test]
fn what_a_policy_counts_and_says_for_clients_is_in_metrics_and_log() {
    let mut bazaar = Bazaar::start_default();
    let shadow = fs::read(guest("observes")).unwrap();
    bazaar.admin("PUT", "/policy/candidate?shadow=1", &shadow);
    bazaar.get("/stocks/enron");
    let counted = || {
        let metrics = bazaar.admin("GET", "/metrics", b"").body;
        let own = metrics
            .lines()
            .filter(|line| line.contains("policy_custom"));
        own.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(
        counted().iter().all(|line| line.starts_with('#')),
        "{:?}",
        counted()
    );
    push(&bazaar, &guest("observes"));
    for target in [
        "/stocks/enron",
        "/stocks/nvidia",
        "/stocks/nvidia",
        "/stocks/nvidia",
    ] {
        bazaar.get(target);
    }
    let counted = counted();
    let digest = active(&bazaar)["digest"].as_str().unwrap().to_owned();
    for line in [
        r#"# HELP bazaar_policy_custom_lookups_total Lookups, by what was "looked up"."#.to_owned(),
        format!(r#"bazaar_policy_custom_bytes_total{{policy="{digest}"}} 55"#),
        format!(
            r#"bazaar_policy_custom_lookups_total{{policy="{digest}",target="/stocks/enron",found="no"}} 1"#
        ),
        // Those that came to a kept response were not asked about its outcome.
        format!(
            r#"bazaar_policy_custom_lookups_total{{policy="{digest}",target="/stocks/nvidia",found="yes"}} 1"#
        ),
    ] {
        assert!(
            counted.iter().any(|found| found.starts_with(&line)),
            "{line}: {counted:#?}"
        );
    }
    let said = r"line=/stocks/enron\nwas found: no";
    let mut log = String::new();
    wait_until("the log to have it", || {
        log = bazaar.server(Server::Gateway(0)).log();
        log.contains(said)
    });
    assert_eq!(log.matches(said).count(), 1, "{log}");
    let says = concat!(
        "the policy says policy=observes ",
        env!("CARGO_PKG_VERSION")
    );
    assert!(log.contains(says), "{log}");
}

/// Nothing but the clients' own requests shows that it does: some of them have what was kept made again.
#[test]
fn a_policy_that_keeps_for_all_what_it_made_for_one_is_found_out_and_keeps_nothing_more() {
    const REQUESTS_MAX: usize = 10_000;
    let bazaar = Bazaar::start_default();
    push(&bazaar, &guest("leaks"));
    let cookie_of = |name: &str| {
        let headers = [("x-name", name)];
        let answer = bazaar.send("GET", "/stocks/nvidia", &headers, b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("set-cookie").map(str::to_owned)
    };
    let own = |name: &str| Some(format!("name={name}"));
    assert_eq!(cookie_of("alice"), own("alice"));
    assert_eq!(
        cookie_of("bob"),
        own("bob"),
        "a name in the key is told apart"
    );
    assert_eq!(cookie_of("secret-a"), own("secret-a"));
    let found = (0..REQUESTS_MAX).find(|_| cookie_of("secret-b") == own("secret-b"));
    assert!(found.is_some(), "nobody noticed");
    assert_eq!(failures(&active(&bazaar)), 1);
    for name in ["secret-a", "secret-b"].repeat(200) {
        assert_eq!(cookie_of(name), own(name));
    }
    assert_eq!(
        failures(&active(&bazaar)),
        1,
        "and so there is nothing more to find"
    );
}

#[test]
fn a_guest_that_misbehaves_costs_no_client_a_failure() {
    let nonsense = [
        "status-low",
        "status-high",
        "header-name",
        "header-value",
        "headers",
        "framing",
        "content-204",
        "content-205",
        "content-304",
        "body",
        "memo",
        "retry",
        "stock-name-empty",
        "stock-name-long",
        "stock-name-control",
        "quantity-zero",
        "quantity-high",
        "key-empty",
        "key-long",
        "key-control",
    ];
    let nonsense: Vec<String> = nonsense
        .into_iter()
        .map(|what| format!("/stocks/nonsense/{what}"))
        .collect();
    let bazaar = Bazaar::start_default();
    for (name, targets, expected) in [
        ("traps", vec!["/stocks/trap".to_owned()], "stock not found"),
        ("loops", vec!["/stocks/loop".to_owned()], "stock not found"),
        (
            "eats-memory",
            vec!["/stocks/eat".to_owned()],
            "stock not found",
        ),
        ("nonsense", nonsense, "no such path"),
        (
            "nonsense",
            vec!["/stocks/nonsense-outcome".to_owned()],
            "stock not found",
        ),
    ] {
        let quantity = bazaar.quantity("nvidia");
        for target in &targets {
            push(&bazaar, &guest(name));
            let failed_before = failures(&active(&bazaar));
            // As the last good version, the default policy, answers.
            let refused = (404, expected.to_owned());
            assert_eq!(bazaar.get(target).error(), refused, "{name}: {target}");
            bazaar.trade(&Order::sell(1, "nvidia"));
            let version = active(&bazaar);
            assert_eq!(version["name"], name, "{version}");
            assert!(failures(&version) > failed_before, "{target}: {version}");
            assert_eq!(bazaar.admin("POST", "/policy/rollback", b"").status, 200);
            assert_eq!(active(&bazaar)["name"], "default");
        }
        assert_eq!(bazaar.quantity("nvidia"), quantity + targets.len() as i64);
    }
    bazaar.check_acknowledged();
}

/// Which of them it is can depend on the machine: a body of 100 MB is invalid, or overruns.
fn failures(version: &Value) -> u64 {
    let counts = ["traps", "overruns", "invalid"].iter();
    counts.filter_map(|count| version[count].as_u64()).sum()
}

#[test]
fn a_guest_that_keeps_failing_is_taken_out_of_service() {
    let bazaar = Bazaar::start_default();
    push(&bazaar, &guest("traps"));
    let mut asked = 0;
    wait_until("the default policy to be back", || {
        asked += 1;
        let answer = bazaar.get(&format!("/stocks/trap{asked}")).error();
        assert_eq!(answer, (404, "stock not found".to_owned()));
        active(&bazaar)["name"] == "default"
    });
}

/// Nobody waits for it, and nobody has to ask.
#[test]
fn behind_a_policy_that_came_back_another_one_is_found_in_a_moment() {
    // Before the built-in one can pass its probation.
    let guests = ["marked", "traps"].map(guest);
    let bazaar = Bazaar::start_default();
    for guest in &guests {
        push(&bazaar, guest);
    }
    let mut asked = 0;
    wait_until("the policy before to be back", || {
        asked += 1;
        bazaar.get(&format!("/stocks/trap{asked}"));
        active(&bazaar)["name"] == "marked"
    });
    wait_until("another one to be behind it", || {
        let policy = bazaar.admin("GET", "/policy", b"").json();
        policy["previous"]["name"] == "default"
    });
}

#[test]
fn a_policy_that_was_pushed_is_still_active_when_the_gateway_comes_back() {
    let mut bazaar = Bazaar::start(Options {
        lease_ms: 200,
        ..Options::default()
    });
    push(&bazaar, &guest("marked"));
    bazaar.kill_and_restart_gateway();
    assert!(is_marked(&bazaar), "{}", active(&bazaar));
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.check_acknowledged();
}

#[test]
fn a_guest_finds_nothing_of_the_world_outside() {
    let bazaar = Bazaar::start_default();
    push(&bazaar, &guest("chatty"));
    for target in ["/stocks/chatty/leaks", "/stocks/chatty/flood"] {
        let answer = bazaar.get(target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
    }
    assert_eq!(
        bazaar.get("/stocks/chatty/leaks").json(),
        serde_json::json!([])
    );
    assert_eq!(bazaar.quantity("nvidia"), 1000);
}

#[test]
fn what_is_no_policy_is_refused_and_the_active_one_stays() {
    let bazaar = Bazaar::start_default();
    let forbidden = fs::read(guest("forbidden-import")).unwrap();
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    for (component, word) in [
        (&b""[..], ""),
        (b"nonsense", ""),
        (&core_module, ""),
        (&forbidden, "acme:telemetry/sink"),
    ] {
        let answer = bazaar.admin("PUT", "/policy", component);
        let (code, reason) = answer.error();
        assert!(code == 422 && reason.contains(word), "{reason}");
    }
    assert_eq!(active(&bazaar)["name"], "default");
    assert_eq!(bazaar.quantity("nvidia"), 1000);
}

#[test]
fn the_policy_command_checks_pushes_lists_and_rolls_back() {
    let bazaar = Bazaar::start_default();
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let (marked, forbidden) = (guest("marked"), guest("forbidden-import"));
    let (marked, forbidden) = (marked.to_str().unwrap(), forbidden.to_str().unwrap());

    assert!(run_ok(["policy", "check", marked]).contains("marked"));
    let refused = run(["policy", "check", forbidden]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("acme:telemetry/sink"));

    assert!(run_ok(["policy", "push", marked, &admin]).starts_with("active: marked"));
    let refused = run(["policy", "push", forbidden, &admin]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("422"));

    let list = run_ok(["policy", "list", &admin]);
    assert!(
        list.contains("active") && list.contains("marked") && list.contains("previous"),
        "{list}"
    );
    assert!(run_ok(["policy", "rollback", &admin]).starts_with("active: default"));

    let kept = bazaar.admin("GET", "/policy", b"").json()["kept"].clone();
    let [marked, default] =
        [&kept[0], &kept[1]].map(|kept| kept["digest"].as_str().unwrap()[..12].to_owned());
    let list = run_ok(["policy", "list", &admin]);
    assert!(
        list.ends_with(&format!("kept, the latest first: {default} {marked}\n")),
        "{list}"
    );
    assert!(run_ok(["policy", "activate", &marked, &admin]).starts_with("active: marked"));
    let unknown = run(["policy", "activate", "0123456789&x", &admin]);
    assert_eq!(unknown.status.code(), Some(1));
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        said.contains("404") && said.contains("`0123456789&x`"),
        "{said}"
    );
}

#[test]
fn a_policy_that_is_made_anew_builds_passes_its_check_and_serves() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("half-a-second");
    let policy = policy.to_str().unwrap();
    assert!(run_ok(["policy", "new", policy]).contains("bazaar policy build"));
    let again = run(["policy", "new", policy]);
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten");

    // The standard library for policies is there already.
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/target/guest");
    let built = run_ok(["policy", "build", policy, "--target-dir", kept]);
    let component = built.trim();
    assert!(run_ok(["policy", "check", component]).contains("half-a-second 0.1.0"));

    let bazaar = Bazaar::start_default();
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    assert!(run_ok(["policy", "push", component, &admin]).starts_with("active: half-a-second"));
    assert_eq!(bazaar.quantity("nvidia"), 1000);
}

#[test]
fn a_candidate_is_shadowed_then_a_canary_then_promoted_and_rolled_back() {
    let bazaar = Bazaar::start_default();
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let marked = guest("marked");
    let marked = marked.to_str().unwrap();
    let policy = |arguments: &[&str]| {
        let arguments = ["policy"].iter().chain(arguments).copied();
        run_ok(arguments.chain([admin.as_str()]))
    };

    assert!(policy(&["shadow", marked, "--share", "1"]).contains("shadow"));
    wait_until("a difference", || {
        let named = [("x-request-id", "of-a-difference")];
        assert_eq!(bazaar.send("GET", "/stocks/meta", &named, b"").status, 200);
        assert!(!is_marked(&bazaar), "a shadow has no effect");
        let said = policy(&["differences"]);
        let found: Value = serde_json::from_str(&said).unwrap();
        // By its id it is found in the access log.
        found["found"]["kinds"]["headers"].as_u64() > Some(0) && said.contains("of-a-difference")
    });

    assert!(policy(&["canary", marked, "--share", "1"]).contains("canary"));
    assert!(is_marked(&bazaar), "it has all clients");
    assert!(policy(&["drop"]).starts_with("active: default"));
    assert!(!is_marked(&bazaar));

    policy(&["shadow", marked]);
    assert!(policy(&["promote"]).starts_with("active: marked"));
    assert!(is_marked(&bazaar));
    assert!(policy(&["rollback"]).starts_with("active: default"));
    assert!(!is_marked(&bazaar));

    let changes = bazaar.admin("GET", "/policy", b"").json()["changes"].take();
    let changes: Vec<&str> = changes
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|change| change["what"].as_str())
        .collect();
    assert_eq!(
        changes,
        ["shadow", "canary", "drop", "shadow", "promote", "rollback"]
    );
}

#[test]
fn recorded_decisions_are_made_again_offline() {
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("recording.jsonl");
    let recording = recording.to_str().unwrap();
    let bazaar = Bazaar::start_default();
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let secret = [
        ("authorization", "Bearer secret"),
        ("idempotency-key", "one"),
    ];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let recorded = run_ok([
                "policy",
                "record",
                "--seconds",
                "2",
                "-o",
                recording,
                &admin,
            ]);
            done.store(true, Ordering::Relaxed);
            assert!(!recorded.starts_with("0 "), "{recorded}");
        });
        while !done.load(Ordering::Relaxed) {
            bazaar.quantity("nvidia");
            bazaar.get("/stocks/enron");
            let order = Order::sell(1, "meta").json().to_string();
            bazaar.send("POST", "/orders", &secret, order.as_bytes());
            bazaar.send("POST", "/orders", &[], b"{\xff");
        }
    });
    let text = fs::read_to_string(recording).unwrap();
    assert!(
        text.contains("/stocks/enron") && text.contains("traded"),
        "{text}"
    );
    assert!(!text.contains("secret"), "a recording holds no credentials");

    // The same policy decides the same.
    let same: Value = serde_json::from_str(&run_ok(["policy", "replay", recording])).unwrap();
    assert!(
        same["compared"].as_u64() > Some(0) && same["different"] == 0,
        "{same}"
    );

    // Another one does not, and is told by where.
    let marked = guest("marked");
    let other = run([
        "policy",
        "replay",
        recording,
        "--policy",
        marked.to_str().unwrap(),
    ]);
    assert_eq!(other.status.code(), Some(1));
    let other: Value = serde_json::from_slice(&other.stdout).unwrap();
    assert!(other["kinds"]["headers"].as_u64() > Some(0), "{other}");

    fs::write(recording, "not a recording\n").unwrap();
    assert_eq!(run(["policy", "replay", recording]).status.code(), Some(1));
}

#[test]
fn a_component_is_signed_with_a_key_that_was_made_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (key, component) = (at("key"), at("marked.wasm"));
    fs::copy(guest("marked"), &component).unwrap();
    let trust = Trust::parse(&run_ok(["policy", "keygen", &key])).unwrap();
    assert_eq!(
        run(["policy", "keygen", &key]).status.code(),
        Some(1),
        "no key is overwritten"
    );
    let signature = run_ok(["policy", "sign", &component, "--key", &key]);
    let signature = fs::read_to_string(signature.trim()).unwrap();
    let component = fs::read(&component).unwrap();
    assert_eq!(trust.verify(&component, Some(&signature)), Ok(()));
    assert!(trust.verify(&component[1..], Some(&signature)).is_err());
}
