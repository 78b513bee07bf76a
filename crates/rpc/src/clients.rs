//! Who is connected, client by client, so that none can take what is there for all.
//!
//! A client is an address, or one /64 of IPv6. This machine's own is home to many services: unless
//! a listener is told otherwise, it may have all connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tls::Principal;
use tokio::sync::Semaphore;

/// The bits that the addresses of one client have in common in IPv6: what a site, and often a
/// household, is given (RFC 6177).
const CLIENT_PREFIX_BITS: u32 = 64;

/// Connections that one client may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerClientMax {
    /// Of each, where it was said.
    pub told: Option<usize>,
    /// Of each but this machine, which may have all, where it was not.
    pub otherwise: usize,
}

impl PerClientMax {
    fn of(self, address: IpAddr) -> usize {
        match self.told {
            Some(connections) => connections,
            None if address.is_loopback() => usize::MAX,
            None => self.otherwise,
        }
    }
}

/// The clients of a listener, each with what it has in common.
#[derive(Debug)]
pub struct Clients<T> {
    per_client_max: PerClientMax,
    connected: Mutex<HashMap<IpAddr, Connections<T>>>,
    /// Connections that were not admitted.
    refused: AtomicU64,
}

#[derive(Debug)]
struct Connections<T> {
    count: usize,
    in_common: T,
}

impl<T: Clone> Clients<T> {
    /// Nobody yet.
    pub fn new(per_client_max: PerClientMax) -> Arc<Self> {
        Arc::new(Self {
            per_client_max,
            connected: Mutex::default(),
            refused: AtomicU64::default(),
        })
    }

    /// Counts a connection from that address, unless its client has too many. `first` makes what the
    /// connections of a client have in common.
    pub fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        first: impl FnOnce() -> T,
    ) -> Option<Connected<T>> {
        let address = address.to_canonical();
        let mut connected = self.connected();
        let network = connected.entry(network_of(address));
        let client = network.or_insert_with(|| Connections {
            count: 0,
            in_common: first(),
        });
        if client.count >= self.per_client_max.of(address) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        client.count += 1;
        Some(Connected {
            in_common: client.in_common.clone(),
            address,
            clients: Arc::clone(self),
        })
    }
}

impl<T> Clients<T> {
    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connected().values().map(|client| client.count).sum()
    }

    /// How many were not admitted so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn leave(&self, address: IpAddr) {
        if let Entry::Occupied(mut client) = self.connected().entry(network_of(address)) {
            client.get_mut().count -= 1;
            if client.get().count == 0 {
                client.remove();
            }
        }
    }

    fn connected(&self) -> MutexGuard<'_, HashMap<IpAddr, Connections<T>>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of a client's connections, until it is dropped.
#[derive(Debug)]
pub struct Connected<T> {
    in_common: T,
    address: IpAddr,
    clients: Arc<Clients<T>>,
}

impl<T> Connected<T> {
    /// What the client's connections have in common.
    pub fn in_common(&self) -> &T {
        &self.in_common
    }

    /// Where it comes from.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// What stands for its client.
    pub fn network(&self) -> IpAddr {
        network_of(self.address)
    }

    /// Who it counts as where each has a part of something; `number` is the connection's own.
    pub fn client(&self, number: u64) -> Client {
        if self.address.is_loopback() {
            Client::Local(number)
        } else {
            Client::Remote(network_of(self.address))
        }
    }
}

impl<T> Drop for Connected<T> {
    fn drop(&mut self) {
        self.clients.leave(self.address);
    }
}

/// What stands for the client at an address.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let host_bits = Ipv6Addr::BITS - CLIENT_PREFIX_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(
                address.to_bits() >> host_bits << host_bits,
            ))
        }
    }
}

/// Who counts as one where each may have a part of something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// All connections of whoever has proven to be that, from one address, or one /64 of IPv6.
    Service(Principal, IpAddr),
    /// All connections from one address, or one /64 of IPv6.
    Remote(IpAddr),
    /// One connection from this machine, by its number.
    Local(u64),
}

impl Client {
    /// Who it has proven to be, wherever it is, where that is asked for.
    pub fn principal(&self) -> Option<&Principal> {
        match self {
            Self::Service(principal, _) => Some(principal),
            Self::Remote(_) | Self::Local(_) => None,
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = match self {
            Self::Service(principal, network) => {
                write!(f, "{principal} at ")?;
                network
            }
            Self::Remote(network) => network,
            Self::Local(number) => return write!(f, "this machine, by its connection {number}"),
        };
        match network {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) if address.is_loopback() => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/{CLIENT_PREFIX_BITS}"),
        }
    }
}

/// So many of something for each client at a time, out of what there is for all; or for each of whoever else it is counted
/// by.
#[derive(Debug)]
pub struct PerClient<C = Client> {
    each_max: usize,
    /// Of those that have any.
    left: Mutex<HashMap<C, Weak<Semaphore>>>,
}

impl<C: Clone + Eq + Hash> PerClient<C> {
    /// At most `each_max` for each.
    pub fn new(each_max: usize) -> Self {
        Self {
            each_max,
            left: Mutex::default(),
        }
    }

    /// What is left for one of them.
    pub fn of(&self, client: &C) -> Arc<Semaphore> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = left.get(client).and_then(Weak::upgrade) {
            return left;
        }
        left.retain(|_, left| left.strong_count() > 0);
        let all = Arc::new(Semaphore::new(self.each_max));
        left.insert(client.clone(), Arc::downgrade(&all));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn come(clients: &Arc<Clients<()>>, address: &str) -> Option<Connected<()>> {
        clients.admit(address.parse().unwrap(), || ())
    }

    #[test]
    fn a_client_has_so_many_connections_and_others_have_theirs() {
        let clients = Clients::new(PerClientMax {
            told: Some(2),
            otherwise: 9,
        });
        // The same client, and another one.
        for (one, same, other) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ] {
            let first = come(&clients, one).expect("the first");
            let second = come(&clients, same).expect("the second");
            assert!(come(&clients, one).is_none(), "the third of {one}");
            assert!(come(&clients, other).is_some(), "of {other}");
            drop(first);
            assert!(come(&clients, same).is_some(), "there is room again");
            drop(second);
        }
        assert_eq!((clients.connections(), clients.refused()), (0, 3));
        assert!(clients.connected().is_empty(), "nobody is remembered");
    }

    #[test]
    fn this_machine_has_all_connections_unless_told_otherwise() {
        let clients = Clients::new(PerClientMax {
            told: None,
            otherwise: 2,
        });
        let come_often = |address| {
            let connected: Vec<_> = (0..9).map_while(|_| come(&clients, address)).collect();
            connected.len()
        };
        assert_eq!(come_often("192.0.2.1"), 2);
        for this_machine in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(come_often(this_machine), 9, "{this_machine}");
        }
    }

    #[test]
    fn the_connections_of_one_address_are_one_client_and_each_of_this_machines_is() {
        let clients = Clients::new(PerClientMax {
            told: None,
            otherwise: 2,
        });
        let client = |address, number| come(&clients, address).unwrap().client(number);
        assert_eq!(client("192.0.2.1", 1), client("::ffff:192.0.2.1", 2));
        assert_ne!(client("192.0.2.1", 1), client("192.0.2.2", 1));
        assert_ne!(client("127.0.0.1", 1), client("127.0.0.1", 2));
    }

    #[test]
    fn each_client_has_its_own_part_for_as_long_as_it_holds_any_of_it() {
        let parts = PerClient::new(2);
        let [one, other] = [1, 2].map(Client::Local);
        let take = |client: &Client| parts.of(client).try_acquire_owned().ok();
        let held = [take(&one), take(&one)];
        assert!(held.iter().all(Option::is_some));
        assert!(take(&one).is_none() && take(&other).is_some());
        drop(held);
        assert!(take(&one).is_some());
        assert!(take(&other).is_some());
        let left = parts.left.lock().unwrap();
        assert_eq!(left.len(), 1, "who holds none is not remembered for long");
    }
}
