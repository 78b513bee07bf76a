//! What a client can do to the gateway, which is nothing; over real connections, without a backend.

mod alone;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use frontend_host::config::{BODY_BYTES_MAX, DISCARDED_BYTES_MAX, SEND_TIME_MAX};
use frontend_host::server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Time for what should happen at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A gateway whose backends are not there.
async fn gateway() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(
        listener,
        alone::gateway(),
        1,
        std::future::pending(),
    ));
    address
}

async fn send(gateway: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(AT_ONCE, stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed")
        .unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_nothing_is_cut_off() {
    let gateway = gateway().await;
    let begun = Instant::now();
    let openings: [&[u8]; 5] = [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /stocks HTT",
    ];
    let mut streams = Vec::new();
    for opening in openings {
        streams.push((opening, send(gateway, opening).await));
    }
    for (opening, mut stream) in streams {
        let patience = (SEND_TIME_MAX + AT_ONCE).saturating_sub(begun.elapsed());
        let closed = timeout(patience, stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "{opening:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_to_a_client_that_sends_it_first() {
    let gateway = gateway().await;
    let body = vec![b'x'; DISCARDED_BYTES_MAX];
    let head = format!(
        "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = send(gateway, head.as_bytes()).await;
    stream.write_all(&body).await.unwrap();
    let next = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(next).await.unwrap();
    let answers = read_to_end(stream).await;
    assert!(answers.starts_with("HTTP/1.1 413 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 404 "), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_read_ends_the_connection_and_the_answer_says_so() {
    let gateway = gateway().await;
    for head in [
        format!("Content-Length: {}", DISCARDED_BYTES_MAX + 1),
        format!(
            "Expect: 100-continue\r\nContent-Length: {}",
            BODY_BYTES_MAX + 1
        ),
    ] {
        let request = format!("POST /orders HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n");
        let answer = read_to_end(send(gateway, request.as_bytes()).await).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_no_answer_is_cut_off() {
    let gateway = gateway().await;
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let requests = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let cut_off = async { while stream.write_all(&requests).await.is_ok() {} };
    timeout(Duration::from_secs(60), cut_off).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_text_is_refused_and_not_passed_over() {
    let gateway = gateway().await;
    let request =
        b"POST /orders HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \xff\r\nConnection: close\r\n\r\n";
    let answer = read_to_end(send(gateway, request).await).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("`idempotency-key` is not text"), "{answer}");
}
