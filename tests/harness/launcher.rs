//! What a bazaar is like, and the command line of each of its processes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::links::{Link, Links, Server};
use super::machine_code;
use super::outputs::Broken;
use super::ports::Ports;
use super::process::{BAZAAR, Outputs, Process};

/// Where the catalog listens, as an index into the block of ports. Replicas take those of
/// their numbers.
const CATALOG_PORT: u16 = 0;

/// Where the second one does: a test that has one has no replica of that number.
const OTHER_CATALOG_PORT: u16 = 8;

/// Where a catalog or a replica says what it is, that much above where it listens.
const METRICS_PORTS: u16 = 16;

/// A gateway's ports, as indices into the block.
#[derive(Debug, Clone, Copy)]
pub struct GatewayPorts {
    pub clients: u16,
    pub admin: u16,
}

/// The gateway that every bazaar has, and those that some tests put beside it.
pub const GATEWAYS: [GatewayPorts; 3] = [
    GatewayPorts {
        clients: 10,
        admin: 11,
    },
    GatewayPorts {
        clients: 12,
        admin: 13,
    },
    GatewayPorts {
        clients: 14,
        admin: 9,
    },
];

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
    /// Further flags of every server.
    pub flags: Vec<String>,
    /// Further flags of every gateway.
    pub gateway_flags: Vec<String>,
    /// The first policy of each gateway, where they differ.
    pub policies: Vec<Option<PathBuf>>,
    /// Servers whose data is on a disk of their own, which can be full.
    pub small_disks: Vec<Server>,
    /// How many gateways are started: 1 to 3.
    pub gateways: usize,
    /// What is the matter with every server's log, if anything is.
    pub log: Option<Broken>,
    /// Whether every link between two servers goes through a proxy.
    pub proxied: bool,
    /// The URL of the catalog's database; a directory of its own where there is none.
    pub store: Option<String>,
    /// How many catalogs there are over that database: 1 or 2.
    pub catalogs: usize,
    /// Whether catalogs and replicas say what they are, at `--metrics`.
    pub monitored: bool,
    /// Whether servers prove to each other who they are.
    pub secured: bool,
    /// The command of every server: this release's, or the one before.
    pub release: PathBuf,
    /// How many rows stay in each database; all where nothing is said.
    pub archive_after: Option<u64>,
    /// Whether data is in the temporary directory, however much room there is in memory.
    pub on_disk: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: vec![1, 2, 3],
            absent: Vec::new(),
            stocks: None,
            lease_ms: 1000,
            policy: None,
            flags: Vec::new(),
            gateway_flags: Vec::new(),
            policies: Vec::new(),
            small_disks: Vec::new(),
            gateways: 1,
            log: None,
            proxied: false,
            store: None,
            catalogs: 1,
            monitored: false,
            secured: false,
            release: BAZAAR.into(),
            archive_after: None,
            on_disk: false,
        }
    }
}

/// Knows every process's command line.
pub struct Launcher<'a> {
    pub options: &'a Options,
    pub ports: &'a Ports,
    /// The proxies; none where servers connect to each other directly.
    pub links: &'a Links,
    /// Where data and logs go.
    pub dir: &'a Path,
}

impl Launcher<'_> {
    /// A server's data directory.
    pub fn data_dir(&self, server: Server) -> PathBuf {
        self.dir.join(server.to_string())
    }

    /// Where a server listens.
    pub fn address(&self, server: Server) -> SocketAddr {
        self.ports.address(port(server))
    }

    /// Where a server says what it is, if it does.
    pub fn metrics_address(&self, server: Server) -> SocketAddr {
        self.ports.address(match server {
            Server::Gateway(index) => GATEWAYS[index].admin,
            _ => METRICS_PORTS + port(server),
        })
    }

    pub fn start(&self, server: Server) -> Process {
        self.start_with(server, Vec::new())
    }

    /// Starts a server with further flags.
    pub fn start_with(&self, server: Server, further: Vec<String>) -> Process {
        let further = further.into_iter().chain(["--stop-at-eof".to_owned()]);
        let arguments = self.arguments(server, further.collect());
        let outputs = Outputs {
            log: self.options.log,
            ..Outputs::default()
        };
        if matches!(server, Server::Gateway(_)) && self.options.release == Path::new(BAZAAR) {
            machine_code::put_into(&self.data_dir(server));
        }
        let name = server.to_string();
        Process::start_release(&self.options.release, (&name, self.dir), arguments, outputs)
    }

    /// The command line of a server, with further flags.
    pub fn arguments(&self, server: Server, further: Vec<String>) -> Vec<String> {
        let (command, flags) = match server {
            Server::Catalog | Server::OtherCatalog => ("catalog", self.catalog(server)),
            Server::Order(id) => ("order", self.order(id)),
            Server::Gateway(index) => ("gateway", self.gateway(index)),
        };
        let place = match (server, &self.options.store) {
            (Server::Catalog | Server::OtherCatalog, Some(url)) => format!("--store={url}"),
            _ => format!("--data-dir={}", self.data_dir(server).display()),
        };
        let archives =
            matches!(server, Server::Catalog | Server::Order(_)) && !place.starts_with("--store");
        let archive_after = self.options.archive_after.filter(|_| archives);
        let archive_after = archive_after.map(|rows| format!("--archive-after={rows}"));
        let common = [command.to_owned(), place];
        let is_monitored = self.options.monitored && !matches!(server, Server::Gateway(_));
        let metrics = is_monitored.then(|| format!("--metrics={}", self.metrics_address(server)));
        let proofs = self.options.secured.then(|| self.proofs(server));
        let flags = flags.into_iter().chain(proofs.into_iter().flatten());
        let flags = flags.chain(archive_after).chain(metrics);
        let flags = flags.chain(self.options.flags.iter().cloned());
        common.into_iter().chain(flags).chain(further).collect()
    }

    /// By which URL a server reaches another.
    fn url(&self, from: Server, to: Server) -> String {
        let proxy = self.links.get(Link { from, to });
        let address = proxy.map_or_else(|| self.address(to), |proxy| proxy.address());
        match self.options.secured {
            true => format!("https://{address}"),
            false => format!("http://{address}"),
        }
    }

    /// Where certificates are, where there are any.
    pub fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    fn proofs(&self, server: Server) -> [String; 3] {
        let name = match server {
            Server::Catalog | Server::OtherCatalog => "catalog".to_owned(),
            Server::Gateway(_) => "gateway".to_owned(),
            Server::Order(id) => format!("order-{id}"),
        };
        let file = |name: &str| self.certs().join(name).display().to_string();
        [
            format!("--cluster-ca={}", file("ca.crt")),
            format!("--cluster-cert={}", file(&format!("{name}.crt"))),
            format!("--cluster-key={}", file(&format!("{name}.key"))),
        ]
    }

    /// The catalogs of a bazaar.
    pub fn catalogs(&self) -> impl Iterator<Item = Server> + use<> {
        let all = [Server::Catalog, Server::OtherCatalog];
        all.into_iter().take(self.options.catalogs)
    }

    fn catalog_urls(&self, from: Server) -> impl Iterator<Item = String> {
        self.catalogs()
            .map(move |to| format!("--catalog={}", self.url(from, to)))
    }

    fn catalog(&self, server: Server) -> Vec<String> {
        let mut flags = vec![
            format!("--listen={}", self.address(server)),
            format!("--lease-ms={}", self.options.lease_ms),
        ];
        if let Some(stocks) = self.options.stocks {
            let file = self.dir.join("stocks.csv");
            fs::write(&file, stocks).expect("the test's directory is writable");
            flags.push(format!("--stocks={}", file.display()));
        }
        flags
    }

    fn order(&self, id: u32) -> Vec<String> {
        let server = Server::Order(id);
        let mut flags = vec![
            format!("--id={id}"),
            format!("--listen={}", self.address(server)),
        ];
        flags.extend(self.catalog_urls(server));
        // Its own is passed over.
        let peers = self.options.replicas.iter();
        flags.extend(
            peers.map(|peer| format!("--peer={peer}={}", self.url(server, Server::Order(*peer)))),
        );
        flags
    }

    fn gateway(&self, index: usize) -> Vec<String> {
        let server = Server::Gateway(index);
        let mut flags = vec![
            format!("--listen={}", self.address(server)),
            format!("--admin={}", self.ports.address(GATEWAYS[index].admin)),
        ];
        flags.extend(self.catalog_urls(server));
        let orders = self.options.replicas.iter();
        flags.extend(
            orders.map(|id| format!("--order={id}={}", self.url(server, Server::Order(*id)))),
        );
        let own = self.options.policies.get(index);
        let policy = own.unwrap_or(&self.options.policy).iter();
        flags.extend(policy.map(|policy| format!("--policy={}", policy.display())));
        flags.extend(self.options.gateway_flags.iter().cloned());
        flags
    }
}

fn port(server: Server) -> u16 {
    match server {
        Server::Catalog => CATALOG_PORT,
        Server::OtherCatalog => OTHER_CATALOG_PORT,
        Server::Order(id) => order_port(id),
        Server::Gateway(index) => GATEWAYS[index].clients,
    }
}

fn order_port(id: u32) -> u16 {
    let port = u16::try_from(id).expect("replicas have small numbers");
    assert!(
        (1..GATEWAYS[2].admin).contains(&port),
        "a test's replicas are numbered from 1 to 8"
    );
    port
}
