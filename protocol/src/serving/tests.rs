//! Peers that misbehave, over real sockets, with limits that a test can wait for.

#[path = "../../../tests/frames/client.rs"]
mod client;
#[path = "../../../tests/frames/mod.rs"]
mod frames;

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

use super::connection::PREFACE_BYTES;
use super::*;
use client::{Client, PATIENCE, PAUSE};
use frames::{DATA, END_STREAM, HEADERS, RST_STREAM, frame, request, stream, window_update};

/// Far more than any of these needs.
const LONG: Duration = Duration::from_secs(60);

/// A limit that a test waits for.
const SHORT: Duration = Duration::from_secs(1);

/// Calls at once.
const CALLS: usize = 60;

/// What the service answers with.
const ANSWER_BYTES: usize = 100_000;

async fn incoming(connections_max: usize, opening_max: Duration) -> (Incoming, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let limits = Limits {
        connections_max,
        opening_max,
        ..Limits::default()
    };
    let client = client.await.unwrap();
    (Incoming::new(listener, limits), client)
}

#[tokio::test]
async fn a_connection_too_many_waits_until_another_ends() {
    let (mut incoming, client) = incoming(1, LONG).await;
    let first = incoming.next().await.unwrap().unwrap();
    let mut second = TcpStream::connect(client.peer_addr().unwrap())
        .await
        .unwrap();
    second.write_all(b"hello").await.unwrap();
    // Long enough for whoever would take it in, on any machine that runs at all.
    let early = timeout(Duration::from_millis(100), incoming.next());
    assert!(early.await.is_err(), "there is no place");
    drop(first);
    let mut taken = incoming.next().await.unwrap().unwrap();
    let mut bytes = [0; 5];
    taken.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello");
}

#[tokio::test]
async fn who_does_not_open_its_connection_is_cut_off_and_who_did_is_not() {
    let opening_max = Duration::from_millis(200);
    let (mut incoming, mut slow) = incoming(2, opening_max).await;
    slow.write_all(b"PRI").await.unwrap();
    let mut connection = incoming.next().await.unwrap().unwrap();
    let mut bytes = [0; PREFACE_BYTES];
    let cut_off = connection.read_exact(&mut bytes).await.unwrap_err();
    assert_eq!(cut_off.kind(), io::ErrorKind::TimedOut);
    drop(connection);

    let address = slow.peer_addr().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&bytes).await.unwrap();
    let mut connection = incoming.next().await.unwrap().unwrap();
    connection.read_exact(&mut bytes).await.unwrap();
    let waits = timeout(2 * opening_max, connection.read_u8());
    assert!(waits.await.is_err(), "it may be idle from now on");
}

/// Answers whole requests, all alike.
#[derive(Clone)]
struct Answering;

impl NamedService for Answering {
    const NAME: &'static str = "answering";
}

impl Service<Request<Body>> for Answering {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async {
            Ok(match request.into_body().collect().await {
                Ok(_) => Response::new(Body::new(Full::new(Bytes::from(vec![b'x'; ANSWER_BYTES])))),
                Err(status) => Status::into_http(status),
            })
        })
    }
}

/// A service, and what its connections have in common.
async fn service(limits: Limits) -> (SocketAddr, Arc<Shared>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Shared::new(limits);
    let incoming = Incoming::sharing(listener, Arc::clone(&shared));
    let serving = server().add_service(Answering);
    tokio::spawn(serving.serve_with_incoming_shutdown(incoming, std::future::pending()));
    (address, shared)
}

async fn call(client: &mut Client, number: usize, is_whole: bool) {
    let head = request(stream(number), "POST", "/answering/Call", is_whole);
    client.send(&head).await;
}

async fn until(what: &str, met: impl Fn() -> bool) {
    let met = async {
        while !met() {
            sleep(PAUSE).await;
        }
    };
    assert!(timeout(PATIENCE, met).await.is_ok(), "{what}");
}

#[tokio::test]
async fn a_connection_without_calls_ends_and_pings_do_not_help() {
    let (address, _) = service(Limits {
        idle_max: SHORT,
        ..Limits::default()
    })
    .await;
    let mut client = Client::open(address, Some(1 << 20)).await;
    client.send(&window_update(0, 1 << 20)).await;
    call(&mut client, 0, true).await;
    client
        .until(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0)
        .await;
    let ended = timeout(PATIENCE, client.ping_to_the_end()).await;
    assert!(ended.is_ok());
}

#[tokio::test]
async fn who_has_no_calls_makes_room_for_another() {
    let (address, shared) = service(Limits {
        connections_max: 1,
        ..Limits::default()
    })
    .await;
    let mut idle = Client::open(address, None).await;
    // It is there, and says so.
    let idle = tokio::spawn(async move { idle.ping_to_the_end().await });
    until("it is in", || shared.places.available_permits() == 0).await;
    let mut other = Client::open(address, Some(1 << 20)).await;
    call(&mut other, 0, true).await;
    let served = other.until(|frame| frame.kind == DATA);
    let served = timeout(Limits::default().idle_max / 2, served).await;
    assert!(served.is_ok(), "long before anybody has idled too long");
    idle.await.unwrap();
}

#[tokio::test]
async fn requests_that_do_not_end_are_held_within_a_budget_and_refused_in_time() {
    let limits = Limits {
        arriving_max: SHORT,
        received_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let connection_max = limits.received_bytes_max / 4;
    let (address, shared) = service(limits).await;
    let mut client = Client::open(address, None).await;
    for number in 0..CALLS {
        call(&mut client, number, false).await;
        // A message of a megabyte is announced.
        let announced = frame(DATA, 0, stream(number), &[0, 0, 16, 0, 0]);
        client.send(&announced).await;
    }
    for number in 0..CALLS {
        client.send_piece(number, PAUSE).await;
        assert!(shared.received.held() <= connection_max);
    }
    for _ in 0..CALLS {
        let is_end = |kind, flags| kind == RST_STREAM || kind == HEADERS && flags & END_STREAM != 0;
        let ended = client.until(|frame| is_end(frame.kind, frame.flags));
        timeout(PATIENCE, ended).await.expect("all are refused");
        assert!(shared.received.held() <= connection_max);
    }
    assert!(shared.received.refusals() > 0, "there was no room for some");
    until("all is let go of", || shared.received.held() == 0).await;
}

#[tokio::test]
async fn answers_that_are_not_taken_are_held_within_a_budget_and_end_the_connection() {
    let limits = Limits {
        taking_max: SHORT,
        unsent_bytes_max: 2 << 20,
        ..Limits::default()
    };
    let connection_max = limits.unsent_bytes_max / 4;
    let (address, shared) = service(limits).await;
    let mut client = Client::open(address, Some(0)).await;
    for number in 0..CALLS {
        call(&mut client, number, true).await;
    }
    until("some are refused", || {
        assert!(shared.unsent.held() <= connection_max);
        shared.unsent.refusals() > 0
    })
    .await;
    let ended = timeout(PATIENCE, client.ping_to_the_end()).await;
    assert!(ended.is_ok());
    until("all is let go of", || {
        (shared.unsent.held(), shared.received.held()) == (0, 0)
    })
    .await;
}
