//! Which services, where, with which flags.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use frontend_host::admin::TokenSource;
use frontend_host::config::{Https, Tokens};

use crate::cert::{self, AUTHORITY, Pair, Renew, Wanted};
use crate::cli::{CATALOG_PORT, Front, PORT_BASE, REPLICAS_MAX, Tracing, Up};
use crate::client::Origin;
use crate::error::Error;
use crate::listen::ListenAddress;
use crate::stop::STOP_TIME_MAX;
use crate::up::UpError;

/// Names of services, and of their parts of the data directory.
pub const CATALOG: &str = "catalog";
/// See [`CATALOG`].
pub const GATEWAY: &str = "gateway";
/// The certificates of `--secure`, beside the services' directories.
pub const CERTS: &str = "certs";
/// Before a replica's number; see [`CATALOG`].
pub const ORDER_PREFIX: &str = "order-";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The catalog's place among the ports; replicas of a higher number stand behind it.
const CATALOG_OFFSET: u16 = CATALOG_PORT - PORT_BASE;

/// That of the last replica that there can be.
const FURTHER_CATALOGS_OFFSET: u16 = REPLICAS_MAX as u16 + 1;

/// One service to start.
#[derive(Debug, Clone)]
pub struct Service {
    /// As it is called in messages and logs, and its directory: "order-3".
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its own part of the data directory.
    pub data_dir: PathBuf,
    /// What follows `bazaar` on its command line.
    pub arguments: Vec<OsString>,
    /// What no command line should show.
    pub environment: Vec<(&'static str, OsString)>,
    /// How long it may take to stop.
    pub stop_time_max: Duration,
    /// Whether it ends by itself where that is what is safe, and is to be started again then, whatever `--restart` says.
    pub is_crash_only: bool,
}

/// All services, on ports that were free a moment ago.
#[derive(Debug)]
pub struct Plan {
    catalogs: Vec<Service>,
    orders: Vec<Service>,
    gateway: [Service; 1],
    admin: SocketAddr,
    /// Where certificates are that have to be there before anything is started.
    certs: Option<PathBuf>,
    /// Under which the gateway is reached, beside where it listens.
    hosts: Vec<String>,
    /// What the gateway shows, if it serves over TLS.
    certificate: Option<PathBuf>,
}

impl Plan {
    /// Finds that every port is free.
    ///
    /// # Errors
    /// [`Error::Taken`] names one that is not. Where the admin token is not valid.
    pub fn new(args: &Up) -> Result<Self, Error> {
        // What is wrong with it is said before anything is started.
        args.front.admin_token.read()?;
        args.front.admin_read_token.read()?;
        let tokens = [
            args.front.admin_token.source()?,
            args.front.admin_read_token.source()?,
        ];
        let addresses = Addresses::find_free(args)?;
        let certs = certs(args);
        let https = args.front.tls.https();
        let certificate = match &certs {
            Some(dir) => Some(Pair::named(dir, GATEWAY).certificate),
            None => https.map(|https| https.certificate),
        };
        Ok(Self {
            certs,
            hosts: args.hosts.clone(),
            certificate,
            catalogs: addresses
                .catalogs
                .iter()
                .zip(1..)
                .map(|(address, number)| catalog(args, *address, number))
                .collect(),
            orders: addresses
                .orders
                .iter()
                .map(|(id, address)| order(args, &addresses, *id, *address))
                .collect(),
            gateway: [gateway(args, &addresses, tokens)],
            admin: addresses.admin,
        })
    }

    /// Services that are started, and stopped, together; each stage needs those before it.
    pub fn stages(&self) -> impl Iterator<Item = &[Service]> {
        [&self.catalogs[..], &self.orders, &self.gateway].into_iter()
    }

    /// Where this machine reaches the admin API.
    pub fn admin_origin(&self) -> Origin {
        self.origin(self.admin)
    }

    /// Where this machine reaches the gateway.
    pub fn clients_origin(&self) -> Origin {
        self.origin(self.gateway[0].address)
    }

    fn origin(&self, address: SocketAddr) -> Origin {
        let origin = Origin::from(reachable(address));
        match self.certificate {
            Some(_) => origin.secure(),
            None => origin,
        }
    }

    /// As a service is reached.
    pub fn url(&self, service: &Service) -> String {
        let is_gateway = service.name == GATEWAY;
        match is_gateway && self.certificate.is_some() || self.certs.is_some() {
            true => format!("https://{}", service.address),
            false => format!("http://{}", service.address),
        }
    }

    /// What the gateway shows, if it serves over TLS.
    pub fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    /// Whether the gateway would know who operates it.
    ///
    /// # Errors
    /// See [`frontend_host::check_operators`].
    pub fn check_operators(args: &Up) -> Result<(), UpError> {
        let source = |source: Result<_, _>| source.map_err(Error::from);
        let tokens = Tokens {
            change: source(args.front.admin_token.source())?,
            read: source(args.front.admin_read_token.source())?,
        };
        let https = args.front.tls.https();
        match args.secure {
            // Operators show certificates.
            true => Ok(()),
            false => Ok(frontend_host::check_operators(
                args.front.admin,
                &tokens,
                https.as_ref(),
                false,
            )?),
        }
    }

    /// Where the certificates of `--secure` are.
    pub fn certs(&self) -> Option<&Path> {
        self.certs.as_deref()
    }

    /// Which certificates have to be there before anything is started.
    pub fn certificates(&self) -> Option<Wanted> {
        let hosts = [self.gateway[0].address, self.admin].map(|address| reachable(address).ip());
        let replicas = u32::try_from(self.orders.len()).expect("there are at most nine replicas");
        Some(Wanted {
            dir: self.certs.clone()?,
            hosts: hosts
                .map(|host| host.to_string())
                .into_iter()
                .chain(self.hosts.iter().cloned())
                .collect(),
            principals: cert::everybody(replicas),
            days: cert::DAYS_MAX,
            // For the addresses of this start. The authority stays, and with it what others have of it.
            renew: Renew::Services,
        })
    }
}

/// A wildcard address is where to listen, not where to connect.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => LOOPBACK,
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

struct Addresses {
    catalogs: Vec<SocketAddr>,
    /// Highest number first.
    orders: Vec<(u32, SocketAddr)>,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Addresses {
    /// Listens everywhere at once, so that no two of them are one, and lets go.
    fn find_free(args: &Up) -> Result<Self, Error> {
        let mut held: Vec<TcpListener> = Vec::new();
        let mut find = |address, purpose: String, flag| -> Result<SocketAddr, Error> {
            let listener = ListenAddress {
                address,
                purpose: purpose.clone(),
                flag,
            }
            .bind_anew()?;
            let found = listener.local_addr().map_err(|source| Error::Listen {
                address,
                purpose,
                flag,
                source,
            })?;
            held.push(listener);
            Ok(found)
        };
        let inner = |offset: u16| {
            let port = if args.port_base == 0 {
                0
            } else {
                args.port_base + offset
            };
            SocketAddr::new(LOOPBACK, port)
        };
        let order_offset = |id: u16| if id < CATALOG_OFFSET { id } else { id + 1 };

        let mut catalogs = Vec::new();
        for number in 0..args.catalogs {
            let (offset, purpose) = match u16::try_from(number).expect("there are at most four") {
                0 => (CATALOG_OFFSET, "the catalog".to_owned()),
                further => (
                    FURTHER_CATALOGS_OFFSET + further,
                    format!("catalog {}", further + 1),
                ),
            };
            catalogs.push(find(inner(offset), purpose, "--port-base")?);
        }
        let mut orders = Vec::new();
        for id in (1..=args.replicas).rev() {
            let offset = order_offset(u16::try_from(id).expect("there are at most nine replicas"));
            orders.push((
                id,
                find(inner(offset), format!("order replica {id}"), "--port-base")?,
            ));
        }
        let listen = find(
            args.front.listen,
            "the gateway's HTTP".to_owned(),
            "--listen",
        )?;
        let admin = find(
            args.front.admin,
            "the gateway's admin API".to_owned(),
            "--admin",
        )?;
        Ok(Self {
            catalogs,
            orders,
            listen,
            admin,
        })
    }
}

/// Where the certificates of `--secure` are.
fn certs(args: &Up) -> Option<PathBuf> {
    args.secure.then(|| args.data_dir.join(CERTS))
}

/// How one service is reached by another.
fn url(args: &Up, address: SocketAddr) -> String {
    match args.secure {
        true => format!("https://{address}"),
        false => format!("http://{address}"),
    }
}

fn catalog(args: &Up, address: SocketAddr, number: u32) -> Service {
    let flags = Flags::of(args, "catalog")
        .with("--listen", address.to_string())
        .with_some("--stocks", args.stocks.as_deref())
        .with_some(
            "--lease-ms",
            args.lease_ms.map(|lease_ms| lease_ms.to_string()),
        )
        .of_cluster(args, CATALOG);
    let data_dir = args.data_dir.join(CATALOG);
    let Some(store) = &args.store else {
        let flags = flags.with("--data-dir", &data_dir);
        let flags = flags.with_some("--archive-after", archive_after(args));
        return flags.service(CATALOG.to_owned(), address, data_dir);
    };
    let flags = match args.allow_unreplicated {
        true => flags.switch("--allow-unreplicated"),
        false => flags,
    };
    let name = match args.catalogs {
        1 => CATALOG.to_owned(),
        _ => format!("{CATALOG}-{number}"),
    };
    Service {
        environment: vec![("BAZAAR_STORE", store.0.clone().into())],
        // It never reconnects under a term of its own; its next start stands by.
        is_crash_only: true,
        ..flags.service(name, address, PathBuf::new())
    }
}

fn archive_after(args: &Up) -> Option<String> {
    args.archive_after.map(|rows| rows.to_string())
}

fn order(args: &Up, addresses: &Addresses, id: u32, address: SocketAddr) -> Service {
    let name = format!("{ORDER_PREFIX}{id}");
    let data_dir = args.data_dir.join(&name);
    let mut flags = Flags::of(args, "order")
        .with("--id", id.to_string())
        .with("--listen", address.to_string())
        .with_catalogs(args, &addresses.catalogs)
        .with("--data-dir", &data_dir)
        .with_some("--archive-after", archive_after(args))
        .of_cluster(args, &name);
    for (peer, address) in addresses.orders.iter().filter(|(peer, _)| *peer != id) {
        flags = flags.with("--peer", format!("{peer}={}", url(args, *address)));
    }
    if args.rebuild {
        flags = flags.switch("--rebuild");
    }
    flags.service(name, address, data_dir)
}

/// Every other processor is left to the other services, and to clients on this machine: a gateway
/// that shares its processors with its callers is slower for more threads.
fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

fn gateway(args: &Up, addresses: &Addresses, tokens: [Option<TokenSource>; 2]) -> Service {
    let Front {
        policy,
        policy_trust,
        policy_config,
        policy_secrets,
        admin_token: _,
        admin_read_token: _,
        tls,
        drain_delay_ms,
        workers,
        connections_per_client_max,
        cache_stocks_max,
        cache_orders_max,
        rules,
        access,
        listen: _,
        admin: _,
    } = &args.front;
    let data_dir = args.data_dir.join(GATEWAY);
    let mut flags = Flags::of(args, "gateway")
        .with("--listen", addresses.listen.to_string())
        .with("--admin", addresses.admin.to_string())
        .with_catalogs(args, &addresses.catalogs)
        .with("--data-dir", &data_dir)
        .of_cluster(args, GATEWAY)
        .with_some("--policy", policy.as_deref())
        .with_some("--policy-trust", policy_trust.as_deref())
        .with_some("--policy-config", policy_config.as_deref())
        .with_some("--policy-secrets", policy_secrets.as_deref())
        .with(
            "--workers",
            workers.unwrap_or_else(default_workers).to_string(),
        )
        .with_some(
            "--connections-per-client-max",
            connections_per_client_max.map(|connections| connections.to_string()),
        )
        .with_some(
            "--cache-stocks-max",
            cache_stocks_max.map(|stocks| stocks.to_string()),
        )
        .with_some(
            "--cache-orders-max",
            cache_orders_max.map(|orders| orders.to_string()),
        )
        .with("--drain-delay-ms", drain_delay_ms.to_string())
        .with("--decision-ms-max", rules.decision_ms_max.to_string())
        .with("--probation-seconds", rules.probation_seconds.to_string())
        .with(
            "--probation-failures-max",
            rules.probation_failures_max.to_string(),
        )
        .with("--access-log", access.access_log.name())
        .with_some("--access-log-file", access.access_log_file.as_deref())
        .with("--access-log-sample", access.access_log_sample.to_string())
        .with_some(
            "--client-header",
            rules.client_header.as_ref().map(|name| name.as_str()),
        );
    for (id, address) in &addresses.orders {
        flags = flags.with("--order", format!("{id}={}", url(args, *address)));
    }
    let own = certs(args).map(|dir| Pair::named(&dir, GATEWAY));
    let https = own.map(|Pair { certificate, key }| Https {
        certificate,
        key,
        client_authorities: None,
    });
    if let Some(https) = https.or_else(|| tls.https()) {
        flags = flags
            .with("--tls-cert", https.certificate)
            .with("--tls-key", https.key)
            .with_some("--tls-client-ca", https.client_authorities);
    }
    let mut service = flags.service(GATEWAY.to_owned(), addresses.listen, data_dir);
    let variables = [
        ["BAZAAR_ADMIN_TOKEN", "BAZAAR_ADMIN_TOKEN_FILE"],
        ["BAZAAR_ADMIN_READ_TOKEN", "BAZAAR_ADMIN_READ_TOKEN_FILE"],
    ];
    for ([given, file], source) in variables.into_iter().zip(tokens) {
        let told = source.map(|source| match source {
            TokenSource::Given(token) => (given, token.as_str().into()),
            TokenSource::File(path) => (file, path.into()),
        });
        service.environment.extend(told);
    }
    service.stop_time_max += Duration::from_millis(*drain_delay_ms);
    service
}

/// A command line in the making.
struct Flags(Vec<OsString>);

impl Flags {
    fn of(args: &Up, command: &str) -> Self {
        Self(vec![command.into(), "--stop-at-eof".into()])
            .with("--log-format", args.logging.log_format.name())
            .traced(&args.tracing)
    }

    fn traced(self, tracing: &Tracing) -> Self {
        let Tracing {
            otlp,
            otlp_ca,
            trace_sample,
            trace_asked_max,
        } = tracing;
        self.with_some("--otlp", otlp.as_ref().map(ToString::to_string))
            .with_some("--otlp-ca", otlp_ca.as_deref())
            .with("--trace-sample", trace_sample.to_string())
            .with("--trace-asked-max", trace_asked_max.to_string())
    }

    fn switch(mut self, flag: &str) -> Self {
        self.0.push(flag.into());
        self
    }

    /// As one argument, so that no value is taken for a flag.
    fn with(mut self, flag: &str, value: impl AsRef<OsStr>) -> Self {
        let mut argument = OsString::from(flag);
        argument.push("=");
        argument.push(value.as_ref());
        self.0.push(argument);
        self
    }

    fn with_catalogs(mut self, args: &Up, catalogs: &[SocketAddr]) -> Self {
        for address in catalogs {
            self = self.with("--catalog", url(args, *address));
        }
        self
    }

    /// With the certificate of that name, where there are any.
    fn of_cluster(self, args: &Up, name: &str) -> Self {
        let Some(dir) = certs(args) else {
            return self;
        };
        let own = Pair::named(&dir, name);
        self.with("--cluster-ca", Pair::named(&dir, AUTHORITY).certificate)
            .with("--cluster-cert", own.certificate)
            .with("--cluster-key", own.key)
    }

    fn with_some(self, flag: &str, value: Option<impl AsRef<OsStr>>) -> Self {
        match value {
            Some(value) => self.with(flag, value),
            None => self,
        }
    }

    fn service(self, name: String, address: SocketAddr, data_dir: PathBuf) -> Service {
        Service {
            name,
            address,
            data_dir,
            arguments: self.0,
            environment: Vec::new(),
            stop_time_max: STOP_TIME_MAX,
            is_crash_only: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn up(line: &str) -> Up {
        match Cli::try_parse_from(line.split(' ')).unwrap().into_command() {
            Command::Up(up) => up,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_planned_command_line_is_one_that_bazaar_takes() {
        let args = up(
            "bazaar --port-base 0 --listen 127.0.0.1:0 --admin 127.0.0.1:0 --replicas 9 --stocks=-s.csv --lease-ms 200 --rebuild --archive-after 5000 --connections-per-client-max 7 --cache-stocks-max 0 --cache-orders-max 9 --log-format json --otlp http://h:4318/v1/traces --trace-sample 0.5",
        );
        let plan = Plan::new(&args).unwrap();
        let services: Vec<&Service> = plan.stages().flatten().collect();
        assert_eq!(services.len(), 11);
        for service in services {
            for flag in [
                "--log-format=json",
                "--otlp=http://h:4318/v1/traces",
                "--trace-sample=0.5",
            ] {
                assert!(service.arguments.contains(&flag.into()), "{flag}");
            }
            let line = [OsString::from("bazaar")]
                .into_iter()
                .chain(service.arguments.iter().cloned());
            match Cli::try_parse_from(line).unwrap().into_command() {
                Command::Order(order) => assert_eq!(
                    (
                        order.peers.len(),
                        order.address().unwrap(),
                        order.rebuild,
                        order.archive_after
                    ),
                    (8, service.address, true, Some(5000))
                ),
                Command::Catalog(catalog) => assert_eq!(
                    (catalog.lease_ms, catalog.archive_after),
                    (Some(200), Some(5000))
                ),
                Command::Gateway(gateway) => assert_eq!(
                    (
                        gateway.orders.len(),
                        gateway.front.connections_per_client_max,
                        gateway.front.cache_stocks_max,
                        gateway.front.cache_orders_max
                    ),
                    (9, Some(7), Some(0), Some(9))
                ),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn catalogs_of_one_store_are_told_of_it_where_nobody_reads_it_and_everybody_of_all_of_them() {
        let args = up(
            "bazaar --port-base 0 --listen 127.0.0.1:0 --admin 127.0.0.1:0 --store postgres://u:secret@h/d --catalogs 2",
        );
        let plan = Plan::new(&args).unwrap();
        for service in plan.stages().flatten() {
            let line = [OsString::from("bazaar")]
                .into_iter()
                .chain(service.arguments.iter().cloned());
            assert!(!format!("{:?}", service.arguments).contains("secret"));
            let stores = service.environment.iter();
            let has_store = stores.clone().any(|(name, _)| *name == "BAZAAR_STORE");
            let is_catalog = service.name.starts_with("catalog-");
            assert_eq!((has_store, service.is_crash_only), (is_catalog, is_catalog));
            if is_catalog {
                continue; // its command line alone does not say where its data is
            }
            match Cli::try_parse_from(line).unwrap().into_command() {
                Command::Order(order) => assert_eq!(order.catalogs.len(), 2),
                Command::Gateway(gateway) => assert_eq!(gateway.catalogs.len(), 2),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let args = up(&format!(
            "bazaar --port-base 0 --listen {address} --admin 127.0.0.1:0"
        ));
        let message = Plan::new(&args).unwrap_err().to_string();
        assert!(
            message.contains(&address.port().to_string()) && message.contains("--listen"),
            "{message}"
        );
    }
}
