//! A collector that people run: rotel, whose binary PyPI has. What it has taken in it exports to the test's own, and what that has
//! is compared. It takes nothing encrypted: that is in `traces`' own tests.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{TRADE_SPANS, Trace, a_trade_is_one_trace, send, traced};
use crate::harness::{Bazaar, Collector, Order, Outputs, Ports, Process, Speaks, skip, wait_until};

/// How the script says that there is none (`EX_UNAVAILABLE`).
const UNAVAILABLE: i32 = 69;

/// Where it listens, as indices into a block of ports.
const GRPC_PORT: u16 = 0;
const HTTP_PORT: u16 = 1;

/// Gets it; `None` where it is not to be had.
fn fetch() -> Option<PathBuf> {
    let fetch = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/fetch");
    let fetched = Command::new(fetch).stdin(Stdio::null()).output().unwrap();
    let log = String::from_utf8_lossy(&fetched.stderr);
    if fetched.status.code() == Some(UNAVAILABLE) {
        skip("no collector is to be had", log);
        return None;
    }
    assert!(fetched.status.success(), "{}: {log}", fetched.status);
    let rotel = String::from_utf8(fetched.stdout).unwrap();
    Some(rotel.trim().into())
}

/// Runs until it is dropped.
struct Rotel {
    binary: PathBuf,
    /// To whom.
    to: SocketAddr,
    process: Process,
    ports: Ports,
    dir: TempDir,
}

impl Rotel {
    /// Exports to another collector over HTTP, always compressed; `None` where it is not to be had.
    fn start(to: &Collector) -> Option<Self> {
        let binary = fetch()?;
        let (ports, dir) = (Ports::claim(), tempfile::tempdir().unwrap());
        let to = to.address();
        let process = Self::run(&binary, to, &ports, dir.path());
        Some(Self {
            binary,
            to,
            process,
            ports,
            dir,
        })
    }

    fn run(binary: &Path, to: SocketAddr, ports: &Ports, dir: &Path) -> Process {
        let (grpc, http) = (ports.address(GRPC_PORT), ports.address(HTTP_PORT));
        let arguments = [
            "start".to_owned(),
            format!("--otlp-grpc-endpoint={grpc}"),
            format!("--otlp-http-endpoint={http}"),
            "--exporter=otlp".into(),
            format!("--otlp-exporter-endpoint=http://{to}"),
            "--otlp-exporter-protocol=http".into(),
            "--batch-timeout=100ms".into(),
        ];
        let mut process =
            Process::start_release(binary, ("rotel", dir), arguments, Outputs::default());
        wait_until("rotel to listen", || {
            assert!(process.is_running(), "{}{}", process.log(), process.out());
            [grpc, http].iter().all(|at| TcpStream::connect(at).is_ok())
        });
        process
    }

    /// What services are told.
    fn flag(&self, speaks: Speaks) -> String {
        speaks.flag(self.ports.address(match speaks {
            Speaks::Http => HTTP_PORT,
            Speaks::Grpc | Speaks::Nothing => GRPC_PORT,
        }))
    }

    fn restart(&mut self) {
        self.process = Self::run(&self.binary, self.to, &self.ports, self.dir.path());
    }
}

fn a_trade_is_one_trace_by_way_of_rotel(speaks: Speaks) {
    let collector = Collector::start(Speaks::Http);
    if let Some(rotel) = Rotel::start(&collector) {
        a_trade_is_one_trace(&collector, rotel.flag(speaks));
    }
}

#[test]
fn a_collector_that_people_run_makes_one_trace_of_a_trade() {
    a_trade_is_one_trace_by_way_of_rotel(Speaks::Grpc);
}

#[test]
fn it_makes_the_same_of_what_comes_over_http() {
    a_trade_is_one_trace_by_way_of_rotel(Speaks::Http);
}

/// As one does that gets another release.
#[test]
fn its_restart_costs_no_span() {
    let collector = Collector::start(Speaks::Http);
    let Some(mut rotel) = Rotel::start(&collector) else {
        return;
    };
    let bazaar = Bazaar::start(traced(&["--trace-sample=1"], rotel.flag(Speaks::Grpc)));
    let order = Order::buy(1, "nvidia").json().to_string();
    let trade = || assert_eq!(send(&bazaar, ("POST", "/orders"), &order).status, 200);
    trade();
    Trace::wait_for(&collector, TRADE_SPANS);
    rotel.process.terminate();
    trade();
    rotel.restart();
    trade();
    let trace = Trace::wait_for(&collector, 3 * TRADE_SPANS);
    assert_eq!(trace.0.len(), 3 * TRADE_SPANS, "{}", trace.shown());
}
