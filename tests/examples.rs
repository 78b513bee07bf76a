//! The policies that people need: each example of the guide serves, and does what the guide says of it.
//!
//! Those that are there in other languages are checked by [`languages`](crate::languages) in the same way.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Bazaar, Options, Response, example, send_raw, wait_until};

/// A name among them is not what people call stocks.
const STOCKS: &str = "name,price,quantity
<b>bold<b> & co,1.05,5
meta,194.02,1000
nvidia,240.63,1000
";

const LOOKUP: &str = "/stocks/nvidia";

pub const KEYS: [(&str, &str); 2] = [("alice", "0123456789abcdef"), ("bob", "fedcba9876543210")];

pub const SHOP: &str = "https://shop.example";

#[test]
fn each_example_does_what_the_guide_says_of_it() {
    let bazaar = Bazaar::start(Options {
        stocks: Some(STOCKS),
        ..Options::default()
    });
    let (now, far) = (unix_seconds(), 4_102_444_800);
    let keys: Value = KEYS
        .into_iter()
        .map(|(name, key)| (name.to_owned(), json!(key)))
        .collect();
    let maintenance = |from, until, reads: bool| {
        let time = |seconds| Timestamp::from_second(seconds).unwrap().to_string();
        json!({ "from": time(from), "until": time(until), "reads": reads })
    };
    let serve = |name: &str, config: Value| {
        let component = example(name);
        push(
            &bazaar,
            &component,
            &if config.is_null() {
                String::new()
            } else {
                config.to_string()
            },
        );
    };

    serve("api-keys", json!({ "keys": keys }));
    check_api_keys(&bazaar);
    check_orders_are_private(&bazaar);
    check_idempotency_keys_are_each_clients_own(&bazaar);
    serve(
        "client-limits",
        json!({ "requests": 1, "period_ms": 3_600_000, "burst": 3, "client_header": "x-client" }),
    );
    check_client_limits(&bazaar);
    serve(
        "cors",
        json!({ "origins": [SHOP, "http://localhost:3000"] }),
    );
    check_cors(&bazaar);
    check_refusals_have_cors(&bazaar);
    serve(
        "redirects",
        json!({ "moved": { "/": "/stocks", "/shares/*": "/stocks/*", "/old/*": "/*" } }),
    );
    check_redirects(&bazaar);
    serve("etag", Value::Null);
    check_etag(&bazaar);
    serve("ab-test", json!({ "share_of_b": 0.5 }));
    check_ab_test(&bazaar);
    serve("networks", json!({ "block": ["127.0.0.0/8"] }));
    assert_eq!(bazaar.get(LOOKUP).error().0, 403);
    serve(
        "networks",
        json!({ "allow": ["192.0.2.0/24"], "client_header": "x-real-ip" }),
    );
    check_networks(&bazaar);
    serve("html", Value::Null);
    check_html(&bazaar);
    serve("price-limits", Value::Null);
    check_price_limits(&bazaar);
    serve("maintenance", maintenance(now - 60, far, true));
    check_open_for_reads(&bazaar);
    check_begins_and_ends(&bazaar, |from, until| {
        let config = maintenance(from, until, false).to_string();
        let configured = bazaar.admin("PUT", "/policy/configuration", config.as_bytes());
        assert_eq!(configured.status, 200, "{configured:?}");
    });

    check_sound(&bazaar);
}

/// The active version has decided as a policy does, but for what a busy machine stopped.
pub fn check_sound(bazaar: &Bazaar) {
    let active = bazaar.admin("GET", "/policy", b"").json()["active"].take();
    for failures in ["traps", "invalid", "impure"] {
        assert_eq!(active[failures], 0, "{active}");
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Activates a component with a configuration, once the one before has decided without a failure.
pub fn push(bazaar: &Bazaar, component: &Path, config: &str) {
    check_sound(bazaar);
    let mut body = config.as_bytes().to_vec();
    body.extend(fs::read(component).unwrap());
    let pushed = bazaar.admin("PUT", &format!("/policy?config={}", config.len()), &body);
    assert_eq!(pushed.status, 200, "{}: {pushed:?}", component.display());
}

fn lookup(bazaar: &Bazaar, headers: &[(&str, &str)]) -> Response {
    bazaar.send("GET", LOOKUP, headers, b"")
}

fn is_hit(response: &Response) -> bool {
    response
        .header("cache-status")
        .is_some_and(|status| status.contains("hit"))
}

/// Who has a key of [`KEYS`] gets in, nobody else.
pub fn check_api_keys(bazaar: &Bazaar) {
    for (_, key) in KEYS {
        let bearer = format!("Bearer {key}");
        assert_eq!(lookup(bazaar, &[("authorization", &bearer)]).status, 200);
    }
    for headers in [
        &[][..],
        &[("authorization", "Bearer 0123456789abcdee")],
        &[("authorization", "Bearer 0123456789abcde")],
        &[("authorization", "Bearer 0123456789abcdef0")],
        &[("authorization", "Bearer ")],
        &[("authorization", "0123456789abcdef")],
        &[("authorization", "Basic 0123456789abcdef")],
        &[("authorization", "Bearer alice")],
        &[
            ("authorization", "Bearer 0123456789abcdef"),
            ("authorization", "Bearer fedcba9876543210"),
        ],
        &[("x-api-key", "0123456789abcdef")],
    ] {
        let refused = lookup(bazaar, headers);
        assert_eq!(refused.status, 401, "{headers:?}: {refused:?}");
        let asks = refused.header("www-authenticate").unwrap_or_default();
        assert!(asks.starts_with("Bearer"), "{refused:?}");
        assert!(!refused.body.contains("price"), "{refused:?}");
    }
    let post = bazaar.send(
        "POST",
        "/orders",
        &[],
        br#"{"name":"meta","type":"buy","quantity":1}"#,
    );
    assert_eq!(post.status, 401, "{post:?}");
}

/// Each `x-client`, and each address without one, has three requests an hour.
pub fn check_client_limits(bazaar: &Bazaar) {
    let twice = [("x-client", "p"), ("x-client", "q")];
    for client in [&[("x-client", "a")][..], &[("x-client", "b")], &[], &twice] {
        for _ in 0..3 {
            assert_eq!(lookup(bazaar, client).status, 200, "{client:?}");
        }
        let denied = lookup(bazaar, client);
        assert_eq!(denied.error().0, 429, "{client:?}");
        let retry: u64 = denied.header("retry-after").unwrap().parse().unwrap();
        assert!((3_000..=3_600).contains(&retry), "{denied:?}");
    }
    assert_eq!(lookup(bazaar, &[("x-client", "c")]).status, 200);
    // Nobody gets more by sending another value beside the one that a proxy adds.
    let again = [("x-client", "r"), ("x-client", "s")];
    assert_eq!(lookup(bazaar, &again).status, 429);
}

/// No cache that several people share may keep an order, which it would give to those without a key.
pub fn check_orders_are_private(bazaar: &Bazaar) {
    let bearer = format!("Bearer {}", KEYS[0].1);
    let key = [("authorization", bearer.as_str())];
    let body = br#"{"name":"meta","type":"sell","quantity":1}"#;
    let placed = bazaar.send("POST", "/orders", &key, body);
    assert_eq!(placed.status, 200, "{placed:?}");
    let number = &placed.data()["transaction_number"];
    let order = bazaar.send("GET", &format!("/orders/{number}"), &key, b"");
    assert_eq!(order.status, 200, "{order:?}");
    let control = order.header("cache-control").unwrap_or_default();
    assert!(control.starts_with("private"), "{order:?}");
}

/// Nobody gets the answer to another's order by its idempotency key, nor is it in another's way.
pub fn check_idempotency_keys_are_each_clients_own(bazaar: &Bazaar) {
    let place = |client: usize, quantity: u64| {
        let bearer = format!("Bearer {}", KEYS[client].1);
        let key = ("idempotency-key", "\"the same\"");
        let body = format!(r#"{{"name":"meta","type":"sell","quantity":{quantity}}}"#);
        let headers = [("authorization", bearer.as_str()), key];
        let placed = bazaar.send("POST", "/orders", &headers, body.as_bytes());
        assert_eq!(placed.status, 200, "{placed:?}");
        placed.data()["transaction_number"].as_u64()
    };
    let [alice, bob] = [place(0, 1), place(1, 2)];
    assert_ne!(alice, bob);
    assert_eq!([place(0, 1), place(1, 2)], [alice, bob]);
}

/// Whether a reply has what every reply has, and is for pages of that origin.
fn check_replies(name: &str, reply: &Response, allowed: Option<&str>) {
    let header = |name: &str| reply.header(name);
    assert_eq!(
        header("access-control-allow-origin"),
        allowed,
        "{name}: {reply:?}"
    );
    let vary = header("vary").unwrap_or_default();
    assert!(vary.contains("origin"), "{name}: {reply:?}");
    assert_eq!(
        header("x-content-type-options"),
        Some("nosniff"),
        "{name}: {reply:?}"
    );
    let csp = header("content-security-policy").unwrap_or_default();
    assert!(csp.contains("default-src 'none'"), "{name}: {reply:?}");
}

/// Pages of [`SHOP`] may read every reply, others none.
pub fn check_cors(bazaar: &Bazaar) {
    lookup(bazaar, &[]);
    let etag = lookup(bazaar, &[]).header("etag").unwrap().to_owned();
    for (origin, allowed) in [
        (None, None),
        (Some(SHOP), Some(SHOP)),
        (Some("http://localhost:3000"), Some("http://localhost:3000")),
        (Some("https://evil.example"), None),
        (Some("https://shop.example.evil.example"), None),
        (Some("null"), None),
    ] {
        let from: Vec<_> = origin
            .map(|origin| ("origin", origin))
            .into_iter()
            .collect();
        let with = |header| [&from[..], &[header]].concat();
        let found = lookup(bazaar, &from);
        assert!(is_hit(&found), "{found:?}");
        check_replies("a hit", &found, allowed);
        let unchanged = lookup(bazaar, &with(("if-none-match", &etag)));
        assert_eq!(unchanged.status, 304);
        check_replies("a hit that is had already", &unchanged, allowed);
        let changed = lookup(bazaar, &with(("if-match", "\"another\"")));
        assert_eq!(changed.status, 412);
        check_replies("a hit that is not wanted", &changed, allowed);
        let none = bazaar.send("GET", "/stocks/enron", &from, b"");
        assert_eq!(none.status, 404);
        check_replies("no stock", &none, allowed);
        let asked = bazaar.send(
            "OPTIONS",
            "/orders",
            &with(("access-control-request-method", "POST")),
            b"",
        );
        assert_eq!(asked.status, 204, "{asked:?}");
        check_replies("a question before", &asked, allowed);
        let methods = asked.header("access-control-allow-methods");
        assert_eq!(methods, Some("GET, HEAD, POST"), "{asked:?}");
    }
}

/// What the gateway answers by itself.
pub fn check_refusals_have_cors(bazaar: &Bazaar) {
    for (status, request) in [
        (400, "GET / HTTP/1.1\r\nconnection: close\r\n"),
        (
            400,
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n",
        ),
        (
            413,
            "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\nconnection: close\r\n",
        ),
        (
            415,
            "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 0\r\nconnection: close\r\n",
        ),
    ] {
        let request = format!("{request}origin: {SHOP}\r\n\r\n");
        let refused = send_raw(bazaar.address(), request.as_bytes()).unwrap();
        assert_eq!(refused.status, status, "{request}");
        check_replies(&request, &refused, Some(SHOP));
    }
}

fn check_redirects(bazaar: &Bazaar) {
    for (method, target, location) in [
        ("GET", "/?limit=1", "/stocks?limit=1"),
        ("POST", "/shares/nvidia", "/stocks/nvidia"),
    ] {
        let moved = bazaar.send(method, target, &[], b"");
        assert_eq!(
            (moved.status, moved.header("location")),
            (308, Some(location))
        );
    }
    for target in [
        "/old//evil.example",
        "/old/\\evil.example",
        "//evil.example/",
    ] {
        let answer = send_raw(
            bazaar.address(),
            format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes(),
        );
        let location = answer.unwrap().header("location").map(str::to_owned);
        assert_eq!(location, None, "{target}");
    }
    assert_eq!(bazaar.get(LOOKUP).status, 200);
}

fn check_etag(bazaar: &Bazaar) {
    let first = bazaar.get("/stocks");
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    assert!(tag.starts_with("W/\""), "{first:?}");
    let status = |target: &str, tags: &str| {
        let answer = bazaar.send("GET", target, &[("if-none-match", tags)], b"");
        assert_eq!(answer.status == 304, answer.body.is_empty(), "{answer:?}");
        answer.status
    };
    let strong = tag.trim_start_matches("W/");
    for tags in [tag.as_str(), strong, "*", &format!("\"a,b\", {tag}")] {
        assert_eq!(status("/stocks", tags), 304, "{tags}");
    }
    assert_eq!(status("/stocks", "\"another\""), 200);
    assert_eq!(status("/stocks?limit=1", &tag), 200);
    let stock = bazaar.get(LOOKUP).header("etag").unwrap().to_owned();
    assert_eq!(status(LOOKUP, &stock), 304);
    let order = br#"{"name":"nvidia","type":"sell","quantity":1}"#;
    assert_eq!(bazaar.send("POST", "/orders", &[], order).status, 200);
    assert_eq!(status("/stocks", &tag), 200, "it has changed");
    assert_eq!(status(LOOKUP, &stock), 200, "it has changed");
}

fn check_ab_test(bazaar: &Bazaar) {
    let in_cents = |response: &Response| response.data()["price_cents"].is_u64();
    // Nobody gets the cookie of another: all are in one variant with a chance of one in 2 to the 39.
    let mut in_b = 0;
    for _ in 0..40 {
        let new = lookup(bazaar, &[]);
        let cookie = new.header("set-cookie").unwrap_or_default();
        assert_eq!(cookie.starts_with("variant=b; "), in_cents(&new), "{new:?}");
        assert!(cookie.starts_with("variant="), "{new:?}");
        assert_eq!(new.header("cache-control"), Some("no-store"));
        in_b += usize::from(in_cents(&new));
    }
    assert!((1..40).contains(&in_b), "{in_b} of 40 are in b");
    for (cookie, is_b) in [("variant=a", false), ("a=b; variant=b", true)] {
        for round in 0..3 {
            let known = lookup(bazaar, &[("cookie", cookie)]);
            assert_eq!(known.header("set-cookie"), None, "{known:?}");
            assert_eq!(known.header("cache-control"), Some("private, no-cache"));
            assert_eq!(known.header("vary"), Some("cookie"));
            assert_eq!(in_cents(&known), is_b, "{cookie}: {known:?}");
            assert!(round == 0 || is_hit(&known), "{known:?}");
        }
    }
    let again = lookup(bazaar, &[]);
    assert!(again.header("set-cookie").is_some(), "{again:?}");
}

fn check_networks(bazaar: &Bazaar) {
    for (address, status) in [
        (Some("192.0.2.7"), 200),
        (Some("::ffff:192.0.2.7"), 200),
        (Some("192.0.3.7"), 403),
        (Some("192.0.2.7, 192.0.2.8"), 403),
        (None, 403),
    ] {
        let headers: Vec<_> = address
            .map(|address| ("x-real-ip", address))
            .into_iter()
            .collect();
        assert_eq!(lookup(bazaar, &headers).status, status, "{address:?}");
    }
}

fn check_html(bazaar: &Bazaar) {
    const BROWSER: (&str, &str) = ("accept", "text/html,*/*;q=0.8");
    let all = bazaar.send("GET", "/", &[BROWSER], b"");
    assert_eq!(all.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        all.body.contains("&lt;b&gt;bold&lt;b&gt; &amp; co</a>"),
        "{all:?}"
    );
    let link = "/stocks/%3Cb%3Ebold%3Cb%3E%20%26%20co";
    assert!(all.body.contains(&format!("href=\"{link}\"")), "{all:?}");
    for round in 0..2 {
        let page = bazaar.send("GET", link, &[BROWSER], b"");
        assert!(page.body.contains("1.05 a share, 5 to be had"), "{page:?}");
        assert!(!page.body.contains("<b>"), "{page:?}");
        assert!(round == 0 || is_hit(&page), "{page:?}");
        let json = bazaar.get(link);
        assert_eq!(json.data()["name"], "<b>bold<b> & co");
        for reply in [&page, &json] {
            assert_eq!(reply.header("vary"), Some("accept"), "{reply:?}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        }
    }
    let none = bazaar.send("GET", "/stocks/enron", &[BROWSER], b"");
    assert!(
        none.status == 404 && none.body.contains("<p>stock not found</p>"),
        "{none:?}"
    );
}

fn check_price_limits(bazaar: &Bazaar) {
    // One that is kept of the same stock is not taken for the answer.
    lookup(bazaar, &[]);
    assert!(is_hit(&lookup(bazaar, &[])));
    let before = bazaar.quantity("nvidia");
    let place = |order: Value| bazaar.send("POST", "/orders", &[], order.to_string().as_bytes());
    let order = |side: &str, name: &str, price: f64| json!({ "name": "nvidia", "type": side, "quantity": 10, name: price });
    for missed in [
        order("buy", "price_max", 240.62),
        order("sell", "price_min", 240.64),
    ] {
        let (status, message) = place(missed).error();
        assert_eq!(
            (status, message.as_str()),
            (412, "nothing was placed: the price is 240.63")
        );
    }
    assert_eq!(bazaar.quantity("nvidia"), before);
    assert_eq!(place(order("buy", "price_max", 240.63)).status, 200);
    assert_eq!(bazaar.quantity("nvidia"), before - 10);
    assert_eq!(place(order("sell", "price_min", 240.63)).status, 200);
    assert_eq!(place(order("sell", "price_max", 240.63)).status, 400);
    assert_eq!(
        place(json!({ "name": "nvidia", "type": "buy", "quantity": 10 })).status,
        200
    );
    assert_eq!(bazaar.quantity("nvidia"), before - 10);
}

fn check_open_for_reads(bazaar: &Bazaar) {
    assert_eq!(bazaar.get(LOOKUP).status, 200);
    let order = br#"{"name":"nvidia","type":"buy","quantity":1}"#;
    let closed = bazaar.send("POST", "/orders", &[], order);
    assert_eq!(closed.error().0, 503);
    assert!(
        closed
            .header("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 1_000_000
    );
}

/// It begins while responses are kept, and ends by itself. `configure` says when; on a busy machine that may
/// take until it has begun.
fn check_begins_and_ends(bazaar: &Bazaar, configure: impl Fn(i64, i64)) {
    let mut closed = None;
    let was_kept = [2, 8, 32].into_iter().any(|seconds| {
        let begin = unix_seconds() + seconds;
        configure(begin, begin + 3);
        let mut was_kept = false;
        wait_until("maintenance to begin", || {
            let answer = bazaar.get(LOOKUP);
            was_kept |= is_hit(&answer);
            closed = (answer.status == 503).then_some(answer);
            closed.is_some() || unix_seconds() > begin + 3
        });
        was_kept && closed.is_some()
    });
    assert!(was_kept, "nothing was kept when it began");
    let retry = closed.unwrap().header("retry-after").unwrap().to_owned();
    assert!(["1", "2", "3"].contains(&retry.as_str()), "{retry}");
    wait_until("maintenance to end", || bazaar.get(LOOKUP).status == 200);
    assert_eq!(bazaar.get(LOOKUP).status, 200);
}
