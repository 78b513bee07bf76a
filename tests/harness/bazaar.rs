//! A catalog, order replicas and a gateway.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use domain::{ChainHash, Row};
use order::inspect::Ledger;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Response, request, try_request};
use super::launcher::{GATEWAYS, Launcher, Options};
use super::links::{Link, Links, Server, all_links};
use super::ports::Ports;
use super::process::{Process, run, run_ok};
use super::proxy::Proxy;
use super::small_disk::SmallDisk;
use super::wait::{Turn, wait_until};

/// How long the admin API may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where data is kept that is written to memory, and the room that it takes there, in bytes.
const MEMORY: &str = "/dev/shm";
const ROOM: u64 = 1 << 30;

/// A directory for what the processes keep; in memory, where there is room. A virtual disk that its
/// owner throttles was seen to end no `fdatasync` for 8 to 14 s, and then no order can be placed: a
/// test that expects one would be a test of that disk. No test here takes the machine's power away.
pub fn data_dir() -> TempDir {
    let room = rustix::fs::statvfs(MEMORY).map_or(0, |memory| memory.f_bavail * memory.f_frsize);
    let dir = if room >= ROOM {
        tempfile::tempdir_in(MEMORY)
    } else {
        tempfile::tempdir()
    };
    dir.expect("there is a temporary directory")
}

/// An order that a client places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub name: &'static str,
    pub side: &'static str,
    pub quantity: i64,
}

impl Order {
    pub fn buy(quantity: i64, name: &'static str) -> Self {
        Self {
            name,
            side: "buy",
            quantity,
        }
    }

    pub fn sell(quantity: i64, name: &'static str) -> Self {
        Self {
            name,
            side: "sell",
            quantity,
        }
    }

    /// As the API has it.
    pub fn json(&self) -> Value {
        json!({ "name": self.name, "type": self.side, "quantity": self.quantity })
    }
}

#[derive(Debug)]
pub struct Bazaar {
    // In this order they are dropped: processes before their directory, and that before the turn.
    servers: BTreeMap<Server, Process>,
    links: Links,
    acknowledged: Mutex<BTreeMap<u64, Order>>,
    options: Options,
    ports: Ports,
    disks: BTreeMap<Server, SmallDisk>,
    dir: TempDir,
    _turn: Turn,
}

impl Bazaar {
    /// Starts one, and waits until it can serve a trade.
    pub fn start(options: Options) -> Self {
        let dir = match options.on_disk {
            true => tempfile::tempdir().expect("there is a temporary directory"),
            false => data_dir(),
        };
        Self::start_in(dir, options, &["--new"])
    }

    /// Starts one with what is in that directory, a directory for each server, and waits until it can serve a trade.
    pub fn on(dir: TempDir, options: Options) -> Self {
        Self::start_in(dir, options, &[])
    }

    fn start_in(dir: TempDir, options: Options, catalogs: &[&str]) -> Self {
        let turn = Turn::take();
        let ports = Ports::claim();
        let links = if options.proxied {
            let launcher = Launcher {
                options: &options,
                ports: &ports,
                links: &Links::default(),
                dir: dir.path(),
            };
            let all = all_links(options.gateways, &options.replicas);
            Links::start(&all, |server| launcher.address(server))
        } else {
            Links::default()
        };
        let mut bazaar = Self {
            servers: BTreeMap::new(),
            links,
            acknowledged: Mutex::default(),
            options,
            ports,
            disks: BTreeMap::new(),
            dir,
            _turn: turn,
        };
        if bazaar.options.secured {
            bazaar.certify(&[]);
        }
        for server in bazaar.options.small_disks.clone() {
            let disk = SmallDisk::mount(&bazaar.launcher().data_dir(server));
            bazaar.disks.insert(server, disk.expect("it was tried"));
        }
        for server in bazaar.all_servers() {
            let first = match server {
                Server::Catalog | Server::OtherCatalog => {
                    catalogs.iter().map(|flag| (*flag).to_owned()).collect()
                }
                _ => Vec::new(),
            };
            bazaar.start_server_with(server, first);
        }
        bazaar.wait_until_ready();
        bazaar
    }

    /// Three replicas, built-in stocks, the built-in policy.
    pub fn start_default() -> Self {
        Self::start(Options::default())
    }

    fn launcher(&self) -> Launcher<'_> {
        Launcher {
            options: &self.options,
            ports: &self.ports,
            links: &self.links,
            dir: self.dir.path(),
        }
    }

    /// Where certificates are, where there are any.
    pub fn certs(&self) -> PathBuf {
        self.launcher().certs()
    }

    /// Has certificates made for every server and operators.
    pub fn certify(&self, further: &[&str]) {
        let last = self
            .options
            .replicas
            .iter()
            .max()
            .expect("there are replicas");
        let certs = self.certs();
        let certs = certs.to_str().expect("its path is text");
        let replicas = format!("--replicas={last}");
        run_ok(["cert", "new", certs, &replicas].iter().chain(further));
    }

    /// Every server that is not absent.
    fn all_servers(&self) -> Vec<Server> {
        let options = &self.options;
        let orders = options.replicas.iter();
        let present = orders.filter(|id| !options.absent.contains(id));
        let catalogs = self.launcher().catalogs();
        catalogs
            .chain(present.map(|id| Server::Order(*id)))
            .chain((0..options.gateways).map(Server::Gateway))
            .collect()
    }

    /// Waits until every gateway can serve a trade.
    pub fn wait_until_ready(&mut self) {
        let gateways = GATEWAYS.iter().enumerate();
        for (gateway, ports) in gateways.take(self.options.gateways) {
            let admin = self.ports.address(ports.admin);
            let ends = [Server::Gateway(gateway), Server::Catalog];
            wait_until("the bazaar to be ready", || {
                let running = ends.iter().all(|server| self.server(*server).is_running());
                assert!(running, "the catalog or a gateway has ended");
                is_ready(admin)
            });
        }
    }

    /// Starts a second gateway, and waits until it can serve a trade.
    pub fn second_gateway(&self) -> Gateway {
        let second = Server::Gateway(1);
        let process = self.launcher().start(second);
        let admin = self.ports.address(GATEWAYS[1].admin);
        wait_until("the second gateway to be ready", || is_ready(admin));
        let address = self.launcher().address(second);
        Gateway { process, address }
    }

    // ---- clients ----

    pub fn address(&self) -> SocketAddr {
        self.gateway_address(0)
    }

    /// Where clients of a gateway connect.
    pub fn gateway_address(&self, gateway: usize) -> SocketAddr {
        self.ports.address(GATEWAYS[gateway].clients)
    }

    /// Sends a client's request.
    pub fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        request(self.address(), method, target, headers, body)
    }

    pub fn get(&self, target: &str) -> Response {
        self.send("GET", target, &[], b"")
    }

    /// Looks up a stock's quantity.
    pub fn quantity(&self, name: &str) -> i64 {
        let stock = self.get(&format!("/stocks/{name}")).data();
        stock["quantity"]
            .as_i64()
            .unwrap_or_else(|| panic!("no quantity in {stock}"))
    }

    pub fn order(&self, order: &Order) -> Response {
        self.order_under(None, order)
    }

    /// Sends an order under an idempotency key.
    pub fn order_under(&self, key: Option<&str>, order: &Order) -> Response {
        let key = key.map(|key| format!("\"{key}\""));
        let headers: Vec<(&str, &str)> = key
            .iter()
            .map(|key| ("idempotency-key", key.as_str()))
            .collect();
        let response = self.send(
            "POST",
            "/orders",
            &headers,
            order.json().to_string().as_bytes(),
        );
        if response.status == 200 {
            let number = response.json()["data"]["transaction_number"].as_u64();
            let number = number.unwrap_or_else(|| panic!("no number in {response:?}"));
            let before = self
                .acknowledged
                .lock()
                .unwrap()
                .insert(number, order.clone());
            assert!(
                before.is_none() || key.is_some(),
                "number {number} was given twice"
            );
        }
        response
    }

    /// Sends an order that must be accepted, and returns its number.
    pub fn trade(&self, order: &Order) -> u64 {
        let response = self.order(order);
        response.data()["transaction_number"]
            .as_u64()
            .unwrap_or_else(|| panic!("no number in {response:?}"))
    }

    /// How many orders were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.lock().unwrap().len() as u64
    }

    /// Stops everything, which must succeed.
    pub fn stop(&mut self) {
        for (server, process) in self.servers.iter_mut().rev() {
            let ended = process.terminate();
            assert!(ended.success(), "{server}: {ended}");
        }
    }

    /// Asks for every order that was acknowledged.
    ///
    /// # Panics
    /// Where one is not as it was placed, or numbers have a gap.
    pub fn check_acknowledged(&self) {
        let acknowledged = self.acknowledged.lock().unwrap();
        assert!(
            acknowledged
                .keys()
                .copied()
                .eq(0..acknowledged.len() as u64),
            "numbers have gaps: {:?}",
            acknowledged.keys()
        );
        for (number, order) in acknowledged.iter() {
            let mut expected = order.json();
            expected["number"] = json!(number);
            assert_eq!(self.get(&format!("/orders/{number}")).data(), expected);
        }
    }

    /// Where a server listens.
    pub fn server_address(&self, server: Server) -> SocketAddr {
        self.launcher().address(server)
    }

    /// Where a server says what it is: a gateway, and in a bazaar that is monitored each.
    pub fn metrics_address(&self, server: Server) -> SocketAddr {
        self.launcher().metrics_address(server)
    }

    // ---- operators ----

    /// Where the admin API listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.gateway_admin_address(0)
    }

    /// The same of any gateway.
    pub fn gateway_admin_address(&self, gateway: usize) -> SocketAddr {
        self.ports.address(GATEWAYS[gateway].admin)
    }

    /// Asks the admin API. Checks of policies let all others go first.
    pub fn admin(&self, method: &str, target: &str, body: &[u8]) -> Response {
        let answer = try_request(self.admin_address(), method, target, &[], body, PATIENCE);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    pub fn status(&self) -> Value {
        self.admin("GET", "/status", b"").json()
    }

    /// Who leads, waiting until someone does.
    pub fn leader(&self) -> u32 {
        let mut leader = None;
        wait_until("a leader", || {
            leader = self.status()["leader"].as_u64();
            leader.is_some()
        });
        u32::try_from(leader.unwrap()).expect("replicas have small numbers")
    }

    /// The same, where the admin API wants a token.
    pub fn leader_known_by(&self, token: &str) -> u32 {
        let token = format!("Bearer {token}");
        let headers = [("authorization", token.as_str())];
        let status = request(self.admin_address(), "GET", "/status", &headers, b"").json();
        let leader = status["leader"].as_u64().expect("somebody leads");
        u32::try_from(leader).expect("replicas have small numbers")
    }

    /// A replica that does not lead.
    pub fn follower(&self) -> u32 {
        let leader = self.leader();
        let mut orders = self.servers.keys().filter_map(|server| match server {
            Server::Order(id) => Some(*id),
            _ => None,
        });
        orders
            .find(|id| *id != leader)
            .expect("there is more than one replica")
    }

    // ---- faults ----

    pub fn server(&mut self, server: Server) -> &mut Process {
        self.servers
            .get_mut(&server)
            .expect("the server was started")
    }

    /// Starts a server that was killed, or was absent.
    pub fn start_server(&mut self, server: Server) {
        self.start_server_with(server, Vec::new());
    }

    /// The same, with further flags.
    pub fn start_server_with(&mut self, server: Server, flags: Vec<String>) {
        // The process before it is gone first.
        self.servers.remove(&server);
        let process = self.launcher().start_with(server, flags);
        self.servers.insert(server, process);
    }

    /// From now on servers that are started are of the release in that file.
    pub fn set_release(&mut self, release: &Path) {
        self.options.release = release.to_owned();
    }

    /// From now on a catalog that is started has its truth in that database, and lends for so long.
    pub fn set_store(&mut self, url: &str, lease_ms: u64) {
        (self.options.store, self.options.lease_ms) = (Some(url.to_owned()), lease_ms);
    }

    /// Starts every server again.
    pub fn start_all(&mut self) {
        for server in self.all_servers() {
            self.start_server(server);
        }
    }

    /// Starts a further process of a server, with further flags.
    pub fn start_beside(&self, server: Server, flags: &[&str]) -> Process {
        let flags = flags.iter().map(|flag| (*flag).to_owned());
        self.launcher().start_with(server, flags.collect())
    }

    /// The command line of a server, with further flags.
    pub fn arguments(&self, server: Server, flags: &[&str]) -> Vec<String> {
        let flags = flags.iter().map(|flag| (*flag).to_owned());
        self.launcher().arguments(server, flags.collect())
    }

    /// Has a process that a test started for a server be it from now on; returns the one before.
    pub fn put_server(&mut self, server: Server, process: Process) -> Process {
        let before = self.servers.insert(server, process);
        before.expect("the server was started")
    }

    /// What the logs of all servers say about panics, also of processes before a restart.
    pub fn panics(&self) -> Vec<String> {
        let logs = self.servers.values().map(Process::log);
        logs.flat_map(|log| {
            let lines = log.lines().filter(|line| line.contains("panicked at"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
    }

    /// A server's own disk.
    pub fn disk(&self, server: Server) -> &SmallDisk {
        self.disks.get(&server).expect("the server has one")
    }

    /// Whether a server has a disk of its own.
    pub fn has_disk(&self, server: Server) -> bool {
        self.disks.contains_key(&server)
    }

    /// A link's proxy, in a bazaar that has them.
    pub fn link(&self, link: Link) -> &Proxy {
        self.links.get(link).expect("the link has a proxy")
    }

    pub fn kill(&mut self, id: u32) {
        self.server(Server::Order(id)).kill();
    }

    /// What servers are told that start from now on.
    pub fn set_archive_after(&mut self, rows: Option<u64>) {
        self.options.archive_after = rows;
    }

    /// Starts a replica that was killed, or was absent.
    pub fn restart(&mut self, id: u32) {
        self.start_server(Server::Order(id));
    }

    pub fn kill_catalog(&mut self) {
        self.server(Server::Catalog).kill();
    }

    /// Starts the catalog that was killed.
    pub fn restart_catalog(&mut self) {
        self.start_server(Server::Catalog);
    }

    /// SIGKILLs the catalog and the replicas, loses the catalog's disk, has it rebuilt from these
    /// replicas' ledgers, and starts all.
    pub fn lose_and_rebuild_catalog(&mut self, from: &[u32]) {
        self.kill_catalog();
        let replicas = self.options.replicas.clone();
        for id in &replicas {
            self.kill(*id);
        }
        let rebuilds = |log: String| log.matches("rebuilt the lost catalog").count();
        let before = rebuilds(self.server(Server::Catalog).log());
        let launcher = self.launcher();
        let lost = launcher.data_dir(Server::Catalog);
        std::fs::remove_dir_all(lost).expect("the catalog had a directory");
        let dirs = from.iter().map(|id| self.data_dir(*id));
        let flags = dirs.map(|dir| format!("--rebuild-from={}", dir.display()));
        let rebuilt = launcher.start_with(Server::Catalog, flags.collect());
        self.servers.insert(Server::Catalog, rebuilt);
        let catalog = self.server(Server::Catalog);
        // It opens the replicas' ledgers until then; its log is that of all its lives.
        wait_until("the catalog to be rebuilt", || {
            rebuilds(catalog.log()) > before
        });
        for id in replicas {
            self.restart(id);
        }
    }

    /// SIGKILLs the gateway, starts it again, and waits until it can serve a trade.
    pub fn kill_and_restart_gateway(&mut self) {
        self.server(Server::Gateway(0)).kill();
        self.start_server(Server::Gateway(0));
        self.wait_until_ready();
    }

    // ---- ledgers ----

    /// Where everything is: data directories and logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A replica's data directory.
    pub fn data_dir(&self, id: u32) -> PathBuf {
        self.launcher().data_dir(Server::Order(id))
    }

    /// The first gateway's data directory.
    pub fn gateway_dir(&self) -> PathBuf {
        self.launcher().data_dir(Server::Gateway(0))
    }

    /// The catalog's data directory.
    pub fn catalog_dir(&self) -> PathBuf {
        self.launcher().data_dir(Server::Catalog)
    }

    /// A replica's orders, by `bazaar ledger show`. An empty ledger's where it has not made one.
    pub fn ledger(&self, id: u32) -> Value {
        let shown = run(["ledger".into(), "show".into(), self.data_dir(id)]);
        if !shown.status.success() {
            return json!({});
        }
        let text = String::from_utf8_lossy(&shown.stdout);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The journal, once every replica's ledger equals it.
    pub fn settled_journal(&self) -> Vec<Row> {
        let ids = self.options.replicas.iter();
        let ledgers: Vec<PathBuf> = ids.map(|id| self.data_dir(*id)).collect();
        settled_journal(&ledgers, || self.status()["catalog"].take())
    }

    /// Waits until the ledgers of these replicas hold every acknowledged order and are equal.
    pub fn wait_for_equal_ledgers(&self, ids: &[u32]) {
        let acknowledged = self.acknowledged();
        wait_until(
            &format!("{acknowledged} orders in each of the ledgers of {ids:?}"),
            || {
                ids.iter().all(|id| {
                    self.ledger(*id)
                        .as_object()
                        .is_some_and(|orders| orders.len() as u64 >= acknowledged)
                })
            },
        );
        let dirs = ids.iter().map(|id| self.data_dir(*id));
        let compared = run(["ledger".into(), "diff".into()].into_iter().chain(dirs));
        assert!(
            compared.status.success(),
            "{}",
            String::from_utf8_lossy(&compared.stdout)
        );
    }
}

/// The journal, once every ledger in these directories equals it. What a gateway knows of the catalog says that by its
/// length and chain hash; whether the chain holds is for the caller to check.
pub fn settled_journal(ledgers: &[PathBuf], catalog: impl Fn() -> Value) -> Vec<Row> {
    let read = |dir: &PathBuf| -> Option<Vec<Row>> {
        Ledger::open(dir)
            .ok()?
            .rows()
            .collect::<Result<_, _>>()
            .ok()
    };
    let mut journal = None;
    wait_until("every ledger to equal the journal", || {
        let catalog = catalog();
        let ledgers: Vec<_> = ledgers.iter().map(read).collect();
        let first = ledgers[0].clone().unwrap_or_default();
        let chain = first.last().map_or(ChainHash::EMPTY, |row| row.chain);
        let settled = catalog["journal_rows"].as_u64() == Some(first.len() as u64)
            && catalog["chain_hash"].as_str() == Some(&chain.to_string())
            && ledgers.iter().all(|ledger| ledger.as_ref() == Some(&first));
        journal = settled.then_some(first);
        settled
    });
    journal.unwrap_or_default()
}

fn is_ready(admin: SocketAddr) -> bool {
    let listens = TcpStream::connect(admin).is_ok();
    listens && request(admin, "GET", "/readyz", &[], b"").status == 200
}

/// A gateway beside that of the bazaar.
#[derive(Debug)]
pub struct Gateway {
    pub process: Process,
    address: SocketAddr,
}

impl Gateway {
    pub fn get(&self, target: &str) -> Response {
        request(self.address, "GET", target, &[], b"")
    }
}
