//! What a client can do to the gateway, which is nothing; over real connections, without a backend.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use frontend_host::config::Bounds;
use frontend_host::config::{
    BODY_BYTES_MAX, DISCARDED_BYTES_MAX, HEADERS_MAX, IDLE_TIME_MAX, SEND_TIME_MAX,
};
use frontend_host::server;
use frontend_host::server::clients::Clients;
use frontend_policy::DEFAULT_POLICY;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::{alone, served};

/// Time for what should happen at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A gateway with the usual bounds for its clients.
async fn gateway() -> SocketAddr {
    served::gateway(Bounds::default()).await.0
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
    let next = b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(next).await.unwrap();
    let answers = read_to_end(stream).await;
    assert!(answers.starts_with("HTTP/1.1 413 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 404 "), "{answers}");
}

/// The head of an order, with more headers.
fn order(headers: &str) -> String {
    format!("POST /orders HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_refused_is_so_before_its_body_has_come() {
    let (gateway, clients) = served::gateway(Bounds::default()).await;
    let many: String = (0..=HEADERS_MAX).map(|n| format!("X-{n}: y\r\n")).collect();
    let large = format!("Content-Length: {}\r\n", BODY_BYTES_MAX + 1);
    for (headers, status) in [
        (many + "Content-Length: 7\r\n", 431),
        (large, 413),
        ("Host: x\r\nContent-Length: 7\r\n".into(), 400),
        ("Origin: http://y\r\nContent-Length: 7\r\n".into(), 415),
        (
            "Origin: http://y\r\nTransfer-Encoding: chunked\r\n".into(),
            415,
        ),
        (
            "Content-Encoding: gzip\r\nContent-Length: 7\r\n".into(),
            415,
        ),
        ("Transfer-Encoding: gzip, chunked\r\n".into(), 501),
    ] {
        let mut stream = send(gateway, order(&headers).as_bytes()).await;
        let mut answer = [0; 12];
        let answered = timeout(AT_ONCE, stream.read_exact(&mut answer)).await;
        assert!(matches!(answered, Ok(Ok(_))), "{headers}");
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer, format!("HTTP/1.1 {status}"), "{headers}");
        assert_eq!(clients.figures().received.bytes, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_that_comes_after_all_leaves_the_connection_as_it_was() {
    let gateway = gateway().await;
    let headers = "Origin: http://y\r\nContent-Length: 7\r\n";
    let mut stream = send(gateway, order(headers).as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 415");
    let next = b"1234567GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(next).await.unwrap();
    let answers = read_to_end(stream).await;
    assert!(answers.contains("HTTP/1.1 404 "), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_that_does_not_come_ends_the_connection_in_time() {
    let (gateway, _) = served::gateway(Bounds {
        send_time_max: Duration::from_secs(1),
        ..Bounds::default()
    })
    .await;
    let headers = "Origin: http://y\r\nContent-Length: 7\r\n";
    let answer = read_to_end(send(gateway, order(headers).as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
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
    let requests = b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
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
    assert!(answer.contains("is not printable ASCII"), "{answer}");
}

/// Sends a request, and waits for its answer.
async fn asks(stream: &mut TcpStream) -> bool {
    let request = b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut answer = vec![0; 4096];
    stream.write_all(request).await.is_ok()
        && matches!(stream.read(&mut answer).await, Ok(read) if answer[..read].starts_with(b"HTTP/1.1 404"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_idles_makes_room_for_who_asks() {
    const PLACES: usize = 16;
    let (gateway, clients) = served::gateway(Bounds {
        connections_max: PLACES,
        ..Bounds::default()
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..PLACES {
        let mut stream = TcpStream::connect(gateway).await.unwrap();
        assert!(asks(&mut stream).await);
        idle.push(stream);
    }
    assert_eq!(clients.figures().connections, PLACES);
    let mut new = TcpStream::connect(gateway).await.unwrap();
    let served = timeout(IDLE_TIME_MAX / 3, asks(&mut new)).await;
    assert_eq!(served, Ok(true), "long before anybody has idled too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_too_many_connections_gets_no_more_and_others_do() {
    let (gateway, clients) = served::gateway(Bounds {
        connections_per_client_max: Some(2),
        ..Bounds::default()
    })
    .await;
    let mut streams = [(); 2].map(|()| None);
    for stream in &mut streams {
        let connected = stream.insert(TcpStream::connect(gateway).await.unwrap());
        assert!(asks(connected).await);
    }
    let mut third = TcpStream::connect(gateway).await.unwrap();
    assert!(!asks(&mut third).await, "it is closed at once");
    assert_eq!(clients.figures().connections_refused, 1);

    let other = TcpSocket::new_v4().unwrap();
    other.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
    let mut other = other.connect(gateway).await.unwrap();
    assert!(asks(&mut other).await, "another address is another client");

    drop(streams);
    let again = async {
        while !asks(&mut TcpStream::connect(gateway).await.unwrap()).await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(AT_ONCE, again).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_budget_are_refused_until_others_are_done() {
    // A connection may hold one body, a client four.
    const BODIES: usize = 4;
    let (gateway, clients) = served::gateway(Bounds {
        received_bytes_max: 4 * BODIES * BODY_BYTES_MAX,
        ..Bounds::default()
    })
    .await;
    let head =
        |length| format!("POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let mut unfinished = Vec::new();
    for _ in 0..BODIES {
        let mut stream = send(gateway, head(BODY_BYTES_MAX).as_bytes()).await;
        let most = vec![b'x'; BODY_BYTES_MAX - 1];
        stream.write_all(&most).await.unwrap();
        unfinished.push(stream);
    }
    served::until(&clients, "they arrive", |figures| {
        figures.received.bytes >= BODIES * (BODY_BYTES_MAX - 1)
    })
    .await;

    let body = "y".repeat(1000);
    let request = format!("{}{body}", head(body.len()));
    let request = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answer = read_to_end(send(gateway, request.as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    let lookup = b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = read_to_end(send(gateway, lookup).await).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");

    for mut stream in unfinished {
        stream.write_all(b"x").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 404");
    }
    assert_eq!(clients.figures().received.bytes, 0);
    let answer = read_to_end(send(gateway, request.as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_connected_before_a_stop_is_answered() {
    const CLIENTS: usize = 20;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        streams.push(send(address, b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").await);
    }
    let stopped = std::future::ready(());
    let clients = Clients::new(Bounds::default());
    server::serve(
        (listener, None),
        alone::gateway(DEFAULT_POLICY),
        clients,
        server::Workers::start(1).unwrap(),
        stopped,
    )
    .await
    .unwrap();
    for stream in streams {
        let answer = read_to_end(stream).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    assert!(TcpStream::connect(address).await.is_err());
}
