//! Whether `/openapi.json` is true: a property-based client reads it, makes requests of its own that are as it says and others
//! that are not, and compares the answers with it.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Bazaar, Order, Response, skip};

/// How the script says that the client is not to be had (`EX_UNAVAILABLE`).
const UNAVAILABLE: i32 = 69;

/// What it is not to hold against the API.
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/schemathesis.toml");

/// Requests of each kind for each operation: some seconds in all.
const EXAMPLES_MAX: &str = "40";

#[test]
fn the_description_of_the_api_is_true() {
    let mut bazaar = Bazaar::start_default();
    for number in 0..3 {
        assert_eq!(bazaar.trade(&Order::sell(7, "meta")), number);
    }
    check_by_hand(&mut bazaar);

    let fetch = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/fetch");
    let fetched = Command::new(fetch).stdin(Stdio::null()).output().unwrap();
    let log = String::from_utf8_lossy(&fetched.stderr);
    if fetched.status.code() == Some(UNAVAILABLE) {
        skip("schemathesis is not to be had", log);
        return;
    }
    assert!(fetched.status.success(), "{}: {log}", fetched.status);
    let schemathesis = String::from_utf8(fetched.stdout).unwrap();

    let description = format!("http://{}/openapi.json", bazaar.address());
    let dir = tempfile::tempdir().unwrap();
    // By its interpreter: the path in its first line is of where the checkout was when it was fetched.
    let schemathesis = schemathesis.trim();
    let python = schemathesis.replace("/bin/schemathesis", "/bin/python");
    let run = Command::new(python)
        .args([schemathesis, "--config-file", CONFIG, "--no-color"])
        .args(["run", &description, "--checks", "all"])
        // It would wait for the end, which does not come.
        .args(["--exclude-path", "/events"])
        .args(["--max-examples", EXAMPLES_MAX, "--seed", "1"])
        .current_dir(&dir)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&run.stdout);
    let erred = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}\n{said}\n{erred}", run.status);
    bazaar.check_acknowledged();
}

/// A request, and the status and one header that its answer has.
type Case<'a> = (
    &'a str,
    &'a str,
    &'a [(&'a str, &'a str)],
    (u16, Option<(&'a str, &'a str)>),
);

/// What that client does not do: it follows no events, and knows neither tags nor what comes of a second look.
fn check_by_hand(bazaar: &mut Bazaar) {
    let api = bazaar.get("/openapi.json").json();
    let tag = bazaar.get("/stocks/nvidia");
    let tag = tag.header("etag").unwrap();
    let (reads, no_store) = ("GET, HEAD", Some(("cache-control", "no-store")));
    let (has, wants) = ("if-none-match", "if-match");
    let cases: &[Case<'_>] = &[
        (
            "GET",
            "/stocks/nvidia",
            &[],
            (200, Some(("cache-control", "no-cache"))),
        ),
        (
            "GET",
            "/stocks/nvidia",
            &[(has, tag)],
            (304, Some(("etag", tag))),
        ),
        (
            "GET",
            "/stocks/nvidia",
            &[(wants, "\"1\"")],
            (412, no_store),
        ),
        ("GET", "/stocks/enron", &[], (404, no_store)),
        ("PUT", "/stocks/nvidia", &[], (405, Some(("allow", reads)))),
        ("GET", "/orders/0", &[(wants, "*")], (200, None)),
        ("GET", "/orders/0", &[(has, "*")], (304, None)),
        ("GET", "/orders/0", &[(wants, "\"1\"")], (412, no_store)),
        ("GET", "/orders", &[], (200, no_store)),
        ("GET", "/orders?limit=0", &[], (400, no_store)),
        (
            "PATCH",
            "/orders",
            &[],
            (405, Some(("allow", "GET, HEAD, POST"))),
        ),
        ("GET", "/stocks", &[(has, "*")], (304, no_store)),
        ("GET", "/stocks", &[(wants, "\"1\"")], (412, no_store)),
        ("DELETE", "/stocks", &[], (405, Some(("allow", reads)))),
        (
            "GET",
            "/",
            &[],
            (200, Some(("x-content-type-options", "nosniff"))),
        ),
        ("GET", "/", &[(wants, "\"1\"")], (412, no_store)),
        ("POST", "/page.js", &[], (405, Some(("allow", reads)))),
        (
            "HEAD",
            "/events",
            &[],
            (200, Some(("x-accel-buffering", "no"))),
        ),
        ("GET", "/events?after=nike", &[], (400, no_store)),
        ("GET", "/events?after=0&after=1", &[], (400, no_store)),
        (
            "GET",
            "/events",
            &[("last-event-id", "nike")],
            (400, no_store),
        ),
        ("POST", "/events", &[], (405, Some(("allow", reads)))),
    ];
    for &(method, target, headers, expected) in cases {
        let answer = bazaar.send(method, target, headers, b"");
        check(&api, (method, target), &answer, expected);
    }
    let hit = bazaar.get("/stocks/nvidia");
    assert!(hit.header("age").is_some(), "{hit:?}");

    bazaar.kill_catalog();
    let refused = bazaar.get("/events");
    let retry = Some(("retry-after", "1"));
    check(&api, ("GET", "/events"), &refused, (503, retry));
    bazaar.restart_catalog();
    bazaar.wait_until_ready();
}

/// Whether an answer is as expected, and is described as it is: its status, its headers, the type of its content.
fn check(
    api: &Value,
    (method, target): (&str, &str),
    answer: &Response,
    (status, header): (u16, Option<(&str, &str)>),
) {
    let what = format!("{method} {target}: {answer:?}");
    assert_eq!(answer.status, status, "{what}");
    if let Some((name, value)) = header {
        assert_eq!(answer.header(name), Some(value), "{what}");
    }
    let resolved = |it: &Value| match it["$ref"].as_str() {
        Some(reference) => api.pointer(&reference[1..]).expect(reference).clone(),
        None => it.clone(),
    };
    let path = target.split('?').next().unwrap();
    let path = match path.rsplit_once('/') {
        Some(("/stocks", _)) => "/stocks/{name}",
        Some(("/orders", _)) => "/orders/{number}",
        _ => path,
    };
    // A path that has no such method says so with each that it has.
    let methods = &api["paths"][path];
    let operation = methods
        .get(method.to_lowercase())
        .unwrap_or(&methods["get"]);
    let described = resolved(&operation["responses"][status.to_string()]);
    assert!(
        described["description"].is_string(),
        "not described: {what}"
    );
    for (name, header) in described["headers"].as_object().into_iter().flatten() {
        let (header, value) = (resolved(header), answer.header(name));
        let is_there = value.is_some() || header["required"] != true;
        assert!(is_there, "no {name}: {what}");
        if let (Some(value), Some(only)) = (value, header["schema"]["const"].as_str()) {
            assert_eq!(value, only, "{name}: {what}");
        }
    }
    let types = described["content"].as_object();
    let types: Vec<_> = types.into_iter().flat_map(|types| types.keys()).collect();
    let given = answer.header("content-type");
    let given: Vec<_> = given
        .and_then(|it| it.split(';').next())
        .into_iter()
        .collect();
    assert_eq!(types, given, "{what}");
    if status >= 400 {
        assert_eq!(answer.error().0, status, "{what}");
    }
}
