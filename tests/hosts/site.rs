//! A bazaar on hosts of its own: PostgreSQL on three, run by Patroni over etcd; two catalogs, three replicas, two
//! gateways; and clients, which are this process.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::host::{Host, Service, address, ip, without_environment};
use super::switch::{HostNumber, Switch, Way, ethernet};
use crate::harness::{data_dir, run_ok, settled_journal, try_request, wait_for, wait_for_said};

/// What a host is for, and which one of those it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A PostgreSQL server, the Patroni that runs it, and a member of the etcd that these agree by.
    Database(u8),
    Catalog(u8),
    /// The order replica of that number.
    Order(u8),
    Gateway(u8),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, index) = (self.kind(), self.number() % 10);
        write!(f, "{kind}-{index}")
    }
}

impl Role {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Database(_) => "database",
            Self::Catalog(_) => "catalog",
            Self::Order(_) => "order",
            Self::Gateway(_) => "gateway",
        }
    }

    pub fn number(self) -> HostNumber {
        match self {
            Self::Database(index) => 10 + index,
            Self::Catalog(index) => 20 + index,
            Self::Order(index) => 30 + index,
            Self::Gateway(index) => 40 + index,
        }
    }

    fn at(self, port: u16) -> String {
        format!("{}:{port}", address(self.number()))
    }
}

pub const DATABASES: [Role; 3] = [Role::Database(1), Role::Database(2), Role::Database(3)];
pub const CATALOGS: [Role; 2] = [Role::Catalog(1), Role::Catalog(2)];
pub const ORDERS: [Role; 3] = [Role::Order(1), Role::Order(2), Role::Order(3)];
pub const GATEWAYS: [Role; 2] = [Role::Gateway(1), Role::Gateway(2)];

/// Every host, in the order in which they are started.
pub fn all_hosts() -> Vec<Role> {
    [&DATABASES[..], &CATALOGS, &ORDERS, &GATEWAYS].concat()
}

/// This process's number on that network.
const CLIENTS: HostNumber = 1;
const CLIENTS_DEVICE: &str = "clients";

const POSTGRES_PORT: u16 = 5432;
const PATRONI_PORT: u16 = 8008;
const ETCD_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;
const CATALOG_PORT: u16 = 5001;
const ORDER_PORT: u16 = 5002;
const CLIENT_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 8081;

/// Whom Debian's packages made, and who may do anything in a database.
const POSTGRES: &str = "postgres";

const DATABASE: &str = "bazaar";
const TOKEN: &str = "of-the-hosts";

/// For how long a stock may be served without word from the catalog: shorter than most faults.
const LEASE_MS: u64 = 300;

/// Longest wait for all of it to be as it should be. A cluster is made in 10 s or so, on a machine with nothing else
/// to do.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long a look at who does what may take.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);

/// And SQL, in seconds.
const SQL_SECONDS_MAX: &str = "10";

pub struct Site {
    // In this order they are dropped.
    hosts: BTreeMap<Role, Host>,
    switch: Switch,
    dir: TempDir,
}

impl Site {
    /// Starts everything, and waits until it serves trades, all replicas in sync.
    pub fn start(stocks: &str) -> Self {
        let dir = data_dir();
        // Whom PostgreSQL runs as may pass through it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), open).expect("it is ours");
        fs::write(dir.path().join("stocks.csv"), stocks).expect("it is ours");
        let switch = Switch::start();
        switch
            .plug(CLIENTS, CLIENTS_DEVICE)
            .expect("root makes devices");
        let (device, own) = (CLIENTS_DEVICE, format!("{}/24", address(CLIENTS)));
        ip(&["link", "set", device, "address", &ethernet(CLIENTS)]);
        ip(&["addr", "add", &own, "dev", device]);
        ip(&["link", "set", device, "up"]);
        let hosts = all_hosts().into_iter().map(|role| {
            (
                role,
                Host::new(&role.to_string(), role.number(), dir.path()),
            )
        });
        let mut site = Self {
            hosts: hosts.collect(),
            switch,
            dir,
        };
        site.certify();
        for role in DATABASES {
            site.prepare_database(role);
            site.power_on(role);
        }
        wait_for("a primary with a synchronous standby", PATIENCE, || {
            let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            let primary = site.primary();
            primary.and_then(|primary| site.sql(primary, "postgres", sql)) == Some("1".to_owned())
        });
        site.make_database();
        for role in all_hosts()
            .into_iter()
            .filter(|role| !DATABASES.contains(role))
        {
            // Only the first one, and only now, may begin a journal.
            let services = match role {
                Role::Catalog(1) => site.services_with(role, &["--new"]),
                _ => site.services_with(role, &[]),
            };
            site.hosts
                .get_mut(&role)
                .expect("all have one")
                .power_on(&site.switch, &services);
        }
        site.wait_until_whole();
        // From now on none of them begins another one.
        site.power_off(Role::Catalog(1));
        site.power_on(Role::Catalog(1));
        site.wait_until_whole();
        site
    }

    // ---- hosts ----

    pub fn power_on(&mut self, role: Role) {
        let services = self.services_with(role, &[]);
        let host = self.hosts.get_mut(&role).expect("every role has a host");
        host.power_on(&self.switch, &services);
    }

    pub fn power_off(&mut self, role: Role) {
        let host = self.hosts.get_mut(&role).expect("every role has a host");
        host.power_off(&self.switch);
    }

    pub fn host(&self, role: Role) -> &Host {
        &self.hosts[&role]
    }

    pub fn set_way(&self, from: Role, to: Role, way: Way) {
        self.switch.set(from.number(), to.number(), way);
    }

    /// What a replica has is lost with its disk.
    pub fn lose_disk(&self, role: Role) {
        let data = self.data(role);
        if let Err(error) = fs::remove_dir_all(&data) {
            // It had not come so far as to make one.
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }

    /// What every service has logged, by its file.
    pub fn logs(&self) -> Vec<PathBuf> {
        let hosts = self
            .hosts
            .values()
            .flat_map(|host| fs::read_dir(host.dir()).ok());
        let files = hosts.flatten().flatten().map(|entry| entry.path());
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect()
    }

    /// For people to read, after something went wrong.
    fn keep_logs(&self) {
        let dir =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hosts-{}", std::process::id()));
        for log in self.logs() {
            let name = log.strip_prefix(self.dir.path()).unwrap_or(&log);
            let to = dir.join(name.display().to_string().replace('/', "-"));
            let _ = fs::create_dir_all(&dir).and_then(|()| fs::copy(&log, to));
        }
        println!("the hosts' logs are in {}", dir.display());
    }

    fn data(&self, role: Role) -> PathBuf {
        self.hosts[&role].dir().join("data")
    }

    // ---- services ----

    fn services_with(&self, role: Role, further: &[&str]) -> Vec<Service> {
        let data = self.data(role).display().to_string();
        let bazaar = |command: &str, flags: Vec<String>| {
            let words = [env!("CARGO_BIN_EXE_bazaar").to_owned(), command.to_owned()];
            let words = words.into_iter().chain(self.proofs(role));
            let further = further.iter().map(|flag| (*flag).to_owned());
            vec![Service {
                name: "bazaar",
                user: None,
                command: words.chain(flags).chain(further).collect(),
            }]
        };
        let catalogs = CATALOGS
            .iter()
            .map(|to| format!("--catalog=https://{}", to.at(CATALOG_PORT)));
        let orders = |flag: &str| -> Vec<String> {
            let others = ORDERS.iter().filter(|to| **to != role);
            others
                .map(|to| {
                    format!(
                        "--{flag}={}=https://{}",
                        to.number() % 10,
                        to.at(ORDER_PORT)
                    )
                })
                .collect()
        };
        match role {
            Role::Database(_) => self.database(role),
            Role::Catalog(_) => bazaar(
                "catalog",
                vec![
                    format!("--listen={}", role.at(CATALOG_PORT)),
                    format!("--store={}", store_url()),
                    format!("--lease-ms={LEASE_MS}"),
                    format!("--stocks={}", self.dir.path().join("stocks.csv").display()),
                ],
            ),
            Role::Order(id) => {
                let own = [
                    format!("--id={id}"),
                    format!("--listen={}", role.at(ORDER_PORT)),
                    format!("--data-dir={data}"),
                ];
                bazaar(
                    "order",
                    own.into_iter()
                        .chain(catalogs)
                        .chain(orders("peer"))
                        .collect(),
                )
            }
            Role::Gateway(_) => {
                let own = [
                    format!("--listen={}", role.at(CLIENT_PORT)),
                    format!("--admin={}", role.at(ADMIN_PORT)),
                    format!("--data-dir={data}"),
                    format!("--admin-token={TOKEN}"),
                ];
                bazaar(
                    "gateway",
                    own.into_iter()
                        .chain(catalogs)
                        .chain(orders("order"))
                        .collect(),
                )
            }
        }
    }

    /// What a service proves by who it is.
    fn proofs(&self, role: Role) -> [String; 3] {
        let certs = self.dir.path().join("certs");
        let file = |name: &str| certs.join(name).display().to_string();
        [
            format!("--cluster-ca={}", file("ca.crt")),
            format!("--cluster-cert={}", file(&format!("{role}.crt"))),
            format!("--cluster-key={}", file(&format!("{role}.key"))),
        ]
    }

    /// Each service has a certificate of its own, for its host.
    fn certify(&self) {
        let certs = self.dir.path().join("certs");
        let services = all_hosts()
            .into_iter()
            .filter(|role| !DATABASES.contains(role));
        for role in services {
            let address = address(role.number());
            let principal = format!("{}/{}", role.kind(), role.number() % 10);
            run_ok([
                "cert".to_owned(),
                "new".to_owned(),
                certs.display().to_string(),
                format!("--for={principal}"),
                format!("--host={address}"),
            ]);
        }
    }

    /// The directories, and Patroni's file.
    fn prepare_database(&self, role: Role) {
        let host = &self.hosts[&role];
        let data = self.data(role);
        fs::create_dir_all(&data).expect("it is ours");
        test_postgres::process::chown(&data);
        test_postgres::process::chown(host.dir());
        let programs = test_postgres::programs().expect("it was looked for");
        let members: Vec<String> = DATABASES
            .iter()
            .map(|member| member.at(ETCD_PORT))
            .collect();
        let text = PATRONI
            .replace("{name}", &role.to_string())
            .replace("{rest}", &role.at(PATRONI_PORT))
            .replace("{sql}", &role.at(POSTGRES_PORT))
            .replace("{etcd}", &members.join(", "))
            .replace("{data}", &data.join("postgres").display().to_string())
            .replace("{sockets}", &data.display().to_string())
            .replace("{programs}", &programs.display().to_string());
        fs::write(host.dir().join("patroni.yml"), text).expect("it is ours");
    }

    fn database(&self, role: Role) -> Vec<Service> {
        let host = &self.hosts[&role];
        let members: Vec<String> = DATABASES
            .iter()
            .map(|member| format!("{member}=http://{}", member.at(ETCD_PEER_PORT)))
            .collect();
        let url = |port| format!("http://{}", role.at(port));
        let etcd = [
            "etcd".to_owned(),
            format!("--name={role}"),
            format!("--data-dir={}", self.data(role).join("etcd").display()),
            format!("--listen-client-urls={}", url(ETCD_PORT)),
            format!("--advertise-client-urls={}", url(ETCD_PORT)),
            format!("--listen-peer-urls={}", url(ETCD_PEER_PORT)),
            format!("--initial-advertise-peer-urls={}", url(ETCD_PEER_PORT)),
            format!("--initial-cluster={}", members.join(",")),
            "--initial-cluster-state=new".to_owned(),
        ];
        let patroni = [
            "patroni".to_owned(),
            host.dir().join("patroni.yml").display().to_string(),
        ];
        [("etcd", etcd.to_vec()), ("patroni", patroni.to_vec())]
            .map(|(name, command)| Service {
                name,
                user: Some(POSTGRES),
                command,
            })
            .to_vec()
    }

    // ---- who does what ----

    /// The server that takes commits, where one says so. All are asked at once.
    pub fn primary(&self) -> Option<Role> {
        let is_primary = |role: Role| {
            let at = socket(role, PATRONI_PORT);
            let answer = try_request(at, "GET", "/primary", &[], b"", LOOK_TIME_MAX);
            answer.is_ok_and(|answer| answer.status == 200)
        };
        thread::scope(|scope| {
            let asked = DATABASES.map(|role| (role, scope.spawn(move || is_primary(role))));
            let told = asked.map(|(role, asked)| (role, asked.join().expect("it does not panic")));
            let primary = told.into_iter().find(|(_, is_primary)| *is_primary);
            primary.map(|(role, _)| role)
        })
    }

    /// The primary, once there is one: it can be none for a moment at any time, until Patroni has looked again.
    pub fn some_primary(&self) -> Role {
        let mut primary = None;
        wait_for("a primary", PATIENCE, || {
            primary = self.primary();
            primary.is_some()
        });
        primary.expect("it was waited for")
    }

    fn make_database(&self) {
        let found = format!("SELECT datname FROM pg_database WHERE datname = '{DATABASE}'");
        wait_for("the bazaar's database", PATIENCE, || {
            let Some(primary) = self.primary() else {
                return false;
            };
            let sql = |sql: &str| self.sql(primary, "postgres", sql);
            let is_made = || sql(&found) == Some(DATABASE.to_owned());
            is_made() || (sql(&format!("CREATE DATABASE {DATABASE}")).is_some() && is_made())
        });
    }

    /// For how long Patroni leaves a primary alone that is not heard of: as it was told, or longer, where that is less than
    /// its version takes.
    pub fn patience_with_primary(&self) -> Duration {
        let ttl = DATABASES.into_iter().find_map(|role| {
            let at = socket(role, PATRONI_PORT);
            let answer = try_request(at, "GET", "/config", &[], b"", LOOK_TIME_MAX).ok()?;
            answer.json()["ttl"].as_u64()
        });
        Duration::from_secs(ttl.expect("Patroni says it"))
    }

    /// How often another server was promoted.
    pub fn promotions(&self) -> u64 {
        let sql = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int";
        let mut timeline: Option<u64> = None;
        wait_for("a primary", PATIENCE, || {
            let said = self
                .primary()
                .and_then(|role| self.sql(role, "postgres", sql));
            timeline = said.and_then(|said| said.parse().ok());
            timeline.is_some()
        });
        timeline.expect("it was waited for") - 1
    }

    /// What a gateway knows; of the first one that says something.
    pub fn status(&self) -> Option<Value> {
        GATEWAYS.iter().find_map(|role| self.status_of(*role))
    }

    fn status_of(&self, gateway: Role) -> Option<Value> {
        let answer = admin(gateway, "/status")?;
        (answer.0 == 200).then(|| serde_json::from_str(&answer.1).expect("it says so in JSON"))
    }

    pub fn active_catalog(&self) -> Option<Role> {
        let status = self.status()?;
        CATALOGS.into_iter().enumerate().find_map(|(index, role)| {
            (status["catalogs"][index]["role"] == "active").then_some(role)
        })
    }

    pub fn leader(&self) -> Option<Role> {
        let leader = self.status()?["leader"].as_u64()?;
        ORDERS
            .into_iter()
            .find(|role| u64::from(role.number() % 10) == leader)
    }

    /// Waits until every gateway serves trades, with all replicas in sync, a catalog that stands by, and a database
    /// with a synchronous standby.
    pub fn wait_until_whole(&self) {
        let missing = RefCell::new(String::new());
        let what = || format!("every host to do its part: {}", missing.borrow());
        wait_for_said(what, PATIENCE, || {
            *missing.borrow_mut() = self.missing().unwrap_or_default();
            missing.borrow().is_empty()
        });
    }

    /// What a whole site has and this one does not, in words.
    fn missing(&self) -> Option<String> {
        for gateway in GATEWAYS {
            let answer = admin(gateway, "/readyz");
            if answer.as_ref().is_none_or(|answer| answer.0 != 200) {
                return Some(format!("{gateway} is not ready: {answer:?}"));
            }
        }
        let Some(status) = self.status() else {
            return Some("no gateway says its status".to_owned());
        };
        let in_sync = &status["catalog"]["in_sync"];
        if in_sync.as_array().map_or(0, Vec::len) != ORDERS.len() {
            return Some(format!("in sync: {in_sync}"));
        }
        let roles = [0, 1].map(|index| status["catalogs"][index]["role"].clone());
        if !["active", "standby"]
            .iter()
            .all(|role| roles.iter().any(|is| is == role))
        {
            return Some(format!("roles of the catalogs: {roles:?}"));
        }
        let replicated = "SELECT count(*) || ' ' || count(*) FILTER (WHERE sync_state = 'sync')
             FROM pg_stat_replication WHERE state = 'streaming'";
        let Some(primary) = self.primary() else {
            return Some("no database is the primary".to_owned());
        };
        let standbys = self.sql(primary, "postgres", replicated);
        (standbys.as_deref() != Some("2 1"))
            .then(|| format!("standbys of {primary} that stream, and synchronously: {standbys:?}"))
    }

    // ---- what they keep ----

    /// Runs SQL on a server; none where it cannot be done there.
    pub fn sql(&self, server: Role, database: &str, sql: &str) -> Option<String> {
        let url = format!(
            "postgres://{POSTGRES}@{}/{database}?connect_timeout=2",
            server.at(POSTGRES_PORT)
        );
        // It waits for a synchronous standby, for ever where there is none.
        let mut psql = Command::new("timeout");
        without_environment(&mut psql);
        psql.args([SQL_SECONDS_MAX, "psql"]);
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--command",
            sql,
            &url,
        ]);
        let Output { status, stdout, .. } = psql.output().expect("it is there");
        status
            .success()
            .then(|| String::from_utf8_lossy(&stdout).trim().to_owned())
    }

    /// The journal, once every replica's ledger equals it.
    pub fn settled_journal(&self) -> Vec<domain::Row> {
        let ledgers: Vec<PathBuf> = ORDERS.iter().map(|role| self.data(*role)).collect();
        settled_journal(&ledgers, || {
            self.status().unwrap_or_default()["catalog"].take()
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if thread::panicking() {
            self.keep_logs();
        }
        for host in self.hosts.values_mut() {
            host.power_off(&self.switch);
        }
        // So that there can be another one in this network.
        let mut ip = Command::new("ip");
        let _ = ip.args(["link", "del", CLIENTS_DEVICE]).status();
    }
}

/// Every server, of which one takes commits at a time.
fn store_url() -> String {
    let servers: Vec<String> = DATABASES
        .iter()
        .map(|role| role.at(POSTGRES_PORT))
        .collect();
    format!(
        "postgres://{POSTGRES}@{}/{DATABASE}?sslmode=disable",
        servers.join(",")
    )
}

pub fn socket(role: Role, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address(role.number())), port)
}

/// Where clients ask a gateway.
pub fn clients_address(gateway: Role) -> SocketAddr {
    socket(gateway, CLIENT_PORT)
}

/// The status and the body of an answer.
fn admin(gateway: Role, target: &str) -> Option<(u16, String)> {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    let answer = try_request(
        socket(gateway, ADMIN_PORT),
        "GET",
        target,
        &headers,
        b"",
        LOOK_TIME_MAX,
    )
    .ok()?;
    Some((answer.status, answer.body))
}

/// Synchronous, and strict about it; fails over after 5 s, or as many as its version waits at least. Copies of the primary
/// wait for no checkpoint that is spread over minutes.
const PATRONI: &str = "\
scope: bazaar
name: {name}
restapi: {listen: '{rest}', connect_address: '{rest}'}
etcd3: {hosts: [{etcd}]}
bootstrap:
  dcs:
    ttl: 5
    loop_wait: 1
    retry_timeout: 2
    synchronous_mode: true
    synchronous_mode_strict: true
    postgresql:
      use_pg_rewind: true
      parameters: {shared_buffers: 16MB, max_connections: 50, wal_receiver_status_interval: 1, wal_keep_size: 256MB,
        dynamic_shared_memory_type: mmap}
  initdb: [{encoding: UTF8}, {locale: C.UTF-8}, no-sync, data-checksums]
postgresql:
  listen: '{sql}'
  connect_address: '{sql}'
  data_dir: '{data}'
  bin_dir: '{programs}'
  pgpass: '{sockets}/pgpass'
  basebackup: [checkpoint: fast]
  authentication: {superuser: {username: postgres}, replication: {username: postgres}, rewind: {username: postgres}}
  parameters: {unix_socket_directories: '{sockets}'}
  pg_hba: [local all all trust, host all all 10.77.0.0/24 trust, host replication all 10.77.0.0/24 trust]
";
