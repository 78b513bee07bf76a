//! HTTP/1.1 requests by wrk, from one thread, in the clear or by TLS.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::{Figures, Load};
use crate::error::Error;
use crate::process;

const FIGURES: &str = include_str!("../../contenders/figures.lua");

/// What wrk is to send.
#[derive(Debug, Clone, Copy)]
pub struct Requests<'a> {
    pub address: SocketAddr,
    /// What a plain GET asks for.
    pub path: &'a str,
    /// A script that makes other requests.
    pub script: &'a str,
    /// What the script is told.
    pub arguments: [u64; 2],
    /// Whether it is asked by TLS. What the server shows is believed.
    pub is_secure: bool,
}

impl<'a> Requests<'a> {
    /// The same GET again and again: wrk prepares it once.
    pub fn get(address: SocketAddr, path: &'a str) -> Self {
        Self {
            address,
            path,
            script: "",
            arguments: [0; 2],
            is_secure: false,
        }
    }

    /// Drives the server. `dir` is where the script is put.
    pub fn send(&self, load: &Load, dir: &Path) -> Result<Figures, Error> {
        let script = dir.join("wrk.lua");
        fs::write(&script, format!("{}\n{FIGURES}", self.script)).map_err(Error::file(&script))?;
        let scheme = if self.is_secure { "https" } else { "http" };
        let mut command = load.command(process::find("wrk")?);
        command
            .args(["--threads", "1", "--timeout", "20s"])
            .args(["--connections", &load.connections.to_string()])
            .args(["--duration", &format!("{}s", load.seconds)])
            .arg("--script")
            .arg(&script)
            .arg(format!("{scheme}://{}{}", self.address, self.path))
            .arg("--")
            .args(self.arguments.map(|argument| argument.to_string()));
        Figures::parse("wrk", &process::run(command)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin;

    #[test]
    fn wrk_measures_where_it_is_installed() {
        if process::find("wrk").is_err() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let load = Load {
            connections: 2,
            seconds: 1,
            cpu: None,
        };
        let origin = origin::start().unwrap();
        let figures = Requests::get(origin.address, "/").send(&load, dir.path());
        let figures = figures.unwrap().without_errors("origin").unwrap();
        assert!(
            figures.requests > 10 && figures.p50_us <= figures.p99_us,
            "{figures:?}"
        );
    }
}
