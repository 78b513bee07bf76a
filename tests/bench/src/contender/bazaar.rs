//! Bazaar, started by `bazaar up` with three replicas.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Contender, Site};
use crate::error::Error;
use crate::generator::wrk::Requests;
use crate::generator::{Figures, Load};
use crate::process::{Process, command, free_addresses};

/// How a bazaar is started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What reports call it.
    pub name: String,
    /// The command.
    pub binary: PathBuf,
    /// CSV of the stocks; the built-in ones where there is none.
    pub stocks: Option<PathBuf>,
}

/// A running bazaar.
#[derive(Debug)]
pub struct Bazaar {
    name: String,
    dir: PathBuf,
    services: BTreeMap<String, SocketAddr>,
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
        let mut process = Process::start("bazaar", &dir, line)?;
        process.wait_until(|process| process.log().contains("Ctrl-C"))?;
        Ok(Self {
            name: setup.name.clone(),
            services: process.log().lines().filter_map(service).collect(),
            dir,
            _process: process,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.services["gateway"]
    }

    /// Where logs, and data under `data`, are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Contender for Bazaar {
    fn name(&self) -> &str {
        &self.name
    }

    /// Trades.
    fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
        let requests = Requests {
            script: include_str!("../../contenders/trade.lua"),
            ..Requests::get(self.address(), "/orders")
        };
        requests.send(load, &self.dir)?.without_errors(&self.name)
    }
}

/// A line of the table that `up` prints: name, URL, process.
fn service(line: &str) -> Option<(String, SocketAddr)> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let address = words.next()?.strip_prefix("http://")?.parse().ok()?;
    let _pid: u32 = words.next()?.parse().ok()?;
    Some((name, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_off_what_up_prints() {
        let (name, found) = service("order-3  http://127.0.0.1:56891  7041  data/order-3").unwrap();
        assert_eq!((name.as_str(), found.port()), ("order-3", 56891));
        for line in [
            "",
            "admin  http://127.0.0.1:8081  -  -",
            "Try:  curl http://x",
        ] {
            assert!(service(line).is_none(), "{line}");
        }
    }
}
