//! Stands between a caller and a server, for tests: has connections die without a word while new ones work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A way to one server.
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) url: String,
    /// Connections so far, and those of the first that are dead.
    connections: Arc<AtomicU64>,
    dead: Arc<AtomicU64>,
    _relaying: JoinSet<()>,
}

impl Relay {
    /// To a server at `url`.
    pub(crate) async fn to(url: &str) -> Self {
        let server = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (connections, dead) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (made, dies) = (Arc::clone(&connections), Arc::clone(&dead));
        let mut relaying = JoinSet::new();
        relaying.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                let callee = TcpStream::connect(&server).await.unwrap();
                let number = made.fetch_add(1, Ordering::Relaxed);
                let (from_caller, to_caller) = caller.into_split();
                let (from_callee, to_callee) = callee.into_split();
                open.spawn(pass(from_caller, to_callee, number, Arc::clone(&dies)));
                open.spawn(pass(from_callee, to_caller, number, Arc::clone(&dies)));
            }
        });
        Self {
            url,
            connections,
            dead,
            _relaying: relaying,
        }
    }

    /// From now on nothing gets through over the connections that there are. Both ends have it acknowledged all the same.
    pub(crate) fn kill_connections(&self) {
        let made = self.connections.load(Ordering::Relaxed);
        self.dead.store(made, Ordering::Relaxed);
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Passes bytes on while the connection with this number lives.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: u64, dead: Arc<AtomicU64>) {
    let is_dead = || number < dead.load(Ordering::Relaxed);
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if !is_dead() && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    if is_dead() {
        std::future::pending().await // not even its end gets through
    }
}
