//! A release of which everything that its services say to each other goes through a recorder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::lines;
use crate::harness::{Outputs, Ports, Process, request, wait_until};

/// Its processes, by their places: the catalog, replicas 1 to 3, the gateway.
pub struct Recorded {
    // They end before their directory goes.
    pub processes: Vec<Option<Process>>,
    pub release: PathBuf,
    pub dir: tempfile::TempDir,
    pub ports: Ports,
    /// Before the catalog and the replicas.
    pub doors: [SocketAddr; 4],
}

impl Recorded {
    fn url(&self, place: usize) -> String {
        format!("http://{}", self.doors[place])
    }

    pub fn start(&mut self, place: usize, further: &[&str]) {
        let data = self.dir.path();
        let dir = |name: &str| format!("--data-dir={}", data.join(name).display());
        let listen = format!("--listen={}", self.ports.address(place as u16));
        let catalog = format!("--catalog={}", self.url(0));
        let mut arguments = match place {
            0 => vec!["catalog".to_owned(), dir("catalog"), listen],
            4 => {
                let admin = format!("--admin={}", self.ports.address(5));
                let mut all = vec!["gateway".to_owned(), dir("gateway"), listen, catalog, admin];
                all.extend((1..=3).map(|id| format!("--order={id}={}", self.url(id))));
                all
            }
            id => {
                let name = format!("order-{id}");
                let mut all = vec!["order".to_owned(), dir(&name), listen, catalog];
                all.push(format!("--id={id}"));
                all.extend((1..=3).map(|id| format!("--peer={id}={}", self.url(id))));
                all
            }
        };
        arguments.extend(further.iter().map(|flag| (*flag).to_owned()));
        arguments.push("--stop-at-eof".to_owned());
        let name = format!("process-{place}");
        let process = Process::start_release(
            &self.release,
            (&name, self.dir.path()),
            arguments,
            Outputs::default(),
        );
        self.processes[place] = Some(process);
    }

    pub fn stop(&mut self, place: usize) {
        let mut process = self.processes[place].take().expect("it runs");
        assert!(process.terminate().success());
    }

    pub fn wait_until_ready(&self) {
        let admin = self.ports.address(5);
        wait_until("the release to be ready", || {
            std::net::TcpStream::connect(admin).is_ok() && {
                let status = request(admin, "GET", "/status", &[], b"").json();
                status["ready"] == true && status["catalog"]["in_sync"] == json!([1, 2, 3])
            }
        });
    }

    pub fn place(&self, key: &str, order: &Value) -> u16 {
        let key = format!("\"{key}\"");
        let headers = [("idempotency-key", key.as_str())];
        let body = order.to_string();
        let address = self.ports.address(4);
        request(address, "POST", "/orders", &headers, body.as_bytes()).status
    }

    pub fn change(&self, method: &str, target: &str, body: Value) {
        let key = format!("{method}-{target}-{}", lines(&body.to_string()));
        let body = body.to_string();
        let headers = [("idempotency-key", key.as_str())];
        let admin = self.ports.address(5);
        let changed = request(admin, method, target, &headers, body.as_bytes());
        assert_eq!(changed.status, 200, "{changed:?}");
    }
}

/// With what its log has.
pub fn copy_database(from: &Path, to: &Path) {
    let log = |database: &Path| PathBuf::from(format!("{}-wal", database.display()));
    fs::copy(from, to).unwrap();
    if log(from).exists() {
        fs::copy(log(from), log(to)).unwrap();
    }
    let copy = rusqlite::Connection::open(to).unwrap();
    copy.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    copy.close().unwrap();
}
