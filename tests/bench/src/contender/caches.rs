//! Caching proxies in front of the origin server, and wasmtime with a component of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use policy_build::Builder;

use super::{Contender, Site, fill, is_root, write};
use crate::error::Error;
use crate::generator::wrk::Requests;
use crate::generator::{Figures, Load};
use crate::http;
use crate::origin::BODY;
use crate::process::{Process, command, find, free_addresses};

/// Rust's standard library imports what `-S cli` grants. Without the rest every request has an
/// instance of its own, in memory that is mapped for it.
const SERVE: [&str; 4] = [
    "-Scli",
    "-Opooling-allocator",
    "--max-instance-reuse-count",
    "1000000",
];

/// The component that `wasmtime serve` runs.
const HELLO_DIR: &str = "tests/bench/hello";

/// What is looked up.
pub const PATH: &str = "/stocks/nvidia";

/// A server whose answer is looked up again and again.
#[derive(Debug)]
pub struct Cache {
    name: String,
    address: SocketAddr,
    dir: PathBuf,
    _process: Option<Process>,
}

impl Cache {
    /// A server that somebody else keeps running, and that answers with the body that all are
    /// compared on.
    pub fn beside(name: &str, address: SocketAddr, dir: &Path) -> Result<Self, Error> {
        let cache = Self {
            name: name.to_owned(),
            address,
            dir: dir.to_owned(),
            _process: None,
        };
        cache.check(BODY)?;
        Ok(cache)
    }

    /// Waits for a server that was just started. Its second answer is from its cache.
    fn wait(
        name: &str,
        address: SocketAddr,
        dir: &Path,
        mut process: Process,
        body: &str,
    ) -> Result<Self, Error> {
        process
            .wait_until(|_| http::get(address, PATH).is_ok_and(|answer| answer.status == 200))?;
        let cache = Self {
            name: name.to_owned(),
            address,
            dir: dir.to_owned(),
            _process: Some(process),
        };
        cache.check(body)?;
        Ok(cache)
    }

    fn check(&self, body: &str) -> Result<(), Error> {
        let answered = http::get(self.address, PATH);
        match answered {
            Ok(answer) if answer.status == 200 && answer.body == body => Ok(()),
            other => Err(Error::Wrong {
                name: self.name.clone(),
                answer: format!("{other:?}"),
            }),
        }
    }
}

impl Contender for Cache {
    fn name(&self) -> &str {
        &self.name
    }

    fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
        let figures = Requests::get(self.address, PATH).send(load, &self.dir)?;
        figures.without_errors(&self.name)
    }
}

/// nginx with `proxy_cache`: a worker for each processor.
pub fn nginx(site: &Site, origin: SocketAddr) -> Result<Cache, Error> {
    let dir = site.make_dir("nginx")?;
    let [address] = free_addresses()?;
    let user = if is_root() { "user root;" } else { "" };
    let config = fill(
        include_str!("../../contenders/nginx.conf"),
        &[
            ("workers", site.workers.to_string()),
            ("dir", dir.display().to_string()),
            ("port", address.port().to_string()),
            ("origin", origin.to_string()),
            ("user", user.to_owned()),
        ],
    );
    let file = dir.join("nginx.conf");
    write(&file, &config)?;
    let mut line = command(find("nginx")?);
    line.arg("-p").arg(&dir).arg("-c").arg(&file);
    let process = Process::start("nginx", &dir, line)?;
    Cache::wait("nginx", address, &dir, process, BODY)
}

/// HAProxy with its cache: a thread for each processor.
pub fn haproxy(site: &Site, origin: SocketAddr) -> Result<Cache, Error> {
    let dir = site.make_dir("haproxy")?;
    let [address] = free_addresses()?;
    let config = fill(
        include_str!("../../contenders/haproxy.cfg"),
        &[
            ("workers", site.workers.to_string()),
            ("port", address.port().to_string()),
            ("origin", origin.to_string()),
        ],
    );
    let file = dir.join("haproxy.cfg");
    write(&file, &config)?;
    let mut line = command(find("haproxy")?);
    line.arg("-db").arg("-f").arg(&file);
    let process = Process::start("haproxy", &dir, line)?;
    Cache::wait("haproxy", address, &dir, process, BODY)
}

/// Varnish with objects in memory, and its usual pools of threads.
pub fn varnish(site: &Site, origin: SocketAddr) -> Result<Cache, Error> {
    let dir = site.make_dir("varnish")?;
    let [address] = free_addresses()?;
    let config = fill(
        include_str!("../../contenders/varnish.vcl"),
        &[
            ("origin_host", origin.ip().to_string()),
            ("origin_port", origin.port().to_string()),
        ],
    );
    let file = dir.join("varnish.vcl");
    write(&file, &config)?;
    let mut line = command(find("varnishd")?);
    line.args(["-F", "-j", "none", "-s", "malloc,64m", "-a"])
        .arg(address.to_string())
        .arg("-n")
        .arg(dir.join("work"))
        .arg("-f")
        .arg(&file)
        // Connections are kept for as long as clients want them.
        .args(["-p", "timeout_idle=3600"]);
    let process = Process::start("varnish", &dir, line)?;
    Cache::wait("varnish", address, &dir, process, BODY)
}

/// `wasmtime serve` with a component that answers at once, in an instance that it keeps.
pub fn wasmtime(site: &Site) -> Result<Cache, Error> {
    let wasmtime = find("wasmtime")?;
    let component = Builder::in_project(HELLO_DIR).build()?;
    let dir = site.make_dir("wasmtime")?;
    let [address] = free_addresses()?;
    let mut line = command(wasmtime);
    line.args(["serve", "--addr", &address.to_string()])
        .args(SERVE)
        .arg(component);
    let mut process = Process::start("wasmtime", &dir, line)?;
    let mut body = String::new();
    process.wait_until(|_| match http::get(address, PATH) {
        Ok(answer) if answer.status == 200 => {
            body = answer.body;
            true
        }
        _ => false,
    })?;
    Cache::wait("wasmtime serve", address, &dir, process, &body)
}
