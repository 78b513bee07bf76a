//! A TCP proxy for one link between two servers, that can be cut off, slowed down and reset.
//!
//! A cut-off link holds bytes back and keeps its connections, as a network does that loses every
//! packet: what was under way arrives late when the link is healed, or never when it is reset
//! then. Both directions are cut off one by one.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

/// Connections of one link; more are reset at once.
const CONNECTIONS_MAX: usize = 64;

/// Bytes that a direction passes on at a time. They bound what a delay holds.
const CHUNK_BYTES: usize = 16 << 10;

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    There,
    Back,
}

/// What a link does to the bytes that it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conduct {
    /// Nothing passes from who connected.
    pub holds_there: bool,
    /// Nothing passes to who connected.
    pub holds_back: bool,
    /// How much later each chunk arrives.
    pub delay: Duration,
}

impl Conduct {
    fn holds(self, direction: Direction) -> bool {
        match direction {
            Direction::There => self.holds_there,
            Direction::Back => self.holds_back,
        }
    }
}

/// A link's proxy, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a port of its own, and passes connections on to `to`, which need not listen yet.
    pub fn start(to: SocketAddr) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port for a proxy");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared::default());
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, to, &shared))
        };
        Self {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where the link's beginning connects instead of its end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Treats bytes like this from now on.
    pub fn set(&self, conduct: Conduct) {
        self.shared.lock().conduct = conduct;
        self.shared.changed.notify_all();
    }

    /// Resets every connection; what it held is lost.
    pub fn reset(&self) {
        let mut state = self.shared.lock();
        state.resets += 1;
        for connection in state.connections.drain(..) {
            if let Some(connection) = connection.upgrade() {
                connection.reset();
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.reset();
        // Wakes the acceptor, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    conduct: Conduct,
    /// How often the link was reset: a connection of before may pass nothing on.
    resets: u64,
    connections: Vec<Weak<Connection>>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a chunk of a connection may pass; `false` where it never will.
    fn may_pass(&self, direction: Direction, resets: u64) -> bool {
        let over = |state: &State| state.closed || state.resets != resets;
        let delay = self.lock().conduct.delay;
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        let state = self
            .changed
            .wait_while(self.lock(), |state| {
                state.conduct.holds(direction) && !over(state)
            })
            .unwrap_or_else(PoisonError::into_inner);
        !over(&state)
    }
}

/// Both ends of one connection.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    /// Both ends get a reset as soon as the threads that copy have let go.
    fn reset(&self) {
        for end in [&self.client, &self.server] {
            reset_at_close(end);
            // Wakes who reads, and sends nothing.
            end.shutdown(Shutdown::Read).ok();
        }
    }

    fn copy(&self, direction: Direction, shared: &Shared, resets: u64) -> io::Result<()> {
        let (mut from, mut to) = match direction {
            Direction::There => (&self.client, &self.server),
            Direction::Back => (&self.server, &self.client),
        };
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut chunk);
            // Nor does the news of an end pass a link that is cut off.
            let may_pass = shared.may_pass(direction, resets);
            match read? {
                1.. if !may_pass => return Ok(()),
                0 => return Ok(()),
                length => to.write_all(&chunk[..length])?,
            }
        }
    }
}

fn reset_at_close(end: &TcpStream) {
    SockRef::from(end).set_linger(Some(Duration::ZERO)).ok();
}

fn accept(listener: &TcpListener, to: SocketAddr, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let state = shared.lock();
        if state.closed {
            return;
        }
        let resets = state.resets;
        drop(state);
        let Ok(client) = client else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let Some(connection) = open(client, to, &shared, resets) else {
                return;
            };
            let back = {
                let (connection, shared) = (Arc::clone(&connection), Arc::clone(&shared));
                thread::spawn(move || pass(&connection, Direction::Back, &shared, resets))
            };
            pass(&connection, Direction::There, &shared, resets);
            back.join().ok();
        });
    }
}

/// Connects to the link's end. Where that does not listen, who connected gets a reset.
fn open(
    client: TcpStream,
    to: SocketAddr,
    shared: &Shared,
    resets: u64,
) -> Option<Arc<Connection>> {
    // Shaking hands takes both directions.
    let reachable = [Direction::There, Direction::Back]
        .into_iter()
        .all(|direction| shared.may_pass(direction, resets));
    let server = if reachable {
        TcpStream::connect(to).ok()
    } else {
        None
    };
    let Some(server) = server else {
        reset_at_close(&client);
        return None;
    };
    for end in [&client, &server] {
        end.set_nodelay(true).ok()?;
    }
    let connection = Arc::new(Connection { client, server });
    let mut state = shared.lock();
    state
        .connections
        .retain(|connection| connection.strong_count() > 0);
    if state.closed || state.resets != resets || state.connections.len() >= CONNECTIONS_MAX {
        connection.reset();
        return None;
    }
    state.connections.push(Arc::downgrade(&connection));
    Some(connection)
}

/// Copies until either end is done with it; the other direction then ends, too.
fn pass(connection: &Connection, direction: Direction, shared: &Shared, resets: u64) {
    connection.copy(direction, shared, resets).ok();
    for end in [&connection.client, &connection.server] {
        // After a reset this would say goodbye politely.
        let how = if shared.lock().resets == resets {
            Shutdown::Both
        } else {
            Shutdown::Read
        };
        end.shutdown(how).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy, and both ends of a connection through it.
    fn connected() -> (Proxy, TcpStream, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap());
        let client = TcpStream::connect(proxy.address()).unwrap();
        let (server, _) = server.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
        }
        (proxy, client, server)
    }

    fn gets(mut end: &TcpStream) -> Option<u8> {
        let mut byte = [0];
        end.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    #[test]
    fn a_link_that_is_cut_off_one_way_passes_the_other_and_delivers_late() {
        let (proxy, mut client, mut server) = connected();
        client.write_all(b"a").unwrap();
        assert_eq!(gets(&server), Some(b'a'));
        proxy.set(Conduct {
            holds_there: true,
            ..Conduct::default()
        });
        client.write_all(b"b").unwrap();
        server.write_all(b"c").unwrap();
        assert_eq!(gets(&client), Some(b'c'));
        assert_eq!(gets(&server), None);
        proxy.set(Conduct::default());
        assert_eq!(gets(&server), Some(b'b'));
    }

    #[test]
    fn a_link_that_is_cut_off_does_not_tell_that_an_end_is_gone() {
        let (proxy, mut client, server) = connected();
        proxy.set(Conduct {
            holds_back: true,
            ..Conduct::default()
        });
        drop(server);
        let still_waits = client.read(&mut [0]).unwrap_err();
        assert_eq!(still_waits.kind(), io::ErrorKind::WouldBlock);
        proxy.set(Conduct::default());
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        assert!(matches!(client.read(&mut [0]), Ok(0)));
    }

    #[test]
    fn a_reset_link_loses_what_it_held_and_resets_both_ends() {
        let (proxy, mut client, mut server) = connected();
        proxy.set(Conduct {
            holds_there: true,
            holds_back: true,
            ..Conduct::default()
        });
        client.write_all(b"a").unwrap();
        assert_eq!(gets(&server), None);
        proxy.reset();
        proxy.set(Conduct::default());
        for end in [&mut client, &mut server] {
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let error = end.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[test]
    fn where_nothing_listens_the_client_is_reset() {
        let nowhere = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.local_addr().unwrap()
        };
        let proxy = Proxy::start(nowhere);
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        assert!(client.read(&mut [0]).is_err());
    }
}
