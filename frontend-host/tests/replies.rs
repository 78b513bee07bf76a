//! What a policy adds to every reply is on every reply, whoever writes it: over real connections, without
//! a backend.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frontend_host::config::{BODY_BYTES_MAX, Bounds, HEAD_BYTES_MAX, HEADERS_MAX};
use frontend_host::handler::Gateway;
use frontend_host::server;
use frontend_host::server::clients::Clients;
use frontend_policy::{Reason, Share, Trial, Upload};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::alone;

/// Longest wait for an answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const SHOP: &str = "https://shop.example";

const ADDED: &str = "x-frame-options: DENY
allow: nothing
access-control-allow-origin: https://shop.example when origin: https://shop.example
access-control-allow-origin: https://other.example when origin: https://other.example";

/// The guest whose replies all have what its configuration says.
fn adds() -> Vec<u8> {
    let built = policy_build::Builder::in_project("tests/guests").example("adds");
    std::fs::read(built.build_once().unwrap()).unwrap()
}

fn with_config<'a>(component: &'a [u8], config: &'a str) -> Upload<'a> {
    Upload {
        config: config.as_bytes(),
        ..component.into()
    }
}

async fn serve(gateway: Arc<Gateway>, bounds: Bounds) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients = Clients::new(bounds);
    let end = std::future::pending();
    tokio::spawn(server::serve(
        (listener, None),
        gateway,
        clients,
        server::Workers::start(1).unwrap(),
        end,
    ));
    address
}

/// A gateway whose active version adds what [`ADDED`] says.
async fn gateway(bounds: Bounds) -> SocketAddr {
    serve(alone::gateway(with_config(&adds(), ADDED)), bounds).await
}

/// The head of the answer to these bytes.
async fn answer_to(gateway: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await;
        assert!(read.expect("it answers").unwrap() > 0, "{answer:?}");
    }
    String::from_utf8_lossy(&answer).to_lowercase()
}

/// How often a line is in a head.
fn count(head: &str, line: &str) -> usize {
    head.lines().filter(|other| *other == line).count()
}

fn check_added(name: &str, head: &str, origin: Option<&str>) {
    assert_eq!(count(head, "x-frame-options: deny"), 1, "{name}: {head}");
    assert_eq!(count(head, "vary: origin"), 1, "{name}: {head}");
    let allowed = head.matches("access-control-allow-origin").count();
    assert_eq!(allowed, usize::from(origin.is_some()), "{name}: {head}");
    if let Some(origin) = origin {
        let allowed = format!("access-control-allow-origin: {origin}");
        assert_eq!(count(head, &allowed), 1, "{name}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_over_http_1_has_what_the_policy_adds() {
    let bounds = Bounds {
        send_time_max: Duration::from_secs(1),
        ..Bounds::default()
    };
    let gateway = gateway(bounds).await;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\n");
    let post = |headers: &str| format!("POST /orders HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    let long = BODY_BYTES_MAX + 1;
    for (status, name, head, body) in [
        (404, "the policy's own answer", get("/nothing"), ""),
        (
            501,
            "its answer to a method",
            "BREW / HTTP/1.1\r\nhost: x\r\n".into(),
            "",
        ),
        (503, "no backend", get("/stocks?limit=1"), ""),
        (500, "a policy that fails", get("/stocks/trap"), ""),
        (400, "no host", "GET / HTTP/1.1\r\n".into(), ""),
        (400, "two hosts", get("/") + "host: y\r\n", ""),
        (
            400,
            "no host's name",
            "GET / HTTP/1.1\r\nhost: a b\r\n".into(),
            "",
        ),
        (400, "half a body", post("content-length: 9"), "{}"),
        (
            408,
            "a body that does not come",
            post("content-length: 9"),
            "{",
        ),
        (
            413,
            "a body that is too large",
            post(&format!("content-length: {long}")),
            "",
        ),
        (
            415,
            "a body that is coded",
            post("content-length: 2\r\ncontent-encoding: gzip"),
            "{}",
        ),
        (
            501,
            "a coding",
            post("transfer-encoding: gzip, chunked"),
            "0\r\n\r\n",
        ),
        (
            501,
            "a tunnel",
            "CONNECT x:1 HTTP/1.1\r\nhost: x\r\n".into(),
            "",
        ),
        (
            400,
            "what the policy finds wrong with a body",
            post("content-length: 2"),
            "{}",
        ),
    ] {
        for origin in [None, Some(SHOP), Some("https://other.example")] {
            let from = origin.map_or(String::new(), |origin| format!("origin: {origin}\r\n"));
            let json = "content-type: application/json\r\n";
            let bytes = format!("{head}{json}{from}\r\n{body}");
            let mut stream = TcpStream::connect(gateway).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            if name == "half a body" {
                stream.shutdown().await.unwrap();
            }
            let mut answer = Vec::new();
            while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await;
                assert!(read.expect("it answers").unwrap() > 0, "{name}: {answer:?}");
            }
            let answer = String::from_utf8_lossy(&answer).to_lowercase();
            assert!(
                answer.starts_with(&format!("http/1.1 {status} ")),
                "{name}: {answer}"
            );
            check_added(name, &answer, origin);
        }
    }
    let foreign = post("content-length: 2\r\norigin: https://shop.example") + "\r\n{}";
    let foreign = answer_to(gateway, foreign.as_bytes()).await;
    assert!(foreign.starts_with("http/1.1 415 "), "{foreign}");
    check_added("a foreign page", &foreign, Some(SHOP));
    // Who is not on the list is not told that it is; nor who is nearly.
    for origin in [
        "https://evil.example",
        "https://shop.example.evil.example",
        "null",
        "",
    ] {
        let request = format!("{}origin: {origin}\r\n\r\n", get("/nothing"));
        check_added(origin, &answer_to(gateway, request.as_bytes()).await, None);
    }
    // What the policy says with an answer counts.
    let own = answer_to(gateway, b"DELETE /stocks/a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(count(&own, "allow: get, head"), 1, "{own}");
    assert_eq!(count(&own, "allow: nothing"), 0, "{own}");
}

/// Nobody knows of which origin they are, but what is added for all is.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_what_cannot_be_read_has_what_the_policy_adds_for_all() {
    let gateway = gateway(Bounds::default()).await;
    let long = "x".repeat(HEAD_BYTES_MAX);
    let many: String = (0..=HEADERS_MAX).map(|n| format!("\r\nx-{n}: y")).collect();
    for (status, head) in [
        (400, "GET / HTTP/1.1\r\nno header".to_owned()),
        (414, format!("GET /{long} HTTP/1.1")),
        (431, format!("GET / HTTP/1.1\r\nhost: x{many}")),
        (431, format!("GET / HTTP/1.1\r\nhost: x\r\ncookie: {long}")),
    ] {
        let request = format!("{head}\r\norigin: {SHOP}\r\n\r\n");
        let answer = answer_to(gateway, request.as_bytes()).await;
        let begin = format!("http/1.1 {status} ");
        assert!(answer.starts_with(&begin), "{answer}");
        check_added(&begin, &answer, None);
    }
}

/// The headers of the answer over HTTP/2.
async fn over_http_2(
    gateway: SocketAddr,
    request: Request<Full<Bytes>>,
) -> (StatusCode, HeaderMap) {
    let connection = TcpStream::connect(gateway).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(connection));
    let (mut sender, connection) = handshake.await.unwrap();
    let driven = tokio::spawn(connection);
    let answer = timeout(PATIENCE, sender.send_request(request)).await;
    let answer = answer.expect("it answers").unwrap();
    driven.abort();
    (answer.status(), answer.headers().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_over_http_2_has_what_the_policy_adds() {
    let crowded = Bounds {
        received_bytes_max: 0,
        ..Bounds::default()
    };
    let unread = Bounds {
        unsent_bytes_max: 0,
        ..Bounds::default()
    };
    let long = "x".repeat(HEAD_BYTES_MAX);
    for (status, bounds, target) in [
        (404, Bounds::default(), "/nothing"),
        (414, Bounds::default(), format!("/{long}").as_str()),
        (503, crowded, "/nothing"),
        (503, unread, "/nothing"),
    ] {
        let gateway = gateway(bounds).await;
        let request = Request::get(format!("http://x{target}")).header("origin", SHOP);
        let request = request.body(Full::default()).unwrap();
        let (answered, headers) = over_http_2(gateway, request).await;
        assert_eq!(answered, status);
        assert_eq!(headers["x-frame-options"], "DENY", "{status}");
        assert_eq!(headers["access-control-allow-origin"], SHOP, "{status}");
    }
}

/// A refusal of a request that no version has seen is of the version that would have.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_has_what_its_client_s_version_adds() {
    let (adds, all) = (adds(), Share::new(1.0).unwrap());
    let operator = Reason {
        who: "a test".into(),
        why: "to see".into(),
        ..Reason::default()
    };
    let gateway = alone::gateway(with_config(&adds, "x-version: active"));
    let address = serve(Arc::clone(&gateway), Bounds::default()).await;
    let version = async || {
        let mut versions = Vec::new();
        for request in [
            "GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET /nothing HTTP/1.1\r\n\r\n",
            "GET /stocks/trap HTTP/1.1\r\nhost: x\r\n\r\n",
        ] {
            let answer = answer_to(address, request.as_bytes()).await;
            let version = answer
                .lines()
                .find_map(|line| line.strip_prefix("x-version: "));
            versions.push(version.unwrap_or("none").to_owned());
        }
        versions
    };
    assert_eq!(version().await, ["active"; 3]);
    let trial = with_config(&adds, "x-version: trial");
    let try_out = |how| gateway.policy.try_out(trial, how, &operator).unwrap();
    try_out(Trial::Canary(all));
    assert_eq!(version().await, ["trial"; 3]);
    gateway.policy.drop_candidate(None, &operator).unwrap();
    assert_eq!(version().await, ["active"; 3]);
}
