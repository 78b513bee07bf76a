//! Who connects to whom, and a proxy on each of these links.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use super::proxy::Proxy;

/// A process of a bazaar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    Catalog,
    /// A second catalog over the same database.
    OtherCatalog,
    /// The order replica of that number.
    Order(u32),
    /// A gateway, counted from 0.
    Gateway(usize),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalog => f.write_str("catalog"),
            Self::OtherCatalog => f.write_str("catalog-2"),
            Self::Order(id) => write!(f, "order-{id}"),
            Self::Gateway(0) => f.write_str("gateway"),
            Self::Gateway(index) => write!(f, "gateway-{}", index + 1),
        }
    }
}

/// One server's connections to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub from: Server,
    pub to: Server,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>{}", self.from, self.to)
    }
}

/// Every link of a bazaar: gateways connect to the catalog and the replicas, replicas to the
/// catalog and each other.
pub fn all_links(gateways: usize, replicas: &[u32]) -> Vec<Link> {
    let orders = || replicas.iter().map(|id| Server::Order(*id));
    let callers = (0..gateways).map(Server::Gateway).chain(orders());
    callers
        .flat_map(|from| {
            let called = orders().chain([Server::Catalog]);
            called
                .filter(move |to| *to != from)
                .map(move |to| Link { from, to })
        })
        .collect()
}

/// The proxies of a bazaar's links.
#[derive(Debug, Default)]
pub struct Links(BTreeMap<Link, Proxy>);

impl Links {
    /// Starts a proxy for each of these links.
    pub fn start(links: &[Link], address: impl Fn(Server) -> SocketAddr) -> Self {
        let proxy = |link: &Link| (*link, Proxy::start(address(link.to)));
        Self(links.iter().map(proxy).collect())
    }

    /// A link's proxy, where it has one.
    pub fn get(&self, link: Link) -> Option<&Proxy> {
        self.0.get(&link)
    }
}
