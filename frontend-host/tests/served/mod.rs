//! A gateway that serves clients, alone, and what is held for them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use frontend_host::config::Bounds;
use frontend_host::server;
use frontend_host::server::clients::{Clients, Figures};
use frontend_policy::DEFAULT_POLICY;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::alone;

/// Longest wait for what should take a few seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How soon something is looked at again.
const PAUSE: Duration = Duration::from_millis(10);

/// A gateway with one worker, and its clients.
pub async fn gateway(bounds: Bounds) -> (SocketAddr, Arc<Clients>) {
    let clients = Clients::new(bounds);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(
        (listener, None),
        alone::gateway(DEFAULT_POLICY),
        Arc::clone(&clients),
        server::Workers::start(1).unwrap(),
        std::future::pending(),
    ));
    (address, clients)
}

/// Waits until it comes about.
pub async fn until(clients: &Clients, what: &str, met: impl Fn(Figures) -> bool) {
    let met = async {
        while !met(clients.figures()) {
            sleep(PAUSE).await;
        }
    };
    let met = timeout(PATIENCE, met).await;
    assert!(met.is_ok(), "{what}: {:?}", clients.figures());
}
