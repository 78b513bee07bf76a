//! What is refused at the check, and in which words.

use frontend_policy::limits;
use frontend_policy::{Admission, DEFAULT_POLICY, Problem, Rejection, SwapError};
use http::HeaderMap;

use super::{engine, get, guest, operator, swapped, variant, with_config};

/// Everything that is wrong with a component.
fn problems(component: &[u8]) -> Vec<Problem> {
    let admitted = Admission::new(engine()).admit(component, &[]);
    let rejection = admitted.map(drop).unwrap_err();
    let words = rejection.to_string();
    let Rejection::Unfit(problems) = rejection else {
        panic!("{words}")
    };
    let expected = match problems.len() {
        1 => 1,
        several => several + 1,
    };
    assert_eq!(words.lines().count(), expected, "{words}");
    problems
}

#[test]
fn an_import_that_is_not_granted_is_refused_by_name() {
    let problems = problems(&guest("forbidden-import"));
    let [problem @ Problem::Import(_)] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert!(problem.to_string().contains("acme:telemetry/sink"));
}

/// Of a component that has no function of the interface's types.
fn exporting(interface: &str, functions: &[&str]) -> Vec<u8> {
    let functions: String = functions
        .iter()
        .map(|name| format!("(export \"{name}\" (func $f))"))
        .collect();
    let text = format!(
        r#"(component
            (import "acme:telemetry/sink@1.0.0" (instance (export "report" (func))))
            (import "wasi:http/outgoing-handler@0.2.0" (instance))
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $policy {functions})
            (export "{interface}" (instance $policy)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn all_that_is_wrong_with_imports_and_exports_is_said_at_once() {
    let imports = [
        "acme:telemetry/sink@1.0.0",
        "wasi:http/outgoing-handler@0.2.0",
    ];
    let all_but_elect = |first| {
        [
            first,
            "does not export `on-request`",
            "does not export `on-outcome`",
            "its `elect` is not of the type",
        ]
    };
    let of_1_0 = all_but_elect("does not export `describe`");
    let of_1_1 = all_but_elect("does not export `configure`");
    for (exported, functions, expected) in [
        ("bazaar:policy/policy@1.0.0", &["elect"][..], &of_1_0[..]),
        ("bazaar:policy/policy@1.1.0", &["elect"], &of_1_1),
        ("bazaar:policy/policy@1.2.0", &["elect"], &of_1_1),
        (
            "acme:other/thing",
            &["on-request"],
            &[
                "does not export `configure`",
                "does not export `on-request`",
                "does not export `on-outcome`",
                "does not export `elect`",
            ],
        ),
        (
            "bazaar:policy/policy@2.0.0",
            &["elect"],
            &["`bazaar:policy/policy@2.0.0`"],
        ),
        // wasmtime takes a later minor version for an earlier one; a gateway would lack what is new.
        (
            "bazaar:policy/policy@1.3.0",
            &["elect"],
            &[
                "`bazaar:policy/policy@1.3.0`, and this gateway calls `bazaar:policy/policy@1.2.0` or",
            ],
        ),
    ] {
        let problems = problems(&exporting(exported, functions));
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), imports.len() + expected.len(), "{said:#?}");
        for (said, word) in said.iter().zip(imports.iter().chain(expected)) {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}

#[test]
fn all_that_fails_in_the_self_test_is_said_at_once() {
    let problems = problems(&guest("flawed"));
    let [
        Problem::Traps { tests, cause },
        Problem::TooSlow(slow),
        Problem::NotDeterministic(moody),
        Problem::Invalid { problem, .. },
    ] = problems.as_slice()
    else {
        panic!("{problems:#?}")
    };
    assert_eq!(tests.0, ["GET /"]);
    assert!(
        cause.contains("unreachable") && cause.contains("no way home"),
        "{cause}"
    );
    assert_eq!(slow.0, ["GET /stocks"]);
    assert_eq!(moody.0, ["GET /orders/0"], "it fails by the outcome");
    assert!(problem.contains("status"), "{problem}");
}

#[test]
fn who_tries_again_for_ever_is_refused_at_the_check() {
    let problems = problems(&guest("tireless"));
    let [Problem::Invalid { tests, problem }] = problems.as_slice() else {
        panic!("{problems:#?}")
    };
    assert_eq!(problem, "it does not respond after 8 steps");
    assert!(
        tests.0.iter().any(|test| test == "GET /orders/0"),
        "{tests}"
    );
}

#[test]
fn what_is_no_policy_is_refused_with_a_reason() {
    let refused = |bytes: &[u8]| problems(bytes).remove(0);
    let core_module = b"\0asm\x01\0\0\0";
    let empty_component = b"\0asm\x0d\0\x01\0";
    let half = &DEFAULT_POLICY[..DEFAULT_POLICY.len() / 2];
    assert_eq!(refused(core_module), Problem::CoreModule);
    for bytes in [&b""[..], b"not wasm at all", half] {
        assert!(matches!(refused(bytes), Problem::NotAComponent(_)));
    }
    assert!(matches!(refused(empty_component), Problem::Missing { .. }));
    assert!(matches!(
        refused(&vec![0; limits::COMPONENT_BYTES_MAX + 1]),
        Problem::TooLarge(_)
    ));
}

#[test]
fn every_variant_that_comes_with_bazaar_is_admitted() {
    let admission = Admission::new(engine());
    for name in ["no-cache", "ttl", "always-highest"] {
        let admitted = admission
            .admit(&variant(name), &[])
            .unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
        assert_eq!(admitted.into_version().manifest.name, name);
    }
}

#[test]
fn what_is_kept_for_all_and_rendered_by_a_header_is_refused_at_the_check() {
    let problems = problems(&guest("leaks-plainly"));
    let [
        Problem::NotInKey {
            by: header, tests, ..
        },
        Problem::NotInKey {
            by: connection,
            tests: others,
            key: "vary-key",
        },
    ] = problems.as_slice()
    else {
        panic!("{problems:#?}")
    };
    assert_eq!(header, "the header `x-name`");
    assert_eq!(tests.0, ["/stocks/nvidia"]);
    assert_eq!(connection, "how a request came");
    assert_eq!(others.0, ["/orders/3"]);
    let words = problems[0].to_string();
    assert!(words.contains("into the vary-key of its read"), "{words}");
}

/// What nobody can know beforehand, what clients sent lately shows.
#[test]
fn what_is_kept_for_all_and_rendered_by_a_header_of_late_is_refused_at_the_check() {
    let leaks = guest("leaks");
    let versions = swapped(&leaks);
    let mut headers = HeaderMap::new();
    headers.insert("x-name", "secret-agent".parse().unwrap());
    for _ in 0..4000 {
        let request = get("/stocks/nvidia", &headers);
        versions.decider(b"client").on_request(request).unwrap();
    }
    versions.activate(DEFAULT_POLICY, &operator()).unwrap();
    let refused = versions.activate(&leaks, &operator()).map(drop);
    let SwapError::Rejected(rejection) = refused.unwrap_err() else {
        panic!("it is refused for what it does")
    };
    let [Problem::NotInKey { by, tests, .. }] = rejection.problems() else {
        panic!("{rejection}")
    };
    assert_eq!(by, "the header `x-name`");
    assert_eq!(
        tests.0,
        ["GET /stocks/nvidia, headers: x-name, asked lately"]
    );
}

#[test]
fn a_header_that_no_reply_or_not_every_one_can_have_is_refused_by_name() {
    let guest = guest("adds");
    let admit = |config: &str| {
        let admission = Admission::new(engine());
        let admitted = admission.admit(with_config(&guest, config.as_bytes()), &[]);
        admitted.map(|admitted| admitted.into_version().reply_headers())
    };
    let origin = "vary: Origin\nx-a: 'self' when origin: https://a.example";
    let added = admit(origin).unwrap();
    assert_eq!(added.join("\n"), origin);
    let many = |count| vec!["x-a: b"; count].join("\n");
    assert_eq!(admit(&many(64)).unwrap().len(), 64);
    let long = format!("x-a: {}", "x".repeat(4 << 10));
    for (config, problem) in [
        (many(65), "more than 64 headers to every reply"),
        (vec![long; 4].join("\n"), "more than 16384 bytes"),
        (
            "x a: b".into(),
            "the header `x a` to every reply, which HTTP does not allow",
        ),
        ("x-a: b\tc\u{7f}".into(), "which HTTP does not allow"),
        (
            "Content-Length: 1".into(),
            "`Content-Length` to every reply, which is the gateway's",
        ),
        ("connection: close".into(), "the gateway's to set"),
        ("keep-alive: timeout=5".into(), "the gateway's to set"),
        ("transfer-encoding: chunked".into(), "the gateway's to set"),
        (
            "content-type: text/html".into(),
            "says something of one reply alone",
        ),
        ("content-encoding: gzip".into(), "of one reply alone"),
        ("set-cookie: a=b".into(), "of one reply alone"),
        ("cache-control: public".into(), "of one reply alone"),
        ("etag: \"a\"".into(), "of one reply alone"),
        (
            "x-a: b when x b: c".into(),
            "when a request has the header `x b`",
        ),
    ] {
        let refused = admit(&config).unwrap_err().to_string();
        assert!(refused.contains(problem), "{config}: {refused}");
    }
}
