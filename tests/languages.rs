//! Policies in other languages than Rust: those in JavaScript, Python and C are built with their own
//! toolchains, shadow the default policy without a difference, and then serve in its place. The examples of
//! each language do what those in Rust do. And new policies, which need the command alone.
//!
//! A machine that has not the language, or does not reach its registry, skips its test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::examples::{
    KEYS, SHOP, check_api_keys, check_client_limits, check_cors,
    check_idempotency_keys_are_each_clients_own, check_orders_are_private,
    check_refusals_have_cors, check_sound, push,
};
use crate::harness::{Bazaar, Options, Order, run, run_ok, skip, wait_until};

/// How a build script says that its toolchain is not to be had (`EX_UNAVAILABLE`).
const UNAVAILABLE: i32 = 69;

#[test]
fn a_policy_in_javascript_serves_as_the_default_one_does() {
    check_language("javascript");
}

#[test]
fn a_policy_in_python_serves_as_the_default_one_does() {
    check_language("python");
}

fn check_language(language: &str) {
    let Some(component) = build(language) else {
        return;
    };
    let bazaar = check_serves_as_default(component.to_str().unwrap(), language);
    check_examples(&bazaar, language);
    check_new(language);
}

/// As a shadow of it without a difference, and then in its place; which it has again at the end.
fn check_serves_as_default(component: &str, name: &str) -> Bazaar {
    assert!(run_ok(["policy", "check", component]).contains(name));

    let bazaar = Bazaar::start_default();
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    run_ok(["policy", "shadow", component, "--share", "1", &admin]);
    check_serves(&bazaar);
    check_no_difference(&admin);

    let pushed = run_ok(["policy", "push", component, &admin]);
    assert!(pushed.starts_with(&format!("active: {name}")));
    check_serves(&bazaar);
    check_bodies(&bazaar);
    check_never_failed(&bazaar, name);

    assert!(run_ok(["policy", "rollback", &admin]).starts_with("active: default"));
    check_serves(&bazaar);
    bazaar.check_acknowledged();
    bazaar
}

fn check_examples(bazaar: &Bazaar, language: &str) {
    let sources = match language {
        "python" => ["api_keys.py", "client_limits.py", "cors.py"],
        _ => ["api-keys.js", "client-limits.js", "cors.js"],
    };
    let [api_keys, client_limits, cors] = sources.map(|source| build_example(language, source));
    let keys: Map<_, _> = KEYS
        .map(|(name, key)| (name.to_owned(), json!(key)))
        .into_iter()
        .collect();
    push(bazaar, &api_keys, &json!({ "keys": keys }).to_string());
    check_api_keys(bazaar);
    check_orders_are_private(bazaar);
    check_idempotency_keys_are_each_clients_own(bazaar);
    let limits =
        json!({ "requests": 1, "period_ms": 3_600_000, "burst": 3, "client_header": "x-client" });
    push(bazaar, &client_limits, &limits.to_string());
    check_client_limits(bazaar);
    let origins = json!({ "origins": [SHOP, "http://localhost:3000"] });
    push(bazaar, &cors, &origins.to_string());
    check_cors(bazaar);
    check_refusals_have_cors(bazaar);
    check_sound(bazaar);
}

/// One of the policies that most need, in this language.
fn build_example(language: &str, source: &str) -> PathBuf {
    let project = env!("CARGO_MANIFEST_DIR");
    let dir = format!("{project}/frontend-guest/examples/{language}");
    let component = format!("{project}/target/policies/{source}.wasm");
    let built = Command::new(format!("{dir}/build"))
        .args([&format!("{dir}/{source}"), &component])
        .output()
        .expect("the build script starts");
    let log = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{}: {log}", built.status);
    component.into()
}

/// One that `policy new` makes is the same by another name. Its toolchain is that of the example.
fn check_new(language: &str) {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("my-own");
    let new = policy.to_str().unwrap();
    run_ok(["policy", "new", new, "--lang", language]);
    let tools = policy.join("target/policies/tools");
    fs::create_dir_all(tools.parent().unwrap()).unwrap();
    let fetched = format!("{}/target/policies/tools", env!("CARGO_MANIFEST_DIR"));
    std::os::unix::fs::symlink(fetched, tools).unwrap();
    let built = run_ok(["policy", "build", new]);
    assert!(Path::new(built.trim()).starts_with(policy.canonicalize().unwrap()));
    let checked = run_ok(["policy", "check", built.trim()]);
    assert!(checked.contains("my-own 0.1.0"), "{checked}");
}

#[test]
fn a_new_policy_in_c_serves_as_the_default_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("my-c");
    let new = policy.to_str().unwrap();
    run_ok(["policy", "new", new, "--lang", "c"]);
    let tried = Command::new(policy.join("build")).output().unwrap();
    if tried.status.code() == Some(UNAVAILABLE) {
        let log = String::from_utf8_lossy(&tried.stderr);
        skip("its toolchain is not to be had", log);
        return;
    }
    let built = run_ok(["policy", "build", new]);
    let component = built.trim();
    let small = dir.path().join("config");
    fs::write(&small, "a = 1").unwrap();
    let small = small.to_str().unwrap();
    let configured = run(["policy", "check", component, "--config", small]);
    let said = String::from_utf8_lossy(&configured.stderr);
    assert!(said.contains("takes no configuration"), "{said}");

    let bazaar = check_serves_as_default(component, "my-c");
    push(&bazaar, Path::new(component), "");
    check_c(&bazaar);
    check_examples_in_c(&bazaar, &policy);
    drop(bazaar);

    // It elects as well.
    let elected = Bazaar::start(Options {
        policy: Some(component.into()),
        ..Options::default()
    });
    // Whoever is there first, on a busy machine.
    wait_until("a leader to be elected", || {
        (1..=3).contains(&elected.leader())
    });
    elected.trade(&Order::sell(1, "meta"));
}

/// What the policy in C reads by itself, where others have libraries.
fn check_c(bazaar: &Bazaar) {
    for _ in 0..2 {
        let found = bazaar.get("/stocks/nvidi%61?x");
        let stock = r#"{"data":{"name":"nvidia","price":240.63,"quantity":1000}}"#;
        assert_eq!(found.body, stock);
    }
    for path in ["/stocks//orders/0", "/orders//stocks/nike", "/"] {
        let refused = (404, "no such path".to_owned());
        assert_eq!(bazaar.get(path).error(), refused, "{path}");
    }
    for segment in ["%6", "%zz", "%c0%ae", &"x".repeat(4_000)] {
        let refused = (404, "stock not found".to_owned());
        let target = format!("/stocks/{segment}");
        assert_eq!(bazaar.get(&target).error(), refused, "{segment}");
    }
    let nested = format!("{}{}", "[".repeat(20), "]".repeat(20));
    for (order, status) in [
        (
            r#"{"n\u0061me":"n\u0069ke","type":"\u0062uy","quantity":1}"#,
            200,
        ),
        (
            r#"{"name":"x","name":"nike","type":"buy","quantity":1,"a":[1e-3,-0.5E+2,"\"\\\/\b\u00e9",null,true]}"#,
            200,
        ),
        (
            &format!(r#" {{ "a" : {nested} , "name":"nike","type":"buy","quantity":1 }} "#),
            200,
        ),
        (r#"{"name":"\ud83e\udd80","type":"buy","quantity":1}"#, 404),
        (r#"{"name":"nike","type":"buy","quantity":1,}"#, 400),
        (r#"{"name":"nike","type":"buy","quantity":01}"#, 400),
        (r#"{"name":"\x","type":"buy","quantity":1}"#, 400),
        (r#"{"name":"nike","type":"buy","quantity":1} 2"#, 400),
    ] {
        let answer = bazaar.send("POST", "/orders", &[], order.as_bytes());
        assert_eq!(answer.status, status, "{order}: {answer:?}");
    }
    let followed = bazaar.send("HEAD", "/events", &[], b"");
    assert_eq!(followed.header("content-type"), Some("text/event-stream"));
    let (status, message) = bazaar.get("/events?after=nike").error();
    assert!(status == 400 && message.contains("`after`"), "{message}");
}

/// Built beside the policy that `policy new` made, as their guide says.
fn check_examples_in_c(bazaar: &Bazaar, policy: &Path) {
    let examples = format!("{}/frontend-guest/examples/c", env!("CARGO_MANIFEST_DIR"));
    for file in fs::read_dir(examples).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), policy.join(file.file_name())).unwrap();
    }
    let serve = |name: &str, config: &str| {
        let [source, component] = ["c", "wasm"].map(|kind| policy.join(format!("{name}.{kind}")));
        let build = Command::new(policy.join("build"))
            .args([&source, &component])
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&build.stderr);
        assert!(build.status.success(), "{name}: {log}");
        push(bazaar, &component, config);
    };
    serve(
        "api-keys",
        &KEYS.map(|(name, key)| format!("{name} {key}\n")).concat(),
    );
    check_api_keys(bazaar);
    check_orders_are_private(bazaar);
    check_idempotency_keys_are_each_clients_own(bazaar);
    serve(
        "client-limits",
        "requests 1\nperiod_ms 3600000\nburst 3\nclient_header x-client\n",
    );
    check_client_limits(bazaar);
    serve("cors", &format!("{SHOP}\nhttp://localhost:3000\n"));
    check_cors(bazaar);
    check_refusals_have_cors(bazaar);
    check_reads(bazaar);
    check_trades(bazaar);
    check_sound(bazaar);
}

/// What is typed where the project is not: a mount hides it. What was built of the standard library stays
/// in sight, since that takes minutes.
const ALONE: &str = r#"
set -euo pipefail
mkdir kept
mount --bind "$KEPT" kept
mount -t tmpfs none "$PROJECT"
[[ -z $(ls "$PROJECT") ]]
mkdir -p "$KEPT"
mount --bind kept "$KEPT"
for lang in rust js python c; do
    ./bazaar policy new "my-$lang" --lang "$lang"
done
./bazaar policy wit | grep '^package bazaar:policy@'
./bazaar policy wit --world 1.0 | grep '^package bazaar:policy@1.0.0;$'
export CARGO_NET_OFFLINE=true
./bazaar policy check "$(./bazaar policy build my-rust --target-dir "$KEPT")"
# Where there is no compiler of C it says so by its exit code.
if my-c/build; then
    ./bazaar policy check my-c/target/policy.wasm | grep 'my-c 0.1.0'
else
    [[ $? == 69 ]]
fi
"#;

#[test]
fn a_new_policy_needs_nothing_but_the_command() {
    let namespaces = ["--mount"];
    let works = Command::new("unshare")
        .args(namespaces)
        .arg("true")
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        skip("hiding the project", "`unshare --mount` needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::copy(env!("CARGO_BIN_EXE_bazaar"), dir.path().join("bazaar")).unwrap();
    let project = env!("CARGO_MANIFEST_DIR");
    // Built as far as all policies are, whichever test is the first.
    crate::harness::example("default");
    let output = Command::new("unshare")
        .args(namespaces)
        .args(["bash", "-c", ALONE])
        .current_dir(dir.path())
        .env("PROJECT", project)
        .env("KEPT", format!("{project}/target/guest"))
        .output()
        .unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("my-rust 0.1.0"), "{out}");
}

/// The component, unless the language is not to be had here.
fn build(language: &str) -> Option<PathBuf> {
    let project = env!("CARGO_MANIFEST_DIR");
    let script = format!("{project}/frontend-guest/examples/{language}/build");
    let built = Command::new(script)
        .stdin(Stdio::null())
        .output()
        .expect("the build script starts");
    let log = String::from_utf8_lossy(&built.stderr);
    if built.status.code() == Some(UNAVAILABLE) {
        skip("its toolchain is not to be had", log);
        return None;
    }
    assert!(built.status.success(), "{}: {log}", built.status);
    Some(String::from_utf8(built.stdout).unwrap().trim().into())
}

/// Requests of every kind, to which every policy that serves as the default one does has the same
/// answers.
fn check_serves(bazaar: &Bazaar) {
    check_reads(bazaar);
    check_trades(bazaar);
    check_refusals(bazaar);
}

fn check_reads(bazaar: &Bazaar) {
    let first = bazaar.get("/stocks/nvidia");
    let again = bazaar.get("/stocks/nvidia");
    assert_eq!(first.data()["price"], json!(240.63));
    assert!(again.header("cache-status").unwrap().contains("hit"));
    assert_eq!(again.body, first.body);
    assert_eq!(first.header("content-type"), Some("application/json"));
    let stocks = bazaar.get("/stocks");
    assert!(stocks.body.contains(r#""price":20.0,"#), "{stocks:?}");
    assert!(stocks.data().as_array().unwrap().len() >= 10);
    let head = bazaar.send("HEAD", "/stocks/nvidia?now", &[], b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(bazaar.get("/stocks/%6Eike").data()["name"], "nike");
}

fn check_trades(bazaar: &Bazaar) {
    let before = bazaar.quantity("meta");
    let number = bazaar.trade(&Order::sell(10, "meta"));
    assert_eq!(bazaar.quantity("meta"), before + 10);
    bazaar.trade(&Order::buy(4, "meta"));
    assert_eq!(bazaar.quantity("meta"), before + 6);
    let found = bazaar.get(&format!("/orders/{number}"));
    assert_eq!(
        found.data(),
        json!({ "number": number, "name": "meta", "type": "sell", "quantity": 10 })
    );
    let for_ever = Some("public, max-age=31536000, immutable");
    assert_eq!(found.header("cache-control"), for_ever);

    let bought = number + 1;
    let last = json!({ "number": bought, "name": "meta", "type": "buy", "quantity": 4 });
    let listed = bazaar.get(&format!("/orders?after={number}&stock=%6Deta"));
    assert_eq!(listed.json(), json!({ "data": [last] }));
    bazaar.trade(&Order::buy(1, "nike"));
    let target = format!("/orders?after={number}&limit=1&stock=meta");
    let listed = bazaar.get(&target);
    assert_eq!(
        listed.json(),
        json!({ "data": [last] }),
        "of meta it is all"
    );
    let sold = bazaar.trade(&Order::sell(1, "meta"));
    let listed = bazaar.get(&target).json();
    assert_eq!(listed["data"], json!([last]));
    let next = listed["next"].as_str().expect("there is one more of meta");
    assert!(next.starts_with("/orders?limit=1&after=") && next.ends_with("&stock=meta"));
    let rest = bazaar.get(next).json();
    assert_eq!(rest["data"][0]["number"], sold);
    assert!(rest["next"].is_null(), "{rest}");
    let beyond = bazaar.get("/orders?after=9007199254740991");
    assert_eq!(beyond.json(), json!({ "data": [] }));

    let key = format!("a \\\"key\\\" for {number}");
    let order = Order::buy(1, "nike");
    let first = bazaar.order_under(Some(&key), &order).data();
    assert_eq!(bazaar.order_under(Some(&key), &order).data(), first);
    let other = bazaar.order_under(Some(&key), &Order::buy(2, "nike"));
    assert_eq!(other.error().0, 409);
}

fn check_refusals(bazaar: &Bazaar) {
    let hold = Order {
        name: "nvidia",
        side: "hold",
        quantity: 0,
    };
    for (order, code, message) in [
        (
            Order::buy(1 << 40, "nvidia"),
            404,
            "not enough stocks available to buy",
        ),
        (Order::sell(0, "nvidia"), 404, "invalid number of stocks"),
        (Order::buy(-1, "nvidia"), 404, "invalid number of stocks"),
        (hold, 400, "invalid request type"),
        (Order::buy(1, "enron"), 404, "stock not found"),
        (Order::buy(1, ""), 404, "stock not found"),
        (Order::buy(1, "a\u{80}"), 404, "stock not found"),
    ] {
        assert_eq!(
            bazaar.order(&order).error(),
            (code, message.to_owned()),
            "{order:?}"
        );
    }
    for (target, message) in [
        ("/stocks/", "stock not found"),
        ("/stocks/enron", "stock not found"),
        ("/stocks/%F0%9F%A6%80", "stock not found"),
        ("/stocks/%ff", "stock not found"),
        ("/stocks/%4", "stock not found"),
        ("/orders/99999999", "transaction not found"),
        ("/orders/18446744073709551616", "transaction not found"),
        ("/orders/-1", "transaction not found"),
        ("/orders/0/", "no such path"),
        ("/nowhere", "no such path"),
    ] {
        let refused = (404, message.to_owned());
        assert_eq!(bazaar.get(target).error(), refused, "{target}");
    }
    for (method, target, allowed) in [
        ("DELETE", "/stocks/nvidia", "GET, HEAD"),
        ("PATCH", "/stocks", "GET, HEAD"),
        ("PUT", "/orders/0", "GET, HEAD"),
        ("DELETE", "/orders", "GET, HEAD, POST"),
    ] {
        let answer = bazaar.send(method, target, &[], b"");
        assert_eq!(answer.error().0, 405, "{method} {target}");
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {target}");
    }
    for (query, what) in [
        (
            "after=",
            "`after` must be the number of an order, an integer from 0 to 18446744073709551615",
        ),
        (
            "after=18446744073709551616",
            "`after` must be the number of an order, an integer from 0 to 18446744073709551615",
        ),
        ("limit=0", "`limit` must be an integer from 1 to 10000"),
        (
            "stock=",
            "`stock` must be the name of a stock, percent-encoded: 1 to 64 bytes of UTF-8 without control characters",
        ),
        ("after=1&after=1", "`after` was given more than once"),
    ] {
        let refused = (400, format!("the query's {what}"));
        assert_eq!(bazaar.get(&format!("/orders?{query}")).error(), refused);
    }
    let unknown = bazaar.send("PROPFIND", "/stocks", &[], b"");
    assert_eq!(unknown.error(), (501, "no such method".to_owned()));
}

/// Where languages may differ in their words.
fn check_bodies(bazaar: &Bazaar) {
    let deep = "[".repeat(10_000);
    let deep_field = format!(r#"{{"name":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    let long_number = format!(
        r#"{{"name":"nike","type":"buy","quantity":{}}}"#,
        "9".repeat(8000)
    );
    let order = |quantity: &str| format!(r#"{{"name":"nike","type":"buy","quantity":{quantity}}}"#);
    for (body, word) in [
        ("", "JSON"),
        ("nonsense", "JSON"),
        ("{", "JSON"),
        ("NaN", "JSON"),
        ("\u{0}", "JSON"),
        (&deep, "JSON"),
        (&deep_field, ""),
        (&long_number, "quantity"),
        ("[]", "object"),
        ("null", "object"),
        ("7", "object"),
        (r#""text""#, "object"),
        ("{}", "name"),
        (r#"{"type":"buy","quantity":1}"#, "name"),
        (r#"{"name":7,"type":"buy","quantity":1}"#, "name"),
        (r#"{"name":"\ud800","type":"buy","quantity":1}"#, "name"),
        (r#"{"name":"nike","quantity":1}"#, "type"),
        (r#"{"name":"nike","type":null,"quantity":1}"#, "type"),
        (r#"{"name":"nike","type":"buy"}"#, "quantity"),
        (&order("\"1\""), "quantity"),
        (&order("true"), "quantity"),
        (&order("1.0"), "quantity"),
        (&order("1e3"), "quantity"),
        (&order("1e999"), ""),
        (&order("9223372036854775808"), "quantity"),
    ] {
        let answer = bazaar.send("POST", "/orders", &[], body.as_bytes());
        let (code, message) = answer.error();
        assert!(
            code == 400 && message.contains(word),
            "{body:.60}: {message}"
        );
    }
    let not_text = bazaar.send("POST", "/orders", &[], b"{\"name\":\"\xff\"}");
    assert_eq!(not_text.error(), (400, "the body is not UTF-8".to_owned()));
    let large = vec![b' '; 60_000];
    let large = bazaar.send("POST", "/orders", &[], &large).error().0;
    assert!(matches!(large, 400 | 413), "{large}");
    for key in ["", "\"a", "na\u{ef}ve", &"k".repeat(129)] {
        let headers = [("idempotency-key", key)];
        let answer = bazaar.send("POST", "/orders", &headers, order("1").as_bytes());
        assert_eq!(answer.error().0, 400, "{key}");
    }
}

/// The shadow decided every time as the active version did. What a busy machine stopped in the middle
/// is not compared.
fn check_no_difference(admin: &str) {
    let mut found = Value::Null;
    wait_until("the shadow to have decided", || {
        let shown = run_ok(["policy", "differences", admin]);
        found = serde_json::from_str::<Value>(&shown).unwrap()["found"].take();
        found["compared"].as_u64() > Some(30)
    });
    for example in found["examples"].as_array().unwrap() {
        let candidate = example["candidate"].as_str().unwrap();
        assert!(candidate.contains("took longer than it may"), "{example:#}");
    }
}

/// No decision was made by the last good version in place of this one, but for those that a busy
/// machine stopped.
fn check_never_failed(bazaar: &Bazaar, name: &str) {
    let active = bazaar.admin("GET", "/policy", b"").json()["active"].take();
    assert_eq!(active["name"], name);
    assert!(active["decisions"].as_u64() > Some(50), "{active}");
    assert_eq!(
        (&active["traps"], &active["invalid"]),
        (&json!(0), &json!(0)),
        "{active}"
    );
}
