//! What a version on trial, or the one behind, changes for clients of the active one, which is nothing;
//! over real connections, without a backend.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use frontend_host::config::Bounds;
use frontend_host::handler::Gateway;
use frontend_host::server;
use frontend_host::server::clients::Clients;
use frontend_policy::{DEFAULT_POLICY, Reason, Share, Trial};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::alone;

/// Time for what should happen at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn guest(name: &str) -> Vec<u8> {
    let built = policy_build::Builder::in_project("tests/guests").example(name);
    std::fs::read(built.build_once().unwrap()).unwrap()
}

/// The default policy as it was built for `bazaar:policy@1.0.0`: headers are text to it.
fn default_1_0() -> Vec<u8> {
    let project = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::fs::read(format!("{project}/tests/policies/default-1.0.wasm")).unwrap()
}

fn operator() -> Reason {
    Reason {
        who: "a test".into(),
        why: "to see".into(),
        ..Reason::default()
    }
}

/// In which place beside the active version another one is.
#[derive(Debug, Clone, Copy)]
enum Place {
    None,
    Shadow,
    Canary,
    Behind,
}

impl Place {
    /// A gateway where `active` decides, and `other` is in this place.
    fn gateway(self, active: &[u8], other: &[u8]) -> Arc<Gateway> {
        if let Self::Behind = self {
            let gateway = alone::gateway(other);
            gateway.policy.activate(active, &operator()).unwrap();
            return gateway;
        }
        let gateway = alone::gateway(active);
        let all = Share::new(1.0).unwrap();
        let trial = match self {
            Self::Shadow => Some(Trial::Shadow(all)),
            Self::Canary => Some(Trial::Canary(all)),
            _ => None,
        };
        if let Some(trial) = trial {
            gateway.policy.try_out(other, trial, &operator()).unwrap();
        }
        gateway
    }
}

/// The first answer, but for its time: one that tells a client to go on is one as well.
async fn answer_to(gateway: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    while !is_whole(&String::from_utf8_lossy(&answer)) {
        let read = timeout(AT_ONCE, stream.read_buf(&mut answer)).await;
        assert!(read.expect("it answers").unwrap() > 0, "{answer:?}");
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    // Each has a time and an id of its own.
    let own = ["date:", "x-request-id:"];
    let lines = answer
        .lines()
        .filter(|line| !own.iter().any(|name| line.starts_with(name)));
    lines.collect()
}

fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    body.len() >= length
}

const NOT_TEXT: &[u8] = b"GET /none HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \xff\r\n\r\n";
const CODED: &[u8] =
    b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n";
const CODED_AND_LARGE: &[u8] =
    b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 999999\r\n\r\n";
const CODED_AND_EXPECTANT: &[u8] =
    b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";

async fn answers(place: Place, active: &[u8], other: &[u8], requests: &[&[u8]]) -> Vec<String> {
    let gateway = place.gateway(active, other);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients = Clients::new(Bounds::default());
    let for_ever = std::future::pending();
    tokio::spawn(server::serve(
        (listener, None),
        gateway,
        clients,
        server::Workers::start(1).unwrap(),
        for_ever,
    ));
    let mut answers = Vec::new();
    for request in requests {
        answers.push(answer_to(address, request).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_sees_text_alone_turns_nobody_away_but_where_it_decides() {
    let old = default_1_0();
    let requests = &[NOT_TEXT];
    let refused = answers(Place::None, &old, &[], requests).await;
    assert!(refused[0].starts_with("HTTP/1.1 400 "), "{refused:?}");
    assert!(
        refused[0].contains("`idempotency-key` is not text"),
        "{refused:?}"
    );
    let alone = answers(Place::None, DEFAULT_POLICY, &[], requests).await;
    assert!(alone[0].starts_with("HTTP/1.1 404 "), "{alone:?}");
    for place in [Place::Shadow, Place::Canary, Place::Behind] {
        let beside = answers(place, DEFAULT_POLICY, &old, requests).await;
        assert_eq!(beside, alone, "{place:?}");
    }
}

/// `echoes` can deal with coded bodies, and the default policy cannot. Which is known before a body is
/// read, and before a client is told to send one.
#[tokio::test(flavor = "multi_thread")]
async fn coded_bodies_are_taken_where_the_version_that_decides_takes_them() {
    let echoes = guest("echoes");
    let requests = &[CODED, CODED_AND_LARGE, CODED_AND_EXPECTANT];
    let alone = answers(Place::None, DEFAULT_POLICY, &[], requests).await;
    for answer in &alone {
        assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    }
    for place in [Place::Shadow, Place::Behind] {
        let beside = answers(place, DEFAULT_POLICY, &echoes, requests).await;
        assert_eq!(beside, alone, "{place:?}");
    }
    let canary = answers(
        Place::Canary,
        DEFAULT_POLICY,
        &echoes,
        &[CODED_AND_EXPECTANT],
    )
    .await;
    assert!(
        canary[0].starts_with("HTTP/1.1 100 "),
        "it decides: {canary:?}"
    );
}
