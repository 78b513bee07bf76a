//! RFC 9113: requests by name and value, and what they are answered with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use frontend_host::config::{HEAD_BYTES_MAX, HEADERS_MAX};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::{Bazaar, Options, Order, guest};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

const ORDER: &str = r#"{"name":"meta","type":"sell","quantity":1}"#;

/// Method, path, headers and body of a request to the authority `x`, and the status of the answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);

/// Sends a request over a connection of its own.
fn ask(
    gateway: SocketAddr,
    (method, path, headers, body, _): Case<'_>,
) -> hyper::Result<Response<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://x{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    let request = request.expect("the case is a request");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway)
            .await
            .expect("connections are taken");
        let builder = http2::Builder::new(TokioExecutor::new());
        let (mut client, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let answer = async {
            let (head, body) = client.send_request(request).await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, answer)
            .await
            .expect("an answer in time")
    })
}

fn check(bazaar: &Bazaar, cases: &[Case<'_>]) {
    for case in cases {
        let (method, path, ..) = case;
        let what = format!("{method} {}", &path[..path.len().min(60)]);
        let answer = ask(bazaar.address(), *case).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(
            answer.status().as_u16(),
            case.4,
            "{what} {:?}: {answer:?}",
            case.2
        );
        if answer.status().as_u16() >= 400 && *method != "HEAD" {
            let body: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
            assert_eq!(body["error"]["code"], case.4);
            assert_eq!(answer.headers()["cache-control"], "no-store");
        }
    }
}

#[test]
fn requests_are_answered_as_over_http_1() {
    let bazaar = Bazaar::start_default();
    let many: Vec<_> = (0..=HEADERS_MAX).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "y")).collect();
    let long_value = "y".repeat(HEAD_BYTES_MAX);
    let long_target = format!("/stocks/{}", "x".repeat(HEAD_BYTES_MAX));
    let stock = "/stocks/nvidia";
    check(
        &bazaar,
        &[
            ("GET", stock, &[], "", 200),
            ("HEAD", stock, &[], "", 200),
            ("GET", stock, &[("host", "x")], "", 200),
            ("GET", stock, &[("host", "X:80")], "", 200),
            ("GET", stock, &[("host", "y")], "", 400),
            ("GET", stock, &[("host", "x:8080")], "", 400),
            ("GET", stock, &[("host", "x"), ("host", "x")], "", 400),
            ("GET", stock, &[("if-none-match", "*")], "", 304),
            ("DELETE", stock, &[], "", 405),
            ("PROPFIND", stock, &[], "", 501),
            ("GET", stock, &many, "", 431),
            ("GET", stock, &[("x", &long_value)], "", 431),
            ("GET", &long_target, &[], "", 414),
            ("POST", "/orders", &[], ORDER, 200),
            (
                "POST",
                "/orders",
                &[("content-encoding", "gzip")],
                ORDER,
                415,
            ),
            ("POST", "/orders", &[("origin", "http://y")], ORDER, 415),
            (
                "POST",
                "/orders",
                &[("origin", "http://x"), ("content-type", "text/plain")],
                ORDER,
                200,
            ),
        ],
    );
    assert_eq!(
        bazaar.trade(&Order::sell(1, "meta")),
        2,
        "no other was placed"
    );
}

#[test]
fn a_policy_sees_a_host_and_one_cookie() {
    let bazaar = Bazaar::start(Options {
        policy: Some(guest("echoes")),
        ..Options::default()
    });
    let cookies = [("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")];
    for (headers, seen) in [
        (&[][..], "host: x\n"),
        (&[("host", "x")], "host: x\n"),
        (&cookies[..1], "host: x\ncookie: a=1\n"),
        (&cookies, "host: x\ncookie: a=1; b=2; c=3; d=4\n"),
    ] {
        let answer = ask(bazaar.address(), ("GET", "/echo", headers, "", 200)).expect("an answer");
        assert_eq!(*answer.body(), seen);
    }
    let connection = ask(bazaar.address(), ("GET", "/connection", &[], "", 200));
    assert_eq!(
        *connection.expect("an answer").body(),
        "HttpVersion::Http2 from 127.0.0.1 by Scheme::Http to x\n"
    );
}

/// What has no content over HTTP/1 has none here.
#[test]
fn a_response_without_content_breaks_no_client() {
    let bazaar = Bazaar::start(Options {
        policy: Some(guest("echoes")),
        ..Options::default()
    });
    for status in [204, 205, 304] {
        let path = format!("/status/{status}");
        for method in ["GET", "HEAD"] {
            let answer =
                ask(bazaar.address(), (method, &path, &[], "", status)).expect("an answer");
            assert_eq!(answer.status().as_u16(), status);
            assert!(answer.body().is_empty());
        }
    }
    // With content it is no decision, and there is no version before that could make another.
    let bazaar = Bazaar::start(Options {
        policy: Some(guest("nonsense")),
        ..Options::default()
    });
    for status in [204, 205, 304] {
        let path = format!("/stocks/nonsense/content-{status}");
        let answer = ask(bazaar.address(), ("GET", &path, &[], "", 500)).expect("an answer");
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

/// No client of a library leaves its host out.
#[test]
fn a_request_to_nobody_is_refused() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // `GET /` by HPACK's static table, and its end.
    const HEADERS: &[u8] = &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86];
    /// `:status: 400` in that table.
    const BAD_REQUEST: u8 = 0x8c;
    let bazaar = Bazaar::start_default();
    let mut connection = TcpStream::connect(bazaar.address()).expect("connections are taken");
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection
        .write_all(&[PREFACE, SETTINGS, HEADERS].concat())
        .unwrap();
    let payload = loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        connection.read_exact(&mut payload).expect("all of it");
        if head[3] == HEADERS[3] {
            break payload;
        }
    };
    assert!(payload.contains(&BAD_REQUEST), "{payload:02x?}");
}
