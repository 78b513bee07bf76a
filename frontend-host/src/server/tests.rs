//! Connections that go from worker to worker, over real sockets.

#[path = "../../tests/alone/mod.rs"]
mod alone;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::balance::shifts::Quota;
use super::*;
use crate::config::Bounds;
use alone::gateway;

/// Longest wait for what should take milliseconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const SERVE: Quota = Quota {
    seats: usize::MAX,
    giving: 0,
};
const REST: Quota = Quota {
    seats: 0,
    giving: usize::MAX,
};

/// What the default policy answers without asking a backend.
const REQUEST: &[u8] = b"GET /nothing HTTP/1.1\r\nhost: bazaar\r\n\r\n";

/// Two workers that nobody balances, and where clients connect.
async fn two_workers() -> (Workers, SocketAddr) {
    let workers = Workers::start(2).unwrap();
    let handles = workers.handles.clone();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let clients = Clients::new(Bounds::default());
        let open = [Finish::new(), Finish::new()];
        accept(&listener, &gateway(), &clients, &handles, &open).await;
    });
    (workers, address)
}

/// Sends so many requests at once, and reads their answers to the end.
async fn ask(client: &mut TcpStream, requests: usize) {
    client.write_all(&REQUEST.repeat(requests)).await.unwrap();
    read_answers(client, requests).await;
}

/// Reads so many answers, and nothing after them.
async fn read_answers(client: &mut TcpStream, requests: usize) {
    let mut answers = Vec::new();
    while ends_of_answers(&answers) < requests {
        let read = timeout(PATIENCE, client.read_buf(&mut answers)).await;
        let read = read.expect("there is an answer").unwrap();
        assert!(
            read > 0,
            "closed after {}",
            String::from_utf8_lossy(&answers)
        );
    }
    let text = String::from_utf8(answers).unwrap();
    assert_eq!(text.matches("HTTP/1.1 404").count(), requests, "{text}");
    assert!(!text.contains("connection: close"), "{text}");
}

/// How many answers there are of which the body's last byte has come: it is JSON, and nothing
/// else of an answer has braces.
fn ends_of_answers(bytes: &[u8]) -> usize {
    let mut depth = 0;
    let mut ends = 0;
    for byte in bytes {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                ends += usize::from(depth == 0);
            }
            _ => {}
        }
    }
    ends
}

async fn until(met: impl Fn() -> bool) {
    let met = async {
        while !met() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, met).await.expect("it comes about");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_change_workers_while_their_clients_go_on_asking() {
    const CLIENTS: usize = 16;
    let (workers, address) = two_workers().await;
    let stats = Arc::clone(&workers.handles.stats);
    let done = Arc::new(AtomicBool::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let mut client = TcpStream::connect(address).await.unwrap();
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    // Some send the next request before the last one is answered.
                    let requests = 1 + number % 3;
                    ask(&mut client, requests).await;
                    asked += requests;
                }
                asked
            })
        })
        .collect();
    let all = || stats.iter().map(WorkerStats::connections).sum::<usize>() == CLIENTS;
    until(all).await;
    for round in 0..20 {
        let (resting, serving) = (&stats[round % 2], &stats[(round + 1) % 2]);
        serving.apply(SERVE);
        resting.apply(REST);
        until(|| serving.connections() == CLIENTS && resting.connections() == 0).await;
    }
    done.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for client in clients {
        asked += client.await.unwrap();
    }
    let answered: u64 = stats.iter().map(|worker| worker.answers()).sum();
    assert_eq!(answered, asked as u64);
    until(|| stats.iter().all(|worker| worker.connections() == 0)).await;
    workers.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pauses_is_moved_and_finds_its_connection_open() {
    let (workers, address) = two_workers().await;
    let stats = &workers.handles.stats;
    stats[1].apply(REST);
    let mut client = TcpStream::connect(address).await.unwrap();
    ask(&mut client, 1).await;
    assert_eq!(stats[0].connections(), 1);
    stats[1].apply(SERVE);
    stats[0].apply(REST);
    until(|| stats[1].connections() == 1 && stats[0].connections() == 0).await;
    ask(&mut client, 2).await;
    // Half a request keeps it where it is.
    client.write_all(&REQUEST[..10]).await.unwrap();
    stats[0].apply(SERVE);
    stats[1].apply(REST);
    client.write_all(&REQUEST[10..]).await.unwrap();
    read_answers(&mut client, 1).await;
    ask(&mut client, 1).await;
    drop(client);
    until(|| stats.iter().all(|worker| worker.connections() == 0)).await;
    workers.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_stays_where_there_is_no_other_worker() {
    let workers = Workers::start(1).unwrap();
    let stats = &workers.handles.stats;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, place) = Clients::new(Bounds::default()).accept(&listener).await;
    let open = Finish::new();
    let slot = WorkerSlot::at(stats, 0);
    let connection = Connection::new(stream, place, gateway(), slot, open.watcher());
    stats[0].apply(REST);
    workers.handles.deal(0, connection).await;
    for _ in 0..3 {
        ask(&mut client, 2).await;
    }
    workers.stop().await.unwrap();
}
