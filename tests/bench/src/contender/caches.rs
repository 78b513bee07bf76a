//! Caching proxies in front of the origin server, and wasmtime with a component of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use policy_build::Builder;

use super::{Contender, Site, fill, is_root, write};
use crate::error::Error;
use crate::generator::wrk::Requests;
use crate::generator::{Figures, Load};
use crate::http;
use crate::origin::{BODY, Origin};
use crate::process::{Process, command, family, family_bytes, find, free_addresses};

/// Rust's standard library imports what `-S cli` grants. Without the rest every request has an
/// instance of its own, in memory that is mapped for it.
const SERVE: [&str; 4] = [
    "-Scli",
    "-Opooling-allocator",
    "--max-instance-reuse-count",
    "1000000",
];

/// What caches do not offer that keep an answer until it expires.
pub const STALE: &str = "a policy in wasm; a linearizable cache: an answer stays until it expires";

/// What hosts of code do not offer that gives one answer, and keep none.
pub const CONSTANT: &str = "a linearizable cache: its answer is a constant";

/// The component that `wasmtime serve` runs.
const HELLO_DIR: &str = "tests/bench/hello";

/// What is looked up.
pub const PATH: &str = "/stocks/nvidia";

/// A server whose answer is looked up again and again.
#[derive(Debug)]
pub struct Cache {
    name: String,
    lacks: &'static str,
    address: SocketAddr,
    /// Where it speaks HTTP/2 in the clear, to clients that begin with it.
    http2: Option<SocketAddr>,
    dir: PathBuf,
    /// None where somebody else keeps it running.
    processes: Vec<Process>,
}

/// How a server is reached that was started, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Started<'a> {
    /// What reports call it.
    pub name: &'a str,
    /// What it does not offer.
    pub lacks: &'static str,
    pub address: SocketAddr,
    /// The generator's files go there.
    pub dir: &'a Path,
}

impl Cache {
    /// A server that somebody else keeps running, and that answers with the body that all are
    /// compared on.
    pub fn beside(started: Started<'_>) -> Result<Self, Error> {
        let cache = Self::of(started, Vec::new());
        cache.check(BODY)?;
        Ok(cache)
    }

    /// Waits until a server that was just started answers without asking the origin: from its cache.
    pub fn wait_cached(
        started: Started<'_>,
        mut process: Process,
        origin: &Origin,
    ) -> Result<Self, Error> {
        process.wait_until(|_| {
            let before = origin.answers();
            answers(started.address) && origin.answers() == before
        })?;
        let cache = Self::of(started, vec![process]);
        cache.check(BODY)?;
        Ok(cache)
    }

    /// Waits for a server that was just started, of at least one process, and has an answer of its own.
    pub fn wait(
        started: Started<'_>,
        mut processes: Vec<Process>,
        body: &str,
    ) -> Result<Self, Error> {
        for process in &mut processes {
            process.wait_until(|_| answers(started.address))?;
        }
        let cache = Self::of(started, processes);
        cache.check(body)?;
        Ok(cache)
    }

    fn of(started: Started<'_>, processes: Vec<Process>) -> Self {
        Self {
            name: started.name.to_owned(),
            lacks: started.lacks,
            address: started.address,
            http2: None,
            dir: started.dir.to_owned(),
            processes,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn http2(&self) -> Option<SocketAddr> {
        self.http2
    }

    fn with_http2(self, address: SocketAddr) -> Self {
        Self {
            http2: Some(address),
            ..self
        }
    }

    /// All of its processes.
    pub fn pids(&self) -> Vec<u32> {
        let processes = self.processes.iter();
        processes
            .flat_map(|process| family(process.pid()))
            .collect()
    }

    /// What its processes hold in memory, as the kernel counts it now.
    pub fn resident_bytes(&self) -> u64 {
        let processes = self.processes.iter();
        processes.map(|process| family_bytes(process.pid())).sum()
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

    fn lacks(&self) -> &'static str {
        self.lacks
    }

    fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
        let figures = Requests::get(self.address, PATH).send(load, &self.dir)?;
        figures.without_errors(&self.name)
    }
}

/// Whether a lookup succeeds.
fn answers(address: SocketAddr) -> bool {
    http::get(address, PATH).is_ok_and(|answer| answer.status == 200)
}

/// Starts a caching proxy in front of the origin, and waits until it answers from its cache.
fn start(
    name: &str,
    address: SocketAddr,
    dir: &Path,
    line: Command,
    origin: &Origin,
) -> Result<Cache, Error> {
    let process = Process::start(name, dir, line)?;
    let started = Started {
        name,
        lacks: STALE,
        address,
        dir,
    };
    Cache::wait_cached(started, process, origin)
}

/// nginx with `proxy_cache`: a worker for each processor.
pub fn nginx(site: &Site, origin: &Origin) -> Result<Cache, Error> {
    let dir = site.make_dir("nginx")?;
    let [address, http2] = free_addresses()?;
    let user = if is_root() { "user root;" } else { "" };
    let nginx = find("nginx")?;
    let http2 = knows_http2(&nginx).then_some(http2);
    let listen_http2 = http2.map_or_else(String::new, |address| {
        format!("listen {address} http2 reuseport backlog=4096;")
    });
    let config = fill(
        include_str!("../../contenders/nginx.conf"),
        &[
            ("workers", site.workers.to_string()),
            ("dir", dir.display().to_string()),
            ("port", address.port().to_string()),
            ("http2", listen_http2),
            ("origin", origin.address.to_string()),
            ("user", user.to_owned()),
        ],
    );
    let file = dir.join("nginx.conf");
    write(&file, &config)?;
    let mut line = command(nginx);
    line.arg("-p").arg(&dir).arg("-c").arg(&file);
    let started = start("nginx", address, &dir, line, origin)?;
    Ok(Cache { http2, ..started })
}

/// Whether it was built with HTTP/2.
fn knows_http2(nginx: &Path) -> bool {
    let told = command(nginx).arg("-V").output();
    told.is_ok_and(|told| String::from_utf8_lossy(&told.stderr).contains("http_v2_module"))
}

/// HAProxy with its cache: a thread for each processor.
pub fn haproxy(site: &Site, origin: &Origin) -> Result<Cache, Error> {
    let dir = site.make_dir("haproxy")?;
    let [address] = free_addresses()?;
    let config = fill(
        include_str!("../../contenders/haproxy.cfg"),
        &[
            ("workers", site.workers.to_string()),
            ("port", address.port().to_string()),
            ("origin", origin.address.to_string()),
        ],
    );
    let file = dir.join("haproxy.cfg");
    write(&file, &config)?;
    let mut line = command(find("haproxy")?);
    line.arg("-db").arg("-f").arg(&file);
    // It knows by what a client begins with.
    Ok(start("haproxy", address, &dir, line, origin)?.with_http2(address))
}

/// Varnish with objects in memory, and its usual pools of threads.
pub fn varnish(site: &Site, origin: &Origin) -> Result<Cache, Error> {
    let dir = site.make_dir("varnish")?;
    let [address] = free_addresses()?;
    let config = fill(
        include_str!("../../contenders/varnish.vcl"),
        &[
            ("origin_host", origin.address.ip().to_string()),
            ("origin_port", origin.address.port().to_string()),
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
        .args(["-p", "timeout_idle=3600", "-p", "feature=+http2"]);
    Ok(start("varnish", address, &dir, line, origin)?.with_http2(address))
}

/// `wasmtime serve` with a component that answers at once, in an instance that it keeps.
pub fn wasmtime(site: &Site, _: &Origin) -> Result<Cache, Error> {
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
    let started = Started {
        name: "wasmtime serve",
        lacks: CONSTANT,
        address,
        dir: &dir,
    };
    Cache::wait(started, vec![process], &body)
}
