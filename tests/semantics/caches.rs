//! RFC 9111: what caches in front may keep, and what they are told of what is kept here.

use crate::harness::{Bazaar, Options, Order, Response, example, guest, wait_until};

const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// What a response says to caches in front: `Cache-Control`, and whether it has a tag.
fn says(answer: &Response) -> (u16, Option<&str>, bool) {
    let is_tagged = answer.header("etag").is_some();
    (answer.status, answer.header("cache-control"), is_tagged)
}

/// The seconds that a hit has left, and its age; none for what is no hit.
fn hit(answer: &Response) -> Option<(i64, u64)> {
    let ttl = answer
        .header("cache-status")?
        .strip_prefix("bazaar; hit; ttl=")?;
    let age = answer.header("age").expect("a hit has an age");
    Some((ttl.parse().unwrap(), age.parse().unwrap()))
}

#[test]
fn every_answer_tells_caches_in_front_what_they_may_do() {
    let bazaar = Bazaar::start_default();
    bazaar.trade(&Order::sell(1, "meta"));
    for _ in 0..2 {
        assert_eq!(
            says(&bazaar.get("/stocks/nvidia")),
            (200, Some("no-cache"), true)
        );
        assert_eq!(says(&bazaar.get("/orders/0")), (200, Some(FOR_EVER), true));
    }
    assert_eq!(says(&bazaar.get("/stocks")), (200, Some("no-store"), false));
    assert_eq!(
        says(&bazaar.order(&Order::sell(1, "meta"))),
        (200, Some("no-store"), false)
    );
    for (method, target, status) in [
        ("GET", "/stocks/enron", 404),
        ("GET", "/orders/99", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/stocks", 405),
        ("POST", "/orders", 400),
    ] {
        let answer = bazaar.send(method, target, &[], b"");
        assert_eq!(says(&answer), (status, Some("no-store"), false), "{target}");
    }
}

#[test]
fn a_policy_that_bypasses_the_cache_has_reads_validated_all_the_same() {
    let bazaar = Bazaar::start(Options {
        policy: Some(example("no-cache")),
        ..Options::default()
    });
    bazaar.trade(&Order::sell(1, "meta"));
    assert_eq!(
        says(&bazaar.get("/stocks/nvidia")),
        (200, Some("no-cache"), true)
    );
    assert_eq!(says(&bazaar.get("/orders/0")), (200, Some(FOR_EVER), true));
}

#[test]
fn who_has_the_current_stock_is_told_so_and_nobody_else() {
    let bazaar = Bazaar::start_default();
    let ask = |method: &str, tag: &str| {
        bazaar.send(method, "/stocks/nvidia", &[("if-none-match", tag)], b"")
    };
    let mut tags = Vec::new();
    for round in 0..3 {
        // From the catalog, and from the cache.
        for _ in 0..2 {
            let answer = bazaar.get("/stocks/nvidia");
            let tag = answer.header("etag").expect("a tag").to_owned();
            for method in ["GET", "HEAD"] {
                let not_modified = ask(method, &format!("\"other\", W/{tag}"));
                assert_eq!((not_modified.status, not_modified.rest.as_str()), (304, ""));
                assert_eq!(not_modified.header("etag"), Some(tag.as_str()));
                assert_eq!(not_modified.header("cache-control"), Some("no-cache"));
                assert!(not_modified.header("cache-status").is_some());
                assert_eq!(
                    not_modified.header("content-length"),
                    None,
                    "{not_modified:?}"
                );
                assert_eq!(not_modified.header("content-type"), None);
            }
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        assert_eq!(tags.len(), round + 1, "one tag for each quantity: {tags:?}");
        for old in &tags[..round] {
            assert_eq!(ask("GET", old).data()["quantity"], 1000 + round);
        }
        bazaar.trade(&Order::sell(1, "nvidia"));
    }
    let unknown = [("if-none-match", "*")];
    assert_eq!(
        bazaar.send("GET", "/stocks/enron", &unknown, b"").status,
        404
    );
    let other = [("if-match", "\"other\"")];
    assert_eq!(
        bazaar.send("GET", "/stocks/nvidia", &other, b"").error().0,
        412
    );
}

#[test]
fn head_says_all_that_get_does() {
    let bazaar = Bazaar::start_default();
    bazaar.trade(&Order::sell(1, "meta"));
    for target in [
        "/stocks/nvidia",
        "/stocks",
        "/orders/0",
        "/stocks/enron",
        "/nowhere",
    ] {
        // The second is answered from the cache, if any is.
        bazaar.get(target);
        let get = bazaar.get(target);
        let head = bazaar.send("HEAD", target, &[], b"");
        assert_eq!(
            (head.status, head.rest.as_str()),
            (get.status, ""),
            "{target}"
        );
        for name in ["content-type", "content-length", "cache-control", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{target}: {name}");
        }
        assert_eq!(hit(&head).is_some(), hit(&get).is_some(), "{target}");
    }
}

#[test]
fn a_hit_says_how_old_it_is_and_how_long_it_lasts() {
    let bazaar = Bazaar::start_default();
    let first = bazaar.get("/stocks/nvidia");
    assert_eq!((hit(&first), first.header("age")), (None, None));
    wait_until("a hit of more than a second", || {
        let (ttl, age) = hit(&bazaar.get("/stocks/nvidia")).expect("a hit");
        assert!((59..=60).contains(&(ttl + age as i64)), "{ttl} {age}");
        age > 0
    });
}

/// A policy whose answers may be kept for 300 ms.
#[test]
fn an_order_is_never_past_its_time() {
    let bazaar = Bazaar::start(Options {
        policy: Some(guest("echoes")),
        ..Options::default()
    });
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.get("/orders/0");
    wait_until("an order of more than a second", || {
        let (ttl, age) = hit(&bazaar.get("/orders/0")).expect("an order that is kept is a hit");
        assert_eq!(ttl, 0);
        age > 1
    });
}

#[test]
fn a_hit_lasts_no_longer_than_the_policy_lets_it() {
    let bazaar = Bazaar::start(Options {
        policy: Some(example("ttl")),
        ..Options::default()
    });
    bazaar.get("/stocks/nvidia");
    let answer = bazaar.get("/stocks/nvidia");
    // Unless a second has passed, which the machine may have taken.
    if let Some((ttl, age)) = hit(&answer) {
        assert_eq!((ttl, age), (0, 0), "of a second at most: {answer:?}");
    }
}

/// It was read under a lease before the policy came that asks for no more than 300 ms.
#[test]
fn a_stock_that_is_fresh_by_its_lease_is_not_past_its_time() {
    let bazaar = Bazaar::start_default();
    bazaar.get("/stocks/nvidia");
    let brief = std::fs::read(guest("brief")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &brief).status, 200);
    wait_until("a stock of more than a second", || {
        let answer = bazaar.get("/stocks/nvidia");
        // Unless the machine was too slow to renew the lease.
        let (ttl, age) = hit(&answer).unwrap_or_default();
        assert!(ttl >= 0, "{answer:?}");
        age > 1
    });
}

#[test]
fn two_clients_that_a_policy_tells_apart_can_use_the_same_key() {
    let bazaar = Bazaar::start(Options {
        policy: Some(example("client-keys")),
        ..Options::default()
    });
    let order = Order::sell(1, "meta").json().to_string();
    let place = |client: &str| {
        let headers = [("idempotency-key", "1"), ("x-client", client)];
        let answer = bazaar.send("POST", "/orders", &headers, order.as_bytes());
        answer.data()["transaction_number"].as_u64()
    };
    let placed = ["alice", "bob", "alice", "bob"].map(place);
    assert_eq!(placed, [Some(0), Some(1), Some(0), Some(1)]);
}
