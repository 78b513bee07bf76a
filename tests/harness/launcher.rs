//! What a bazaar is like, and the command line of each of its processes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ports::Ports;
use super::process::Process;

/// Where the catalog listens, as an index into the block of ports. Replicas take those of
/// their numbers.
const CATALOG_PORT: u16 = 0;

/// A gateway's ports, as indices into the block.
#[derive(Debug, Clone, Copy)]
pub struct GatewayPorts {
    /// Of its log.
    pub name: &'static str,
    pub clients: u16,
    pub admin: u16,
}

/// The gateway that every bazaar has.
pub const FIRST_GATEWAY: GatewayPorts = GatewayPorts {
    name: "gateway",
    clients: 10,
    admin: 11,
};

/// The one that some tests put beside it.
pub const SECOND_GATEWAY: GatewayPorts = GatewayPorts {
    name: "gateway-2",
    clients: 12,
    admin: 13,
};

/// What a bazaar is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every order replica that the others know of.
    pub replicas: Vec<u32>,
    /// Those of them that are not started: dead on arrival.
    pub absent: Vec<u32>,
    /// CSV of the stocks; the built-in ones where there is none.
    pub stocks: Option<&'static str>,
    /// The cache lease, in milliseconds.
    pub lease_ms: u64,
    /// The first policy; the built-in one where there is none.
    pub policy: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: vec![1, 2, 3],
            absent: Vec::new(),
            stocks: None,
            lease_ms: 1000,
            policy: None,
        }
    }
}

/// Knows every process's command line.
pub struct Launcher<'a> {
    pub options: &'a Options,
    pub ports: &'a Ports,
    /// Where data and logs go.
    pub dir: &'a Path,
}

impl Launcher<'_> {
    /// A service's data directory.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn order_address(&self, id: u32) -> SocketAddr {
        let id = u16::try_from(id).expect("replicas have small numbers");
        assert!(
            (1..FIRST_GATEWAY.clients).contains(&id),
            "a test's replicas are numbered from 1 to 9"
        );
        self.ports.address(id)
    }

    fn start(&self, name: &str, flags: Vec<String>) -> Process {
        let command = name
            .split('-')
            .next()
            .expect("a name has a beginning")
            .to_owned();
        Process::start(
            name,
            self.dir,
            [command, "--stop-at-eof".to_owned()]
                .into_iter()
                .chain(flags),
        )
    }

    fn catalog_url(&self) -> String {
        format!("--catalog=http://{}", self.ports.address(CATALOG_PORT))
    }

    /// Starts the catalog.
    pub fn catalog(&self) -> Process {
        let mut flags = vec![
            format!("--listen={}", self.ports.address(CATALOG_PORT)),
            format!("--data-dir={}", self.data_dir("catalog").display()),
            format!("--lease-ms={}", self.options.lease_ms),
        ];
        if let Some(stocks) = self.options.stocks {
            let file = self.dir.join("stocks.csv");
            fs::write(&file, stocks).expect("the test's directory is writable");
            flags.push(format!("--stocks={}", file.display()));
        }
        self.start("catalog", flags)
    }

    /// Starts a replica.
    pub fn order(&self, id: u32) -> Process {
        let name = format!("order-{id}");
        let mut flags = vec![
            format!("--id={id}"),
            format!("--listen={}", self.order_address(id)),
            format!("--data-dir={}", self.data_dir(&name).display()),
            self.catalog_url(),
        ];
        let peers = self.options.replicas.iter().filter(|peer| **peer != id);
        flags.extend(
            peers.map(|peer| format!("--peer={peer}=http://{}", self.order_address(*peer))),
        );
        self.start(&name, flags)
    }

    /// Starts a gateway.
    pub fn gateway(&self, which: GatewayPorts) -> Process {
        let mut flags = vec![
            format!("--listen={}", self.ports.address(which.clients)),
            format!("--admin={}", self.ports.address(which.admin)),
            format!("--data-dir={}", self.data_dir(which.name).display()),
            self.catalog_url(),
        ];
        let orders = self.options.replicas.iter();
        flags.extend(orders.map(|id| format!("--order={id}=http://{}", self.order_address(*id))));
        let policy = self.options.policy.iter();
        flags.extend(policy.map(|policy| format!("--policy={}", policy.display())));
        self.start(which.name, flags)
    }
}
