//! Peers that misbehave, over real sockets, with limits that a test can wait for.

#[path = "../../../../tests/frames/client.rs"]
mod client;
#[path = "../../../../tests/frames/mod.rs"]
mod frames;

use crate::access::Access;
use crate::connect::Security;
use crate::release::BazaarProtocol;
use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;

use bytes::Bytes;
use http::{Request as HttpRequest, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Response as Reply, Status, Streaming};
use tower_service::Service;

use super::calls::CALL_BYTES;
use super::connection::PREFACE_BYTES;
use super::*;
use crate::retry::{RetryClass, RetryStatus as _};
use crate::{call_streams as streams, connect};
use client::{Client as Frames, PATIENCE, PAUSE};
use frames::{DATA, END_STREAM, HEADERS, RST_STREAM, frame, request, stream, window_update};
use wire::order::v1::replication_client::ReplicationClient;
use wire::order::v1::replication_server::{Replication, ReplicationServer};
use wire::order::v1::{AppendRequest, AppendResponse, FetchRequest, FetchResponse};

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
    // Long enough to take it in, on any machine that runs at all.
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

impl Service<HttpRequest<Body>> for Answering {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(async {
            Ok(match request.into_body().collect().await {
                Ok(_) => Response::new(Body::new(Full::new(Bytes::from(vec![b'x'; ANSWER_BYTES])))),
                Err(status) => Status::into_http(status),
            })
        })
    }
}

/// Answers each request after as many milliseconds as its epoch says.
struct Appending;

#[tonic::async_trait]
impl Replication for Appending {
    type FetchStream = ReceiverStream<Result<FetchResponse, Status>>;
    type AppendManyStream = ReceiverStream<Result<AppendResponse, Status>>;

    async fn append_many(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Reply<Self::AppendManyStream>, Status> {
        let closed = std::future::pending();
        let answers = streams::serve(request, closed, |request, _| async move {
            answered(request).await
        });
        Ok(Reply::new(answers))
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Reply<Self::FetchStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

async fn answered(request: AppendRequest) -> Result<AppendResponse, Status> {
    sleep(Duration::from_millis(request.epoch)).await;
    Ok(AppendResponse::default())
}

/// A call that takes so long, with so many bytes.
fn request_of(takes: Duration, bytes: usize) -> AppendRequest {
    AppendRequest {
        epoch: takes.as_millis() as u64,
        journal: vec![b'x'; bytes],
        ..AppendRequest::default()
    }
}

/// A client's stream, on a connection of its own.
struct Appends {
    requests: mpsc::Sender<AppendRequest>,
    answers: Streaming<AppendResponse>,
}

impl Appends {
    async fn open(service: SocketAddr) -> Self {
        let (requests, messages) = mpsc::channel(1);
        let mut client = appending(service);
        let answers = client.append_many(ReceiverStream::new(messages)).await;
        let answers = answers.unwrap().into_inner();
        Self { requests, answers }
    }

    /// Makes a call that takes so long.
    async fn call(&mut self, takes: Duration) -> Result<AppendResponse, Status> {
        self.make(request_of(takes, 0)).await
    }

    async fn make(&mut self, request: AppendRequest) -> Result<AppendResponse, Status> {
        self.requests.send(request).await.unwrap();
        let answer = timeout(PATIENCE, self.answers.message()).await;
        answer.expect("an answer or an end")?.ok_or_else(ended)
    }

    /// Waits for its end.
    async fn ends(mut self) {
        let ended = timeout(PATIENCE, self.answers.message()).await;
        ended.expect("it ends").expect_err("it is cut off");
    }
}

/// One call on a stream of its own, which may be refused.
async fn append(service: SocketAddr, request: AppendRequest) -> Result<AppendResponse, Status> {
    let requests = tokio_stream::iter([request]);
    let answers = appending(service).append_many(requests).await?;
    answers.into_inner().message().await?.ok_or_else(ended)
}

fn ended() -> Status {
    Status::unavailable("the stream ended")
}

fn appending(service: SocketAddr) -> ReplicationClient<tonic::transport::Channel> {
    ReplicationClient::new(connect::lazy(&format!("http://{service}"), &Security::NONE).unwrap())
}

/// A service, and what its connections have in common.
async fn service(limits: Limits) -> (SocketAddr, Arc<Shared>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Shared::new(limits);
    serve(listener, &shared, BazaarProtocol::default());
    (address, shared)
}

fn serve(listener: TcpListener, shared: &Arc<Shared>, protocol: BazaarProtocol) {
    let incoming = Incoming::sharing(listener, Arc::clone(shared), None);
    let serving = server(Access(&[]), protocol)
        .add_service(Answering)
        .add_service(ReplicationServer::new(Appending));
    tokio::spawn(serving.serve_with_incoming_shutdown(incoming, std::future::pending()));
}

async fn call(client: &mut Frames, number: usize, is_whole: bool) {
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
    let mut client = Frames::open(address, Some(1 << 20)).await;
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
    let mut idle = Frames::open(address, None).await;
    // It is there, and says so.
    let idle = tokio::spawn(async move { idle.ping_to_the_end().await });
    until("it is in", || shared.places.available_permits() == 0).await;
    let mut other = Frames::open(address, Some(1 << 20)).await;
    call(&mut other, 0, true).await;
    let served = other.until(|frame| frame.kind == DATA);
    let served = timeout(Limits::default().idle_max / 2, served).await;
    assert!(served.is_ok(), "long before anybody has idled too long");
    idle.await.unwrap();
}

#[tokio::test]
async fn silent_streams_take_all_places_and_another_client_is_served_about_a_second_later() {
    const PLACES: usize = 4;
    let (address, shared) = service(Limits {
        connections_max: PLACES,
        ..Limits::default()
    })
    .await;
    let mut silent = Vec::new();
    for place in 0..PLACES {
        let mut appends = Appends::open(address).await;
        // Some made a call before.
        if place % 2 == 0 {
            appends.call(Duration::ZERO).await.unwrap();
        }
        silent.push(appends);
    }
    assert_eq!(shared.places.available_permits(), 0);
    let mut other = timeout(10 * SHORT, Appends::open(address))
        .await
        .expect("soon");
    other.call(Duration::ZERO).await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn a_stream_is_idle_between_its_calls_and_not_while_one_is_under_way() {
    let (address, _) = service(Limits {
        idle_max: SHORT,
        ..Limits::default()
    })
    .await;
    let mut appends = Appends::open(address).await;
    appends.call(3 * SHORT).await.unwrap();
    appends.call(Duration::ZERO).await.unwrap();
    appends.ends().await;
}

#[tokio::test]
async fn a_message_that_arrives_keeps_its_connection_and_its_stream() {
    let (address, _) = service(Limits {
        idle_max: SHORT,
        ..Limits::default()
    })
    .await;
    let mut client = Frames::open(address, Some(1 << 20)).await;
    let path = "/order.v1.Replication/AppendMany";
    client.send(&request(stream(0), "POST", path, false)).await;
    client.until(|frame| frame.kind == HEADERS).await;
    // A journal's id of 30 bytes, of which one comes at a time.
    let message = [&[0, 0, 0, 0, 32, 0x7a, 30][..], &[b'x'; 30]].concat();
    let pause = 3 * SHORT / message.len() as u32;
    for byte in message.chunks(1) {
        client.send(&frame(DATA, 0, stream(0), byte)).await;
        sleep(pause).await;
    }
    let answered = client.until(|frame| frame.kind == DATA && frame.stream == stream(0));
    timeout(PATIENCE, answered).await.expect("an answer");
}

#[tokio::test]
async fn a_message_counts_until_it_is_done_with() {
    const BYTES: usize = 200_000;
    let (address, shared) = service(Limits::default()).await;
    let request = request_of(SHORT, BYTES);
    let (mut one, mut other) = (Appends::open(address).await, Appends::open(address).await);
    let counted = until("both count", || shared.received.held() > 2 * BYTES);
    let (first, second, ()) = tokio::join!(one.make(request.clone()), other.make(request), counted);
    first.unwrap();
    second.unwrap();
    // The streams themselves are still there.
    until("neither does", || shared.received.held() < 3 * CALL_BYTES).await;
    assert!(shared.received.held() >= CALL_BYTES);
}

#[tokio::test]
async fn what_is_sent_ahead_of_being_read_is_bounded() {
    let (address, _) = service(Limits::default()).await;
    let mut client = Frames::open(address, None).await;
    let path = "/order.v1.Replication/AppendMany";
    client.send(&request(stream(0), "POST", path, false)).await;
    // A call that takes a minute: nothing is read meanwhile.
    let message = [0, 0, 0, 0, 4, 0x08, 0xe0, 0xd4, 0x03];
    client.send(&frame(DATA, 0, stream(0), &message)).await;
    let mut sent = 0;
    while client.send_piece(0, 5 * PAUSE).await {
        sent += client::PIECE;
    }
    assert!((1..=WINDOW_BYTES as usize).contains(&sent), "{sent}");
}

/// A head that repeats a header of [`HEADER_BYTES`] so many times, the most of them in a byte each.
fn head(number: usize, times: usize, is_whole: bool) -> Vec<u8> {
    /// Adds a header to the table (RFC 7541, section 6.2.1), as number 62.
    const ADD: u8 = 0x40;
    const AGAIN: u8 = 0x80 | 62;
    let request = request(stream(number), "POST", "/answering/Call", is_whole);
    let (frame_head, block) = request.split_at(9);
    let mut block = block.to_vec();
    let [low, high] = [(HEADER_BYTES - 127) % 128, (HEADER_BYTES - 127) / 128];
    block.extend([ADD, 1, b'x', 127, 0x80 | low as u8, high as u8]);
    block.extend([b'x'; HEADER_BYTES]);
    block.extend(vec![AGAIN; times - 1]);
    frame(HEADERS, frame_head[4], stream(number), &block)
}

const HEADER_BYTES: usize = 2000;

#[tokio::test]
async fn a_head_counts_for_what_it_takes() {
    let (address, shared) = service(Limits::default()).await;
    let mut client = Frames::open(address, None).await;
    client.send(&head(0, 3, false)).await;
    until("the call is under way", || shared.received.held() > 0).await;
    let held = shared.received.held();
    assert!(held > CALL_BYTES + 3 * HEADER_BYTES, "{held}");
    drop(client);
    until("all is let go of", || shared.received.held() == 0).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_the_next_call_is_not() {
    let (address, _) = service(Limits::default()).await;
    let mut client = Frames::open(address, Some(1 << 20)).await;
    client.send(&window_update(0, 1 << 20)).await;
    client.send(&head(0, 5, true)).await;
    let refused = client.until(|frame| matches!(frame.kind, HEADERS | RST_STREAM));
    let refused = timeout(PATIENCE, refused).await.unwrap();
    assert!(
        refused.kind == RST_STREAM || refused.flags & END_STREAM != 0,
        "{refused:?}"
    );
    call(&mut client, 1, true).await;
    let answered = client.until(|frame| frame.kind == DATA && frame.stream == stream(1));
    timeout(PATIENCE, answered).await.expect("an answer");
}

/// Connects from an address of this machine; returns whether it is then let in.
async fn comes(service: SocketAddr, from: Ipv4Addr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let mut stream = socket.connect(service).await.unwrap();
    stream.write_all(&frames::opening(None)).await.unwrap();
    let settings = timeout(PATIENCE, stream.read_u8()).await;
    settings.expect("settings or an end").ok().map(|_| stream)
}

#[tokio::test]
async fn a_client_with_too_many_connections_is_closed_at_once_and_others_come_in() {
    let (address, shared) = service(Limits {
        connections_per_client_max: Some(2),
        ..Limits::default()
    })
    .await;
    let [one, other] = [1, 2].map(|host| Ipv4Addr::new(127, 0, 0, host));
    let first = comes(address, one).await.expect("the first");
    let _second = comes(address, one).await.expect("the second");
    assert!(comes(address, one).await.is_none(), "the third");
    assert_eq!(shared.clients.refused(), 1);
    assert!(comes(address, other).await.is_some());
    drop(first);
    until("it is gone", || shared.clients.connections() < 2).await;
    assert!(comes(address, one).await.is_some(), "there is room again");
}

#[tokio::test]
async fn no_client_has_more_than_a_quarter_of_anything_but_this_machine() {
    let shared = Shared::new(Limits {
        connections_max: 8,
        ..Limits::default()
    });
    let come = |address: &str| shared.admit(address.parse().unwrap());
    let bytes = shared.limits.received_bytes_max / 4;
    let (_first, one) = come("192.0.2.1").unwrap();
    let (_second, same) = come("::ffff:192.0.2.1").unwrap();
    assert!(come("192.0.2.1").is_none());
    let (_third, other) = come("192.0.2.2").unwrap();
    let mut held = one.received();
    held.grow(bytes).unwrap();
    assert!(same.received().grow(1).is_err());
    assert!(other.received().grow(bytes).is_ok());
    let local = [(); 8].map(|()| come("127.0.0.1").expect("of all"));
    for (_, service) in &local {
        assert!(service.received().grow(bytes).is_ok(), "of its own");
    }
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
    let mut client = Frames::open(address, None).await;
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
async fn who_finds_no_room_is_told_that_there_may_be_later() {
    for (received_bytes_max, bytes) in [(1, 0), (64 << 10, 32 << 10)] {
        let (address, _) = service(Limits {
            received_bytes_max,
            ..Limits::default()
        })
        .await;
        let request = request_of(Duration::ZERO, bytes);
        let refused = append(address, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert_eq!(RetryClass::of(&refused), RetryClass::Later, "{refused}");
    }
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
    let mut client = Frames::open(address, Some(0)).await;
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

/// An authority's certificate, and that of a replica by it, which is the server's here and a client's.
fn certified(dir: &std::path::Path) -> tls::Files {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        SanType,
    };
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = authority.self_signed(&key).unwrap();
    std::fs::write(dir.join("ca.crt"), certificate.pem()).unwrap();
    let authority = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let mut own = CertificateParams::default();
    own.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    own.subject_alt_names = vec![
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::URI("spiffe://bazaar/order/1".try_into().unwrap()),
    ];
    let certificate = own.signed_by(&key, &authority).unwrap();
    std::fs::write(dir.join("own.crt"), certificate.pem()).unwrap();
    std::fs::write(dir.join("own.key"), key.serialize_pem()).unwrap();
    tls::Files {
        authorities: dir.join("ca.crt"),
        certificate: dir.join("own.crt"),
        key: dir.join("own.key"),
    }
}

/// However many of them there are, and however few places.
#[tokio::test]
async fn who_proves_nothing_takes_no_place_of_those_who_do() {
    let dir = tempfile::tempdir().unwrap();
    let replica = tls::Expected::Replica("1".parse().unwrap());
    let cluster = Cluster::load(&certified(dir.path()), replica).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Shared::new(Limits {
        connections_max: 2,
        connections_per_client_max: Some(2),
        opening_max: PATIENCE,
        ..Limits::default()
    });
    let incoming = Incoming::sharing(listener, Arc::clone(&shared), Some(cluster.clone()));
    const ACCESS: Access = Access(&[("/order.v1.Replication/AppendMany", &[tls::Role::Order])]);
    let serving =
        server(ACCESS, BazaarProtocol::default()).add_service(ReplicationServer::new(Appending));
    tokio::spawn(serving.serve_with_incoming_shutdown(incoming, std::future::pending()));
    let mut strangers = Vec::new();
    for _ in 0..2 * PROVING_MAX {
        strangers.push(TcpStream::connect(address).await.unwrap());
    }
    let security = Security::of(Some(&cluster), replica);
    let channel = connect::lazy(&format!("https://{address}"), &security).unwrap();
    let mut client = ReplicationClient::new(channel);
    let asked = async {
        let requests = tokio_stream::iter([AppendRequest::default()]);
        let answers = client.append_many(requests).await?;
        answers.into_inner().message().await?.ok_or_else(ended)
    };
    timeout(PATIENCE, asked)
        .await
        .expect("it is answered")
        .unwrap();
    assert_eq!(shared.clients.connections(), 1, "strangers do not count");
    // And the oldest of them were ended for others.
    let mut byte = [0; 1];
    let ended = timeout(
        PATIENCE,
        tokio::io::AsyncReadExt::read(&mut strangers[0], &mut byte),
    );
    assert!(matches!(ended.await, Ok(Ok(0) | Err(_))));
}

/// It stays so until somebody replaces a certificate.
#[tokio::test]
async fn a_peer_that_does_not_believe_this_service_is_connected_to_once_a_second_however_often_it_is_called()
 {
    /// "The certificate has expired", in TLS 1.3 (RFC 8446, sections 5.1 and 6).
    const EXPIRED: [u8; 7] = [21, 3, 3, 0, 2, 2, 45];
    let dir = tempfile::tempdir().unwrap();
    let replica = tls::Expected::Replica("1".parse().unwrap());
    let cluster = Cluster::load(&certified(dir.path()), replica).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::default());
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let mut hello = [0; 1024];
            let _ = stream.read(&mut hello).await.unwrap();
            stream.write_all(&EXPIRED).await.unwrap();
        }
    });
    let security = Security::of(Some(&cluster), replica);
    let channel = connect::lazy(&format!("https://{address}"), &security).unwrap();
    let mut client = ReplicationClient::new(channel);
    let (began, mut calls) = (Instant::now(), 0);
    while connections.load(Ordering::Relaxed) < 3 {
        let refused = client
            .append_many(tokio_stream::iter([AppendRequest::default()]))
            .await
            .unwrap_err();
        let causes = std::iter::successors(refused.source(), |&cause| cause.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        let why = "the other end does not believe this one: its certificate has expired";
        assert!(causes.iter().any(|cause| cause == why), "{causes:?}");
        calls += 1;
        sleep(PAUSE).await;
    }
    assert!(
        began.elapsed() >= 2 * Duration::from_secs(1),
        "{calls} calls"
    );
    assert!(calls > 3, "{calls} calls");
}

#[tokio::test]
async fn who_does_not_speak_the_bazaars_protocol_is_refused_from_when_it_is_raised() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let protocol = BazaarProtocol::default();
    serve(listener, &Shared::new(Limits::default()), protocol.clone());
    // As release 0.1.0 does, it says nothing of itself.
    let before = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut before = ReplicationClient::new(before.connect_lazy());
    let mut now = appending(address);
    let ask = async |client: &mut ReplicationClient<tonic::transport::Channel>| {
        let requests = tokio_stream::iter([AppendRequest::default()]);
        client.append_many(requests).await
    };
    let answer = ask(&mut now).await.unwrap();
    let callee = Release::of_callee(answer.metadata().as_ref());
    assert_eq!(callee, Release::own());
    assert!(ask(&mut before).await.is_ok());
    protocol.set(domain::Protocol::NEWEST);
    assert!(ask(&mut now).await.is_ok());
    let refused = ask(&mut before).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(RetryClass::of(&refused), RetryClass::Never);
    let callee = Release::of_callee(refused.metadata().as_ref());
    assert_eq!(callee, Release::own(), "who refuses says who it is, too");
}
