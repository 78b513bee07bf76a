//! A policy that asks for a key lets nobody in without one: not where it traps, overruns, is confused or
//! replaced, and whatever is sent to it. The version before it, which asks for none, is right behind it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

use crate::harness::{
    Bazaar, Options, Server, example, guest, request, send_raw, try_request, wait_until,
};

/// More than the failures that any version may have.
const ROUNDS: usize = 20;

const KEY: (&str, &str) = ("authorization", "Bearer sesame");
const ORDER: &str = r#"{"name":"meta","type":"sell","quantity":1}"#;

/// What is sent without a key: a name, and the bytes. Each round has others.
fn attacks(round: usize) -> Vec<(String, Vec<u8>)> {
    let mut attacks = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>| attacks.push((name, bytes));
    let post = |target: &str, headers: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {target} HTTP/1.1\r\nhost: bazaar\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        )
        .into_bytes()
    };
    for place in ["trap", "eat", "nonsense"] {
        let target = format!("/stocks/{place}{round}");
        add(format!("{place} by GET"), get(&target, ""));
        add(format!("{place} by POST"), post(&target, "", ORDER));
    }
    if round < 3 {
        // Each takes as long as a decision may.
        add("loop".into(), get(&format!("/stocks/loop{round}"), ""));
    }
    for depth in [6_000, 60_000] {
        let body = "[".repeat(depth + round);
        add(format!("{depth} brackets"), post("/orders", "", &body));
        add(
            format!("{depth} brackets to a stock"),
            post("/stocks/nvidia", "", &body),
        );
    }
    let keys = [
        "authorization: Bearer\r\n",
        "authorization: bearer sesame!\r\n",
        "authorization: Bearer sesam\r\nauthorization: e\r\n",
        "authorization:\r\n",
        "authorization: Bearer \u{e9}\r\n",
        "authorization: Basic c2VzYW1l\r\n",
        "x-authorization: Bearer sesame\r\n",
        "authorization_: Bearer sesame\r\n",
        "cookie: authorization=Bearer sesame\r\n",
        "connection: authorization\r\nauthorization: Bearer nobody\r\n",
        "authorization: Bearer nobody\r\n sesame\r\n",
    ];
    for (number, key) in keys.iter().enumerate() {
        add(
            format!("key {number} for an order"),
            post("/orders", key, ORDER),
        );
        add(
            format!("key {number} for a stock"),
            get("/stocks/nvidia", key),
        );
    }
    let targets = [
        "//orders",
        "/orders/",
        "/orders?",
        "/./orders",
        "/%6frders",
        "/orders%2f",
        "http://bazaar/orders",
        "/orders#x",
        "/orders;x",
        "/ORDERS",
    ];
    for target in targets {
        add(format!("an order at {target}"), post(target, "", ORDER));
    }
    for method in [
        "HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "BREW", "get",
    ] {
        let bytes = format!(
            "{method} /stocks/nvidia HTTP/1.1\r\nhost: bazaar\r\nconnection: close\r\n\r\n"
        );
        add(format!("a stock by {method}"), bytes.into_bytes());
    }
    add(
        "no host".into(),
        b"GET /stocks/nvidia HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec(),
    );
    add(
        "HTTP/1.0".into(),
        b"GET /stocks/nvidia HTTP/1.0\r\nhost: bazaar\r\n\r\n".to_vec(),
    );
    let smuggled = format!(
        "POST /stocks/x HTTP/1.1\r\nhost: bazaar\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nPOST /orders HTTP/1.1\r\nhost: bazaar\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{ORDER}",
        ORDER.len()
    );
    add("two lengths".into(), smuggled.into_bytes());
    let pipelined = [
        get("/stocks/trap", "").as_slice(),
        &post("/orders", "", ORDER),
    ]
    .concat();
    add("behind one that traps".into(), pipelined);
    attacks
}

fn get(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: bazaar\r\nconnection: close\r\n{headers}\r\n")
        .into_bytes()
}

/// Sends all of them, once the policy is asked about whoever sends them, and nothing gets through. Returns how many they
/// are, and to how many of them the policy said no by itself.
fn attack(bazaar: &Bazaar, rounds: std::ops::Range<usize>) -> (usize, usize) {
    wait_until("the policy to be asked", || {
        let answer = send_raw(bazaar.address(), &get("/stocks/nvidia", ""));
        answer.is_ok_and(|answer| answer.status == 401)
    });
    let (mut sent, mut decided) = (0, 0);
    for round in rounds {
        for (name, bytes) in attacks(round) {
            sent += 1;
            // A connection that is closed without a word lets nobody in, either.
            if let Ok(answer) = send_raw(bazaar.address(), &bytes) {
                decided += usize::from(answer.status == 401);
                assert!(answer.status >= 400, "{name}: {answer:?}");
                assert!(
                    !format!("{answer:?}").contains("price"),
                    "{name}: {answer:?}"
                );
            }
        }
        sent += over_http2(bazaar.address(), round);
    }
    assert!(decided > 0, "the policy was asked about none of {sent}");
    (sent, decided)
}

/// The same over HTTP/2, where pseudo-headers and several streams can confuse.
#[tokio::main(flavor = "current_thread")]
async fn over_http2(to: SocketAddr, round: usize) -> usize {
    let connection = tokio::net::TcpStream::connect(to).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(connection));
    let (mut sender, connection) = handshake.await.unwrap();
    let driven = tokio::spawn(connection);
    let brackets = "[".repeat(6_000 + round);
    let (trap, nonsense) = (
        format!("/stocks/trap{round}"),
        format!("/stocks/nonsense{round}"),
    );
    let requests = [
        ("GET", trap.as_str(), ""),
        ("POST", "/orders", ORDER),
        ("POST", "/orders", &brackets),
        ("GET", "/stocks/nvidia", ""),
        ("GET", &nonsense, ""),
        ("POST", &trap, ORDER),
    ];
    for (method, target, body) in requests {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://bazaar{target}"))
            .header("authorization", "Bearer nobody")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let is_open = status.as_u16() < 400 || String::from_utf8_lossy(&body).contains("price");
        assert!(!is_open, "{method} {target}: {status} {body:?}");
    }
    driven.abort();
    requests.len()
}

fn policy(bazaar: &Bazaar) -> Value {
    bazaar.admin("GET", "/policy", b"").json()
}

#[test]
fn nothing_gets_past_a_policy_that_asks_for_a_key() {
    let mut bazaar = Bazaar::start(Options {
        lease_ms: 200,
        ..Options::default()
    });
    let guarded = fs::read(guest("guarded")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &guarded).status, 200);
    let (mut sent, decided) = attack(&bazaar, 0..ROUNDS);
    assert!(
        decided * 3 > sent,
        "the policy decided {decided} of {sent} by itself"
    );
    wait_until("the failures to be judged", || {
        policy(&bazaar)["active"]["condemned"] == true
    });
    // Beside another version, on trial and dropped, and after a restart.
    let open = fs::read(example("no-cache")).unwrap();
    let put = bazaar.admin("PUT", "/policy/candidate?shadow=1", &open);
    assert_eq!(put.status, 200, "{put:?}");
    // By now it is known for what it wastes, and from now on seldom asked about.
    sent += attack(&bazaar, ROUNDS..ROUNDS + 2).0;
    assert_eq!(bazaar.admin("DELETE", "/policy/candidate", b"").status, 200);
    bazaar.kill_and_restart_gateway();
    sent += attack(&bazaar, ROUNDS + 2..ROUNDS + 4).0;

    let now = policy(&bazaar);
    assert_eq!(now["active"]["name"], "guarded", "{now}");
    assert_eq!(
        now["previous"]["name"], "default",
        "one that lets all in was behind it: {now}"
    );
    let changes = now["changes"].as_array().unwrap();
    let by_itself = |change: &&Value| change["who"] == "probation" || change["who"] == "breaker";
    assert_eq!(changes.iter().filter(by_itself).count(), 0, "{changes:?}");
    assert_eq!(
        bazaar.status()["catalog"]["journal_rows"],
        0,
        "an order went through"
    );
    println!("{sent} requests without a key, 0 through");

    // The key opens.
    let placed = request(
        bazaar.address(),
        "POST",
        "/orders",
        &[KEY],
        ORDER.as_bytes(),
    );
    assert_eq!(placed.status, 200, "{placed:?}");
}

#[test]
fn a_gateway_that_lost_what_was_active_serves_nobody_and_says_so_until_an_operator_opens_it() {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut bazaar = Bazaar::start_default();
    let guarded = fs::read(guest("guarded")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &guarded).status, 200);
    bazaar.server(Server::Gateway(0)).kill();
    fs::remove_file(bazaar.gateway_dir().join("policies/state.json")).unwrap();
    bazaar.start_server(Server::Gateway(0));

    let admin = bazaar.admin_address();
    let is_closed = |said: u8| {
        let sample = format!("bazaar_policy_closed {said}");
        let shown = try_request(admin, "GET", "/metrics", &[], b"", PATIENCE);
        shown.is_ok_and(|shown| shown.body.lines().any(|line| line == sample))
    };
    wait_until("it to say that it is closed", || is_closed(1));
    let ask = |bazaar: &Bazaar| {
        let answer = bazaar.send("GET", "/stocks/nvidia", &[KEY], b"");
        answer.status
    };
    assert_eq!(ask(&bazaar), 500);
    let unready = bazaar.admin("GET", "/readyz", b"");
    assert_eq!(unready.status, 503, "{unready:?}");
    assert!(
        unready.body.contains("cannot be started"),
        "{}",
        unready.body
    );

    assert_eq!(bazaar.admin("PUT", "/policy", &guarded).status, 200);
    assert!(is_closed(0));
    bazaar.wait_until_ready();
    assert_eq!(ask(&bazaar), 200);
}
