//! Stands between clients and a server, and loses what the server says once it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

/// What becomes of what the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    /// It arrives.
    Pass = 0,
    /// It is lost, and nothing says so: the connection stays.
    Lose = 1,
    /// The connection breaks in its place, once the server says something.
    Break = 2,
}

/// How long a direction waits for bytes before it looks whether the other one has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Serves for as long as the test runs.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    replies: Arc<AtomicU8>,
}

impl Proxy {
    /// To a port of this machine's.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
        let port = listener.local_addr().expect("it listens").port();
        let replies = Arc::new(AtomicU8::new(Replies::Pass as u8));
        let shared = Arc::clone(&replies);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else {
                    continue;
                };
                let replies = Arc::clone(&shared);
                thread::spawn(move || connect(client, server, replies));
            }
        });
        Self { port, replies }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on, on all connections.
    pub fn set(&self, replies: Replies) {
        self.replies.store(replies as u8, Ordering::SeqCst);
    }
}

fn connect(client: TcpStream, server: TcpStream, replies: Arc<AtomicU8>) {
    let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let forth = thread::spawn(move || pass(from_client, to_server, || Replies::Pass));
    let replies = || match replies.load(Ordering::SeqCst) {
        1 => Replies::Lose,
        2 => Replies::Break,
        _ => Replies::Pass,
    };
    pass(server, client, replies);
    let _ = forth.join();
}

fn pass(mut from: TcpStream, mut to: TcpStream, replies: impl Fn() -> Replies) {
    let mut bytes = [0; 16 << 10];
    let _ = from.set_read_timeout(Some(LOOK));
    loop {
        let count = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => break,
        };
        match replies() {
            Replies::Pass => {
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            Replies::Lose => {}
            Replies::Break => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
