//! The front page, in a browser.

use std::fmt::Write as _;
use std::fs;

use frontend_policy::DEFAULT_POLICY;

use crate::harness::{Bazaar, Browser, Options, Order, example, run_ok};

/// What would be more than text, were it not shown as that.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";
const HOSTILE_ENCODED: &str = "%3Cimg%20src=x%20onerror=alert(1)%3E";

/// The default policy of an earlier release, which has no page, and knows of no events.
const WITHOUT_EVENTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/policies/default-1.1.wasm"
);

/// Some that people know, first in the list, and many more than a page shows at a time.
fn stocks() -> &'static str {
    let mut csv = "name,price,quantity\namazon,102.24,1000\namc,5.20,1000\napple,151.03,1000\n\
        gamestop,20.00,1000\ngoogle,94.02,1000\nintel,27.84,1000\nmeta,194.02,1000\n\
        microsoft,258.06,1000\nnetflix,315.18,1000\nnike,121.43,1000\nnvidia,240.63,1000\n\
        tesla,192.58,1000\n"
        .to_owned();
    for number in 1..=1_000 {
        writeln!(csv, "zenith {number:04},1.50,100").unwrap();
    }
    csv.leak()
}

#[test]
fn people_trade_and_see_what_others_do() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let mut bazaar = Bazaar::start(Options {
        stocks: Some(stocks()),
        ..Options::default()
    });
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let operate = |arguments: &[&str]| {
        let said = ["--operator=alice", "--reason=the test", &admin];
        let command = ["stock"].iter().chain(arguments);
        run_ok(command.copied().chain(said));
    };
    operate(&["add", HOSTILE, "--price=1", "--quantity=100"]);
    let url = format!("http://{}/", bazaar.address());
    let without_events = fs::read(WITHOUT_EVENTS).unwrap();
    browser.drive("page", &url, &[], |wish| {
        let arguments: Vec<&str> = serde_json::from_str(wish).unwrap();
        let push = |bazaar: &Bazaar, component: &[u8]| {
            let pushed = bazaar.admin("PUT", "/policy", component);
            assert_eq!(pushed.status, 200, "{}", pushed.body);
        };
        match arguments[..] {
            ["another policy"] => push(&bazaar, &without_events),
            ["this policy"] => push(&bazaar, DEFAULT_POLICY),
            ["another gateway"] => bazaar.kill_and_restart_gateway(),
            _ => operate(&arguments),
        }
        "done".to_owned()
    });
    // What is sent twice is placed once: four orders of the desktop's, one more, two of the phone's, and another one.
    let orders = bazaar.get("/orders").data();
    let shares = |order: &serde_json::Value| order["quantity"].as_u64();
    let shares: Vec<_> = orders.as_array().unwrap().iter().map(shares).collect();
    assert_eq!(shares, [10, 5, 3, 1, 1, 4, 6, 2].map(Some));
}

/// Of a request nothing but the name of a stock is in what is answered with content, and that in JSON alone. Else the page, or
/// whoever is made to open an address of the API, would have to know better.
#[test]
fn nothing_of_a_request_comes_back_as_markup() {
    let bazaar = Bazaar::start_default();
    bazaar.trade(&Order::sell(1, "meta"));
    let headers = [
        "x-request-id",
        "user-agent",
        "referer",
        "cookie",
        "x-forwarded-for",
        "accept-language",
        "traceparent",
    ]
    .map(|name| (name, HOSTILE));
    for path in ["/", "/page.css", "/page.js", "/openapi.json"] {
        let target = format!("{path}?{HOSTILE_ENCODED}={HOSTILE_ENCODED}");
        let asked = bazaar.send("GET", &target, &headers, b"");
        assert_eq!(asked.body, bazaar.get(path).body, "{path}");
    }
    let order = |name: &str, side: &str| {
        format!(r#"{{"name":"{name}","type":"{side}","quantity":1,"{HOSTILE}":"{HOSTILE}"}}"#)
    };
    let bodies = [
        order(HOSTILE, "buy"),
        order("meta", HOSTILE),
        HOSTILE.to_owned(),
        format!("{{\"name\":{HOSTILE}}}"),
        format!("[\"{HOSTILE}\"]"),
    ];
    let keyed = [("idempotency-key", HOSTILE), ("x-request-id", HOSTILE)];
    let ill_keyed = [("idempotency-key", "\"<img src=x")];
    let placed = bodies.iter().flat_map(|body| {
        let headers = [&headers[..], &keyed, &ill_keyed];
        headers.map(|headers| bazaar.send("POST", "/orders", headers, body.as_bytes()))
    });
    let read = [
        "/stocks/",
        "/stocks?after=",
        "/stocks?limit=",
        "/orders/",
        "/orders?stock=",
        "/orders?after=",
        "/events?after=",
        "/nowhere/",
    ]
    .map(|target| bazaar.send("GET", &format!("{target}{HOSTILE_ENCODED}"), &headers, b""));
    let others = [
        bazaar.send("GET", "/events", &[("last-event-id", HOSTILE)], b""),
        bazaar.send("GET", "/stocks/meta", &[("if-match", HOSTILE)], b""),
        bazaar.send(HOSTILE, "/", &[], b""),
        bazaar.send("GET", HOSTILE, &[], b""),
        bazaar.send("GET", "/", &[("host", HOSTILE)], b""),
    ];
    for answer in placed.chain(read).chain(others) {
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(!answer.body.contains('<'), "{answer:?}");
    }
}

#[test]
fn the_page_comes_with_what_keeps_it_safe_and_is_asked_for_once() {
    let bazaar = Bazaar::start_default();
    let page = bazaar.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/openapi.json", "application/json"),
    ] {
        let found = bazaar.get(path);
        assert_eq!(found.status, 200, "{path}");
        assert!(
            found.header("content-type").unwrap().starts_with(kind),
            "{path}"
        );
        assert_eq!(found.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(found.header("cache-control"), Some("no-cache"));
        let head = bazaar.send("HEAD", path, &[], b"");
        let length = found.body.len().to_string();
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        let tag = found.header("etag").unwrap();
        let again = bazaar.send("GET", path, &[("if-none-match", tag)], b"");
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
    }
}

/// The page is a policy's, like every answer.
#[test]
fn a_policy_has_another_page_or_none() {
    let bazaar = Bazaar::start(Options {
        policy: Some(WITHOUT_EVENTS.into()),
        ..Options::default()
    });
    for path in ["/", "/page.js", "/openapi.json", "/events"] {
        assert_eq!(bazaar.get(path).error().0, 404, "{path}");
    }
    let html = fs::read(example("html")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &html).status, 200);
    let page = bazaar.get("/").body;
    assert!(
        page.contains("<html") && !page.contains("/page.js"),
        "{page}"
    );
}
