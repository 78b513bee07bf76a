//! How every service takes connections: so many at a time, each with so many calls, and what is
//! held for them.
//!
//! - [`connection`]: one connection, and when it has to end;
//! - [`calls`]: its calls; [`message`] tells where their messages end.

mod connection;
mod calls;
mod message;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use daemon::tasks::{self, Task};
use metrics::metric as exported;
use metrics::{Export, Families};
use rustix::process::{Resource, getrlimit};
use tls::Cluster;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::Stream;
use tokio_util::either::Either;
use tonic::Request;
use tonic::transport::Server;
use tower_layer::{Identity, Stack};

use crate::access::Access;
use crate::budget::Budget;
use crate::clients::{Client, Clients, Connected, PerClientMax, network_of};
use crate::release::{BazaarProtocol, Release};

pub use calls::{Bounded, BoundedCalls};
pub use connection::{CallUnderWay, Connection, Peer, Waiting};

/// [`Limits::connections_max`], or fewer where fewer files may be open.
pub const CONNECTIONS_MAX: usize = 1024;

/// One client may have as many connections as all divided by this, unless it is on this machine.
const CLIENT_CONNECTIONS_PART: usize = 4;

/// [`Limits::opening_max`].
pub const OPENING_TIME_MAX: Duration = Duration::from_secs(5);

/// [`Limits::idle_max`].
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(75);

/// [`Limits::arriving_max`].
pub const ARRIVING_TIME_MAX: Duration = Duration::from_secs(10);

/// [`Limits::taking_max`].
pub const TAKING_TIME_MAX: Duration = Duration::from_secs(10);

/// [`Limits::received_bytes_max`].
pub const RECEIVED_BYTES_MAX: usize = 64 << 20;

/// [`Limits::unsent_bytes_max`].
pub const UNSENT_BYTES_MAX: usize = 64 << 20;

/// What one client may hold of such bytes: as all divided by this.
const CLIENT_BYTES_PART: usize = 4;

/// Most calls at a time on one connection.
const STREAMS_MAX: u32 = 1024;

/// Most bytes of one message of a request, which callers are told by a refusal. The largest that
/// there are, rows for a follower, have some 280 KB.
pub const MESSAGE_BYTES_MAX: usize = 512 << 10;

/// What a peer may send ahead of its being read, on one stream as on the whole connection.
const WINDOW_BYTES: u32 = 256 << 10;

/// Most bytes of a call's head, counted as HTTP/2 does (RFC 9113, section 6.5.2). Bazaar's own
/// clients send less than 1 KiB.
const HEAD_LIST_BYTES_MAX: u32 = 8 << 10;

/// How often a connection is probed, and how long the answer may take. Finds peers that are
/// gone without a word.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Most connections at a time that are yet to prove whose they are. One more ends the oldest of whoever has most.
const PROVING_MAX: usize = 256;

/// How often is logged that clients have too many connections.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(60);

/// Open files that are left for everything but connections.
const RESERVED_FILES: usize = 512;

/// A server with the limits of every service. It serves what [`Incoming`] takes in, and whom [`Access`] lets, where
/// callers have proven who they are, of releases that speak the bazaar's version of the protocol.
pub fn server(access: Access, protocol: BazaarProtocol) -> Server<Stack<Bounded, Identity>> {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEAD_LIST_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .layer(Bounded::new(access, protocol))
}

/// As many connections as are wanted, or as leave enough of the files that this process may have
/// open.
pub fn connections_within_open_files(wanted: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| files.try_into().unwrap_or(usize::MAX));
    wanted.min(files.saturating_sub(RESERVED_FILES).max(files / 2))
}

/// What is let in, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at a time; more wait with the kernel until others end.
    pub connections_max: usize,
    /// Connections from one address, or one /64 of IPv6; more are closed at once. Where absent,
    /// this machine may have all, and others a quarter.
    pub connections_per_client_max: Option<usize>,
    /// Longest wait for the opening of HTTP/2; a connection is not probed before it is complete.
    pub opening_max: Duration,
    /// How long a connection may be without a call; one that [waits](CallUnderWay::pause) does not count.
    /// Where no place is left, a second at most.
    pub idle_max: Duration,
    /// How long a request may take to arrive, and each message of a stream of them.
    pub arriving_max: Duration,
    /// How long a peer may take nothing of what is sent to it.
    pub taking_max: Duration,
    /// Bytes held of calls that are not answered; one [client](Client) may hold a quarter of it.
    /// Calls past it fail with `RESOURCE_EXHAUSTED`.
    pub received_bytes_max: usize,
    /// Bytes held of answers that are not taken; one client may have a quarter of it.
    pub unsent_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: connections_within_open_files(CONNECTIONS_MAX),
            connections_per_client_max: None,
            opening_max: OPENING_TIME_MAX,
            idle_max: IDLE_TIME_MAX,
            arriving_max: ARRIVING_TIME_MAX,
            taking_max: TAKING_TIME_MAX,
            received_bytes_max: RECEIVED_BYTES_MAX,
            unsent_bytes_max: UNSENT_BYTES_MAX,
        }
    }
}

/// Whose a request is. Those that did not come through [`Incoming`] are all one client's.
pub fn client_of<T>(request: &Request<T>) -> Client {
    let peer = request.extensions().get::<Peer>();
    peer.map_or(Client::Local(0), Peer::client)
}

/// Whose a request is, for people: who has proven to be at the other end, and the address. Nothing where it did not come
/// through [`Incoming`].
pub fn named_client_of<T>(request: &Request<T>) -> Option<String> {
    let peer = request.extensions().get::<Peer>();
    peer.map(Peer::to_string)
}

/// Who has proven to be at the other end, where that is asked for.
pub fn caller_of<T>(request: &Request<T>) -> Option<tls::Principal> {
    let peer = request.extensions().get::<Peer>();
    peer.and_then(|peer| peer.principal().cloned())
}

/// What the caller says of its release.
pub fn release_of<T>(request: &Request<T>) -> Release {
    Release::of_caller(request.metadata().as_ref())
}

/// What all connections have in common.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    places: Arc<Semaphore>,
    clients: Arc<Clients<Budgets>>,
    /// How many were admitted.
    connections: AtomicU64,
    received: Arc<Budget>,
    unsent: Arc<Budget>,
}

/// What may be held for one client.
#[derive(Debug, Clone)]
struct Budgets {
    received: Arc<Budget>,
    unsent: Arc<Budget>,
}

impl Shared {
    fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            places: Arc::new(Semaphore::new(limits.connections_max)),
            clients: Clients::new(PerClientMax {
                told: limits.connections_per_client_max,
                otherwise: limits.connections_max.div_ceil(CLIENT_CONNECTIONS_PART),
            }),
            connections: AtomicU64::default(),
            received: Budget::whole(limits.received_bytes_max),
            unsent: Budget::whole(limits.unsent_bytes_max),
        })
    }

    /// Whom a connection from that address makes room for, unless its client has too many.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<(Connected<Budgets>, Peer)> {
        let connected = self.clients.admit(address, || self.budgets())?;
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let client = connected.client(number);
        let budgets = match client {
            Client::Local(_) => self.budgets(),
            _ => connected.in_common().clone(),
        };
        let peer = Peer::new(self, connected.address(), client, budgets);
        Some((connected, peer))
    }

    fn budgets(&self) -> Budgets {
        let part = |of: &Arc<Budget>| of.part(of.bytes_max() / CLIENT_BYTES_PART);
        Budgets {
            received: part(&self.received),
            unsent: part(&self.unsent),
        }
    }
}

/// The connections that come in. Dropping it ends the taking in.
#[derive(Debug)]
pub struct Incoming {
    accepted: mpsc::Receiver<Connection>,
    shared: Arc<Shared>,
    _accepting: Task<()>,
}

impl Incoming {
    /// Accepts within limits.
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        Self::sharing(listener, Shared::new(limits), None)
    }

    /// The same, where those who connect prove who they are, if there is a cluster that they are to be of.
    pub fn secured(listener: TcpListener, limits: Limits, cluster: Option<Cluster>) -> Self {
        Self::sharing(listener, Shared::new(limits), cluster)
    }

    fn sharing(listener: TcpListener, shared: Arc<Shared>, cluster: Option<Cluster>) -> Self {
        let (sender, accepted) = mpsc::channel(1);
        Self {
            accepted,
            shared: Arc::clone(&shared),
            _accepting: tasks::spawn("accept", accept(listener, shared, cluster, sender)),
        }
    }

    /// What its connections have, whenever that is asked.
    pub fn usage(&self) -> Usage {
        Usage(Arc::clone(&self.shared))
    }
}

/// How many connections a listener has, and what is held for them.
#[derive(Debug)]
pub struct Usage(Arc<Shared>);

impl Export for Usage {
    fn export(&self, families: &mut Families<'_>) -> fmt::Result {
        let Shared {
            limits,
            clients,
            received,
            unsent,
            ..
        } = &*self.0;
        families.add_one(&exported::CONNECTIONS, clients.connections() as u64)?;
        families.add_one(&exported::CONNECTIONS_MAX, limits.connections_max as u64)?;
        families.add_one(&exported::CONNECTIONS_REFUSED, clients.refused())?;
        let of_each = |value: fn(&Budget) -> u64| {
            [("received", received), ("unsent", unsent)].map(|(what, of)| ([what], value(of)))
        };
        families.add(&exported::HELD_BYTES, of_each(|of| of.held() as u64))?;
        let max = of_each(|of| of.bytes_max() as u64);
        families.add(&exported::HELD_BYTES_MAX, max)?;
        families.add(&exported::HELD_BYTES_REFUSALS, of_each(Budget::refusals))
    }
}

impl From<TcpListener> for Incoming {
    /// Accepts within the limits of every service.
    fn from(listener: TcpListener) -> Self {
        Self::new(listener, Limits::default())
    }
}

impl From<(TcpListener, Option<Cluster>)> for Incoming {
    /// Accepts within the limits of every service.
    fn from((listener, cluster): (TcpListener, Option<Cluster>)) -> Self {
        Self::secured(listener, Limits::default(), cluster)
    }
}

impl From<(TcpListener, Limits)> for Incoming {
    fn from((listener, limits): (TcpListener, Limits)) -> Self {
        Self::new(listener, limits)
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted
            .poll_recv(context)
            .map(|accepted| accepted.map(Ok))
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    cluster: Option<Cluster>,
    accepted: mpsc::Sender<Connection>,
) {
    match cluster {
        None => accept_all(listener, shared, accepted).await,
        Some(cluster) => accept_proven(listener, shared, cluster, accepted).await,
    }
}

/// Whoever connects is let in while there are places.
async fn accept_all(
    listener: TcpListener,
    shared: Arc<Shared>,
    accepted: mpsc::Sender<Connection>,
) {
    let mut refusals = Refusals::default();
    loop {
        let place = Arc::clone(&shared.places).acquire_owned().await;
        let place = place.expect("never closed");
        let (stream, connected, peer) = next_admitted(&listener, &shared, &mut refusals).await;
        match connection::prepare(&stream, peer.limits()) {
            Ok(()) => {
                let connection = Connection::new(Either::Left(stream), peer, (place, connected));
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "cannot serve a connection"),
        }
    }
}

/// Who proves who it is counts, and has a place, after that: strangers take neither.
async fn accept_proven(
    listener: TcpListener,
    shared: Arc<Shared>,
    cluster: Cluster,
    accepted: mpsc::Sender<Connection>,
) {
    let refusals = Arc::new(Mutex::new(Refusals::default()));
    // Dropped, they end.
    let mut entering = JoinSet::new();
    let mut unproven = Unproven::default();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while entering.try_join_next().is_some() {}
        unproven.make_room();
        let has_proven = Arc::new(AtomicBool::default());
        let one = Entering {
            stream,
            address,
            has_proven: Arc::clone(&has_proven),
            shared: Arc::clone(&shared),
            cluster: cluster.clone(),
        };
        let (accepted, refusals) = (accepted.clone(), Arc::clone(&refusals));
        #[expect(clippy::disallowed_methods, reason = "its client sees its end")]
        let task = entering.spawn(async move {
            match one.enter().await {
                Ok(connection) => drop(accepted.send(connection).await), // or nobody serves any more
                Err(error) if is_silence(&error) => {}
                Err(error) => {
                    let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
                    refusals.note(address, &error);
                }
            }
        });
        unproven.push(network_of(address), task, has_proven);
    }
}

/// A connection whose client is yet to prove who it is.
struct Entering {
    stream: TcpStream,
    address: IpAddr,
    has_proven: Arc<AtomicBool>,
    shared: Arc<Shared>,
    cluster: Cluster,
}

impl Entering {
    async fn enter(self) -> io::Result<Connection> {
        let limits = &self.shared.limits;
        connection::prepare(&self.stream, limits)?;
        let proving = timeout(limits.opening_max, self.cluster.accept(self.stream)).await;
        let (stream, proof) = proving??;
        self.has_proven.store(true, Ordering::Relaxed);
        let Some((connected, peer)) = self.shared.admit(self.address) else {
            let many = format!("{} has too many connections", proof.principal());
            return Err(io::Error::other(many));
        };
        let peer = peer.proven(proof, connected.network());
        let Ok(place) = timeout(limits.opening_max, peer.place()).await else {
            return Err(io::Error::other("every place was taken for too long"));
        };
        Ok(Connection::new(stream, peer, (place, connected)))
    }
}

/// Somebody who says nothing, or asks only whether anybody listens, as probes do, is no news.
fn is_silence(error: &io::Error) -> bool {
    [io::ErrorKind::TimedOut, io::ErrorKind::UnexpectedEof].contains(&error.kind())
}

/// Connections that are yet to prove whose they are, the oldest first.
#[derive(Default)]
struct Unproven(VecDeque<(IpAddr, AbortHandle, Arc<AtomicBool>)>);

impl Unproven {
    /// Where there are too many, the oldest of whoever has most goes. A proof takes milliseconds: it is one that says
    /// nothing, or has many.
    fn make_room(&mut self) {
        self.0.retain(|(_, task, has_proven)| {
            !task.is_finished() && !has_proven.load(Ordering::Relaxed)
        });
        if self.0.len() < PROVING_MAX {
            return;
        }
        let mut counts = HashMap::new();
        for (network, ..) in &self.0 {
            *counts.entry(*network).or_insert(0_usize) += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let place =
            most.and_then(|(most, _)| self.0.iter().position(|(network, ..)| *network == most));
        if let Some((_, task, _)) = place.and_then(|place| self.0.remove(place)) {
            task.abort();
        }
    }

    fn push(&mut self, network: IpAddr, task: AbortHandle, has_proven: Arc<AtomicBool>) {
        self.0.push_back((network, task, has_proven));
    }
}

/// The next connection of a client that has not too many. Others are closed at once.
async fn next_admitted(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    refusals: &mut Refusals,
) -> (TcpStream, Connected<Budgets>, Peer) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => match shared.admit(address.ip()) {
                Some((connected, peer)) => return (stream, connected, peer),
                None => refusals.note(address.ip(), &"the client has too many"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Refused connections, which are logged now and then however many there are.
#[derive(Debug, Default)]
struct Refusals {
    unlogged: u64,
    logged_at: Option<Instant>,
}

impl Refusals {
    /// `why` is what the one says that is logged.
    fn note(&mut self, address: IpAddr, why: &dyn fmt::Display) {
        self.unlogged += 1;
        let logged = self.logged_at.map(|at| at.elapsed());
        if logged.is_none_or(|ago| ago >= REFUSALS_LOGGED_EVERY) {
            let connections = std::mem::take(&mut self.unlogged);
            tracing::warn!(%address, connections, %why, "connections were closed before they were served");
            self.logged_at = Some(Instant::now());
        }
    }
}
