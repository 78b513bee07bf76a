//! Connections and the workers that serve them, over real sockets.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::*;
use crate::alone::gateway;
use crate::config::Bounds;
use frontend_policy::DEFAULT_POLICY;

/// Longest wait for what should take milliseconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the default policy answers without asking a backend.
const REQUEST: &[u8] = b"GET /nothing HTTP/1.1\r\nhost: bazaar\r\n\r\n";

async fn until(met: impl Fn() -> bool) {
    let met = async {
        while !met() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, met).await.expect("it comes about");
}

/// Asks once, and waits until the answer begins.
async fn ask(client: &mut TcpStream) {
    client.write_all(REQUEST).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = timeout(PATIENCE, client.read(&mut answer)).await;
    let read = read.expect("there is an answer").unwrap();
    let text = String::from_utf8_lossy(&answer[..read]);
    assert!(text.starts_with("HTTP/1.1 404"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_spread_over_the_workers_and_counted_while_they_live() {
    let workers = Workers::start(2).unwrap();
    let handles = workers.handles.clone();
    let connections = || handles.stats.iter().map(WorkerStats::connections);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn({
        let handles = handles.clone();
        async move {
            let clients = Clients::new(Bounds::default());
            let open = [Finish::new(), Finish::new()];
            let dealer = Dealer {
                gateway: &gateway(DEFAULT_POLICY),
                tls: None,
                workers: &handles,
                open: &open,
            };
            accept(&listener, &clients, &dealer, std::future::pending()).await;
        }
    });
    let mut clients = Vec::new();
    for count in 1..=6 {
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client).await;
        clients.push(client);
        assert_eq!(connections().sum::<usize>(), count);
        assert!(connections().max().unwrap() - connections().min().unwrap() <= 1);
    }
    for client in &mut clients {
        ask(client).await;
    }
    drop(clients);
    until(|| connections().all(|connections| connections == 0)).await;
    accepting.abort();
    workers.stop().await.unwrap();
}
