//! Who is let in, and what is held for whom.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::time::Duration;

use rpc::budget::Budget;
use rpc::clients::{Clients as ByAddress, Connected, PerClientMax};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::config::{Bounds, CONNECTIONS_PER_CLIENT_MAX};

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one client may hold of a budget, and one connection: as the budget divided by these.
const CLIENT_PART: usize = 4;
const CONNECTION_PART: usize = 16;

/// Once so few places are left, as all places divided by this, who waits has to go earlier.
const SCARCE_PART: usize = 16;

/// How early, where no place is left.
const SCARCE_TIME_MAX: Duration = Duration::from_secs(1);

/// The clients of a listener.
#[derive(Debug)]
pub struct Clients {
    bounds: Bounds,
    places: Arc<Semaphore>,
    connected: Arc<ByAddress<Budgets>>,
    received: Arc<Budget>,
    unsent: Arc<Budget>,
}

/// What may be held for one client.
#[derive(Debug, Clone)]
struct Budgets {
    received: Arc<Budget>,
    unsent: Arc<Budget>,
}

/// What clients have at the moment, and were refused so far.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub connections: usize,
    /// Connections that were closed at once, since their client had too many.
    pub connections_refused: u64,
    pub received: Held,
    pub unsent: Held,
}

/// What is held of a budget.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub bytes: usize,
    pub bytes_max: usize,
    /// How often there was not enough left.
    pub refusals: u64,
}

impl Held {
    fn of(budget: &Budget) -> Self {
        Self {
            bytes: budget.held(),
            bytes_max: budget.bytes_max(),
            refusals: budget.refusals(),
        }
    }
}

impl Clients {
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            places: Arc::new(Semaphore::new(bounds.connections_max)),
            connected: ByAddress::new(PerClientMax {
                told: bounds.connections_per_client_max,
                otherwise: CONNECTIONS_PER_CLIENT_MAX,
            }),
            received: Budget::whole(bounds.received_bytes_max),
            unsent: Budget::whole(bounds.unsent_bytes_max),
        })
    }

    /// What they may have.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The same at the moment, with what is left of the time that they may take.
    pub(super) fn bounds_now(&self) -> Bounds {
        Bounds {
            send_time_max: self.patience(self.bounds.send_time_max),
            idle_time_max: self.patience(self.bounds.idle_time_max),
            ..self.bounds
        }
    }

    /// The next connection that may come in, for any runtime to take up. Waits for a place, and
    /// then for a client.
    pub async fn accept(self: &Arc<Self>, listener: &TcpListener) -> (StdTcpStream, Place) {
        let permit = Arc::clone(&self.places).acquire_owned().await;
        let mut permit = permit.expect("never closed");
        loop {
            match listener.accept().await.and_then(unregistered) {
                Ok((stream, address)) => match self.admit(address, permit) {
                    Ok(place) => return (stream, place),
                    Err(unused) => permit = unused,
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The next of those that have connected already, where there is one and a place for it.
    pub(super) fn accept_queued(
        self: &Arc<Self>,
        listener: &StdTcpListener,
    ) -> Option<(StdTcpStream, Place)> {
        let mut permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        loop {
            let (stream, address) = listener.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            match self.admit(address.ip(), permit) {
                Ok(place) => return Some((stream, place)),
                Err(unused) => permit = unused,
            }
        }
    }

    /// Waits until nobody is connected.
    pub(super) async fn wait_until_all_gone(&self) {
        let all = u32::try_from(self.bounds.connections_max).unwrap_or(u32::MAX);
        let _ = self.places.acquire_many(all).await; // never closed
    }

    fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        permit: OwnedSemaphorePermit,
    ) -> Result<Place, OwnedSemaphorePermit> {
        let bounds = &self.bounds;
        let first = || Budgets {
            received: self.received.part(bounds.received_bytes_max / CLIENT_PART),
            unsent: self.unsent.part(bounds.unsent_bytes_max / CLIENT_PART),
        };
        let Some(connected) = self.connected.admit(address, first) else {
            tracing::debug!(%address, "closed: its client has too many connections");
            return Err(permit);
        };
        let Budgets { received, unsent } = connected.in_common();
        Ok(Place {
            received: received.part(bounds.received_bytes_max / CONNECTION_PART),
            unsent: unsent.part(bounds.unsent_bytes_max / CONNECTION_PART),
            connected,
            clients: Arc::clone(self),
            _permit: permit,
        })
    }

    /// How long may be waited for a client, of what it may take while there are places enough.
    /// As the last ones go this shrinks, so that those who wait longest make room.
    pub(super) fn patience(&self, time_max: Duration) -> Duration {
        let scarce = self.bounds.connections_max.div_ceil(SCARCE_PART);
        let free = self.places.available_permits().min(scarce);
        let share = free as f64 / scarce as f64;
        time_max.mul_f64(share).max(time_max.min(SCARCE_TIME_MAX))
    }

    /// How many there are, and what is held for them.
    pub fn figures(&self) -> Figures {
        Figures {
            connections: self.connected.connections(),
            connections_refused: self.connected.refused(),
            received: Held::of(&self.received),
            unsent: Held::of(&self.unsent),
        }
    }
}

fn unregistered(accepted: (TcpStream, SocketAddr)) -> io::Result<(StdTcpStream, IpAddr)> {
    let (stream, address) = accepted;
    Ok((stream.into_std()?, address.ip()))
}

/// One of the connections that may be open at a time.
#[derive(Debug)]
pub struct Place {
    /// Bytes of requests that may be held.
    pub(super) received: Arc<Budget>,
    /// Bytes of answers that may be held.
    pub(super) unsent: Arc<Budget>,
    connected: Connected<Budgets>,
    clients: Arc<Clients>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Where the connection came from.
    pub fn address(&self) -> IpAddr {
        self.connected.address()
    }

    /// All of whom it is one.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IDLE_TIME_MAX;

    fn clients(bounds: Bounds) -> Arc<Clients> {
        Clients::new(bounds)
    }

    fn come(clients: &Arc<Clients>, address: &str) -> Option<Place> {
        let permit = Arc::clone(&clients.places).try_acquire_owned().ok()?;
        clients.admit(address.parse().unwrap(), permit).ok()
    }

    #[test]
    fn loopback_has_all_places_unless_told_otherwise() {
        let clients = clients(Bounds {
            connections_max: CONNECTIONS_PER_CLIENT_MAX + 2,
            ..Bounds::default()
        });
        let mut places = Vec::new();
        while let Some(place) = come(&clients, "192.0.2.1") {
            places.push(place);
        }
        assert_eq!(places.len(), CONNECTIONS_PER_CLIENT_MAX);
        places.clear();
        while let Some(place) = come(&clients, "::1") {
            places.push(place);
        }
        assert_eq!(places.len(), CONNECTIONS_PER_CLIENT_MAX + 2);
    }

    #[test]
    fn who_waits_longest_makes_room_as_places_get_scarce() {
        let clients = clients(Bounds {
            connections_max: 160,
            ..Bounds::default()
        });
        let mut places = Vec::new();
        let mut patience = |free: usize| {
            while clients.places.available_permits() > free {
                places.push(come(&clients, "::1").expect("there is a place"));
            }
            clients.patience(IDLE_TIME_MAX)
        };
        assert_eq!(patience(160), IDLE_TIME_MAX);
        assert_eq!(patience(10), IDLE_TIME_MAX);
        assert_eq!(patience(5), IDLE_TIME_MAX / 2);
        assert_eq!(patience(0), SCARCE_TIME_MAX);
    }
}
