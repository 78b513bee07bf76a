//! Bazaar, started by `bazaar up` with three replicas.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Contender, Site};
use crate::error::Error;
use crate::generator::wrk::Requests;
use crate::generator::{Figures, Load};
use crate::http;
use crate::process::{Process, command, free_addresses, resident_bytes};

/// How a bazaar is started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What reports call it.
    pub name: String,
    pub binary: PathBuf,
    /// CSV of the stocks; the built-in ones where there is none.
    pub stocks: Option<PathBuf>,
    /// The URL of a PostgreSQL database that keeps the catalog's data, in the place of its directory.
    pub store: Option<String>,
    /// Further flags of `bazaar up`.
    pub flags: Vec<String>,
}

/// One service of a running bazaar.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub address: SocketAddr,
    pub pid: u32,
}

#[derive(Debug)]
pub struct Bazaar {
    name: String,
    binary: PathBuf,
    dir: PathBuf,
    services: BTreeMap<String, Service>,
    admin: SocketAddr,
    workers: usize,
    _process: Process,
}

impl Bazaar {
    /// Starts one in a directory of its own, and waits until it can serve a trade. Data that is
    /// there is taken up.
    pub fn start(site: &Site, setup: &Setup) -> Result<Self, Error> {
        let dir = site.make_dir(&setup.name.replace(' ', "-"))?;
        let [listen, admin] = free_addresses()?;
        let mut line = command(&setup.binary);
        line.args(["up", "--port-base=0"])
            .arg(format!("--listen={listen}"))
            .arg(format!("--admin={admin}"))
            .arg(format!("--workers={}", site.workers))
            .arg(format!("--data-dir={}", dir.join("data").display()));
        if let Some(stocks) = &setup.stocks {
            line.arg(format!("--stocks={}", stocks.display()));
        }
        if let Some(store) = &setup.store {
            line.args(["--catalogs=1", "--store", store]);
        }
        line.args(&setup.flags);
        let mut process = Process::start("bazaar", &dir, line)?;
        process.wait_until(|process| process.log().contains("Ctrl-C"))?;
        Ok(Self {
            name: setup.name.clone(),
            binary: setup.binary.clone(),
            services: process.log().lines().filter_map(service).collect(),
            dir,
            admin,
            workers: site.workers,
            _process: process,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.services["gateway"].address
    }

    /// Every service by its name, "order-3" for one.
    pub fn services(&self) -> &BTreeMap<String, Service> {
        &self.services
    }

    /// Where its gateway's admin API is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where logs, and data under `data`, are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts another gateway beside the first one; also tells where clients connect to it.
    pub fn another_gateway(&self, number: usize) -> Result<(SocketAddr, Process), Error> {
        let [listen, admin] = free_addresses()?;
        let name = format!("gateway-{number}");
        let mut line = command(&self.binary);
        line.arg("gateway")
            .arg(format!("--listen={listen}"))
            .arg(format!("--admin={admin}"))
            .arg(format!("--workers={}", self.workers))
            .arg(format!(
                "--catalog=http://{}",
                self.services["catalog"].address
            ));
        for (id, address) in self.replicas() {
            line.arg(format!("--order={id}=http://{address}"));
        }
        let mut process = Process::start(&name, &self.dir, line)?;
        process.wait_until(|_| is_ready(admin))?;
        Ok((listen, process))
    }

    /// Starts a replica again that was killed, on its address.
    pub fn start_replica(&self, id: u32) -> Result<Process, Error> {
        let name = format!("order-{id}");
        let mut line = command(&self.binary);
        line.arg("order")
            .arg(format!("--id={id}"))
            .arg(format!("--listen={}", self.services[&name].address))
            .arg(format!(
                "--catalog=http://{}",
                self.services["catalog"].address
            ))
            .arg(format!("--data-dir={}", self.replica_dir(id).display()));
        for (peer, address) in self.replicas().filter(|(peer, _)| *peer != id) {
            line.arg(format!("--peer={peer}=http://{address}"));
        }
        Process::start(&format!("{name}-again"), &self.dir, line)
    }

    pub fn replica_dir(&self, id: u32) -> PathBuf {
        replica_dir(&self.dir, id)
    }

    /// Resident memory of each service, in bytes.
    pub fn memory(&self) -> BTreeMap<String, u64> {
        let services = self.services.iter();
        services
            .map(|(name, service)| (name.clone(), resident_bytes(service.pid)))
            .collect()
    }

    fn replicas(&self) -> impl Iterator<Item = (u32, SocketAddr)> {
        self.services.iter().filter_map(|(name, service)| {
            let id = name.strip_prefix("order-")?.parse().ok()?;
            Some((id, service.address))
        })
    }

    /// The admin API's `GET /status`.
    pub fn status(&self) -> Result<serde_json::Value, Error> {
        let wrong = |answer: String| Error::Wrong {
            name: self.name.clone(),
            answer,
        };
        let answer = http::get(self.admin, "/status").map_err(|error| wrong(error.to_string()))?;
        serde_json::from_str(&answer.body).map_err(|_| wrong(answer.body))
    }
}

impl Contender for Bazaar {
    fn name(&self) -> &str {
        &self.name
    }

    fn lacks(&self) -> &'static str {
        ""
    }

    fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
        self.trade(load)
    }
}

impl Bazaar {
    /// Trades, buying and selling in turn.
    pub fn trade(&self, load: &Load) -> Result<Figures, Error> {
        let requests = Requests {
            script: include_str!("../../contenders/trade.lua"),
            ..Requests::get(self.address(), "/orders")
        };
        requests.send(load, &self.dir)?.without_errors(&self.name)
    }

    /// The same, so many orders in each request. What is counted is orders; what is timed, requests.
    pub fn trade_in_batches(&self, orders: u64, load: &Load) -> Result<Figures, Error> {
        let requests = Requests {
            script: include_str!("../../contenders/batch.lua"),
            arguments: [orders, 0],
            ..Requests::get(self.address(), "/orders")
        };
        let figures = requests.send(load, &self.dir)?.without_errors(&self.name)?;
        Ok(Figures {
            requests: figures.requests * orders,
            ..figures
        })
    }
}

/// A bazaar whose clients send so many orders at a time.
pub struct Batches {
    name: String,
    bazaar: Rc<Bazaar>,
    orders: u64,
}

impl Batches {
    pub fn of(bazaar: &Rc<Bazaar>, orders: u64) -> Self {
        Self {
            name: format!("{}, arrays of {orders}", bazaar.name),
            bazaar: Rc::clone(bazaar),
            orders,
        }
    }
}

impl Contender for Batches {
    fn name(&self) -> &str {
        &self.name
    }

    fn lacks(&self) -> &'static str {
        ""
    }

    fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
        self.bazaar.trade_in_batches(self.orders, load)
    }
}

impl Contender for Rc<Bazaar> {
    fn name(&self) -> &str {
        &self.name
    }

    fn lacks(&self) -> &'static str {
        ""
    }

    fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
        self.trade(load)
    }
}

/// Where a bazaar that is started in a directory keeps a replica's data.
pub fn replica_dir(dir: &Path, id: u32) -> PathBuf {
    dir.join("data").join(format!("order-{id}"))
}

/// Where it keeps the catalog's.
pub fn catalog_dir(dir: &Path) -> PathBuf {
    dir.join("data").join("catalog")
}

/// Whether a gateway can serve a trade.
fn is_ready(admin: SocketAddr) -> bool {
    http::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200)
}

/// A line of the table that `up` prints: name, URL, process.
fn service(line: &str) -> Option<(String, Service)> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let url = words.next()?;
    let address = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let address = address?.parse().ok()?;
    let pid = words.next()?.parse().ok()?;
    Some((name, Service { address, pid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_off_what_up_prints() {
        let (name, found) = service("order-3  http://127.0.0.1:56891  7041  data/order-3").unwrap();
        assert_eq!((name.as_str(), found.pid), ("order-3", 7041));
        assert_eq!(found.address.port(), 56891);
        let (_, found) = service("gateway  https://127.0.0.1:8080  7042  -").unwrap();
        assert_eq!((found.address.port(), found.pid), (8080, 7042));
        for line in [
            "",
            "admin  http://127.0.0.1:8081  -  -",
            "Try:  curl http://x",
        ] {
            assert!(service(line).is_none(), "{line}");
        }
    }
}
