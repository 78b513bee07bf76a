//! Who sends the requests, and what was measured.
//!
//! - [`wrk`]: HTTP/1.1, by wrk;
//! - [`h2load`]: HTTP/2, by nghttp2's generator;
//! - [`put`]: etcd's own gRPC, which wrk does not speak;
//! - [`publish`]: NATS' own protocol, the same;
//! - [`mix`]: lookups and trades in one stream, of each their p99.9;
//! - [`clients`]: how `put` and `publish` drive a server, and [`tally`]: what these three measured;
//! - pgbench is started by [`crate::contender::postgres`], since it speaks to nothing else.
//!
//! All are closed loops: a connection sends its next request when the answer is there.

pub mod wrk;
pub mod h2load;
pub mod put;
pub mod publish;
pub mod clients;
pub mod mix;
pub mod tally;

use std::ffi::OsStr;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::process;

/// What the generators of this crate store at stores that know no orders: what a client orders at Bazaar, as long as with wrk.
const ORDER: &str = r#"{"name":"nvidia","type":"sell","quantity":1} "#;

/// How hard to drive a server.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections, each with one request under way.
    pub connections: u32,
    pub seconds: u64,
    /// The processor that the generator is kept on; any where there is none.
    pub cpu: Option<usize>,
}

impl Load {
    /// A generator's command line, on its processor.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self.cpu {
            Some(cpu) => {
                let mut command = process::command("taskset");
                command.args(["--cpu-list", &cpu.to_string()]).arg(program);
                command
            }
            None => process::command(program),
        }
    }
}

/// What a generator measured. Its line of JSON has these fields.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How many were answered, refused ones included.
    pub requests: u64,
    pub duration_us: u64,
    pub p50_us: f64,
    /// What one request in a hundred took at least.
    pub p99_us: f64,
    pub max_us: f64,
    /// How many were answered with something else than success.
    pub refused: u64,
    /// How many were not answered.
    pub broken: u64,
}

impl Figures {
    /// Reads the last line that a generator printed.
    pub fn parse(generator: &str, output: &str) -> Result<Self, Error> {
        let line = output.trim_end().lines().next_back().unwrap_or_default();
        serde_json::from_str(line).map_err(|_| Error::NoFigures {
            generator: generator.to_owned(),
            output: output.to_owned(),
        })
    }

    /// Requests answered in a second.
    pub fn per_second(&self) -> f64 {
        self.requests as f64 * 1e6 / self.duration_us.max(1) as f64
    }

    /// These figures, unless a request failed: errors are often faster than answers.
    pub fn without_errors(self, name: &str) -> Result<Self, Error> {
        if self.refused == 0 && self.broken == 0 && self.requests > 0 {
            return Ok(self);
        }
        Err(Error::Errors {
            name: name.to_owned(),
            requests: self.requests,
            refused: self.refused,
            broken: self.broken,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 1s test @ http://127.0.0.1:1\n  1 threads\n\
        {\"requests\":4000,\"duration_us\":2000000,\"p50_us\":700.0,\"p99_us\":1500.5,\
        \"max_us\":9000.0,\"refused\":0,\"broken\":0}\n";

    #[test]
    fn figures_are_the_last_line_that_was_printed() {
        let figures = Figures::parse("wrk", PRINTED).unwrap();
        assert_eq!((figures.per_second(), figures.p99_us), (2000.0, 1500.5));
        assert!(figures.without_errors("nginx").is_ok());
        for output in ["", "unable to connect", "{\"requests\":1}"] {
            assert!(Figures::parse("wrk", output).is_err(), "{output}");
        }
    }

    #[test]
    fn figures_of_failed_requests_are_refused() {
        let figures = Figures::parse("wrk", PRINTED).unwrap();
        let refused = Figures {
            refused: 1,
            ..figures
        };
        let broken = Figures {
            broken: 1,
            ..figures
        };
        let nothing = Figures {
            requests: 0,
            ..figures
        };
        for figures in [refused, broken, nothing] {
            assert!(figures.without_errors("nginx").is_err(), "{figures:?}");
        }
    }
}
