//! nginx in front of an [application] that asks PostgreSQL: what trades and lookups in one stream are compared with. With a
//! cache, whose answers are up to a second old and a little more, and without, where all are fresh.
//!
//! [application]: crate::application

use std::net::SocketAddr;

use super::postgres::Postgres;
use super::{Site, fill, is_root, write};
use crate::error::Error;
use crate::http;
use crate::process::{Process, command, find, free_addresses};

/// Whether nginx keeps answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// For a second.
    Second,
    None,
}

impl Caching {
    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "nginx, 1 s, PostgreSQL",
            Self::None => "nginx, no cache, PostgreSQL",
        }
    }

    /// What of Bazaar's it does not offer.
    pub fn lacks(self) -> &'static str {
        match self {
            Self::Second => "a policy in wasm; fresh answers: they are a second old and more",
            Self::None => "a policy in wasm; a cache",
        }
    }

    fn zone(self) -> &'static str {
        match self {
            Self::Second => "stocks",
            Self::None => "off",
        }
    }
}

/// nginx and the application.
#[derive(Debug)]
pub struct Behind {
    pub caching: Caching,
    /// Where clients connect to nginx.
    pub address: SocketAddr,
    application: SocketAddr,
    // They end in this order.
    _nginx: Process,
    _application: Process,
}

impl Behind {
    /// Starts both, and waits until a stock can be looked up, whose path this is.
    pub fn start(
        site: &Site,
        caching: Caching,
        postgres: &Postgres,
        path: &str,
    ) -> Result<Self, Error> {
        let dir = site.make_dir(match caching {
            Caching::Second => "nginx-1s",
            Caching::None => "nginx-fresh",
        })?;
        let nginx = find("nginx")?;
        let [address, application] = free_addresses()?;
        let this = std::env::current_exe().map_err(Error::machine("cannot find this program"))?;
        let mut line = command(this);
        line.arg("application")
            .arg(format!("--listen={application}"))
            .arg(format!("--database={}", postgres.url()))
            .arg(format!("--workers={}", site.workers));
        let mut running = Process::start("application", &dir, line)?;
        running.wait_until(|_| is_found(application, path))?;

        let user = if is_root() { "user root;" } else { "" };
        let config = fill(
            include_str!("../../contenders/nginx-application.conf"),
            &[
                ("workers", site.workers.to_string()),
                ("dir", dir.display().to_string()),
                ("port", address.port().to_string()),
                ("application", application.to_string()),
                ("cache", caching.zone().to_owned()),
                ("user", user.to_owned()),
            ],
        );
        let file = dir.join("nginx.conf");
        write(&file, &config)?;
        let mut line = command(nginx);
        line.arg("-p").arg(&dir).arg("-c").arg(&file);
        let mut process = Process::start("nginx", &dir, line)?;
        process.wait_until(|_| is_found(address, path))?;
        Ok(Self {
            caching,
            address,
            application,
            _nginx: process,
            _application: running,
        })
    }

    /// How many lookups came through to the application so far.
    pub fn passed(&self) -> Result<u64, Error> {
        let wrong = |answer: String| Error::Wrong {
            name: self.caching.name().to_owned(),
            answer,
        };
        let answer = http::get(self.application, "/lookups");
        let answer = answer.map_err(|error| wrong(error.to_string()))?;
        answer.body.parse().map_err(|_| wrong(answer.body))
    }
}

fn is_found(address: SocketAddr, path: &str) -> bool {
    http::get(address, path).is_ok_and(|answer| answer.status == 200)
}
