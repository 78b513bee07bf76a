//! A catalog, order replicas and a gateway.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Response, request};
use super::launcher::{FIRST_GATEWAY, Launcher, Options, SECOND_GATEWAY};
use super::ports::Ports;
use super::process::{Process, run};
use super::wait::{Turn, wait_until};

/// An order that a client places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub name: &'static str,
    pub side: &'static str,
    pub quantity: i64,
}

impl Order {
    /// A purchase.
    pub fn buy(quantity: i64, name: &'static str) -> Self {
        Self {
            name,
            side: "buy",
            quantity,
        }
    }

    /// A sale.
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

/// A running bazaar.
#[derive(Debug)]
pub struct Bazaar {
    // In this order they are dropped: processes before their directory, and that before the turn.
    gateway: Process,
    orders: BTreeMap<u32, Process>,
    catalog: Process,
    acknowledged: Mutex<BTreeMap<u64, Order>>,
    options: Options,
    ports: Ports,
    dir: TempDir,
    _turn: Turn,
}

impl Bazaar {
    /// Starts one, and waits until it can serve a trade.
    pub fn start(options: Options) -> Self {
        let turn = Turn::take();
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let ports = Ports::claim();
        let launcher = Launcher {
            options: &options,
            ports: &ports,
            dir: dir.path(),
        };
        let catalog = launcher.catalog();
        let present = options
            .replicas
            .iter()
            .filter(|id| !options.absent.contains(id));
        let orders = present.map(|id| (*id, launcher.order(*id))).collect();
        let gateway = launcher.gateway(FIRST_GATEWAY);
        let mut bazaar = Self {
            gateway,
            orders,
            catalog,
            acknowledged: Mutex::default(),
            options,
            ports,
            dir,
            _turn: turn,
        };
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
            dir: self.dir.path(),
        }
    }

    /// Waits until a trade can be served.
    fn wait_until_ready(&mut self) {
        let admin = self.admin_address();
        let processes = &mut [&mut self.gateway, &mut self.catalog];
        wait_until("the bazaar to be ready", || {
            let running = processes.iter_mut().all(|process| process.is_running());
            assert!(running, "the catalog or the gateway has ended");
            is_ready(admin)
        });
    }

    /// Starts a second gateway, and waits until it can serve a trade.
    pub fn second_gateway(&self) -> Gateway {
        let process = self.launcher().gateway(SECOND_GATEWAY);
        let admin = self.ports.address(SECOND_GATEWAY.admin);
        wait_until("the second gateway to be ready", || is_ready(admin));
        let address = self.ports.address(SECOND_GATEWAY.clients);
        Gateway { process, address }
    }

    // ---- clients ----

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.ports.address(FIRST_GATEWAY.clients)
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

    /// Gets a path.
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

    /// Sends an order.
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

    // ---- operators ----

    /// Where the admin API listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.ports.address(FIRST_GATEWAY.admin)
    }

    /// Asks the admin API.
    pub fn admin(&self, method: &str, target: &str, body: &[u8]) -> Response {
        request(self.admin_address(), method, target, &[], body)
    }

    /// `GET /status`.
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

    /// A replica that does not lead.
    pub fn follower(&self) -> u32 {
        let leader = self.leader();
        *self
            .orders
            .keys()
            .find(|id| **id != leader)
            .expect("there is more than one replica")
    }

    // ---- faults ----

    /// SIGKILLs a replica.
    pub fn kill(&mut self, id: u32) {
        self.orders
            .get_mut(&id)
            .expect("the replica was started")
            .kill();
    }

    /// Starts a replica that was killed, or was absent.
    pub fn restart(&mut self, id: u32) {
        // The process before it is gone first.
        self.orders.remove(&id);
        let process = self.launcher().order(id);
        self.orders.insert(id, process);
    }

    /// SIGKILLs the catalog.
    pub fn kill_catalog(&mut self) {
        self.catalog.kill();
    }

    /// Starts the catalog that was killed.
    pub fn restart_catalog(&mut self) {
        self.catalog = self.launcher().catalog();
    }

    /// SIGKILLs the gateway, starts it again, and waits until it can serve a trade.
    pub fn kill_and_restart_gateway(&mut self) {
        self.gateway.kill();
        self.gateway = self.launcher().gateway(FIRST_GATEWAY);
        self.wait_until_ready();
    }

    // ---- ledgers ----

    /// A replica's data directory.
    pub fn data_dir(&self, id: u32) -> PathBuf {
        self.launcher().data_dir(&format!("order-{id}"))
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

fn is_ready(admin: SocketAddr) -> bool {
    let listens = TcpStream::connect(admin).is_ok();
    listens && request(admin, "GET", "/readyz", &[], b"").status == 200
}

/// A gateway beside that of the bazaar.
#[derive(Debug)]
pub struct Gateway {
    /// Its process.
    pub process: Process,
    address: SocketAddr,
}

impl Gateway {
    /// Gets a path.
    pub fn get(&self, target: &str) -> Response {
        request(self.address, "GET", target, &[], b"")
    }
}
