//! workerd, Cloudflare's runtime for workers, with one in JavaScript that gives one answer. What it runs in WebAssembly is
//! called from JavaScript, so this is its fastest way to answer.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::io::{FdFlags, fcntl_setfd};

use super::caches::{CONSTANT, Cache, Started};
use super::{Site, write};
use crate::error::Error;
use crate::origin::{BODY, Origin};
use crate::process::{Process, command, find, free_addresses};

/// It runs in one thread: a process for each processor, all of which accept from one socket.
pub fn workerd(site: &Site, _: &Origin) -> Result<Cache, Error> {
    let program = find("workerd")?;
    let dir = site.make_dir("workerd")?;
    let config = dir.join("workerd.capnp");
    write(&config, include_str!("../../contenders/workerd.capnp"))?;
    write(
        &dir.join("workerd.js"),
        include_str!("../../contenders/workerd.js"),
    )?;
    let [address] = free_addresses()?;
    let failed = || Error::machine("cannot listen for workerd");
    let listener = TcpListener::bind(address).map_err(failed())?;
    // Children have it, until it is dropped here.
    fcntl_setfd(&listener, FdFlags::empty()).map_err(|error| failed()(error.into()))?;
    let mut processes = Vec::new();
    for number in 1..=site.workers {
        let name = format!("workerd-{number}");
        processes.push(start(&name, &dir, &program, &config, &listener)?);
    }
    drop(listener);
    let started = Started {
        name: "workerd",
        lacks: CONSTANT,
        address,
        dir: &dir,
    };
    Cache::wait(started, processes, BODY)
}

fn start(
    name: &str,
    dir: &Path,
    program: &Path,
    config: &Path,
    listener: &TcpListener,
) -> Result<Process, Error> {
    let mut line = command(program);
    line.arg("serve")
        .arg(config)
        .arg(format!("--socket-fd=http={}", listener.as_raw_fd()));
    Process::start(name, dir, line)
}
