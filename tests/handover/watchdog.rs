//! A service is not said to be alive while it is of no use.

use super::supervisor::{ALIVE, READY, Supervisor};
use super::*;

/// How long a service that the [supervisor](Supervisor::start) wants to hear of is silent at most while it is alive.
const ALIVE_EVERY: Duration = Duration::from_millis(200);

/// A catalog's writer waits for its disk beside the thread that serves; a replica that has little to do waits with that one.
#[test]
fn a_supervisor_hears_nothing_of_a_service_while_its_disk_stands_still() {
    let mut bazaar = Bazaar::start(Options {
        monitored: true,
        ..Options::default()
    });
    let follower = bazaar.follower();
    let ledger = bazaar.data_dir(follower).join("orders.db");
    for (server, database) in [
        (Server::Catalog, bazaar.catalog_dir().join("catalog.db")),
        (Server::Order(follower), ledger),
    ] {
        // One each: the first goes on to tell its own that it is alive.
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(dir.path());
        assert!(bazaar.server(server).terminate().success());
        let process = supervisor.start(&bazaar, server, &[]);
        drop(bazaar.put_server(server, process));
        supervisor.wait_for(READY, &[ALIVE]);
        bazaar.wait_until_ready();
        bazaar.trade(&Order::sell(1, "nvidia"));
        let (clients, metrics) = (bazaar.address(), bazaar.metrics_address(server));
        let order = Order::sell(1, "nvidia").json().to_string();
        // Nobody else writes meanwhile.
        let other = rusqlite::Connection::open(&database).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        thread::scope(|scope| {
            let traded = scope.spawn(move || {
                try_request(clients, "POST", "/orders", &[], order.as_bytes(), PATIENCE)
            });
            supervisor.wait_for_silence();
            if server == Server::Catalog {
                let alive = try_request(metrics, "GET", "/healthz", &[], b"", PATIENCE);
                assert_eq!(alive.unwrap().status, 200, "what serves goes on");
            }
            drop(other);
            supervisor.wait_for(ALIVE, &[]);
            assert_eq!(traded.join().unwrap().unwrap().status, 200);
        });
    }
    let log = bazaar.server(Server::Catalog).log();
    assert!(log.contains("a thread stands still"), "{log}");
}

impl Supervisor {
    /// Waits until it is not told for long that a service is alive.
    fn wait_for_silence(&self) {
        let time = Some(3 * ALIVE_EVERY);
        self.socket.set_read_timeout(time).unwrap();
        let began = Instant::now();
        let mut told = [0; 64];
        while self.socket.recv(&mut told).is_ok() {
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(4), "it is told all the time");
        }
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}
