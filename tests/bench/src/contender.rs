//! The servers that are compared, each started on loopback and configured as someone would who
//! knows it. Their configurations are in `contenders/`.
//!
//! - [`bazaar`]: Bazaar itself;
//! - [`caches`]: nginx, HAProxy and Varnish in front of the origin server, and wasmtime;
//! - [`envoy`]: with a constant, with its cache, and with a filter in WebAssembly;
//! - [`workerd`]: a worker in JavaScript;
//! - [`etcd`]: three nodes;
//! - [`nats`]: three servers with a JetStream stream;
//! - [`postgres`]: a primary and two synchronous standbys;
//! - [`application`]: nginx and an application in front of that.

pub mod bazaar;
pub mod caches;
pub mod envoy;
pub mod workerd;
pub mod etcd;
pub mod nats;
pub mod postgres;
pub mod application;

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::generator::{Figures, Load};

/// Where contenders are started, and with how much.
#[derive(Debug, Clone)]
pub struct Site {
    /// A directory for all data: every contender's is on the same file system.
    pub dir: PathBuf,
    /// Threads that serve, where a contender has such a setting.
    pub workers: usize,
}

impl Site {
    /// Makes a directory of a contender's own.
    pub fn make_dir(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).map_err(Error::file(&dir))?;
        Ok(dir)
    }
}

/// A server that runs and can be driven.
pub trait Contender {
    /// What reports call it.
    fn name(&self) -> &str;

    /// What of Bazaar's it does not offer; reports say it beside its figures.
    fn lacks(&self) -> &'static str;

    /// Drives it, and says what was measured.
    ///
    /// # Errors
    /// Also where a single request failed.
    fn measure(&mut self, load: &Load) -> Result<Figures, Error>;
}

/// A configuration with its `{blanks}` filled in.
fn fill(template: &str, blanks: &[(&str, String)]) -> String {
    blanks
        .iter()
        .fold(template.to_owned(), |text, (blank, value)| {
            text.replace(&format!("{{{blank}}}"), value)
        })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::file(path))
}

/// Whether this process may become other users; some servers refuse to run as root.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blank_of_a_configuration_is_filled_in() {
        let text = fill(
            "listen {port}; { location {port} {dir} }",
            &[("port", "80".to_owned()), ("dir", "/x".to_owned())],
        );
        assert_eq!(text, "listen 80; { location 80 /x }");
    }
}
