//! RFC 9112: bytes, and what they are answered with.

use frontend_host::config::{HEAD_BYTES_MAX, HEADERS_MAX};

use crate::harness::{Bazaar, Options, Order, Response, guest, send_raw};

/// What is sent, but for `connection: close` where a head can be read; the status; and a header of the
/// answer.
type Case<'a> = (&'a str, u16, Option<(&'a str, &'a str)>);

const ORDER: &str = r#"{"name":"meta","type":"sell","quantity":1}"#;

/// Sends each, and checks the answer: every error has a body, says so to caches, and ends no connection
/// but one that is lost.
fn check(bazaar: &Bazaar, cases: &[Case<'_>]) {
    for (bytes, status, header) in cases {
        let what = &bytes[..bytes.len().min(120)];
        let answer = send_raw(bazaar.address(), bytes.as_bytes());
        let answer = answer.unwrap_or_else(|error| panic!("{what:?}: {error}"));
        assert_eq!(answer.status, *status, "{what:?}: {answer:?}");
        if let Some((name, value)) = header {
            assert_eq!(answer.header(name), Some(*value), "{what:?}: {answer:?}");
        }
        if *status >= 400 && !bytes.starts_with("HEAD") {
            check_error(&answer);
        }
    }
}

fn check_error(answer: &Response) {
    assert_eq!(answer.error().0, answer.status);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("date").is_some());
    let length = answer.body.len().to_string();
    assert_eq!(answer.header("content-length"), Some(length.as_str()));
}

/// A request with a line, headers and a body.
fn request(line: &str, headers: &str, body: &str) -> String {
    format!("{line}\r\nconnection: close\r\n{headers}\r\n{body}")
}

fn get(target: &str, headers: &str) -> String {
    request(&format!("GET {target} HTTP/1.1"), headers, "")
}

/// An order that ten bytes of another would follow where its end were seen elsewhere.
fn post(headers: &str, body: &str) -> String {
    let length = format!("content-length: {}\r\n{headers}", body.len());
    request(
        "POST /orders HTTP/1.1",
        &format!("host: x\r\n{length}"),
        body,
    )
}

fn post_chunked(coding: &str) -> String {
    let body = format!("{:x}\r\n{ORDER}\r\n0\r\n\r\n", ORDER.len());
    let headers = format!("host: x\r\ntransfer-encoding: {coding}\r\n");
    request("POST /orders HTTP/1.1", &headers, &body)
}

#[test]
fn a_request_has_one_host_and_a_valid_one() {
    let bazaar = Bazaar::start_default();
    let stock = "/stocks/nvidia";
    let line = |line: &str| request(line, "", "");
    check(
        &bazaar,
        &[
            (&get(stock, "host: x\r\n"), 200, None),
            (&get(stock, "host: localhost:8080\r\n"), 200, None),
            (&get(stock, "host: [::1]:8080\r\n"), 200, None),
            (&get(stock, ""), 400, None),
            (&get(stock, "host:\r\n"), 400, None),
            (&get(stock, "host: x\r\nhost: x\r\n"), 400, None),
            (&get(stock, "host: x\r\nhost: y\r\n"), 400, None),
            (&get(stock, "host: x, y\r\n"), 400, None),
            (&get(stock, "host: x/y\r\n"), 400, None),
            (&get(stock, "host: user@x\r\n"), 400, None),
            (&get(stock, "host: x:port\r\n"), 400, None),
            (&get(stock, "host: x:99999\r\n"), 400, None),
            (&get(stock, "host: \u{f6}\r\n"), 400, None),
            (&get("http://x/stocks/nvidia", "host: y\r\n"), 200, None),
            (&get("http://x/stocks/nvidia", ""), 400, None),
            (&get("http://me@x/stocks/nvidia", "host: x\r\n"), 400, None),
            (&get("x", "host: x\r\n"), 400, None),
            (&line("GET /stocks/nvidia HTTP/1.0"), 200, None),
            (
                &request("GET / HTTP/1.0", "host: x\r\nhost: x\r\n", ""),
                400,
                None,
            ),
            (&request("HEAD /stocks/nvidia HTTP/1.1", "", ""), 400, None),
            (
                &request("POST /orders HTTP/1.1", "content-length: 0\r\n", ""),
                400,
                None,
            ),
        ],
    );
}

#[test]
fn a_method_is_allowed_or_known_or_neither() {
    let bazaar = Bazaar::start_default();
    let on = |method: &str, target: &str| {
        request(&format!("{method} {target} HTTP/1.1"), "host: x\r\n", "")
    };
    let reads = Some(("allow", "GET, HEAD"));
    check(
        &bazaar,
        &[
            (&on("HEAD", "/stocks/nvidia"), 200, None),
            (&on("DELETE", "/stocks/nvidia"), 405, reads),
            (&on("OPTIONS", "/stocks"), 405, reads),
            (&on("PUT", "/orders/0"), 405, reads),
            (
                &on("DELETE", "/orders"),
                405,
                Some(("allow", "GET, HEAD, POST")),
            ),
            (&on("TRACE", "/stocks"), 501, None),
            (&on("PROPFIND", "/stocks"), 501, None),
            (&on("get", "/stocks"), 501, None),
            (&on("CONNECT", "x:443"), 501, None),
        ],
    );
}

#[test]
fn a_head_that_cannot_be_read_is_refused_with_a_reason() {
    let bazaar = Bazaar::start_default();
    let many: String = (0..=HEADERS_MAX).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(HEAD_BYTES_MAX));
    let closes = Some(("connection", "close"));
    let mut cases = vec![
        (
            "GET / HTTP/1.1\r\nhost: x\r\nno header\r\n\r\n".to_owned(),
            400,
            closes,
        ),
        ("GET / HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(), 400, closes),
        (
            "GET / HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n".to_owned(),
            400,
            closes,
        ),
        ("GET / HTTP/7.1\r\nhost: x\r\n\r\n".to_owned(), 400, closes),
        ("G@T / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 400, closes),
        ("nonsense\r\n\r\n".to_owned(), 400, closes),
        (
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n".to_owned(),
            400,
            closes,
        ),
        (post("content-length: 7\r\n", ORDER), 400, closes),
        (post("content-length: -1\r\n", ORDER), 400, closes),
        (post_chunked("gzip"), 400, closes),
        (get("/stocks", &format!("host: x\r\n{many}")), 431, closes),
        (get("/stocks", &format!("host: x\r\n{long}")), 431, closes),
    ];
    // The target alone is too long, however much of it there is.
    for bytes in [
        HEAD_BYTES_MAX,
        HEAD_BYTES_MAX + 1000,
        65_534,
        65_535,
        1 << 17,
    ] {
        let target = format!("/stocks/{}", "x".repeat(bytes));
        cases.push((get(&target, "host: x\r\n"), 414, closes));
    }
    let nearly = format!("/stocks/{}", "x".repeat(HEAD_BYTES_MAX - 200));
    cases.push((get(&nearly, "host: x\r\n"), 404, None));
    let cases: Vec<_> = cases
        .iter()
        .map(|(bytes, status, header)| (bytes.as_str(), *status, *header))
        .collect();
    check(&bazaar, &cases);

    // Also behind an answer that was read, and without a body where none is wanted.
    let kept_alive = "GET /stocks/meta HTTP/1.1\r\nhost: x\r\n\r\n";
    let answers = send_raw(
        bazaar.address(),
        format!("{kept_alive}{kept_alive}nonsense\r\n\r\n").as_bytes(),
    );
    let answers = answers.expect("answers").rest;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert!(answers.contains("HTTP/1.1 400"), "{answers}");
    assert!(answers.ends_with("}}"), "{answers}");
    let head =
        send_raw(bazaar.address(), b"HEAD / HTTP/1.1\r\nhost : x\r\n\r\n").expect("an answer");
    assert_eq!((head.status, head.rest.as_str()), (400, ""), "{head:?}");
}

#[test]
fn a_body_is_framed_in_one_way_and_comes_as_it_is() {
    let bazaar = Bazaar::start_default();
    let closes = Some(("connection", "close"));
    let identity = Some(("accept-encoding", "identity"));
    check(
        &bazaar,
        &[
            (&post("", ORDER), 200, None),
            (&post_chunked("chunked"), 200, None),
            (&post_chunked("Chunked"), 200, None),
            (&post_chunked("gzip, chunked"), 501, closes),
            (&post_chunked("identity, chunked"), 501, closes),
            (&post_chunked("chunked, chunked"), 501, closes),
            (
                &post_chunked("gzip\r\ntransfer-encoding: chunked"),
                501,
                closes,
            ),
            // RFC 9112, section 6.1: by the coding alone, and then the connection ends.
            (&post_chunked("chunked\r\ncontent-length: 7"), 200, closes),
            (
                &post("content-encoding: gzip\r\n", "\u{1f}\u{8b}"),
                415,
                identity,
            ),
            (
                &post("content-encoding: identity, br\r\n", ORDER),
                415,
                identity,
            ),
            (&post("content-encoding: identity\r\n", ORDER), 200, None),
        ],
    );
    let orders = 5;
    assert_eq!(
        bazaar.trade(&Order::sell(1, "meta")),
        orders,
        "no other was placed"
    );
}

#[test]
fn a_foreign_page_places_no_order_without_asking_first() {
    let bazaar = Bazaar::start_default();
    let json = Some(("accept", "application/json"));
    let from = |origin: &str, content_type: &str| {
        let headers = [("origin", origin), ("content-type", content_type)];
        let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
        let headers: String = headers
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        post(&headers, ORDER)
    };
    let form = "application/x-www-form-urlencoded";
    check(
        &bazaar,
        &[
            (&from("http://evil.example", "text/plain"), 415, json),
            (&from("http://evil.example", form), 415, json),
            (
                &from("http://evil.example", "multipart/form-data; boundary=x"),
                415,
                json,
            ),
            (&from("http://evil.example", ""), 415, json),
            (
                &from("http://evil.example", "text/plain; application/json"),
                415,
                json,
            ),
            (
                &from(
                    "http://evil.example",
                    "application/json\r\ncontent-type: text/plain",
                ),
                415,
                json,
            ),
            (&from("http://x:8080", "text/plain"), 415, json),
            (&from("null", "text/plain"), 415, json),
            (
                &from("http://x\r\norigin: http://evil.example", "text/plain"),
                415,
                json,
            ),
            // Of this origin, or after a preflight that nothing here allows.
            (&from("http://x", "text/plain"), 200, None),
            (&from("https://X:443", ""), 200, None),
            (&from("http://evil.example", "application/json"), 200, None),
            (&from("null", "Application/JSON; charset=utf-8"), 200, None),
            // No browser.
            (&from("", form), 200, None),
            (&from("", ""), 200, None),
        ],
    );
    assert_eq!(
        bazaar.trade(&Order::sell(1, "meta")),
        6,
        "no other was placed"
    );
}

#[test]
fn a_policy_sees_one_host_and_may_deal_with_coded_bodies() {
    let bazaar = Bazaar::start(Options {
        policy: Some(guest("echoes")),
        ..Options::default()
    });
    let sees = |bytes: &str, expected: &str| {
        let answer = send_raw(bazaar.address(), bytes.as_bytes()).expect("an answer");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, expected),
            "{bytes}"
        );
    };
    sees(&get("/echo", "host: x:80\r\n"), "host: x:80\n");
    sees(&get("http://y/echo", "host: x\r\n"), "host: y\n");
    sees(
        &get("/connection", "host: x:80\r\n"),
        "HttpVersion::Http11 from 127.0.0.1 by Scheme::Http to x:80\n",
    );
    sees(
        "GET /connection HTTP/1.0\r\n\r\n",
        "HttpVersion::Http10 from 127.0.0.1 by Scheme::Http to \n",
    );
    let coded = "host: x\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n";
    sees(
        &request("POST /echo HTTP/1.1", coded, "\u{1}"),
        "host: x\ncontent-encoding: gzip\n",
    );
    for status in [204, 205, 304] {
        let answer = send_raw(
            bazaar.address(),
            get(&format!("/status/{status}"), "host: x\r\n").as_bytes(),
        );
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status, answer.rest.as_str()),
            (status, ""),
            "{answer:?}"
        );
    }
}
